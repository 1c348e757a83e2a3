#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Days of work in little: two clients, each with one project server from the first round to the last,
# edit, switch branches and build, while workers leave, die and come back.  Each build succeeds and is
# what a plain one makes; memory, descriptors, watches and what lies on disks stop growing.
# CONCC_DAYS_ROUNDS says how many rounds, or with an m for how many minutes (make soak: many);
# CONCC_DAYS_SEED repeats them.
# limit: 240
SEED=${SEED:-${CONCC_DAYS_SEED:-}} ROUNDS=${ROUNDS:-${CONCC_DAYS_ROUNDS:-}}
LAB_WORKER_ENV='CONCC_MAX_JOBS=8'
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
lab_need jq git make
lab_enter "$@"
seed=${SEED:-$((SRANDOM % 1000000))} rounds=${ROUNDS:-8} ends=
[[ $rounds != *m ]] || ends=$((SECONDS + 60 * ${rounds%m})) rounds=1000000
echo "note: repeat with CONCC_DAYS_SEED=$seed CONCC_DAYS_ROUNDS=${ROUNDS:-8}"
lab_start builder root builder
git config --global user.email client@lab
git config --global user.name client
mkfifo "$LAB/calls"
exec 7<>"$LAB/calls"

# Says that make called it.
cat >"$LAB/called" <<'SH'
#!/bin/sh
[ -z "${DAYS_CALLS-}" ] || echo call >"$DAYS_CALLS"
exec "$@"
SH
chmod +x "$LAB/called"

# What is kept has less room than it takes.
config() { # A|B
	local n
	{
		printf '[concc]\nworkspace = %s\nstore-size = 4M\n' "$WS/$1"
		[ "$1" = A ] || echo 'cache = 16M'
		for n in 1 2 3; do
			printf '[worker w%d]\naddress = ssh://w%d\nroot = worker\nprogram = /mnt/bin/concc-worker\nslots = 3\n' \
				"$n" "$n"
		done
	} >"/srv/$1.ini"
}

# Whose commands follow, in this shell.
be() { # A|B
	export CONCC_CONFIG=/srv/$1.ini CONCC_RUNTIME_DIR=/srv/run-$1 CONCC_CACHE_DIR=/srv/cache-$1
}

project() { # A|B: two branches that differ in half of what there is
	local i
	mkdir -p "$WS/$1"
	cd "$WS/$1"
	git init -q -b one .
	mkdir src inc
	for i in 0 1 2 3 4 5 6 7 8 9; do
		printf '#include "gen.h"\n#include "common.h"\n#include "part%d.h"\nint f%d(void) { return GEN + COMMON + PART; }\n' \
			$((i % 4)) "$i" >"src/f$i.c"
	done
	for i in 0 1 2 3; do echo "#define PART $i" >"inc/part$i.h"; done
	echo '#define COMMON 1' >inc/common.h
	echo 7 >number
	cat >Makefile <<-'MAKE'
		.RECIPEPREFIX = >
		OBJS = $(patsubst src/%.c,obj/%.o,$(sort $(wildcard src/*.c)))
		all: obj/lib.a obj/listing
		obj/gen.h: number
		>@mkdir -p obj
		>@$(RUN) sh -c 'echo "#define GEN $$(cat number)" >obj/gen.h'
		obj/%.o: src/%.c obj/gen.h
		>@$(CC) -Iinc -Iobj -MMD -MP -O1 -c $< -o $@
		obj/lib.a: $(OBJS)
		>@rm -f $@
		>@ar rcsD $@ $(OBJS)
		obj/listing: $(OBJS)
		>@$(RUN) sh -c 'ls -R src inc >obj/listing'
		-include $(wildcard obj/*.d)
	MAKE
	echo obj >.gitignore
	git add -A
	git commit -q -m one
	git checkout -q -b two
	for i in 1 3 5 7 9; do
		printf '#include "gen.h"\nint g%d(void) { return GEN * %d; }\n' "$i" "$i" >"src/f$i.c"
	done
	git mv inc/part2.h inc/more.h
	sed -i 's/part2/more/' src/*.c
	echo 8 >number
	git add -A
	git commit -q -m two
}

# What somebody does between two builds.  What is new goes with the next change of branch.
edit() {
	local i
	for i in 1 2 3 4; do
		case $((RANDOM % 8)) in
		0 | 1)
			git clean -q -f -d
			git checkout -q -f "$([ $((RANDOM % 2)) = 0 ] && echo one || echo two)"
			;;
		2) echo "#define COMMON $((RANDOM * 32768 + RANDOM))" >inc/common.h ;;
		3) echo $RANDOM >number ;;
		4)
			printf 'const char s%d[] = "%s";\n' "$RANDOM" \
				"$(head -c 6000 /dev/urandom | base64 -w 0)" >src/new.c
			;;
		5) rm -f src/new.c ;;
		6) rm -rf obj ;;
		7) mkdir -p "inc/deep$((RANDOM % 3))/er" && echo $RANDOM >"inc/deep$((RANDOM % 3)).h" ;;
		esac
	done
}

outputs() { # DIR
	(cd "$1/obj" && find . -type f ! -name '*.d' -exec sha256sum {} + | sort)
}

# A copy is built plainly: make decides the same there, from the same times.
one_client() { # A|B ROUND
	local plain=/srv/plain-$1
	be "$1"
	RANDOM=$((seed + $2 * 2 + 36#$1 % 2))
	cd "$WS/$1"
	edit
	rm -rf "$plain"
	cp -a "$WS/$1" "$plain"
	make -C "$plain" -j2 CC=gcc RUN= >"$LAB/$1.log" 2>&1 ||
		fail "the plain build of $1: $(tail -n 3 "$LAB/$1.log")"
	CONCC_EXPLAIN=1 make -j6 CC="$LAB/called concc-cc gcc" RUN="$LAB/called concc-dispatch" \
		>"$LAB/$1.log" 2>&1 || {
		cat "$LAB/$1.log"
		fail "the build of $1 failed"
	}
	cat "$LAB/$1.log" >>"$LAB/$1.explain"
	outputs "$plain" >"$LAB/$1.want"
	outputs . | diff "$LAB/$1.want" - || fail "the outputs of $1 differ"
}

# After some calls of this round, w1 or w2 is hit, leaves or is back.  w3 stays, and all do at first.
event() { # ROUND
	local word calls n
	[ "$1" -gt $((rounds / 4)) ] || return 0
	RANDOM=$((seed * 3 + $1))
	calls=$((1 + RANDOM % 6)) n=$((1 + RANDOM % 2))
	while [ $calls -gt 0 ]; do
		read -r -t "$LAB_LIMIT" word <&7 || fail "no call and no end"
		[ "$word" != end ] || return 0
		calls=$((calls - 1))
	done
	case $((RANDOM % 7)) in
	0) fault_agent $n ;;
	1) fault_launcher $n ;;
	2) fault_sshd $n ;;
	3 | 4) # it leaves
		lab_cut $n
		fault_sshd $n
		;;
	*)
		lab_mend 1
		lab_mend 2
		;;
	esac
	while read -r -t "$LAB_LIMIT" word <&7 && [ "$word" != end ]; do :; done
}

anonymous_kb() { # PID...
	local pid
	for pid in "$@"; do
		awk '/^Anonymous:/ { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null || true
	done | awk '{ n += $1 } END { print n + 0 }'
}

descriptors() { # PID...
	local pid
	for pid in "$@"; do
		find "/proc/$pid/fd" -mindepth 1 2>/dev/null || true
	done | wc -l
}

# Lines "NAME VALUE" of what may grow.
figures() {
	local who pid n pids
	for who in A B; do
		be $who
		pid=$(lab_status .pid)
		[ ! -e "$LAB/server-$who" ] || expect_eq "the server of $who" "$pid" "$(cat "$LAB/server-$who")"
		echo "$pid" >"$LAB/server-$who"
		echo "server-$who-kB $(anonymous_kb "$pid")"
		echo "server-$who-descriptors $(descriptors "$pid")"
		echo "server-$who-watches $(lab_status .tree.watches)"
		echo "runtime-$who-kB $(du -sk --exclude='*.log' "/srv/run-$who" | cut -f1)"
		echo "cache-$who-kB $(du -sk "/srv/cache-$who" | cut -f1)"
	done
	for n in 1 2 3; do
		pids=$(lab_worker_pids $n concc-worker)
		echo "worker-$n-processes $(wc -w <<<"$pids")"
		# shellcheck disable=SC2086 # several
		echo "worker-$n-kB $(anonymous_kb $pids)"
		# shellcheck disable=SC2086
		echo "worker-$n-descriptors $(descriptors $pids)"
		echo "worker-$n-store-kB $(lab_worker $n du -sk "$(lab_worker_cache $n)" | cut -f1)"
		echo "worker-$n-temporary $(lab_worker_temp $n | wc -l)"
	done
}

round() { # NUMBER
	local a b injector
	(DAYS_CALLS=$LAB/calls one_client A "$1") &
	a=$!
	(one_client B "$1") &
	b=$!
	(event "$1") &
	injector=$!
	wait $a || a=failed
	echo end >&7
	wait $b || b=failed
	wait $injector || fail "the event failed"
	while read -r -t 0 -u 7; do read -r -u 7 _; done # of calls that no event waited for
	expect_ne "client A" $a failed
	expect_ne "client B" $b failed
	figures >"$LAB/figures.$1"
}

# The most of the last quarter is not much over the most of the first half: by then all has been seen.  What is
# kept on disks fills up to its bound: contents, and of a client records, digests, working sets and results.
flat() {
	local q=$((rounds / 4)) i
	for ((i = 1; i <= rounds; i++)); do
		sed "s/^/$((i <= 2 * q ? 1 : i > rounds - q ? 4 : 3)) /" "$LAB/figures.$i"
	done | awk '
		$1 == 1 && $3 > early[$2] { early[$2] = $3 }
		$1 == 4 && $3 > late[$2] { late[$2] = $3 }
		END {
			for (name in late) {
				most = early[name] * 1.1 + (name ~ /kB$/ ? 1024 : 10)
				if (name ~ /store-kB$/)
					most = 5 * 1024
				if (name ~ /^cache-/)
					most = 100 * 1024
				printf "note: %s %d, then %d\n", name, early[name], late[name]
				if (late[name] > most) {
					print "grows: " name
					grows = 1
				}
			}
			exit grows || length(late) != 25
		}' || fail "something grows"
}

# A job that was lost would be told as the program's own failure, or run here.
remote() {
	local who
	for who in A B; do
		grep -a '^concc: ' "$LAB/$who.explain" | sed 's/.*(rule \([^)]*\)).*/\1/' | grep -a -v ' ' | sort | uniq -c || true
		expect_remote_share 90 "$LAB/$who.explain" 'link|query'
	done
}

for who in A B; do
	project $who
	config $who
	be $who
	lab_all_up
done
for ((i = 1; i <= rounds; i++)); do
	[ -z "$ends" ] || [ "$SECONDS" -lt "$ends" ] || rounds=$i
	check "round $i of seed $seed" round "$i"
done
check "nothing grows" flat
cat "$LAB/check.log"
check "jobs ran on workers" remote
cat "$LAB/check.log"
for who in A B; do
	be $who
	concc stop || fail "concc stop of $who"
done
expect_gone "project servers" "$(cat "$LAB/server-A")" "$(cat "$LAB/server-B")"
lab_stop
