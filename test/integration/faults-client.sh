#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What goes wrong on the client: the project server killed, a full disk, a damaged, hostile or removed
# runtime directory, a target that may not be written.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need strace
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
# A process that is killed closes its files one after the other: this one holds the server's lock when
# its socket is closed already, until a wrapper waits for its end.
dying_server() {
	local line='' pid
	concc-dispatch true
	pid=$(lab_server_pid)
	kill -KILL $pid
	expect_gone "the server" $pid
	coproc DYING { exec python3 -c '
import fcntl, os, struct, sys
fd = os.open("/srv/run/project.lock", os.O_RDWR)
os.truncate(fd, 0)
os.write(fd, b"%d\n" % os.getpid())
fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 1, 0, 0)) # F_OFD_SETLK, from byte 1 on
print("held", flush=True)
sys.stdin.read()'; }
	pid=$DYING_PID
	read -r -t "$LAB_LIMIT" line <&"${DYING[0]}"
	expect_eq "the lock" "$line" held
	mkfifo "$LAB/trace"
	CONCC_EXPLAIN=1 strace -e trace=pidfd_open -o "$LAB/trace" concc-dispatch true 2>"$LAB/err" &
	read -r -t "$LAB_LIMIT" line <"$LAB/trace" || true
	kill -KILL "$pid"
	wait $! || fail "the job failed: $(cat "$LAB/err")"
	wait "$pid" || true
	rm "$LAB/trace"
	cat "$LAB/err"
	expect_eq "remote jobs" "$(explained_remote "$LAB/err")" 1
	expect_eq "what it waited for" "${line%,*}" "pidfd_open($pid"
}

# The same, and its socket is still open, but /proc tells no more of it than of any that has left its namespaces: one
# whose first thread has ended.  It closes at once what is connected, or (keeps) does not.
ending_server() { # HOW
	local line='' pid
	lab_all_up # or there are fewer slots to take, and it starts no worker
	pid=$(lab_server_pid)
	kill -KILL $pid
	expect_gone "the server" $pid
	rm /srv/run/project.sock
	coproc ENDING { exec python3 -c '
import ctypes, fcntl, os, platform, socket, struct, sys, threading
fd = os.open("/srv/run/project.lock", os.O_RDWR)
os.truncate(fd, 0)
os.write(fd, b"%d\n" % os.getpid())
fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 1, 0, 0)) # F_OFD_SETLK, from byte 1 on
s = socket.socket(socket.AF_UNIX)
s.bind("/srv/run/project.sock")
s.listen(16)
def until_killed(kept=[]):
	while True:
		kept.append(s.accept())
		if sys.argv[1] != "keeps":
			kept.pop()[0].close()
threading.Thread(target=until_killed).start()
print("ending", flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0) # exit(2): of this thread
' "$1"; }
	ENDING_SERVER=$ENDING_PID
	read -r -t "$LAB_LIMIT" line <&"${ENDING[0]}"
	expect_eq "the server" "$line" ending
}

# A job meanwhile waits for that server's end, and is done by the next one's workers.
ending_closes() {
	local line=''
	ending_server closes
	mkfifo "$LAB/trace"
	CONCC_EXPLAIN=1 strace -e trace=pidfd_open -o "$LAB/trace" concc-dispatch true 2>"$LAB/err" &
	read -r -t "$LAB_LIMIT" line <"$LAB/trace" || true
	kill -KILL "$ENDING_SERVER"
	wait $! || fail "the job failed: $(cat "$LAB/err")"
	rm "$LAB/trace"
	cat "$LAB/err"
	expect_eq "remote jobs" "$(explained_remote "$LAB/err")" 1
	expect_eq "what it waited for" "${line%,*}" "pidfd_open($ENDING_SERVER"
}

# Who has to wait for a slot tells it so, and asks whether it sees the same files.
ending_keeps() {
	local i job token tokens=()
	ending_server keeps
	for ((i = 0; i < LAB_N * LAB_SLOTS; i++)); do
		token=$(concc-worker-pool allocate --owner "$$") || fail "no slot"
		tokens+=("${token##* }")
	done
	lab_start_waiting waits
	job=$!
	kill -KILL "$ENDING_SERVER"
	for token in "${tokens[@]}"; do
		concc-worker-pool release "$token"
	done
	wait $job || fail "the job failed: $(cat "$LAB/waits.err")"
	exec {TRACE}<&-
	expect_eq "remote jobs" "$(explained_remote "$LAB/waits.err")" 1
}

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
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'yes | head -c 3000000 >small/big' 2>"$LAB/err" || rc=$?
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

# The client's file system has no more for the job's files, or does not let us: a quota, rights.
refused_here() { # CALL:WHAT:WHEN
	local i
	rm -rf many
	concc-dispatch sh -c : # its program is known from then on, which is a thread's work
	fault_inject "$(lab_server_pid)" "$1"
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'mkdir -p many; for i in 1 2 3 4 5 6 7 8; do echo $i >many/$i; done' \
		2>"$LAB/err" </dev/null
	fault_inject_no_more
	cat "$LAB/err"
	expect_eq "local jobs" "$(explained_local "$LAB/err")" 1
	expect_grep "$2" "$LAB/err"
	for i in 1 2 3 4 5 6 7 8; do
		expect_eq "many/$i" "$(cat many/$i)" $i
	done
	expect_eq "temporary files" "$(find many -name '.concc-tmp*')" ''
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
	# One that may not be removed is no directory, and nothing is in place.
	echo old >kept
	chattr +i kept 2>/dev/null || return 0 # not on this file system
	rc=0
	concc-dispatch rm -f kept 2>"$LAB/err" || rc=$?
	chattr -i kept
	cat "$LAB/err"
	expect_ne "status" $rc 0
	expect_grep 'Operation not permitted' "$LAB/err"
	expect_no_grep 'Not a directory|in place' "$LAB/err"
}

# A cleaner of /tmp removes what is there: the job goes on, others find another server, and the one
# that nobody finds leaves.
tmp_cleaned() {
	local old
	lab_stop_server
	lab_slow_start
	old=$(lab_server_pid)
	fault_tmp_cleaned
	CONCC_EXPLAIN=1 concc-dispatch true 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_eq "remote jobs of another server" "$(explained_remote "$LAB/explain")" 1
	expect_ne "servers" "$(lab_server_pid | wc -l)" 1
	lab_slow_kill # it is the last, and ends as a killed one does here
	lab_slow_wait
	cat "$LAB/slow.err"
	expect_eq "exit status" "$SLOW_STATUS" 137
	expect_gone "the server without files" "$old"
	expect_eq "servers" "$(lab_server_pid | wc -l)" 1
	expect_status 0 concc status
	# With nothing to do it leaves at once.
	old=$(lab_server_pid)
	rm -rf /srv/run
	expect_gone "an idle server without files" "$old"
	nothing_on_workers
}

# Not even the files of ours fit: no crash, and the compiler's own result.
full_runtime_dir() {
	local rc=0
	lab_stop_server
	rm -rf /srv/run
	mkdir -m 700 /srv/run
	mount -t tmpfs -o size=4k,mode=700 lab-run /srv/run
	head -c 4096 /dev/zero >/srv/run/fill
	concc-cc gcc -g -c a.c -o a.o 2>"$LAB/err" || rc=$?
	cat "$LAB/err"
	lab_stop_server
	umount /srv/run
	rm -rf /srv/run
	expect_eq "status" $rc 0
	expect_same_file a.o "$LAB/a.o"
	expect_grep 'disk full|No space' "$LAB/err"
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
check "a project server that takes long to die" dying_server
check "a project server that is ending, and closes what is connected" ending_closes
check "a project server that is ending when a job waits for a slot" ending_keeps
check "a job right after concc stop" right_after_stop
check "100 wrappers start one server" server_started_once
check "disk full at write-back" disk_full
lab_stop_server
umount "$WS/small" 2>/dev/null || true
check "quota reached while the bytes come" refused_here write:error=EDQUOT:when=1+ 'quota'
check "quota reached by a name" refused_here renameat:error=EDQUOT:when=4 'quota'
check "a name that may not be made" refused_here renameat:error=EACCES:when=1+ 'ermission denied'
check "read-only target" immutable_target
check "wrong configuration" wrong_config
check "runtime directory cleaned" tmp_cleaned
check "runtime directory on a full disk" full_runtime_dir
check "runtime directory is a symlink" hostile_runtime_dir a_symlink
check "runtime directory is a file" hostile_runtime_dir a_file
check "runtime directory is another user's" hostile_runtime_dir anyones
check "runtime directory is open to all" hostile_runtime_dir writable_by_all
lab_stop
