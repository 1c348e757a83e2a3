#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# With root = client, what of the client's system lies on the worker's own disk with the same bytes
# is not sent; what only looks the same is.
# limit: 240
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq gcc
LAB_ROOT=default
LAB_SLOTS=1
lab_enter "$@"

# A /usr of its own for the client and each worker, so that they can differ: of one file system
# each, as files behind a mount are not looked at.
own_usr() { # DIR [COMMAND...]
	local dir=$1
	shift
	"$@" sh -c "mkdir -p $dir/upper $dir/work && mount -t overlay -o lowerdir=/usr,upperdir=$dir/upper,workdir=$dir/work lab-usr /usr"
}
lab_start builder root
for n in 1 2; do
	own_usr /mnt/usr lab_worker "$n"
	lab_mounts "${LAB_INIT[n]}" >"$LAB/w$n/mounts"
done
own_usr "$LAB/usr"
lab_mounts >"$LAB/mounts"
cd "$WS"
printf '#include <stdio.h>\nint f(void) { return puts("x"); }\n' >a.c

# What w$1 was sent, and what it took from its own disk, in bytes or files.
sent() { # N bytes|files
	lab_status ".workers[] | select(.name == \"w$1\") | .fetched_$2"
}

own() { # N bytes|files
	lab_status ".workers[] | select(.name == \"w$1\") | .own_disk_$2"
}

cold() {
	lab_config
	rm -rf "$CONCC_CACHE_DIR"
	gcc -g -c a.c -o "$LAB/a.o"
	lab_all_up
	at_worker 1 concc-cc gcc -g -c a.c -o a.o
	expect_same_file "$LAB/a.o" a.o
	echo "note: sent $(sent 1 bytes) bytes of $(sent 1 files) files; own: $(own 1 bytes) of $(own 1 files)"
	expect_ge "own bytes" "$(own 1 bytes)" 20000000
	expect_le "bytes sent, in a twentieth" "$(($(sent 1 bytes) * 20))" "$(own 1 bytes)"
	expect_ge "calls to the worker's disk" "$(lab_status ".workers[0].disk.done")" "$(own 1 files)"
	expect_ge "most at a time" "$(lab_status ".workers[0].disk.most_queued")" 1
	expect_ge "calls to ours" "$(lab_status .hashing.done)" "$(own 1 files)"
	expect_eq "own bytes, as the worker has it" \
		"$(lab_worker 1 /mnt/bin/concc-worker --status --json | jq '.agents[0].own_disk_bytes')" "$(own 1 bytes)"
}

# The client knows the digests by now, so the worker need not ask at all.
digests_known() {
	concc stop
	lab_agents_gone
	lab_worker 2 rm -rf "$(lab_worker_cache 2)/store"
	lab_all_up
	rm -f a.o
	at_worker 2 concc-cc gcc -g -c a.c -o a.o
	expect_same_file "$LAB/a.o" a.o
	echo "note: sent $(sent 2 bytes) bytes of $(sent 2 files) files; own: $(own 2 bytes) of $(own 2 files)"
	expect_ge "own bytes" "$(own 2 bytes)" 20000000
	expect_le "bytes sent, in a twentieth" "$(($(sent 2 bytes) * 20))" "$(own 2 bytes)"
	expect_le "files that it asked for" "$(lab_status '.workers[1].messages_in.FETCH // 0')" 5
}

# Reads files of the client's on w1: it must see them, whatever the worker has there.
reads() { # FILE...
	local f
	for f; do
		cat "$f"
	done >"$LAB/want"
	CONCC_EXPLAIN=1 at_worker 1 concc-dispatch cat "$@" >"$LAB/got" 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: remote on w1' "$LAB/err"
	expect_same_file "$LAB/want" "$LAB/got"
}

# Both the client's and the worker's; known: whether the client has told its digest.
candidates() { # known|new
	local d=/usr/lib/own-$1 f before own_before
	mkdir -p $d
	for f in same byte shorter link fifo private dir mounted home; do
		seq -f "$1 $f %g" 20000 >"$d/$f"
	done
	lab_worker 1 sh -c "mkdir -p $d && cd $d && mkdir dir"
	for f in same byte shorter private mounted home; do
		lab_worker 1 sh -c "cat >$d/$f" <"$d/$f"
	done
	lab_worker 1 sh -c "cd $d && cp same /usr/lib/away-$1 && ln -s /usr/lib/away-$1 link
		printf X | dd of=byte bs=1 seek=100000 conv=notrunc 2>/dev/null
		truncate -s 1000 shorter; mkfifo fifo; chmod 640 private
		chmod 000 home; cp mounted /mnt/mounted-$1; mount --bind /mnt/mounted-$1 mounted"
	cd "$WS"
	if [ "$1" = known ]; then
		at_worker 2 concc-dispatch cat $d/* >/dev/null
	fi
	# The agent has the mounts of its start.
	concc stop
	lab_all_up
	reads a.c
	before=$(sent 1 files) own_before=$(own 1 files)
	reads $d/*
	echo "note: sent $(($(sent 1 files) - before)) files, own: $(($(own 1 files) - own_before))"
	expect_eq "own files" "$(($(own 1 files) - own_before))" 1
	expect_eq "files sent" "$(($(sent 1 files) - before))" 8
	# What was taken is a copy.
	lab_worker 1 sh -c "seq 20000 >$d/same"
	reads $d/same
	lab_worker 1 umount "$d/mounted"
}

# Not the worker's own either, once it was taken: from the store, or from the client.
lost_from_store() {
	local store
	store=$(lab_worker_cache 1)/store
	mkdir -p /usr/lib/own-lost
	seq -f 'lost %g' 20000 >/usr/lib/own-lost/f
	lab_worker 1 sh -c 'mkdir -p /usr/lib/own-lost; cat >/usr/lib/own-lost/f' </usr/lib/own-lost/f
	reads /usr/lib/own-lost/f
	lab_worker 1 rm -rf "$store"
	lab_worker 1 sh -c 'seq 20000 >/usr/lib/own-lost/f'
	concc stop
	lab_all_up
	reads /usr/lib/own-lost/f
}

# What is not of a system, and what is listed by the client but is nothing of the worker's.
elsewhere() {
	mkdir -p "$WS/d"
	seq -f 'ws %g' 20000 >"$WS/d/f"
	lab_worker 1 sh -c "mkdir -p $WS/d; cat >$WS/d/f" <"$WS/d/f"
	local before
	before=$(own 1 files)
	reads "$WS/d/f"
	expect_eq "own files" "$(own 1 files)" "$before"
	lab_worker 1 rm -rf "$WS"
}

forbidden() {
	concc stop
	lab_worker 1 sh -c 'mkdir -p /mnt/eu /mnt/ew && mount -t overlay -o lowerdir=/etc,upperdir=/mnt/eu,workdir=/mnt/ew lab-etc /etc
		for f in passwd group shadow; do mount --bind /mnt/etc/$f /etc/$f; done
		printf "[worker]\nown-disk = no\n" >/etc/concc-worker.ini'
	mkdir -p /usr/lib/own-no
	seq -f 'no %g' 20000 >/usr/lib/own-no/f
	lab_worker 1 sh -c 'mkdir -p /usr/lib/own-no; cat >/usr/lib/own-no/f' </usr/lib/own-no/f
	lab_all_up
	reads /usr/lib/own-no/f
	expect_eq "own files" "$(own 1 files)" 0
	concc stop
	lab_agents_gone
	lab_worker 1 sh -c 'umount /etc/passwd /etc/group /etc/shadow /etc'
}

check "a worker of the same distribution is sent hardly anything" cold
check "of what has a known digest it does not even ask" digests_known
check "only what is the same is taken" candidates new
check "the same, with digests that the client has told" candidates known
check "what was taken and is lost comes from the client" lost_from_store
check "a workspace is not looked for on the worker's disk" elsewhere
check "an administrator may forbid it" forbidden
lab_stop
