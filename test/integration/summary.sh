#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What `concc run` says at its end, to a person, to a program, and to who wants to know that it was
# not all done here; and that each build counts for itself.
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need jq make
lab_enter "$@"
lab_start builder
lab_config
cd "$WS"
for i in 1 2 3 4; do echo "int f$i(void) { return $i; }" >"f$i.c"; done
printf 'all: f1.o f2.o f3.o f4.o\n%%.o: %%.c\n\tgcc -c $< -o $@\n' >Makefile

value() { # FILTER
	jq -r "$1" "$LAB/sum.json"
}

for_programs() {
	rm -f ./*.o
	concc run --json "$LAB/sum.json" -- make -j2 2>"$LAB/err" || fail "$(cat "$LAB/err")"
	cat "$LAB/err" "$LAB/sum.json"
	expect_eq "numbers" "$(value '[.status, .jobs, .remote, .here, .remote_percent, .workers.w1] | join(" ")')" "0 4 4 0 100 4"
	expect_ge "bytes sent" "$(value .bytes_sent)" 1000
	expect_ge "bytes received" "$(value .bytes_received)" 1000
	expect_eq "speed-up is a number" "$(value '.speed_up > 0')" true
	expect_ne "limit" "$(value .limit)" ""
	expect_eq "it is that build" "$(concc report "$(value .build)" | jq '.n_jobs')" 4
	expect_grep '^concc: 4 jobs in .*; sent [0-9.]+ [KM]B, got [0-9.]+ [KM]B; .*here alone; limit: ' "$LAB/err"
	concc run --json - --quiet -- gcc -c f1.c >"$LAB/sum.json"
	expect_eq "on standard output" "$(value .jobs)" 1
	concc run --json /nowhere/x -- gcc -c f1.c 2>"$LAB/err" || fail "the build failed for it"
	expect_grep "can't write /nowhere/x" "$LAB/err"
}

quiet() {
	rm -f ./*.o
	concc run --quiet -- make 2>"$LAB/err" >/dev/null
	expect_eq "said" "$(cat "$LAB/err")" ""
	# What is wrong is said all the same.
	expect_status 2 concc run --quiet -- make no-such-goal 2>"$LAB/err"
}

required() {
	rm -f ./*.o
	expect_status 0 concc run --require-remote 100 -- make -j2 2>"$LAB/err"
	# Linking stays here by nature.
	printf 'int main(void) { return 0; }\n' >m.c
	expect_status 0 concc run --require-remote 100 -- sh -c 'gcc -c m.c && gcc m.o -o m' 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '1 here \(link 1\)' "$LAB/err"
	# Nor is there anything else to ask of a build that only links.
	expect_status 0 concc run --require-remote 100 -- gcc m.o -o m 2>"$LAB/err"
	expect_status 103 concc run --require-remote 51 -- sh -c 'gcc -c f1.c && gcc -march=native -c f2.c' 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep '^concc: 50 % of .* wants 51 %: 1 job ran here by the rule "native": name the processor' "$LAB/err"
	expect_status 0 concc run --require-remote 50 -- sh -c 'gcc -c f1.c && gcc -march=native -c f2.c' 2>"$LAB/err"
	expect_status 103 concc run --require-remote 1 -- "$(command -v gcc)" -c f1.c 2>"$LAB/err"
	expect_grep 'no compiler call came through concc' "$LAB/err"
	# A build that fails has its own status.
	expect_status 7 concc run --require-remote 100 -- sh -c 'exit 7' 2>"$LAB/err"
	expect_status 100 concc run --require-remote 101 -- true 2>"$LAB/err"
}

# What looks like a credential stays here, and that is said once.
kept_back() {
	export DEPLOY_TOKEN=d DB_PASSWORD=p SIGNING_API_KEY=s CONCC_PASS_ENV=SIGNING_API_KEY
	concc run -- sh -c 'concc-dispatch env | grep -E "^(DEPLOY|DB|SIGNING)_"' >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "what a job has" "$(cat "$LAB/out")" SIGNING_API_KEY=s
	expect_grep "^concc: jobs on workers don't get (DEPLOY_TOKEN, DB_PASSWORD|DB_PASSWORD, DEPLOY_TOKEN); " "$LAB/err"
	expect_eq "said" "$(grep -c DEPLOY_TOKEN "$LAB/err")" 1
	# Who asks why a job failed is told, too.
	expect_status 3 env CONCC_EXPLAIN="$LAB/explain" concc-dispatch sh -c 'exit 3'
	expect_grep '^concc: it failed, without (DEPLOY_TOKEN, DB_PASSWORD|DB_PASSWORD, DEPLOY_TOKEN); CONCC_PASS_ENV=' "$LAB/explain"
	rm "$LAB/explain"
	CONCC_EXPLAIN=$LAB/explain concc-dispatch true
	expect_no_grep DEPLOY_TOKEN "$LAB/explain"
	lab_stop_server
	concc run --quiet -- concc-dispatch true 2>"$LAB/err"
	expect_eq "said, when quiet" "$(cat "$LAB/err")" ""
}

# With a server that stays, whose counters are of more than this build.
anew() {
	concc-cc gcc -c f1.c
	expect_eq "before" "$(lab_status .jobs)" 1
	concc run --json "$LAB/sum.json" -- make -B -j2 2>"$LAB/err"
	expect_eq "its own" "$(value .remote)" 4
	expect_eq "of the server" "$(lab_status .jobs)" 4
	expect_eq "of the worker" "$(lab_status '.workers[0].jobs')" 4
	gcc -march=native -c f1.c
	CONCC_DISABLE=1 concc-cc gcc -c f1.c
	expect_grep '^  disabled' <(concc status)
	concc status --reset
	expect_eq "after" "$(lab_status '[.jobs, .workers[0].jobs, .workers[0].bytes_out, .workers[0].cpu_us] | join(" ")')" "0 0 0 0"
	expect_no_grep 'disabled' <(concc status)
	concc-cc gcc -c f1.c
	expect_eq "again" "$(lab_status '.workers[0].jobs')" 1
	expect_ge "bytes again" "$(lab_status '.workers[0].bytes_out')" 50
	expect_le "bytes again" "$(lab_status '.workers[0].bytes_out')" 100000
	lab_stop_server
}

verdict() {
	expect_grep '^nothing is wrong here; 1 worker to be tried' <(concc status)
	concc-cc gcc -c f1.c
	expect_grep '^builds are distributed: 1 of 1 worker can be used' <(concc status)
	lab_stop_server
	CONCC_CONFIG=/dev/null concc-cc gcc -c f1.c
	expect_grep '^builds run on this machine only: `concc doctor` says' <(CONCC_CONFIG=/dev/null concc status)
	lab_stop_server
	printf '[worker w1]\nadress = x\n' >"$LAB/broken.ini"
	expect_grep '^builds will not be distributed: configuration: .*did you mean' <(CONCC_CONFIG=$LAB/broken.ini concc status)
}

check "for programs" for_programs
check "quiet" quiet
check "required" required
check "what stays here" kept_back
check "each build counts for itself" anew
check "what doctor would say" verdict
lab_stop
