#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# root = client, the default over ssh: jobs see the client's toolchain and nothing of the worker's
# system; what the client has and does not show runs at home, with a word about it.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq
LAB_ROOT=default
lab_enter "$@"
cp -a /etc/alternatives "$LAB/alternatives"
mount --bind "$LAB/alternatives" /etc/alternatives
# Certificates and keys as an administrator may leave them, and a tree that the user lists.
mkdir -p "$LAB/ssl/certs" "$LAB/ssl/private" "$LAB/skel"
echo conf >"$LAB/ssl/openssl.cnf"
echo '-----BEGIN CERTIFICATE-----' >"$LAB/ssl/certs/ca.pem"
echo '-----BEGIN PRIVATE KEY-----' | tee "$LAB/ssl/certs/site.pem" "$LAB/ssl/private/site" >/dev/null
echo key | tee "$LAB/ssl/certs/site.key" "$LAB/ssl/site" >/dev/null
echo listed >"$LAB/skel/listed"
echo mine >"$LAB/skel/mine"
chmod 600 "$LAB/skel/mine"
mount --bind "$LAB/ssl" /etc/ssl
mount --bind "$LAB/skel" /etc/skel
lab_start builder
mkdir -p /srv/opt/tool /srv/home/opt
printf '#!/bin/sh\necho listed tool\n' >/srv/opt/tool/listed
printf '#!/bin/sh\necho unlisted tool\n' >/srv/home/opt/unlisted
chmod 755 /srv/opt/tool/listed /srv/home/opt/unlisted
lab_config
sed -i "s|^\[concc\]|&\ntoolchain = /srv/opt/tool /etc/skel|; /^toolchain = .*rustup/d" /srv/concc.ini
cd "$WS"

# Runs a command here and by a wrapper, which must run it on the worker with the same result.
same_there() { # NAME CMD...
	local name=$1 rc=0 want=0
	shift
	"$@" >"$LAB/want" 2>&1 || want=$?
	CONCC_EXPLAIN=1 concc-dispatch "$@" >"$LAB/got" 2>"$LAB/err" || rc=$?
	cat "$LAB/err" "$LAB/got"
	expect_eq "remote: $name" "$(explained_remote "$LAB/err")" 1
	expect_eq "status of $name" "$rc" "$want"
	expect_same_file "$LAB/want" "$LAB/got"
}

# The same, at home: by the rule, with a line that matches.
same_here() { # RULE PATTERN CMD...
	local rule=$1 pattern=$2 rc=0 want=0
	shift 2
	"$@" >"$LAB/want" 2>/dev/null || want=$?
	CONCC_EXPLAIN=1 concc-dispatch "$@" >"$LAB/got" 2>"$LAB/err" || rc=$?
	cat "$LAB/err"
	expect_eq "status" "$rc" "$want"
	expect_same_file "$LAB/want" "$LAB/got"
	expect_grep "^concc: local: $rule .*$pattern" "$LAB/err"
}

compiles() {
	printf '#include <stdio.h>\nint f(void) { return puts("x"); }\n' >a.c
	gcc -g -c a.c -o "$LAB/a.o"
	CONCC_EXPLAIN=1 concc-cc gcc -g -c a.c -o a.o 2>"$LAB/err" || { cat "$LAB/err"; fail "gcc"; }
	cat "$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
	expect_same_file "$LAB/a.o" a.o
}

# Files of which each side has its own, at the same path.
nothing_of_the_worker() {
	lab_worker 1 sh -c 'mkdir -p /home/builder/x; echo theirs >/home/builder/x/f'
	lab_worker 1 mount -t tmpfs lab-theirs /usr/games
	lab_worker 1 sh -c 'echo theirs >/usr/games/theirs'
	same_there "the user" getent passwd 0
	same_there "the same /usr" ls /usr/games /usr/include/stdio.h
	same_there "links of the root" sh -c 'readlink /bin /lib; cat /lib64/../lib/os-release'
	same_there "no home of the worker's" sh -c 'cat /home/builder/x/f 2>/dev/null || echo none'
	same_there "alternatives" sh -c 'readlink -f /usr/bin/cc; cc -dumpversion'
	lab_worker 1 umount /usr/games
}

# Other users' names stay here.
user_database() {
	concc-dispatch sh -c 'cat /etc/passwd /etc/group; id -un' >"$LAB/got"
	cat "$LAB/got"
	expect_eq "lines" "$(wc -l <"$LAB/got")" 5
	expect_eq "the user" "$(head -n 1 "$LAB/got")" "$(getent passwd root)"
	expect_grep "^root$" "$LAB/got"
}

# Changes there are seen by the next job.
# ncurses looks there before it looks into /usr.
terminals() {
	[ -d /etc/terminfo ] || skip "there is no /etc/terminfo here"
	same_there "tput" sh -c 'TERM=xterm tput cols; ls /etc/terminfo'
}

# What is in a directory next to what is left out is seen; what is left out, here.
no_keys() {
	same_there "certificates" cat /etc/ssl/openssl.cnf /etc/ssl/certs/ca.pem
	same_there "a listed tree" cat /etc/skel/listed
	local f
	for f in ssl/certs/site.pem ssl/certs/site.key ssl/private ssl/private/site skel/mine; do
		same_here missing "/etc/${f%/site*}.* is outside .*CONCC_DISABLE=1" sh -c "cat /etc/$f 2>/dev/null || ls /etc/$f"
	done
	same_here missing "/etc/ssl/site is outside .* /etc/ssl" sh -c "cat /etc/ssl/site"
	same_here missing "/etc/ssl/certs is outside" ls /etc/ssl/certs
	same_here missing "/etc/skel is outside" ls /etc/skel
	! grep -rEq 'key|KEY|mine' "$CONCC_RUNTIME_DIR/etc/ssl" "$CONCC_RUNTIME_DIR/etc/skel" ||
		fail "a key is in the copy that is served"
	rm "$LAB"/ssl/certs/site.*
	same_there "all of certs" ls /etc/ssl/certs
}

etc_changes() {
	[ "$(readlink /etc/alternatives/concc-lab)" = "" ] || fail "it is there already"
	ln -s /usr/bin/true "$LAB/alternatives/concc-lab"
	same_there "new" readlink /etc/alternatives/concc-lab
	ln -sfn /usr/bin/false "$LAB/alternatives/concc-lab"
	same_there "changed" readlink /etc/alternatives/concc-lab
	rm "$LAB/alternatives/concc-lab"
	same_there "gone" sh -c 'readlink /etc/alternatives/concc-lab || echo gone'
}

outside() {
	same_there "a listed tree" /srv/opt/tool/listed
	same_here unserved "/srv/home/opt/unlisted .*list its tree as a .toolchain" /srv/home/opt/unlisted
	# Which no list would be allowed to have.
	same_here missing "/srv/home/.ssh is outside .*set CONCC_DISABLE=1" sh -c 'cat ~/.ssh/config'
	same_here missing "/etc/shadow is outside" sh -c 'wc -c </etc/shadow'
	same_here unserved "/var/lib/dpkg/status" wc -c /var/lib/dpkg/status
	same_here missing "/var/lib/dpkg is outside" sh -c 'cd /var/lib && wc -c <dpkg/status'
	same_there "what nobody has" sh -c 'test -e /etc/nobody-has || echo none'
}

# The compiler's own failure is an answer.
own_failure() {
	echo 'int f(void) { return missing; }' >bad.c
	CONCC_EXPLAIN=1 expect_status 1 concc-cc gcc -c bad.c -o bad.o 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
	expect_eq "said" "$(grep -c 'missing.*undeclared' "$LAB/err")" 1
}

read_only() {
	rm -f /srv/opt/tool/made
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'touch /srv/opt/tool/made /usr/made 2>/dev/null; echo $?' \
		>"$LAB/got" 2>"$LAB/err"
	cat "$LAB/err" "$LAB/got"
	expect_ne "touch" "$(cat "$LAB/got")" 0
	expect_no_file /srv/opt/tool/made
	expect_no_file /usr/made
}

check "gcc -c" compiles
check "nothing of the worker's system" nothing_of_the_worker
check "a user database of the user" user_database
check "/etc/terminfo" terminals
check "/etc without keys" no_keys
check "/etc changes" etc_changes
check "outside of all trees" outside
check "the compiler's own failure" own_failure
check "trees are read-only" read_only
lab_stop
