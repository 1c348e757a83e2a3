#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What is much work for one job's sake keeps nobody waiting: others are answered while it goes on.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=2
lab_need jq
lab_enter "$@"
lab_start builder
lab_config 'local-slots = 0'
concc-dispatch true || fail "no project server"
N=20000

# Asks again and again while a job goes on.  ANSWERS: how many came while its files were put in place.
ask_while() { # COMMAND
	local job
	concc-dispatch sh -c "$1" </dev/null &
	job=$!
	ANSWERS=0
	while kill -0 $job 2>/dev/null; do
		timeout "$LAB_LIMIT" concc status --json >"$LAB/status" || fail "no answer"
		jq -e '.commits.waiting > 0' "$LAB/status" >/dev/null || continue
		ANSWERS=$((ANSWERS + 1))
	done
	wait $job
}

count() { # DIRECTORY
	find "$1" -name 'f*' 2>/dev/null | wc -l
}

make_in() { # DIRECTORY
	echo "for s in 1 2 3 4; do mkdir -p $1/\$s; i=0; while [ \$i -lt 5000 ]; do : >$1/\$s/f\$i; i=\$((i + 1)); done; done"
}

many_outputs() {
	ask_while "$(make_in d)"
	expect_eq "files" "$(count d)" $N
	expect_ge "answers meanwhile" $ANSWERS 1
}

# Their directory is read by the job, so what is in it is known, and must be what it was.
tree_removed() {
	[ -d d ] || bash -c "$(make_in d)"
	ask_while 'rm -r d'
	expect_no_file d
	expect_ge "answers meanwhile" $ANSWERS 1
}

# Other jobs, meanwhile: what they print is out, and they end; what they wrote is in its turn.
others() {
	local large small
	concc-dispatch sh -c "$(make_in e)" </dev/null &
	large=$!
	until [ "$(count e)" -gt 0 ]; do
		kill -0 $large || break
	done
	concc-dispatch sh -c 'echo one; echo two >two' >out &
	small=$!
	concc-dispatch true
	wait $small
	expect_eq "what it printed" "$(<out)" one
	expect_eq "what it wrote" "$(<two)" two
	wait $large
	expect_eq "files" "$(count e)" $N
}

announced() {
	# shellcheck disable=SC2016 # the job's
	concc-dispatch sh -c 'head -c 200000000 /dev/zero >"$0"; echo "{\"artifact\":\"$0\",\"emit\":\"link\"}"' \
		"$PWD/large" --json=artifacts | (
		read -r line
		expect_eq "size of $line" "$(stat -c %s large)" 200000000
	)
	expect_eq "what it said" "${PIPESTATUS[*]}" "0 0"
	rm large
}

check "a large file that is announced" announced
check "many outputs" many_outputs
check "other jobs" others
check "a large tree that is removed" tree_removed
large='"\(.long) calls of over 50 ms, the longest \(.longest_us) us"'
echo "note: the server: $(lab_status ".loop | $large"), $(lab_status .commits.pieces) pieces"
echo "note: the worker: $(lab_worker 1 /mnt/bin/concc-worker --status --json | jq -r ".agents[0].loop | $large")"
lab_stop
