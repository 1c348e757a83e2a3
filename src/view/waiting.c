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

#define PATIENCE_MS 1000 /* who waits for less asks nothing */

/* Over what is in the line now, and the cursor stays in it. */
static void put_over(const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	buf_putf(&b, "\r\033[K%s", text);
	(void)write_full(STDERR_FILENO, b.data, b.len); /* a terminal that is gone wants no word */
}

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

/* No longer than the line, or the next one would not be written over it. */
static void tell(const struct feed *f)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct winsize w = {0};
	char *text;

	buf_putf(&b, "concc: waiting for ");
	list_workers(&b, f->servers[0].status);
	(void)ioctl(STDERR_FILENO, TIOCGWINSZ, &w);
	text = xstrndup(buf_cstr(&b), w.ws_col > 1 ? w.ws_col - 1u : 79);
	str_defuse(text);
	put_over(text);
	free(text);
}

/* Until a signal comes. */
static void watch(struct feed *f, int signal_fd)
{
	uint64_t begin = now_ms();
	bool told = false;

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
		if (now_ms() - begin < PATIENCE_MS || (told && !changed))
			continue;
		told = true;
		tell(f);
	}
	if (told)
		put_over("");
}

static void run(void)
{
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
	watch(&f, fd);
	feed_close(&f);
}

/* One that knows how to clear a line. */
static bool is_terminal(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) && term && *term && !streq(term, "dumb");
}

pid_t view_waiting_begin(void)
{
	pid_t self = getpid(), pid = is_terminal() ? process_fork() : -1;

	if (pid)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() == self)
		run();
	_exit(0);
}

void view_waiting_end(pid_t pid)
{
	int status;

	if (pid <= 0)
		return;
	(void)kill(pid, SIGTERM);
	(void)process_wait(pid, &status);
}
