#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# limit: 300
# A project server that is not the right one any more: its configuration has changed, or concc has.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_ROOT=default
lab_need jq gcc make
lab_enter "$@"
lab_start builder root
lab_config
cp /srv/concc.ini /srv/both.ini
sed '/worker w2/,$d' /srv/both.ini >/srv/one.ini
cp /srv/one.ini /srv/concc.ini
cd "$WS"
lab_slow_job
echo 'int f(void) { return 1; }' >a.c

compile() { # WANTED
	CONCC_EXPLAIN=1 concc-cc gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	cat "$LAB/err"
	expect_grep "^concc: $1" "$LAB/err"
	expect_eq "lines said" "$(wc -l <"$LAB/err")" 1
}

# Who has found the server before it hears of the change is served by it yet.  When it answers, it has
# heard of what was before the question.
noticed() {
	concc status >/dev/null 2>&1 || true # it may have gone
}

# Replaced or written into, the next call has it; what runs meanwhile goes on where it is.
changed() { # HOW: a command that puts its first argument in place of the second
	local server
	cp /srv/one.ini /srv/concc.ini
	lab_stop_server
	compile 'remote on w1'
	server=$(lab_server_pid)
	lab_slow_start
	"$@" /srv/both.ini /srv/concc.ini
	noticed
	compile 'remote on '
	expect_eq "workers" "$(lab_status '.workers | length')" 2
	expect_ne "the server" "$(lab_server_pid | tail -n 1)" "$server"
	lab_slow_kill # until then it was where it was, and what ends it there is its end
	lab_slow_wait
	cat "$LAB/slow.err"
	expect_eq "status of the job" "$SLOW_STATUS" 137
	expect_gone "the former server" "$server"
	lab_stop_server
}

replaced() { changed install -m 600; }
written() { changed sh -c 'cat "$1" >"$2"' sh; }

# A wrong one is told, and not followed; made right again, nothing happens.
broken() {
	local server
	cp /srv/one.ini /srv/concc.ini
	compile 'remote on w1'
	server=$(lab_server_pid)
	cp -p /srv/concc.ini /srv/right.ini
	echo 'nonsense = 1' >>/srv/concc.ini
	compile 'remote on w1'
	concc status >"$LAB/status"
	cat "$LAB/status"
	expect_grep '^its configuration has changed and is wrong; the former one is in use: .*concc.ini:[0-9]+: ' "$LAB/status"
	concc run -- gcc -c a.c 2>"$LAB/err"
	expect_eq "said" "$(grep -c '^concc: the configuration is wrong, and the former one in use: ' "$LAB/err")" 1
	expect_eq "the server" "$(lab_server_pid)" "$server"
	cp /srv/one.ini /srv/concc.ini
	compile 'remote on w1'
	concc status >"$LAB/status"
	expect_no_grep 'configuration has changed' "$LAB/status"
	lab_stop_server
}

# There was none, and then there is.
appears() {
	export CONCC_CONFIG=/srv/home/later.ini HOME=/srv/home
	unset CONCC_CONFIG
	rm -f /srv/home/.concc.ini
	concc-dispatch true
	expect_eq "workers" "$(lab_status '.workers[0].name')" local1
	cp /srv/one.ini /srv/home/.concc.ini
	noticed
	concc-dispatch true
	expect_eq "workers" "$(lab_status '.workers[0].name')" w1
	lab_stop_server
}

# Of another version: it ends, and ours begins.
older() {
	local server
	local line=''
	cp /srv/one.ini /srv/concc.ini
	mkfifo "$LAB/ready"
	"$LAB_BUILD/test/other/bin/concc-project" --daemon --ready-fd=3 3<>"$LAB/ready" &
	read -r -t "$LAB_LIMIT" line <"$LAB/ready" || true
	expect_eq "the older server" "$line" ready
	server=$(lab_server_pid)
	[ -n "$server" ] || fail "it does not run"
	compile 'remote on w1'
	expect_gone "the older server" "$server"
	lab_stop_server
}

check "the configuration is replaced" replaced
check "the configuration is written into" written
check "the configuration is broken" broken
check "a configuration appears" appears
check "a server from before an upgrade" older
lab_stop
