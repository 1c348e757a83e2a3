/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/map.h"
#include "concc/str.h"

enum source_kind { SRC_FD, SRC_TIMER, SRC_SIGNAL, SRC_CHILD, SRC_DEFER };

struct loop_source {
	struct list link; /* of loop.sources, loop.deferred or loop.dead */
	struct loop *loop;
	enum source_kind kind;
	int fd; /* ours for all but SRC_FD; -1 for SRC_DEFER */
	bool dead;
	void *data;
	int signo;
	pid_t pid;
	union {
		loop_fd_fn fd;
		loop_fn plain;
		loop_signal_fn signal;
		loop_child_fn child;
	} fn;
};

struct loop {
	int epoll_fd;
	bool quit, while_children;
	struct list sources;
	struct list deferred;
	uint64_t woke_ms;
	struct list dead; /* removed while dispatching */
};

int loop_new(struct loop **ret)
{
	struct loop *l = xcalloc(1, sizeof(*l));

	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0) {
		free(l);
		return -errno;
	}
	list_init(&l->sources);
	list_init(&l->deferred);
	list_init(&l->dead);
	*ret = l;
	return 0;
}

static void free_dead(struct loop *l)
{
	while (!list_empty(&l->dead)) {
		struct loop_source *s = list_first(&l->dead, struct loop_source, link);

		list_remove(&s->link);
		free(s);
	}
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	while (!list_empty(&l->sources))
		loop_remove(list_first(&l->sources, struct loop_source, link));
	while (!list_empty(&l->deferred))
		loop_remove(list_first(&l->deferred, struct loop_source, link));
	free_dead(l);
	close(l->epoll_fd);
	free(l);
}

static uint32_t to_epoll(uint32_t events)
{
	return (events & LOOP_READ ? EPOLLIN : 0u) | (events & LOOP_WRITE ? EPOLLOUT : 0u);
}

static uint32_t from_epoll(uint32_t events)
{
	return (events & (EPOLLIN | EPOLLRDHUP) ? LOOP_READ : 0u) |
	       (events & EPOLLOUT ? LOOP_WRITE : 0u) |
	       (events & (EPOLLHUP | EPOLLERR) ? LOOP_HANGUP : 0u);
}

static struct loop_source *source_new(struct loop *l, enum source_kind kind, int fd, void *data)
{
	struct loop_source *s = xcalloc(1, sizeof(*s));

	s->loop = l;
	s->kind = kind;
	s->fd = fd;
	s->data = data;
	list_append(&l->sources, &s->link);
	return s;
}

/* Registration fails only for a bad fd, no memory or the user's watch limit: nothing works then. */
static void watch(struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = {.events = to_epoll(events), .data.ptr = s};

	if (epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0)
		abort();
}

struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn fn, void *data)
{
	struct loop_source *s = source_new(l, SRC_FD, fd, data);

	s->fn.fd = fn;
	watch(s, events);
	return s;
}

void loop_set_events(struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = {.events = to_epoll(events), .data.ptr = s};

	if (epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_MOD, s->fd, &ev) < 0)
		abort();
}

struct loop_source *loop_add_timer(struct loop *l, uint64_t delay_ms, loop_fn fn, void *data)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	struct loop_source *s;

	if (fd < 0)
		abort();
	s = source_new(l, SRC_TIMER, fd, data);
	s->fn.plain = fn;
	watch(s, LOOP_READ);
	loop_timer_set(s, delay_ms);
	return s;
}

void loop_timer_set(struct loop_source *s, uint64_t delay_ms)
{
	struct itimerspec its = {
		.it_value = {.tv_sec = (time_t)(delay_ms / 1000),
			     .tv_nsec = (long)(delay_ms % 1000) * 1000000},
	};

	if (timerfd_settime(s->fd, 0, &its, NULL) < 0)
		abort();
}

struct loop_source *loop_add_signal(struct loop *l, int signo, loop_signal_fn fn, void *data)
{
	struct loop_source *s;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, signo);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		abort();
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		abort();
	s = source_new(l, SRC_SIGNAL, fd, data);
	s->fn.signal = fn;
	s->signo = signo;
	watch(s, LOOP_READ);
	return s;
}

struct loop_source *loop_add_child(struct loop *l, pid_t pid, loop_child_fn fn, void *data)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct loop_source *s;

	if (fd < 0 || fd_set_cloexec(fd, true) < 0)
		abort();
	s = source_new(l, SRC_CHILD, fd, data);
	s->fn.child = fn;
	s->pid = pid;
	watch(s, LOOP_READ);
	return s;
}

struct loop_source *loop_defer(struct loop *l, loop_fn fn, void *data)
{
	struct loop_source *s = source_new(l, SRC_DEFER, -1, data);

	s->fn.plain = fn;
	list_remove(&s->link);
	list_append(&l->deferred, &s->link);
	return s;
}

void loop_remove(struct loop_source *s)
{
	if (!s || s->dead)
		return;
	s->dead = true;
	if (s->kind == SRC_FD)
		(void)epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL); /* may be closed */
	else if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	list_remove(&s->link);
	list_append(&s->loop->dead, &s->link);
}

static void dispatch_timer(struct loop_source *s)
{
	uint64_t n;

	if (read(s->fd, &n, sizeof(n)) == sizeof(n))
		s->fn.plain(s->data);
}

static void dispatch_signal(struct loop_source *s)
{
	struct signalfd_siginfo si;

	while (!s->dead && read(s->fd, &si, sizeof(si)) == sizeof(si))
		s->fn.signal(s->data, s->signo);
}

static void dispatch_child(struct loop_source *s)
{
	loop_child_fn fn = s->fn.child;
	void *data = s->data;
	pid_t pid = s->pid;
	int status = 0;
	pid_t r = waitpid(pid, &status, WNOHANG);

	if (r == 0)
		return;
	if (r < 0)
		status = W_EXITCODE(0, SIGKILL); /* somebody else reaped it: the worst is assumed */
	loop_remove(s);
	fn(data, pid, status);
}

static void dispatch(struct loop_source *s, uint32_t events)
{
	switch (s->kind) {
	case SRC_FD:
		s->fn.fd(s->data, from_epoll(events));
		break;
	case SRC_TIMER:
		dispatch_timer(s);
		break;
	case SRC_SIGNAL:
		dispatch_signal(s);
		break;
	case SRC_CHILD:
		dispatch_child(s);
		break;
	case SRC_DEFER:
		break;
	}
}

/* Runs what was deferred before the call; what is deferred meanwhile waits for the next round. */
static void run_deferred(struct loop *l)
{
	struct list now;

	if (list_empty(&l->deferred))
		return;
	list_init(&now);
	list_append(&l->deferred, &now);
	while (l->deferred.next != &now) {
		struct loop_source *s = list_first(&l->deferred, struct loop_source, link);
		loop_fn fn = s->fn.plain;
		void *data = s->data;

		loop_remove(s);
		fn(data);
	}
	list_remove(&now);
}

static bool has_children(const struct loop *l)
{
	list_for_each (e, &l->sources) {
		if (container_of(e, struct loop_source, link)->kind == SRC_CHILD)
			return true;
	}
	return false;
}

int loop_run(struct loop *l)
{
	l->quit = false;
	while (!l->quit && !(l->while_children && !has_children(l))) {
		struct epoll_event ev[64];
		int n;

		run_deferred(l);
		free_dead(l);
		if (l->quit)
			break;
		n = epoll_wait(l->epoll_fd, ev, 64, list_empty(&l->deferred) ? -1 : 0);
		l->woke_ms = now_ms();
		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			struct loop_source *s = ev[i].data.ptr;

			if (!s->dead)
				dispatch(s, ev[i].events);
		}
	}
	free_dead(l);
	return 0;
}

uint64_t loop_woke_ms(const struct loop *l)
{
	return l->woke_ms;
}

static void limit_over(void *data)
{
	loop_quit(data);
}

int loop_run_children(struct loop *l, uint64_t limit_ms)
{
	struct loop_source *limit = loop_add_timer(l, limit_ms, limit_over, l);
	int r;

	l->while_children = true;
	r = loop_run(l);
	l->while_children = false;
	loop_remove(limit);
	return r == 0 && has_children(l) ? -ETIMEDOUT : r;
}

void loop_quit(struct loop *l)
{
	l->quit = true;
}
