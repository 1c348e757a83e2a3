#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A project that is called by a symbolic link: jobs see the link as a link, so that $PWD, getcwd(3) and what
# compilers write into debug information are as they are here; on both roots, and at `local:`.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq
LAB_ROOT=default
lab_enter "$@"
lab_start builder
P=/srv/home/src/project
mkdir -p $P/inc $P/sub /srv/home/src/other/inc /srv/home/links
for d in $P /srv/home/src/other; do
	git init -q "$d"
done
echo 'int x = __COUNTER__;' >$P/inc/x.h
echo 'int y;' >/srv/home/src/other/inc/y.h
printf '#include "x.h"\nconst char *f(void) { return __FILE__; }\n' >$P/a.c
cp $P/a.c $P/sub/b.c
ln -s ../src/project /srv/home/links/relative
ln -s $P /srv/home/links/absolute
ln -s absolute /srv/home/links/twice
ln -s src /srv/home/above
ln -s ../../../home/src/project/sub $P/inside
ln -s /srv/home/src/other/inc /srv/home/links/headers

use() { # ROOT
	printf '[worker w1]\naddress = ssh://w1\nprogram = /mnt/bin/concc-worker\nslots = 4\n' >/srv/client.ini
	printf '[worker here]\naddress = local:\nprogram = %s\nslots = 4\n' "$LAB_BIN/concc-worker" >/srv/local.ini
	sed 's/^slots/root = worker\n&/' /srv/client.ini >/srv/worker.ini
	export CONCC_CONFIG=/srv/$1.ini CONCC_RUNTIME_DIR=/srv/run-$1
	[ -d "$CONCC_RUNTIME_DIR" ] || mkdir -m 700 "$CONCC_RUNTIME_DIR"
}

# In the directory, called as it is named: here and there the same bytes and words.
same() { # DIR CMD...
	local dir=$1 rc=0
	shift
	(cd "$dir" && "$@" -o out.o && mv out.o "$LAB/want.o" && pwd && pwd -P) >"$LAB/want" 2>&1
	(
		cd "$dir"
		CONCC_EXPLAIN=1 concc-cc "$@" -o out.o && mv out.o "$LAB/got.o"
		CONCC_EXPLAIN=1 concc-dispatch sh -c 'pwd; pwd -P'
	) >"$LAB/got" 2>"$LAB/err" || rc=$?
	cat "$LAB/err"
	expect_eq "status" $rc 0
	expect_eq "remote, $dir" "$(explained_remote "$LAB/err")" 2
	expect_same_file "$LAB/want" "$LAB/got"
	expect_same_file "$LAB/want.o" "$LAB/got.o"
}

by_name() {
	local d
	for d in relative absolute twice; do
		same /srv/home/links/$d gcc -g -Iinc -c a.c
		same /srv/home/links/$d/sub gcc -g -I../inc -c b.c
	done
	same /srv/home/above/project gcc -g -Iinc -c a.c
	same $P/inside gcc -g -I../inc -c b.c
	same /srv/home/links/twice/inside gcc -g -I../inc -c b.c
	readelf --debug-dump=info "$LAB/got.o" | grep DW_AT_comp_dir >"$LAB/dir"
	expect_grep '/srv/home/links/twice/inside$' "$LAB/dir"
}

in_arguments() {
	same $P gcc -g -I/srv/home/links/relative/inc -c /srv/home/links/absolute/a.c
	same $P gcc -g -Iinc -I/srv/home/links/headers -include y.h -c a.c
	same $P gcc -g -Iinc -I/srv/home/above/other/inc -include y.h -c a.c
}

# Nothing is missing, so it isn't done again here; and what is printed is not held until it is known to be right.
failing() {
	local rc=0
	echo 'int bad = nothing;' >$P/bad.c
	(cd $P && gcc -c /srv/home/links/absolute/bad.c) 2>"$LAB/want" || true
	: >"$LAB/why"
	(cd $P && CONCC_EXPLAIN="$LAB/why" concc-cc gcc -c /srv/home/links/absolute/bad.c) 2>"$LAB/err" || rc=$?
	expect_eq "status" $rc 1
	expect_same_file "$LAB/want" "$LAB/err"
	cat "$LAB/why"
	expect_eq "remote" "$(explained_remote "$LAB/why")" 1
}

# A directory of PATH may be behind one, and be known as a directory from a job before.
in_path() {
	mkdir -p $P/bin
	ln -s src/project /srv/home/late
	PATH=/srv/home/late/bin:$PATH same $P gcc -g -Iinc -c a.c
	PATH=/srv/home/late/bin:$PATH same /srv/home/late gcc -g -Iinc -c a.c
}

changes() {
	ln -s src/project /srv/home/moving
	same /srv/home/moving gcc -g -Iinc -c a.c
	rm -rf /srv/home/src/second
	cp -a $P /srv/home/src/second
	echo 'int second;' >>/srv/home/src/second/a.c
	ln -sfn src/second /srv/home/moving
	same /srv/home/moving gcc -g -Iinc -c a.c
	rm /srv/home/moving
	same $P gcc -g -Iinc -c a.c
	(cd $P && concc-dispatch sh -c 'readlink /srv/home/moving || echo none') >"$LAB/got" 2>&1
	expect_eq "a link that has gone" "$(cat "$LAB/got")" none
	cp -a $P /srv/home/moving
	same /srv/home/moving gcc -g -Iinc -c a.c
	rm -r /srv/home/moving
	ln -s src/project /srv/home/moving
	(cd /srv/home/moving && gcc -g -Iinc -c a.c -o "$LAB/want.o" && concc-cc gcc -g -Iinc -c a.c -o out.o)
	expect_same_file "$LAB/want.o" $P/out.o
	rm /srv/home/moving
}

# Not where jobs have something of their own.
in_tmp() {
	local link=/tmp/concc-link-$$
	ln -sfn $P $link
	(cd $link && gcc -g -Iinc -c a.c -o "$LAB/want.o" &&
		CONCC_EXPLAIN=1 concc-cc gcc -g -Iinc -c a.c -o out.o) 2>"$LAB/err"
	rm $link
	expect_grep 'local: symlinked-cwd' "$LAB/err"
	expect_same_file "$LAB/want.o" $P/out.o
}

for root in client local; do
	use $root
	rm -rf /srv/home/late
	check "$root: the current directory" by_name
	check "$root: arguments" in_arguments
	check "$root: arguments of what fails" failing
	check "$root: PATH" in_path
	check "$root: a link that changes" changes
	check "$root: a link in /tmp" in_tmp
	concc stop
done
use worker
check "worker: arguments of what fails" failing
concc stop
lab_stop
