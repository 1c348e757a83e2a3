#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Whatever changes on the client, the next job sees exactly that.  SEED=n repeats a run, STEPS=n
# makes it longer, LAB_MEMORY= has the files on the disk.
# limit: 400
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_MEMORY=${LAB_MEMORY-1} # tens of thousands of files come and go
LAB_SLOTS=1 # two jobs at once are on two workers
STEPS=${STEPS:-2000}
lab_need git
lab_enter "$@"
lab_start builder root
lab_config
SEED=${SEED:-$RANDOM$RANDOM}

# Random steps and looks; the words before the command go to env(1).
random_steps() { # DIR STEPS [NAME=VALUE...]
	local dir=$WS/$1 steps=$2
	shift 2
	mkdir "$dir"
	echo "seed $SEED"
	env "$@" "$LAB_TOOLS/coherence" "$dir" "$steps" "$SEED" concc-dispatch ||
		fail "$(grep '^FAIL' "$LAB/check.log" | tail -n 1)"
	rm -rf "$dir"*
}

# The server finds its queue overflowed, again and again.
random_floods() {
	random_steps floods $((STEPS / 8)) FLOOD=8
}

# A user namespace of its own has a limit of its own, which the server can't raise.  Two jobs look at
# once, so with times alone to go by, a file that is read while the second is dispatched within the
# same tick of the clock may be another version by then, and the look is made at home (status 2).
random_unwatched() {
	local rc=0
	lab_stop_server
	mkdir "$WS/unwatched"
	unshare -Ur sh -c 'echo 6 >/proc/sys/user/max_inotify_watches && exec "$@"' - \
		"$LAB_TOOLS/coherence" "$WS/unwatched" $((STEPS / 8)) "$SEED" concc-dispatch || rc=$?
	[ $rc -eq 0 ] || [ $rc -eq 2 ] || fail "$(grep '^FAIL' "$LAB/check.log" | tail -n 1)"
	lab_stop_server
	rm -rf "$WS/unwatched"*
}

# What a header that is not there yet, or that hides another one, means to the compiler.
headers_that_appear() {
	local i
	mkdir -p "$WS/headers/first" "$WS/headers/second"
	cd "$WS/headers"
	echo '#define WHICH second' >second/which.h
	printf '#if __has_include("maybe.h")\n#include "maybe.h"\n#else\n#define MAYBE none\n#endif\n' >a.c
	printf '#include "which.h"\nMAYBE WHICH FORCED\n' >>a.c
	echo '#define FORCED yes' >forced.h
	for i in $(seq 10); do
		rm -f first/which.h maybe.h
		seen "none second yes"
		echo "#define MAYBE m$i" >maybe.h
		seen "m$i second yes"
		echo "#define WHICH first$i" >first/which.h
		seen "m$i first$i yes"
		mv maybe.h away.h
		seen "none first$i yes"
	done
	mv forced.h gone.h
	expect_status 1 concc-dispatch gcc -Ifirst -Isecond -include forced.h -E -P a.c 2>/dev/null
	mv gone.h forced.h
	seen "none first10 yes"
}

seen() { # TEXT
	expect_eq "what the compiler sees" \
		"$(concc-dispatch gcc -Ifirst -Isecond -include forced.h -E -P a.c | tail -n 1)" "$1"
}

# What a job on one worker makes, a job on the other uses at once.
made_here_used_there() {
	local i from to
	mkdir "$WS/made"
	cd "$WS/made"
	printf '#include "made.h"\nint made = MADE;\n' >a.c
	for i in $(seq 10); do
		from=$((i % 2 + 1)) to=$((2 - i % 2))
		CONCC_EXPLAIN=1 at_worker $from concc-dispatch sh -c \
			"printf '#define MADE $i\n' >made.h" 2>"$LAB/from"
		expect_grep "remote on w$from" "$LAB/from"
		CONCC_EXPLAIN=1 at_worker $to concc-dispatch sh -c \
			'gcc -E -P a.c | tail -n 1; rm made.h' >"$LAB/seen" 2>"$LAB/to"
		expect_grep "remote on w$to" "$LAB/to"
		expect_eq "what the other worker sees" "$(cat "$LAB/seen")" "int made = $i;"
		expect_no_file made.h
		at_worker $from concc-dispatch test ! -e made.h || fail "w$from still sees made.h"
	done
}

# Runs a script on a worker, which waits after its first line until the test has done what CMD says and
# the workers know; prints all it said.
halted() { # SCRIPT CMD...
	local script=$1 line='' rc=0 out in
	shift
	rm -f "$LAB/to" "$LAB/from"
	mkfifo "$LAB/to" "$LAB/from"
	CONCC_EXPLAIN=1 concc-dispatch sh -c "$script" <"$LAB/to" >"$LAB/from" 2>"$LAB/err" &
	exec {in}>"$LAB/to" {out}<"$LAB/from"
	read -r -t "$LAB_LIMIT" line <&"$out" || fail "the job does not say that it waits"
	"$@"
	# Its changes are told to all workers, before what the job reads on its input.
	concc-dispatch true
	echo go >&"$in"
	exec {in}>&-
	echo "$line"
	cat <&"$out"
	exec {out}<&-
	wait $! || rc=$?
	cat "$LAB/err" >&2
	[ $rc -eq 0 ] || fail "the job ended with status $rc"
}

# A job sees what it has seen once, whatever becomes of it on the client.
seen_is_seen() {
	mkdir -p "$WS/seen/d" && cd "$WS/seen"
	echo old >a.h && echo old >b.h && echo old >d/c.h && echo old >e.h
	change() {
		echo new >a.h && echo new >b.new && mv b.new b.h
		rm e.h && mv d d2 && mkdir d && echo new >d/c.h
	}
	expect_eq "what a job sees of files that change" \
		"$(halted 'cat a.h b.h d/c.h e.h >/dev/null; echo seen; read -r go
			cat a.h b.h d/c.h e.h; echo mine >>a.h.mine; cat a.h.mine' change | tr '\n' ' ')" \
		"seen old old old old mine "
	expect_eq "what the next one sees" "$(concc-dispatch cat a.h b.h d/c.h)" \
		"$(printf 'new\nnew\nnew')"
	expect_no_file e.h
}

# What it had seen is there no more when it looks for more: it runs again.
seen_in_part() {
	mkdir -p "$WS/part/d" && cd "$WS/part"
	echo old >d/a.h && echo old >d/b.h
	change() {
		mv d d2 && mkdir d && echo new >d/a.h && echo new >d/b.h
	}
	expect_eq "what a job sees in a directory that is gone" \
		"$(halted 'cat d/a.h >/dev/null; echo seen; read -r go; cat d/b.h' change | tr '\n' ' ')" \
		"seen new "
	expect_grep 'd could not be read by the job' "$LAB/err"
}

# What it said brought its files home, and the news of them back.
own_files_are_own() {
	mkdir -p "$WS/own" && cd "$WS/own"
	echo one >f && echo one >g
	expect_eq "what a job sees of its own" \
		"$(halted 'echo two >>f; echo two >g.new; mv g.new g; echo out; read -r go
			cat f g; echo three >>f; echo three >>g' true | tr '\n' ' ')" \
		"out one two two "
	expect_eq "what it left" "$(cat f g | tr '\n' ' ')" "one two three two three "
}

# It removed what it had made, when that was on its way home but not yet back as news.
own_files_go() {
	local server child line='' in out
	mkdir -p "$WS/gone" && cd "$WS/gone"
	cp "$LAB_TOOLS/hold" holdbin
	cat >job <<-'EOS'
		#!/bin/sh
		say() { head -c "$1" /dev/zero | tr '\0' x >&2; echo >&2; }
		say 1 # from now on nothing has to be fetched
		rm -f none
		trap : USR1
		./holdbin & # says so when it is that, and no shell any more
		wait
		mkdir d
		echo one >d/f
		echo two >g
		say 200000 # more than a pipe holds: they were found before all of it was read
		rm -r d g
		kill $!
		read -r go
		[ -e g ] && echo "g is back"
		ln -s target d
		echo end
	EOS
	chmod +x job
	rm -f "$LAB/to" "$LAB/from"
	mkfifo "$LAB/to" "$LAB/from"
	CONCC_EXPLAIN=1 concc-dispatch ./job <"$LAB/to" >"$LAB/from" 2>"$LAB/err" &
	exec {in}>"$LAB/to" {out}<"$LAB/from"
	read -r -t "$LAB_LIMIT" line <&"$out" || fail "the job does not start"
	server=$(lab_server_pid)
	child="$(lab_worker_pids 1 holdbin) $(lab_worker_pids 2 holdbin)"
	lab_suspend "$server"
	kill -USR1 $(lab_parent $child)
	expect_gone "the job's child" $child
	kill -CONT "$server"
	concc-dispatch true
	echo go >&"$in"
	exec {in}>&-
	expect_eq "it says" "$(cat <&"$out")" end
	exec {out}<&-
	wait $! || fail "exit status $?"
	grep '^concc: ' "$LAB/err"
	expect_eq "remote jobs" "$(explained_remote "$LAB/err")" 1
	expect_eq "what it left" "$(find . -type l -printf '%p %l ') $(ls)" "./d target  d
holdbin
job"
}

# Names, sizes and times of all files, and the bytes of some.
tell_all() {
	echo 'find . -path ./.git -prune -o -type f -printf "%p %s %m %T@\n" | LC_ALL=C sort | sha256sum
	cat d*/f1*7 | sha256sum'
}

same_everywhere() { # WHEN
	local n
	tell_all >"$LAB/tell"
	sh "$LAB/tell" >"$LAB/here"
	for n in 1 2; do
		at_worker $n concc-dispatch sh -c "$(tell_all)" >"$LAB/there"
		diff "$LAB/here" "$LAB/there" || fail "w$n sees something else $1"
	done
}

# 200 directories of 100 files: a branch switch replaces, adds and removes 20 000 files at once.
big_switch() {
	mkdir "$WS/big"
	cd "$WS/big"
	git init -q -b one .
	git config user.name test
	git config user.email test@localhost
	seq 200 | awk '{ printf "mkdir d%d\n", $1 }' | sh
	awk 'BEGIN { for (d = 1; d <= 200; d++) for (f = 1; f <= 100; f++) {
		file = "d" d "/f" f; printf "one %d %d\n", d, f > file; close(file) } }'
	git add . && git commit -qm one
	git checkout -q -b two
	awk 'BEGIN { for (d = 1; d <= 200; d++) for (f = 1; f <= 100; f++) {
		file = "d" d "/f" (f % 10 == 0 ? f + 1000 : f)
		printf "two %d %d\n", d, f > file; close(file) } }'
	rm -f d*/f[1-9]0 d*/f100
	git add -A . && git commit -qm two
	same_everywhere "at first"
	git checkout -q one
	same_everywhere "after the first switch"
	git checkout -q two
	same_everywhere "after the second switch"
}

# More changes than the kernel's queue takes, while nobody reads it.  (Its length is the whole
# machine's: others' tests run by it.)
overflow() {
	local i before
	lab_all_up
	mkdir "$WS/flood"
	cd "$WS/flood"
	for i in $(seq 50); do
		echo "old $i" >"f$i"
	done
	at_worker 1 concc-dispatch sh -c 'cat f* | wc -l; ls ..' >/dev/null
	at_worker 2 concc-dispatch sh -c 'cat f* | wc -l' >/dev/null
	before=$(lab_status .tree.overflows)
	lab_suspend "$(lab_server_pid)"
	yes 'f1 f2' | head -n "$(cat /proc/sys/fs/inotify/max_queued_events)" | xargs chmod 600
	for i in $(seq 50); do
		echo "new $i" >"f$i"
		echo "more" >"g$i"
		chmod 600 "f$i"
	done
	rm f7
	mkdir sub
	echo deep >sub/f
	kill -CONT "$(lab_server_pid)"
	for i in 1 2; do
		at_worker $i concc-dispatch sh -c 'cat f* g* sub/f; stat -c "%n %a" *; ls' >"$LAB/there"
		sh -c 'cat f* g* sub/f; stat -c "%n %a" *; ls' | diff - "$LAB/there" ||
			fail "w$i sees something else"
	done
	expect_ge "overflows" "$(lab_status .tree.overflows)" $((before + 1))
	echo "after" >f8
	expect_eq "a change after the flood" "$(concc-dispatch cat f8)" after
}

check "$STEPS random steps" random_steps random "$STEPS"
grep -h '^note: ' "$LAB/check.log" || true
check "random steps while the queue overflows" random_floods
grep -h '^note: ' "$LAB/check.log" || true
check "random steps with hardly a watch" random_unwatched
grep -h '^note: ' "$LAB/check.log" || true
check "headers that appear and hide" headers_that_appear
check "made on one worker, used on the other" made_here_used_there
check "a job goes on seeing what it saw" seen_is_seen
check "a directory goes while a job is in it" seen_in_part
check "a job's own files, come home already" own_files_are_own
check "a job's own files that it removes" own_files_go
check "a switch of 20 000 files" big_switch
check "more events than the queue takes" overflow
lab_stop
