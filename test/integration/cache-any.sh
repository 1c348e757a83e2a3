#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Kept results of any command (concc-dispatch --cache): what it is found by, and what must not be
# kept.  Each time the same command runs here, from the same files, and output, status and the tree
# that it leaves must be the same.
# limit: 300
# shellcheck disable=SC2016 # the jobs' own variables
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
lab_need jq
export LAB_ROOT=client
lab_enter "$@"
mkdir "$LAB/alternatives"
cp -a /etc/alternatives/. "$LAB/alternatives"
mount --bind "$LAB/alternatives" /etc/alternatives
lab_start builder
lab_config 'cache = 1G' 'local-slots = 0'

INPUT=/dev/null # what it reads
HOW=(--cache)   # options of concc-dispatch

# Times as far as a command has set them, or left them.
tree() {
	find . -mindepth 1 -printf '%P %y %m %l\n' | sort
	find . -type f ! -newermt @1700000000 -printf '%P %t\n' | sort
	find . -type f -exec sha256sum {} + | sort
}

save() {
	rm -rf "$LAB/save"
	cp -a . "$LAB/save"
	tree >"$LAB/save.tree"
}

restore() { # with the times that the files had
	tree | cmp -s - "$LAB/save.tree" && [ -z "${1-}" ] && return
	find . -mindepth 1 -delete
	cp -a "$LAB/save/." .
}

# Here, then through us, from the same state; that of ours stays.
both() { # WHERE CMD...: cache or w1
	local where=$1 plain=0 status=0
	shift
	save
	"$@" <"$INPUT" >"$LAB/plain.out" 2>"$LAB/plain.err" || plain=$?
	tree >"$LAB/plain.tree"
	restore
	# What was done in the same tick of the file system's clock as a job begins may be done after.
	"$LAB_TOOLS/settled" .
	[ "$where" != cache ] || concc why concc-dispatch "${HOW[@]}" "$@" <"$INPUT" ||
		fail "$*: it will not be found"
	CONCC_EXPLAIN=$LAB/explain concc-dispatch "${HOW[@]}" "$@" <"$INPUT" >"$LAB/ours.out" 2>"$LAB/ours.err" ||
		status=$?
	echo "$*: $(<"$LAB/explain")"
	expect_eq "exit status" "$status" "$plain"
	same_bytes "$LAB/plain.out" "$LAB/ours.out" || fail "$*: other output"
	same_bytes "$LAB/plain.err" "$LAB/ours.err" || fail "$*: other errors"
	tree >"$LAB/ours.tree"
	diff "$LAB/plain.tree" "$LAB/ours.tree" || fail "$*: another tree"
	[ "$where" != cache ] || where='(cache)'
	[[ $(<"$LAB/explain") == *"remote on $where:"* ]] || fail "$*: not by $where: $(<"$LAB/explain")"
	: >"$LAB/explain"
}

again() { # WHERE CMD...: from where the last began
	restore times
	both "$@"
}

# Never found again, for that reason.
never() { # WHY CMD...
	local why=$1 before
	shift
	before=$(reasons "$why")
	both w1 "$@"
	again w1 "$@"
	lab_status .cache.uncacheable
	expect_eq "jobs not kept for $why" "$(reasons "$why")" $((before + 2))
}

script() { # NAME: from standard input
	cat >"$1"
	chmod +x "$1"
}

generator() {
	fresh generator
	echo 'one two' >in
	echo old >gone
	script gen <<-'EOS'
		#!/bin/sh
		mkdir -p out/deep && ln -s deep out/link && ./part <in >out/deep/part && rm gone
		umask 077 && echo secret >out/secret && chmod 755 out/deep/part && mkdir empty
		cat out/deep/part && echo done >&2
	EOS
	script part <<-'EOS'
		#!/usr/bin/env -S sh -u
		while read -r a b; do echo "$b $a"; done
	EOS
	both w1 ./gen
	again cache ./gen
	restore
	echo 'two one' >in
	both w1 ./gen
	again cache ./gen
	restore
	sed -i 's/b $a/a $b/' part # what it starts
	both w1 ./gen
	again cache ./gen
	restore
	rm gone
	both w1 ./gen
	umask 077
	again w1 ./gen
	again cache ./gen
	umask 022
}

interpreter() {
	[ -x /usr/bin/python3 ] || skip "there is no python3"
	fresh python
	mkdir lib
	echo 'def word(): return "one"' >lib/mod.py
	script gen <<-'EOS'
		#!/usr/bin/python3 -BSE
		import sys
		sys.path[:0] = ["lib"]
		import mod
		open("out", "w").write(mod.word())
	EOS
	both w1 ./gen
	again cache ./gen
	restore
	echo 'def word(): return "two"' >lib/mod.py
	both w1 ./gen
	again cache ./gen
	restore
	mkdir lib/mod
	echo 'def word(): return "three"' >lib/mod/__init__.py
	both w1 ./gen
	restore
	rm -r lib/mod
	echo 'def word(): return "one"' >lib/mod.py
	HOW=(--cache=contents)
	both w1 ./gen
	again cache ./gen
	restore
	touch lib/mod.py gen
	both cache ./gen
	HOW=(--cache)
}

# The kernel reads it, by no call of the job's.
another_interpreter() {
	fresh interpreter
	cp /bin/dash mysh
	printf '#!%s\necho one\n' "$PWD/mysh" >run
	chmod +x run
	both w1 ./run
	both cache ./run
	cp --remove-destination /bin/cat mysh
	both w1 ./run
	both cache ./run
}

input() {
	local before f where
	fresh input
	echo one >one && echo two >two && : >none
	for f in one two none; do
		INPUT=$PWD/$f
		both w1 sort
		again cache sort
	done
	INPUT=$PWD/one
	both cache sort
	head -c 300000 /dev/zero >large
	INPUT=$PWD/large
	never stdin cksum
	# What the job did not read is there for others, whether it runs or not.
	printf 'a\nb\nc\n' >list
	for where in w1 cache; do
		: >"$LAB/explain"
		expect_eq "two readers of one file, $where" \
			"$({ CONCC_EXPLAIN=$LAB/explain concc-dispatch --cache head -n 1; tr 'a-z' 'A-Z'; } <list)" $'a\nB\nC'
		expect_grep "$where" "$LAB/explain"
		: >"$LAB/explain"
		mkfifo list.$where
		exec 7<>list.$where 8<list.$where
		cat list >&7
		exec 7>&-
		expect_eq "two readers of one pipe, $where" \
			"$({ CONCC_EXPLAIN=$LAB/explain concc-dispatch --cache sh -c 'read -r l; echo $l'; tr 'a-z' 'A-Z'; } <&8)" $'a\nB\nC'
		exec 8<&-
		expect_grep "$where" "$LAB/explain"
	done
	# A pipe whose writers have gone, and one that somebody may still write into.
	INPUT=/dev/null
	concc-dispatch --cache sort < <(:) # so much for reading nothing
	mkfifo fifo
	exec 7<>fifo
	exec 8<fifo
	echo one >&7
	exec 7>&-
	INPUT=/dev/fd/8
	[ "$(CONCC_EXPLAIN=$LAB/explain concc-dispatch --cache sort <&8)" = one ] || fail "another output"
	expect_grep '(cache)' "$LAB/explain"
	exec 8<&-
	: >"$LAB/explain"
	before=$(reasons stdin)
	exec 7<>fifo
	echo three >&7
	[ "$(concc-dispatch --cache head -n 1 <&7)" = three ] || fail "another output"
	exec 7>&-
	INPUT=/dev/null
	lab_status .cache.uncacheable
	expect_eq "jobs not kept for their input" "$(reasons stdin)" $((before + 1))
}

times() {
	fresh times
	echo a >a && echo b >b
	touch -d 2020-01-01 a
	touch -d 2020-01-02 b
	local words=(sh -c 'if [ a -nt b ]; then echo newer; else echo older; fi')
	both w1 "${words[@]}"
	both cache "${words[@]}"
	touch -d 2020-01-03 a
	both w1 "${words[@]}"
	touch -d 2020-01-01 a
	both cache "${words[@]}"
	both w1 cat a
	ln a c # how many names it has can be asked for, too
	both w1 cat a
	rm c
	both cache cat a
	# What is there already, and newer than what it is made of, as make sees it.
	words=(sh -c '[ out -nt a ] || cat a >out')
	both w1 "${words[@]}"
	again cache "${words[@]}"
	echo edited >out
	both w1 "${words[@]}"
	expect_eq out "$(cat out)" edited
	# A time that it sets is that of the result.
	both w1 touch -r a set
	again cache touch -r a set
	expect_eq "its time" "$(stat -c %Y set)" "$(stat -c %Y a)"
}

environment() {
	fresh environment
	export EDITOR=one
	both w1 sh -c 'echo $EDITOR'
	both cache sh -c 'echo $EDITOR'
	export EDITOR=two
	both w1 sh -c 'echo $EDITOR'
	mkdir bin
	script bin/tool <<<$'#!/bin/sh\necho mine'
	export PATH=$PWD/bin:$PATH
	both w1 sh -c tool
	both cache sh -c tool
	script bin/tool <<<$'#!/bin/sh\necho other'
	both w1 sh -c tool
}

# What nobody can foresee.
unforeseen() {
	local before now
	fresh unforeseen
	before=$(reasons time)
	for i in 1 2; do
		now=$(date +%s)
		expect_ge "the time" "$(concc-dispatch --cache date +%s)" "$now"
	done
	expect_eq "jobs not kept for the time" "$(reasons time)" $((before + 2))
	before=$(reasons device)
	[ "$(concc-dispatch --cache head -c 8 /dev/urandom | cksum)" != "$(concc-dispatch --cache head -c 8 /dev/urandom | cksum)" ] ||
		fail "random twice"
	expect_eq "jobs not kept for a device" "$(reasons device)" $((before + 2))
	[ ! -x /usr/bin/python3 ] || {
		local words=(/usr/bin/python3 -ISc 'import os; print(os.getrandom(8))')
		[ "$(concc-dispatch --cache "${words[@]}")" != "$(concc-dispatch --cache "${words[@]}")" ] || fail "random twice"
		expect_eq "jobs not kept for being random" "$(reasons random)" 2
		never trace-void /usr/bin/python3 -ISc 'import socket; socket.socket(); print(1)'
	}
	before=$(reasons proc)
	concc-dispatch --cache cat /proc/self/stat
	concc-dispatch --cache cat /proc/uptime /proc/filesystems
	expect_eq "jobs not kept for /proc" "$(reasons proc)" $((before + 2))
}

# What each program in Go reads at its start, if it is there: the same on each machine with this kind of processor.
huge_page() {
	local words=(sh -c 'true 2>/dev/null </sys/kernel/mm/transparent_hugepage/hpage_pmd_size; echo done')
	fresh huge-page
	both w1 "${words[@]}"
	both cache "${words[@]}"
	! command -v go >/dev/null || {
		both w1 "$(go env GOTOOLDIR)/compile" -V
		both cache "$(go env GOTOOLDIR)/compile" -V
	}
}

failures() {
	fresh failures
	never failed sh -c 'echo half >out; exit 3'
	echo all >out
	never failed grep -q nothing out
}

listing() {
	fresh listing
	mkdir d
	touch d/a
	both w1 ls d
	both cache ls d
	touch d/b
	both w1 ls d
	rm d/b
	both cache ls d
	both w1 sh -c 'cat opt || echo none'
	both cache sh -c 'cat opt || echo none'
	echo there >opt
	both w1 sh -c 'cat opt || echo none'
	rm opt
	both cache sh -c 'cat opt || echo none'
	both w1 sh -c 'echo one >d/new && ls d' # and makes something there
	again cache sh -c 'echo one >d/new && ls d'
	restore times
	touch d/b
	both w1 sh -c 'echo one >d/new && ls d'
}

in_and_out() {
	fresh inout
	printf 'b\na\n' >f
	touch -d 2020-01-01 f
	both w1 sort -o f f
	again cache sort -o f f
	restore
	both cache sort -o f f
	both w1 sort -o f f # it is another file now
	printf 'one\n' >log
	both w1 sh -c 'echo more >>log'
	again cache sh -c 'echo more >>log'
	both w1 sh -c 'echo more >>log'
	expect_eq "lines" "$(wc -l <log)" 3
	never trace-void sed -i s/one/two/ log # it looks for an access list
	# Its input is another one afterwards, and the same in its bytes.
	touch own
	never metadata chmod 600 own
	never unchanged-output sh -c 'cat own; touch -r log own'
	expect_eq "its time" "$(stat -c %Y own)" "$(stat -c %Y log)"
	both w1 mv f g
	again cache mv f g
	mkdir -p gone/deep
	echo 1 >gone/deep/f
	both w1 rm -r gone
	again cache rm -r gone
	never hard-link sh -c 'echo 1 >h1; ln h1 h2'
	never special-file mkfifo pipe
}

held_while() { # CHANGE COMMAND: of a shell, which says ./held when it may go on after the change
	local before pid line=''
	before=$(reasons changed)
	mkfifo "$LAB/held"
	HELD=1 CONCC_EXPLAIN=$LAB/explain "$LAB_TOOLS/own-group" concc-dispatch --cache \
		sh -c "$2" </dev/null >"$LAB/ours.out" 2>"$LAB/held" &
	pid=$!
	exec 8<"$LAB/held"
	read -r -t "$LAB_LIMIT" line <&8
	expect_eq "what it says" "$line" held
	eval "$1"
	kill -USR1 "$(lab_client_pids held)"
	wait $pid
	exec 8<&-
	rm "$LAB/held"
	expect_grep 'remote on w1:' "$LAB/explain"
	: >"$LAB/explain"
	lab_status .cache.uncacheable
	expect_eq "jobs not kept for $1" "$(reasons changed)" $((before + 1))
}

# Somebody changes what it has read.
changed_while_it_runs() {
	fresh changed
	cp "$LAB_TOOLS/held-as" held
	echo one >in
	mkdir list
	ln -s list link
	held_while 'echo two >in' 'cat in >out; ./held --version >/dev/null; cat out'
	expect_eq "its output" "$(cat out)" one
	held_while 'touch list/new' 'ls list; ./held --version >/dev/null'
	held_while 'touch list/newer' 'ls link; ./held --version >/dev/null'
	held_while 'rm list/newer' 'ls list; ./held --version >/dev/null'
	held_while 'mv list/new list/other' 'ls list; ./held --version >/dev/null'
	held_while 'ln in other' 'stat -c %h in; ./held --version >/dev/null'
	held_while 'rm other' 'stat -c %h in; ./held --version >/dev/null'
}

# Workers see a copy of it.
system_changed_while_it_runs() {
	local file=/etc/alternatives/concc-lab
	fresh etc
	cp "$LAB_TOOLS/held-as" held
	echo one >$file
	ln -sf concc-lab $file-link
	held_while "echo two >$file" "cat $file; ./held --version >/dev/null"
	expect_eq "its output" "$(cat "$LAB/ours.out")" one
	held_while "echo three >$file" "cat $file-link; ./held --version >/dev/null"
	held_while "rm $file" "ls $file; ./held --version >/dev/null"
	held_while "touch $file" "ls /etc/alternatives; ./held --version >/dev/null"
	echo one >$file
	"$LAB_TOOLS/settled" /etc/alternatives
	both w1 cat $file-link
	again cache cat $file-link
	echo two >$file
	both w1 cat $file-link
}

# No event tells of that until the file is closed.
stored() { # TEXT
	local line=''
	echo "$1" >&"${MAP[1]}"
	read -r -t "$LAB_LIMIT" line <&"${MAP[0]}"
	expect_eq "what it says" "$line" stored
}

stored_while_it_runs() {
	local pid
	fresh stored
	cp "$LAB_TOOLS/held-as" held
	echo one >in
	"$LAB_TOOLS/settled" .
	coproc MAP { exec "$LAB_TOOLS/map-hold" in; }
	pid=$MAP_PID
	held_while 'stored two' 'cat in; ./held --version >/dev/null'
	expect_eq "its output" "$(cat "$LAB/ours.out")" one
	eval "exec ${MAP[1]}>&-"
	wait "$pid"
	both w1 sh -c 'cat in; ./held --version >/dev/null'
	again cache sh -c 'cat in; ./held --version >/dev/null'
}

two_at_once() {
	local n pids=()
	fresh two
	echo one >in
	for n in 1 2 1 2; do
		concc-dispatch --cache sh -c "cat in in >out$n" </dev/null &
		pids+=($!)
	done
	for n in "${pids[@]}"; do
		wait "$n"
	done
	expect_eq "lines" "$(cat out1 out2 | wc -l)" 4
	rm out1 out2
	both w1 sh -c 'cat in in in >out1'
	again cache sh -c 'cat in in in >out1'
}

# A link goes by no times, and a test runs what is made.
link_and_test() {
	fresh link
	echo 'int f(void); int main(void) { return f(); }' >main.c
	echo '#include <stdio.h>
int f(void) { FILE *f = fopen("data", "r"); int c = f ? fgetc(f) : 0; printf("%d\n", c); return 0; }' >f.c
	gcc -c main.c f.c
	echo a >data
	[ ! -x /usr/bin/clang ] || { # temporary names are random
		both w1 clang -c f.c -o clang.o
		again cache clang -c f.c -o clang.o
	}
	both w1 gcc -o prog main.o f.o
	again cache gcc -o prog main.o f.o
	restore
	touch main.o f.o
	both cache gcc -o prog main.o f.o
	both w1 ./prog
	both cache ./prog
	echo b >data
	both w1 ./prog
	sed -i 's/return 0/return 1/' f.c
	gcc -c f.c
	both w1 gcc -o prog main.o f.o
	never failed ./prog
}

# The same names, the same answers at first, and yet another result: kept from the first state, which
# must not be taken in the second one.
other_state() { # SECOND CMD...
	local second=$1
	shift
	both w1 "$@"
	again cache "$@"
	restore times
	eval "$second"
	both w1 "$@"
}

what_it_meets() {
	HOW=(--cache=contents)
	fresh meets1 # what is moved is not opened
	echo one >a
	touch -d @1600000000 a
	other_state 'echo two >a && touch -d @1600000000 a' mv a b
	fresh meets2
	echo one >a
	touch -d @1600000000 a
	other_state 'touch -d @1600000001 a' mv a b

	fresh meets3 # nor what is removed
	mkdir d
	other_state 'echo one >d/f' sh -c 'rmdir d || echo kept'
	[ -e d/f ] || fail "d/f is gone"
	fresh meets4
	mkdir d
	echo one >d/f
	other_state 'rm d/f' sh -c 'mkdir n && mv -T n d || echo kept'

	fresh meets5 # what it makes, by another name
	mkdir d e
	ln -s d l
	other_state 'ln -sfn e l' sh -c 'echo one >d/n && cat l/n || true'
	fresh meets6
	mkdir d
	ln -s d l
	other_state 'ln -sfn d/n l' sh -c 'echo one >d/n && cat l/../d/n || true'
	fresh meets7
	mkdir d e
	ln -s d l
	other_state 'ln -sfn e l' sh -c 'cd l && echo one >n'
	fresh meets8
	mkdir d e
	ln -s d l
	other_state 'ln -sfn e l' python3 -c 'import os
fd = os.open("l", os.O_PATH)
os.close(os.open("n", os.O_CREAT | os.O_WRONLY, dir_fd=fd))'

	fresh meets9 # what was there, by what it has made
	mkdir d
	echo one >d/f
	other_state 'echo two >d/f' sh -c 'ln -s d n && cat n/f'
	fresh meets10
	echo one >f
	other_state 'echo two >f' sh -c 'mkdir n && cat n/../f'
	fresh meets11
	echo one >f
	ln -s f l
	other_state 'echo two >f' sh -c 'mv l n && cat n'

	fresh meets12 # how long a symlink is
	ln -s one l
	other_state 'ln -sfn longer l' stat -c %s l
	fresh meets13 # a time that it has already
	echo one >f
	touch -d @1600000005 f
	other_state 'touch -d @1600000001 f' python3 -c 'import os
os.utime(os.open("f", os.O_RDONLY), (1600000005, 1600000005))'
	fresh meets14
	echo one >f
	touch -d @1600000005 f
	other_state 'touch -d @1600000001 f' python3 -c 'import os; os.utime("f", (1600000005, 1600000005))'
	fresh meets15 # nor is what gets another mode
	echo one >f
	touch -d @1600000005 f
	other_state 'echo two >f && touch -d @1600000005 f' chmod 644 f
	fresh meets16 # but to set the time of now is the same, whatever it was
	echo one >f
	both w1 touch f
	again cache touch f
	restore times
	touch -d @1600000001 f
	both cache touch f
	HOW=(--cache)
}

# Nobody has asked for it.
only_when_asked() {
	fresh asked
	HOW=()
	never unknown-program echo 1
	HOW=(--cache)
	expect_status 100 concc-dispatch --cache
	expect_status 100 concc-dispatch --cache=much echo 1
	expect_eq "its output" "$(concc-dispatch --cache -- echo 1)" 1
}

for root in client worker; do
	[ $root = client ] || near_config
	check "$root: a generator" generator
	check "$root: an interpreter" interpreter
	check "$root: another interpreter" another_interpreter
	check "$root: standard input" input
	check "$root: times" times
	check "$root: the environment" environment
	check "$root: what can't be foreseen" unforeseen
	check "$root: the size of a huge page" huge_page
	check "$root: failures" failures
	check "$root: a listing" listing
	check "$root: what is input and output" in_and_out
	check "$root: changed while it runs" changed_while_it_runs
	check "$root: the system changes while it runs" system_changed_while_it_runs
	check "$root: stored to mapped memory while it runs" stored_while_it_runs
	check "$root: two at once" two_at_once
	check "$root: a link and a test" link_and_test
	check "$root: what it meets" what_it_meets
	check "$root: only when asked" only_when_asked
done
lab_stop
