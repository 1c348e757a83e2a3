/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The loop by itself.  No result hangs on how long something takes: timers are
 * looked at for being early or out of order only.  What the kernel refuses for want
 * of memory is refused by functions of the C library's names, which stand before it.
 */
#include <criterion/criterion.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/loop.h"
#include "concc/str.h"
#include "../lib/unit.h"

TestSuite(loop, .timeout = 300);

/* ---- what the kernel is asked, and refuses ---- */

/* Of this thread, while it counts: Criterion polls too, in others and in each of its assertions. */
static __thread bool counting;
static __thread int refuse_add; /* errno, or 0 */
static __thread unsigned n_polls, n_epoll_ctls, n_epoll_waits;

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	n_epoll_ctls += counting;
	if (op == EPOLL_CTL_ADD && refuse_add) {
		errno = refuse_add;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epfd, op, fd, ev);
}

int epoll_wait(int epfd, struct epoll_event *ev, int max, int timeout)
{
	n_epoll_waits += counting;
	return (int)syscall(SYS_epoll_pwait, epfd, ev, max, timeout, NULL, 8);
}

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	struct timespec t = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L};

	n_polls += counting;
	return (int)syscall(SYS_ppoll, fds, n, timeout < 0 ? NULL : &t, NULL, 8);
}

static struct loop *new_loop(void)
{
	struct loop *l = NULL;

	cr_assert_eq(loop_new(&l), 0);
	return l;
}

static int run(struct loop *l)
{
	int r;

	counting = true;
	r = loop_run(l);
	counting = false;
	return r;
}

/* Runs fn in a process that may open no more; it must return true. */
static void without_fds(bool (*fn)(struct loop *l))
{
	struct loop *l = new_loop();
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		if (setrlimit(RLIMIT_NOFILE, &(struct rlimit){0}) < 0 ||
		    open("/dev/null", O_RDONLY) != -1 || errno != EMFILE)
			_exit(2);
		_exit(fn(l) ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	loop_free(l);
}

static void quit(void *data)
{
	loop_quit(data);
}

/* ---- threads ---- */

static void *quit_elsewhere(void *loop)
{
	loop_quit(loop);
	return NULL;
}

static void *defer_elsewhere(void *loop)
{
	(void)loop_defer(loop, quit, loop);
	return NULL;
}

static void run_elsewhere(void *(*fn)(void *))
{
	struct loop *l = new_loop();
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, fn, l), 0);
	(void)pthread_join(thread, NULL);
	_exit(0); /* it was let do so */
}

Test(loop, is_run_by_its_owner_only, .signal = SIGABRT)
{
	run_elsewhere(quit_elsewhere);
}

Test(loop, has_sources_of_its_owner_only, .signal = SIGABRT)
{
	run_elsewhere(defer_elsewhere);
}

/* ---- timers ---- */

#define TIMERS_MAX 1000

struct clockwork {
	struct loop *loop;
	struct alarm {
		struct clockwork *of;
		struct loop_source *timer;
		uint64_t due_us, due_by_us; /* by the clock before and after it was set */
		unsigned n_fired;
	} alarms[TIMERS_MAX];
	unsigned n_left;
	uint64_t last_due_us; /* of those that fired */
	unsigned n_early, n_disordered;
};

static void on_alarm(void *data)
{
	struct alarm *a = data;
	struct clockwork *c = a->of;

	a->n_fired++;
	c->n_early += now_us() < a->due_us;
	c->n_disordered += a->due_by_us < c->last_due_us;
	if (a->due_us > c->last_due_us)
		c->last_due_us = a->due_us;
	if (--c->n_left == 0)
		loop_quit(c->loop);
}

static void arm(struct clockwork *c, unsigned i, uint64_t delay_ms)
{
	struct alarm *a = &c->alarms[i];

	a->of = c;
	a->due_us = now_us() + delay_ms * 1000;
	if (!a->timer)
		a->timer = loop_add_timer(c->loop, delay_ms, on_alarm, a);
	else
		loop_timer_set(a->timer, delay_ms);
	a->due_by_us = now_us() + delay_ms * 1000;
}

Test(loop, timers_fire_once_in_order_and_never_early)
{
	static struct clockwork c;
	unsigned seed = 1;

	c.loop = new_loop();
	c.n_left = TIMERS_MAX;
	for (unsigned i = 0; i < TIMERS_MAX; i++)
		arm(&c, i, 1 + (unsigned)rand_r(&seed) % 50);
	/* Some are set again, to earlier and later, and some twice. */
	for (unsigned i = 0; i < TIMERS_MAX; i += 3)
		arm(&c, i, 1 + (unsigned)rand_r(&seed) % 80);
	for (unsigned i = 0; i < TIMERS_MAX; i += 7) {
		loop_timer_set(c.alarms[i].timer, 0);
		arm(&c, i, 1 + (unsigned)rand_r(&seed) % 20);
	}
	cr_assert_eq(run(c.loop), 0);
	for (unsigned i = 0; i < TIMERS_MAX; i++)
		cr_assert_eq(c.alarms[i].n_fired, 1, "number %u: %u times", i, c.alarms[i].n_fired);
	cr_assert_eq(c.n_early, 0);
	cr_assert_eq(c.n_disordered, 0);
	loop_free(c.loop);
}

Test(loop, disarmed_and_removed_timers_are_silent)
{
	static struct clockwork c;
	struct loop_source *end;

	c.loop = new_loop();
	c.n_left = TIMERS_MAX;
	for (unsigned i = 0; i < TIMERS_MAX; i++)
		arm(&c, i, 1 + i % 13);
	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		if (i % 3 == 0)
			loop_timer_set(c.alarms[i].timer, 0);
		else if (i % 3 == 1)
			loop_remove(c.alarms[i].timer);
	}
	end = loop_add_timer(c.loop, 30, quit, c.loop); /* after all of them */
	cr_assert_eq(run(c.loop), 0);
	for (unsigned i = 0; i < TIMERS_MAX; i++)
		cr_assert_eq(c.alarms[i].n_fired, i % 3 == 2, "number %u: %u times", i,
			     c.alarms[i].n_fired);
	loop_remove(end);
	loop_free(c.loop);
}

struct pair {
	struct loop *loop;
	struct loop_source *a, *b;
	unsigned n;
};

static void remove_both(void *data)
{
	struct pair *p = data;

	p->n++;
	loop_remove(p->a);
	loop_remove(p->b);
	(void)loop_add_timer(p->loop, 1, quit, p->loop);
}

/* Due in the same round: whichever comes first ends the other, and itself. */
Test(loop, a_timer_may_remove_timers)
{
	struct pair p = {.loop = new_loop()};

	p.a = loop_add_timer(p.loop, 1, remove_both, &p);
	p.b = loop_add_timer(p.loop, 1, remove_both, &p);
	for (uint64_t due = now_us() + 1000; now_us() <= due;)
		;
	cr_assert_eq(run(p.loop), 0);
	cr_assert_eq(p.n, 1);
	loop_free(p.loop);
}

struct chain {
	struct loop *loop;
	struct loop_source *timer;
	unsigned n;
};

static void again(void *data)
{
	struct chain *c = data;

	if (++c->n < 20)
		loop_timer_set(c->timer, 1);
	else
		loop_quit(c->loop);
}

Test(loop, a_timer_sets_itself_again)
{
	struct chain c = {.loop = new_loop()};

	c.timer = loop_add_timer(c.loop, 1, again, &c);
	cr_assert_eq(run(c.loop), 0);
	cr_assert_eq(c.n, 20);
	/* One wait for each, and none for nothing. */
	cr_assert_leq(n_epoll_waits, 20);
	loop_free(c.loop);
}

static bool many_timers(struct loop *l)
{
	struct loop_source *t[100];

	counting = true;
	for (unsigned i = 0; i < 100; i++)
		t[i] = loop_add_timer(l, 1000000 + i, quit, l);
	for (unsigned i = 0; i < 100; i++)
		loop_timer_set(t[i], i == 50 ? 1 : 0);
	counting = false;
	return n_epoll_ctls == 0 && run(l) == 0;
}

Test(loop, a_timer_takes_no_descriptor_and_no_call)
{
	struct loop *l = new_loop();
	unsigned before = count_fds();

	(void)loop_add_timer(l, 1000000, quit, l);
	cr_assert_eq(count_fds(), before);
	loop_free(l);
	without_fds(many_timers);
}

/* Beyond what one wait may be told. */
Test(loop, a_timer_of_a_hundred_years)
{
	struct loop *l = new_loop();

	(void)loop_add_timer(l, 100ull * 365 * 24 * 3600 * 1000, quit, NULL);
	(void)loop_add_timer(l, 1, quit, l);
	cr_assert_eq(run(l), 0);
	loop_free(l);
}

/* ---- fds ---- */

struct reader {
	struct loop *loop;
	struct loop_source *source;
	int fd;
	size_t got, wanted;
	uint32_t seen; /* all events */
};

static void on_readable(void *data, uint32_t events)
{
	struct reader *r = data;
	char c[16];
	ssize_t n = read(r->fd, c, sizeof(c));

	r->seen |= events;
	r->got += n > 0 ? (size_t)n : 0;
	if (n == 0 || r->got == r->wanted)
		loop_quit(r->loop);
}

static void pipes(int fds[2])
{
	cr_assert_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
}

static void read_through_loop(int refusal)
{
	struct reader r = {.loop = new_loop(), .wanted = 3};
	int fds[2];

	pipes(fds);
	r.fd = fds[0];
	refuse_add = refusal;
	r.source = loop_add_fd(r.loop, r.fd, LOOP_READ, on_readable, &r);
	cr_assert_not_null(r.source);
	cr_assert_eq(write(fds[1], "abc", 3), 3);
	cr_assert_eq(run(r.loop), 0);
	cr_assert_eq(r.got, 3);
	cr_assert_eq(r.seen, LOOP_READ);
	/* Not asked for any more: its end only. */
	loop_set_events(r.source, 0);
	cr_assert_eq(write(fds[1], "de", 2), 2);
	(void)loop_add_timer(r.loop, 5, quit, r.loop);
	cr_assert_eq(run(r.loop), 0);
	cr_assert_eq(r.got, 3);
	loop_set_events(r.source, LOOP_READ);
	close(fds[1]);
	cr_assert_eq(run(r.loop), 0);
	cr_assert_eq(r.got, 5);
	cr_assert_eq(run(r.loop), 0);
	cr_assert(r.seen & LOOP_HANGUP);
	loop_remove(r.source);
	close(fds[0]);
	loop_free(r.loop);
}

Test(loop, an_fd_is_told_of)
{
	read_through_loop(0);
	cr_assert_eq(n_polls, 0);
}

Test(loop, an_fd_that_epoll_has_no_room_for)
{
	read_through_loop(ENOSPC);
	cr_assert_gt(n_polls, 0);
}

Test(loop, an_fd_that_epoll_has_no_memory_for)
{
	read_through_loop(ENOMEM);
}

/* Not all are refused, and timers go on. */
Test(loop, refused_and_others_together)
{
	struct reader r[200] = {{0}};
	struct loop *l = new_loop();
	int fds[200][2];
	size_t got = 0;

	for (unsigned i = 0; i < 200; i++) {
		pipes(fds[i]);
		r[i] = (struct reader){.loop = l, .fd = fds[i][0], .wanted = 1000};
		refuse_add = i % 2 ? ENOSPC : 0;
		r[i].source = loop_add_fd(l, r[i].fd, LOOP_READ, on_readable, &r[i]);
		cr_assert_eq(write(fds[i][1], "x", 1), 1);
	}
	refuse_add = ENOSPC;
	for (unsigned round = 0; got < 200 && round < 100; round++) {
		(void)loop_add_timer(l, 1, quit, l);
		cr_assert_eq(run(l), 0);
		got = 0;
		for (unsigned i = 0; i < 200; i++)
			got += r[i].got;
	}
	cr_assert_eq(got, 200);
	for (unsigned i = 0; i < 200; i += 3)
		loop_remove(r[i].source);
	loop_free(l);
}

Test(loop, a_refused_fd_gets_its_place_when_there_is_room)
{
	struct reader r = {.loop = new_loop(), .wanted = 1};
	unsigned polls;
	int fds[2];

	pipes(fds);
	r.fd = fds[0];
	refuse_add = ENOMEM;
	(void)loop_add_fd(r.loop, r.fd, LOOP_READ, on_readable, &r);
	cr_assert_eq(write(fds[1], "a", 1), 1);
	cr_assert_eq(run(r.loop), 0);
	cr_assert_eq(r.got, 1);
	refuse_add = 0;
	polls = n_polls;
	r.wanted = 2;
	cr_assert_eq(write(fds[1], "b", 1), 1);
	cr_assert_eq(run(r.loop), 0);
	cr_assert_eq(r.got, 2);
	cr_assert_eq(n_polls, polls);
	loop_free(r.loop);
}

/* epoll takes no regular file; a read from it is always possible. */
Test(loop, a_regular_file)
{
	struct reader r = {.loop = new_loop(), .wanted = 4};
	FILE *f = tmpfile();

	cr_assert_eq(fwrite("abcd", 1, 4, f), 4);
	rewind(f);
	r.fd = fileno(f);
	(void)loop_add_fd(r.loop, r.fd, LOOP_READ, on_readable, &r);
	cr_assert_eq(run(r.loop), 0);
	cr_assert_eq(r.got, 4);
	loop_free(r.loop);
	fclose(f);
}

/* ---- signals and children ---- */

static void on_signal(void *data, int signo)
{
	cr_assert_eq(signo, SIGUSR1);
	loop_quit(data);
}

Test(loop, a_signal)
{
	struct loop *l = new_loop();

	cr_assert_not_null(loop_add_signal(l, SIGUSR1, on_signal, l));
	raise(SIGUSR1);
	cr_assert_eq(run(l), 0);
	loop_free(l);
}

struct ended {
	struct loop *loop;
	pid_t pid;
	int status;
	unsigned n;
};

static void on_child(void *data, pid_t pid, int status)
{
	struct ended *e = data;

	e->n++;
	e->pid = pid;
	e->status = status;
}

static pid_t child(int status)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(status);
	return pid;
}

Test(loop, children_are_reaped)
{
	struct ended e = {.loop = new_loop()};
	pid_t pid = child(7);

	cr_assert_not_null(loop_add_child(e.loop, pid, on_child, &e));
	cr_assert_eq(loop_run_children(e.loop, 50000), 0);
	cr_assert_eq(e.n, 1);
	cr_assert_eq(e.pid, pid);
	cr_assert(WIFEXITED(e.status) && WEXITSTATUS(e.status) == 7);
	cr_assert_eq(waitpid(pid, NULL, WNOHANG), -1);
	loop_free(e.loop);
}

/* Its end is told once, though nobody knows how it ended. */
Test(loop, a_child_that_another_has_reaped)
{
	struct ended e = {.loop = new_loop()};
	pid_t pid = child(7);

	cr_assert_not_null(loop_add_child(e.loop, pid, on_child, &e));
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert_eq(loop_run_children(e.loop, 50000), 0);
	cr_assert_eq(e.n, 1);
	cr_assert_eq(e.status, W_EXITCODE(0, SIGKILL));
	loop_free(e.loop);
}

Test(loop, a_child_of_a_parent_that_ignores_children)
{
	struct ended e = {.loop = new_loop()};
	pid_t pid;

	(void)signal(SIGCHLD, SIG_IGN);
	pid = fork();
	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	cr_assert_not_null(loop_add_child(e.loop, pid, on_child, &e));
	(void)kill(pid, SIGKILL);
	cr_assert_eq(loop_run_children(e.loop, 50000), 0);
	cr_assert_eq(e.n, 1);
	loop_free(e.loop);
}

Test(loop, a_child_that_does_not_end_has_a_limit)
{
	struct ended e = {.loop = new_loop()};
	pid_t pid = fork();

	if (pid == 0) {
		(void)pause();
		_exit(0);
	}
	cr_assert_not_null(loop_add_child(e.loop, pid, on_child, &e));
	cr_assert_eq(loop_run_children(e.loop, 5), -ETIMEDOUT);
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	loop_free(e.loop);
}

static bool refused(struct loop *l)
{
	bool right;

	errno = 0;
	right = !loop_add_child(l, getpid(), on_child, NULL) && errno == EMFILE;
	errno = 0;
	right &= !loop_add_signal(l, SIGUSR2, on_signal, l) && errno == EMFILE;
	(void)loop_add_timer(l, 1, quit, l);
	return right && run(l) == 0;
}

Test(loop, what_needs_a_descriptor_says_so)
{
	without_fds(refused);
}

/* ---- deferred calls ---- */

struct deferred {
	struct loop *loop;
	unsigned n;
};

static void defer_again(void *data)
{
	struct deferred *d = data;

	if (++d->n < 5)
		(void)loop_defer(d->loop, defer_again, d);
	else
		loop_quit(d->loop);
}

Test(loop, deferred_calls_do_not_wait)
{
	struct deferred d = {.loop = new_loop()};

	(void)loop_add_timer(d.loop, 1000000, quit, d.loop);
	(void)loop_defer(d.loop, defer_again, &d);
	cr_assert_eq(run(d.loop), 0);
	cr_assert_eq(d.n, 5);
	loop_free(d.loop);
}
