#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Redis and the libraries it brings (recursive makes, generated headers, dependency files) with
# CC="concc-cc gcc": the objects of a local build, byte for byte.  Jobs see the client's system, which
# is the default over ssh; the other builds are done with the workers' own.
# limit: 600
LAB_ROOT=${LAB_ROOT:-default}
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_source redis
lab_enter "$@"
lab_start builder root
lab_config
export SOURCE_DATE_EPOCH=1700000000 # goes into the version string

build() { # CC
	make -C "$WS/redis/src" -j8 MALLOC=libc OPTIMIZATION=-O0 CC="$1" redis-server redis-cli
}

cp -r "$LAB_SOURCE" "$WS/redis"
build gcc >"$LAB/local.log" 2>&1 || fail "the local build failed: $(tail -n 3 "$LAB/local.log")"
save_objects "$WS/redis" "$LAB/local"
make -C "$WS/redis" distclean >/dev/null
[ -z "$(find "$WS/redis" -name '*.o')" ] || fail "make distclean left objects"

CONCC_EXPLAIN=1 build "concc-cc gcc" >"$LAB/remote.log" 2>"$LAB/explain" ||
	fail "the remote build failed: $(tail -n 5 "$LAB/explain")"
expect_same_objects "$LAB/local" "$WS/redis"
expect_remote_share 95 "$LAB/explain" 'link|query'
expect_ge "compiles that ran remotely" "$(explained_remote "$LAB/explain")" 100
"$WS/redis/src/redis-server" --version | grep -q 'v=7' || fail "redis-server does not run"
lab_stop
