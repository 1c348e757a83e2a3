#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Jobs that try to break out, on a worker that is an ordinary user's (w1) and on root's (w2).
# limit: 180
LAB_SLOTS=2
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_enter "$@"
exec </dev/null
# What a job tries to make where the client could is the client's to make, and the job runs there.
mount -t tmpfs -o ro lab-no-place /mnt
lab_start builder root
lab_config
cp "$LAB_TOOLS/breakout" "$LAB_TOOLS/hold" "$WS/"
cp /usr/bin/id "$WS/setuid-id"
cd "$WS"

for n in 1 2; do
	cp "$LAB_TOOLS/host-things" "$LAB/w$n/"
done

# What a job would like to have: secrets, sockets, queues, a lost daemon's terminal.
for n in 1 2; do
	lab_worker $n sh -c "
		mkdir -p /run/sshd && echo secret >/run/sshd/secret
		for d in /root /home/builder; do echo secret >\$d/.bashrc-of-w; done
		echo secret >/dev/shm/host-shm; chmod 666 /dev/shm/host-shm"
done

on() { # N CMD...
	local n=$1
	shift
	at_worker_slots "$n" env CONCC_EXPLAIN=1 concc-dispatch "$@"
}

# All slots of the other workers are taken meanwhile.
at_worker_slots() { # N CMD...
	local n=$1 m=$((3 - $1)) tokens='' token i rc=0
	shift
	for i in $(seq "$LAB_SLOTS"); do
		token=$(concc-worker-pool allocate --only "w$m" --owner $$) || fail "w$m has no slot"
		tokens="$tokens ${token##* }"
	done
	"$@" || rc=$?
	for token in $tokens; do
		concc-worker-pool release "$token" || true
	done
	return $rc
}

# Sockets and the like of the worker's host, there as long as fd 4 is open.
host_things() { # N
	local line=''
	rm -f "$LAB/things" "$LAB/things.out"
	mkfifo "$LAB/things" "$LAB/things.out"
	lab_worker "$1" /mnt/host-things <"$LAB/things" >"$LAB/things.out" 2>"$LAB/things.err" &
	exec 4>"$LAB/things" 3<"$LAB/things.out"
	read -r -t "$LAB_LIMIT" line <&3 || true
	[ "$line" = ready ] || fail "no such things: $(cat "$LAB/things.err")"
}

breakout() { # N
	lab_all_up
	host_things "$1"
	on "$1" ./breakout ./setuid-id "10.77.$1.2" "10.77.$1.1" >"$LAB/out" 2>"$LAB/err" </dev/null || echo "status $?"
	exec 4>&- 3<&-
	grep -v '^refused' "$LAB/out" || true
	cat "$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
	expect_grep '^done$' "$LAB/out"
	expect_no_grep '^BROKE' "$LAB/out"
	echo "note: $(grep -c ^refused "$LAB/out") attempts refused on w$1"
}

# Two jobs at once, on one worker, as one user: neither sees what the other does.
each_alone() { # N
	rm -f "$LAB/held" && mkfifo "$LAB/held"
	lab_all_up
	at_worker_slots "$1" each_alone_at "$1"
}
each_alone_at() { # N
	local line='' first still
	# Open for writing, it does not come home when it says something.
	concc-dispatch sh -c 'exec 3>a.secret; echo of-a >&3; echo of-a >/tmp/a.secret; exec ./hold' \
		>"$LAB/held" 2>"$LAB/err.a" &
	first=$!
	exec 3<"$LAB/held"
	read -r -t "$LAB_LIMIT" line <&3 || true
	[ "$line" = held ] || fail "no job: $(cat "$LAB/err.a")"
	CONCC_EXPLAIN=1 concc-dispatch sh -c '
		find /run /dev . -maxdepth 4 -name a.secret 2>/dev/null
		# To list /tmp is to ask for the one of the client.
		for d in "" /proc/*/root; do
			ls -d "$d"/tmp/a.secret "$d"/var/tmp/a.secret "$d"/dev/shm/a.secret "$d$PWD/a.secret" 2>/dev/null
		done
		cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\\0" " " | grep -o "[.]/hold"
		trap : TERM; ./breakout --signal-all
		echo end' >"$LAB/out" 2>"$LAB/err" || true
	still=$(lab_worker_pids "$1" hold)
	kill "$first"
	exec 3<&-
	wait
	cat "$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
	expect_eq "what the other sees" "$(cat "$LAB/out")" end
	expect_ne "the first one's processes" "$still" ""
	[ ! -e a.secret ] || fail "a job that was killed left a.secret"
}

# What a machine without udev, or without the module, is told.
no_fuse() { # MODE PATTERN
	lab_stop_server
	lab_worker 1 chmod "$1" /dev/fuse
	concc run -- concc status >"$LAB/status" 2>"$LAB/err" || cat "$LAB/err" # waits for all
	lab_worker 1 chmod 666 /dev/fuse
	lab_stop_server
	expect_grep "$2" "$LAB/status"
}

# A daemon that has left its session, its parent and all descriptors ends with its job, and is there after it
# here.
daemon_left() { # N
	local pid
	printf '#!/bin/sh\n./hold 4 | { read -r line; echo >daemon; }\n' >be-daemon
	chmod +x be-daemon
	on "$1" sh -c '(setsid setsid ./be-daemon </dev/null >/dev/null 2>&1 &) ; echo left' >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: local: no-way-home .*it left processes in the background' "$LAB/err"
	expect_eq "left processes" "$(lab_worker_pids "$1" hold)" ""
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" . daemon || fail "it is not here"
	rm daemon
	for pid in $(lab_client_pids hold); do
		kill -KILL "$pid"
	done
}

# With limits of the configuration; each job says at home that it is there.
limited() { # KEY=VALUE SCRIPT PATTERN
	lab_all_up
	expect_status 0 on 1 sh -c "[ \"\$CONCC_WORKER\" ] || { echo home; exit 0; }; $2" >"$LAB/out" 2>"$LAB/err"
	tail -n 3 "$LAB/err"
	expect_grep "$3" "$LAB/err"
	expect_eq "said" "$(tail -n 1 "$LAB/out")" home
	expect_eq "lines that say so" "$(grep -c '^concc: ' "$LAB/err")" 1
}

# It stays within its limit, and another job beside it is not harmed; nothing of it is left.
bomb() {
	cat >bomb <<-'END'
		#!/bin/sh
		# shellcheck disable=SC2034
		for i in $(seq 2000); do ./hold 1 >/dev/null & done
		wait
	END
	chmod +x bomb
	limited processes './bomb' 'on worker w1 it needs more than 300 processes, the .job-processes.*concc.ini'
	expect_eq "left processes" "$(lab_worker_pids 1 hold)" ""
	expect_status 0 concc-dispatch true
}

unlimited_output() {
	concc-dispatch true
	expect_status 0 on 1 sh -c 'yes concc | head -c 50000000' >"$LAB/out" 2>"$LAB/err"
	expect_eq "bytes" "$(stat -c %s "$LAB/out")" 50000000
}

limits() { # LINE...: of w1
	lab_stop_server
	lab_config
	sed -i "/^\[worker w1\]/a $*" /srv/concc.ini
	}

# Workers in a container that refuses these calls.
refusing() { # NAME[,NAME]
	local n
	lab_stop_server
	for n in 1 2; do
		cp "$LAB_TOOLS/refuse-call" "$LAB/w$n/"
		printf '#!/bin/sh\nexec /mnt/refuse-call %s /mnt/bin/concc-worker "$@"\n' "$1" >"$LAB/w$n/refused-worker"
		chmod +x "$LAB/w$n/refused-worker"
	done
	lab_config
	sed -i 's,^program = .*,program = /mnt/refused-worker,' /srv/concc.ini
}

# The kernel starts what core_pattern names outside, as root; whoever may have been told no core, or any.
no_core_leaves() { # N
	local limit
	lab_stop_server
	echo '|/mnt/cores' >"$LAB/w$1/pattern"
	lab_worker "$1" mount --bind /mnt/pattern /proc/sys/kernel/core_pattern
	lab_config
	lab_all_up
	for limit in 0 unlimited; do
		(ulimit -c $limit && on "$1" grep core /proc/self/limits) >"$LAB/out" 2>"$LAB/err"
		cat "$LAB/err"
		expect_grep '^Max core file size +1 +1 ' "$LAB/out"
	done
	lab_stop_server
	lab_worker "$1" umount /proc/sys/kernel/core_pattern
	lab_config
	lab_all_up
	(ulimit -c 0 && on "$1" grep core /proc/self/limits) >"$LAB/out"
	expect_grep '^Max core file size +0 +0 ' "$LAB/out"
}

# A toolchain in a home that only its owner may enter: with root here its jobs, which are not root, see
# that, and nothing else of the home.
closed_home() {
	lab_stop_server
	mkdir -p /srv/home/tool /srv/home/other
	printf '#!/bin/sh\necho "$1 made it" >"$2"\n' >/srv/home/tool/make-it
	chmod 755 /srv/home/tool/make-it
	echo secret >/srv/home/other/secret
	chmod 700 /srv/home
	printf '[concc]\nworkspace = %s\ntoolchain = ~/tool\n\n[worker here]\naddress = local:\nslots = 1\n' \
		"$WS" >/srv/closed.ini
	export CONCC_CONFIG=/srv/closed.ini CONCC_RUNTIME_DIR=/srv/closed
	CONCC_EXPLAIN=1 concc-dispatch ~/tool/make-it root made 2>"$LAB/closed"
	expect_grep '^concc: remote on here' "$LAB/closed"
	expect_eq "what it made" "$(cat made)" "root made it"
	CONCC_EXPLAIN=1 concc-dispatch sh -c "ls -a /srv/home >seen; cat /srv/home/other/secret" \
		>"$LAB/closed.out" 2>"$LAB/closed"
	expect_grep '^concc: local: missing ' "$LAB/closed"
	concc stop
}

# The filter of system calls is none of the walls, and would end the job at the first attempt.
check "workers without a filter" refusing seccomp
for n in 1 2; do
	check "nothing of the worker is in reach (w$n, ${LAB_USERS[n]})" breakout $n
	sed -n "/^note/p" "$LAB/check.log" 2>/dev/null || true
done
lab_stop_server
lab_config
lab_all_up
for n in 1 2; do
	check "a daemon left behind (w$n)" daemon_left $n
done
for n in 1 2; do
	check "two jobs at once (w$n)" each_alone $n
done
for n in 1 2; do
	check "no core leaves (w$n)" no_core_leaves $n
done
check "unlimited output" unlimited_output
check "limits are read" limits 'job-processes = 300\njob-memory = 100M'
check "a fork bomb" bomb
check "what a lock's holder makes others say" limited processes 'echo "f: Resource temporarily unavailable" >&2; exit 1' \
	'on worker w1 it says that a resource is unavailable for now, .* 300 processes, the .job-processes.*concc.ini'
check "too much memory" limited memory \
	'exec perl -e "\$x = q(x) x 300000000; print length(\$x)"' 'on worker w1 it needs more memory than 100 MB, its .job-memory'
check "another limit" limits 'job-time = 4s'
check "too long" limited time 'exec ./hold 1 >/dev/null' 'on worker w1 it took longer than 4 s, its .job-time'
check "workers without pivot_root" refusing pivot_root,seccomp
for n in 1 2; do
	check "nothing of it is in reach either (w$n, ${LAB_USERS[n]})" breakout $n
done
check "a toolchain in a closed home" closed_home
check "/dev/fuse is root's alone" no_fuse 600 'chmod 0666 /dev/fuse'
for n in 1 2; do
	lab_worker $n rm -f /mnt/host-things /run/sshd/secret /dev/shm/host-shm
done
lab_stop
