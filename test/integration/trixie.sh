#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A worker of another Debian release, without any compiler and without concc, reached by ssh as an
# ordinary user: `install = yes` puts concc-worker there, the client's toolchain comes by itself and
# stays, and what is built is the local build's, byte for byte.  With CONCC_TEST_LONG=1 also abseil,
# redis, the CMake project and the cargo workspace.
# limit: 600
export LAB_OTHER=${LAB_OTHER:-yes} LAB_ROOT=default
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq
! readelf -l "$LAB_BIN/concc-worker" | grep -q INTERP ||
	skip "concc-worker is not static here (SANITIZE= or STATIC=), so it is not to be installed"

# Each in a lab of its own, with such workers.
long() {
	local t
	for t in build-redis build-cmake cargo; do
		[[ $t =~ ${CONCC_TEST_ONLY-} ]] || continue
		if env -u CONCC_TEST_DIR bash "$LAB_REPO/test/integration/$t.sh"; then
			lab_result ok "$t"
		else
			lab_result not-ok "$t"
			LONG_FAILED="${LONG_FAILED-} $t"
		fi
	done
	[ -z "${LONG_FAILED-}" ] || fail "on workers of another release:$LONG_FAILED"
}
[ -z "${CONCC_TEST_LONG-}" ] || [ -n "${LAB_INSIDE-}" ] || long

# Without its source that check is skipped, and no other.
[ -z "${CONCC_TEST_LONG-}" ] || (lab_source abseil) || true
lab_source lua5.4
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"

nothing_there() {
	local p
	for p in gcc cc g++ c++ clang as ld rustc concc-worker; do
		! lab_worker 1 sh -c "command -v $p" || fail "$p is there"
	done
	expect_ne "release there" "$(lab_worker 1 cat /etc/debian_version)" "$(cat /etc/debian_version)"
	expect_eq "files of the user" "$(lab_worker 1 find /home/builder -type f ! -name .bashrc)" ''
}

make_lua() { # CC
	make -C "$WS/lua/src" -j4 CC="$1" linux
}

lua() {
	cp -r "$LAB_SOURCE" "$WS/lua"
	make_lua gcc >"$LAB/local.log" 2>&1 || fail "the local build failed: $(tail -n 3 "$LAB/local.log")"
	save_objects "$WS/lua" "$LAB/local"
	make -s -C "$WS/lua" clean
	CONCC_EXPLAIN=1 make_lua "concc-cc gcc" >"$LAB/remote.log" 2>"$LAB/explain" ||
		fail "the remote build failed: $(tail -n 5 "$LAB/explain")"
	concc status
	expect_same_objects "$LAB/local" "$WS/lua"
	expect_remote_share 95 "$LAB/explain" 'link|query'
	expect_ge "compiles that ran remotely" "$(explained_remote "$LAB/explain")" 30
	expect_eq "what lua says" "$("$WS/lua/src/lua" -e 'print(6 * 7)')" 42
}

same_object() { # NAME CMD... with OUT for the object
	local name=$1
	shift
	"${@//OUT/want.o}"
	CONCC_EXPLAIN=1 concc-cc "${@//OUT/got.o}" 2>"$LAB/err" || { cat "$LAB/err"; fail "$name"; }
	cat "$LAB/err"
	expect_eq "remote: $name" "$(explained_remote "$LAB/err")" 1
	expect_same_file want.o got.o
	rm got.o want.o
}

cxx() {
	cat >x.cc <<-'EOC'
		#include <string>
		#include <vector>
		int f() { std::vector<std::string> v; v.push_back("x"); return (int)v.size(); }
	EOC
	same_object "C++" g++ -g -O1 -c x.cc -o OUT
}

# A real C++ library, with CMake and Ninja.
make_abseil() { # LAUNCHER LOG
	rm -rf "$WS/abseil/build"
	cmake -G Ninja -S "$WS/abseil" -B "$WS/abseil/build" -DCMAKE_BUILD_TYPE=Release \
		-DCMAKE_CXX_STANDARD=17 -DABSL_PROPAGATE_CXX_STD=ON -DBUILD_TESTING=OFF \
		-DCMAKE_CXX_COMPILER_LAUNCHER="$1" >"$2.cmake" 2>&1 ||
		fail "cmake failed: $(tail -n 3 "$2.cmake")"
	ninja -C "$WS/abseil/build" -j4 absl/strings/libabsl_strings.a >"$2" 2>&1 ||
		fail "ninja failed: $(tail -n 5 "$2")"
}

abseil() {
	lab_need cmake ninja g++
	[ -d "${LAB_SOURCE%/*}/abseil" ] || skip "no source of abseil to be had"
	cp -r "${LAB_SOURCE%/*}/abseil" "$WS/abseil"
	make_abseil '' "$LAB/local.log"
	save_objects "$WS/abseil/build" "$LAB/abseil"
	CONCC_EXPLAIN=1 make_abseil concc-cc "$LAB/remote.log"
	expect_same_objects "$LAB/abseil" "$WS/abseil/build"
	expect_remote_share 100 "$LAB/remote.log"
	expect_ge "objects" "$(find "$LAB/abseil" -name '*.o' | wc -l)" 20
	expect_eq "compiles that ran remotely" "$(explained_remote "$LAB/remote.log")" \
		"$(find "$LAB/abseil" -name '*.o' | wc -l)"
}

rust() {
	lab_need rustc
	printf 'pub fn f(x: u32) -> u32 { x + 1 }\n' >r.rs
	same_object "Rust" rustc --crate-name r --crate-type rlib --emit obj -o OUT r.rs
}

# What the toolchain cost is not paid twice.
second_session() {
	local first second
	first=$(lab_status '.workers[0].fetched_bytes')
	expect_ge "bytes the first session fetched" "$first" 20000000
	expect_grep "install|pushed" <(concc status)
	lab_stop_server
	cxx
	expect_grep "is there already: /home/builder/.cache/concc/concc-worker-" <(concc status)
	second=$(lab_status '.workers[0].fetched_bytes')
	echo "note: fetched $first bytes, then $second"
	expect_le "bytes the second session fetched" "$second" $((first / 100))
}

check "the worker has neither a compiler nor concc" nothing_there
check "lua" lua
check "a C++ object" cxx
check "a Rust object" rust
[ -z "${CONCC_TEST_LONG-}" ] || check "abseil" abseil
check "a second session fetches less than a hundredth" second_session
lab_stop
