#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Jobs that print while they make, change, move, link and remove files at random: what they print, how
# they end and what they leave is what the same operations do here, and nothing of a job is seen on the
# client before its end.  SEED=n repeats a run, STEPS=n makes it longer, LAB_MEMORY= has the files on the
# disk.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
LAB_MEMORY=${LAB_MEMORY-1}
STEPS=${STEPS:-600}
LAB_SLOTS=1
lab_need jq
lab_enter "$@"
lab_start builder root
lab_config
SEED=${SEED:-$RANDOM$RANDOM}
HERE=/srv/lo # as long as the workspace's name

rounds() { # MODE STEPS COMMAND...
	local mode=$1 steps=$2
	shift 2
	mkdir -p "$HERE/$mode/t" "$WS/$mode/t"
	echo "seed $SEED"
	"$LAB_TOOLS/printing" rounds "$mode" "$HERE/$mode/t" "$WS/$mode/t" "$steps" "$SEED" "$@" ||
		fail "$(grep '^FAIL' "$LAB/check.log" | tail -n 1 | sed 's/^FAIL: //')"
	rm -rf "${HERE:?}/$mode" "${WS:?}/$mode"
}

# Every job ran on a worker, and came home from it.
none_at_home() {
	expect_eq "jobs sent back, by reason" "$(lab_status '.reasons | tojson')" '{}'
	expect_eq "jobs tried again" "$(lab_status .retried)" 0
	expect_eq "jobs" "$(lab_status .jobs)" "$(sed -n 's/^note: .* in \([0-9]*\) rounds.*/\1/p' "$LAB/check.log")"
}

# By a server that has counted nothing yet.
remote() { # MODE
	lab_stop_server
	rounds "$1" "$STEPS" concc-dispatch
	none_at_home
}

# A script that waits until all workers are up, and then has a job done by each: else the next try to
# connect would come later and later.
all_up_again() {
	{
		declare -p LAB_N LAB_LIMIT LAB
		declare -f at_worker fault_recovered fail
		cat <<-'EOS'
			concc-dispatch true
			fault_recovered
			for ((n = 1; n <= LAB_N; n++)); do
				at_worker $n concc-dispatch true
			done
		EOS
	} >"$LAB/all-up"
	echo "exec bash $LAB/all-up"
}

# What runs here as it can't be done there has printed nothing that is wrong before.
linked() {
	lab_stop_server
	rounds linked "$STEPS" concc-dispatch
	lab_status '.reasons | keys | tojson' >"$LAB/reasons"
	# A file that got a further name here in the tick of the clock in which it was looked at may have
	# other bytes for all that its times tell: then a job that needs it is tried again.
	expect_grep '^\["no-way-home"(,"worker-failed")?\]$' "$LAB/reasons"
}

lost() {
	PRINTING_BEFORE=$(all_up_again) rounds lost $((STEPS / 3)) concc-dispatch
}

noted() { # NAME CMD...
	rm -f "$LAB/check.log"
	check "$@"
	grep -hs '^note: ' "$LAB/check.log" || true
}

noted "twice here" rounds plain "$STEPS" env
noted "nobody else writes" remote alone
noted "times of files" remote times
noted "directories get other modes" remote closed
noted "files and directories of the client's get other names" linked
noted "others change other files" remote others
noted "somebody changes the same files" rounds same $((STEPS / 2)) env CONCC_EXPLAIN=1 concc-dispatch
noted "workers are killed" lost
lab_stop
