/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "push.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/loop.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "stderr_tail.h"

#define PART	     (64 * 1024)   /* of the file, sent at once */
#define NOISE_MAX    (64 * 1024)   /* what login shells may print before we are answered */
#define MOVING_MS    60000	   /* what is on its way may be a megabyte, and the line slow */
#define LINGER_MS    5000	   /* for the answer of a host that takes no more */
#define ROUND_BUDGET (1024 * 1024) /* bytes sent before others in the loop get their turn */
#define SAID_MAX     300	   /* of a host's words, in messages; an errmsg holds 512 */
#define MARK	     "CONCC-PUSH: "
#define NAME_DIGITS  16 /* of the hash, in the file's name */

/* ---- what the host runs ---- */

/*
 * In one line, and without single quotes, backslashes and exclamation marks,
 * which is what sh, csh and fish agree about between single quotes.  $1: no,
 * yes or only; then hash, size, architecture, the digits of the name.
 *
 * The file is renamed into place once it was checked and has run, so whatever
 * interrupts this, and whoever else does the same, leaves a whole file or none;
 * one that runs keeps its inode.  The last three stay, for clients that differ.
 */
#define TEXT_OF(x) #x
#define DIGITS(x)  TEXT_OF(x)
#define ROOTS_OWN  "0." DIGITS(SANDBOX_UID) "|0." DIGITS(SANDBOX_UID_ALT)
static const char script[] =
	"m=$1 h=$2 n=$3 a=$4; "
	"f=${CONCC_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/concc}; "
	"b=$f/concc-worker-$5; t=$f/.concc-worker.$$; "
	"say() { echo \"" MARK "$*\"; }; "
	"die() { rm -f \"$t\"; set -f; say fail $*; exit 1; }; "
	"same() { s=$(sha256sum <\"$1\") && [ \"${s%% *}\" = \"$h\" ]; } 2>/dev/null; "
	"run() { [ $m = only ] && exit 0; touch -c \"$b\" 2>/dev/null; exec \"$1\" --stdio; }; "
	"own() { [ -d \"$f\" ] && i=$(id -u) && set -- $(ls -ldn \"$f/.\") && "
	"case $1 in d???"
	"?-?"
	"?-*) ;; *) return 1;; esac && " /* in pieces: no trigraphs */
	"case $i.$3 in $i.$i|" ROOTS_OWN ") ;; *) return 1;; esac; }; "
	"w=$(command -v concc-worker); "
	"if [ $m = no ]; then "
	"own && [ -x \"$b\" ] && same \"$b\" && run \"$b\"; "
	"[ -n \"$w\" ] && exec \"$w\" --stdio; "
	"echo concc-worker: not found >&2; exit 127; fi; "
	"[ \"$(uname -m)\" = $a ] || die \"it is a $(uname -m) machine and this is $a\"; "
	"command -v sha256sum >/dev/null || "
	"die \"it has no sha256sum to check the file with; install coreutils there\"; "
	"mine() { own || die \"$f is not yours alone, so others could replace what is run: "
	"chmod go-w $f there, or set CONCC_CACHE_DIR\"; }; "
	"[ -e \"$f\" ] && mine; "
	"for x in \"$b\" \"$w\"; do "
	"[ -x \"$x\" ] && same \"$x\" && { say have \"$x\"; run \"$x\"; }; done; "
	"e=$( (umask 077; mkdir -p \"$f\") 2>&1) || die \"$e\"; mine; "
	"find \"$f\" -maxdepth 1 -name \".concc-worker.*\" -mmin +60 -exec rm -f {} + 2>/dev/null; "
	"e=$( (: >\"$t\") 2>&1) || die \"$e\"; "
	"say need; "
	"e=$( (head -c $n >\"$t\") 2>&1) || die \"$t: $e\"; "
	"same \"$t\" || die \"$t: the file did not arrive whole; try again\"; "
	"e=$( (chmod 755 \"$t\" && \"$t\" --version </dev/null >/dev/null) 2>&1) || "
	"die \"it does not run there: $e\"; "
	"e=$(mv -f \"$t\" \"$b\" 2>&1) || die \"$e\"; "
	"ls -t \"$f\"/concc-worker-* | tail -n +4 | while read -r x; do rm -f \"$x\"; done; "
	"say have \"$b\"; run \"$b\"";

char *push_command(enum install install, const struct worker_file *f)
{
	static const char *const modes[] = {
		[INSTALL_NO] = "no", [INSTALL_YES] = "yes", [INSTALL_ONLY] = "only"};
	const char *hex = f ? f->hex : "none";
	struct utsname u = {0};

	(void)uname(&u); /* fails for a bad address only */
	return xasprintf("exec /bin/sh -c '%s' concc %s %s %llu %s %.*s", script, modes[install],
			 hex, f ? (unsigned long long)f->size : 0, u.machine, NAME_DIGITS, hex);
}

/* ---- the conversation ---- */

struct push {
	struct loop *loop;
	struct stream *stream;
	const struct worker_file *file;
	push_fn fn;
	void *data;
	uint32_t silence_ms;
	struct loop_source *sources[2], *silence, *soon;
	struct buf heard; /* what was said since the last answer */
	size_t line_at;	  /* where its last line begins */
	bool asked;	  /* the host wants the file */
	bool blocked;	  /* the last write said -EAGAIN */
	int write_error;  /* it takes no more; why, it may still say */
	uint64_t sent;	  /* bytes of the file */
	uint8_t part[PART];
	size_t part_len, part_off;
};

static void on_event(void *data, uint32_t events);

static void unwatch(struct push *p)
{
	for (int i = 0; i < 2; i++) {
		loop_remove(p->sources[i]);
		p->sources[i] = NULL;
	}
}

void push_free(struct push *p)
{
	if (!p)
		return;
	unwatch(p);
	loop_remove(p->silence);
	loop_remove(p->soon);
	stream_free(p->stream);
	buf_release(&p->heard);
	free(p);
}

/* Frees p. */
static void finish(struct push *p, int err, const char *text, const char *how)
{
	struct stream *s = err < 0 ? NULL : steal_ptr(&p->stream);
	push_fn fn = p->fn;
	void *data = p->data;

	unwatch(p);
	push_free(p);
	fn(data, s, err, text, how);
}

static void fail(struct push *p, int err, const char *what)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	const char *why = p->stream->ops->explain ? p->stream->ops->explain(p->stream) : "";
	struct blob line = last_line((struct blob){p->heard.data, p->heard.len});
	struct errmsg msg;

	buf_putf(&text, "%s", what);
	if (line.n && !p->asked) {
		char *shown = str_escape(line.p, line.n, SAID_MAX);

		buf_putf(&text, ": it printed \"%s\"", shown);
		free(shown);
	}
	if (*why)
		buf_putf(&text, ": %s", why);
	(void)errmsg_set(&msg, err, "%s", buf_cstr(&text));
	finish(p, err, msg.text, "");
}

static void ended(struct push *p, int err)
{
	_cleanup_free_ char *what = NULL;

	if (err == 0)
		err = p->write_error ? p->write_error : CONCC_E_CLOSED;
	if (p->asked)
		what = xasprintf("the connection ended after %.1f of %.1f MB of concc-worker",
				 (double)p->sent / 1e6, (double)p->file->size / 1e6);
	else
		what = xstrdup("no shell there took the command");
	fail(p, err, what);
}

static void on_silence(void *data)
{
	struct push *p = data;
	/* Such a worker waits to be greeted, as we wait for the host's shell. */
	_cleanup_free_ char *what = xasprintf(
		"no answer for %.1f s while concc-worker was put there%s",
		(double)p->silence_ms / 1000,
		p->asked ? ""
			 : "; if the host runs a concc-worker whatever it is asked for, remove "
			   "`install = yes`");

	fail(p, CONCC_E_TIMEOUT, what);
}

/* An answer, without its mark and newline.  True when it ended p. */
static bool on_answer(struct push *p, char *line)
{
	_cleanup_free_ char *shown = NULL, *how = NULL;

	if (streq(line, "need") && !p->asked) {
		p->asked = true;
		if (p->silence_ms < MOVING_MS)
			p->silence_ms = MOVING_MS;
		return false;
	}
	if (str_starts(line, "fail ")) {
		shown = str_escape(line + 5, strlen(line + 5), SAID_MAX);
		how = xasprintf("concc-worker could not be put there: %s", shown);
		finish(p, CONCC_E_UNAVAIL, how, "");
		return true;
	}
	if (str_starts(line, "have ") && (!p->asked || p->sent == p->file->size)) {
		shown = str_escape(line + 5, strlen(line + 5), SAID_MAX);
		how = p->asked ? xasprintf("pushed %.1f MB to %s", (double)p->sent / 1e6, shown)
			       : xasprintf("is there already: %s", shown);
		finish(p, 0, "", how);
		return true;
	}
	fail(p, CONCC_E_PROTO, "the answer is not that of our script");
	return true;
}

/* Looks at what was heard, after each byte.  True when that ended p. */
static bool take_in(struct push *p)
{
	static const size_t magic_len = sizeof(PROTO_MAGIC) - 1;
	_cleanup_free_ char *line = NULL;
	struct buf *b = &p->heard;
	uint8_t *mark;

	if (b->len >= magic_len &&
	    memcmp(b->data + b->len - magic_len, PROTO_MAGIC, magic_len) == 0) {
		fail(p, CONCC_E_UNAVAIL,
		     "the host runs a concc-worker whatever it is asked "
		     "for; remove `install = yes`");
		return true;
	}
	if (b->data[b->len - 1] != '\n')
		return false;
	/* A shell's words may stand before it without a newline. */
	mark = memmem(b->data + p->line_at, b->len - p->line_at, MARK, strlen(MARK));
	p->line_at = b->len;
	if (!mark)
		return false;
	mark += strlen(MARK);
	line = xstrndup((char *)mark, (size_t)(b->data + b->len - mark) - 1);
	buf_reset(b);
	p->line_at = 0;
	return on_answer(p, line);
}

/*
 * One byte at a time: behind the answer the link begins, whose bytes are not
 * ours to take.  True when p has ended.
 */
static bool read_answers(struct push *p)
{
	for (;;) {
		uint8_t c;
		ssize_t r = p->stream->ops->read(p->stream, &c, 1);

		if (r == -EAGAIN)
			return false;
		if (r <= 0) {
			ended(p, (int)r);
			return true;
		}
		if (p->heard.len >= NOISE_MAX) {
			fail(p, CONCC_E_TOOBIG, "64 KB of other output came before an answer");
			return true;
		}
		buf_append(&p->heard, &c, 1);
		if (take_in(p))
			return true;
		loop_timer_set(p->silence, p->silence_ms);
	}
}

/* The next bytes of the file, when those before have left.  False at its end. */
static bool fill_part(struct push *p)
{
	uint64_t left = p->file->size - p->sent;
	ssize_t n;

	if (p->part_off < p->part_len)
		return true;
	if (left == 0)
		return false;
	n = pread(p->file->fd, p->part, left < PART ? (size_t)left : PART, (off_t)p->sent);
	if (n <= 0) {
		p->write_error = n < 0 ? -errno : -EIO;
		loop_timer_set(p->silence, 1); /* the host waits for what does not come */
		return false;
	}
	p->part_off = 0;
	p->part_len = (size_t)n;
	return true;
}

static void write_file(struct push *p)
{
	size_t wrote = 0;

	p->blocked = false;
	while (p->asked && !p->write_error && wrote < ROUND_BUDGET && fill_part(p)) {
		ssize_t r = p->stream->ops->write(p->stream, p->part + p->part_off,
						  p->part_len - p->part_off);

		if (r == -EAGAIN) {
			p->blocked = true;
			return;
		}
		if (r < 0) {
			/* It said why just before, most likely. */
			p->write_error = (int)r;
			loop_timer_set(p->silence, LINGER_MS);
			return;
		}
		p->part_off += (size_t)r;
		p->sent += (uint64_t)r;
		wrote += (size_t)r;
		loop_timer_set(p->silence, p->silence_ms);
	}
}

static void go_on(struct push *p);

static void again(void *data)
{
	struct push *p = data;

	p->soon = NULL;
	go_on(p);
}

static void watch(struct push *p)
{
	int fds[2];
	uint32_t events[2];

	p->stream->ops->want(p->stream, true, p->blocked, fds, events);
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			p->sources[i] = loop_add_fd(p->loop, fds[i], events[i], on_event, p);
}

/* Reads first, since an answer decides what is written; and after, since a write may bring input.
 */
static void go_on(struct push *p)
{
	bool more;

	unwatch(p);
	if (read_answers(p))
		return;
	write_file(p);
	more = p->asked && !p->blocked && !p->write_error && p->sent < p->file->size;
	if ((p->stream->inside || more) && !p->soon)
		p->soon = loop_defer(p->loop, again, p);
	watch(p);
}

static void on_event(void *data, uint32_t events)
{
	(void)events;
	go_on(data);
}

struct push *push_new(struct loop *l, struct stream *s, const struct worker_file *f,
		      uint32_t silence_ms, push_fn fn, void *data)
{
	struct push *p = xcalloc(1, sizeof(*p));

	p->loop = l;
	p->stream = s;
	p->file = f;
	p->fn = fn;
	p->data = data;
	p->silence_ms = silence_ms;
	p->silence = loop_add_timer(l, silence_ms, on_silence, p);
	p->soon = loop_defer(l, again, p); /* the stream may hold bytes already */
	return p;
}
