#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A project whose names are made for terminals and browsers: whatever is said of its builds says them, and is
# obeyed by none.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cache.sh"
lab_need jq
lab_enter "$@"
lab_mounts >"$LAB/mounts" # there are no workers but one beside the server
# shellcheck disable=SC2119
near_config

# ESC, a CSI of one character, what turns the direction of a line, a line of its own, and markup.
ODD=$'a\e[2J\xc2\x9b31m\xe2\x80\xaeb\rc\nd </script><img src=x onerror=alert(1)>'
ODD=${ODD//\//_}'&"'"'"
FLAT=$(tr -d '\r\n' <<<"$ODD")          # as far as one goes
WORD=$(tr -d "\r\n <>=&\"'()" <<<"$ODD") # and one of its words
SAID=$LAB/said
mkdir -p "$SAID"

# Not one character that controls a terminal, or turns what is around it.
harmless() { # FILE...
	local f
	for f in "$@"; do
		if LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]' "$f"; then
			cat -v "$f" | cut -c 1-400 | head -30
			echo "$f" >>"$LAB/bad"
		fi
	done
	expect_eq "what controls a terminal" "$(cat "$LAB/bad" 2>/dev/null)" ""
}

says() { # NAME CMD...
	local rc=0 name=$1
	shift
	"$@" >"$SAID/$name" 2>&1 </dev/null || rc=$?
	echo "$name: $rc" >>"$LAB/codes"
}

build() {
	mkdir -p "$WS/$ODD/inc"
	cd "$WS/$ODD"
	echo 'int x;' >"inc/$ODD.h"
	printf '#include "inc/%s.h"\nint f(void) { return x; }\n' h >a.c
	cp "inc/$ODD.h" inc/h.h
	cp a.c "$ODD.c"
	touch -d '1 hour ago' inc/* ./*.c
	says wrapper env CONCC_EXPLAIN=1 concc-cc gcc -c "$ODD.c" -o "$ODD.o"
	concc-cc gcc -c "$ODD.none.c" -o "$ODD.o" 2>/dev/null || true
	says outside env CONCC_EXPLAIN=1 concc-dispatch "./$ODD"
	says local env CONCC_EXPLAIN=1 concc-cc gcc -march=native -c "$ODD.c" -o "$ODD.o"
	says run concc run -- concc-cc gcc -c "$ODD.c" -o "$ODD.2.o"
	says explained env CONCC_EXPLAIN=1 concc-dispatch --cache cat "$ODD.c" "inc/$ODD.h"
	says why-kept concc why concc-cc gcc -c "$ODD.c" -o "$ODD.o"
	echo 'int x, y;' >"inc/h.h"
	says why-changed concc why concc-cc gcc -c "$ODD.c" -o "$ODD.o"
	says why-other concc why concc-cc gcc -D"$ODD" -c "$ODD.c" -o "$ODD.o"
	says why-here concc why concc-cc gcc -c "$ODD.none.c" -o "$ODD.o"
	says why-gone concc why concc-cc gcc -c "@$ODD.none" -o "$ODD.o"
	cat "$SAID"/*
}

# What a build tool's file says is quoted in what `concc run` says at its end, or before.
quoted() {
	cd "$WS/$ODD"
	mkdir -p cmake cargo/.cargo
	touch cmake/Makefile
	printf 'CMAKE_C_COMPILER:FILEPATH=/usr/bin/gcc\nCMAKE_C_COMPILER_LAUNCHER:STRING=%s\n' "$FLAT" >cmake/CMakeCache.txt
	says launcher concc run -- make -C cmake --version
	printf 'CMAKE_C_COMPILER:FILEPATH=%s\n' "$FLAT" >cmake/CMakeCache.txt
	says chosen concc run -- make -C cmake --version
	rm cmake/CMakeCache.txt
	ln -s /usr/bin/gcc "/srv/$WORD-gcc"
	printf 'CC = /srv/%s-gcc\n' "$WORD" >cmake/Makefile
	says makefile concc run -- make -C cmake --version
	cd cargo
	printf '[build]\nrustc-wrapper = "%s"\n' "$WORD" >.cargo/config.toml
	ln -s /bin/true "$LAB/cargo"
	says cargo concc run -- "$LAB/cargo"
	expect_grep 'stands in its place' "$SAID/launcher"
	expect_grep 'CMake chose' "$SAID/chosen"
	expect_grep 'by its path' "$SAID/makefile"
	expect_grep 'stays: these calls' "$SAID/cargo"
}

# What never comes to an end is no file of a build tool, wherever it is looked for.
no_files() {
	local f
	cd "$WS"
	mkdir -p fifos/.cargo fifos/build
	cd fifos
	for f in .cargo/config.toml .cargo/config .concc.ini build/CMakeCache.txt build/build.ninja build/Makefile build/makefile \
		build/GNUmakefile; do
		mkfifo "$f"
	done
	timeout -k 1 "$LAB_LIMIT" concc run -- ninja -C build --version >"$LAB/fifos" 2>&1 </dev/null || true
	expect_grep '^concc: 0 jobs' "$LAB/fifos"
	timeout -k 1 "$LAB_LIMIT" concc run -- make -C build --version >"$LAB/fifos" 2>&1 </dev/null || true
	expect_grep '^concc: 0 jobs' "$LAB/fifos"
}

looked_at() {
	cd "$WS/$ODD"
	says status concc status
	says status-json concc status --json
	says top concc top --once
	says report concc report
	says list concc report --list
	says json concc report --json
	says trace concc report --trace "$SAID/trace-file"
	says page concc report -o "$LAB/page.html"
	cp "$CONCC_RUNTIME_DIR/project.log" "$SAID/log"
	cat "$LAB/codes"
}

page_is_ours() {
	expect_eq "scripts" "$(grep -o '<script' "$LAB/page.html" | wc -l)" "$(grep -o '</script>' "$LAB/page.html" | wc -l)"
	expect_no_grep '<img' "$LAB/page.html"
}

check "builds" build
check "what is quoted of a project's files" quoted
check "what never ends is not read" no_files
check "views" looked_at
check "nothing controls a terminal" harmless "$SAID"/*
check "nothing is markup" page_is_ours
lab_stop
