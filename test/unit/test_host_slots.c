/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The host's slots with real processes of several users, in a network namespace
 * of its own (where the names live).  Nothing sleeps: who is in the queue says so, and
 * the only clock is the one that ends a test that hangs.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/host_slots.h"
#include "concc/io.h"

#define TURNS_MAX 1024
#define USER_A	  4001
#define USER_B	  4002

/* Shared by all processes of a test. */
static struct seen {
	unsigned running, peak, n_turns;
	uint8_t turns[TURNS_MAX]; /* who, in order */
} * seen;

static void setup(void)
{
	if (geteuid() != 0)
		cr_skip_test("needs root: a network namespace and two users");
	cr_assert_eq(unshare(CLONE_NEWNET), 0, "a network namespace: %s", strerror(errno));
	seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(seen, MAP_FAILED);
}

TestSuite(host_slots, .init = setup, .timeout = 300);

static struct host_slots *open_slots(uint32_t limit)
{
	struct errmsg msg = {""};
	struct host_slots *h = NULL;

	if (host_slots_new(limit, &h, &msg) < 0) {
		fprintf(stderr, "%s\n", msg.text);
		_exit(2);
	}
	return h;
}

static void wait_event(struct host_slots *h)
{
	struct pollfd p = {.fd = host_slots_event_fd(h), .events = POLLIN};

	if (poll(&p, 1, -1) < 0)
		_exit(3);
	host_slots_dispatch(h);
}

static int take_waiting(struct host_slots *h)
{
	int r;

	while ((r = host_slots_take(h)) == -EAGAIN)
		wait_event(h);
	return r;
}

static void enter(uint8_t who)
{
	unsigned now = __atomic_add_fetch(&seen->running, 1, __ATOMIC_SEQ_CST);
	unsigned peak = __atomic_load_n(&seen->peak, __ATOMIC_SEQ_CST);
	unsigned at = __atomic_fetch_add(&seen->n_turns, 1, __ATOMIC_SEQ_CST);

	while (now > peak && !__atomic_compare_exchange_n(&seen->peak, &peak, now, false,
							  __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	if (at < TURNS_MAX)
		seen->turns[at] = who;
}

static void leave(void)
{
	__atomic_sub_fetch(&seen->running, 1, __ATOMIC_SEQ_CST);
}

/* Like an agent: the next of its n jobs stands in the queue while one runs. */
static void run_jobs(struct host_slots *h, uint8_t who, unsigned n)
{
	int slot = take_waiting(h);

	for (unsigned i = 1; slot >= 0; i++) {
		int next = -1;

		enter(who);
		host_slots_waiting(h, n - i);
		if (i < n)
			next = host_slots_take(h);
		/* With one slot it is in the queue now; with more it may run beside. */
		leave();
		host_slots_give_back(h, slot);
		if (i == n)
			break;
		slot = next == -EAGAIN ? take_waiting(h) : next;
	}
}

struct child {
	pid_t pid;
	int from_it, to_it; /* pipes */
};

static void say(int fd)
{
	(void)!write(fd, "x", 1);
}

static void hear(int fd)
{
	char c;

	if (read(fd, &c, 1) != 1)
		_exit(4);
}

/* Says when it is in the queue (or has a slot, when there is one), and runs n jobs. */
static struct child start(uint8_t who, uid_t uid, uint32_t limit, unsigned n)
{
	int from_it[2], to_it[2];
	struct child c;

	cr_assert_eq(pipe(from_it), 0);
	cr_assert_eq(pipe(to_it), 0);
	c.pid = fork();
	if (c.pid == 0) {
		struct host_slots *h;
		int slot;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* A copy of somebody's name would keep it. */
		for (int fd = 3; fd < 256; fd++)
			if (fd != from_it[1] && fd != to_it[0])
				(void)close(fd);
		if (uid && setresuid(uid, uid, uid) < 0)
			_exit(5);
		h = open_slots(limit);
		host_slots_waiting(h, n);
		slot = host_slots_take(h);
		say(from_it[1]);
		if (slot >= 0) { /* until it is told */
			hear(to_it[0]);
			host_slots_give_back(h, slot);
		} else {
			run_jobs(h, who, n);
		}
		host_slots_free(h);
		_exit(0);
	}
	(void)close(from_it[1]);
	(void)close(to_it[0]);
	c.from_it = from_it[0];
	c.to_it = to_it[1];
	hear(c.from_it);
	return c;
}

static void ends(struct child *c)
{
	int status;

	cr_assert_eq(waitpid(c->pid, &status, 0), c->pid);
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	(void)close(c->from_it);
	(void)close(c->to_it);
}

static void killed(struct child *c)
{
	cr_assert_eq(kill(c->pid, SIGKILL), 0);
	cr_assert_eq(waitpid(c->pid, NULL, 0), c->pid);
}

static unsigned turns_of(uint8_t who, unsigned first)
{
	unsigned n = 0;

	for (unsigned i = 0; i < first && i < seen->n_turns; i++)
		n += seen->turns[i] == who;
	return n;
}

Test(host_slots, alone)
{
	struct host_slots *h = open_slots(2);
	struct host_load load;
	int a = host_slots_take(h), b = host_slots_take(h);

	cr_expect_eq(a, 0);
	cr_expect_eq(b, 1);
	cr_expect_eq(host_slots_take(h), -EAGAIN);
	host_slots_waiting(h, 7);
	host_slots_load(h, &load);
	cr_expect_eq(load.running, 2);
	cr_expect_eq(load.waiting, 7);
	cr_expect_eq(load.others, 0);
	host_slots_load(NULL, &load);
	cr_expect_eq(load.others, 3, "two jobs, and one client that waits");
	host_slots_give_back(h, a);
	cr_expect_eq(take_waiting(h), a);
	host_slots_waiting(h, 0);
	host_slots_free(h);
	host_slots_load(NULL, &load);
	cr_expect_eq(load.running, 0);
	cr_expect_eq(load.waiting, 0);
}

Test(host_slots, never_more_than_there_are)
{
	struct child holder[3], c[8];

	for (int i = 0; i < 3; i++)
		holder[i] = start(0, 0, 3, 1);
	for (uint8_t i = 0; i < 8; i++)
		c[i] = start(i, 0, 3, 20);
	for (int i = 0; i < 3; i++)
		say(holder[i].to_it);
	for (int i = 0; i < 3; i++)
		ends(&holder[i]);
	for (int i = 0; i < 8; i++)
		ends(&c[i]);
	cr_expect_eq(seen->n_turns, 160);
	cr_expect_leq(seen->peak, 3);
}

/* Whatever ends a holder or one in the queue, the kernel tells the next. */
Test(host_slots, killed)
{
	struct child holder = start(0, 0, 1, 1), second = start(1, 0, 1, 1);
	struct child third = start(2, 0, 1, 1), fourth = start(3, 0, 1, 1);

	killed(&third);
	killed(&holder);
	ends(&second);
	ends(&fourth);
	cr_expect_eq(seen->n_turns, 2);
	cr_expect_eq(seen->turns[0], 1);
	cr_expect_eq(seen->turns[1], 3);
}

/* 50 jobs of one client do not hold up 2 of another of the same user. */
Test(host_slots, clients_take_turns)
{
	struct child holder = start(0, 0, 1, 1), many = start(1, 0, 1, 50);
	struct child few = start(2, 0, 1, 2);

	say(holder.to_it);
	ends(&holder);
	ends(&few);
	ends(&many);
	cr_expect_eq(seen->n_turns, 52);
	cr_expect_eq(turns_of(2, 4), 2, "of the first four turns");
}

/* A user with three clients has no more turns than one with one. */
Test(host_slots, users_take_turns)
{
	struct child holder, a[3], b;

	holder = start(0, 0, 1, 1);
	for (int i = 0; i < 3; i++)
		a[i] = start('a', USER_A, 1, 20);
	b = start('b', USER_B, 1, 20);
	say(holder.to_it);
	ends(&holder);
	ends(&b);
	for (int i = 0; i < 3; i++)
		ends(&a[i]);
	cr_expect_eq(seen->n_turns, 80);
	/* All of b's are among the first 40, but for who was first and a turn at the end. */
	cr_expect_geq(turns_of('b', 42), 20, "only %u", turns_of('b', 42));
}

/* Who gives up makes room. */
Test(host_slots, leaves_the_queue)
{
	struct child holder = start(0, 0, 1, 1), other;
	struct host_slots *h = open_slots(1);

	host_slots_waiting(h, 1);
	cr_expect_eq(host_slots_take(h), -EAGAIN);
	other = start(1, 0, 1, 1);
	host_slots_waiting(h, 0);
	say(holder.to_it);
	ends(&holder);
	ends(&other);
	cr_expect_eq(host_slots_take(h), 0);
	host_slots_free(h);
}

/* A newcomer does not push in where others wait. */
Test(host_slots, no_pushing_in)
{
	struct child holder = start(0, 0, 1, 1), second = start(1, 0, 1, 1);
	struct host_slots *h = open_slots(2); /* for it there is another */

	cr_expect_eq(host_slots_take(h), -EAGAIN);
	say(holder.to_it);
	ends(&holder);
	ends(&second);
	cr_expect_geq(take_waiting(h), 0);
	host_slots_free(h);
}

static int squat(int type, const char *name)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type, 0);

	memcpy(sa.sun_path + 1, name, strlen(name));
	if (bind(fd, (struct sockaddr *)&sa,
		 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))) < 0 ||
	    (type == SOCK_STREAM && listen(fd, 8) < 0))
		_exit(6);
	return fd;
}

/* Another user who takes our names in our own queue is not waited for, and odd names are nothing.
 */
Test(host_slots, squatters)
{
	struct child holder, ours;
	char name[64];
	int fds[2];
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		if (setresuid(USER_A, USER_A, USER_A) < 0)
			_exit(5);
		snprintf(name, sizeof(name), "concc/1/u%u/1", USER_B);
		(void)squat(SOCK_STREAM, name);
		snprintf(name, sizeof(name), "concc/1/u%u/18446744073709551615", USER_B);
		(void)squat(SOCK_STREAM, name);
		(void)squat(SOCK_STREAM, "concc/1/line/x");
		(void)squat(SOCK_STREAM, "concc/1/line/99999999999999999999");
		(void)squat(SOCK_STREAM, "concc/1/wait/");
		(void)squat(SOCK_DGRAM, "concc/1/wait/1/999999999999");
		say(fds[1]);
		for (;;)
			pause();
	}
	hear(fds[0]);
	holder = start(0, USER_B, 1, 1);
	ours = start(1, USER_B, 1, 3);
	say(holder.to_it);
	ends(&holder);
	ends(&ours);
	cr_expect_eq(seen->n_turns, 3);
	cr_assert_eq(kill(pid, SIGKILL), 0);
	(void)waitpid(pid, NULL, 0);
}

/* Hundreds that connect to a held slot cost its holder a bounded number of descriptors. */
Test(host_slots, many_watchers)
{
	struct host_slots *h = open_slots(1);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	static const char name[] = "concc/1/slot/0";
	int slot = host_slots_take(h), fds[300], last;

	memcpy(sa.sun_path + 1, name, sizeof(name) - 1);
	for (int i = 0; i < 300; i++) {
		fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
		cr_assert_eq(
			connect(fds[i], (struct sockaddr *)&sa,
				(socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof(name))),
			0);
	}
	for (int i = 0; i < 10; i++)
		host_slots_dispatch(h);
	last = dup(0);
	cr_expect_lt(last - fds[299], 80);
	host_slots_give_back(h, slot);
	for (int i = 0; i < 300; i++) {
		struct pollfd p = {.fd = fds[i]};

		cr_expect_eq(poll(&p, 1, 10000), 1, "%d is not told", i);
	}
	host_slots_free(h);
}
