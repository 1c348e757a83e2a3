#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Lua's own makefile with CC="concc-cc gcc": the objects of a local build, byte for byte.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_source lua5.4
lab_enter "$@"
lab_start builder root
lab_config

build() { # CC
	make -C "$WS/lua/src" -j8 CC="$1" linux
}

cp -r "$LAB_SOURCE" "$WS/lua"
build gcc >"$LAB/local.log" 2>&1 || fail "the local build failed: $(tail -n 3 "$LAB/local.log")"
save_objects "$WS/lua" "$LAB/local"
make -s -C "$WS/lua" clean

CONCC_EXPLAIN=1 build "concc-cc gcc" >"$LAB/remote.log" 2>"$LAB/explain" ||
	fail "the remote build failed: $(tail -n 5 "$LAB/explain")"
expect_same_objects "$LAB/local" "$WS/lua"
expect_remote_share 95 "$LAB/explain" 'link|query'
expect_ge "compiles that ran remotely" "$(explained_remote "$LAB/explain")" 30
expect_eq "what lua says" "$("$WS/lua/src/lua" -e 'print(6 * 7)')" 42
lab_stop
