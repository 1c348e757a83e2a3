#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# limit: 200
# `concc run` and those around it: what is said when it was of no use, who stops the server, what
# signals do.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_ROOT=default
lab_need jq gcc make cmake ninja
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"
echo 'int f(void) { return 1; }' >a.c
GCC=$(command -v gcc)

# The command, and what is said of it: one line.
says() { # PATTERN CMD...
	local pattern=$1
	shift
	concc run -- "$@" >"$LAB/out" 2>"$LAB/err" || fail "$(cat "$LAB/out" "$LAB/err")"
	cat "$LAB/err"
	expect_grep "^concc: no compiler call came through concc: $pattern" "$LAB/err"
	expect_eq "lines of that" "$(grep -c 'no compiler call' "$LAB/err")" 1
}

by_path() {
	printf 'CC = gcc\nall: ; $(CC) -c a.c\n' >Makefile
	says "CC=$GCC calls the compiler by its path; say CC=gcc$" make CC="$GCC"
	CC=$GCC says "CC=$GCC in the environment .*; say CC=gcc$" make -e
	says "$GCC was called by its path; call it gcc$" "$GCC" -c a.c
	mkdir -p sub
	printf 'CC = %s\nall: ; $(CC) -c ../a.c\n' "$GCC" >sub/Makefile
	says "Makefile calls $GCC by its path; say .make CC=gcc.$" make -C sub
	concc run -- make -C sub CC=gcc 2>"$LAB/err"
	expect_grep ': 1 remote' "$LAB/err"
	printf 'rule cc\n command = %s -c $in\nbuild a.o: cc a.c\n' "$GCC" >build.ninja
	says "build.ninja calls $GCC by its path; let it call gcc$" ninja
}

# What is advised must help.
cmake_before() {
	local line
	mkdir -p cm
	printf '%s\n' 'cmake_minimum_required(VERSION 3.13)' 'project(p C)' 'add_library(p a.c)' >cm/CMakeLists.txt
	cp a.c cm
	cmake -G Ninja -S cm -B cm/b >/dev/null
	says "CMake chose $(command -v cc) before, without concc; say it once: " ninja -C cm/b
	line=$(grep 'CMake chose' "$LAB/err")
	[[ $line =~ \`(concc run -- cmake [^\`]*)\`,\ or\ \`(cmake [^\`]*)\` ]] || fail "no advice"
	sh -c "${BASH_REMATCH[1]}" >/dev/null 2>&1
	concc run -- ninja -C cm/b >/dev/null 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep ': 1 remote' "$LAB/err"
	rm -r cm/b
	cmake -S cm -B cm/b >/dev/null
	says "CMake chose" cmake --build cm/b
	sh -c "${BASH_REMATCH[2]}" >/dev/null 2>&1
	touch cm/a.c
	concc run -- cmake --build cm/b >/dev/null 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep ': 1 remote' "$LAB/err"
}

others() {
	printf '#!/bin/sh\n' >cargo
	chmod +x cargo
	RUSTC_WRAPPER=sccache says 'RUSTC_WRAPPER=sccache stands in its place' ./cargo build
	printf '#!/bin/sh\n' >scons
	chmod +x scons
	says 'scons has a PATH of its own, unless ' ./scons
	cp scons tup
	says 'tup runs commands in a file system of its own' ./tup
	cp scons tox
	says 'tox gives commands an environment of its own; .passenv = CONCC_\*. ' ./tox
	cp scons bazel
	says 'bazel runs actions in directories of links ' ./bazel
	echo true >script
	says 'bash -l sets PATH anew; leave out the l' bash -l script
	says 'bash -l sets PATH anew; leave out the l' bash -e -l script
	says 'env -i takes away ' env -i true
	# What asks compilers by PATH what they are, and calls them by their paths.
	rm -f Makefile build.ninja
	printf '#!/bin/sh\ngcc --version && gcc -dumpmachine && %s -c a.c\n' "$GCC" >driver
	chmod +x driver
	concc run -- ./driver >"$LAB/out" 2>"$LAB/err" || fail "$(cat "$LAB/out" "$LAB/err")"
	cat "$LAB/err"
	expect_grep '2 here \(query 2\)' "$LAB/err"
	expect_grep "^concc: nothing but questions to compilers .*: nothing was to be" "$LAB/err"
	rm driver
	printf 'all:\n\t%s -c a.c\n' "$GCC" >Makefile
	concc run -- gcc --version >"$LAB/out" 2>"$LAB/err"
	expect_no_grep 'came through concc:' "$LAB/err"
	printf 'all:\n' >Makefile
	says 'nothing was to be compiled, or ' make
	rm -f Makefile build.ninja
	says 'nothing was to be compiled, or [^;]*$' sh -c true
	says 'nothing was to be compiled, or [^;]*$' ./cargo
	# What does the work by itself.
	says 'nothing was to be compiled, or .*; .concc-dispatch true. runs all of it on a worker$' true
	cp scons webpack
	says 'nothing was to be compiled, or .*; .concc-dispatch \./webpack. runs all of it on a worker$' ./webpack
	cp scons pnpm
	says 'nothing was to be compiled, or .*; .concc-dispatch node_modules/.bin/TOOL. ' ./pnpm
	cp scons gradle
	says 'nothing was to be compiled, or .*; gradle locks the files ' ./gradle
	expect_status 127 concc run -- no-such-command 2>"$LAB/err"
	expect_no_grep 'no compiler call' "$LAB/err"
	rm cargo scons tox tup bazel pnpm gradle webpack
}

# A build that asks its compiler by its name, and then calls it by its path.
only_asked() { # PATTERN CMD...
	local pattern=$1
	shift
	rm -f a.o
	concc run -- "$@" >/dev/null 2>"$LAB/err"
	cat "$LAB/err"
	expect_file a.o
	expect_grep "^concc: nothing but questions to compilers came through concc: $pattern" "$LAB/err"
	# Nor has that been of any use.
	expect_status 103 concc run --require-remote 1 -- "$@" >/dev/null 2>"$LAB/err"
	expect_grep 'wants 1 %: no compiler call came through concc' "$LAB/err"
}

questions() {
	printf 'all: ; gcc --version && %s -c a.c\n' "$GCC" >Makefile
	only_asked "Makefile calls $GCC by its path; let it call gcc$" make
	printf '#!/bin/sh\ngcc -v && gcc -dumpmachine && exec %s -c a.c\n' "$GCC" >gprbuild
	chmod +x gprbuild
	only_asked 'gprbuild calls compilers by the paths where it has found them; .concc-dispatch gprbuild. ' ./gprbuild
	# What is advised helps.
	rm a.o
	CONCC_EXPLAIN=1 concc-dispatch ./gprbuild 2>"$LAB/err"
	expect_eq remote "$(explained_remote "$LAB/err")" 1
	expect_file a.o
	concc stop
	rm Makefile gprbuild
}

# What is advised is what the person has said.
said_by_whom() {
	rm -f a.o
	concc run --local -- gcc -c a.c 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: 1 job ran here by the rule "disabled": leave out --local$' "$LAB/err"
	CONCC_DISABLE=1 concc run -- gcc -c a.c 2>"$LAB/err"
	expect_grep '^concc: 1 job ran here by the rule "disabled": unset CONCC_DISABLE$' "$LAB/err"
	printf '[run]\nlocal = yes\n' >.concc.ini
	concc run -- gcc -c a.c 2>"$LAB/err"
	rm .concc.ini
	cat "$LAB/err"
	expect_grep '^concc: 1 job ran here by the rule "disabled": the project.s .concc.ini says .local = yes.$' "$LAB/err"
	expect_status 102 concc run -w -- true 2>"$LAB/err"
	expect_grep "^concc: worker list: 'ssh://--': a name can't begin with '-'$" "$LAB/err"
}

# A profile that sets CC: the compiler's name is what the build finds there, and goes through concc.
two_words() {
	local got
	# shellcheck disable=SC2016
	got=$(CC='concc-cc  gcc -g' CXX='concc-cc g++' FC="concc-cc $GCC" F77='concc-cc no-such' HOSTCC=concc-cc \
		concc run --quiet -- sh -c 'echo "$CC|$CXX|$FC|$F77|$HOSTCC"')
	expect_eq "what the build has" "$got" "gcc -g|g++|concc-cc $GCC|concc-cc no-such|concc-cc"
	mkdir -p ipo
	printf '%s\n' 'cmake_minimum_required(VERSION 3.13)' 'project(p C)' 'include(CheckIPOSupported)' \
		'check_ipo_supported()' 'add_library(p ../a.c)' >ipo/CMakeLists.txt
	CC='concc-cc gcc' concc run --quiet -- sh -c 'cmake -S ipo -B ipo/b && make -C ipo/b' >"$LAB/out" 2>&1 ||
		fail "$(tail -n 30 "$LAB/out")"
	rm -r ipo a.o 2>/dev/null || true
	printf 'a.o: a.c\n' >Makefile
	CC='concc-cc gcc' concc run -- make a.o 2>"$LAB/err"
	expect_grep ': 1 remote' "$LAB/err"
	rm Makefile
}

# What a shell would have understood, and what is advised then.
shells_words() {
	local p rc
	for p in 'concc run --quiet --' concc-cc concc-dispatch; do
		rc=0
		$p 'CC=gcc' make 2>"$LAB/err" || rc=$?
		expect_eq "$p" "$rc $(cat "$LAB/err")" \
			"127 concc: can't run CC=gcc: No such file or directory; a variable is set so: env CC=gcc COMMAND"
		$p 'make a.o' 2>"$LAB/err" || true
		expect_grep "^concc: can't run make a.o: .*; leave out the quotes, or have a shell run it: sh -c '" "$LAB/err"
		$p cd sub 2>"$LAB/err" || true
		expect_grep "^concc: can't run cd: .*; only a shell has that: sh -c 'cd DIR && COMMAND'$" "$LAB/err"
		$p './no such=file' 2>"$LAB/err" || true
		expect_grep "^concc: can't run ./no such=file: No such file or directory$" "$LAB/err"
	done
	concc run --quiet -- env CC=gcc sh -c 'cd / && exec true'
}

# What can't be as the environment says is told.
odd_environment() {
	rm -f a.o
	CONCC_EXPLAIN=nothing/file concc run -- gcc -c a.c 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep "^concc: can't explain to $WS/nothing/file, which CONCC_EXPLAIN names: No such file or directory$" "$LAB/err"
	CONCC_WORKSPACE=sub concc-cc gcc -c a.c 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep "^concc: CONCC_WORKSPACE: 'sub' is not an absolute path; begin it with / or ~/; running it here$" "$LAB/err"
	concc stop
}

most_here() {
	concc run -- sh -c 'gcc -march=native -c a.c; gcc -march=native -c a.c; gcc -c a.c -o /tmp/a.o; rm /tmp/a.o' \
		2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: 2 jobs ran here by the rule "native": name the processor' "$LAB/err"
}

# ---- servers, terminals and signals ----

# A build that stands still: says "up" and then waits for a word.  Sets HELD, a descriptor to be
# written to, and BUILD_PID.
start_build() { # NAME [OPTION...]
	local name=$1 line=''
	shift
	mkfifo "$LAB/$name.up" "$LAB/$name.go"
	# The subshell has job control's signals at their defaults, as a terminal's shell gives them.
	# shellcheck disable=SC2016 # the build's shell
	env --default-signal=INT,QUIT concc run "$@" -- sh -c 'echo up >"$1"; read -r x <"$2"; gcc -c a.c -o "$3.o"' \
		sh "$LAB/$name.up" "$LAB/$name.go" "$name" 2>"$LAB/$name.err" &
	BUILD_PID=$!
	read -r -t "$LAB_LIMIT" line <"$LAB/$name.up" || true
	[ "$line" = up ] || fail "$name did not start: $(cat "$LAB/$name.err")"
}

# Waits for it, bounded by the kernel's word on its end; sets RC, its status.
end_of() { # PID
	RC=0
	expect_gone "the build" "$1"
	wait "$1" || RC=$?
}

# The last of them stops the server, whoever started it.
two_builds() {
	local one two server
	start_build one
	one=$BUILD_PID
	server=$(lab_server_pid)
	start_build two
	two=$BUILD_PID
	echo >"$LAB/one.go"
	end_of "$one"
	expect_eq "first" "$RC" 0
	expect_eq "the server" "$(lab_server_pid)" "$server"
	echo >"$LAB/two.go"
	end_of "$two"
	expect_eq "second" "$RC" 0
	expect_grep ': 1 remote' "$LAB/two.err"
	expect_gone "the server" "$server"
}

# One that was there before stays.
there_before() {
	local server
	concc-cc gcc -c a.c
	server=$(lab_server_pid)
	start_build three
	echo >"$LAB/three.go"
	end_of "$BUILD_PID"
	expect_eq "the server" "$(lab_server_pid)" "$server"
	lab_stop_server
}

# The build and what it has started end, nothing is left, and the signal is what ended us.  It is sent
# when the inner shell runs: dash loses one that comes between its vfork(2) and the exec, from a terminal too.
ended_by() { # SIGNAL NUMBER [OPTION...]
	local child name=by$1
	mkfifo "$LAB/$name.up"
	# shellcheck disable=SC2016 # the build's shell
	env --default-signal=INT,QUIT concc run "${@:3}" -- \
		sh -c 'sh -c "echo \$PPID \$CONCC_RUNTIME_DIR >\$1; exec tail -f /dev/null" sh "$1"; echo went on' sh "$LAB/$name.up" \
		>"$LAB/$name.out" 2>"$LAB/$name.err" &
	BUILD_PID=$!
	read -r -t "$LAB_LIMIT" child dir <"$LAB/$name.up" || fail "it did not start: $(cat "$LAB/$name.err")"
	kill "-$1" "$BUILD_PID"
	end_of "$BUILD_PID"
	expect_eq "status" "$RC" $((128 + $2))
	expect_gone "the build and what it has started" "$child" $(lab_client_pids tail)
	expect_eq "said" "$(cat "$LAB/$name.out")" ""
	[ "$dir" = "$CONCC_RUNTIME_DIR" ] || expect_no_file "$dir"
	expect_gone "the server" $(lab_server_pid)
}

signals() {
	ended_by TERM 15
	ended_by HUP 1 -w w1
	ended_by INT 2
}

# Really by the signal: a shell's loop goes on after a command that only says 130.
by_the_signal() {
	# shellcheck disable=SC2016 # the build's shell
	concc_run_int='import subprocess, sys
sys.exit(subprocess.call(["concc", "run", "--", "sh", "-c", "kill -INT $$"]) != -2)'
	env --default-signal=INT python3 -c "$concc_run_int" 2>"$LAB/err" || fail "it exits: $(cat "$LAB/err")"
}

# A build that takes the signal for something else goes on, and so do we.
handles_int() {
	mkfifo "$LAB/never"
	expect_status 7 env --default-signal=INT timeout --foreground "$LAB_LIMIT" concc run -- sh -c 'trap "exit 7" INT; kill -INT $PPID; read -r x <"$1"' sh "$LAB/never" 2>"$LAB/err"
}

while_starting() {
	printf '[worker slow]\ncommand = echo >%s/starting; exec tail -f /dev/null\n' "$LAB" >/srv/slow.ini
	mkfifo "$LAB/starting"
	CONCC_CONFIG=/srv/slow.ini env --default-signal=INT concc run -- touch ran 2>"$LAB/err" &
	BUILD_PID=$!
	read -r -t "$LAB_LIMIT" _ <"$LAB/starting" || true
	kill -TERM "$BUILD_PID"
	end_of "$BUILD_PID"
	expect_eq "status" "$RC" 143
	expect_no_file ran
	expect_gone "the server" $(lab_server_pid)
}

closed_pipe() {
	# shellcheck disable=SC2016 # the build's
	concc run -w w1 -- sh -c 'echo "$CONCC_RUNTIME_DIR"; for i in 1 2 3 4 5; do echo $i || exit; done' 2>&1 |
		head -n 1 >"$LAB/out"
	expect_grep '^/tmp/concc-run-' "$LAB/out"
	expect_no_file "$(cat "$LAB/out")"
}

# ---- what `concc status` sees ----

# A build with workers of its own has its server, too.
other_servers() {
	start_build five -w w1
	concc status >"$LAB/status"
	cat "$LAB/status"
	expect_grep '^A build with workers of its own, in /tmp/concc-run-' "$LAB/status"
	expect_grep '^w1 .* up ' "$LAB/status"
	expect_ge "others" "$(concc status --json | jq '.others | length')" 1
	echo >"$LAB/five.go"
	end_of "$BUILD_PID"
}

# Who keeps a slot by ^Z.  The parent is told of the stop; a subshell has no job control.
stopped() {
	local pid how
	cat >"$LAB/parent" <<-'END'
		#!/bin/bash
		set -m
		"$@" &
		echo $! >"$CONCC_LAB/child"
		wait $!
		echo $? >"$CONCC_LAB/how"
		wait -f $!
	END
	chmod +x "$LAB/parent"
	mkfifo "$LAB/how"
	lab_slow_job
	lab_slow_start "$LAB/parent"
	pid=$(cat "$LAB/child")
	kill -STOP "$pid"
	read -r -t "$LAB_LIMIT" how <>"$LAB/how" || fail "it does not stop"
	expect_eq "it ended by" "$(kill -l "$how")" STOP
	concc status >"$LAB/status"
	kill -CONT "$pid"
	lab_slow_kill
	lab_slow_wait
	cat "$LAB/status"
	expect_grep "^  stopped here \(pid $pid\), and keeps its slot or place: \./slow; " "$LAB/status"
	lab_stop_server
}

host_once() {
	local n
	for n in 1 2 3; do
		printf '[worker m%s]\naddress = ssh://w1\nprogram = /mnt/bin/concc-worker\nslots = 1\n' "$n"
	done >/srv/many.ini
	CONCC_CONFIG=/srv/many.ini concc run -- sh -c 'gcc -c a.c; concc status' >"$LAB/status" 2>"$LAB/err" ||
		fail "$(cat "$LAB/err")"
	cat "$LAB/status"
	expect_eq "workers" "$(grep -c '^m[123] .* up ' "$LAB/status")" 3
	expect_le "lines on their host" "$(grep -c 'its host: ' "$LAB/status")" 1
}

# ---- homes and agents ----

no_home() {
	local home
	CONCC_CACHE_DIR=/proc/none concc run -- gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	cat "$LAB/err"
	expect_grep ': 1 remote' "$LAB/err"
	expect_eq "lines on it" "$(grep -c 'cache directory /proc/none' "$LAB/err")" 1
	env -u CONCC_CACHE_DIR HOME=/proc concc run -w local: -- gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep ': 1 remote' "$LAB/err"
	# What builds packages looks whether somebody has made it.
	for home in /srv/nohome /srv/nohome/user; do
		env -u CONCC_CACHE_DIR HOME=$home concc run -w local: -- gcc -c a.c 2>"$LAB/err" || fail "$(cat "$LAB/err")"
		cat "$LAB/err"
		expect_grep ': 1 remote' "$LAB/err"
		[ ! -e /srv/nohome ] || fail "$home was made: $(find /srv/nohome)"
	done
}

# The agent of the login that started the server is gone; another login has one.
agents() {
	local agent
	lab_need ssh-agent ssh-add
	mkdir -p /srv/keys
	mv /srv/home/.ssh/id_ed25519 /srv/keys/
	CONCC_EXPLAIN=1 SSH_AUTH_SOCK=/srv/gone concc-cc gcc -c a.c 2>"$LAB/err"
	expect_grep '^concc: local: no-worker' "$LAB/err"
	ssh-agent -a /srv/agent >"$LAB/agent" # it listens when that returns
	agent=$(sed -n 's/^SSH_AGENT_PID=\([0-9]*\);.*/\1/p' "$LAB/agent")
	export SSH_AUTH_SOCK=/srv/agent
	ssh-add -q /srv/keys/id_ed25519
	concc run -- gcc -c a.c 2>"$LAB/err" || true
	cat "$LAB/err"
	kill "$agent"
	mv /srv/keys/id_ed25519 /srv/home/.ssh/
	lab_stop_server
	expect_grep ': 1 remote' "$LAB/err"
}

# One line, and no crash before there is anything to take down.
cant_begin() {
	local rc=0
	"$@" >"$LAB/out" 2>&1 || rc=$?
	cat "$LAB/out"
	expect_eq "status" "$rc" 1
	expect_eq "lines" "$(wc -l <"$LAB/out")" 1
}

server_cant_begin() {
	lab_stop_server
	mkdir -p /srv/run
	chmod 755 /srv/run
	cant_begin concc-project
	expect_grep 'chmod 700 /srv/run' "$LAB/out"
	chmod 700 /srv/run
	cant_begin prlimit --nofile=20 concc-project
	expect_grep 'only 20 files may be open' "$LAB/out"
	concc-dispatch true
	cant_begin concc-project
	expect_grep 'runs already' "$LAB/out"
	concc-dispatch true
}

# Where it is named from: a server is nowhere.  A FIFO would be waited for.
odd_configurations() {
	lab_stop_server
	mkdir -p sub
	cp "$CONCC_CONFIG" sub/here.ini
	CONCC_CONFIG=sub/here.ini CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo "$CONCC_CONFIG"' >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: remote on w1' "$LAB/err"
	lab_stop_server
	mkfifo fifo.ini
	CONCC_CONFIG=$WS/fifo.ini timeout "$LAB_LIMIT" concc-dispatch true 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep 'fifo.ini: is a FIFO, .*; running it here$' "$LAB/err"
	CONCC_RUNTIME_DIR=relative concc-dispatch true 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep 'CONCC_RUNTIME_DIR is relative; set it to an absolute path' "$LAB/err"
	rm -r fifo.ini sub
}

# Nor is a worker on this machine kept from work by a cache of ours that can't be used.
cache_of_no_use() {
	printf '[concc]\nworkspace = %s\n[worker here]\naddress = local:\nroot = worker\n' "$WS" >/srv/here.ini
	for CONCC_CACHE_DIR in '' relative /dev/null/below; do
		CONCC_CONFIG=/srv/here.ini
		CONCC_RUNTIME_DIR=$(mktemp -d /srv/here.XXXXXX)
		export CONCC_CACHE_DIR CONCC_CONFIG CONCC_RUNTIME_DIR
		CONCC_EXPLAIN=1 concc-dispatch true 2>"$LAB/err"
		cat "$LAB/err"
		concc stop
		expect_grep '^concc: remote on here' "$LAB/err"
	done
	expect_no_file relative
}

# Its profile sets PATH anew, before the text: what that says, and is given, stays.
login_shell() {
	local words
	for words in '-lc' '-l -c' '--login -c' '-l -eo pipefail -c' '-o pipefail -lc' '-lc --'; do
		concc run -- bash $words 'gcc -c a.c; echo "$0 $1"; exit 3' name arg >"$LAB/out" 2>"$LAB/err" && fail "bash $words: status 0"
		cat "$LAB/err"
		expect_eq "output of bash $words" "$(cat "$LAB/out")" 'name arg'
		expect_grep ': 1 remote' "$LAB/err"
	done
	expect_status 3 concc run -- sh -lc 'gcc -c a.c; exit 3' 2>"$LAB/err"
	expect_grep ': 1 remote' "$LAB/err"
}

# No tree holds them that would be shown.  What is advised must help.
settings_of_git() {
	local words
	git init -q repository
	cd repository
	printf '[user]\n\tname = lab\n' >~/.gitconfig
	CONCC_EXPLAIN=1 concc-dispatch git status --porcelain >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep 'local: missing .*gitconfig is outside .*; GIT_CONFIG_GLOBAL=.* has git do without it' "$LAB/err"
	words=$(sed -n 's/.*; \(GIT_CONFIG[^ ]*\( GIT_CONFIG[^ ]*\)*\) has git .*/\1/p' "$LAB/err")
	env $words CONCC_EXPLAIN=1 concc-dispatch git status --porcelain >"$LAB/out2" 2>"$LAB/err"
	expect_grep '^concc: remote on' "$LAB/err"
	expect_same_file "$LAB/out" "$LAB/out2"
	# These don't do without: they read it by themselves.
	printf '#!/bin/sh\ncat ~/.gitconfig\n' >cargo
	chmod +x cargo
	CONCC_EXPLAIN=1 concc-dispatch ./cargo build >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep 'local: missing .*gitconfig is outside .*; .concc run -- cargo. has the compilers' "$LAB/err"
	expect_no_grep GIT_CONFIG "$LAB/err"
	rm ~/.gitconfig
	lab_stop_server
}

# A page of all that there is hides what was wrong.
wrong_argument() {
	local words
	for words in 'concc nonsense' 'concc statsu' 'concc run' 'concc run --' 'concc run -j x -- true' 'concc status --all' 'concc report a b' \
		'concc top -x' 'concc doctor -x' 'concc push' 'concc stop now' 'concc cache x' 'concc why' 'concc-cc -x' \
		'concc-dispatch -x' 'concc-project x'; do
		expect_status 100 $words >"$LAB/out" 2>"$LAB/err"
		cat "$LAB/err"
		expect_eq "lines of '$words'" "$(cat "$LAB/out" "$LAB/err" | wc -l)" 1
		expect_grep '(; see .concc[a-z-]* --help.|did you mean [a-z-]*\?)$' "$LAB/err"
	done
	for words in 'concc make' 'concc -- make'; do
		expect_status 100 $words -j8 2>"$LAB/err"
		expect_grep '^concc: there is no command [a-z-]*; did you mean `concc run -- make`\?$' "$LAB/err"
	done
	# Of these getopt(3) says first what.
	for words in 'concc run --nonsense' 'concc report -x' 'concc-project --nonsense'; do
		expect_status 100 $words 2>"$LAB/err"
		expect_grep "^concc.*(nonsense|'x')" "$LAB/err"
		expect_eq "lines of '$words'" "$(wc -l <"$LAB/err")" 2
	done
}

options_end() {
	local p rc
	for p in concc-cc concc-dispatch; do
		expect_eq "$p" "$($p -- echo -- x)" '-- x'
		rc=0
		$p -- -x 2>"$LAB/err" || rc=$?
		expect_eq "$p" "$rc $(cat "$LAB/err")" "127 concc: can't run -x: No such file or directory"
		expect_status 100 $p -- 2>"$LAB/err"
		expect_no_grep 'unknown option' "$LAB/err"
		expect_status 100 $p -x 2>"$LAB/err"
		expect_grep 'unknown option -x' "$LAB/err"
	done
	lab_stop_server
}

check "compilers by their paths" by_path
check "CMake configured before" cmake_before
check "other reasons for no jobs" others
check "questions, and no jobs" questions
check "advice by what was said" said_by_whom
check "a compiler of two words" two_words
check "words of a shell" shells_words
check "an environment of no use" odd_environment
check "why most jobs stayed" most_here
check "two builds, one server" two_builds
check "a server that was there before" there_before
check "signals end the build and nothing stays" signals
check "ended by the signal that ended the build" by_the_signal
check "a build that handles SIGINT" handles_int
check "a signal while workers start" while_starting
check "a closed pipe" closed_pipe
check "concc status of a build with its own workers" other_servers
check "concc status of a stopped wrapper" stopped
check "a host of several workers is told once" host_once
check "a server that can't begin" server_cant_begin
check "configurations by odd names" odd_configurations
check "a cache directory of no use" cache_of_no_use
check "options end at --" options_end
check "the text of a login shell" login_shell
check "settings of git" settings_of_git
check "a wrong argument is told in a line" wrong_argument
check "no home" no_home
check "another SSH agent" agents
lab_stop
