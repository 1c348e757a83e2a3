#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A shared cache that lies: however much it says, and whatever it names, the command has the result that it has
# here, and what that costs the client has a bound.
# limit: 600
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
lab_need jq python3 strace
lab_enter "$@"
lab_mounts >"$LAB/mounts" # there are no workers but one beside the server
STORE=$LAB/store
EVIL=''
LOG=$CONCC_RUNTIME_DIR/project.log

evil() { # SCENARIO [CALL PATH...]
	local line=''
	: >"$STORE.log"
	coproc EVIL_STORE { exec "$LAB_REPO/test/hostile/evil-store" 8099 "$STORE" "$@"; }
	EVIL=$EVIL_STORE_PID
	read -r -t "$LAB_LIMIT" line <&"${EVIL_STORE[0]}" || true
	trap evil_end EXIT
	expect_eq "the store" "$line" ready
}

# Whatever becomes of the check.
evil_end() {
	trap - EXIT
	kill "$EVIL"
	wait "$EVIL" 2>/dev/null || true
}

# As another machine's: nothing is kept here.
forget() {
	lab_stop_server
	concc cache clear
}

store_config() { # LINE...
	near_config 'cache-url = http://127.0.0.1:8099/team' "$@"
}

# What everybody is told of a call is told by an honest store first; CALL: its name.
CALL=''
begin() { # NAME
	local f
	fresh "$1"
	echo "$1:" >>"$LAB/counts"
	store_config
	forget
	rm -rf "$STORE"
	mkdir -p "$STORE"
	echo 'int f(void) { return 1; }' >a.c
	evil honest
	store_config 'cache-push = yes'
	try w1 gcc -c a.c -o a.o
	lab_stop_server
	f=$(cd "$CONCC_CACHE_DIR/results/w" && echo ?/*)
	CALL=${f/\//}
	forget
	evil_end
	store_config
}

sent() { # bytes of all answers
	awk '$1 == "GET" { n += $3 } END { printf "%.0f", n }' "$STORE.log"
}

asked() { # how often
	grep -c ^ASKED "$STORE.log" || true
}

peak() { # MB of the server
	awk '$1 == "VmHWM:" { print int($2 / 1024) }' "/proc/$(lab_server_pid)/status"
}

calm() { # of a server that has just begun
	lab_all_up >&2
	peak
}

# Costs no more than so many MB of memory, and of the network.
bounded() { # MB-OF-MEMORY MB-READ
	local before after
	before=$(calm)
	try "${WHERE:-w1}" gcc -c a.c -o a.o
	after=$(peak)
	echo "	memory=$((after - before)) MB read=$(($(sent) >> 20)) MB requests=$(asked)" >>"$LAB/counts"
	expect_le "MB of memory" $((after - before)) "$1"
	expect_le "MB that were sent" $(($(sent) >> 20)) "$2"
}

huge() {
	begin huge
	evil huge "$CALL"
	bounded 60 200 # which is mostly in sockets
	evil_end
}

endless() {
	begin endless
	evil endless "$CALL"
	bounded 150 200
	evil_end
}

headers() { # SCENARIO
	begin "$1"
	evil "$1"
	bounded 40 16
	evil_end
}

# Whoever waits for it goes on, and it is left alone then.
drip() {
	begin drip
	evil drip
	bounded 40 1
	expect_eq "requests" "$(asked)" 1
	try w1 gcc -DAGAIN -c a.c -o a.o
	evil_end
}

wrong() {
	begin wrong
	evil wrong
	bounded 40 1
	expect_grep 'what the shared cache has is not what it should be' "$LOG"
	evil_end
}

squeezed() {
	begin squeezed
	evil squeezed
	bounded 40 4
	evil_end
}

redirected() { # SCENARIO TARGET
	begin "$1"
	python3 -m http.server --bind 127.0.0.1 8098 --directory "$STORE" >"$LAB/other.out" 2>"$LAB/other.log" &
	OTHER=$!
	evil "$1" '' "$2"
	bounded 40 1
	kill "$OTHER"
	wait "$OTHER" 2>/dev/null || true
	expect_eq "requests to the other" "$(grep -c GET "$LAB/other.log" || true)" 0
	evil_end
}

# Names of sets: these are looked at.
looks() { # SCENARIO
	local n
	begin "$1"
	lab_all_up
	evil "$1" "$CALL"
	compile() { bounded 200 150; }
	lab_syscalls "$(lab_server_pid)" compile >/dev/null
	n=$(grep -Ec 'newfstatat\(|lstat\(|statx\(' "$LAB/strace" || true)
	echo "	looks=$n" >>"$LAB/counts"
	# Those of the 16 MB that are kept (some 200 000, up to two calls each), up to four times (sets.h).
	expect_le "looks" "$n" 1600000
	evil_end
}

# What it is asked for, when it names this, which says so.
asked_of() { # NAME FILE TEXT
	echo "$3" >"$2"
	evil paths "$CALL" "$1"
	forget
	lab_all_up # which trees it shows is known then
	concc-cc gcc -c a.c -o a.o </dev/null
	evil_end
	grep '^ASKED ac/' "$STORE.log"
}

# Does what it is asked for tell one text from another one, of the same size?
tells() { # NAME FILE
	asked_of "$1" "$2" one >"$LAB/one"
	asked_of "$1" "$2" two >"$LAB/two"
	expect_eq "requests" "$(wc -l <"$LAB/two")" 2
	if cmp -s "$LAB/one" "$LAB/two"; then echo no; else echo yes; fi
}

secrets() {
	local name closed=/srv/closed/dir/f deep=/srv/tools/1/2/3/4/5/6/7/8/f # a tree of root's with that at its top is not shown
	begin secrets
	mkdir -p /srv/closed/dir "${deep%/*}" /srv/open
	chmod 700 /srv/closed
	touch secret "$closed" /srv/open/own "$deep"
	chmod 600 secret /srv/open/own "$deep"
	chmod 644 "$closed"
	ln -s "$closed" link
	# Workers may read what is served, and what they are shown as it is.
	expect_eq "of the workspace" "$(tells "r$PWD/secret" secret)" yes
	for name in "r$closed" "x$closed" "r/proc/self/root$closed" "r/usr/..$closed" "r/proc/self/cwd/link" "r$PWD/link"; do
		expect_eq "$name" "$(tells "$name" "$closed")" no
	done
	expect_eq "of who may read it" "$(tells r/srv/open/own /srv/open/own)" no
	expect_eq "of nobody's" "$(tells "r$deep" "$deep")" no
	store_config 'toolchain = /srv/tools'
	expect_eq "of what is shown" "$(tells "r$deep" "$deep")" yes
	chmod 644 /srv/open/own
	expect_eq "of everybody's" "$(tells r/srv/open/own /srv/open/own)" yes
}

# None of these is opened but to see where it is.
special() {
	local pattern='"(/etc/shadow|/srv/fifo|/dev/zero|/dev/tty|/proc/kcore|/proc/kmsg|/srv/home/.ssh.*)"'
	begin special
	mkfifo /srv/fifo
	mkdir -p /srv/home/.ssh
	chmod 700 /srv/home/.ssh
	echo key >/srv/home/.ssh/id_key
	evil paths "$CALL" r/etc/shadow r/srv/fifo x/srv/fifo d/srv/fifo w/srv/fifo r/dev/zero r/dev/tty r/proc/kcore \
		r/proc/kmsg r/srv/home/.ssh/id_key d/srv/home/.ssh
	lab_all_up
	compile() { try w1 gcc -c a.c -o a.o; }
	lab_syscalls "$(lab_server_pid)" compile >/dev/null
	expect_grep "$pattern" "$LAB/strace"
	grep -E "open(at2?)?\(.*$pattern" "$LAB/strace" | grep -v O_PATH | grep -v O_DIRECTORY >"$LAB/opened" || true
	expect_eq "what is opened" "$(cat "$LAB/opened")" ''
	evil_end
}

# A result that is whole, and does what no job may: it is not used, and what takes its place is.
effects() { # LIE
	echo "--- $1"
	forget
	lab_all_up
	evil effects "$CALL" "$1"
	try w1 gcc -c a.c -o a.o
	ours cache gcc -c a.c -o a.o
	evil_end
	expect_ge "results that were told" "$(grep -c ^CHANGED "$STORE.log" || true)" 1
	rm -f way # a symlink of its own, wherever it leads, a job may make
	expect_eq "what is there" "$(cd "$WS" && find . -mindepth 1 | sort | tr '\n' ' ')" "$THERE"
	expect_eq "modes" "$(stat -c %a a.c .git/config)" $'644\n644'
	stat -c '%n %a %h %y' /srv/outside /srv/outside/precious | diff "$LAB/outside" - || fail "something else was touched"
}

all_effects() {
	local lie
	begin effects
	mkdir -p .git/hooks /srv/outside
	touch .git/config /srv/outside/precious
	chmod 644 a.c .git/config
	stat -c '%n %a %h %y' /srv/outside /srv/outside/precious >"$LAB/outside"
	THERE='./effects ./effects/.git ./effects/.git/config ./effects/.git/hooks ./effects/a.c ./effects/a.o '
	for lie in $("$LAB_REPO/test/hostile/evil-store" lies); do
		effects "$lie"
	done
}

# What it says of who made it is for people.
maker() {
	local odd=$'w\e[2J\xc2\x9b31m\nhit: w'
	begin maker
	lab_all_up
	evil maker "$CALL" "$odd"
	try cache gcc -c a.c -o a.o
	evil_end
	expect_ge "results that were told" "$(grep -c ^CHANGED "$STORE.log" || true)" 1
	concc why concc-cc gcc -c a.c -o a.o >"$LAB/why" || true
	concc status >>"$LAB/why"
	concc status --json >>"$LAB/why"
	concc top --once >>"$LAB/why"
	cat -v "$LAB/why"
	expect_grep '^hit: .*made by w' "$LAB/why"
	if LC_ALL=C grep -q '[^[:print:][:space:]]' "$LAB/why"; then
		fail "its bytes are on the terminal"
	fi
}

check "results that do what no job may" all_effects
check "a maker that controls terminals" maker
check "what is nobody's to know" secrets
check "what is no plain file" special
check "huge answers" huge
check "answers without an end" endless
check "headers without an end" headers headers
check "hints without an end" headers hints
check "an answer in drops" drip
check "wrong bytes" wrong
check "compressed" squeezed
check "redirected to a file" redirected redirect-file /etc/passwd
check "redirected to another host" redirected redirect-host http://127.0.0.1:8098
check "a million names" looks names
check "a million long names" looks long-names
if [ -e "$LAB/counts" ]; then cat "$LAB/counts"; fi
lab_stop
