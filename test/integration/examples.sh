#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# The scripts of examples/ as they stand: c, cpp and rust on two workers of this machine, without a
# configuration; remote on the lab's, over ssh.  linux takes minutes: with CONCC_TEST_LONG=1 only.
# (docker: `make check-images`, slurm: slurm.sh, kubernetes: on-demand.sh.)
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
# The lab begins with a clean environment.
[ -n "${LAB_INSIDE-}" ] || set -- "${CONCC_TEST_LONG:+long}"
lab_source lua5.4
lab_enter "$@"
lab_start builder root
LONG=${1-}
E=$LAB_REPO/examples

# Runs an example; what it leaves is below $OUT only.
example() { # NAME [ARG...]
	local name=$1
	shift
	OUT=$WS/$name JOBS=4 CONCC_EXPLAIN=1 "$E/$name/run" "$@" >"$LAB/out" 2>&1 || {
		cat "$LAB/out"
		fail "examples/$name/run failed"
	}
	cat "$LAB/out"
	files | diff "$LAB/files" - || fail "examples/$name leaves files there"
	# It ends by itself when its directory is removed.
	expect_gone "the example's project server" $(lab_server_pid)
}

files() {
	find "$E" | sort
}

# The line at the end: so many jobs went to workers, none failed to.
summary() { # MIN-REMOTE WORKER
	local line
	line=$(grep '^concc: [0-9]* jobs in ' "$LAB/out") || fail "there is no line that tells of the jobs"
	[[ $line =~ \ ([0-9]+)\ remote\ .*$2 ]] || fail "no job on $2: $line"
	expect_ge "remote jobs" "${BASH_REMATCH[1]}" "$1"
	expect_no_grep '^concc: local: (missing|gave-up|unreachable)|something failed' "$LAB/out"
}

c() {
	mkdir "$WS/c"
	cp -r "$LAB_SOURCE" "$WS/c/lua5.4"
	example c
	summary 30 local1
	expect_grep '^Lua 5.4 is built$' "$LAB/out"
}

cpp() {
	lab_need cmake ninja g++
	example cpp
	summary 4 local1
	expect_grep '^[0-9]+ the$' "$LAB/out"
}

rust() {
	lab_need cargo rustc cc
	CONCC_TOOLCHAIN=$LAB_RUST example rust
	summary 3 local1
	expect_grep '^1991 MCMXCI$' "$LAB/out"
}

# A machine that can't be reached is told, and the others do the work.
remote() {
	export PROGRAM=/mnt/bin/concc-worker
	example remote w1 root@w2 w1:9
	summary 20 'm1-w1'
	expect_grep 'm2-root-w2' "$LAB/out"
	expect_grep 'm3-w1-9 .*down' "$LAB/out"
	expect_grep '^concc: remote on m2-root-w2$' "$LAB/out"
	PROGRAM=/no/such/program expect_status 1 "$E/remote/run" w1 >"$LAB/out" 2>&1
	cat "$LAB/out"
	expect_grep 'none of these machines can be used' "$LAB/out"
	expect_grep '/no/such/program.*; correct .program. in its section, or remove it' "$LAB/out"
	expect_status 100 "$E/remote/run" 2>/dev/null
}

linux() {
	[ -n "$LONG" ] || skip "takes minutes (CONCC_TEST_LONG=1)"
	[ -f /usr/src/linux-source-6.1.tar.xz ] || skip "linux-source-6.1 is not installed"
	lab_need flex bison bc
	example linux
	summary 50 local1
}

# What is not there is told in one line, without a mess.
lacking() {
	local p
	mkdir "$LAB/few"
	for p in sh dirname nproc mktemp rm mkdir; do
		ln -s "$(command -v $p)" "$LAB/few/$p"
	done
	PATH=$LAB/few OUT=$WS/lacking expect_status 1 "$E/cpp/run" >"$LAB/out" 2>&1
	cat "$LAB/out"
	expect_eq "what is said" "$(cat "$LAB/out")" \
		"examples/cpp: cmake is not installed (on Debian: apt install cmake)"
	# Here is no network.
	OUT=$WS/lacking expect_status 1 "$E/c/run" >"$LAB/out" 2>&1
	cat "$LAB/out"
	expect_grep "^examples/c: the source of lua5.4 can't be fetched" "$LAB/out"
}

# The configurations that are there to be copied are read without an error.
configurations() {
	local f
	mkdir -p ~/src ~/work
	for f in "$E/concc.ini" "$E/remote/concc.ini"; do
		CONCC_CONFIG=$f CONCC_CONNECT_TIMEOUT=1s concc -j >"$LAB/out" 2>&1 || true
		cat "$LAB/out"
		CONCC_CONFIG=$f concc status >"$LAB/out" 2>&1
		cat "$LAB/out"
		expect_grep '^ *build1 ' "$LAB/out"
		lab_stop_server
	done
}

unset CONCC_CONFIG
files >"$LAB/files"
check "examples/c" c
check "examples/cpp" cpp
check "examples/rust" rust
check "examples/remote" remote
check "examples/linux" linux
check "what is lacking is told" lacking
check "configurations" configurations
lab_stop
