#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What a warm job costs, in counts: messages to the FUSE file system, turns of the link, bytes, system
# calls of our processes on the client.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq strace
lab_enter "$@"
lab_start builder
lab_config
mkdir -p "$WS/include/deep"
cd "$WS"
C_jobs=0 C_fuse_messages=0 C_turns=0 C_bytes_out=0 C_bytes_in=0 C_lists=0 C_fetched_files=0
for i in $(seq 200); do
	echo "#define H$i $i" >"include/deep/h$i.h"
	echo "#include <deep/h$i.h>"
done >all.h
printf '#include <stdio.h>\n#include "all.h"\nint f(void) { return H200; }\n' >a.c

compile() {
	CONCC_EXPLAIN=1 concc-cc gcc -Imissing -Iinclude -MD -MF a.d -c a.c -o a.o 2>"$LAB/explain"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 1
}

count() { # NAME
	lab_status "[.workers[].$1] | add"
}

edit() {
	echo "int edited$1;" >>a.c
}

# How many of that opcode of linux/fuse.h there were between the two readings: 2 is FORGET, 15 READ, 42 BATCH_FORGET.
messages() { # OPCODE
	echo $(($(jq -s ".[0][\"$1\"] // 0" "$LAB/after") - $(jq -s ".[0][\"$1\"] // 0" "$LAB/before")))
}

# Runs a job between two readings and leaves the differences in C_NAME.
measure() {
	local name before=() i=0 names=(jobs fuse_messages turns bytes_out bytes_in lists fetched_files)
	for name in "${names[@]}"; do
		before[i++]=$(count "$name")
	done
	lab_status '.workers[0] | .fuse, .messages_out, .messages_in' >"$LAB/before"
	"$@"
	i=0
	for name in "${names[@]}"; do
		declare -g "C_$name=$(($(count "$name") - before[i++]))"
	done
	lab_status '.workers[0] | .fuse, .messages_out, .messages_in' >"$LAB/after"
	# What the kernel forgets it tells when it sees fit, and nobody waits for an answer.
	C_fuse_messages=$((C_fuse_messages - $(messages 2) - $(messages 42)))
	echo "note: $C_jobs job: $C_fuse_messages FUSE messages, $C_turns turns, $C_bytes_out bytes out," \
		"$C_bytes_in bytes in, $C_lists lists, $C_fetched_files files fetched"
	echo "FUSE messages by opcode, messages of the link by type, before and after:"
	diff "$LAB/before" "$LAB/after" || true
}

# Of a warm job, three times at the most: pages that the kernel took back meanwhile, which it does on some
# machines with memory to spare, are read again.  Only for these is it repeated; what each job costs is
# seen each time.
measure_warm() { # CMD...
	for _ in 1 2 3; do
		measure "$@"
		if [ "$C_fuse_messages" -le 9 ] || [ $((C_fuse_messages - $(messages 15))) -gt 9 ]; then
			break
		fi
	done
}

# All of the compiler, as readahead may otherwise fetch more of it at any time.
read_compiler() {
	concc-dispatch sh -c 'for f in gcc "$(gcc -print-prog-name=cc1)" as; do f=$(command -v "$f")
		cat "$f" $(ldd "$f" | grep -o "/[^ ]*") || exit 1; done' >"$LAB/compiler" ||
		fail "the compiler can't be read"
}

warm() {
	compile
	read_compiler
	compile
	compile
	measure_warm compile
	expect_eq "jobs" "$C_jobs" 1
	expect_le "FUSE messages of a warm job" "$C_fuse_messages" 9
	expect_eq "turns of a warm job" "$C_turns" 1
	expect_le "bytes to the worker of a warm job" "$C_bytes_out" 2047
	expect_eq "directories asked for" "$C_lists" 0
	expect_eq "files fetched" "$C_fetched_files" 0
}

# One changed source: its bytes, and nothing else, travel.
edited() {
	edit 1
	compile
	edit 2
	measure compile
	expect_eq "files fetched after an edit" "$C_fetched_files" 1
	expect_eq "directories asked for" "$C_lists" 0
	expect_le "turns" "$C_turns" 2
	expect_le "bytes to the worker" "$C_bytes_out" 8191
}

# What a job made is there for the next one already.
own_output() {
	compile
	concc-dispatch sh -c 'cat a.o a.d >/dev/null'
	compile
	measure concc-dispatch sh -c 'cat a.o a.d >/dev/null'
	expect_eq "files fetched that a job made" "$C_fetched_files" 0
	expect_eq "turns" "$C_turns" 1
}

# Compilers look for themselves and for `as` in all of PATH: told once, not by every job.
sought_in_vain() {
	local PATH=$HOME/bin:$HOME/none:$PATH
	mkdir -p "$HOME/bin"
	compile
	compile
	compile
	measure_warm compile
	expect_eq "look-ups told" "$(grep -c JOB_MISSING <(diff "$LAB/before" "$LAB/after"))" 0
	expect_le "FUSE messages" "$C_fuse_messages" 9
}

# What was told is taken back before the job that may notice.
sought_and_found() {
	local PATH=$HOME/bin:$HOME/none:$PATH as
	as=$(command -v as)
	compile
	compile
	printf '#!/bin/sh\nexec %s "$@"\n' "$as" >"$HOME/bin/as"
	chmod +x "$HOME/bin/as"
	CONCC_EXPLAIN=1 concc-cc gcc -Iinclude -c a.c -o a.o 2>"$LAB/explain"
	expect_grep "^concc: local: missing .*$HOME/bin/as is outside" "$LAB/explain"
	rm "$HOME/bin/as"
	compile
	mkdir "$HOME/none"
	cp -p /bin/true "$HOME/none/as"
	CONCC_EXPLAIN=1 concc-cc gcc -Iinclude -c a.c -o a.o 2>"$LAB/explain" || true
	expect_grep "^concc: local: missing .*$HOME/none/as is outside" "$LAB/explain"
	rm -r "$HOME/none"
	compile
}

# Of the server, with what it starts, for one job: the least of some.  A busy machine makes it wake up for
# parts of what comes at once on a quiet one.
least_syscalls() { # CMD...: for a job
	local i n least=''
	for i in 1 2 3 4 5; do
		"$@"
		n=$(lab_syscalls "$server" compile)
		[ -n "$least" ] && [ "$least" -le "$n" ] || least=$n
	done
	echo "$least"
}

# 128 to 136, 55 to 65 and 70 to 100 when this was written; many depend on the length of PATH.
syscalls() {
	local server n
	[ -z "$LAB_SANITIZED" ] || skip "sanitizers have system calls of their own"
	compile
	compile
	compile
	strace -f -o "$LAB/strace" concc-cc gcc -Imissing -Iinclude -MD -MF a.d -c a.c -o a.o
	n=$(grep -c '(' "$LAB/strace")
	echo "note: $n system calls of the wrapper"
	expect_le "system calls of the wrapper" "$n" 160
	server=$(lab_status .pid)
	n=$(least_syscalls true)
	echo "note: $n system calls of the project server"
	expect_le "system calls of the project server" "$n" 95
	n=$(least_syscalls edit 3)
	echo "note: $n system calls of the project server for a job whose source has changed"
	expect_le "those of a job whose source has changed" "$n" 140
}

# Their own events would fill inotify's queue, and all that is known would be compared with the disk.
many_outputs() {
	local before overflows
	concc-dispatch sh -c 'mkdir -p many && ls many'
	overflows=$(lab_status .tree.overflows)
	before=$(lab_status .tree.lstats)
	concc-dispatch sh -c 'i=0; while [ $((i += 1)) -le 6000 ]; do echo $i >many/$i; done'
	expect_eq "files" "$(find many -type f | wc -l)" 6000
	concc-dispatch true
	expect_eq "overflows" "$(($(lab_status .tree.overflows) - overflows))" 0
	# Each as it is put in place, and again for its event.
	expect_le "lstats" "$(($(lab_status .tree.lstats) - before))" 13000
	rm -r many
}

check "a warm job" warm
sed -n '/^note/p' "$LAB/check.log" 2>/dev/null || true
check "a job after an edit" edited
sed -n '/^note/p' "$LAB/check.log" 2>/dev/null || true
check "outputs of jobs as inputs" own_output
sed -n '/^note/p' "$LAB/check.log" 2>/dev/null || true
check "as many outputs as the queue of events has no room for" many_outputs
check "commands sought in vain" sought_in_vain
sed -n '/^note/p' "$LAB/check.log" 2>/dev/null || true
check "commands sought in vain that come" sought_and_found
check "system calls of a warm job" syscalls
sed -n '/^note/p' "$LAB/check.log" 2>/dev/null || true
lab_stop
