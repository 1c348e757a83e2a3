#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Kept results: what other caches get wrong, and what must be found again.  Whatever is said to come
# of the cache is compared with what the same command makes here, at that moment.
# limit: 600
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
lab_need jq
export LAB_ROOT=client
lab_enter "$@"
lab_start builder
lab_config 'cache = 1G' 'local-slots = 0'

found_again() {
	fresh again
	printf '#include "a.h"\nint f(void) { int unused; return A; }\n' >a.c
	echo '#define A 1' >a.h
	twice gcc -Wall -O1 -c a.c -o a.o
	touch a.c a.h # times are no input
	try cache gcc -Wall -O1 -c a.c -o a.o
	echo '#define A 2' >a.h
	try w1 gcc -Wall -O1 -c a.c -o a.o
	echo '#define A 1' >a.h # as it was
	try cache gcc -Wall -O1 -c a.c -o a.o
	try w1 gcc -Wall -O2 -c a.c -o a.o
	cp a.c b.c
	try w1 gcc -Wall -O1 -c b.c -o a.o
}

# ccache's and sccache's direct modes take the old object.
earlier_header() {
	fresh earlier
	mkdir one two
	echo '#include <h.h>
int f(void) { return H; }' >a.c
	echo '#define H 2' >two/h.h
	twice gcc -Ione -Itwo -c a.c -o a.o
	echo '#define H 1' >one/h.h
	twice gcc -Ione -Itwo -c a.c -o a.o
	rm one/h.h
	try cache gcc -Ione -Itwo -c a.c -o a.o
}

has_include() {
	fresh has
	printf '#if __has_include("config.h")\nint configured;\n#else\nint plain;\n#endif\n' >a.c
	twice gcc -c a.c -o a.o
	: >config.h
	try w1 gcc -c a.c -o a.o
	rm config.h
	try cache gcc -c a.c -o a.o
}

directory_appears() {
	fresh dir
	mkdir two
	echo '#include <h.h>
int f(void) { return H; }' >a.c
	echo '#define H 2' >two/h.h
	twice gcc -Ione -Itwo -c a.c -o a.o
	mkdir one
	try w1 gcc -Ione -Itwo -c a.c -o a.o
	echo '#define H 3' >one/h.h
	try w1 gcc -Ione -Itwo -c a.c -o a.o
	rm -r one
	try cache gcc -Ione -Itwo -c a.c -o a.o
}

symlink_switched() {
	fresh link
	mkdir v1 v2
	echo '#define H 1' >v1/h.h
	echo '#define H 2' >v2/h.h
	ln -s v1 now
	echo '#include <h.h>
int f(void) { return H; }' >a.c
	twice gcc -Inow -c a.c -o a.o
	ln -sfn v2 now
	try w1 gcc -Inow -c a.c -o a.o
	ln -sfn v1 now
	try cache gcc -Inow -c a.c -o a.o
}

# GCC leaves out a directory of the search path that is another by another name, and looks into it no
# more: which of them are the same one is an input.
same_directory() {
	fresh twins
	mkdir d0 d1
	echo '#define H 1' | tee d0/h.h >d1/h.h
	ln -s d1 now
	printf '#include <h.h>\n#if __has_include(<o.h>)\n#include <o.h>\n#endif\nint f(void) { return H; }\n' >a.c
	twice gcc -Inow -Id1 -c a.c -o a.o # of d1 no name is looked at
	ln -sfn d0 now
	echo '#define H 2' >d1/o.h
	twice gcc -Inow -Id1 -c a.c -o a.o
}

callers_world() {
	fresh world
	echo 'int f(void) { return 1; }' >a.c
	twice gcc -g -c a.c -o a.o
	(
		umask 077
		twice gcc -g -c a.c -o a.o
	)
	mkdir sub
	cp a.c sub
	(
		cd sub
		try w1 gcc -g -c a.c -o a.o # the same words, with another DW_AT_comp_dir
	)
	mkdir inc
	echo '#define X 1' >inc/x.h
	(
		export CPATH=$PWD/inc
		try w1 gcc -g -c a.c -o a.o
	)
	(
		export EDITOR=ed # no compiler reads that
		try cache gcc -g -c a.c -o a.o
	)
	try cache gcc -g -c a.c -o a.o
}

the_time() {
	fresh time
	OUT=a.o
	echo 'const char *d = "no " "date";' >a.c
	echo 'const char *d = __DATE__;' >b.c
	printf '#define P(a, b) a##b\nconst char *d = P(__DA, TE__);\n' >c.c
	try w1 gcc -c b.c -o a.o
	try w1 gcc -c b.c -o a.o
	try w1 gcc -c c.c -o a.o
	try w1 gcc -c c.c -o a.o
	expect_eq "jobs not kept for it" "$(reasons time)" 4
	export SOURCE_DATE_EPOCH=1000000000
	twice gcc -c b.c -o a.o
	export SOURCE_DATE_EPOCH=1100000000
	try w1 gcc -c b.c -o a.o
}

several_outputs() {
	fresh several
	OUT='a.o a.d a.dwo'
	echo '#include "a.h"
int f(void) { return A; }' >a.c
	echo '#define A 1' >a.h
	twice gcc -g -gsplit-dwarf -MD -MF a.d -c a.c -o a.o
}

# Who goes back to what was built before, or forgets to remove one of two outputs, builds nothing.
outputs_stay() {
	local cc
	fresh stay
	OUT='a.o a.d'
	KEEP=yes
	for cc in gcc clang; do
		echo 'int f(void) { return 1; }' >a.c
		rm -f a.o a.d
		try w1 "$cc" -MD -MF a.d -c a.c -o a.o
		cp a.c one.c
		rm a.o
		try cache "$cc" -MD -MF a.d -c a.c -o a.o
		echo 'int f(void) { return 2; } int g(int x) { return x + f(); }' >a.c
		try w1 "$cc" -MD -MF a.d -c a.c -o a.o
		cp one.c a.c
		try cache "$cc" -MD -MF a.d -c a.c -o a.o
		echo 'int f(void) { return 3; }' >a.c
		try w1 "$cc" -MD -MF a.d -c a.c -o a.o
		rm a.d a.o
		try cache "$cc" -MD -MF a.d -c a.c -o a.o
	done
	rm one.c
	OUT=a.s
	rm -f a.s
	try w1 gcc -S a.c -o ./a.s
	ours cache gcc -S a.c -o ./a.s
}

# A preprocessor opens what it is asked for, so that one counts, whatever else becomes of it.
outputs_that_are_asked_for() {
	local cc where
	fresh asked
	KEEP=yes
	printf '#if __has_include("a.o")\nint there;\n#else\nint absent;\n#endif\n' >a.c
	for cc in gcc clang; do
		for where in . "$PWD"; do
			rm -f a.o
			try w1 "$cc" "-I$where" -c "$where/a.c" -o "$where/a.o"
			nm a.o | grep absent
			try w1 "$cc" "-I$where" -c "$where/a.c" -o "$where/a.o"
			nm a.o | grep there
			rm -f a.o
			try cache "$cc" "-I$where" -c "$where/a.c" -o "$where/a.o"
			nm a.o | grep absent
		done
	done
}

# What such a file is decides what becomes of it, when it is not as such a call would leave it.
describe() {
	stat -c '%n %A %h %u:%g %s' * sub/*
	getfacl -p a.d
	getfattr -d a.d
	cat a.d
}

special() { # WHERE CHANGE: cache, or anywhere
	echo "--- $2"
	local run where=$1
	for run in plain ours; do
		rm -rf a.d sub
		setfacl -k .
		chgrp 0 .
		chmod g-s .
		mkdir sub
		[ "$2" = absent ] || echo old >a.d
		[ "$2" = absent ] || bash -c "$2"
		if [ "$run" = plain ]; then
			gcc -MM -MF a.d a.c
		else
			CONCC_EXPLAIN=$LAB/explain concc-cc gcc -MM -MF a.d a.c
		fi
		describe >"$LAB/$run.state"
	done
	diff "$LAB/plain.state" "$LAB/ours.state" || fail "$2: another state"
	[ "$where" != cache ] || expect_grep 'remote on .cache.:' "$LAB/explain"
	: >"$LAB/explain"
}

outputs_that_are_special() {
	local change
	fresh special
	echo 'int f(void) { return 1; }' >a.c
	special anywhere absent
	special cache true
	for change in 'chmod 600 a.d' 'chmod 755 a.d' 'chmod 664 a.d' 'ln a.d sub/b' \
		'mv a.d sub/a.d; ln -s sub/a.d a.d' 'setfattr -n user.x -v 1 a.d' 'chgrp 12 a.d' \
		'chown 12 a.d' 'chgrp 12 .; chmod g+s .' 'setfacl -m u:12:rw a.d' 'setfacl -d -m u:12:rw .'; do
		special anywhere "$change"
		special anywhere "$change"
	done
	special cache absent
	special cache true
}

# What is kept is read from its place, until which it must not be written to.
garbage() { # FILE
	concc cache >/dev/null
	echo garbage >"$1"
}

# What a worker says of a file that is as it was is not all that there is to keep.
output_was_there() {
	fresh there
	KEEP=yes
	echo 'int f(void) { return 2; }' >a.c
	gcc -c a.c -o a.o
	echo 'int f(void) { return 1; }' >a.c
	try w1 gcc -c a.c -o a.o
	garbage a.o # of another size
	try cache gcc -c a.c -o a.o
	concc cache >/dev/null
	: >a.o
	try cache gcc -c a.c -o a.o
	echo 'int f(void) { return 3; }' >a.c
	gcc -c a.c -o a.o
	try w1 gcc -c a.c -o a.o # the same bytes as before
	garbage a.o
	try cache gcc -c a.c -o a.o
	rm a.o
	try cache gcc -c a.c -o a.o
	garbage a.o
	chmod 600 a.o
	try w1 gcc -c a.c -o a.o
	OUT=a.s # which is written in its place
	gcc -S a.c -o a.s
	try w1 gcc -S a.c -o a.s
	cp a.s "$LAB/a.s"
	# The same bytes, as its worker knows, since it has made them itself.
	concc-cc gcc -S -DX a.c -o a.s </dev/null >"$LAB/ours.out" 2>"$LAB/ours.err"
	concc-cc gcc -S -DY a.c -o a.s </dev/null >"$LAB/ours.out" 2>"$LAB/ours.err"
	garbage a.s
	try cache gcc -S -DY a.c -o a.s
	cmp a.s "$LAB/a.s"
}

# Of a file that is as it was its worker says just that.  Who empties it here makes an event only when
# it is empty (do_truncate() in fs/open.c), so the server may meet that before it hears of it.  Here it
# is told so by its first calls about the file.
met_empty() { # CALLS
	local word stat='' call=(gcc -S "-DCALLS=$1" a.c -o a.s)
	# struct stat of x86-64 up to st_size, each long with its least byte first
	for word in $(stat -c '%d %i %h' a.s) $((16#$(stat -c %f a.s))) 0 0 0; do
		stat+=$(printf %016x "$word" | fold -w 2 | tac | tr -d '\n')
	done
	LAB_STRACE=(-P "$PWD/a.s" -e "inject=newfstatat:poke_exit=@arg3=$stat:when=1..$1"
		-e inject=read:retval=0:when=1..3)
	lab_syscalls "$(lab_server_pid)" concc-cc "${call[@]}" </dev/null
	LAB_STRACE=()
	expect_grep INJECTED "$LAB/strace"
	concc cache >/dev/null
	rm a.s
	concc-cc "${call[@]}" </dev/null
	cmp a.s "$LAB/a.s"
}

output_is_emptied() {
	local calls
	fresh emptied
	echo 'int f(void) { return 1; }' >a.c
	concc-cc gcc -S a.c -o a.s </dev/null
	cp a.s "$LAB/a.s"
	for calls in 1 2 3 4 5; do
		met_empty $calls
	done
}

standard_input() {
	fresh stdin
	echo 'int f(void) { return 1; }' >a.c
	for i in 1 2; do
		CONCC_EXPLAIN=$LAB/explain concc-cc gcc -x c -c - -o a.o <a.c
		gcc -x c -c - -o b.o <a.c
		cmp a.o b.o
		expect_grep 'remote on w1:' "$LAB/explain"
		expect_no_grep 'cache' "$LAB/explain"
		echo 'int f(void) { return 2; }' >a.c
	done
}

# What no preprocessor tells of, and ccache's manual warns of.
included_by_assembler() {
	fresh incbin
	echo 'asm(".section .rodata\n.incbin \"blob\"\n.text\n"); int f(void) { return 1; }' >a.c
	echo one >blob
	twice gcc -c a.c -o a.o
	echo two >blob
	try w1 gcc -c a.c -o a.o
}

# As an archive or a checkout with times may leave it: only the bytes are other ones.
same_size_and_time() {
	fresh same
	echo '#include "h.h"' >a.c
	echo 'int h = 1;' >h.h
	touch -d 2001-01-01 h.h
	twice gcc -c a.c -o a.o
	echo 'int h = 2;' >h.h
	touch -d 2001-01-01 h.h
	try w1 gcc -c a.c -o a.o
	echo 'int h = 1;' >i.h
	touch -d 2001-01-01 i.h
	mv i.h h.h
	try cache gcc -c a.c -o a.o
}

# Beside the file that includes it, and by #include_next, forced and system directories.
other_ways_to_include() {
	fresh ways
	mkdir -p in sys/deep
	echo '#include "x.h"' >in/outer.h
	echo '#define X 1' >x.h
	printf '#include "in/outer.h"\nint f(void) { return X + Y; }\n' >a.c
	echo '#define Y 1' >forced.h
	echo '#include_next <y.h>' >sys/y.h
	echo '#define Z 1' >sys/deep/y.h
	local words=(gcc -I. -isystem sys -isystem sys/deep -include forced.h -include y.h -c a.c -o a.o)
	twice "${words[@]}"
	echo '#define X 2' >in/x.h
	try w1 "${words[@]}"
	echo '#define Z 2' >sys/deep/y.h
	try w1 "${words[@]}"
	echo '#define Y 2' >y.h
	try w1 "${words[@]}" # before the system's own
	rm y.h in/x.h
	echo '#define Z 1' >sys/deep/y.h
	try cache "${words[@]}"
}

response_files() {
	fresh response
	printf '#include "h.h"\nint f(void) { return H + A; }\n' >a.c
	mkdir in
	echo '#define H 1' >in/h.h
	echo '-O1 @opts' >args
	echo '-Iin "-DA=1"' >opts
	twice gcc @args -c a.c -o a.o
	echo '-Iin "-DA=2"' >opts
	try w1 gcc @args -c a.c -o a.o
	echo '#define H 2' >in/h.h
	try w1 gcc @args -c a.c -o a.o
	echo '-Iin "-DA=1"' >opts
	echo '#define H 1' >in/h.h
	try cache gcc @args -c a.c -o a.o
	[ ! -x /usr/bin/clang ] || {
		twice clang @args -c a.c -o a.o
	}
}

special_outputs() {
	fresh outputs
	OUT='a.o b.o real.o'
	echo 'int f(void) { return 1; }' >a.c
	echo 'int g(void) { return 2; }' >b.c
	twice gcc -c a.c b.c
	twice gcc -c a.c -o /dev/null
	# Through a link: it stays one, or not, as the compiler has it.
	OUT='real.o'
	ln -s real.o link.o
	try w1 gcc -c a.c -o link.o
	ln -sfn real.o link.o
	try cache gcc -c a.c -o link.o
	rm -f real.o link.o
	# Another name of the old object keeps the old bytes.
	OUT=''
	gcc -DOLD -c a.c -o real.o
	ln real.o other.o
	concc-cc gcc -c a.c -o real.o
	rm -f real.o other.o
	gcc -g -DOLD -c a.c -o real.o
	cp real.o old.o
	ln real.o other.o
	CONCC_EXPLAIN=$LAB/explain concc-cc gcc -c a.c -o real.o
	cat "$LAB/explain"
	gcc -c a.c -o plain.o
	cmp plain.o real.o
	gcc -g -DOLD -c a.c -o plain.o
	ln -f plain.o plain-other.o
	gcc -c a.c -o plain.o
	cmp plain-other.o other.o
}

# Another compiler, and another assembler, by the same names.
upgraded() {
	fresh upgraded
	mkdir bin
	cp "$(readlink -f /usr/bin/gcc)" bin/gcc
	cp "$(readlink -f /usr/bin/as)" bin/as
	ln -s /usr/lib lib
	[ ! -d /usr/libexec ] || ln -s /usr/libexec libexec
	echo 'int f(void) { return 1; }' >a.c
	export PATH=$PWD/bin:$PATH
	twice gcc -c a.c -o a.o
	echo >>bin/gcc
	twice gcc -c a.c -o a.o
	echo >>bin/as
	twice gcc -c a.c -o a.o
	echo '#!/bin/sh
exec /usr/bin/as "$@"' >bin/as
	try w1 gcc -c a.c -o a.o
	try w1 gcc -c a.c -o a.o # a script may do what it likes
	expect_eq "jobs not kept for it" "$(reasons script)" 2
}

not_kept() {
	fresh kept
	echo 'int f(void) { return 1; }' >a.c
	echo '-flto=auto' >args # for which other variables count
	concc-cc gcc @args -c a.c -o a.o
	concc-cc gcc @args -c a.c -o a.o
	expect_eq "response files" "$(reasons response-file)" 2
	echo '-fprofile-arcs' >opts
	echo '-O1 @opts' >args
	concc-cc gcc @args -c a.c -o a.o
	concc-cc gcc @args -c a.c -o a.o
	expect_eq "options in them" "$(reasons profile)" 2
	echo '#define H 1' >h.h
	gcc h.h
	echo '#include "h.h"
int f(void) { return H; }' >a.c
	try w1 gcc -c a.c -o a.o
	try w1 gcc -c a.c -o a.o
	expect_eq "precompiled headers" "$(reasons precompiled)" 2
	echo 'int f(void) { return }' >a.c
	try w1 gcc -c a.c -o a.o
	try w1 gcc -c a.c -o a.o
	expect_ge "failures" "$(reasons failed)" 2
}

changed_meanwhile() {
	fresh meanwhile
	own_tools
	mkdir one two v1 v2
	ln -s v1 now
	printf '#include "gen.h"\n#include <h.h>\n#include <v.h>\nint f(void) { return GEN + H + V; }\n' >a.c
	echo '#define GEN 1' >gen.h
	echo '#define H 1' >two/h.h
	echo '#define V 1' >v1/v.h
	echo '#define V 2' >v2/v.h
	HELD_CALL=(gcc -Ione -Itwo -Inow -c a.c -o a.o)
	meanwhile rewrite gen.h '#define GEN 2'
	meanwhile replace gen.h '#define GEN 3'
	meanwhile made_by_job gen.h 'int gen; enum { GEN = 4 };'
	meanwhile eval 'echo "#define H 2" >one/h.h' # where it was looked for
	meanwhile ln -sfn v2 now
	echo '#define GEN 5' >gen.h
	meanwhile and_back gen.h '#define GEN 6'
}

# #pragma once: by inode, or by bytes and time.
once_only() {
	fresh once
	mkdir a b
	printf '#pragma once\nint x = 1;\n' >a/h.h
	cp a/h.h b/h.h
	touch -d 2001-01-01 a/h.h
	touch -d 2002-01-01 b/h.h
	printf '#include "a/h.h"\n#include "b/h.h"\n' >a.c
	try w1 gcc -c a.c -o a.o # an error: it is defined twice
	touch -r a/h.h b/h.h
	twice gcc -c a.c -o a.o
	touch -d 2003-01-01 b/h.h
	try w1 gcc -c a.c -o a.o
}

cpp_and_clang() {
	fresh clang
	echo '#include <utility>
int f(std::pair<int, int> &v) { return v.first; }' >a.cc
	twice g++ -O1 -c a.cc -o a.o
	command -v clang >/dev/null || return 0
	twice clang++ -O1 -c a.cc -o a.o
}

what_changed() {
	fresh why
	mkdir one two
	local words=(gcc -Ione -Itwo -c a.c -o a.o) kept='hit: its result is kept, made by w1;'
	printf '#include <h.h>\n#if __has_include("o.h")\n#endif\nint f(void) { return H; }\n' >a.c
	echo '#define H 1' >two/h.h
	why 'miss: nothing is kept of a call with these arguments, in this directory, with this environment;' "${words[@]}"
	try w1 "${words[@]}"
	rm a.o
	why "$kept" "${words[@]}"
	concc why "${words[@]}" >"$LAB/why" || fail "it is kept, and the status is another"
	[ ! -e a.o ] || fail "it was put in place"
	echo '#define H 2' >two/h.h
	why 'miss: two/h.h changed;' "${words[@]}"
	echo '#define H 1' >two/h.h
	: >o.h
	ln -s ../two/h.h one/h.h
	why 'miss: o.h exists now;miss: one/h.h exists now;' "${words[@]}"
	rm o.h
	why 'miss: one/h.h exists now;' "${words[@]}"
	try w1 "${words[@]}"
	# Of two results that are kept, the one that less is different from now.
	rm one/h.h a.o
	echo 'int g;' >>a.c
	why 'miss: a.c changed;' "${words[@]}"
	# Another call for the same output.
	export CPATH=
	why 'miss: argument -Iother instead of -Ione;miss: variable CPATH is set now;' gcc -Iother -Itwo -c a.c -o a.o
	unset CPATH
	export LC_ALL=C
	try w1 gcc -Iother -Itwo -c a.c -o a.o
	export LC_ALL=C.UTF-8
	rm a.o
	why 'miss: variable LC_ALL changed;' gcc -Iother -Itwo -c a.c -o a.o
	why 'miss: argument -O2 is new;miss: variable LC_ALL changed;' gcc -Iother -Itwo -c -O2 a.c -o a.o
	unset LC_ALL
	why 'miss: argument -Itwo is missing;' gcc -Ione -c a.c -o a.o
	(umask 077 && why 'miss: the umask changed;' "${words[@]}")
	why 'miss: its arguments have another order;' gcc -Itwo -Ione -c a.c -o a.o
	grep -r UTF-8 "$(store_of)/n" && fail "the value of a variable is kept"
	echo 'const char *d = __DATE__;' >b.c
	gcc -c b.c -o b.o
	concc-cc gcc -c b.c -o b.o </dev/null
	why 'not cacheable: time, when it ran last;' gcc -c b.c -o b.o
	why 'not cacheable: plugin;' gcc -fplugin=x -c b.c -o b.o
	why 'not cacheable: it runs here: query (--version);' gcc --version
}

# What is known of a directory holds for what is found by its path, as long as it is that one: after enough
# hits that nothing is looked at again, another is mounted there, or has its place.
other_in_its_place() {
	local i hits
	fresh place
	mkdir -p inc/sub alt/sub
	echo '#define H 1' >inc/sub/h.h
	echo '#define H 2' >alt/sub/h.h
	echo '#define G 1' >inc/g.h
	echo '#define G 3' >alt/g.h
	printf '#include <sub/h.h>\n#include <g.h>\nint f(void) { return H * 10 + G; }\n' >a.c
	local words=(gcc -Iinc -c a.c -o a.o)
	as_here() {
		rm -f a.o
		concc-cc "${words[@]}" </dev/null
		gcc -Iinc -c a.c -o plain.o
		cmp a.o plain.o || fail "another object, line ${BASH_LINENO[0]}"
		rm -f plain.o
	}
	for ((i = 0; i < 8; i++)); do
		as_here
	done
	hits=$(lab_status .cache.hits)
	as_here
	expect_eq "hits" "$(lab_status .cache.hits)" $((hits + 1))
	mount --bind alt/sub inc/sub
	as_here
	as_here
	mount --bind alt/g.h inc/g.h
	as_here
	umount inc/g.h inc/sub
	as_here
	mount -t tmpfs none inc/sub
	echo '#define H 7' >inc/sub/h.h
	as_here
	as_here
	umount inc/sub
	mount --bind alt inc
	as_here
	umount inc
	as_here
	mv inc inc.real
	ln -s alt inc
	as_here
	as_here
	rm inc
	ln -s inc.real inc
	as_here
	rm inc
	mv inc.real inc
	as_here
	cd ..
	mv place place.old
	cp -r place.old place
	cd place
	echo '#define G 5' >inc/g.h
	as_here
	rm -rf ../place.old
}

# Called by a compiler's name, and none: what is kept is of the compiler that ccache calls, through us.
another_program() {
	fresh another
	mkdir bin
	echo 'int f(void) { return 1; }' >a.c
	command -v ccache >/dev/null || skip "there is no ccache"
	ln -s "$(command -v ccache)" bin/gcc
	export CCACHE_DISABLE=1
	try w1 bin/gcc -c a.c -o a.o
	try '(cache)' bin/gcc -c a.c -o a.o
}

store_of() { # the folder
	echo "$CONCC_CACHE_DIR/results"
}

store_removed() {
	fresh removed
	echo 'int f(void) { return 1; }' >a.c
	twice gcc -c a.c -o a.o
	rm -rf "$(store_of)"
	twice gcc -c a.c -o a.o
	concc cache >"$LAB/told"
	expect_grep '^kept  *1$' "$LAB/told"
	rm -rf "$(store_of)"
	: >"$(store_of)" # and something else is there
	try w1 gcc -c a.c -o a.o
	try w1 gcc -c a.c -o a.o
	expect_ge "not kept for it" "$(reasons store)" 2
	rm -f "$(store_of)"
	twice gcc -c a.c -o a.o
}

# At each name that anything gets: the object itself, by the loop's thread; its bytes in the store, its
# set of names, and the result, by another.  The call is done again, right, and kept
# then.
killed_each_time() { # WHAT AT-LEAST: the first result of a call, or one more
	local n=0 turn pid tasks
	for ((turn = 0; ; turn++)); do
		fresh "killed-$1-$turn"
		echo "int warm;" >warm.h # so that its set of names is another, and its bytes
		if [ "$1" = more ]; then
			echo 'int f(void) { return 0; }' >a.c
			concc-cc gcc -c a.c -o a.o </dev/null 2>"$LAB/ours.err"
		fi
		printf '#ifdef WARM\n#include "warm.h"\n#endif\nint f(void) { return %d; }\n' "$((2 * turn + $2))" >a.c
		gcc -c a.c -o b.o
		concc-cc gcc -DWARM -c a.c -o a.o </dev/null # a server is there
		concc cache >/dev/null                       # and has kept it
		pid=$(lab_server_pid)
		[ -n "$pid" ] || fail "turn $turn: no server: $(tail -n 5 "$CONCC_RUNTIME_DIR/project.log")"
		tasks=$(ls "/proc/$pid/task")
		rm a.o
		if [ $n = 0 ]; then
			fault_inject "$pid" "renameat:signal=KILL:when=1" -e status=none
		else
			fault_inject_others "$pid" "renameat:signal=KILL:when=$n" -e status=none
		fi
		concc-cc gcc -c a.c -o a.o </dev/null 2>"$LAB/ours.err"
		concc cache >/dev/null # it has kept it by now, or died
		fault_inject_no_more 2>/dev/null
		cmp a.o b.o
		rm a.o
		concc-cc gcc -c a.c -o a.o </dev/null 2>"$LAB/ours.err"
		cmp a.o b.o
		try cache gcc -c a.c -o a.o
		if [ ! -e "/proc/$pid" ]; then
			n=$((n + 1))
		elif [ "$(ls "/proc/$pid/task")" = "$tasks" ]; then
			break
		fi # else it was done by a thread that was started meanwhile, which nobody traced
	done
	expect_ge "times that it was killed" "$n" "$2"
}

killed_while_keeping() {
	. "$LAB_REPO/test/lib/faults.sh"
	killed_each_time first 2 # its output, and all of it
	killed_each_time more 3  # its output, the object, the result
}

store_full() {
	fresh full
	lab_stop_server
	mount -t tmpfs -o size=256k full "$(store_of)"
	chmod 700 "$(store_of)"
	dd if=/dev/zero of="$(store_of)/filler" bs=4k 2>/dev/null || true
	echo 'int f(void) { return 1; }' >a.c
	try w1 gcc -c a.c -o a.o
	try w1 gcc -c a.c -o a.o
	expect_eq "not kept for it" "$(reasons store)" 2
	rm "$(store_of)/filler"
	twice gcc -c a.c -o a.o
	lab_stop_server
	umount "$(store_of)"
}

# System calls of the server: a name is looked at once at the most, by a hit as by what is kept,
# whatever was done with it, and not where its directory or the tree tells, be it through /lib; the
# rest does not grow with the names.
what_it_costs() {
	local i miss missed hit names again
	# Of what happens to a file by another name, no event tells.
	[ "$(stat -Lc %h "$(gcc -print-prog-name=cc1)")" -eq 1 ] || skip "the compiler's files have other names, too"
	fresh cost
	mkdir -p one two
	for ((i = 0; i < 100; i++)); do
		echo "#define H$i 1" >two/h$i.h
		echo "#include <h$i.h>"
	done >a.c
	cp a.c b.c
	cp a.c c.c
	compile() { concc-cc gcc -Ione -Itwo -c "$1.c" -o a.o </dev/null >"$LAB/ours.out" 2>&1 && rm a.o; }
	compile b # all directories are known then
	compile c
	# Without those by which threads wake each other, which are by chance.
	lab_syscalls "$(lab_server_pid)" compile a >/dev/null
	miss=$(grep '(' "$LAB/strace" | grep -vc 'futex')
	missed=$(grep -c 'newfstatat(AT_FDCWD\|readlink(' "$LAB/strace")
	lab_syscalls "$(lab_server_pid)" compile a >/dev/null
	hit=$(grep '(' "$LAB/strace" | grep -vc 'futex')
	names=$(grep -c 'newfstatat(AT_FDCWD' "$LAB/strace")
	lab_syscalls "$(lab_server_pid)" compile a >/dev/null
	again=$(grep -c 'newfstatat(AT_FDCWD' "$LAB/strace")
	echo "$hit calls of a hit, $names of them look at names, of the next one $again; $miss calls of a miss, $missed of them at names"
	lab_status .cache
	expect_le "names" "$names" 30	    # of some 340: nobody has touched the others' directories
	expect_le "names of the next hit" "$again" 30
	expect_le "calls of a hit" "$hit" $((names + 110))
	expect_le "calls of a miss at names" "$missed" 110 # those that others have looked at, neither
	expect_le "calls of a miss" "$miss" $((missed + 180))
}

# A large result is read, and written, by a thread; what it was chosen by is looked at before and after
# both.  Symlinks of a directory that nobody is told of, such as a system's loader, are looked at each time.
how_often_it_looks() {
	local i small large
	fresh often
	ln -s "$WS/often" /srv/elsewhere
	echo 'int f(void) { return 1; }' >small.c
	echo 'char f[6000000] = {1};' >large.c
	compile() { rm -f a.o && concc-cc gcc -c "/srv/elsewhere/$1.c" -o a.o </dev/null >"$LAB/ours.out" 2>&1; }
	looks() { grep -c 'newfstatat(AT_FDCWD, "/srv/elsewhere", .*AT_SYMLINK_NOFOLLOW' "$LAB/strace"; }
	for i in small large; do
		compile $i
		compile $i
		lab_syscalls "$(lab_server_pid)" compile $i >/dev/null
		declare "$i=$(looks)"
	done
	rm /srv/elsewhere
	expect_eq "looks" "$small" 1
	expect_eq "looks at what a large result was chosen by" "$large" 2
}

# For the first result of a call there is one new file in the store, with the object and the set of its
# names in it.  Done again after an edit it is two, the object and the result, and what leads there;
# what a person is told by is put behind what is there, and nothing in the place of anything.
what_keeping_costs() {
	local made before
	fresh keeping
	# Objects that nothing before has made: the store is the same.
	echo 'int keeping_a(void) { return 1; }' >a.c
	echo 'int keeping_b(void) { return 1; }' >b.c
	kept() {
		concc-cc gcc -c "$1.c" -o a.o </dev/null >"$LAB/ours.out" 2>&1 || fail "status $?: $(cat "$LAB/ours.out")"
		concc cache >/dev/null
	}
	before=$(concc status --json | jq '.cache.kept // 0')
	kept b
	lab_syscalls "$(lab_server_pid)" kept a >/dev/null
	made=$(grep -c 'openat([0-9]*, "tmp/' "$LAB/strace" || true)
	expect_eq "files made" "$made" 1
	expect_eq "other files written to" "$(grep -c 'openat([0-9]*, "[a-z]/[^"]*", .*O_CREAT' "$LAB/strace")" 1
	echo 'int keeping_a(void) { return 2; }' >a.c
	lab_syscalls "$(lab_server_pid)" kept a >/dev/null
	made=$(grep -c 'openat([0-9]*, "tmp/' "$LAB/strace" || true)
	expect_eq "files made after an edit" "$made" 2
	lab_syscalls "$(lab_server_pid)" kept a >/dev/null
	expect_eq "of the store, read for a hit" "$(grep -c 'openat([0-9]*, "[b-w]/.*O_RDONLY.*= [0-9]' "$LAB/strace")" 4
	lab_syscalls "$(lab_server_pid)" kept b >/dev/null
	expect_eq "of the store, read for a hit of what was kept once" \
		"$(grep -c 'openat([0-9]*, "[b-w]/.*O_RDONLY.*= [0-9]' "$LAB/strace")" 1
	expect_eq "kept" $(($(lab_status .cache.kept) - before)) 3
}

# A server that has had only hits has told no worker of any directory; so what is looked at again and
# again, as the headers of a system, it watches for itself.
only_hits() {
	local i first last
	fresh hits
	mkdir -p include
	for ((i = 0; i < 100; i++)); do
		echo "#define H$i $i" >include/h$i.h
		echo "#include <h$i.h>"
	done >a.cc
	printf '#include <map>\nint f(void) { return H7; }\n' >>a.cc
	mkdir b
	cd b
	compile() { concc-cc g++ -I../include -c ../a.cc -o a.o </dev/null >"$LAB/ours.out" 2>&1; }
	compile
	compile
	lab_stop_server
	lab_all_up
	lab_syscalls "$(lab_server_pid)" compile >/dev/null
	first=$(grep -c 'newfstatat(AT_FDCWD' "$LAB/strace")
	for ((i = 0; i < 3; i++)); do
		compile
	done
	lab_syscalls "$(lab_server_pid)" compile >/dev/null
	last=$(grep -c 'newfstatat(AT_FDCWD' "$LAB/strace")
	echo "$first names are looked at at first, $last at last"
	expect_eq "hits" "$(lab_status .cache.hits)" 5
	expect_le "names" "$last" $((first - 90))
	echo '#define H7 8' >../include/h7.h
	compile
	expect_eq "hits after an edit" "$(lab_status .cache.hits)" 5
}

# Programs are large: what they hold is known by their times, to the next server as well.
read_once() {
	local n
	fresh once-read
	echo 'int f(void) { return 1; }' >a.c
	concc-cc gcc -c a.c -o a.o </dev/null
	lab_stop_server
	concc-cc gcc -DA -c a.c -o a.o </dev/null
	lab_stop_server
	lab_all_up
	compile() { concc-cc gcc -DB -c a.c -o a.o </dev/null; }
	lab_syscalls "$(lab_server_pid)" compile >/dev/null
	concc cache
	expect_eq "kept" "$(lab_status .cache.kept)" 1
	n=$(grep -c 'read([0-9]*, .*, 262144)' "$LAB/strace")
	expect_le "large reads" "$n" 20 # a compiler has 100 and more
}

# A hit needs no worker.
no_worker() {
	fresh none
	echo 'int f(void) { return 1; }' >a.c
	try w1 gcc -c a.c -o a.o
	lab_cut 1
	try cache gcc -c a.c -o a.o
	lab_mend 1
}

off() {
	lab_config 'local-slots = 0'
	lab_stop_server
	fresh off
	echo 'int f(void) { return 1; }' >a.c
	try w1 gcc -c a.c -o a.o
	try w1 gcc -c a.c -o a.o
	expect_eq "in the status" "$(lab_status '.cache | tostring')" null
}

# ---- a store that others share ----

# As another machine's: nothing is kept here.
forget_all() {
	lab_stop_server
	concc cache clear
}

shared_config() { # LINE...
	near_config 'cache-url = http://127.0.0.1:8099/team/' "$@"
}

shared_store() {
	command -v /usr/sbin/nginx >/dev/null || skip "there is no nginx"
	fresh shared
	OUT='a.o a.d'
	printf '#include "h.h"\nint f(void) { int unused; return H; }\n' >a.c
	echo '#define H 1' >h.h
	local words=(gcc -Wall -MD -c a.c -o a.o) before
	shared_server PUT
	shared_config 'cache-push = yes'
	try w1 "${words[@]}"
	forget_all # which waits until it is there
	try cache "${words[@]}"
	try cache "${words[@]}"
	# Who may only read: what is kept here stays here.
	shared_config
	echo '#define H 2' >h.h
	try w1 "${words[@]}"
	before=$(grep -c PUT "$LAB/dav/access.log")
	forget_all
	try w1 "${words[@]}"
	expect_eq "files put there" "$(grep -c PUT "$LAB/dav/access.log")" "$before"
	echo '#define H 1' >h.h
	forget_all
	try cache "${words[@]}"
	# Another set of names of the same call does not push the first one out.
	shared_config 'cache-push = yes'
	concc cache clear
	echo '#include "i.h"' >h.h
	echo '#define H 3' >i.h
	try w1 "${words[@]}"
	forget_all
	try cache "${words[@]}"
	forget_all
	echo '#define H 1' >h.h
	try cache "${words[@]}"
	shared_end
}

shared_is_gone() {
	command -v /usr/sbin/nginx >/dev/null || skip "there is no nginx"
	fresh gone
	echo 'int f(void) { return 1; }' >a.c
	shared_config 'cache-push = yes'
	try w1 gcc -c a.c -o a.o
	try w1 gcc -O1 -c a.c -o a.o
	try cache gcc -c a.c -o a.o
	expect_eq "times that it was said" "$(grep -c "can't be reached" "$CONCC_RUNTIME_DIR/project.log")" 1
}

# It takes connections, and never says a word: others are served meanwhile, and the job runs.
shared_is_silent() {
	local pid
	fresh silent
	echo 'int f(void) { return 1; }' >a.c
	shared_config
	coproc SILENT { exec python3 -c 'import socket, sys
s = socket.create_server(("127.0.0.1", 8099))
print("ready", flush=True)
c = s.accept()[0]
print("asked", flush=True)
sys.stdin.read()'; }
	read -r -t "$LAB_LIMIT" line <&"${SILENT[0]}"
	CONCC_EXPLAIN=$LAB/explain concc-cc gcc -c a.c -o a.o </dev/null &
	pid=$!
	read -r -t "$LAB_LIMIT" line <&"${SILENT[0]}"
	expect_eq "its word" "$line" asked
	lab_status '.jobs' >"$LAB/told"
	[ ! -e a.o ] || fail "nobody waited for an answer"
	wait $pid
	expect_grep 'remote on w1:' "$LAB/explain"
	kill "$SILENT_PID"
}

# Whatever lies there: it is what it should be, or it is not used.
shared_damaged() {
	local f byte
	command -v /usr/sbin/nginx >/dev/null || skip "there is no nginx"
	shared_server PUT
	shared_config 'cache-push = yes'
	fresh damaged
	rm -rf "$LAB/dav/root/team"
	echo 'int f(void) { return 1; }' >a.c
	gcc -c a.c -o b.o
	try w1 gcc -c a.c -o a.o
	forget_all
	expect_eq "objects there" "$(find "$LAB/dav/root" -type f | wc -l)" 4
	for f in "$LAB"/dav/root/team/*/*; do
		cp "$f" "$LAB/whole"
		for byte in '\377' '\376'; do # one of them is another
			printf "$byte" | dd of="$f" bs=1 seek=40 conv=notrunc status=none
			! cmp -s "$f" "$LAB/whole" || continue
			break
		done
		cmp -s "$f" "$LAB/whole" && fail "$f was not damaged"
		rm -f a.o
		concc-cc gcc -c a.c -o a.o </dev/null 2>"$LAB/ours.err" >"$LAB/ours.out"
		cmp a.o b.o
		forget_all
		cp "$LAB/whole" "$f"
	done
	try cache gcc -c a.c -o a.o
	forget_all
	# Another's result in its place, and what leads to it is as it was.
	cp -r "$LAB/dav/root/team" "$LAB/dav/whole"
	echo 'int g(void) { return 1; }' >a.c
	try w1 gcc -c a.c -o a.o
	forget_all
	find "$LAB/dav/root/team/ac" -type f -size +1k | while read -r f; do
		[ -e "$LAB/dav/whole/ac/${f##*/}" ] || continue
		cp "$f" "$LAB/other"
		for f in "$LAB"/dav/root/team/ac/*; do
			[ "$(stat -c %s "$f")" -lt 1000 ] || cp "$LAB/other" "$f"
		done
		break
	done
	shared_config
	concc cache clear
	try w1 gcc -c a.c -o a.o
	rm -rf "$LAB/dav/root/team"
	mv "$LAB/dav/whole" "$LAB/dav/root/team"
	echo 'int f(void) { return 1; }' >a.c
	# A result that is whole, and writes elsewhere.
	mkdir "${WS%?}#"
	rm a.o
	python3 -c 'import hashlib, os, sys
for path in sys.argv[3:]:
	hex, all = os.path.basename(path), open(path, "rb").read()
	name = ("r/" + hex[:1] + "/" + hex[1:]).encode() + b"\0"
	if hashlib.sha256(name + all[32:]).digest() == all[:32]:
		data = all[32:].replace(sys.argv[1].encode(), sys.argv[2].encode())
		open(path, "wb").write(hashlib.sha256(name + data).digest() + data)
		print("changed", path)' "$WS" "${WS%?}#" "$LAB"/dav/root/team/ac/* >"$LAB/told"
	expect_grep changed "$LAB/told"
	shared_config
	concc cache clear
	try w1 gcc -c a.c -o a.o
	expect_eq "files elsewhere" "$(find "${WS%?}#" | wc -l)" 1
	expect_grep 'what the shared cache has is not what it should be' "$CONCC_RUNTIME_DIR/project.log"
	shared_end
}

# What is in a workspace is seen alike, and compared here, whatever else the jobs see.
check_once() { # NAME CMD
	[ "$root" != client ] || check "$@"
}

for root in client worker; do
	[ $root = client ] || {
		near_config
		concc cache clear
	}
	check "$root: found again" found_again
	check "$root: a header that appears earlier" earlier_header
	check_once "__has_include" has_include
	check_once "a directory that appears" directory_appears
	check "$root: a symlink that is switched" symlink_switched
	check "$root: which directories are the same one" same_directory
	check "$root: umask, directory, environment" callers_world
	check "$root: the time of the day" the_time
	check "$root: several outputs" several_outputs
	check "$root: an output that was there" output_was_there
	check "$root: an output that is emptied" output_is_emptied
	check "$root: outputs that stay" outputs_stay
	check "$root: outputs that are asked for" outputs_that_are_asked_for
	check "$root: outputs that are special" outputs_that_are_special
	check_once "standard input" standard_input
	check_once "what an assembler includes" included_by_assembler
	check_once "the same size and time" same_size_and_time
	check_once "other ways to include" other_ways_to_include
	check "$root: response files" response_files
	check "$root: special outputs" special_outputs
	check "$root: another compiler by the same name" upgraded
	check "$root: what is not kept" not_kept
	check "$root: a header that changes meanwhile" changed_meanwhile
	check_once "pragma once" once_only
	check "$root: C++ and clang" cpp_and_clang
	check_once "another in its place" other_in_its_place
	check_once "why" what_changed
	check "$root: another program by such a name" another_program
done
check "off" off
lab_config 'cache = 1G' 'local-slots = 0'
lab_stop_server
check "without a worker" no_worker
check "what it costs" what_it_costs
check "what keeping costs" what_keeping_costs
check "how often it looks" how_often_it_looks
check "what is looked at often is watched" only_hits
check "what is known need not be read again" read_once
near_config
check "the store is removed" store_removed
check "killed while it keeps" killed_while_keeping
check "the store is full" store_full
check "shared" shared_store
check "shared, and gone" shared_is_gone
check "shared, and silent" shared_is_silent
check "shared, and damaged" shared_damaged
lab_stop
