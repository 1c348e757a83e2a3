#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What the wrapper itself says, and where: never to somebody who takes it for the compiler's words.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"
echo 'int f(void) { return 1; }' >a.c

# A runtime directory where each call has something to say: no worker can be reached.
nobody() {
	export CONCC_CONFIG=/srv/nobody.ini CONCC_RUNTIME_DIR
	CONCC_RUNTIME_DIR=$(mktemp -d /srv/run.XXXXXX)
	printf '[concc]\nworkspace = %s\n\n[worker n]\naddress = ssh://127.0.0.1:1\n' "$WS" >$CONCC_CONFIG
}

compile() {
	gcc -c a.c -o "$LAB/plain.o"
	concc-cc gcc -c a.c -o a.o
	expect_same_file "$LAB/plain.o" a.o
}

said='^concc: no worker can be reached .*; running it here$'

uncached() {
	nobody
	UNCACHED_ERR_FD=7 compile 7>"$LAB/ear" 2>"$LAB/err"
	expect_grep "$said" "$LAB/ear"
	expect_eq "standard error" "$(cat "$LAB/err")" ''
	UNCACHED_ERR_FD=7 CONCC_EXPLAIN=1 compile 7>"$LAB/ear" 2>"$LAB/err"
	expect_grep '^concc: local: no-worker ' "$LAB/ear"
	UNCACHED_ERR_FD=7 CONCC_EXPLAIN=1 concc-cc gcc --version 7>"$LAB/ear" >/dev/null 2>"$LAB/err"
	expect_grep '^concc: local: query ' "$LAB/ear"
	expect_eq "standard error" "$(cat "$LAB/err")" ''
	concc stop
	# One that is none: as if it were not there.
	while read -r fd file; do
		nobody
		UNCACHED_ERR_FD=$fd compile 7<"$file" 2>"$LAB/err"
		expect_grep "$said" "$LAB/err"
		concc stop
	done <<-'END'
		7 /dev/null
		8 /dev/null
		x /dev/null
		-1 /dev/null
		99999999999 /dev/null
	END
}

# The real one: what was said is not said again by a later build.
ccache_forgets() {
	command -v ccache >/dev/null || skip "ccache is not installed"
	nobody
	export CCACHE_DIR=$LAB/ccache CCACHE_PREFIX=concc-cc
	echo 'int f(void) { int unused; return 1; }' >w.c
	ccache gcc -Wall -c w.c -o w.o 2>"$LAB/first"
	cat "$LAB/first"
	expect_grep "$said" "$LAB/first"
	rm w.o
	ccache gcc -Wall -c w.c -o w.o 2>"$LAB/second"
	cat "$LAB/second"
	expect_file w.o
	expect_grep 'unused variable' "$LAB/second"
	expect_no_grep concc "$LAB/second"
	concc stop
}

# Neither the variable nor the descriptor goes on to a job, nor to what is started for it.
uncached_stays() {
	lab_stop_server
	# shellcheck disable=SC2016 # the job's
	UNCACHED_ERR_FD=7 concc-dispatch sh -c 'echo "${UNCACHED_ERR_FD-unset}"; [ -e /proc/self/fd/7 ] || echo closed' \
		7>"$LAB/ear" >"$LAB/out"
	expect_eq "in the job" "$(tr '\n' ' ' <"$LAB/out")" "unset closed "
	expect_no_grep "$LAB/ear" <(find "/proc/$(lab_server_pid)/fd" -type l -printf '%l\n')
}

# cargo keeps what a compiler says for all later builds.
under_cargo() {
	nobody
	CARGO=/bin/cargo CARGO_PKG_NAME=x compile 2>"$LAB/err"
	expect_eq "standard error" "$(cat "$LAB/err")" ''
	concc status >"$LAB/status"
	cat "$LAB/status"
	expect_grep '^20[-0-9]+ [0-9:]+ concc: no worker can be reached .*: gcc -c a.c -o a.o$' "$LAB/status"
	expect_grep '^  no-worker  *1$' "$LAB/status"
	concc stop
	nobody
	concc run -- env CARGO=/bin/cargo CARGO_PKG_NAME=x gcc -c a.c 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "lines of it, at the end" "$(grep -c 'running it here: gcc -c a.c$' "$LAB/err")" 1
	CARGO=/bin/cargo CARGO_PKG_NAME=x CONCC_EXPLAIN=1 compile 2>"$LAB/err"
	expect_grep '^concc: local: no-worker ' "$LAB/err"
	concc stop
}

cargo_forgets() {
	command -v cargo >/dev/null || skip "cargo is not installed"
	nobody
	mkdir -p crate/src
	printf '[package]\nname = "x"\nversion = "0.1.0"\n' >crate/Cargo.toml
	echo 'fn unused() {}' >crate/src/lib.rs
	cd crate
	for n in first second; do
		RUSTC_WRAPPER=concc-cc CARGO_INCREMENTAL=0 cargo build --offline 2>"$LAB/$n"
		cat "$LAB/$n"
		expect_grep 'never used' "$LAB/$n"
		expect_no_grep concc "$LAB/$n"
	done
	expect_grep 'concc: no worker can be reached' <(concc status)
	concc stop
}

# Within `concc run`, whoever reads the compiler's words itself, as cargo and ninja do.
captured() {
	nobody
	concc run -- sh -c 'gcc -c a.c 2>own; gcc -c a.c' 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "what gcc said" "$(cat own)" ''
	expect_grep '^concc: no worker can be reached; running it here: gcc -c a.c$' "$LAB/err"
	expect_eq "lines of it" "$(grep -c 'running it here' "$LAB/err")" 1
	expect_eq "files left" "$(find "$CONCC_RUNTIME_DIR" -name 'run-*')" ''
	concc stop
	lab_here
	CONCC_EXPLAIN=1 concc run -- sh -c 'gcc -c a.c 2>own; gcc -c a.c; cat own >&2' 2>"$LAB/err"
	expect_eq "what gcc said" "$(cat own)" ''
	expect_grep '^concc: remote on w1$' "$LAB/err"
	expect_grep '^concc: remote on w1: gcc -c a.c$' "$LAB/err"
}

# Back to the lab's own.
lab_here() {
	export CONCC_CONFIG=/srv/concc.ini CONCC_RUNTIME_DIR=/srv/run
}

# As configure scripts do it: any word makes the answer no.
configure_script() {
	cat >configure <<-'EOF'
		#!/bin/sh
		CC=${CC-gcc}
		quiet() { # NAME FILE CMD...
			name=$1 file=$2
			shift 2
			said=$("$@" 2>&1) && [ -z "$said" ] && echo "$name yes" || echo "$name no"
			"$@" 2>$file.err && [ ! -s $file.err ] && echo "$name.err yes" || echo "$name.err no"
		}
		for file in conftest ztest4711 CMakeFiles/CMakeTmp/x meson-private/x try; do
			mkdir -p "$(dirname $file)"
			echo 'int __attribute__((visibility ("hidden"))) foo;' >$file.c
			quiet "hidden in $file" $file $CC -c $file.c -o $file.o
			quiet "macros of $file" $file $CC -E -dM $file.c -o $file.i
			echo 'int f(void) { int unused; return 1; }' >$file.c
			quiet "warns in $file" $file $CC -Wall -c $file.c -o $file.o
			echo 'int main(void) { return 0; }' >$file.c
			quiet "links $file" $file $CC $file.c -o $file
		done
		quiet version x $CC --version
		quiet null x $CC -c -x c /dev/null -o /dev/null
		quiet input x sh -c 'echo "int f;" | gcc -S -x c - -o x.s'
	EOF
	chmod +x configure
	./configure >"$LAB/want"
	expect_grep 'hidden in ztest4711.err yes' "$LAB/want"
	expect_grep 'warns in try no' "$LAB/want"
	CONCC_EXPLAIN=1 concc run -- ./configure >"$LAB/got" 2>"$LAB/err"
	diff "$LAB/want" "$LAB/got" || fail "it finds something else"
	expect_grep '^concc: remote on w1: gcc -c try.c -o try.o$' "$LAB/err"
	expect_grep '^concc: local: probe .*: gcc ' "$LAB/err"
	nobody
	concc run -- ./configure >"$LAB/got" 2>"$LAB/err"
	diff "$LAB/want" "$LAB/got" || fail "it finds something else when no worker is there"
	concc stop
	lab_here
	# By itself it must know a test by its name.
	CC="concc-cc gcc" CONCC_EXPLAIN=1 ./configure >"$LAB/got" 2>"$LAB/err"
	grep -E 'conftest|ztest|CMake|meson|version|null' "$LAB/want" >"$LAB/want.tests"
	grep -E 'conftest|ztest|CMake|meson|version|null' "$LAB/got" >"$LAB/got.tests"
	diff "$LAB/want.tests" "$LAB/got.tests" || fail "it finds something else without concc run"
}

to_file() {
	local i
	rm -rf many
	mkdir many
	for i in {1..40}; do
		echo "int f$i;" >many/$i.c
	done
	# Beside the compilers' words, nothing.
	for i in {1..40}; do
		CONCC_EXPLAIN=$LAB/explained concc-cc gcc -c many/$i.c -o many/$i.o 2>>"$LAB/err.many" &
	done
	wait
	expect_eq "standard error" "$(cat "$LAB/err.many")" ''
	expect_eq "lines" "$(grep -cE '^concc: remote on w1: gcc -c many/[0-9]+\.c -o many/[0-9]+\.o$' "$LAB/explained")" 40
	expect_eq "all lines" "$(wc -l <"$LAB/explained")" 40
	CONCC_EXPLAIN=$LAB/explained concc-cc gcc --version >/dev/null 2>"$LAB/err"
	expect_grep '^concc: local: query \(--version\): gcc --version$' "$LAB/explained"
	expect_eq "standard error" "$(cat "$LAB/err")" ''
	# In what it starts in other directories it is the same file.
	CONCC_EXPLAIN=build.log concc run -- sh -c 'cd many && gcc -c 1.c' 2>"$LAB/err"
	expect_grep '^concc: remote on w1: gcc -c 1.c$' build.log
	expect_no_grep '^concc: remote' "$LAB/err"
	# One that can't be written is not said, and hinders nothing.
	CONCC_EXPLAIN=/nonexistent/file compile 2>"$LAB/err"
	CONCC_EXPLAIN=0 compile 2>>"$LAB/err"
	CONCC_EXPLAIN='' compile 2>>"$LAB/err"
	expect_eq "standard error" "$(cat "$LAB/err")" ''
	mkfifo "$LAB/nobody-reads"
	CONCC_EXPLAIN=$LAB/nobody-reads timeout "$LAB_LIMIT" concc-cc gcc -c a.c || fail "status $?"
}

check "ccache's descriptor" uncached
check "ccache itself" ccache_forgets
check "it stays here" uncached_stays
check "what cargo starts" under_cargo
check "cargo itself" cargo_forgets
check "standard error that the build reads" captured
check "a configure script" configure_script
check "explanations in a file" to_file
lab_stop
