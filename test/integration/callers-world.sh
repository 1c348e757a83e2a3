#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What a job gets from its caller, by doing everything twice, here and on workers, and comparing: the
# name that a script sees of itself, limits, niceness, signals.  What a worker can't give, or can't do
# (other users, device nodes, mounts), is done here; so is what comes from another namespace.  And the
# project server keeps nothing of the call that started it.
# limit: 240
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_need jq setpriv
lab_enter "$@"
lab_start builder root
lab_config
# One worker shows its own system, the other the client's.
sed -i '/^\[worker w2\]/,$s/^root = worker/root = client/' /srv/concc.ini
cp /srv/concc.ini "$LAB/concc.ini"
cp "$LAB_TOOLS/do-call" "$LAB_TOOLS/wait-file" "$WS/"
cd "$WS"
ulimit -S -c 0

# Programs with sanitizers take all address space there is, and set limits of their own.
plain_programs() {
	[ -z "$LAB_SANITIZED" ] || skip "with sanitizers"
}

# Without our words, and those of bash on how a command ended, with its number.
said() {
	grep -Ev '^(concc: .*|[^ ]*: line [0-9]*: .*|Terminated|Killed)$' "$LAB/all" || true
}

# Other workers for a while.
no_workers() {
	lab_stop_server
	sed -i '/^\[worker /,$d' /srv/concc.ini
}

our_workers() {
	lab_stop_server
	cp "$LAB/concc.ini" /srv/concc.ini
	lab_all_up
}

# Runs shell text with env(1), which is execvp(3), as $RUN in front of its command, and then with a
# wrapper for each worker.
# WHERE is "remote", or the rule by which it runs here all the same; or "anywhere".  Output (without our words) and
# status must be as here.
same() { # WHERE TEXT
	local where=$1 text=$2 n
	rm -rf t && mkdir t
	# shellcheck disable=SC2209 # a command it is
	(RUN=env bash -c "$text") >"$LAB/all" 2>&1 </dev/null && echo 0 >>"$LAB/all" || echo $? >>"$LAB/all"
	said >"$LAB/want"
	for n in 1 2; do
		rm -rf t && mkdir t
		(RUN=${WRAPPER-concc-dispatch} CONCC_EXPLAIN=1 at_worker $n bash -c "$text") >"$LAB/all" 2>&1 </dev/null &&
			echo 0 >>"$LAB/all" || echo $? >>"$LAB/all"
		said >"$LAB/got"
		cat "$LAB/all"
		diff -u "$LAB/want" "$LAB/got" || fail "w$n: another result of: $text"
		case $where in
		remote) expect_eq "jobs on w$n of: $text" "$(grep -c "^concc: remote on w$n" "$LAB/all")" 1 ;;
		anywhere) ;;
		*) expect_grep "^concc: local: $where" "$LAB/all" ;;
		esac
	done
}

# ---- $0 ----

make_scripts() {
	mkdir -p tools/deep inc empty
	# shellcheck disable=SC2016 # of the script
	printf '#!/bin/sh\necho "$0" "$@"\ndirname "$0"\n' >tools/me
	# shellcheck disable=SC2016
	printf 'echo "no first line" "$0" "$@"\n' >tools/bare
	# shellcheck disable=SC2016
	printf '#!/bin/sh\nd=$(dirname "$0")\nexec gcc -I"$d/../inc" "$@"\n' >tools/cc
	chmod +x tools/me tools/bare tools/cc
	cp tools/me do-me
	cp do-call tools/
	ln -sf ../me tools/deep/link
	ln -sfn tools also
	echo '#define N 1' >inc/n.h
	printf '#include <n.h>\n#include <assert.h>\nconst char *f(int i) { assert(i); return __FILE__; }\n' >a.c
}

script_names() {
	local run
	for run in './do-me a b' tools/me ./tools/me .//tools/me tools/../tools/me "../${WS##*/}/tools/me" "$WS/tools/me" \
		"$WS/tools/../do-me" tools/deep/link also/me ./also/../tools/me tools/bare './tools/bare x'; do
		same remote "\$RUN $run"
	done
	same remote 'cd tools; $RUN ../do-me'
	same remote 'cd tools/deep; $RUN ../me'
}

script_names_by_path() {
	local path name
	for path in tools: tools ./tools "../${WS##*/}/tools" empty:tools/deep/../ ":tools" also "$WS/tools" "nowhere:tools/"; do
		for name in me bare do-call; do
			same remote "PATH=$path:\$PATH; \$RUN $name called"
		done
	done
	same remote 'PATH=:$PATH; $RUN do-me'
	same remote 'PATH=$PATH:; $RUN do-me'
	same remote 'PATH=$PATH:.; $RUN do-me'
	same remote 'cd tools; PATH=deep:$PATH; $RUN link'
}

programs_names() {
	same remote '$RUN ./do-call called'
	same remote '$RUN tools/../do-call called'
	same remote '$RUN "$PWD/do-call" called'
}

# By a compiler's wrapper, into what it makes.
script_as_compiler() {
	WRAPPER=concc-cc same remote '$RUN tools/cc -MD -c a.c -o t/a.o && cat t/a.d && cksum t/a.o'
	WRAPPER=concc-cc same remote 'cd tools; $RUN ./cc -MD -c ../a.c -o ../t/a.o && cat ../t/a.d && cksum ../t/a.o'
	WRAPPER=concc-cc same remote 'PATH=tools:$PATH; $RUN cc -MD -c a.c -o t/a.o && cat t/a.d && cksum t/a.o'
}

script_names_at_home() {
	local run
	for run in tools/me ./do-me tools/bare; do
		same disabled "export CONCC_DISABLE=1; \$RUN $run"
	done
	same disabled 'export CONCC_DISABLE=1; PATH=tools::$PATH; $RUN me; $RUN do-me'
	same disabled 'export CONCC_DISABLE=1; PATH=tools:$PATH; $RUN bare'
}

# ---- limits ----

# Each as it is, soft and hard, lowered, and with a soft one only.
limits_seen() {
	plain_programs
	local letter value
	for letter in t:5000 f:1000 d:3000000 s:16384 c:7 m:500000 n:100 l:32 v:4000000; do
		value=${letter#*:} letter=${letter%:*}
		same remote "ulimit -$letter $value; \$RUN sh -c 'ulimit -S -$letter; ulimit -H -$letter'"
		same remote "ulimit -S -$letter $value; \$RUN sh -c 'ulimit -S -$letter; ulimit -H -$letter'"
		same remote "ulimit -H -$letter $((2 * value)) && ulimit -S -$letter $value; \$RUN bash -c 'ulimit -S -$letter; ulimit -H -$letter'"
	done
	same remote '$RUN sh -c "for l in t f d s c m n v; do ulimit -S -\$l; ulimit -H -\$l; done"'
	same remote 'ulimit -s unlimited; $RUN sh -c "ulimit -s"'
}

limits_felt() {
	plain_programs
	same remote 'ulimit -f 10; $RUN sh -c "head -c 100000 /dev/zero >t/f; echo \$?; wc -c <t/f"'
	same remote 'ulimit -f 10; $RUN perl -e "open F, q(>t/f); syswrite F, q(x) x 20000; syswrite F, q(x)"'
	same remote "trap '' XFSZ; ulimit -f 10; \$RUN sh -c 'head -c 100000 /dev/zero >t/f; echo \$?; wc -c <t/f'"
	same remote 'ulimit -t 1; $RUN sh -c "while :; do :; done"'
	same remote 'ulimit -S -t 1; $RUN perl -e "\$SIG{XCPU} = sub { print qq(time\n); exit 3 }; 1 while 1"'
	same remote 'ulimit -v 100000; $RUN ./do-call memory 200'
	same remote 'ulimit -d 100000; $RUN ./do-call memory 200'
	same remote 'ulimit -n 20; $RUN ./do-call files 100'
	same remote 'ulimit -s 65536; $RUN ./do-call stack 50000'
	same remote 'ulimit -s unlimited; $RUN ./do-call stack 200000'
	same remote '$RUN ./do-call stack 20000'
	same remote 'ulimit -s 256; $RUN ./do-call stack 1000'
	same remote 'ulimit -s 256; $RUN sh -c "ulimit -s 100000"'
}

# The signal leaves a core file here, if any: where that is allowed, it is to be made here.
core_files() {
	plain_programs
	same remote '$RUN sh -c "kill -SEGV \$\$"'
	same core 'ulimit -c unlimited; $RUN sh -c "kill -ABRT \$\$"; rc=$?; rm -f core*; exit $rc'
	same remote 'ulimit -c unlimited; $RUN sh -c "ulimit -c; kill -KILL \$\$"'
	same remote 'ulimit -S -c 0; $RUN sh -c "ulimit -c; ulimit -c 1000; ulimit -c"'
}

# Not where this test has been put behind others: there is no more of it.
not_nice() {
	[ "$(nice)" -eq 0 ] || skip "this test is nice itself"
}

niceness() {
	not_nice
	same remote 'nice -n 7 $RUN nice'
	same remote 'nice -n 19 $RUN nice'
	same remote '$RUN nice'
	same remote 'nice -n 5 $RUN nice -n 3 nice'
	# Who is in more of a hurry gets what there is.
	expect_eq "a negative one" "$(nice -n -5 concc-dispatch nice)" 0
}

signals() {
	same remote '$RUN ./do-call signals'
	same remote "trap '' HUP; \$RUN ./do-call signals"
	same remote "trap '' INT QUIT PIPE CHLD TSTP XCPU XFSZ USR1 RTMIN+3 RTMAX; \$RUN ./do-call signals"
	same remote './do-call blocking 15 $RUN ./do-call signals'
	same remote './do-call blocking 64 $RUN ./do-call signals'
	same remote "trap '' TERM; \$RUN sh -c 'kill -TERM \$\$; echo alive'"
	same killed '$RUN sh -c "kill -TERM \$\$; echo alive"'
	same remote "trap '' PIPE; \$RUN sh -c 'kill -PIPE \$\$; echo alive'"
	same remote 'nohup $RUN ./do-call signals'
}

# A command leads neither group nor session, as in a script.
groups_and_sessions() {
	same remote '$RUN setsid echo "in a session of its own"'
	same remote '$RUN setsid sh -c "echo x; ls -R /usr/include >/dev/null; echo y >t/f"; cat t/f'
	same remote '$RUN perl -MPOSIX -e "print POSIX::setsid() > 0 ? 1 : 0, getpgrp() == \$\$ ? 1 : 0, qq(\n)"'
	same remote '$RUN perl -e "print getpgrp() == \$\$ ? 1 : 0; setpgrp(0, 0); print getpgrp() == \$\$ ? 1 : 0, qq(\n)"'
	same remote '$RUN setsid --wait sh -c "exit 7"'
}

# What the command leaves behind ends with it, or goes on here.
left_behind() {
	local at_end='kill $(cat t/pid) && echo "it was there"'
	same anywhere 'x=$($RUN sh -c "(ls -R /usr/lib/gcc >/dev/null; echo late >t/late; echo late) & echo first"); echo "$x"; cat t/late'
	same anywhere 'x=$($RUN sh -c "setsid sh -c \"ls -R /usr/lib/gcc >/dev/null; echo late\" & exit 3"); echo "$? $x"'
	same anywhere '$RUN bash -c "read a < <(echo a; ls -R /usr/include >/dev/null); echo \$a"'
	same no-way-home '$RUN sh -c "tail -f /dev/null >/dev/null 2>&1 & echo \$! >t/pid"; '"$at_end"
	same no-way-home '$RUN setsid sh -c "trap : HUP; tail -f /dev/null >/dev/null 2>&1 & echo \$! >t/pid; echo out"; '"$at_end"
	same no-way-home '$RUN perl -e "if (my \$p = fork) { open F, q(>t/pid); print F \$p; exit 3 } open STDOUT, q(>/dev/null); open STDERR, q(>/dev/null); exec qw(tail -f /dev/null)"; echo $?; '"$at_end"
	expect_eq "left on workers" "$(lab_worker_pids 1 tail)$(lab_worker_pids 2 tail)$(lab_worker_pids 1 perl)" ""
}

environment() {
	same remote 'f() { echo "a function of $1"; }; export -f f; $RUN bash -c "f bash"'
	same remote 'mkdir t/tmp; TMPDIR=$PWD/t/tmp $RUN mktemp >t/name; dirname "$(cat t/name)"; [ -f "$(cat t/name)" ]'
	same remote 'mkdir t/tmp; TMP=$PWD/t/tmp $RUN python3 -c "import tempfile; print(tempfile.gettempdir())"'
	same remote 'mkdir t/tmp; cd t/tmp; TMPDIR=$PWD/.. $RUN sh -c "mktemp -d | wc -l"; cd ..; ls | wc -l'
	same remote 'mkdir t/tmp; echo "int x;" >t/x.c; TMPDIR=$PWD/t/tmp $RUN gcc -c t/x.c -o t/x.o; ls t/tmp; cksum <t/x.o'
	same remote 'echo "int x;" >t/x.c; TMPDIR=$PWD/t/none $RUN gcc -c t/x.c -o t/x.o; cksum <t/x.o'
}

# As same(), of what is never the same again.  What a try says is held back for 200 ms, and a busy machine may take
# longer for all of it; so it is tried some times.  What was shown sooner fails at once.
once() { # WHERE TEXT
	local i rc there
	for i in 1 2 3 4 5; do
		rc=0
		(same "$@") || rc=$?
		[ "$rc" -ne 0 ] || return 0
		there=$(concc report --json | jq '.jobs | max_by(.arrived_us) | .sent_us - .slot_us') # until it began here
		expect_ge "microseconds after which it was shown" "$there" 200000
	done
	skip "five times a job of a few milliseconds took longer than 200"
}

# What a try printed that came to nothing is not shown.
only_once() {
	once outside-write 'x=$($RUN mktemp); [ -f "$x" ] && rm "$x"'
	once outside-write 'x=$($RUN sh -c "date +%N; mktemp"); wc -w <<<"$x"; rm "${x##*[[:space:]]}"'
	same remote 'mkdir t/tmp; TMPDIR=$PWD/t/tmp $RUN mktemp | sed "s/\.[^.]*\$//"; ls t/tmp | wc -l' # as that is told
	once no-way-home '$RUN sh -c "mktemp -u; ln t/../do-me t/link" | wc -l'
	once no-way-home '$RUN sh -c "mktemp -u; tail -f /dev/null >/dev/null 2>&1 & echo \$! >t/pid" | wc -l; kill $(cat t/pid)'
	once killed '$RUN sh -c "mktemp -u; kill \$\$" >t/out; wc -l <t/out'
	once missing 'echo x >/srv/home/note; $RUN sh -c "mktemp -u; cat /srv/home/note" | wc -l'
}

input_files() {
	same remote 'echo x >t/in; $RUN cp /dev/stdin t/out <t/in; stat -c "%a %s" t/out'
	same remote 'echo x >t/in; $RUN test -x /dev/stdin <t/in; echo $?'
	same remote 'echo x >t/in; chmod 600 t/in; $RUN cp /dev/stdin t/out <t/in; stat -c "%a %s" t/out'
	same remote 'seq 100000 >t/in; chmod 640 t/in; $RUN cp /dev/stdin t/out <t/in; stat -c "%a %s" t/out'
	same remote 'seq 100 >t/in; chmod 755 t/in; $RUN stat -Lc %a /dev/stdin <t/in'
	# Who opens it anew begins at its start, wherever the caller is in it.
	same descriptor 'seq 100 >t/in; { read -r a; $RUN stat -Lc %a /dev/stdin; } <t/in'
	same descriptor 'seq 100 >t/in; { read -r a; $RUN head -n 2 /dev/stdin; } <t/in'
}

# A larger one, or one that has been read from, is a pipe there: who reads on after the job must find
# what is left.
input_seeks() {
	same no-way-home 'seq 100000 >t/in; { $RUN head -n 1; wc -c; } <t/in'
	same no-way-home 'seq 100 >t/in; { read -r a; $RUN head -n 2; tail -n 1; } <t/in'
	same no-way-home 'seq 100 >t/in; { read -r a; $RUN sed 2q; cat; } <t/in'
	same no-way-home 'seq 100000 >t/in; $RUN perl -e "sysseek(STDIN, 5, 0) or print \$!; sysread STDIN, \$a, 5; print \$a" <t/in'
	same no-way-home 'seq 100000 >t/in; $RUN python3 -c "import os; print(os.pread(0, 5, 50000))" <t/in'
	same remote 'seq 100000 >t/in; $RUN wc -c <t/in'
	same remote 'seq 100000 >t/in; { $RUN sh -c "read x; echo \$x"; wc -c; } <t/in'
	same remote 'seq 100 >t/in; { read -r a; $RUN sort -r; } <t/in'
	same remote 'seq 100000 >t/in; cp t/in t/other; { read -r a; $RUN sh -c "head -n 1 <t/other"; wc -c; } <t/in'
	same remote 'seq 100000 | { $RUN head -n 1; }'
}

# At which nobody sits there.  A line is typed when the job can have been ended already, or not.
on_terminal() { # TEXT
	printf '%s\n' "$1" >t/text
	rm -f t/keys && mkfifo t/keys
	# It does not end: script(1) would wait then.
	exec 7<>t/keys
	printf 'typed\n\004' >&7
	timeout "$LAB_LIMIT" script -qec 'bash t/text' /dev/null <t/keys 2>&1 | tr -d '\r\b' |
		grep -v -e '^typed$' -e '^^D$'
	exec 7>&-
}

terminal_input() {
	local text n
	lab_need script
	rm -rf t && mkdir t
	while read -r where text; do
		export RUN=env
		on_terminal "$text" >"$LAB/want"
		for n in 1 2; do
			: >"$LAB/where"
			RUN=concc-dispatch CONCC_EXPLAIN=$LAB/where at_worker $n on_terminal "$text" >"$LAB/got"
			cat "$LAB/where"
			diff -u "$LAB/want" "$LAB/got" || fail "w$n: another result of: $text"
			expect_grep "^concc: $where" "$LAB/where"
		done
	done <<-'END'
		local:.no-way-home.*terminal $RUN sed 's/^/read: /'
		local:.no-way-home.*terminal $RUN sh -c 'read x; echo "got $x"'
		local:.no-way-home.*terminal $RUN python3 -c 'print("got", input())'
		local:.no-way-home.*terminal $RUN perl -e '$r = "\1"; select($r, undef, undef, 9); print "got ", scalar <STDIN>'
		local:.no-way-home.*terminal $RUN python3 -c 'import select; p = select.poll(); p.register(0, select.POLLIN); p.poll(); print("got", input())'
		local:.no-way-home.*terminal $RUN python3 -c 'import select; p = select.epoll(); p.register(0, select.EPOLLIN); p.poll(); print("got", input())'
		remote.on $RUN sh -c 'test -t 0 && echo terminal; echo x | cat; cat </dev/null; stty size'
		local:.special-file.*/dev/tty $RUN sh -c 'echo shown >/dev/tty'
		local:.special-file.*/dev/tty $RUN sh -c 'echo shown >/dev/tty' </dev/null >t/out 2>&1
		local:.special-file.*/dev/tty $RUN sh -c 'read x </dev/tty; echo "got $x"' </dev/null
		local:.special-file.*/dev/tty $RUN stty -F /dev/tty size
		local:.special-file.*/dev/tty $RUN python3 -c 'open("/dev/tty", "w").write("shown\\n")' </dev/null >t/out
		remote.on $RUN bash -c 'echo printed; test -w /dev/tty && echo there'
	END
}

personalities() {
	same remote 'setarch -R $RUN cat /proc/self/personality'
	same remote '$RUN cat /proc/self/personality'
	same remote 'linux32 $RUN uname -m'
	same remote 'setarch -R $RUN sh -c "grep stack /proc/self/maps | cut -d- -f2 | cut -d\  -f1"'
}

umasks() {
	same remote 'umask 027; $RUN sh -c "umask; touch t/f; mkdir t/d"; stat -c "%a %n" t/f t/d'
	same remote 'umask 0; $RUN sh -c "umask; touch t/f; mkdir t/d"; stat -c "%a %n" t/f t/d'
}

# ---- workers that have less ----

# The same host, by a login with limits of its own.
add_worker() { # NAME SHELL-TEXT
	printf '#!/bin/sh\n%s\nexec /mnt/bin/concc-worker "$@"\n' "$2" >"$LAB/w1/bin/$1"
	chmod +x "$LAB/w1/bin/$1"
	printf '\n[worker %s]\naddress = ssh://w1\nroot = worker\nprogram = /mnt/bin/%s\nslots = 1\n' "$1" "$1" \
		>>/srv/concc.ini
}

only_on() { # WORKER CMD...
	local token
	token=$(concc-worker-pool allocate --only w1 --owner $$) || fail "w1 has no slot"
	at_other_than_w1 "$token" "$@"
}

less_there() {
	no_workers
	add_worker low 'ulimit -s 4096; ulimit -n 512'
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'ulimit -s' >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "the limit" "$(cat "$LAB/out")" "$(ulimit -s)"
	expect_grep 'worker low refused the job: the hard limit of its login for stack \(ulimit -s\) is 4194304' "$LAB/err"
	# It is not asked again.
	before=$(lab_status '.workers[0].messages_out.JOB')
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'ulimit -s' 2>"$LAB/err" || fail "it failed"
	expect_grep 'retry|refused|^concc: local: gave-up' "$LAB/err"
	expect_eq "jobs sent" "$(lab_status '.workers[0].messages_out.JOB')" "$before"
	# Who wants no more gets it.
	(ulimit -s 4096 && ulimit -n 256 && CONCC_EXPLAIN=1 concc-dispatch sh -c 'ulimit -s; ulimit -n; ulimit -Hn') \
		>"$LAB/out" 2>"$LAB/err"
	expect_grep '^concc: remote on low' "$LAB/err"
	expect_eq "limits there" "$(tr '\n' ' ' <"$LAB/out")" "4096 256 256 "
	(ulimit -s 4096 && ulimit -n 600 && CONCC_EXPLAIN=1 concc-dispatch sh -c 'ulimit -n') >"$LAB/out" 2>"$LAB/err"
	expect_grep 'refused the job: the hard limit of its login for open files \(ulimit -n\) is 512' "$LAB/err"
	expect_eq "the limit" "$(cat "$LAB/out")" 600
}

# Soft limits of the login are nothing to jobs, and hard ones of files only when they are met.
soft_there() {
	plain_programs
	no_workers
	add_worker soft 'ulimit -S -t 60; ulimit -S -f 5; ulimit -S -d 100000; ulimit -S -s 1000; ulimit -S -n 500; ulimit -H -n 4096; umask 077; trap "" INT XFSZ'
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'for l in t f d s; do ulimit -$l; done; head -c 100000 /dev/zero >big
		./do-call signals; umask' >"$LAB/out" 2>"$LAB/err" || { cat "$LAB/out" "$LAB/err"; fail "it failed"; }
	expect_grep '^concc: remote on soft' "$LAB/err"
	expect_eq "size" "$(stat -c %s big)" 100000
	sh -c 'for l in t f d s; do ulimit -$l; done; ./do-call signals; umask' >"$LAB/want"
	expect_same_file "$LAB/want" "$LAB/out"
	# Programs that raise theirs to what there is, and need it.
	(ulimit -S -n 100 && ulimit -H -n 8000 && CONCC_EXPLAIN=1 concc-dispatch bash -c 'ulimit -S -n hard; n=$(./do-call files 5000); echo $n
		[ $n -eq 5000 ] || { echo "Too many open files" >&2; exit 1; }') >"$LAB/out" 2>"$LAB/err" || { cat "$LAB/out" "$LAB/err"; fail "it failed"; }
	expect_grep '^concc: local: limit .*more open files' "$LAB/err"
	expect_eq "files, here" "$(tail -n 1 "$LAB/out")" 5000
}

# ---- the server's own life ----

limit_of() { # PID NAME: soft and hard
	sed -n "s/^$2 *\([^ ]*\) *\([^ ]*\) .*/\1 \2/p" "/proc/$1/limits"
}

started_with() { # SHELL-TEXT
	lab_stop_server
	bash -c "$1; concc-dispatch true" || fail "the first call failed"
	server=$(lab_server_pid)
}

# Hard limits stay, unless root may raise them; soft ones are as wide as those.
server_sheds() {
	plain_programs
	local name server
	started_with "ulimit -S -t 100; ulimit -S -f 2000; ulimit -S -v 2000000; ulimit -S -d 1000000; ulimit -S -s 1000
		ulimit -S -n 200; trap '' INT QUIT TERM CHLD HUP USR1; umask 077; ulimit -S -u 500"
	for name in 'Max cpu time' 'Max file size' 'Max data size' 'Max address space'; do
		expect_eq "$name of the server" "$(limit_of "$server" "$name")" 'unlimited unlimited'
	done
	for name in 'Max processes' 'Max open files'; do
		expect_eq "$name of the server" "$(limit_of "$server" "$name" | cut -d' ' -f1)" \
			"$(limit_of "$server" "$name" | cut -d' ' -f2)"
	done
	expect_eq "its stack" "$(limit_of "$server" 'Max stack size')" '8388608 unlimited'
	expect_eq "ignored signals" "$(sed -n 's/^SigIgn:\t//p' "/proc/$server/status")" \
		"$(printf '%016x' $((1 << 24)))" # SIGXFSZ
	expect_eq "umask" "$(sed -n 's/^Umask:\t//p' "/proc/$server/status")" 0022
	started_with 'exec linux32 concc-dispatch true'
	expect_eq "personality" "$(cat "/proc/$server/personality")" 00000000
	started_with 'exec chrt -i 0 concc-dispatch true'
	expect_eq "scheduling" "$(chrt -p "$server" | head -n 1 | sed 's/.*: //')" SCHED_OTHER
	lab_all_up
	same remote '$RUN sh -c "ulimit -s; ulimit -t; ulimit -Hn"'
}

server_is_not_nice() {
	local server
	not_nice
	started_with 'exec nice -n 9 concc-dispatch true'
	expect_eq "niceness" "$(cut -d' ' -f19 "/proc/$server/stat")" 0
}

nicer_server_gives_way() {
	not_nice
	server_gives_way 'nice -n 5'
	expect_eq "niceness" "$(weak 'concc-dispatch nice')" 0
}

# Who may not raise a limit, nor become less nice; with a worker that the server starts here.
weak() { # SHELL-TEXT
	setpriv --bounding-set=-sys_resource,-sys_nice --inh-caps=-sys_resource,-sys_nice bash -c "$1"
}

local_worker() {
	no_workers
	printf '[worker here]\naddress = local:\nroot = worker\nslots = 4\n' >>/srv/concc.ini
}

# Servers, without what one of them is about to start, which has its name until then.
servers() {
	local pid parent
	for pid in $(lab_server_pid); do
		parent=$(lab_parent "$pid")
		# Nor one that has ended, and that nobody has asked for yet.
		[ -n "$(tr -d '\0' <"/proc/$pid/cmdline")" ] &&
			[ "$(cat "/proc/$parent/comm")" != concc-project ] && echo "$pid"
	done 2>/dev/null || true
}

first_call() { # LIMIT: a shell command, or one to run others with
	case $1 in
	ulimit*) weak "$1; CONCC_EXPLAIN=1 concc-dispatch true" ;;
	*) weak "CONCC_EXPLAIN=1 $1 concc-dispatch true" ;;
	esac
}

# A call with lower limits starts the server; later ones have theirs all the same, and say nothing.
server_gives_way() { # LIMIT...
	plain_programs
	local limit first
	local_worker
	for limit; do
		lab_stop_server
		first_call "$limit" 2>"$LAB/err" || fail "$limit: the first call failed"
		cat "$LAB/err"
		expect_grep '^concc: remote on here' "$LAB/err"
		first=$(servers)
		rm -f big
		weak 'concc-dispatch sh -c "head -c 8000000 /dev/urandom >big; ulimit -s; ulimit -t; ulimit -f; ulimit -v; ulimit -n"' \
			>"$LAB/out" 2>"$LAB/err" || { cat "$LAB/err"; fail "$limit: a later call failed"; }
		expect_eq "words after $limit" "$(cat "$LAB/err")" ''
		weak 'sh -c "ulimit -s; ulimit -t; ulimit -f; ulimit -v; ulimit -n"' >"$LAB/want"
		expect_same_file "$LAB/want" "$LAB/out"
		expect_eq "size after $limit" "$(stat -c %s big)" 8000000
		expect_gone "the first server after $limit" "$first"
		first=$(servers)
		expect_ne "another server after $limit" "$first" ''
		# And that one stays, whoever comes.
		first_call "$limit" 2>"$LAB/err"
		expect_grep '^concc: remote on here' "$LAB/err"
		weak 'CONCC_EXPLAIN=1 concc-dispatch true' 2>"$LAB/err"
		expect_grep '^concc: remote on here' "$LAB/err"
		expect_eq "the server after $limit" "$(servers)" "$first"
	done
}

# A whole build comes at once: all of it by one other server.
gives_way_to_many() {
	local i pids=()
	local_worker
	weak 'ulimit -f 2000; concc-dispatch true'
	for i in {1..40}; do
		weak 'exec concc-dispatch sh -c "ulimit -f"' >"$LAB/many.$i" 2>"$LAB/many.$i.err" &
		pids[i]=$!
	done
	for i in {1..40}; do
		wait "${pids[i]}" || fail "call $i failed: $(cat "$LAB/many.$i.err")"
		expect_eq "the limit of call $i" "$(cat "$LAB/many.$i")" unlimited
	done
	cat "$LAB"/many.*.err >"$LAB/err"
	expect_eq "words" "$(cat "$LAB/err")" ''
	expect_eq "servers" "$(servers | wc -l)" 1
	expect_eq "jobs in it" "$(lab_status '.workers[0].jobs')" 40
}

# What runs in the old one ends there.
running_jobs_end() {
	local first line
	local_worker
	rm -f half hold.fifo
	mkfifo hold.fifo
	cp "$LAB_TOOLS/hold" holdbin
	touch hold
	printf '#!/bin/sh\nif [ -e hold ]; then exec 3>half; echo held; exec ./holdbin 3; fi\necho again\n' >slow
	chmod +x slow
	weak 'ulimit -f 2000; CONCC_EXPLAIN=1 exec concc-dispatch sh -c "echo held; cat; echo done >t.done"' \
		<hold.fifo >"$LAB/slow.out" 2>"$LAB/slow.err" &
	slow=$!
	exec 7>hold.fifo
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$CONCC_RUNTIME_DIR" project.sock || fail "no server"
	weak 'ulimit -f 2000; concc-dispatch true'
	first=$(servers)
	weak 'CONCC_EXPLAIN=1 concc-dispatch true' 2>"$LAB/err"
	expect_grep '^concc: remote on here' "$LAB/err"
	expect_eq "servers" "$(servers | wc -l)" 2
	echo bye >&7
	exec 7>&-
	wait "$slow" || fail "the job in the old server failed"
	cat "$LAB/slow.err"
	expect_eq "its words" "$(tr '\n' ' ' <"$LAB/slow.out")" 'held bye '
	expect_eq "its file" "$(cat t.done)" 'done'
	expect_grep '^concc: remote on here' "$LAB/slow.err"
	expect_gone "the old server" "$first"
	expect_eq "servers" "$(servers | wc -l)" 1
	weak 'CONCC_EXPLAIN=1 concc-dispatch true' 2>"$LAB/err"
	expect_grep '^concc: remote on here' "$LAB/err"
}

# Two callers of whom neither has all that the other has: both have theirs, and one server does.
no_ping_pong() {
	local i first
	local_worker
	weak 'ulimit -f 2000; concc-dispatch true'
	first=$(servers)
	for i in 1 2 3; do
		rm -f big
		weak 'ulimit -t 1000; concc-dispatch sh -c "head -c 8000000 /dev/zero >big; ulimit -t; ulimit -f"' \
			>"$LAB/out" 2>"$LAB/err" || { cat "$LAB/err"; fail "a call failed"; }
		expect_eq "its limits" "$(tr '\n' ' ' <"$LAB/out")" '1000 unlimited '
		expect_eq "its file" "$(stat -c %s big)" 8000000
		weak 'ulimit -f 2000; concc-dispatch sh -c "ulimit -t; ulimit -f"' >"$LAB/out"
		expect_eq "the other's limits" "$(tr '\n' ' ' <"$LAB/out")" 'unlimited 4000 '
	done
	expect_eq "the server" "$(servers)" "$first"
	# What the server may not write is written by the job, here.
	weak 'ulimit -t 1000; CONCC_EXPLAIN=1 concc-dispatch true' 2>"$LAB/err"
	cat "$LAB/err"
	our_workers
	lab_stop_server
	weak 'ulimit -f 2000; concc-dispatch true'
	rm -f big
	weak 'ulimit -t 1000; CONCC_EXPLAIN=1 concc-dispatch sh -c "head -c 8000000 /dev/zero >big"' 2>"$LAB/err" ||
		fail "a large file failed"
	expect_grep '^concc: local: write-back .*File too large' "$LAB/err"
	expect_eq "its file" "$(stat -c %s big)" 8000000
}

# ---- other namespaces ----

other_view() { # WHAT CMD...: what it writes is where the caller sees it
	local what=$1
	shift
	rm -rf there && mkdir there
	(export CONCC_EXPLAIN=1; "$@") >"$LAB/out" 2>"$LAB/err" || { cat "$LAB/err"; fail "$what: it failed"; }
	cat "$LAB/err" "$LAB/out"
	expect_grep '^concc: local: namespace ' "$LAB/err"
	expect_no_grep '^concc: .*(lost|starting|trying)' "$LAB/err"
	CONCC_EXPLAIN=1 concc-dispatch true 2>"$LAB/err"
	expect_grep '^concc: remote on ' "$LAB/err"
}

# shellcheck disable=SC2016
namespaces() {
	concc-dispatch true
	other_view "a mount" unshare -m sh -c 'mount -t tmpfs x there && concc-dispatch sh -c "echo x >there/f" && cat there/f'
	expect_no_file there/f
	other_view "the same mounts" unshare -m concc-dispatch true
	other_view "an id" unshare -Ur concc-dispatch true
	other_view "a host name" unshare -u sh -c 'hostname elsewhere && concc-dispatch uname -n'
	expect_eq "the host name" "$(cat "$LAB/out")" elsewhere
	other_view "pids" unshare -pf --mount-proc concc-dispatch true
	other_view "a mount in the compiler's way" unshare -m sh -c 'mount --bind inc /usr/include && concc-cc gcc -E -include n.h -xc /dev/null -o there/e && grep -c N there/e || true'
}

# What newgrp(1) and sg(1) change: whose the outputs are.
other_group() {
	local f cmd
	concc-dispatch true
	for f in group plain; do
		mkdir -p there
		cmd=(concc-dispatch)
		[ $f = group ] || cmd=()
		CONCC_EXPLAIN=1 setpriv --regid 2 --keep-groups "${cmd[@]}" sh -c "id -g; echo x >there/$f" \
			>"$LAB/$f" 2>"$LAB/err"
		[ $f = plain ] || expect_grep '^concc: local: group .*`concc stop`' "$LAB/err"
	done
	expect_same_file "$LAB/group" "$LAB/plain"
	expect_eq "the output's group" "$(stat -c %g there/group)" "$(stat -c %g there/plain)"
	printf 'int f;\n' >there/a.c
	CONCC_EXPLAIN=1 setpriv --regid 2 --keep-groups concc-cc gcc -c there/a.c -o there/a.o 2>"$LAB/err"
	expect_grep '^concc: local: group ' "$LAB/err"
	expect_eq "an object's group" "$(stat -c %g there/a.o)" 2
	# Those of its rights alone.
	CONCC_EXPLAIN=1 setpriv --groups 5,6 concc-dispatch id -G >"$LAB/group" 2>"$LAB/err"
	expect_eq "its groups" "$(cat "$LAB/group")" "$(setpriv --groups 5,6 id -G)"
	expect_grep '^concc: local: group ' "$LAB/err"
}

# Nobody waits for a slot of a server that would only send it home.
nobody_waits() {
	local tokens='' n token
	for n in 1 2; do
		token=$(concc-worker-pool allocate --only w$n --owner $$)
		tokens="$tokens ${token##* }"
	done
	CONCC_EXPLAIN=1 timeout "$LAB_LIMIT" unshare -m concc-dispatch true 2>"$LAB/err" || fail "it waits"
	cat "$LAB/err"
	for token in $tokens; do
		concc-worker-pool release "$token"
	done
	expect_grep '^concc: local: namespace \(it runs in another mount namespace' "$LAB/err"
}

roots() {
	mkdir -p /srv/other
	mount --rbind / /srv/other
	concc-dispatch true
	other_view "another root" chroot /srv/other sh -c "cd $WS && concc-dispatch sh -c 'echo x >there/f'"
	expect_file there/f
	umount -R -l /srv/other
	rmdir /srv/other
}

# ---- calls ----

calls_for_root() {
	lab_all_up
	same remote 'touch t/f; $RUN ./do-call chown t/f 0 0; stat -c %u:%g t/f'
	same remote 'touch t/f; $RUN ./do-call fchown t/f -1 -1; stat -c %u:%g t/f'
	same remote 'touch t/f; $RUN chown root:root t/f; stat -c %u:%g t/f'
	same remote '$RUN sh -c "touch t/a; cp -p t/a t/b; cp -a t/a t/c; install -m 600 t/a t/d"; ls t'
	same remote '$RUN ./do-call mknod t/p p 0 0; stat -c %F t/p'
	same remote '$RUN ./do-call mknod t/r f 0 0; stat -c %F t/r'
	same remote 'touch t/f; chmod 644 t/f; $RUN ./do-call acl t/f'
	same no-way-home 'touch t/f; $RUN ./do-call chown t/f 1000 -1; stat -c %u:%g t/f'
	same no-way-home 'touch t/f; $RUN ./do-call chown t/f -1 1000; stat -c %u:%g t/f'
	same no-way-home 'ln -s x t/f; $RUN ./do-call lchown t/f 5 6; stat -c %u:%g t/f'
	same no-way-home 'touch t/f; $RUN ./do-call fchown t/f 5 6; stat -c %u:%g t/f'
	same no-way-home 'touch t/f; $RUN ./do-call chownat t/f 5 6; stat -c %u:%g t/f'
	same no-way-home 'touch t/f; $RUN sh -c "chown 1000 t/f || true; echo so; chown :7 t/f"; stat -c %u:%g t/f'
	same no-way-home '$RUN ./do-call mknod t/n c 1 3; stat -c "%F %t %T" t/n'
	same no-way-home '$RUN mknod t/n b 7 9; stat -c "%F %t %T" t/n'
	same no-way-home '$RUN ./do-call mknod t/n c 0 0; stat -c "%F %t %T" t/n'
	same no-way-home 'touch t/f; $RUN ./do-call setxattr t/f user.x y; perl -e "exit(0)"'
	same no-way-home 'touch t/f; $RUN ./do-call setxattr t/f trusted.x y'
	same no-way-home 'touch t/f; $RUN ./do-call chattr t/f; lsattr t/f | cut -c1-22'
	same remote '$RUN fallocate -l 10000 t/f; fallocate -p -o 0 -l 4096 t/f; stat -c %s t/f'
	same no-way-home 'echo x >t/f; $RUN fallocate -z -o 0 -l 4096 t/f; stat -c %s t/f; cksum t/f'
	same no-way-home 'head -c 9000 /dev/urandom >t/f; $RUN fallocate -c -o 0 -l 4096 t/f; echo $?; stat -c %s t/f'
	same no-way-home 'echo x >t/f; $RUN fallocate -i -o 0 -l 4096 t/f; echo $?; stat -c %s t/f'
	same no-way-home '$RUN ./do-call setuid 1000'
	same no-way-home '$RUN ./do-call setgroups'
	same no-way-home '$RUN setpriv --reuid 1000 --clear-groups id -u'
	same no-way-home '$RUN ./do-call unshare 0x04000000'
	same no-way-home '$RUN unshare -m true'
	same no-way-home '$RUN ./do-call priority -3'
	same no-way-home 'nice -n 19 $RUN ./do-call priority 3'
	same no-way-home '$RUN sh -c "./do-call mount t && umount t"'
	same no-way-home '$RUN ./do-call listener'
	same remote '$RUN ./do-call bare mknod t/n c 1 3'
	same remote '$RUN ./do-call bare mount t'
	same remote '$RUN ./do-call bare unshare 0x04000000'
	same no-way-home 'touch t/f; $RUN ./do-call bare chown t/f 1 1'
	same remote '$RUN ./do-call old-call'
	[ "$(uname -m)" != x86_64 ] || same no-way-home '$RUN ./do-call old-socket 1'
	same no-way-home '$RUN unshare -U true'
	same no-way-home '$RUN ./do-call io-setup 8'
	same remote '$RUN ./do-call setuid 0'
	same remote '$RUN ./do-call priority 19'
	same remote '$RUN nice -n 3 true'
	same remote '$RUN ./do-call unshare 0'
}

# A workspace in a job is two layers, and not all names of the one below can be had anew.
calls_for_names() {
	same no-way-home 'echo x >t/f; $RUN ln t/f t/g; test t/f -ef t/g && echo same'
	same no-way-home 'echo x >t/f; $RUN sh -c "echo made; ln t/f t/g; test t/f -ef t/g && echo same; stat -c %h t/g"'
	same no-way-home 'echo x >t/f; $RUN sh -c "mv t/f t/h; echo y >>t/h; ln t/h t/g; test t/h -ef t/g && cat t/g"'
	same no-way-home 'mkdir t/d; echo x >t/d/x; $RUN mv t/d t/e; ls t/e'
	same no-way-home 'mkdir t/d; $RUN perl -e "rename(qw(t/d t/e)) or print \$!, exit 1"; ls t'
	same no-way-home 'mkdir t/d; $RUN perl -e "chdir qw(t/d); mkdir qw(n); rename(qw(../d ../e)) or print \$!, exit 1"; ls -R t'
	same no-way-home 'mkdir t/d; $RUN sh -c "mkdir t/o; touch t/o/x; ./do-call exchange t/o t/d"; ls -R t'
	same no-way-home 'mkdir t/d; $RUN sh -c "mkdir t/o; touch t/o/x; ./do-call exchange t/d t/o"; ls -R t'
	same remote '$RUN sh -c "mkdir t/d t/o; touch t/d/x; ./do-call exchange t/o t/d"; ls -R t'
	same remote '$RUN sh -c "echo x >t/f; ln t/f t/g; test t/f -ef t/g && echo same; mv t/f t/h; mkdir t/d; mv t/d t/e"; ls t'
	same remote 'echo x >t/f; $RUN sh -c "mv t/f t/g; echo y >t/n; mv t/n t/g; cat t/g; ln t/none t/x || ln t t/x"; ls t'
	same remote 'mkdir t/d; echo x >t/d/x; $RUN sh -c "rm -r t/d; mkdir t/d; mv t/d t/e; mkdir t/d/none || ls -R t"'
	same remote '$RUN sh -c "x=\$(mktemp -d); echo x >\$x/f; ln \$x/f \$x/g; mv \$x/f t; mv \$x t/d; ls -R t"'
}

# Who waits for a change of what the client has is not told there, whatever changes here.
calls_that_wait() {
	export WAIT="$LAB_TOOLS/wait-file $LAB_LIMIT"
	lab_all_up
	same no-way-home 'mkdir t/d; $WAIT t ready touch t/d/new & $RUN ./do-call watch t/d t/ready; wait'
	same no-way-home 'touch t/f; $WAIT t ready sh -c "echo x >>t/f" & $RUN ./do-call watch t/f t/ready; wait'
	same no-way-home 'touch t/f; ln -s f t/l; $WAIT t ready sh -c "echo x >>t/f" & $RUN ./do-call watch t/l t/ready; wait'
	same no-way-home '$WAIT t ready sh -c "touch ../new; rm ../new" & $RUN ./do-call watch .. t/ready; wait'
	same no-way-home 'echo 1 >t/f; $RUN sh -c "echo 2 >>t/f; ./do-call watch t t/f.ready"; cat t/f'
	same remote '$RUN sh -c "mkdir t/d; ./do-call watch t/d t/d/ready"'
	same remote '$RUN sh -c "mkdir t/d; echo 1 >t/d/f; ./wait-file 60 t/d ready sh -c \"echo 2 >>t/d/f\" & ./do-call watch t/d/f t/d/ready; wait"'
	same remote '$RUN sh -c "d=\$(mktemp -d); ./do-call watch \$d \$d/ready; rm -r \$d"'
	same remote '$RUN ./do-call watch t/nothing t/ready'
}

# Somebody who listens, for one caller, and tells where; and who calls.
make_network_scripts() {
	cat >serve <<-'EOF'
		#!/usr/bin/perl
		use IO::Socket::INET; use IO::Socket::UNIX;
		my $name = "concc-test-$$";
		my $s = $ARGV[0] eq "unix" ? IO::Socket::UNIX->new(Local => "\0$name", Listen => 5)
			: IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 5);
		syswrite STDOUT, $ARGV[0] eq "unix" ? $name : "127.0.0.1:" . $s->sockport;
		exit if fork;
		close STDOUT;
		alarm 20;
		my $c = $s->accept;
		print $c "heard\n";
	EOF
	cat >ask <<-'EOF'
		#!/usr/bin/perl
		use IO::Socket::INET; use IO::Socket::UNIX;
		my $s = $ARGV[0] eq "unix" ? IO::Socket::UNIX->new(Peer => "\0$ARGV[1]")
			: IO::Socket::INET->new(PeerAddr => $ARGV[1], Proto => $ARGV[0]);
		print !$s ? "nobody\n" : $ARGV[0] eq "udp" ? $s->sockhost . "\n" : <$s>;
	EOF
	cat >say <<-'EOF'
		#!/usr/bin/perl
		use Socket;
		socket S, AF_INET, SOCK_DGRAM, 0;
		print send(S, "x", 0, sockaddr_in(9, inet_aton($ARGV[0]))) ? "sent\n" : "$!\n";
	EOF
	chmod +x serve ask say
}

# A job has a network that ends with it: what it finds there is its own.
calls_to_others() {
	make_network_scripts
	same no-way-home 'a=$(./serve tcp); $RUN ./ask tcp $a'
	same no-way-home 'a=$(./serve tcp); $RUN sh -c "./ask tcp $a >t/answer"; cat t/answer'
	same no-way-home 'a=$(./serve unix); $RUN ./ask unix $a'
	same no-way-home '$RUN ./ask tcp 127.0.0.1:1'
	same no-way-home '$RUN ./ask udp 10.77.1.2:9'
	same no-way-home '$RUN ./say 10.77.1.2'
	same remote '$RUN sh -c "a=\$(./serve tcp); ./ask tcp \$a; a=\$(./serve unix); ./ask unix \$a"'
	same remote '$RUN sh -c "./ask udp 127.0.0.1:0; id; ls -l t"'
}

# What they say, and what is counted.
calls_are_told() {
	touch f
	concc-dispatch chown 1000 f 2>"$LAB/err"
	expect_eq "words" "$(cat "$LAB/err")" ''
	expect_eq "owner" "$(stat -c %u f)" 1000
	CONCC_EXPLAIN=1 concc-dispatch chown 1001 f 2>"$LAB/err"
	expect_grep '^concc: local: no-way-home \(on worker w[12] it gives a file to another user or group\)' "$LAB/err"
	expect_ge "counted" "$(lab_status '.reasons["no-way-home"]')" 2
	rm f
}

# Fails here for such a user, with the same words; what succeeds here does there, or is done here.
calls_for_others() {
	mkdir -p "$WS/t" /srv/home2/.ssh
	cp -r /srv/home/.ssh/. /srv/home2/.ssh/
	sed -i 's|/srv/home/|/srv/home2/|' /srv/home2/.ssh/config
	echo 'other:x:1717:1717::/srv/home2:/bin/sh' >>"$LAB/etc/passwd"
	chown -R 1717:1717 /srv/home2 "$WS"
	mkdir -p /srv/other && chown 1717 /srv/other
	# shellcheck disable=SC2016
	for what in lab_all_up 'same remote "touch t/f; \$RUN ./do-call chown t/f 1717 1717; stat -c %u:%g t/f"' \
		'same no-way-home "touch t/f; \$RUN ./do-call chown t/f 0 -1; stat -c %u:%g t/f"' \
		'same no-way-home "touch t/f; \$RUN chown root t/f; stat -c %u:%g t/f"' \
		'same no-way-home "touch t/f; \$RUN chgrp 20 t/f; stat -c %u:%g t/f"' \
		'same no-way-home "touch t/f; \$RUN chgrp 27 t/f; stat -c %u:%g t/f"' \
		'same no-way-home "mkdir -p -m 0 t/q; \$RUN rmdir t/q; ls t"' \
		'same no-way-home "mkdir -p -m 0 t/q; \$RUN rm -rf t/q; ls t"' \
		'same no-way-home "mkdir -p t/a/q; chmod 0 t/a/q; \$RUN rm -rf t/a; ls t"' \
		'same no-way-home "mkdir -p -m 0 t/q; \$RUN mv -T t/q t/p; ls t; rmdir t/p"' \
		'same anywhere "mkdir -p -m 0 t/q; \$RUN ls -ld t/q | cut -c1-10; rmdir t/q"' \
		'same anywhere "mkdir -p -m 0 t/q; \$RUN cat t/q/x; rmdir t/q"' \
		'same anywhere "mkdir -p -m 0 t/q; \$RUN ls t/q; rmdir t/q"' \
		'same remote "\$RUN ./do-call mount t"' \
		'same remote "\$RUN ./do-call unshare 0x04000000"' \
		'same no-way-home "\$RUN unshare -U true"' \
		'same remote "\$RUN ./do-call setgroups"' \
		'same remote "\$RUN ./do-call mknod t/n c 1 3"' \
		'same remote "ulimit -S -s unlimited; nice -n 3 \$RUN sh -c \"ulimit -s; nice\""'; do
		export -f same said fail at_worker expect_eq expect_grep lab_all_up
		HOME=/srv/home2 CONCC_RUNTIME_DIR=/srv/other/run CONCC_CACHE_DIR=/srv/other/cache LAB=/srv/other LAB_N=2 LAB_LIMIT=$LAB_LIMIT \
			setpriv --reuid 1717 --regid 1717 --groups 20 bash -eu -c "$what"
	done
	HOME=/srv/home2 CONCC_RUNTIME_DIR=/srv/other/run setpriv --reuid 1717 --regid 1717 --clear-groups concc stop
	chown -R 0:0 "$WS"
	rm -r /srv/other /srv/home2
}

# What the user may not read: a directory whose names can't be had, though what is in it can; a file.
unreadable() {
	local what in='mkdir t/d; echo a >t/d/f; mkdir t/d/e; echo b >t/d/e/f' out='s=$?; chmod -R u+rwx t; find t; cat t/d/f; exit $s'
	mkdir -p /srv/home2/.ssh /srv/other
	cp -r /srv/home/.ssh/. /srv/home2/.ssh/
	sed -i 's|/srv/home/|/srv/home2/|' /srv/home2/.ssh/config
	echo 'other:x:1717:1717::/srv/home2:/bin/sh' >>"$LAB/etc/passwd"
	chown -R 1717:1717 /srv/home2 /srv/other "$WS"
	for what in lab_all_up \
		'same no-way-home "$IN; chmod 311 t/d; \$RUN cat t/d/f; $OUT"' \
		'same no-way-home "$IN; chmod 111 t/d; \$RUN cat t/d/e/f; $OUT"' \
		'same no-way-home "$IN; chmod 311 t/d; \$RUN test -e t/d/none; $OUT"' \
		'same no-way-home "$IN; chmod 300 t/d; \$RUN touch t/d/new; $OUT"' \
		'same no-way-home "$IN; chmod 311 t/d; \$RUN ls t/d; $OUT"' \
		'same no-way-home "$IN; chmod 300 t/d; \$RUN rm t/d/e/f; $OUT"' \
		'same remote "$IN; chmod 0 t/d/f; \$RUN cat t/d/f; $OUT"' \
		'same no-way-home "$IN; chmod 200 t/d/f; \$RUN sh -c \"echo b >>t/d/f\"; $OUT"' \
		'same anywhere "$IN; chmod 0 t/d; \$RUN cat t/d/f; $OUT"' \
		'same remote "$IN; chmod 400 t/d; \$RUN cat t/d/f; $OUT"'; do
		export -f same said fail at_worker expect_eq expect_grep lab_all_up
		IN=$in OUT=$out HOME=/srv/home2 CONCC_RUNTIME_DIR=/srv/other/run CONCC_CACHE_DIR=/srv/other/cache LAB=/srv/other LAB_N=2 LAB_LIMIT=$LAB_LIMIT \
			setpriv --reuid 1717 --regid 1717 --clear-groups bash -eu -c "$what"
	done
	HOME=/srv/home2 CONCC_RUNTIME_DIR=/srv/other/run setpriv --reuid 1717 --regid 1717 --clear-groups concc stop
	chown -R 0:0 "$WS"
	rm -r /srv/other /srv/home2
}

make_scripts
lab_all_up
check "a script sees the name it was called by" script_names
check "a script found in PATH sees what execvp(3) passes" script_names_by_path
check "programs see how they are executed" programs_names
check "a compiler's wrapper by a relative path" script_as_compiler
check "scripts that run here see the same" script_names_at_home
check "limits are seen" limits_seen
check "limits are felt" limits_felt
check "core files" core_files
check "niceness" niceness
check "signals" signals
check "groups and sessions" groups_and_sessions
check "what is left behind" left_behind
check "environment" environment
check "nothing is shown twice" only_once
check "input files" input_files
check "who seeks in its input" input_seeks
check "who reads from a terminal" terminal_input
check "personality" personalities
check "umask" umasks
check "a worker with lower limits refuses" less_there
our_workers
check "soft limits of a worker's login" soft_there
our_workers
check "the server sheds its caller's" server_sheds
check "the server is not nice for its caller" server_is_not_nice
check "the server gives way to one with higher limits" server_gives_way 'ulimit -f 2000' 'ulimit -t 5' 'ulimit -v 4000000' \
	'ulimit -d 2000000' 'ulimit -s 4096' 'ulimit -n 300' 'ulimit -u 3000'
our_workers
check "the server gives way to one that is less nice" nicer_server_gives_way
our_workers
check "the server gives way to a whole build" gives_way_to_many
our_workers
check "jobs of a server that gives way end in it" running_jobs_end
our_workers
check "callers of whom none has all" no_ping_pong
our_workers
check "callers in other namespaces" namespaces
check "callers in other namespaces don't wait" nobody_waits
check "callers in other groups" other_group
check "callers in another root" roots
check "calls that workers can't do, by root" calls_for_root
check "names of the caller's files and directories" calls_for_names
check "changes of the caller's files and directories" calls_that_wait
check "networks and daemons" calls_to_others
check "such calls are told quietly" calls_are_told
check "such calls by another user" calls_for_others
check "what the user may not read" unreadable
lab_stop
