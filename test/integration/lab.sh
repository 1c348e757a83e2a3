#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# The lab itself: what the other tests rely on.  Two hosts that reach each other by ssh and share
# nothing, and a look for leftovers that finds some.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_enter "$@"
lab_start builder root

ssh_says() { # HOST WANTED CMD
	expect_eq "$3 on $1" "$(ssh -o BatchMode=yes "$1" "$3" 2>&1 | tail -n 1)" "$2"
}

users() {
	ssh_says w1 builder 'id -un'
	ssh_says w2 root 'id -un'
	ssh_says w1 w1 hostname
}

apart() {
	echo secret >"$WS/file"
	ssh_says w1 no "cat $WS/file >/dev/null 2>&1 || echo no"
	ssh_says w2 no "test -e $LAB_REPO/Makefile || echo no"
	ssh_says w2 no "cat /proc/[0-9]*/cmdline | tr '\\\\0' '\\\\n' | grep -q -- '^--repor[t]' || echo no"
}

fuse_for_anyone() {
	ssh_says w1 yes 'exec 3<>/dev/fuse && echo yes'
}

# A process of a connection is found, told apart from the host's own, and seen to end.
finds_leftovers() {
	local out pid left
	mkfifo "$LAB/out"
	cp "$LAB_TOOLS/hold" "$LAB/w1/bin/"
	ssh w1 /mnt/bin/hold >"$LAB/out" </dev/null 2>&1 &
	exec 3<"$LAB/out"
	while read -r -t "$LAB_LIMIT" out <&3 && [ "$out" != held ]; do :; done
	pid=$(lab_worker_pids 1 hold)
	expect_ne "the process on the worker" "$pid" ''
	left=" $(lab_leftovers) "
	[[ ${left//$'\n'/ } == *" $pid "* ]] || fail "the process is not found"
	lab_hang_up 1
	wait
	kill -KILL $(lab_worker_pids 1 hold)
	expect_gone "a killed process" "$pid"
}

# Both end while pid 1 stands still: it hears of the command first, and the other is not left for that.
finds_no_ended() {
	local outer inner ended rc=0
	mkfifo "$LAB/orphan" "$LAB/main"
	# shellcheck disable=SC2016 # of the command
	"$LAB_TOOLS/nsinit" --report sh -c '(sh -c "read -r x <$LAB/orphan; true" &); read -r x <"$LAB/main"; true' &
	outer=$!
	exec 7>"$LAB/orphan" 8>"$LAB/main"
	inner=$(lab_children "$outer")
	ended=$(lab_children "${inner% }")
	expect_eq "processes inside" "$(wc -w <<<"$ended")" 2
	lab_suspend $inner
	exec 7>&- 8>&-
	expect_gone "both" $ended
	kill -CONT $inner
	wait "$outer" || rc=$?
	expect_eq "exit status" "$rc" 0
}

cable() {
	lab_cut 1
	expect_status 255 ssh -o ConnectTimeout=1 w1 true
	lab_mend 1
	ssh_says w1 builder 'id -un'
}

# By its limit it would be the first.  The others wait for each other, so they are there at once.
runs_alone() {
	local dir=$LAB/files
	mkdir "$dir" "$LAB/runner"
	mkfifo "$dir/a.fifo" "$dir/b.fifo"
	printf '#!/bin/bash\n# limit: 500\n# alone\necho alone >>%s/order\n' "$dir" >"$dir/alone.sh"
	printf '#!/bin/bash\necho >%s/a.fifo\nread -r x <%s/b.fifo\necho beside >>%s/order\n' "$dir" "$dir" "$dir" >"$dir/a.sh"
	printf '#!/bin/bash\nread -r x <%s/a.fifo\necho >%s/b.fifo\necho beside >>%s/order\n' "$dir" "$dir" "$dir" >"$dir/b.sh"
	TMPDIR=$LAB/runner CONCC_TEST_LOGS=$LAB/runner CONCC_BUILD=$LAB_BUILD \
		"$LAB_REPO/test/run-integration" -j 3 "$dir"/*.sh
	expect_eq "their order" "$(xargs <"$dir/order")" "beside beside alone"
}

check "accounts and names" users
check "nothing shared" apart
check "the unprivileged user may open /dev/fuse" fuse_for_anyone
check "leftovers are found" finds_leftovers
check "who has ended is none" finds_no_ended
check "the cable can be cut and mended" cable
check "what has to run alone does" runs_alone
lab_stop
