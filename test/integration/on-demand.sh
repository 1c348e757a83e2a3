#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Workers that a command starts when jobs need them, and that go away: how many start, that they
# sleep and wake, and that a build is right whatever becomes of them.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_enter "$@"
lab_start 0

# Writes down who was started and as which process, before it becomes the worker.
cat >"$LAB/worker" <<'EOS'
#!/bin/sh
echo "$CONCC_WORKER_NAME $CONCC_WORKER_INDEX $$ ${1-}" >>"$LAB/starts"
exec concc-worker --stdio
EOS
chmod +x "$LAB/worker"
export LAB

config() { # SECTION-LINE...
	lab_stop_server
	: >"$LAB/starts"
	lab_config
	printf '[worker box]\n' >>"$CONCC_CONFIG"
	printf '%s\n' "$@" >>"$CONCC_CONFIG"
}

starts() {
	wc -l <"$LAB/starts"
}

state() { # INDEX-OF-WORKER
	lab_status ".workers[$1].state"
}

# ./slow K is in the middle of its work while hold.K is there; then it compiles K.c.
cp "$LAB_TOOLS/hold" "$WS/holdbin"
cat >"$WS/slow" <<'EOS'
#!/bin/sh
if [ -e "hold.$1" ]; then
	exec ./holdbin "$1"
fi
echo held
gcc -g -c "$1.c" -o "$1.o"
EOS
chmod +x "$WS/slow"
for k in 1 2 3 4; do
	echo "int f$k(void) { return $k; }" >"$WS/$k.c"
	(cd "$WS" && gcc -g -c $k.c -o "$LAB/$k.o")
done

slow_start() { # K: returns when it runs; sets SLOW[K]
	local k=$1 line=''
	rm -f "$LAB/fifo.$k" "$WS/$k.o"
	mkfifo "$LAB/fifo.$k"
	touch "$WS/hold.$k"
	CONCC_EXPLAIN=1 concc-dispatch ./slow "$k" </dev/null >"$LAB/fifo.$k" 2>"$LAB/err.$k" &
	SLOW[k]=$!
	eval "exec $((10 + k))<\"$LAB/fifo.$k\""
	read -r -t "$LAB_LIMIT" line <&$((10 + k)) || true
	rm "$WS/hold.$k" # from now on a new try goes through
	[ "$line" = held ] && return
	# A server that makes way for the next check's waits for the jobs that it has.
	kill -KILL "${SLOW[k]}" $(pgrep -f -x "./holdbin $k") 2>/dev/null || true
	fail "job $k did not start: $(cat "$LAB/err.$k"; concc status)"
}

slow_end() { # K: it ran on a worker, and made what gcc makes here
	local k=$1 rc=0
	expect_gone "job $k" "${SLOW[k]}"
	wait "${SLOW[k]}" || rc=$?
	cat "$LAB/err.$k"
	eval "exec $((10 + k))<&-"
	expect_eq "exit status of $k" "$rc" 0
	expect_eq "remote runs of $k" "$(explained_remote "$LAB/err.$k")" 1
	expect_same_file "$LAB/$k.o" "$WS/$k.o"
}

# The job in its middle is ended from outside.
slow_release() { # K
	local k=$1
	kill -KILL $(pgrep -f -x "./holdbin $k")
	expect_gone "job $k" "${SLOW[k]}"
	wait "${SLOW[k]}" || true
	eval "exec $((10 + k))<&-"
}

worker_pid() { # NAME: of its last start
	awk -v n="$1" '$1 == n { pid = $3 } END { print pid }' "$LAB/starts"
}

compile() { # K
	rm -f "$WS/$1.o"
	CONCC_EXPLAIN=1 concc-cc gcc -g -c "$1.c" -o "$1.o" 2>"$LAB/explain" || fail "$(cat "$LAB/explain")"
	expect_same_file "$LAB/$1.o" "$WS/$1.o"
	cat "$LAB/explain"
}

as_many_as_needed() {
	local k
	config 'count = 3' 'slots = 1' 'idle-timeout = 1h' "command = $LAB/worker number-%n"
	expect_eq "concc -j" "$(concc -j)" 3
	expect_eq "states" "$(lab_status '[.workers[].state] | join(" ")')" 'asleep asleep asleep'
	expect_eq "names" "$(lab_status '[.workers[].name] | join(" ")')" 'box-1 box-2 box-3'
	expect_eq "started for nobody" "$(starts)" 0
	for k in 1 2 3; do
		slow_start $k
		expect_eq "started for $k jobs" "$(starts)" $k
	done
	# A fourth waits for a slot; nothing more can be started for it.
	CONCC_EXPLAIN=1 concc-dispatch ./slow 4 </dev/null >/dev/null 2>"$LAB/err.4" &
	SLOW[4]=$!
	kill -KILL "$(worker_pid box-1)"
	# Its job goes to another one when that is free; in its place it is started again for job 4.
	expect_gone "job 4" "${SLOW[4]}"
	expect_grep 'remote on box-1' "$LAB/err.4"
	expect_same_file "$LAB/4.o" "$WS/4.o"
	slow_release 2
	slow_end 1
	expect_grep 'worker box-1 was lost' "$LAB/err.1"
	expect_grep 'remote on box-2' "$LAB/err.1"
	slow_release 3
	cat "$LAB/starts"
	expect_eq "what each was told" \
		"$(cut -d' ' -f1,2,4 "$LAB/starts" | sort -u | tr '\n' ,)" \
		'box-1 1 number-1,box-2 2 number-2,box-3 3 number-3,'
}

sleeps_and_wakes() {
	local pid i before=0 # how often it was started
	config 'count = 2' 'slots = 2' 'idle-timeout = 1s' "command = $LAB/worker"
	for i in 1 2 3; do
		compile $i
		expect_eq "remote" "$(explained_remote "$LAB/explain")" 1
		# More than once when the job was late for it, on a machine that has other things to do.
		expect_ge "started" "$(starts)" $((before + 1))
		before=$(starts)
		pid=$(worker_pid box-1)
		expect_gone "the idle worker" "$pid"
		expect_eq "its state" "$(state 0)" asleep
		expect_ge "its connections" "$(lab_status '.workers[0].starts')" $i
		expect_le "its connections" "$(lab_status '.workers[0].starts')" "$(starts)"
	done
	expect_eq "the other one's" "$(state 1)" asleep
	expect_eq "jobs by hand find it" "$(concc-worker-pool allocate --only box-2 -- sh -c 'echo $CONCC_SLOT')" box-2
	# It may be asleep again by now; and was before, if who waited was late for it.
	expect_ge "the other one's connections" "$(lab_status '.workers[1].starts')" 1
	expect_le "the other one's connections" "$(lab_status '.workers[1].starts')" "$(grep -c '^box-2 ' "$LAB/starts")"
}

# Without `slots` it is asked once how many it has.
learns_its_slots() {
	config 'idle-timeout = 1s' "command = $LAB/worker"
	expect_eq "slots" "$(concc -j)" "$(lab_nproc)"
	expect_gone "the idle worker" "$(worker_pid box)"
	expect_eq "slots while asleep" "$(concc -j)" "$(lab_nproc)"
	expect_eq "started" "$(starts)" 1
}

# Nothing else is configured: the cores of this machine are slots, too, as no worker is this machine.
by_itself() {
	lab_stop_server
	printf '[worker box]\nslots = 2\ncommand = exec concc-worker --stdio\n' >"$CONCC_CONFIG"
	compile 1
	expect_eq "remote" "$(explained_remote "$LAB/explain")" 1
	# With this machine's own slots, either place may have the job, as fast as the other.
	lab_stop_server
	(unset CONCC_LOCAL_SLOTS && compile 1 && concc -j >"$LAB/slots")
	expect_eq "slots" "$(cat "$LAB/slots")" $(($(lab_nproc) + 2))
}

fails_at_once() {
	local n
	config 'idle-timeout = 1h' 'slots = 4' 'count = 100' \
		"command = echo x >>$LAB/starts; echo pulling >&2; echo quota exceeded >&2; exit 125"
	compile 1
	expect_eq "remote" "$(explained_remote "$LAB/explain")" 0
	expect_grep 'no worker can be reached .*box-1: .*exit status 125.*pulling; quota exceeded' "$LAB/explain"
	for n in 1 2 3 4; do
		compile $n
	done
	expect_le "attempts" "$(starts)" 3
	# Beside one that works it is not in the way.
	printf '[worker good]\nslots = 1\ncommand = concc-worker --stdio\n' >>"$CONCC_CONFIG"
	lab_stop_server
	compile 1
	expect_grep 'remote on good' "$LAB/explain"
	slow_start 1
	CONCC_EXPLAIN=1 concc-cc gcc -g -c 2.c -o 2.o 2>"$LAB/explain" &
	n=$!
	slow_release 1
	expect_gone "the job that waited" $n
	expect_same_file "$LAB/2.o" 2.o
	expect_grep 'remote on good' "$LAB/explain"
}

# Slow to start is not dead; and what it says meanwhile is told when it never does.
starts_late() {
	config 'slots = 1' 'connect-timeout = 1s' 'idle-timeout = 1h' \
		'command = echo waiting for a node >&2; exec cat >/dev/null'
	compile 1
	expect_grep 'no concc-worker answered within 1.* s: .*waiting for a node' "$LAB/explain"
}

# The server dies while a job waits for a worker to wake: another one wakes it.
server_dies() {
	local line='' job
	rm -f "$LAB/hanging"
	mkfifo "$LAB/hanging"
	cat >"$LAB/first-hangs" <<-'EOS'
		#!/bin/sh
		if [ -e "$LAB/hung" ]; then exec concc-worker --stdio; fi
		touch "$LAB/hung"
		echo hangs >"$LAB/hanging"
		exec cat >/dev/null
	EOS
	chmod +x "$LAB/first-hangs"
	config 'slots = 1' 'connect-timeout = 1m' 'idle-timeout = 1h' "command = $LAB/first-hangs"
	CONCC_EXPLAIN=1 concc-cc gcc -g -c 1.c -o 1.o 2>"$LAB/explain" &
	job=$!
	read -r -t "$LAB_LIMIT" line <"$LAB/hanging" || true
	expect_eq "the command" "$line" hangs
	kill -KILL "$(lab_server_pid)"
	expect_gone "the job" $job
	cat "$LAB/explain"
	expect_eq "remote" "$(explained_remote "$LAB/explain")" 1
	expect_same_file "$LAB/1.o" 1.o
}

# What an engine does after its container has ended is waited for.
ends_in_order() {
	config 'slots = 1' "command = concc-worker --stdio; echo removed >$LAB/removed"
	rm -f "$LAB/removed"
	compile 1
	expect_eq "remote" "$(explained_remote "$LAB/explain")" 1
	concc stop
	expect_file "$LAB/removed"
}

# One that takes no notice of the end of its input is told, and then made to.
ends_by_force() {
	local server
	config 'slots = 1' "command = trap '' TERM; concc-worker --stdio; exec $WS/holdbin >/dev/null"
	compile 1
	server=$(lab_server_pid)
	concc stop
	expect_gone "the server" "$server" # which has said so before the kernel is done with it
	lab_leftovers >"$LAB/left"
	expect_eq "left" "$(cat "$LAB/left")" ''
}

export KUBECTL=$LAB/kubectl IMAGE=registry/concc-worker LAB_WS=$WS

# The plumbing of examples/kubernetes, as far as it goes without a cluster; test/kubernetes has one.
pods() {
	lab_stop_server
	mkfifo "$LAB/pending"
	cat >"$LAB/kubectl" <<-'EOS'
		#!/bin/sh
		case $1 in
		delete) echo "$3" >>"$LAB/deleted" ;;
		exec) shift 3 && [ "$1" = -- ] && shift && exec "$@" ;;
		get) echo pod/first ;;
		run)
			for a; do
				case $a in --overrides=*) echo "${a#*=}" | jq -er '.spec.containers[0].name' >>"$LAB/pods" || exit 1 ;; esac
			done
			case $2 in *-2-*) echo pending >"$LAB/pending" && exec "$LAB_WS/holdbin" >/dev/null ;; esac
			exec concc-worker --stdio
			;;
		esac
	EOS
	chmod +x "$LAB/kubectl"
	rm -f 1.o
	CONCC_EXPLAIN=1 "$LAB_REPO/examples/kubernetes/build" concc-cc gcc -g -c 1.c -o 1.o 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_grep 'remote on pod-1' "$LAB/explain"
	expect_same_file "$LAB/1.o" 1.o
	expect_grep '^concc-.*-1-[0-9]+$' "$LAB/pods"
}

# One that no node had room for when the build was over: kubectl removes it as little as one that was killed.
pod_pending() {
	# shellcheck disable=SC2016 # of the build
	timeout "$LAB_LIMIT" "$LAB_REPO/examples/kubernetes/build" \
		sh -c 'concc-worker-pool allocate --only pod-2 -- true & read -r line <"$LAB/pending"; kill $!'
	expect_eq "removed" "$(cat "$LAB/deleted")" "$(grep -e -2- "$LAB/pods")"
}

# By kubectl exec, the first of one that there is.
pods_that_stand() {
	rm -f 1.o
	DEPLOYMENT=d CONCC_EXPLAIN=1 "$LAB_REPO/examples/kubernetes/build" concc-cc gcc -g -c 1.c -o 1.o 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_grep 'remote on pod-1' "$LAB/explain"
	expect_same_file "$LAB/1.o" 1.o
}

cd "$WS"
# Two sections: one worker that stays, with one slot, and one that is started when that pays; what
# is known of how long that takes is put where a server finds it.
two_config() { # MICROSECONDS
	config 'slots = 1' "command = $LAB/worker"
	printf '[worker far]\nslots = 1\nidle-timeout = 1h\ncommand = %s\n' "$LAB/worker" >>"$CONCC_CONFIG"
	mkdir -p "$CONCC_CACHE_DIR"
	echo "$1 far" >"$CONCC_CACHE_DIR/starts"
	lab_all_up
	expect_eq "what is known" "$(lab_status '.workers[] | select(.name == "far") | .start_us')" "$1"
}

far_starts() {
	awk '$1 == "far"' "$LAB/starts" | wc -l
}

not_for_a_short_line() {
	two_config 3600000000
	slow_start 1
	lab_start_waiting one
	concc status >"$LAB/status"
	expect_grep '^  takes 3600.0 s to start, by which those that wait will be done$' "$LAB/status"
	expect_eq "why it sleeps" "$(lab_status '[.workers[].asleep] | join("|")')" \
		"|takes 3600.0 s to start, by which those that wait will be done"
	slow_release 1
	exec {TRACE}<&-
	wait
	expect_grep 'remote on box' "$LAB/one.err"
	expect_eq "started" "$(lab_status '.workers[] | select(.name == "far") | .starts')" 0
}

for_a_line_that_lasts() {
	local known
	two_config 1500000
	slow_start 1
	slow_start 2 # which it can't before another worker is up
	expect_eq "started" "$(far_starts)" 1
	slow_release 2
	slow_release 1
	lab_stop_server
	known=$(cut -d' ' -f1 "$CONCC_CACHE_DIR/starts")
	expect_ne "known now" "$known" 1500000
	lab_all_up
	expect_eq "known to the next server" \
		"$(lab_status '.workers[] | select(.name == "far") | .start_us')" "$known"
}

# Nothing is up: the one that is there soonest, whatever the order in the file, and not both.
soonest_of_several() {
	config 'slots = 1' 'idle-timeout = 1h' "command = $LAB/worker"
	printf '[worker near]\nslots = 8\nidle-timeout = 1h\ncommand = %s\n' "$LAB/worker" >>"$CONCC_CONFIG"
	mkdir -p "$CONCC_CACHE_DIR"
	printf '3600000000 box\n200000 near\n' >"$CONCC_CACHE_DIR/starts"
	compile 1
	expect_grep 'remote on near' "$LAB/explain"
	slow_start 1
	slow_start 2
	expect_eq "started" "$(cut -d' ' -f1 "$LAB/starts")" near
	slow_release 1
	slow_release 2
	expect_eq "jobs by hand find it" "$(concc-worker-pool allocate --only box -- sh -c 'echo $CONCC_SLOT')" box
}

# This machine has slots, but not for a job while memory is short: it has nobody else, however long it takes.
nobody_else() {
	local CONCC_LOCAL_SLOTS=auto
	config 'slots = 1' 'idle-timeout = 1h' "command = $LAB/worker"
	mkdir -p "$CONCC_CACHE_DIR"
	echo '3600000000 box' >"$CONCC_CACHE_DIR/starts"
	echo 'some avg10=42.00 avg60=12.00 avg300=3.00 total=1' >"$LAB/pressure"
	mount --bind "$LAB/pressure" /proc/pressure/memory || skip "no /proc/pressure/memory"
	CONCC_EXPLAIN=1 timeout "$LAB_LIMIT" concc-cc gcc -g -c 1.c -o 1.o 2>"$LAB/explain" || fail "status $?: $(cat "$LAB/explain")"
	umount /proc/pressure/memory
	expect_grep 'remote on box' "$LAB/explain"
}

damaged_knowledge() {
	two_config 1
	lab_stop_server
	printf 'far\n-5 far\n99999999999999999999 far\n7\n 8 far\n\377 far\n12 far' >"$CONCC_CACHE_DIR/starts"
	lab_all_up
	expect_eq "what is known" "$(lab_status '.workers[] | select(.name == "far") | .start_us')" 12
}

# Who waits may be stopped (^Z) while the worker that was called for it comes up.  It comes up once, stays for who
# called, and the job is done there when it goes on; so is that of who came behind it, by another worker or here.
stopped_waiter() {
	local line='' tail waiter behind
	cat >"$LAB/gated" <<-'EOS'
		#!/bin/sh
		echo "$CONCC_WORKER_NAME" >>"$LAB/starts"
		read -r line <"$LAB/gate"
		exec concc-worker --stdio
	EOS
	chmod +x "$LAB/gated"
	mkfifo "$LAB/gate"
	config 'slots = 1' 'connect-timeout = 1h' 'idle-timeout = 1h' "command = $LAB/gated"
	concc status >/dev/null
	lab_start_waiting first
	waiter=$(pgrep -f -x 'concc-dispatch true first')
	kill -STOP "$waiter"
	while [[ $line != *'stopped by SIGSTOP'* ]]; do
		read -r -t "$LAB_LIMIT" line <&"$TRACE" || fail "it does not stop"
	done
	CONCC_EXPLAIN=1 concc-dispatch true behind </dev/null 2>"$LAB/behind.err" &
	behind=$!
	exec 9< <(exec tail -n +1 -f "$CONCC_RUNTIME_DIR/project.log")
	tail=$!
	echo go >"$LAB/gate"
	while [[ $line != *worker=box\ up* ]]; do
		read -r -t "$LAB_LIMIT" line <&9 || fail "box does not come up"
	done
	kill "$tail"
	exec 9<&-
	expect_eq "its state" "$(state 0)" up
	expect_no_grep remote "$LAB/first.err"
	kill -CONT "$waiter"
	exec {TRACE}<&-
	expect_gone "who was stopped" "$waiter"
	expect_gone "who came behind" "$behind"
	expect_grep 'remote on box' "$LAB/first.err"
	expect_grep 'remote on box' "$LAB/behind.err"
	expect_eq "started" "$(starts)" 1
}

# A spot machine: it vanishes each time as soon as it is up.
vanish() {
	local line
	while read -r line; do
		[[ $line != *"worker=spot up"* ]] || kill -KILL "$(worker_pid spot)" 2>/dev/null || true
	done < <(exec tail -n +1 -F --pid=$$ "$CONCC_RUNTIME_DIR/project.log" 2>/dev/null)
}

spot_config() {
	config 'slots = 1' "command = $LAB/worker"
	printf '[worker spot]\nslots = 2\nidle-timeout = 1h\ncommand = %s\n' "$LAB/worker" >>"$CONCC_CONFIG"
	rm -f "$CONCC_CACHE_DIR/starts"
	compile 1
}

# What it had begun is done by who stays, once more and no more than that.
spot_vanishes() {
	local n
	spot_config
	slow_start 1
	slow_start 2
	expect_eq "started" "$(grep -c ^spot "$LAB/starts")" 1
	slow_release 1
	kill -KILL "$(worker_pid spot)"
	slow_end 2
	expect_grep 'worker spot was lost' "$LAB/err.2"
	expect_grep 'remote on box' "$LAB/err.2"
	n=$(concc report --json | jq -c '.jobs | max_by(.arrived_us) | [.worker, .tries]')
	expect_eq "record" "$n" '["box",2]'
}

# It is not called for each job that waits, and no job is tried more than once more.
spot_vanishes_always() {
	local watcher
	spot_config
	vanish &
	watcher=$!
	seq 40 | CONCC_EXPLAIN=$LAB/spot.err xargs -P 8 -I{} sh -c 'concc-cc gcc -g -c 1.c -o spot.{}.o' ||
		fail "status $?"
	kill "$watcher"
	cat "$LAB/spot.err"
	for n in $(seq 40); do
		expect_same_file "$LAB/1.o" "spot.$n.o"
	done
	expect_ge "started" "$(grep -c ^spot "$LAB/starts")" 1
	expect_le "started" "$(grep -c ^spot "$LAB/starts")" 15
	rm -f spot.*.o
}

check "as many workers as jobs need" as_many_as_needed
check "a worker sleeps and wakes" sleeps_and_wakes
check "a worker tells its slots once" learns_its_slots
check "a command and no more" by_itself
check "a command that fails at once" fails_at_once
check "a command that starts no worker" starts_late
check "the server dies while a worker wakes" server_dies
check "a command is left to end by itself" ends_in_order
check "a command that does not end" ends_by_force
check "examples/kubernetes" pods
check "examples/kubernetes, a pod that is pending" pod_pending
check "examples/kubernetes, pods that stand" pods_that_stand
check "none for a line that is soon gone" not_for_a_short_line
check "one for a line that lasts" for_a_line_that_lasts
check "of several the one that is there soonest" soonest_of_several
check "a job that nobody else can do" nobody_else
! mountpoint -q /proc/pressure/memory || umount /proc/pressure/memory
check "who waits is stopped while a worker comes up" stopped_waiter
check "a spot machine vanishes" spot_vanishes
check "a spot machine that always vanishes" spot_vanishes_always
check "what is remembered of starts is damaged" damaged_knowledge
lab_stop
