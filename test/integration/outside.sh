#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What a job reaches outside every workspace, in ways that nobody sees before it starts.  Each way
# gives what it gives locally, on a worker that is an ordinary user and on one that is root; it is
# said once why; and what is not there on the client either costs nothing.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_enter "$@"
lab_start builder root
OUT=/srv/outside
CASE=$WS/case

# One worker with two slots.
only_worker() { # N
	lab_stop_server
	{
		printf '[concc]\nworkspace = %s\n\n[worker w%s]\naddress = ssh://w%s\n' "$WS" "$1" "$1"
		printf 'root = %s\nprogram = /mnt/bin/concc-worker\nslots = 2\n' "$LAB_ROOT"
	} >/srv/concc.ini
}

prepare() {
	rm -rf "$OUT" "$CASE" /srv/new.o
	mkdir -p "$OUT/sub" "$CASE"
	echo '#define OUTSIDE 7' >"$OUT/out.h"
	printf '#include <stdio.h>\n#include <out.h>\nint f(void) { return OUTSIDE; }\n' >"$CASE/a.c"
	echo 'int plain(int x) { return 2 * x; }' >"$CASE/plain.c"
	cd "$CASE"
}

# What a way leaves, everywhere.
result() { # TO
	rm -rf "$1"
	mkdir "$1"
	cp -a "$CASE" "$1/case"
	cp -a "$OUT" "$1/out"
	[ ! -e /srv/new.o ] || cp /srv/new.o "$1/"
}

# Runs WAY locally and by a wrapper; all that it leaves and says is the same.
same_here() { # WAY
	local rc=0 want=0
	prepare
	RUN='' DISPATCH='' "way_$1" >"$LAB/want.out" 2>"$LAB/want.err" || want=$?
	result "$LAB/want"
	prepare
	CONCC_EXPLAIN=1 RUN=concc-cc DISPATCH=concc-dispatch "way_$1" \
		>"$LAB/got.out" 2>"$LAB/got.err" || rc=$?
	cat "$LAB/got.err"
	result "$LAB/got"
	expect_eq "exit status" "$rc" "$want"
	expect_eq "remote" "$(explained_remote "$LAB/got.err")" 0
	expect_eq "local" "$(explained_local "$LAB/got.err")" 1
	expect_grep "^concc: local: missing .*/srv.* is outside every workspace" "$LAB/got.err"
	sed -i '/^concc: /d' "$LAB/got.err"
	expect_same_file "$LAB/want.out" "$LAB/got.out"
	expect_same_file "$LAB/want.err" "$LAB/got.err"
	diff -r "$LAB/want" "$LAB/got" || fail "files differ"
}

way_symlink() {
	ln -s "$OUT" link
	echo '#include "link/out.h"' >b.c
	echo 'int f(void) { return OUTSIDE; }' >>b.c
	$RUN gcc -c b.c -o b.o
}
way_cpath() { CPATH=$OUT $RUN gcc -c a.c -o a.o; }
way_args_file() {
	echo "-I $OUT -DX=1" >args
	$RUN gcc @args -c a.c -o a.o
}
way_dotdot() { $RUN gcc -I../../outside -c a.c -o a.o; }
way_isystem() { $RUN gcc "-isystem$OUT" -c a.c -o a.o; }
way_output() { $RUN gcc -c plain.c -o "$OUT/sub/new.o"; }
way_output_at_top() { $RUN gcc -c plain.c -o ../../new.o; }
# No failure: another success.
way_has_include() {
	printf '#if __has_include("../../outside/out.h")\nint there;\n#else\nint absent;\n#endif\n' >c.c
	$RUN gcc -Wall -c c.c -o c.o
}
# The worker has a directory of that name itself, with other things in it.
way_name_on_worker() { CPATH=/srv/wrong:$OUT $RUN gcc -c a.c -o a.o; }
way_script_reads() { $DISPATCH sh -c 'echo first; cat ../../outside/out.h; echo last'; }
way_script_writes() { $DISPATCH sh -c 'echo first; echo new >../../outside/made && echo made'; }
way_script_lists() { $DISPATCH sh -c 'ls /srv/outside; ls ..'; }
way_top_level() { $DISPATCH sh -c 'ls /srv | grep -c outside'; }

# What is read-only to jobs, and a terminal, which they have none of: done here.
denied() {
	local cmd wanted
	prepare
	for cmd in 'install -m 600 plain.c /usr/local/src/concc-test; rm /usr/local/src/concc-test' \
		'echo first; mkdir /opt/concc-test; rmdir /opt/concc-test' \
		"script -qc 'echo on a terminal' /dev/null" 'python3 -c "import pty; pty.spawn([\"tty\"])" | grep -c pts'; do
		wanted=0
		bash -c "$cmd" >"$LAB/want.out" 2>"$LAB/want.err" </dev/null || wanted=$?
		CONCC_EXPLAIN=1 expect_status $wanted concc-dispatch bash -c "$cmd" >"$LAB/got.out" 2>"$LAB/got.err" </dev/null
		cat "$LAB/got.err"
		expect_grep 'concc: local: no-way-home .* it writes to a directory of the system or a .toolchain., which a .workspace. is for, or makes a terminal' "$LAB/got.err"
		# The first half of a line may be out by then.
		expect_no_grep 'Read-only|pseudo-terminal' "$LAB/got.err"
		expect_same_file "$LAB/want.out" "$LAB/got.out"
	done
	# An output needs no such try.
	for cmd in '-o /opt/concc-test.o' -o/opt/concc-test.o; do
		# shellcheck disable=SC2086 # two words
		CONCC_EXPLAIN=1 concc-cc gcc -c plain.c $cmd >"$LAB/got.err" 2>&1
		cat "$LAB/got.err"
		expect_grep '^concc: local: unserved .it is to write /opt/concc-test.o, where jobs only read' "$LAB/got.err"
		rm /opt/concc-test.o
	done
	CONCC_EXPLAIN=1 concc-cc gcc -c plain.c -o /dev/null 2>"$LAB/got.err"
	expect_grep '^concc: remote on ' "$LAB/got.err"
}

# The compiler's own failure is an answer: said once, nothing runs here.
own_failure() {
	prepare
	echo 'int f(void) { return missing; }' >bad.c
	CONCC_EXPLAIN=1 expect_status 1 concc-cc gcc -c bad.c -o bad.o 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
	expect_eq "said" "$(grep -c 'missing.*undeclared' "$LAB/err")" 1
}

absent_here_too() {
	prepare
	CONCC_EXPLAIN=1 concc-cc gcc -I/nonexistent/dir -I/srv/nonexistent -I../../nothing -Wall \
		-c plain.c -o plain.o 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
	gcc -c plain.c -o "$LAB/plain.o"
	expect_same_file "$LAB/plain.o" plain.o
}

# PATH often has directories of the home, where compilers look for themselves.
search_path() {
	prepare
	mkdir -p /srv/home/bin /srv/home/none
	printf '#!/bin/sh\nexec /usr/bin/gcc "$@"\n' >/srv/home/bin/gcc
	chmod 755 /srv/home/bin/gcc
	export PATH=$PATH:/srv/home/bin:/srv/home/none:/srv/home/absent
	CONCC_EXPLAIN=1 concc-cc gcc -c plain.c -o plain.o 2>"$LAB/err"
	CONCC_EXPLAIN=1 expect_status 1 concc-cc gcc -c nothing.c -o plain.o 2>>"$LAB/err"
	# Nor does a job find us where it looks for a compiler, as rustc does to link.
	PATH=$(concc masquerade):$PATH CONCC_EXPLAIN=1 concc-dispatch sh -c 'command -v cc' \
		>"$LAB/out" 2>>"$LAB/err"
	cat "$LAB/err"
	expect_eq "remote" "$(explained_remote "$LAB/err")" 3
	expect_eq "the compiler in a job's PATH" "$(cat "$LAB/out")" "$(command -v cc)"
}

# A shell that is not told where it is looks whether that is the home.
home_is_there() {
	prepare
	CONCC_EXPLAIN=1 concc-dispatch env -u PWD bash -c 'pwd; cd; pwd' >"$LAB/out" 2>"$LAB/err"
	cat "$LAB/err"
	expect_eq "output" "$(cat "$LAB/out")" "$CASE"$'\n'/srv/home
	expect_eq "remote" "$(explained_remote "$LAB/err")" 1
}

# Another job of the same worker is none the worse for it.
two_at_once() {
	local line='' pid
	prepare
	mkfifo "$LAB/in" "$LAB/said"
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo begun; read -r x; gcc -c plain.c && echo "$x"' \
		<"$LAB/in" >"$LAB/said" 2>"$LAB/a.err" &
	pid=$!
	exec 7>"$LAB/in" 8<"$LAB/said"
	read -r -t "$LAB_LIMIT" line <&8
	expect_eq "the first" "$line" begun
	CPATH=$OUT CONCC_EXPLAIN=1 concc-cc gcc -c a.c -o a.o 2>"$LAB/b.err"
	cat "$LAB/b.err"
	expect_eq "the other, here" "$(explained_local "$LAB/b.err")" 1
	echo go >&7
	exec 7>&-
	expect_gone "the first" "$pid"
	wait "$pid"
	cat "$LAB/a.err"
	expect_eq "the first ends with" "$(cat <&8)" go
	expect_eq "the first, remote" "$(explained_remote "$LAB/a.err")" 1
	expect_file plain.o
	exec 8<&-
	rm "$LAB/in" "$LAB/said"
}

explained() { # WHAT [VARIABLE=VALUE...] -- ARG...
	local what=$1 vars=()
	shift
	while [ "$1" != -- ]; do
		vars+=("$1")
		shift
	done
	shift
	CONCC_EXPLAIN=1 env "${vars[@]}" concc-cc gcc "$@" -c a.c -o a.o 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep "^concc: $what" "$LAB/err"
}

# Of /tmp a worker has its own, but for the workspaces, all of them.
beneath_tmp() {
	local t both
	only_worker 1
	prepare
	t=$(mktemp -d) both=CONCC_WORKSPACE=$t/a:$t/b
	mkdir "$t/a" "$t/b" "$t/c"
	cp "$CASE/a.c" "$t/a"
	cp "$OUT/out.h" "$t/b"
	cp "$OUT/out.h" "$t/c"
	cd "$t/a"
	lab_stop_server
	sed -i '/^workspace/d' /srv/concc.ini
	explained 'remote on' "$both" -- "-I$t/b"
	explained 'remote on' "$both" -- "-isystem$t/b"
	explained 'remote on' "$both" "CPATH=$t/b" --
	explained 'local: tmp-output' "$both" -- "-I$t/c"
	explained 'local: tmp-output .*CPATH' "$both" "CPATH=$t/c" --
	explained 'local: tmp-output .*C_INCLUDE_PATH' "$both" "C_INCLUDE_PATH=/usr/x:../c" --
	# What one call lists does not bind the server that it starts.
	lab_stop_server
	cp "$t/b/out.h" "$t/a"
	explained 'remote on' "CONCC_WORKSPACE=$t/a" -- -I.
	rm "$t/a/out.h"
	explained 'remote on' "$both" -- "-isystem$t/b"
	explained 'remote on' "$both" -- -I../b
	explained 'local: tmp-output' "CONCC_WORKSPACE=$t/a" -- "-isystem$t/b"
	cd "$WS"
	rm -r "$t"
}

# By $RUN, here and by a wrapper: "remote" or the rule by which it runs here.
found_same() { # WHERE TEXT
	local rc=0 want=0
	RUN='env' bash -c "$2" >"$LAB/want.out" 2>"$LAB/want.err" </dev/null || want=$?
	: >"$LAB/where"
	RUN=concc-dispatch CONCC_EXPLAIN="$LAB/where" bash -c "$2" >"$LAB/got.out" 2>"$LAB/got.err" </dev/null || rc=$?
	cat "$LAB/where" "$LAB/got.err"
	expect_eq "exit status of: $2" "$rc" "$want"
	expect_grep "^concc: $1" "$LAB/where"
	expect_eq "calls of: $2" "$(grep -c '^concc: ' "$LAB/where")" 1
	sed -i '/^concc: /d' "$LAB/got.err"
	expect_same_file "$LAB/want.out" "$LAB/got.out"
	expect_same_file "$LAB/want.err" "$LAB/got.err"
}

# A job has a /tmp of its own, by three names; what is in the client's it finds here.
# shellcheck disable=SC2016
in_tmp() {
	local dir here='local: missing '
	prepare
	for dir in /tmp /var/tmp /dev/shm; do
		export F=$dir/concc-outside.$$
		echo "in $dir" >"$F"
		found_same "$here" '$RUN sh -c "cat $F"'
		found_same "$here" '$RUN sh -c "test -s \"\$F\" && echo there || echo none"'
		rm "$F"
		found_same remote '$RUN sh -c "test -s \"\$F\" && echo there || echo none"'
	done
	export F=/tmp/concc-outside.$$
	mkdir "$F"
	echo '#define IN_TMP 1' >"$F/in.h"
	printf '#include "%s/in.h"\nint x = IN_TMP;\n' "$F" >t.c
	ln -s "$F" link
	found_same "$here" '$RUN gcc -c t.c -o t.o; cksum <t.o'
	found_same "$here" '$RUN sh -c "cat link/in.h"'
	found_same "$here" '$RUN find -L . -name in.h'
	found_same "$here" '$RUN sh -c "[ -d $F ] || echo no"'
	found_same "$here" '$RUN sh -c "ls /tmp | grep -c concc-outside"'
	expect_grep "/tmp is this machine's, and a job has a /tmp of its own; .*TMPDIR=DIR" "$LAB/where"
	mkdir temp
	TMPDIR=$PWD/temp found_same remote '$RUN sh -c "echo x >\$TMPDIR/x; ls \$TMPDIR | grep -c x; rm \$TMPDIR/x"'
	rmdir temp
	found_same remote '$RUN sh -c "d=\$(mktemp -d); echo x >\$d/f; ln \$d/f \$d/g; mv \$d \$d.2; ls \$d.2; rm -r \$d.2"'
	found_same remote '$RUN sh -c "echo x >/tmp/own; mkfifo /tmp/p; (echo y >/tmp/p) & cat /tmp/own /tmp/p; wait; rm /tmp/own /tmp/p"'
	found_same remote '$RUN gcc -c plain.c -o plain.o; cksum <plain.o'
	rm -r "$F"
	# What no other program needs is not looked for either.
	mkdir -p /tmp/hsperfdata_concc-test
	found_same remote '$RUN sh -c "test -d /tmp/hsperfdata_concc-test; echo"'
	rmdir /tmp/hsperfdata_concc-test
}

# What is served there is nothing that a job seeks in vain, by whatever name of its /tmp.
project_in_tmp() {
	local dir
	# Of different names: what is served in one is known in the other.
	for dir in /tmp/concc-outside.$$ /var/tmp/concc-outside-too.$$; do
		mkdir -p "$dir/p/.git"
		echo 'int x;' >"$dir/p/a.c"
		(
			cd "$dir/p"
			CONCC_EXPLAIN=1 concc-cc gcc -c "$dir/p/a.c" -o a.o 2>"$LAB/err"
		)
		cat "$LAB/err"
		expect_eq "remote jobs in $dir" "$(explained_remote "$LAB/err")" 1
		rm -r "$dir"
	done
}

# Directories that every home has are there, and only what is in them makes a job run here.  Others are
# there for who comes after the first that looked for them.
# shellcheck disable=SC2016
bare_directories() {
	local here='local: missing '
	prepare
	rm -rf ~/.config ~/.local ~/.seldom
	mkdir -p ~/.config/app ~/.local/share ~/.seldom
	echo set >~/.config/app/rc
	touch -d @1000000 ~/.local
	chmod 700 ~/.config
	lab_stop_server
	found_same remote '$RUN sh -c "cat ~/.config/other/rc || echo none"'
	found_same remote '$RUN sh -c "stat -c \"%a %u %Y\" ~/.config ~/.local; test -w ~/.config && echo writable"'
	found_same remote '$RUN python3 -c "import site; print(site.getusersitepackages())"'
	found_same "$here" '$RUN sh -c "cat ~/.config/app/rc"'
	found_same "$here" '$RUN sh -c "ls ~/.config"'
	found_same "$here" '$RUN sh -c "mkdir ~/.config/made && rmdir ~/.config/made"'
	# Nothing is in it here either.
	found_same remote '$RUN sh -c "ls -A ~/.local/share"'
	found_same "$here" '$RUN sh -c "cat ~/.seldom/rc || echo none"'
	found_same remote '$RUN sh -c "cat ~/.seldom/rc || echo none"'
	# What becomes of them is seen by the next job.
	chmod 755 ~/.config
	mkdir ~/.config/other
	echo new >~/.config/other/rc
	found_same remote '$RUN sh -c "stat -c \"%a %Y\" ~/.config"'
	found_same "$here" '$RUN sh -c "cat ~/.config/other/rc"'
	rm -r ~/.config ~/.seldom
	found_same remote '$RUN sh -c "test -e ~/.config || test -e ~/.seldom || echo gone"'
	mkdir ~/elsewhere
	ln -s elsewhere ~/.seldom
	found_same "$here" '$RUN sh -c "readlink ~/.seldom"'
	rm -r ~/elsewhere ~/.seldom ~/.local
}

# A build in memory: a job's /dev/shm is its own, and a list would change nothing, so no line says
# that one would.
in_dev_shm() {
	local d=/dev/shm/concc-outside.$$ set
	only_worker 1
	mkdir -p "$d/.git"
	echo 'int x;' >"$d/a.c"
	cd "$d"
	for set in none=1 CONCC_WORKSPACE="$d"; do
		env "$set" CONCC_EXPLAIN=1 concc-cc gcc -c a.c 2>"$LAB/err"
		cat "$LAB/err"
		expect_grep "^concc: local: outside .$d can't be a workspace, since jobs have a /dev of their own" "$LAB/err"
		expect_eq "lines" "$(wc -l <"$LAB/err")" 1
	done
	lab_stop_server
	sed -i "s|^workspace = .*|workspace = $d|" /srv/concc.ini
	concc-cc gcc -c a.c 2>"$LAB/err"
	cat "$LAB/err"
	expect_grep "can't be a workspace, since jobs have a /dev" "$LAB/err"
	cd "$WS"
	rm -r "$d"
}

for n in 1 2; do
	who=${LAB_USERS[n]}
	lab_worker "$n" mkdir -p /srv/wrong
	lab_worker "$n" sh -c "echo '#define OUTSIDE 8' >/srv/wrong/out.h"
	only_worker "$n"
	for way in symlink cpath args_file dotdot isystem output output_at_top has_include \
		name_on_worker script_reads script_writes script_lists top_level; do
		check "$way ($who)" same_here "$way"
	done
	check "the compiler's own failure ($who)" own_failure
	check "not there here either ($who)" absent_here_too
	check "what is refused to jobs ($who)" denied
	check "PATH ($who)" search_path
	check "HOME ($who)" home_is_there
	check "bare directories ($who)" bare_directories
	check "two at once ($who)" two_at_once
	check "what is in /tmp ($who)" in_tmp
	check "a project in /tmp ($who)" project_in_tmp
	lab_worker "$n" rm -r /srv/wrong
done
check "workspaces below /tmp" beneath_tmp
check "a project in /dev/shm" in_dev_shm
# And on this machine, whose /var/tmp is another directory than its /tmp.
lab_stop_server
printf "[concc]\nlocal-slots = 0\n" >/srv/concc.ini
check "a project in /tmp (local)" project_in_tmp
lab_stop
