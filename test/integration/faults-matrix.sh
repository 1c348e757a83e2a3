#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# The failure matrix of ARCHITECTURE.md: what fails, and when.  Each row has a worker, a project server
# and a workspace of its own, so that many run at once.  Whatever fails, the job's result is right, is
# told once, and nothing stays.
# limit: 400
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need tc strace
lab_enter "$@"
WORKERS=4 LAB_LIMIT=60
lab_start $WORKERS
# What a worker's kernel has taken over comes home whatever happens to its processes: little, here.
for ((i = 1; i <= WORKERS; i++)); do
	lab_worker $i sh -c 'echo 4096 16384 32768 >/proc/sys/net/ipv4/tcp_wmem'
done
mkfifo "$LAB/never"
SUSPENDED=5	# seconds: more than a client waits for a worker that says nothing

# when  fault  what its wrapper says
#
# before   the server is connected, the job is about to come
# running  in its middle; it has made a file, and said so
# home     while a large file of it comes home, slowly
# commit   its files are being put in place
ROWS='
before  agent         remote|no-worker|lost
before  launcher      remote|no-worker|lost
before  sshd          remote|no-worker|lost
before  cut           lost:.*no answer
before  cut_to        lost:
before  cut_from      lost:.*no answer
before  freeze        lost:.*no answer
before  server        remote
before  suspend       remote|lost
before  tmp_cleaned   remote
before  cache_client  remote
before  cache_worker  remote
before  store_full    remote|could not be read
before  upper_full    scratch space
running agent         lost:
running launcher      lost:.*launcher
running sshd          lost:
running cut           lost:.*no answer
running cut_to        lost:
running cut_from      lost:.*no answer
running freeze        lost:.*no answer
running server        server was lost
running suspend       remote|lost
running tmp_cleaned   remote|could not be read
running cache_client  remote
running cache_worker  remote
running replaced      changed on this machine
running wrapper       -
home    agent         lost:
home    launcher      lost:|remote
home    sshd          lost:
home    cut           lost:.*no answer
home    cut_to        lost:
home    cut_from      lost:.*no answer
home    freeze        lost:.*no answer
home    server        server was lost
home    suspend       remote|lost
home    tmp_cleaned   remote
home    wrapper       -
commit  server        server was killed while
commit  agent         remote
commit  sshd          remote
commit  wrapper       -
'

# Must be so before the agent starts.
fault_upper_full() { :; }

fault_replaced() { echo other >"$ROW_DIR/target"; }
fault_wrapper() { lab_signal KILL "$ROW_PID"; }

fault_suspend() {
	local pids
	pids="$(lab_own_server) ${ROW_PID-}"
	lab_suspend $pids
	fault_lasts $SUSPENDED
	lab_signal CONT $pids
}

# The same in each row; "go" comes on its input when what is to fail has failed.
row_job() {
	cat >"$ROW_DIR/job" <<-'END'
		#!/bin/sh
		echo early >early
		echo held
		read -r go || exit 9
		cat noise noise $(cat more) >target
		mkdir many
		i=0
		while [ $i -lt 40 ]; do
			echo $i >many/$i
			i=$((i + 1))
		done
		echo "$go"
	END
	chmod +x "$ROW_DIR/job"
	cp "$LAB/noise" "$ROW_DIR/noise"
	: >"$ROW_DIR/more"
}

row_env() { # ID WORKER
	export CONCC_RUNTIME_DIR=/srv/run-$1 CONCC_CONFIG=/srv/$1.ini CONCC_CACHE_DIR=/srv/cache-$1
	ROW_DIR=$WS/$1
	mkdir -p "$ROW_DIR"
	cat >"$CONCC_CONFIG" <<-END
		[concc]
		workspace = $ROW_DIR
		[worker w$2]
		address = ssh://w$2
		program = /mnt/bin/concc-worker
		slots = 4
	END
	cd "$ROW_DIR"
}

row_dispatch() {
	mkfifo in said
	exec 5<>in
	CONCC_EXPLAIN=1 concc-dispatch ./job <in >said 2>err &
	ROW_PID=$!
	exec 7<said
}

# What it has made by then is nowhere here.
row_until_held() {
	local line=''
	read -r -t $LAB_LIMIT line <&7 || fail "it says nothing: $(cat err)"
	echo "$line" >out
	expect_eq "its first line" "$line" held
	expect_eq "files at home before the job's end" "$(ls -A)" "$(printf 'err\nin\njob\nmore\nnoise\nout\nsaid')"
}

# Waits for a line of the job's own, or for a file.
row_until() { # DIR PREFIX [CMD...]
	"$LAB_TOOLS/wait-file" $LAB_LIMIT "$@" || fail "no $2 in $1: $(cat err)"
}

# Runs the command when some files are in place and others are not: the server is stopped as it
# begins its fifth renameat(2).  "go" is said meanwhile.
row_at_commit() { # CMD...
	local server
	server=$(lab_own_server)
	fault_inject "$server" renameat:signal=STOP:when=5
	echo "done" >&5
	fault_traced 'stopped by SIGSTOP'
	expect_ne "files in place" "$(ls -A many | wc -l)" 40
	"$@"
	lab_signal CONT "$server"
	fault_inject_no_more
}

row_is_right() { # WHAT-IS-SAID
	expect_eq "output" "$(tr '\n' ' ' <out)" "held done "
	expect_same_file early <(echo early)
	cat noise noise $(cat more) | cmp - target || fail "target is wrong"
	expect_eq "files" "$(cat many/* | wc -l)" 40
	expect_grep "$1" err
}

row_cleanup() { # WORKER
	local pid
	exec 5>&-
	fault_heal_worker "$1"
	fault_thaw
	lab_worker "$1" tc qdisc del dev eth0 root 2>/dev/null || true
	pid=$(lab_own_server)
	[ -z "$pid" ] || concc stop || true
	expect_gone "the project server" $pid
	pid=$(lab_worker_jobs "$1")
	[ -z "$pid" ] || expect_gone "left on the worker" $pid
	sed -i 's/ CONCC_WORKER_TMPFS_SIZE=256k//' "$LAB/w$1/etc/sshd_config"
	# Of a server that was killed: the next one that lists the directory removes it.
	if [ -n "$(find . -name '.concc-*')" ] && [[ $ROW == *-server ]]; then
		concc-dispatch ls -a . many </dev/null >"$LAB/$ROW.ls" 2>&1 || true
		pid=$(lab_own_server)
		concc stop
		expect_gone "the project server" $pid
	fi
	expect_eq "temporary files" "$(find . -name '.concc-*')" ''
}

row() { # WHEN FAULT SAID WORKER
	local rc=0 began rate=1 more=''
	ROW=$1-$2 ROW_PID=''
	# A failed row leaves nothing for the next on this worker.
	trap 'set +e; lab_signal KILL $ROW_PID; fault_thaw; row_cleanup '"$4" EXIT
	row_env "$ROW" "$4"
	row_job
	[ "$2" != upper_full ] ||
		sed -i 's/^SetEnv .*/& CONCC_WORKER_TMPFS_SIZE=256k/' "$LAB/w$4/etc/sshd_config"
	concc-dispatch true 2>err || fail "the server does not start: $(cat err)"
	case $1 in
	before)
		"fault_$2" "$4" 0
		began=$EPOCHREALTIME
		row_dispatch
		echo "done" >&5
		: >out
		;;
	running)
		row_dispatch
		row_until_held
		"fault_$2" "$4" 0
		began=$EPOCHREALTIME
		echo "done" >&5
		;;
	home)
		# An sshd goes on with what it has taken from an agent: up to a window, which is 2 MB.
		[ "$2" != agent ] || rate=20 more=$(printf 'noise %.0s' {1..30})
		echo "$more" >./more
		lab_worker "$4" tc qdisc add dev eth0 root tbf rate "${rate}mbit" burst 16k latency 50ms
		row_dispatch
		row_until_held
		echo "done" >&5
		row_until . .concc-tmp
		"fault_$2" "$4" 0
		began=$EPOCHREALTIME
		;;
	commit)
		row_dispatch
		row_until_held
		row_at_commit "fault_$2" "$4" 0
		began=$EPOCHREALTIME
		;;
	esac
	cat <&7 >>out
	exec 7<&-
	expect_gone "the wrapper" $ROW_PID
	wait $ROW_PID || rc=$?
	echo "time: $1 $2 $(((${EPOCHREALTIME/./} - ${began/./}) / 1000)) ms: $(grep -v remote err | tail -n 2 | tr '\n' ';')"
	cat err
	if [ "$2" = wrapper ]; then
		expect_eq "status of a killed wrapper" $rc 137
	elif [ "$ROW" = commit-server ]; then # it is no compiler: what a second time would do is not known
		expect_eq "status" $rc 101
		expect_grep "$3" err
	else
		expect_eq "status" $rc 0
		row_is_right "$3"
	fi
	trap - EXIT
	row_cleanup "$4"
}

row_alone() {
	local rc=0
	(
		set -e
		row "$@"
	) >"$LAB/row.$1-$2" 2>&1 || rc=$?
	echo $rc >"$LAB/row.$1-$2.rc"
}

row_result() { # WHEN FAULT
	cat "$LAB/row.$1-$2"
	return "$(cat "$LAB/row.$1-$2.rc")"
}

head -c 300000 /dev/urandom >"$LAB/noise"
mapfile -t rows < <(grep -E "^[a-z]" <<<"$ROWS" | sed "s/ \+/: /" | grep -E -- "${CONCC_TEST_ONLY:-.}" | sed "s/://")
for ((i = 0; i < ${#rows[@]}; i += WORKERS)); do
	pids=()
	for ((k = 0; k < WORKERS && i + k < ${#rows[@]}; k++)); do
		read -r when fault said <<<"${rows[i + k]}"
		row_alone "$when" "$fault" "$said" $((k + 1)) &
		pids+=($!)
	done
	wait "${pids[@]}"
	for ((k = 0; k < WORKERS && i + k < ${#rows[@]}; k++)); do
		read -r when fault said <<<"${rows[i + k]}"
		check "$when: $fault" row_result "$when" "$fault"
		grep '^time: ' "$LAB/row.$when-$fault" || true
	done
done
lab_stop
