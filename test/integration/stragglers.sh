#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A job that hangs on one worker is started again on the other, which then counts alone.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_need jq strace
lab_enter "$@"
lab_start builder root
unset CONCC_STRAGGLER_AFTER
lab_config 'straggler-after = 1s'
lab_worker 1 sh -c 'mount -t tmpfs none /opt && touch /opt/hang /opt/both'
lab_worker 2 sh -c 'mount -t tmpfs none /opt && touch /opt/both'
cd "$WS"

# Hangs on the workers that have such a file, after it has written half of its results.
cat >job <<'EOS'
#!/bin/sh
echo "half of $1" >"out.$1"
if [ "$2" ] && [ -e "/opt/$2" ]; then
	exec ./hold >/dev/null
fi
echo "whole of $1" >"out.$1"
echo "done $1"
EOS
chmod +x job
cp "$LAB_TOOLS/hold" hold

teach() {
	local n
	for n in 1 2 3 4 5 6 7 8; do
		CONCC_EXPLAIN=1 concc-dispatch ./job "$n" >/dev/null 2>"$LAB/explain"
		expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 1
	done
}

# Puts a job on w1, by a wrapper under strace; w2 gets a free slot when the job was sent.
started_at_w1() { # CMD...
	local token line=''
	token=$(concc-worker-pool allocate --only w2 --owner "$$") || fail "w2 has no slot"
	rm -f "$LAB/trace"
	mkfifo "$LAB/trace"
	strace -o "$LAB/trace" -s 999 -e trace=sendmsg "$@" >"$LAB/out" 2>"$LAB/err" &
	JOB=$!
	exec 5<"$LAB/trace"
	while read -r -t "$LAB_LIMIT" line <&5; do
		case $line in *w1*) break ;; esac
	done
	case $line in *w1*) ;; *) fail "no job was sent: $(cat "$LAB/err")" ;; esac
	concc-worker-pool release "${token##* }"
}

# One of the eight may have been late itself, on a machine that has other things to do.
wins() {
	local twice won
	twice=$(lab_status .twice) won=$(lab_status .twice_won)
	CONCC_EXPLAIN=1 started_at_w1 concc-dispatch ./job won hang
	wait "$JOB" || fail "exit status $?"
	exec 5<&-
	expect_eq "output" "$(cat "$LAB/out")" "done won"
	expect_grep '^concc: remote on w2$' "$LAB/err"
	expect_eq "result" "$(cat out.won)" "whole of won"
	expect_eq "stragglers" "$(lab_status .twice)" $((twice + 1))
	expect_eq "of use" "$(lab_status .twice_won)" $((won + 1))
	# It is recorded where it was done, from when it was sent there, as one that two had.
	expect_eq "record" "$(concc report --json | jq -r '.jobs | max_by(.arrived_us) | "\(.worker) \(.tries) \(.sent_us > 900000 and .sent_us < .ended_us)"')" 'w2 2 true'
}

# While neither has shown anything, one can see that two have it.
on_both() {
	local line=''
	exec 9< <(timeout "$LAB_LIMIT" tail -n +1 -F --pid=$$ "$CONCC_RUNTIME_DIR/project.log" 2>/dev/null)
	started_at_w1 concc-dispatch ./job two both
	until [[ $line == *"job two both is started again on w2"* ]]; do
		read -r -t "$LAB_LIMIT" line <&9 || fail "it is not started again"
	done
	exec 9<&-
	concc status >"$LAB/status"
	cat "$LAB/status"
	expect_grep '^  running on w1, and on w2 as well, for [0-9]+ s: ./job two both' "$LAB/status"
	concc top --once >"$LAB/once"
	expect_grep '^ +[0-9.]+ s .* w1\+w2 +job ' "$LAB/once"
	kill -TERM $(lab_children "$JOB")
	expect_gone "the wrapper" "$JOB"
	exec 5<&-
}

nothing_left() {
	expect_eq "running" "$(lab_status .running)" 0
	expect_eq "temporary files" "$(find "$WS" -name '.concc-*')" ""
	expect_eq "the job that hung" "$(lab_worker_pids 1 hold)" ""
}

twenty_jobs() {
	local n
	concc-dispatch sleep 2 # by then the other is late
	for ((n = 0; n < 20; n++)); do
		concc-dispatch true
	done
}

# The only worker can't be the other one as well: that is not tried each time a slot is given back.
nowhere_else() {
	local n pid
	lab_stop_server
	sed '/^\[worker w2\]/,$d; s/^slots *=.*/slots = 2/' /srv/concc.ini >/srv/one.ini
	export CONCC_CONFIG=/srv/one.ini
	teach
	concc-dispatch ./job late hang >/dev/null &
	pid=$!
	n=$(lab_syscalls "$(lab_server_pid)" twenty_jobs)
	expect_eq "the job that hangs" "$(lab_status .running)" 1
	echo "note: $n system calls of the project server"
	expect_le "system calls of the project server" "$n" 2500
	kill -TERM "$pid"
	expect_gone "the wrapper" "$pid"
	lab_stop_server
}

check "eight jobs of a program" teach
check "the second one wins" wins
check "nothing is left" nothing_left
check "on two workers at once" on_both
check "no other worker" nowhere_else
sed -n '/^note/p' "$LAB/check.log" 2>/dev/null || true
lab_worker 1 umount -l /opt
lab_worker 2 umount -l /opt
lab_stop
