#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What a job is to its caller: exit status, signals, output, descriptors, slots, Ctrl-C.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=2
lab_need ninja strace jq
lab_enter "$@"
lab_start builder root
lab_config
lab_slow_job
cd "$WS"
ulimit -c 0 # jobs die of SIGSEGV on purpose here

# How the wrapper itself ended, as its parent sees it: "exit N" or "signal N".
ended() { # CMD...
	perl -e 'system { $ARGV[0] } @ARGV; printf "%s\n", $? & 127 ? "signal " . ($? & 127) : "exit " . ($? >> 8)' "$@"
}

ends_as() { # WANTED SHELL-TEXT
	local got
	got=$(CONCC_EXPLAIN=1 ended concc-dispatch sh -c "$2" 2>"$LAB/explain")
	expect_eq "sh -c '$2'" "$got" "$1"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 1
}

statuses() {
	ends_as "exit 0" 'exit 0'
	ends_as "exit 1" 'exit 1'
	ends_as "exit 42" 'exit 42'
	ends_as "exit 127" 'exit 127'
	ends_as "exit 255" 'exit 255'
	ends_as "exit 127" 'no-such-command-at-all 2>/dev/null'
	expect_eq "a command that does not exist" "$(ended concc-dispatch no-such-command 2>/dev/null)" \
		"exit 127"
}

# What can't even start is told by its own reason.
can_not_start() {
	# As env(1), nice(1) and concc-run take it; alone it is nothing to run.
	expect_status 3 concc-dispatch -- sh -c 'exit 3'
	expect_status 0 concc-cc -- gcc --version
	expect_status 100 concc-dispatch --
	expect_status 100 concc-cc --
	expect_status 127 concc-cc -- -c
	local what want
	echo 'int x;' >not-executable.c
	while IFS='|' read -r what want; do
		CONCC_EXPLAIN=1 sh -c "$what" >"$LAB/out" 2>&1 || true
		cat "$LAB/out"
		expect_grep "^concc: local: command \($want\)" "$LAB/out"
	done <<-'EOF'
		concc-cc no-such-compiler -c a.c|it is not in PATH
		concc-cc ./no-such-compiler -c a.c|it is not there
		concc-cc ./not-executable.c -c a.c|it can't be executed
		PATH=$PATH:$PWD concc-cc not-executable.c -c a.c|what PATH has can't be executed
		mkdir gone && cd gone && rmdir ../gone && concc-cc gcc -c a.c|the current directory is gone
	EOF
	rm not-executable.c
}

# Whom the user database does not have, and with nothing in its environment.
unknown_user() {
	local rc=0
	setpriv --reuid=77777 --clear-groups env -i "$LAB_BIN/concc-worker" --status >"$LAB/out" 2>&1 || rc=$?
	cat "$LAB/out"
	expect_le "exit status" $rc 1 # whether any worker runs here or not
}

signals() {
	ends_as "signal 11" 'kill -SEGV $$'
	ends_as "signal 9" 'kill -KILL $$'
	ends_as "signal 6" 'kill -ABRT $$'
	ends_as "exit 139" 'sh -c "kill -SEGV \$\$"; exit $?'
}

# By these whoever stops a worker ends what runs there: so what they ended is done again here.
killed() {
	local signo
	for signo in 1 15; do
		CONCC_EXPLAIN=1 ended concc-dispatch sh -c "echo one; kill -$signo \$\$" \
			>"$LAB/out" 2>"$LAB/explain"
		expect_eq "its own doing" "$(tr '\n' ' ' <"$LAB/out")" "one signal $signo "
		expect_grep "^concc: local: killed .signal $signo .* ended it on w[12], and was not sent from here" "$LAB/explain"
	done
}

# The compiler proper dies below its driver, which is what tells.
compiler_dies() {
	local where
	cat >"$WS/gcc-that-dies" <<-'EOF'
		#!/bin/sh
		echo "before" >&2
		kill -SEGV $$
	EOF
	chmod +x gcc-that-dies
	where=$(ended concc-cc ./gcc-that-dies -c a.c 2>"$LAB/err")
	expect_eq "a compiler that crashes" "$where" "signal 11"
	expect_eq "what it said, once" "$(grep -c before "$LAB/err")" 1
}

output() {
	head -c 10000000 /dev/urandom >out.bin
	head -c 10000000 /dev/urandom >err.bin
	concc-dispatch sh -c 'cat out.bin & cat err.bin >&2; wait' >"$LAB/got.out" 2>"$LAB/got.err"
	expect_same_file out.bin "$LAB/got.out"
	expect_same_file err.bin "$LAB/got.err"
	concc-dispatch sh -c 'cat >&2' <out.bin 2>"$LAB/got.err" >"$LAB/got.out"
	expect_same_file out.bin "$LAB/got.err"
	expect_eq "stdout" "$(cat "$LAB/got.out")" ''
	expect_eq "order" "$(concc-dispatch sh -c 'for i in 1 2 3; do echo o$i; echo e$i >&2; done' 2>&1 |
		tr '\n' ' ' | sed 's/[^oe0-9 ]//g' | tr ' ' '\n' | sort | tr '\n' ' ')" "e1 e2 e3 o1 o2 o3 "
	rm out.bin err.bin
}

# A reader that goes away is the job's SIGPIPE, not a hang.
closed_output() {
	local got
	got=$(ended sh -c 'concc-dispatch sh -c "exec yes" | head -n 1; exit 0' 2>/dev/null)
	expect_eq "yes | head" "$got" "$(printf 'y\nexit 0')"
	concc-dispatch true >/dev/full </dev/null
	concc-dispatch sh -c 'exit 3' >&- 2>&- <&- && fail "status lost" || expect_eq "status" $? 3
}

# The server is started by a build and must not keep what the build waits for.
descriptors() {
	local pid
	lab_stop_server
	printf 'rule cc\n  command = concc-cc gcc -c $in -o $out\n' >build.ninja
	for i in 1 2 3; do
		echo "int x$i;" >"n$i.c"
		echo "build n$i.o: cc n$i.c" >>build.ninja
	done
	exec 9>"$LAB/marker"
	# The pipe ends when all who hold it have ended; the limit is what fails otherwise.
	timeout "$LAB_LIMIT" sh -c 'ninja -v | cat' >"$LAB/ninja.log" 2>&1 ||
		fail "the build does not end, or fails: $(tail -n 3 "$LAB/ninja.log")"
	exec 9>&-
	pid=$(lab_server_pid)
	expect_ne "the project server" "$pid" ''
	find "/proc/$pid/fd" -type l -printf '%f %l\n' >"$LAB/fds"
	expect_no_grep "marker|ninja" "$LAB/fds"
	expect_no_grep '^[012] (pipe|/dev/pts|/dev/tty)' "$LAB/fds"
	expect_eq "its terminal" "$(cut -d' ' -f7 "/proc/$pid/stat")" 0
	expect_file n3.o
}

# Input may arrive, and end, before the worker has started the job.
early_input() {
	local i wrong=0
	for i in {1..60}; do
		[ "$(echo "input $i" | timeout "$LAB_LIMIT" concc-dispatch cat)" = "input $i" ] || wrong=$((wrong + 1))
	done
	expect_eq "jobs without their input" "$wrong" 0
	head -c 3000000 /dev/urandom >in
	concc-dispatch cat <in >out
	expect_same_file in out
	expect_eq "input of a job that reads none" "$(yes | head -n 500000 | concc-dispatch echo ended)" "ended"
}

many_wrappers() {
	local i n=500 bad=0 pids=()
	mkdir -p "$LAB/many"
	for i in $(seq $n); do
		concc-dispatch sh -c "echo $i; exit $((i % 5))" >"$LAB/many/$i" 2>>"$LAB/many.err" &
		pids[i]=$!
	done
	for i in $(seq $n); do
		rc=0
		wait "${pids[i]}" || rc=$?
		[ "$rc" -eq $((i % 5)) ] && [ "$(cat "$LAB/many/$i")" = "$i" ] || bad=$((bad + 1))
	done
	head -n 5 "$LAB/many.err"
	expect_eq "wrappers with a wrong result" "$bad" 0
	expect_eq "jobs sent back" "$(wc -l <"$LAB/many.err")" 0
}

# SIGNAL for the whole group of the wrapper, as the terminal sends it.
interrupted() { # SIGNAL NUMBER TARGET-PREFIX
	lab_slow_start "$LAB_TOOLS/own-group"
	kill "-$1" -- "$3$SLOW_PID"
	lab_slow_wait
	expect_eq "status of the wrapper" "$SLOW_STATUS" $((128 + $2))
	expect_gone "what the job started" $SLOW_PIDS
	expect_no_file half
	expect_no_file a.o
	expect_eq "a job after it" "$(concc-dispatch echo fine)" fine
}

# The limit on core files is the caller's, as if the job ran here.
no_cores() {
	local left
	left=$(lab_cores)
	rm -f "$WS"/core*
	expect_eq "core files of jobs under ulimit -c 0" "$left" ''
}

waits_for_slot() {
	local n slots first
	slots=$(concc -j)
	mkfifo "$LAB/held" "$LAB/go"
	exec 6<>"$LAB/held" 7<>"$LAB/go"
	# By name: who may have any waits for a better one for a while, when one that is free seems to be slow.
	for ((n = 0; n < slots; n++)); do
		concc-worker-pool allocate --only "w$((n % LAB_N + 1))" -- sh -c 'echo held >&6; read -r line <&7' &
	done
	for ((n = 0; n < slots; n++)); do
		read -r -t "$LAB_LIMIT" _ <&6 || fail "a slot is not free"
	done
	lab_start_waiting one
	first=$TRACE
	lab_start_waiting two
	expect_eq "who waits" "$(lab_status '[.waiters[] | [.place, .command]]')" \
		"$(jq -n '[[1, "true one"], [2, "true two"]]')"
	expect_grep '^  waiting for a slot, place 2, for [0-9]+ s: true two$' <(concc status)
	for ((n = 0; n < slots; n++)); do
		echo go >&7
	done
	wait
	exec {first}<&- {TRACE}<&- 6>&- 7>&-
	expect_eq "who waits" "$(lab_status '.waiters')" '[]'
}

slots_free_again() {
	expect_eq "slots taken" "$(concc-worker-pool status --json | grep -Eo '"taken": *[1-9]' | wc -l)" 0
}

# More jobs than this machine has cores for had to come home: they wait without the workers' slots.
slots_of_those_at_home() {
	local cores n line pids=() local=0
	cores=$(lab_nproc)
	printf '#!/bin/sh\necho x >/tmp/left-$1; [ -n "$CONCC_WORKER" ] || exec ./holdbin\n' >athome
	chmod +x athome
	mkfifo "$LAB/athome.out" "$LAB/athome.err"
	exec 6<>"$LAB/athome.out" 7<>"$LAB/athome.err"
	for ((n = 0; n < cores + 2 * LAB_N; n++)); do
		CONCC_EXPLAIN=1 concc-dispatch ./athome $n </dev/null >&6 2>&7 6>&- 7>&- &
		pids+=($!)
	done
	for ((n = 0; n < cores; n++)); do
		read -r -t "$LAB_LIMIT" line <&6 || fail "a job does not run here"
	done
	while [ $local -lt $((cores + 2 * LAB_N)) ]; do
		read -r -t "$LAB_LIMIT" line <&7 || fail "only $local jobs came home"
		case $line in 'concc: local: '*) local=$((local + 1)) ;; esac
	done
	CONCC_EXPLAIN=1 timeout "$LAB_LIMIT" concc-dispatch true 2>"$LAB/explain" || true
	kill -TERM "${pids[@]}"
	expect_gone "the jobs" "${pids[@]}"
	exec 6<&- 7<&-
	rm -f /tmp/left-*
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 1
}

check "exit statuses" statuses
check "what can not start" can_not_start
check "a user whom nobody knows" unknown_user
check "death by signal" signals
check "death by a signal that others send" killed
check "a compiler that crashes" compiler_dies
check "no core files" no_cores
check "10 MB on stdout and on stderr" output
check "output nobody reads" closed_output
check "input that comes early, is long, or is not read" early_input
check "no inherited descriptors" descriptors
check "500 wrappers over 4 slots" many_wrappers
check "Ctrl-C" interrupted INT 2 -
check "SIGTERM" interrupted TERM 15 ''
check "SIGKILL of the wrapper" interrupted KILL 9 ''
check "all slots are free again" slots_free_again
check "status shows who waits for a slot" waits_for_slot
check "slots of those that came home" slots_of_those_at_home
lab_stop
