#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A command that is one of our own programs again: by whatever name and in whatever file, through a
# script, or in a job.  Whatever could go round for ever is given $LAB_LIMIT seconds.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"
printf 'int f(void) { return X; }\n' >x.c
printf 'int f(void) { return 1; }\n' >a.c
gcc -c a.c -o "$LAB/a.o"
mkdir bin # what jobs see of ours
cp "$LAB_BIN/concc-cc" "$LAB_BIN/concc-dispatch" bin
export CONCC_EXPLAIN=1

# The command makes a.o as gcc does, and says once where it ran.
compiles() { # remote|local CMD...
	local where=$1
	shift
	rm -f a.o
	echo "$*"
	timeout "$LAB_LIMIT" "$@" 2>"$LAB/err" || fail "status $?: $(tail -n 1 "$LAB/err")"
	tail -n 3 "$LAB/err"
	expect_same_file "$LAB/a.o" a.o
	expect_eq "how often it says where it ran" "$(grep -c '^concc: ' "$LAB/err")" 1
	expect_grep "^concc: $where" "$LAB/err"
}

twice() {
	compiles remote concc-cc concc-cc gcc -c a.c
	compiles remote concc-cc concc-cc concc-cc gcc -c a.c
	compiles remote concc-cc "$LAB_BIN/concc-cc" gcc -c a.c
	mkdir links
	ln -s "$LAB_BIN/concc-cc" links/gcc
	compiles remote concc-cc "$PWD/links/gcc" -c a.c
	compiles remote concc-cc links/gcc -c a.c
	compiles remote concc-dispatch concc-cc gcc -c a.c
	compiles remote concc-cc concc-dispatch gcc -c a.c
	expect_eq "its version" "$(concc-cc concc-cc --version 2>/dev/null)" "$(concc-cc --version)"
	expect_status 127 concc-cc ./concc-cc gcc -c a.c
}

# A directory of PATH that somebody made himself.
names() {
	local dir=$LAB/names
	mkdir "$dir"
	cp "$LAB_BIN/concc-cc" "$dir/gcc"
	PATH=$dir:$PATH compiles remote gcc -c a.c
	PATH=$dir:$PATH compiles remote concc-cc gcc -c a.c
	ln -f "$dir/gcc" "$dir/cc"
	PATH=$dir:$PATH compiles remote cc -c a.c
	cp "$LAB_BIN/concc-cc" "$dir/concc-cc-1.2"
	ln -sf concc-cc-1.2 "$dir/gcc"
	PATH=$dir:$PATH compiles remote gcc -c a.c
	PATH=$dir:$PATH compiles remote concc-cc-1.2 gcc -c a.c
	cp "$LAB_BIN/concc-cc" "$dir/.concc-cc-wrapped"
	printf '#!/bin/sh\nexec %s/.concc-cc-wrapped "$@"\n' "$dir" >"$dir/wrapped"
	chmod +x "$dir/wrapped"
	PATH=$dir:$PATH compiles remote wrapped gcc -c a.c
	cp "$LAB_BIN/concc-dispatch" "$dir/gcc.new"
	mv "$dir/gcc.new" "$dir/gcc"
	PATH=$dir:$PATH compiles remote concc-cc gcc -c a.c
	expect_eq "its version" "$(PATH=$dir:$PATH timeout "$LAB_LIMIT" concc-cc-1.2 --version)" "$(concc-cc --version)"
	# What the compiler starts in turn does not meet it either.
	cp "$LAB_BIN/concc-cc" "$dir/cc"
	PATH=$dir:$PATH concc-dispatch sh -c 'command -v cc' >"$LAB/out" 2>/dev/null
	expect_eq "cc in a job" "$(cat "$LAB/out")" "$(command -v cc)"
}

script() { # DIR TEXT
	mkdir -p "$1"
	printf '#!/bin/sh\necho %s >>%s/log\n%s\n' "$1" "$WS" "$2" >"$1/gcc"
	chmod +x "$1/gcc"
}

# No compiler is behind it.
nothing_else() {
	local dir=$LAB/alone
	mkdir "$dir" here
	cp "$LAB_BIN/concc-cc" "$dir/no-gcc"
	cp "$LAB_BIN/concc-cc" here/no-gcc
	PATH=$dir:$PATH expect_status 127 timeout "$LAB_LIMIT" no-gcc -c a.c
	PATH=$dir:$PATH expect_status 127 timeout "$LAB_LIMIT" concc-cc no-gcc -c a.c
	expect_status 127 timeout "$LAB_LIMIT" "$dir/no-gcc" -c a.c
	cd here
	PATH=:$PATH expect_status 127 timeout "$LAB_LIMIT" no-gcc -c a.c
	PATH=.:$PATH expect_status 127 timeout "$LAB_LIMIT" concc-cc no-gcc -c a.c
	cp "$LAB_BIN/concc-cc" gcc
	cd "$WS"
	# What else is in the current directory stays.
	printf '#!/bin/sh\necho found\n' >here/tool
	chmod +x here/tool
	expect_eq "tool" "$(cd here && PATH=$dir::$PATH concc-dispatch sh -c tool 2>/dev/null)" found
	expect_status 100 timeout "$LAB_LIMIT" concc-cc concc-cc
	expect_status 100 timeout "$LAB_LIMIT" concc-cc concc-dispatch --no-such-option
}

# A compiler's script that asks for the compiler through us.
scripts() {
	local PATH=$WS/one:$WS/bin:$PATH
	script one 'exec concc-cc gcc -DX=1 "$@"'
	sed 's/X/1/' x.c >a.c
	for CONCC_DISABLE in '' 1; do
		export CONCC_DISABLE
		# Who started the first is not known: that one is taken for a compiler.
		while read -r times run; do
			rm -f log
			# shellcheck disable=SC2086 # words
			timeout "$LAB_LIMIT" $run -c a.c 2>"$LAB/err" || fail "$run: status $?"
			cat "$LAB/err"
			expect_same_file "$LAB/a.o" a.o
			expect_eq "$run: how often the script ran" "$(wc -l <log)" "$times"
		done <<-'END'
			2 gcc
			1 concc-cc gcc
			1 concc-cc concc-cc gcc
		END
	done
	script two 'exec concc-cc gcc "$@"'
	PATH=$WS/two:$PATH
	for CONCC_DISABLE in '' 1; do
		rm -f log
		timeout "$LAB_LIMIT" concc-cc gcc -c a.c 2>"$LAB/err" || fail "status $?"
		expect_eq "scripts that ran" "$(tr '\n' ' ' <log)" "two one "
	done
}

# Nothing else is meant: it goes on to itself, and comes to an end.
endless() {
	script three 'exec concc-cc no-compiler "$@"'
	mv three/gcc three/no-compiler
	PATH=$WS/three:$WS/bin:$PATH expect_status 101 timeout "$LAB_LIMIT" concc-cc no-compiler 2>"$LAB/err"
	tail -n 2 "$LAB/err"
	expect_grep 'no-compiler starts itself without end' "$LAB/err"
	printf '#include <unistd.h>\nint main(void) { execlp("concc-cc", "concc-cc", "no-program", NULL); return 9; }\n' >p.c
	gcc p.c -o three/no-program
	PATH=$WS/three:$WS/bin:$PATH expect_status 101 timeout "$LAB_LIMIT" concc-cc no-program 2>"$LAB/err"
	expect_grep 'no-program starts itself without end' "$LAB/err"
}

# A script may well call itself, when it ends.
itself() {
	cat >bin/countdown <<-'END'
		#!/bin/sh
		echo "$1"
		[ "$1" = 0 ] || concc-dispatch countdown $(($1 - 1))
	END
	chmod +x bin/countdown
	expect_eq "countdown" "$(PATH=$WS/bin:$PATH concc-dispatch countdown 5 2>/dev/null | tr '\n' ' ')" "5 4 3 2 1 0 "
	expect_eq "countdown here" \
		"$(PATH=$WS/bin:$PATH CONCC_DISABLE=1 concc-dispatch countdown 5 2>/dev/null | tr '\n' ' ')" "5 4 3 2 1 0 "
}

# A job starts no jobs, and leaves nothing of ours.
in_a_job() {
	compiles remote concc-dispatch sh -c 'bin/concc-cc gcc -c a.c'
	compiles remote concc-dispatch sh -c 'bin/concc-dispatch sh -c "bin/concc-cc gcc -c a.c"'
	compiles remote concc-dispatch env PATH="$WS/bin:$PATH" concc-cc gcc -c a.c
	mkdir masq
	cp bin/concc-cc masq/gcc
	compiles remote concc-dispatch sh -c 'PATH=$PWD/masq:$PATH gcc -c a.c'
}

check "a command that is us" twice
check "files and names of ours" names
check "names of ours alone" nothing_else
check "scripts in front of compilers" scripts
check "what never ends" endless
check "a script that calls itself" itself
check "in a job" in_a_job
lab_stop
