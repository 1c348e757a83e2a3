#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# The caller's standard input, output and error: what is wrong with them has the effect that it has
# without us.  Each way is gone plainly and by a wrapper; status, output and files are the same.
# limit: 180
# shellcheck disable=SC2016 # texts are for the shell that runs them
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need python3 strace
lab_enter "$@"
lab_start builder
lab_config
ulimit -c 0 # some die of SIGXFSZ
IN=$LAB/in # what each way starts with
SMALL=$LAB/small
export SMALL
mkdir -p "$IN" "$SMALL"
printf '#include <stdio.h>\nint f(void) { return puts("x"); }\n' >"$IN/a.c"
{
	cat "$IN/a.c"
	for i in {1..12000}; do
		echo "int function_number_$i(int argument) { return argument + $i; }"
	done
} >"$IN/big.c"
for i in {1..3000}; do
	echo "int f$i(void) { int unused_$i; return $i; }"
done >"$IN/warn.c"

# Runs the command with an empty disk of 64 KB at $SMALL.
with_disk() { # CMD...
	mount -t tmpfs -o size=64k lab-small "$SMALL"
	(
		trap 'umount -l "$SMALL"' EXIT
		"$@"
	)
}

# WAY: what runs instead of $C.
go() { # WAY NAME TEXT
	with_disk go_there "$@"
}

go_there() {
	local rc=0
	rm -rf "$WS/case"
	cp -a "$IN" "$WS/case"
	# Some compile 12000 functions, which a busy machine takes long for.
	(cd "$WS/case" && C=$1 timeout $((6 * LAB_LIMIT)) bash -c "$3") >"$LAB/$2.out" 2>"$LAB/$2.err" </dev/null || rc=$?
	echo "exit status $rc" >>"$LAB/$2.out"
	rm -rf "${LAB:?}/$2.files"
	cp -a "$WS/case" "$LAB/$2.files"
	cp -a "$SMALL" "$LAB/$2.files/"
}

same() { # WRAPPER TEXT
	echo "$2"
	go '' plain "$2"
	go "$1" ours "$2"
	tail -n 2 "$LAB/ours.out" "$LAB/ours.err" | cut -c 1-200
	expect_same_file "$LAB/plain.out" "$LAB/ours.out"
	expect_same_file "$LAB/plain.err" "$LAB/ours.err"
	diff -r "$LAB/plain.files" "$LAB/ours.files" || fail "files differ"
}

each() { # WRAPPER: a way in each line
	local text
	while IFS= read -r text; do
		same "$1" "$text"
	done
}

full() {
	each concc-cc <<-'END'
		$C gcc -E big.c >/dev/full
		$C gcc -E big.c >/dev/full 2>&1
		$C gcc -Wall -c warn.c -o o 2>/dev/full
		$C gcc -Wall -E warn.c >/dev/full
		$C gcc -c a.c -o o >/dev/full 2>/dev/full
		$C gcc -E big.c >$SMALL/f
		$C gcc -E big.c >>$SMALL/f
		$C gcc -E big.c >$SMALL/f 2>&1
		echo before >$SMALL/f; $C gcc -E big.c >>$SMALL/f
		{ echo before; $C gcc -E big.c; echo $?; } >$SMALL/f
		{ echo before; $C gcc -E big.c; echo $?; } >>$SMALL/f
		$C gcc -Wall -c warn.c -o o 2>$SMALL/f
		(ulimit -f 8; $C gcc -E big.c >f)
		(trap '' XFSZ; ulimit -f 8; $C gcc -E big.c >f)
	END
}

closed() {
	each concc-cc <<-'END'
		$C gcc -E a.c >&-
		$C gcc -E a.c >&- 2>&-
		$C gcc -Wall -c warn.c -o o 2>&-
		$C gcc -c a.c -o o <&- >&- 2>&-
		$C gcc -E a.c 1<a.c
	END
	each concc-dispatch <<-'END'
		$C sh -c 'exit 3' <&- >&- 2>&-
		$C cat a.c >&-
		$C sh -c 'echo out; echo err >&2; exit 5' >&-
		$C sh -c 'echo out; echo err >&2; exit 5' 2>&-
	END
}

# What the command does besides happens once.
once() {
	each concc-dispatch <<-'END'
		$C sh -c 'echo run >>log; echo x' >/dev/full
		$C sh -c 'echo run >>log; echo x; echo on >>log; exit 4' >/dev/full
		$C sh -c 'echo run >>log; cat big.c; echo $? >>log' >$SMALL/f
		$C sh -c 'echo run >>log; echo said >&2; cat big.c' >$SMALL/f
		$C sh -c 'echo run >>log; echo x' >&-
		$C sh -c 'mkdir d; echo x' >/dev/full
	END
}

# The job has ended long before the reader of its output goes away: nothing of it is here yet.
ended_then_lost() {
	local pid first rc=0
	cp "$IN/big.c" .
	rm -f log "$LAB/pipe"
	mkfifo "$LAB/pipe"
	concc-dispatch sh -c 'echo run >>log; head -c 100000 big.c' >"$LAB/pipe" &
	pid=$!
	exec 5<"$LAB/pipe"
	read -r -n 1 -u 5 first
	expect_eq "what it says first" "$first" '#'
	for _ in {1..5}; do
		concc-dispatch true
	done
	expect_no_file log
	exec 5<&-
	wait $pid || rc=$?
	expect_eq "its status" $rc 141
	expect_eq "how often it ran" "$(wc -l <log)" 1
}

readers() {
	each concc-cc <<-'END'
		$C gcc -E big.c | head -n 1; echo "${PIPESTATUS[0]}"
		trap '' PIPE; $C gcc -E big.c | head -n 1; echo "${PIPESTATUS[0]}"
		$C gcc -Wall -c warn.c -o o 2>&1 | head -n 3; [ "${PIPESTATUS[0]}" != 0 ] && echo failed
	END
	each concc-dispatch <<-'END'
		$C sh -c 'while echo y; do :; done; echo end >>log; exit 7' | head -n 1; echo "${PIPESTATUS[0]}"
		trap '' PIPE; $C sh -c 'while echo y; do :; done; echo end >>log; exit 7' | head -n 1; echo "${PIPESTATUS[0]}"
		$C sh -c 'echo start; echo run >>log; cat big.c; echo end >>log' | head -n 1; echo "${PIPESTATUS[0]}"
		$C sh -c 'cat big.c; echo end >>log; cat big.c' | head -c 100000 | md5sum; echo "${PIPESTATUS[0]}"
		$C cat big.c | (dd bs=1 count=70000 status=none; cat) | md5sum
		$C cat big.c big.c big.c | (read -r line; echo "$line"; cat) | md5sum
	END
}

# One file for both, opened once or twice: with one position, with two, or always at its end.
one_file_for_both() {
	each concc-dispatch <<-'END'
		$C sh -c 'echo aaaaaa; echo b >&2; echo c' >f 2>&1; cat f
		$C sh -c 'echo aaaaaa; echo b >&2; echo c' >f 2>f; cat f
		$C sh -c 'echo aaaaaa; echo b >&2; echo c' >>f 2>>f; cat f
		echo old >f; $C sh -c 'echo aaaaaa; echo b >&2; echo c' 1<>f 2>&1; cat f
		echo older, longer >f; $C sh -c 'echo aaaaaa; echo b >&2' 1<>f 2<>f; cat f
	END
	each concc-cc <<-'END'
		$C gcc -Wall -c warn.c -o o >f 2>f; md5sum f
	END
}

# The reader of one of them is gone, the other's is not.
other_stream() {
	each concc-dispatch <<-'END'
		$C sh -c 'echo e >&2; cat big.c; echo f >&2; echo g >&2; cat big.c; exit 9' 2>err | head -n 1; echo "${PIPESTATUS[0]}"; cat err
		{ $C sh -c 'cat big.c; cat big.c >&2; echo last' 2>&1 >&3 | head -n 1; } 3>out; md5sum out
	END
}

unreadable() {
	each concc-cc <<-'END'
		$C gcc -x c -c - -o o </
		$C gcc -x c -c - -o o <&-
		$C gcc -x c -c - -o o 0>written
		$C gcc -x c -c - -o o <a.c
		$C gcc -x c -c - -o o </dev/null
		$C gcc -c a.c -o o <&-
	END
	each concc-dispatch <<-'END'
		$C cat </
		$C cat <&-
		$C cat 0>written
		$C sh -c 'echo run >>log; cat' </
	END
}

input() {
	each concc-dispatch <<-'END'
		{ $C cat >a; cat >b; } <big.c
		{ read -r line; $C cat; echo end; } <big.c
		cat big.c | $C cat
		{ echo one; cat big.c; } | $C sh -c 'head -n 1; echo run >>log; cat >/dev/null'
		head -c 3000000 /dev/zero | $C md5sum
	END
}

# Others read it after the job: no more of it is gone than the job has read.
shared_input() {
	each concc-dispatch <<-'END'
		printf 'x\ny\nz\n' >list; while read -r n; do $C touch $n; done <list
		printf 'x\ny\nz\n' | while read -r n; do $C touch $n; done
		(for n in x y z; do echo $n; $C true; done) | while read -r n; do $C touch $n; done
		printf 'a\nb\nc\n' | { $C sh -c 'read -r l; echo $l'; $C sh -c 'read -r l; echo $l'; cat; }
		cat big.c | { $C head -c 10; echo; $C head -c 100000; md5sum; }
		cat big.c | { $C dd bs=1 count=70000 status=none | md5sum; $C true; md5sum; }
		{ $C dd bs=1 count=300 status=none; $C true; md5sum; } <big.c
		cat big.c big.c big.c big.c | while IFS= read -r -N 100000 n; do $C true; echo ${#n}; done
		printf 'echo one\n$C touch made\necho two\n$C sh -c "read -r l; echo \$l"\ntaken\necho end\n' | C="$C" sh
		printf 'echo one\n$C touch made\necho two\n' >script; C="$C" sh <script
		(exec 3<big.c; $C head -c 100 <&3; $C true <&3; md5sum <&3)
		head -c 70000 big.c | { head -c 30000; $C sh -c 'exit 3'; echo $?; cat; } | md5sum
		mkfifo p; (cat big.c >p &); { $C dd bs=1 count=5 status=none; $C true; md5sum; } <p; rm p
	END
	# A file that is not large is one in the job, too.
	each concc-dispatch <<-'END'
		printf 'a\nb\nc\n' >l; { $C head -n 1; cat; } <l
		printf 'a\nb\nc\n' >l; { $C tail -c 2; cat; } <l
		printf 'a\nb\nc\n' >l; { $C sh -c 'read -r x; echo $x'; $C cat; } <l
		$C stat -L -c '%F %s' /dev/stdin <a.c
		$C python3 -c 'import sys; sys.stdin.seek(5); print(sys.stdin.read()); print(sys.stdin.tell())' <a.c
		$C python3 -c 'import mmap; print(mmap.mmap(0, 0, prot=mmap.PROT_READ)[:9])' <a.c
		{ $C python3 -c 'import os; os.lseek(0, 7, 0)'; cat; } <a.c
		{ $C python3 -c 'import os; os.read(0, 7); os.lseek(0, 0, 0)'; cat; } <a.c
		$C sh -c 'cat /dev/stdin /dev/stdin' <a.c
		$C cat <$SMALL/nosuch; : >empty; $C cat <empty; $C stat -L -c '%F' - <empty
		head -c 262143 big.c >f; $C md5sum <f
		head -c 262144 big.c >f; $C md5sum <f
		head -c 262145 big.c >f; $C md5sum <f
		$C cat <>a.c
	END
	each concc-cc <<-'END'
		$C gcc -x c -c - -o o <a.c
		printf 'a.c\nbig.c\n' | while read -r n; do $C gcc -c $n -o $n.o; done; ls
		printf 'int g;\n' | { $C gcc -x c -c - -o o; cat; }
		printf 'int g;\n' | $C gcc -include /dev/stdin -c a.c -o o
		printf '#define f g\n' | $C gcc -imacros/dev/fd/0 -c a.c -o o
		echo '-x c -' >args; $C gcc -c @args -o o <a.c
		gcc -c a.c; echo section | $C objcopy --add-section x=/dev/stdin a.o o
		echo 'echo here; exit 3' | $C sh
		seq 3 | $C sort -r; seq 3 | { $C sh -c 'read -r x; echo $x'; cat; }
	END
}

# The same of a socket, which is looked at in another way.
shared_socket() {
	cat >"$LAB/shared.py" <<-'END'
		import socket, subprocess, sys
		ours, theirs = socket.socketpair()
		ours.sendall(b'one\ntwo\n' + b'x' * 100000)
		ours.shutdown(socket.SHUT_WR)
		for text in 'read -r l; echo $l', 'true', 'read -r l; echo $l':
		    print(subprocess.run(sys.argv[1:] + ['sh', '-c', text], stdin=theirs, stdout=subprocess.PIPE).stdout)
		print(len(theirs.makefile('rb').read()))
	END
	expect_eq "what each reads" "$(timeout "$LAB_LIMIT" python3 "$LAB/shared.py" concc-dispatch)" \
		"$(python3 "$LAB/shared.py")"
}

# What is kept for another try is on the disk, and there for it.
kept() {
	local pid fd file memory=0 disk=0
	rm -f "$LAB/fifo"
	mkfifo "$LAB/fifo"
	CONCC_EXPLAIN=1 TMPDIR=$LAB concc-dispatch md5sum <"$LAB/fifo" >"$LAB/out" 2>"$LAB/err" &
	pid=$!
	exec 6>"$LAB/fifo"
	head -c 20000000 /dev/zero >&6
	for fd in "/proc/$pid/fd/"*; do
		file=$(readlink "$fd")
		case $file in
		/memfd:*) memory=$((memory + $(stat -L -c %s "$fd"))) ;;
		"$LAB"/*' (deleted)') disk=$((disk + $(stat -L -c %s "$fd"))) ;;
		esac
	done
	expect_le "bytes kept in memory" "$memory" 1048576
	expect_ge "bytes kept on the disk" "$disk" 19000000
	lab_hang_up 1
	head -c 20000000 /dev/zero >&6
	exec 6>&-
	wait $pid || fail "status $?"
	cat "$LAB/err"
	expect_eq "digest" "$(cat "$LAB/out")" "$(head -c 40000000 /dev/zero | md5sum)"
	expect_grep '^concc: worker w1 was lost' "$LAB/err"
	lab_stop_server # another one connects at once
}

# Where it can't be kept the command runs here, with all of it.
not_kept() {
	head -c 5000000 /dev/urandom >"$LAB/random"
	with_disk not_kept_there
}

not_kept_there() {
	(
		cat "$LAB/random"
		echo end
	) | CONCC_EXPLAIN=1 TMPDIR=$SMALL concc-dispatch md5sum >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep "^concc: local: input .*can't be kept.*: No space left" "$LAB/err"
	expect_eq "digest" "$(cat "$LAB/out")" "$(cat "$LAB/random" <(echo end) | md5sum)"
	expect_eq "files left" "$(ls -A "$SMALL")" ''
}

# A socket's errors are errors, also behind input that a job has read already.
socket_input() {
	cat >"$LAB/reset.py" <<-'END'
		import os, socket, subprocess, sys, tempfile
		how = sys.argv[1]
		listener = socket.create_server(('127.0.0.1', 0))
		client = socket.create_connection(listener.getsockname())
		server, _ = listener.accept()
		p = subprocess.Popen(sys.argv[2:], stdin=server.fileno(), stdout=subprocess.PIPE)
		server.send(b'unread')
		server.close()
		client.sendall(b'first line\n')
		# The job has read that.
		said = p.stdout.readline()
		if how == 'reset':
		    client.close() # with something unread
		else:
		    client.recv(6)
		    client.close()
		print(said, p.stdout.read(), p.wait())
	END
	for how in reset end; do
		expect_eq "$how" "$(timeout "$LAB_LIMIT" python3 "$LAB/reset.py" $how concc-dispatch cat 2>/dev/null)" \
			"$(timeout "$LAB_LIMIT" python3 "$LAB/reset.py" $how cat 2>/dev/null)"
	done
}

# No server is asked for what can't be said to one.
too_long() {
	local dir args vars where
	cp "$IN/a.c" .
	cat >"$LAB/long.py" <<-'END'
		import os, resource, subprocess, sys
		resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY,) * 2)
		env = dict(os.environ)
		args = ['x' * 100000] * int(sys.argv[1])
		env.update(('LONG%d' % i, 'x' * 100000) for i in range(int(sys.argv[2])))
		sys.exit(subprocess.run(['concc-dispatch', 'sh', '-c', 'echo $#', 'sh'] + args, env=env).returncode)
	END
	while read -r args vars where; do
		CONCC_EXPLAIN=1 python3 "$LAB/long.py" "$args" "$vars" </dev/null >"$LAB/out" 2>"$LAB/err" || fail "status $?"
		cat "$LAB/err"
		expect_eq "its output" "$(cat "$LAB/out")" "$args"
		expect_grep "^concc: $where" "$LAB/err"
		expect_eq "lines" "$(wc -l <"$LAB/err")" 1
	done <<-'END'
		10 5 remote on w1$
		18 0 remote on w1$
		30 0 local: too-long .the arguments with the environment.$
		0 50 local: too-long .the arguments with the environment.$
		25 20 local: too-long .the arguments with the environment.$
	END
	CONCC_EXPLAIN=1 CONCC_WORKSPACE=$WS$(printf ':/srv/%.0s' {1..1000}) concc-cc gcc -c a.c 2>"$LAB/err"
	expect_eq "a long list" "$(cat "$LAB/err")" "concc: local: too-long (CONCC_WORKSPACE)"
	dir=$(printf 'd%.0s' {1..200})
	mkdir deep
	cd deep
	for _ in {1..21}; do
		mkdir "$dir"
		cd "$dir"
	done
	cp "$IN/a.c" .
	CONCC_EXPLAIN=1 concc-cc gcc -c a.c 2>"$LAB/err" || fail "status $?"
	cat "$LAB/err"
	expect_grep '^concc: local: too-long .the path of the current directory.$' "$LAB/err"
	expect_eq "lines" "$(wc -l <"$LAB/err")" 1
	expect_file a.o
	printf '#!/bin/sh\necho here\n' >s
	chmod +x s
	expect_eq "a script there" "$(concc-dispatch ./s)" here
	cd "$WS"
	rm -rf deep
}

# Its reader is slow: nothing is lost, whatever the descriptor says of waiting.
nonblocking() {
	local way
	cat >"$LAB/nonblock.py" <<-'END'
		import os, socket, subprocess, sys
		if sys.argv[1] == 'pipe':
		    r, w = os.pipe()
		else:
		    a, b = socket.socketpair()
		    r, w = a.detach(), b.detach()
		os.set_blocking(w, False)
		p = subprocess.Popen(sys.argv[2:], stdout=w)
		os.close(w)
		got = b''
		while True:
		    part = os.read(r, 509)
		    if not part:
		        break
		    got += part
		sys.stdout.buffer.write(got)
		sys.exit(p.wait())
	END
	cd "$IN"
	gcc -E big.c >"$LAB/want"
	cd "$WS"
	cp "$IN/big.c" .
	for way in pipe socket; do
		timeout $((3 * LAB_LIMIT)) python3 "$LAB/nonblock.py" $way concc-cc gcc -E big.c >"$LAB/got" ||
			fail "$way: status $?"
		expect_same_file "$LAB/want" "$LAB/got"
	done
}

# What was shown by a job that then came home is left out; who takes no more of the rest is told so.  By
# concc-cc, whose jobs' output is shown as it comes.
shown_then_home() {
	local text='echo a; [ -z "$CONCC_WORKER" ] || { echo x >/tmp/left; exit; }'
	expect_eq "a reader that goes" \
		"$(timeout "$LAB_LIMIT" concc-cc sh -c "$text; exec yes" 2>/dev/null | head -n 3 | tr '\n' ' ')" \
		"a y y "
	timeout "$LAB_LIMIT" bash -c 'concc-cc sh -c "$1; cat big.c; echo on >&2" 2>"$2" | head -n 1
		exit "${PIPESTATUS[0]}"' - "$text" "$LAB/err" || fail "status $?"
	expect_grep '^on$' "$LAB/err"
	cp "$IN/big.c" .
	with_disk shown_then_full "$text; cat big.c"
	rm -f /tmp/left
}

shown_then_full() { # TEXT
	local rc=0
	timeout "$LAB_LIMIT" concc-cc sh -c "$1" >"$SMALL/f" 2>"$LAB/err" || rc=$?
	cat "$LAB/err"
	expect_eq "exit status" $rc 141
	expect_grep '^concc: standard output: No space left' "$LAB/err"
	expect_eq "the first line" "$(head -n 1 "$SMALL/f")" a
	expect_eq "the second line" "$(sed -n 2p "$SMALL/f")" "$(sed -n 1p big.c)"
}

# Nothing of ours is opened in the place of a standard descriptor that the caller left closed.
own_descriptors() {
	local words
	concc-dispatch true
	while read -ra words; do
		echo "${words[*]}"
		timeout "$LAB_LIMIT" strace -o "$LAB/strace" -e trace=execve,desc,network,memory "${words[@]}" \
			<&- >&- 2>&- || true
		# What it becomes opens what it likes.
		awk '/^execve/ && n++ { exit } { print }' "$LAB/strace" >"$LAB/calls"
		expect_grep '^open(at)?\(.*O_PATH.* = 2$' "$LAB/calls"
		sed '1,/O_PATH.* = 2$/d' "$LAB/calls" >"$LAB/opened"
		expect_no_grep '^(open|openat|socket|memfd_create|epoll_create1|signalfd4|timerfd_create|eventfd2|inotify_init1|dup)\(.* = [012]$' \
			"$LAB/opened"
		expect_no_grep '^(pipe2?|socketpair)\(.*\[([012],|[0-9]+, [012]\])' "$LAB/opened"
	done <<-'END'
		concc-cc gcc -c a.c
		concc-cc gcc --version
		concc-dispatch true
		concc run -- true
		concc status
		concc -j
		concc-scriptify true
		concc-worker-pool status
		concc-worker-pool allocate -- true
		concc-plain --mirror=none nowhere
		concc-project --no-such-option
		concc-worker --stdio
		concc stop
	END
}

check "nothing is lost on the way to a reader who is slow" nonblocking
check "a disk that is full" full
check "descriptors that are closed, or for reading" closed
check "what a command does besides printing" once
check "a reader that goes away after the job has ended" ended_then_lost
check "readers that go away" readers
check "one file for both outputs" one_file_for_both
check "one of two readers goes away" other_stream
check "input that can't be read" unreadable
check "input from files and pipes" input
check "input that others read after the job" shared_input
check "a socket that others read after the job" shared_socket
check "input that is kept" kept
check "input that can't be kept" not_kept
check "input that ends with an error" socket_input
check "what is too long for a message" too_long
check "a job that was shown and came home" shown_then_home
check "no descriptor of ours below 3" own_descriptors
lab_stop
