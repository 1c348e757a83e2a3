/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/offload.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "concc/map.h"
#include "concc/str.h"

#define THREADS_MAX 8
#define STILL_US    2000000 /* at the owner's end: of a disk that works some call ends by then */

struct call {
	struct list link; /* in its lane, then in offload.ended */
	void (*run)(void *arg);
	void (*done)(void *arg);
	void *arg;
	size_t bytes;
	uint64_t put_us;
};

struct offload_lane {
	struct offload *offload;
	struct list of_offload;
	struct list ready; /* in offload.ready, while it has calls and none runs */
	struct list calls;
	bool running;
};

struct offload {
	int event_fd;
	unsigned n_max;
	size_t max_bytes;
	pthread_t threads[THREADS_MAX];
	struct list lanes;
	pthread_mutex_t lock; /* of all that follows, and of the lanes' calls */
	pthread_cond_t more;
	pthread_cond_t moved; /* by CLOCK_MONOTONIC: while ending, a call or a thread has ended */
	struct list ready;    /* struct offload_lane.ready */
	struct list ended;    /* struct call.link */
	unsigned n_threads, n_idle, n_left; /* left: of the threads, those that have ended */
	bool ending;
	struct offload_counts counts;
};

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

struct offload *offload_new(unsigned n_threads, size_t max_bytes)
{
	struct offload *o = xcalloc(1, sizeof(*o));
	pthread_condattr_t monotonic;

	o->n_max = n_threads < THREADS_MAX ? n_threads : THREADS_MAX;
	o->max_bytes = max_bytes;
	list_init(&o->lanes);
	list_init(&o->ready);
	list_init(&o->ended);
	pthread_mutex_init(&o->lock, NULL);
	pthread_cond_init(&o->more, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&o->moved, &monotonic);
	pthread_condattr_destroy(&monotonic);
	o->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return o;
}

struct offload_lane *offload_lane(struct offload *o)
{
	struct offload_lane *l = xcalloc(1, sizeof(*l));

	l->offload = o;
	list_init(&l->ready);
	list_init(&l->calls);
	list_append(&o->lanes, &l->of_offload);
	return l;
}

/* Under the lock, which is let go of while the call is made. */
static void make_call(struct offload *o, struct offload_lane *l)
{
	struct call *c = list_first(&l->calls, struct call, link);
	const uint64_t one = 1;
	uint64_t us;

	list_remove(&c->link);
	l->running = true;
	pthread_mutex_unlock(&o->lock);
	c->run(c->arg);
	us = now_us() - c->put_us;
	pthread_mutex_lock(&o->lock);
	l->running = false;
	o->counts.queued--;
	o->counts.bytes -= c->bytes;
	o->counts.n_done++;
	if (us > o->counts.longest_us)
		o->counts.longest_us = us;
	if (list_empty(&o->ended))
		(void)!write(o->event_fd, &one, sizeof(one)); /* can't be full */
	list_append(&o->ended, &c->link);
	if (!list_empty(&l->calls))
		list_append(&o->ready, &l->ready);
	if (o->ending)
		pthread_cond_signal(&o->moved);
}

static void *work(void *arg)
{
	struct offload *o = arg;

	pthread_mutex_lock(&o->lock);
	for (;;) {
		struct offload_lane *l;

		if (list_empty(&o->ready)) {
			if (o->ending)
				break;
			o->n_idle++;
			pthread_cond_wait(&o->more, &o->lock);
			o->n_idle--;
			continue;
		}
		l = list_first(&o->ready, struct offload_lane, ready);
		list_remove(&l->ready);
		make_call(o, l);
	}
	o->n_left++;
	pthread_cond_signal(&o->moved);
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

/* Under the lock.  Is one to be woken?  When it is let go of: it needs it at once. */
static bool need_thread(struct offload *o)
{
	sigset_t all, before;

	if (o->n_idle)
		return true;
	if (o->n_threads == o->n_max)
		return false;
	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before); /* fails for a bad `how` only */
	if (pthread_create(&o->threads[o->n_threads], NULL, work, o) == 0)
		o->n_threads++;
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return false;
}

bool offload_put(struct offload_lane *l, void (*run)(void *arg), void (*done)(void *arg), void *arg,
		 size_t bytes)
{
	struct offload *o = l->offload;
	struct call *c;
	bool wake;

	pthread_mutex_lock(&o->lock);
	if (bytes && o->counts.bytes + bytes > o->max_bytes) {
		o->counts.n_refused++;
		pthread_mutex_unlock(&o->lock);
		return false;
	}
	c = xcalloc(1, sizeof(*c));
	*c = (struct call){
		.run = run, .done = done, .arg = arg, .bytes = bytes, .put_us = now_us()};
	/* One that runs or waits for a thread takes this one up after what it has. */
	if (list_empty(&l->calls) && list_empty(&l->ready) && !l->running)
		list_append(&o->ready, &l->ready);
	list_append(&l->calls, &c->link);
	o->counts.bytes += bytes;
	if (++o->counts.queued > o->counts.most_queued)
		o->counts.most_queued = o->counts.queued;
	if (o->counts.bytes > o->counts.most_bytes)
		o->counts.most_bytes = o->counts.bytes;
	wake = need_thread(o);
	/* Without any thread it is made here: late is better than never. */
	while (!o->n_threads && !list_empty(&l->calls)) {
		list_remove(&l->ready);
		make_call(o, l);
	}
	pthread_mutex_unlock(&o->lock);
	if (wake)
		pthread_cond_signal(&o->more);
	return true;
}

int offload_event_fd(const struct offload *o)
{
	return o->event_fd;
}

void offload_dispatch(struct offload *o)
{
	uint64_t n;

	(void)!read(o->event_fd, &n, sizeof(n)); /* EAGAIN: called without need */
	for (;;) {
		struct call *c = NULL;

		pthread_mutex_lock(&o->lock);
		if (!list_empty(&o->ended)) {
			c = list_first(&o->ended, struct call, link);
			list_remove(&c->link);
		}
		pthread_mutex_unlock(&o->lock);
		if (!c)
			return;
		if (c->done)
			c->done(c->arg);
		free(c);
	}
}

void offload_counts(struct offload *o, struct offload_counts *ret)
{
	pthread_mutex_lock(&o->lock);
	*ret = o->counts;
	pthread_mutex_unlock(&o->lock);
}

/* Under the lock.  False: nothing has moved until then. */
static bool wait_until(struct offload *o, uint64_t us)
{
	const struct timespec at = {.tv_sec = (time_t)(us / 1000000),
				    .tv_nsec = (long)(us % 1000000) * 1000};
	const uint64_t n_done = o->counts.n_done;
	const unsigned n_left = o->n_left;
	int err = 0;

	while (!err && o->counts.n_done == n_done && o->n_left == n_left)
		err = pthread_cond_timedwait(&o->moved, &o->lock, &at);
	return !err;
}

/* Under the lock.  False: one hangs, or all that there is takes too long. */
static bool wait_for_threads(struct offload *o, unsigned at_most_s)
{
	const uint64_t end = now_us() + (uint64_t)at_most_s * 1000000;

	while (o->n_left < o->n_threads) {
		uint64_t still = now_us() + STILL_US;

		if (!wait_until(o, still < end ? still : end))
			return false;
	}
	return true;
}

/* False: not in time. */
static bool end_threads(struct offload *o, unsigned at_most_s)
{
	bool ended;

	pthread_mutex_lock(&o->lock);
	o->ending = true;
	pthread_cond_broadcast(&o->more);
	ended = wait_for_threads(o, at_most_s);
	pthread_mutex_unlock(&o->lock);
	for (unsigned i = 0; ended && i < o->n_threads; i++)
		(void)pthread_join(o->threads[i], NULL);
	return ended;
}

bool offload_free(struct offload *o, unsigned at_most_s)
{
	if (!o)
		return true;
	if (!end_threads(o, at_most_s))
		return false;
	offload_dispatch(o);
	list_for_each_safe (p, &o->lanes)
		free(container_of(p, struct offload_lane, of_offload));
	if (o->event_fd >= 0)
		(void)close(o->event_fd);
	pthread_cond_destroy(&o->more);
	pthread_cond_destroy(&o->moved);
	pthread_mutex_destroy(&o->lock);
	free(o);
	return true;
}
