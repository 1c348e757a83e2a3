#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What people run and what prints before it is done: in a job it prints, ends and leaves as it does here,
# nothing of it is here before its end, and it neither runs twice nor sees its own files as somebody
# else's changes.  What is lost half-way leaves nothing, so running it again is right.  ROUNDS=n has the
# scripts run twice here instead, n times: what differs then is the test's own fault.
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
. "${BASH_SOURCE[0]%/*}/../lib/faults.sh"
LAB_SLOTS=1
lab_need jq git strace python3
lab_enter "$@"
lab_start builder
lab_config
concc-dispatch true || fail "no project server"
CASE=$WS/case
# What git does depends on neither the day nor a home.
export GIT_AUTHOR_DATE='2001-01-01T00:00:00Z' GIT_COMMITTER_DATE='2001-01-01T00:00:00Z'
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_COUNT=0
git_config() { # KEY VALUE
	export "GIT_CONFIG_KEY_$GIT_CONFIG_COUNT=$1" "GIT_CONFIG_VALUE_$GIT_CONFIG_COUNT=$2"
	GIT_CONFIG_COUNT=$((GIT_CONFIG_COUNT + 1))
}
# Where nothing keeps it from looking: in the workspace.
git_home='mkdir -p ../home; export HOME=$WS/home; '
git_config init.defaultBranch main
git_config user.name name
git_config user.email name@localhost
git_config advice.detachedHead false
git_config pack.threads 1

# ---- one script, here and in a job ----

# "pause" in a script says so and waits until the test has looked.
PROLOGUE='pause() { echo pause; read -r answer || answer=none; }; '

# Runs a command whose output is told line by line; calls AT-PAUSE at each pause.  Sets STATUS.
with_pauses() { # AT-PAUSE OUT CMD...
	local at=$1 out=$2 line='' pid
	shift 2
	rm -f "$LAB/in" "$LAB/told"
	mkfifo "$LAB/in" "$LAB/told"
	"$@" <"$LAB/in" >"$LAB/told" 2>&1 &
	pid=$!
	exec 7>"$LAB/in" 8<"$LAB/told"
	: >"$out"
	while IFS= read -r -t "$LAB_LIMIT" line <&8; do
		printf '%s\n' "$line" >>"$out"
		[ "$line" = pause ] || continue
		"$at"
		echo go >&7
	done
	printf '%s' "$line" >>"$out"
	exec 7>&- 8<&-
	expect_gone "the command" $pid
	STATUS=0
	wait $pid || STATUS=$?
}

# All that is there; an index of git's knows inodes and times.
tree() {
	(cd "$CASE" && "$LAB_TOOLS/printing" tree) | sed '/[.]git\/index/d; s/index[^,]*,//'
}

as_before() {
	expect_eq "jobs sent back, by reason" "$(sent_back)" "$REASONS"
	tree | diff -U1 "$LAB/before" - || fail "something of the job is here before its end"
}

set_up() { # PREPARE
	cd "$WS"
	rm -rf "$CASE"
	mkdir "$CASE"
	cd "$CASE"
	eval "$1"
}

# Prints, ends and leaves the same by $RUNNER as it does plainly; both at the same path.
same_both_ways() { # PREPARE SCRIPT [AT-PAUSE]
	set_up "$1"
	with_pauses true "$LAB/want" sh -c "$PROLOGUE$2"
	tree >"$LAB/want.tree"
	WANTED=$STATUS
	set_up "$1"
	tree >"$LAB/before"
	with_pauses "${3:-as_before}" "$LAB/got" $RUNNER sh -c "$PROLOGUE$2"
	sed -i '/^concc: /d' "$LAB/got"
	diff -U1 "$LAB/want" "$LAB/got" || fail "it prints something else"
	expect_eq "exit status" "$STATUS" "$WANTED"
	tree | diff -U1 "$LAB/want.tree" - || fail "it leaves something else"
}

sent_back() {
	lab_status '.reasons | tojson'
}

jobs() {
	lab_status '.workers[0].jobs'
}

# One job on the worker, and nothing else.
once() { # PREPARE SCRIPT
	local before
	if [ "$RUNNER" = env ]; then
		same_both_ways "$1" "$2" true
		return
	fi
	fault_recovered
	before=$(jobs)
	REASONS=$(sent_back)
	same_both_ways "$1" "$2"
	expect_eq "jobs sent back, by reason" "$(sent_back)" "$REASONS"
	expect_eq "jobs" $(($(jobs) - before)) 1
}

# A job that links the client's files, or writes to one of several names, is done here in the end.
goes_home() { # PREPARE SCRIPT
	local before
	if [ "$RUNNER" = env ]; then
		same_both_ways "$1" "$2" true
		return
	fi
	fault_recovered
	before=$(lab_status '.reasons["no-way-home"] // 0')
	same_both_ways "$1" "$2" true
	expect_eq "jobs sent home" "$(lab_status '.reasons["no-way-home"]')" $((before + 1))
}

# ---- what prints and goes on ----

cat >"$LAB/s.py" <<'END'
import os, shutil, sys, tempfile
def pause():
    print("pause")
    sys.stdin.readline()
fd, name = tempfile.mkstemp(dir=".")
os.write(fd, b"one\n")
os.close(fd)
print(len(os.listdir(".")))
pause()
os.replace(name, "result")
os.link("result", "d/link")
print(sorted(os.listdir("d")))
pause()
with open("d/link", "a") as f:
    f.write("two\n")
    f.flush()
    print(open("result").read())
    pause()
    f.write("three\n")
shutil.move("d", "e")
print(open("e/link").read(), os.path.samefile("e/link", "e/a"))
pause()
shutil.copytree("e", "d")
shutil.rmtree("e")
os.makedirs("p/q")
os.removedirs("p/q")
print(sorted(os.listdir(".")), sorted(os.listdir("d")))
pause()
os.truncate("result", 4)
os.symlink("result", "s")
os.rename("s", "t")
print(open("t").read())
sys.exit(3)
END

scripts() {
	check "a directory is moved" once true \
		'mkdir -p a/b; touch a/b/x; echo x; pause; mv a b2; pause; find b2 | sort'
	check "directories are removed" once true \
		'mkdir s; mkdir s/c; echo x >s/c/f; echo hi; pause; rm -r s/c; echo bye; pause; rmdir s'
	check "listed, removed, listed" once true \
		'touch a1 a2 a3; ls; pause; rm a*; ls; pause; ls; touch a2; ls'
	check "a temporary name" once true \
		'echo 1 >t.tmp; echo out; pause; mv t.tmp t; echo then; ls; pause; ls; cat t'
	check "a directory of the client's is emptied and removed" once 'mkdir d' \
		'touch d/a; echo x; pause; rm d/a; pause; rmdir d; ls'
	check "one of two names goes, the other is written to" goes_home 'echo foo >f1; ln f1 h1' \
		'echo run >>log; rm f1; echo x; pause; echo y >>h1; cat h1; cat log'
	check "sed -i of files, one with two names" once 'for i in 1 2 3; do echo foo >f$i; done; ln f1 h1' \
		'echo begin; pause; sed -i s/foo/bar/ f1 f2 f3; pause; cat f1 h1 f2 f3'
	check "sed -i of many, one after the other" once \
		'for i in 1 2 3 4 5 6; do echo foo >f$i; done; ln f2 h2; ln f4 h4; ln f4 i4' \
		'for i in 1 2 3 4 5 6; do sed -i s/foo/bar$i/ f$i; echo $i; pause; done; cat f? h? i?'
	check "git: add, commit" once "$git_home"'git init -q; mkdir sub; echo a >a; echo b >sub/b' \
		'git add -v a; pause; git add -v sub; git commit -m one; pause; echo c >>a
		git commit -am two; git mv a c; git commit -m three; pause; git log --stat; git status; git fsck'
	check "git: branches, stash, gc" once \
		"$git_home"'git init -q; for i in 1 2 3 4 5; do echo $i >f$i; git add .; git commit -qm $i; done' \
		'git checkout -b other HEAD~2; pause; echo x >>f1; git stash; pause; git stash pop; git commit -am x
		git checkout main; git merge -m m other; pause; git gc --prune=now -q; ls .git .git/objects; git fsck'
	check "cp -a, then changed" once \
		'mkdir -p t/u; echo a >t/a; ln -s ../a t/u/l; touch -d 2001-02-03 t/a t/u' \
		'cp -av t copy | sort; pause; ln copy/a copy/u/b; cp -av copy two | sort; pause; echo x >>two/a; cat two/u/b
		rm -r t two/u/l; pause; cp -al two three; echo y >>three/a; cat two/u/b; ls -R'
	check "tar with names, two of one file" once \
		'mkdir -p t/u; echo a >t/a; ln t/a t/u/b; ln -s ../a t/u/l; tar cf t.tar --mtime=2001-01-01 t; rm -r t' \
		'tar xvf t.tar; pause; ls -R t; mv t/u t/v; pause; echo x >>t/v/b; cat t/a
		tar cvf u.tar --sort=name --mtime=2001-01-01 t; rm t.tar; pause; tar tvf u.tar; ls'
	check "tar over what is there" once \
		'mkdir -p t/u; echo a >t/a; ln t/a t/u/b; tar cf t.tar --mtime=2001-01-01 t; rm t/a; mkdir t/a; echo old >t/u/b' \
		'tar xvf t.tar --recursive-unlink; pause; echo x >>t/a; cat t/u/b; ls -R'
	check "make is one job" once \
		'printf "all: a b c\n%%: %%.in\n\techo \$@ >>log; sed s/x/y/ \$< >\$@.tmp; mv \$@.tmp \$@\nclean:\n\trm -v a b c\n" >Makefile
		for i in a b c; do echo x$i >$i.in; done; touch -d 2001-01-01 *.in Makefile' \
		'make; pause; make; rm b; make; pause; touch a.in; make -s; make clean; pause; make -k a nothing c; cat log; ls'
	check "a directory of the client's is moved" goes_home 'mkdir -p d/e; echo f >d/e/f; echo g >d/g' \
		'ls d; pause; mv d d2; ls; pause; echo h >>d2/e/f; mv d2/e e; pause; rmdir d2 || rm -r d2; ls -R; cat e/f'
	check "a second name, appended to" goes_home 'echo one >f' \
		'ln f l; echo two >>l; echo said; pause; cat f; echo three >>f; pause; cat l; rm f; echo four >>l; ls; cat l'
	check "a configuration is replaced again and again" once 'echo v=0 >conf; ln conf backup' \
		'for i in 1 2 3 4; do sed s/=.*/=$i/ conf >conf.new; sync conf.new; mv -f conf.new conf; cat conf; pause; done; cat backup; ls'
	check "a log is turned over" once 'echo old >log' \
		'echo a >>log; echo said; pause; mv log log.1; echo b >log; pause; mv log.1 log.2; mv log log.1; echo c >log; tail log*'
	check "a lock of a directory" once true \
		'for i in 1 2 3; do mkdir lock || exit 7; echo $i >>out; echo locked; pause; rmdir lock || exit 8; ls; done; cat out'
	check "sessions of a compiler that links and renames them" goes_home \
		'mkdir -p inc/s-1; for i in 1 2 3 4; do echo $i >inc/s-1/o$i; done; touch inc/s-1.lock' \
		'mkdir inc/s-2-working; touch inc/s-2.lock; for i in 1 2 3 4; do ln inc/s-1/o$i inc/s-2-working/o$i; done
		echo "artifact"; pause; rm inc/s-2-working/o2; echo new >inc/s-2-working/o2; ln inc/s-2-working/o3 out.o
		echo "artifact"; pause; mv inc/s-2-working inc/s-2; rm -r inc/s-1 inc/s-1.lock; pause; ls -R; cat inc/s-2/* out.o'
	check "a result that is a further name" once 'echo old >deps.o; ln deps.o lib.o' \
		'echo new >deps.tmp; mv deps.tmp deps.o; echo artifact; pause; ln -f deps.o lib.o; pause; cat lib.o; echo x >>lib.o; cat deps.o'
	check "a script of python's" goes_home "mkdir d; echo old >d/a; cp $LAB/s.py ." 'python3 -Iu s.py'
	check "what looks in vain for its user's settings" once true \
		'cat "$HOME/.none" "$HOME/.config/none" 2>/dev/null; echo said; pause; echo done'
	check "a command that fails keeps what it made" once 'echo old >f' \
		'echo new >f; mkdir out; echo said; pause; mv out out2; echo no >&2; exit 42'
	check "a command that dies keeps what it made" once 'echo old >f' \
		'echo new >f; mkdir out; echo said; pause; mv f out; echo x >g; kill -KILL $$'
	check "a second name is the same file" goes_home 'echo one >f' \
		'echo said; pause; ln f l; test f -ef l && echo same; stat -c %h f l; pause; cat l'
	check "git clones a repository of this machine" goes_home \
		"$git_home"'git init -q r; cd r; echo a >a; git add a; git commit -qm one; cd ..' \
		'echo said; pause; git clone r s; git -C s log --format=%s; git -C s fsck'
	check "a directory of the client's by rename(2)" goes_home 'mkdir -p d/e; echo x >d/f' \
		'echo x >d/new; echo said; pause; python3 -c "import os; os.rename(\"d\", \"e\"); print(os.listdir(\"e\"))" || echo no; pause; ls -R'
	check "a further name of a file with two" goes_home 'echo one >f; ln f g' 'ln f l; echo said; pause; ls'
	check "modes of a directory and of what is in it" once 'mkdir -p d/e/f; chmod 711 d d/e d/e/f' \
		'chmod -R 750 d; echo said; pause; stat -c "%a %n" d d/e d/e/f'
}

RUNNER=concc-dispatch
if [ -n "${ROUNDS-}" ]; then
	RUNNER='env'
	for ((i = 0; i < ROUNDS; i++)); do
		scripts
	done
	lab_stop
	exit 0
fi
scripts

# A directory that is closed to its owner, by who has not root's powers.
closed_and_opened() {
	local i
	fault_recovered
	set_up 'mkdir -p d/s; echo x >d/s/f; cp "$LAB_TOOLS/printing" .; echo "look d/s/f" >look'
	for i in 1 2 3; do
		chmod $((i % 2 ? 755 : 600)) d/s
		./printing run look >"$LAB/want"
		concc-dispatch ./printing run look </dev/null >"$LAB/got"
		diff "$LAB/want" "$LAB/got" || fail "a job sees a directory's mode as it was"
	done
}
check "modes of directories that change here" closed_and_opened

# ---- what is lost half-way ----

# At the first pause: from then on there is none, or another one.
kill_agent() {
	[ -n "$AGENT" ] || return 0
	kill -KILL "$AGENT"
	AGENT=''
}

# The only worker is killed in the middle, so the script runs again here.
lost() { # PREPARE SCRIPT
	local before
	fault_recovered
	concc-dispatch true </dev/null # else the next try to connect comes later each time
	before=$(jobs)
	AGENT=$(lab_agent_pid 1)
	same_both_ways "$1" "$2" kill_agent
	expect_eq "jobs" $(($(jobs) - before)) 1
}

check "lost: a directory that is made" lost true 'mkdir out && echo 1 >out/f && echo made && pause; ls -R'
check "lost: a line that is appended" lost true 'echo run >>f1 && echo appended && pause; cat f1'
check "lost: a file that is renamed" lost 'echo a >a' 'mv a b && echo moved && pause; ls; mv b c && cat c'
check "lost: a file that is removed" lost 'echo a >a' 'rm a && echo gone && pause; ls; echo b >>a; cat a'
check "lost: a commit" lost "$git_home"'git init -q; echo a >a; git add a; git commit -qm a' \
	'echo b >>a; git commit -am b; pause; git log --oneline; git status'

# ---- announced artifacts ----

# As rustc does: the metadata is announced, and is what cargo waits for.
announced_only() {
	expect_eq "what was announced" "$(cat target/libx.rmeta)" metadata
	expect_no_file target/libx.rlib
	expect_no_file target/x.d
	expect_no_file other
}

announced() { # BY COMMAND...: how it calls ./target, and what makes that a name of it
	local by=$1
	shift
	fault_recovered
	REASONS=$(sent_back)
	set_up 'mkdir target; cat >rustc; chmod +x rustc' <<-'END'
		#!/bin/sh
		t=$1
		echo half >"$t/libx.rlib"
		echo other >other
		echo metadata >"$t/tmp"
		mv "$t/tmp" "$t/libx.rmeta"
		echo "{\"\$message_type\":\"artifact\",\"artifact\":\"$t/libx.rmeta\",\"emit\":\"metadata\"}" >&2
		echo pause >&2
		read -r answer
		ln "$t/libx.rmeta" "$t/again"
		mv "$t/libx.rlib" "$t/tmp"
		echo whole >>"$t/tmp"
		mv "$t/tmp" "$t/libx.rlib"
		rm other
		echo x >"$t/x.d"
		echo "{\"\$message_type\":\"artifact\",\"artifact\":\"$t/libx.rlib\",\"emit\":\"link\"}" >&2
		echo done >&2
	END
	"$@"
	with_pauses announced_only "$LAB/got" sh -c 'exec concc-dispatch ./rustc "$0" --error-format=json \
		--json=diagnostic-rendered-ansi,artifacts,future-incompat /srv/home/other/x.rs >/dev/null' "$by"
	cat "$LAB/got"
	expect_eq "exit status" "$STATUS" 0
	expect_eq "the last line" "$(tail -n 1 "$LAB/got")" "done"
	expect_eq "what it left" "$(ls . target/ | tr '\n' ' ')" \
		".: rustc target  target/: again libx.rlib libx.rmeta x.d "
	expect_eq "the library" "$(tr '\n' ' ' <target/libx.rlib)" "half whole "
	[ target/again -ef target/libx.rmeta ] || fail "a link to what was announced is none"
	expect_eq "jobs sent back, by reason" "$(sent_back)" "$REASONS"
}

# Of another workspace.
elsewhere() {
	rm -rf /srv/home/other
	mkdir -p /srv/home/other
	git init -q /srv/home/other
	rmdir target
	mkdir /srv/home/other/target
	ln -s /srv/home/other/target target
}

check "what rustc announces is in place, and nothing else" announced "$CASE/target" true
check "what it announces by a link that leads here" announced /srv/home/case/target ln -sfn "$CASE" /srv/home/case
check "what it announces by a link that leads elsewhere" announced "$CASE/target" elsewhere

# Large ones are read beside what else goes on; the words come behind them, and the end behind those.
announced_large() {
	local line sizes=''
	set_up 'mkdir target; ln -s target linked; cat >rustc; chmod +x rustc' <<-'END'
		#!/bin/sh
		say() { printf '{"artifact":"%s","emit":"link"}\n' "$@"; }
		head -c 20000000 /dev/zero >target/large
		head -c 30000000 /dev/zero >target/larger
		echo small >target/small
		say "$PWD/linked/large" "$PWD/target/small"
		mv target/larger target/moved
		say "$PWD/target/moved"
		echo later >target/late
		[ $# -eq 1 ] || kill -9 $$
	END
	while read -r line; do
		line=${line##*/}
		sizes+="$(stat -c %s "target/${line%%\"*}") "
	done < <(concc-dispatch ./rustc --json=artifacts 2>"$LAB/err")
	cat "$LAB/err"
	expect_eq "sizes when they are announced" "$sizes" "20000000 6 30000000 "
	expect_eq "what came later" "$(<target/late)" later
	STATUS=0
	CONCC_EXPLAIN=1 concc-dispatch ./rustc --json=artifacts die >/dev/null 2>"$LAB/err" || STATUS=$?
	cat "$LAB/err"
	expect_eq "status of one that is killed" "$STATUS" 137
	expect_eq "jobs of those" "$(explained_remote "$LAB/err")" 1
}
check "what it announces is large" announced_large

# rustc hard-links the state of the last session, and announces in the middle.
incremental() {
	local i before rules
	lab_need cargo rustc cc
	export CARGO_HOME=/srv/home/.cargo CARGO_NET_OFFLINE=true CARGO_INCREMENTAL=1 RUSTC_WRAPPER=concc-dispatch
	set_up 'mkdir -p lib/src src'
	printf '[package]\nname = "one"\nversion = "0.1.0"\nedition = "2021"\n' >lib/Cargo.toml
	printf '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\none = { path = "lib" }\n[workspace]\n' >Cargo.toml
	for i in $(seq 40); do
		echo "pub fn f$i(s: &str) -> String { let mut v: Vec<_> = s.split(' ').collect(); v.sort(); v.join(\"$i\") }"
	done >lib/src/lib.rs
	echo 'fn main() { println!("{} {}", one::f1("b a"), one::edited()); }' >src/main.rs
	fault_recovered
	before=$(jobs) rules=$(lab_status '.reasons | keys')
	for i in 1 2 3 4 5; do
		sed -i '/fn edited/d' lib/src/lib.rs
		echo "pub fn edited() -> u32 { $i }" >>lib/src/lib.rs
		cargo build --quiet 2>"$LAB/cargo" </dev/null || fail "build $i: $(tail -n 3 "$LAB/cargo")"
		expect_eq "what the program says" "$(target/debug/app)" "a1b $i"
		expect_eq "words of concc's" "$(grep '^concc: ' "$LAB/cargo")" ''
	done
	expect_ge "jobs of rustc" $(($(jobs) - before)) 10
	# Those of the second build on: what links the state of the last session runs here.
	expect_eq "rules by which they ran here" "$(lab_status ".reasons | keys - $rules - [\"no-way-home\"] | tojson")" '[]'
	[ -d target/debug/incremental ] || fail "nothing is incremental"
}
check "cargo's incremental builds, sent to a worker" incremental

# ---- what came home and is not put in place is gone before the command runs here ----

# So many that they are removed in pieces.  What a job looks for outside has its output wait for its end.
many_come_to_nothing() {
	local many=4000
	set_up true
	CONCC_EXPLAIN=$LAB/explain concc-dispatch bash -c "test -e ~/nothing; ls -A | grep -c '^[.]concc' >seen
		for ((i = 0; i < $many; i++)); do echo >f\$i; done; echo said" >/dev/full </dev/null || true
	cat "$LAB/explain"
	expect_grep '^concc: local: output' "$LAB/explain"
	expect_eq "files" "$(find . -name 'f*' | wc -l)" "$many"
	expect_eq "what of the job was there" "$(cat seen)" 0
}
check "many files come to nothing" many_come_to_nothing

# ---- a server that is killed while it puts results in place ----

killed_within() { # CMD...: STATUS
	fault_recovered
	fault_inject "$(lab_own_server)" renameat:signal=KILL:when=2 -e status=none
	STATUS=0
	"$@" 2>"$LAB/err" || STATUS=$?
	fault_inject_no_more 2>/dev/null || true
	cat "$LAB/err"
}

half_placed() {
	local i
	set_up 'for i in 1 2 3; do echo old >f$i; done; echo "int x;" >a.c'
	killed_within concc-dispatch sh -c 'for i in 1 2 3; do echo new >>f$i; done'
	expect_eq "status" "$STATUS" 101
	expect_grep '^concc: the project server was killed while it put the results of sh in place' "$LAB/err"
	for i in 1 2 3; do
		expect_le "times that f$i was appended to" "$(grep -c new f$i)" 1
	done
	expect_ge "files that were" "$(cat f? | grep -c new)" 1
	# Whoever comes next has nothing to do with it.
	concc-dispatch sh -c 'echo again >>f1'
	expect_eq "lines" "$(grep -c again f1)" 1
	# What a compiler has made in part it makes again.
	killed_within concc-cc gcc -MD -c a.c -o a.o
	expect_eq "status" "$STATUS" 0
	CONCC_DISABLE=1 concc-cc gcc -MD -c a.c -o b.o
	cmp a.o b.o && cmp <(sed 's/^a/b/' a.d) b.d || fail "it makes something else"
}
check "a server that is killed while it puts results in place" half_placed

# ---- what it costs to print ----

FILES=1500 PRINTS=100

# A script of so many files, and of so many lines after it that are waited for.
printing_script() { # PRINTS
	local i
	echo 'mkdir made 755'
	for ((i = 0; i < FILES; i++)); do
		echo "excl made/f$i 10 $i"
	done
	for ((i = 0; i < $1; i++)); do
		echo "sync $i"
	done
	echo 'exit 0'
}

answer() { # PRINTS: runs the script with each line answered
	local line n=0
	rm -f "$LAB/in" "$LAB/told"
	mkfifo "$LAB/in" "$LAB/told"
	concc-dispatch ./printing run "script$1" <"$LAB/in" >"$LAB/told" &
	exec 7>"$LAB/in" 8<"$LAB/told"
	while read -r -t "$LAB_LIMIT" line <&8; do
		case $line in sync*) n=$((n + 1)) && echo >&7 ;; esac
	done
	exec 7>&- 8<&-
	wait $! || fail "exit status $?"
	expect_eq "lines answered" $n "$1"
	expect_eq "files" "$(ls made | wc -l)" $FILES
}

# The most of some: what comes at once by chance is dealt with in fewer.
most_syscalls() { # PRINTS
	local i n most=0
	for i in 1 2 3; do
		rm -r made
		n=$(lab_syscalls "$agent" answer "$1")
		[ "$n" -le "$most" ] || most=$n
	done
	echo "$most"
}

# The same files, with and without lines in between: what each line costs the agent, in system calls.
cost_of_printing() {
	local agent without with
	fault_recovered
	set_up 'cp "$LAB_TOOLS/printing" .'
	agent=$(lab_agent_pid 1)
	printing_script 0 >script0
	printing_script $PRINTS >script$PRINTS
	answer 0
	without=$(most_syscalls 0)
	with=$(most_syscalls $PRINTS)
	echo "note: $without system calls of the agent for $FILES files, $with with $PRINTS lines before the end"
	expect_le "system calls of the agent for a line" $(((with - without) / PRINTS)) 60
}
check "printing costs nothing for files that are there" cost_of_printing
grep -hs '^note: ' "$LAB/check.log" || true
lab_stop
