#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# The disk of a worker's contents: small, full, filled by others, slow.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_need jq
lab_enter "$@"
lab_start builder builder
lab_config 'store-size = 40M'
MB=$((1024 * 1024))
cd "$WS"
DISK=$(lab_worker_home 1)/.cache

# What w1 keeps contents on: a file system of that kind, new.
disk() { # MOUNT-ARGS... (of what is mounted on the directory $DISK)
	lab_stop_server
	lab_agents_gone
	lab_worker 1 umount -l "$DISK" 2>/dev/null || true
	lab_worker 1 mkdir -p "$DISK"
	lab_worker 1 mount "$@" "$DISK"
	lab_worker 1 chown builder: "$DISK"
	[ "${FILL-}" = '' ] || lab_worker 1 sh -c "$FILL"
	lab_all_up
}

# Files that nobody has seen, of a megabyte each.
fresh() { # FIRST LAST
	local i
	for i in $(seq "$1" "$2"); do
		head -c "$MB" /dev/urandom >"f$i"
	done
}

read_there() { # FIRST LAST
	local i
	for i in $(seq "$1" "$2"); do
		at_worker 1 concc-dispatch sha256sum "f$i" >sum 2>"$LAB/err" || fail "f$i: $(cat "$LAB/err")"
		expect_eq "f$i" "$(cat sum)" "$(sha256sum "f$i")"
	done
}

kept() { # bytes
	lab_worker 1 du -s -B1 "$DISK/concc/store" | cut -f1
}

jobs_of() { # N
	lab_status ".workers[$1 - 1].jobs"
}

fresh 1 80

# Not only when a session begins.
bounded() {
	local most=0 n i
	disk -t tmpfs -o size=400m none
	for i in $(seq 10 10 80); do
		read_there $((i - 9)) "$i"
		n=$(kept)
		[ "$n" -le "$most" ] || most=$n
	done
	echo "note: $most bytes at the most"
	expect_le "bytes of the store" "$most" $((52 * MB))
	expect_eq "failed" "$(lab_status '.workers[0].failed')" 0
	expect_eq "links" "$(lab_status '.workers[0].starts')" 1
}

# Less room than the bound: what was used longest ago goes.
full() {
	local before
	disk -t tmpfs -o size=24m none
	before=$(jobs_of 1)
	read_there 1 60
	expect_eq "jobs" $(($(jobs_of 1) - before)) 60
	expect_eq "state" "$(lab_status '.workers[0].state')" up
}

# There is nothing that could go: it says so, and its jobs go elsewhere until it can.
filled() {
	local before token job
	FILL="install -d -o builder -m 700 $DISK/concc; cat /dev/zero >$DISK/other 2>/dev/null; true"
	disk -t tmpfs -o size=24m none
	# The other one has no slot until that is known.
	token=$(concc-worker-pool allocate --only w2 --owner $$)
	CONCC_EXPLAIN=1 concc-dispatch sha256sum f2 f3 f4 f5 f6 >sum 2>"$LAB/err" &
	job=$!
	await_state unable
	concc-worker-pool release "${token##* }"
	wait $job || fail "$(cat "$LAB/err")"
	concc status
	expect_grep 'it can.t write to .*No space left on device' <(concc status)
	before=$(jobs_of 1)
	for i in $(seq 10); do
		concc-dispatch sha256sum "f$i" >sum
		expect_eq "f$i" "$(cat sum)" "$(sha256sum "f$i")"
	done
	expect_eq "jobs of the one that can't" "$(jobs_of 1)" "$before"
	lab_worker 1 rm "$DISK/other"
	await_state up
	read_there 7 9
}

await_state() { # of w1
	local line
	exec 9< <(timeout "$LAB_LIMIT" tail -n +1 -F --pid=$$ "$CONCC_RUNTIME_DIR/project.log" 2>/dev/null)
	while [ "$(lab_status '.workers[0].state')" != "$1" ]; do
		read -r -t "$LAB_LIMIT" line <&9 || fail "w1 is $(lab_status '.workers[0].state'), not $1"
	done
	exec 9<&-
}

# A disk that takes longer for a write than a client waits for an answer.
slow() {
	local pid ready before
	lab_stop_server
	lab_agents_gone
	lab_worker 1 umount -l "$DISK" 2>/dev/null || true
	lab_worker 1 sh -c "mkdir -p $DISK && rm -rf /tmp/disk && mkdir -m 755 /tmp/disk && chown builder: /tmp/disk"
	cp "$LAB_BUILD/test/slowfs/slowfs" "$LAB/w1/slowfs" # /mnt there
	exec 9< <(lab_worker 1 /mnt/slowfs 6000 /tmp/disk "$DISK")
	pid=$!
	read -r -t "$LAB_LIMIT" ready <&9 || fail "no slow disk"
	expect_eq "slowfs" "$ready" ready
	lab_all_up
	before=$(jobs_of 1) # that may be one
	read_there 1 1
	expect_eq "links lost" "$(grep -c 'worker=w1 down' "$CONCC_RUNTIME_DIR/project.log")" 0
	expect_eq "jobs" $(($(jobs_of 1) - before)) 1
	lab_stop_server
	lab_worker 1 umount -l "$DISK"
	wait "$pid" || true
	lab_worker 1 rm -rf /tmp/disk
}

check "the store is bounded while it is used" bounded
check "a full disk takes what was used longest ago" full
check "a worker that can't keep contents gets no jobs until it can" filled
check "a slow disk holds up no answers" slow
lab_stop_server
lab_worker 1 umount -l "$DISK" 2>/dev/null || true
lab_stop
