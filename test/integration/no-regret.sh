#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A build is not slower than without workers: who is fast gets the jobs, this machine is one of
# them, and what was found out is known to the next build.  The jobs sleep, so that
# how fast a machine is does not depend on what else runs here.
# limit: 240
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=4
lab_need jq strace tc
lab_enter "$@"
lab_start builder
export CONCC_LOCAL_SLOTS=2
unset CONCC_STRAGGLER_AFTER
lab_config
cd "$WS"

# Takes as long as the machine says: one part here.
cat >job <<'EOS'
#!/bin/sh
read -r part 2>/dev/null </opt/part || part=${HERE-0.1}
exec sleep "$part"
EOS
chmod +x job

# With quotas of CPU time, of version 1; empty: there is none.
GROUPS_ROOT=$(findmnt -n -o TARGET -t cgroup -O cpu | head -n 1)
GROUP=$GROUPS_ROOT/${LAB##*/}

worker_takes() { # SECONDS
	lab_worker 1 sh -c "mountpoint -q /opt || mount -t tmpfs none /opt; echo $1 >/opt/part"
}

# Prints how many of the jobs ran here.  Of each one's end the server has heard before the next begins: it sees the
# ends of processes and answers who asks in the order in which they come.
build() { # JOBS AT-ONCE
	seq "$1" | CONCC_EXPLAIN=$LAB/explain xargs -P "$2" -I{} sh -c 'concc-dispatch ./job {} && concc status >/dev/null'
	grep -cE "local: (${COUNTED:-local-slot|straggler})" "$LAB/explain"
	rm -f "$LAB/explain"
}

forget() {
	lab_stop_server
	rm -f "$CONCC_CACHE_DIR"/jobs.*
}

# Of the choice alone: what comes home is another matter.  Here they take longer than a machine that is busy with
# other tests can make of those there.  One more at once than slots here: how fast a worker is, is a guess, within a
# third, until it had a job.
fast_worker_gets_all() {
	local COUNTED=local-slot
	export HERE=15 CONCC_STRAGGLER_AFTER=10m
	worker_takes 0.1
	lab_all_up
	expect_le "jobs here, to find out" "$(build 24 3)" 2
	expect_eq "jobs here, when that is known" "$(build 12 2)" 0
	unset HERE CONCC_STRAGGLER_AFTER
}

both_work() {
	local here
	forget
	here=$(build 120 12)
	expect_ge "jobs here" "$here" 4
	expect_le "jobs here" "$here" 90
}

slow_worker_gets_little() {
	forget
	worker_takes 4
	expect_ge "jobs here of 60" "$(build 60 6)" 50
}

known_slow_gets_less() {
	expect_ge "jobs here of 60, again" "$(build 60 6)" 54
}

# As many jobs as slots here, beside others that want the processors: a slot that nobody gave back, since its holder
# had become the job, counts as free, so none goes to the slow worker only to be called home.
slots_here_are_seen_free() {
	local COUNTED=local-slot before i
	BURNERS=()
	trap '[ ${#BURNERS[@]} -eq 0 ] || kill "${BURNERS[@]}"; umount /proc/loadavg' EXIT # however it ends
	# Of so many that want them, whoever else does: what is beside this test is no part of it.
	echo "4.00 4.00 4.00 5/200 1" >"$LAB/loadavg"
	mount --bind "$LAB/loadavg" /proc/loadavg
	forget
	worker_takes 4
	lab_all_up
	build 60 6 >/dev/null # so that it is known as slow
	before=$(lab_status .sent_home)
	for i in 1 2 3 4; do
		(while :; do :; done) &
		BURNERS+=($!)
	done
	expect_ge "jobs here of 24" "$(build 24 2)" 21
	expect_le "sent home" $(($(lab_status .sent_home) - before)) 2
}

take_local_slots() {
	LOCALS=("$(concc-worker-pool allocate --only local --owner "$$")"
		"$(concc-worker-pool allocate --only local --owner "$$")")
}

give_local_slots() {
	local token
	for token in "${LOCALS[@]}"; do
		concc-worker-pool release "${token##* }"
	done
}

# Puts the command on w1, where it stays; then this machine has slots.  Sets SENT.
sent_to_w1() { # CMD...
	local line=''
	take_local_slots
	rm -f "$LAB/trace"
	mkfifo "$LAB/trace"
	CONCC_EXPLAIN=$LAB/explain strace -o "$LAB/trace" -s 999 -e trace=sendmsg concc-dispatch "$@" >/dev/null &
	SENT=$!
	exec 5<"$LAB/trace"
	while read -r -t "$LAB_LIMIT" line <&5; do
		case $line in *w1*) break ;; esac
	done
	give_local_slots
	case $line in *w1*) ;; *) fail "it was not sent" ;; esac
}

sent_is_done() {
	expect_gone "the job" "$SENT"
	wait "$SENT" || fail "status $?"
	exec 5<&-
}

# One that hangs there is not waited for when there is a slot here.
late_one_comes_home() {
	local before
	forget
	worker_takes 0.1
	expect_ge "jobs" "$(build 8 4)" 0
	before=$(lab_status .sent_home)
	worker_takes 1000
	sent_to_w1 ./job 1
	sent_is_done
	expect_grep 'local: straggler .(it takes far longer on w1 than such a job does|w1 is slow)' "$LAB/explain"
	expect_eq "sent home" $(($(lab_status .sent_home) - before)) 1
	rm -f "$LAB/explain"
}

# Done before, it is missed when it has been there for twice as long as it should take: a worker that is as fast as
# this machine has it, and stops.  Nothing else would fetch it for ten minutes.
known_one_comes_home() {
	local i
	forget
	export CONCC_STRAGGLER_AFTER=10m
	worker_takes 0.1
	cp "$LAB_TOOLS/hold" known-hold
	printf '#!/bin/sh\n[ -e /opt/part ] && [ -e stops ] && exec ./known-hold >/dev/null\nexec sleep 0.3\n' >known
	chmod +x known
	concc status >/dev/null
	lab_all_up
	take_local_slots
	for i in 1 2 3; do
		concc-dispatch ./known
	done
	give_local_slots
	touch stops
	sent_to_w1 ./known
	sent_is_done
	expect_grep 'local: straggler .w1 is slow, and this machine has a slot for it' "$LAB/explain"
	rm -f "$LAB/explain" stops
	unset CONCC_STRAGGLER_AFTER
}

# Of a job that was never done there is nothing to be known but what its processors give it: a quota that came when
# it was there, which nobody tells the worker.
throttled_one_comes_home() {
	forget
	export CONCC_STRAGGLER_AFTER=10m
	worker_takes 0.1
	printf '#!/bin/sh\n[ "$1" = no.c ] || [ ! -e /opt/part ] || while :; do :; done\n' >burns
	chmod +x burns
	mkdir "$GROUP"
	echo 262144 >"$GROUP/cpu.shares" # what else runs is nothing to it
	echo 100000 >"$GROUP/cpu.cfs_period_us"
	echo "${LAB_LISTEN[1]}" >"$GROUP/cgroup.procs" # and all that it starts
	lab_all_up
	take_local_slots
	concc-dispatch ./burns no.c # what it reads is there
	give_local_slots
	sent_to_w1 ./burns on.c
	echo 10000 >"$GROUP/cpu.cfs_quota_us"
	sent_is_done
	expect_grep 'local: straggler .w1 is slow, and this machine has a slot for it' "$LAB/explain"
	rm -f "$LAB/explain"
	unset CONCC_STRAGGLER_AFTER
}

leave_group() {
	local pid
	[ -d "$GROUP" ] || return 0
	for pid in $(cat "$GROUP/cgroup.procs"); do
		echo "$pid" >"$GROUPS_ROOT/cgroup.procs" 2>/dev/null || true # it has ended
	done
	rmdir "$GROUP"
}

# A new worker on a slow line: who waits there for what is still to be sent comes home, long before it
# would be late otherwise, and no more at once than there are slots here.
fills_slowly() {
	forget
	worker_takes 0.1
	export CONCC_STRAGGLER_AFTER=1m
	head -c 20000000 /dev/urandom >big
	cat >reader <<-'EOS'
		#!/bin/sh
		cat big >/dev/null
		[ ! -e /opt/part ] || exec sleep 0.2
		flock -n /srv/home/one sleep 0.2 || flock -n /srv/home/two sleep 0.2 || touch /srv/home/third
	EOS
	chmod +x reader
	concc status >/dev/null
	lab_all_up
	tc qdisc add dev w1 root tbf rate 8mbit burst 32kb latency 200ms
	seq 8 | CONCC_EXPLAIN=$LAB/explain xargs -P 8 -I{} concc-dispatch ./reader {} || fail "status $?"
	tc qdisc del dev w1 root
	cat "$LAB/explain"
	expect_ge "sent home" "$(lab_status .sent_home)" 1
	expect_eq "all of them" "$(grep -c 'local: straggler' "$LAB/explain")" "$(lab_status .sent_home)"
	expect_no_file /srv/home/third # at once here
	rm -f "$LAB/explain" big
	unset CONCC_STRAGGLER_AFTER
}

# The first of all, and alone: of how long it takes nothing is known, but that it has done nothing yet.
fills_alone() {
	forget
	export CONCC_STRAGGLER_AFTER=1m
	head -c 20000000 /dev/urandom >alone
	concc status >/dev/null
	lab_all_up
	tc qdisc add dev w1 root tbf rate 8mbit burst 32kb latency 200ms
	sent_to_w1 sh -c 'cksum <alone'
	sent_is_done
	tc qdisc del dev w1 root
	expect_grep 'local: straggler .w1 does not have what it reads yet' "$LAB/explain"
	rm -f "$LAB/explain" alone
	unset CONCC_STRAGGLER_AFTER
}

# One that came home goes on there, for what it reads: file after file, each asked for when the one before is
# there.  Nothing else of it is seen.
goes_on_there() {
	local i store last
	forget
	worker_takes 0.1
	export CONCC_STRAGGLER_AFTER=1m
	mkdir many
	for i in 1 2 3 4 5 6; do
		head -c 400000 /dev/urandom >many/$i
	done
	cat >reader <<-'EOS'
		#!/bin/sh
		cat many/? >/dev/null
		exec sleep 0.1
	EOS
	chmod +x reader
	concc status >/dev/null
	lab_all_up
	tc qdisc add dev w1 root tbf rate 1mbit burst 32kb latency 200ms
	seq 8 | CONCC_EXPLAIN=$LAB/explain xargs -P 8 -I{} concc-dispatch ./reader {} || fail "status $?"
	cat "$LAB/explain"
	expect_ge "sent home" "$(lab_status .sent_home)" 1
	expect_no_grep 'remote' "$LAB/explain"
	tc qdisc del dev w1 root
	store=/proc/${LAB_INIT[1]}/root$(lab_worker_cache 1)/store
	last=$(sha256sum <many/6 | cut -d ' ' -f 1)
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$store" "${last:0:2}" || fail "it does not go on there"
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$store/${last:0:2}" "${last:2}" || fail "it does not go on there"
	take_local_slots
	CONCC_EXPLAIN=$LAB/explain concc-dispatch ./reader 9
	give_local_slots
	expect_grep 'remote on w1:' "$LAB/explain"
	rm -rf many "$LAB/explain"
	unset CONCC_STRAGGLER_AFTER
}

# What a compiler is made of is sent over a slow line in a third of its bytes.
packs_for_slow_line() {
	local before
	tail -c 16000000 "$(readlink -f "$(gcc -print-prog-name=cc1)")" >part-of-cc1
	[ "$(wc -c <part-of-cc1)" = 16000000 ] || fail "cc1 is too small for this test"
	concc-dispatch true
	before=$(lab_status '.workers[0].bytes_out')
	tc qdisc add dev w1 root tbf rate 8mbit burst 32kb latency 200ms
	concc-dispatch cat part-of-cc1 | cmp - part-of-cc1 || fail "other bytes came"
	tc qdisc del dev w1 root
	# LZ4 makes 7.6 million of them.
	expect_le "bytes for 16000000" $(($(lab_status '.workers[0].bytes_out') - before)) 6300000
	rm part-of-cc1
}

# Neither those that find a slot here nor those that have waited for one.
only_there() { # WHY
	forget
	expect_eq "jobs here, $1" "$(build 12 12)" 0
	expect_eq "sent home, $1" "$(lab_status .sent_home)" 0
}

not_on_battery() {
	local CONCC_LOCAL_SLOTS=auto
	worker_takes 1
	mount -t tmpfs none /sys/class/power_supply || fail "status $?"
	mkdir /sys/class/power_supply/AC
	echo Mains >/sys/class/power_supply/AC/type
	echo 0 >/sys/class/power_supply/AC/online
	only_there "on a battery"
	echo 1 >/sys/class/power_supply/AC/online
	forget
	expect_ge "jobs here, plugged in" "$(build 12 12)" 1
	umount /sys/class/power_supply
}

not_when_memory_is_short() {
	local CONCC_LOCAL_SLOTS=auto
	worker_takes 1
	echo 'some avg10=42.00 avg60=12.00 avg300=3.00 total=1' >"$LAB/pressure"
	mount --bind "$LAB/pressure" /proc/pressure/memory || fail "status $?"
	only_there "when memory is short"
	umount /proc/pressure/memory
}

# Who uses this machine comes first: policy is the 41st word of proc_pid_stat(5), 3 is SCHED_BATCH.
batch_here() {
	local i tokens=()
	forget
	concc-dispatch true
	for i in 1 2 3 4; do
		tokens+=("$(concc-worker-pool allocate --only w1 --owner "$$")") || fail "w1 has no slot"
	done
	CONCC_EXPLAIN=$LAB/explain concc-dispatch sh -c 'read -r line </proc/self/stat; echo "$line" >stat'
	expect_grep 'local: local-slot' "$LAB/explain"
	expect_eq "policy" "$(cut -d' ' -f41 stat)" 3
	for i in "${tokens[@]}"; do
		concc-worker-pool release "${i##* }"
	done
	rm -f "$LAB/explain" stat
}

none_here() {
	CONCC_LOCAL_SLOTS=0
	forget
	worker_takes 0.1
	expect_eq "jobs here" "$(build 20 8)" 0
	CONCC_LOCAL_SLOTS=2
	forget
}

check "a fast worker gets all that it has room for" fast_worker_gets_all
check "this machine works, too" both_work
check "a worker that is slow gets little" slow_worker_gets_little
check "what is known is used" known_slow_gets_less
check "as many jobs as slots here stay here" slots_here_are_seen_free
check "what hangs there comes home" late_one_comes_home
check "what was done before, and hangs there, comes home" known_one_comes_home
if [ -n "$GROUPS_ROOT" ]; then
	check "what is throttled there comes home" throttled_one_comes_home
	leave_group
fi
check "what waits for contents comes home" fills_slowly
check "what waits for contents and is not known comes home" fills_alone
check "what came home goes on there" goes_on_there
CONCC_LOCAL_SLOTS=0
forget
check "zstd for a slow line" packs_for_slow_line
CONCC_LOCAL_SLOTS=2
check "jobs here leave this machine to its user" batch_here
check "none here on a battery" not_on_battery
check "none here when memory is short" not_when_memory_is_short
check "local-slots = 0 keeps all away" none_here
for i in /sys/class/power_supply /proc/pressure/memory; do
	! mountpoint -q "$i" || umount "$i"
done
lab_worker 1 sh -c '! mountpoint -q /opt || umount /opt'
lab_stop
