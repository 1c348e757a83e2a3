#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Kept results on a disk that is slow, or hangs: what is asked of the server waits for none of it.
# limit: 200
# shellcheck disable=SC2016 # the jobs' own variables
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
. "${BASH_SOURCE[0]%/*}/../lib/disk.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
LAB_SLOTS=1
lab_need jq
export LAB_ROOT=client
lab_enter "$@"
lab_start builder
lab_config 'cache = 1G' 'local-slots = 0'

# A disk for the server's cache directory: so slow for each new file.
disk_start() { # MS
	lab_stop_server
	mkdir -p "$LAB/disk" "$LAB/slow"
	exec 9< <(exec "$LAB_BUILD/test/slowfs/slowfs" "$1" "$LAB/disk" "$LAB/slow")
	DISK_PID=$!
	read -r -t "$LAB_LIMIT" _ <&9 || fail "no disk"
	trap disk_end EXIT
	export CONCC_CACHE_DIR=$LAB/slow
	lab_all_up
}

disk_end() {
	lab_signal CONT "$DISK_PID" 2>/dev/null || true
	lab_stop_server
	umount -l "$LAB/slow"
	rm -rf "$LAB/disk"
}

# What was kept just now is found: who asks for the same waits, and nobody else.
just_now() {
	fresh just
	disk_start 100
	for i in 1 2 3; do
		echo "int f(void) { return $i; }" >a.c
		twice gcc -c a.c -o a.o
		rm a.o
		why 'hit: its result is kept, made by w1;' gcc -c a.c -o a.o
	done
	expect_eq "kept" "$(lab_status .cache.kept)" 3
	expect_eq "links" "$(lab_status '.workers[0].starts')" 1
}

disk_stop() {
	concc cache >/dev/null # no result is on its way
	disk_hangs
}

# It answers again, and all that waits for it is there.  Each call of concc waits for that, some seconds.
disk_goes_on() {
	local try
	lab_signal CONT "$DISK_PID"
	for ((try = 0; try < 30; try++)); do
		concc cache >/dev/null
		[ "$(lab_status .cache.waiting)" -ne 0 ] || return 0
	done
	fail "the disk does not take all"
}

in_time() { # COMMAND...
	timeout "$LAB_LIMIT" "$@" || fail "$1: exit status $? while the disk hangs"
}

compile() { # NAME...
	local name
	for name in "$@"; do
		in_time concc-cc gcc -c "$name.c" -o "$name.o" </dev/null
		cmp "$name.o" "$name.plain"
		rm "$name.o"
	done
}

# Jobs go on and end, the server answers, the worker stays; then all that was made is there.
hung() {
	local name
	fresh hung
	for name in warm one two three; do
		echo "int $name(void) { return 1; }" >$name.c
		gcc -c $name.c -o $name.plain
	done
	disk_start 0
	compile warm
	disk_stop
	compile one two three
	in_time concc status >/dev/null
	expect_eq "waiting" "$(lab_status .cache.waiting)" 3
	expect_eq "lost" "$(lab_status .cache.lost)" 0
	compile one # nobody waits for what hangs
	expect_eq "hits" "$(lab_status .cache.hits)" 0
	expect_eq "links" "$(lab_status '.workers[0].starts')" 1
	disk_goes_on
	compile one two three
	expect_eq "hits" "$(lab_status .cache.hits)" 3
}

# What waits is bounded: the rest is lost, which is counted.
bounded() {
	local many='i=0; while [ $i -lt 600 ]; do echo $i >$1.$i; i=$((i+1)); done'
	fresh bounded
	echo 'int warm;' >warm.c
	gcc -c warm.c -o warm.plain
	disk_start 0
	compile warm
	disk_stop
	for name in a b; do
		in_time concc-dispatch --cache sh -c "$many" sh $name </dev/null
		expect_file $name.599
	done
	expect_eq "waiting" "$(lab_status .cache.waiting)" 1
	expect_eq "lost" "$(lab_status .cache.lost)" 1
	disk_goes_on
	expect_eq "jobs not kept for it" "$(reasons slow-disk)" 1
	rm ./a.* ./b.*
	for name in a b; do
		CONCC_EXPLAIN=$LAB/explain.$name concc-dispatch --cache sh -c "$many" sh $name </dev/null
		expect_file $name.599
	done
	expect_grep 'remote on .cache.' "$LAB/explain.a"
	expect_grep 'remote on w1' "$LAB/explain.b"
}

# Nor does it hold the server's end.
ends() {
	local server
	fresh ends
	echo 'int f(void) { return 1; }' >one.c
	gcc -c one.c -o one.plain
	disk_start 0
	compile one
	echo 'int f(void) { return 2; }' >one.c
	gcc -c one.c -o one.plain
	server=$(lab_server_pid)
	disk_stop
	compile one
	in_time concc stop
	expect_gone "the server" "$server"
	expect_grep 'does not take 1 results: they are lost' "$CONCC_RUNTIME_DIR/project.log"
}

check "what was kept just now is found" just_now
check "a disk that hangs" hung
check "what waits for the disk is bounded" bounded
check "the end while the disk hangs" ends
lab_stop
