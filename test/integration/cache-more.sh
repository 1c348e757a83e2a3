#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Kept results: what else a command may observe.  Each case is a way to a result that is not this
# call's any more.
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
lab_need jq
export LAB_ROOT=client
lab_enter "$@"
lab_start builder
near_config

# The directory that is written to is another one by the same name.
output_led_elsewhere() {
	fresh led
	mkdir d1 d2
	ln -s d1 out
	ln -s d1 up
	mkdir d1/deep d2/deep
	echo 'int f(void) { return 1; }' >a.c
	OUT='d1/a.o d2/a.o'
	twice gcc -c a.c -o out/a.o
	ln -sfn d2 out
	concc why gcc -c a.c -o out/a.o </dev/null || true
	twice gcc -c a.c -o out/a.o
	ln -sfn d1 out
	try cache gcc -c a.c -o out/a.o
	OUT='d1/b.o d2/b.o'
	twice gcc -c a.c -o up/deep/../b.o
	ln -sfn d2 up
	twice gcc -c a.c -o up/deep/../b.o
	# The name itself, when it is one that leads to nothing yet.
	OUT='d1/c.o d2/c.o'
	ln -s d1/c.o c.o
	try w1 gcc -c a.c -o c.o
	ln -sfn d2/c.o c.o
	try w1 gcc -c a.c -o c.o
	rm -f c.o
	[ ! -x /usr/bin/clang ] || {
		OUT='d1/a.o d2/a.o'
		ln -sfn d1 out
		twice clang -c a.c -o out/a.o
		ln -sfn d2 out
		concc why clang -c a.c -o out/a.o </dev/null || true
		twice clang -c a.c -o out/a.o
	}
}

# What it made on the way is not made where it is there, nor its place.
output_directory() {
	fresh place
	mkdir out
	OUT=out/a.o
	echo 'int f(void) { return 1; }' >a.c
	twice gcc -c a.c -o out/a.o
	mv out real
	here gcc -c a.c -o out/a.o # there is none
	ln -s real out
	OUT=real/a.o
	twice gcc -c a.c -o out/a.o
	rm out
	: >out
	here gcc -c a.c -o out/a.o # it is no directory
	rm out
	mv real out
	OUT=out/a.o
	try cache gcc -c a.c -o out/a.o
}

# By any way, and with the same end; not by the cache.
here() { # CMD...
	local f status=0
	begin_state
	PLAIN=0
	"$@" </dev/null >"$LAB/plain.out" 2>"$LAB/plain.err" || PLAIN=$?
	for f in $OUT; do
		[ ! -e "$f" ] || fail "$f was made"
	done
	CONCC_EXPLAIN=$LAB/explain concc-cc "$@" </dev/null >"$LAB/ours.out" 2>"$LAB/ours.err" || status=$?
	expect_eq "exit status" "$status" "$PLAIN"
	same_bytes "$LAB/plain.err" "$LAB/ours.err" || fail "$*: other errors"
	expect_no_grep '(cache)' "$LAB/explain"
	: >"$LAB/explain"
	for f in $OUT; do
		[ ! -e "$f" ] || fail "$f was made by us"
	done
}

# clang looks for its headers beside where it really lies.
another_installation() {
	local real version resource
	[ -x /usr/bin/clang ] || skip "there is no clang"
	fresh installed
	real=$(readlink -f /usr/bin/clang)
	resource=$(clang -print-resource-dir)
	version=${resource##*/}
	for i in 1 2; do
		mkdir -p "v$i/bin" "v$i/lib/clang/$version"
		cp "$real" "v$i/bin/clang"
		cp -r "$resource/include" "v$i/lib/clang/$version/include"
	done
	echo '#define ONE 1' >>"v1/lib/clang/$version/include/stddef.h"
	printf '#include <stddef.h>\n#ifndef ONE\n#define ONE 2\n#endif\nint f(void) { return ONE; }\n' >a.c
	mkdir bin
	ln -s ../v1/bin/clang bin/clang
	export LD_LIBRARY_PATH=${real%/*}/../lib
	twice bin/clang -c a.c -o a.o
	ln -sfn ../v2/bin/clang bin/clang
	twice bin/clang -c a.c -o a.o
	ln -sfn ../v1/bin/clang bin/clang
	try cache bin/clang -c a.c -o a.o
}

variables() {
	fresh variables
	[ -x /usr/bin/clang ] || skip "there is no clang"
	echo 'int f(void) { return 1; }' >a.c
	local words=(clang --target=arm64-apple-ios -c a.c -o a.o)
	export IPHONEOS_DEPLOYMENT_TARGET=11.0
	twice "${words[@]}"
	export IPHONEOS_DEPLOYMENT_TARGET=12.0
	twice "${words[@]}"
}

# What is found is printed where the caller is, and must meet what the compiler would meet there.
standard_streams() {
	local to status plain
	fresh streams
	OUT=''
	printf 'int f(void) { int unused; return 1; }\n' >a.c
	twice gcc -Wall -E a.c
	OUT=a.o
	twice gcc -Wall -c a.c -o a.o
	for to in '>&-' '>/dev/full' '2>&-' '<&-' '>&- 2>&-' '2>/dev/full'; do
		for words in 'gcc -Wall -E a.c' 'gcc -Wall -c a.c -o a.o'; do
			plain=0 status=0
			rm -f a.o
			eval "$words </dev/null >$LAB/plain.out 2>$LAB/plain.err $to" || plain=$?
			[ ! -e a.o ] || mv a.o plain.o
			CONCC_EXPLAIN=$LAB/explain eval "concc-cc $words </dev/null >$LAB/ours.out 2>$LAB/ours.err $to" || status=$?
			echo "$words $to: $plain, $(cat "$LAB/explain")"
			: >"$LAB/explain"
			expect_eq "status of $words $to" "$status" "$plain"
			same_bytes "$LAB/plain.out" "$LAB/ours.out" || fail "$words $to: other output"
			same_bytes "$LAB/plain.err" "$LAB/ours.err" || fail "$words $to: other errors"
			[ "$words" != 'gcc -Wall -c a.c -o a.o' ] || [ ! -e plain.o ] || cmp a.o plain.o
			rm -f plain.o
		done
	done
}

# clang takes the newest GCC that it finds a directory of.
directory_listed_meanwhile() {
	[ -x /usr/bin/clang ] || skip "there is no clang"
	fresh listed
	local gccs=tc/lib/gcc/x86_64-linux-gnu
	mkdir -p $gccs/9 tc/include/c++/9 tc/include/c++/10
	own_tools
	HELD_AS=x86_64-linux-gnu-as
	ln bin/as bin/$HELD_AS
	cp "$(readlink -f /usr/bin/clang++)" bin/clang++
	: >$gccs/9/crtbegin.o
	echo '#define V 9' >tc/include/c++/9/v.h
	echo '#define V 10' >tc/include/c++/10/v.h
	printf '#include <v.h>\nint f(void) { return V; }\n' >a.cc
	HELD_CALL=(bin/clang++ --gcc-toolchain="$PWD/tc" -fno-integrated-as --target=x86_64-linux-gnu -c a.cc -o a.o)
	meanwhile eval "mkdir $gccs/10 && : >$gccs/10/crtbegin.o"
}

# A directory that a job sees by itself, and that the server gets to know only after it has changed.
known_too_late() { # CHANGE...
	local inc=/usr/local/include
	fresh late
	own_tools
	mount -t tmpfs late $inc
	lab_stop_server
	cat >/srv/concc.ini <<-EOS
		[concc]
		workspace = $WS
		cache = 1G
		local-slots = 0
		[worker w1]
		address = local:
		slots = 1
		[worker w2]
		address = local:
		root = client
		slots = 1
	EOS
	echo '#define H 1' >$inc/h.h
	echo '#define T 1' >$inc/gone.h
	printf '#if __has_include(<gone.h>)\n#include <gone.h>\n#else\n#define T 0\n#endif\n#include <h.h>\nint f(void) { return H + T; }\n' >a.c
	printf '#include <h.h>\nint g(void) { return H; }\n' >b.c
	LAB_N=2
	HELD_CALL=(gcc -c a.c -o a.o)
	lab_all_up
	hold_second
	meanwhile listed_after "$@"
	concc-worker-pool release "$SECOND"
	lab_stop_server
	umount $inc
}

hold_second() {
	SECOND=$(concc-worker-pool allocate --only w2 --owner "$$")
	SECOND=${SECOND##* }
}

listed_after() { # CHANGE...
	concc-worker-pool release "$SECOND"
	"$@"
	CONCC_EXPLAIN=$LAB/other concc-cc gcc -c b.c -o b.o </dev/null
	expect_grep 'remote on w2:' "$LAB/other"
	hold_second
}

# Without other workers nobody is served the system, and the server watches it for itself: what
# changes in it is seen, and what does not is not looked at again.
system_of_its_own() {
	local inc=/usr/local/include i first last
	fresh own
	mkdir inc other
	mount --bind inc $inc
	lab_stop_server
	echo '#define H 1' >$inc/h.h
	printf '#include <map>\n#include <h.h>\nint f() { return H; }\n' >a.cc
	twice g++ -c a.cc -o a.o
	lab_syscalls "$(lab_server_pid)" ours cache g++ -c a.cc -o a.o >/dev/null
	first=$(grep -c 'newfstatat(AT_FDCWD' "$LAB/strace")
	for ((i = 0; i < 100; i++)); do
		ours cache g++ -c a.cc -o a.o >/dev/null
	done
	lab_syscalls "$(lab_server_pid)" ours cache g++ -c a.cc -o a.o >/dev/null
	last=$(grep -c 'newfstatat(AT_FDCWD' "$LAB/strace")
	echo "$first names are looked at at first, $last at last"
	expect_le "names" "$last" $((first / 2)) # /etc, and directories that hardly anything is in
	rewrite $inc/h.h '#define H 2'
	twice g++ -c a.cc -o a.o
	echo '#error found' >$inc/features.h
	try w1 g++ -c a.cc -o a.o
	rm $inc/features.h
	try cache g++ -c a.cc -o a.o
	echo '#define H 3' >other/h.h
	mount --bind other $inc # another directory by the same name
	twice g++ -c a.cc -o a.o
	lab_stop_server
	umount $inc
	umount $inc
}

for root in worker client; do
	[ $root = worker ] || {
		lab_config 'cache = 1G' 'local-slots = 0'
		lab_stop_server
	}
	check "$root: the output leads elsewhere" output_led_elsewhere
	check "$root: the output's directory" output_directory
	check "$root: another installation" another_installation
	check "$root: variables" variables
	check "$root: standard streams" standard_streams
	check "$root: a directory that was listed" directory_listed_meanwhile
done
near_config
check "a system that is not served" system_of_its_own
check "changed, and known only then" known_too_late rewrite /usr/local/include/h.h '#define H 2'
check "gone, and known only then" known_too_late rm /usr/local/include/gone.h
lab_stop
