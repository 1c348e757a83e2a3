#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A client that lies to a worker, in every way that test/hostile/evil-client knows: the worker says
# once why, ends the link and itself, and leaves nothing.  Then local processes that write nonsense
# to the project server's socket and pool.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_enter "$@"
EVIL=$LAB_BUILD/test/hostile/evil-client
lab_mounts >"$LAB/mounts"
mkdir -m 777 /srv/c # a worker is not root, and can enter no directory of root
sha256sum /etc/passwd >"$LAB/etc.sum"

expected() { # SCENARIO: the message that the worker ends the link for, or its words
	case $1 in
	no-hello) echo 'ENV' ;;
	hello-twice | top-*) echo 'HELLO' ;;
	other-version | old-version) echo '' ;;
	greeting-never) echo 'no client greeted within 64 KB of input' ;;
	noise-frames) echo 'malformed frame' ;;
	half-frame) echo 'no answer for' ;;
	name-* | dir-count | dir-error-* | dir-id-* | dir-unclean) echo 'DIR' ;;
	update-dotdot) echo 'UPDATE' ;;
	serve-*) echo 'SERVE' ;;
	content-*) echo 'CONTENT' ;;
	job-cwd-outside | job-nested | job-no-[ec]* | job-twice) echo 'JOB' ;;
	env-*) echo 'ENV' ;;
	exe-*) echo 'EXE' ;;
	caller-*) echo 'CALLER' ;;
	giant-message) echo 'JOB' ;;
	link-*) echo 'LINK' ;;
	kill-odd) echo 'JOB_KILL' ;;
	credit-*) echo 'JOB_CREDIT' ;;
	input-*) echo 'JOB_INPUT' ;;
	workers-words) echo 'LIST' ;;
	any-order*) echo 'message [A-Z_?]+ .*from the peer' ;;
	# What is right, or of no use, is taken: the end is the unknown message.
	*) echo '[?]' ;;
	esac
}

start() { # SCENARIO
	mkdir -m 777 "/srv/c/$1"
	(
		rc=0
		cd /
		export CONCC_CACHE_DIR=/srv/c/$1/cache
		"$EVIL" "$1" "$LAB_BIN/concc-worker" --stdio >"/srv/c/$1/out" 2>"/srv/c/$1/err" </dev/null || rc=$?
		echo "$rc" >"/srv/c/$1/rc"
	) &
}

refused() { # SCENARIO
	local dir=/srv/c/$1 word
	word=$(expected "$1")
	cat "$dir/out" "$dir/err"
	expect_eq "exit status" "$(cat "$dir/rc")" 0
	if [ -z "$word" ]; then
		word="the worker's"
		[ "$1" = other-version ] || word="the client's"
		expect_grep "^bye: .*: upgrade $word" "$dir/out"
	else
		[[ $word == *' '* ]] || word="message $word \([0-9]+\) from the peer"
		expect_grep "$word" "$dir/err"
		expect_eq "times it was said" "$(grep -Ec "$word" "$dir/err")" 1
	fi
	case $1 in
	# Mounted over the job's own view of it, and nobody else's.
	job-at-etc | job-at-tmp) expect_grep '^job 1 ended: how [0-3] ' "$dir/out" ;;
	job-at-*) expect_grep '^job 1 ended: how [23] ' "$dir/out" ;;
	job-killed) expect_grep '^job 1 ended: how 3 ' "$dir/out" ;;
	esac
}

nothing_left() {
	expect_gone "left by workers" $(lab_leftovers)
	lab_mounts | diff "$LAB/mounts" - || fail "mounts left"
	sha256sum -c --quiet "$LAB/etc.sum"
}

# ---- the socket and the pool ----

serve_here() {
	cat >/srv/concc.ini <<-END
		[concc]
		workspace = $WS

		[worker here]
		address = local:
		program = $LAB_BIN/concc-worker
		slots = 2
	END
	echo right >"$WS/a"
	rm -f "$WS/b"
	CONCC_EXPLAIN=1 concc-dispatch cp a b 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	cat "$LAB/err"
	expect_same_file "$WS/a" "$WS/b"
}

still_serves() {
	rm -f "$WS/b"
	CONCC_EXPLAIN=1 concc-dispatch cp a b 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_same_file "$WS/a" "$WS/b"
	expect_grep '^concc: remote on here' "$LAB/err"
}

say_nonsense() {
	local pid
	pid=$(lab_server_pid)
	python3 - "$LAB_REPO"/test/fuzz/corpus/{socket,frames}/* <<-'END'
		import socket, sys
		for name in sys.argv[1:]:
		    if "stop" in name:
		        continue
		    s = socket.socket(socket.AF_UNIX)
		    s.settimeout(20)
		    s.connect("/srv/run/project.sock")
		    try:
		        s.sendall(open(name, "rb").read())
		        s.shutdown(socket.SHUT_WR)
		        while s.recv(65536):
		            pass
		    except (ConnectionError, OSError) as e:
		        if isinstance(e, TimeoutError):
		            raise
	END
	expect_eq "the server" "$(lab_server_pid)" "$pid"
	still_serves
}

other_user() {
	expect_eq "mode of the directory" "$(stat -c %a /srv/run)" 700
	! setpriv --reuid 1717 --regid 1717 --clear-groups python3 -c '
		import socket
		socket.socket(socket.AF_UNIX).connect("/srv/run/project.sock")' 2>/dev/null ||
		fail "another user can connect"
}

garbage_in_the_pool() {
	local f
	for f in "$LAB_REPO"/test/fuzz/corpus/pool/{empty,text,member-huge,member-slash,lines}; do
		lab_stop_server
		cp "$f" /srv/run/pool
		: >"/srv/run/slots/here.99999999999"
		: >"/srv/run/slots/..x"
		rm -f "$WS/b"
		concc-dispatch cp a b || fail "with $f"
		expect_same_file "$WS/a" "$WS/b"
	done
}

# One order is told by its seed: SEED=N for that alone.
scenarios=$("$EVIL" list | grep -v '^any-order'
	printf 'any-order.%s\n' ${SEED:-$(shuf -i 1-1000000000 -n "${SEEDS:-24}")})
n=0
for s in $scenarios; do
	start "$s"
	# A dozen at once: each is a worker with its mounts and threads.
	[ $((++n % 12)) -ne 0 ] || wait
done
wait
for s in $scenarios; do
	check "$s" refused "$s"
done
check "workers leave nothing" nothing_left
check "a job by a server here" serve_here
check "nonsense at the socket" say_nonsense
check "another user can't connect" other_user
check "garbage in the pool" garbage_in_the_pool
lab_stop
