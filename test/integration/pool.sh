#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# limit: 120
#
# concc-worker-pool as scripts use it.  What the pool itself promises is in test/unit/test_pool.c.
. "$(dirname "$0")/../lib/lab.sh"

export LAB=${CONCC_TEST_DIR:-}
if [ -z "$LAB" ]; then
	LAB=$(mktemp -d)
	trap 'rm -rf "$LAB"' EXIT
fi
work=$LAB
export CONCC_RUNTIME_DIR=$work/run
PATH=$LAB_BIN:$PATH
mkdir -m 700 "$CONCC_RUNTIME_DIR"

# status CODE CMD...: the command ends with that status; its output is in $work/out and $work/err.
status() {
	local want=$1 rc=0
	shift
	timeout -k 1 "$LAB_LIMIT" "$@" >"$work/out" 2>"$work/err" || rc=$?
	[ $rc -eq "$want" ] || fail "$*: status $rc, not $want: $(cat "$work/out" "$work/err")"
}

out() { # TEXT: the last command printed it
	grep -qF -- "$1" "$work/out" || fail "no '$1' in: $(cat "$work/out")"
}

err() { # TEXT: the last command complained with it
	grep -qF -- "$1" "$work/err" || fail "no '$1' in: $(cat "$work/err")"
}

usage() {
	status 100 concc-worker-pool
	status 100 concc-worker-pool statsu
	err "did you mean 'status'"
	status 100 concc-worker-pool add
	status 100 concc-worker-pool add x 0
	status 100 concc-worker-pool add x 1025
	status 100 concc-worker-pool allocate --
	status 100 concc-worker-pool allocate --only
	status 100 concc-worker-pool release 12
	status 0 concc-worker-pool --help
	out "usage: concc-worker-pool"
	status 101 concc-worker-pool add a/b 1
	err "a/b"
}

members() {
	status 0 concc-worker-pool status
	out "no workers"
	status 102 concc-worker-pool allocate -- true
	status 0 concc-worker-pool add b1 2
	status 0 concc-worker-pool add local 3
	status 0 concc-worker-pool limit
	[ "$(cat "$work/out")" = 5 ] || fail "limit is $(cat "$work/out")"
	status 0 concc-worker-pool status --json
	out '"name": "b1", "state": "up", "slots": 2, "taken": 0'
	status 104 concc-worker-pool remove b2
	err "b2"
	status 0 concc-worker-pool remove b1
	status 0 concc-worker-pool reset
	status 0 concc-worker-pool limit
	[ "$(cat "$work/out")" = 0 ] || fail "limit is $(cat "$work/out")"
}

command_status() {
	concc-worker-pool add b1 1
	status 7 concc-worker-pool allocate -- sh -c 'echo "on $CONCC_SLOT"; exit 7'
	out "on b1"
	status 105 concc-worker-pool allocate -- "$work/none"
	err "$work/none"
	status 139 bash -c 'concc-worker-pool allocate -- sh -c "kill -SEGV \$\$"; exit $?'
	status 103 concc-worker-pool allocate -- concc-worker-pool allocate --try -- true
	status 102 concc-worker-pool allocate --only b2 -- true
	err "b2"
	status 0 concc-worker-pool allocate -- true
}

# The command ends with the program that holds its slot, and the slot is free at once.
killed_holder() {
	local pid child
	concc-worker-pool add b1 1
	mkfifo "$work/ready"
	concc-worker-pool allocate -- sh -c 'echo $$ >"$0"; exec sleep 1000' "$work/ready" &
	pid=$!
	read -r child <"$work/ready"
	status 103 concc-worker-pool allocate --try -- true
	kill -KILL $pid
	status 0 concc-worker-pool allocate -- true
	"$LAB_TOOLS/wait-gone" "$LAB_LIMIT" "$child"
}

# SIGTERM reaches the command, whose end is then ours.
signal_passed_on() {
	local pid rc=0 child
	concc-worker-pool add b1 1
	mkfifo "$work/ready2"
	concc-worker-pool allocate -- sh -c 'echo $$ >"$0"; exec sleep 1000' "$work/ready2" &
	pid=$!
	read -r child <"$work/ready2"
	kill -TERM $pid
	wait $pid || rc=$?
	[ $rc -eq 143 ] || fail "status $rc"
	"$LAB_TOOLS/wait-gone" "$LAB_LIMIT" "$child"
}

tokens() {
	local name token me=$BASHPID
	concc-worker-pool add b1 1
	# The read ends only if the holder in the background kept nothing of ours open.
	read -r name token < <(concc-worker-pool allocate --owner $me | cat)
	[ "$name" = b1 ] || fail "name '$name'"
	status 103 concc-worker-pool allocate --try
	err "all slots are taken"
	status 104 concc-worker-pool release "$token"1
	status 103 concc-worker-pool allocate --try
	status 0 concc-worker-pool release "$token"
	status 104 concc-worker-pool release "$token"
	status 104 concc-worker-pool release "$$.$(awk '{ print $22 }' /proc/$$/stat)"
	status 0 concc-worker-pool allocate --try -- true
	status 104 concc-worker-pool allocate --owner 2147483647
}

owner_ends() {
	local token
	concc-worker-pool add b1 1
	mkfifo "$work/line"
	bash -c 'concc-worker-pool allocate >"$1"; exit' - "$work/line" &
	read -r _ token <"$work/line"
	wait $!
	# Waits for the holder to notice, which the kernel tells it.
	status 0 concc-worker-pool allocate -- true
	"$LAB_TOOLS/wait-gone" "$LAB_LIMIT" "${token%.*}"
}

# Nobody is lost, and the count of those inside never exceeds the slots.
crowd() {
	local i
	concc-worker-pool add b1 2
	concc-worker-pool add b2 2
	mkdir "$work/inside"
	for i in $(seq 60); do
		concc-worker-pool allocate -- bash -c '
			: >"$0/$1"
			n=("$0"/*)
			echo ${#n[@]} >>"$0.count"
			rm "$0/$1"' "$work/inside" "$i" &
	done
	wait
	[ "$(wc -l <"$work/inside.count")" = 60 ] || fail "some did not run"
	[ "$(sort -n "$work/inside.count" | tail -n 1)" -le 4 ] || fail "more than 4 inside"
	status 0 concc-worker-pool status --json
	out '"waiting": 0'
}

hostile_files() {
	local run=$work/hostile
	mkdir -m 700 "$run" "$work/elsewhere"
	ln -s "$work/elsewhere" "$run/slots"
	CONCC_RUNTIME_DIR=$run status 101 concc-worker-pool status
	err "$run/slots"
	rm "$run/slots"
	ln -s "$work/elsewhere/file" "$run/pool"
	CONCC_RUNTIME_DIR=$run status 101 concc-worker-pool status
	err "$run/pool"
	[ ! -e "$work/elsewhere/file" ] || fail "a symbolic link was followed"
	rm "$run/pool"
	chmod 777 "$run"
	CONCC_RUNTIME_DIR=$run status 101 concc-worker-pool status
	err "$run"
	chmod 700 "$run"
	CONCC_RUNTIME_DIR=$run status 0 concc-worker-pool add b1 1
	printf garbage | dd of="$run/pool" conv=notrunc status=none
	CONCC_RUNTIME_DIR=$run status 0 concc-worker-pool status
	err "making a new one"
}

# A user who may have no inotify instance: the limit is per user namespace.
no_inotify() {
	unshare -Ur true 2>/dev/null || { echo "no user namespaces here" && return 0; }
	concc-worker-pool add b1 1
	status 0 unshare -Ur bash -c '
		set -e
		echo 0 >/proc/sys/user/max_inotify_instances
		mkfifo "$0/a" "$0/b"
		concc-worker-pool allocate -- sh -c "echo >$0/a; read x <$0/b" &
		read -r x <"$0/a"
		concc-worker-pool allocate -- true &
		echo >"$0/b"
		wait $!' "$work"
}

for t in usage members command_status killed_holder signal_passed_on tokens owner_ends crowd \
	hostile_files no_inotify; do
	check $t $t
	concc-worker-pool reset
done
exit "$((LAB_CHECKS_FAILED > 0))"
