# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash disable=SC2046,SC2086
#
# The lab: a client and workers as hosts of their own, on one machine.  A test sources this file,
#
#	lab_enter "$@"		runs itself again inside the client's namespaces (skips when it can't)
#	lab_start builder root	two workers w1, w2: sshd, reached as that user (a number: so many)
#	lab_config		the ~/.concc.ini that names them
#	...			the test: it runs ON the client; programs by name, expect_*, check
#	lab_stop		at the end: everything must go, and nothing may be left
#
# The client: /srv/ws (workspace), /srv/home, /srv/run (runtime directory), /srv/cache.  Workers see
# the same system below /usr and /etc, and nothing of /srv, /tmp, /home, /root or the repository.
# Hosts are mount, network, pid, UTS and IPC namespaces, joined by veth: w1 is 10.77.1.2.
#
# Whatever ends the test, the kernel ends every process and mount of the lab with it (the client is
# a pid namespace, the workers are nested in it).  Nothing here waits for a fixed time.

set -eu
shopt -s nullglob

LAB_REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LAB_BUILD=${CONCC_BUILD:-$LAB_REPO/build}
LAB_BIN=${CONCC_BIN:-$LAB_BUILD/bin}	# the programs under test
LAB_TOOLS=$LAB_BUILD/test/lib		# test/lib/*.c, built
LAB_LIMIT=60				# seconds: the failing end of each wait, on a busy machine too
LAB_USER=builder			# the unprivileged user of the workers
LAB_SLOTS=${LAB_SLOTS:-4}		# of each worker
LAB_WORKER_ENV=${LAB_WORKER_ENV-}	# NAME=VALUE... in the environment of the workers
LAB_ROOT=${LAB_ROOT:-worker}		# whose system jobs see: worker, client, or default
LAB_OTHER=${LAB_OTHER-}			# workers of another Debian release, with nothing of ours or a compiler
LAB_MEMORY=${LAB_MEMORY-}		# /srv in memory (tmpfs) instead of on the disk
LAB_SANITIZED=				# what SANITIZE= was for the programs under test
LAB_N=0					# workers started
LAB_LINES=()				# processes that are cables with a length
LAB_CHECKS_FAILED=0
WS=/srv/ws

export LAB_TOOLS WS

case $(ldd "$LAB_BIN/concc-cc" 2>/dev/null || true) in
*libasan*) LAB_SANITIZED=address,undefined ;;
*libtsan*) LAB_SANITIZED=thread ;;
esac
[ -z "$LAB_SANITIZED" ] || LAB_LIMIT=$((LAB_LIMIT * 5))

# ---- results ----

# A line for the runner: ok, not-ok or skip, and for whom.
lab_result() { # KIND NAME [WHY]
	printf '%-6s %s%s\n' "$1" "$2" "${3:+: $3}"
	if [ -n "${CONCC_TEST_RESULTS-}" ]; then
		printf '%s\t%s\t%s\n' "$1" "$2" "${3-}" >>"$CONCC_TEST_RESULTS"
	fi
}

skip() { # REASON
	echo "skip: $*" >&2
	[ -z "${CONCC_TEST_RESULTS-}" ] || printf 'skip-reason\t%s\n' "$*" >>"$CONCC_TEST_RESULTS"
	exit 77
}

fail() { # TEXT
	echo "FAIL: $*" >&2
	exit 1
}

# What failed without a word is told all the same.
lab_ended() { # STATUS LAST-COMMAND
	[ "$1" -eq 0 ] || [[ $2 == exit* ]] || echo "FAIL: status $1 of: $2" >&2
}

# One sub-result: runs the command (often a function) by itself; its failure does not end the test.
check() { # NAME CMD...
	local name=$1 rc=0 start=$SECONDS
	shift
	[[ $name =~ ${CONCC_TEST_ONLY-} ]] || return 0
	set +e
	(
		set -e
		trap 'lab_ended "$?" "$BASH_COMMAND"' EXIT
		"$@"
	) >"$LAB/check.log" 2>&1
	rc=$?
	set -e
	case $rc in
	0) lab_result ok "$name ($((SECONDS - start)) s)" ;;
	77) lab_result skip "$name" "$(sed -n 's/^skip: //p' "$LAB/check.log" | tail -n 1)" ;;
	*)
		lab_result not-ok "$name" "$(grep -h '^FAIL: ' "$LAB/check.log" | tail -n 1 || true)"
		sed 's/^/    | /' "$LAB/check.log" | tail -n 60
		LAB_CHECKS_FAILED=$((LAB_CHECKS_FAILED + 1))
		;;
	esac
}

# ---- what is expected ----

expect_eq() { # WHAT GOT WANTED
	[ "$2" = "$3" ] || fail "$1: got '$2', wanted '$3'"
}

expect_ne() { # WHAT GOT UNWANTED
	[ "$2" != "$3" ] || fail "$1: is '$2'"
}

expect_le() { # WHAT GOT MAX
	[ "$2" -le "$3" ] || fail "$1: is $2, at most $3 wanted"
}

expect_ge() { # WHAT GOT MIN
	[ "$2" -ge "$3" ] || fail "$1: is $2, at least $3 wanted"
}

expect_same_file() { # A B
	cmp -- "$1" "$2" || fail "$1 and $2 differ"
}

expect_file() {
	[ -e "$1" ] || fail "$1 is missing"
}

expect_no_file() {
	if [ -e "$1" ] || [ -L "$1" ]; then
		fail "$1 is there"
	fi
}

expect_grep() { # PATTERN FILE
	grep -Eq -- "$1" "$2" || {
		sed 's/^/    | /' "$2" | tail -n 20
		fail "no line matches '$1' in $2"
	}
}

expect_no_grep() { # PATTERN FILE
	if grep -E -- "$1" "$2"; then
		fail "a line matches '$1' in $2"
	fi
}

# Runs the command; its exit status must be this.
expect_status() { # STATUS CMD...
	local want=$1 rc=0
	shift
	"$@" || rc=$?
	[ "$rc" -eq "$want" ] || fail "exit status $rc, wanted $want: $*"
}

# CONCC_EXPLAIN=1 makes each wrapper say on stderr where it runs its job.
explained_remote() { # FILE: how many ran remotely
	grep -c '^concc: remote on ' "$1" || true
}

explained_local() {
	grep -c '^concc: local: ' "$1" || true
}

# The share of the jobs that ran remotely, of those whose place the policy left open: what
# is local by a rule that is named here (link, probe...) is not counted.
expect_remote_share() { # PERCENT FILE [EXEMPT-RULES-REGEX]
	local remote local_jobs share
	remote=$(explained_remote "$2")
	local_jobs=$(grep '^concc: local: ' "$2" | grep -Evc "^concc: local: (${3:-none}) " || true)
	share=$((remote + local_jobs == 0 ? 0 : 100 * remote / (remote + local_jobs)))
	echo "note: jobs: $remote remote, $local_jobs local: $share % remote"
	grep -h '^concc: local: ' "$2" | sed 's/ *(.*//' | sort | uniq -c || true
	expect_ge "remote share in percent" "$share" "$1"
}

# The objects below a directory, put aside and compared later.
save_objects() { # DIR TO
	mkdir -p "$2"
	(cd "$1" && find . -name '*.o' -print0 | tar -c --null -T - -f -) | tar -x -C "$2" -f -
}

expect_same_objects() { # SAVED DIR: prints how many
	local f n=0
	while IFS= read -r -d '' f; do
		expect_same_file "$1/$f" "$2/$f"
		n=$((n + 1))
	done < <(cd "$1" && find . -name '*.o' -print0)
	expect_ge "number of objects" "$n" 1
	expect_eq "number of objects" "$(find "$2" -name '*.o' | wc -l)" "$n"
	echo "note: $n objects, byte for byte the local ones"
}

# ---- outside ----

# Builds test/lib/*.c where that has not been done by make.
lab_build_tools() {
	local src bin
	mkdir -p "$LAB_TOOLS"
	for src in "$LAB_REPO"/test/lib/*.c; do
		bin=$LAB_TOOLS/$(basename "$src" .c)
		[ "$bin" -nt "$src" ] && continue
		"${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -o "$bin.$$" "$src"
		mv "$bin.$$" "$bin"
	done
}

lab_need() { # PROGRAM...
	local p
	for p in "$@"; do
		command -v "$p" >/dev/null || skip "$p is not installed"
	done
}

lab_probe() {
	[ "$(id -u)" -eq 0 ] || skip "needs root (namespaces with a network, device nodes)"
	PATH=$PATH:/usr/sbin:/sbin
	lab_need ip nsenter sshd ssh ssh-keygen gcc
	[ -e /dev/fuse ] || skip "/dev/fuse is missing (modprobe fuse)"
	lab_build_tools
	"$LAB_TOOLS/nsinit" true || skip "the kernel refuses new namespaces here"
}

# The Rust toolchain's own directory, "" when there is none; without rustup's proxies.
lab_rust_sysroot() {
	rustc --print sysroot 2>/dev/null || true
}

# Runs the command, which makes the directory, unless a test beside this one has done so.
lab_once() { # DIRECTORY CMD...: what is said goes to DIRECTORY.log
	local dir=$1
	shift
	(
		flock 8
		[ -d "$dir" ] || "$@" >"$dir.log" 2>&1 8>&-
	) 8>"$dir.lock"
}

# Fetches a Debian source package once, with an apt configuration of its own (nothing of the
# system's is changed), and says where its tree is.  Before lab_enter: the lab has no network.
lab_source() { # PACKAGE: sets LAB_SOURCE
	local cache
	[ -z "${LAB_INSIDE-}" ] || return 0
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/concc-test/sources
	mkdir -p "$cache"
	LAB_SOURCE=$cache/$1
	export LAB_SOURCE
	[ -d "$LAB_SOURCE" ] && return 0
	lab_once "$LAB_SOURCE" "$LAB_REPO/test/lib/fetch-source" "$1" "$cache" ||
		skip "no source of $1 to be had ($(grep -v '^$' "$cache/$1.log" | tail -n 1))"
}

# The root of such workers, made once: another release, an sshd, no compiler.
lab_other_root() {
	local cache release=trixie
	[ "$(id -u)" -eq 0 ] || skip "needs root (namespaces with a network, device nodes)"
	lab_need mmdebstrap
	# shellcheck disable=SC1091
	[ "$(. /etc/os-release && echo "${VERSION_CODENAME-}")" != trixie ] || release=bookworm
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/concc-test
	mkdir -p "$cache"
	LAB_OTHER=$cache/worker-$release
	[ -d "$LAB_OTHER" ] && return 0
	lab_once "$LAB_OTHER" "$LAB_REPO/test/lib/make-root" "$release" "$LAB_OTHER" ||
		skip "no root of Debian $release to be had ($(grep -v '^$' "$LAB_OTHER.log" | tail -n 1))"
}

# Starts the test anew in the client's namespaces, with a clean environment.
lab_enter() {
	if [ -n "${LAB_INSIDE-}" ]; then
		lab_client_setup
		return
	fi
	lab_probe
	[ -z "$LAB_OTHER" ] || lab_other_root
	[ -x "$LAB_BIN/concc-cc" ] || fail "$LAB_BIN/concc-cc is missing: run make first"
	LAB=${CONCC_TEST_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/concc-test.XXXXXX")}
	local rust path=$LAB_BIN
	rust=$(lab_rust_sysroot)
	case $rust in '' | /usr) ;; *) path=$path:$rust/bin ;; esac
	exec env -i PATH="$path:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
		HOME="$HOME" LANG=C.UTF-8 TERM=dumb LAB="$LAB" LAB_INSIDE=1 LAB_RUST="$rust" \
		LAB_KEEP="${CONCC_TEST_DIR-}" LAB_HOST_HOME="$HOME" LAB_SOURCE="${LAB_SOURCE-}" \
		SEED="${SEED-}" CONCC_TEST_LONG="${CONCC_TEST_LONG-}" ROUNDS="${ROUNDS-}" STEPS="${STEPS-}" LAB_SLOTS="$LAB_SLOTS" \
		LAB_MEMORY="$LAB_MEMORY" LAB_WORKER_ENV="$LAB_WORKER_ENV" LAB_ROOT="$LAB_ROOT" \
		LAB_OTHER="$LAB_OTHER" \
		CONCC_BUILD="$LAB_BUILD" CONCC_BIN="$LAB_BIN" \
		CONCC_TEST_RESULTS="${CONCC_TEST_RESULTS-}" CONCC_TEST_ONLY="${CONCC_TEST_ONLY-}" \
		"$LAB_TOOLS/nsinit" --report bash "$(realpath "$0")" "$@"
}

# ---- the client ----

lab_client_setup() {
	trap lab_exit EXIT
	ulimit -c unlimited 2>/dev/null || true
	touch "$LAB/started"
	mkdir -p "$LAB/srv" "$LAB/etc"
	[ -z "$LAB_MEMORY" ] || mount -t tmpfs -o mode=755 lab-srv "$LAB/srv"
	mkdir -p "$LAB/srv/ws" "$LAB/srv/home"
	mount --bind "$LAB/srv" /srv
	# ssh takes the home from the password file, so that has to name the same one.
	awk -F: -v OFS=: '$3 == 0 { $6 = "/srv/home" } 1' /etc/passwd >"$LAB/etc/passwd"
	mount --bind "$LAB/etc/passwd" /etc/passwd
	hostname labclient
	export HOME=/srv/home
	export CONCC_CONFIG=/srv/concc.ini CONCC_RUNTIME_DIR=/srv/run CONCC_CACHE_DIR=/srv/cache
	export CONCC_LOG=${CONCC_LOG:-info} CONCC_LAB=$LAB
	# What a test has to see done on a worker is not done here because that is near.
	export CONCC_LOCAL_SLOTS=0 CONCC_STRAGGLER_AFTER=0
	[ -z "$LAB_SANITIZED" ] || export CONCC_SANITIZE_LOG=$LAB/sanitizer
	cd "$WS"
}

# Prints the processes of the lab that no one is to find at its end: all of the pid namespace but
# the test itself and what holds the workers together.
lab_leftovers() {
	local pid keep=' ' i
	for ((pid = BASHPID; pid > 0; pid = $(lab_parent "$pid"))); do
		keep="$keep$pid "
	done
	for ((i = 1; i <= LAB_N; i++)); do
		keep="$keep$(lab_worker_keep "$i") "
	done
	for pid in /proc/[0-9]*; do
		pid=${pid#/proc/}
		[[ $keep == *" $pid "* ]] && continue
		# What runs for this very function, and what has ended meanwhile, is none.
		[ "$(lab_parent "$pid")" = "$BASHPID" ] && continue
		[ -n "$(tr -d '\0' <"/proc/$pid/cmdline")" ] && echo "$pid"
	done 2>/dev/null || true
}

lab_parent() { # PID
	local stat
	read -r stat <"/proc/$1/stat" || return 0
	stat=${stat##*) }
	stat=${stat#* }
	echo "${stat%% *}"
}

lab_children() { # PID
	local line=''
	{ read -r line <"/proc/$1/task/$1/children"; } 2>/dev/null || true
	echo "$line"
}

# By their parents: task/TID/children leaves out some while others end (proc(5)), and other threads'.
lab_descendants() { # PID
	cat /proc/[0-9]*/stat 2>/dev/null | awk -v root="$1" '
		function below(pid, n, i, list) {
			n = split(children[pid], list, " ")
			for (i = 1; i <= n; i++) {
				print list[i]
				below(list[i])
			}
		}
		{
			pid = $1
			sub(/^.*\) /, "") # the name may have anything in it
			children[$2] = children[$2] " " pid
		}
		END { below(root) }'
}

lab_mounts() { # like the kernel tells them, without the ids that change
	awk '{ print $5, $(NF - 2), $(NF - 1) }' "/proc/${1:-self}/mountinfo"
}

# ---- workers ----

lab_start() { # USER... or how many: unprivileged and root in turn
	local users=("$@") i
	if [[ ${1-1} =~ ^[0-9]+$ ]]; then
		users=()
		for ((i = 1; i <= ${1-1}; i++)); do
			users+=("$([ $((i % 2)) -eq 1 ] && echo "$LAB_USER" || echo root)")
		done
	fi
	lab_keys
	for i in "${!users[@]}"; do
		lab_worker_start $((i + 1)) "${users[$i]}"
	done
	lab_mounts >"$LAB/mounts"
}

lab_keys() {
	mkdir -p "$LAB/keys" /srv/home/.ssh
	chmod 700 /srv/home/.ssh
	[ -f /srv/home/.ssh/id_ed25519 ] && return
	ssh-keygen -q -t ed25519 -N '' -C client -f /srv/home/.ssh/id_ed25519
	ssh-keygen -q -t ed25519 -N '' -C host -f "$LAB/keys/host"
}

lab_worker_start() { # N USER
	local n=$1 user=$2 stage=$LAB/w$1 outer line rc
	LAB_USERS[n]=$user
	mkdir -p "$stage"/{bin,etc,log,dev}
	chmod 777 "$stage/log"
	cp "$LAB_TOOLS/listen-exec" "$stage/bin/"
	[ -n "$LAB_OTHER" ] || cp "$LAB_BIN/concc-worker" "$stage/bin/"
	cp "$LAB/keys/host" "$stage/etc/host_key"
	cp /srv/home/.ssh/id_ed25519.pub "$stage/etc/authorized_keys"
	lab_worker_files "$stage/etc" "w$n"
	mkfifo "$stage/ready"
	# shellcheck disable=SC2094 # the FIFO is read further down
	"$LAB_TOOLS/nsinit" bash "$LAB_REPO/test/lib/worker-host" "$n" "$stage" \
		"$LAB_REPO" "$LAB" "$LAB_HOST_HOME" "${LAB_RUST-}" "$LAB_OTHER" \
		>"$stage/ready" 2>"$stage/log/host.log" </dev/null &
	outer=$!
	LAB_OUTER[n]=$outer
	# The kernel makes network namespaces one by one, also those of other tests' jobs, and takes them down.
	line='' rc=0
	read -r -t $((3 * LAB_LIMIT)) line <"$stage/ready" || rc=$?
	[ "$line" = ready ] ||
		fail "worker $n did not start$([ $rc -le 128 ] || echo " in time"): $(cat "$stage/log/host.log")"
	LAB_INIT[n]=$(lab_children "$outer" | tr -d ' ')
	LAB_LISTEN[n]=$(lab_children "${LAB_INIT[n]}" | tr -d ' ')
	LAB_N=$n
	lab_worker_wire "$n"
	lab_mounts "${LAB_INIT[n]}" >"$stage/mounts"
	lab_worker_temp "$n" >"$stage/temp"
	! lab_worker "$n" test -e "$WS" || fail "worker $n sees the client's workspace"
	! lab_worker "$n" test -e "$LAB_REPO/Makefile" || fail "worker $n sees the repository"
}

# What is the worker's own: accounts and the sshd's configuration.
lab_worker_files() { # DIR NAME
	local show=''
	case ${LAB_RUST-} in '' | /usr) ;; *) show=" CONCC_WORKER_SHOW=$LAB_RUST" ;; esac
	[ -z "$LAB_SANITIZED" ] || show="$show CONCC_SANITIZE_LOG=/mnt/log/sanitizer"
	{
		awk -F: -v OFS=: '$3 == 0 { $6 = "/root"; $7 = "/bin/bash" } 1' /etc/passwd
		echo "$LAB_USER:x:1717:1717::/home/$LAB_USER:/bin/bash"
	} >"$1/passwd"
	{
		cat /etc/group
		echo "$LAB_USER:x:1717:"
	} >"$1/group"
	(
		sed 's/^root:[^:]*:/root:*:/' /etc/shadow
		echo "$LAB_USER:*:19000:0:99999:7:::"
	) >"$1/shadow"
	chmod 600 "$1/shadow"
	cat >"$1/sshd_config" <<-EOF
		HostKey /mnt/etc/host_key
		AuthorizedKeysFile /mnt/etc/authorized_keys
		StrictModes no
		UsePAM no
		PasswordAuthentication no
		KbdInteractiveAuthentication no
		PermitRootLogin yes
		PrintMotd no
		PidFile none
		LogLevel VERBOSE
		ClientAliveInterval 2
		ClientAliveCountMax 3
		SetEnv CONCC_LAB_WORKER=$2$show${LAB_WORKER_ENV:+ $LAB_WORKER_ENV}
	EOF
}

# A cable between the client (10.77.N.1) and the worker (10.77.N.2), and its name for ssh.
lab_worker_wire() { # N
	local n=$1
	ip link add "w$n" type veth peer name eth0 netns "${LAB_INIT[n]}"
	# Its own system may have no such program.
	nsenter -t "${LAB_INIT[n]}" -n -- ip addr add "10.77.$n.2/24" dev eth0
	nsenter -t "${LAB_INIT[n]}" -n -- ip link set eth0 up
	ip addr add "10.77.$n.1/24" dev "w$n"
	ip link set "w$n" up
	cat >>/srv/home/.ssh/config <<-EOF
		Host w$n
			HostName 10.77.$n.2
			User ${LAB_USERS[n]}
	EOF
	echo "10.77.$n.2 $(cut -d' ' -f1,2 "$LAB/keys/host.pub")" >>/srv/home/.ssh/known_hosts
}

lab_worker() { # N CMD...: as root on the worker
	local n=$1
	shift
	nsenter -t "${LAB_INIT[n]}" -m -n -p -u -i -- "$@"
}

# Where nothing may stay when the last connection has ended.
lab_worker_temp() { # N
	lab_worker "$1" find /tmp /var/tmp /run /dev/shm -mindepth 1
}

lab_worker_home() { # N
	[ "${LAB_USERS[$1]}" = root ] && echo /root || echo "/home/${LAB_USERS[$1]}"
}

# Where the worker keeps contents: root's agents are not root, and have no home.
lab_worker_cache() { # N
	[ "${LAB_USERS[$1]}" = root ] && echo /var/cache/concc || echo "$(lab_worker_home "$1")/.cache/concc"
}

lab_worker_keep() { # N: what belongs to the host itself
	echo "${LAB_OUTER[$1]} ${LAB_INIT[$1]} ${LAB_LISTEN[$1]}"
}

# The processes on the worker with this name, as the client's pid namespace numbers them.
lab_worker_pids() { # N NAME
	local pid comm
	for pid in $(lab_descendants "${LAB_INIT[$1]}"); do
		{ read -r comm <"/proc/$pid/comm"; } 2>/dev/null || continue
		[ "$comm" = "${2:0:15}" ] && echo "$pid"
	done
	return 0
}

# Everything on the worker that came with a connection.
lab_worker_jobs() { # N
	local pid keep
	keep=" $(lab_worker_keep "$1") "
	for pid in $(lab_descendants "${LAB_INIT[$1]}"); do
		[[ $keep == *" $pid "* ]] || echo "$pid"
	done
}

# Another cable beside the one that is there, with a length: from now on ssh takes it.
lab_line() { # N RTT_MS
	local ready=''
	[ -e /dev/net/tun ] || skip "/dev/net/tun is missing (modprobe tun)"
	"${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -O2 -o "$LAB/delay-line" "$LAB_REPO/bench/delay-line.c"
	coproc LINE { exec "$LAB/delay-line" $(($2 * 1000)) "${LAB_INIT[$1]}" "far$1"; }
	LAB_LINES+=("$LINE_PID")
	read -r -t "$LAB_LIMIT" ready <&"${LINE[0]}" || true
	[ "$ready" = ready ] || fail "no line to worker $1"
	ip addr add "10.78.$1.1/24" dev "far$1"
	ip link set "far$1" up mtu 1500 txqueuelen 10000
	nsenter -t "${LAB_INIT[$1]}" -n -- ip addr add "10.78.$1.2/24" dev "far$1"
	nsenter -t "${LAB_INIT[$1]}" -n -- ip link set "far$1" up mtu 1500 txqueuelen 10000
	sed -i "s/HostName 10.77.$1.2\$/HostName 10.78.$1.2/" /srv/home/.ssh/config
	echo "10.78.$1.2 $(cut -d' ' -f1,2 "$LAB/keys/host.pub")" >>/srv/home/.ssh/known_hosts
}

lab_lines_end() {
	local pid
	for pid in "${LAB_LINES[@]}"; do
		kill "$pid" && wait "$pid" || true
	done
	LAB_LINES=()
}

# Pulls the cable: from now on packets vanish.
lab_cut() { # N
	ip link set "w$1" down
}

lab_mend() { # N
	ip link set "w$1" up
}

# Ends the connections as a dying sshd does.
lab_hang_up() { # N
	kill -KILL $(lab_worker_pids "$1" sshd)
}

# What the kernel tells of processes that are to go away; they have LAB_LIMIT seconds.
expect_gone() { # WHAT PID...
	local what=$1 left
	shift
	left=$("$LAB_TOOLS/wait-gone" "$LAB_LIMIT" "$@") || {
		lab_describe $left
		fail "$what: still running after $LAB_LIMIT s: ${left//$'\n'/ }"
	}
}

# When it returns, they do nothing more.
lab_suspend() { # PID...
	[ $# -eq 0 ] || "$LAB_TOOLS/stop" "$LAB_LIMIT" "$@"
}

lab_describe() { # PID...
	local pid
	for pid in "$@"; do
		echo "    | $pid $(lab_parent "$pid") $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
	done
}

# Cores of this machine, as concc counts them: a quota of the test's control group, or of one above, as containers
# have it, leaves fewer than nproc(1) says.
lab_nproc() {
	local n quota period kinds group dir
	n=$(nproc)
	while IFS=: read -r _ kinds group; do
		case ,$kinds, in
		,,) dir=/sys/fs/cgroup ;;
		*,cpu,*) dir=/sys/fs/cgroup/cpu ;;
		*) continue ;;
		esac
		while :; do
			quota='' period=''
			if [ -f "$dir$group/cpu.max" ]; then
				read -r quota period <"$dir$group/cpu.max"
			elif [ -f "$dir$group/cpu.cfs_quota_us" ]; then
				read -r quota <"$dir$group/cpu.cfs_quota_us"
				read -r period <"$dir$group/cpu.cfs_period_us"
			fi
			case $quota in
			'' | max | -*) ;;
			*) quota=$(((quota + period - 1) / period)) && n=$((quota < n ? quota : n)) ;;
			esac
			[ -n "$group" ] || break
			group=${group%/*}
		done
	done </proc/self/cgroup
	echo "$n"
}

# A server is ready with its first worker: waits for the others, whose ups are in its log.
lab_all_up() {
	local line='' up=' ' n
	concc-dispatch true || fail "no project server"
	exec 9< <(exec tail -n +1 -f "$CONCC_RUNTIME_DIR/project.log")
	n=$!
	while [ "$(wc -w <<<"$up")" -lt "$LAB_N" ] && read -r -t "$LAB_LIMIT" line <&9; do
		[[ $line =~ worker=([^ ]+)\ up && $up != *" ${BASH_REMATCH[1]} "* ]] && up="$up${BASH_REMATCH[1]} "
	done
	kill "$n"
	exec 9<&-
	[ "$(wc -w <<<"$up")" -eq "$LAB_N" ] || fail "only$up came up"
}

# ---- jobs at chosen places, and jobs that last ----

# Runs the command while the slots of all other workers are taken (with LAB_SLOTS=1).
at_worker() { # N CMD...
	local n=$1 m tokens='' token rc=0
	shift
	for ((m = 1; m <= LAB_N; m++)); do
		[ "$m" -ne "$n" ] || continue
		token=$(concc-worker-pool allocate --only "w$m" --owner "$$") || fail "w$m has no slot"
		tokens="$tokens ${token##* }"
	done
	"$@" || rc=$?
	for token in $tokens; do
		concc-worker-pool release "$token" || fail "can't release $token"
	done
	return $rc
}

# A script that is in the middle of its work for as long as the file $WS/hold exists at its start,
# and that then compiles $WS/a.c.  Output is the same both ways, so that a second try continues it.
lab_slow_job() {
	cp "$LAB_TOOLS/hold" "$WS/holdbin"
	cat >"$WS/slow" <<-'EOF'
		#!/bin/sh
		if [ -e hold ]; then
			exec 3>half
			echo "not whole" >&3
			exec ./holdbin 4
		fi
		echo held
		gcc -g -c a.c -o a.o && echo done
	EOF
	chmod +x "$WS/slow"
	printf '#include <stdio.h>\nint f(void) { return puts("x"); }\n' >"$WS/a.c"
	(cd "$WS" && gcc -g -c a.c -o "$LAB/a.o")
}

# Starts the slow job and returns when it is in the middle; sets SLOW_PID and SLOW_PIDS (what runs
# of it on workers).  Its output goes to $LAB/slow.out and $LAB/slow.err.
lab_slow_start() { # [WRAPPER...]
	local line='' fifo=$LAB/slow.fifo n
	rm -f "$fifo" "$WS/a.o" "$WS/half"
	mkfifo "$fifo"
	touch "$WS/hold"
	cd "$WS"
	CONCC_EXPLAIN=1 "${@:-env}" concc-dispatch ./slow </dev/null \
		> >(tee "$LAB/slow.out" >"$fifo") 2>"$LAB/slow.err" &
	SLOW_PID=$!
	exec 8<"$fifo"
	read -r -t "$LAB_LIMIT" line <&8 || true
	[ "$line" = held ] || fail "the job did not start: $(cat "$LAB/slow.err")"
	SLOW_PIDS=''
	for ((n = 1; n <= LAB_N; n++)); do
		SLOW_PIDS="$SLOW_PIDS $(lab_worker_pids "$n" holdbin)"
	done
	if [ -z "${SLOW_PIDS// /}" ]; then
		cat "$LAB/slow.err"
		lab_slow_end
		fail "the job runs on no worker"
	fi
	# From now on a new try goes through.
	rm "$WS/hold"
}

# Kills it where it is, what it has started first: a command that leaves processes behind is done here.
lab_slow_kill() {
	local pid main='' others=''
	for pid in $SLOW_PIDS; do
		case " ${SLOW_PIDS//$'\n'/ } " in
		*" $(lab_parent "$pid") "*) others="$others $pid" ;;
		*) main="$main $pid" ;;
		esac
	done
	if [ -n "$others" ]; then
		kill -KILL $others
		expect_gone "what the job has started" $others
	fi
	kill -KILL $main
}

# After a failure: the job's processes that run here.
lab_slow_end() {
	local pid
	for pid in $(lab_leftovers); do
		[ "$(cat "/proc/$pid/comm" 2>/dev/null)" != holdbin ] || kill -KILL "$pid"
	done
	exec 8<&-
}

# Waits for its end (bounded by the kernel's word on each process); prints its exit status.
lab_slow_wait() {
	local rc=0
	expect_gone "the wrapper" "$SLOW_PID"
	wait "$SLOW_PID" || rc=$?
	cat <&8 >/dev/null
	exec 8<&-
	SLOW_STATUS=$rc
}

# The job was lost and done again: the right result, said once, nothing half-written or running.
lab_slow_recovered() {
	lab_slow_wait
	cat "$LAB/slow.err"
	expect_eq "exit status" "$SLOW_STATUS" 0
	expect_eq "output" "$(tr '\n' ' ' <"$LAB/slow.out")" "held done "
	expect_same_file "$LAB/a.o" "$WS/a.o"
	expect_no_file "$WS/half"
	expect_gone "the first try" $SLOW_PIDS
}

# Starts a wrapper that waits for a slot, under strace, and returns when it has its place in the queue; sets
# TRACE, a descriptor to be closed.  What it says goes to $LAB/NAME.err.
lab_start_waiting() { # NAME
	local line='' told=''
	mkfifo "$LAB/$1.trace"
	CONCC_EXPLAIN=1 strace -o "$LAB/$1.trace" -s 99 -e trace=sendmsg,fcntl concc-dispatch true "$1" \
		</dev/null 2>"$LAB/$1.err" &
	exec {TRACE}<"$LAB/$1.trace"
	while read -r -t "$LAB_LIMIT" line <&"$TRACE"; do
		case $told$line in
		*waiting*) told=told: ;;
		told:*F_OFD_SETLK*) return ;; # its place in the queue
		esac
	done
	fail "$1 does not wait"
}

# ---- configuration ----

# Writes the configuration: the lines given belong to [concc].  Reads it anew: the server is stopped.
lab_config() { # [LINE...]
	local n
	{
		echo '[concc]'
		echo "workspace = $WS"
		[ $# -eq 0 ] || printf '%s\n' "$@"
		lab_toolchain
		for ((n = 1; n <= LAB_N; n++)); do
			printf '\n[worker w%s]\naddress = ssh://w%s\n' "$n" "$n"
			[ "$LAB_ROOT" = default ] || echo "root = $LAB_ROOT"
			if [ -n "$LAB_OTHER" ]; then
				echo 'install = yes'
			else
				echo 'program = /mnt/bin/concc-worker'
			fi
			echo "slots = $LAB_SLOTS"
		done
	} >/srv/concc.ini
}

# The Rust toolchain where it is not the lab's home that holds it.
lab_toolchain() {
	[ "$LAB_ROOT" != worker ] || return 0
	case ${LAB_RUST-} in '' | /usr) ;; *) echo "toolchain = $LAB_RUST" ;; esac
}

# A value of `concc status --json`: a jq filter, e.g. '.workers[0].jobs'.
lab_status() { # FILTER
	lab_need jq
	concc status --json >"$LAB/status.json" || fail "concc status --json failed"
	jq -er "$1" "$LAB/status.json" || {
		cat "$LAB/status.json"
		fail "concc status --json has no $1"
	}
}

lab_server_pid() {
	lab_client_pids concc-project
}

# Processes of the lab with this name; none that has ended, whose parent has not seen that yet: it has no words.
lab_client_pids() { # NAME
	local pid comm
	for pid in /proc/[0-9]*; do
		{ read -r comm <"$pid/comm"; } 2>/dev/null || continue
		[ "$comm" = "${1:0:15}" ] || continue
		{ read -r -d '' _ <"$pid/cmdline"; } 2>/dev/null && echo "${pid#/proc/}"
	done
	return 0
}

# strace(1) tells a call in two lines when another thread makes one meanwhile.
whole_calls() {
	awk '{ pid = $1 }
		sub(/ <unfinished [.][.][.]>$/, "") { begun[pid] = $0; next }
		match($0, /<[.][.][.] [a-z0-9_]+ resumed>/) {
			$0 = begun[pid] substr($0, RSTART + RLENGTH)
			delete begun[pid]
		}
		{ print }
		END { for (pid in begun) print begun[pid] }'
}

LAB_STRACE=() # options of strace(1)

# How many system calls the process makes, with all it starts, while the command runs; each is a line of $LAB/strace.
lab_syscalls() { # PID CMD...
	local pid=$1 line tracer
	shift
	coproc TRACER { exec strace -f "${LAB_STRACE[@]}" -o "$LAB/strace" -p "$pid" 2>&1; }
	tracer=$TRACER_PID
	read -r -t "$LAB_LIMIT" line <&"${TRACER[0]}" || true
	case $line in *attached*) ;; *) fail "strace: $line" ;; esac
	"$@"
	kill -INT "$tracer"
	wait "$tracer" || true
	whole_calls <"$LAB/strace" >"$LAB/strace.whole"
	mv "$LAB/strace.whole" "$LAB/strace"
	grep -c '(' "$LAB/strace"
}

# ---- the end ----

lab_stop_server() {
	local pid
	pid=$(lab_server_pid)
	[ -n "$pid" ] || return 0
	concc stop || fail "concc stop failed"
	expect_gone "the project server after concc stop" $pid
}

# What a server has started on workers ends after it, when their sshd has told them: agents, and the shells of
# those that are put there, or do without.
lab_agents_gone() {
	local n pids
	for ((n = 1; n <= LAB_N; n++)); do
		pids=$(lab_worker_jobs "$n")
		[ -z "$pids" ] || expect_gone "what came to w$n with a connection" $pids
	done
}

# For who measures.  Where ext4 has no journal, to make a file is to look at each inode that was freed lately
# (find_inode_bit() in fs/ext4/ialloc.c): after some `rm` half a millisecond, whoever makes it.
lab_workspace_in_memory() {
	mount -t tmpfs none "$WS"
	lab_mounts >"$LAB/mounts"
}

# Stops all and looks for what may be left.  Fails the test when something is.
lab_stop() {
	local n left
	lab_stop_server
	lab_lines_end
	left=$(lab_leftovers)
	[ -z "$left" ] || expect_gone "left after concc stop" $left
	lab_mounts | lab_added "$LAB/mounts" || fail "mounts left on the client"
	for ((n = 1; n <= LAB_N; n++)); do
		lab_mounts "${LAB_INIT[n]}" | lab_added "$LAB/w$n/mounts" || fail "mounts left on w$n"
		lab_worker_temp "$n" | lab_added "$LAB/w$n/temp" || fail "files left on w$n"
	done
	left=$(find /srv -name '.concc-tmp-*' -o -path '/srv/run/*' -type s)
	[ -z "$left" ] || fail "files left on the client: $left"
	left=$(lab_cores)
	[ -z "$left" ] || fail "core dumps: $left"
	lab_workers_end
	[ "$LAB_CHECKS_FAILED" -eq 0 ] || fail "$LAB_CHECKS_FAILED checks failed"
	LAB_DONE=1
}

# Fails when there are lines that the file does not have.  What others on this machine take away
# meanwhile (a container's mount) is nothing of ours.
lab_added() { # FILE
	! grep -Fxv -f "$1" -
}

lab_cores() {
	find /srv "$LAB"/w* / -maxdepth 4 -xdev \( -name core -o -name 'core.[0-9]*' \) -type f \
		-newer "$LAB/started" 2>/dev/null | grep -v '^/proc' || true
}

lab_workers_end() {
	local n
	for ((n = 1; n <= LAB_N; n++)); do
		kill -TERM "${LAB_OUTER[n]}" 2>/dev/null || true
		wait "${LAB_OUTER[n]}" 2>/dev/null || true
	done
	LAB_N=0
}

# Logs that tell why, when the test did not reach its end.
lab_logs() {
	local f
	for f in /srv/run/*.log /srv/cache/*.log "$LAB"/w*/log/* "$LAB"/sanitizer.*; do
		[ -s "$f" ] || continue
		echo "--- the end of $f"
		tail -n "$([[ $f == */sshd.log ]] && echo 8 || echo 40)" "$f"
	done
}

# The lab has this machine's own /etc and /usr: who installs packages meanwhile changes what kept results
# are made of, and an account that is added takes away the lab's password file, which lies over the old one.
lab_changed_meanwhile() {
	local file
	[ -e "$LAB/started" ] || return 0
	mountpoint -q /etc/passwd || echo "somebody replaced /etc/passwd on this machine meanwhile"
	for file in /etc/group /etc/ld.so.cache /var/lib/dpkg/status; do
		[ ! "$file" -nt "$LAB/started" ] || echo "somebody changed $file on this machine meanwhile"
	done
}

lab_exit() {
	local rc=$?
	trap - EXIT
	trap '' PIPE
	if [ $rc -eq 0 ] && [ -z "${LAB_DONE-}" ]; then
		echo "FAIL: the test ended without lab_stop" >&2
		rc=1
	fi
	if [ $rc -ne 0 ] && [ $rc -ne 77 ]; then
		lab_describe $(lab_leftovers)
		lab_logs
		lab_changed_meanwhile
	fi >&2
	# A failed test ends by force: nsinit would only repeat what is known.
	if [ $rc -ne 0 ]; then
		kill -KILL $(lab_leftovers) 2>/dev/null || true
	fi
	lab_workers_end
	cd /
	umount -l /etc/passwd /srv "$LAB/srv" 2>/dev/null || true
	[ -z "${LAB_OWN_TMP-}" ] || umount -l /tmp # with what of the lab was mounted in it
	if [ -z "$LAB_KEEP" ]; then
		rm -rf --one-file-system "$LAB"
	fi
	exit $rc
}
