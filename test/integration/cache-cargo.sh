#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Kept results of rustc: a cargo workspace with RUSTC_WRAPPER=concc-cc, built again in a clean target
# directory, after edits and back.  Each time all that is built is what cargo builds without concc.
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
. "${BASH_SOURCE[0]%/*}/../lib/crates.sh"
lab_need jq cargo rustc cc
export LAB_ROOT=client
lab_enter "$@"
lab_start builder
lab_config 'cache = 1G' 'local-slots = 0'
P=$WS/crates
export CARGO_HOME=/srv/home/.cargo CARGO_INCREMENTAL=0 CARGO_NET_OFFLINE=true
JOBS=5 # of rustc, in a whole build

# All that a compiler made; cargo's own notes have times in them.
made() {
	find target -path '*/.fingerprint' -prune -o -type f \
		\( -name '*.rlib' -o -name '*.rmeta' -o -name '*.so' -o -name '*.d' -o -perm -u+x \) -print0 |
		sort -z | xargs -0 sha256sum
	target/debug/app
}

# From nothing, here and then through us.
build() { # HITS
	local before
	rm -rf target
	cargo build --quiet 2>"$LAB/local.log" || fail "the local build failed: $(tail -n 5 "$LAB/local.log")"
	made >"$LAB/plain"
	rm -rf target
	before=$(lab_status '.cache.hits // 0 | tostring' 2>/dev/null || echo 0)
	: >/srv/recorded
	: >"$LAB/explain"
	# From whatever shell: its own variables don't matter.
	OLDPWD=/$RANDOM SHLVL=$RANDOM CONCC_EXPLAIN=$LAB/explain RUSTC_WRAPPER=/srv/recorder \
		cargo build -j2 2>"$LAB/build.log" || fail "the build failed: $(tail -n 20 "$LAB/build.log")"
	cut -c1-150 "$LAB/explain"
	lab_status .cache
	made >"$LAB/ours"
	diff "$LAB/plain" "$LAB/ours" || fail "something else was built"
	dependencies_whole
	expect_eq "results that were found" "$(lab_status '.cache.hits | tostring')" $((before + $1))
	expect_eq "compiles" "$(cargo build 2>&1 | grep -c Compiling)" 0
}

edits() {
	build 0
	build $JOBS
	# What depends on it is done anew, its build script and the macros are not.
	sed -i 's/{x}7/{x}-seven/' base/src/bulk.rs
	build 2
	sed -i 's/{x}-seven/{x}7/' base/src/bulk.rs
	build $JOBS
	# Which sccache can't know: a macro reads a file.
	sed -i "s/let text/let _ = std::fs::read_to_string(\"prefix.txt\"); let text/; s/-> &'static str {{ \\\\\"{name}/-> \&'static str {{ \\\\\"{prefix}{name}/" derive/src/lib.rs
	sed -i 's/let _ = \(std::fs::read_to_string("prefix.txt")\);/let prefix = \1.unwrap_or_default();/' derive/src/lib.rs
	build 2
	printf 'Big' >prefix.txt
	build 3
	expect_grep BigThing "$LAB/ours"
	printf 'Small' >prefix.txt
	build 3
	expect_grep SmallThing "$LAB/ours"
	rm prefix.txt
	build $JOBS
}

# Nothing is removed: cargo has what changed built over what is there.
over_what_is_there() {
	local before
	sed -i 's/{x}7/{x}-7/' base/src/bulk.rs
	build 2
	sed -i 's/{x}-7/{x}7/' base/src/bulk.rs
	build $JOBS
	cp "$LAB/ours" "$LAB/first"
	sed -i 's/{x}7/{x}-7/' base/src/bulk.rs
	cargo_here
	sed -i 's/{x}-7/{x}7/' base/src/bulk.rs
	before=$(lab_status '.cache.hits')
	cargo_here
	# But for the program, which has a second name that would have to be its linker's to remove.
	expect_eq "results that were found" $(($(lab_status '.cache.hits') - before)) 2
	made >"$LAB/ours"
	diff "$LAB/first" "$LAB/ours" || fail "something else was built"
}

cargo_here() {
	RUSTC_WRAPPER=/srv/recorder cargo build -j2 2>"$LAB/build.log" ||
		fail "the build failed: $(tail -n 20 "$LAB/build.log")"
}

# In a directory with more than a build has made: it lists that, which does not matter.
beside_others() {
	rm -rf target
	mkdir -p target/debug/deps
	: >target/debug/deps/libother-0123456789abcdef.rlib
	CONCC_EXPLAIN=$LAB/explain2 RUSTC_WRAPPER=/srv/recorder cargo build -j2 2>"$LAB/build.log" ||
		fail "the build failed: $(tail -n 20 "$LAB/build.log")"
	expect_eq "results that were found" "$(grep -c '(cache)' "$LAB/explain2")" $JOBS
}

crates
cd "$P"
recorder
check "edits, and back" edits
check "edits, and back, over what is there" over_what_is_there
check "a directory with others in it" beside_others
lab_stop
