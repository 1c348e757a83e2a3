#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Many workers of 8 slots: what each job costs the client is what it costs with few, each link is
# small, and a normal login's limits do.  With CONCC_TEST_LONG=1 a thousand slots, else some.
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq strace make
[ -n "${CONCC_TEST_LONG-}" ] && AGENTS=128 || AGENTS=12
SLOTS=$((AGENTS * 8))
LAB_SLOTS=8
LAB_WORKER_ENV=CONCC_MAX_JOBS=8 # each on a host of its own, but of the same cores
lab_enter "$@"
# As a login of Debian has it.
ulimit -S -n 1024
users=()
for ((n = 0; n < AGENTS; n++)); do users+=(builder); done
lab_start "${users[@]}"
cd "$WS"
# shellcheck disable=SC2016 # make's
printf 'N = 1\nall: $(shell seq -f job%%.0f $(N))\njob%%: ; @+concc-dispatch $(JOB)\n' >Makefile

kb() { # of the server
	awk '/^VmRSS/ { print $2 }' "/proc/$(lab_server_pid)/status"
}

only() { # WORKERS SLOTS: with so many of them
	local n
	lab_stop_server
	LAB_N=$1 LAB_SLOTS=$2 lab_config 'local-slots = 0'
	LAB_N=$1 lab_all_up
}

jobs() {
	lab_status '[.workers[].jobs] | add'
}

# Microseconds of CPU time of the server and of all that make started, for each of N jobs.
measure() { # PARALLEL N CMD...
	local parallel=$1 n=$2 server before from
	shift 2
	server=$(lab_server_pid)
	before=$(jobs)
	from=$(cut -d' ' -f1 "/proc/$server/schedstat")
	TIMEFORMAT='%R %U %S'
	{ time make -j"$parallel" N="$n" JOB="$*" >"$LAB/out" 2>&1; } 2>"$LAB/time" ||
		fail "make failed: $(tail -n 3 "$LAB/out")"
	from=$(($(cut -d' ' -f1 "/proc/$server/schedstat") - from))
	[ ! -s "$LAB/out" ] || fail "something was said: $(head -n 3 "$LAB/out")"
	expect_eq "jobs on workers" $(($(jobs) - before)) "$n"
	awk -v s="$from" -v n="$n" -v j="$parallel" '{
		printf "note: -j%d: %d jobs/s, %d us of the server and %d us of make and wrappers a job\n",
			j, n / $1, s / 1000 / n, ($2 + $3) * 1000000 / n }' "$LAB/time"
}

# System calls of the server for each of N jobs, in hundredths.
syscalls() { # PARALLEL N
	local n
	n=$(lab_syscalls "$(lab_server_pid)" make -s -j"$1" N="$2" JOB=true)
	echo $((n * 100 / $2))
}

few() {
	only 1 4
	measure 4 200 true
	measure 4 200 true
	syscalls 4 400 >"$LAB/few-calls"
	kb >"$LAB/one-kb"
	echo "note: $(cat "$LAB/few-calls") hundredths of a system call of the server a job"
}

many() {
	local n
	only "$AGENTS" 8
	measure "$SLOTS" $((SLOTS * 3)) true
	measure "$SLOTS" $((SLOTS * 3)) true
	n=$(syscalls "$SLOTS" $((SLOTS * 3)))
	echo "note: $n hundredths of a system call of the server a job"
	expect_le "hundredths of a system call, against 1.1 of those with 4 slots" "$n" \
		$(($(cat "$LAB/few-calls") * 11 / 10))
	n=$((($(kb) - $(cat "$LAB/one-kb")) / (AGENTS - 1)))
	echo "note: $n KB of the server for each link"
	expect_le "KB of each link" "$n" 1024
}

# Of the client, in whose namespace those of the workers are seen as well.
threads_here() {
	local p n=0
	for p in /proc/[0-9]*; do
		[ "$p/ns/pid" -ef /proc/self/ns/pid ] && n=$((n + $(find "$p/task" -mindepth 1 -maxdepth 1 | wc -l)))
	done 2>/dev/null
	echo "$n"
}

# Each is in the middle of its work until all are.
all_at_once() {
	local line n=0
	mkfifo "$LAB/held"
	cp "$LAB_TOOLS/hold" "$WS/holdbin"
	make -s -j"$SLOTS" N="$SLOTS" JOB=./holdbin >"$LAB/held" 2>"$LAB/err" &
	MAKE=$!
	exec 7<"$LAB/held"
	while [ "$n" -lt "$SLOTS" ] && read -r -t "$LAB_LIMIT" line <&7; do
		[ "$line" = held ] || fail "a job said $line"
		n=$((n + 1))
	done
	expect_eq "jobs that run at once" "$n" "$SLOTS"
	n=$(threads_here)
	echo "note: $n threads of the client, of which $(lab_client_pids concc-dispatch | wc -w) are wrappers;" \
		"$(find "/proc/$(lab_server_pid)/fd" -type l | wc -l) descriptors of the server"
	expect_eq "wrappers" "$(lab_client_pids concc-dispatch | wc -w)" "$SLOTS"
	# What counts for ulimit -u, of which a login has thousands: this test's own, too.
	expect_le "threads of the client" "$n" $((SLOTS + 100))
	kill -TERM "$MAKE"
	wait "$MAKE" || true
	exec 7<&-
}

check "a few slots" few
sed -n '/^note/p' "$LAB/check.log"
check "many slots" many
sed -n '/^note/p' "$LAB/check.log"
check "all slots at once" all_at_once
sed -n '/^note/p' "$LAB/check.log"
lab_stop
