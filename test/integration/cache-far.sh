#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Large files that jobs look at, on a disk that is slow: they are read for who needs that, and all
# others are answered meanwhile.
# limit: 120
# shellcheck disable=SC2016 # the jobs' own variables
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
LAB_SLOTS=2
lab_need jq
export LAB_ROOT=client
lab_enter "$@"
lab_start builder
lab_config 'cache = 1G' 'local-slots = 0'
GATE=$LAB/gate
HELD='' # who waits there

attach() {
	exec 9< <(exec "$LAB_BUILD/test/slowfs/slowfs" 0 "$LAB/disk" "$PWD/far" "$GATE")
	read -r -t "$LAB_LIMIT" _ <&9 || fail "no disk"
}

begin() { # NAME: there it is, in a directory whose reads are held while there is a gate
	fresh "$1"
	lab_stop_server
	mkdir -p "$LAB/disk" far
	head -c 3000000 /dev/urandom >"$LAB/disk/large"
	touch -d '2020-01-01' "$LAB/disk/large"
	attach
	# shellcheck disable=SC2064 # now
	trap "end '$PWD/far'" EXIT
	lab_all_up
	echo one >near
	warm w1
	warm '(cache)'
}

end() { # MOUNTPOINT
	rm -f "$GATE"
	exec 7>&- # whoever waits for a read can't be killed
	[ -z "$HELD" ] || wait "$HELD" || true
	lab_stop_server
	umount -l "$1"
	rm -rf "$LAB/disk"
}

# All in the background, without what only this shell has open: that and signals are part of a call.
start() { # COMMAND
	CONCC_EXPLAIN=$LAB/explain concc-dispatch --cache=contents sh -c "$1" </dev/null 7>&- 9>&- &
}

run() { # WHERE COMMAND
	: >"$LAB/explain"
	start "$2"
	wait $!
	[[ $(<"$LAB/explain") == *"remote on $1:"* ]] || fail "$2: not by $1: $(<"$LAB/explain")"
}

warm() { # WHERE
	run "$1" 'cat near >near.copy'
	expect_eq "what it made" "$(cat near.copy)" one
	rm near.copy
}

# In the background; returns when the reading of what it looks at is held.
hold() { # COMMAND
	mkfifo "$GATE"
	start "$1"
	HELD=$!
	exec 7>"$GATE"
}

let_go() {
	rm "$GATE" # nor is anything held after this
	exec 7>&-
}

others_are_answered() {
	timeout "$LAB_LIMIT" concc status >/dev/null || fail "no answer while a file is read"
	warm '(cache)'
}

# So it is if the machine is that busy.
took_long() {
	grep -q 'reading .* takes long' "$CONCC_RUNTIME_DIR/project.log"
}

job=': <far/large; echo made >made'

first() {
	begin first
	hold "$job"
	others_are_answered
	let_go
	wait "$HELD"
	expect_eq "what it made" "$(cat made)" made
	rm made
	took_long || run '(cache)' "$job"
}

# Of a file that has just changed nothing is remembered, however often it is read.
looked_up() {
	begin looked-up
	run w1 "$job"
	rm made
	touch far/large
	hold "$job"
	others_are_answered
	expect_eq "hits" "$(lab_status .cache.hits)" 2
	let_go
	wait "$HELD"
	took_long || expect_eq "hits" "$(lab_status .cache.hits)" 3
	expect_eq "what it made" "$(cat made)" made
}

# A person asks what a look-up would come to.
asked_why() {
	begin asked-why
	run w1 "$job"
	rm made
	touch far/large
	mkfifo "$GATE"
	concc why concc-dispatch --cache=contents sh -c "$job" </dev/null 7>&- 9>&- >"$LAB/why" &
	HELD=$!
	exec 7>"$GATE"
	others_are_answered
	let_go
	wait "$HELD" || true
	took_long || expect_grep '^hit: its result of .* is kept, made by w1' "$LAB/why"
}

# A worker asks for its bytes.
fetched() {
	begin fetched
	hold 'cat far/large >large.copy'
	others_are_answered
	let_go
	wait "$HELD"
	expect_same_file large.copy "$LAB/disk/large"
}

killed() {
	begin killed
	hold "$job"
	kill -KILL "$HELD"
	wait "$HELD" || true
	others_are_answered
	let_go
	expect_eq "made" "$(ls made 2>/dev/null)" ''
	run w1 "$job"
	rm made
	run '(cache)' "$job"
	rm made
	touch far/large
	hold "$job" # looked up
	kill -KILL "$HELD"
	wait "$HELD" || true
	others_are_answered
	let_go
	run '(cache)' "$job"
	expect_eq "links" "$(lab_status '.workers[0].starts')" 1
}

# Not for ever.
hangs() {
	begin hangs
	hold "$job"
	wait "$HELD"
	expect_eq "what it made" "$(cat made)" made
	expect_eq "not kept for it" "$(reasons unreadable)" 1
	others_are_answered
	took_long || fail "not told"
	let_go
}

stopped() {
	local server
	begin stopped
	server=$(lab_server_pid)
	hold "$job"
	rm "$GATE" # the next server's are not held
	timeout "$LAB_LIMIT" concc stop || fail "concc stop: exit status $?"
	exec 7>&-
	expect_gone "the server" "$server"
	wait "$HELD"
	expect_eq "what it made" "$(cat made)" made
}

# As sshfs has them: names, numbers, size and times, which are all that it shows, stay the same.
other_bytes() {
	head -c 3000000 /dev/urandom | dd of="$LAB/disk/large" conv=notrunc status=none
	touch -d '2020-01-01' "$LAB/disk/large"
}

is_seen() {
	run w1 'cat far/large >large.copy'
	expect_same_file large.copy "$LAB/disk/large"
	rm large.copy
}

next_server() {
	begin next-server
	is_seen
	lab_stop_server
	other_bytes
	lab_all_up
	is_seen
}

mounted_anew() {
	begin mounted-anew
	is_seen
	umount far
	other_bytes
	attach
	is_seen
}

check "a job's end" first
check "a look-up" looked_up
check "a question" asked_why
check "whose client is killed" killed
check "what a worker fetches" fetched
check "what hangs" hangs
check "the server's end" stopped
check "other bytes for the next server" next_server
check "other bytes when it is mounted anew" mounted_anew
lab_stop
