#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What compilers are asked for their parts, and what is never run but as it was told to; and jobs that
# see the worker's own system: compilers there that differ, whoever calls them and whenever that begins.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need gcc perl
lab_enter "$@"
# /usr/local/bin, of each machine its own.
mkdir -p "$LAB/bin" "$LAB/w1/local"
mount --bind "$LAB/bin" /usr/local/bin
PATH=/usr/local/bin:$PATH
lab_start builder
lab_worker 1 mount --bind /mnt/local /usr/local/bin
lab_mounts "${LAB_INIT[1]}" >"$LAB/w1/mounts"
lab_config
cd "$WS"
CC1=$(gcc -print-prog-name=cc1)
echo 'int f(int x) { return 2 * x; }' >a.c

# A program of that name on both machines.
install_program() { # FILE NAME
	cp "$1" "$LAB/bin/$2"
	cp "$1" "$LAB/w1/local/$2"
}

# It says what it was told, each time that it is run, where everybody sees it.
cat >"$LAB/told" <<EOF
#!/bin/sh
echo "\$*" >>$WS/log
EOF
chmod +x "$LAB/told"
cat >"$LAB/told.c" <<EOF
#include <stdio.h>
int main(int argc, char **argv)
{
	FILE *f = fopen("$WS/log", "a");
	while (*++argv)
		fprintf(f, "%s%s", *argv, argv[1] ? " " : "");
	fprintf(f, "\n");
	return fclose(f);
}
EOF
gcc -o "$LAB/told-elf" "$LAB/told.c"

told_once() { # WRAPPER PROGRAM
	rm -f log
	CONCC_EXPLAIN=1 "$1" "$2" -c a.c 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_eq "what $2 was told by $1" "$(cat log)" "-c a.c"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 1
}

never_asked() {
	local wrapper name what
	for what in told told-elf; do
		for name in account-sync-cc gcc cc clang++ arm-none-eabi-gcc rustc my-rustc-cc clang-99; do
			install_program "$LAB/$what" "$name"
			hash -r
			for wrapper in concc-cc concc-dispatch; do
				told_once "$wrapper" "$name"
				told_once "$wrapper" "/usr/local/bin/$name"
			done
			rm "$LAB/bin/$name" "$LAB/w1/local/$name"
		done
	done
	# By a link, and in the workspace.
	for what in told told-elf; do
		install_program "$LAB/$what" account-sync
		for name in "$LAB/bin/gcc" "$LAB/w1/local/gcc"; do
			ln -s account-sync "$name"
		done
		told_once concc-cc /usr/local/bin/gcc
		told_once concc-dispatch /usr/local/bin/gcc
		rm "$LAB"/{bin,w1/local}/{gcc,account-sync}
		mkdir tools
		cp "$LAB/$what" tools/gcc
		told_once concc-cc tools/gcc
		told_once concc-dispatch tools/gcc
		rm -r tools
	done
	rm log
}

# One that does not answer is waited for by who brought it: all others are answered meanwhile.
cat >"$LAB/held.c" <<EOF
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	char c;
	FILE *f;
	if (argc < 2 || strncmp(argv[1], "-print-prog-name", 16))
		return 0;
	f = fopen("$WS/asked.new", "w");
	fprintf(f, "%d", (int)getpid());
	fclose(f);
	rename("$WS/asked.new", "$WS/asked");
	return read(open("$WS/gate", O_RDONLY), &c, 1) < 0;
}
EOF
gcc -o "$LAB/held" "$LAB/held.c"

# It is asked for 2 s: on a machine that is too busy to answer by then the next one may be luckier.
answered_meanwhile() {
	local name answers=0
	mkfifo gate
	exec 7<>gate
	for name in gcc g++ clang arm-none-eabi-gcc; do
		[ $answers = 0 ] || break
		install_program "$LAB/held" "$name"
		concc-cc "/usr/local/bin/$name" -c a.c </dev/null 7>&- &
		"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$WS" asked || fail "$name is not asked"
		concc status 7>&- >"$LAB/status" || fail "no answer"
		kill -0 "$(<asked)" 2>/dev/null && answers=1
		wait $! || fail "exit status $?"
		rm "$LAB/bin/$name" "$LAB/w1/local/$name" asked
	done
	exec 7>&-
	rm gate
	hash -r
	expect_eq "answers meanwhile" $answers 1
}

place() { # WANTED CMD...
	local want=$1
	shift
	rm -f a.o
	CONCC_EXPLAIN=1 "$@" 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_grep "^concc: $want" "$LAB/explain"
	expect_file a.o
}

scripts() {
	mkdir -p tools
	printf '#!/bin/sh\nexec gcc "$@"\n' >tools/cc
	printf '#!/bin/sh\nexec /usr/bin/gcc "$@"\n' >tools/my-compile
	chmod +x tools/*
	install_program tools/my-compile scripted-gcc
}

CALLS=(gcc tools/cc ./tools/my-compile scripted-gcc)

# Whoever calls it: a compiler there that is another one makes another object.
differs() { # WHAT-DIFFERS
	local call
	for call in "${CALLS[@]}"; do
		place "local: .*(gave-up|toolchain)" concc-cc "$call" -c a.c
		expect_grep "its $1 is another version" "$LAB/explain"
	done
}

same() {
	local call
	for call in "${CALLS[@]}"; do
		place "remote on w1" concc-cc "$call" -c a.c
	done
}

other_cc1() {
	scripts
	same
	cp "$CC1" "$LAB/w1/cc1"
	echo >>"$LAB/w1/cc1"
	lab_stop_server
	lab_worker 1 mount --bind /mnt/cc1 "$CC1"
	differs "$CC1"
	lab_stop_server
	lab_agents_gone
	lab_worker 1 umount "$CC1"
	same
}

# The assembler is what PATH has.  It is replaced while all runs, first here, then there.
new_as() {
	local as=/usr/local/bin/as
	scripts
	lab_stop_server
	install_program /usr/bin/as as
	same
	echo >>"$LAB/bin/as"
	differs "$as"
	cp "$LAB/bin/as" "$LAB/w1/local/as.new"
	mv "$LAB/w1/local/as.new" "$LAB/w1/local/as"
	lab_stop_server
	same
	echo >>"$LAB/w1/local/as"
	differs "$as"
	rm "$LAB/bin/as" "$LAB/w1/local/as"
}

# The linker, of what is linked: replaced here while all runs.
new_ld() {
	scripts
	echo 'int main(void) { return 0; }' >main.c
	lab_stop_server
	install_program /usr/bin/ld ld
	place "remote on w1" concc-cc gcc main.c -o a.o
	echo >>"$LAB/bin/ld"
	place "local: .*(gave-up|toolchain)" concc-cc gcc main.c -o a.o
	expect_grep "its /usr/local/bin/ld is another version" "$LAB/explain"
	same
	rm "$LAB/bin/ld" "$LAB/w1/local/ld"
}

# One that was not there before, beside what was.
new_cc1plus() {
	local dir
	dir=$(dirname "$CC1")
	mkdir -p "$LAB/parts" "$LAB/w1/parts"
	cp -a "$dir/." "$LAB/parts"
	cp -a "$dir/." "$LAB/w1/parts"
	rm "$LAB/parts/cc1plus"
	echo >>"$LAB/w1/parts/cc1plus"
	lab_stop_server
	mount --bind "$LAB/parts" "$dir"
	lab_worker 1 mount --bind /mnt/parts "$dir"
	place "remote on w1" concc-cc gcc -c a.c
	cp "$LAB/w1/parts/cc1plus" "$LAB/parts/new"
	echo >>"$LAB/parts/new"
	mv "$LAB/parts/new" "$LAB/parts/cc1plus"
	place "local: .*(gave-up|toolchain)" concc-cc gcc -c a.c
	expect_grep "its $dir/cc1plus is another version" "$LAB/explain"
	lab_stop_server
	lab_agents_gone
	umount "$dir"
	lab_worker 1 umount "$dir"
}

# As many looks as there are files: nothing is asked or read again.
warm() {
	concc-cc gcc -c a.c
	lab_syscalls "$(lab_server_pid)" concc-cc gcc -c a.c >/dev/null
	expect_no_grep 'fork\(|clone|execve|open.*/cc1"' "$LAB/strace"
	expect_eq "looks at cc1" "$(grep -c "stat.*\"$CC1\"" "$LAB/strace")" 1
}

# This machine's processor, wherever it is said.
native() {
	mkdir -p sub tools
	printf '#!/bin/sh\nexec cat "${1#@}"\n' >tools/cat-gcc
	chmod +x tools/cat-gcc
	echo '-O1 -march=native' >flags
	echo '@flags -g' >nested
	printf '# a comment\n-O1 \\\n  "-march=native"\n' >sub/x.cfg
	echo "-O1 -DX='-march=native'" >harmless
	mkfifo pipe
	place "local: native" concc-cc gcc @flags -c a.c
	place "local: native" concc-cc gcc @nested -c a.c
	place "remote on w1" concc-cc gcc @harmless -c a.c
	# Here it stays a name, which gcc says is no file.
	CONCC_EXPLAIN=1 concc-cc gcc @nowhere -c a.c 2>"$LAB/explain" || true
	cat "$LAB/explain"
	expect_grep '^concc: remote on w1' "$LAB/explain"
	# Nobody but the command opens that: all of it is still there.
	(echo 'all of it' >pipe) &
	CONCC_EXPLAIN=1 concc-cc tools/cat-gcc @pipe -c a.c >"$LAB/out" 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_grep '^concc: local: args-file .@pipe' "$LAB/explain"
	expect_eq "what is in the pipe" "$(cat "$LAB/out")" 'all of it'
	wait
	if command -v clang >/dev/null; then
		place "local: native" concc-cc clang --config ./sub/x.cfg -c a.c
		CCC_OVERRIDE_OPTIONS='# +-march=native' place "local: native" concc-cc clang -c a.c
	fi
	rm -r sub tools flags nested harmless pipe
}

check "what is not known to be a compiler is not asked" never_asked
check "a compiler that does not answer" answered_meanwhile
check "another cc1" other_cc1
check "another as, meanwhile" new_as
check "another ld, meanwhile" new_ld
check "a compiler that was not there" new_cc1plus
check "a warm job" warm
check "this machine's processor" native
lab_stop_server
umount /usr/local/bin
lab_mounts >"$LAB/mounts"
lab_stop
