#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What a person tries first is distributed: each row of test/first-try/rows is done with nothing
# configured but one worker, once with root = client over ssh and once at `local:`.  Its jobs run on that
# worker, but for those that a rule named in the row keeps here, and it makes what the same command
# makes without concc, byte for byte.  A row that does not do so yet is in test/first-try/fails-today, and
# has to be taken out of there when it does.  In the end there is a table, in Markdown.
#
# With CONCC_TEST_LONG=1 also the rows that need large packages, or long; `make first-try` installs those
# packages and puts the table into doc/first-try.md (--page FILE).
# limit: 240
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_ROOT=default
TRY=$LAB_REPO/test/first-try
COUNTERS=$LAB_BUILD/test/first-try/counters
lab_need git python3
[ -x "$COUNTERS" ] || skip "$COUNTERS is missing: run make test-programs"
lab_enter "$@"
PAGE=
[ "${1-}" != --page ] || PAGE=$2
# shellcheck source=test/first-try/trees
. "$TRY/trees"

# ---- a machine as it was installed, with one worker ----

# As it was installed, but that its user has had a desktop.  /opt is empty, /srv/disk another file system, /srv/read-only a home with nothing but keys; Rust is where rustup puts it.
fresh_machine() {
	mkdir -p "$LAB/opt" "$LAB/plain" /srv/disk /srv/run-client /srv/run-local
	chmod 700 /srv/run-*
	mount --bind "$LAB/opt" /opt
	mount -t tmpfs lab-disk /srv/disk
	# The installer has put its name there, too; Erlang asks for that.
	{ cat /etc/hosts && echo "127.0.1.1 $(uname -n)"; } >"$LAB/hosts"
	mount --bind "$LAB/hosts" /etc/hosts
	mkdir -p ~/.ssh ~/.cache ~/.config ~/.ghc ~/.local/share ~/.local/state /srv/read-only/.ssh
	mount --bind /srv/read-only /srv/read-only
	mount -o remount,ro,bind /srv/read-only
	mount --bind ~/.ssh /srv/read-only/.ssh
	for name in concc concc-cc concc-dispatch; do
		ln -s "$TRY/stand-in" "$LAB/plain/$name"
	done
	export PATH=$LAB_BIN:/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin
	rust_at_home
	git config --global user.name lab
	git config --global user.email lab@localhost
	git config --global init.defaultBranch main
	git config --global protocol.file.allow always
}

rust_at_home() {
	local rustup=${LAB_RUST%/toolchains/*}
	case ${LAB_RUST-} in '' | /usr) return ;; esac
	if [ "$rustup" = "$LAB_RUST" ] || [ ! -x "$LAB_HOST_HOME/.cargo/bin/cargo" ]; then
		PATH=$LAB_RUST/bin:$PATH
		return
	fi
	mkdir -p ~/.rustup ~/.cargo
	mount --bind "$rustup" ~/.rustup
	cp -a "$LAB_HOST_HOME/.cargo/bin" ~/.cargo/bin
	PATH=~/.cargo/bin:$PATH
}

one_worker() {
	printf '[worker w1]\naddress = ssh://w1\nprogram = /mnt/bin/concc-worker\nslots = 4\n' >/srv/client.ini
	printf '[worker here]\naddress = local:\nprogram = %s\nslots = 4\n' "$LAB_BIN/concc-worker" >/srv/local.ini
}

# As the one that the command is run with for that root ("plain": without concc).
as_user_of() { # ROOT CMD...
	local root=$1
	shift
	if [ "$root" = plain ]; then
		PATH=$LAB/plain:$PATH "$@"
		return
	fi
	CONCC_CONFIG=/srv/$root.ini CONCC_RUNTIME_DIR=/srv/run-$root CONCC_EXPLAIN=${CONCC_EXPLAIN-1} "$@"
}

# A server of its own, for rows about what a server finds when it starts, with all at its usual place.
alone() { # CMD...
	local rc=0
	export CONCC_RUNTIME_DIR=${CONCC_RUNTIME_DIR-}.alone
	unset CONCC_CACHE_DIR
	"$@" || rc=$?
	concc stop || true
	return $rc
}
export -f alone

# ---- one row ----

row() { # NAME check|big|slow|like NEEDS MIN-REMOTE RULES SETUP COMMAND
	[ "$2" = check ] || [ -n "${CONCC_TEST_LONG-}" ] || return 0
	[[ $1 =~ ${CONCC_TEST_ONLY-} ]] || return 0
	local root
	NAME=$1 NEEDS=$3 MIN=$4 RULES=$5 SETUP=$6 COMMAND=$7
	D=$HOME/try/$(tr -cs 'A-Za-z0-9\n' - <<<"$NAME")
	R=$LAB/rows/${D##*/}
	[[ $SETUP != on_disk* ]] || D=/srv/disk/${D##*/}
	mkdir -p "$R"
	printf '%s\n' "$NAME" >>"$LAB/rows/names"
	CONCC_TEST_ONLY='' check "$NAME: a plain build" plain_build
	[ -s "$R/plain.products" ] || return 0
	for root in client local; do
		CONCC_TEST_ONLY='' check "$NAME: root = $root" distributed "$root"
	done
	rm -rf "$D" "$R/fresh"
}

# $D/project is where the person is; what belongs beside it is in $D.
plain_build() {
	local need
	for need in $NEEDS; do
		[[ $need == */* ]] || lab_need "$need"
		[[ $need != */* ]] || [ -e "$need" ] || skip "$need is missing"
	done
	rm -rf "$D"
	mkdir -p "$D/project"
	cd "$D/project"
	git init -q
	trap 'echo "FAIL: the set-up failed" >&2' EXIT
	eval "$SETUP"
	trap - EXIT
	cp -a "$D" "$R/fresh"
	build plain
	[ "$(cat "$R/plain.status")" = 0 ] || {
		cat "$R/plain.log"
		fail "it fails without concc, too"
	}
	products plain
	[ -s "$R/plain.products" ] || fail "it makes nothing that could be compared"
}

products() { # ROOT
	"$TRY/products" "$D" "$R/fresh" | sort -k 3 >"$R/$1.products"
}

# Runs the command in a fresh copy of the tree; sets $R/ROOT.status and .log.
build() { # ROOT
	local rc=0
	cd /
	rm -rf "$D" ~/.cache/go-build ~/.cache/ccache
	cp -a "$R/fresh" "$D"
	cd "$D/project"
	as_user_of "$1" bash -c "$COMMAND" >"$R/$1.log" 2>&1 </dev/null || rc=$?
	echo "$rc" >"$R/$1.status"
}

counters() { # ROOT
	local dir
	for dir in /srv/run-"$1" /srv/run-"$1".alone; do
		"$COUNTERS" "$dir/tally"
	done
}

# How many of this kind, and of the names that match (or, with -v, don't).
count() { # KIND [-v] [NAMES-REGEX]
	awk -v kind="$1:" -v names="^(${*: -1})\$" -v no="$([ "${2-}" = -v ] && echo 1)" '
		index($1, kind) == 1 {
			name = substr($1, length(kind) + 1)
			if ((no != "") != (name ~ names))
				n += $2
		}
		END { print n + 0 }' "$R/counters"
}

# Which of them, with numbers.
names_of() { # KIND
	sed -En "s/^($1):([^ ]*) (.*)/\\3 \\2/p" "$R/counters" | grep -v '^0 ' | paste -sd , | sed 's/,/, /g'
}

# Words of a line that says why nothing went through concc; its summary has none of them.
SAID='^concc: .*(\bpath\b|\bPATH\b|through concc|launcher|configured)'

# What became of it: ok, or what is wrong, in a word.
verdict() { # ROOT REMOTE STRAY ALL
	if [ "$(cat "$R/$1.status")" != 0 ]; then
		echo status
	elif ! cmp -s "$R/plain.products" "$R/$1.products"; then
		echo bytes
	elif [[ ,$RULES, == *,said,* ]] && [ "$4" -eq "$(count local query)" ] && grep -Eq "$SAID" "$R/$1.log"; then
		echo ok
	elif [ "$2" -lt "$MIN" ] || [ "$3" -gt 0 ]; then
		echo here
	else
		echo ok
	fi
}

distributed() { # ROOT
	local remote stray all verdict why
	rm -rf /srv/run-"$1"/tally /srv/run-"$1".alone
	build "$1"
	products "$1"
	counters "$1" >"$R/counters"
	remote=$(count remote '.*')
	stray=$(($(count local -v "${RULES//,/|}") + $(count fallback -v "${RULES//,/|}")))
	all=$((remote + $(count local '.*') + $(count fallback '.*')))
	why=$(names_of 'local|fallback')
	verdict=$(verdict "$1" "$remote" "$stray" "$all")
	printf '%s\t' "$verdict" "$remote" "$all" "$why" >"$R/$1.result"
	tell "$1" "$verdict" "$remote of $all remote"
	as_expected "$1" "$verdict"
}

# For the log of the check, and for who wants to know why.
tell() { # ROOT VERDICT NUMBERS
	echo "$NAME, root = $1: $2: $3; stay here: $(names_of 'local|fallback')"
	[ "$2" = ok ] && return
	diff "$R/plain.products" "$R/$1.products" | head -n 6 || true
	grep -h '^concc: ' "$R/$1.log" | sort | uniq -c | sort -rn | head -n 8 | cut -c 1-300
	[ "$2" != status ] || tail -n 12 "$R/$1.log" | cut -c 1-300
}

# Rules that keep jobs here are those that the manual explains.
as_expected() { # ROOT VERDICT
	local rule listed
	for rule in $(sed -n 's/^\(local\|fallback\):\([^ ]*\) .*/\2/p' "$R/counters"); do
		expect_grep "^\\.It Cm $rule\$" "$LAB_REPO/man/concc-cc.1"
	done
	listed=$(awk -F '\t' -v name="$NAME" -v root="$1" \
		'$3 == name && ($1 == root || $1 == "both") { print $2 }' "$TRY/fails-today")
	case $2:$listed in
	ok: | "$listed:$2") ;;
	ok:*) fail "it works: take its line out of test/first-try/fails-today" ;;
	*:) fail "$2, not ok" ;;
	*) fail "$2, not $listed as in test/first-try/fails-today" ;;
	esac
}

# ---- the table ----

cell() { # ROOT: "remote / all", and the rules where some stay here
	local verdict remote all why
	IFS=$'\t' read -r verdict remote all why <"$R/$1.result" || true
	[ -n "${verdict-}" ] || { echo '-' && return; }
	printf '%s / %s' "$remote" "$all"
	[ -z "${why%$'\t'}" ] || printf ' (%s)' "${why%$'\t'}"
	case $verdict in
	ok) [ "$remote" -gt 0 ] || [[ ${why%$'\t'} != @(|+([0-9]) query) ]] || printf ', and it says so' ;;
	status) printf ' **fails**' ;;
	bytes) printf ' **differs**' ;;
	here) printf ' **here**' ;;
	esac
}

table() {
	echo '| What | `root = client`, remote / all | `local:`, remote / all |'
	echo '|---|---|---|'
	while IFS= read -r NAME; do
		R=$LAB/rows/$(tr -cs 'A-Za-z0-9\n' - <<<"$NAME")
		printf '| %s | %s | %s |\n' "$NAME" "$(cell client 2>/dev/null)" "$(cell local 2>/dev/null)"
	done <"$LAB/rows/names"
}

# The page ends with the table.
write_page() {
	sed -i '/^| What /,$d' "$PAGE"
	table >>"$PAGE"
}

fresh_machine
lab_start builder
one_worker
mkdir -p "$LAB/rows"
# shellcheck source=test/first-try/rows
. "$TRY/rows"
table
[ -z "$PAGE" ] || write_page
for root in client local; do
	as_user_of $root concc stop
done
lab_stop
