#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What a job gets from its caller, by doing everything twice, here and on workers, and comparing: the
# name that a script sees of itself.
# limit: 240
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_need jq
lab_enter "$@"
lab_start builder root
lab_config
# One worker shows its own system, the other the client's.
sed -i '/^\[worker w2\]/,$s/^root = worker/root = client/' /srv/concc.ini
cp "$LAB_TOOLS/do-call" "$WS/"
cd "$WS"

# Without our words, and those of bash on how a command ended, with its number.
said() {
	grep -Ev '^(concc: .*|[^ ]*: line [0-9]*: .*|Terminated|Killed)$' "$LAB/all" || true
}

# Runs shell text with env(1), which is execvp(3), as $RUN in front of its command, and then with a
# wrapper for each worker.
# WHERE is "remote", or the rule by which it runs here all the same.  Output (without our words) and
# status must be as here.
same() { # WHERE TEXT
	local where=$1 text=$2 n
	rm -rf t && mkdir t
	# shellcheck disable=SC2209 # a command it is
	(RUN=env bash -c "$text") >"$LAB/all" 2>&1 </dev/null && echo 0 >>"$LAB/all" || echo $? >>"$LAB/all"
	said >"$LAB/want"
	for n in 1 2; do
		rm -rf t && mkdir t
		(RUN=${WRAPPER-concc-dispatch} CONCC_EXPLAIN=1 at_worker $n bash -c "$text") >"$LAB/all" 2>&1 </dev/null &&
			echo 0 >>"$LAB/all" || echo $? >>"$LAB/all"
		said >"$LAB/got"
		cat "$LAB/all"
		diff -u "$LAB/want" "$LAB/got" || fail "w$n: another result of: $text"
		case $where in
		remote) expect_eq "jobs on w$n of: $text" "$(grep -c "^concc: remote on w$n" "$LAB/all")" 1 ;;
		*) expect_grep "^concc: local: $where" "$LAB/all" ;;
		esac
	done
}

# ---- $0 ----

make_scripts() {
	mkdir -p tools/deep inc empty
	# shellcheck disable=SC2016 # of the script
	printf '#!/bin/sh\necho "$0" "$@"\ndirname "$0"\n' >tools/me
	# shellcheck disable=SC2016
	printf 'echo "no first line" "$0" "$@"\n' >tools/bare
	# shellcheck disable=SC2016
	printf '#!/bin/sh\nd=$(dirname "$0")\nexec gcc -I"$d/../inc" "$@"\n' >tools/cc
	chmod +x tools/me tools/bare tools/cc
	cp tools/me do-me
	cp do-call tools/
	ln -sf ../me tools/deep/link
	ln -sfn tools also
	echo '#define N 1' >inc/n.h
	printf '#include <n.h>\n#include <assert.h>\nconst char *f(int i) { assert(i); return __FILE__; }\n' >a.c
}

script_names() {
	local run
	for run in './do-me a b' tools/me ./tools/me .//tools/me tools/../tools/me "../${WS##*/}/tools/me" "$WS/tools/me" \
		"$WS/tools/../do-me" tools/deep/link also/me ./also/../tools/me tools/bare './tools/bare x'; do
		same remote "\$RUN $run"
	done
	same remote 'cd tools; $RUN ../do-me'
	same remote 'cd tools/deep; $RUN ../me'
}

script_names_by_path() {
	local path name
	for path in tools: tools ./tools "../${WS##*/}/tools" empty:tools/deep/../ ":tools" also "$WS/tools" "nowhere:tools/"; do
		for name in me bare do-call; do
			same remote "PATH=$path:\$PATH; \$RUN $name called"
		done
	done
	same remote 'PATH=:$PATH; $RUN do-me'
	same remote 'PATH=$PATH:; $RUN do-me'
	same remote 'PATH=$PATH:.; $RUN do-me'
	same remote 'cd tools; PATH=deep:$PATH; $RUN link'
}

programs_names() {
	same remote '$RUN ./do-call called'
	same remote '$RUN tools/../do-call called'
	same remote '$RUN "$PWD/do-call" called'
}

# By a compiler's wrapper, into what it makes.
script_as_compiler() {
	WRAPPER=concc-cc same remote '$RUN tools/cc -MD -c a.c -o t/a.o && cat t/a.d && cksum t/a.o'
	WRAPPER=concc-cc same remote 'cd tools; $RUN ./cc -MD -c ../a.c -o ../t/a.o && cat ../t/a.d && cksum ../t/a.o'
	WRAPPER=concc-cc same remote 'PATH=tools:$PATH; $RUN cc -MD -c a.c -o t/a.o && cat t/a.d && cksum t/a.o'
}

script_names_at_home() {
	local run
	for run in tools/me ./do-me tools/bare; do
		same disabled "export CONCC_DISABLE=1; \$RUN $run"
	done
	same disabled 'export CONCC_DISABLE=1; PATH=tools::$PATH; $RUN me; $RUN do-me'
	same disabled 'export CONCC_DISABLE=1; PATH=tools:$PATH; $RUN bare'
}

make_scripts
lab_all_up
check "a script sees the name it was called by" script_names
check "a script found in PATH sees what execvp(3) passes" script_names_by_path
check "programs see how they are executed" programs_names
check "a compiler's wrapper by a relative path" script_as_compiler
check "scripts that run here see the same" script_names_at_home
lab_stop
