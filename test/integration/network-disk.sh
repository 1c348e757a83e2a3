#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A project on a disk that others may change, of which no event tells, and whose times tell of a
# change only when it is some seconds old: what was made a moment ago goes out to workers, too, and
# each job sees it as it is.
# limit: 90
# shellcheck disable=SC2016 # the jobs' own variables
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
LAB_SLOTS=4
export LAB_ROOT=client
lab_enter "$@"
lab_start builder
lab_config 'cache = 1G' 'local-slots = 0'

begin() { # NAME
	mkdir -p "$LAB/$1" "$WS/$1"
	# With a gate, which is never closed, it shows no time of change of its own.
	exec 9< <(exec "$LAB_BUILD/test/slowfs/slowfs" 0 "$LAB/$1" "$WS/$1" "$LAB/no-gate")
	read -r -t "$LAB_LIMIT" _ <&9 || fail "no disk"
	# shellcheck disable=SC2064 # now
	trap "cd /; lab_stop_server; umount -l '$WS/$1'" EXIT
	cd "$WS/$1"
	lab_all_up
}

run() { # COMMAND...
	local said=$LAB/said.$BASHPID
	CONCC_EXPLAIN=1 "$@" </dev/null 9>&- 2>"$said" || fail "$*: $(<"$said")"
	expect_eq "$*: said" "$(<"$said")" "concc: remote on w1"
}

young() {
	begin young
	printf '#include "a.h"\nint f(void) { return A; }\n' >a.c
	echo '#define A 1' >a.h
	run concc-cc gcc -c a.c -o a.o
	gcc -c a.c -o here.o
	expect_same_file a.o here.o
	echo '#define A 2' >a.h
	run concc-cc gcc -c a.c -o a.o
	gcc -c a.c -o here.o
	expect_same_file a.o here.o
}

# What a job has made the next one reads, and the one after that makes it anew.
made() {
	begin made
	echo 'int main(void) { return X; }' >m.c
	for i in 1 2 3; do
		run concc-dispatch sh -c "echo '#define X $i' >x.h"
		run concc-cc gcc -include x.h -c m.c -o m.o
		run concc-dispatch gcc m.o -o m
		run concc-dispatch sh -c 'echo done >>log'
		./m || expect_eq "its status" $? $i
	done
	expect_eq "log" "$(wc -l <log)" 3
}

# Many jobs that begin and end while others read it.  One that has opened it, and not read it yet, when
# the next begins is tried again: its version is none any more.
many() {
	local pids=() n
	begin many
	head -c 300000 /dev/urandom >shared
	for i in $(seq 24); do
		CONCC_EXPLAIN=1 concc-dispatch cp shared "copy$i" </dev/null 9>&- 2>"$LAB/many.$i" &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i"
	done
	for i in $(seq 24); do
		expect_same_file shared "copy$i"
	done
	n=$(cat "$LAB"/many.* | grep -c '^concc: remote on w1$' || true)
	echo "note: $n of 24 remote"
	expect_ge "jobs on the worker" "$n" 12
}

# Another machine's change, within one tick of the clock that stamps both.
same_times() {
	begin same-times
	local at=$LAB/same-times/f now
	now=$(date +%s)
	for word in one two six ten; do
		printf %s $word >"$at"
		touch -d "@$now" "$at"
		run concc-dispatch cp f copy
		expect_eq "it has" "$(<copy)" $word
		run concc-dispatch --cache=contents cp f copy
		expect_eq "it has" "$(<copy)" $word
	done
}

check "young" young
check "made by jobs" made
check "read by many" many
check "changed, and the times are the same" same_times
lab_stop
