#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# limit: 300
# Compilers by whatever name they have, and the build tools that call them, go through concc under
# `concc run`; what they write down of it goes on to work without concc.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_ROOT=default
lab_need jq gcc g++ make cmake ninja
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"
echo 'int f(void) { return 1; }' >a.c

# What `concc run` said: so many jobs there, and here.
run_said() { # REMOTE HERE
	cat "$LAB/err"
	expect_grep "^concc: $(($1 + $2)) jobs? in .*: $1 remote.*, $2 here" "$LAB/err"
}

# A project of one directory, built by CMake: two C files and a program of them.
cmake_project() { # DIR
	mkdir -p "$1"
	printf '%s\n' 'cmake_minimum_required(VERSION 3.13)' 'project(p C)' 'add_executable(p a.c b.c)' >"$1/CMakeLists.txt"
	echo 'int f(void) { return 1; }' >"$1/a.c"
	echo 'int f(void); int main(void) { return f() - 1; }' >"$1/b.c"
}

# Each name of a compiler that is installed here, without a list of them.
all_names() {
	local n jobs=0 dir
	dir=$(concc masquerade)
	for n in gcc-12 x86_64-linux-gnu-gcc clang-14 c99 gnatgcc gcc cc; do
		command -v "$n" >/dev/null || continue
		[ -x "$dir/$n" ] || fail "$n is not in $dir"
		printf 'all: ; %s -c a.c -o %s.o\n' "$n" "$n" >>make.all
		jobs=$((jobs + 1))
	done
	sed -i '2,$s/^all: //; 2,$s/^; /\t/' make.all
	expect_ge "compilers here" "$jobs" 3
	concc run -- make -f make.all 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	cat "$LAB/err"
	expect_grep "^concc: $jobs jobs in " "$LAB/err"
}

# What is no compiler is not caught, nor what is ours.
other_names() {
	local dir n
	dir=$(concc masquerade)
	for n in concc-cc ld as ar cpp gcc-ar gcc-ranlib clang-format clang-tidy sh; do
		expect_no_file "$dir/$n"
	done
	expect_eq "the same again" "$(PATH=$dir:$PATH concc masquerade)" "$dir"
}

# One that comes and goes.
refreshed() {
	mkdir -p /srv/home/bin
	export PATH=/srv/home/bin:$PATH
	ln -s "$(command -v gcc)" /srv/home/bin/riscv64-none-elf-gcc-77.1
	concc run -- riscv64-none-elf-gcc-77.1 -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	run_said 1 0
	expect_file "$(concc masquerade)/riscv64-none-elf-gcc-77.1"
	rm /srv/home/bin/riscv64-none-elf-gcc-77.1
	expect_no_file "$(concc masquerade)/riscv64-none-elf-gcc-77.1"
	concc run -- sh -c '! command -v riscv64-none-elf-gcc-77.1' || fail "it is found still"
}

# Without a cache directory, and where nothing in it or in /tmp may be executed.
elsewhere() {
	local dir
	dir=$(CONCC_CACHE_DIR=/proc/none concc masquerade)
	[[ $dir == "$CONCC_RUNTIME_DIR"/masquerade/* ]] || fail "it is in $dir"
	mkdir -p /srv/noexec
	mount -t tmpfs -o noexec,mode=700 none /srv/noexec
	mkdir -m 700 /srv/noexec/run
	CONCC_CACHE_DIR=/srv/noexec/cache CONCC_RUNTIME_DIR=/srv/noexec/run concc run --local -- gcc -c a.c 2>"$LAB/err" ||
		fail "$(cat "$LAB/err")"
	umount /srv/noexec
	run_said 0 1
}

# An installation of its own, which can be removed.
install_own() {
	mkdir -p /srv/own/bin
	cp "$LAB_BIN"/concc* /srv/own/bin
	export PATH=/srv/own/bin:${PATH//$LAB_BIN:/}
}

# CMake writes compilers' paths down: with concc, without its run, and when it is gone.
cmake_keeps() {
	cmake_project keeps
	install_own
	concc run -- cmake -G Ninja -S keeps -B keeps/b >"$LAB/out" 2>&1 || fail "$(cat "$LAB/out")"
	concc run -- ninja -C keeps/b >"$LAB/out" 2>"$LAB/err" || fail "$(cat "$LAB/out" "$LAB/err")"
	run_said 2 1
	touch keeps/a.c
	ninja -C keeps/b || fail "plain ninja"
	concc stop
	mv /srv/own /srv/gone
	touch keeps/a.c keeps/CMakeLists.txt
	ninja -C keeps/b >"$LAB/out" 2>&1 || fail "without concc: $(cat "$LAB/out")"
	cat "$LAB/out"
	expect_no_grep '^concc' "$LAB/out"
	cmake -S keeps -B keeps/b >"$LAB/out" 2>&1 || fail "without concc: $(cat "$LAB/out")"
	rm -r keeps/b
	mv /srv/gone /srv/own
}

# What a build directory calls gives way to the concc that is installed now.
newer_concc() {
	local copy
	install_own
	copy=$(concc masquerade)/gcc
	printf '#!/bin/sh\necho "newer: $*"\n' >/srv/own/bin/concc-cc
	expect_eq "it says" "$("$copy" -c a.c)" "newer: -c a.c"
}

# Compilers that CMake is told by their paths.
cmake_by_path() {
	cmake_project bypath
	concc run -- cmake -G Ninja -DCMAKE_C_COMPILER="$(command -v gcc)" -S bypath -B bypath/b >"$LAB/out" 2>&1 ||
		fail "$(cat "$LAB/out")"
	concc run -- cmake --build bypath/b >"$LAB/out" 2>"$LAB/err" || fail "$(cat "$LAB/out" "$LAB/err")"
	run_said 2 0
}

# ccache first in PATH: what it has not goes to workers, and it knows compilers by themselves.
with_ccache() {
	local ccache
	ccache=$(command -v ccache) || skip "ccache is not installed"
	mkdir -p /srv/home/ccache
	ln -s "$ccache" /srv/home/ccache/gcc
	export CCACHE_DIR=/srv/home/ccache-dir
	PATH=/srv/home/ccache:$PATH concc run -- gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	run_said 1 0
	PATH=/srv/home/ccache:$PATH concc run -- gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep '^concc: 0 jobs' "$LAB/err"
	concc run -- ccache gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep '^concc: 0 jobs' "$LAB/err" # the same compiler, so known
	# shellcheck disable=SC2016 # the build's variable
	CCACHE_PREFIX=theirs concc run -- sh -c 'echo "$CCACHE_PREFIX"' >"$LAB/out" 2>"$LAB/err"
	expect_eq "the user's own prefix" "$(cat "$LAB/out")" theirs
	ccache -o prefix_command=theirs
	# shellcheck disable=SC2016 # the build's variable
	concc run -- sh -c 'echo "${CCACHE_PREFIX-none}"' >"$LAB/out" 2>"$LAB/err"
	expect_eq "with one in its file" "$(cat "$LAB/out")" none
}

# concc-cc in front of ccache: that runs here, and is no job.
before_ccache() {
	local ccache
	ccache=$(command -v ccache) || skip "ccache is not installed"
	mkdir -p /srv/home/ccache-links
	ln -s "$ccache" /srv/home/ccache-links/gcc
	export CCACHE_DIR=/srv/home/ccache-before
	PATH=/srv/home/ccache-links:$PATH concc run -- concc-cc gcc -DA -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	run_said 1 0
	concc run -- concc-cc ccache gcc -DA -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep '^concc: 0 jobs' "$LAB/err" # the same compiler, so known
	PATH=/srv/home/ccache-links:$PATH concc why gcc -DA -c a.c >"$LAB/out" || true
	expect_eq "why" "$(cat "$LAB/out")" "not cacheable: it runs here: launcher (ccache)"
	printf '#!/bin/sh\necho "$1" >>theirs.log\nexec "$@"\n' >theirs
	chmod +x theirs
	CCACHE_PREFIX=$PWD/theirs concc-cc ccache gcc -O2 -c a.c
	expect_grep '/gcc$' theirs.log
	PATH=/srv/home/ccache-links:$PATH
	[ -x "$(concc masquerade)/gcc" ] || fail "ccache's gcc is not among the compilers"
}

# Others of its kind can't call concc-cc: said at once, and not tried on a worker.
before_distcc() {
	printf '#!/bin/sh\nexec "$@"\n' >distcc
	chmod +x distcc
	concc run -- concc-cc ./distcc gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	run_said 0 1
	expect_grep 'here \(launcher 1\)' "$LAB/err"
	expect_grep '^concc: .*leave out what stands between concc-cc and the compiler' "$LAB/err"
}

# What the user has set stays: said to cargo's users, and to others not.
others_wrapper() {
	# shellcheck disable=SC2016 # the build's variable
	local show='echo "${RUSTC_WRAPPER-none} ${CMAKE_C_COMPILER_LAUNCHER-none}"'
	RUSTC_WRAPPER=sccache CMAKE_C_COMPILER_LAUNCHER=sccache concc run -- sh -c "$show" >"$LAB/out" 2>"$LAB/err"
	expect_eq "variables" "$(cat "$LAB/out")" "sccache sccache"
	expect_no_grep stays "$LAB/err"
	mkdir -p .cargo
	printf '[build]\nrustc-wrapper = "sccache"\n' >.cargo/config.toml
	concc run -- sh -c "$show" >"$LAB/out" 2>"$LAB/err"
	expect_grep '^none /' "$LAB/out"
	printf '#!/bin/sh\n' >cargo
	chmod +x cargo
	concc run -- ./cargo build 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: rustc-wrapper = "sccache" in cargo.s config stays: ' "$LAB/err"
	rm -r .cargo
}

# go has its own way, added to what the user told it.
go_flags() {
	mkdir -p gobin
	printf '#!/bin/sh\n[ "$*" = "env GOFLAGS" ] && echo -mod=vendor\n' >gobin/go
	chmod +x gobin/go
	export PATH=$PWD/gobin:$PATH
	# shellcheck disable=SC2016 # the build's variable
	local show='echo "$GOFLAGS"'
	concc run -- sh -c "$show" >"$LAB/out" 2>"$LAB/err"
	expect_eq "of its file" "$(cat "$LAB/out")" "-mod=vendor -toolexec=$LAB_BIN/concc-cc"
	GOFLAGS=-toolexec=theirs concc run -- sh -c "$show" >"$LAB/out" 2>"$LAB/err"
	expect_eq "the user's" "$(cat "$LAB/out")" -toolexec=theirs
}

# cargo, whose crates go through its wrapper and not twice through rustc's name.
with_cargo() {
	command -v cargo >/dev/null || skip "cargo is not installed"
	mkdir -p crate/src
	printf '[package]\nname = "one"\nversion = "0.1.0"\nedition = "2018"\n' >crate/Cargo.toml
	echo 'pub fn one() -> i32 { 1 }' >crate/src/lib.rs
	CARGO_INCREMENTAL=0 concc run -C crate -- cargo build --offline 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	cat "$LAB/err"
	expect_grep '^concc: CARGO_BUILD_JOBS=[0-9]+ cargo, ' "$LAB/err"
	expect_grep ': 1 remote' "$LAB/err"
}

# Two recipes that wait for each other: with one job at a time they would for ever.
jobs_chosen() {
	mkdir -p jobs
	cat >jobs/Makefile <<-'EOF2'
		all: one two
		one: ; echo >fifo
		two: ; read x <fifo
		flags: ; @echo "$(MAKEFLAGS)"
	EOF2
	mkfifo jobs/fifo
	timeout "$LAB_LIMIT" concc run -C jobs -- make 2>"$LAB/err" || fail "one at a time: $(cat "$LAB/err")"
	cat "$LAB/err"
	expect_grep "^concc: make -j[0-9]+, as many jobs as" "$LAB/err"
	concc run -C jobs -- make -kj3 flags >"$LAB/out" 2>"$LAB/err"
	expect_grep j3 "$LAB/out"
	expect_no_grep 'as many' "$LAB/err"
	MAKEFLAGS='k -- X=1' concc run -j 5 -C jobs -- sh -c 'make flags' >"$LAB/out" 2>"$LAB/err"
	expect_grep '^k.*-j5.* -- X=1$' "$LAB/out"
	expect_no_grep 'as many' "$LAB/err"
}

ninja_jobs() {
	mkdir -p nin
	# shellcheck disable=SC2016 # the shell's variable
	printf 'rule show\n command = tr "\\0" " " </proc/$$PPID/cmdline\nbuild x: show\n' >nin/build.ninja
	concc run -j 7 -- ninja -C nin >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/out"
	expect_grep '^ninja -j7 -C nin' "$LAB/out"
	concc run -- ninja -j 9 -C nin >"$LAB/out" 2>"$LAB/err"
	expect_grep '^ninja -j 9 -C nin' "$LAB/out"
}

# `make -j$(concc -j)` must never be `make -j`.
no_workers() {
	local n
	printf '[worker none]\naddress = ssh://127.0.0.1:1\n' >/srv/none.ini
	n=$(CONCC_CONFIG=/srv/none.ini CONCC_RUNTIME_DIR=/srv/run2 concc -j 2>"$LAB/err") || fail "it fails"
	CONCC_RUNTIME_DIR=/srv/run2 concc stop
	cat "$LAB/err"
	expect_ge "concc -j" "$n" 1
	expect_grep '^concc: no worker can be reached: .*refused.*; [0-9]+ cores? here' "$LAB/err"
	echo nonsense >/srv/none.ini
	n=$(CONCC_CONFIG=/srv/none.ini CONCC_RUNTIME_DIR=/srv/run2 concc -j 2>"$LAB/err") || fail "it fails"
	expect_ge "concc -j" "$n" 1
	expect_grep '^concc: .*none.ini' "$LAB/err"
}

each_help() {
	local word
	for word in run status stop why push masquerade -j help version; do
		concc "$word" --help >"$LAB/out" 2>"$LAB/err" || fail "concc $word --help: $(cat "$LAB/err")"
		expect_grep '^usage: concc ' "$LAB/out"
		[ ! -s "$LAB/err" ] || fail "concc $word --help says $(cat "$LAB/err")"
	done
}

check "compilers by all their names" all_names
check "no other names" other_names
check "a compiler that comes and goes" refreshed
check "a home that can't be written" elsewhere
check "CMake's build directory without concc" cmake_keeps
check "a copy gives way to a newer concc" newer_concc
check "CMake with compilers by path" cmake_by_path
check "ccache first in PATH" with_ccache
check "concc-cc in front of ccache" before_ccache
check "concc-cc in front of distcc" before_distcc
check "another wrapper stays, and is told" others_wrapper
check "go" go_flags
check "cargo" with_cargo
check "as many jobs as there are slots" jobs_chosen
check "ninja's number of jobs" ninja_jobs
check "concc -j without workers" no_workers
check "concc WORD --help" each_help
lab_stop
