#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What workers are told ahead of need of the client's system: the trees that a project's jobs have
# used, and no others.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq git
LAB_ROOT=default
lab_enter "$@"
lab_start builder
A=/srv/a B=/srv/b

# Two toolchains, each with many directories, and two projects.
for t in one two; do
	for i in $(seq 30); do
		mkdir -p "/srv/opt/$t/d$i"
		seq -f "$t $i %g" 3000 >"/srv/opt/$t/d$i/data"
	done
	printf '#!/bin/sh\ncat /srv/opt/%s/*/data | wc -c\n' $t >"/srv/opt/$t/tool"
	chmod +x "/srv/opt/$t/tool"
done
for p in $A $B; do
	mkdir -p $p
	git -C $p init -q
done
lab_config
sed -i '/^workspace/d; /^toolchain = .*rustup/d; s|^\[concc\]|&\ntoolchain = /srv/opt/one /srv/opt/two|' /srv/concc.ini

# A worker that was never seen, with a server that remembers.
new_worker() {
	concc stop || true
	lab_agents_gone
	lab_worker 1 rm -rf "$(lab_worker_cache 1)/store"
}

uses() { # PROJECT TREE
	(cd "$1" && CONCC_EXPLAIN=1 concc-dispatch "/srv/opt/$2/tool" >"$LAB/got" 2>"$LAB/err") || fail "$(cat "$LAB/err")"
	cat "$LAB/err"
	expect_grep '^concc: remote on w1' "$LAB/err"
	expect_eq "bytes" "$(cat "$LAB/got")" "$(cat /srv/opt/"$2"/*/data | wc -c)"
	echo "note: $1 with $2: $(lab_status '.workers[0].lists') lists, $(lab_status '.workers[0].fetched_bytes') bytes"
}

# How many files there are on w1 with contents of that tree.
held() { # TREE
	lab_worker 1 sh -c "grep -la '^$1 [0-9]* 1\$' $(lab_worker_cache 1)/store/*/* | wc -l"
}

only_what_is_used() {
	uses $A one
	uses $B two
	new_worker
	uses $A one
	expect_eq "files of the one" "$(held one)" 30
	expect_eq "files of the other" "$(held two)" 0
}

# What was used before needs no question: all is on its way before the job asks.
ahead() {
	new_worker
	uses $B two
	expect_le "listings that were asked for" "$(lab_status '.workers[0].lists')" 15
	expect_eq "files of the other" "$(held one)" 0
}

# A project that comes to use another tree, is told of all of it at once.
begins_to() {
	local before
	before=$(lab_status '.workers[0].lists')
	uses $B one
	expect_le "listings that were asked for" $(($(lab_status '.workers[0].lists') - before)) 15
	expect_eq "files" "$(held one)" 30
	new_worker
	uses $B two
	(cd $B && concc-dispatch cat /srv/opt/one/*/data >/dev/null)
	expect_le "listings that were asked for" "$(lab_status '.workers[0].lists')" 15
}

check "only trees that a project has used are sent" only_what_is_used
check "they are sent ahead of need" ahead
check "others when it begins to use them" begins_to
lab_stop
