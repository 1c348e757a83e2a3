#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Kept results while files change under the jobs: test/lib/race-model.c lets several jobs run in a
# storm of edits, and compares in the quiet after it what is found with what the same command does
# here.  SEED=N does alike (what meets what depends on the machine, too), ROUNDS=N as many storms of
# each kind.
# limit: 400
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
lab_need jq
export LAB_ROOT=client
lab_enter "$@"
lab_start builder
SEED=${SEED:-$((16#$(od -An -N3 -tx1 /dev/urandom | tr -d ' ')))}
ROUNDS=${ROUNDS:-1}
echo "note: SEED=$SEED ROUNDS=$ROUNDS"
KIND=0

model() { # COMMAND [NAME=VALUE...]
	local command=$1 status=0
	shift
	rm -rf "$WS/r" "$LAB/here"
	env "$@" "$LAB_TOOLS/race-model" "$WS/r" "$LAB/here" "$ROUNDS" $((SEED + KIND)) "$command" || status=$?
	lab_status .cache
	expect_eq "status" $status 0
}

races() { # NAME COMMAND [NAME=VALUE...]
	KIND=$((KIND + 1))
	check "$1" model "${@:2}"
	grep -h "hits of" "$LAB/check.log" 2>/dev/null | sed "s/^/note: /" || true; : >"$LAB/check.log"
}

# What takes long is for a soak, or for who asks.
often() {
	[ -n "${CONCC_TEST_SOAK-}${CONCC_TEST_ONLY-}" ]
}

cp "$LAB_TOOLS/command" "$WS/command"
near_config
races "a storm, any command" "$WS/command"
races "a storm, a compiler" gcc
if often; then
	races "a storm, damaged results" "$WS/command" RACE_STORE="$CONCC_CACHE_DIR/results"
	races "a storm, killed" "$WS/command" RACE_KILL=yes
	races "a storm, a compiler, killed" gcc RACE_KILL=yes
	mkdir -m 700 /srv/run2
	races "a storm, two servers" "$WS/command" RACE_SERVER=/srv/run2
	CONCC_RUNTIME_DIR=/srv/run2 concc stop >/dev/null || true
	near_config
	sed -i 's/^cache = 1G/cache = 16M/' /srv/concc.ini
	races "a storm, a small store" "$WS/command" RACE_FILL=yes
	lab_config 'cache = 1G' 'local-slots = 0'
	lab_stop_server
	races "a storm, workers elsewhere" "$WS/command"
	races "a storm, a compiler elsewhere" gcc
fi
lab_stop
