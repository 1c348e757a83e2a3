# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# A cargo workspace in $P: a proc-macro crate, a build script, two libraries that pipeline, a binary.
# And what is seen of its dependencies.  After test/lib/lab.sh.

crate() { # NAME CARGO-LINES... ; the source comes on stdin
	local name=$1
	shift
	mkdir -p "$P/$name/src"
	{
		printf '[package]\nname = "%s"\nversion = "0.1.0"\nedition = "2021"\n' "$name"
		printf '%s\n' "$@"
	} >"$P/$name/Cargo.toml"
	cat >"$P/$name/src/$([ "$name" = app ] && echo main || echo lib).rs"
}

crates() {
	local i
	mkdir -p "$P"
	echo '[workspace]
resolver = "2"
members = ["derive", "base", "middle", "app"]' >"$P/Cargo.toml"
	crate derive '[lib]' 'proc-macro = true' <<-'EOF'
		use proc_macro::TokenStream;
		/// Adds a function that names the struct.
		#[proc_macro_derive(Named)]
		pub fn named(item: TokenStream) -> TokenStream {
		    let text = item.to_string();
		    let name = text.split("struct").nth(1).unwrap().split_whitespace().next().unwrap()
		        .trim_matches(|c: char| !c.is_alphanumeric()).to_string();
		    format!("impl {name} {{ pub fn name() -> &'static str {{ \"{name}\" }} }}").parse().unwrap()
		}
	EOF
	crate base 'build = "build.rs"' <<-'EOF'
		include!(concat!(env!("OUT_DIR"), "/generated.rs"));
		pub mod bulk;
		pub fn generated() -> u32 { GENERATED }
	EOF
	cat >"$P/base/build.rs" <<-'EOF'
		fn main() {
		    println!("cargo:rerun-if-changed=build.rs");
		    let out = std::env::var("OUT_DIR").unwrap();
		    std::fs::write(format!("{out}/generated.rs"), "pub const GENERATED: u32 = 42;").unwrap();
		}
	EOF
	# Enough code generation that the metadata is there well before the library.
	for i in $(seq 1 150); do
		echo "pub fn f$i(s: &str) -> String { let mut v: Vec<String> = s.split(' ').map(|x| format!(\"{x}$i\")).collect(); v.sort(); v.join(\"-\") }"
	done >"$P/base/src/bulk.rs"
	crate middle '[dependencies]' 'base = { path = "../base" }' 'derive = { path = "../derive" }' <<-'EOF'
		#[derive(derive::Named)]
		pub struct Thing;
		pub fn line() -> String {
		    format!("{} {} {}", Thing::name(), base::generated(), base::bulk::f7("b a"))
		}
	EOF
	crate app '[dependencies]' 'base = { path = "../base" }' 'middle = { path = "../middle" }' <<-'EOF'
		fn main() { println!("{} {}", middle::line(), base::bulk::f1("x")); }
	EOF
}

# Stands before concc-cc: notes the bytes of each dependency when a compiler is started.
recorder() {
	cat >/srv/recorder <<-'EOF'
		#!/bin/bash
		for a; do
			case $a in *=*.rmeta | *=*.rlib | *=*.so) ;; *) continue ;; esac
			f=${a#*=}
			if [ -s "$f" ]; then
				printf '%s %s\n' "$(sha256sum <"$f" | cut -d' ' -f1)" "$f" >>/srv/recorded
			else
				printf 'missing %s\n' "$f" >>/srv/recorded
			fi
		done
		exec concc-cc "$@"
	EOF
	chmod +x /srv/recorder
}

dependencies_whole() {
	local sum file n=0
	expect_no_grep '^missing ' /srv/recorded
	while read -r sum file; do
		expect_eq "bytes of $file when a crate that needs it started" "$sum" \
			"$(sha256sum <"$file" | cut -d' ' -f1)"
		n=$((n + 1))
	done </srv/recorded
	expect_ge "dependencies seen" "$n" 4
	grep -q 'libbase.*\.rmeta$' /srv/recorded || fail "nothing was pipelined"
}
