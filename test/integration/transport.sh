#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Transports against a real sshd on loopback: libssh2 itself, every reason to fall back to OpenSSH's
# client, and every refusal with the words a person gets.  Nothing of the user's ~/.ssh is read or
# written: ssh runs with a configuration of its own.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"

LAB=${TRANSPORT_DIR:-${CONCC_TEST_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/concc-test.XXXXXX")}}
PATH=$PATH:/usr/sbin:/sbin
lab_need sshd ssh ssh-keygen ssh-agent pkg-config
USER=$(id -un)
T=$LAB_BUILD/test/link
ECHO=$T/link-echo

# sshd wants its privilege separation directory: a private /run has one.
if [ "$(id -u)" -eq 0 ] && [ -z "${TRANSPORT_INSIDE-}" ]; then
	unshare -m true 2>/dev/null || skip "the kernel refuses a mount namespace"
	TRANSPORT_INSIDE=1 TRANSPORT_DIR=$LAB exec unshare -m bash "$(realpath "$0")" "$@"
fi
if [ "$(id -u)" -eq 0 ]; then
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -m 755 /run/sshd
fi

build() { # NAME LIBRARY...
	local name=$1 src
	shift
	src=$LAB_REPO/test/link/$name.c
	mkdir -p "$T"
	# shellcheck disable=SC2046
	"${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wno-unused-parameter -pthread \
		${SANITIZE:+-fsanitize=$SANITIZE} \
		-I"$LAB_REPO/include" -o "$T/$name.$$" "$src" \
		"$LAB_BUILD"/lib{link,loop,proto,digest,common}.a $(pkg-config --libs "$@" libcrypto)
	mv "$T/$name.$$" "$T/$name"
}

SSHD=
AGENT=
cleanup() {
	local rc=$?
	trap - EXIT
	[ -z "$SSHD" ] || kill "$SSHD" 2>/dev/null || true
	[ -z "$AGENT" ] || kill "$AGENT" 2>/dev/null || true
	[ -n "${CONCC_TEST_DIR-}" ] || rm -rf "$LAB"
	exit $rc
}
trap cleanup EXIT

keys() {
	local t
	for t in ed25519 ecdsa rsa; do
		ssh-keygen -q -t $t -N '' -C "host-$t" -f "$LAB/host_$t"
		ssh-keygen -q -t $t -N '' -C "user-$t" -f "$LAB/id_$t"
	done
	ssh-keygen -q -t ed25519 -N '' -C stranger -f "$LAB/id_stranger"
	ssh-keygen -q -t ed25519 -N secret -C locked -f "$LAB/id_locked"
	cat "$LAB"/id_{ed25519,ecdsa,rsa,locked}.pub >"$LAB/authorized_keys"
}

# A free port is found by trying; sshd says when it listens.
start_sshd() {
	local try line
	cat >"$LAB/sshd_config" <<-CONF
		ListenAddress ::1
		ListenAddress 127.0.0.1
		AuthorizedKeysFile $LAB/authorized_keys
		StrictModes no
		UsePAM no
		PasswordAuthentication no
		KbdInteractiveAuthentication no
		PermitRootLogin yes
		PidFile none
		MaxStartups 100
		Match User typist
			PasswordAuthentication yes
	CONF
	mkfifo "$LAB/sshd.out"
	for try in 1 2 3 4 5 6 7 8; do
		PORT=$((20000 + (RANDOM * 7 + try) % 40000))
		"$(command -v sshd)" -D -e -f "$LAB/sshd_config" -p $PORT -h "$LAB/host_ed25519" \
			-h "$LAB/host_ecdsa" -h "$LAB/host_rsa" 2>"$LAB/sshd.out" &
		SSHD=$!
		exec 9<"$LAB/sshd.out"
		while read -r -t "$LAB_LIMIT" line <&9; do
			case $line in
			*'Bind to port'*failed*'in use'*)
				kill "$SSHD"
				;;
			*'Server listening on 127.0.0.1'*)
				cat <&9 >"$LAB/sshd.log" &
				exec 9<&-
				return
				;;
			esac
		done
		exec 9<&-
		wait "$SSHD" || true
		SSHD=
	done
	fail "sshd does not start: $line"
}

known() { # TYPE [HOST-PATTERN]
	echo "${2:-[127.0.0.1]:$PORT} $(cut -d' ' -f1,2 "$LAB/host_$1.pub")"
}

# The user's side: one configuration, which a check may add to.
setup() { # IDENTITY [LINE...]
	local id=$1
	shift
	cat >"$LAB/ssh_config" <<-CONF
		Host box
			HostName 127.0.0.1
			Port $PORT
		Host *
			IdentityFile $LAB/$id
			UserKnownHostsFile $LAB/known_hosts
			GlobalKnownHostsFile /dev/null
			IdentityAgent none
	CONF
	[ $# -eq 0 ] || printf '%s\n' "$@" >"$LAB/extra"
	[ $# -eq 0 ] || cat "$LAB/extra" "$LAB/ssh_config" >"$LAB/both"
	[ $# -eq 0 ] || mv "$LAB/both" "$LAB/ssh_config"
	known ed25519 >"$LAB/known_hosts"
	cat >"$LAB/ssh" <<-RUN
		#!/bin/sh
		exec ssh -F "$LAB/ssh_config" "\$@"
	RUN
	chmod +x "$LAB/ssh"
}

connect() { # ARGUMENT...: of link-client; its words are in $LAB/out
	local rc=0
	"$T/link-client" -s "$LAB/ssh" -w "$ECHO" "$@" >"$LAB/out" 2>"$LAB/err" || rc=$?
	cat "$LAB/out" "$LAB/err"
	return $rc
}

said() { # PATTERN...
	local p
	for p; do
		expect_grep "$p" "$LAB/out"
	done
}

by_libssh2() {
	setup id_ed25519
	connect -a "ssh://$USER@127.0.0.1:$PORT"
	said '^connected libssh2$' '^echoed'
}

by_ipv6() {
	grep -q " lo$" /proc/net/if_inet6 || skip "this machine has no IPv6"
	setup id_ed25519
	known ed25519 "[::1]:$PORT" >>"$LAB/known_hosts"
	connect -a "ssh://$USER@[::1]:$PORT"
	said '^connected libssh2$' '^echoed'
	setup id_ed25519 'Host six' '	HostName ::1' "	Port $PORT"
	known ed25519 "[::1]:$PORT" >>"$LAB/known_hosts"
	connect -a "ssh://six"
	said '^connected libssh2$' '^echoed'
	setup id_ed25519
	expect_status 1 connect -a "ssh://$USER@[::1]:1"
	said '^failed .*connecting to ::1 port 1: '
}

by_alias() {
	setup id_ecdsa
	# libssh2 1.10 forgets two numbers of each ECDSA signature it makes.
	echo leak:libssh2.so >"$LAB/lsan"
	export ASAN_OPTIONS=fast_unwind_on_malloc=0 LSAN_OPTIONS=suppressions=$LAB/lsan:print_suppressions=0
	connect -a ssh://box -m libssh2
	said '^connected libssh2$' '^echoed'
}

# libssh2 has to be told to ask for the type that is known.
other_key_types() {
	setup id_ed25519
	known ecdsa >"$LAB/known_hosts"
	connect -a ssh://box
	said '^connected libssh2$' '^echoed'
}

hashed_and_patterns() {
	setup id_ed25519
	ssh-keygen -q -H -f "$LAB/known_hosts" >/dev/null 2>&1
	! grep -q 127.0.0.1 "$LAB/known_hosts" || fail "not hashed"
	connect -a ssh://box
	said '^connected libssh2$' '^echoed'
	known ed25519 '[127.0.0.*]:*' >"$LAB/known_hosts"
	connect -a ssh://box
	said '^connected libssh2$'
	known ed25519 127.0.0.1 >"$LAB/known_hosts"
	connect -a ssh://box
	said '^connected libssh2$'
	known ed25519 my-alias >"$LAB/known_hosts"
	echo "HostKeyAlias my-alias" >>"$LAB/ssh_config"
	connect -a ssh://box
	said '^connected libssh2$'
}

by_agent() {
	local out
	out=$(ssh-agent -s -a "$LAB/agent.sock")
	eval "$out" >/dev/null
	AGENT=$SSH_AGENT_PID
	ssh-add -q "$LAB/id_ed25519"
	cp "$LAB/id_ed25519.pub" "$LAB/only_public.pub"
	setup only_public "IdentityAgent $LAB/agent.sock"
	connect -a ssh://box
	said '^connected libssh2$' '^echoed'
	setup only_public
	sed -i '/IdentityAgent/d' "$LAB/ssh_config" # SSH_AUTH_SOCK counts now
	connect -a ssh://box
	said '^connected libssh2$' '^echoed'
	setup id_stranger "IdentityAgent $LAB/agent.sock" "IdentitiesOnly yes"
	expect_status 1 connect -a ssh://box
	said '^failed .*was not let in'
	kill "$AGENT"
}

# Even where the user's configuration forwards the agent to that host.
agent_stays() {
	local out mode
	out=$(ssh-agent -s -a "$LAB/forwarded.sock")
	eval "$out" >/dev/null
	AGENT=$SSH_AGENT_PID
	ssh-add -q "$LAB/id_ed25519"
	setup id_ed25519 "ForwardAgent yes" "ForwardX11 yes" "IdentityAgent $LAB/forwarded.sock"
	printf '#!/bin/sh\necho "${SSH_AUTH_SOCK-none} ${DISPLAY-none}" >%s\nexec %s\n' "$LAB/told" "$ECHO" >"$LAB/tell"
	chmod +x "$LAB/tell"
	# shellcheck disable=SC2016 # the host's variable
	expect_ne "what ssh forwards" "$(ssh -F "$LAB/ssh_config" -o BatchMode=yes box 'echo "$SSH_AUTH_SOCK"')" ""
	for mode in libssh2 openssh; do
		rm -f "$LAB/told"
		connect -a ssh://box -m $mode -w "$LAB/tell"
		said "^connected $mode" '^echoed'
		expect_eq "the agent and display of the worker, by $mode" "$(cat "$LAB/told")" "none none"
	done
	kill "$AGENT"
}

# Both ways at once over one channel, with sockets so small that packets are half sent all the time.
full_duplex() {
	local size
	setup id_ed25519
	for size in 32768 32768 65536 65536 262144 0; do
		connect -a ssh://box -b 50 -n $size
		said '^connected libssh2$' '^echoed 500 bulk, 50 prio' '^overtook 50$'
	done
}

openssh_duplex() {
	setup id_ed25519
	connect -a ssh://box -b 50 -m openssh
	said '^connected openssh: ' '^echoed 500 bulk, 50 prio'
}

falls_back_for() { # REASON
	connect -a ssh://box
	said "^connected openssh: $1" '^echoed'
	expect_status 1 connect -a ssh://box -m libssh2
	said "^failed .*$1.*ssh = auto"
}

rsa_key() {
	setup id_rsa
	falls_back_for '.*rsa-sha2'
}

rsa_host_key() {
	setup id_ed25519
	known rsa >"$LAB/known_hosts"
	falls_back_for 'libssh2 has no algorithm for the known host key'
}

proxy_command() {
	setup id_ed25519 \
		"ProxyCommand bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3'"
	falls_back_for 'ProxyCommand is set'
}

certificate() {
	setup id_ed25519 "CertificateFile $LAB/none-cert.pub"
	falls_back_for 'CertificateFile is set'
}

cipher_list() {
	setup id_ed25519 "Ciphers aes128-gcm@openssh.com"
	falls_back_for 'libssh2 has none of the Ciphers'
}

no_common_kex() {
	setup id_ed25519 "KexAlgorithms sntrup761x25519-sha512@openssh.com"
	falls_back_for 'libssh2 has none of the KexAlgorithms'
}

refused_both_ways() { # PATTERN...: whatever carries it, and never by falling back
	expect_status 1 connect -a ssh://box
	said '^failed' "$@"
	! grep -q openssh "$LAB/out" || fail "it fell back"
	expect_status 1 connect -a ssh://box -m libssh2
	said '^failed' "$@"
}

unknown_host() {
	setup id_ed25519
	: >"$LAB/known_hosts"
	refused_both_ways "no key of host .*127.0.0.1.* is known; it shows ssh-ed25519 SHA256:[A-Za-z0-9+/]{43}" \
		'run .ssh box. once'
	expect_eq "known_hosts" "$(cat "$LAB/known_hosts")" ''
	expect_status 1 connect -a "ssh://$USER@box:$PORT"
	said '^failed' "run .ssh -p $PORT $USER@box. once"
	expect_status 1 connect -a ssh://box -m openssh
	said '^closed .*Host key verification failed'
	expect_eq "known_hosts" "$(cat "$LAB/known_hosts")" ''
}

# What ssh does without asking is done: by ssh, which writes it down.
taken_host() {
	setup id_ed25519 'StrictHostKeyChecking accept-new'
	: >"$LAB/known_hosts"
	expect_status 1 connect -a ssh://box -m libssh2
	said '^failed .*StrictHostKeyChecking lets ssh take an unknown key.*ssh = auto'
	connect -a ssh://box
	said '^connected openssh: StrictHostKeyChecking lets ssh take an unknown key' '^echoed'
	expect_grep ' ssh-ed25519 ' "$LAB/known_hosts"
	connect -a ssh://box || fail "it is known by now"
	! grep -q openssh "$LAB/out" || fail "by ssh, though it is known"
	echo "[127.0.0.1]:$PORT $(cut -d' ' -f1,2 "$LAB/id_stranger.pub")" >"$LAB/known_hosts"
	refused_both_ways 'has CHANGED'
	setup id_ed25519 'StrictHostKeyChecking no' 'UserKnownHostsFile /dev/null'
	falls_back_for 'StrictHostKeyChecking lets ssh take an unknown key'
}

changed_host() {
	local print
	setup id_ed25519
	print=$(ssh-keygen -l -E sha256 -f "$LAB/host_ed25519.pub" | cut -d' ' -f2)
	{
		echo '# a comment'
		echo "[127.0.0.1]:$PORT $(cut -d' ' -f1,2 "$LAB/id_stranger.pub")"
	} >"$LAB/known_hosts"
	refused_both_ways 'has CHANGED' "known_hosts:2" "ssh-keygen -f .* -R '\[127.0.0.1\]:$PORT'"
	grep -qF -- "$print" "$LAB/out" || fail "no $print"
	expect_status 1 connect -a "ssh://$USER@box:$PORT"
	said '^failed' "then .ssh -p $PORT $USER@box. once"
	expect_status 1 connect -a ssh://box -m openssh
	said '^closed .*Host key verification failed'
}

# CheckHostIP: the name's key is right, and another is known of its address.
other_address() {
	setup id_ed25519 'Host name' 'HostName localhost' "Port $PORT" 'AddressFamily inet' 'CheckHostIP yes'
	known ed25519 "[localhost]:$PORT" >"$LAB/known_hosts"
	connect -a ssh://name
	said '^connected libssh2$' '^echoed'
	echo "[127.0.0.1]:$PORT $(cut -d' ' -f1,2 "$LAB/id_stranger.pub")" >>"$LAB/known_hosts"
	connect -a ssh://name # of a loopback address ssh then takes no notice
	said '^connected openssh: CheckHostIP: another key is known of the address'
	expect_status 1 connect -a ssh://name -m libssh2
	said '^failed .*CheckHostIP: another key is known of the address.*ssh = auto'
	sed -i 's/CheckHostIP.*//' "$LAB/ssh_config"
	connect -a ssh://name
	said '^connected libssh2$' '^echoed'
}

revoked_host() {
	setup id_ed25519
	echo "@revoked $(known ed25519)" >>"$LAB/known_hosts"
	refused_both_ways 'is revoked by .*known_hosts:2'
}

no_key() {
	setup id_stranger
	expect_status 1 connect -a ssh://box
	said "^failed .*user $USER was not let in with a key \(tried: $LAB/id_stranger" 'ssh -o BatchMode=yes box true'
	expect_status 1 connect -a "ssh://$USER@box:$PORT"
	said '^failed' "ssh -o BatchMode=yes -p $PORT $USER@box true"
}

# Who asks for a password can be shown a key once; that is what helps, not whether ssh works.
password_only() {
	setup id_stranger
	expect_status 1 connect -a "ssh://typist@box:$PORT"
	said '^failed .*the host takes: publickey,password' "nobody types a password here: .ssh-copy-id -p $PORT typist@box. lets a key in"
	# This one may be the right one, but for its passphrase.
	setup id_locked
	expect_status 1 connect -a ssh://typist@box
	said '^failed .*ssh-add it.*; does .ssh -o BatchMode=yes typist@box true. work'
	setup no_such_key
	expect_status 1 connect -a ssh://typist@box
	said '^failed' 'nobody types a password here: .ssh-keygen., then .ssh-copy-id typist@box. lets'
}

locked_key() {
	setup id_locked
	expect_status 1 connect -a ssh://box
	said '^failed .*id_locked \(needs its passphrase: ssh-add it\)'
	setup id_missing
	expect_status 1 connect -a ssh://box
	said '^failed .*there is no key'
}

wrong_command() {
	local mode
	setup id_ed25519
	for mode in libssh2 openssh; do
		expect_status 1 connect -a ssh://box -m $mode -w concc-worker-of-nowhere
		said "^connected $mode" '^closed .*no concc-worker answered: exit status 127: ".*concc-worker-of-nowhere.*not found' \
			'install concc-worker there'
	done
}

quoted_program() {
	local odd="$LAB/a dir; with 'quotes'"
	setup id_ed25519
	mkdir -p "$odd"
	ln -sf "$ECHO" "$odd/worker \$HOME"
	connect -a ssh://box -w "$odd/worker \$HOME"
	said '^echoed'
	connect -a ssh://box -m openssh -w "$odd/worker \$HOME"
	said '^echoed'
}

refused_port() {
	setup id_ed25519
	expect_status 1 connect -a ssh://127.0.0.1:1
	said '^failed Connection refused: ssh://127.0.0.1:1: connecting to 127.0.0.1 port 1'
	expect_status 1 connect -a ssh://127.0.0.1:1 -m openssh
	said '^closed .*exit status 255: ".*Connection refused'
	expect_status 1 connect -a ssh://nowhere.invalid
	said '^failed .*looking up nowhere.invalid'
}

bad_configuration() {
	setup id_ed25519 "NoSuchOption yes"
	expect_status 1 connect -a ssh://box
	said '^failed .*ssh -G box. failed: .*bad configuration'
}

build link-echo liblz4 libzstd
build link-client libssh2 liblz4 libzstd libcrypto
keys
start_sshd
for c in by_libssh2 by_ipv6 by_alias other_key_types hashed_and_patterns by_agent agent_stays full_duplex openssh_duplex \
	rsa_key rsa_host_key proxy_command certificate cipher_list no_common_kex unknown_host taken_host \
	changed_host other_address revoked_host no_key password_only locked_key wrong_command quoted_program refused_port \
	bad_configuration; do
	check "$c" "$c"
done
[ "$LAB_CHECKS_FAILED" -eq 0 ] || fail "$LAB_CHECKS_FAILED checks failed"
