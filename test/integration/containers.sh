#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# Workers in real containers (podman with runc), started by `command`, with no more rights than the
# documentation asks for.  They have this system's own /usr; `make check-images` takes the images of
# docker/ instead, which needs a network and minutes.
# limit: 180
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
[ -n "${LAB_INSIDE-}" ] || lab_need podman runc
lab_enter "$@"
lab_start 0
export LAB

# State of its own: nothing of the user's containers is seen, and it goes with the test.
mkdir -p "$LAB/engine" "$LAB/root"/{usr,etc,tmp,var/tmp,run,proc,sys,dev,root}
cat >"$LAB/podman" <<EOS
#!/bin/sh
exec podman --runtime=runc --root=$LAB/engine/root --runroot=$LAB/engine/run \\
	--tmpdir=$LAB/engine/tmp --cgroup-manager=cgroupfs --events-backend=none \\
	--storage-driver=vfs --network-backend=netavark --log-level=error "\$@"
EOS
chmod +x "$LAB/podman"
for d in bin sbin lib lib32 lib64; do
	[ ! -L /$d ] || ln -s "usr/$d" "$LAB/root/$d"
done
cp "$LAB_BIN/concc-worker" "$LAB/root/concc-worker"

config() { # FLAGS...
	lab_stop_server
	lab_config
	cat >>"$CONCC_CONFIG" <<-EOS
		[worker box]
		count = 2
		slots = 2
		connect-timeout = 1m
		idle-timeout = 1h
		command = exec $LAB/podman run -i --rm --name=concc-%n --net=none \\
		 --ulimit=nofile=1024:4096 --ulimit=nproc=4096:4096 \\
		 $* \\
		 -v /usr:/usr:ro -v /etc:/etc:ro \\
		 --rootfs $LAB/root /concc-worker --stdio
	EOS
}

containers() {
	"$LAB/podman" ps -a --format '{{.Names}}' | sort | tr '\n' ' '
}

sources() {
	local k
	for k in 1 2 3 4 5 6 7 8; do
		printf '#include <stdio.h>\nint f%s(void) { return puts("%s"); }\n' $k $k >$k.c
		gcc -g -O2 -c $k.c -o "$LAB/$k.o"
	done
	printf '%%.o: %%.c\n\tgcc -g -O2 -c $< -o $@\nall: 1.o 2.o 3.o 4.o 5.o 6.o 7.o 8.o\n' >Makefile
}

same_objects() {
	local k
	for k in 1 2 3 4 5 6 7 8; do
		expect_same_file "$LAB/$k.o" $k.o
	done
}

build() {
	config --device=/dev/fuse --cap-add=SYS_ADMIN
	CONCC_EXPLAIN=1 concc run -- make -j4 all >"$LAB/build.log" 2>&1 || fail "$(cat "$LAB/build.log")"
	cat "$LAB/build.log"
	expect_eq "remote jobs" "$(explained_remote "$LAB/build.log")" 8
	expect_grep 'remote on box-1' "$LAB/build.log"
	expect_grep 'remote on box-2' "$LAB/build.log"
	same_objects
	expect_eq "containers left" "$(containers)" ''
}

# A container is killed in mid-build: its job moves, and another container takes its place.
killed() {
	local line='' job
	rm -f ./*.o
	cp "$LAB_TOOLS/hold" holdbin
	printf '#!/bin/sh\nif [ -e hold ]; then exec ./holdbin; fi\necho held\nmake -s all\n' >slow
	chmod +x slow
	touch hold
	mkfifo "$LAB/fifo"
	CONCC_EXPLAIN=1 concc-dispatch ./slow </dev/null >"$LAB/fifo" 2>"$LAB/slow.err" &
	job=$!
	exec 8<"$LAB/fifo"
	read -r -t "$LAB_LIMIT" line <&8 || true
	expect_eq "the job" "$line" held
	rm hold
	expect_eq "containers" "$(containers)" 'concc-1 '
	"$LAB/podman" kill concc-1 >/dev/null
	expect_gone "the job" $job
	exec 8<&-
	cat "$LAB/slow.err"
	expect_grep 'worker box-1 was lost' "$LAB/slow.err"
	expect_grep 'remote on box-2' "$LAB/slow.err"
	same_objects
	concc stop
	expect_eq "containers left" "$(containers)" ''
	expect_eq "left of the job" "$(pgrep -x holdbin || true)" ''
}

says() { # PATTERN FLAG...
	local pattern=$1
	shift
	config "$@"
	rm -f 1.o
	CONCC_EXPLAIN=1 concc-cc gcc -g -O2 -c 1.c -o 1.o 2>"$LAB/explain"
	cat "$LAB/explain"
	expect_grep "no worker can be reached .*$pattern" "$LAB/explain"
	expect_same_file "$LAB/1.o" 1.o
	lab_stop_server
	expect_eq "containers left" "$(containers)" ''
}

missing_rights() {
	says 'start the container with --device /dev/fuse' --cap-add=SYS_ADMIN
	says '--cap-add SYS_ADMIN' --device=/dev/fuse
	says 'unknown flag' --no-such-flag
}

# Building the image takes minutes; that all it is built from gets there, does not.
image_has_all() {
	local f from
	mkdir "$LAB/src"
	from=$(sed -n '/ AS build$/,/^# ----/s/^COPY \([^ ]*\) .*/\1/p' "$LAB_REPO/docker/Dockerfile")
	for f in $from; do
		cp -r "$LAB_REPO/$f" "$LAB/src/"
	done
	make -C "$LAB/src" -o all install DESTDIR="$LAB/image" B="$LAB_BUILD" >"$LAB/make.log" 2>&1 ||
		fail "$(tail -n 5 "$LAB/make.log")"
	[ -x "$(find "$LAB/image" -name concc-worker -path '*/bin/*')" ] || fail "no concc-worker"
}

cd "$WS" || exit 1
sources
check "what the image is built from" image_has_all
check "a build in containers" build
check "a container is killed" killed
check "what a container must have" missing_rights
lab_stop_server
lab_stop
