#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A worker that may have only a part of its machine, as a pod with limits, a batch job or a service: it offers the
# cores that it may use, and a job that needs more memory than there is neither takes the worker with it nor fails.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need jq python3
GROUPS_ROOT=/sys/fs/cgroup
[ -d $GROUPS_ROOT/cpu ] && [ -d $GROUPS_ROOT/memory ] && [ -d $GROUPS_ROOT/unified ] || skip "no control groups of version 1"
lab_enter "$@"
UNIFIED=$GROUPS_ROOT/unified/${LAB##*/}
CPU=$GROUPS_ROOT/cpu/${LAB##*/} MEMORY=$GROUPS_ROOT/memory/${LAB##*/}
mkdir "$CPU" "$MEMORY"
lab_start root builder
echo 256M >"$MEMORY/memory.limit_in_bytes"
# Who listens there, and all that it starts.
for n in 1 2; do
	echo "${LAB_LISTEN[n]}" >"$CPU/cgroup.procs"
	echo "${LAB_LISTEN[n]}" >"$MEMORY/cgroup.procs"
done
lab_config
sed -i "/^slots =/d" /srv/concc.ini # as many as it has cores
cd "$WS"

offers() { # PERCENT-OF-A-CORE SLOTS
	lab_stop_server
	echo 100000 >"$CPU/cpu.cfs_period_us"
	echo $(($1 * 1000)) >"$CPU/cpu.cfs_quota_us"
	concc-dispatch true
	lab_all_up
	expect_eq "slots of root's worker" "$(lab_status '.workers[0].slots')" "$2"
	expect_eq "slots of a user's worker" "$(lab_status '.workers[1].slots')" "$2"
}

slots() {
	offers 50 1
	[ "$(nproc)" -lt 2 ] || offers 150 2
	lab_stop_server
	echo -1 >"$CPU/cpu.cfs_quota_us"
	concc-dispatch true
}

# A machine with groups of version 2 only has their files in /sys/fs/cgroup, and the path of ours in the line of
# hierarchy 0.  Here those of version 1 have the controllers, so the files are ours, and the group is true.
unified() {
	local n
	mkdir "$UNIFIED"
	for n in 1 2; do
		echo "${LAB_LISTEN[n]}" >"$UNIFIED/cgroup.procs"
		lab_worker "$n" sh -ec "mount -t tmpfs none $GROUPS_ROOT; mkdir $GROUPS_ROOT/${UNIFIED##*/}"
	done
	offers_unified max max "$(nproc)"
	offers_unified 50000 max 1
	offers_unified max 50000 1
	lab_stop_server
	lab_agents_gone
	for n in 1 2; do
		lab_worker "$n" umount "$GROUPS_ROOT"
	done
}

offers_unified() { # QUOTA QUOTA-ABOVE SLOTS
	local n
	lab_stop_server
	for n in 1 2; do
		lab_worker "$n" sh -ec "echo $1 100000 >$GROUPS_ROOT/${UNIFIED##*/}/cpu.max; echo $2 100000 >$GROUPS_ROOT/cpu.max"
	done
	concc-dispatch true
	lab_all_up
	for n in 0 1; do
		expect_eq "slots of worker $((n + 1)) with $1 and $2" "$(lab_status ".workers[$n].slots")" "$3"
	done
}

agents() {
	lab_agent_pid 1
	lab_agent_pid 2
}

# They end here, with what they end with here, and no worker was lost.
here_after_all() { # REASON CMD...
	local before reason=$1 rc=0
	shift
	lab_all_up
	before=$(agents)
	CONCC_EXPLAIN=1 concc-dispatch "$@" >"$LAB/out" 2>&1 || rc=$?
	cat "$LAB/out"
	expect_eq "exit status" $rc 0
	expect_grep "$reason" "$LAB/out"
	expect_eq "agents" "$(agents)" "$before"
}

# More than all that it may have; what it has is its own.
allocates() {
	here_after_all 'ran out of memory' python3 -c 'len(bytearray(b"x") * (400 << 20))'
}

# The kernel would give it half of the machine's.
writes() {
	here_after_all '.' sh -c 'head -c 300M /dev/zero >big'
	expect_eq "bytes" "$(stat -c %s big)" $((300 << 20))
	rm big
}

# Each may, but not all: what they wrote is no process's memory.  The shell takes the end of what it waits for as
# if nothing was, and who is killed may be the worker after all.
write_together() {
	local k pids=() goes_on=('&&' ';')
	lab_all_up
	for k in 1 2 3 4; do
		CONCC_EXPLAIN=1 concc-dispatch sh -c "head -c 100M /dev/zero >big$k ${goes_on[k % 2]} cksum <big$k" >"$LAB/out$k" 2>&1 &
		pids+=($!)
	done
	for k in 1 2 3 4; do
		wait "${pids[k - 1]}" || fail "$(cat "$LAB/out$k")"
		cat "$LAB/out$k"
		expect_eq "bytes" "$(stat -c %s big$k)" $((100 << 20))
	done
	rm big?
}

# What has lost a process and goes on as if nothing was has not done what it does here.
lost_one() {
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'python3 -c "len(bytearray(b\"x\") * (400 << 20))"; echo $? >status' 2>"$LAB/out"
	cat "$LAB/out"
	expect_eq "what it made of it" "$(cat status)" 0
	expect_grep 'ran out of memory' "$LAB/out"
	rm status
}

check "slots" slots
check "slots, groups of version 2" unified
check "a job that allocates too much" allocates
check "a job that writes too much" writes
check "a command that goes on after that" lost_one
check "jobs that together write too much" write_together
for pid in $(cat "$UNIFIED/cgroup.procs"); do
	echo "$pid" >"$GROUPS_ROOT/unified/cgroup.procs" 2>/dev/null || true # it has ended
done
for pid in $(cat "$MEMORY/cgroup.procs" "$CPU/cgroup.procs"); do
	echo "$pid" >"$GROUPS_ROOT/memory/cgroup.procs" 2>/dev/null || true # it has ended
	echo "$pid" >"$GROUPS_ROOT/cpu/cgroup.procs" 2>/dev/null || true
done
rmdir "$MEMORY" "$CPU" "$UNIFIED"
lab_stop
