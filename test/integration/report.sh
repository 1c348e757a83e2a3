#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What `concc report` makes of records: a page that a browser opens without a network and without an
# error, which has every job, and nothing of their names as markup; a trace; `concc run --report`.
# limit: 120
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=2
lab_need jq python3
lab_enter "$@"
lab_start builder root
lab_config
cd "$WS"
echo 'int x;' >a.c
echo 'int main(void) { return 0; }' >main.c
lab_all_up

# Steps of test/lib/browse; the answers are in $LAB/answers, one a line.
browse() { # PAGE STEP...
	local program
	program=$(command -v chromium chromium-browser google-chrome | head -n 1)
	[ -n "$program" ] || skip "chromium is not installed"
	timeout $((3 * LAB_LIMIT)) "$LAB_REPO/test/lib/browse" "$program" "$@" >"$LAB/answers" 2>"$LAB/problems" || {
		cat "$LAB/answers" "$LAB/problems"
		fail "the browser: $(head -n 1 "$LAB/problems")"
	}
}

answer() { # N
	sed -n "$1p" "$LAB/answers"
}

# Records that nobody made, in a cache of their own.
made() { # N [NAME]
	rm -rf "$LAB/made"
	mkdir -p "$LAB/made"
	"$LAB_BUILD/test/records/make-records" "$LAB/made/jobs.$(hostname)" "$@"
}

report_made() {
	CONCC_CACHE_DIR=$LAB/made concc report "$@"
}

of_a_run() {
	printf 'prog: a.o main.o\n\t$(CC) -o $@ a.o main.o\n' >Makefile
	mkdir -p sub
	concc run -C "$WS" --report "$LAB/run.html" -- make -j2 2>"$LAB/err" >/dev/null
	expect_grep 'concc: 3 jobs' "$LAB/err"
	expect_eq "its jobs" "$(page_data "$LAB/run.html" | jq '.jobs | length')" 3
	expect_eq "places" "$(page_data "$LAB/run.html" | jq -r '.places[-1].name')" ''
	expect_grep 'CONCC_REMOTE_LINK=1 sends it' "$LAB/run.html"
	# What the newest one was.
	concc report -o "$LAB/again.html"
	expect_same_file "$LAB/run.html" "$LAB/again.html"
}

page_data() { # PAGE
	sed -n 's|^<script type="application/json" id="data">\(.*\)</script>$|\1|p' "$1"
}

# It is told, and the build's status is the build's.
cant_write() {
	touch main.c
	expect_status 0 concc run --report "$WS/nodir/x.html" -- make 2>"$LAB/err" >/dev/null
	expect_grep "can't write $WS/nodir/x.html: No such file or directory" "$LAB/err"
	expect_status 1 concc report -o /dev/full 2>"$LAB/err"
	expect_grep "can't write /dev/full: No space left on device" "$LAB/err"
	expect_status 100 concc run --local --report x -- true 2>"$LAB/err"
}

alone() {
	made 60
	report_made -o - >"$LAB/page.html"
	expect_grep '^<!DOCTYPE html>' "$LAB/page.html"
	# Nothing to be loaded from anywhere, and a policy that says so.
	expect_no_grep '(src|href|url)[=(]"?(https?:)?//' "$LAB/page.html"
	expect_grep "default-src 'none'" "$LAB/page.html"
	# Without scripts too: the tables are there.
	expect_grep '<td class="name">build1</td><td class="num">36</td>' "$LAB/page.html"
	expect_grep 'name the processor instead' "$LAB/page.html"
}

drawn='document.getElementById("lanes").dataset.drawn'
tip='document.getElementById("tip").innerText'

draws() { # N [--dark]
	made "$1"
	report_made -o "$LAB/page.html"
	browse "$LAB/page.html" "${@:2}" eval "$drawn" eval 'conccReport.jobs' \
		hover 'conccReport.box(43)' eval "$tip" \
		eval 'document.getElementById("lanes").focus()' key n key Enter key Escape \
		eval 'document.getElementById("spoken").textContent' key + key + eval "Number($drawn) < $1" key 0 eval "$drawn"
	expect_eq "jobs drawn" "$(answer 1)" "\"$1\""
	expect_eq "jobs" "$(answer 2)" "$1"
	answer 3 | grep -q 'file43\.o.*took.*waited for a slot.*CPU.*memory.*brought back' || fail "the mouse shows $(answer 3)"
	answer 5 | grep -q 'file.*took' || fail "keys tell $(answer 5)"
	expect_eq "fewer when closer" "$(answer 6)" true
	expect_eq "jobs drawn again" "$(answer 7)" "\"$1\""
}

# A name that would end the script, and begin an element.
evil_name() {
	made 60 '</script><b id=evil><img src=x onerror=boo()>.o'
	report_made -o "$LAB/page.html"
	browse "$LAB/page.html" hover 'conccReport.box(30)' eval "$tip" \
		eval 'document.getElementById("evil")' eval 'document.images.length' eval "$drawn"
	answer 1 | grep -qF '</script><b id=evil><img src=x onerror=boo()>.o' || fail "the mouse shows $(answer 1)"
	expect_eq "elements of that name" "$(answer 2)" null
	expect_eq "images" "$(answer 3)" 0
	expect_eq "jobs drawn" "$(answer 4)" '"60"'
}

# A real one as well: its name is a file's.
evil_file() {
	local name='<b id=evil>&amp;.o'
	concc-cc gcc -c a.c -o "$name"
	concc report -o "$LAB/page.html"
	browse "$LAB/page.html" eval 'document.getElementById("evil")' \
		eval '[...document.querySelectorAll("td.what")].map((e) => e.textContent)'
	expect_eq "elements of that name" "$(answer 1)" null
	answer 2 | grep -qF "$name" || fail "the tables have $(answer 2)"
}

# Colours, finding, and a smaller window.
controls() {
	made 200
	report_made -o "$LAB/page.html"
	browse "$LAB/page.html" --size 420x700 \
		eval '["place", "outcome"].map((v) => { const c = document.getElementById("colour"); c.value = v; c.dispatchEvent(new Event("change")); return document.getElementById("legend").innerText.split("\n").length; })' \
		eval '(() => { const f = document.getElementById("find"); f.value = "file7"; f.dispatchEvent(new Event("input")); return document.getElementById("found").textContent; })()' \
		eval 'document.documentElement.scrollWidth <= 420' \
		eval '(document.querySelector("td[data-job] a").click(), document.getElementById("tip").hidden)'
	expect_eq "legends" "$(answer 1)" '[4, 3]'
	answer 2 | grep -q ' of 200' || fail "found $(answer 2)"
	expect_eq "fits into its window" "$(answer 3)" true
	expect_eq "told of the one that was clicked" "$(answer 4)" false
}

trace() {
	made 500
	report_made --trace "$LAB/trace.json"
	jq -e '.traceEvents | map(select(.ph == "X" and .cat != "part")) | length == 500' "$LAB/trace.json" >/dev/null ||
		fail "not each job is an event"
	# In each slot they follow each other, and what is in them does not go beyond.
	jq -e '[.traceEvents[] | select(.ph == "X")] | group_by([.pid, .tid]) | all(
		([.[] | select(.cat != "part")] | sort_by(.ts) | . as $l | all(range(1; length); $l[.].ts >= $l[. - 1].ts + $l[. - 1].dur)))' \
		"$LAB/trace.json" >/dev/null || fail "events of one slot are on each other"
	expect_eq "slots named" "$(jq '[.traceEvents[] | select(.name == "thread_name")] | length > 20' "$LAB/trace.json")" true
}

check "of a run, by itself" of_a_run
check "that can't be written" cant_write
check "a page that needs nothing else" alone
check "all of 200 jobs are drawn" draws 200
check "all of 10000 jobs are drawn, in the dark" draws 10000 --dark
check "a name that is markup" evil_name
check "a file whose name is markup" evil_file
check "what one can change" controls
check "a trace" trace
lab_stop
