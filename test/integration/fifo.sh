#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck disable=SC2094
#
# Fifos, sockets and devices, in a workspace and elsewhere: what can't travel makes the job run here, for a
# reason that it says, and never hang.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need python3
LAB_ROOT=client
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"
printf '#include <stdio.h>\nint f(void) { return puts(WORD); }\n' >a.c
echo '#define WORD "by hand"' >word.h
gcc -include word.h -c a.c -o "$LAB/a.o"
printf -- '-include\nword.h\n' >word.rsp

# Runs the command, which must end well, and must have run here for this rule; or "remote".
ends() { # RULE CMD...
	local rule=$1 rc=0
	shift
	rm -f a.o
	CONCC_EXPLAIN=1 timeout 60 "$@" 2>"$LAB/err" </dev/null || rc=$?
	cat "$LAB/err"
	expect_eq "status of $*" $rc 0
	expect_eq "what it says" "$(grep -v '^concc: ' "$LAB/err")" ''
	case $rule in
	remote) expect_eq "remote jobs" "$(explained_remote "$LAB/err")" 1 ;;
	*) expect_grep "^concc: local: $rule " "$LAB/err" ;;
	esac
}

# Somebody writes it, as soon as somebody reads.
feed() { # FILE FIFO
	cat "$1" >"$2" &
	FEEDER=$!
}

fed() {
	expect_gone "who writes into the fifo" "$FEEDER"
	expect_same_file a.o "$LAB/a.o"
}

included() {
	mkfifo ff
	feed word.h ff
	ends special-file concc-cc gcc -include ff -c a.c
	fed
	# By a link, and in a directory of its own.
	mkdir -p sub
	mkfifo sub/ff
	ln -s sub/ff link
	feed word.h sub/ff
	ends special-file concc-cc gcc -include link -c a.c
	fed
	expect_grep 'the job looked for /srv/ws/sub/ff, which is a fifo, socket or device' "$LAB/err"
}

# gcc reads no arguments from a fifo (it asks for the size first), and says so from here, too.
response_file() {
	local plain=0 ours=0
	mkfifo rsp
	exec 5<>rsp # so that nobody waits for who opens the other end
	cat word.rsp >&5
	gcc @rsp -c a.c 2>"$LAB/plain" || plain=$?
	CONCC_EXPLAIN=1 timeout 60 concc-cc gcc @rsp -c a.c 2>"$LAB/err" || ours=$?
	exec 5<&-
	expect_grep '^concc: local: args-file ' "$LAB/err"
	expect_eq "status" $ours $plain
	sed '/^concc: /d' "$LAB/err" | diff - "$LAB/plain" || fail "it says something else"
}

# A file turns into one, and one into a file.
turns() {
	cp word.h turn.h
	ends remote concc-cc gcc -include turn.h -c a.c
	rm turn.h
	mkfifo turn.h
	feed word.h turn.h
	ends special-file concc-cc gcc -include turn.h -c a.c
	fed
	rm turn.h
	cp word.h turn.h
	ends remote concc-cc gcc -include turn.h -c a.c
	expect_same_file a.o "$LAB/a.o"
}

outside() {
	mkdir -p /srv/elsewhere
	mkfifo /srv/elsewhere/ff /tmp/concc-test-ff
	feed word.h /srv/elsewhere/ff
	ends 'unserved|missing' concc-cc gcc -include /srv/elsewhere/ff -c a.c
	fed
	feed word.h /tmp/concc-test-ff
	ends tmp-output concc-cc gcc -include /tmp/concc-test-ff -c a.c
	fed
	feed word.h /tmp/concc-test-ff
	ends unserved concc-dispatch gcc -include /tmp/concc-test-ff -c a.c
	fed
	rm -r /srv/elsewhere /tmp/concc-test-ff
}

# What a shell's <(...) is.
descriptors() {
	ends tmp-output concc-cc gcc -include <(cat word.h) -c a.c
	expect_same_file a.o "$LAB/a.o"
	ends descriptor concc-dispatch gcc -include <(cat word.h) -c a.c
	expect_same_file a.o "$LAB/a.o"
}

others() {
	python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
	ends special-file concc-dispatch test -S sock
	mknod null c 1 3
	ends special-file concc-dispatch cat null
	mknod block b 7 200
	ends special-file concc-dispatch test -b block
	rm -f null block
}

# That they are there is no reason.
listed() {
	ends remote concc-dispatch sh -c 'ls >list'
	expect_grep '^ff$' list
	expect_grep '^sock$' list
	ends remote concc-dispatch sh -c 'find . -name "*.h" >list'
	expect_grep 'word.h' list
	ends remote concc-cc gcc -I. -Isub -include word.h -c a.c
	expect_same_file a.o "$LAB/a.o"
}

# A job's own lead to itself.
own() {
	ends remote concc-dispatch sh -c 'mkdir own; cd own; mkfifo p; cat ../word.h >p & cat p >read; rm p; mkfifo p'
	expect_same_file own/read word.h
	[ -p own/p ] || fail "its fifo did not come home"
}

# Only the one that looks is ended: another that runs meanwhile stays where it is.
by_the_way() {
	local line='' in out rc=0
	mkfifo "$LAB/to" "$LAB/from"
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo held; read -r go; cat word.h' \
		<"$LAB/to" >"$LAB/from" 2>"$LAB/other" &
	exec {in}>"$LAB/to" {out}<"$LAB/from"
	read -r -t "$LAB_LIMIT" line <&"$out" || fail "the other job does not start"
	feed word.h ff
	ends special-file concc-cc gcc -include ff -c a.c
	fed
	echo go >&"$in"
	exec {in}>&-
	expect_eq "what the other says" "$(cat <&"$out")" "$(cat word.h)"
	exec {out}<&-
	wait $! || rc=$?
	cat "$LAB/other"
	expect_eq "the other's status" $rc 0
	expect_eq "remote jobs" "$(explained_remote "$LAB/other")" 1
}

check "a fifo that is included" included
check "a fifo with arguments" response_file
check "a file turns into a fifo, and back" turns
check "a fifo outside every workspace" outside
check "descriptors by name" descriptors
check "sockets and devices" others
check "they are listed" listed
check "a job's own fifo" own
check "a job that looks up none goes on" by_the_way
lab_stop
