#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# `concc run` and `concc status`: what they leave, and what they say.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_ROOT=default
lab_need jq gcc
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"
echo 'int f(void) { return 1; }' >a.c

# A runtime directory of its own, with the /etc that is served to jobs: all of it goes.
leaves_nothing() {
	local dir
	# shellcheck disable=SC2016 # the build's variables
	concc run -w w1 -- sh -c 'gcc -c a.c && ls "$CONCC_RUNTIME_DIR/etc" >etc && echo "$CONCC_RUNTIME_DIR"' \
		>dir 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	cat "$LAB/err"
	dir=$(cat dir)
	[[ $dir == /tmp/concc-run-?* ]] || fail "the runtime directory is $dir"
	expect_grep . etc
	expect_no_file "$dir"
	expect_no_grep left-over "$LAB/err"
}

# What a symlink in it leads to stays.
through_no_symlink() {
	mkdir "$WS/kept"
	echo keep >"$WS/kept/file"
	# shellcheck disable=SC2016 # the build's variables
	concc run -w w1 -- sh -c 'mkdir -m 500 "$CONCC_RUNTIME_DIR/d" && ln -s "$PWD/kept" "$CONCC_RUNTIME_DIR/l" &&
		echo "$CONCC_RUNTIME_DIR"' >dir 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_no_file "$(cat dir)"
	expect_file "$WS/kept/file"
}

# One of each, and "1 job".
one_job() {
	concc run -- gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep '^concc: 1 job in ' "$LAB/err"
	concc-dispatch true
	concc status >"$LAB/status"
	cat "$LAB/status"
	expect_grep '^w1 .* 1 job   ' "$LAB/status"
	expect_grep '^1 job, 0 running' "$LAB/status"
	lab_stop_server
}

# A job that is sent back is told of once, with what became of it.
sent_back_once() {
	printf '#!/bin/sh\necho unlisted\n' >/srv/home/unlisted
	chmod 755 /srv/home/unlisted
	concc-dispatch /srv/home/unlisted
	concc status >"$LAB/status"
	cat "$LAB/status"
	expect_eq "lines with its rule" "$(grep -c '^  unserved  *1$' "$LAB/status")" 1
	expect_eq "of the server" "$(lab_status .reasons.unserved)" 1
	lab_stop_server
}

# The same reason is not told twice, another one is; and CONCC_EXPLAIN leaves out nothing.
reason_once() {
	concc run -w ssh://127.0.0.1:1 -- sh -c 'gcc -c a.c && rm a.o' 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	cat "$LAB/err"
	expect_eq "lines with the reason" "$(grep -c refused "$LAB/err")" 1
	expect_grep "^concc: worker .* can't be used now: .*refused" "$LAB/err"
	expect_grep '^concc: no worker can be reached; running it here$' "$LAB/err"
	# The server has ended with the build: nobody can be asked any more.
	expect_grep 'by the rule "no-worker": `concc doctor ssh://127.0.0.1:1` says why' "$LAB/err"
	CONCC_EXPLAIN=1 concc run -w ssh://127.0.0.1:1 -- gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep '^concc: local: no-worker .no worker can be reached .*refused' "$LAB/err"
}

# A level that does not exist: said, by all that log.
log_level() {
	CONCC_LOG=bogus expect_status 102 concc run -- true 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: CONCC_LOG: bogus is none of err, warn, info, debug$' "$LAB/err"
	CONCC_LOG=bogus concc-worker --version 2>"$LAB/err"
	expect_grep '^concc-worker: ignoring CONCC_LOG=bogus: none of err, warn, info, debug$' "$LAB/err"
	CONCC_LOG='' concc run -- true 2>"$LAB/err" || fail "$(cat "$LAB/err")"
}

check "concc run -w leaves nothing in /tmp" leaves_nothing
check "concc run -w removes no more than that" through_no_symlink
check "one job" one_job
check "why no worker can be used is told once" reason_once
check "what was sent back is counted once" sent_back_once
check "a CONCC_LOG that does not exist" log_level
lab_stop
