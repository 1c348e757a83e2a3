/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/log.h"
#include "concc/map.h"
#include "concc/str.h"

enum source_kind { SRC_FD, SRC_TIMER, SRC_SIGNAL, SRC_CHILD, SRC_DEFER };

#define EVENTS_MAX 64 /* of one round */
#define LONG_US	   50000

struct loop_source {
	struct list link;      /* of loop.sources, loop.deferred or loop.dead */
	struct list in_polled; /* of loop.polled; empty when epoll has it */
	struct loop *loop;
	enum source_kind kind;
	int fd;		 /* ours for all but SRC_FD; -1 for SRC_TIMER and SRC_DEFER */
	uint32_t events; /* as for epoll_ctl(2) */
	bool dead;
	uint64_t due_us; /* SRC_TIMER: CLOCK_MONOTONIC */
	size_t at;	 /* SRC_TIMER: its place in loop.timers, NOT_ARMED: none */
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

#define NOT_ARMED SIZE_MAX

struct loop {
	pthread_t owner;
	int epoll_fd;
	bool quit, while_children;
	struct list sources;
	struct list deferred;
	uint64_t woke_ms;
	uint64_t called_us; /* the end of the call before, or of the wait */
	struct loop_counts counts;
	struct list dead; /* removed while dispatching */
	/* A heap of those that are armed, the next to be due first.  The wait's own limit is all
	 * that the kernel hears of them. */
	struct loop_source **timers;
	size_t n_timers, cap_timers;
	/* What epoll refuses, for want of memory or of the user's share of watches. */
	struct list polled;
	size_t n_polled;
};

/* Whoever breaks this finds out here, rather than by a source that is lost once in a week. */
static void check_owner(const struct loop *l)
{
	assert(pthread_equal(l->owner, pthread_self()));
}

int loop_new(struct loop **ret)
{
	struct loop *l = xcalloc(1, sizeof(*l));

	l->owner = pthread_self();
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0) {
		free(l);
		return -errno;
	}
	list_init(&l->sources);
	list_init(&l->deferred);
	list_init(&l->dead);
	list_init(&l->polled);
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
	check_owner(l);
	while (!list_empty(&l->sources))
		loop_remove(list_first(&l->sources, struct loop_source, link));
	while (!list_empty(&l->deferred))
		loop_remove(list_first(&l->deferred, struct loop_source, link));
	free_dead(l);
	close(l->epoll_fd);
	free(l->timers);
	free(l);
}

/* A call has just ended, of this kind; fd: -1 when it was for none. */
static void note_call(struct loop *l, enum source_kind kind, int fd)
{
	static const char *const kinds[] = {"fd", "timer", "signal", "child", "deferred call"};
	uint64_t now = now_us(), took = now - l->called_us;

	l->called_us = now;
	if (took > l->counts.longest_us)
		l->counts.longest_us = took;
	if (took <= LONG_US)
		return;
	l->counts.n_long++;
	log_debug("the loop's call for a %s (%d) took %llu ms", kinds[kind], fd,
		  (unsigned long long)took / 1000);
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

	check_owner(l);
	s->loop = l;
	s->kind = kind;
	s->fd = fd;
	s->data = data;
	s->at = NOT_ARMED;
	list_init(&s->in_polled);
	list_append(&l->sources, &s->link);
	return s;
}

/* ---- fds ---- */

static int to_epoll_set(struct loop_source *s)
{
	struct epoll_event ev = {.events = s->events, .data.ptr = s};

	return epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) < 0 ? -errno : 0;
}

static void polled_remove(struct loop_source *s)
{
	if (list_empty(&s->in_polled))
		return;
	list_remove(&s->in_polled);
	s->loop->n_polled--;
}

static void watch(struct loop_source *s, uint32_t events)
{
	int err;

	s->events = to_epoll(events);
	err = to_epoll_set(s);
	assert(err != -EBADF && err != -EEXIST); /* a caller's mistake */
	if (err == 0)
		return;
	list_append(&s->loop->polled, &s->in_polled);
	s->loop->n_polled++;
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
	int r = 0;

	check_owner(s->loop);
	s->events = ev.events;
	if (list_empty(&s->in_polled))
		r = epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_MOD, s->fd, &ev);
	assert(r == 0); /* changes what is there: needs no memory (ep_modify() in fs/eventpoll.c) */
	(void)r;
}

/* ---- timers ---- */

static void timer_put(struct loop *l, size_t at, struct loop_source *s)
{
	l->timers[at] = s;
	s->at = at;
}

static void timer_up(struct loop *l, struct loop_source *s)
{
	size_t at = s->at;

	for (; at > 0 && l->timers[(at - 1) / 2]->due_us > s->due_us; at = (at - 1) / 2)
		timer_put(l, at, l->timers[(at - 1) / 2]);
	timer_put(l, at, s);
}

static void timer_down(struct loop *l, struct loop_source *s)
{
	size_t at = s->at;

	for (size_t child; (child = 2 * at + 1) < l->n_timers; at = child) {
		if (child + 1 < l->n_timers &&
		    l->timers[child + 1]->due_us < l->timers[child]->due_us)
			child++;
		if (l->timers[child]->due_us >= s->due_us)
			break;
		timer_put(l, at, l->timers[child]);
	}
	timer_put(l, at, s);
}

static void timer_disarm(struct loop_source *s)
{
	struct loop *l = s->loop;
	struct loop_source *last;

	if (s->at == NOT_ARMED)
		return;
	last = l->timers[--l->n_timers];
	if (last != s) {
		timer_put(l, s->at, last);
		timer_up(l, last);
		timer_down(l, last);
	}
	s->at = NOT_ARMED;
}

struct loop_source *loop_add_timer(struct loop *l, uint64_t delay_ms, loop_fn fn, void *data)
{
	struct loop_source *s = source_new(l, SRC_TIMER, -1, data);

	s->fn.plain = fn;
	loop_timer_set(s, delay_ms);
	return s;
}

void loop_timer_set(struct loop_source *s, uint64_t delay_ms)
{
	struct loop *l = s->loop;

	check_owner(l);
	assert(s->kind == SRC_TIMER && !s->dead);
	timer_disarm(s);
	if (!delay_ms)
		return;
	if (l->n_timers == l->cap_timers) {
		l->cap_timers = l->cap_timers ? 2 * l->cap_timers : 16;
		l->timers = xrealloc(l->timers, l->cap_timers * sizeof(struct loop_source *));
	}
	s->due_us = now_us() + delay_ms * 1000;
	timer_put(l, l->n_timers++, s);
	timer_up(l, s);
}

/* Those that are due now; what they arm waits for the next round, since no delay is none. */
static void run_timers(struct loop *l)
{
	uint64_t now = l->n_timers ? now_us() : 0;

	while (l->n_timers && l->timers[0]->due_us <= now) {
		struct loop_source *s = l->timers[0];

		timer_disarm(s);
		s->fn.plain(s->data);
		note_call(l, SRC_TIMER, -1);
	}
}

/* ---- signals and children ---- */

/* Takes fd, which may be -1 with errno set: then NULL. */
static struct loop_source *add_own_fd(struct loop *l, enum source_kind kind, int fd, void *data)
{
	struct loop_source *s;

	if (fd < 0)
		return NULL;
	s = source_new(l, kind, fd, data);
	watch(s, LOOP_READ);
	return s;
}

struct loop_source *loop_add_signal(struct loop *l, int signo, loop_signal_fn fn, void *data)
{
	struct loop_source *s;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	(void)sigprocmask(SIG_BLOCK, &set, NULL); /* fails for a bad `how` only */
	s = add_own_fd(l, SRC_SIGNAL, signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), data);
	if (!s)
		return NULL;
	s->fn.signal = fn;
	s->signo = signo;
	return s;
}

struct loop_source *loop_add_child(struct loop *l, pid_t pid, loop_child_fn fn, void *data)
{
	/* Close-on-exec from birth: pidfd_open(2). */
	struct loop_source *s = add_own_fd(l, SRC_CHILD, (int)syscall(SYS_pidfd_open, pid, 0),
					   data);

	if (!s)
		return NULL;
	s->fn.child = fn;
	s->pid = pid;
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
	check_owner(s->loop);
	s->dead = true;
	timer_disarm(s);
	if (s->kind == SRC_FD && list_empty(&s->in_polled))
		(void)epoll_ctl(s->loop->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL); /* may be closed */
	else if (s->kind != SRC_FD && s->fd >= 0)
		close(s->fd);
	polled_remove(s);
	s->fd = -1;
	list_remove(&s->link);
	list_append(&s->loop->dead, &s->link);
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
	pid_t pid = s->pid, r;
	int status = 0;

	r = waitpid(pid, &status, WNOHANG);
	if (r == 0 || (r < 0 && errno == EINTR))
		return;
	/* It has ended, as the pidfd said, but somebody else reaped it: the worst is assumed. */
	if (r < 0)
		status = W_EXITCODE(0, SIGKILL);
	loop_remove(s);
	fn(data, pid, status);
}

static void dispatch(struct loop_source *s, uint32_t events)
{
	switch (s->kind) {
	case SRC_FD:
		s->fn.fd(s->data, from_epoll(events));
		break;
	case SRC_SIGNAL:
		dispatch_signal(s);
		break;
	case SRC_CHILD:
		dispatch_child(s);
		break;
	case SRC_TIMER:
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
		note_call(l, SRC_DEFER, -1);
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

/* ---- waiting ---- */

/* -1: for ever.  Rounded up, so that nothing is early and no round is for nothing. */
static int wait_ms(const struct loop *l)
{
	uint64_t now, left;

	if (!list_empty(&l->deferred))
		return 0;
	if (!l->n_timers)
		return -1;
	now = now_us();
	if (l->timers[0]->due_us <= now)
		return 0;
	left = (l->timers[0]->due_us - now + 999) / 1000;
	return left < INT_MAX ? (int)left : INT_MAX;
}

/* There may be room for it by now. */
static void offer_polled(struct loop *l)
{
	list_for_each_safe (p, &l->polled) {
		struct loop_source *s = container_of(p, struct loop_source, in_polled);

		if (to_epoll_set(s) == 0)
			polled_remove(s);
	}
}

/* Waits for what epoll has and for what it has not.  The events of both are the same bits. */
static int wait_with_polled(struct loop *l, struct epoll_event *ev, int timeout_ms)
{
	struct pollfd *fds = xcalloc(l->n_polled + 1, sizeof(*fds));
	size_t i = 0;
	int n = 0, r;

	fds[i++] = (struct pollfd){.fd = l->epoll_fd, .events = POLLIN};
	list_for_each (p, &l->polled) {
		const struct loop_source *s = container_of(p, struct loop_source, in_polled);

		fds[i++] = (struct pollfd){.fd = s->fd, .events = (short)s->events};
	}
	r = poll(fds, i, timeout_ms);
	i = 1;
	list_for_each (p, &l->polled) {
		if (r > 0 && fds[i].revents && n < EVENTS_MAX)
			ev[n++] = (struct epoll_event){
				.events = (uint32_t)fds[i].revents,
				.data.ptr = container_of(p, struct loop_source, in_polled)};
		i++;
	}
	free(fds);
	if (r < 0 || n == EVENTS_MAX)
		return r < 0 ? r : n;
	r = epoll_wait(l->epoll_fd, ev + n, EVENTS_MAX - n, 0);
	return n + (r > 0 ? r : 0);
}

static int wait_for_events(struct loop *l, struct epoll_event *ev)
{
	offer_polled(l);
	if (!list_empty(&l->polled))
		return wait_with_polled(l, ev, wait_ms(l));
	return epoll_wait(l->epoll_fd, ev, EVENTS_MAX, wait_ms(l));
}

int loop_run(struct loop *l)
{
	check_owner(l);
	l->quit = false;
	l->called_us = now_us();
	while (!l->quit && !(l->while_children && !has_children(l))) {
		struct epoll_event ev[EVENTS_MAX];
		int n;

		run_deferred(l);
		free_dead(l);
		if (l->quit)
			break;
		n = wait_for_events(l, ev);
		l->woke_ms = now_ms();
		l->called_us = now_us();
		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			struct loop_source *s = ev[i].data.ptr;
			const int fd = s->fd;

			if (s->dead)
				continue;
			dispatch(s, ev[i].events);
			note_call(l, s->kind, fd); /* it may be dead, but is not freed yet */
		}
		run_timers(l);
	}
	free_dead(l);
	return 0;
}

uint64_t loop_woke_ms(const struct loop *l)
{
	return l->woke_ms;
}

void loop_counts(const struct loop *l, struct loop_counts *ret)
{
	*ret = l->counts;
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
	check_owner(l);
	l->quit = true;
}
