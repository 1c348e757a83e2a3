/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * handover [WAITERS]: how long a freed slot stays free while others wait.  One
 * slot, held; WAITERS processes queue for it.  Then it is released, and each
 * process that gets it releases it at once: the time from one's release to the
 * next one's hold is a hand-over.  Prints JSON, in microseconds.
 */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/pool.h"
#include "concc/str.h"

#define WAITERS_MAX 10000

/* Shared by all; only the holder of the slot touches it. */
struct shared {
	uint64_t released_us;
	unsigned int n;
	uint64_t took_us[WAITERS_MAX];
};

static void die(const char *what, const char *why)
{
	(void)fprintf(stderr, "handover: %s: %s\n", what, why);
	exit(1);
}

static struct pool *open_pool(const char *dir)
{
	struct errmsg msg;
	struct pool *p;

	if (pool_open(dir, &p, &msg) < 0)
		die("pool_open", msg.text);
	return p;
}

static void take(struct pool *p, struct pool_slot *ret)
{
	struct pool_request q = {.cwd = "/bench"};
	int rc = pool_acquire(p, &q, ret);

	if (rc < 0)
		die("pool_acquire", err_text(rc));
}

/* held_fd: the slot's descriptor, which came with the fork and would keep it taken. */
static void wait_and_pass_on(const char *dir, struct shared *s, int held_fd, int ready_fd)
{
	struct pool *p = open_pool(dir);
	struct pool_slot slot;

	close(held_fd);
	if (write(ready_fd, "", 1) != 1)
		die("write", strerror(errno));
	take(p, &slot);
	s->took_us[s->n++] = now_us() - s->released_us;
	s->released_us = now_us();
	pool_release(p, &slot);
	_exit(0);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)remove(path); /* a leftover in /tmp is all that can come of it */
	return 0;
}

static void start_waiters(const char *dir, struct shared *s, int held_fd, unsigned long long n)
{
	int fds[2];
	char byte;

	if (pipe(fds) < 0)
		die("pipe", strerror(errno));
	for (unsigned long long i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork", strerror(errno));
		if (pid == 0)
			wait_and_pass_on(dir, s, held_fd, fds[1]);
	}
	for (unsigned long long i = 0; i < n; i++) {
		if (read(fds[0], &byte, 1) != 1)
			die("a waiter", "did not start");
	}
}

int main(int argc, char **argv)
{
	char dir[] = "/tmp/concc-bench-handover-XXXXXX";
	unsigned long long n = 100;
	struct pool_slot slot;
	struct errmsg msg;
	struct shared *s;
	struct pool *p;

	if (argc > 1 && (!str_to_u64(argv[1], WAITERS_MAX, &n) || n == 0))
		die(argv[1], "not a number of waiters");
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED || !mkdtemp(dir))
		die(dir, strerror(errno));
	p = open_pool(dir);
	if (pool_set(p, "w1", 1, POOL_UP, 1000, &msg) < 0)
		die("pool_set", msg.text);
	take(p, &slot);
	start_waiters(dir, s, slot.fd, n);
	s->released_us = now_us();
	pool_release(p, &slot);
	while (wait(NULL) > 0)
		;
	pool_close(p);
	(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	if (s->n != n)
		die("waiters", "some got no slot");
	qsort(s->took_us, s->n, sizeof(*s->took_us), compare);
	(void)printf("{\"waiters\": %llu, \"p50_us\": %llu, \"p99_us\": %llu, \"max_us\": %llu}\n",
		     n, (unsigned long long)s->took_us[n / 2],
		     (unsigned long long)s->took_us[n * 99 / 100],
		     (unsigned long long)s->took_us[n - 1]);
	return 0;
}
