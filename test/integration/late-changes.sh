#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Files that change after somebody was told of them: results that were on their way when the job
# wrote something else, files that grow while a worker fetches them, and workspaces that move.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need jq strace
lab_enter "$@"
lab_start builder
lab_config
cp "$LAB_TOOLS/hold" "$WS/holdbin"
cd "$WS"

# Says more than a pipe holds: when it goes on, its agent has looked at what it made before that.
cat >said <<'EOS'
head -c 200000 /dev/zero | tr '\0' x
echo
EOS

run() { # SCRIPT
	CONCC_EXPLAIN=1 timeout "$LAB_LIMIT" concc-dispatch sh -c "$1" </dev/null >"$LAB/out" 2>"$LAB/explain" ||
		fail "exit status $?: $(cat "$LAB/explain")"
	cat "$LAB/explain"
}

still_there() {
	run 'echo still here'
	expect_grep '^concc: remote on w1$' "$LAB/explain"
	expect_no_grep 'was lost' "$LAB/explain"
}

# Its end is queued behind the bytes that are gone; nothing leaves before that, since sshd stands still.
truncated() {
	local line sshd pid status=0
	cat >late <<-'EOS'
		#!/bin/sh
		[ -e again ] && echo short >result && exit
		say() { head -c "$1" /dev/zero | tr '\0' x >&2; }
		say 1 # from now on nothing has to be fetched
		trap : USR1
		./holdbin >/dev/null &
		echo held
		wait
		kill $!
		head -c 3000000 /dev/urandom >result
		say 200000
		echo short >result
	EOS
	chmod +x late
	rm -f held && mkfifo held
	CONCC_EXPLAIN=1 timeout "$LAB_LIMIT" concc-dispatch ./late </dev/null >held 2>"$LAB/explain" &
	exec 7<held
	read -r -t "$LAB_LIMIT" line <&7 || fail "the job did not start: $(cat "$LAB/explain")"
	touch again
	pid=$(lab_worker_pids 1 late | head -n 1) # what it forked may have its name yet
	sshd=$(lab_parent "$(lab_agent_pid 1)")
	lab_suspend "$sshd"
	kill -USR1 "$pid"
	expect_gone "the job" "$pid"
	kill -CONT "$sshd"
	wait $! || status=$?
	exec 7<&-
	tail -c 1000 "$LAB/explain"
	expect_eq "exit status" "$status" 0
	expect_eq "the result" "$(cat result)" short
	still_there
}

# What it prints is not shown at once, and not at all where it is done again: here it prints something else.
# What it says and its end come together, since sshd stands still.
printed() {
	local cat job sshd pid status=0
	printf '#!/bin/sh\necho x >m/f\ns=$?\ncat >/dev/null\necho $s\n' >printed
	chmod +x printed
	mkdir m
	mount -t tmpfs -o ro none m
	rm -f held && mkfifo held
	CONCC_EXPLAIN=1 timeout "$LAB_LIMIT" concc-dispatch ./printed <held >"$LAB/out" 2>"$LAB/explain" &
	pid=$!
	exec 7>held
	head -c 600000 /dev/zero >&7 # more than can be on its way: it runs
	cat=$(lab_worker_pids 1 cat)
	job=$(lab_parent "$cat")
	sshd=$(lab_parent "$(lab_agent_pid 1)")
	lab_suspend "$sshd"
	kill -KILL "$cat"
	expect_gone "the job" "$job"
	kill -CONT "$sshd"
	exec 7>&-
	wait "$pid" || status=$?
	umount m
	cat "$LAB/explain"
	expect_eq "exit status" "$status" 0
	expect_eq "output" "$(cat "$LAB/out")" 2
	expect_grep '^concc: local: ' "$LAB/explain"
	still_there
}

# What comes home is refused, and the job runs here; its agent must not wait for the fifo's writer.
no_file_any_more() {
	run 'mkfifo other; echo first >result; . ./said; mv -f other result'
	[ -p result ] || fail "no fifo: $(ls -l result)"
	rm result
	still_there
}

# Nor may it read what the name leads to now: on the worker, for ever.
elsewhere() {
	cat >exchange <<-'EOS'
		# renameat2() with RENAME_EXCHANGE, so that d is there all the time.
		my ($d, $other) = ("d", "other");
		syscall(316, -100, $d, -100, $other, 2) == 0 or die "renameat2: $!";
	EOS
	run 'mkdir d; echo first >d/zero; ln -s /dev other; . ./said; perl exchange && rm -r other'
	expect_eq "the result" "$(readlink d)" /dev
	rm d
	still_there
}

# A log that something here writes to, while it is on its way to a job.
growing() {
	local pid status=0
	head -c 20000000 /dev/urandom >log
	still_there
	fault_inject "$(lab_own_server)" preadv2:delay_enter=20000:when=1+
	CONCC_EXPLAIN=1 timeout "$LAB_LIMIT" concc-dispatch sh -c 'cat log | wc -c' \
		</dev/null >"$LAB/out" 2>"$LAB/explain" &
	pid=$!
	fault_traced ' = 65472' # a part of it, no smaller file
	echo more >>log
	fault_inject_no_more
	wait "$pid" || status=$?
	cat "$LAB/explain"
	expect_eq "exit status" "$status" 0
	expect_eq "output" "$(cat "$LAB/out")" 20000005
	still_there
	expect_no_grep ' down: ' /srv/run/project.log
}

# Its current directory moves with it, so to the command nothing has changed; the worker has been told
# that the place is empty before the command goes on.
moved() { # SCRIPT
	local line pid status=0
	rm -rf /srv/o "$LAB/in" "$LAB/said"
	mkdir -p /srv/o/p/sub
	git init -q /srv/o/p
	echo content | tee /srv/o/p/top >/srv/o/p/sub/h
	mkfifo "$LAB/in" "$LAB/said"
	(cd /srv/o/p && CONCC_EXPLAIN=1 exec timeout "$LAB_LIMIT" concc-dispatch sh -c \
		"cat sub/h >/dev/null; ls . sub >/dev/null; echo held; read go; $1") <"$LAB/in" >"$LAB/said" 2>"$LAB/explain" &
	pid=$!
	exec 6>"$LAB/in" 7<"$LAB/said"
	read -r -t "$LAB_LIMIT" line <&7 || fail "the job did not start: $(cat "$LAB/explain")"
	mv /srv/o/p /srv/o/q
	concc-dispatch true
	echo go >&6
	exec 6>&-
	wait "$pid" || status=$?
	cat "$LAB/explain"
	expect_eq "exit status of $1" "$status" 0
	expect_eq "output of $1" "$(cat <&7)" content
	exec 7<&-
	expect_no_file /srv/o/p
}

moved_workspace() {
	moved 'cat sub/h'
	moved 'cat top'
	moved 'echo made >sub/out && cat top'
	expect_eq "the result" "$(cat /srv/o/q/sub/out)" made
	moved 'test ! -e sub/none && cat sub/h'
	moved 'cd sub && cat h'
	moved 'ls sub | grep -qx h && echo content'
}

check "a result that is truncated on its way" truncated
check "what was printed by a job that is done here" printed
check "a result that became a fifo" no_file_any_more
check "a result whose directory leads elsewhere" elsewhere
check "a file that grows while it is fetched" growing
check "a workspace that moves" moved_workspace
lab_stop
