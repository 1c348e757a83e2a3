#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What can't go on waits for an event, and costs its worker nothing meanwhile.
# limit: 60
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need jq strace
lab_enter "$@"
lab_start builder
lab_config
cp "$LAB_TOOLS/hold" "$WS/holdbin"
cd "$WS"

twenty_jobs() {
	local n
	for ((n = 0; n < 20; n++)); do
		concc-dispatch true </dev/null
	done
}

# The agent's system calls for twenty jobs, while another job is as it is.
agent_is_quiet() { # LAST-LINE-OF-THE-OTHER
	local n
	n=$(lab_syscalls "$(lab_agent_pid 1)" twenty_jobs)
	echo "note: $n system calls of the agent"
	expect_le "system calls of the agent" "$n" "$QUIET"
}

# With nothing beside them.
alone() {
	twenty_jobs
	QUIET=$(lab_syscalls "$(lab_agent_pid 1)" twenty_jobs)
	echo "$QUIET" >"$LAB/quiet"
}

# Nobody reads what still comes.
input_closed() {
	local line='' status=0
	QUIET=$(($(cat "$LAB/quiet") * 3 / 2))
	rm -f in out
	mkfifo "$LAB/in" "$LAB/out"
	exec 6<>"$LAB/in"
	concc-dispatch sh -c 'exec <&-; exec ./holdbin' <"$LAB/in" >"$LAB/out" &
	exec 7<"$LAB/out"
	read -r -t "$LAB_LIMIT" line <&7 || fail "the job did not start"
	agent_is_quiet
	kill -TERM $!
	expect_gone "the wrapper" $!
	wait $! || status=$?
	expect_eq "exit status" "$status" 143
	exec 6>&- 7<&-
}

# Its caller reads nothing, and it has ended with more said than may be on its way.
output_unread() {
	local bytes
	QUIET=$(($(cat "$LAB/quiet") * 3 / 2))
	mkfifo "$LAB/unread"
	exec 7<>"$LAB/unread"
	concc-dispatch sh -c 'head -c $((256 * 1024 + 65536 + 16384)) /dev/zero' \
		</dev/null >"$LAB/unread" 7>&- &
	agent_is_quiet
	exec 8<"$LAB/unread" 7>&-
	bytes=$(wc -c <&8)
	exec 8<&-
	wait $! || fail "exit status $?"
	expect_eq "bytes" "$bytes" $((256 * 1024 + 65536 + 16384))
}

check "twenty jobs alone" alone
check "a job that has closed its input" input_closed
check "a job whose output nobody reads" output_unread
lab_stop
