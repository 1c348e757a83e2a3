# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# A disk that hangs: test/slowfs, stopped.  After test/lib/lab.sh; DISK_PID is its process.

# Each of its threads waits for a request, by read(2) or splice(2), or for the others, by futex(2).  Whoever waits
# for a request that it has read can't be killed, so it is stopped between two.
disk_hangs() {
	local try calls
	for ((try = 0; try < 100; try++)); do
		calls=$("$LAB_TOOLS/stop" -c "$LAB_LIMIT" "$DISK_PID")
		grep -qvxE '0|202|275' <<<"$calls" || return 0
		lab_signal CONT "$DISK_PID"
	done
	fail "the disk is never idle: $calls"
}
