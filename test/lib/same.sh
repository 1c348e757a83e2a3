# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# Everything twice: a shell text here, and with its commands on each worker, and what came of it compared:
# output, errors, status, files.  A test sources this after lab.sh, with LAB_SLOTS=1:
#
#	same_start [here]	workers w1, which shows its own system, w2, the client's, and "here", a local: one
#	same WHERE TEXT		in a new directory $WS/t, which fixture() fills where the test has one.  $RUN is
#				in front of each command of any kind, $COMPILE of a compiler
#
# WHERE: "remote", of all jobs, or what is said of those that run here.

SAME_WORKERS=(w1 w2)

same_start() {
	lab_start builder root
	lab_config 'local-slots = 0'
	sed -i '/^\[worker w2\]/,$s/^root = worker/root = client/' /srv/concc.ini
	if [ "${1-}" = here ]; then
		SAME_WORKERS+=(here)
		printf '\n[worker here]\naddress = local:\nprogram = %s\nslots = 1\n' "$LAB_BIN/concc-worker" >>/srv/concc.ini
	fi
	cd "$WS" || fail "no $WS"
	concc-dispatch true
	LAB_N=${#SAME_WORKERS[@]} lab_all_up
}

# As at_worker of the lab, which knows only its own.
same_at() { # WORKER CMD...
	local worker=$1 other tokens=() token rc=0
	shift
	for other in "${SAME_WORKERS[@]}"; do
		[ "$other" != "$worker" ] || continue
		token=$(concc-worker-pool allocate --only "$other" --owner "$$") || fail "$other has no slot"
		tokens+=("${token##* }")
	done
	"$@" || rc=$?
	for token in "${tokens[@]}"; do
		concc-worker-pool release "$token" || fail "can't release $token"
	done
	return $rc
}

same_new() {
	[ ! -e t ] || rm -rf t
	mkdir t
	! declare -F fixture >/dev/null || fixture
}

# What of a message are a shell's words on where it is, numbers of processes, or ours.
same_words() { # FILE
	sed -E -i '/^concc: .*; running it here$/d; s/^[^ ]*bash: line [0-9]+: +([0-9]+ )?//' "$1"
}

# Leaves NAME.out, .err, .status and .tree.
same_run() { # NAME TEXT
	local rc=0
	same_new
	(cd t && bash -c "$2") >"$LAB/$1.out" 2>"$LAB/$1.err" </dev/null || rc=$?
	echo $rc >"$LAB/$1.status"
	same_words "$LAB/$1.err"
	(cd t && find . -mindepth 1 -printf '%P %y %m %n %U:%G %s %l\n' | sort && find . -type f -exec cksum {} + | sort) \
		>"$LAB/$1.tree"
}

same() { # WHERE TEXT
	local where=$1 text=$2 worker part
	RUN=env COMPILE=gcc same_run plain "$text"
	for worker in "${SAME_WORKERS[@]}"; do
		rm -f "$LAB/explain"
		RUN=${WRAPPER-concc-dispatch} COMPILE="concc-cc gcc" CONCC_EXPLAIN=$LAB/explain \
			same_at "$worker" same_run job "$text"
		echo "$worker: $text"
		cat "$LAB/explain" "$LAB/job.err"
		for part in out err status tree; do
			diff -au "$LAB/plain.$part" "$LAB/job.$part" || fail "$worker: another $part of: $text"
		done
		case $where in
		remote)
			expect_grep "^concc: remote on $worker" "$LAB/explain"
			expect_no_grep '^concc: local: ' "$LAB/explain"
			;;
		*) expect_grep "^concc: local: $where" "$LAB/explain" ;;
		esac
	done
}
