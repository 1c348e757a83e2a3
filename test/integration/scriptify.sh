#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# concc-scriptify: a script made here repeats the job anywhere, with the same bytes.  No workers.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB=${CONCC_TEST_DIR:-$(mktemp -d)}
[ -n "${CONCC_TEST_DIR-}" ] || trap 'rm -rf "$LAB"' EXIT
scriptify=$LAB_BIN/concc-scriptify
src="$LAB/it's a
dir"
mkdir "$src"
cat >"$src/a b.c" <<'EOF'
#include "h.h"
const char *where = __FILE__ TEXT, *word = WORD;
EOF
echo '#define TEXT "text"' >"$src/h.h"

# Runs a script as a plain ssh worker would: another directory, next to no environment.
elsewhere() { # SCRIPT
	(cd / && exec env -i PATH=/usr/bin:/bin sh "$1")
}

# The compiler's own name, directory, arguments with every kind of quote; -g shows the directory.
same_object() { # COMPILER
	local args=(-g -Wall "-DWORD=\"it's \\\\ \$HOME\"" -MD -MF 'a b.d' -c 'a b.c' -o 'a b.o')
	cd "$src"
	rm -f 'a b.o' 'a b.d'
	"$1" "${args[@]}"
	mv 'a b.o' "$LAB/local.o"
	mv 'a b.d' "$LAB/local.d"
	"$scriptify" "$1" "${args[@]}" >"$LAB/job.sh"
	elsewhere "$LAB/job.sh"
	expect_same_file 'a b.o' "$LAB/local.o"
	expect_same_file 'a b.d' "$LAB/local.d"
}

# CPATH decides what is compiled; the umask the mode of the output; SSH_AUTH_SOCK must stay here.
environment() {
	cd "$src"
	mkdir -p "$LAB/inc"
	echo '#define TEXT "other"' >"$LAB/inc/other.h"
	(
		export CPATH=$LAB/inc SSH_AUTH_SOCK=/here
		umask 027
		"$scriptify" gcc -E -P -include other.h -x c /dev/null -o out.i >"$LAB/job.sh"
	)
	expect_no_grep SSH_AUTH_SOCK "$LAB/job.sh"
	elsewhere "$LAB/job.sh"
	expect_eq "mode" "$(stat -c %a out.i)" 640
	"$scriptify" gcc -E -P -include other.h -x c /dev/null -o out.i >"$LAB/job.sh"
	expect_status 1 elsewhere "$LAB/job.sh"
}

# concc's wrappers are no part of a job, in front of it or in PATH under a compiler's name.
wrappers() {
	cd "$src"
	mkdir -p "$LAB/masq"
	ln -sfn "$LAB_BIN/concc-cc" "$LAB/masq/gcc"
	"$scriptify" gcc -c x.c >"$LAB/want.sh"
	"$scriptify" concc-cc gcc -c x.c >"$LAB/got.sh"
	expect_same_file "$LAB/got.sh" "$LAB/want.sh"
	PATH=$LAB/masq:$PATH "$scriptify" gcc --version >"$LAB/job.sh"
	elsewhere "$LAB/job.sh" >"$LAB/got"
	gcc --version >"$LAB/want"
	expect_same_file "$LAB/got" "$LAB/want"
	PATH=/usr/bin "$scriptify" "$LAB/masq/gcc" --version >"$LAB/job.sh"
	elsewhere "$LAB/job.sh" >"$LAB/got"
	grep -q 'Free Software Foundation' "$LAB/got" || fail "not gcc: $(cat "$LAB/got")"
}

statuses() {
	cd "$src"
	"$scriptify" sh -c 'exit 42' >"$LAB/job.sh"
	expect_status 42 elsewhere "$LAB/job.sh"
	"$scriptify" sh -c 'kill -SEGV $$' >"$LAB/job.sh"
	expect_status 139 elsewhere "$LAB/job.sh"
	expect_status 127 "$scriptify" no-such-command 2>"$LAB/err"
	expect_grep 'no-such-command: No such file or directory' "$LAB/err"
	expect_status 100 "$scriptify" 2>"$LAB/err"
	expect_grep '^usage: ' "$LAB/err"
	expect_status 100 "$scriptify" --nonsense 2>"$LAB/err"
	expect_status 101 "$scriptify" true 2>"$LAB/err" >/dev/full
	expect_grep 'standard output: No space left' "$LAB/err"
	expect_status 0 "$scriptify" --help >"$LAB/out"
	expect_grep '^usage: ' "$LAB/out"
}

# Arguments that look like options are the command's.
options_end() {
	cd "$src"
	"$scriptify" echo --help -h >"$LAB/job.sh"
	expect_eq "output" "$(elsewhere "$LAB/job.sh")" '--help -h'
	"$scriptify" -- echo x >"$LAB/job.sh"
	expect_eq "output" "$(elsewhere "$LAB/job.sh")" x
}

check "gcc: the same object and dependencies" same_object gcc
check "a compiler by its path" same_object /usr/bin/gcc
check "environment and umask" environment
check "wrappers are left out" wrappers
check "exit statuses and messages" statuses
check "options end at the command" options_end
[ "$LAB_CHECKS_FAILED" -eq 0 ]
