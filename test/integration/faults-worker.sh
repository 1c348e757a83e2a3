#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What goes wrong with workers: each time the right result, one line that says what happened, no
# hang, nothing half-written, nothing left running.
# limit: 240
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need strace
lab_enter "$@"
lab_start builder root
lab_config
lab_slow_job
cd "$WS"

# The worker that the slow job runs on.
slow_worker() {
	local n
	for ((n = 1; n <= LAB_N; n++)); do
		[ -z "$(lab_worker_pids $n holdbin)" ] || echo $n
	done
}

# The agent itself: the first of its name below the connection.
agent_pid() { # N
	local pid
	for pid in $(lab_worker_pids "$1" concc-worker); do
		[ "$(cat "/proc/$(lab_parent "$pid")/comm")" = concc-worker ] || echo "$pid"
	done
}

one_line_said() {
	expect_eq "lines that say so" "$(grep -c '^concc: ' "$LAB/slow.err")" "$((1 + $(explained_remote "$LAB/slow.err") + $(explained_local "$LAB/slow.err")))"
}

# Of the connection there was then: the server soon makes another.
nothing_runs_of_it() { # WHAT-LAB_WORKER_JOBS-SAID
	[ -z "$1" ] || expect_gone "left on the worker" $1
}

agent_killed() {
	local n jobs
	lab_slow_start
	n=$(slow_worker)
	jobs=$(lab_worker_jobs "$n")
	kill -KILL $(agent_pid "$n")
	lab_slow_recovered
	one_line_said
	nothing_runs_of_it "$jobs"
}

# As a container's first process, or with all that its login runs: the jobs end, too, and what they say of that is
# no answer.
told_to_end() { # agent, or all
	local n jobs
	lab_stop_server
	lab_slow_start
	n=$(slow_worker)
	jobs=$(lab_worker_jobs "$n")
	kill -TERM $(agent_pid "$n")
	[ "$1" = agent ] || kill -TERM $(lab_worker_pids "$n" holdbin) $(lab_worker_pids "$n" slow) 2>/dev/null || true
	lab_slow_recovered
	expect_grep "worker w$n was lost: it was told to end \(SIGTERM\)" "$LAB/slow.err"
	one_line_said
	nothing_runs_of_it "$jobs"
}

# What the second try says is not what was shown of the first: none of it is lost.
other_words() {
	local n
	lab_stop_server
	sed -i 's/^echo held$/echo another; echo held/' "$WS/slow"
	lab_slow_start
	n=$(slow_worker)
	kill -KILL $(agent_pid "$n")
	lab_slow_wait
	expect_eq "exit status" "$SLOW_STATUS" 0
	expect_eq "output" "$(tr '\n' ' ' <"$LAB/slow.out")" "held another held done "
	lab_slow_job
}

# A job that makes so many files, while system calls are delayed.
many_files() { # N
	CONCC_EXPLAIN=1 concc-dispatch sh -c \
		'i=0; while [ $i -lt "$1" ]; do echo $i >many/$i; i=$((i + 1)); done' - "$1" 2>"$LAB/explain"
	fault_inject_no_more
	cat "$LAB/explain"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 1
	expect_eq "files" "$(find "$WS/many" -type f | wc -l)" "$1"
}

# So many files that its agent looks at them for longer than a worker may say nothing: each open of a
# file takes it 25 ms here.  (Not more of them in less: where strace stops it, it waits for a processor.)
busy_with_files() {
	lab_stop_server
	sed '/^\[worker w2\]/,$d' /srv/concc.ini >/srv/one.ini
	export CONCC_CONFIG=/srv/one.ini
	mkdir "$WS/many"
	concc-dispatch true
	fault_inject "$(agent_pid 1)" openat,openat2:delay_enter=25000:when=1+ -e status=none
	many_files 200
	expect_no_grep 'was lost' "$LAB/explain"
	rm -rf "$WS/many"
	lab_stop_server
}

# The same of the project server, which puts them in place: the workers' other jobs go on.
server_busy_with_files() {
	local other
	lab_slow_start
	other=$(slow_worker)
	mkdir "$WS/many"
	fault_inject "$(lab_own_server)" renameat,renameat2:delay_enter=3000:when=1+ -e status=none
	many_files 4000
	expect_no_grep 'was lost' "$LAB/slow.err"
	kill -KILL $(agent_pid "$other")
	lab_slow_recovered
	rm -rf "$WS/many"
}

connection_killed() {
	local n jobs
	lab_stop_server
	lab_slow_start
	n=$(slow_worker)
	jobs=$(lab_worker_jobs "$n")
	lab_hang_up "$n"
	lab_slow_recovered
	one_line_said
	nothing_runs_of_it "$jobs"
}

cable_cut() {
	local n jobs
	lab_stop_server
	lab_slow_start
	n=$(slow_worker)
	jobs=$(lab_worker_jobs "$n")
	lab_cut "$n"
	lab_slow_recovered
	one_line_said
	nothing_runs_of_it "$jobs"
	lab_mend "$n"
}

# All workers lost: home is the last resort.
both_cut() {
	lab_stop_server
	lab_slow_start
	lab_cut 1
	lab_cut 2
	lab_slow_recovered
	expect_grep 'local' "$LAB/slow.err"
	expect_status 0 concc-dispatch true
	lab_mend 1
	lab_mend 2
	lab_stop_server
	nothing_runs_of_it "$(lab_worker_jobs 1)"
	nothing_runs_of_it "$(lab_worker_jobs 2)"
}

store_deleted() {
	local n
	echo 'int first;' >first.c
	concc-cc gcc -c first.c -o first.o
	for n in 1 2; do
		expect_status 0 lab_worker $n test -d "$(lab_worker_cache $n)"
		lab_worker $n rm -rf "$(lab_worker_cache $n)"
	done
	echo '#include <errno.h>
int second;' >second.c
	CONCC_EXPLAIN=1 concc-cc gcc -c first.c -o again.o 2>"$LAB/explain"
	CONCC_EXPLAIN=1 concc-cc gcc -c second.c -o second.o 2>>"$LAB/explain"
	expect_same_file first.o again.o
	cat "$LAB/explain"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 2
	gcc -c second.c -o local.o
	expect_same_file second.o local.o
}

compiles() { # WANTED-REMOTE
	rm -f a.o
	CONCC_EXPLAIN=1 timeout "$LAB_LIMIT" concc-cc gcc -g -c a.c -o a.o 2>"$LAB/explain" ||
		fail "no result: $(cat "$LAB/explain")"
	cat "$LAB/explain"
	expect_same_file a.o "$LAB/a.o"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" "$1"
}

# It is not waited for: before it is given up the job has no more time.
one_absent() {
	lab_stop_server
	lab_config 'connect-timeout = 5m'
	lab_cut 2
	compiles 1
	lab_mend 2
}

all_absent() {
	lab_stop_server
	lab_config 'connect-timeout = 3'
	lab_cut 1
	lab_cut 2
	compiles 0
	concc status >"$LAB/status" || true
	expect_grep 'w1' "$LAB/status"
	lab_mend 1
	lab_mend 2
}

not_installed() {
	lab_stop_server
	lab_config
	sed -i 's#^program.*#program = /mnt/bin/not-there#' "$CONCC_CONFIG"
	compiles 0
	concc status >"$LAB/status" || true
	expect_grep 'not-there' "$LAB/status"
}

wrong_host_key() {
	lab_stop_server
	lab_config
	cp /srv/home/.ssh/known_hosts "$LAB/known_hosts"
	ssh-keygen -q -t ed25519 -N '' -f "$LAB/other" <<<y
	for n in 1 2; do
		echo "10.77.$n.2 $(cut -d' ' -f1,2 "$LAB/other.pub")"
	done >/srv/home/.ssh/known_hosts
	compiles 0
	concc status >"$LAB/status" || true
	cat "$LAB/status"
	cp "$LAB/known_hosts" /srv/home/.ssh/known_hosts
	expect_grep 'key of host .* has CHANGED' "$LAB/status"
	lab_stop_server
	nothing_runs_of_it "$(lab_worker_jobs 1)"
}

unknown_host_key() {
	lab_stop_server
	cp /srv/home/.ssh/known_hosts "$LAB/known_hosts"
	: >/srv/home/.ssh/known_hosts
	compiles 0
	concc status >"$LAB/status" || true
	cat "$LAB/status"
	expect_eq "known_hosts after it" "$(cat /srv/home/.ssh/known_hosts)" ''
	cp "$LAB/known_hosts" /srv/home/.ssh/known_hosts
	expect_grep 'no key of host .* is known' "$LAB/status"
}

no_permission() {
	lab_stop_server
	mv "$LAB/w1/etc/authorized_keys" "$LAB/w1/etc/away"
	mv "$LAB/w2/etc/authorized_keys" "$LAB/w2/etc/away"
	compiles 0
	concc status >"$LAB/status" || true
	cat "$LAB/status"
	mv "$LAB/w1/etc/away" "$LAB/w1/etc/authorized_keys"
	mv "$LAB/w2/etc/away" "$LAB/w2/etc/authorized_keys"
	expect_grep 'not let in with a key' "$LAB/status"
}

# A worker behind test/lib/relay: what is between may attach late, echo, and print.
between() { # MODE TRANSPORT
	lab_stop_server
	install -m 755 "$LAB_REPO/test/lib/relay" "$LAB/w1/bin/relay"
	{
		printf '[concc]\nworkspace = %s\n[worker between]\nslots = 1\n' "$WS"
		case $2 in
		command) printf 'command = exec %s/test/lib/relay %s %s/relayed %s/concc-worker --stdio\n' "$LAB_REPO" "$1" "$LAB" "$LAB_BIN" ;;
		*) printf 'address = ssh://w1\nprogram = /mnt/bin/between\nssh = %s\n' "$2" ;;
		esac
	} >"$CONCC_CONFIG"
	printf '#!/bin/sh\nexec /mnt/bin/relay %s /mnt/bin/relayed /mnt/bin/concc-worker --stdio\n' "$1" >"$LAB/w1/bin/between"
	chmod 755 "$LAB/w1/bin/between"
	touch "$LAB/w1/bin/relayed" "$LAB/relayed"
	chmod 666 "$LAB/w1/bin/relayed"
	compiles 1
}

# Nothing is lost, since nothing is said before the client is heard.
attaches_late() {
	between late command
	expect_eq "bytes said to nobody" "$(cat "$LAB/relayed")" 0
	between late auto
	expect_eq "bytes said to nobody" "$(cat "$LAB/w1/bin/relayed")" 0
	: >"$LAB/w1/bin/relayed"
	between late openssh
	expect_eq "bytes said to nobody" "$(cat "$LAB/w1/bin/relayed")" 0
}

# A client says all that it takes to be READY without having heard a word: greeting costs no round trip.
greets_without_waiting() {
	between hold command
	between hold auto
	between hold openssh
}

noise_around() {
	between echo command
	between noise command
	between echo auto
	between noise openssh
}

# Both are told which is the older, and what to do.
older_and_newer() {
	lab_stop_server
	printf '[concc]\nworkspace = %s\n[worker old]\nslots = 2\ncommand = %s\n' "$WS" "$LAB/old-worker" >"$CONCC_CONFIG"
	# Greets first, as workers did, and waits for frames.
	# shellcheck disable=SC2016 # its own
	printf '#!/bin/sh\n%s\n' 'printf "\nCONCC-LINK/1\n\103\0\0\0\001\0\0\0\013\0\0\0\013\0\0\0concc 0.0.9\006\0\0\0worker\006\0\0\0$(uname -m)"
head -c 28 /dev/zero; exec cat >/dev/null' >"$LAB/old-worker"
	chmod +x "$LAB/old-worker"
	compiles 0
	expect_grep 'runs concc 0.0.9, which speaks protocol 11, older .* have its `command` start a concc-worker of this version' "$LAB/explain"
	lab_stop_server
	sed -i 's/\\013\\0\\0\\0\\013/\\033\\0\\0\\0\\013/' "$LAB/old-worker"
	compiles 0
	expect_grep 'speaks protocol 27, newer .* upgrade this one, or have its `command`' "$LAB/explain"
	# An older client says HELLO at once, and hears why it can have no jobs.
	printf '\060\0\0\0\001\0\0\0\013\0\0\0\002\0\0\0me\001\0\0\0c\001\0\0\0x%28s' '' | tr ' ' '\0' |
		concc-worker --stdio >"$LAB/said" 2>"$LAB/err" || true
	cat "$LAB/err"
	expect_grep 'the client me \(protocol 11\): upgrade the client.s' "$LAB/err"
	# A number in it may be a newline.
	expect_eq "its HELLO and its BYE" "$(tr '\n' ' ' <"$LAB/said" | grep -ac 'concc [0-9]')" 1
	expect_eq "its first word" "$(head -c 14 "$LAB/said" | tr '\n' .)" '.CONCC-LINK/1.'
}

# What starts a worker and gives it no input, as `docker run` without -i does.
no_input() {
	lab_stop_server
	sed -i "s#^command.*#command = exec $LAB_BIN/concc-worker --stdio </dev/null#" "$CONCC_CONFIG"
	compiles 0
	expect_grep 'its input ended before a client greeted: .*docker run -i' "$LAB/explain"
}

# A worker of another version says so in its first line, whatever else it is.
wrong_version() {
	lab_stop_server
	{
		printf '[concc]\nworkspace = %s\n[worker old]\nslots = 2\n' "$WS"
		printf 'command = %s\n' "$LAB/old-worker"
	} >"$CONCC_CONFIG"
	printf '#!/bin/sh\nprintf "\\nCONCC-LINK/99\\n"\ncat >/dev/null\n' >"$LAB/old-worker"
	chmod +x "$LAB/old-worker"
	compiles 0
	concc status >"$LAB/status" || true
	cat "$LAB/status"
	expect_grep '[Vv]ersion' "$LAB/status"
}

# Not even a worker: noise without end.
noise() {
	lab_stop_server
	sed -i 's#^command.*#command = yes#' "$CONCC_CONFIG"
	compiles 0
	lab_stop_server
	lab_config
	compiles 1
}

check "agent killed mid-job" agent_killed
check "agent told to end mid-job" told_to_end agent
check "agent and job told to end" told_to_end all
check "a second try that says something else" other_words
check "a worker busy with many files" busy_with_files
# On a loaded machine ten seconds without an answer are no fault of the server's.
[ -z "${CONCC_TEST_LONG-}" ] || check "a project server busy with many files" server_busy_with_files
check "connection killed mid-job" connection_killed
check "cable cut mid-job" cable_cut
check "all cables cut mid-job" both_cut
check "store deleted" store_deleted
check "one worker absent at start" one_absent
check "all workers absent at start" all_absent
check "worker program missing" not_installed
check "wrong host key" wrong_host_key
check "unknown host key" unknown_host_key
check "key refused" no_permission
check "attaches late" attaches_late
check "greets without waiting" greets_without_waiting
check "noise around a worker" noise_around
check "an older and a newer worker, an older client" older_and_newer
check "no input" no_input
check "wrong version" wrong_version
check "noise instead of a worker" noise
lab_stop
