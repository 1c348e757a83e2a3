#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Kept results under random edits: contents, names that come and go in every directory that is
# searched, links, modes, environment, arguments.  Whatever comes of a call is compared with what the
# same command makes here, and what was seen before in the same state must be found again.
# SEED=N does the same steps again, STEPS=N as many.
# limit: 400
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq
export LAB_ROOT=client
lab_enter "$@"
lab_start builder
lab_config 'cache = 1G' 'local-slots = 0'

SEED=${SEED:-$((16#$(od -An -N3 -tx1 /dev/urandom | tr -d ' ')))}
STEPS=${STEPS:-150}
echo "note: SEED=$SEED STEPS=$STEPS"

pick() { # WORD...: sets PICK
	local at=$((RANDOM % $#))
	PICK=${*:at+1:1}
}

project() {
	local i
	mkdir -p "$WS/model/src" "$WS/model/d0" "$WS/model/d1" "$WS/model/other"
	cd "$WS/model"
	ln -s d0 now
	for i in 0 1 2; do
		cat >src/s$i.c <<-EOS
			#include <h0.h>
			#if __has_include("h$i.h")
			#include "h$i.h"
			#endif
			#if __has_include(<opt$i.h>)
			#include <opt$i.h>
			#endif
			#ifndef H0
			#define H0 0
			#endif
			int f$i(int x) { return x + H0 + 0 + __LINE__; }
		EOS
	done
	echo '#define H0 1' >d0/h0.h
}

# Whatever became of it, it compiles then: h0.h is found in what comes first of what is always searched.
repair() {
	rm -f d0/h0.h
	echo "#define H0 $((RANDOM % 2))" >d0/h0.h
	ln -sfn d0 now
}

# Of few kinds, so that states come back.
edit() {
	local dir name
	pick d0 d1 d2 src
	dir=$PICK
	pick h0.h h1.h h2.h opt0.h opt1.h
	name=$PICK
	case $((RANDOM % 12)) in
	0 | 1) [ ! -d $dir ] || { rm -f $dir/$name && echo "#define H0 $((RANDOM % 2))" >$dir/$name; } ;;
	2 | 3) rm -f $dir/$name ;;
	4) if [ -d d2 ]; then rm -rf d2; else mkdir d2; fi ;;
	5)
		pick d0 d1
		ln -sfn "$PICK" now
		;;
	6) [ ! -f $dir/$name ] || chmod "6$((RANDOM % 2 * 4))0" $dir/$name ;;
	7) touch -ch src/s0.c $dir || true ;; # of no consequence
	8) echo $RANDOM >other/unrelated ;;
	9) [ ! -d $dir ] || { rm -f $dir/$name && ln -s ../d0/h0.h $dir/$name; } ;;
	10) sed -i "s/x + H0 . [0-9]*/x + H0 + $((RANDOM % 2))/" src/s1.c ;;
	11) : ;;
	esac
}

# All that may matter: files, links, modes; not times, nor what is unrelated.
state() {
	find . \( -path ./other -o -name 'o.o' -o -name 'o.d' \) -prune -o -printf '%p %y %m %l\n' | sort
	find src d0 d1 d2 -type f -exec sha256sum {} + 2>/dev/null | sort
}

# What is there when it is called; that of the step before, often.  Sets USUAL: such a call leaves
# files like these, so what they hold does not matter.
choose_outputs() {
	local f mode
	mode=$(printf %o $((0666 & ~8#$(umask))))
	USUAL=yes
	rm -rf "$LAB/before"
	mkdir "$LAB/before"
	pick none none none none left left left left left left garbage empty private runnable
	for f in o.o o.d; do
		case $PICK in
		none) continue ;;
		left) [ -e $f ] || continue ;;
		esac
		case $PICK in
		left) cp -p $f "$LAB/before/$f" ;;
		empty) : >"$LAB/before/$f" ;;
		*) echo $RANDOM >"$LAB/before/$f" ;;
		esac
		case $PICK in
		private) chmod 600 "$LAB/before/$f" ;;
		runnable) chmod 755 "$LAB/before/$f" ;;
		esac
		[ "$(stat -c %a "$LAB/before/$f")" = "$mode" ] || USUAL=''
	done
}

put_outputs() {
	rm -f o.o o.d
	cp -p "$LAB"/before/* . 2>/dev/null || true
}

declare -A SEEN=()
USUAL=''
HITS=0 MISSED=0 AGAIN=0 REPEAT='' ARGS='' FAILED=0 COMPILED=0
step() { # N
	local args status=0 plain=0 key at f
	if [ -z "$REPEAT" ]; then
		# No state is a dead end, so that a third of all steps compiles, whatever the seed.
		if [ $FAILED -lt 2 ]; then edit; else repair; fi
		pick 0 1 2
		ARGS="-Id2 -Inow -Id1 -c src/s$PICK.c -o o.o"
		pick '' '-O1' '-DX=1' '-MD -MF o.d' '-Id0'
		ARGS="$PICK $ARGS"
		pick "$PWD/d1" "$PWD/d2" ''
		export CPATH=$PICK
		pick 022 027
		umask "$PICK"
	fi
	args=$ARGS
	choose_outputs
	key=$({
		state
		echo "$args $CPATH $(umask)"
	} | sha256sum)
	put_outputs
	gcc $args >"$LAB/plain.out" 2>&1 || plain=$?
	FAILED=$((plain ? FAILED + 1 : 0))
	rm -rf "$LAB/p"
	mkdir "$LAB/p"
	for f in o.o o.d; do
		[ ! -e $f ] || cp -p $f "$LAB/p"
	done
	put_outputs
	CONCC_EXPLAIN=$LAB/explain concc-cc gcc $args </dev/null >"$LAB/ours.out" 2>&1 || status=$?
	at=$(sed -n 's/^concc: remote on \([^:]*\):.*/\1/p' "$LAB/explain")
	: >"$LAB/explain"
	[ -n "$at" ] || fail "step $1: it ran here"
	expect_eq "step $1 on $at: status" "$status" "$plain"
	cmp "$LAB/plain.out" "$LAB/ours.out" || { cat "$LAB/plain.out" && state; }
	cmp "$LAB/plain.out" "$LAB/ours.out" || fail "step $1 on $at: other output"
	for f in o.o o.d; do
		[ ! -e "$LAB/p/$f" ] && [ ! -e $f ] && continue
		cmp "$LAB/p/$f" $f || fail "step $1 on $at: another $f: gcc $args, CPATH=$CPATH"
		expect_eq "step $1 on $at: mode of $f" "$(stat -c %a $f)" "$(stat -c %a "$LAB/p/$f")"
	done
	[ "$at" != '(cache)' ] || HITS=$((HITS + 1))
	if [ "$status" -eq 0 ] && [ -n "$USUAL" ] && [ -n "${SEEN[$key]-}" ]; then
		AGAIN=$((AGAIN + 1))
		[ "$at" = '(cache)' ] || {
			MISSED=$((MISSED + 1))
			echo "note: step $1: not found again, first seen in step ${SEEN[$key]}"
		}
	fi
	[ -z "$USUAL" ] || SEEN[$key]=$1
}

model() {
	local n
	RANDOM=$SEED # here, since each subshell has numbers of its own
	project
	for ((n = 1; n <= STEPS; n++)); do
		step $n
		[ $FAILED -ne 0 ] || COMPILED=$((COMPILED + 1))
		# What has been done is done again now and then, after an edit of no consequence.
		[ $(((FAILED ? RANDOM : COMPILED) % 3)) -ne 0 ] || step_again $n
	done
	echo "$HITS hits in $STEPS steps, $COMPILED of which compiled; $AGAIN seen before, $MISSED of them not found"
	lab_status .cache
	expect_ge "steps that compiled" $COMPILED $((STEPS / 3))
	expect_ge "states seen again" "$AGAIN" $((STEPS / 20))
	expect_le "states not found again, in a hundred" $((MISSED * 100 / AGAIN)) 5
}

step_again() {
	touch -ch src/* d1
	echo $RANDOM >other/unrelated
	REPEAT=yes
	step "$1+"
	REPEAT=''
}

check "random edits" model
sed -n 's/^\([0-9]* hits in\)/note: \1/p' "$LAB/check.log"
lab_stop
