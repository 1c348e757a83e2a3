#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# `concc stop` while jobs run on several workers and others wait for a slot: all of them are done by
# the next server, on workers.  And one that takes long to end, and one that can't hear of it, which has been
# stopped itself.
# limit: 90
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq strace
LAB_SLOTS=1
lab_enter "$@"
lab_start builder root
lab_config
cp "$LAB_TOOLS/hold" "$WS/holdbin"
cd "$WS"
printf '#!/bin/sh\n[ -e again ] || exec ./holdbin\necho held; echo done\n' >job
chmod +x job

stopped() {
	local n line name pids=() traces=()
	lab_all_up
	rm -f again
	mkfifo "$LAB/held"
	exec 6<>"$LAB/held"
	for n in 1 2; do
		CONCC_EXPLAIN=1 concc-dispatch ./job >&6 2>"$LAB/job$n.err" </dev/null 6>&- &
		pids+=($!)
	done
	for n in 1 2; do
		read -r -t "$LAB_LIMIT" line <&6 || fail "a job did not start: $(cat "$LAB"/job*.err)"
		expect_eq "it says" "$line" held
	done
	touch again
	for name in one two three four; do
		lab_start_waiting $name 6>&-
		pids+=($!)
		traces+=("$TRACE")
	done
	concc stop
	for n in "${traces[@]}"; do
		cat <&"$n" >/dev/null
		exec {n}<&-
	done
	for n in "${pids[@]}"; do
		expect_gone "a wrapper" "$n"
		wait "$n" || fail "exit status $?: $(cat "$LAB"/*.err)"
	done
	for n in 1 2; do
		read -r -t "$LAB_LIMIT" line <&6
		expect_eq "it says" "$line" 'done'
	done
	exec 6<&-
	cat "$LAB"/*.err
	expect_eq "remote jobs" "$(cat "$LAB"/*.err | grep -c '^concc: remote on w[12]$')" 6
	expect_eq "jobs at home" "$(cat "$LAB"/*.err | grep -c '^concc: local')" 0
}

# As on a busy machine, or with many files to put in place: who asks waits for more than an answer takes.
takes_long() {
	local pid
	lab_stop_server
	cat >"$LAB/worker" <<-EOF
		#!/bin/sh
		concc-worker --stdio
		read -r pid <"$LAB/pid"
		kill -STOP \$pid
		sleep 11
		kill -CONT \$pid
	EOF
	chmod +x "$LAB/worker"
	printf '[concc]\nworkspace = %s\n[worker slow]\nslots = 1\ncommand = %s\n' "$WS" "$LAB/worker" >"$LAB/slow.ini"
	export CONCC_CONFIG=$LAB/slow.ini
	CONCC_EXPLAIN=1 concc-dispatch true 2>"$LAB/long.err"
	expect_grep '^concc: remote on slow' "$LAB/long.err"
	pid=$(lab_server_pid)
	echo "$pid" >"$LAB/pid"
	concc stop || fail "exit status $?"
	[ ! -e "/proc/$pid" ] || expect_gone "the project server" "$pid"
	unset CONCC_CONFIG
}

# Who asks it is told what it is that does not answer, and what ends that.
deaf() {
	local pid what n=0 pids=() cache report late
	late="concc: the project server of $CONCC_RUNTIME_DIR does not answer: its last jobs may be missing"
	lab_all_up
	pid=$(lab_server_pid)
	lab_suspend "$pid"
	concc cache >/dev/null 2>"$LAB/cache.err" &
	cache=$!
	concc report --json >/dev/null 2>"$LAB/report.err" &
	report=$!
	for what in status 'status --json' 'status --reset' stop; do
		n=$((n + 1))
		# shellcheck disable=SC2086 # words
		timeout $((LAB_LIMIT * 2)) concc $what >"$LAB/deaf$n.out" 2>"$LAB/deaf$n.err" &
		pids+=($!)
	done
	n=0
	for what in "${pids[@]}"; do
		n=$((n + 1))
		expect_status 102 wait "$what"
		expect_eq "what is said" "$(cat "$LAB/deaf$n.err")" \
			"concc: the project server does not answer; \`kill -9 $pid\` ends it, and builds start another"
	done
	for what in "$cache" "$report"; do
		expect_status 0 wait "$what"
	done
	expect_eq "what is said" "$(cat "$LAB/cache.err")" "$late"
	expect_eq "what is said" "$(cat "$LAB/report.err")" "$late"
	kill -9 "$pid"
	CONCC_EXPLAIN=1 concc-dispatch true 2>"$LAB/deaf.err"
	expect_grep '^concc: remote on w' "$LAB/deaf.err"
}

check "stopped in the middle of jobs" stopped
check "one that takes long to end" takes_long
check "one that does not answer" deaf
lab_stop
