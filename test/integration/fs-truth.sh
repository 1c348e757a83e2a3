#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# The same operations on files, here and in a job: they return the same, and leave the same behind.
# CONCC_TEST_LONG=1 has directories of 100 000 entries instead of 20 000.
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
LAB_SLOTS=1
lab_need git ninja patch python3 setfacl ld.bfd ld.gold ld.lld
lab_enter "$@"
lab_start builder
lab_config
ENTRIES=20000
[ -z "${CONCC_TEST_LONG-}" ] || ENTRIES=100000
HERE=/srv/lo # as long as the workspace's name: paths near PATH_MAX
mkdir "$HERE"
cp "$LAB_TOOLS/fstruth" "$WS/fstruth"
cp "$LAB_TOOLS/fstruth" "$HERE/fstruth"

# Runs on a worker, and nowhere else; its output stays in $LAB/remote.
remote() { # CMD...
	local rc=0
	CONCC_EXPLAIN=1 concc-dispatch "$@" >"$LAB/remote" 2>"$LAB/remote.err" </dev/null || rc=$?
	if [ $rc -ne 0 ]; then
		cat "$LAB/remote" "$LAB/remote.err"
		fail "exit status $rc of a job: $*"
	fi
	expect_grep '^concc: remote on ' "$LAB/remote.err"
	expect_no_grep '^concc: local: ' "$LAB/remote.err"
}

# doc/limits.md: what an operation returns here, and in a job.
differs_by_design() {
	sed -e "/^copy_file_range of the client's: /s/EXDEV/19/" \
		-e "/^opened before the first write: /s/the client's early/NEW client's early/" "$1"
}

operations() {
	mkdir "$HERE/ops" "$WS/ops"
	cd "$HERE/ops"
	../fstruth prepare $ENTRIES
	cd "$WS/ops"
	../fstruth prepare $ENTRIES
	(cd "$HERE/ops" && ../fstruth ops $ENTRIES) >"$LAB/returned"
	remote ../fstruth ops $ENTRIES
	differs_by_design "$LAB/remote" >"$LAB/returned.job"
	diff -U0 "$LAB/returned" "$LAB/returned.job" || fail "operations return something else in a job"
}

left_behind() {
	(cd "$HERE/ops" && ../fstruth tree) >"$LAB/left"
	(cd "$WS/ops" && ../fstruth tree) >"$LAB/left.job"
	diff -U0 "$LAB/left" "$LAB/left.job" || fail "a job leaves something else behind"
	echo "note: $(wc -l <"$LAB/returned") results, $(wc -l <"$LAB/left") names the same"
}

# The next job sees what this machine has, but for holes.
seen_by_the_next() {
	cd "$WS/ops"
	rm sparse # a gigabyte on its way out again shows nothing new
	find . \( -type p -o -type s \) -delete # who looks at these runs here
	../fstruth tree | sed 's/ sparse$//' >"$LAB/left.want"
	remote ../fstruth tree
	sed 's/ sparse$//' "$LAB/remote" >"$LAB/left.seen"
	diff -U0 "$LAB/left.want" "$LAB/left.seen" || fail "the next job sees something else"
}

# What has no way home is not lost: the job runs here, and says why.
no_way_home() {
	local kind
	mkdir "$WS/attr"
	cd "$WS/attr"
	../fstruth prepare 1
	for kind in user client acl dir; do
		rm -rf attributed*
		../fstruth attr $kind >/dev/null || continue # not on this file system
		rm -rf attributed*
		CONCC_EXPLAIN=1 concc-dispatch ../fstruth attr $kind >"$LAB/attr" 2>"$LAB/attr.err"
		grep -q ': E' "$LAB/attr" && continue # not there, and the job was told
		expect_grep 'no-way-home .*(sets extended attributes|has extended attributes, an ACL or capabilities)' "$LAB/attr.err"
		case $kind in
		user) "$LAB_TOOLS/fstruth" has attributed user.concc-test ;;
		client) "$LAB_TOOLS/fstruth" has c/held user.concc-test ;;
		acl) "$LAB_TOOLS/fstruth" has attributed system.posix_acl_access ;;
		dir) "$LAB_TOOLS/fstruth" has attributed-dir system.posix_acl_default ;;
		esac || fail "$kind was lost"
		echo "note: $kind: $(head -n 1 "$LAB/attr.err")"
	done
}

# A directory below more names than a path may have: no other worker is tried.
too_deep() {
	# shellcheck disable=SC2016 # the job's
	local dig='n=$(printf %0200d 0); for i in $(seq 25); do mkdir $n; cd $n; done; echo x >leaf; pwd | wc -c'
	mkdir "$WS/deep"
	cd "$WS/deep"
	expect_eq "it says" "$(CONCC_EXPLAIN=1 concc-dispatch bash -c "$dig" 2>"$LAB/deep.err")" "$((25 * 201 + 13))"
	cat "$LAB/deep.err"
	expect_grep '^concc: local: no-way-home .*a path that is too long' "$LAB/deep.err"
	expect_no_grep 'another worker' "$LAB/deep.err"
	expect_eq "it leaves" "$(find . -name leaf -printf '%d\n')" 26
	cd "$WS"
	rm -r deep
}

# Calls whose effects overlayfs does not show as they are: what is left is right, as the job runs here then.
odd_calls() {
	rm -rf "$HERE/odd" "$WS/odd"
	mkdir "$HERE/odd" "$WS/odd"
	cd "$HERE/odd"
	../fstruth prepare 1
	../fstruth ops 1 links_lower >"$LAB/odd.said"
	../fstruth tree >"$LAB/odd"
	cd "$WS/odd"
	../fstruth prepare 1
	CONCC_EXPLAIN=1 concc-dispatch ../fstruth ops 1 links_lower >"$LAB/odd.said" 2>"$LAB/odd.err" </dev/null
	../fstruth tree >"$LAB/odd.job"
	expect_grep '^concc: local: no-way-home ' "$LAB/odd.err"
	diff -U0 "$LAB/odd" "$LAB/odd.job" || fail "links_lower is another thing in a job"
}

# A default access list decides modes; a job knows nothing of it.
default_acl() {
	mkdir -p "$WS/list" "$WS/list/old"
	cd "$WS/list"
	setfacl -d -m o::-,g::- old || skip "no access lists on this file system"
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo x >old/f; mkdir old/d; echo x >g' 2>"$LAB/acl.err" </dev/null
	expect_grep '^concc: local: no-way-home .*has a default access list' "$LAB/acl.err"
	expect_eq "modes" "$(stat -c %a old/f old/d g | tr '\n' ' ')" "600 700 644 "
	# From there on nothing of it is sent.
	cd old
	echo "int x;" >null.c; CONCC_EXPLAIN=1 concc-cc gcc -c null.c 2>"$LAB/acl.err"
	expect_grep '^concc: local: default-acl ' "$LAB/acl.err"
	expect_eq "mode" "$(stat -c %a null.o)" 600
	setfacl -k .
	remote sh -c 'echo x >h'
	expect_eq "mode" "$(stat -c %a h)" 644
	cd ..
	setfacl -d -m o::- .
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo x >i' 2>"$LAB/acl.err" </dev/null
	expect_grep '^concc: local: default-acl ' "$LAB/acl.err"
	expect_eq "mode" "$(stat -c %a i)" 640
}

access_times() {
	mkdir -p "$WS/atimes"
	cd "$WS/atimes"
	echo x >was
	touch -d 2001-02-03 was
	remote sh -c 'touch -a -d 1999-01-01 was; echo y >new; touch -d 1998-01-01 new; mkdir d; touch -a -d 1997-01-01 d'
	expect_eq "times" "$(TZ=UTC stat -c '%x %y' was | cut -c1-10,36-46)" "1999-01-01 2001-02-03"
	expect_eq "times" "$(TZ=UTC stat -c '%x %y' new | cut -c1-10,36-46)" "1998-01-01 1998-01-01"
	expect_eq "time" "$(TZ=UTC stat -c '%x' d | cut -c1-10)" "1997-01-01"
}

# make and ninja may compare with a directory: it is no newer than what a job made in it, and no newer than it was
# when the job made no name there.
directory_times() {
	mkdir -p "$WS/dirs/d"
	cd "$WS/dirs"
	echo 'int x;' >x.c
	printf 'd/x.o: d x.c\n\tconcc-cc gcc -c x.c -o d/x.o\n' >makefile
	touch -d '1 hour ago' x.c
	remote gcc -c x.c -o d/x.o
	[ ! d -nt d/x.o ] || fail "a directory is newer than what was made in it"
	make -q || fail "a target that depends on its directory is out of date"
	touch x.c
	CONCC_EXPLAIN=1 make 2>"$LAB/dirs.err"
	expect_grep '^concc: remote on ' "$LAB/dirs.err"
	make -q || fail "a target that depends on its directory is out of date when it was there before"
	remote sh -c 'mkdir -p n/m; echo x >n/f; echo y >n/m/f'
	[ ! n -nt n/m/f ] && [ ! n/m -nt n/m/f ] || fail "a new directory is newer than what was made in it"
	touch -d '2001-02-03 04:05:06.7' d
	remote sh -c 'echo more >>d/x.o; chmod 600 d/x.o'
	expect_eq "time of a directory with the same names" "$(stat -c %y d | cut -c1-21)" "2001-02-03 04:05:06.7"
	remote sh -c 'rm d/x.o'
	[ d -nt x.c ] || fail "a directory is as old as before a name went"
}

# Who makes a file may write down when it was made: by clocks that agree it still is of that time.
times_written_down() {
	mkdir -p "$WS/times"
	cd "$WS/times"
	remote sh -c 'echo a >a; ln -s a l; mkdir d; : >d/empty; echo b >d/b; echo more >>a; touch a.h; stat -c "%n %y" a l d/empty d/b a.h'
	expect_eq "times" "$(stat -c '%n %y' a l d/empty d/b a.h)" "$(cat "$LAB/remote")"
	remote sh -c 'echo c >>a; touch d/b; echo e >e; mv e d/empty; stat -c "%n %y" a d/b d/empty'
	expect_eq "times of what was there" "$(stat -c '%n %y' a d/b d/empty)" "$(cat "$LAB/remote")"
	# ninja takes what is newer than its own record for out of date.
	cat >build.ninja <<-'END'
		rule cc
		  command = gcc -MMD -MF $out.d -c $in -o $out
		  depfile = $out.d
		  deps = gcc
		rule ld
		  command = ld -r -o $out $in
		rule gen
		  command = echo 'int y;' >$out
		build y.c: gen
		build x.o: cc x.c
		build y.o: cc y.c
		build xy.o: ld x.o y.o
	END
	echo 'int x;' >x.c
	remote ninja
	remote ninja
	expect_grep '^ninja: no work to do' "$LAB/remote"
	ninja >"$LAB/ninja"
	expect_grep '^ninja: no work to do' "$LAB/ninja"
	# Python compares a source with what its compiled form says of it, in whole seconds.
	remote python3 -c 'import os, py_compile, struct
open("m.py", "w").write("x = 1\n")
pyc = py_compile.compile("m.py", "m.pyc")
print(struct.unpack("<I", open(pyc, "rb").read()[8:12])[0])'
	expect_eq "time of a source" "$(stat -c %Y m.py)" "$(cat "$LAB/remote")"
}

# Whose a file is and what is attached to it: kept by what writes into it, lost by what replaces it.
identity() {
	local was
	mkdir -p "$WS/id"
	cd "$WS/id"
	for f in written replaced; do
		echo old >$f
		chown 1717:1718 $f
		"$LAB_TOOLS/fstruth" give $f >/dev/null || skip "no attributes on this file system"
	done
	was=$(stat -c '%u:%g %a' written)
	echo old >edited
	chown 1717:1718 edited
	remote sh -c 'echo new >written'
	# Who replaces a file may give the new one to the same user: only here whose it is can be seen.
	CONCC_EXPLAIN=1 concc-dispatch sh -c 'echo new >r; mv r replaced' 2>"$LAB/id.err" </dev/null
	expect_grep '^concc: local: no-way-home .*replaced is another user' "$LAB/id.err"
	CONCC_EXPLAIN=1 concc-dispatch sed -i s/old/new/ edited 2>"$LAB/id.err" </dev/null
	expect_grep '^concc: local: no-way-home .*edited is another user' "$LAB/id.err"
	CONCC_EXPLAIN=1 concc-dispatch mv edited moved 2>"$LAB/id.err" </dev/null
	expect_grep '^concc: local: no-way-home .*edited is another user' "$LAB/id.err"
	mv moved edited
	expect_eq "owner of what is edited" "$(cat edited; stat -c '%u:%g' edited)" $'new\n1717:1718'
	for f in written replaced; do
		expect_eq "$f" "$(cat $f)" new
	done
	expect_eq "owner and mode of what is written" "$(stat -c '%u:%g %a' written)" "$was"
	"$LAB_TOOLS/fstruth" has written user.concc-test || fail "the attribute was lost"
	"$LAB_TOOLS/fstruth" has written system.posix_acl_access || fail "the ACL was lost"
	expect_eq "owner of what is replaced" "$(stat -c '%u:%g' replaced)" 0:0
	! "$LAB_TOOLS/fstruth" has replaced user.concc-test || fail "another file's attribute is there"
}

# What counts names, or keeps them together; the last ones change a file that has others and run here.
SEVERAL=(
	'stat -c "%n %h" one two d/three other'
	'find one other made d/three -links +1'
	'gzip one'
	'bzip2 -k d/three'
	'xz two'
	'cp -a one two d/three copies'
	'tar cf all.tar --sort=name one two d other'
	'du -ab --apparent-size one two d/three'
	'sh -c "echo new >made; ln made made2; stat -c %h made made2; mv made2 two; stat -c %h two made"'
	'sed -i s/a/A/ two'
	'sh -c "cp -p one copy; mv copy one"'
	'rm one'
	'stat -c "%n %h" d/three'
	'sh -c "cp one again; ln again again2; rm again; stat -c %h again2"'
	'mv other moved'
	'mv one two'
	'sh -c "echo more >>one; rm one"'
	'chmod 600 d/three'
	'sh -c ">>one; chmod 640 one; mv one left"'
)

several_tree() { # DIR
	rm -rf "$1"
	mkdir -p "$1"/{d,copies}
	cd "$1"
	echo a >one
	ln one two
	ln one d/three
	echo b >other
	ln other d/other
	touch -d '2001-02-03 04:05:06.5' one other d
}

# Everything but times that nobody has set.
several_left() {
	find . -type f -printf '%p %m %s %n %i\n' | sort | awk '{ if (!($5 in g)) g[$5] = ++n; $5 = g[$5] } 1'
	find . -type f -exec sha256sum {} + | sort
}

several_names() {
	local cmd n=0
	for cmd in "${SEVERAL[@]}"; do
		several_tree "$HERE/several"
		eval "$cmd" >"$LAB/several.want" 2>&1 && echo 0 >>"$LAB/several.want" || echo "status $?" >>"$LAB/several.want"
		several_left >>"$LAB/several.want"
		several_tree "$WS/several"
		eval "CONCC_EXPLAIN=$LAB/several.err concc-dispatch $cmd" </dev/null >"$LAB/several.got" 2>&1 && echo 0 >>"$LAB/several.got" ||
			echo "status $?" >>"$LAB/several.got"
		several_left >>"$LAB/several.got"
		diff -u "$LAB/several.want" "$LAB/several.got" || fail "another result of: $cmd"
		n=$((n + 1))
	done
	cat "$LAB/several.err"
	expect_eq "jobs" "$(explained_remote "$LAB/several.err")" 15
	expect_eq "here" "$(grep -c '^concc: local: no-way-home .*is a file with several names' "$LAB/several.err")" 4
	echo "note: $n commands"
	# What changes on this machine meanwhile is seen.
	several_tree "$WS/several"
	for cmd in true 'ln one new' 'rm new two' 'rm d/three'; do
		$cmd
		remote stat -c %h one
		expect_eq "names after $cmd" "$(cat "$LAB/remote")" "$(stat -c %h one)"
	done
}

# A further name in a directory that no job has looked at tells nobody: it is seen when the file is to be changed.
UNSEEN=(
	'mv d/one d/moved'
	'cp -b text d/one'
	'gzip d/one'
	'sed -i s/nothing/else/ d/one'
	'sh -c "cp -p d/one copy; mv copy d/one"'
	'sh -c "echo more >>d/one; stat -c %s d/one"'
	'touch -d 2001-02-03 d/one'
	'chmod 600 d/one'
	'rm d/one'
	'sh -c "rm d/one; echo x >new"'
)

unseen_tree() { # DIR
	rm -rf "$1"
	mkdir -p "$1/d"
	cd "$1"
	echo a >d/one
	echo b >text
}

unseen_names() {
	local cmd
	for cmd in "${UNSEEN[@]}"; do
		unseen_tree "$HERE/unseen"
		cp -al d apart
		eval "$cmd" >"$LAB/unseen.want" 2>&1 || echo "status $?" >>"$LAB/unseen.want"
		several_left >>"$LAB/unseen.want"
		unseen_tree "$WS/unseen"
		remote cat d/one
		cp -al d apart
		eval "CONCC_EXPLAIN=$LAB/unseen.err concc-dispatch $cmd" </dev/null >"$LAB/unseen.said" 2>&1 ||
			echo "status $?" >>"$LAB/unseen.said"
		sed '/^concc: /d' "$LAB/unseen.said" >"$LAB/unseen.got"
		several_left >>"$LAB/unseen.got"
		diff -u "$LAB/unseen.want" "$LAB/unseen.got" || fail "another result of: $cmd"
	done
	# A compiler does not go by names, and cargo links what it made.
	unseen_tree "$WS/unseen"
	echo 'int x;' >x.c
	remote gcc -c x.c -o d/x.o
	cp -al d apart
	CONCC_EXPLAIN=1 concc-cc gcc -g -c x.c -o d/x.o 2>"$LAB/unseen.err" </dev/null
	expect_grep '^concc: remote on ' "$LAB/unseen.err"
}

# Each command here and in a job, in copies of one small tree.
TOOLS=(
	'gcc -g -c a.c b.c'
	'ld.bfd -r -o bfd.o a.o b.o'
	'ld.gold -r -o gold.o a.o b.o'
	'ld.lld -r -o lld.o a.o b.o'
	'ld.bfd -shared -o bfd.so a.o b.o'
	'ld.gold -shared -o gold.so a.o b.o'
	'ld.lld -shared -o lld.so a.o b.o'
	'ar rcD lib.a a.o b.o'
	'ar rcD lib.a b.o'
	'ranlib -D lib.a'
	'objcopy --only-keep-debug bfd.so bfd.debug'
	'strip -g bfd.so'
	'objcopy --add-gnu-debuglink=bfd.debug bfd.so'
	'strip -o stripped.o a.o'
	'install -D -m 751 bfd.so inst/lib/bfd.so'
	'install -d -m 2750 inst/etc'
	'patch -p0 -i change.diff'
	'sed -i s/two/three/ b.c'
	'tar xf tree.tar'
	'sh -c "cp -a unpacked copied && mv copied moved"'
	'mv client/x moved-x'
	'sh -c "rm -r moved/sub && cp -p a.o moved/sub"'
	'git -c init.defaultBranch=m init -q repo'
	'sh -c "cp a.c repo && git -C repo add a.c && git -C repo -c user.name=n -c user.email=e commit -qm c"'
)

tools_tree() { # DIR
	mkdir -p "$1"/{client,make/unpacked/sub}
	cd "$1"
	echo 'int one(void) { return 1; }' >a.c
	echo 'int two(void) { return 2; }' >b.c
	echo x >client/x
	printf -- '--- a.c\n+++ a.c\n@@ -1 +1 @@\n-int one(void) { return 1; }\n+int one(void) { return 11; }\n' >change.diff
	echo y >make/unpacked/sub/y
	ln -s sub/y make/unpacked/link
	ln make/unpacked/sub/y make/unpacked/hard
	chmod 750 make/unpacked
	touch -d '2001-02-03 04:05:06.5' make/unpacked/sub/y make/unpacked/sub make/unpacked
	[ -e "$LAB/tree.tar" ] || tar cf "$LAB/tree.tar" --format=posix -C make unpacked
	cp "$LAB/tree.tar" .
}

tools() {
	local cmd
	# One after the other at the same path: debug information and messages name it.
	export GIT_AUTHOR_DATE='2001-01-01T00:00:00Z' GIT_COMMITTER_DATE='2001-01-01T00:00:00Z'
	tools_tree "$WS/tools"
	for cmd in "${TOOLS[@]}"; do
		eval "$cmd" || fail "here: $cmd"
	done
	rm -rf repo/.git/index # times and inodes
	"$LAB_TOOLS/fstruth" tree >"$LAB/tools"
	cd "$WS"
	rm -rf "$WS/tools"
	tools_tree "$WS/tools"
	for cmd in "${TOOLS[@]}"; do
		# No worker makes hooks or git's configuration.
		case $cmd in
		*" init -q repo") eval "$cmd" ;;
		*) eval "remote $cmd" ;;
		esac
	done
	rm -rf repo/.git/index
	"$LAB_TOOLS/fstruth" tree >"$LAB/tools.job"
	diff -U0 "$LAB/tools" "$LAB/tools.job" || fail "tools leave something else behind"
	echo "note: ${#TOOLS[@]} commands, $(wc -l <"$LAB/tools") names the same"
}

check "operations return the same in a job" operations
check "a job leaves the same behind" left_behind
check "the next job sees the same" seen_by_the_next
check "what has no way home is made here" no_way_home
check "so is what is too deep" too_deep
check "calls that a sandbox can't show as they are" odd_calls
check "a default access list" default_acl
check "times of access that a job sets" access_times
check "times of directories" directory_times
check "times that a job has written down" times_written_down
check "a file stays whose it is" identity
check "files with several names" several_names
check "names that nobody has seen" unseen_names
check "linkers and other tools leave the same behind" tools
lab_stop
