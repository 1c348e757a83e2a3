#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What is mounted on a workspace, on the way to it, or taken away, between one job and the next: the next sees
# what is there.  Nothing waits for it to be noticed.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_enter "$@"
lab_start builder root
lab_config
lab_all_up
cd "$WS"
mkdir -p inc alt empty deep/er/inc
echo 'static const char which[] = "inc";' >inc/h.h
echo 'static const char which[] = "alt";' >alt/h.h
echo 'static const char which[] = "file";' >file.h
printf '#include <stdio.h>\n#include "h.h"\nint f(void) { return puts(which); }\n' >a.c

# On both workers, as here.
compile() { # WHEN
	local n
	rm -f a.o
	gcc -Iinc -c a.c -o "$LAB/a.o"
	for n in 1 2; do
		rm -f a.o
		CONCC_EXPLAIN=1 at_worker $n concc-cc gcc -Iinc -c a.c -o a.o 2>"$LAB/err" ||
			fail "$1: $(cat "$LAB/err")"
		expect_eq "remote jobs $1" "$(explained_remote "$LAB/err")" 1
		expect_same_file "$LAB/a.o" a.o
	done
}

directory() {
	compile "before"
	mount --bind alt inc
	compile "with another directory"
	umount inc
	compile "after"
}

# Each change is seen by the very next job.
again_and_again() {
	local i
	for i in $(seq 20); do
		mount --bind alt inc
		expect_eq "with it, time $i" "$(concc-dispatch cat inc/h.h)" "$(cat alt/h.h)"
		umount inc
		expect_eq "without, time $i" "$(concc-dispatch cat inc/h.h)" "$(cat inc/h.h)"
	done
}

file() {
	compile "before"
	mount --bind file.h inc/h.h
	compile "with another file"
	# Changed by its other name, of which the mount's directory has no event.
	echo 'static const char which[] = "changed";' >file.h
	compile "with that changed"
	umount inc/h.h
	compile "after"
}

# It was empty when it was listed; what comes next in its place has the same number.
empty_directory() {
	local i
	expect_eq "in the beginning" "$(concc-dispatch ls empty)" ''
	for i in 1 2 3; do
		mount -t tmpfs lab-empty empty
		echo "$i" >"empty/only$i"
		expect_eq "names, time $i" "$(concc-dispatch ls empty)" "only$i"
		expect_eq "bytes, time $i" "$(concc-dispatch cat "empty/only$i")" "$i"
		umount empty
	done
	expect_eq "in the end" "$(concc-dispatch ls empty)" ''
}

# The bytes come home to where they belong.
written_to() {
	mount -t tmpfs lab-out empty
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo out >empty/out' 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "remote jobs" "$(explained_remote "$LAB/err")" 1
	expect_eq "what was written" "$(cat empty/out)" out
	umount empty
	expect_no_file empty/out
}

# A file system whose server has died: who needs it runs here, the others are as before.
dead() {
	"$LAB_TOOLS/dead-mount" empty
	expect_status 1 stat empty 2>/dev/null
	compile "beside it"
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'stat empty >/dev/null' 2>"$LAB/err" && fail "it is not dead"
	cat "$LAB/err"
	expect_grep '^concc: local: ' "$LAB/err"
	umount -l empty
	expect_eq "afterwards" "$(concc-dispatch ls empty)" ''
}

whole_workspace() {
	local here=$WS
	expect_eq "before" "$(concc-dispatch cat file.h)" "$(cat file.h)"
	cp -r "$WS" "$LAB/other"
	echo 'other' >"$LAB/other/file.h"
	mount --bind "$LAB/other" "$here"
	cd / && cd "$here"
	expect_eq "with another workspace in its place" "$(concc-dispatch cat file.h)" other
	mount --bind alt inc
	expect_eq "with another directory in that" "$(concc-dispatch cat inc/h.h)" "$(cat alt/h.h)"
	umount inc
	cd / && umount -l "$here" && cd "$here"
	expect_eq "after" "$(concc-dispatch cat file.h)" "$(cat file.h)"
}

check "a directory over another" directory
check "mounted and unmounted, 20 times" again_and_again
check "a file over another" file
check "an empty directory" empty_directory
check "a job writes into it" written_to
check "a mount without a server" dead
check "over the workspace itself" whole_workspace
# A file system that would be mounted when one looks, by somebody who never does: a worker that names a path
# there is answered by nobody's look.
looked_at_by_nobody() {
	local rc=0
	mkfifo "$LAB/auto"
	exec 8<>"$LAB/auto"
	mount -t autofs -o "fd=8,pgrp=1,minproto=5,maxproto=5,indirect" lab-auto /media
	expect_eq "what is mounted" "$(findmnt -no FSTYPE /media)" autofs
	# shellcheck disable=SC2016
	CONCC_EXPLAIN=1 timeout "$LAB_LIMIT" concc-dispatch sh -c \
		'if [ "$CONCC_WORKER" ]; then test -e /media/box/x || echo none; else echo here; fi' \
		>"$LAB/out" 2>"$LAB/err" || rc=$?
	umount -l /media
	exec 8>&-
	cat "$LAB/err"
	expect_eq "status" "$rc" 0
	expect_eq "where it ran" "$(cat "$LAB/out")" here
	expect_grep 'local: missing .*/media/box is where file systems are mounted when one looks' "$LAB/err"
	expect_status 0 concc-dispatch true
}

check "what is mounted when one looks" looked_at_by_nobody

# What jobs of workers on this machine see of its system is what there was when those started; so they start
# anew, and without a word.  What engines of containers mount meanwhile is nothing to them.
on_the_system() {
	local inc=/usr/local/include starts i
	lab_stop_server
	printf '[concc]\nworkspace = %s\nlocal-slots = 0\n[worker w1]\naddress = local:\nslots = 1\n[worker w2]\naddress = local:\nslots = 1\n' \
		"$WS" >/srv/concc.ini
	printf '#include <h.h>\nconst char *f(void) { return which; }\n' >b.c
	lab_all_up
	for i in inc alt inc; do
		mount --bind $i $inc
		same_by_ours "with $i"
	done
	umount $inc
	same_by_ours "without the last"
	starts=$(jq '[.workers[].starts] | add' <(concc status --json))
	mkdir -p /var/lib/engine/layer
	mount --bind alt /var/lib/engine/layer
	same_by_ours "with an engine's"
	umount /var/lib/engine/layer
	expect_eq "starts for an engine's mounts" "$(jq '[.workers[].starts] | add' <(concc status --json))" "$starts"
	umount $inc
	umount $inc
}

same_by_ours() { # WHEN
	local i
	gcc -c b.c -o "$LAB/b.o"
	for i in 1 2; do
		rm -f b.o
		CONCC_EXPLAIN=$LAB/explain concc-cc gcc -c b.c -o b.o >"$LAB/said" 2>&1
		expect_eq "what is said $1" "$(<"$LAB/said")" ""
		expect_grep '^concc: remote on w' "$LAB/explain"
		expect_no_grep 'local:' "$LAB/explain"
		: >"$LAB/explain"
		expect_same_file "$LAB/b.o" b.o
	done
}

check "on this machine's system" on_the_system

# It has not failed, so who is sent away does not wait for others, whose slots never get free.
others_are_taken() {
	local inc=/usr/local/include token
	token=$(concc-worker-pool allocate --only w2 --owner $$)
	rm "$LAB/explain"
	for change in "mount --bind alt" umount; do
		$change $inc
		CONCC_EXPLAIN=$LAB/explain timeout "$LAB_LIMIT" concc-dispatch true || fail "it waits for the other one"
	done
	concc-worker-pool release "${token##* }"
	expect_eq "remote jobs" "$(grep -c "^concc: remote on w1: true" "$LAB/explain")" 2
}

check "who meets a worker that starts anew waits for it" others_are_taken

# A build tool shows its commands files of its own, in mounts that end with it: a server would keep those,
# and be of no use to anybody else.
passing() {
	lab_stop_server
	mkdir -p passing
	# shellcheck disable=SC2016 # of that shell
	unshare -m bash -c 'exec 9< <(exec "$LAB_BUILD/test/slowfs/slowfs" 0 "$PWD" "$PWD/passing")
		read -r -t "$LAB_LIMIT" ready <&9 && cd passing && CONCC_EXPLAIN=1 concc-cc gcc -c file.c -o file.o &&
			concc run -- gcc -c file.c -o again.o; status=$?
		cd .. && umount passing && exit "$status"' >"$LAB/err" 2>&1 || fail "$(cat "$LAB/err")"
	expect_grep '^concc: local: namespace ' "$LAB/err"
	expect_same_file file.o again.o
	CONCC_EXPLAIN=1 concc-cc gcc -c file.c 2>"$LAB/err"
	expect_eq "remote jobs" "$(explained_remote "$LAB/err")" 1
}
export LAB_BUILD LAB_LIMIT
echo 'int file;' >file.c
check "what ends with a build has no server" passing
lab_stop
