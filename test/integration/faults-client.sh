#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What goes wrong on the client: the project server killed, a full disk, a damaged or hostile runtime
# directory, a target that may not be written.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_enter "$@"
lab_start builder root
lab_config
lab_slow_job
cd "$WS"

nothing_on_workers() {
	local n pids
	lab_stop_server
	for ((n = 1; n <= LAB_N; n++)); do
		pids=$(lab_worker_jobs "$n")
		[ -z "$pids" ] || expect_gone "left on w$n" $pids
	done
}

server_killed() {
	lab_slow_start
	kill -KILL $(lab_server_pid)
	lab_slow_recovered
	nothing_on_workers
	# The next call starts another.
	CONCC_EXPLAIN=1 concc-dispatch true 2>"$LAB/explain"
	expect_eq "remote jobs of a new server" "$(explained_remote "$LAB/explain")" 1
}

# A stopped server is no server: whoever comes next starts another, and runs remotely.
right_after_stop() {
	local i
	for i in $(seq 10); do
		concc stop || fail "concc stop failed"
		CONCC_EXPLAIN=1 concc-dispatch true 2>"$LAB/explain"
		expect_eq "remote jobs right after stop number $i ($(cat "$LAB/explain"))" \
			"$(explained_remote "$LAB/explain")" 1
	done
}

# A hundred wrappers at once find no server: one is started, all are served.
server_started_once() {
	local i pids=() rc=0
	lab_stop_server
	for i in $(seq 100); do
		concc-dispatch sh -c 'exit 0' &
		pids[i]=$!
	done
	for i in $(seq 100); do
		wait "${pids[i]}" || rc=1
	done
	expect_eq "status" $rc 0
	expect_eq "servers" "$(lab_server_pid | wc -l)" 1
}

# 1 MB of disk, and a job that makes more.
disk_full() {
	mkdir -p small
	mount -t tmpfs -o size=1m lab-small small
	local rc=0
	lab_stop_server
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'head -c 600000 /dev/zero >small/one && head -c 300000 /dev/zero >small/two' \
		2>"$LAB/err" || rc=$?
	cat "$LAB/err"
	expect_eq "status of what fits" $rc 0
	expect_eq "remote jobs" "$(explained_remote "$LAB/err")" 1
	rm small/two
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'head -c 3000000 /dev/zero >small/big' 2>"$LAB/err" || rc=$?
	cat "$LAB/err"
	expect_ne "status of what does not fit" $rc 0
	expect_grep 'No space left' "$LAB/err"
	expect_eq "temporary files" "$(find small -name '.concc-tmp*')" ''
	rm small/big
	expect_eq "the other file" "$(stat -c %s small/one)" 600000
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo fits >small/big' 2>"$LAB/err"
	expect_eq "with room again" "$(cat small/big)" fits
	lab_stop_server
}

# Whatever stands where the runtime directory should be: said, and compiled here.
hostile_runtime_dir() { # SETUP
	local rc=0
	lab_stop_server
	rm -rf /srv/run
	"$1"
	rm -f a.o
	concc-cc gcc -g -c a.c -o a.o 2>"$LAB/err" || rc=$?
	cat "$LAB/err"
	expect_eq "status" $rc 0
	expect_same_file a.o "$LAB/a.o"
	expect_grep '/srv/run' "$LAB/err"
	rm -rf /srv/run /srv/elsewhere
}

a_symlink() {
	mkdir -m 700 /srv/elsewhere
	ln -s /srv/elsewhere /srv/run
}

a_file() { echo >/srv/run; }

anyones() {
	mkdir -m 700 /srv/run
	chown 1717 /srv/run
}

writable_by_all() {
	mkdir /srv/run
	chmod 777 /srv/run
}

# A target that the client's file system refuses is not lost silently.
immutable_target() {
	mkdir -p fixed
	mount -t tmpfs lab-fixed fixed
	echo old >fixed/f
	mount -o remount,ro fixed
	rc=0
	concc-dispatch sh -c 'echo new >fixed/f' 2>"$LAB/err" || rc=$?
	cat "$LAB/err"
	umount fixed
	expect_ne "status" $rc 0
	expect_grep 'Read-only' "$LAB/err"
}

wrong_config() {
	local rc=0
	lab_stop_server
	echo 'workspce = /x' >>"$CONCC_CONFIG"
	concc-cc gcc -g -c a.c -o a.o 2>"$LAB/err" || rc=$?
	cat "$LAB/err"
	expect_eq "status" $rc 0
	expect_grep 'concc.ini:[0-9]+' "$LAB/err"
	lab_config
}

check "project server killed mid-job" server_killed
check "a job right after concc stop" right_after_stop
check "100 wrappers start one server" server_started_once
check "disk full at write-back" disk_full
lab_stop_server
umount "$WS/small"
check "read-only target" immutable_target
check "wrong configuration" wrong_config
check "runtime directory is a symlink" hostile_runtime_dir a_symlink
check "runtime directory is a file" hostile_runtime_dir a_file
check "runtime directory is another user's" hostile_runtime_dir anyones
check "runtime directory is open to all" hostile_runtime_dir writable_by_all
lab_stop
