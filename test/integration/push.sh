#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A worker that has nothing of ours: `concc push` puts concc-worker there, `install = yes` has the
# link do it, by both ways of ssh, and whatever is in the way is told with what to do.
# limit: 240
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq
LAB_ROOT=default
lab_enter "$@"
! readelf -l "$LAB_BIN/concc-worker" | grep -q INTERP ||
	skip "concc-worker is not static here (SANITIZE= or STATIC=), so it is not to be pushed"
lab_start builder root
HASH=$(sha256sum <"$LAB_BIN/concc-worker" | cut -c1-64)
MB=$(awk -v n="$(stat -c %s "$LAB_BIN/concc-worker")" 'BEGIN { printf "%.1f", n / 1e6 }')
THERE=/home/builder/.cache/concc
FILE=$THERE/concc-worker-${HASH:0:16}

config() { # [LINE...]: of w1, alone
	concc stop 2>/dev/null || true
	{
		printf '[concc]\nworkspace = %s\n' "$WS"
		lab_toolchain
		printf '\n[worker w1]\naddress = ssh://w1\nslots = 2\n'
		[ $# -eq 0 ] || printf '%s\n' "$@"
	} >/srv/concc.ini
}

# What is put there could be replaced before it is run, and so could what is there.
others_write() {
	config 'install = yes'
	forget
	push 0 'w1'
	lab_worker 1 chmod 0777 "$THERE"
	push 1 'not yours alone.*chmod go-w'
	lab_worker 1 rm -f "$FILE"
	push 1 'not yours alone.*chmod go-w'
	lab_worker 1 test ! -e "$FILE" || fail "it was put there all the same"
	lab_worker 1 chmod go-w "$THERE"
	push 0 'w1'
}

another_users() {
	forget
	lab_worker 1 chown 1718 "$THERE"
	push 1 'not yours alone|ermission denied'
	lab_worker 1 chown 1717 "$THERE"
	push 0 'w1'
}

# The store stays, or each check would fetch the compiler anew.
forget() {
	concc stop 2>/dev/null || true
	lab_agents_gone
	lab_worker 1 sh -c "rm -f $THERE/*concc-worker*"
}

push() { # STATUS PATTERN [WORKER...]
	local status=$1 pattern=$2 rc=0
	shift 2
	concc push "${@:-w1}" >"$LAB/push.out" 2>&1 || rc=$?
	cat "$LAB/push.out"
	expect_eq "exit status of concc push" "$rc" "$status"
	expect_grep "$pattern" "$LAB/push.out"
}

is_whole() {
	expect_eq "hash there" "$(lab_worker 1 sha256sum "$FILE" | cut -c1-64)" "$HASH"
	expect_eq "files there" "$(lab_worker 1 find "$THERE" -maxdepth 1 -type f -name '*concc-worker*')" "$FILE"
	expect_eq "owner and mode" "$(lab_worker 1 stat -c '%u %a' "$FILE")" "1717 755"
}

compiles() { # PATTERN-OF-HOW
	printf '#include <stdio.h>\nint f(void) { return puts("x"); }\n' >a.c
	gcc -g -c a.c -o "$LAB/a.o"
	rm -f a.o
	CONCC_EXPLAIN=1 concc-cc gcc -g -c a.c -o a.o 2>"$LAB/err" || { cat "$LAB/err"; fail "gcc"; }
	cat "$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
	expect_same_file "$LAB/a.o" a.o
	expect_grep "$1" <(concc status)
}

stays_here() { # PATTERN...: why w1 can't be used
	local p
	printf 'int f(void) { return 1; }\n' >a.c
	CONCC_EXPLAIN=1 concc-cc gcc -c a.c -o a.o 2>"$LAB/err"
	for p in "$@"; do
		expect_grep "^concc: local: no-worker .*$p" "$LAB/err"
	done
}

remedies() {
	config
	stays_here 'concc-worker: not found' '`concc push w1` puts this one there, as does `install = yes`'
}

pushed_once() { # SSH
	forget
	config "ssh = $1"
	push 0 "^w1: pushed $MB MB to $FILE$"
	is_whole
	push 0 "^w1: is there already: $FILE$"
	compiles "w1.*$1"
}

# No section, no configuration at all: a host, as ssh(1) takes it, and several at once.
by_host() {
	forget
	: >/srv/concc.ini
	lab_worker 1 rm -rf /home/builder/.cache
	lab_worker 2 rm -rf /root/.cache/concc
	push 0 "^w1: pushed $MB MB" w1 ssh://root@10.77.2.2
	expect_grep "^10.77.2.2: pushed $MB MB to /root/" "$LAB/push.out"
	push 1 "^w1: is there already" w1 no-such-host.invalid
	expect_grep '^no-such-host.invalid: failed: .*no-such-host.invalid' "$LAB/push.out"
	expect_status 100 concc push
}

# Without a section: what is advised is typed as it stands, and helps.
advised() { # WORKER, as -w takes it
	local advice
	concc stop 2>/dev/null || true
	concc run -w "$1" -- true >/dev/null 2>"$LAB/err"
	cat "$LAB/err"
	expect_no_grep 'in its section' "$LAB/err"
	advice=$(sed -n 's/.*; `\(concc push [^`]*\)` puts this one there$/\1/p' "$LAB/err")
	expect_eq "advice" "$advice" "concc push $1"
	concc doctor "$1" >"$LAB/out" || true
	expect_grep "^ +concc push $1\$" "$LAB/out"
	sh -c "$advice" || fail "$advice"
	concc run -w "$1" -- true >/dev/null 2>"$LAB/err"
	expect_no_grep "can't be used" "$LAB/err"
}

by_other_names() {
	forget
	lab_worker 2 rm -rf /root/.cache/concc
	config
	advised builder@10.77.1.2:22
	printf '[worker w2]\naddress = ssh://builder@w2\n' >/srv/concc.ini
	advised root@w2
	lab_worker 2 rm -rf /root/.cache/concc
	advised ssh://root@10.77.2.2
}

# An agent of root is not root, and finds its file all the same.
root_too() {
	concc stop 2>/dev/null || true
	printf '[concc]\nworkspace = %s\n[worker w2]\naddress = ssh://w2\nroot = worker\nslots = 1\n' "$WS" >/srv/concc.ini
	push 0 "^w2: (pushed|is there)" w2
	compiles w2
	expect_grep "/root/.cache/concc/concc-worker-" <(lab_worker 2 sh -c 'ls -l /proc/[0-9]*/exe' 2>/dev/null)
}

installed() { # SSH
	forget
	config "ssh = $1" 'install = yes'
	compiles "w1.*concc-worker pushed $MB MB to $FILE"
	is_whole
	config "ssh = $1" 'install = yes'
	compiles "w1.*concc-worker is there already: $FILE"
}

# What lies there under the name is not what it says: it is not run, and is replaced.
# Beside it: a worker that is being tried, or was told to end, may still run.
damage() { # COMMAND ON $FILE.x
	lab_worker 1 sh -c "cp -p $FILE $FILE.x && $1 && mv $FILE.x $FILE"
}

damaged() {
	forget
	config
	push 0 "pushed"
	damage "truncate -s 1000000 $FILE.x"
	stays_here 'concc push w1'
	push 0 "^w1: pushed $MB MB"
	is_whole
	damage "printf x | dd of=$FILE.x bs=1 seek=100 conv=notrunc status=none"
	config 'install = yes'
	compiles 'pushed'
	is_whole
	concc stop
	damage "printf '#!/bin/sh\\necho started >$THERE/started\\n' >$FILE.x"
	config
	stays_here 'concc push w1'
	lab_worker 1 test ! -e "$THERE/started" || fail "a file of another's was started"
}

# Another version in PATH: the pushed one goes before it.
before_path() {
	forget
	lab_worker 1 sh -c 'printf "#!/bin/sh\nprintf \"\\nCONCC-LINK/9\\n\"; exec cat\n" >/usr/local/bin/concc-worker; chmod 755 /usr/local/bin/concc-worker'
	config
	stays_here 'another version.*`concc push w1` puts this one there'
	config
	push 0 "^w1: pushed"
	compiles w1
	concc stop
	forget
	lab_worker 1 sh -c "cp /mnt/bin/concc-worker /usr/local/bin/new; mv /usr/local/bin/new /usr/local/bin/concc-worker"
	push 0 "^w1: is there already: /usr/local/bin/concc-worker$"
	config 'install = yes'
	compiles "is there already: /usr/local/bin/concc-worker"
}

in_the_way() { # PATTERN SETUP...: w1 is told of, by push and by install
	local pattern=$1
	shift
	forget
	config
	lab_worker 1 sh -c "$*"
	push 1 "^w1: failed: ssh://w1: concc-worker could not be put there: .*$pattern"
	expect_eq "left there" "$(lab_worker 1 sh -c "find $THERE -name '*concc-worker*' 2>/dev/null")" ''
	config 'install = yes'
	stays_here "$pattern"
}

full_disk() {
	in_the_way 'No space left' "mkdir -p /home/builder/.cache; mount -t tmpfs -o size=1m,uid=1717 lab-full /home/builder/.cache"
	concc stop
	lab_agents_gone
	lab_worker 1 umount /home/builder/.cache
}

read_only() {
	in_the_way 'Read-only file system' "mount -t tmpfs -o ro,uid=1717 lab-ro /home/builder/.cache"
	concc stop
	lab_agents_gone
	lab_worker 1 umount /home/builder/.cache
}

no_exec() {
	in_the_way 'it does not run there: .*Permission denied' "mount -t tmpfs -o noexec,uid=1717 lab-noexec /home/builder/.cache"
	concc stop
	lab_agents_gone
	lab_worker 1 umount /home/builder/.cache
}

no_sha256sum() {
	in_the_way 'no sha256sum to check' "printf '' >/mnt/empty; mount --bind /mnt/empty /usr/bin/sha256sum"
	concc stop
	lab_agents_gone
	lab_worker 1 umount /usr/bin/sha256sum
}

other_machine() {
	lab_worker 1 sh -c 'printf "#!/bin/sh\necho vax\n" >/mnt/uname; chmod 755 /mnt/uname; mount --bind /mnt/uname /usr/bin/uname'
	in_the_way "it is a vax machine and this is $(uname -m)" true
	concc stop
	lab_agents_gone
	lab_worker 1 umount /usr/bin/uname
}

# The connection goes in the middle: nothing half is left, and the next try is whole.
cut_off() {
	forget
	config
	lab_worker 1 sh -c 'printf "#!/bin/sh\nexec pkill -KILL -u builder sshd\n" >/mnt/head; chmod 755 /mnt/head; mount --bind /mnt/head /usr/bin/head'
	push 1 '^w1: failed: ssh://w1: '
	lab_worker 1 umount /usr/bin/head
	expect_gone "the script" $(lab_worker_jobs 1)
	expect_eq "left there" "$(lab_worker 1 sh -c "find $THERE -name '*concc-worker*'")" ''
	push 0 "^w1: pushed $MB MB"
}

dynamic() {
	mkdir -p /srv/bin
	cp "$LAB_BIN"/concc* /srv/bin/
	cp /bin/true /srv/bin/concc-worker
	forget
	config
	PATH=/srv/bin:$PATH push 1 "^w1: failed: /srv/bin/concc-worker is linked to this machine's libraries"
}

refusals() {
	config 'program = /mnt/bin/concc-worker'
	push 1 '^w1: failed: its `program` is what runs there'
	compiles w1
	config 'program = /mnt/bin/concc-worker' 'install = yes'
	push 1 'install = yes puts .*remove it, or program'
	push 100 'push takes names' --force
}

# Nothing of the client's but the file.
no_credentials() {
	forget
	config 'install = yes'
	compiles pushed
	lab_worker 1 find /home/builder -newer /mnt/ready -type f ! -path '*/concc/store/*' >"$LAB/new"
	expect_eq "files outside of the cache" "$(grep -v "^$THERE/" "$LAB/new" || true)" ''
	expect_no_grep . <(lab_worker 1 grep -rlF "$(sed -n 3p /srv/home/.ssh/id_ed25519)" /home/builder)
	expect_eq "files there" "$(lab_worker 1 find "$THERE" -maxdepth 1 -name '*concc-worker*' -printf '%f ')" "${FILE##*/} "
}

cd "$WS"
check "without it the message names both remedies" remedies
check "push to hosts without a section" by_host
check "a host by other names than its section" by_other_names
check "push, and push again, by libssh2" pushed_once libssh2
check "push, and push again, by openssh" pushed_once openssh
check "push to root" root_too
check "install = yes from nothing, by libssh2" installed libssh2
check "install = yes from nothing, by openssh" installed openssh
check "a damaged file is not run but replaced" damaged
check "what was pushed goes before the one in PATH" before_path
lab_worker 1 rm -f /usr/local/bin/concc-worker
check "a directory that others may write to" others_write
check "a directory of another user" another_users
check "full disk" full_disk
check "read-only home" read_only
check "home without execution" no_exec
check "no sha256sum" no_sha256sum
check "another architecture" other_machine
check "a connection that ends within" cut_off
check "a dynamically linked one is not pushed" dynamic
check "program, and wrong words" refusals
check "the file is all that goes there" no_credentials
concc stop 2>/dev/null || true
lab_stop
