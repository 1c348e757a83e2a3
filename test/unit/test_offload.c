/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "concc/offload.h"

static int order[1000];
static atomic_int n_run;
static int n_done;
static pthread_t owner;

struct job {
	int number;
	int wait_fd; /* until somebody writes there; -1: not at all */
};

static void run(void *arg)
{
	const struct job *j = arg;
	uint64_t n;

	if (j->wait_fd >= 0)
		cr_assert_eq(read(j->wait_fd, &n, sizeof(n)), sizeof(n));
	order[atomic_fetch_add(&n_run, 1)] = j->number;
}

static void done(void *arg)
{
	cr_assert(pthread_equal(pthread_self(), owner));
	n_done++;
}

static void dispatch_until(struct offload *o, int n)
{
	while (n_done < n) {
		struct pollfd p = {.fd = offload_event_fd(o), .events = POLLIN};

		cr_assert_eq(poll(&p, 1, 60000), 1, "%d of %d done", n_done, n);
		offload_dispatch(o);
	}
}

static void open_gate(int fd)
{
	const uint64_t one = 1;

	cr_assert_eq(write(fd, &one, sizeof(one)), sizeof(one));
}

static void setup(void)
{
	owner = pthread_self();
	n_run = n_done = 0;
}

TestSuite(offload, .init = setup);

Test(offload, a_lane_keeps_its_order)
{
	struct offload *o = offload_new(4, 0);
	struct offload_lane *l = offload_lane(o);
	static struct job jobs[1000];

	for (int i = 0; i < 1000; i++) {
		jobs[i] = (struct job){i, -1};
		cr_assert(offload_put(l, run, done, &jobs[i], 0));
	}
	dispatch_until(o, 1000);
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(order[i], i);
	cr_assert(offload_free(o, 60));
}

Test(offload, what_hangs_holds_up_its_own_lane)
{
	int gate = eventfd(0, EFD_CLOEXEC);
	struct offload *o = offload_new(2, 0);
	struct offload_lane *a = offload_lane(o), *b = offload_lane(o);
	struct job slow = {1, gate}, behind = {2, -1}, other = {3, -1};
	struct offload_counts c;

	cr_assert(offload_put(a, run, done, &slow, 0));
	cr_assert(offload_put(a, run, done, &behind, 0));
	cr_assert(offload_put(b, run, done, &other, 0));
	dispatch_until(o, 1);
	cr_expect_eq(order[0], 3);
	offload_counts(o, &c);
	cr_expect_eq(c.queued, 2);
	open_gate(gate);
	dispatch_until(o, 3);
	cr_expect_eq(order[1], 1);
	cr_expect_eq(order[2], 2);
	offload_counts(o, &c);
	cr_expect_eq(c.queued, 0);
	cr_expect_eq(c.n_done, 3);
	cr_expect_eq(c.most_queued, 3);
	cr_assert(offload_free(o, 60));
	close(gate);
}

Test(offload, the_queue_is_bounded)
{
	int gate = eventfd(0, EFD_CLOEXEC);
	struct offload *o = offload_new(1, 100);
	struct offload_lane *l = offload_lane(o);
	struct job slow = {1, gate}, next = {2, -1};
	struct offload_counts c;

	cr_assert(offload_put(l, run, done, &slow, 60));
	cr_assert_not(offload_put(l, run, done, &next, 60));
	cr_assert(offload_put(l, run, done, &next, 40));
	cr_assert_not(offload_put(l, run, done, &next, 1));
	cr_assert(offload_put(l, run, done, &next, 0));
	offload_counts(o, &c);
	cr_expect_eq(c.n_refused, 2);
	cr_expect_eq(c.most_bytes, 100);
	open_gate(gate);
	dispatch_until(o, 3);
	cr_assert(offload_put(l, run, done, &next, 100));
	dispatch_until(o, 4);
	cr_assert(offload_free(o, 60));
	close(gate);
}

/* What was put is done before the end; what hangs is left. */
Test(offload, the_end)
{
	int gate = eventfd(0, EFD_CLOEXEC);
	struct offload *o = offload_new(1, 0);
	struct offload_lane *l = offload_lane(o);
	static struct job jobs[100];

	for (int i = 0; i < 100; i++) {
		jobs[i] = (struct job){i, -1};
		cr_assert(offload_put(l, run, done, &jobs[i], 0));
	}
	cr_assert(offload_free(o, 60));
	cr_expect_eq(n_done, 100);
	o = offload_new(1, 0);
	jobs[0].wait_fd = gate;
	cr_assert(offload_put(offload_lane(o), run, done, &jobs[0], 0));
	cr_expect_not(offload_free(o, 60));
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static _Atomic uint64_t ended_ms, longest_ms;

static void run_slowly(void *arg)
{
	uint64_t took;

	(void)poll(NULL, 0, 200);
	atomic_fetch_add(&n_run, 1);
	took = now() - ended_ms;
	if (took > longest_ms)
		longest_ms = took;
	ended_ms += took;
}

/* Together they take longer than one that hangs is waited for; on a machine that hardly gets on,
 * one may take so long. */
Test(offload, the_end_of_what_is_slow)
{
	enum { N = 15 };
	struct offload *o = offload_new(1, 0);
	struct offload_lane *l = offload_lane(o);

	ended_ms = now();
	for (int i = 0; i < N; i++)
		cr_assert(offload_put(l, run_slowly, done, NULL, 0));
	if (offload_free(o, 60))
		cr_expect_eq(n_done, N);
	else
		cr_expect(longest_ms > 1500 || now() - ended_ms > 1500);
	o = offload_new(1, 0);
	l = offload_lane(o);
	for (int i = 0; i < 100 * N; i++)
		cr_assert(offload_put(l, run_slowly, done, NULL, 0));
	cr_expect_not(offload_free(o, 1));
}
