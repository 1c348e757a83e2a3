#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Builds of Lua during which things go wrong, at random moments: each must succeed, with the bytes of
# a local build, and leave nothing.  The same seed gives the same faults after the same number of
# compiler calls.  CONCC_CHAOS_SEED replays, CONCC_CHAOS_BUILDS says how many (make soak: 50).
# limit: 240
SEED=${SEED:-${CONCC_CHAOS_SEED:-}} ROUNDS=${ROUNDS:-${CONCC_CHAOS_BUILDS:-}}
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_source lua5.4
lab_enter "$@"
seed=${SEED:-$((SRANDOM % 1000000))} builds=${ROUNDS:-1}
echo "note: replay with CONCC_CHAOS_SEED=$seed CONCC_CHAOS_BUILDS=$builds"
lab_start builder root builder
lab_config 'connect-timeout = 4'
mkfifo "$LAB/never" "$LAB/calls"
exec 7<>"$LAB/calls"
faults_done=0

# Faults that end by themselves, and those that are healed before the next.
once=(wrapper wrapper server agent agent launcher sshd tmp_cleaned cache_client cache_worker)
lasting=(cut cut_to cut_from freeze suspend store_full)
CHAOS_SUSPEND=5	# more than either side waits for a silent other one

# What make calls.  It says that it was called, and calls again what was killed: nothing else makes a
# build go on that has lost a compiler.
cat >"$LAB/again" <<'END'
#!/bin/sh
echo >"$CHAOS_CALLS"
while :; do
	"$@"
	rc=$?
	[ $rc -eq 137 ] || exit $rc
	echo "again: $*" >&2
done
END
chmod +x "$LAB/again"
export CHAOS_CALLS=$LAB/calls

build() { # CC
	make -C "$WS/lua/src" -j16 CC="$1" linux
}

outputs() { # DIR
	(cd "$1/src" && sha256sum ./*.o ./*.a lua luac)
}

# Lines "CALLS FAULT WORKER PICK": after so many more calls, this fault.
plan() { # BUILD
	local left=45 calls kind
	RANDOM=$((seed * 1000 + $1))
	while [ $left -gt 5 ]; do
		calls=$((1 + RANDOM % 8))
		left=$((left - calls))
		if [ $((RANDOM % 3)) -gt 0 ]; then
			kind=${once[RANDOM % ${#once[@]}]}
		else
			kind=${lasting[RANDOM % ${#lasting[@]}]}
		fi
		echo "$calls $kind $((1 + RANDOM % LAB_N)) $RANDOM"
	done
}

# Does the plan's faults while the build runs; the end of the build is a line "end".
inject() { # PLAN LOG
	local calls kind n pick word
	while read -r calls kind n pick <&6; do
		while [ "$calls" -gt 0 ]; do
			read -r word <&7
			[ "$word" != end ] || return 0
			calls=$((calls - 1))
		done
		fault_heal
		echo "$kind $n" >>"$2"
		"fault_$kind" "$n" "$pick"
		if [ "$kind" = suspend ]; then
			fault_lasts "$CHAOS_SUSPEND"
			fault_thaw
		fi
	done 6<"$1"
	while read -r word <&7 && [ "$word" != end ]; do :; done
}

nothing_left_in_tree() {
	expect_eq "temporary files" "$(find "$WS" -name '.concc-*')" ''
}

one_build() { # NUMBER
	local rc=0 injector
	rm -rf "$WS/lua"
	cp -r "$LAB_SOURCE" "$WS/lua"
	plan "$1" >"$LAB/plan"
	: >"$LAB/faults"
	(
		inject "$LAB/plan" "$LAB/faults"
		fault_heal
	) 2>"$LAB/inject.log" &
	injector=$!
	build "$LAB/again concc-cc gcc" >"$LAB/build.log" 2>&1 || rc=$?
	echo end >&7
	wait "$injector" || fail "the injector failed: $(cat "$LAB/inject.log")"
	echo "build $1: faults: $(tr '\n' ',' <"$LAB/faults")"
	grep -E '^(concc|again): ' "$LAB/build.log" | sed 's/\(again: \).*/\1/' | sort | uniq -c || true
	[ $rc -eq 0 ] || {
		cat "$LAB/build.log"
		fail "the build ended with $rc"
	}
	outputs "$WS/lua" >"$LAB/outputs"
	diff "$LAB/local.outputs" "$LAB/outputs" || fail "the outputs differ"
}

# A quiet build: all runs remotely again, and what was left behind is gone.
recovered() {
	make -s -C "$WS/lua" clean
	lab_stop_server
	CONCC_EXPLAIN=1 build "concc-cc gcc" >"$LAB/build.log" 2>"$LAB/explain" ||
		fail "the build failed: $(tail -n 5 "$LAB/explain")"
	outputs "$WS/lua" | diff "$LAB/local.outputs" -
	expect_remote_share 95 "$LAB/explain" 'link|query'
	nothing_left_in_tree
}

cp -r "$LAB_SOURCE" "$WS/lua"
build gcc >"$LAB/local.log" 2>&1 || fail "the local build failed: $(tail -n 3 "$LAB/local.log")"
outputs "$WS/lua" >"$LAB/local.outputs"
for ((i = 1; i <= builds; i++)); do
	check "build $i of seed $seed" one_build "$i"
	cat "$LAB/check.log"
	faults_done=$((faults_done + $(wc -l <"$LAB/faults")))
done
check "a quiet build after it" recovered
echo "note: $builds builds, $faults_done faults"
lab_stop
