/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/process.h"
#include "concc/str.h"
#include "concc/view.h"
#include "feed.h"
#include "json.h"
#include "text.h"

#define PATIENCE_MS 1000 /* who waits for less asks nothing */

struct line {
	enum view_line what;
	bool is_shown;
	unsigned rows; /* of the terminal, when its last one was made ours; 0: it is not */
};

static void put(const struct buf *b)
{
	/* A terminal that is gone wants no word. */
	(void)write_full(STDERR_FILENO, b->data, b->len);
}

/* ---- before a build: the line that the cursor is in ---- */

/* Over what is in it now. */
static void put_local(const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	buf_putf(&b, "\r\033[K%s", text);
	put(&b);
}

/* ---- beside a build: the last line, which nothing that others write gets into ---- */

#define SAVE	"\0337" /* the cursor: setting the part that scrolls moves it (DECSTBM) */
#define RESTORE "\0338"

static void take_last_line(struct line *l, unsigned rows)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	/* Below the cursor there is at least one line. */
	buf_putf(&b, "\n" SAVE "\033[1;%ur" RESTORE "\033[A", rows - 1);
	put(&b);
	l->rows = rows;
}

static void give_last_line_back(struct line *l)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!l->rows)
		return;
	buf_putf(&b, SAVE "\033[%u;1H\033[K\033[r" RESTORE, l->rows);
	put(&b);
	l->rows = 0;
}

static void put_last(struct line *l, const char *text, unsigned rows)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (rows != l->rows && rows > 2)
		take_last_line(l, rows);
	if (!l->rows)
		return;
	buf_putf(&b, SAVE "\033[%u;1H\033[K%s" RESTORE, l->rows, text);
	put(&b);
}

/* ---- what they say ---- */

static bool is_on_its_way(const char *state)
{
	return streq(state, "connecting") || streq(state, "starting");
}

static void list_workers(struct buf *out, const json_t *status)
{
	const json_t *w;
	bool any = false;
	size_t i;

	json_array_foreach(json_object_get(status, "workers"), i, w)
	{
		const char *state = json_string_value(json_object_get(w, "state")) ?: "";

		if (!is_on_its_way(state))
			continue;
		buf_putf(out, "%s%s (%s)", any ? ", " : "",
			 json_string_value(json_object_get(w, "name")) ?: "?", state);
		any = true;
	}
	if (!any)
		buf_putf(out, "the project server");
}

static void put_waiting(struct buf *out, const struct feed *f)
{
	buf_putf(out, "waiting for ");
	list_workers(out, f->servers[0].status);
}

static uint64_t total(const json_t *status, const char *key)
{
	const json_t *w;
	uint64_t n = 0;
	size_t i;

	json_array_foreach(json_object_get(status, "workers"), i, w)
	{
		n += get_int(w, key);
	}
	return n;
}

static void put_progress(struct buf *out, const struct feed *f)
{
	const json_t *o = f->servers[0].status;
	uint64_t wanted = total(o, "wanted_bytes");
	size_t local = json_array_size(json_object_get(o, "here"));

	buf_putf(out, "%llu job%s on workers", (unsigned long long)get_int(o, "running"),
		 str_plural(get_int(o, "running")));
	if (local)
		buf_putf(out, ", %zu here", local);
	if (get_int(o, "waiting"))
		buf_putf(out, ", %llu waiting", (unsigned long long)get_int(o, "waiting"));
	buf_putf(out, ", %llu done", (unsigned long long)f->servers[0].n_ended);
	if (!wanted)
		return;
	buf_putf(out, "; sending what they need: ");
	put_size(out, total(o, "sent_bytes"));
	buf_putf(out, " of ");
	put_size(out, wanted);
}

/* No longer than the line, or it would go on in the next. */
static void tell(struct line *l, const struct feed *f)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct winsize w = {0};
	char *text;

	buf_putf(&b, "concc: ");
	(l->what == VIEW_LINE_WAITING ? put_waiting : put_progress)(&b, f);
	(void)ioctl(STDERR_FILENO, TIOCGWINSZ, &w);
	text = xstrndup(buf_cstr(&b), w.ws_col > 1 ? w.ws_col - 1u : 79);
	str_defuse(text);
	if (l->what == VIEW_LINE_WAITING)
		put_local(text);
	else
		put_last(l, text, w.ws_row);
	l->is_shown = true;
	free(text);
}

static void hide(struct line *l)
{
	if (l->is_shown && l->what == VIEW_LINE_WAITING)
		put_local("");
	give_last_line_back(l);
}

/* Until a signal comes. */
static void watch(struct line *l, struct feed *f, int signal_fd)
{
	uint64_t begin = now_ms();

	for (;;) {
		struct pollfd p[1 + FEED_FDS] = {{.fd = signal_fd, .events = POLLIN}};
		unsigned n = feed_poll(f, p + 1);
		uint64_t gone = now_ms() - begin;
		bool changed;

		if (poll(p, 1 + n, gone < PATIENCE_MS ? (int)(PATIENCE_MS - gone) : -1) < 0)
			continue;
		if (p[0].revents)
			break;
		changed = feed_handle(f, p + 1, n);
		if (now_ms() - begin >= PATIENCE_MS && (changed || !l->is_shown))
			tell(l, f);
	}
	hide(l);
}

static void run(enum view_line what)
{
	struct line l = {.what = what};
	struct errmsg msg = {0};
	sigset_t set;
	struct feed f;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	fd = sigprocmask(SIG_BLOCK, &set, NULL) < 0 ? -1 : signalfd(-1, &set, SFD_CLOEXEC);
	if (fd < 0 || feed_open(&f, &msg) < 0)
		return;
	watch(&l, &f, fd);
	feed_close(&f);
}

/* One that knows how to clear a line. */
static bool is_terminal(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) && term && *term && !streq(term, "dumb");
}

pid_t view_line_begin(enum view_line what)
{
	pid_t self = getpid(), pid = is_terminal() ? process_fork() : -1;

	if (pid)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() == self)
		run(what);
	_exit(0);
}

void view_line_end(pid_t pid)
{
	int status;

	if (pid <= 0)
		return;
	(void)kill(pid, SIGTERM);
	(void)process_wait(pid, &status);
}
