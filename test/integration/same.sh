#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Commands that are no plain compiles, by doing everything twice, here and on workers, and comparing output,
# errors, status and files; and where each of them ran.
# limit: 420
# shellcheck disable=SC2016 # the jobs' own variables
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
. "${BASH_SOURCE[0]%/*}/../lib/same.sh"
lab_need jq python3 perl patch setfacl setfattr
lab_enter "$@"
same_start here

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
# One variable has two values, one no name, one no value.
cat >twice <<'X'
#!/usr/bin/python3
import ctypes, os, shutil, sys
env = [b"T=1", b"=odd", b"bare", b"T=2"] + [b"%s=%s" % i for i in os.environb.items()]
show = "print([e for e in open('/proc/self/environ', 'rb').read().split(bytes(1)) if e[:1] in b'T=b'])"
args = sys.argv[1:] + ["python3", "-c", show]
words = [(ctypes.c_char_p * (len(v) + 1))(*v, None) for v in ([a.encode() for a in args], env)]
ctypes.CDLL(None).execve(shutil.which(args[0]).encode(), *words)
X
cat >virtual-timer <<'X'
#!/usr/bin/python3
import os, signal, sys
signal.setitimer(signal.ITIMER_VIRTUAL, 0.2)
os.execvp(sys.argv[1], sys.argv[1:])
X
# Has a file open that a command fills, by its name behind all words.
cat >with-temporary <<'X'
#!/usr/bin/python3
import subprocess, sys, tempfile
with tempfile.NamedTemporaryFile(dir=".") as f:
    subprocess.run(sys.argv[1:] + [f.name], check=True)
    print(f.read())
X
cat >to-group <<'X'
#!/usr/bin/python3
import os, signal
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
os.killpg(os.getpgrp(), signal.SIGUSR1)
X
chmod +x lock twice virtual-timer with-temporary to-group

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
	same remote "$c; gcc -O2 -fprofile-generate -frandom-seed=a a.c -o p; ./p; mv p-a.gcda a.gcda; "'$COMPILE -O2 -fprofile-use -frandom-seed=a -c a.c -o a.o'
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
	for n in "${SAME_WORKERS[@]}"; do
		rm -rf t "$LAB/explain" && mkdir t
		echo data >t/f
		coproc JOB { CONCC_EXPLAIN=$LAB/explain same_at "$n" concc-dispatch ./lock t/f r cat; }
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
	for n in "${SAME_WORKERS[@]}"; do
		coproc HOLDER { ./lock f w cat; }
		to=${HOLDER[1]}
		IFS= read -r -t "$LAB_LIMIT" line <&"${HOLDER[0]}" || fail "no lock"
		rm -f "$LAB/explain"
		CONCC_EXPLAIN=$LAB/explain expect_status 1 same_at "$n" concc-dispatch ./lock f n 2>"$LAB/err"
		expect_grep '^BlockingIOError' "$LAB/err"
		expect_grep '^concc: local: conflict .*f was locked on this machine' "$LAB/explain"
		for how in q Q; do
			expect_eq "who asks" "$(same_at "$n" concc-dispatch ./lock f $how | head -n 1)" taken
		done
		line=$HOLDER_PID
		exec {to}>&-
		wait "$line"
		CONCC_EXPLAIN=$LAB/explain same_at "$n" concc-dispatch ./lock f n
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
	same descriptor 'echo a >f; $RUN cat f >>f'
	same descriptor 'echo a >f; $RUN grep a f ./f >>f; echo a >g; $RUN cp -v f g 2>>f'
	same descriptor 'printf "1\n2\n" >f; (read -r x; $RUN cat /dev/stdin) <f'
	same remote 'printf "1\n2\n" >f; $RUN cat /dev/stdin <f'
	same remote 'printf "1\n2\n" >f; $RUN cat f f >g 2>h'
	same remote 'echo hi | $RUN tee /dev/stdout | cat'
	same remote 'echo hi | $RUN tee /dev/stderr 2>/dev/null'
	same remote '$RUN sh -c "echo 1 >/dev/stdout; echo x; echo 2 >/proc/self/fd/1" | cat'
	same remote 'echo x >f; $RUN tar --mtime=@0 -cf /dev/stdout f | cksum'
}

# Not with a name in /dev, which it would remove as root.
assembled_into_output() {
	same descriptor 'echo "int x;" >a.c; $COMPILE -c a.c -o /proc/self/fd/1 >o'
	same descriptor 'echo "int x;" >a.c; $COMPILE -c a.c -o/proc/self/fd/2 2>o'
	same descriptor 'echo .data >a.s; $RUN as -o /proc/self/fd/1 a.s >o'
	same remote 'echo "int x;" >a.c; $COMPILE -S a.c -o /proc/self/fd/1 | cat'
	same remote 'echo "int x;" >a.c; $COMPILE -MD -MF /dev/stdout -c a.c | cat'
}

# ---- what its caller has ----

environment() {
	same remote 'env ZZ=1 AA=2 EMPTY= "odd name=3" YY=4 $RUN env | grep -E "^([A-Z][A-Z]|EMPTY|odd name)="'
	same remote 'cd ..; cd t; $RUN sh -c "echo \$OLDPWD \$SHLVL; cd - >/dev/null; pwd"'
	same remote '../twice $RUN'
}

of_the_caller() {
	same group 'setpriv --groups 5,6 $RUN id -G'
	same caller 'setpriv --bounding-set -all --inh-caps -all $RUN grep CapEff /proc/self/status'
	same caller 'perl -e "alarm 1000; exec @ARGV" $RUN python3 -c "import signal; print(signal.getitimer(0)[0] > 1)"'
	same caller '../virtual-timer $RUN sh -c "while :; do :; done"'
	same remote 'perl -e "alarm 1000; alarm 0; exec @ARGV" $RUN true'
	same remote 'echo "int x;" >a.c; perl -e "alarm 1000; exec @ARGV" $COMPILE -c a.c'
}

cannot_be_executed() {
	local say='2>&1 | sed "s/.*s.*: /: /"'
	same refused 'printf "#!/nowhere/sh\n" >s; chmod +x s; $RUN ./s '"$say"
	same refused 'printf "#!./t\n" >s; echo echo >t; chmod +x s; $RUN ./s '"$say"
}

# ---- what no job knows of files here ----

more_names() {
	same no-way-home '$RUN sh -c "ln -s a s; ln -P s t; ls"'
	same no-way-home '$RUN sh -c "mkfifo p; ln p q; ls"'
	same no-way-home '$RUN sh -c "mkdir d; ln -s x d/s; cp -al d e; ls e"'
	same remote '$RUN sh -c "ln -s a s; mv s t; mkfifo p; mv p q; ls"'
}

rights_of_files() {
	same no-way-home 'echo x >f; chmod 4755 f; $RUN sh -c "stat -c %a f; echo y >>f; stat -c %a f"'
	same no-way-home 'echo x >f; chmod 2755 f; $RUN truncate -s 0 f'
	same remote 'echo x >f; chmod 4755 f; $RUN sh -c "cat f; echo z >g; mv g f; stat -c %a f"'
}

# Here it ends otherwise.  It says so by its status: what it prints may have been shown (late-changes.sh).
unchangeable() {
	echo x >probe
	chattr +i probe 2>/dev/null || skip "no chattr +i on this file system"
	chattr -i probe
	same write-back 'chattr +i .; $RUN sh -c "echo x >f; exit \$?"; echo $?; chattr -i .'
	same write-back 'echo x >f; chattr +i f; $RUN sh -c "echo y >f; rm -f f; exit \$?"; echo $?; chattr -i f'
	same write-back 'echo x >f; chattr +i f; $RUN sh -c "chmod 600 f; exit \$?"; echo $?; chattr -i f'
	same write-back 'echo x >f; chattr +a f; $RUN sh -c "echo y >>f; echo z >f; exit \$?"; echo $?; chattr -a f'
}

of_mounts() {
	same write-back 'mkdir m; mount -t tmpfs -o ro none m; $RUN sh -c "echo x >m/f; s=\$?; mkdir m/d; ln -s x m/l; exit \$s"; echo $?; umount m'
	same write-back 'mkdir m; mount -t tmpfs none m; echo x >m/f; mount -o remount,ro m; $RUN sh -c "echo x >>m/f; exit \$?"; echo $?; umount m'
	same write-back 'mkdir m; mount -t tmpfs none m; $RUN sh -c "echo a >a; echo y >g; ln g m/g; exit \$?"; echo $?; umount m'
	same write-back 'mkdir m; mount -t tmpfs none m; $RUN sh -c "echo y >g; mkdir m/d; ln g m/d/g; exit \$?"; echo $?; umount m'
	same write-back 'mkdir a m; mount --bind a m; $RUN sh -c "echo y >g; ln g m/g; exit \$?"; echo $?; umount m'
	same write-back 'mkdir m; mount -t tmpfs none m; $RUN sh -c "echo y >z; rm -r m; exit \$?"; echo $?; umount m'
	same write-back 'mkdir -p d/m; mount -t tmpfs none d/m; echo x >d/f; $RUN sh -c "rm -r d; s=\$?; echo w >d/q; exit \$s"; echo $?; umount d/m'
	same remote 'mkdir m; mount -t tmpfs none m; $RUN sh -c "echo x >m/f; ln m/f m/g; mkdir m/d; ln m/f m/d/h; cp m/f e"; umount m'
}

# ---- processes that are not the job's ----

with_others() {
	local other='tail -f /dev/null & other=$!'
	same no-way-home "$other; "'$RUN sh -c "kill -0 $other && echo there; kill -9 $other && echo killed"; wait $other; echo $?'
	same no-way-home "$other; "'$RUN python3 -c "import os; os.kill($other, 15)"; wait $other; echo $?'
	same no-way-home "$other; "'$RUN python3 -c "import os, signal; signal.pidfd_send_signal(os.pidfd_open($other), 15)"; wait $other; echo $?'
	same no-way-home 'set -m; tail -f /dev/null & other=$!; set +m; $RUN sh -c "kill -15 -$other"; wait $other; echo $?'
	same no-way-home 'trap "echo told" USR1; $RUN sh -c "kill -USR1 \$PPID"; echo on'
	# In a session of its own: the test is in the caller's group.
	same no-way-home 'setsid -w bash -c "trap \"echo told\" USR1; \$RUN sh -c \"trap : USR1; kill -USR1 0\"; echo on"'
	same no-way-home 'setsid -w bash -c "trap \"echo told\" USR1; \$RUN ../to-group; echo on"'
	same no-way-home 'true & wait $!; $RUN sh -c "kill -0 $! 2>/dev/null || echo stale"'
}

# Its own: also when they have ended, and by all names.
with_its_own() {
	same remote '$RUN sh -c "kill -0 \$PPID && kill -0 \$\$ && echo here; kill -USR1 \$\$"; echo $?'
	same remote '$RUN sh -c "sleep 1000 & kill \$!; wait \$!; echo \$?; kill -0 \$! || echo gone" 2>/dev/null'
	same remote '$RUN timeout -s KILL .1 sleep 1000; echo $?; $RUN timeout .1 sleep 1000; echo $?'
	same remote '$RUN bash -c "set -m; env sleep 1000 | env sleep 1000 & kill %1; wait %1; echo \$?" 2>/dev/null'
	same remote '$RUN setsid -w sh -c "trap \"echo told\" USR1; kill -USR1 0; echo on"'
	same remote '$RUN perl -e "\$SIG{USR1} = sub { print qq(told\n) }; kill USR1 => \$\$; if (!(\$p = fork)) { exec qw(env sleep 1000) } kill -9 => \$p or kill 9 => \$p; wait; print \$? & 127"'
	same remote '$RUN python3 -c "import signal, threading; signal.pthread_kill(threading.get_ident(), 0); signal.raise_signal(10)"; echo $?'
}

# The log is here, also when nobody keeps one: who writes there is not told.
to_the_log() {
	same no-way-home '$RUN python3 -c "import syslog; syslog.syslog(\"x\"); print(1)"'
	same no-way-home '$RUN perl -e "use Sys::Syslog; eval { openlog(qw(a ndelay user)); syslog(qw(info x)) }; print 1"'
	same no-way-home '$RUN sh -c "logger x; echo on"'
}

# ---- files that somebody has open here ----

# He sees what is written, and what he writes is not lost.
open_here() {
	same remote 'echo a >f; exec 5<f; $RUN sh -c "echo b >>f"; cat <&5'
	same remote 'echo a >f; exec 5<f; $RUN sh -c "echo b >f; echo c >>f"; cat <&5'
	same remote '>log; exec 5>>log; echo a >&5; $RUN sh -c "echo b >>log"; echo c >&5'
	same remote 'echo a >f; exec 5<f; $RUN sh -c "rm f; echo b >f"; cat <&5'
	same remote 'echo a >f; exec 5<f; $RUN sh -c "echo b >g; mv g f"; cat <&5'
	same remote 'echo a >f; echo b >g; exec 5<f; $RUN mv g f; cat <&5'
	same remote 'echo a >f; echo b >g; exec 5<f; $RUN sh -c "rm f; echo c >>g; echo more >x; mv g x; mv x f"; cat <&5'
	same remote 'echo a >f; echo b >g; ln f h; exec 5<f; $RUN perl -e "rename qw(g f)"; cat <&5'
	same remote 'echo a >f; echo a >g; touch -d @5 f g; ln f h; $RUN mv g f'
	same remote 'echo a >f; echo b >g; exec 5<f; $RUN sh -c "mv f x; mv g f; mv f g; mv x f; echo c >>f"; cat <&5'
	same remote 'echo a >f; echo b >g; exec 5<f 6<g; $RUN python3 -c "import ctypes; print(ctypes.CDLL(None).renameat2(-100, b\"f\", -100, b\"g\", 2))"; cat <&5 <&6'
	same remote 'head -c 3000000 /dev/zero >f; exec 5<f; $RUN sh -c "seq 100000 >>f"; cksum <&5'
	same remote '../with-temporary $RUN cp ../lock'
	same remote 'echo "int x;" >a.c; ../with-temporary $COMPILE -S a.c -o'
	same remote 'echo a >f; stat -c %i f >n; $RUN true; $RUN sh -c "echo b >g; cat g"; stat -c %i f | cmp n - && echo kept; rm n'
}

# Nobody can write to a program that runs, and nothing of the rest is done twice.
running_here() {
	local other='cp "$(command -v cat)" prog; mkfifo i o; ./prog <i >o & other=$!; exec 6>i 7<o; rm i o; echo runs >&6; read <&7; exec 7<&-'
	same no-way-home "$other; "'echo 0 >a; $RUN sh -c "echo x >>a; cat ../lock >prog"; echo $?; kill $other; cat a'
	same remote "$other; "'$RUN sh -c "cat ../lock >g; chmod +x g; mv g prog"; echo $?; kill $other'
	same remote 'cp ../lock prog; exec 5<prog; $RUN sh -c "echo x >>a; echo x >>prog"; tail -n 1 <&5'
}

# As much room as files have on most file systems.
room() {
	case $(stat -f -c %T .) in
	ext* | tmpfs) ;;
	*) skip "what others take is their own affair" ;;
	esac
	same remote 'seq 20000 >f; seq 10 >g; >h; ln -s f l; $RUN sh -c "du -k f g h l; ls -s f g h; stat -c %b f g h l; cp f i; du -k i"'
}

# ---- what jobs don't see of a file, and what replaces it keeps ----

attributes() {
	same no-way-home 'echo a >f; setfacl -m u:5:rw f; $RUN sed -i s/a/b/ f; getfacl f'
	same no-way-home 'echo a >f; setfacl -m u:5:rw f; $RUN perl -pi -e s/a/b/ f; getfacl f'
	same no-way-home 'echo a >f; setfattr -n user.x -v 1 f; $RUN mv f g; getfattr -d g'
	same no-way-home 'echo a >f; setfattr -n user.x -v 1 f; echo b >g; $RUN mv f g; getfattr -d g'
	same no-way-home 'echo a >f; chown 5 f; echo b >g; $RUN mv f g; stat -c %u g'
	same no-way-home 'echo a >f; setfattr -n user.x -v 1 f; $RUN sh -c "cp -p f g; echo b >>g; mv g f"; getfattr -d f'
	same no-way-home 'echo a >f; setfattr -n user.x -v 1 f; echo "-a
+b" | sed "1i --- f\n+++ f\n@@ -1 +1 @@" >p; $RUN patch -s f p; getfattr -d f'
	same remote 'echo a >f; setfattr -n user.x -v 1 f; setfacl -m u:5:rw f; $RUN sh -c "echo b >>f"; getfattr -d f; getfacl f'
	same remote 'echo a >f; setfattr -n user.x -v 1 f; $RUN sh -c "cat f; rm f"'
	same no-way-home 'echo a >f; setfattr -n user.x -v 1 f; $RUN cp -a f g; getfattr -d g'
	same no-way-home 'echo a >f; setfacl -m u:5:rw f; $RUN cp -p f g; getfacl g'
	same no-way-home 'mkdir -p d/e; echo a >d/e/f; setfattr -n user.x -v 1 d/e; $RUN cp -a d g; getfattr -d g/e'
	same no-way-home 'echo a >f; setfattr -n user.x -v 1 f; ln -s f l; $RUN python3 -c "import os; print(os.listxattr(\"l\"), os.getxattr(\"f\", \"user.x\"))"'
	same no-way-home 'echo a >f; setfattr -n user.x -v 1 f; $RUN python3 -c "import ctypes; b = ctypes.create_string_buffer(99); ctypes.CDLL(None).syscall(465, -100, b\"f\", 0, b, 99); print(b.raw.split(bytes(1))[0])"'
	same no-way-home 'echo a >f; setfattr -n user.x -v 1 f; $RUN tar --xattrs -cf t f; tar --xattrs -xOf t; rm t'
	same no-way-home 'echo a >f; setfacl -m u:5:rw f; $RUN ls -l f | cut -c1-11'
	same remote 'echo a >f; echo b >g; setfattr -n user.x -v 1 f; mkdir d; echo c >d/h; $RUN sh -c "cp -a g d i; cp -p g f; ls -l g d | cut -c1-11"; getfattr -d f'
	same remote '$RUN sh -c "seq 5000 | split -l 1 -a 4; ls -l | cut -c1-11 | sort -u"; rm x*'
	same remote 'echo "int x;" >a.c; echo >a.o; setfattr -n user.x -v 1 a.o; $COMPILE -c a.c; getfattr -d a.o'
}

# ---- names that are too long for a message ----

# A directory to which only relative paths lead.
deep() {
	local d='n=$(printf "%0200d"); (for i in $(seq 30); do mkdir $n; cd $n; done; echo deep >f)'
	same no-way-home "$d; "'$RUN find . | wc -l; rm -r $n'
	same no-way-home "$d; "'$RUN rm -r $n'
	same no-way-home "$d; "'$RUN python3 -c "import os, sys; [os.chdir(sys.argv[1]) for i in range(30)]; print(open(\"f\").read())" $n; rm -r $n'
	same remote "$d; "'$RUN ls | wc -c; rm -r $n'
}

check "a lock to read: remote" to_read
check "a lock to keep others away: here" to_write
check "a lock to read, and what others do" beside_others
check "a lock to read that somebody keeps away" kept_away
check "locks of programs" of_programs
check "output that is opened by its name" opened_anew
check "an object as output" assembled_into_output
check "the caller's environment, in its order" environment
check "what a caller has that no job gets" of_the_caller
check "a command that the kernel does not execute" cannot_be_executed
check "several names of what is no file" more_names
check "rights of files that root writes to" rights_of_files
check "what must not change" unchangeable
check "mounts in a project" of_mounts
check "signals to processes that a job has not started" with_others
check "signals to its own" with_its_own
check "a message to the log" to_the_log
check "files that somebody has open here" open_here
check "a program that runs here" running_here
check "the room that files take" room
check "access lists and extended attributes" attributes
check "paths that are too long" deep
lab_stop
