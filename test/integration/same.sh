#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Commands that are no plain compiles, by doing everything twice, here and on workers, and comparing output,
# errors, status and files; and where each of them ran.
# limit: 300
# shellcheck disable=SC2016 # the jobs' own variables
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_need jq python3
lab_enter "$@"
lab_start builder root
lab_config 'local-slots = 0'
# One worker shows its own system, the other the client's.
sed -i '/^\[worker w2\]/,$s/^root = worker/root = client/' /srv/concc.ini
cd "$WS"
concc-dispatch true
lab_all_up

run_text() { # NAME TEXT: leaves out, err, status and tree
	rm -rf t && mkdir t
	(cd t && bash -c "$2") >"$LAB/$1.out" 2>"$LAB/$1.err" </dev/null && echo 0 >"$LAB/$1.status" ||
		echo $? >"$LAB/$1.status"
	(cd t && find . -mindepth 1 -printf '%P %y %m %n %s %l\n' | sort && find . -type f -exec cksum {} + | sort) \
		>"$LAB/$1.tree"
}

# WHERE: "remote", of all jobs, or what is said of those that run here.  $RUN is in front of each command
# of any kind, $CC of a compiler.
same() { # WHERE TEXT
	local where=$1 text=$2 n part
	RUN='' CC=gcc run_text here "$text"
	for n in 1 2; do
		rm -f "$LAB/explain"
		RUN=concc-dispatch CC="concc-cc gcc" CONCC_EXPLAIN=$LAB/explain at_worker "$n" run_text job "$text"
		echo "w$n: $text"
		cat "$LAB/explain" "$LAB/job.err"
		for part in out err status tree; do
			diff -au "$LAB/here.$part" "$LAB/job.$part" || fail "w$n: another $part of: $text"
		done
		case $where in
		remote)
			expect_grep "^concc: remote on w$n" "$LAB/explain"
			expect_no_grep '^concc: local: ' "$LAB/explain"
			;;
		*) expect_grep "^concc: local: $where" "$LAB/explain" ;;
		esac
	done
}

# lock FILE HOW [CMD...]: opens the file, takes a lock of fcntl(2), says what is in the file, and runs the
# command while it has both.  r: to read; R: the same, opened for writing too; n: R, without waiting; w: to
# write; o: none, but opened for writing; q, Q: none, but says whether it could read or write; s: of flock(2),
# shared.
cat >lock <<'EOF'
#!/usr/bin/python3
import fcntl, os, struct, subprocess, sys
name, how, cmd = sys.argv[1], sys.argv[2], sys.argv[3:]
fd = os.open(name, os.O_RDONLY if how in "rs" else os.O_RDWR)
if how == "s":
    fcntl.flock(fd, fcntl.LOCK_SH)
elif how in "qQ":
    wanted = struct.pack("hhqqi", fcntl.F_RDLCK if how == "q" else fcntl.F_WRLCK, 0, 0, 0, 0)
    got = struct.unpack("hhqqi", fcntl.fcntl(fd, fcntl.F_GETLK, wanted))
    print("free" if got[0] == fcntl.F_UNLCK else "taken")
elif how != "o":
    fcntl.lockf(fd, {"w": fcntl.LOCK_EX, "n": fcntl.LOCK_SH | fcntl.LOCK_NB}.get(how, fcntl.LOCK_SH))
print(os.pread(fd, 100, 0), flush=True)
if cmd:
    subprocess.run(cmd)
if how in "rR":
    fcntl.lockf(fd, fcntl.LOCK_UN)
EOF
chmod +x lock

# ---- locks ----

to_read() {
	same remote 'echo data >f; $RUN ../lock f r'
	same remote 'echo data >f; $RUN ../lock f R cat f'
	same remote 'echo data >f; $RUN ../lock f n'
	same remote 'echo data >f; $RUN ../lock f q'
	same remote 'echo data >f; ln f g; $RUN ../lock g r; $RUN ../lock f r ../lock g r'
	same remote 'echo data >f; mkdir d; ln -s ../f d/l; $RUN ../lock d/l r'
	same remote 'echo data >f; $RUN ../lock f r sh -c "echo more >g; mv g f"'
	same remote 'echo data >f; for i in 1 2 3; do $RUN ../lock f r sh -c "echo $i >o$i"; done'
	same remote '$RUN sh -c "echo data >f; ../lock f w ../lock f o; ../lock f s"'
	same remote 'echo data >f; $RUN ../lock f r false; $RUN sh -c "../lock f r; exit 3"'
}

to_write() {
	same no-way-home 'echo data >f; $RUN ../lock f w'
	same no-way-home 'echo data >f; $RUN ../lock f Q'
	same no-way-home 'echo data >f; $RUN ../lock f s'
	same no-way-home 'echo data >f; $RUN flock f cat f; $RUN flock -s f cat f'
}

# What programs do: a profile, what was counted before, a database.
of_programs() {
	local c='printf "int main(int c, char **v) { (void)v; return c > 5; }\n" >a.c'
	same remote "$c; gcc -O2 -fprofile-generate -frandom-seed=a a.c -o p; ./p; mv p-a.gcda a.gcda; "'$CC -O2 -fprofile-use -frandom-seed=a -c a.c -o a.o'
	same remote "$c; gcc --coverage -frandom-seed=a a.c -o p; ./p; "'$RUN gcov -t p-a.gcda'
	same remote "$c; gcc --coverage -frandom-seed=a a.c -o p; "'$RUN ./p'
	same no-way-home "$c; gcc --coverage -frandom-seed=a a.c -o p; "'$RUN ./p; $RUN ./p; gcov -t p-a.gcda'
	same remote 'python3 -c "import sqlite3; c = sqlite3.connect(\"d\"); c.execute(\"create table t (a)\"); c.execute(\"insert into t values (5)\"); c.commit()"
		$RUN python3 -c "import sqlite3; print(list(sqlite3.connect(\"d\").execute(\"select * from t\")))"'
}

# A job has read the file by its lock and goes on, and meanwhile something is done here.
held_while() { # WHERE CMD...
	local where=$1 to line n job
	shift
	for n in 1 2; do
		rm -rf t "$LAB/explain" && mkdir t
		echo data >t/f
		coproc JOB { CONCC_EXPLAIN=$LAB/explain at_worker "$n" concc-dispatch ./lock t/f r cat; }
		job=$JOB_PID to=${JOB[1]}
		IFS= read -r -t "$LAB_LIMIT" line <&"${JOB[0]}" || fail "it does not begin"
		expect_eq "what it read" "$line" "b'data\\n'"
		"$@"
		exec {to}>&-
		wait "$job" || true # as it ends here, without the file
		cat "$LAB/explain"
		expect_grep "^concc: $where" "$LAB/explain"
		expect_eq "jobs" "$(wc -l <"$LAB/explain")" 1
	done
}

beside_others() {
	held_while 'remote on' true
	held_while 'remote on' ./lock t/f r
	held_while 'remote on' touch t/other
	held_while 'local: conflict .*t/f changed' ./lock t/f o
	held_while 'local: conflict .*t/f changed' ./lock t/f w
	held_while 'local: conflict .*t/f changed' sh -c 'echo more >t/f'
	held_while 'local: conflict .*t/f changed' touch t/f
	held_while 'local: conflict .*t/f changed' sh -c 'echo data >t/g; mv t/g t/f'
	held_while 'local: conflict .*t/f changed' rm t/f
}

# Somebody has it before, and all the time: the job waits for him, here.
kept_away() {
	local to line n how
	echo data >f
	for n in 1 2; do
		coproc HOLDER { ./lock f w cat; }
		to=${HOLDER[1]}
		IFS= read -r -t "$LAB_LIMIT" line <&"${HOLDER[0]}" || fail "no lock"
		rm -f "$LAB/explain"
		CONCC_EXPLAIN=$LAB/explain expect_status 1 at_worker "$n" concc-dispatch ./lock f n 2>"$LAB/err"
		expect_grep '^BlockingIOError' "$LAB/err"
		expect_grep '^concc: local: conflict .*f was locked on this machine' "$LAB/explain"
		for how in q Q; do
			expect_eq "who asks" "$(at_worker "$n" concc-dispatch ./lock f $how | head -n 1)" taken
		done
		line=$HOLDER_PID
		exec {to}>&-
		wait "$line"
		CONCC_EXPLAIN=$LAB/explain at_worker "$n" concc-dispatch ./lock f n
		expect_grep '^concc: remote on' "$LAB/explain"
	done
}
# ---- output by its name ----

# The caller's is a file in all of these but where it goes through a pipe.
opened_anew() {
	same descriptor 'echo hi | $RUN tee /dev/stdout'
	same descriptor 'echo hi | $RUN tee /dev/fd/2 2>e'
	same descriptor 'echo old >o; $RUN sh -c "echo 1; echo x >/dev/stdout; echo y" >>o'
	same descriptor '$RUN sh -c "echo 1 >/dev/stderr; echo x >&2; echo 2 >>/dev/stderr" 2>o'
	same descriptor 'printf "1\n2\n" >f; (read -r x; $RUN cat /dev/stdin) <f'
	same remote 'printf "1\n2\n" >f; $RUN cat /dev/stdin <f'
	same remote 'echo hi | $RUN tee /dev/stdout | cat'
	same remote 'echo hi | $RUN tee /dev/stderr 2>/dev/null'
	same remote '$RUN sh -c "echo 1 >/dev/stdout; echo x; echo 2 >/proc/self/fd/1" | cat'
	same remote 'echo x >f; $RUN tar --mtime=@0 -cf /dev/stdout f | cksum'
}

# Not with a name in /dev, which it would remove as root.
assembled_into_output() {
	same descriptor 'echo "int x;" >a.c; $CC -c a.c -o /proc/self/fd/1 >o'
	same descriptor 'echo "int x;" >a.c; $CC -c a.c -o/proc/self/fd/2 2>o'
	same descriptor 'echo .data >a.s; $RUN as -o /proc/self/fd/1 a.s >o'
	same remote 'echo "int x;" >a.c; $CC -S a.c -o /proc/self/fd/1 | cat'
	same remote 'echo "int x;" >a.c; $CC -MD -MF /dev/stdout -c a.c | cat'
}
check "a lock to read: remote" to_read
check "a lock to keep others away: here" to_write
check "a lock to read, and what others do" beside_others
check "a lock to read that somebody keeps away" kept_away
check "locks of programs" of_programs
check "output that is opened by its name" opened_anew
check "an object as output" assembled_into_output
lab_stop
