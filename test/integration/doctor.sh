#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# `concc doctor`: each thing that can be wrong is broken for real; the right check fails, and what it
# says to type cures it.
# limit: 400
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq python3
LAB_ROOT=default
lab_enter "$@"
lab_start builder root
cd "$WS"

cp -a /srv/home/.ssh "$LAB/ssh"

# Of w1, alone; and nothing is left of what was broken before.
config() { # [LINE...]
	rm -rf /srv/home/.ssh
	cp -a "$LAB/ssh" /srv/home/.ssh
	{
		printf '[concc]\nworkspace = %s\n' "$WS"
		lab_toolchain
		printf '\n[worker w1]\naddress = ssh://w1\nprogram = /mnt/bin/concc-worker\nslots = 2\n'
		[ $# -eq 0 ] || printf '%s\n' "$@"
	} >/srv/concc.ini
}

# What is said of w1, or of the workers named.
doctor() { # STATUS [WORKER...]
	local want=$1 rc=0
	shift
	concc doctor --json "$@" >"$LAB/doctor.json" 2>"$LAB/doctor.err" || rc=$?
	jq -r '.checks[] | "\(.worker) \(.state) \(.check): \(.text) [\(.remedy)]"' "$LAB/doctor.json" ||
		fail "no JSON: $(cat "$LAB/doctor.json" "$LAB/doctor.err")"
	jq -r .verdict "$LAB/doctor.json"
	expect_eq "exit status of concc doctor" "$rc" "$want"
}

# The checks of that state, one in a line.
checks() { # STATE
	jq -r --arg s "$1" '.checks[] | select(.state == $s) | .check' "$LAB/doctor.json"
}

remedy() { # CHECK
	jq -r --arg c "$1" '[.checks[] | select(.check == $c and .state != "ok") | .remedy] | first' "$LAB/doctor.json"
}

text_of() { # CHECK
	jq -r --arg c "$1" '.checks[] | select(.check == $c) | .text' "$LAB/doctor.json"
}

# That check fails and no other; nothing that would bite after it is told of as good.
fails() { # CHECK
	doctor 1
	expect_eq "failed" "$(checks failed)" "$1"
	expect_eq "distributed" "$(jq .distributed "$LAB/doctor.json")" false
}

cured() {
	doctor 0
	expect_eq "failed" "$(checks failed)" ""
}

# Types what was said.
follow() { # CHECK
	local command
	command=$(remedy "$1")
	[ -n "$command" ] || fail "no remedy for $1"
	echo "typed: $command"
	bash -c "$command" </dev/null
}

all_well() {
	local c left
	config
	cured
	for c in configuration "runtime directory" "disk here" "limits here" compiler ssh "host key" key concc-worker version \
		kernel namespaces AppArmor FUSE disk limits clock start toolchain job "round trip"; do
		checks ok | grep -qx "$c" || fail "nothing is said of $c"
	done
	expect_no_file /srv/run/pool # the trial has a server of its own, which has ended
	left=$(lab_server_pid)
	[ -z "$left" ] || expect_gone "the trial's project server" $left
	expect_eq "left in the cache" "$(find /srv/cache -name 'doctor-*')" ""
}

# For a person: a line for each, the remedy below it, and a last line that says it all.
on_terminal() {
	config
	concc doctor >"$LAB/out"
	cat "$LAB/out"
	expect_grep '^  ok       job                compiled there, byte for byte as here$' "$LAB/out"
	expect_eq "last line" "$(tail -n 1 "$LAB/out")" 'builds will be distributed: 1 of 1 worker can be used'
	expect_status 100 concc doctor --nonsense 2>"$LAB/err"
}

# Whatever decides where a build's jobs run, the trial's runs there.
whatever_is_set() {
	config
	lab_line 1 100 # so far that nobody would send a job there
	sed -i 's/^\[concc\]/&\nlocal-slots = 4\nstraggler-after = 1\ncache = 64M/' /srv/concc.ini
	unset CONCC_LOCAL_SLOTS CONCC_STRAGGLER_AFTER
	cured
	expect_grep 'a compile takes [1-9]' <(text_of "round trip")
	CONCC_DISABLE=1 doctor 1
	expect_eq "failed" "$(checks failed)" job
	expect_eq "remedy" "$(remedy job)" "unset CONCC_DISABLE"
	lab_lines_end
	sed -i "s/HostName 10.78.1.2\$/HostName 10.77.1.2/" /srv/home/.ssh/config
}

both() {
	lab_config
	doctor 0
	expect_eq "workers" "$(jq -r '[.checks[].worker] | unique | join(" ")' "$LAB/doctor.json")" " w1 w2"
	sed -i /10.77.1.2/d /srv/home/.ssh/known_hosts
	doctor 0 # one is enough
	expect_grep '1 of 2 workers' <(jq -r .verdict "$LAB/doctor.json")
}

# ---- this machine ----

broken_configuration() {
	config
	printf '[concc]\nworkspace = %s\n[worker w1]\nadress = ssh://w1\n' "$WS" >/srv/concc.ini
	doctor 1
	expect_eq "failed" "$(checks failed)" configuration
	expect_grep '^/srv/concc.ini:4: .*did you mean' <(text_of configuration)
	expect_eq "remedy" "$(remedy configuration)" "\${EDITOR:-vi} +4 /srv/concc.ini"
	# shellcheck disable=SC2016 # the editor's
	printf '#!/bin/sh\nsed -i "${1#+}s/adress/address/" "$2"\n' >"$LAB/editor"
	chmod +x "$LAB/editor"
	EDITOR=$LAB/editor follow configuration
	echo 'program = /mnt/bin/concc-worker' >>/srv/concc.ini
	cured
}

# Each command works when it is typed, whatever the file is called.
odd_names() {
	local dir="$LAB/a b'\$(touch x)" ini
	ini="$dir/c:9.ini"
	config
	mkdir -p "$dir"
	cp /srv/concc.ini "$ini"
	export CONCC_CONFIG=$ini
	echo 'bad = 1' >>"$ini"
	doctor 1
	# shellcheck disable=SC2016 # the editor's
	printf '#!/bin/sh\nsed -i "${1#+}d" "$2"\n' >"$LAB/editor"
	chmod +x "$LAB/editor"
	EDITOR=$LAB/editor follow configuration
	cured
	chmod o+w "$ini"
	doctor 1
	follow configuration
	cured
	: >"$ini"
	doctor 1
	follow configuration
	expect_grep '^address = ssh://HOST' "$ini"
	expect_no_file "$dir/x"
	mkdir -p "$dir/cache"
	chmod 777 "$dir/cache"
	export CONCC_CONFIG=/srv/concc.ini
	CONCC_CACHE_DIR=$dir/cache doctor 1
	follow 'disk here'
	CONCC_CACHE_DIR=$dir/cache doctor 0
	CONCC_CONFIG=$dir doctor 1
	expect_eq "remedy" "$(remedy configuration)" "unset CONCC_CONFIG"
	CONCC_CACHE_DIR=/etc/passwd doctor 1
	expect_eq "remedy" "$(remedy 'disk here' | head -n 1)" "unset CONCC_CACHE_DIR"
}

# Neither a status nor an answer that nobody got is one.
nobody_got_it() {
	local what
	config
	concc-dispatch true # of which there is a report
	for what in status 'status --json' doctor 'doctor --json' report 'report --list' -j cache; do
		# shellcheck disable=SC2086 # words
		expect_status 1 concc $what >/dev/full 2>"$LAB/err"
		expect_grep '^concc: .*No space left on device' "$LAB/err"
		expect_eq "lines about it" "$(wc -l <"$LAB/err")" 1
	done
}

others_may_write() {
	config
	chmod o+w /srv/concc.ini
	doctor 1
	expect_eq "failed" "$(checks failed)" configuration
	follow configuration
	cured
}

no_worker() {
	config
	printf '[concc]\nworkspace = %s\n' "$WS" >/srv/concc.ini
	doctor 1
	expect_eq "failed" "$(checks failed)" configuration
	bash -c "$(remedy configuration | sed s/HOST/w1/g)"
	echo 'program = /mnt/bin/concc-worker' >>/srv/concc.ini
	cured
}

# What is typed has to be possible where there is no home, or it is another's.
no_home_to_write_to() {
	config
	unset CONCC_CONFIG
	HOME=/nowhere doctor 1
	expect_eq "remedy" "$(remedy configuration)" "export CONCC_WORKERS=ssh://HOST"
	mkdir -p "$LAB/ro"
	mount -t tmpfs -o ro none "$LAB/ro"
	HOME=$LAB/ro doctor 1 || { umount "$LAB/ro"; return 1; }
	umount "$LAB/ro"
	expect_eq "remedy" "$(remedy configuration)" "export CONCC_WORKERS=ssh://HOST"
	eval "$(remedy configuration | sed 's|//HOST|//w1|')"
	HOME=/nowhere doctor 1
	expect_eq "what is looked at" "$(jq -r '.checks[].worker' "$LAB/doctor.json" | sort -u | xargs)" w1
}

# Root may read all: another user does the looking, who has a home like ours.
OTHER=4242
other_user() {
	[ ! -e /srv/theirs ] || return 0
	cp -a /srv/home /srv/theirs
	chown -R $OTHER /srv/theirs
	echo "other:x:$OTHER:$OTHER::/srv/theirs:/bin/sh" >>/etc/passwd
}

doctor_of_other() {
	setpriv --reuid $OTHER --regid $OTHER --clear-groups env -u CONCC_CONFIG HOME=/srv/theirs \
		CONCC_RUNTIME_DIR=/srv/theirs/run CONCC_CACHE_DIR=/srv/theirs/cache concc doctor --json "$@" >"$LAB/doctor.json" || true
	jq . "$LAB/doctor.json"
}

not_readable() {
	local ini=/srv/theirs/.concc.ini
	other_user
	install -o $OTHER -m 0 /dev/null "$ini"
	doctor_of_other
	expect_grep "$ini: Permission denied" <(text_of configuration)
	expect_eq "remedy" "$(remedy configuration)" "chmod u+r $ini"
	rm "$ini"
}

runtime_directory() {
	local command
	config
	mkdir -p "$LAB/bad"
	chmod 777 "$LAB/bad"
	CONCC_RUNTIME_DIR=$LAB/bad doctor 1
	expect_eq "failed" "$(checks failed)" "runtime directory"
	command=$(remedy "runtime directory")
	(
		eval "$command"
		cured
		rm -r "$CONCC_RUNTIME_DIR"
	)
}

full_disk_here() {
	config
	mkdir -p "$LAB/full"
	mount -t tmpfs -o size=8m,mode=700 full "$LAB/full"
	CONCC_CACHE_DIR=$LAB/full doctor 1 || { umount "$LAB/full"; return 1; }
	umount "$LAB/full"
	expect_eq "failed" "$(checks failed)" "disk here"
}

# ---- the way there ----

no_key() {
	config
	mv /srv/home/.ssh/id_ed25519 "$LAB/id"
	fails key
	expect_grep '^ssh-keygen .*ssh-copy-id w1$' <(remedy key)
	expect_eq "before it" "$(checks ok | tail -n 2 | tr '\n' ' ')" "ssh host key "
	mv "$LAB/id" /srv/home/.ssh/id_ed25519
	cured
}

# A key that is there and can't be read is not made anew.
unreadable_key() {
	local key=/srv/theirs/.ssh/id_ed25519
	other_user
	chmod 0 "$key"
	doctor_of_other w1
	expect_grep "was not let in with a key .tried: $key .can't be read: Permission denied.;" <(text_of key)
	expect_eq "remedy" "$(remedy key)" "chmod u+r '$key'"
	follow key
	doctor_of_other w1
	expect_eq "key" "$(jq -r '.checks[] | select(.check == "key") | .state' "$LAB/doctor.json")" ok
}

unknown_host_key() {
	config
	rm /srv/home/.ssh/known_hosts
	fails "host key"
	follow "host key"
	cured
}

wrong_host_key() { # SSH
	config "ssh = $1"
	ssh-keygen -q -t ed25519 -N '' -f "$LAB/other-$1"
	echo "10.77.1.2 $(cut -d' ' -f1,2 "$LAB/other-$1.pub")" >/srv/home/.ssh/known_hosts
	fails "host key"
	follow "host key"
	cured
}

dead_agent() {
	config
	SSH_AUTH_SOCK=/nowhere doctor 0
	expect_eq "warnings" "$(checks warning)" "ssh agent"
	expect_grep '^eval .*ssh-agent' <(remedy "ssh agent")
}

no_host() {
	config
	sed -i 's|ssh://w1|ssh://10.77.1.99|; s|slots = 2|&\nconnect-timeout = 2|' /srv/concc.ini
	fails ssh
}

# ---- the worker ----

no_program() {
	config
	sed -i '/^program/d' /srv/concc.ini
	lab_agents_gone
	lab_worker 1 rm -rf /home/builder/.cache
	fails concc-worker
	expect_eq "remedy" "$(remedy concc-worker)" "concc push w1"
	! readelf -l "$LAB_BIN/concc-worker" | grep -q INTERP || return 0
	follow concc-worker
	cured
}

# A login that gets no shell, and has no home, is not cured by another file, whatever it says of files.
no_shell() {
	config
	sed -i '/^program/d' /srv/concc.ini
	cp "$LAB/w1/etc/passwd" "$LAB/passwd"
	sed "s|^\($LAB_USER:.*\):[^:]*:[^:]*$|\1:/nonexistent:/usr/sbin/nologin|" "$LAB/passwd" >"$LAB/w1/etc/passwd"
	doctor 1
	cat "$LAB/passwd" >"$LAB/w1/etc/passwd"
	expect_eq "failed" "$(checks failed)" concc-worker
	expect_grep 'exit status 1: .*/nonexistent: No such file' <(text_of concc-worker)
	expect_no_grep 'concc push' <(text_of concc-worker)
	expect_eq "remedy" "$(remedy concc-worker)" ""
}

# What w1 runs instead: a script around concc-worker.
program() { # LINES
	printf '#!/bin/sh\n%s\n' "$1" >"$LAB/w1/bin/other"
	chmod 755 "$LAB/w1/bin/other"
	config
	sed -i 's|^program.*|program = /mnt/bin/other|' /srv/concc.ini
}

other_version() {
	# The greeting and what every version's HELLO has, of protocol 9999, and then it listens.
	# shellcheck disable=SC2016 # its own
	program 'printf "\nCONCC-LINK/1\n\053\0\0\0\001\0\0\0\017\047\0\0\013\0\0\0concc 9.9.9\006\0\0\0worker\006\0\0\0$(uname -m)"
head -c 4 /dev/zero; exec cat >/dev/null'
	fails version
	expect_grep 'protocol 9999' <(text_of version)
}

# One that says nothing, and one that stops after its greeting, are failures with a reason.
hangs() {
	program 'exec cat >/dev/null'
	fails concc-worker
	program '/mnt/bin/concc-worker --stdio | { head -c 60; exec cat >/dev/null; }'
	doctor 1
	expect_eq "number of failures" "$(checks failed | wc -l)" 1
}

no_fuse() {
	config
	sed -i 's|ssh://w1|ssh://w2|; s/w1/w2/' /srv/concc.ini # whose login can mend it
	lab_worker 2 sh -c 'mv /dev/fuse /dev/fuse.away'
	fails FUSE
	expect_eq "remedy" "$(remedy FUSE)" "ssh w2 'modprobe fuse'"
	lab_worker 2 sh -c 'mv /dev/fuse.away /dev/fuse'
	cured
}

closed_fuse() {
	config
	lab_worker 1 chmod 0600 /dev/fuse
	fails FUSE
	expect_eq "remedy" "$(remedy FUSE)" "ssh -t w1 sudo sh -c 'chmod 0666 /dev/fuse'"
	lab_worker 1 chmod 0666 /dev/fuse
	cured
}

# In a user namespace of its own, whose setting is no one else's.
no_namespaces() {
	program 'exec unshare -Ur sh -c "echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --no-new-privs --bounding-set=-all /mnt/bin/concc-worker --stdio"'
	fails namespaces
	expect_grep "sysctl -w user.max_user_namespaces=15000" <(remedy namespaces)
}

# No namespace has a clock of its own: what the worker says of it is an hour more.
clock_is_off() {
	cat >"$LAB/w1/bin/later" <<-'EOF'
		import os, struct, subprocess, sys
		worker = subprocess.Popen(["/mnt/bin/concc-worker", "--stdio"], stdout=subprocess.PIPE)
		out, read = sys.stdout.buffer, worker.stdout.read
		out.write(read(14))
		while True:
		    head = read(8)
		    if len(head) < 8:
		        break
		    body = read(struct.unpack("<I", head[:4])[0])
		    if head[4] == 32:
		        body = struct.pack("<Q", struct.unpack("<Q", body[:8])[0] + 3600000000) + body[8:]
		    out.write(head + body)
		    out.flush()
	EOF
	program 'exec python3 /mnt/bin/later'
	doctor 0
	expect_eq "warnings" "$(checks warning)" clock
	expect_grep '^is (3599.9|3600.[0-9]) s ahead of ours' <(text_of clock)
	expect_eq "remedy" "$(remedy clock)" "ssh -t w1 sudo sh -c 'timedatectl set-ntp true'"
}

full_disk_there() {
	config
	lab_agents_gone
	lab_worker 1 rm -rf /home/builder/.cache
	lab_worker 1 install -d -o 1717 -g 1717 /home/builder/.cache
	lab_worker 1 mount -t tmpfs -o size=16m,uid=1717,gid=1717,mode=700 full /home/builder/.cache
	lab_worker 1 install -d -o 1717 -g 1717 -m 700 /home/builder/.cache/concc /home/builder/.cache/concc/store
	lab_worker 1 dd if=/dev/zero of=/home/builder/.cache/concc/store/x bs=1M 2>/dev/null || true
	fails disk
	follow disk
	lab_worker 1 test ! -e /home/builder/.cache/concc/store/x || fail "it is still full"
	lab_agents_gone
	lab_worker 1 umount /home/builder/.cache
	cured
}

# What a build says of it: which file, and what would do; the doctor has the same words.
refused_here() {
	local cc what
	cc=$(command -v cc)
	what="its $cc is another version than yours \\($(stat -c %s "$LAB/w1/cc/gcc") bytes with SHA-256 $(sha256sum <"$LAB/w1/cc/gcc" | head -c 12);"
	what="$what yours has $(sha256sum <"$cc" | head -c 12)\\): .root = client. lets it use yours"
	printf 'int f(void) { return 1; }\n' >"$WS/a.c"
	concc-dispatch true # a server that stays
	(cd "$WS" && concc run -- cc -c a.c) >"$LAB/ran" 2>&1 || fail "$(cat "$LAB/ran")"
	cat "$LAB/ran"
	expect_grep "^concc: worker w1 refused the job: $what.*; trying another worker" "$LAB/ran"
	expect_grep '1 of them because something failed .toolchain 1' "$LAB/ran"
	expect_grep 'the rule .toolchain.: root = client lets' "$LAB/ran"
	concc status >"$LAB/status"
	cat "$LAB/status"
	expect_grep "^  worker w1 refused the job: $what" "$LAB/status"
	lab_status '.workers[0].refusal' | expect_grep "$what" /dev/stdin
	concc stop
	doctor 1
	expect_grep "$what" <(text_of toolchain)
}

other_compiler() {
	config 'root = worker'
	mkdir -p "$LAB/w1/cc"
	printf '#!/bin/sh\nexec /usr/bin/gcc-12 -O1 "$@"\n' >"$LAB/w1/cc/gcc"
	chmod 755 "$LAB/w1/cc/gcc"
	lab_worker 1 mount --bind /mnt/cc/gcc "$(readlink -f "$(command -v cc)")"
	refused_here
	fails toolchain
	follow toolchain
	cured
	lab_agents_gone
	lab_worker 1 umount "$(readlink -f "$(command -v cc)")"
}

# Its worker gives what it keeps to the user whom jobs run as.
our_cache_stays_ours() {
	config
	sed -i '/^program = /d; s|^address = .*|address = local:|' /srv/concc.ini
	doctor 0
	expect_eq "owner of the cache" "$(stat -c %u "$CONCC_CACHE_DIR")" "$(id -u)"
}

check "all is well" all_well
check "our cache stays ours" our_cache_stays_ours
check "what a person reads" on_terminal
check "two workers, one of use" both
check "whatever is set" whatever_is_set
check "broken configuration" broken_configuration
check "others may write the configuration" others_may_write
check "files of odd names" odd_names
check "output that can't be written" nobody_got_it
check "no worker is configured" no_worker
check "no home to write to" no_home_to_write_to
check "a configuration that can't be read" not_readable
check "runtime directory of no use" runtime_directory
check "full disk here" full_disk_here
check "no key" no_key
check "a key that can't be read" unreadable_key
check "unknown host key" unknown_host_key
check "wrong host key, libssh2" wrong_host_key libssh2
check "wrong host key, openssh" wrong_host_key openssh
check "agent is dead" dead_agent
check "no such host" no_host
check "no concc-worker there" no_program
check "no shell for the login" no_shell
check "another version" other_version
check "a worker that hangs" hangs
check "no /dev/fuse" no_fuse
check "/dev/fuse is closed" closed_fuse
check "no user namespaces" no_namespaces
check "its clock is off" clock_is_off
check "full disk there" full_disk_there
check "another compiler there" other_compiler
config
lab_stop
