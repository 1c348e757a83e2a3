#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# `concc top`: what it shows of workers and jobs as they come and go, on a real terminal (tmux), also over
# ssh and as a job of a shell; that a reader who is slow or stopped costs the server nothing; what becomes
# of it when the server ends.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_need jq tmux python3
lab_enter "$@"

# Builds of this user's are found in /tmp, and others may run beside this test: it has one of its own, in which
# is what it needs of that.
own_tmp() {
	local dir at n=0
	local kept=()
	for dir in "$LAB_REPO" "$LAB_BUILD" "${CONCC_TEST_RESULTS%/*}" "$LAB"; do
		[[ $dir == /tmp/* ]] || continue
		n=$((n + 1))
		mkdir -p "/srv/kept/$n"
		mount --bind "$dir" "/srv/kept/$n"
		kept[n]=$dir
	done
	mount -t tmpfs -o mode=1777 top-tmp /tmp
	LAB_OWN_TMP=yes
	for ((at = 1; at <= n; at++)); do
		mkdir -p "${kept[at]}"
		mount --move "/srv/kept/$at" "${kept[at]}"
	done
	rm -r /srv/kept
}
own_tmp
lab_start builder root
lab_config
cd "$WS"
echo 'int x;' >a.c
lab_all_up

# A server of its own for each terminal: one that is about to end takes no more sessions.
tm() {
	TMUX='' tmux -S "$LAB/tmux.$BASHPID.$TM_N" -f /dev/null "$@"
}
TM_N=0

# On a terminal of 80x24; its output is a stream to wait at.  Its exit status comes to $LAB/ended.
top_start() { # [VARIABLE=VALUE...]
	rm -f "$LAB/ended" "$LAB/screen.fifo"
	mkfifo "$LAB/screen.fifo"
	exec 7<>"$LAB/screen.fifo"
	TM_N=$((TM_N + 1))
	tm new-session -d -x 80 -y 24 \; set-option -g status off \; \
		pipe-pane "exec cat >$LAB/screen.fifo" \; \
		respawn-pane -k "env $* concc top 2>$LAB/top.err; echo \$? >$LAB/ended; echo; exec cat"
}

top_end() {
	tm kill-server 2>/dev/null || true
	exec 7>&-
}

screen() {
	touch "$LAB/top.err"
	tm capture-pane -p >"$LAB/screen"
}

# Until the terminal has something new; elapsed seconds alone go on for ever.
next_output() { # END
	[ "$SECONDS" -lt "$1" ] && timeout "$LAB_LIMIT" dd bs=65536 count=1 of=/dev/null status=none <&7
}

# Until the screen has such a line.
shows() { # PATTERN
	local end=$((SECONDS + LAB_LIMIT))
	while screen && ! grep -Eq -- "$1" "$LAB/screen"; do
		next_output "$end" && continue
		cat "$LAB/screen" "$LAB/top.err" || true
		fail "the screen does not show '$1'"
	done
}

# Until it shows none.
shows_no() { # PATTERN
	local end=$((SECONDS + LAB_LIMIT))
	while screen && grep -Eq -- "$1" "$LAB/screen"; do
		next_output "$end" && continue
		cat "$LAB/screen"
		fail "the screen still shows '$1'"
	done
}

quit() {
	tm send-keys q
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$LAB" ended || fail "it does not end by q"
	shows '^$' # what is in the file is whole by then
	expect_eq "exit status" "$(cat "$LAB/ended")" 0
}

content() {
	top_start
	trap top_end EXIT
	shows '^concc: 0 on workers, 0 here, 0 waiting; 2 slots'
	shows '^w1 +up +0/1'
	shows '^w2 +up +0/1'
	# The jobs that were, from their records.
	shows 'TOOK +WHERE +PROGRAM'
	lab_slow_job
	lab_slow_start
	shows '^concc: 1 on workers, 0 here, 0 waiting'
	shows '^ +[0-9.]+ s +-  w[12] +slow '
	# All slots are taken, and one waits.
	concc-worker-pool allocate --owner $$ >"$LAB/token"
	lab_start_waiting behind
	shows 'WAITING FOR A SLOT'
	shows '^ +[0-9]+ s +1\. .*true behind'
	shows ', 1 waiting;'
	concc-worker-pool release "$(sed 's/.* //' "$LAB/token")"
	cat <&"$TRACE" >/dev/null
	shows_no 'WAITING FOR A SLOT'
	lab_slow_kill
	lab_slow_wait
	shows '^concc: 0 on workers'
	concc-cc gcc -c a.c -o seen.o
	shows '^ +[0-9.]+ s +w[12] +gcc +seen\.o'
	concc-cc gcc --version >/dev/null
	shows 'here +gcc .*\(query'
	concc-dispatch sh -c 'exit 3' || true
	shows '\[exit 3\]'
	quit
}

sizes() {
	top_start
	trap top_end EXIT
	shows '^w2 +up'
	tm resize-window -x 50 -y 8
	shows '^concc: 0 on workers'
	screen
	expect_eq "lines" "$(wc -l <"$LAB/screen")" 8
	expect_le "the longest line" "$(wc -L <"$LAB/screen")" 50
	tm resize-window -x 200 -y 50
	shows 'WORKER.*FETCHED'
	tm resize-window -x 20 -y 2
	shows '^concc: 0 on work'
	quit
}

# It waits for the next one, and shows that; it starts none.
servers_come_and_go() {
	top_start
	trap top_end EXIT
	shows '^w1 +up'
	lab_stop_server
	shows 'no project server is running'
	shows_no '^w1 '
	expect_eq "servers" "$(lab_server_pid)" ''
	concc-cc gcc -c a.c
	shows '^w1 +up'
	kill -KILL $(lab_server_pid)
	shows 'no project server is running'
	concc-cc gcc -c a.c
	shows '^w[12] +up'
	quit
}

own_workers() {
	mkfifo "$LAB/go" "$LAB/begun"
	top_start
	trap top_end EXIT
	shows '^w1 +up'
	# With a cache of its own: root's workers take theirs over, to be no longer root's.
	CONCC_CACHE_DIR=$LAB/cache concc run -w 'local:/2' -- sh -c "echo x >$LAB/begun; read -r x <$LAB/go" 2>"$LAB/err" &
	read -r _ <"$LAB/begun"
	shows 'a build with workers of its own, in /tmp/concc-run-'
	echo x >"$LAB/go"
	wait $!
	shows_no 'workers of its own'
	quit
}

# Ended by a signal, the terminal is as it was.
signals() {
	top_start
	trap top_end EXIT
	shows '^w1 +up'
	kill -TERM "$(lab_client_pids concc)"
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$LAB" ended
	shows '^$'
	expect_eq "exit status" "$(cat "$LAB/ended")" 143
	screen
	expect_no_grep '^w1 ' "$LAB/screen"
}

colours() {
	concc-dispatch sh -c 'exit 3' || true
	top_start
	trap top_end EXIT
	shows '\[exit 3\]'
	tm capture-pane -p -e >"$LAB/screen"
	grep -q $'\e\[31m' "$LAB/screen" || fail "what failed is not red"
	quit
	top_end
	top_start NO_COLOR=1
	shows '\[exit 3\]'
	tm capture-pane -p -e >"$LAB/screen"
	! grep -q $'\e\[3[0-7]m' "$LAB/screen" || fail "there are colours"
	quit
}

terminals() {
	expect_status 1 concc top </dev/null 2>"$LAB/err"
	expect_grep 'concc top --once' "$LAB/err"
	top_start TERM=dumb
	trap top_end EXIT
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$LAB" ended
	expect_grep 'a terminal of type "dumb" .* `concc top --once`' "$LAB/top.err"
	top_end
	top_start -u TERM
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$LAB" ended
	expect_grep 'a terminal of type "" ' "$LAB/top.err"
}

# In a shell, of which it is a job.
shell_start() {
	rm -f "$LAB/screen.fifo"
	mkfifo "$LAB/screen.fifo"
	exec 7<>"$LAB/screen.fifo"
	TM_N=$((TM_N + 1))
	trap top_end EXIT
	tm new-session -d -x 80 -y 24 \; set-option -g status off \; \
		pipe-pane "exec cat >$LAB/screen.fifo" \; \
		respawn-pane -k "env PS1='sh> ' bash --norc --noprofile"
	shows '^sh> ?$'
}

type_line() {
	tm send-keys "$1" Enter
}

# By a command of the shell's, which hears of it; tmux takes a moment for that.
resized() { # COLUMNS LINES
	type_line "clear; python3 $LAB/resized.py"
	shows '^resize'
	tm resize-window -x "$1" -y "$2"
	shows "^is $2 $1"
}

cat >"$LAB/resized.py" <<'EOF_PY'
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
print("resize", flush=True)
signal.sigwait({signal.SIGWINCH})
size = os.get_terminal_size()
print("is", size.lines, size.columns, flush=True)
EOF_PY

# ^Z gives the shell its terminal back as it was, fg the screen; also when the terminal has another
# size by then, of which who is stopped does not hear.
stopped_and_gone_on() {
	shell_start
	type_line 'echo before; concc top'
	shows '^w1 +up'
	tm send-keys C-z
	shows 'Stopped .*concc top'
	screen
	expect_grep '^before' "$LAB/screen"
	expect_no_grep '^w1 ' "$LAB/screen"
	concc status >"$LAB/status"
	expect_no_grep 'stopped here' "$LAB/status"
	type_line 'stty -a | tr ";" "\n" | grep -o "[-]*icanon"'
	shows '^icanon'
	type_line fg
	shows '^w1 +up'
	screen
	expect_no_grep 'Stopped' "$LAB/screen"
	tm send-keys C-z
	shows_no '^w1 '
	resized 60 10
	type_line fg
	shows '^w1 +up'
	shows '^concc: 0 on workers'
	screen
	expect_eq "lines" "$(wc -l <"$LAB/screen")" 10
	expect_eq "first line" "$(head -c 7 "$LAB/screen")" 'concc: '
	tm send-keys C-z
	shows 'Stopped .*concc top'
	resized 100 30
	type_line fg
	shows 'WORKER.*FETCHED'
	shows '^w1 +up'
	tm send-keys q
	shows '^sh> ?$'
	type_line 'echo status $?'
	shows '^status 0'
	screen
	expect_grep '^is 30 100' "$LAB/screen"
}

# What is stopped by a signal that it does not hear of has the shell's terminal to clean.
killed_stop() {
	local pid
	shell_start
	type_line 'concc top'
	shows '^w1 +up'
	pid=$(lab_client_pids concc)
	kill -STOP "$pid"
	shows 'Stopped .*concc top'
	type_line fg
	shows_no 'Stopped'
	shows '^concc: 0 on workers'
	shows '^w1 +up'
	tm send-keys q
	shows 'sh> ?$'
	type_line 'echo status $?'
	shows '^status 0'
}

in_background() {
	shell_start
	type_line 'concc top &'
	shows '^sh> ?$'
	type_line 'wait; echo here; jobs'
	shows 'Stopped .*concc top'
	screen
	expect_no_grep '^w1 ' "$LAB/screen"
	type_line fg
	shows '^w1 +up'
	tm send-keys C-z
	shows_no '^w1 '
	type_line 'clear; bg; wait; echo waited; jobs'
	shows '^waited'
	shows 'Stopped .*concc top'
	screen
	expect_no_grep '^w1 ' "$LAB/screen"
	type_line fg
	shows '^w1 +up'
	tm send-keys q
	shows '^sh> ?$'
}

# An sshd of the client's own, where the server is.
ssh_here() {
	mkdir -p /run/sshd
	cat >"$LAB/sshd_config" <<-EOF
		HostKey $LAB/keys/host
		AuthorizedKeysFile /srv/home/.ssh/id_ed25519.pub
		StrictModes no
		UsePAM no
		PermitRootLogin yes
		PrintMotd no
		PidFile none
	EOF
	rm -f "$LAB/screen.fifo" "$LAB/ended"
	mkfifo "$LAB/screen.fifo"
	exec 7<>"$LAB/screen.fifo"
	TM_N=$((TM_N + 1))
	trap top_end EXIT
	# A daemon for the one connection, without a port.
	tm new-session -d -x 80 -y 24 \; set-option -g status off \; \
		pipe-pane "exec cat >$LAB/screen.fifo" \; \
		respawn-pane -k "TERM=$1 ssh -tt -F /dev/null -i /srv/home/.ssh/id_ed25519 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \\
			-o 'ProxyCommand=$(command -v sshd) -i -f $LAB/sshd_config' root@here \\
			'PATH=$PATH CONCC_RUNTIME_DIR=$CONCC_RUNTIME_DIR CONCC_CACHE_DIR=${CONCC_CACHE_DIR-} concc top'; echo \$? >$LAB/ended; exec cat"
}

over_ssh() {
	local pid
	ssh_here xterm-256color
	shows '^w1 +up'
	tm resize-window -x 200 -y 50
	shows 'WORKER.*FETCHED'
	quit
	top_end
	# The line is lost: it does not stay behind.
	ssh_here screen
	shows '^w1 +up'
	pid=$(lab_client_pids concc)
	[ -n "$pid" ] || fail "no concc top"
	kill -KILL $(lab_client_pids ssh)
	expect_gone "concc top" "$pid"
}

other_types() {
	local type
	for type in xterm-256color screen screen-256color tmux-256color linux vt100 vt220 ansi; do
		top_start "TERM=$type"
		trap top_end EXIT
		shows '^w1 +up'
		shows '^w2 +up'
		tm resize-window -x 50 -y 8
		shows '^concc: 0 on workers'
		tm resize-window -x 200 -y 50
		shows 'WORKER.*FETCHED'
		quit
		top_end
	done
}

once() {
	concc-cc gcc -c a.c -o once.o
	concc top --once >"$LAB/once" || fail "it fails"
	expect_grep '^w1 +up +0/1' "$LAB/once"
	expect_grep 'w[12] +gcc +once\.o' "$LAB/once"
	expect_no_grep $'\e' "$LAB/once"
	lab_stop_server
	concc top --once >"$LAB/once"
	expect_grep 'no project server is running' "$LAB/once"
	expect_eq "servers" "$(lab_server_pid)" ''
}

# One asks after each job, and reads nothing: jobs go on, and what waits for it in the end is what the
# kernel takes, and one reply.
slow_reader() {
	local server long
	long=$(printf '%0390d' 0) # so that each reply is large
	concc-cc gcc -c a.c
	server=$(lab_server_pid)
	mkfifo "$LAB/ask"
	python3 - "$CONCC_RUNTIME_DIR/project.sock" "$LAB/ask" >"$LAB/read" <<-'EOF' &
		import socket, struct, sys
		s = socket.socket(socket.AF_UNIX)
		s.connect(sys.argv[1])
		stream = s.makefile("rb")
		def ask(word):
		    words = struct.pack("<II", 1, len(word)) + word
		    s.sendall(struct.pack("<IBBH", len(words), 60, 0, 0) + words)
		for line in open(sys.argv[2]):
		    ask(b"watch")
		ask(b"why")
		n = 0
		while True:
		    size = struct.unpack("<IBBH", stream.read(8))[0]
		    stream.read(size)
		    n += size
		    if size < 100:
		        break
		print(n)
	EOF
	exec 6>"$LAB/ask"
	for ((i = 0; i < 300; i++)); do
		echo x >&6
		concc-dispatch true "$long"
	done
	exec 6>&-
	wait $!
	expect_ge "bytes for it" "$(cat "$LAB/read")" 10000
	expect_le "bytes for it" "$(cat "$LAB/read")" 300000
	expect_eq "server" "$(lab_server_pid)" "$server"
}

# Nor one that has nothing to do.
nothing_to_do() {
	lab_stop_server
	lab_config 'idle-timeout = 2'
	trap 'top_end; lab_config' EXIT
	lab_slow_job
	lab_slow_start # so that it has something to do until that is seen
	top_start
	shows '^w[12] +up'
	lab_slow_kill
	lab_slow_wait
	shows 'no project server is running'
	quit
}

# Of `concc run`, while a worker does not answer: a line, which then is gone.
run_start() { # COMMAND...
	rm -f "$LAB/screen.fifo" "$LAB/ended"
	mkfifo "$LAB/screen.fifo"
	exec 7<>"$LAB/screen.fifo"
	TM_N=$((TM_N + 1))
	tm new-session -d -x 90 -y 10 \; set-option -g status off \; \
		pipe-pane "exec cat >$LAB/screen.fifo" \; \
		respawn-pane -k "concc run -- $*; echo \$? >$LAB/ended; exec cat"
}

waited_for() {
	lab_stop_server
	lab_suspend "${LAB_LISTEN[2]}" # connected to, it says nothing
	run_start echo built
	trap 'top_end; kill -CONT "${LAB_LISTEN[2]}"' EXIT
	shows '^concc: waiting for w2 \(connecting\)'
	kill -CONT "${LAB_LISTEN[2]}"
	shows '^built'
	shows '^concc: 0 jobs'
	screen
	expect_no_grep 'waiting for' "$LAB/screen"
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$LAB" ended
	# Where nobody looks there is none.
	concc run -- true 2>"$LAB/err"
	expect_no_grep 'waiting for' "$LAB/err"
}

# What writes nothing has a line below it that says how far it is, and what is being sent.
silent_build() {
	head -c 200000000 /dev/urandom >big
	printf '#!/bin/sh\ncat big >/dev/null\nexec cat\n' >reads-big
	chmod +x reads-big
	mkfifo "$LAB/until"
	printf 'all:\n\t@concc-dispatch ./reads-big <%s\n\techo behind\n' "$LAB/until" >silent.mk
	run_start make -sf silent.mk
	trap top_end EXIT
	exec 8>"$LAB/until" # the job ends when that is closed
	shows '^concc: 1 job on workers, [0-9]+ done; sending what they need: .* of 1[0-9]+ MB$'
	LAB_LIMIT=120 shows '^concc: 1 job on workers, [0-9]+ done$' # by a busy machine
	exec 8>&-
	shows '^behind$'
	shows '^concc: 1 job in '
	screen
	expect_no_grep 'jobs? on workers' "$LAB/screen"
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$LAB" ended
	# It is in the store of the worker that had the job, and there it stays.
	top_end
	concc-dispatch true
	top_start
	trap top_end EXIT
	shows '^w[12] .* 19[0-9] MB$'
	quit
	rm big
}

# Who only looks does not hold a server that makes way for another.
makes_way() {
	local server
	concc-cc gcc -c a.c
	server=$(lab_server_pid)
	top_start
	trap top_end EXIT
	shows '^w1 +up'
	rm "$CONCC_RUNTIME_DIR/project.lock"
	expect_gone "the server that makes way" "$server"
	shows 'no project server is running'
	concc-cc gcc -c a.c
	shows '^w[12] +up'
	quit
}

check "workers, jobs, the queue" content
check "other sizes" sizes
check "a server ends, another begins" servers_come_and_go
check "builds with workers of their own" own_workers
check "ended by a signal" signals
check "colours, and none with NO_COLOR" colours
check "terminals that can't show it" terminals
check "other types of terminals" other_types
check "stopped by ^Z, and gone on" stopped_and_gone_on
check "stopped by another, and gone on" killed_stop
check "in the background" in_background
check "over ssh" over_ssh
check "once, for a pipe" once
check "a reader who does not read" slow_reader
check "a server that makes way" makes_way
check "a server that has nothing to do" nothing_to_do
check "whom a build waits for" waited_for
check "a build tool that writes nothing" silent_build
lab_stop
