#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Whatever changes on the client, the next job sees exactly that.  SEED=n repeats a run, ROUNDS=n
# makes it longer.
# limit: 400
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_MEMORY=1 # tens of thousands of files come and go
LAB_SLOTS=1 # two jobs at once are on two workers
ROUNDS=${ROUNDS:-2000}
lab_need git
lab_enter "$@"
lab_start builder root
lab_config
SEED=${SEED:-$RANDOM$RANDOM}

random_rounds() {
	mkdir "$WS/random"
	echo "seed $SEED"
	"$LAB_TOOLS/coherence" "$WS/random" "$ROUNDS" "$SEED" concc-dispatch ||
		fail "$(grep '^FAIL' "$LAB/check.log" | tail -n 1) (repeat with SEED=$SEED)"
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

# More changes than the kernel's queue takes.
overflow() {
	local old i
	lab_stop_server
	old=$(cat /proc/sys/fs/inotify/max_queued_events)
	mkdir "$WS/flood"
	cd "$WS/flood"
	for i in $(seq 50); do
		echo "old $i" >"f$i"
	done
	# The limit is the whole machine's, and is taken when the server opens its queue.
	echo 16 >/proc/sys/fs/inotify/max_queued_events
	concc-dispatch sh -c 'cat f* >/dev/null; ls ..' >/dev/null || true
	echo "$old" >/proc/sys/fs/inotify/max_queued_events
	at_worker 1 concc-dispatch sh -c 'cat f* | wc -l' >/dev/null
	at_worker 2 concc-dispatch sh -c 'cat f* | wc -l' >/dev/null
	for i in $(seq 50); do
		echo "new $i" >"f$i"
		echo "more" >"g$i"
		chmod 600 "f$i"
	done
	rm f7
	mkdir sub
	echo deep >sub/f
	for i in 1 2; do
		at_worker $i concc-dispatch sh -c 'cat f* g* sub/f; stat -c "%n %a" *; ls' >"$LAB/there"
		sh -c 'cat f* g* sub/f; stat -c "%n %a" *; ls' | diff - "$LAB/there" ||
			fail "w$i sees something else"
	done
	echo "after" >f8
	expect_eq "a change after the flood" "$(concc-dispatch cat f8)" after
}

check "$ROUNDS random rounds" random_rounds
grep -h '^note: ' "$LAB/check.log" || true
check "headers that appear and hide" headers_that_appear
check "made on one worker, used on the other" made_here_used_there
check "a switch of 20 000 files" big_switch
check "more events than the queue takes" overflow
lab_stop
