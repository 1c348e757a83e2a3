#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Two workers that keep contents in one directory of a network file system: no locks, names that
# others make and remove, and files that can't be read any more when another host has removed them.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_need jq
lab_enter "$@"
mount -t tmpfs lab-shared /media # workers have the mounts of the client's start
chown 1717:1717 /media
lab_start builder builder
lab_config
cd "$WS"
HOME_THERE=$(lab_worker_home 1)

for n in 1 2; do
	cp "$LAB_BUILD/test/slowfs/slowfs" "$LAB/w$n/slowfs" # /mnt there
	lab_worker $n mkdir "$HOME_THERE/.cache"
	exec {READY}< <(lab_worker $n /mnt/slowfs 0 /media "$HOME_THERE/.cache" nfs)
	SLOWFS="${SLOWFS-} $!"
	read -r -t "$LAB_LIMIT" ready <&"$READY" || true
	exec {READY}<&-
	[ "${ready-}" = ready ] || fail "slowfs on w$n: ${ready-}"
	lab_mounts "${LAB_INIT[n]}" >"$LAB/w$n/mounts"
done
STORE=/media/concc/store

# Files that nobody has seen.
fresh() { # NAME COUNT BYTES
	local i
	for i in $(seq "$2"); do
		head -c "$3" /dev/urandom >"$1$i"
	done
	sha256sum "$1"* >"$LAB/want"
}

# All that has a name holds what that says.
whole() {
	local f n=0
	for f in "$STORE"/??/*; do
		case $f in *.fuse_hidden*) continue ;; esac
		expect_eq "digest of $f" "$(sha256sum <"$f" | cut -c1-64)" "$(basename "$(dirname "$f")")$(basename "$f")"
		n=$((n + 1))
	done
	echo "note: $n objects"
}

lost() {
	lab_status '[.workers[].failed] | add'
}

# By a server of its own, which has that worker alone.
only() { # N CMD...
	local n=$1
	shift
	CONCC_CONFIG=/srv/only$n.ini CONCC_RUNTIME_DIR=/srv/run$n CONCC_CACHE_DIR=/srv/cache$n "$@"
}

both_at_once() {
	local round n servers
	sed '/^\[worker w2\]/,$d' /srv/concc.ini >/srv/only1.ini
	sed '/^\[worker w1\]/,/^slots/d' /srv/concc.ini >/srv/only2.ini
	for n in 1 2; do
		only $n concc-dispatch true
	done
	for round in 1 2 3; do
		fresh "both-$round-" 20 300000
		only 1 concc-dispatch sha256sum "both-$round-"* >"$LAB/got1" &
		only 2 concc-dispatch sha256sum "both-$round-"* >"$LAB/got2"
		wait $!
		expect_same_file "$LAB/want" "$LAB/got1"
		expect_same_file "$LAB/want" "$LAB/got2"
	done
	for n in 1 2; do
		expect_eq "jobs of w$n, and those that were lost" \
			"$(only $n lab_status '.workers[] | "\(.name) \(.jobs) \(.failed)"')" "w$n 4 0"
	done
	servers=$(lab_server_pid)
	for n in 1 2; do
		only $n concc stop
	done
	expect_gone "the servers" $servers
	lab_agents_gone # what was removed while it is open has a name until then
	expect_eq "what is left half" "$(find "$STORE/tmp" -type f | wc -l)" 0
	whole
}

one_for_all() {
	fresh one- 20 100000 # before two connections are made: of what has just changed no digest is kept
	lab_all_up
	at_worker 1 concc-dispatch sha256sum one-* >"$LAB/got"
	expect_same_file "$LAB/want" "$LAB/got"
	lab_stop_server # the next one tells digests with its listings
	lab_agents_gone
	lab_all_up
	at_worker 2 concc-dispatch sha256sum one-* >"$LAB/got"
	expect_same_file "$LAB/want" "$LAB/got"
	expect_eq "files that were sent again" "$(lab_status '.workers[1].fetched_files')" 0
}

# The agent of w1 has the file open; half of it is in no cache.
evicted() {
	local before sent
	lab_all_up
	fresh big- 1 8000000
	at_worker 1 concc-dispatch sha256sum big-1 >/dev/null # head could end before all of it is there
	lab_stop_server
	lab_agents_gone # it has written it; the next one opens what is there
	expect_ge "objects" "$(find "$STORE"/?? -type f | grep -vc fuse_hidden)" 1
	lab_all_up
	at_worker 1 concc-dispatch head -c 10 big-1 >/dev/null
	before=$(lost) sent=$(lab_status '.workers[0].fetched_files')
	lab_worker 2 setpriv --reuid 1717 --regid 1717 --clear-groups env -u CONCC_CACHE_DIR HOME="$HOME_THERE" \
		/mnt/bin/concc-worker --prune=1
	expect_eq "objects" "$(find "$STORE"/?? -type f | grep -vc fuse_hidden)" 0
	at_worker 1 concc-dispatch sha256sum big-1 >"$LAB/got"
	expect_same_file "$LAB/want" "$LAB/got"
	expect_eq "jobs that were lost" "$(lost)" "$before"
	expect_eq "files that were sent again" "$(lab_status '.workers[0].fetched_files')" $((sent + 1))
}

# There is no lock for who trims.
bounded() {
	local i
	lab_config 'store-size = 4M'
	lab_stop_server
	lab_all_up
	for i in 1 2 3 4 5 6; do
		fresh "much-$i-" 10 200000
		concc-dispatch sha256sum "much-$i-"* >"$LAB/got1" &
		concc-dispatch sha256sum "much-$i-"* >"$LAB/got2"
		wait $!
		expect_same_file "$LAB/want" "$LAB/got1"
		expect_same_file "$LAB/want" "$LAB/got2"
	done
	expect_eq "jobs that were lost" "$(lost)" 0
	lab_stop_server # an agent's first trim is at its start
	lab_all_up
	lab_stop_server
	lab_agents_gone
	expect_le "bytes of the store" "$(du -s -B1 "$STORE" | cut -f1)" $((5 * 1024 * 1024))
	lab_config
}

killed() {
	local round pids
	for round in 1 2 3 4; do
		lab_all_up
		fresh "kill-$round-" 10 2000000
		concc-dispatch sha256sum "kill-$round-"* >"$LAB/got1" &
		concc-dispatch sha256sum "kill-$round-"* >"$LAB/got2" &
		pids=$(lab_worker_pids $((round % 2 + 1)) concc-worker)
		kill -KILL $pids || true # some end with others
		wait
		expect_same_file "$LAB/want" "$LAB/got1"
		expect_same_file "$LAB/want" "$LAB/got2"
		lab_stop_server
	done
	whole
}

check "two hosts at once" both_at_once
check "what one was sent, the other has" one_for_all
check "what another host removes is sent again" evicted
check "a bound without a lock" bounded
check "agents that are killed leave nothing half" killed
lab_stop_server
lab_agents_gone
for n in 1 2; do
	lab_worker $n umount "$HOME_THERE/.cache"
	lab_mounts "${LAB_INIT[n]}" >"$LAB/w$n/mounts"
done
expect_gone "slowfs" $SLOWFS
lab_stop
