#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Who else uses this machine keeps jobs away from it by what that takes, not by how many tasks there
# are.  The client has a control group with a large share, so that what else runs here is nothing to
# it; nothing could be tested beside this, and nothing else may be run on the machine: CONCC_TEST_LONG=1.
# alone
# limit: 240
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=4
lab_need jq chrt
[ -n "${LAB_INSIDE-}" ] || [ -n "${CONCC_TEST_LONG-}" ] || skip "it takes the whole machine (CONCC_TEST_LONG=1)"
GROUPS_ROOT=$(findmnt -n -o TARGET -t cgroup -O cpu | head -n 1)
[ -n "$GROUPS_ROOT" ] || skip "no control group version 1 with shares of CPU time"
lab_enter "$@"
GROUP=$GROUPS_ROOT/${LAB##*/}
mkdir -p "$GROUP/client" "$GROUP/worker" "$GROUP/others"
for i in . client worker; do
	echo 262144 >"$GROUP/$i/cpu.shares" # before all else that runs
done
echo 2 >"$GROUP/others/cpu.shares"
lab_start builder
echo "$BASHPID" >"$GROUP/client/cgroup.procs"
# Who listens there, and all that it starts.
echo "${LAB_LISTEN[1]}" >"$GROUP/worker/cgroup.procs"
unset CONCC_LOCAL_SLOTS CONCC_STRAGGLER_AFTER
lab_config 'local-slots = auto'
cd "$WS"
CORES=$(nproc)

# Half a second of a processor's time or so.
cat >job <<'EOS'
#!/bin/sh
i=0
while [ $i -lt 1000000 ]; do
	i=$((i + 1))
done
EOS
chmod +x job

worker_has() { # PERCENT of a processor
	echo 100000 >"$GROUP/worker/cpu.cfs_period_us"
	echo "$(($1 * 1000))" >"$GROUP/worker/cpu.cfs_quota_us"
}

# Prints how many of the jobs ran here.
build() { # JOBS
	seq "$1" | CONCC_EXPLAIN=$LAB/explain xargs -P "$CORES" -I{} concc-dispatch ./job {}
	grep -cE "local: (local-slot|straggler)" "$LAB/explain"
	rm -f "$LAB/explain"
}

BURNERS=()
burn() { # CMD...: begins 3 on each core
	local i
	trap stop_burning EXIT # however the check ends, which is a process of its own
	for ((i = 0; i < 3 * CORES; i++)); do
		"$@" sh -c 'while :; do :; done' &
		BURNERS+=("$!")
	done
}

stop_burning() {
	[ ${#BURNERS[@]} -gt 0 ] || return 0
	kill "${BURNERS[@]}"
	wait "${BURNERS[@]}" || true
	BURNERS=()
}

in_small_group() { # CMD...
	echo "$BASHPID" >"$GROUP/others/cgroup.procs"
	exec "$@"
}

jobs_here_beside() { # HOW...: of burning
	lab_stop_server
	rm -f "$CONCC_CACHE_DIR"/jobs.*
	burn "$@"
	build 24
	stop_burning
}

beside_what_yields() { # HOW...
	worker_has 50
	jobs_here_beside "$@" >"$LAB/n"
	expect_ge "jobs here of 24" "$(cat "$LAB/n")" 8
}

beside_what_takes_as_much() {
	worker_has $((CORES * 100))
	jobs_here_beside env >"$LAB/n"
	expect_le "jobs here of 24" "$(cat "$LAB/n")" 12
}

check "what has a small share" beside_what_yields in_small_group
check "what is nice" beside_what_yields nice -n 19
check "what is idle" beside_what_yields chrt -i 0
check "what takes as much as we do" beside_what_takes_as_much
for pid in $(cat "$GROUP"/*/cgroup.procs); do
	echo "$pid" >"$GROUPS_ROOT/cgroup.procs" 2>/dev/null || true # it has ended
done
rmdir "$GROUP"/{client,worker,others} "$GROUP"
lab_stop
