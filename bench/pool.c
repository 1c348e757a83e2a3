/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What an uncontended slot costs: microseconds for acquire and release, with
 * the pool open, and for open, acquire, release and close, as one compiler call
 * does it.
 *
 *   make build/libpool.a build/libcommon.a
 *   cc -O2 -D_GNU_SOURCE -Iinclude bench/pool.c build/libpool.a build/libcommon.a -o
 * build/bench-pool build/bench-pool [MEMBERS [SLOTS [ROUNDS]]]
 */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/pool.h"
#include "concc/str.h"

static void die(const char *what, const char *why)
{
	(void)fprintf(stderr, "bench-pool: %s: %s\n", what, why);
	exit(1);
}

static unsigned long long number(const char *s, unsigned long long max)
{
	unsigned long long n;

	if (!str_to_u64(s, max, &n) || n == 0)
		die(s, "not a number, or too large");
	return n;
}

static void add_members(struct pool *p, unsigned int members, unsigned int slots)
{
	struct errmsg msg;
	char name[16];

	for (unsigned int i = 0; i < members; i++) {
		(void)snprintf(name, sizeof(name), "w%u", i);
		if (pool_set(p, name, slots, POOL_UP, 1000, &msg) < 0)
			die("pool_set", msg.text);
	}
}

static void once(struct pool *p)
{
	struct pool_request q = {.cwd = "/bench", .local_ok = true};
	struct pool_slot s;
	int rc = pool_acquire(p, &q, &s);

	if (rc < 0)
		die("pool_acquire", err_text(rc));
	pool_release(p, &s);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)remove(path); /* a leftover in /tmp is all that can come of it */
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int members = argc > 1 ? number(argv[1], POOL_MEMBERS_MAX) : 64;
	unsigned int slots = argc > 2 ? number(argv[2], POOL_SLOTS_MAX) : 64;
	unsigned int rounds = argc > 3 ? number(argv[3], 100000000) : 20000;
	char dir[] = "/tmp/concc-bench-pool-XXXXXX";
	struct errmsg msg;
	struct pool *p;
	uint64_t from;

	if (!mkdtemp(dir))
		die("mkdtemp", "failed");
	if (pool_open(dir, &p, &msg) < 0)
		die("pool_open", msg.text);
	add_members(p, members, slots);
	from = now_us();
	for (unsigned int i = 0; i < rounds; i++)
		once(p);
	(void)printf("%u x %u: acquire + release %.1f us", members, slots,
		     (double)(now_us() - from) / rounds);
	from = now_us();
	for (unsigned int i = 0; i < rounds; i++) {
		struct pool *own;

		if (pool_open(dir, &own, &msg) < 0)
			die("pool_open", msg.text);
		once(own);
		pool_close(own);
	}
	(void)printf(", with open and close %.1f us\n", (double)(now_us() - from) / rounds);
	pool_close(p);
	(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
