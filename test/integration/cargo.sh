#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A cargo workspace with RUSTC_WRAPPER=concc-cc: a proc-macro crate, a build script, two libraries
# that pipeline, a binary.  What it builds does what a local build's does, and no crate ever starts
# before what it depends on is whole on the client's disk.
# limit: 240
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/crates.sh"
lab_need cargo rustc cc
lab_enter "$@"
lab_start builder root
lab_config
P=$WS/crates
export CARGO_HOME=/srv/home/.cargo CARGO_INCREMENTAL=0 CARGO_NET_OFFLINE=true

crates
cd "$P"
cargo build --quiet 2>"$LAB/local.log" || fail "the local build failed: $(tail -n 5 "$LAB/local.log")"
said=$(target/debug/app)
expect_eq "what a local build's program says" "$said" "Thing 42 a7-b7 x1"
rm -rf target

recorder
: >/srv/recorded
CONCC_EXPLAIN=1 RUSTC_WRAPPER=/srv/recorder cargo build -j8 2>"$LAB/explain" ||
	fail "the build failed: $(grep -v '^concc: ' "$LAB/explain" | tail -n 20)"
check "the program does the same" expect_eq "it says" "$(target/debug/app)" "$said"
check "no crate starts before its dependencies are whole" dependencies_whole
grep -a 'concc: ' "$LAB/explain" || true
check "libraries are compiled remotely" expect_ge "remote" "$(explained_remote "$LAB/explain")" 3
check "nothing else is built again" expect_eq "compiles" "$(cargo build 2>&1 | grep -c Compiling)" 0
lab_stop
