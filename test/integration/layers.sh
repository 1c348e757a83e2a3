#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Configurations above each other: /etc/concc.ini of all users, ~/.concc.ini of one, and what a
# project may say, which is little.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq make git
lab_enter "$@"
lab_start builder builder
# An /etc of the client's own.
mkdir -p "$LAB/upper" "$LAB/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$LAB/upper,workdir=$LAB/work" lab-etc /etc
mount --bind "$LAB/etc/passwd" /etc/passwd
lab_mounts >"$LAB/mounts"
unset CONCC_CONFIG
cd "$WS"
git init -q .
echo 'int f(void) { return 1; }' >a.c
printf 'all:\n\tgcc -c a.c\n\t@echo "$(MAKEFLAGS)"\n' >Makefile

worker() { # SECTION HOST
	printf '[worker %s]\naddress = ssh://%s\nprogram = /mnt/bin/concc-worker\nroot = worker\nslots = 3\n' "$1" "$2"
}

names() {
	concc stop 2>/dev/null || true
	concc -j >/dev/null
	lab_status '[.workers[].name] | sort | join(" ")'
	concc stop
}

of_all_users() {
	worker w1 w1 >/etc/concc.ini
	rm -f ~/.concc.ini
	expect_eq "of all" "$(names)" w1
	concc-cc gcc -c a.c
	expect_eq "jobs" "$(lab_status '.workers[0].jobs')" 1
	worker w2 w2 >~/.concc.ini
	expect_eq "and one's own" "$(names)" "w1 w2"
	# The same name: the user's.
	worker w1 w2 >~/.concc.ini
	expect_eq "replaced" "$(names)" w1
	concc-cc gcc -c a.c
	expect_grep '\(w2, ' <(concc status)
	# A value of the user's goes before.
	{ printf '[concc]\nworkspace = /nowhere\n'; worker w1 w1; } >/etc/concc.ini
	rm ~/.concc.ini
	concc stop
	expect_grep "/etc/concc.ini:2: can't serve the workspace /nowhere" <(concc -j 2>&1)
	printf '[concc]\nworkspace = %s\n' "$WS" >~/.concc.ini
	expect_eq "the user's" "$(names)" w1
	# Each section once in each file.
	{ worker w3 w1; worker w3 w2; } >~/.concc.ini
	expect_grep "worker w3 has a section already" <(concc -j 2>&1)
	rm ~/.concc.ini
	CONCC_CONFIG=/dev/null concc doctor --json | jq -r '.checks[0].text' >"$LAB/out" || true
	expect_grep 'names no worker' "$LAB/out"
	# Others could be who runs what it names.
	chmod 666 /etc/concc.ini
	expect_grep '/etc/concc.ini has to be a file of root' <(concc -j 2>&1)
	chmod 644 /etc/concc.ini
	chown 1 /etc/concc.ini
	expect_grep 'chown root /etc/concc.ini' <(concc -j 2>&1)
	rm /etc/concc.ini
}

run() { # OPTION...
	concc run "$@" -- make -B >"$LAB/out" 2>"$LAB/err" || RC=$?
	cat "$LAB/out" "$LAB/err"
}

of_a_project() {
	worker w1 w1 >~/.concc.ini
	printf '[run]\njobs = 7\n' >.concc.ini
	RC=0
	run
	expect_grep '(^| )-j7' "$LAB/out"
	(cd "$(mktemp -d -p "$WS")" && cp ../a.c ../Makefile . && run && expect_grep '(^| )-j7' "$LAB/out")
	run -j 3
	expect_grep '(^| )-j3' "$LAB/out"
	printf '[run]\nlocal = yes\nrequire-remote = 50\n' >.concc.ini
	run
	expect_eq "status" "$RC" 103
	expect_grep '0 remote' "$LAB/err"
	printf '[run]\nlocal = yes\n' >.concc.ini
	run -w w1
	expect_grep '1 remote' "$LAB/err"
	expect_eq "status" "$RC" 103
}

# What would widen trust is not taken, nor anything beside it, and the build is as without.
not_of_a_project() {
	local line
	worker w1 w1 >~/.concc.ini
	RC=0
	for line in '[worker evil]' '[concc]'; do
		printf '[run]\nlocal = yes\n%s\ncommand = touch %s/ran\nworkspace = /\n' "$line" "$WS" >.concc.ini
		run
		expect_grep "ignoring $WS/.concc.ini:3: a project has one section" "$LAB/err"
		expect_grep ': 1 remote \(w1 1\)' "$LAB/err"
		expect_no_file ran
	done
	for line in 'workers = evil' 'workspace = /' 'toolchain = /etc' 'config = x' 'jobs = 100000' 'jobs = -1' 'local = maybe' nonsense; do
		printf '[run]\n%s\nlocal = yes\n' "$line" >.concc.ini
		run
		expect_grep "ignoring $WS/.concc.ini:2: " "$LAB/err"
		expect_grep ': 1 remote \(w1 1\)' "$LAB/err"
	done
	rm .concc.ini
	mkfifo .concc.ini
	run
	expect_grep 'ignoring .*/.concc.ini: ' "$LAB/err"
	rm .concc.ini
	expect_eq "status" "$RC" 0
}

check "of all users" of_all_users
check "of a project" of_a_project
check "not of a project" not_of_a_project
concc stop 2>/dev/null || true
export CONCC_CONFIG=/srv/concc.ini
lab_stop
