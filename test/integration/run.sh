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

check "concc run -w leaves nothing in /tmp" leaves_nothing
check "concc run -w removes no more than that" through_no_symlink
lab_stop
