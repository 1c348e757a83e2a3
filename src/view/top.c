/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/view.h"

#include <curses.h>
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <term.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "feed.h"
#include "layout.h"
#include "usual.h"

#define ONCE_MS 5000 /* for servers to tell; each needs a millisecond */

static int fail(const char *why)
{
	fprintf(stderr, "concc: %s\n", why);
	return 1;
}

/* ---- jobs that end while we look ---- */

static char *member(const json_t *job, const char *key)
{
	return xstrdup(json_string_value(json_object_get(job, key)) ?: "");
}

static void on_ended(void *data, const json_t *job)
{
	_cleanup_free_ char *directory = member(job, "directory"),
			    *subject = member(job, "subject");
	struct last_job j = {
		.worker = member(job, "worker"),
		.rule = member(job, "rule"),
		.why = member(job, "why"),
		.program = member(job, "program"),
		.what = member(job, *subject ? "subject" : "command"),
		.us = (uint64_t)json_integer_value(json_object_get(job, "us")),
		.code = (uint64_t)json_integer_value(json_object_get(job, "code")),
		.by_signal = json_is_true(json_object_get(job, "signal")),
	};

	usual_add(data, directory, subject, &j);
}

/* ---- once ---- */

static void print(const struct feed *f, const struct usual *u)
{
	struct layout l;

	layout_make(&l, f, u, 0);
	for (size_t i = 0; i < l.n; i++)
		puts(l.v[i].text);
	layout_release(&l);
}

/* Until each server that is there has told; one that is stopped does not. */
static int once(struct feed *f, const struct usual *u)
{
	uint64_t end = now_ms() + ONCE_MS;

	while (!feed_is_complete(f)) {
		struct pollfd p[FEED_FDS];
		unsigned n = feed_poll(f, p);
		uint64_t now = now_ms();

		if (now >= end)
			break;
		if (poll(p, n, (int)(end - now)) > 0)
			(void)feed_handle(f, p, n);
	}
	print(f, u);
	if (!feed_is_complete(f))
		return fail("a project server does not answer");
	return fflush(stdout) == EOF ? fail("standard output can't be written to") : 0;
}

/* ---- a terminal ---- */

struct top {
	struct feed feed;
	struct usual usual;
	int timer_fd, signal_fd;
	bool over;
	int signo; /* that ended it, or 0 */
};

static attr_t look_of(enum line_style style)
{
	bool colours = has_colors() && !getenv("NO_COLOR");

	switch (style) {
	case LINE_TITLE:
		return A_BOLD;
	case LINE_HEAD:
		return A_REVERSE;
	case LINE_FAINT:
		return A_DIM;
	case LINE_BAD:
		return colours ? (attr_t)COLOR_PAIR(1) : A_BOLD;
	case LINE_SLOW:
		return colours ? (attr_t)COLOR_PAIR(2) : A_BOLD;
	case LINE_PLAIN:
		break;
	}
	return A_NORMAL;
}

/* Only what is different from what is there goes to the terminal: that is curses' own work. */
static void draw(const struct top *t)
{
	struct layout l;

	erase();
	layout_make(&l, &t->feed, &t->usual, (unsigned)LINES);
	for (size_t i = 0; i < l.n && (int)i < LINES; i++) {
		attr_t look = look_of(l.v[i].style);

		(void)attron(look);
		(void)mvaddnstr((int)i, 0, l.v[i].text, COLS);
		if (l.v[i].style == LINE_HEAD)
			for (int x = (int)strlen(l.v[i].text); x < COLS; x++)
				(void)mvaddch((int)i, x, ' ');
		(void)attroff(look);
	}
	layout_release(&l);
	(void)refresh();
}

static void resize(void)
{
	struct winsize w;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row && w.ws_col)
		(void)resizeterm(w.ws_row, w.ws_col);
	(void)clearok(stdscr,
		      TRUE); /* what the terminal made of the old lines is anybody's guess */
}

/* Of SIGTSTP curses hears, and gives the terminal back before; of SIGSTOP nobody does.  The shell
 * had it since, with modes of its own; nor does one that is stopped hear of another size.  In the
 * background this stops us. */
static void go_on(void)
{
	(void)reset_prog_mode();
	(void)curs_set(0);
	resize();
}

static void on_signals(struct top *t)
{
	struct signalfd_siginfo info;

	while (read(t->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCONT) {
			go_on();
		} else if (info.ssi_signo == SIGWINCH) {
			resize();
		} else {
			t->signo = (int)info.ssi_signo;
			t->over = true;
		}
	}
}

static void on_keys(struct top *t, short revents)
{
	int c;

	while ((c = getch()) != ERR) {
		if (c == 'q' || c == 'Q')
			t->over = true;
		if (c == 12) /* ^L */
			(void)clearok(stdscr, TRUE);
	}
	if (revents & (POLLHUP | POLLERR | POLLNVAL))
		t->over = true;
}

static void on_timer(const struct top *t)
{
	uint64_t n;

	(void)read(t->timer_fd, &n, sizeof(n)); /* how often does not matter */
}

static void run(struct top *t)
{
	while (!t->over) {
		struct pollfd p[3 + FEED_FDS] = {{.fd = STDIN_FILENO, .events = POLLIN},
						 {.fd = t->signal_fd, .events = POLLIN},
						 {.fd = t->timer_fd, .events = POLLIN}};
		unsigned n = feed_poll(&t->feed, p + 3);

		draw(t);
		if (poll(p, 3 + n, -1) < 0)
			continue; /* a signal that is not ours: stopped, and gone on */
		if (p[0].revents)
			on_keys(t, p[0].revents);
		if (p[1].revents)
			on_signals(t);
		if (p[2].revents)
			on_timer(t);
		(void)feed_handle(&t->feed, p + 3, n);
	}
}

/* For elapsed times; what happens is told when it does. */
static int open_events(struct top *t)
{
	struct itimerspec second = {{1, 0}, {1, 0}};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	sigaddset(&set, SIGCONT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	t->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	t->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (t->signal_fd < 0 || t->timer_fd < 0 ||
	    timerfd_settime(t->timer_fd, 0, &second, NULL) < 0)
		return -errno;
	return 0;
}

static void set_up_screen(void)
{
	(void)cbreak();
	(void)noecho();
	(void)nonl();
	(void)nodelay(stdscr, TRUE);
	(void)keypad(stdscr, TRUE);
	(void)curs_set(0);
	if (!has_colors() || getenv("NO_COLOR"))
		return;
	(void)start_color();
	(void)use_default_colors();
	(void)init_pair(1, COLOR_RED, -1);
	(void)init_pair(2, COLOR_YELLOW, -1);
}

/* Can it put text at a place? */
static bool can_show(const char *term)
{
	int err;

	return term && *term && setupterm(term, STDOUT_FILENO, &err) == OK && cursor_address;
}

static int on_screen(struct top *t)
{
	const char *term = getenv("TERM");
	SCREEN *screen;
	int r;

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return fail("top needs a terminal; `concc top --once` prints the same for a pipe");
	if (!can_show(term)) {
		fprintf(stderr,
			"concc: a terminal of type \"%s\" (TERM) can't show this; `concc top --once` "
			"prints it\n",
			term ? term : "");
		return 1;
	}
	r = open_events(t);
	if (r < 0)
		return fail(err_text(r));
	screen = newterm(NULL, stdout, stdin);
	if (!screen)
		return fail("the terminal can't be used; `concc top --once` prints the same");
	set_up_screen();
	run(t);
	(void)endwin();
	delscreen(screen);
	return t->signo == SIGINT || !t->signo ? 0 : 128 + t->signo;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		(void)close(fd);
}

int view_top(bool just_once)
{
	struct top t = {.timer_fd = -1, .signal_fd = -1};
	struct errmsg msg = {0};
	int r;

	(void)setlocale(LC_CTYPE, "");
	if (feed_open(&t.feed, &msg) < 0)
		return fail(msg.text);
	usual_read(&t.usual);
	t.feed.ended = on_ended;
	t.feed.data = &t.usual;
	r = just_once ? once(&t.feed, &t.usual) : on_screen(&t);
	feed_close(&t.feed);
	usual_release(&t.usual);
	close_fd(t.timer_fd);
	close_fd(t.signal_fd);
	return r;
}
