#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# One command in many ways: descriptors, limits, signals, masks, names, directories.  Whatever a caller
# hands over, the command prints, ends and leaves what it does without us.  Broad and shallow: each
# subject has tests of its own.  ROUNDS=n has all of it twice here instead, n times: what differs then is
# the test's own fault.
# limit: 180
# shellcheck disable=SC2016 # texts are for the shell that runs them
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq script flock
lab_enter "$@"
lab_start builder root
lab_config
ulimit -c 0 # some die on purpose
concc-dispatch true || fail "no project server"
CASE=$WS/case

# what is said of it | how: $R is nothing, or what runs it elsewhere
WAYS='
as it is                       | $R ./way tell a "b  c" "" "d
e"
a variable                     | WAY="a  b" $R ./way tell
no variables                   | env -i PATH="$PATH" CONCC_CONFIG="$CONCC_CONFIG" CONCC_RUNTIME_DIR="$CONCC_RUNTIME_DIR" CONCC_CACHE_DIR="$CONCC_CACHE_DIR" $R ./way tell
both outputs are one           | $R ./way both 2000 2>&1
both outputs are one file      | $R ./way both 2000 >one 2>&1; cat one
two outputs                    | $R ./way both 2000
output is appended             | echo before >log; $R ./way out 10 >>log; $R ./way out 10 >>log; cat log
output and error are closed    | $R ./way make >&- 2>&-
output is closed               | $R ./way out 3 >&-
error is closed                | $R ./way out 3 2>&-
errors while error is closed   | $R ./way err 3 2>&-
output is full                 | $R ./way out 3 >/dev/full
error is full                  | $R ./way err 3 2>/dev/full
output can only be read        | $R ./way out 3 1<way
output into a directory        | $R ./way out 3 1<.
output takes no signal         | ./way ignore 13 $R ./way out 200000 | head -n 1; echo ${PIPESTATUS[0]}
a reader of one line           | $R ./way out 200000 | head -n 1; echo ${PIPESTATUS[0]}
a reader of no line            | mkfifo f; exec 6<>f 7>f 6<&-; $R ./way out 3 >&7; s=$?; rm f; echo $s; exit $s
a reader of errors, one line   | $R ./way err 200000 2>&1 >&- | head -n 1; echo ${PIPESTATUS[0]}
a slow reader                  | $R ./way out 20000 | while read -r l; do echo "$l"; done | cksum; echo ${PIPESTATUS[0]}
output does not block          | ./way nonblock 1 $R ./way out 30000 | { read -r l; cat; } | cksum; echo ${PIPESTATUS[0]}
error does not block           | ./way nonblock 2 $R ./way err 30000 2>&1 >&- | { read -r l; cat; } | cksum
a terminal                     | script -qec "$R ./way both 20" /dev/null </dev/null
input                          | seq 200000 | $R ./way in
input of a file                | $R ./way in <way
input of the middle of a file  | (head -n 5 >/dev/null; $R ./way in) <text
input of nothing               | $R ./way in </dev/null
input is closed                | $R ./way in <&-
input of a directory           | $R ./way in <.
input can only be written      | $R ./way in 0>>text
input does not block           | seq 100000 | ./way nonblock 0 $R ./way in
input nobody reads             | yes | head -n 300000 | $R ./way exit 3; echo ${PIPESTATUS[2]}
input of a fifo                | mkfifo f; seq 1000 >f & $R ./way in <f; rm f
status                         | $R ./way exit 42
status 255                     | $R ./way exit 255
death by SIGTERM               | $R ./way die 15
death by SIGSEGV               | $R ./way die 11
death by SIGPIPE               | $R ./way die 13
death by SIGUSR1               | $R ./way die 10
umask 0                        | umask 0; $R ./way make
umask 077                      | umask 077; $R ./way make
umask 027                      | umask 027; $R ./way tell; $R ./way make
umask 777                      | umask 777; $R ./way make; chmod 700 directory
nice                           | nice -n 7 $R ./way tell
very nice                      | nice -n 19 $R ./way tell
limit of time                  | ulimit -t 100; $R ./way tell
limit of time, soft            | ulimit -S -t 100; $R ./way tell
limit of time, reached         | ulimit -t 1; $R ./way burn
limit of time, reached, soft   | ulimit -S -t 1; $R ./way burn
limit of files                 | ulimit -f 1000; $R ./way tell
limit of files, reached        | ulimit -f 100; $R ./way file 1000000
limit of files, not reached    | ulimit -f 100; $R ./way file 100000
limit of files, reached, told  | ulimit -f 100; ./way ignore 25 $R ./way file 1000000
limit of files, for output     | ulimit -f 10; $R ./way out 1000 >out
limit of the stack             | ulimit -s 3000; $R ./way tell
limit of the stack, reached    | ulimit -s 3000; $R ./way stack 20
no limit of the stack          | ulimit -s unlimited; $R ./way stack 200
limit of the address space     | ulimit -v 500000; $R ./way tell
limit of space, reached        | ulimit -v 500000; $R ./way memory 600
limit of data                  | ulimit -d 300000; $R ./way tell
limit of data, reached         | ulimit -d 300000; $R ./way memory 400
limit of descriptors           | ulimit -n 50; $R ./way tell
limit of descriptors, reached  | ulimit -n 50; $R ./way open 60
limit of descriptors, more     | ulimit -n 4000; $R ./way open 3500
limit of cores                 | ulimit -S -c 0; $R ./way tell
all limits at once             | ulimit -t 50 -f 5000 -s 4000 -v 900000 -d 800000 -n 60; $R ./way tell
ignored: INT, QUIT             | ./way ignore 2 ./way ignore 3 $R ./way tell
ignored: HUP                   | ./way ignore 1 $R ./way tell
ignored: HUP, which comes      | ./way ignore 1 $R sh -c "kill -HUP \$\$; echo alive"
ignored: PIPE                  | ./way ignore 13 $R ./way tell
ignored: CHLD                  | ./way ignore 17 $R ./way tell
ignored: TERM, USR1            | ./way ignore 15 ./way ignore 10 $R ./way tell
ignored: XFSZ, XCPU            | ./way ignore 25 ./way ignore 24 $R ./way tell
blocked: USR1                  | ./way block 10 $R ./way tell
blocked: TERM, which comes     | ./way block 15 $R sh -c "kill -TERM \$\$; echo alive"
blocked: INT, CHLD             | ./way block 2 ./way block 17 $R ./way tell
a script                       | $R ./sub/script one "two  three"
a script from beside           | cd sub; $R ./script; $R ../sub/script; cd ../other; $R ../sub/script
a script by PATH               | PATH=$PWD/sub:$PATH; $R script x
a script by relative PATH      | PATH=sub:$PATH; $R script x; cd sub; PATH=.:$PATH; $R script
a script by a link             | ln -s sub/script s; $R ./s; ln -s ../sub other/sub; $R other/sub/script
a script without a first line  | printf "echo \$0 \$#\n" >bare; chmod +x bare; $R ./bare 1 2
a script of sh                 | $R sh sub/script x; $R sh -c "echo \$0 \$1" name arg
a program by a link            | ln -s way other/program; cp way other/way; $R other/program tell
a program that is not there    | $R ./nothing 2>/dev/null
a program that can not be run  | $R ./text 2>/dev/null
a directory as a program       | $R ./sub 2>/dev/null
in a directory below           | cd sub/deep; $R ../../way tell
a directory by a link          | ln -s sub/deep here; cd here; $R "$OLDPWD/way" tell | sed s,$OLDPWD,,g
PWD is wrong                   | PWD=/nowhere $R ./way tell
no PWD                         | env -u PWD $R ./way tell
a directory that is gone       | mkdir gone; cd gone; rmdir ../gone; $R ../way tell 2>/dev/null; echo $?
many arguments                 | $R ./way tell $(seq 20000) | cksum
a long argument                | $R ./way tell "$(head -c 120000 /dev/zero | tr "\0" x)" | cksum
a large variable               | WAY=$(head -c 120000 /dev/zero | tr "\0" x) $R ./way tell | cksum
bytes that are no text         | $R ./way tell "$(printf "\377\376\001\033[31m")"; printf "\377\000\001" | $R cat
a name that is no text         | n=$(printf "a\377b\nc"); $R sh -c "echo x >\"\$1\"; mkdir \"\$1.d\"; ls | wc -l" sh "$n"
in the background              | $R ./way out 10 & wait $!
several at once                | for i in 1 2 3 4 5 6; do $R ./way out 500 >out$i & done; wait; cat out?
one after the other, one output| { $R ./way out 3; $R ./way both 3; $R ./way in <text; } 2>&1
one in another                 | echo "$($R ./way out 3)" "$($R ./way exit 4; echo $?)"
one into another               | $R ./way out 5000 | $R ./way in
a listing                      | mkdir d; touch d/q d/w d/e d/r d/t d/y d/u d/i d/o d/p; $R ls -U d; $R tar -c d | tar -t
a listing of what came later   | mkdir d; touch d/q d/w d/e d/r; $R ls -U . sub; rm d/w; $R ls -U d
names with process numbers     | for i in 1 2 3; do $R sh -c "echo >log.\$\$; sh -c \"echo >by.\\\$\\\$\""; done; ls | wc -l; rm log.* by.*
a lock that is held            | exec 8>lock; flock 8; $R flock -n lock echo taken
a lock by turns                | echo 0 >n; for i in 1 2 3 4 5 6; do $R flock n sh -c "v=\$(cat n); echo \$((v+1)) >n" & done; wait; cat n
a lock of its own              | $R sh -c "flock new echo alone; flock -n new echo again"
a copy that shares its bytes   | $R cp --reflink=always text copy
descriptors beyond two         | exec 5>extra 6<text; $R ./way tell; echo x >&5
'

set_up() { # DIR
	rm -rf "$1"
	mkdir -p "$1/sub/deep" "$1/other"
	cd "$1"
	cp "$LAB_TOOLS/way" .
	seq 3000 >text
	cat >sub/script <<-'END'
		#!/bin/sh
		echo "$0" $# "$@"
		d=$(dirname "$0")
		[ -f "$d/script" ] && echo beside "$d"
		exec cat "$d/../text" | head -n 2
	END
	chmod +x sub/script
}

# In a shell of its own, as whatever it changes is not to stay.
go() { # DIR R TEXT TO
	local rc=0
	set_up "$1"
	R=$2 timeout "$LAB_LIMIT" bash -c "$3" >"$4.out" 2>"$4.err" </dev/null || rc=$?
	cd "$1"
	echo "status $rc" >>"$4.out"
	rm -f core*
	"$LAB_TOOLS/printing" tree >"$4.tree"
}

way() { # TEXT
	echo "$1"
	go "$CASE" '' "$1" "$LAB/want"
	go "$CASE" "$RUNNER" "$1" "$LAB/got"
	cat "$LAB/got.err"
	# What a shell says of a command that was killed names processes; words of ours are not the command's.
	sed -i -E '/^concc: /d; s/^bash: line [0-9]+: +[0-9]+ /bash: /' "$LAB/got.err" "$LAB/want.err"
	diff -a -U0 "$LAB/want.out" "$LAB/got.out" | cut -c 1-300 || fail "it prints something else"
	cmp "$LAB/want.out" "$LAB/got.out" || fail "it prints something else"
	sed -i 's/concc-dispatch //' "$LAB/got.err"
	diff -a -U0 "$LAB/want.err" "$LAB/got.err" | cut -c 1-300
	cmp "$LAB/want.err" "$LAB/got.err" || fail "it prints other errors"
	diff -a -U0 "$LAB/want.tree" "$LAB/got.tree" || fail "it leaves something else"
}

ways() { # RUNNER
	local name text more
	RUNNER=$1
	while IFS='|' read -r name text; do
		[ -n "$name" ] || continue
		while [[ $text == *'"d' ]]; do # the one of two lines
			IFS= read -r more
			text=$text$'\n'$more
		done
		name=${name%"${name##*[![:space:]]}"}
		check "$name" way "$text"
	done <<<"$WAYS"
}

[ -n "${ROUNDS-}" ] || ways concc-dispatch
for ((i = 0; i < ${ROUNDS:-0}; i++)); do
	ways env
done
lab_stop
