#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# limit: 200
# `concc run` and those around it: what is said when it was of no use, who stops the server, what
# signals do.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_ROOT=default
lab_need jq gcc make cmake ninja
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"
echo 'int f(void) { return 1; }' >a.c
GCC=$(command -v gcc)

# The command, and what is said of it: one line.
says() { # PATTERN CMD...
	local pattern=$1
	shift
	concc run -- "$@" >"$LAB/out" 2>"$LAB/err" || fail "$(cat "$LAB/out" "$LAB/err")"
	cat "$LAB/err"
	expect_grep "^concc: no compiler call came through concc: $pattern" "$LAB/err"
	expect_eq "lines of that" "$(grep -c 'no compiler call' "$LAB/err")" 1
}

by_path() {
	printf 'CC = gcc\nall: ; $(CC) -c a.c\n' >Makefile
	says "CC=$GCC calls the compiler by its path; say CC=gcc$" make CC="$GCC"
	CC=$GCC says "CC=$GCC in the environment .*; say CC=gcc$" make -e
	says "$GCC was called by its path; call it gcc$" "$GCC" -c a.c
	mkdir -p sub
	printf 'CC = %s\nall: ; $(CC) -c ../a.c\n' "$GCC" >sub/Makefile
	says "Makefile calls $GCC by its path; say .make CC=gcc.$" make -C sub
	concc run -- make -C sub CC=gcc 2>"$LAB/err"
	expect_grep ': 1 remote' "$LAB/err"
	printf 'rule cc\n command = %s -c $in\nbuild a.o: cc a.c\n' "$GCC" >build.ninja
	says "build.ninja calls $GCC by its path; let it call gcc$" ninja
}

# What is advised must help.
cmake_before() {
	local line
	mkdir -p cm
	printf '%s\n' 'cmake_minimum_required(VERSION 3.13)' 'project(p C)' 'add_library(p a.c)' >cm/CMakeLists.txt
	cp a.c cm
	cmake -G Ninja -S cm -B cm/b >/dev/null
	says "CMake chose $(command -v cc) before, without concc; say it once: " ninja -C cm/b
	line=$(grep 'CMake chose' "$LAB/err")
	[[ $line =~ \`(concc run -- cmake [^\`]*)\`,\ or\ \`(cmake [^\`]*)\` ]] || fail "no advice"
	sh -c "${BASH_REMATCH[1]}" >/dev/null 2>&1
	concc run -- ninja -C cm/b >/dev/null 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep ': 1 remote' "$LAB/err"
	rm -r cm/b
	cmake -S cm -B cm/b >/dev/null
	says "CMake chose" cmake --build cm/b
	sh -c "${BASH_REMATCH[2]}" >/dev/null 2>&1
	touch cm/a.c
	concc run -- cmake --build cm/b >/dev/null 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep ': 1 remote' "$LAB/err"
}

others() {
	printf '#!/bin/sh\n' >cargo
	chmod +x cargo
	RUSTC_WRAPPER=sccache says 'RUSTC_WRAPPER=sccache stands in its place' ./cargo build
	printf 'all:\n' >Makefile
	says 'nothing was to be compiled, or ' make
	rm -f Makefile build.ninja
	concc run -- true 2>"$LAB/err"
	expect_no_grep 'no compiler call' "$LAB/err"
}

most_here() {
	concc run -- sh -c 'gcc -march=native -c a.c; gcc -march=native -c a.c; gcc -c a.c -o /tmp/a.o; rm /tmp/a.o' \
		2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: 2 jobs ran here by the rule "native": name the processor' "$LAB/err"
}

check "compilers by their paths" by_path
check "CMake configured before" cmake_before
check "other reasons for no jobs" others
check "why most jobs stayed" most_here
lab_stop
