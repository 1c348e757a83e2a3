#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What a job has done before, and why it runs again here: whatever the two, it prints, ends and leaves
# what one run does, and nothing of the first try.  Each row has a worker, a project server and a
# workspace of its own, so that some run at once.  ROUNDS=n runs all twice here instead, n times: what
# differs then is the test's own fault.
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need jq
lab_enter "$@"
WORKERS=4 LAB_LIMIT=60
lab_start $WORKERS
mkdir /srv/outside
echo outside >/srv/outside/f

# what it has done  what it says then  how
BEFORE='
nothing    silent  :
printed    line    :
unfinished part    :
complained err     :
made       line    echo new >made
renamed    err     mv old renamed
removed    part    rm old; status=5
appended   much    echo run >>log
directory  line    mkdir out && echo 1 >out/f
linked     both    echo new >made && ln made further
replaced   err     echo new >tmp && mv tmp old
moved      line    mkdir own; echo x >own/f; mv own dir2
emptied    both    rm dir/f && rmdir dir
through    part    echo more >>old
all        much    echo run >>log; mkdir out; mv old out/old; echo x >new; ln new out/new; rm -r dir; chmod 600 new
'

# why it runs here  rule  what it does then
WHY='
killed     worker-lost    :
told       worker-lost    :
hung_up    worker-lost    :
launcher   -              :
server     -              :
time       limit          :
set_id     write-back     echo x >s; chmod u+s s
tmp        outside-write  echo x >/tmp/fall-back-'$$'
outside    missing        cat /srv/outside/f
attribute  no-way-home    ./fstruth attr user
sparse     no-way-home    truncate -s 17G hole
conflict   conflict       echo job >>target
full       disk-full      seq 100000 | head -c 580000 >big
wrapper    cancelled      :
'

# ---- what happens while the job waits ----

at_killed() { lab_signal KILL $(lab_agent_pid "$N"); }
at_told() { lab_signal TERM $(lab_agent_pid "$N"); }
at_hung_up() { lab_hang_up "$N"; }
at_launcher() { lab_signal KILL $(lab_launcher_pid "$N"); }
at_server() { lab_signal KILL "$(lab_own_server)"; }
at_time() { expect_gone "the job" $(lab_worker_pids "$N" job); }
at_wrapper() { lab_signal KILL "$JOB"; }
at_conflict() { echo other >>target; }
at_set_id() { :; }
at_tmp() { :; }
at_outside() { :; }
at_attribute() { :; }
at_sparse() { :; }
at_full() { :; }

# Somebody else's change is there when it runs here, too.
here_too() {
	[ "$ROW" != conflict ] || at_conflict
}

# ---- a cell ----

set_up() {
	cd "$WS/$ROW"
	find . -mindepth 1 -delete
	mkdir dir
	for f in old log target pair dir/f; do
		echo "$f" >$f
	done
	ln pair pair2
	[ "$ROW" != full ] || seq 200000 | tail -c 580000 >big
	[ "$ROW" != attribute ] || cp "$LAB_TOOLS/fstruth" .
	{
		cat <<-'END'
			#!/bin/sh
			status=0
			say() {
				case $1 in
				silent) head -c 600000 >/dev/null ;;
				line) echo said ;;
				err) echo said >&2 ;;
				part) printf 'not ended' ;;
				much) seq 20000 ;;
				both) echo said; echo "said too" >&2 ;;
				esac
				[ $1 = silent ] || echo pause
				read -r go || exit 9
			}
		END
		printf '%s\nsay %s\n%s\n' "$DID" "$SAYS" "$THEN"
		echo 'find . | sort; cat log pair target; exit $status'
	} >job
	chmod +x job
}

# Who was to read it may be gone.
go_on() {
	(trap '' PIPE && echo go >&7) || true
}

# Runs it, and the command at its pause, then lets it go on; sets STATUS.  Its input is more than can be on
# its way, where it says nothing: all of it is taken when the job has begun.
run() { # OUT AT-PAUSE CMD...
	local out=$1 at=$2 line='' told=$LAB/$ROW.told in=$LAB/$ROW.in
	shift 2
	rm -f "$told" "$in"
	mkfifo "$told" "$in"
	"$@" <"$in" >"$told" 2>"$out.err" &
	JOB=$!
	exec 7>"$in" 8<"$told"
	: >"$out"
	if [ "$SAYS" = silent ]; then
		head -c 600000 /dev/zero >&7
		"$at"
		go_on
	fi
	while IFS= read -r -t "$LAB_LIMIT" line <&8; do
		printf '%s\n' "$line" >>"$out"
		[[ $line == *pause ]] || continue
		"$at"
		go_on
	done
	printf '%s' "$line" >>"$out"
	exec 7>&- 8<&-
	expect_gone "the command" $JOB
	STATUS=0
	wait $JOB || STATUS=$?
}

tree() {
	"$LAB_TOOLS/fstruth" tree
}

reason() {
	concc status --json | jq ".reasons[\"$RULE\"] // 0"
}

# Of one whose wrapper was killed nothing is left.
cancelled() {
	tree >"$LAB/$ROW.before"
	run "$LAB/$ROW.got" at_wrapper concc-dispatch ./job
	expect_eq "status" $STATUS 137
	concc-dispatch true </dev/null
	tree | diff -U1 "$LAB/$ROW.before" - || fail "it leaves something"
}

same_as_here() {
	local left=''
	[ "$ROW" != tmp ] || left=/tmp/fall-back-$$
	run "$LAB/$ROW.want" here_too ./job
	tree >"$LAB/$ROW.want.tree"
	WANTED=$STATUS
	rm -f $left
	set_up
	if [ -n "${ROUNDS-}" ]; then
		run "$LAB/$ROW.got" here_too ./job
	else
		run "$LAB/$ROW.got" "at_$ROW" concc-dispatch ./job
	fi
	cat "$LAB/$ROW.got.err"
	sed -i '/^concc: /d' "$LAB/$ROW.got.err"
	diff -U1 "$LAB/$ROW.want" "$LAB/$ROW.got" || fail "it prints something else"
	diff -U1 "$LAB/$ROW.want.err" "$LAB/$ROW.got.err" || fail "it prints other errors"
	expect_eq "exit status" "$STATUS" "$WANTED"
	tree | diff -U1 "$LAB/$ROW.want.tree" - || fail "it leaves something else"
	[ -z "$left" ] || expect_file "$left"
	rm -f $left
}

cell() {
	local before server i
	for ((i = 0; i < ${ROUNDS:-0}; i++)); do
		set_up
		same_as_here
	done
	[ -z "${ROUNDS-}" ] || return 0
	fault_recovered
	concc-dispatch true </dev/null # else the next try to connect comes later each time
	before=$(reason) server=$(lab_own_server)
	set_up
	if [ "$ROW" = wrapper ]; then
		cancelled
		return
	fi
	same_as_here
	if [ "$ROW" = server ]; then
		expect_ne "the project server" "$(lab_own_server)" "$server"
	elif [ "$ROW" != launcher ]; then # there the job or the worker is the first to be missed
		expect_eq "jobs sent back by rule $RULE" $(($(reason) - before)) 1
	fi
}

# ---- rows ----

row_env() { # WORKER
	N=$1
	export CONCC_RUNTIME_DIR=/srv/run-$ROW CONCC_CONFIG=/srv/$ROW.ini CONCC_CACHE_DIR=/srv/cache-$ROW
	mkdir -p "$WS/$ROW"
	[ "$ROW" != full ] || mount -t tmpfs -o size=1100k lab-full "$WS/$ROW"
	cat >"$CONCC_CONFIG" <<-END
		[concc]
		workspace = $WS/$ROW
		[worker w$N]
		address = ssh://w$N
		root = worker
		program = /mnt/bin/concc-worker
		slots = 1
	END
	[ "$ROW" != time ] || echo 'job-time = 1s' >>"$CONCC_CONFIG"
	cd "$WS/$ROW"
	concc-dispatch true </dev/null || fail "no project server"
}

row_end() {
	local pid
	pid=$(lab_own_server)
	[ -z "$pid" ] || concc stop || true
	expect_gone "the project server" $pid
	cd /
	[ "$ROW" != full ] || umount "$WS/full"
}

# Each cell by itself, and none begins with what another has left.
row() { # WHY RULE THEN WORKER
	local rc
	ROW=$1 RULE=$2 THEN=$3
	row_env "$4"
	while read -r COLUMN SAYS DID; do
		[[ "$ROW: $COLUMN" =~ ${CONCC_TEST_ONLY-} ]] || continue
		set +e
		(
			set -e
			cell
		) >"$LAB/$ROW.$COLUMN.log" 2>&1
		rc=$?
		set -e
		echo $rc >"$LAB/$ROW.$COLUMN.rc"
	done < <(grep '^[a-z]' <<<"$BEFORE")
	row_end
}

result() { # NAME
	cat "$LAB/$1.log" "$LAB/$2.row"
	return "$(cat "$LAB/$1.rc")"
}

mapfile -t rows < <(grep '^[a-z]' <<<"$WHY")
for ((i = 0; i < ${#rows[@]}; i += WORKERS)); do
	pids=()
	for ((k = 0; k < WORKERS && i + k < ${#rows[@]}; k++)); do
		read -r why rule after <<<"${rows[i + k]}"
		row "$why" "$rule" "$after" $((k + 1)) >"$LAB/$why.row" 2>&1 &
		pids+=($!)
	done
	wait "${pids[@]}" || true
	for ((k = 0; k < WORKERS && i + k < ${#rows[@]}; k++)); do
		read -r why _ <<<"${rows[i + k]}"
		while read -r column _; do
			check "$why: $column" result "$why.$column" "$why"
		done < <(grep '^[a-z]' <<<"$BEFORE")
	done
done
lab_stop
