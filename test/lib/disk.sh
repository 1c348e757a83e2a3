# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# A disk that hangs: test/slowfs, stopped.  After test/lib/lab.sh; DISK_PID is its process.

# Each of its threads waits for a request, by read(2) or splice(2), or for the others, by futex(2).
disk_is_idle() {
	local task call
	for task in "/proc/$DISK_PID/task/"*; do
		read -r call _ <"$task/syscall"
		case $call in 0 | 202 | 275) ;; *) return 1 ;; esac
	done
}

# Whoever waits for a request that it has read can't be killed, so it is stopped between two.
disk_hangs() {
	local try
	for ((try = 0; try < 100; try++)); do
		lab_suspend "$DISK_PID"
		! disk_is_idle || return 0
		lab_signal CONT "$DISK_PID"
	done
	fail "the disk is never idle"
}
