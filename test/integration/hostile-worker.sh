#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A worker that lies to the client, in every way that test/hostile/evil-worker knows: it is refused
# and said once why, its link is closed (unless the lie is one of a job, which may be honest), the
# job is done here and right, and nothing outside the workspace was touched.  Each scenario has a
# client of its own, and all run at once.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_enter "$@"
EVIL=$LAB_BUILD/test/hostile/evil-worker
OUT=/srv/outside
mkdir "$OUT"
echo precious >"$OUT/precious"
chmod 640 "$OUT/precious"
mkdir -m 700 "$OUT/closed"
mkdir "$OUT/many"
seq -f "$OUT/many/%.0f" 1000 | xargs touch
ls -ln --time-style=full-iso "$OUT" >"$LAB/outside"
echo "right" >"$LAB/a.c"
head -c 2M /dev/urandom >"$LAB/big" # more than is queued at once, and not compressible
lab_mounts >"$LAB/mounts"

# What the log says of the worker, and where the job ran.  Where a job may have done the same in
# good faith (it made a symlink and a file behind it, a name of ours), the link stays.
expected() { # SCENARIO: sets DOWN (what ends the link, or "") and HERE (the rule, or "")
	DOWN='' HERE='no-worker|gave-up'
	case $1 in
	honest-but-wrong | list-outside | list-flood | pings | exit-long) HERE='' ;;
	load-false | load-flood) HERE='' ;;
	trace-endless | trace-automount* | trace-closed-* | trace-lists) HERE='' ;;
	noise-frames) DOWN='a malformed frame' ;;
	noise-first) DOWN='no concc-worker greeted within 64 KB' ;;
	other-escapes) DOWN='speaks protocol 77' ;;
	other-version) DOWN='speaks protocol 77, newer .* upgrade this one, or have its .command. start' ;;
	giant-hello) DOWN='message HELLO .* protocol' ;;
	escapes) DOWN='.x1b.2J' ;;
	checkup-unasked) DOWN='message CHECKUP .*' ;;
	storage-escapes) HERE='' ;;
	storage-*) DOWN='message STORAGE .* protocol' ;;
	hello-twice | ready-first | job-before-ready) DOWN='message [A-Z_]+ .* protocol' ;;
	through-* | remove-through-* | chmod-through-* | link-through-* | our-temporary*)
		HERE='write-back|conflict' ;;
	set-user-id*) HERE=write-back ;;
	git-hooks) HERE=no-way-home ;;
	locked-fifo) HERE=conflict ;;
	exit-outside) HERE=outside-write ;;
	exit-escapes) HERE='gave-up' ;;
	over-symlink) HERE='' ;;
	many-names) HERE=write-back ;;
	missing-changed | missing-escapes | missing-lists) HERE=missing ;;
	half-frame) DOWN='no answer for' ;;
	killed-job-goes-on) DOWN='does not end a job that was killed' HERE='missing|no-worker|gave-up' ;;
	any-order*) DOWN='?' HERE='?' ;;
	never-ends) DOWN='does not end a job that was killed' HERE='limit|no-worker|gave-up' ;;
	fetch-flood) DOWN='message FETCH .*' ;;
	*) DOWN='message [A-Z_?]+ .*(protocol|malformed)' ;;
	esac
}

start() { # SCENARIO[.SEED]
	local dir=$LAB/s/$1
	mkdir -p "$dir/run" "$dir/cache" "$WS/$1"
	chmod 700 "$dir/run"
	cp "$LAB/a.c" "$LAB/big" "$WS/$1"
	cat >"$dir/ini" <<-END
		[concc]
		workspace = $WS/$1

		[worker evil]
		command = exec $EVIL ${1/./ }
		slots = 1
		job-time = 1s
	END
	if [[ $1 == trace-* ]]; then # it is looked at only when results are kept
		sed -i '/^workspace/a cache = 1G' "$dir/ini"
		echo 'root = client' >>"$dir/ini"
		ln -s /media "$WS/$1/to-media"
		ln -s "$OUT/precious" "$WS/$1/to-precious"
	fi
	if [[ $1 == doctor-* ]]; then
		asks_doctor "$dir" &
		return
	fi
	(
		cd "$WS/$1"
		export CONCC_CONFIG=$dir/ini CONCC_RUNTIME_DIR=$dir/run CONCC_CACHE_DIR=$dir/cache
		rc=0
		CONCC_EXPLAIN=1 concc-dispatch --cache cp a.c a.o >"$dir/out" 2>"$dir/err" </dev/null || rc=$?
		echo "$rc" >"$dir/rc"
		concc status --json >"$dir/json"
		shows "$1" >"$dir/shown" 2>&1 </dev/null
		concc stop
	) &
}

# What its user is told of it, and of builds.
shows() { # SCENARIO
	local views='status|top --once' view
	case $1 in
	exit-* | load-* | *-escapes)
		concc run concc-dispatch cp a.c a.o || true
		views+='|report|report --json|report --trace trace|report -o page'
		concc report --json >"$LAB/s/$1/report"
		;;
	esac
	while read -r view; do
		# shellcheck disable=SC2086
		concc $view || echo "FAILED: concc $view"
	done < <(tr '|' '\n' <<<"$views")
}

asks_doctor() { # DIR
	export CONCC_CONFIG=$1/ini CONCC_RUNTIME_DIR=$1/run CONCC_CACHE_DIR=$1/cache
	cd "$WS/${1##*/}"
	rc=0
	concc doctor evil >"$1/out" 2>"$1/err" </dev/null || rc=$?
	echo "$rc" >"$1/rc"
	concc doctor --json evil >"$1/json" 2>>"$1/err" </dev/null || true
}

# Its user is told that the worker is of no use; and nothing that it said is for typing.
told() { # SCENARIO
	local dir=$LAB/s/$1
	cat "$dir/out" "$dir/err"
	expect_eq "exit status" "$(cat "$dir/rc")" 1
	expect_ge "findings" "$(jq '[.checks[] | select(.state == "failed")] | length' "$dir/json")" 1
	expect_eq "its words in a command" "$(jq -r '.checks[].remedy' "$dir/json" | grep -E 'touch|/k|\[2J')" ""
	if LC_ALL=C grep -q '[^[:print:][:space:]]' "$dir/out" "$dir/err" "$dir/json"; then
		fail "its bytes are on the terminal"
	fi
}

downs() { # SCENARIO
	grep -c 'worker=evil down' "$LAB/s/$1/run/project.log" || true
}

refused() { # SCENARIO
	local dir=$LAB/s/$1 log=$LAB/s/$1/run/project.log
	expected "$1"
	cat "$dir/err" "$log"
	expect_eq "exit status" "$(cat "$dir/rc")" 0
	# Whatever it said, in whatever order: either its word for a.o, or ours.
	if [ "$HERE" = '?' ]; then
		[ ! -e "$WS/$1/a.o" ] || grep -qxE 'right|owned' "$WS/$1/a.o" || [ ! -s "$WS/$1/a.o" ] ||
			fail "what is in a.o: $(head -c 100 "$WS/$1/a.o")"
		expect_same_file "$LAB/a.c" "$WS/$1/a.c"
	elif [ -n "$HERE" ]; then
		expect_same_file "$LAB/a.c" "$WS/$1/a.o"
		expect_eq "runs here" "$(grep -Ec "^concc: local: ($HERE) " "$dir/err")" 1
	fi
	case $1 in
	trace-endless | trace-lists | trace-closed-*) expect_eq "not kept" "$(jq .cache.uncacheable.unreadable "$dir/json")" 1 ;;
	exit-long) expect_eq "longer than it was waited for" \
		"$(jq '[.jobs[] | select(.worker == "evil" and .wall_us > .ended_us - .sent_us)] | length' "$dir/report")" 0 ;;
	trace-automount*) expect_eq "not kept" "$(jq .cache.uncacheable.automount "$dir/json")" 1 ;;
	esac
	if [ "$DOWN" = '?' ]; then
		expect_eq "its server answers" "$(jq -r '.workers[0].name' "$dir/json")" evil
	elif [ -n "$DOWN" ]; then
		expect_grep "worker=evil down: .*$DOWN" "$log"
	else
		expect_eq "times the link was closed" "$(downs "$1")" 0
	fi
	# Nothing of what it said reaches the terminal or the log as it is.
	if LC_ALL=C grep -q '[^[:print:][:space:]]' "$log" "$dir/err" "$dir/json" "$dir/shown"; then
		fail "its bytes are in the log"
	fi
	expect_no_grep FAILED "$dir/shown"
	expect_eq "temporary files" "$(find "$WS/$1" -name '.concc-tmp-*')" ""
}

outside_untouched() {
	ls -ln --time-style=full-iso "$OUT" | diff "$LAB/outside" - || fail "$OUT was changed"
	expect_eq "what is in it" "$(cat "$OUT/precious")" precious
	expect_eq "owned files outside" "$(find /srv -name 'owned*' -not -path "$WS/*")" ""
}

# Whoever looks there waits until somebody has mounted something, which nobody does; and a word of it is in
# the pipe.
mkfifo "$LAB/auto"
exec 8<>"$LAB/auto"
mount -t autofs -o "fd=8,pgrp=1,minproto=5,maxproto=5,indirect" lab-auto /media

nobody_looked() {
	local word=''
	IFS= read -r -t 0 -u 8 && word=some
	expect_eq "requests to mount something" "$word" ""
}

scenarios=$("$EVIL" list)
# These take as long as a worker may take to end a job that was killed, or that waits for its turn and then
# has its job-time.
[ -n "${ROUNDS-}" ] || scenarios=$(grep -Ev '^(killed-job|never-ends)' <<<"$scenarios")
# One order is told by its seed: SEED=N for that alone.
scenarios=$(grep -v '^any-order' <<<"$scenarios"
	printf 'any-order.%s\n' ${SEED:-$(shuf -i 1-1000000000 -n "${SEEDS:-24}")})
for s in $scenarios; do
	start "$s"
done
wait
for s in $scenarios; do
	case $s in
	doctor-*) check "$s" told "$s" ;;
	*) check "$s" refused "$s" ;;
	esac
done
check "nothing outside the workspace was touched" outside_untouched
check "nothing was looked at that is mounted for that" nobody_looked
umount -l /media
exec 8>&-
lab_stop
