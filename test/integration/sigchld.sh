#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Callers that ignore SIGCHLD, which an exec hands on: every program of ours still learns how its children
# end, and a command that runs here still gets the signal as its caller left it.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_need perl jq
lab_enter "$@"
lab_start builder root
lab_config
cd "$WS"

ignoring() { # CMD...
	perl -e '$SIG{CHLD} = "IGNORE"; exec { $ARGV[0] } @ARGV; exit 99' "$@"
}

# What a command sees of it, without a shell, which has signals of its own: bit 16 of the mask.
SEES=(grep -q '^SigIgn:.*[13579bdf]....$' /proc/self/status)
IS_DEFAULT=(grep -q '^SigIgn:.*[02468ace]....$' /proc/self/status)

plain() { # that is how it is without us
	ignoring "${SEES[@]}"
	"${IS_DEFAULT[@]}"
}

# The first one starts the server too.
remote() {
	lab_stop_server
	CONCC_EXPLAIN=1 expect_status 3 ignoring concc-dispatch sh -c 'exit 3' 2>"$LAB/explain"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 1
	echo 'int f(void) { return 1; }' >a.c
	CONCC_EXPLAIN=1 ignoring concc-cc gcc -c a.c 2>"$LAB/explain"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 1
	expect_file a.o
}

here() {
	export CONCC_DISABLE=1
	expect_status 3 ignoring concc-cc sh -c 'exit 3'
	ignoring concc-cc "${SEES[@]}"
	concc-cc "${IS_DEFAULT[@]}"
}

# It ran on a worker, printed, and is run again here, as a child of the wrapper: nothing is shown twice.
here_again() {
	rm -rf /srv/out && mkdir /srv/out
	CONCC_EXPLAIN=1 expect_status 3 ignoring concc-dispatch sh -c \
		'echo shown; grep SigIgn /proc/self/status >/srv/out/f; exit 3' >"$LAB/out" 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_grep '^concc: local: ' "$LAB/explain"
	expect_file /srv/out/f
	expect_eq "output" "$(cat "$LAB/out")" shown
}

run() {
	expect_status 3 ignoring concc run -- sh -c 'exit 3'
	expect_status 127 ignoring concc run -- no-such-command
	ignoring concc run -- "${SEES[@]}"
	concc run -- "${IS_DEFAULT[@]}"
	lab_stop_server
	expect_status 3 ignoring concc run -- sh -c 'exit 3' # with a server of its own
}

pool() {
	concc-dispatch true
	expect_status 3 ignoring concc-worker-pool allocate -- sh -c 'exit 3'
	ignoring concc-worker-pool allocate -- "${SEES[@]}"
	concc-worker-pool allocate -- "${IS_DEFAULT[@]}"
}

# How what it started has ended is known to the server: otherwise it would look for ever.
server() {
	local line='' fifo=$LAB/ready
	lab_stop_server
	printf '\n[worker gone]\ncommand = exit 42\n' >>/srv/concc.ini
	mkfifo "$fifo"
	ignoring concc-project --ready-fd=3 3>"$fifo" 2>"$LAB/server.err" &
	read -r -t "$LAB_LIMIT" line <"$fifo" || true
	expect_eq "the server" "$line" ready
	concc-dispatch true
	lab_status '.workers[] | select(.name == "gone").error' >"$LAB/error"
	expect_grep 'exit status 42' "$LAB/error"
	lab_stop_server
	lab_config
}

worker() {
	local n
	for n in 1 2; do
		cat >"$LAB/w$n/bin/ignoring-worker" <<-'EOF2'
			#!/usr/bin/perl
			$SIG{CHLD} = "IGNORE";
			exec "/mnt/bin/concc-worker", @ARGV;
		EOF2
		chmod +x "$LAB/w$n/bin/ignoring-worker"
	done
	lab_stop_server
	sed -i 's|bin/concc-worker|bin/ignoring-worker|' /srv/concc.ini
	lab_all_up
	for n in 1 2; do
		CONCC_EXPLAIN=1 expect_status 3 at_worker $n concc-dispatch sh -c 'exit 3' 2>"$LAB/explain"
		expect_grep "^concc: remote on w$n" "$LAB/explain"
		at_worker $n concc-dispatch "${IS_DEFAULT[@]}"
	done
	lab_stop_server
	lab_config
}

# One that stands for a host without concc.
plain_worker() {
	lab_stop_server
	printf '[concc]\nworkspace = %s\n\n[worker p]\nslots = 1\ncommand = %s\n' "$WS" \
		"exec perl -e '\$SIG{CHLD} = \"IGNORE\"; exec @ARGV' concc-plain --mirror none --slots 1 -- w1" \
		>/srv/concc.ini
	cd /srv
	mkdir "$LAB/w1/ws"
	mount --bind "$LAB/w1/ws" "$WS"
	lab_worker 1 mkdir -p "$WS"
	lab_worker 1 mount --bind /mnt/ws "$WS"
	cd "$WS"
	CONCC_EXPLAIN=1 expect_status 3 concc-dispatch sh -c 'exit 3' 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_grep "^concc: remote on p" "$LAB/explain"
	cd /srv
	lab_stop_server
	lab_agents_gone
	lab_worker 1 umount "$WS"
	lab_worker 1 rmdir "$WS"
	umount "$WS"
	lab_config
}

check "a shell's way" plain
check "remote" remote
check "here" here
check "here, after a worker" here_again
check "concc run" run
check "concc-worker-pool" pool
check "the project server" server
check "concc-worker" worker
check "concc-plain" plain_worker
lab_stop
