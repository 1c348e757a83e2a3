#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Workers that a real Slurm starts: munged, slurmctld and slurmd with a configuration of their own,
# on the loopback.  A build on it, and one whose worker is cancelled in its middle.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
[ -n "${LAB_INSIDE-}" ] || PATH=$PATH:/usr/sbin lab_need slurmctld slurmd srun munged
lab_enter "$@"
# Slurm looks its own host up, and finds none where there is nothing but the loopback.
ip link add s0 type veth peer name s1
ip addr add 10.78.0.1/24 dev s0
ip link set s0 up
ip link set s1 up
{ cat /etc/hosts && echo "127.0.0.1 $(hostname)"; } >"$LAB/etc/hosts"
mount --bind "$LAB/etc/hosts" /etc/hosts
lab_start 0
# shellcheck source=test/lib/slurm.sh
. "$LAB_REPO/test/lib/slurm.sh"
export LAB

slurm_up "$LAB/slurm" 2
lab_config
cat >>"$CONCC_CONFIG" <<EOS
[worker node]
count = 2
slots = 1
connect-timeout = 1m
command = srun --quiet --unbuffered --immediate=30 --ntasks=1 --cpus-per-task=1 --job-name=concc-%n concc-worker --stdio
EOS
cp "$LAB_TOOLS/hold" "$WS/holdbin"
cd "$WS" || exit 1

# Not those that have ended and are cleared away.
jobs_left() {
	squeue -h -t pending,running,suspended -o '%j %T'
}

# All jobs have ended when one that needs the whole node gets it.
expect_no_jobs() {
	timeout "$LAB_LIMIT" srun --quiet --exclusive true || fail "the node is not free: $(jobs_left)"
	expect_eq "jobs left" "$(jobs_left)" ''
}

sources() {
	local k
	for k in 1 2 3 4 5 6; do
		printf '#include <stdio.h>\nint f%s(void) { return puts("%s"); }\n' $k $k >$k.c
		gcc -g -O2 -c $k.c -o "$LAB/$k.o"
	done
	printf '%%.o: %%.c\n\tgcc -g -O2 -c $< -o $@\nall: 1.o 2.o 3.o 4.o 5.o 6.o\n' >Makefile
}

same_objects() {
	local k
	for k in 1 2 3 4 5 6; do
		expect_same_file "$LAB/$k.o" $k.o
	done
}

build() {
	CONCC_EXPLAIN=1 concc run -- make -j4 all >"$LAB/build.log" 2>&1 || fail "$(cat "$LAB/build.log")"
	cat "$LAB/build.log"
	expect_eq "remote jobs" "$(explained_remote "$LAB/build.log")" 6
	same_objects
	expect_no_jobs
}

# One job of Slurm is cancelled while a job of ours runs in it.
cancelled() {
	local line='' job where other
	rm -f ./*.o
	cat >slow <<-'EOS'
		#!/bin/sh
		if [ -e hold ]; then exec ./holdbin; fi
		echo held
		make -s all
	EOS
	chmod +x slow
	touch hold
	mkfifo "$LAB/fifo"
	concc -j >/dev/null
	CONCC_EXPLAIN=1 concc-dispatch ./slow </dev/null >"$LAB/fifo" 2>"$LAB/slow.err" &
	job=$!
	exec 8<"$LAB/fifo"
	read -r -t "$LAB_LIMIT" line <&8 || true
	expect_eq "the job" "$line" held
	rm hold
	where=$(lab_status '.workers[] | select(.running == 1) | .name')
	other=$([ "$where" = node-1 ] && echo node-2 || echo node-1)
	scancel --name="concc-${where#node-}"
	expect_gone "the job" $job
	exec 8<&-
	cat "$LAB/slow.err"
	expect_grep "worker $where was lost: it was told to end" "$LAB/slow.err"
	expect_grep "remote on $other" "$LAB/slow.err"
	same_objects
	lab_stop_server
	expect_no_jobs
	expect_eq "left of the job" "$(pgrep -x holdbin || true)" ''
}

# What Slurm has to say when it can't give a node.
refused() {
	sed -i 's/--ntasks=1/--ntasks=1 --partition=none/' "$CONCC_CONFIG"
	rm -f 1.o
	CONCC_EXPLAIN=1 concc-cc gcc -g -O2 -c 1.c -o 1.o 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_grep 'no worker can be reached .*invalid partition' "$LAB/explain"
	expect_same_file "$LAB/1.o" 1.o
	lab_stop_server
}

# examples/slurm as it stands.
example() {
	rm -f ./*.o
	CONCC_EXPLAIN=1 NODES=2 CPUS=1 "$LAB_REPO/examples/slurm/build" make -j4 all >"$LAB/build.log" 2>&1 ||
		fail "$(cat "$LAB/build.log")"
	cat "$LAB/build.log"
	expect_eq "remote jobs" "$(explained_remote "$LAB/build.log")" 6
	same_objects
	expect_no_jobs
}

sources
check "a build on Slurm" build
check "a worker is cancelled" cancelled
check "Slurm refuses" refused
check "examples/slurm" example
slurm_down
lab_stop
