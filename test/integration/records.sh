#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Job records: what is kept of jobs that workers did, that ran here by a rule or after a failure, that
# were cancelled; of one build together; also when the project server is killed.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/disk.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
LAB_SLOTS=1
lab_need jq
lab_enter "$@"
lab_start builder root
lab_config
cd "$WS"
echo 'int x;' >a.c
echo 'int main(void) { return 0; }' >main.c
lab_all_up

# Of the newest build.
jobs() { # FILTER
	concc report --json >"$LAB/report" || fail "no report"
	jq -r ".jobs[] | $1" "$LAB/report"
}

all_jobs() {
	concc report --list | jq 'map(.n_jobs) | add'
}

# The last one of this program and directory; each check has a directory of its own.
in_dir() { # NAME
	mkdir -p "$WS/$1"
	cd "$WS/$1"
	cp ../*.c .
}

last() { # FILTER
	jobs "select(.directory == \"$PWD\") | $1" | tail -n 1
}

# Events of one job are in order, and none is missing that it came to.
in_order() { # NAME...
	local filter
	filter=$(printf '.%s_us, ' "$@")
	expect_eq "$* are in order" "$(last "[${filter%, }] | . == sort and all(. > 0)")" true
}

# Root's worker on this machine gives its cache to another user: that is not the client's.
local_worker() {
	in_dir local
	printf '[worker here]\naddress = local:\nslots = 1\n' >"$LAB/local.ini"
	CONCC_CONFIG=$LAB/local.ini CONCC_RUNTIME_DIR=$LAB/run-local concc-cc gcc -c a.c
	expect_eq "worker" "$(last .worker)" here
	expect_eq "owner of the client's cache" "$(stat -c %u "$CONCC_CACHE_DIR")" 0
	expect_ne "of the worker's" "$(stat -c %u "$CONCC_CACHE_DIR-worker")" 0
	CONCC_RUNTIME_DIR=$LAB/run-local concc stop
}

remote() {
	in_dir remote
	concc-cc gcc -Wall -Wunused -c -o out.o a.c -DX="a b"
	expect_eq "worker" "$(last .worker | tr 12 NN)" wN
	expect_eq "program" "$(last .program)" gcc
	expect_eq "what it makes" "$(last .subject)" out.o
	expect_eq "command" "$(last .command)" "gcc -Wall -Wunused -c -o out.o a.c -DX=a b"
	expect_eq "rule" "$(last .rule)" ''
	expect_eq "end" "$(last '.end + " \(.code)"')" 'exit 0'
	expect_eq "tries" "$(last .tries)" 1
	in_order slot sent ended placed
	expect_eq "output" "$(last .said_us)" 0
	expect_eq "figures" "$(last '.user_us + .system_us > 0 and .wall_us > 0 and .peak_kb > 1000 and .bytes_back > 100')" true
	expect_eq "slots" "$(last '"\(.worker_slots) of \(.all_slots)"')" '1 of 2'
	expect_eq "files" "$(last '.files_fetched > 0 and .bytes_fetched > 0 and .fuse_messages > 0')" true
	concc-dispatch sh -c 'echo said; exit 3' >/dev/null || true
	in_order slot sent said ended placed
	expect_eq "end" "$(last '.end + " \(.code)"')" 'exit 3'
	concc-dispatch sh -c 'kill -KILL $$' 2>/dev/null || true
	expect_eq "end" "$(last '.end + " \(.code)"')" 'signal 9'
}

by_rule() {
	in_dir rule
	concc-cc gcc -c a.c
	concc-cc gcc -c main.c
	concc-cc gcc -o prog main.o
	expect_file prog
	ended_here link
	expect_eq "worker" "$(last .worker)" ''
	expect_eq "what it makes" "$(last .subject)" prog
	concc-cc gcc --version >/dev/null
	ended_here query
}

# The server hears of the end of a process before it is asked, after that.
ended_here() { # RULE
	concc status >/dev/null
	expect_eq "rule" "$(last .rule)" "$1"
	in_order sent ended placed
}

# Its end is that of the command, and not of what told of it.
end_here() {
	local pid
	in_dir end
	mkfifo go begun
	(CONCC_DISABLE=1 exec concc-dispatch sh -c 'echo x >begun; read -r x <go; exit 5') &
	pid=$!
	read -r _ <begun
	expect_eq "running here" "$(lab_status '[.here[] | select(.command | startswith("sh"))] | length')" 1
	expect_eq "records" "$(jobs "select(.pid == $pid) | .pid")" ''
	echo x >go
	wait $pid || true
	recorded $pid
	expect_eq "rule" "$(jobs "select(.pid == $pid) | .rule")" disabled
}

recorded() { # PID
	concc status >/dev/null
	expect_eq "records with an end" "$(jobs "select(.pid == $1 and .ended_us > 0) | .pid")" "$1"
}

fallen_back() {
	in_dir back
	concc-dispatch sh -c 'chown 1 a.c'
	ended_here no-way-home
	expect_eq "tries" "$(last .tries)" 1
	expect_eq "why" "$(last .why | sed 's/w[12] //')" 'on worker it gives a file to another user or group'
	expect_eq "worker" "$(last .worker)" ''
}

cancelled() {
	local pid
	in_dir cancelled
	mkfifo out
	(exec concc-dispatch sh -c 'echo begun; exec sleep 1000') >out &
	pid=$!
	read -r _ <out
	kill -KILL $pid
	wait $pid 2>/dev/null || true
	recorded $pid
	expect_eq "rule" "$(jobs "select(.pid == $pid) | .rule")" cancelled
	expect_eq "worker" "$(jobs "select(.pid == $pid) | .worker" | tr 12 NN)" wN
}

one_build() {
	local id
	in_dir build
	printf 'prog: a.o main.o\n\t$(CC) -o $@ a.o main.o\n' >Makefile
	concc run -- make 2>"$LAB/err" >/dev/null
	concc report --json >"$LAB/report"
	expect_eq "jobs" "$(jq .n_jobs "$LAB/report")" 3
	id=$(jq -r .build "$LAB/report")
	expect_eq "builds of this id" "$(concc report --list | jq "map(select(.build == \"$id\")) | length")" 1
	concc-cc gcc -c a.c
	expect_eq "jobs by its id" "$(concc report "$id" | jq .n_jobs)" 3
	! concc report nosuch 2>"$LAB/err" || fail "there is such a build"
	expect_grep 'no record of a build nosuch' "$LAB/err"
}

server_killed() {
	local n
	in_dir killed
	concc-cc gcc -c a.c
	n=$(all_jobs)
	fault_server
	expect_eq "jobs" "$(all_jobs)" "$n"
	fault_recovered
	concc-cc gcc -c a.c
	expect_eq "end" "$(last .end)" exit
}

five() {
	for i in 1 2 3 4 5; do
		concc-cc gcc -c a.c
	done
}

# A write at the most for each job, by a thread; and none waits for a server that does not listen.
costs() {
	local server before
	in_dir costs
	server=$(lab_own_server)
	concc-cc gcc -c a.c
	before=$(all_jobs)
	lab_syscalls "$server" five >/dev/null
	expect_le "writes of records" "$(grep -c 'write([0-9]*, "cncR' "$LAB/strace")" 5
	expect_eq "writes by the loop" "$(grep -Ec "^$server +write\([0-9]*, \"cncR" "$LAB/strace")" 0
	expect_eq "jobs" "$(all_jobs)" $((before + 5))
	lab_suspend "$server"
	for i in 1 2 3; do
		timeout "$LAB_LIMIT" concc-cc gcc --version >/dev/null || fail "it waits for a server that is stopped"
	done
	lab_signal CONT "$server"
}

# A server whose cache directory is on a disk that can be stopped; what asks it waits then.
disk_start() {
	lab_stop_server
	mkdir -p "$LAB/disk" "$LAB/hung"
	exec 9< <(exec "$LAB_BUILD/test/slowfs/slowfs" 0 "$LAB/disk" "$LAB/hung")
	DISK_PID=$!
	read -r -t "$LAB_LIMIT" _ <&9 || fail "no disk"
	export CONCC_CACHE_DIR=$LAB/hung
	lab_all_up
	concc-cc gcc -c a.c
}

disk_end() {
	lab_signal CONT "$DISK_PID" 2>/dev/null || true
	lab_stop_server
	umount -l "$LAB/hung"
	rm -rf "$LAB/disk"
}

in_time() { # COMMAND...
	timeout "$LAB_LIMIT" "$@" || fail "$1: exit status $? while the disk hangs"
}

# Jobs go on and end, the server answers, workers stay; then all is there.
hung_disk() {
	local before
	in_dir hung
	disk_start
	trap disk_end EXIT
	before=$(all_jobs)
	disk_hangs
	for i in 1 2 3 4 5; do
		in_time concc-cc gcc -c a.c -o "$i.o"
		expect_file "$i.o"
	done
	in_time concc-cc gcc --version >/dev/null
	in_time concc status >"$LAB/status"
	expect_eq "not written" "$(lab_status .records.waiting)" 6
	expect_eq "lost" "$(lab_status .records.lost)" 0
	expect_eq "connections of workers" "$(lab_status '[.workers[].starts] | tojson')" '[1,1]'
	lab_signal CONT "$DISK_PID"
	expect_eq "jobs" "$(all_jobs)" $((before + 6))
	expect_eq "not written" "$(lab_status .records.waiting)" 0
}

# Nor does it hold the server's end.
hung_at_the_end() {
	local server
	in_dir ends
	disk_start
	trap disk_end EXIT
	server=$(lab_server_pid)
	disk_hangs
	in_time concc-cc gcc -c a.c
	in_time concc stop
	expect_gone "the server" "$server"
}

# One that is full costs the records, and that is said.
full_disk() {
	local name
	in_dir full
	lab_stop_server
	mkdir -p "$LAB/small"
	mount -t tmpfs -o size=64k,mode=700 none "$LAB/small"
	trap 'lab_stop_server; umount -l "$LAB/small"' EXIT
	export CONCC_CACHE_DIR=$LAB/small
	lab_all_up
	concc-cc gcc -c a.c
	cat /dev/zero >"$LAB/small/other" 2>/dev/null || true
	for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
		name=$(printf '%0200d.o' "$i") # more than what is left of a page
		concc-cc gcc -c a.c -o "$name"
		expect_file "$name"
	done
	concc report --list >/dev/null # all that can be is written then
	expect_ge "lost" "$(lab_status .records.lost)" 1
	concc status >"$LAB/status"
	expect_grep "records of [0-9]+ jobs? could not be written to $LAB/small" "$LAB/status"
	expect_grep 'No space left on device' "$LAB/status"
	rm "$LAB/small/other"
	concc-cc gcc -c a.c
	expect_eq "jobs in a report" "$(concc report --json | jq '.jobs | map(select(.directory | endswith("/full"))) | length > 0')" true
	expect_eq "error" "$(lab_status .records.error)" ''
}

check "a worker on this machine has a cache of its own" local_worker
check "of a job that a worker did" remote
check "of a job that ran here by a rule" by_rule
check "until a command here has ended" end_here
check "of a job that could not be done there" fallen_back
check "of a job that was cancelled" cancelled
check "jobs of one build" one_build
check "they outlive their server" server_killed
check "what they cost" costs
check "a disk that hangs" hung_disk
check "a disk that hangs at the end" hung_at_the_end
check "a full disk" full_disk
lab_stop
