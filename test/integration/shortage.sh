#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck disable=SC2046,SC2086
#
# Whoever runs short of something, on the client or the worker, or has a disk that fails: no compiler hears of
# it.  Each job gives the result that it gives here, wherever it runs, and whoever was short lives.
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need prlimit setpriv strace
LAB_ROOT=client
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"

# A source with a link and headers in directories that nobody has asked for; each name once.
new_source() { # NAME
	local d
	mkdir -p "$1/inc/deep/er"
	for d in inc inc/deep inc/deep/er; do
		echo "#define $(basename "$d") \"$1\"" >"$1/$d/h.h"
	done
	ln -s er "$1/inc/deep/link"
	{
		printf '#include <%s.h>\n' stdio errno
		printf '#include "%s/h.h"\n' inc inc/deep inc/deep/link
		echo 'int f(void) { return puts(inc deep er); }'
	} >"$1/a.c"
	gcc -Inone -c "$1/a.c" -o "$LAB/$1.o"
}

# Wherever it ran: as here, and not a word of the compiler's.
compile() { # NAME
	local rc=0
	CONCC_EXPLAIN=1 timeout 60 concc-cc gcc -Inone -c "$1/a.c" -o "$1/a.o" 2>"$LAB/$1.err" || rc=$?
	sed "s/^/$1: /" "$LAB/$1.err"
	expect_eq "status of $1" "$rc" 0
	expect_eq "what the compiler says of $1" "$(grep -v '^concc: ' "$LAB/$1.err")" ''
	expect_same_file "$LAB/$1.o" "$1/a.o"
	cat "$LAB/$1.err" >>"$LAB/said"
}

compile_new() { # NAME
	new_source "$1"
	compile "$1"
	rm -rf "${1:?}" "$LAB/$1".*
}

compile_four() { # NAME
	local pids='' p rc=0
	for p in 1 2 3 4; do
		new_source "$1-$p"
	done
	for p in 1 2 3 4; do
		(compile "$1-$p") >"$LAB/$1-$p.log" 2>&1 &
		pids="$pids $!"
	done
	for p in $pids; do
		wait "$p" || rc=1
	done
	cat "$LAB/$1"-?.log
	[ $rc -eq 0 ] || fail "a job of four side by side went wrong"
	rm -rf "${1:?}"-? "$LAB/$1"-?.*
}

# A limit of this is one of none that is free.
first_free_fd() { # PID
	local n=0
	while [ -e "/proc/$1/fd/$n" ]; do
		n=$((n + 1))
	done
	echo "$n"
}

# From none that is free to all that a job takes, though some below the highest are free.
fd_limits() { # PID
	local free top
	free=$(first_free_fd "$1")
	top=$(find "/proc/$1/fd" -mindepth 1 -printf '%f\n' | sort -n | tail -n 1)
	{
		seq "$free" $((free + 12))
		seq $((top + 1)) $((top + 41))
	} | sort -n | uniq
}

limit_fds() { # PID N: the soft limit, as whoever owns it
	setpriv --reuid "$(stat -c %u "/proc/$1")" --regid "$(stat -c %g "/proc/$1")" --clear-groups \
		prlimit --nofile="$2:" --pid "$1"
}

# All was right; was any of it put to the test?
expect_said() { # PATTERN
	expect_grep "$1" "$LAB/said"
	expect_grep '^concc: remote on w1$' "$LAB/said"
	rm "$LAB/said"
}

server_short() {
	local server n
	concc-dispatch true
	compile_new warm
	server=$(lab_server_pid)
	for n in $(fd_limits "$server"); do
		limit_fds "$server" "$n"
		compile_new "w$n"
	done
	for n in $(fd_limits "$server" | awk 'NR % 4 == 1'); do
		limit_fds "$server" "$n"
		compile_four "f$n"
	done
	limit_fds "$server" 1024
	expect_eq "the server" "$(lab_server_pid)" "$server"
	compile_new enough
	expect_eq "the last job" "$(tail -n 1 "$LAB/said")" "concc: remote on w1"
	expect_said "Too many open files|can't open more files"
}

# What there is to know, it knows nothing of.
cold_server_short() {
	local server n i
	for i in $(seq 0 12) $(seq 15 5 40); do
		lab_stop_server
		lab_agents_gone
		lab_worker 1 sh -c 'rm -rf /home/builder/.cache/concc'
		concc-dispatch true
		server=$(lab_server_pid)
		n=$(first_free_fd "$server")
		limit_fds "$server" $((n + i))
		compile_new "c$i"
		limit_fds "$server" 1024
		expect_eq "the server" "$(lab_server_pid)" "$server"
	done
	expect_said 'Too many open files'
}

# The descriptor that it keeps, so that who can't be taken in can be told so: it was opened first of all.
kept_fd() { # PID
	find "/proc/$1/fd" -lname / -printf '%f\n'
}

# Who can't be taken in is told so at once, and the server sleeps meanwhile.  Which others are free just now is luck:
# of a client that has gone the server may not have heard.
no_room_for_more() {
	local server i before after
	concc-dispatch true
	server=$(lab_server_pid)
	limit_fds "$server" $(($(kept_fd "$server") + 1))
	before=$(awk '{ print $14 + $15 }' "/proc/$server/stat")
	for i in 1 2 3 4 5; do
		compile_new "r$i"
	done
	concc status >/dev/null 2>&1 || true
	after=$(awk '{ print $14 + $15 }' "/proc/$server/stat")
	limit_fds "$server" 1024
	expect_eq "the server" "$(lab_server_pid)" "$server"
	expect_grep "shortage .the project server can't open more files" "$LAB/said"
	expect_no_grep 'server was lost' "$LAB/said"
	expect_le "ticks of its CPU" $((after - before)) 20
	rm "$LAB/said"
}

# Not even with the one that it keeps for that: another server has to do.
no_room_at_all() {
	local server
	concc-dispatch true
	server=$(lab_server_pid)
	limit_fds "$server" 1
	compile_new alone
	expect_gone "the server that can take in nobody" "$server"
	compile_new another
	expect_said 'server was lost'
}

agent_short() {
	local agent n
	concc-dispatch true
	agent=$(lab_agent_pid 1)
	for n in $(fd_limits "$agent"); do
		limit_fds "$agent" "$n"
		compile_new "a$n"
	done
	for n in $(fd_limits "$agent" | awk 'NR % 4 == 1'); do
		limit_fds "$agent" "$n"
		compile_four "g$n"
	done
	limit_fds "$agent" 1024
	expect_eq "the agent" "$(lab_agent_pid 1)" "$agent"
	expect_said 'open files'
}

# With so few that the compiler itself can do without: as it does.
wrapper_short() {
	local n
	concc-dispatch true
	for n in $(seq 3 20); do
		new_source "l$n"
		prlimit --nofile="$n:" gcc -Inone -c "l$n/a.c" -o "l$n/here.o" 2>"$LAB/here.err" || continue
		prlimit --nofile="$n:" concc-cc gcc -Inone -c "l$n/a.c" -o "l$n/a.o" 2>"$LAB/l.err" ||
			fail "with $n files: $(cat "$LAB/l.err")"
		expect_same_file "l$n/here.o" "l$n/a.o"
		expect_eq "what the compiler says with $n" "$(grep -v '^concc: ' "$LAB/l.err")" ''
	done
}

# Each kind of look, each kind of shortage, at the first and at every so many.
server_refused() { # SAID CALL...
	local server call err when i=0 said=$1 rc
	shift
	concc-dispatch true
	compile_new "before-$1"
	server=$(lab_server_pid)
	for call in "$@"; do
		for err in EIO ENOMEM ENFILE; do
			for when in 1 2+3 3+5 1+; do
				i=$((i + 1))
				new_source "$1-$i"
				fault_inject "$server" "$call:error=$err:when=$when" -e status=none
				rc=0
				(compile "$1-$i") || rc=$?
				fault_inject_no_more
				[ $rc -eq 0 ] || fail "$call: $err at $when"
				rm -rf "${1:?}-$i" "$LAB/$1-$i".*
			done
		done
	done
	expect_eq "the server" "$(lab_server_pid)" "$server"
	compile_new "after-$1"
	expect_eq "the last job" "$(tail -n 1 "$LAB/said")" "concc: remote on w1"
	expect_said "$said"
}

check "a project server that can open no more files" server_short
check "a project server that has just begun and can open no more" cold_server_short
check "a project server that can take in no more" no_room_for_more
check "a project server that can take in nobody" no_room_at_all
check "an agent that can open no more files" agent_short
check "a wrapper that can open no more files" wrapper_short
check "the client's kernel refuses to open" server_refused 'Input/output error' openat openat2
check "the client's kernel refuses to look" server_refused 'not available' newfstatat fstat readlinkat
check "the client's kernel refuses to read" server_refused 'Input/output error' getdents64 preadv2
check "the client's kernel refuses to watch" server_refused 'remote' inotify_add_watch
lab_stop
