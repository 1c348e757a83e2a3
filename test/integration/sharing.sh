#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# One worker host, used by two clients as two users: its two slots are never more than two jobs,
# users take turns, and what is killed frees its slots.
# limit: 120
LAB_WORKER_ENV='CONCC_MAX_JOBS=2'
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq
lab_enter "$@"
lab_start builder builder
export CONCC_LOG=debug

# Two clients, each with a project server of its own; both may have 16 jobs on the host.
client() { # A|B CMD...
	local who=$1
	shift
	env CONCC_CONFIG="/srv/$who.ini" CONCC_RUNTIME_DIR="/srv/run-$who" "$@"
}

for who in A:builder B:root; do
	cat >"/srv/${who%:*}.ini" <<-END
		[concc]
		workspace = $WS
		[worker w1]
		address = ssh://${who#*:}@w1
		root = worker
		program = /mnt/bin/concc-worker
		slots = 16
	END
done

# A job tells on its output that it has begun, and ends when its standard input does: so the test
# knows without a clock how many run, and holds them there.
start() { # A|B N: a job; its lines go to the pipe
	mkfifo "$LAB/in.$1.$2"
	(
		# A copy of another's input would keep it open.
		for fd in ${INPUT[@]+"${INPUT[@]}"}; do
			[ -z "$fd" ] || exec {fd}>&-
		done
		exec env CONCC_CONFIG="/srv/$1.ini" CONCC_RUNTIME_DIR="/srv/run-$1" \
			concc-dispatch sh -c "echo $1 $2; cat; echo end $1 $2" \
			<"$LAB/in.$1.$2" >&9 2>>"$LAB/$1.err"
	) &
	PIDS="$PIDS $!"
	exec {FD}>"$LAB/in.$1.$2"
	INPUT[$1$2]=$FD
}

next_line() {
	read -r -t "$LAB_LIMIT" -u 9 LINE || fail "nothing more was said"
}

let_end() { # A|B N
	local fd=${INPUT[$1$2]}
	exec {fd}>&-
	INPUT[$1$2]=
}

# The server's log says what it was told of the host's load: such a line, and behind it the next one.
wait_load() { # A|B PATTERN...
	local line fd pid who=$1
	shift
	exec {fd}< <(exec tail -n +1 -F "/srv/run-$who/project.log" 2>/dev/null)
	pid=$!
	while [ $# -gt 0 ] && read -r -t "$LAB_LIMIT" -u "$fd" line; do
		[[ $line != *"load: $1"* ]] || shift
	done
	kill "$pid"
	exec {fd}<&-
	[ $# -eq 0 ] || fail "no load like '$1' was told: $(grep load: "/srv/run-$who/project.log" | tail -n 3)"
}

declare -A INPUT
begin() {
	PIDS=''
	rm -f "$LAB"/in.* "$LAB/said"
	mkfifo "$LAB/said"
	exec 9<>"$LAB/said"
}

end_all() {
	local pid
	for pid in $PIDS; do
		wait "$pid" || fail "a job failed: $(cat "$LAB"/[AB].err)"
	done
	exec 9<&-
}

# Sets who and n.
next_start() {
	who=end
	while [ "$who" = end ]; do
		next_line
		read -r who n _ <<<"$LINE"
	done
}

nothing_starts() {
	while read -r -t 0 <&9; do
		next_line
		case $LINE in end*) ;; *) fail "a third job runs: $LINE" ;; esac
	done
}

# 12 jobs of A and then 3 of B: in the order of turns, never more than two.
turns() {
	local i order='' who n started=2 held=('A 1' 'A 2')
	begin
	for i in 1 2; do
		start A "$i"
		next_line
	done
	for i in $(seq 3 12); do
		start A "$i"
	done
	wait_load A '2 running, 10 waiting, 2 slots'
	for i in 1 2 3; do
		start B "$i"
	done
	wait_load B '2 running, 13 waiting, 2 slots'
	client B concc status | tee "$LAB/status"
	expect_grep '2 jobs of all clients running, 13 waiting, 2 slots' "$LAB/status"
	expect_eq "in json" "$(client B concc status --json | jq -c '.workers[0].host | [.running, .waiting, .slots]')" '[2,13,2]'
	# Two are held at all times; when the older one may end, one more starts, and no other.  What two
	# clients say comes in any order, so ends are not counted.
	while [ $started -lt 15 ]; do
		nothing_starts
		let_end ${held[0]}
		held=("${held[1]}")
		next_start
		held+=("$who $n")
		started=$((started + 1))
		order=$order$who
	done
	nothing_starts
	let_end ${held[0]}
	let_end ${held[1]}
	end_all
	echo "note: order of starts: $order"
	expect_eq "jobs of B among the first seven" "$(tr -d A <<<"${order:0:7}")" BBB
}

# What A held, B gets: the kernel frees it, whatever dies.
killed() {
	local pid
	begin
	for i in 1 2; do
		start A "$i"
		next_line
	done
	start B 1
	wait_load B '2 running, 1 waiting, 2 slots'
	for pid in $(lab_worker_pids 1 concc-worker); do
		[ "$(stat -c %u "/proc/$pid")" != 1717 ] || kill -KILL "$pid" 2>/dev/null || true
	done
	# A's begin again, elsewhere (at home) or there.
	while next_line && [ "$LINE" != "B 1" ]; do :; done
	let_end B 1
	let_end A 1
	let_end A 2
	end_all
}

# A job that waits for a slot and is not wanted any more.
cancelled() {
	begin
	for i in 1 2; do
		start A "$i"
		next_line
	done
	start B 1
	start B 2
	wait_load B '2 running, 2 waiting, 2 slots'
	# shellcheck disable=SC2086 # words
	set -- $PIDS
	kill -TERM "$3"
	wait "$3" || true
	let_end A 1
	next_line
	while [[ $LINE == end* ]]; do next_line; done
	expect_eq "who is next" "$LINE" "B 2"
	let_end A 2
	let_end B 2
	let_end B 1
	PIDS="$1 $2 $4"
	end_all
}

# B's job is sent to w1, all of whose slots A has, since B's own slot of w2 is taken.  When that is free
# it begins there, and not when A ends.
moved() {
	local token
	export CONCC_STRAGGLER_AFTER=1m # it is not for that
	# Of w1, whose agents were killed, new servers know no ill.
	client A concc stop
	client B concc stop
	cat >>/srv/B.ini <<-END
		[worker w2]
		address = ssh://root@w2
		root = worker
		program = /mnt/bin/concc-worker
		slots = 1
	END
	begin
	for i in 1 2; do
		start A "$i"
		next_line
	done
	client B concc-dispatch true
	token=$(client B concc-worker-pool allocate --only w2 --owner $$)
	client B env CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo moved; echo on' </dev/null >&9 2>"$LAB/moved" &
	PIDS="$PIDS $!"
	wait_load B '2 running, 1 waiting, 2 slots'
	nothing_starts
	client B concc-worker-pool release "${token#* }"
	next_line
	expect_eq "what begins" "$LINE" moved
	next_line
	let_end A 1
	let_end A 2
	end_all
	expect_grep 'remote on w2' "$LAB/moved"
}

# Of B's job, which waits on w1 behind A's, it is known what it takes; so it comes home when it has waited there for
# longer than that, as soon as B's own machine has a slot: while A's jobs still have all slots, and never end.
comes_home() {
	local token
	export CONCC_STRAGGLER_AFTER=10m
	client A concc stop
	client B concc stop
	sed -i '/^\[worker w2\]/,$d' /srv/B.ini
	printf '#!/bin/sh\necho home\n' >known
	chmod +x known
	for i in 1 2 3; do
		client B env CONCC_LOCAL_SLOTS=1 concc-dispatch ./known </dev/null
	done
	begin
	for i in 1 2; do
		start A "$i"
		next_line
	done
	token=$(client B concc-worker-pool allocate --only local --owner $$)
	client B env CONCC_EXPLAIN=1 concc-dispatch ./known </dev/null >&9 2>"$LAB/home" &
	PIDS="$PIDS $!"
	wait_load B '2 running, 1 waiting, 2 slots'
	nothing_starts
	client B concc-worker-pool release "${token#* }"
	next_line
	expect_eq "what begins" "$LINE" home
	let_end A 1
	let_end A 2
	end_all
	expect_grep 'local: straggler .others have all slots of w1, and this machine has one' "$LAB/home"
}

# How long after its turn B's server gave the job up, by that one's clock; nothing where it did not.
given_up_ms() {
	local line turn='' day=86400000
	while read -r line; do
		case $line in
		*'load: 2 running, 1 waiting, 2 slots') turn='' ;;
		*'load: 2 running, 0 waiting, 2 slots') turn=${turn:-$(date -d "${line%% *}" +%s%3N)} ;;
		*'straggler: '*' runs here') echo $((($(date -d "${line%% *}" +%s%3N) - turn + day) % day)) ;;
		esac
	done </srv/run-B/project.log
}

# What B's job waited there, behind A's, for longer than all of such a job may take, was no work: when its turn has
# come it is not late, and stays, whatever gets free at home.
not_late() {
	local token hung i
	export CONCC_STRAGGLER_AFTER=10s
	client A concc stop
	client B concc stop
	lab_worker 1 sh -c 'mount -t tmpfs none /opt && touch /opt/hang'
	cp "$LAB_TOOLS/hold" hold
	printf '#!/bin/sh\n[ "$1" != hang ] || [ ! -e /opt/hang ] || ./hold >/dev/null\nexit 0\n' >kind
	chmod +x kind
	for i in 1 2 3 4 5 6 7 8; do
		client B env CONCC_LOCAL_SLOTS=1 concc-dispatch ./kind "$i" </dev/null
	done
	begin
	start A 1
	next_line
	client A concc-dispatch sleep 11 </dev/null 2>>"$LAB/A.err" & # by then B's would be late
	PIDS="$PIDS $!"
	wait_load A '2 running'
	token=$(client B concc-worker-pool allocate --only local --owner $$)
	client B env CONCC_EXPLAIN=1 concc-dispatch ./kind hang </dev/null 2>"$LAB/turn" &
	PIDS="$PIDS $!"
	wait_load B '2 running, 1 waiting, 2 slots' '2 running, 0 waiting, 2 slots'
	client B concc-worker-pool release "${token#* }"
	client B concc status >/dev/null # it has seen that
	for hung in $(lab_worker_pids 1 hold); do
		kill "$hung"
	done
	let_end A 1
	end_all
	lab_worker 1 umount /opt
	# Where all this took longer than such a job may take, it was late in the end, and not by what it had waited.
	grep -q 'remote on w1' "$LAB/turn" || expect_ge "ms from its turn to when it was late" "$(given_up_ms)" 5000
}

check "two users on one host take turns" turns
sed -n '/^note/p' "$LAB/check.log" 2>/dev/null || true
check "a job in the queue is cancelled" cancelled
check "a killed agent frees its slots" killed
check "who waits there is moved to a slot that is free" moved
check "who waits there comes home" comes_home
check "whose turn has come there is not late" not_late
for who in A B; do
	expect_no_grep 'ERROR|assert' "/srv/run-$who/project.log"
	client $who concc stop
done
lab_stop
