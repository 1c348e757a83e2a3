#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What tools that parse command lines get wrong.  Each case is run twice from the same files in the
# same directory, locally and on a worker; every file it leaves, and what it says, must be the same.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_enter "$@"
lab_start builder root
lab_config
CASE=$WS/case

# What is in the case's directory, but for times.
listing() {
	(cd "$CASE" && find . \( -type d -printf '%p dir %m\0' -o -printf '%p %y %m links=%n %l\0' \) |
		sort -z | tr '\0' '\n')
}

run_case() { # NAME "" or concc-cc
	local rc=0
	rm -rf "$CASE"
	mkdir "$CASE"
	cd "$CASE"
	"prepare_$1"
	RUN=$2 "build_$1" >"$LAB/out" 2>"$LAB/err" || rc=$?
	cd "$WS"
	echo "exit status $rc" >>"$LAB/out"
	listing >"$LAB/listing"
}

both_ways() { # NAME
	local f
	rm -rf "$LAB/kept"
	run_case "$1" ''
	for f in out err listing; do
		mv "$LAB/$f" "$LAB/local.$f"
	done
	expect_eq "locally" "$(tail -n 1 "$LAB/local.out")" "exit status ${STATUS:-0}"
	mv "$CASE" "$LAB/kept"
	export CONCC_EXPLAIN=1
	run_case "$1" concc-cc
	unset CONCC_EXPLAIN
	cat "$LAB/err"
	[ "$(explained_remote "$LAB/err")" -ge 1 ] || fail "nothing ran remotely"
	[ "$(explained_local "$LAB/err")" -eq 0 ] || fail "some of it ran locally"
	sed -i '/^concc: remote on /d' "$LAB/err"
	for f in out err listing; do
		diff "$LAB/local.$f" "$LAB/$f" || fail "$f differs"
	done
	for f in ${IGNORE-}; do
		rm -f "$LAB/kept/$f" "$CASE/$f"
	done
	diff -r "$LAB/kept" "$CASE" || fail "files differ"
}

source_c() { # FILE
	cat >"$1" <<-'EOF'
		#include <stdio.h>
		#include <string.h>
		static int twice(int x) { return 2 * x; }
		int main(int argc, char **argv)
		{
			printf("%s %d %s\n", __FILE__, twice(argc), strrchr(argv[0], '/'));
			return 0;
		}
	EOF
}

# ---- the cases: prepare_NAME makes the files, build_NAME compiles with $RUN before the compiler ----

prepare_split_dwarf() { source_c a.c; }
build_split_dwarf() {
	$RUN gcc -g -gsplit-dwarf -c a.c -o a.o
	[ -s a.dwo ]
}

prepare_response_file() {
	source_c a.c
	mkdir inc
	echo '#define X 1' >inc/x.h
	echo '-O2 -g @nested -c "a.c"' >args
	echo '-Iinc -include x.h -o a.o' >nested
}
build_response_file() { $RUN gcc @args; }

prepare_incbin() {
	head -c 5000 /bin/ls >data.bin
	echo 'asm(".section .rodata\n.global blob\nblob: .incbin \"data.bin\"\n");' >a.c
}
build_incbin() { $RUN gcc -c a.c -o a.o; }

# The bytes of a .gch hold addresses and differ each time; what is compiled with it must not.
prepare_pch() {
	echo '#include <stdio.h>
#include <stdlib.h>
#define FROM_PCH 7' >pre.h
	printf '#include "pre.h"\nint f(void) { return FROM_PCH; }\n' >a.c
}
build_pch() {
	$RUN gcc -O1 pre.h -o pre.h.gch
	mv pre.h pre.h.away
	echo '#error the precompiled header was not used' >pre.h
	$RUN gcc -O1 -Winvalid-pch -Werror -c a.c -o a.o
	rm pre.h
	mv pre.h.away pre.h
}

prepare_coverage() { source_c a.c; }
build_coverage() {
	# Without a seed the stamp in a .gcno is the time of day.
	$RUN gcc --coverage -frandom-seed=a.c -c a.c -o a.o
	[ -s a.gcno ]
}

prepare_save_temps() {
	source_c a.c
	mkdir out
}
build_save_temps() {
	$RUN gcc -save-temps=obj -c a.c -o out/a.o
	$RUN gcc -save-temps -c a.c -o b.o
	[ -s out/a.i ] && [ -s out/a.s ] && [ -s b.i ]
}

prepare_depfile_elsewhere() {
	source_c a.c
	mkdir -p deps/of objects
}
build_depfile_elsewhere() {
	$RUN gcc -MD -MF deps/of/a.d -MT 'a target' -MP -c a.c -o objects/a.o
	grep -q stdio.h deps/of/a.d
}

prepare_dotdot() {
	mkdir -p one/two/three other
	source_c one/a.c
}
build_dotdot() {
	(cd one/two/three && $RUN gcc -g -I../../../other/.. -c ../.././a.c -o ../../../other/../a.o)
}

prepare_names() {
	mkdir 'with space' "$(printf 'new\nline')" 'ünïcode-⊕' "quote'\"\$(x)"
	source_c 'with space/a b.c'
	source_c "$(printf 'new\nline')/a.c"
	source_c 'ünïcode-⊕/ä.c'
	source_c "quote'\"\$(x)/*.c"
}
build_names() {
	local d
	$RUN gcc -c 'with space/a b.c' -o 'with space/o b.o'
	d=$(printf 'new\nline')
	$RUN gcc -c "$d/a.c" -o "$d/a.o"
	$RUN gcc -g -MD -c 'ünïcode-⊕/ä.c' -o 'ünïcode-⊕/ä.o'
	$RUN gcc -c "quote'\"\$(x)/*.c" -o "quote'\"\$(x)/*.o"
	(cd 'with space' && $RUN gcc -g -c 'a b.c')
}

prepare_stdin() { source_c a.c; }
build_stdin() {
	$RUN gcc -x c -c - -o a.o <a.c
	cat a.c | $RUN gcc -x c -S - -o - >a.s
	echo 'int x;' | $RUN gcc -E -P -xc /dev/stdin >x.i
}

# Nothing that depends on the place or the time gets in, though no seed is given.
prepare_no_seed() {
	cat >a.cpp <<-'EOF'
		#include <string>
		namespace { struct hidden { std::string s = "x"; virtual ~hidden() {} }; hidden h; }
		static int counter = [] { return 3; }();
		int f() { return counter + (int)h.s.size(); }
	EOF
	source_c a.c
}
build_no_seed() {
	$RUN g++ -g -O2 -c a.cpp -o a.o
	$RUN gcc -g -O2 -flto -fno-fat-lto-objects -frandom-seed=1 -c a.c -o lto.o
}

prepare_modules() {
	printf 'export module shapes;\nexport int area(int a) { return a * a; }\n' >shapes.cpp
	printf 'import shapes;\nint twice(int a) { return 2 * area(a); }\n' >user.cpp
	printf 'export module more;\nexport import shapes;\nexport int four() { return area(2); }\n' >more.cpp
}
build_modules() {
	# Otherwise a module notes the time of day.
	export SOURCE_DATE_EPOCH=1700000000
	$RUN g++ -std=c++20 -fmodules-ts -c shapes.cpp -o shapes.o
	$RUN g++ -std=c++20 -fmodules-ts -c user.cpp -o user.o
	$RUN g++ -std=c++20 -fmodules-ts -c more.cpp -o more.o
	[ -s gcm.cache/shapes.gcm ]
}

prepare_include_paths() {
	mkdir -p env late
	echo '#define FROM_ENV 1' >env/env.h
	printf '#include <env.h>\n#if __has_include("never.h") || !__has_include("late/x.h")\n#error\n#endif\n' >a.c
	echo >late/x.h
	ln -s late alias
	printf '#include "alias/x.h"\nint x = FROM_ENV;\n' >>a.c
}
build_include_paths() {
	CPATH='env' $RUN gcc -c a.c -o a.o
	(umask 077 && CPATH='env' $RUN gcc -MMD -c a.c -o private.o)
}

prepare_assembler() {
	printf '#define N 3\n.include "more.s"\n.long N\n' >a.S
	echo '.long 1' >more.s
}
build_assembler() {
	$RUN gcc -c a.S -o a.o
	$RUN gcc -c more.s -o more.o
}

prepare_errors() {
	source_c a.c
	echo 'int main(void) { return missing; }' >bad.c
	echo 'old' >bad.o
	printf 'int f(void)\n{\n\tint unused;\n}\n' >warn.c
}
build_errors() {
	$RUN gcc -Wall -c warn.c -o warn.o
	$RUN gcc -c bad.c -o bad.o
}

# as(1) replaces what is there; the preprocessor writes into it, through links of both kinds.
prepare_outputs() {
	source_c a.c
	for f in o i; do
		echo x >real.$f
		ln -s real.$f link.$f
		echo x >one.$f
		ln one.$f two.$f
	done
	mkdir dumps
}
build_outputs() {
	local f
	for f in link one; do
		$RUN gcc -c a.c -o $f.o
		$RUN gcc -E a.c -o $f.i
	done
	$RUN gcc -c a.c -o /dev/null
	$RUN gcc -fdump-tree-optimized -dumpdir dumps/ -fstack-usage -c a.c -o dumped.o
	[ -c /dev/null ]
}

prepare_clang() { source_c a.c; }
build_clang() { $RUN clang -g -MD -c a.c -o a.o; }

case_clang() {
	command -v clang >/dev/null || skip "clang is not installed"
	both_ways clang
}
case_errors() { STATUS=1 both_ways errors; }
case_pch() { IGNORE=pre.h.gch both_ways pch; }

check "-gsplit-dwarf" both_ways split_dwarf
check "@file" both_ways response_file
check ".incbin" both_ways incbin
check "precompiled header" case_pch
check "--coverage" both_ways coverage
check "-save-temps" both_ways save_temps
check "-MD -MF elsewhere" both_ways depfile_elsewhere
check "-o with .." both_ways dotdot
check "spaces, newlines, UTF-8, quotes" both_ways names
check "source on stdin" both_ways stdin
check "the same without a seed" both_ways no_seed
check "C++20 modules" both_ways modules
check "include paths, __has_include, umask" both_ways include_paths
check "assembler with .include" both_ways assembler
check "errors and warnings" case_errors
check "symlink, hard link, /dev/null as outputs" both_ways outputs
check "clang" case_clang
lab_stop
