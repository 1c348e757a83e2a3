#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Workers without concc: `mirror = none` (the files are there already) and `mirror = sshfs`.
# limit: 240
# shellcheck disable=SC2164 # set -e
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=2
lab_need sshfs findmnt
lab_source lua5.4
lab_enter "$@"
lab_start builder root
ulimit -c 0 # jobs die of SIGSEGV on purpose here

# Nothing of concc is on them, and the directory is made for the one that may not.
plain_workers() {
	local n
	for n in 1 2; do
		lab_worker $n rm /mnt/bin/concc-worker
		! lab_worker $n sh -c 'command -v concc-worker concc-cc' || fail "w$n has concc"
	done
	lab_worker 1 install -d -o builder -g builder "$WS"
}

config() { # MIRROR N...
	local mirror=$1 n
	shift
	lab_stop_server
	{
		printf '[concc]\nworkspace = %s\n' "$WS"
		for n in "$@"; do
			printf '\n[worker w%s]\naddress = ssh://w%s\nslots = %s\nmirror = %s\n' \
				"$n" "$n" "$LAB_SLOTS" "$mirror"
		done
	} >/srv/concc.ini
}

# How the wrapper itself ended, as its parent sees it: "exit N" or "signal N".
ended() { # CMD...
	perl -e 'system { $ARGV[0] } @ARGV; printf "%s\n", $? & 127 ? "signal " . ($? & 127) : "exit " . ($? >> 8)' "$@"
}

ends_as() { # WANTED SHELL-TEXT
	local got
	got=$(CONCC_EXPLAIN=1 ended concc-dispatch sh -c "$2" 2>"$LAB/explain")
	expect_eq "sh -c '$2'" "$got" "$1"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 1
}

statuses() {
	ends_as "exit 0" 'exit 0'
	ends_as "exit 1" 'exit 1'
	ends_as "exit 126" 'exit 126'
	ends_as "exit 127" 'no-such-command-at-all 2>/dev/null'
	ends_as "exit 139" 'sh -c "kill -SEGV \$\$"; exit $?'
	ends_as "exit 255" 'exit 255'
	ends_as "signal 11" 'kill -SEGV $$'
	ends_as "signal 9" 'kill -KILL $$'
	ends_as "signal 6" 'kill -ABRT $$'
}

streams() {
	local got
	cd "$WS"
	head -c 3000000 /dev/urandom >in
	concc-dispatch cat <in >"$LAB/out"
	expect_same_file in "$LAB/out"
	concc-dispatch sh -c 'cat >&2' <in 2>"$LAB/out" >/dev/null
	expect_same_file in "$LAB/out"
	rm in
	expect_eq "no input" "$(concc-dispatch sh -c 'cat; echo end' </dev/null)" end
	expect_eq "one stream" "$(concc-dispatch sh -c 'for i in 1 2 3; do echo o$i; echo e$i >&2; done' \
		2>&1 | tr '\n' ' ')" "o1 e1 o2 e2 o3 e3 "
	got=$(ended sh -c 'concc-dispatch sh -c "exec yes" | head -n 1; exit 0' 2>/dev/null)
	expect_eq "yes | head" "$got" "$(printf 'y\nexit 0')"
	# Arguments and environment, byte for byte, also what a shell would take for its own.
	got=$(A="it's
two lines" concc-dispatch sh -c 'printf "%s|" "$A" "$@"' - '$HOME' "a'b" '' '*' $'\n' "$(umask)")
	expect_eq "words" "$got" "it's
two lines|\$HOME|a'b||*|
|$(umask)|"
	expect_eq "job's cwd" "$(mkdir -p sub && cd sub && concc-dispatch pwd)" "$WS/sub"
}

interrupted() { # SIGNAL NUMBER TARGET-PREFIX
	lab_slow_start "$LAB_TOOLS/own-group"
	kill "-$1" -- "$3$SLOW_PID"
	lab_slow_wait
	expect_eq "status of the wrapper" "$SLOW_STATUS" $((128 + $2))
	expect_gone "what the job started" $SLOW_PIDS
	expect_eq "a job after it" "$(concc-dispatch echo fine)" fine
}

# What NFS would be: the same directory at the same path on w2.
same_directory() {
	mkdir "$LAB/w2/ws"
	mount --bind "$LAB/w2/ws" "$WS"
	lab_worker 2 mkdir -p "$WS"
	lab_worker 2 mount --bind /mnt/ws "$WS"
	cd "$WS"
	lab_slow_job
}

no_directory() {
	cd /srv
	lab_stop_server
	lab_agents_gone
	lab_worker 2 umount "$WS"
	lab_worker 2 rmdir "$WS"
	umount "$WS"
	cd "$WS"
}

compiles() {
	CONCC_EXPLAIN=1 concc-cc gcc -g -c a.c -o a.o 2>"$LAB/explain"
	expect_grep "^concc: remote on $1" "$LAB/explain"
	expect_same_file a.o "$LAB/a.o"
}

# What it had begun stays, since it wrote into the tree itself; the next try does the rest.
lost() {
	lab_slow_start
	lab_hang_up 1
	lab_slow_wait
	expect_eq "exit status" "$SLOW_STATUS" 0
	expect_eq "output" "$(tr '\n' ' ' <"$LAB/slow.out")" "held done "
	expect_same_file "$LAB/a.o" "$WS/a.o"
	expect_gone "the first try" $SLOW_PIDS
	expect_file half
	rm half
}

# One byte of the tree and none of the client's keys: what the SFTP server shows.
confined() {
	local pid
	concc-dispatch true
	pid=$(pgrep -x sftp-server)
	expect_eq "what is in its root" "$(ls "/proc/$pid/root/srv" "/proc/$pid/root/etc" | tr '\n' ' ')" \
		"/proc/$pid/root/etc: ld.so.cache nsswitch.conf passwd  /proc/$pid/root/srv: ws "
	expect_no_file "/proc/$pid/root/root"
	expect_eq "its network" "$(nsenter -t "$pid" -n ip -o link | grep -vc ' lo:')" 0
}

# Whatever call or moment it is asked for.
no_set_ids() {
	local script='cp /bin/true mine; chmod 755 mine && echo plain
		chmod 4755 mine || echo refused; chmod u+s mine || echo refused; chmod 2755 mine || echo refused
		mkdir d; chmod 2755 d || echo refused'
	expect_eq "what a job there says" "$(concc-dispatch sh -c "$script" 2>/dev/null | tr '\n' ' ')" \
		"plain refused refused refused refused "
	concc-dispatch sh -c 'install -m 6755 /bin/true other; mkdir -m 2755 e' 2>/dev/null || true
	expect_eq "files with such a bit" "$(find . -perm /6000)" ''
	rm -rf mine other d e
}

other_compiler() {
	local cc1
	cc1=$(gcc -print-prog-name=cc1)
	lab_stop_server
	lab_worker 1 mount --bind /bin/true "$cc1"
	CONCC_EXPLAIN=1 concc-cc gcc -g -c a.c -o a.o 2>"$LAB/explain"
	lab_worker 1 umount "$cc1"
	expect_same_file a.o "$LAB/a.o"
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 0
	expect_grep "its $cc1 is another version than yours" "$LAB/explain"
	lab_stop_server
}

# Whatever changed before a job, be it in place, of the same size, gone or new, is what it sees.
coherence() {
	local i want
	mkdir seen
	cd seen
	for i in 1 2 3 4 5 6; do
		printf '%s' "$i" >same
		printf "%${i}0s" x >grown
		printf "%$((70 - i * 10))s" x >shrunk
		[ $((i % 2)) -eq 0 ] && echo "$i" >now || rm -f now
		echo "$i" >new$i
		want=$(cat same; wc -c <grown; wc -c <shrunk; ls; LC_ALL=C cat now 2>&1 || true)
		expect_eq "round $i" "$(concc-dispatch sh -c 'cat same; wc -c <grown; wc -c <shrunk
			ls; cat now; echo "$1" >back; mv new$1 old$1; rm -f old$(($1 - 1))' - $i 2>&1)" "$want"
		expect_eq "what the job did" "$(cat back) $(echo new* old*)" "$i old$i"
		rm back
	done
}

# Random changes of all kinds, each looked at by two jobs.  SFTP knows whole seconds only, and what a
# job changes it changes at home.
random_steps() {
	local dir=$WS/random seed=${SEED:-$RANDOM$RANDOM}
	mkdir "$dir"
	env ONLY_LOOKS=1 "$LAB_TOOLS/coherence" "$dir" "${STEPS:-300}" "$seed" concc-dispatch ||
		fail "$(grep '^FAIL' "$LAB/check.log" | tail -n 1)"
	rm -rf "$dir"*
}

# A whole project: the objects of a local build, byte for byte.
project() {
	cd "$WS"
	cp -r "$LAB_SOURCE" lua
	make -C lua/src -j4 CC=gcc linux >"$LAB/local.log" 2>&1 || fail "$(tail -n 3 "$LAB/local.log")"
	save_objects lua "$LAB/lua-objects"
	make -s -C lua clean
	CONCC_EXPLAIN=1 make -C lua/src -j4 CC="concc-cc gcc" linux >"$LAB/remote.log" 2>"$LAB/explain" ||
		fail "$(tail -n 5 "$LAB/explain")"
	expect_same_objects "$LAB/lua-objects" lua
	expect_remote_share 100 "$LAB/explain" 'link|query'
	expect_eq "what lua says" "$(lua/src/lua -e 'print(6 * 7)')" 42
	rm -rf lua "$LAB/lua-objects"
}

plain_workers
same_directory
config none 2
check "none: a job" compiles w2
check "none: input, output, arguments" streams
check "none: a project" project
check "none: Ctrl-C" interrupted INT 2 -
no_directory
lab_slow_job
config sshfs 1
check "sshfs: a job" compiles w1
check "sshfs: the SFTP server is confined" confined
check "sshfs: no set-user-id file is made here" no_set_ids
check "sshfs: exit statuses and signals" statuses
check "sshfs: nothing stale" coherence
check "sshfs: random steps" random_steps
check "sshfs: a project" project
check "sshfs: Ctrl-C" interrupted INT 2 -
check "sshfs: the worker is lost" lost
check "sshfs: another compiler" other_compiler
lab_stop
