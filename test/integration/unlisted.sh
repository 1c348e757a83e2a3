#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What is served without being listed: a build tool's work directory, what a program was unpacked with.  And
# what is not, though it is beside it, nor in a listing; with root = client, and at `local:`.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq gcc
LAB_ROOT=default
lab_enter "$@"
lab_start builder
P=/srv/home/src/project
W=/tmp/go-build$(date +%s%N)
mkdir -p $P
git init -q $P
echo 'int x;' >$P/a.c
cd $P

use() { # ROOT
	printf '[worker w1]\naddress = ssh://w1\nprogram = /mnt/bin/concc-worker\nslots = 4\n' >/srv/client.ini
	printf '[worker here]\naddress = local:\nprogram = %s\nslots = 4\n' "$LAB_BIN/concc-worker" >/srv/local.ini
	export CONCC_CONFIG=/srv/$1.ini CONCC_RUNTIME_DIR=/srv/run-$1
	[ -d "$CONCC_RUNTIME_DIR" ] || mkdir -m 700 "$CONCC_RUNTIME_DIR"
}

there() { # CMD...
	CONCC_EXPLAIN=1 "$@" >"$LAB/got" 2>"$LAB/err" || { cat "$LAB/err"; fail "$*"; }
	cat "$LAB/err"
	expect_grep '^concc: remote on' "$LAB/err"
}

here() { # RULE CMD...
	CONCC_EXPLAIN=1 "${@:2}" >"$LAB/got" 2>"$LAB/err" || { cat "$LAB/err"; fail "${*:2}"; }
	cat "$LAB/err"
	expect_grep "^concc: local: $1 " "$LAB/err"
}

work_directory() {
	mkdir -m 700 ${W}1
	there concc-cc gcc -c a.c -o ${W}1/a.o
	[ -e ${W}1/a.o ] || fail "it is not there"
	cp a.c ${W}1/b.c
	(cd ${W}1 && there concc-cc gcc -c b.c)
	there concc-cc gcc -c ${W}1/b.c -o b.o
	rm -r ${W}1
}

# Each build makes one.
many_work_directories() {
	local i
	for i in {1..70}; do
		mkdir -m 700 "${W}1$i"
		there concc-cc gcc -c a.c -o "${W}1$i"/a.o >/dev/null
		rm -r "${W}1$i"
	done
}

of_somebody_else() {
	mkdir -m 777 ${W}2
	chmod 777 ${W}2
	here tmp-output concc-cc gcc -c a.c -o ${W}2/a.o
	chmod 700 ${W}2
	chown 1234 ${W}2
	here tmp-output concc-cc gcc -c a.c -o ${W}2/b.o
	rm -r ${W}2
	ln -s $P ${W}2
	here tmp-output concc-cc gcc -c a.c -o ${W}2/b.o
	rm ${W}2
}

# A script that says what it sees beside itself.
program() { # DIR
	mkdir -p "$1"
	printf '#!/bin/sh\ncat "$(dirname "$0")/../%s"\n' "$2" >"$1/$3"
	chmod 755 "$1/$3"
}

unpacked() {
	program /srv/home/opt/tool-1/bin lib/data tool
	mkdir -p /srv/home/opt/tool-1/lib
	echo data >/srv/home/opt/tool-1/lib/data
	there concc-dispatch /srv/home/opt/tool-1/bin/tool
	expect_eq "what it said" "$(cat "$LAB/got")" data
	mkdir -p /srv/home/bin
	ln -sfn ../opt/tool-1/bin/tool /srv/home/bin/by-link
	printf '#!/bin/sh\nexec cat "$(dirname "$(readlink -f "$0")")/../lib/data"\n' >/srv/home/opt/tool-1/bin/tool
	there concc-dispatch /srv/home/bin/by-link
	expect_eq "what it said" "$(cat "$LAB/got")" data
}

# ~/.docker/bin is one thing, ~/.docker/config.json another; so is what is beside ~/bin.
not_what_is_beside() {
	mkdir -p /srv/home/.things/lib
	program /srv/home/.things/bin config.json tool
	echo token >/srv/home/.things/config.json
	here missing concc-dispatch /srv/home/.things/bin/tool
	# A directory of keys is not served at all.
	program /srv/home/.docker/bin config.json tool
	echo token >/srv/home/.docker/config.json
	here '(unserved|missing|gave-up)' concc-dispatch /srv/home/.docker/bin/tool
	program /srv/home/bin notes tool
	echo notes >/srv/home/notes
	here missing concc-dispatch /srv/home/bin/tool
	program /srv/home/things notes tool
	here '(unserved|missing)' concc-dispatch /srv/home/things/tool
	mkdir -p /srv/home/.ssh/bin
	program /srv/home/.ssh/bin notes tool
	echo notes >/srv/home/.ssh/notes
	here '(unserved|toolchain)' concc-dispatch /srv/home/.ssh/bin/tool
}

# Directories above have the names of what is served, and of nothing else; who looks for more there runs here.
listings() {
	mkdir -p /srv/home/secret-name /srv/home/src/other
	there concc-dispatch sh -c 'ls -A /srv/home /srv/home/src'
	expect_grep '^project$' "$LAB/got"
	! grep -Eq 'secret-name|other|[.]ssh' "$LAB/got" || fail "more than what is served: $(cat "$LAB/got")"
	there concc-dispatch sh -c 'cd .. && ls -A | wc -l'
	expect_eq "names beside the project" "$(cat "$LAB/got")" 1
	here missing concc-dispatch sh -c 'ls /srv/home; test -d /srv/home/secret-name && echo there'
	expect_grep '^secret-name$' "$LAB/got"
	echo '{}' >/srv/home/package.json
	here missing concc-dispatch sh -c 'ls /srv/home'
	expect_grep '^package.json$' "$LAB/got"
	rm /srv/home/package.json
	there concc-dispatch sh -c 'ls /srv/home'
}

# Where everybody makes files, somebody else says that all of it is one project.  What lies beside ours is not
# shown for that, by whichever way it is found.
marked_by_others() { # DIR CMD...
	local dir=$1
	shift
	mkdir -p "$dir/mine"
	chmod 1777 "$dir"
	mkdir "$dir/.git"
	echo 'ref: refs/heads/x' >"$dir/.git/HEAD"
	chown -R 1234 "$dir/.git"
	echo secret >"$dir/beside"
	echo 'all:' >"$dir/mine/Makefile"
	cd "$dir/mine"
	CONCC_EXPLAIN=1 "$@" concc-dispatch sh -c 'cat ../beside; echo >out' >"$LAB/got" 2>"$LAB/err" || true
	cd $P
	rm -r "$dir/.git" "$dir/mine" "$dir/beside"
	cat "$LAB/got" "$LAB/err"
	expect_grep '^concc: local: ' "$LAB/err"
}

for root in client local; do
	use $root
	check "$root: a work directory" work_directory
	check "$root: one after another" many_work_directories
	check "$root: what others may write to" of_somebody_else
	check "$root: an unpacked program" unpacked
	check "$root: what is beside a program" not_what_is_beside
	check "$root: listings" listings
	check "$root: what others mark" marked_by_others /srv/scratch
	check "$root: what others mark, by concc run" marked_by_others /srv/scratch concc run --
	check "$root: /tmp" marked_by_others /tmp
	check "$root: /tmp, by concc run" marked_by_others /tmp concc run --
	concc stop
done
lab_stop
