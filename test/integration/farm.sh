#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# The worker as its administrator has it: what it tells, what it allows, what it logs.
# limit: 200
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need jq gcc python3 setpriv
lab_enter "$@"
lab_start builder
cd "$WS"
echo 'int f(void) { return 1; }' >a.c
INI=/etc/concc-worker.ini

# An /etc of the worker's own, and a system log.
lab_worker 1 sh -c 'mkdir -p /mnt/upper /mnt/work && mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work lab-etc /etc
	for f in passwd group shadow; do mount --bind /mnt/etc/$f /etc/$f; done'
lab_mounts "${LAB_INIT[1]}" >"$LAB/w1/mounts"

allow() { # LINES
	concc stop 2>/dev/null || true
	printf '[worker]\n%s\n' "$1" >"$LAB/w1/allow.ini"
	lab_worker 1 install -m 644 -o 0 -g 0 /mnt/allow.ini "$INI"
}

allow_all() {
	concc stop 2>/dev/null || true
	lab_worker 1 rm -f "$INI"
}

# Why w1 can't be used, in a client's words.
refused() { # PATTERN
	concc stop 2>/dev/null || true
	CONCC_EXPLAIN=1 concc-cc gcc -c a.c 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep "^concc: local: no-worker .*$1" "$LAB/err"
	concc stop
}

status() { # [OPTION]
	lab_worker 1 /mnt/bin/concc-worker --status "$@"
}

tells() {
	local agent
	allow_all
	lab_config
	concc-cc gcc -c a.c
	concc-cc gcc -c a.c
	status | tee "$LAB/text"
	expect_grep '^labclient +1717 +0 +0 +2 +0 +0' "$LAB/text"
	status --json >"$LAB/status.json"
	cat "$LAB/status.json"
	expect_eq "agent" "$(jq -r '.agents[0] | [.client, .login, .running, .jobs, .refused] | join(" ")' "$LAB/status.json")" \
		"labclient 1717 0 2 0"
	expect_ge "slots" "$(jq .slots "$LAB/status.json")" 1
	expect_ge "store" "$(jq '.stores[] | select(.directory == "/home/builder/.cache/concc/store") | .objects' "$LAB/status.json")" 1
	status --prometheus | tee "$LAB/metrics"
	expect_grep '^concc_worker_client_jobs_total\{client="labclient",login="1717",pid="[0-9]+"\} 2$' "$LAB/metrics"
	python3 - "$LAB/metrics" <<-'EOF'
		import re, sys
		sample = re.compile(r'^[a-z_]+(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)*\})? [0-9.]+$')
		for line in open(sys.argv[1]):
		    assert line.startswith("#") or sample.match(line), line
	EOF
	agent=$(lab_agent_pid 1)
	concc stop
	expect_gone "the agent" "$agent"
	expect_eq "agents" "$(status --json | jq '.agents | length')" 0
}

# A client of whatever name is told of as one line of text.
odd_client() {
	# shellcheck disable=SC2064 # what it is now
	trap "set_hostname '$(hostname)'; concc stop" EXIT
	set_hostname 'a"b\n'$'\e''[31m<b>'$'\xff'
	concc stop 2>/dev/null || true
	concc-cc gcc -c a.c
	status --json >"$LAB/status.json"
	status --prometheus >"$LAB/metrics"
	status >"$LAB/text"
	cat "$LAB/text"
	expect_eq "name" "$(jq -r '.agents[0].client' "$LAB/status.json")" 'a"b\n\x1b[31m<b>\xff'
	grep -qF '{client="a\"b\\n\\x1b[31m<b>\\xff",' "$LAB/metrics" || fail "$(grep client= "$LAB/metrics")"
	expect_grep '^a"b.n.x1b.31m' "$LAB/text"
}

set_hostname() { # NAME
	python3 -c 'import os, socket, sys; socket.sethostname(os.fsencode(sys.argv[1]))' "$1"
}

while_running() {
	lab_slow_job
	lab_slow_start
	expect_eq "running" "$(status --json | jq '.agents[0].running')" 1
	kill -KILL "$SLOW_PID"
	lab_slow_end
	concc stop
	expect_gone "the job" $SLOW_PIDS
}

prunes() {
	local as='setpriv --reuid 1717 --regid 1717 --clear-groups env -u CONCC_CACHE_DIR HOME=/home/builder /mnt/bin/concc-worker'
	lab_config
	concc-cc gcc -c a.c
	concc stop
	lab_agents_gone
	lab_worker 1 $as --prune=1T | tee "$LAB/out"
	expect_grep ' 0.0 MB removed' "$LAB/out"
	lab_worker 1 $as --prune | tee "$LAB/out"
	expect_grep 'store: [0-9.]+ MB removed, 0.0 MB stay$' "$LAB/out"
	expect_eq "objects" "$(lab_worker 1 find /home/builder/.cache/concc/store -path '*/store/??/*' -type f | wc -l)" 0
	expect_status 100 lab_worker 1 $as --prune=much
	# What was removed is fetched again.
	concc-cc gcc -c a.c -o b.o
	expect_same_file a.o b.o
	concc stop
}

limits() {
	local own
	own=$(nice) # whatever runs the tests may be nicer than that itself
	allow $'nice = 7\nmemory = 300M\nslots = 2\njob-time = 2m'
	lab_config
	sed -i 's/^slots.*/&\njob-memory = 4G/' /srv/concc.ini
	expect_eq "niceness" "$(concc-dispatch nice)" "$((own > 7 ? own : 7))"
	expect_eq "niceness asked for" "$(nice -n 12 concc-dispatch nice)" "$(nice -n 12 nice)"
	expect_eq "data" "$(concc-dispatch sh -c 'ulimit -d')" $((300 * 1024))
	expect_eq "slots" "$(status --json | jq .slots)" 2
	# A client that asks for less has less.
	concc stop
	sed -i 's/^job-memory.*/job-memory = 200M/' /srv/concc.ini
	expect_eq "less" "$(concc-dispatch sh -c 'ulimit -d')" $((200 * 1024))
	concc stop
}

users() {
	lab_config
	allow 'users = root @nogroup'
	refused 'uid 1717 may not use this worker: .users. in /etc/concc-worker.ini'
	allow 'users = root builder'
	concc-cc gcc -c a.c 2>"$LAB/err" && lab_status '.workers[0].jobs'
	allow 'users = @builder'
	expect_eq "by group" "$(concc-cc gcc -c a.c && lab_status '.workers[0].jobs')" 1
	allow 'users = 1717'
	expect_eq "by number" "$(concc-cc gcc -c a.c && lab_status '.workers[0].jobs')" 1
}

broken() {
	lab_config
	allow 'nise = 3'
	refused "/etc/concc-worker.ini:2: unknown key 'nise'; did you mean 'nice'\?; nobody can use"
	allow 'nice = 40'
	refused "/etc/concc-worker.ini:2: nice: '40' is not a number from 0 to 19"
	allow 'nice = 3'
	lab_worker 1 chmod 666 "$INI"
	refused 'has to be a file of root.s that nobody else may write to'
	lab_worker 1 chmod 644 "$INI"
	lab_worker 1 chown 1717 "$INI"
	refused 'chown root /etc/concc-worker.ini'
	lab_worker 1 chown 0 "$INI"
	lab_worker 1 chmod 600 "$INI"
	refused 'has to let all logins read it'
	allow_all
	concc-cc gcc -c a.c
	expect_eq "without it" "$(lab_status '.workers[0].jobs')" 1
}

# The log, as a daemon reads it; and one that nobody reads holds nobody up.
logs() {
	local i
	allow 'log = jobs'
	lab_config
	mkfifo "$LAB/w1/log-up" "$LAB/w1/deaf-up"
	lab_worker 1 python3 -c '
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("/dev/log")
os.chmod("/dev/log", 0o666)
open("/mnt/log-up", "w").write("up\n")
with open("/mnt/log/system", "wb", buffering=0) as f:
    while True:
        line = s.recv(8192)
        f.write(line.rstrip(b"\0\n") + b"\n")
        if b" ends: " in line:
            break
' &
	read -r -t "$LAB_LIMIT" <"$LAB/w1/log-up" || fail "no log"
	concc-cc gcc -c a.c
	concc-cc gcc -c a.c
	concc stop
	wait $!
	cat "$LAB/w1/log/system"
	expect_eq "jobs" "$(grep -c 'concc-worker\[[0-9]*\]: client=labclient login=1717 job=[0-9]* status=0 .*command=gcc' "$LAB/w1/log/system")" 2
	expect_grep 'begins: concc' "$LAB/w1/log/system"
	expect_grep 'ends: jobs=2 refused=0 lost=0' "$LAB/w1/log/system"
	# Now the reader is gone and the socket there.
	lab_worker 1 rm -f /dev/log
	lab_worker 1 python3 -c '
import os, socket, signal
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("/dev/log")
os.chmod("/dev/log", 0o666)
open("/mnt/deaf-up", "w").write("up\n")
signal.pause()
' &
	DEAF=$!
	read -r -t "$LAB_LIMIT" <"$LAB/w1/deaf-up" || fail "no log"
	for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		concc-cc gcc -c a.c
	done
	expect_eq "jobs in spite of it" "$(lab_status '.workers[0].jobs')" 20
	concc stop
	kill $(lab_descendants $DEAF) $DEAF 2>/dev/null || true
	wait $DEAF 2>/dev/null || true
	lab_worker 1 rm -f /dev/log
}

# A static program can't ask the libraries that know of such a user.
no_login() {
	setpriv --reuid 54321 --regid 54321 --clear-groups env -i "$LAB_BIN/concc-worker" --status >"$LAB/out" || fail "status $?"
	expect_grep '^[0-9]* slots' "$LAB/out"
}

# Whoever takes such names hides nobody, and is told of as who he is.
impostors() {
	local agent
	allow_all
	lab_config
	concc stop 2>/dev/null || true
	concc-cc gcc -c a.c
	agent=$(lab_agent_pid 1)
	mkfifo "$LAB/w1/impostors-up"
	lab_worker 1 setpriv --reuid 65534 --clear-groups python3 - 3>"$LAB/w1/impostors-up" <<-'EOF' &
		import json, os, socket
		def take(name):
		    s = socket.socket(socket.AF_UNIX)
		    s.bind("\0concc/1/agent/" + name)
		    s.listen(9)
		    return s
		silent = [take("0%d" % i) for i in range(100)]
		liar = take("liar")
		os.write(3, b"up\n")
		os.close(3)
		while True:
		    c = liar.accept()[0]
		    c.sendall(json.dumps({"client": "\u009b31m", "login": 0, "pid": 1, "jobs": 7}, ensure_ascii=False).encode())
		    c.close()
	EOF
	IMPOSTORS=$!
	read -r -t "$LAB_LIMIT" <"$LAB/w1/impostors-up" || fail "no impostors"
	status --json >"$LAB/status.json"
	kill $(lab_descendants $IMPOSTORS) $IMPOSTORS 2>/dev/null || true
	wait $IMPOSTORS 2>/dev/null || true
	concc stop
	expect_gone "the agent" "$agent"
	cat "$LAB/status.json"
	expect_eq "the agent" "$(jq -r '.agents[] | select(.client == "labclient") | [.login, .jobs] | join(" ")' "$LAB/status.json")" "1717 1"
	expect_eq "the liar" "$(jq -r '.agents[] | select(.jobs == 7) | .login' "$LAB/status.json")" 65534
	if LC_ALL=C grep -q '[^[:print:][:space:]]' "$LAB/status.json"; then
		fail "its bytes are on the terminal"
	fi
}

check "what it tells" tells
check "names that others take" impostors
check "to a user whom the host does not know, without HOME" no_login
check "a client of an odd name" odd_client
check "a job that runs" while_running
check "room is made" prunes
check "limits that a client can't exceed" limits
check "who may use it" users
check "a broken file lets nobody in" broken
check "the system log" logs
allow_all
lab_config
lab_stop
