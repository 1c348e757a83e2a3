#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Kept results of any command under random edits: test/lib/any-model.c compares each with what the
# same command does here.  SEED=N does the same steps again, STEPS=N as many of each of the ROUNDS=N
# models that go on beside each other.
# limit: 400
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
lab_need jq
lab_enter "$@"
export LAB_ROOT=client
lab_start builder
SEED=${SEED:-$((16#$(od -An -N3 -tx1 /dev/urandom | tr -d ' ')))}
STEPS=${STEPS:-500}
ROUNDS=${ROUNDS:-3}
echo "note: SEED=$SEED STEPS=$STEPS ROUNDS=$ROUNDS"

model() { # COMMAND STEPS
	local n failed=0 pids=()
	rm -f "$LAB"/model*.out
	for ((n = 0; n < ROUNDS; n++)); do
		rm -rf "$WS/m$n" "$LAB/here$n"
		"$LAB_TOOLS/any-model" "$WS/m$n" "$LAB/here$n" "$2" $((SEED + n)) "$1" >"$LAB/model$n.out" 2>&1 &
		pids+=($!)
	done
	for ((n = 0; n < ROUNDS; n++)); do
		wait "${pids[n]}" || failed=$((failed + 1))
		head -n 200 "$LAB/model$n.out"
	done
	lab_status .cache
	expect_eq "that failed" $failed 0
}

# Of what was seen before some is not kept: what had changed a moment before, or no more than a mode.
found_again() {
	local hits again missed
	read -r hits again missed < <(cat "$LAB"/model*.out |
		awk '/ hits in / { hits += $1; again += $13; missed += $16 } END { print hits, again, missed }')
	echo "$hits hits; $again seen before, $missed of them not found"
	expect_ge "hits in a hundred steps" $((hits * 100 / (STEPS * ROUNDS))) 5
	expect_le "states not found again" "$missed" $((3 + again / 10))
}

cp "$LAB_TOOLS/command" "$WS/command"
lab_config 'cache = 1G' 'local-slots = 0'
check "random edits, any command" model "$WS/command" $((STEPS / 5))
near_config
check "random edits, any command here" model "$WS/command" "$STEPS"
check "what was seen before is found" found_again
grep -h "hits;" "$LAB/check.log" 2>/dev/null | sed "s/^/note: /" || true
check "random edits, a compiler" model gcc $((STEPS / 4))
grep -h " hits in" "$LAB/check.log" 2>/dev/null | sed "s/^/note: /" || true
lab_stop
