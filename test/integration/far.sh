#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A first job on a worker that is far: what it asks for one after the other, each for a round trip.
# limit: 180
LAB_SLOTS=1
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq git
lab_enter "$@"
lab_start builder
HEADERS=60 VAIN=40
VAIN_BYTES=65536 # of each

# main.c names h1.h, that h2.h, and so on, in a directory of their own, and where a preprocessor does
# not look as many large ones.
git init -q .
mkdir -p inc/deep/er src
for ((i = 1; i <= HEADERS; i++)); do
	printf '#include <deep/er/h%d.h>\nint f%d(void);\n' $((i + 1)) "$i" >"inc/deep/er/h$i.h"
done
: >"inc/deep/er/h$((HEADERS + 1)).h"
{
	echo '#if 0'
	for ((i = 1; i <= VAIN; i++)); do
		echo "#include <deep/vain$i.h>"
		yes "// $i" | head -c $VAIN_BYTES >"inc/deep/vain$i.h"
	done
	echo '#endif'
} >inc/deep/vain.h
printf '#include <deep/er/h1.h>\nint x;\n' >src/main.c
printf '#include <deep/vain.h>\n#include <deep/er/h1.h>\nint x;\n' >src/vain.c
lab_config

# One job on a worker that knows nothing, with a server that remembers nothing.
first_job() { # SOURCE or PROGRAM
	local command=(gcc -Iinc -c -o x.o "$1")
	case $1 in *.c) ;; *) command=("$1") ;; esac
	concc stop || true
	rm -rf "$CONCC_CACHE_DIR"
	lab_agents_gone
	lab_worker 1 rm -rf "$(lab_worker_cache 1)/store"
	for _ in 1 2 3 4 5; do concc-cc true; done # the way has been measured as often then
	before=$(lab_status '.workers[0].asked_files + .workers[0].lists')
	bytes=$(lab_status '.workers[0].fetched_bytes')
	CONCC_EXPLAIN=1 concc-cc "${command[@]}" 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	expect_grep '^concc: remote on w1' "$LAB/err"
	asked=$(($(lab_status '.workers[0].asked_files + .workers[0].lists') - before))
	bytes=$(($(lab_status '.workers[0].fetched_bytes') - bytes))
	guesses=$(lab_status '.workers[0].messages_out.GUESS // 0')
	echo "note: $1: $asked questions, $bytes bytes, $guesses messages of guesses"
}

near() {
	first_job src/main.c
	expect_eq "guesses" "$guesses" 0
	expect_ge "questions" "$asked" $((HEADERS + 1))
}

# The source, the first header and what is in its directory's way.
far() {
	first_job src/main.c
	expect_le "questions" "$asked" 8
	expect_ge "files fetched" "$(lab_status '.workers[0].fetched_files')" $((HEADERS + 1))
}

# Of what nobody reads no more comes than of what was read, and half a megabyte.
in_vain() {
	local used
	first_job src/vain.c
	used=$(cat src/vain.c inc/deep/vain.h inc/deep/er/*.h | wc -c)
	expect_le "questions" "$asked" $((HEADERS / 2))
	expect_le "bytes" "$bytes" $((2 * used + 512 * 1024))
}

# What was guessed in vain is not told to the next worker as something that jobs there want.
remembered() {
	first_job src/vain.c
	concc stop
	expect_eq "headers remembered" "$(tr '\0' '\n' <"$(grep -l deep "$CONCC_CACHE_DIR"/working-sets/*)" | grep -c '^Finc/deep/er/h')" "$HEADERS"
	expect_eq "others" "$(tr '\0' '\n' <"$(grep -l deep "$CONCC_CACHE_DIR"/working-sets/*)" | grep -c '^Finc/deep/vain[0-9]' || true)" 0
	lab_agents_gone
	lab_worker 1 rm -rf "$(lab_worker_cache 1)/store"
	concc-cc gcc -Iinc -c -o x.o src/vain.c
	expect_le "questions" "$(lab_status '.workers[0].asked_files')" $((HEADERS + 4))
	expect_eq "listings asked for" "$(lab_status '.workers[0].lists')" 0
}

# Each library is one of those that the program says it needs, in a directory of their own.
LIBRARIES=8
mkdir lib
for ((i = 1; i <= LIBRARIES; i++)); do
	echo "int f$i(void) { return $i; }" >"lib/f$i.c"
	gcc -shared -fPIC -o "lib/libf$i.so.1.2" -Wl,-soname,"libf$i.so.1" "lib/f$i.c"
	ln -s "libf$i.so.1.2" "lib/libf$i.so.1"
done
{
	for ((i = 1; i <= LIBRARIES; i++)); do echo "int f$i(void);"; done
	echo "int main(void) { return 0 $(seq -f ' + f%g()' -s '' "$LIBRARIES") - 36; }"
} >prog.c
gcc -o prog prog.c lib/*.so.1.2 "-Wl,-rpath,\$ORIGIN/lib"

program() {
	first_job ./prog
	expect_ge "files fetched" "$(lab_status '.workers[0].fetched_files')" $((LIBRARIES + 1))
}

program_near() {
	program
	expect_ge "questions" "$asked" $((LIBRARIES + 1))
}

# The program, and the first library, which tells where the others are.
program_far() {
	program
	expect_le "questions" "$asked" 4
}

check "near, each file is asked for" near
check "near, each library is asked for" program_near
lab_line 1 40
check "far, headers come with what names them" far
check "far, libraries come with the program" program_far
check "what comes in vain is bounded" in_vain
check "only what was of use is remembered" remembered
lab_stop
