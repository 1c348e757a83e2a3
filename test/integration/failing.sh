#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Commands that fail are run once: that they looked for what is nowhere made no difference.  What they tried
# to make outside every workspace did, and so did what this machine has and a worker has not.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need python3 clang perl jq
lab_enter "$@"
# An /etc that may be written to.
cp -a /etc "$LAB/etc-of-client"
mount --bind "$LAB/etc-of-client" /etc
mount --bind "$LAB/etc/passwd" /etc/passwd
lab_start builder root
OUT=/srv/outside
cd "$WS"
echo 'int f(void) { return missing; }' >bad.c

only_worker() { # N ROOT
	lab_stop_server
	{
		printf '[concc]\nworkspace = %s\n\n[worker w%s]\naddress = ssh://w%s\n' "$WS" "$1" "$1"
		printf 'root = %s\nprogram = /mnt/bin/concc-worker\nslots = 2\n' "$2"
	} >/srv/concc.ini
}

# Runs it as a job of its own, which leaves a line in the log each time: RAN times, with STATUS.
ran() { # RAN STATUS SHELL-TEXT
	local rc=0
	rm -f log
	CONCC_EXPLAIN=1 concc-dispatch sh -c "echo run >>log; $3" >"$LAB/out" 2>"$LAB/err" || rc=$?
	cat "$LAB/err" "$LAB/out"
	expect_eq "status of $3" "$rc" "$2"
	expect_eq "where $3 was run" "$(explained_remote "$LAB/err")" "$1"
	expect_eq "how often the log has it" "$(cat log)" run
	expect_eq "words about what is nowhere" "$(grep -c 'outside every\|missing' "$LAB/err")" \
		$((1 - $1))
}

once() { # STATUS SHELL-TEXT
	ran 1 "$@"
}

here() { # STATUS SHELL-TEXT
	ran 0 "$@"
}

# The instances that users meet first.
tools_fail() {
	once 1 "python3 -c 'import sys; sys.exit(1)'"
	once 1 "python3 -c 'import no_such_module' 2>/dev/null"
	once 1 'gcc -c bad.c 2>/dev/null'
	once 255 "perl -e 'die' 2>/dev/null"
	once 3 'test -e ~/.nothing; test -e /etc/nothing || exit 3'
	once 2 'ls /srv/nothing /home/nobody ~/.cache/x 2>/dev/null'
	once 126 'CDPATH=~/none; cat ~/.nothing 2>/dev/null; exit 126'
	once 127 '[ -r ~/.nothing/x ] && . ~/.nothing/x; no-such-command 2>/dev/null'
	# It also lists /opt: whether that is seen is another matter.
	rm -f log
	CONCC_EXPLAIN=1 expect_status 1 concc-dispatch sh -c 'echo run >>log; clang -c bad.c' 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "how often the log has it" "$(cat log)" run
	expect_no_grep '^concc: .*/etc' "$LAB/err"
	expect_eq "said" "$(grep -c 'undeclared' "$LAB/err")" 1
	CONCC_EXPLAIN=1 CPATH=/srv/nothing expect_status 1 concc-cc gcc -c bad.c 2>"$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
}

# Looked at in every way that makes nothing.
all_looks() {
	cat >looks.py <<-'EOF'
		import os, sys, socket
		def fails(f, *args):
		    try:
		        f(*args)
		    except OSError as e:
		        if e.errno in (2, 18): # ENOENT, or EXDEV
		            return
		        print(n, args, e)
		        sys.exit(99)
		    print("there is", args)
		    sys.exit(98)
		for n, f in enumerate((os.stat, os.lstat, os.readlink, os.unlink, os.rmdir, os.chdir, os.listdir,
		        os.statvfs, os.utime, os.getxattr and (lambda p: os.getxattr(p, "user.x")),
		        lambda p: os.open(p, os.O_RDONLY), lambda p: os.open(p, os.O_WRONLY | os.O_TRUNC),
		        lambda p: os.chmod(p, 0o600), lambda p: os.truncate(p, 0),
		        lambda p: os.execv(p, [p]), lambda p: os.rename(p, "renamed"), lambda p: os.link(p, "linked"),
		        lambda p: socket.socket(socket.AF_UNIX).connect(p),
		        lambda p: os.mkdir(p + "/sub"), lambda p: os.open(p + "/sub", os.O_CREAT),
		        lambda p: os.symlink("x", p + "/sub"), lambda p: os.rename("looks.py", p + "/sub"))):
		    for dir in os.environ["HOME"], "/srv":
		        fails(f, "%s/nothing%d" % (dir, n))
		for n, f in enumerate((os.stat, os.readlink, os.listdir, lambda p: os.open(p, os.O_RDONLY))):
		    fails(f, "/etc/nothing%d" % n)
		sys.exit(7)
	EOF
	python3 looks.py || expect_eq "status here" $? 7
	once 7 'python3 looks.py'
}

# What would have been made here is made here, whether or not the command minds.
makes() { # DIRECTORY...
	local way n=0
	export DIR NAME
	mkdir -p "$OUT"
	ln -sfn "$OUT/by-link" link
	for DIR in "$@"; do
		while read -r way; do
			NAME=made$((n++))
			rm -rf "${DIR:?}/$NAME" log
			CONCC_EXPLAIN=1 concc-dispatch sh -c "echo run >>log; cp bad.c from; { $way; } 2>/dev/null; rm -f from" \
				</dev/null 2>"$LAB/err"
			echo "$DIR/$NAME: $way"
			cat "$LAB/err"
			[ -e "$DIR/$NAME" ] || [ -L "$DIR/$NAME" ] || fail "nothing made: $way"
			expect_grep "^concc: local: missing .(it writes to )?${DIR}[, ]" "$LAB/err"
			expect_eq "how often it was run" "$(cat log)" run
			rm -r "${DIR:?}/$NAME"
		done <<-'EOF'
			echo x >"$DIR/$NAME"
			echo x >>"$DIR/$NAME"
			: >"$DIR/./$NAME"
			touch "$DIR/$NAME"
			mkdir "$DIR/$NAME"
			mkdir -p "$DIR/$NAME/a/b"
			ln -s nowhere "$DIR/$NAME"
			ln from "$DIR/$NAME" || [ "$DIR" != /etc ] || : >"$DIR/$NAME"
			cp from "$DIR/$NAME"
			mv from "$DIR/$NAME" || [ "$DIR" != /etc ] || : >"$DIR/$NAME"
			mkfifo "$DIR/$NAME"
			install -D from "$DIR/$NAME/x"
			perl -MSocket -e 'socket($s, AF_UNIX, SOCK_STREAM, 0); bind($s, pack_sockaddr_un("$ENV{DIR}/$ENV{NAME}"))'
			perl -e 'chdir $ENV{DIR}; open(F, ">", $ENV{NAME})'
		EOF
	done
	rm -f "$OUT/by-link"
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo x >link; true' 2>"$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 0
	expect_file "$OUT/by-link"
	rm -r "$OUT" link
}

# What is there is removed here, and changed here.
changes() {
	local way
	while read -r way; do
		echo old >~/old
		touch -d '2001-01-01' ~/old
		CONCC_EXPLAIN=1 concc-dispatch sh -c "$way 2>/dev/null; true" </dev/null 2>"$LAB/err"
		echo "$way"
		cat "$LAB/err"
		expect_eq "remote" "$(explained_remote "$LAB/err")" 0
		[ ! -e ~/old ] || [ "$(cat ~/old)" != old ] || [ ! -O ~/old ] || [ -x ~/old ] ||
			[ ~/old -nt /etc/passwd ] || fail "unchanged: $way"
		rm -f ~/old ~/renamed
	done <<-'EOF'
		rm ~/old
		perl -e 'unlink "$ENV{HOME}/old"'
		perl -e 'rename "$ENV{HOME}/old", "$ENV{HOME}/renamed"'
		mv ~/old moved
		echo new >~/old
		chmod +x ~/old
		touch ~/old
	EOF
	mkdir -p ~/old
	concc-dispatch perl -e 'rmdir "$ENV{HOME}/old"' </dev/null
	expect_no_file ~/old
	rm -f moved
}

# What was looked for in vain before can be made later, and can be there later.
later() {
	once 1 'test -e ~/later'
	once 1 'test -e ~/later'
	here 1 'echo x >~/later; exit 1'
	expect_file ~/later
	here 3 'test -e ~/later && exit 3'
	rm ~/later
	once 1 'test -e ~/later'
}

messages() { # NAME
	lab_status "[.workers[].messages_in.$1 // 0] | add"
}

asked_once() {
	local before
	concc-dispatch true
	once 1 "python3 -c 'import sys; sys.exit(1)'"
	once 1 "python3 -c 'import sys; sys.exit(1)'" # what was racy before
	before=$(messages JOB_MISSING)
	once 1 "python3 -c 'import sys; sys.exit(1)'"
	once 1 'cat /etc/nothing /srv/nothing ~/.nothing 2>/dev/null'
	once 1 'cat /etc/nothing /srv/nothing ~/.nothing 2>/dev/null'
	expect_le "look-ups told" $(($(messages JOB_MISSING) - before)) 8
	before=$(messages JOB_MISSING)
	once 1 'cat /etc/nothing /srv/nothing ~/.nothing 2>/dev/null'
	once 1 "python3 -c 'import sys; sys.exit(1)'"
	expect_eq "look-ups told again" $(($(messages JOB_MISSING) - before)) 0
}

# What is said when something is missing: a path that is there, and what helps.
remedies() {
	mkdir -p /srv/tool/data
	echo data >/srv/tool/data/f
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'cat /srv/tool/data/f' >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep "^concc: local: missing \\(/srv/tool is outside every .* to run this remotely: [a-z]+ = .*/srv/tool\\)" \
		"$LAB/err"
	sed -n 's/.*remotely: \(.*\))$/\1/p' "$LAB/err" >"$LAB/remedy"
	cat "$LAB/remedy"
	lab_stop_server
	sed -i '/^workspace/d; 1r '"$LAB/remedy" /srv/concc.ini
	grep -q '^workspace' /srv/concc.ini || sed -i "1a workspace = $WS" /srv/concc.ini
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'cat /srv/tool/data/f' >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
	only_worker "$WORKER" "$ROOT"
	# Where no tree could be listed.
	touch ~/secret-less
	mkdir -p ~/.ssh
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'cat ~/secret-less ~/.ssh/config >/dev/null' 2>"$LAB/err"
	expect_grep "^concc: local: missing \\(.*/secret-less is outside every .*CONCC_DISABLE=1" "$LAB/err"
	rm ~/secret-less
}

# Who says that a disk is full may mean one that is nobody's, as /dev/full: no other worker is tried.
says_full() {
	local text before
	only_worker 1 worker
	concc-dispatch true
	for text in 'cat bad.c >/dev/full' 'echo | gcc -S -xc - -o /dev/full' \
		'echo "f: No space left on device" >&2; exit 1'; do
		before=$(lab_status '.workers[0].jobs')
		CONCC_EXPLAIN=1 expect_status 1 concc-dispatch sh -c "$text" 2>"$LAB/err"
		cat "$LAB/err"
		expect_grep '^concc: local: no-way-home .on worker w1 it says that a disk is full' "$LAB/err"
		expect_no_grep 'another worker' "$LAB/err"
		expect_eq "jobs of $text" $(($(lab_status '.workers[0].jobs') - before)) 1
	done
	# One that goes on is not stopped by it.
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'cat bad.c >/dev/full; true' 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: remote on w1' "$LAB/err"
}

for WORKER in 1 2; do
	for ROOT in client worker; do
		who="${LAB_USERS[WORKER]}, root = $ROOT"
		only_worker "$WORKER" "$ROOT"
		dirs=("$OUT" ~)
		[ "$ROOT" = worker ] || dirs+=(/etc)
		check "tools that fail ($who)" tools_fail
		check "all ways to look ($who)" all_looks
		check "all ways to make something ($who)" makes "${dirs[@]}"
		check "all ways to change something ($who)" changes
		check "looked for, and made later ($who)" later
		check "asked once ($who)" asked_once
		check "remedies ($who)" remedies
	done
done
check "what says that a disk is full" says_full
lab_stop_server
umount /etc/passwd
umount /etc
lab_mounts >"$LAB/mounts"
lab_stop
