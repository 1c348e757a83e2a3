# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash disable=SC2034,SC2164
#
# Kept results: whatever is said to come of the cache is compared with what the same command makes
# here, at that moment.  After test/lib/lab.sh.

OUT=''  # what the command makes, in $WS
KEEP='' # set: what is there before it stays
PLAIN=0 # status of the command that ran here

begin_state() { # back to it
	local f
	for f in $OUT; do
		[ ! -e "$f" ] || rm "$f"
		[ -z "$KEEP" ] || [ ! -e "$LAB/before/$f" ] || cp -p "$LAB/before/$f" "$f"
	done
}

same_bytes() { # A B
	[ -s "$1" ] || [ -s "$2" ] || return 0
	cmp "$1" "$2"
}

same_output() { # FILE: as it is, and as it was made here
	local plain=$LAB/plain/${1//\//_} ours_mode plain_mode
	[ -e "$1" ] || [ -e "$plain" ] || return 0
	cmp "$1" "$plain" || return 1
	{ read -r ours_mode && read -r plain_mode; } < <(stat -c '%A' "$1" "$plain")
	[ "$ours_mode" = "$plain_mode" ]
}

# Runs it through us, from the state in which it ran here last, and compares all that comes of it.
ours() { # WHERE CMD...: cache or w1
	local where=$1 status=0 f
	shift
	begin_state
	CONCC_EXPLAIN=$LAB/explain concc-cc "$@" </dev/null >"$LAB/ours.out" 2>"$LAB/ours.err" || status=$?
	echo "$(<"$LAB/explain")"
	expect_eq "exit status" "$status" "$PLAIN"
	for f in $OUT; do
		same_output "$f" || fail "$*: another $f ($(<"$LAB/explain"))"
	done
	same_bytes "$LAB/plain.out" "$LAB/ours.out" || fail "$*: other output"
	same_bytes "$LAB/plain.err" "$LAB/ours.err" || fail "$*: other errors: $(head -n 3 "$LAB/ours.err")"
	[ "$where" != cache ] || where='(cache)'
	[[ $(<"$LAB/explain") == *"remote on $where:"* ]] || {
		concc why "$@" </dev/null || true
		fail "$*: not by $where: $(<"$LAB/explain")"
	}
	: >"$LAB/explain"
}

# Runs it here and through us from the same state.
try() { # WHERE CMD...: cache or w1
	local where=$1 f
	shift
	[ -z "$KEEP" ] || {
		rm -rf "$LAB/before"
		mkdir "$LAB/before"
	}
	for f in $OUT; do
		[ -z "$KEEP" ] || [ ! -e "$f" ] || cp -p --parents "$f" "$LAB/before"
	done
	begin_state
	PLAIN=0
	"$@" </dev/null >"$LAB/plain.out" 2>"$LAB/plain.err" || PLAIN=$?
	rm -rf "$LAB/plain"
	mkdir "$LAB/plain"
	for f in $OUT; do
		[ ! -e "$f" ] || mv "$f" "$LAB/plain/${f//\//_}"
	done
	ours "$where" "$@"
}

# It is done, and found again.
twice() { # CMD...: here it runs once
	try w1 "$@"
	ours cache "$@"
}

# In a directory of its own, whose files are old enough to be told apart by their times.
fresh() { # NAME
	rm -rf "${WS:?}/$1"
	mkdir -p "$WS/$1"
	cd "$WS/$1"
	OUT=a.o KEEP=''
	: >"$LAB/explain"
}

# Why jobs are not kept, when the server has told its store of all that there were.
reasons() { # WHY: how often
	concc cache >/dev/null
	lab_status ".cache.uncacheable[\"$1\"] // 0 | tostring"
}

why() { # LINES CMD...: what a person is told
	local lines=$1
	shift
	concc why "$@" </dev/null >"$LAB/why" || true
	expect_eq "concc why" "$(sed 's/ of [-0-9: ]* is kept/ is kept/' "$LAB/why" | tr '\n' ';')" "$lines"
}

# A gcc and an assembler of this directory; that one waits when it is told to.
own_tools() {
	mkdir bin
	cp "$(readlink -f /usr/bin/gcc)" bin/gcc
	cp "$LAB_TOOLS/held-as" bin/as
	ln -s /usr/lib lib
	[ ! -d /usr/libexec ] || ln -s /usr/libexec libexec
	export PATH=$PWD/bin:$PATH
}

# A compilation that has read all of its source, and has not ended until it is let go.
HELD_CALL=() # which one
HELD_AS=as   # the name by which it calls the assembler
meanwhile() { # CHANGE...: while it is held
	local before pid line=''
	# Another call each time: the result of the last one was kept at its end.
	local words=("${HELD_CALL[@]}" "-DNOT_KEPT=$(reasons changed)")
	echo "--- $*"
	before=$(reasons changed)
	rm -f a.o
	mkfifo "$LAB/held"
	# With the signals of who is not in the background: they belong to the call.
	HELD=1 CONCC_EXPLAIN=$LAB/explain "$LAB_TOOLS/own-group" concc-cc "${words[@]}" \
		</dev/null >"$LAB/ours.out" 2>"$LAB/held" &
	pid=$!
	exec 8<"$LAB/held"
	read -r -t "$LAB_LIMIT" line <&8 || true
	expect_eq "what it says" "$line" held
	"$@"
	kill -USR1 "$(lab_client_pids "$HELD_AS")"
	wait "$pid"
	exec 8<&-
	rm "$LAB/held"
	expect_grep 'remote on w1:' "$LAB/explain"
	: >"$LAB/explain"
	expect_eq "jobs not kept for it" "$(reasons changed)" $((before + 1))
	try w1 "${words[@]}" # as it is now
}

# Of the same size and time, as far as anybody can set it.
rewrite() { # FILE TEXT
	touch -r "$1" "$LAB/time"
	echo "$2" >"$1"
	touch -r "$LAB/time" "$1"
}

replace() { # FILE TEXT
	echo "$2" >"$1.new"
	mv "$1.new" "$1"
}

and_back() { # FILE TEXT
	local was
	was=$(cat "$1")
	echo "$2" >"$1"
	echo "$was" >"$1"
}

# What another job makes is no less of a change.
made_by_job() { # FILE TEXT
	echo "$2" >"$1.in"
	CONCC_EXPLAIN=$LAB/made concc-cc gcc -E -P -x c "$1.in" -o "$1" </dev/null
	expect_grep 'remote on w1:' "$LAB/made"
}

# An HTTP server for a store that others share.
shared_server() { # DAV-METHODS
	mkdir -p "$LAB/dav/tmp" "$LAB/dav/root"
	cat >"$LAB/dav/nginx.conf" <<-EOS
		daemon off; master_process off; pid $LAB/dav/pid; error_log $LAB/dav/error.log;
		events { worker_connections 64; }
		http {
			access_log $LAB/dav/access.log;
			client_body_temp_path $LAB/dav/tmp; proxy_temp_path $LAB/dav/tmp; fastcgi_temp_path $LAB/dav/tmp;
			uwsgi_temp_path $LAB/dav/tmp; scgi_temp_path $LAB/dav/tmp;
			server { listen 127.0.0.1:8099; root $LAB/dav/root; client_max_body_size 1g;
				location / { dav_methods $1; create_full_put_path on; } }
		}
	EOS
	rm -f "$LAB/dav/pid"
	/usr/sbin/nginx -c "$LAB/dav/nginx.conf" 2>"$LAB/dav/out" &
	DAV=$!
	"$LAB_TOOLS/wait-file" "$LAB_LIMIT" "$LAB/dav" pid || # it has listened before it writes that
		fail "nginx does not listen: $(cat "$LAB/dav/out")"
}

shared_end() {
	kill "$DAV"
	wait "$DAV" || true
}

# With a worker beside the server: where it is does not matter, and servers are started often.
near_config() { # LINE...
	{
		printf '[concc]\nworkspace = %s\ncache = 1G\nlocal-slots = 0\n' "$WS"
		[ $# -eq 0 ] || printf '%s\n' "$@"
		printf '[worker w1]\naddress = local:\nslots = 2\n'
	} >/srv/concc.ini
	lab_stop_server
}
