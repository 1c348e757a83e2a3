# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash disable=SC2046,SC2086,SC2034,SC2016
#
# What can go wrong, one function for each thing, for the tests of the failure matrix and the chaos
# build; after test/lib/lab.sh.  A fault that lasts is undone by fault_heal.

FAULT_STOPPED=''	# processes that were stopped
FAULT_FROZEN=''		# workers that were
SIGKILL=9

# The agent on a worker: the first of its name below the connection.
lab_agent_pid() { # N
	local pid comm
	for pid in $(lab_worker_pids "$1" concc-worker); do
		{ read -r comm <"/proc/$(lab_parent "$pid")/comm"; } 2>/dev/null || continue
		[ "$comm" = concc-worker ] || echo "$pid"
	done
}

# Its launcher: pid 1 of the jobs' namespace, the only child of that name that is its own.
lab_launcher_pid() { # N
	local pid agent
	agent=" $(lab_agent_pid "$1" | tr '\n' ' ')"
	for pid in $(lab_worker_pids "$1" concc-worker); do
		[[ $agent == *" $(lab_parent "$pid") "* ]] && echo "$pid"
	done
	return 0
}

# The project server of this environment: its runtime directory tells.
lab_own_server() {
	local pid
	for pid in $(lab_server_pid); do
		grep -aqz "^CONCC_RUNTIME_DIR=$CONCC_RUNTIME_DIR\$" "/proc/$pid/environ" 2>/dev/null &&
			echo "$pid"
	done
	return 0
}

lab_signal() { # SIGNAL PID...: those that have ended meanwhile are no loss
	local signal=$1
	shift
	[ $# -eq 0 ] || kill "-$signal" "$@" 2>/dev/null || true
}

# ---- by strace ----

# From now on the kernel answers some system calls of the process otherwise, or stops it there:
# strace(1), -e inject.  Options of strace: -e status=none, when nobody reads what it says of each call.
fault_inject() { # PID CALL:WHAT:WHEN [OPTION...]
	coproc TRACER { exec strace -f -e "trace=${2%%:*}" -e "inject=$2" "${@:3}" -p "$1" 2>&1; }
	FAULT_TRACER=$TRACER_PID FAULT_TRACED=$1
	exec 6<&"${TRACER[0]}"
	fault_traced attached
}

# The same for each of the threads that it has now beside its first, and counts for each.
fault_inject_others() { # PID CALL:WHAT:WHEN [OPTION...]
	local tid threads=()
	for tid in "/proc/$1/task/"*; do
		[ "${tid##*/}" = "$1" ] || threads+=(-p "${tid##*/}")
	done
	coproc TRACER { exec strace -e "trace=${2%%:*}" -e "inject=$2" "${@:3}" "${threads[@]}" 2>&1; }
	FAULT_TRACER=$TRACER_PID FAULT_TRACED=$1
	exec 6<&"${TRACER[0]}"
	for tid in "${threads[@]}"; do
		[ "$tid" = -p ] || fault_traced attached
	done
}

# Gone, or sent a SIGKILL: of that the kernel tells as soon as kill(2) returns.  Read by another process: a shell
# whose read can't go back to where it is in the file, since what that tells of has gone, keeps the rest, and the
# next file that it reads begins with that.
fault_dying() { # PID
	local status line
	status=$(cat "/proc/$1/status" 2>/dev/null) || return 0
	while read -r line; do
		case $line in
		State:*[ZX]\ *) return 0 ;;
		SigPnd:* | ShdPnd:*) ! ((16#${line##*[[:space:]]} & 1 << (SIGKILL - 1))) || return 0 ;;
		esac
	done <<<"$status"
	return 1
}

fault_traced() { # TEXT: waits until strace says it
	local line=''
	while read -r -t $LAB_LIMIT line <&6; do
		[[ $line != *"$1"* ]] || return 0
	done
	fail "strace does not say '$1': $line"
}

# A tracer that is to leave a process which is just being killed waits for that one's first thread, and the
# kernel with this one until the tracer has waited for the others: for ever (strace 6.1, detach()).
fault_inject_no_more() {
	if fault_dying "$FAULT_TRACED"; then
		lab_signal KILL "$FAULT_TRACER"
	else
		lab_signal INT "$FAULT_TRACER"
	fi
	wait "$FAULT_TRACER" || true
	exec 6<&-
}

# ---- once ----

fault_wrapper() { # WORKER PICK: one of the running wrappers
	local running
	mapfile -t running < <(lab_client_pids concc-cc)
	[ ${#running[@]} -eq 0 ] || lab_signal KILL "${running[$(($2 % ${#running[@]}))]}"
}

fault_server() { lab_signal KILL $(lab_own_server); }
fault_agent() { lab_signal KILL $(lab_agent_pid "$1"); }
fault_launcher() { lab_signal KILL $(lab_launcher_pid "$1"); }
fault_sshd() { lab_signal KILL $(lab_worker_pids "$1" sshd); }

# What tmpreaper does to files that look old.
fault_tmp_cleaned() { find "$CONCC_RUNTIME_DIR" -mindepth 1 -delete; }

# What is written meanwhile may stay.
fault_cache_client() { rm -rf "$CONCC_CACHE_DIR" 2>/dev/null || true; }

fault_cache_worker() { # N
	lab_worker "$1" sh -c 'rm -rf "$1"/.cache/concc/*' sh "$(lab_worker_home "$1")"
}

# Waits until all workers of this environment's server are up, whose ups are in its log.
fault_recovered() {
	local line='' tail
	exec 9< <(exec tail -n 0 -f "$CONCC_RUNTIME_DIR/project.log")
	tail=$!
	while [ "$(concc status --json | jq '[.workers[] | select(.state != "up")] | length')" -gt 0 ]; do
		read -r -t $LAB_LIMIT line <&9 || fail "a worker does not come back: $(concc status)"
	done
	kill $tail
	exec 9<&-
}

# ---- until healed ----

fault_cut() { lab_cut "$1"; }

# One way only: what the client sends vanishes, or what the worker sends.
fault_cut_to() { ip route replace blackhole "10.77.$1.2/32"; }
fault_cut_from() { lab_worker "$1" ip route replace blackhole "10.77.$1.1/32"; }

# The whole machine stands still, but for its kernel.  Those that answer the other side are waited for, and first:
# a job that waits in the kernel for one of them, or for its child of vfork(2), can't be stopped until that is over.
fault_freeze() { # N
	FAULT_FROZEN="$FAULT_FROZEN $1"
	lab_suspend "${LAB_LISTEN[$1]}" $(lab_worker_pids "$1" sshd) $(lab_agent_pid "$1")
	lab_signal STOP $(lab_worker_jobs "$1")
}

# A laptop that is closed, as far as we are concerned.
fault_suspend() {
	local server wrappers
	server=$(lab_own_server)
	wrappers=$(lab_client_pids concc-cc)
	FAULT_STOPPED="$FAULT_STOPPED $server $wrappers"
	lab_suspend $server
	lab_signal STOP $wrappers
}

fault_store_full() { # N: what holds the worker's cache has no room any more
	local disk used
	disk=$(lab_worker_disk "$1")
	used=$(lab_worker "$1" df -k --output=used "$disk" | tail -n 1)
	lab_worker "$1" mount -o "remount,size=$((used + 64))k" "$disk"
}

lab_worker_disk() { # N: the file system with the user's home
	[ "${LAB_USERS[$1]}" = root ] && echo /root || echo /home
}

fault_thaw() {
	local n
	lab_signal CONT $FAULT_STOPPED
	FAULT_STOPPED=''
	for n in $FAULT_FROZEN; do
		lab_signal CONT "${LAB_LISTEN[n]}" $(lab_worker_jobs "$n")
	done
	FAULT_FROZEN=''
}

fault_heal_worker() { # N
	lab_mend "$1"
	ip route del blackhole "10.77.$1.2/32" 2>/dev/null || true
	lab_worker "$1" ip route del blackhole "10.77.$1.1/32" 2>/dev/null || true
	lab_worker "$1" mount -o remount,size=50% "$(lab_worker_disk "$1")"
}

fault_heal() {
	local n
	fault_thaw
	for ((n = 1; n <= LAB_N; n++)); do
		fault_heal_worker "$n"
	done
}

# Passes so long with the fault; nothing is waited for.
fault_lasts() { # SECONDS
	local never
	read -r -t "$1" never <>"$LAB/never" || true
}
