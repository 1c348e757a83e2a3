#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What lives for days keeps no descriptor of what has ended: jobs that succeed, fail, print, are
# interrupted, connections that end.  Of no kind are there more after than before.
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_enter "$@"
lab_start builder
lab_config
cp "$LAB_TOOLS/hold" "$WS/holdbin"
cd "$WS"
printf '#include <stdio.h>\nint f(void) { return puts("x"); }\n' >a.c
head -c 300000 /dev/urandom >noise

# A job so many times, four at once; all of them on the worker.
jobs_of() { # TIMES CMD...: N in the command is a number
	local times=$1
	shift
	seq "$times" | CONCC_EXPLAIN=1 xargs -P 4 -I N "$@" >"$LAB/out" 2>"$LAB/explain" ||
		fail "a job failed: $* $(tail -n 3 "$LAB/out" "$LAB/explain")"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" "$times"
}

ordinary() { # TIMES
	jobs_of "$1" concc-cc gcc -c a.c -o aN.o
}

failing() { # TIMES
	jobs_of "$1" sh -c 'concc-dispatch sh -c "echo gone >halfN; exit 3"; [ $? -eq 3 ]'
}

printing() { # TIMES
	jobs_of "$1" sh -c 'concc-dispatch sh -c "cat noise; echo N >&2" | cmp - noise'
}

# Ctrl-C for four jobs at once, all in the middle of their work.
killed() { # TIMES
	local i k line pids
	rm -f "$LAB/held"
	mkfifo "$LAB/held"
	exec 7<>"$LAB/held"
	for ((i = 0; i < $1; i += 4)); do
		pids=()
		for k in 1 2 3 4; do
			"$LAB_TOOLS/own-group" concc-dispatch ./holdbin >&7 2>/dev/null </dev/null 7>&- &
			pids[k]=$!
		done
		for k in 1 2 3 4; do
			read -r -t "$LAB_LIMIT" line <&7 || fail "a job did not start"
		done
		for k in 1 2 3 4; do
			kill -INT -- "-${pids[k]}"
			expect_status 130 wait "${pids[k]}"
		done
	done
	exec 7>&-
}

all_kinds() { # ORDINARY KILLED FAILING PRINTING
	ordinary "$1"
	killed "$2"
	failing "$3"
	printing "$4"
}

descriptors() { # PID
	find "/proc/$1/fd" -mindepth 1 -printf '%l\n' |
		sed 's/^\(socket\|pipe\):.*/\1/; s/ (deleted)//; s,/store/.*,/store/FILE,' | sort | uniq -c
}

# What is still put away of the last job when the first count is taken makes that one higher.
more_than() { # BEFORE AFTER: prints of what there is more
	awk 'NR == FNR { n[$2] = $1; next } $1 > n[$2] { print $2 ": " n[$2] + 0 ", then " $1; more = 1 }
		END { exit !more }' "$1" "$2"
}

# The end of a job reaches its caller before all has been put away for it, so what is too many gets the
# time of another job, and of another; what has leaked stays.
expect_descriptors() { # WHAT PID BEFORE
	local i
	for ((i = 0; i < 20; i++)); do
		descriptors "$2" >"$LAB/after"
		more_than "$3" "$LAB/after" >"$LAB/more" || return 0
		ordinary 1
	done
	fail "descriptors of the $1: $(cat "$LAB/more")"
}

jobs() {
	local server agent launcher
	all_kinds 12 4 2 2
	server=$(lab_server_pid) agent=$(lab_agent_pid 1) launcher=$(lab_launcher_pid 1)
	ordinary 1
	descriptors "$server" >"$LAB/server"
	descriptors "$agent" >"$LAB/agent"
	descriptors "$launcher" >"$LAB/launcher"
	cat "$LAB/server" "$LAB/agent" "$LAB/launcher"
	all_kinds 100 20 20 10
	expect_descriptors "project server" "$server" "$LAB/server"
	expect_descriptors agent "$agent" "$LAB/agent"
	expect_descriptors launcher "$launcher" "$LAB/launcher"
	expect_eq "the server" "$(lab_server_pid)" "$server"
	expect_eq "the agent" "$(lab_agent_pid 1)" "$agent"
	expect_eq "the launcher" "$(lab_launcher_pid 1)" "$launcher"
}

# The connection is ended, and there again; tail tells of each line of the log when it comes.
reconnects() {
	local server i line=''
	server=$(lab_server_pid)
	ordinary 1
	descriptors "$server" >"$LAB/server"
	exec 8< <(exec tail -n 0 -f "$CONCC_RUNTIME_DIR/project.log")
	for i in 1 2 3; do
		lab_hang_up 1
		while read -r -t "$LAB_LIMIT" line <&8; do
			case $line in *"worker=w1 up"*) continue 2 ;; esac
		done
		fail "no connection after hang-up $i: $(tail -n 5 "$CONCC_RUNTIME_DIR/project.log")"
	done
	kill $!
	exec 8<&-
	expect_descriptors "project server" "$server" "$LAB/server"
	expect_eq "the server" "$(lab_server_pid)" "$server"
}

check "100 jobs, 20 interrupted, 20 failing, 10 with output" jobs
check "3 connections" reconnects
lab_stop
