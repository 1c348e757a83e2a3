#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Descriptors beyond standard error, by doing everything twice, here and on workers, and comparing output,
# errors, status and files.  A job has them by their numbers: one that does not use them runs on a worker,
# whatever a terminal or build tool has left open; one that does runs here.
# limit: 300
# shellcheck disable=SC2016 # the jobs' own variables
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
. "${BASH_SOURCE[0]%/*}/../lib/same.sh"
lab_need jq python3 make flock
lab_enter "$@"
same_start

# What leaves descriptor N open to a command: leak KIND N CMD...
cat >leak <<'EOF'
#!/usr/bin/python3
import os, pty, select, socket, sys
kind, n, cmd = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
if kind in ("pipe", "full-pipe"):
    r, fd = os.pipe()
    os.set_inheritable(r, True)
    os.dup2(r, n + 1)
    if kind == "full-pipe":
        os.write(fd, b"from the pipe\n")
elif kind == "pty":
    master, fd = pty.openpty()
    os.dup2(master, n + 1)
elif kind == "socket":
    a, b = socket.socketpair()
    a.send(b"from the socket\n")
    fd = b.detach()
elif kind == "listening":
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen()
    fd = s.detach()
elif kind == "eventfd":
    fd = os.eventfd(1)
elif kind == "epoll":
    poll = select.epoll()
    fd = poll.fileno()
elif kind == "memfd":
    fd = os.memfd_create("of the caller")
    os.write(fd, b"from memory\n")
    os.lseek(fd, 0, os.SEEK_SET)
elif kind == "dir":
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
os.dup2(fd, n)
os.execvp(cmd[0], cmd)
EOF
chmod +x leak

fixture() {
	printf 'one\ntwo\nthree\n' >t/f
	printf 'int f(void) { return 1; }\n' >t/a.c
	printf '#!/bin/bash\nx=$(cat f | wc -l)\nwhile read -r l <&9; do echo "$l"; done 9<f >o\necho "$x"\n' >t/script
	chmod +x t/script
}

# ---- used ----

reading() {
	same descriptor '$RUN sh -c "cat <&3" 3<f'
	same descriptor '$RUN sh -c "cat <&4" 4<<X
of the caller
X'
	same descriptor 'exec 3<f; read l <&3; $RUN sh -c "cat <&3"; echo left; cat <&3'
	same descriptor 'exec 3<f; $RUN sh -c "read l <&3; echo \$l"; cat <&3'
	same descriptor 'seq 3 | { exec 3<&0; $RUN sh -c "read l <&3; echo \$l" </dev/null; }'
	same descriptor '$RUN sh -c "cat /dev/fd/63" 63< <(echo substituted)'
	same descriptor '$RUN diff <(echo a) <(echo b)'
	same descriptor '$RUN sh -c "cat /proc/self/fd/7" 7<f'
	same descriptor '$RUN python3 -c "import os; print(os.read(200, 3))" 200<f'
	same descriptor '$RUN python3 -c "import os; print(os.read(1001, 3))" 1001<f'
	same descriptor '$RUN python3 -c "import os; print(os.pread(9, 3, 4))" 9<f'
	same descriptor '$RUN python3 -c "import os; print(os.dup(5), os.read(os.dup(5), 3))" 5<f'
	same descriptor '../leak full-pipe 5 $RUN python3 -c "import os; print(os.read(6, 99))"'
	same descriptor '../leak memfd 5 $RUN python3 -c "import os; print(os.read(5, 99))"'
	same descriptor '$RUN python3 -c "import mmap; print(mmap.mmap(5, 3, mmap.MAP_PRIVATE, mmap.PROT_READ)[:])" 5<f'
	same descriptor '$RUN python3 -c "import mmap; print(mmap.mmap(5, 3, mmap.MAP_SHARED, mmap.PROT_READ)[:])" 5<f'
	same descriptor 'exec 4<f; ulimit -n 16; $RUN python3 -c "import os; print(os.read(4, 3))"'
	same descriptor '$RUN bash -c "mapfile -t -u 7 l; echo \${#l[@]}" 7<f'
}

writing() {
	same descriptor '$RUN sh -c "echo hi >&3" 3>o'
	same descriptor '$RUN sh -c "echo hi >&9" 9>>f'
	same descriptor 'exec 5<>f; $RUN sh -c "echo X >&5"; echo Y >&5'
	same descriptor 'exec 3>>log; echo a >&3; $RUN sh -c "echo b >&3"; echo c >&3'
	same descriptor '$RUN sh -c "echo swapped >&3; echo plain" 3>&1 1>&2 2>/dev/null'
	same descriptor '$RUN sh -c "echo into the pipe >&7" 7> >(cat >o); wait $!'
	same descriptor '$RUN python3 -c "import os; os.ftruncate(5, 2)" 5<>f'
	same descriptor '$RUN python3 -c "import os; os.fchmod(5, 0o600)" 5<>f'
	same descriptor '$RUN python3 -c "import os; os.fsync(5)" 5<>f'
	same remote '$RUN python3 -c "import os
try: os.write(5, b\"x\")
except OSError as e: print(e)" 5<f'
}

locking() {
	same descriptor 'exec 9>lock; $RUN flock 9; flock -n lock true; echo $?'
	same descriptor '$RUN flock -n 200; echo $?' 200>lock
	same descriptor '$RUN sh -c "flock 8; echo x >>f" 8<f'
	same descriptor '$RUN python3 -c "import fcntl; fcntl.lockf(5, fcntl.LOCK_EX)" 5<>f'
}

looking() {
	same descriptor '$RUN sh -c "[ -e /dev/fd/7 ] && echo there; [ -e /dev/fd/8 ] || echo not" 7<f'
	same descriptor '../leak pipe 5 $RUN sh -c "[ -p /dev/fd/5 ] && echo a pipe"'
	same descriptor '../leak pty 5 $RUN sh -c "[ -t 5 ] && echo a terminal"'
	same descriptor '$RUN sh -c "[ -t 5 ] || echo no terminal" 5<f'
	same descriptor '$RUN python3 -c "import os; print(os.fstat(5).st_size)" 5<f'
	same descriptor '$RUN python3 -c "import os; print(os.lseek(5, 0, os.SEEK_END))" 5<f'
	same descriptor '../leak pipe 5 $RUN python3 -c "import select; print(select.select([6], [], [], 0))"'
	same descriptor '../leak full-pipe 5 $RUN python3 -c "import select; p = select.poll(); p.register(6, select.POLLIN); print(p.poll(0))"'
	same descriptor '../leak pipe 5 $RUN bash -c "read -t 0 -u 6 || echo nothing to read"'
}

# A file can't stand for these, so that nobody could tell a use.
of_other_kinds() {
	same descriptor '../leak dir 5 $RUN python3 -c "import os; print(sorted(os.listdir(5)))"'
	same descriptor '../leak dir 5 $RUN sh -c "cat /dev/fd/5/f"'
	same descriptor '../leak dir 9 $RUN flock 9'
	same descriptor '../leak socket 5 $RUN python3 -c "import socket; print(socket.socket(fileno=5).recv(99))"'
	same descriptor '../leak listening 5 $RUN python3 -c "import socket; print(socket.socket(fileno=5).getsockname()[0])"'
	same descriptor '../leak eventfd 5 $RUN python3 -c "import os; print(os.eventfd_read(5))"'
	same descriptor '../leak epoll 5 $RUN python3 -c "import select; print(select.epoll.fromfd(5).poll(0))"'
}

# ---- merely there ----

not_used() {
	local leak
	for leak in '3<f' '3>>log 4<f 200<>f 255<f 1001<f' '5>>config.log 6>&1 7<&0' '3<../leak 9>/dev/null'; do
		same remote "exec $leak; \$RUN sh -c 'cat f; echo x >o'"
	done
	for leak in 'pipe 3' 'full-pipe 40' 'pty 9' 'memfd 77'; do
		same remote "../leak $leak \$RUN ./script"
	done
	same remote 'while read -r l <&3; do $RUN echo "$l"; done 3<f'
	same remote '(flock 9; $RUN sh -c "echo x >>f") 9>lock'
	same remote 'exec 4<f; ulimit -n 16; $RUN cat f'
	for run in 'python3 -c "import subprocess; subprocess.run([\"cat\", \"f\"])"' \
		'perl -e "open(F, \"f\"); print <F>; print qx(cat f)"' 'awk 1 f' 'tar -cf o.tar --mtime=@0 f' 'gcc -c a.c -o a.o' \
		'make -s -f /dev/null -n a.o' 'xargs -n1 echo' 'find . -name f' 'bash -c true'; do
		command -v "${run%% *}" >/dev/null || continue
		same remote "exec 3<f 8>log; ../leak pipe 5 \$RUN $run"
	done
}

# What a job does with a number is its own affair once it has closed the caller's.
closed_and_used() {
	same remote '$RUN sh -c "exec 3<&-; exec 3<f; cat <&3" 3<a.c'
	same remote '$RUN sh -c "cat 3<f <&3" 3<a.c'
	same remote '$RUN sh -c "echo x 3>&1 >&3" 3>o'
	same remote '$RUN python3 -c "import os; os.close(5); print(os.dup2(1, 5))" 5<f'
	same remote '$RUN python3 -c "import os; print(os.open(\"f\", 0), os.open(\"f\", 0))" 3<f'
	same remote '$RUN python3 -c "import os; os.closerange(3, 2000); print(os.open(\"f\", 0))" 5<f'
	same remote '$RUN sh -c "cat <&4" 3<f'
	same remote '$RUN sh -c "echo x >&3"'
}

compilers() {
	local leak WRAPPER=concc-cc
	for leak in pipe pty socket dir eventfd; do
		same remote "../leak $leak 5 \$RUN gcc -c a.c -o a.o"
	done
	same remote '$RUN gcc -c a.c -o a.o 3<f 9>log'
	printf '#!/bin/sh\necho "$@" >&7\nexec gcc "$@"\n' >logging-cc
	chmod +x logging-cc
	same descriptor '$RUN ../logging-cc -c a.c -o a.o 7>>log'
	same descriptor '$RUN ../logging-cc -c a.c -o a.o 7>&1'
}

# Of make, through a pipe and by name; what its variables say of them does not travel.
jobservers() {
	printf 'all: a.o b.o\n%%.o:\n\t+@$(RUN) gcc -flto=jobserver -frandom-seed=1 -c a.c -o $@\n' >jobs.mk
	same remote 'make -s -j2 --no-print-directory -f ../jobs.mk'
	same remote 'make -s -j2 --no-print-directory -f ../jobs.mk --jobserver-style=pipe 2>/dev/null ||
		make -s -j2 --no-print-directory -f ../jobs.mk'
	WRAPPER=concc-cc same remote 'make -s -j2 --no-print-directory -f ../jobs.mk'
	printf 'all:\n\t+@$(RUN) make -s --no-print-directory -f ../inner.mk\n' >outer.mk
	printf 'all: x y\nx y:\n\t@echo $@ >$@\n' >inner.mk
	same remote 'make -s -j2 --no-print-directory -f ../outer.mk'
}

# ---- what is said, kept and paid ----

reasons() {
	(cd t && CONCC_EXPLAIN=1 concc-dispatch sh -c 'cat <&7' 3<a.c 7<f) >"$LAB/out" 2>"$LAB/err"
	expect_grep '^concc: local: descriptor \(.*used a descriptor that its caller has open \(of 3, 7[,)]' "$LAB/err"
	(cd t && CONCC_EXPLAIN=1 ../leak dir 5 concc-dispatch true) 2>"$LAB/err"
	expect_grep '^concc: local: descriptor \(its descriptor 5 is a directory' "$LAB/err"
	(cd t && ../leak socket 5 concc why concc-dispatch --cache true) >"$LAB/out" || true
	expect_grep 'not cacheable: .*descriptor \(its descriptor 5 is a socket' "$LAB/out"
}

# A result of a call without descriptors is none of a call with some.
by_explain() { # CMD...: on w2, if it needs a worker
	"$LAB_TOOLS/settled" .
	rm -f "$LAB/explain"
	CONCC_EXPLAIN=$LAB/explain at_worker 2 "$@"
	cat "$LAB/explain" >&2
}

kept() {
	local text='{ cat <&3; } 2>/dev/null || echo none'
	lab_stop_server
	sed -i 's/^local-slots = 0/&\ncache = 1G/' /srv/concc.ini
	lab_all_up
	same_new
	cd t
	for _ in 1 2; do
		by_explain concc-dispatch --cache sh -c "$text" >"$LAB/out"
		expect_eq "without" "$(<"$LAB/out")" none
	done
	expect_grep '^concc: remote on \(cache\)' "$LAB/explain"
	by_explain concc-dispatch --cache sh -c "$text" 3<f >"$LAB/out"
	expect_eq "with" "$(<"$LAB/out")" "$(<f)"
	# One of a compiler's is, whatever its caller has open.  The second meets what the first has made.
	by_explain concc-cc gcc -c a.c -o a.o
	by_explain concc-cc gcc -c a.c -o a.o
	by_explain concc-cc gcc -c a.c -o a.o 3<f
	expect_grep '^concc: remote on \(cache\)' "$LAB/explain"
}

fuse_messages() {
	lab_status '[.workers[].fuse_messages] | add'
}

# Those that are there and not used cost no message.
cost_of_a_leak() {
	local none some
	same_new
	for _ in 1 2 3; do
		(cd t && at_worker 1 concc-cc gcc -c a.c -o a.o)
		(cd t && at_worker 1 concc-cc gcc -c a.c -o a.o 3<f 4<f 5>>log)
	done
	none=$(fuse_messages)
	(cd t && at_worker 1 concc-cc gcc -c a.c -o a.o)
	some=$(fuse_messages)
	none=$((some - none))
	(cd t && at_worker 1 concc-cc gcc -c a.c -o a.o 3<f 4<f 5>>log)
	some=$(($(fuse_messages) - some))
	echo "note: a job $none FUSE messages, with three descriptors $some"
	expect_le "FUSE messages with three descriptors" "$some" "$((none + 1))"
}

lab_all_up
check "a descriptor of the caller's that is read from makes a job run here" reading
check "so does one that is written to" writing
check "or locked" locking
check "or looked at" looking
check "a directory, socket or the like, that a command may use, keeps it here" of_other_kinds
check "what is only inherited keeps no job here" not_used
check "nor do numbers that the job itself opens" closed_and_used
check "compilers have what their callers have left open" compilers
check "jobservers keep no job here" jobservers
check "it is said why" reasons
check "a kept result is not that of a caller with other descriptors" kept
check "what is not used costs nothing" cost_of_a_leak
lab_stop
