#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Trees of tools in a home, at `local:`: jobs see them as they are, and nothing of them is served.  What
# comes in their place, or is mounted in them, is what the command here would find.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
lab_need jq gcc
lab_enter "$@"
lab_start builder
# shellcheck disable=SC2119
near_config
cd "$WS"
RUST=~/.rustup
TOOL=$RUST/bin/tool

tree() { # DIRECTORY WHAT-IT-SAYS
	mkdir -p "$1/bin" "$1/lib"
	echo "$2" >"$1/lib/data"
	# shellcheck disable=SC2016 # its own
	printf '#!/bin/sh\ncat "$(dirname "$(realpath "$0")")/../lib/data"; realpath "$0"\n' >"$1/bin/tool"
	chmod +x "$1/bin/tool"
}

same() { # WHEN: a job does what the command does here
	"$TOOL" >"$LAB/here"
	CONCC_EXPLAIN=$LAB/explain concc-dispatch "$TOOL" >"$LAB/there"
	diff "$LAB/here" "$LAB/there" || fail "$1: not the same"
	echo "$1: $(tail -n 1 "$LAB/explain")"
}

there() { # WHEN: and at the worker
	: >"$LAB/explain"
	same "$1"
	expect_grep '^concc: remote on w1' "$LAB/explain"
}

asked_for() { # MESSAGE: how often the worker has sent one
	lab_status "[.workers[].messages_in.$1 // 0] | add | tostring"
}

is_not_served() {
	local before
	there "at first"
	expect_eq "files that were asked for" "$(asked_for FETCH)" 0
	expect_no_grep "serving $RUST" "$CONCC_RUNTIME_DIR/project.log"
	before=$(asked_for FETCH)
	echo 'int f(void) { return 1; }' >a.c
	CONCC_EXPLAIN=$LAB/explain concc-cc gcc -c a.c
	expect_grep '^concc: remote on w1' "$LAB/explain"
	expect_eq "files of a compile that were" "$(asked_for FETCH)" $((before + 1))
}

# It would cost both sides of one machine more than to copy it.
is_not_compressed() {
	yes 'int x;' | head -c 100000 >big.txt
	there "at first"
	concc-dispatch cp big.txt copy.txt
	expect_same_file big.txt copy.txt
	expect_ge "bytes that came" "$(lab_status '[.workers[].bytes_in] | add | tostring')" 100000
}

changes() {
	echo again >$RUST/lib/data
	there "a file"
	tree $RUST/other else
	rm -r "${RUST:?}/lib"
	mv $RUST/other/lib $RUST
	there "a directory"
}

# With the same names and numbers, as far as a file system gives them.
is_replaced() {
	mv $RUST $RUST.old
	tree $RUST new
	there "the whole tree"
	rm -r $RUST
	tree $RUST newer
	there "and once more"
	rm -r $RUST.old
}

is_mounted_in() {
	mkdir -p "$LAB/mounted"
	echo mounted >"$LAB/mounted/data"
	mount --bind "$LAB/mounted" $RUST/lib
	same "with a mount"
	expect_eq "what it says" "$(head -n 1 "$LAB/there")" mounted
	umount $RUST/lib
	same "without"
}

is_written() {
	CONCC_EXPLAIN=$LAB/explain concc-dispatch sh -c "echo written >$RUST/lib/made" || fail "it fails"
	expect_file $RUST/lib/made
	rm $RUST/lib/made
}

is_looked_at() { # WANTED
	rm -f out
	CONCC_EXPLAIN=$LAB/explain concc-dispatch --cache=contents sh -c "$TOOL >out"
	expect_grep "^concc: remote on $1" "$LAB/explain"
	: >"$LAB/explain"
	"$TOOL" >"$LAB/here"
	expect_same_file "$LAB/here" out
}

# What is kept was made of these bytes, and no others.
is_kept() {
	: >"$LAB/explain"
	echo one >$RUST/lib/data
	is_looked_at w1
	is_looked_at '(w1|\(cache\))' # of a file that is younger than a tick of the clock nothing is kept
	echo two >$RUST/lib/data
	is_looked_at w1
	echo one >$RUST/lib/data
	is_looked_at '(w1|\(cache\))'
	rm -r $RUST
	tree $RUST three
	is_looked_at w1
	is_looked_at '(w1|\(cache\))'
}

# Jobs of root are an ordinary user's: it is served, and they read what root reads.
is_closed() {
	local closed
	for closed in "$RUST" "$RUST/lib" "$RUST/lib/data" "$RUST/bin/tool"; do
		chmod go= "$closed"
		concc stop >/dev/null
		there "$closed"
		chmod go=rX "$closed"
		expect_grep "serving $RUST\$" "$CONCC_RUNTIME_DIR/project.log"
		rm "$CONCC_RUNTIME_DIR/project.log"
	done
	concc stop >/dev/null
	there "open again"
}

tree $RUST first
check "it is not served" is_not_served
check "nothing is compressed" is_not_compressed
check "what changes in it" changes
check "another in its place" is_replaced
check "what is mounted in it" is_mounted_in
check "a job that writes to it" is_written
check "results that are kept" is_kept
check "what only root may read" is_closed
lab_stop
