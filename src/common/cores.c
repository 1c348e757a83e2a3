/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/cores.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define SMALL 16384 /* bytes of a file of the kernel's */

static uint32_t of_affinity(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = CPU_COUNT(&set);
	return n > 0 ? (uint32_t)n : 1;
}

static bool read_small(const char *dir, const char *name, struct buf *b)
{
	_cleanup_free_ char *path = path_join(dir, name);

	b->len = 0;
	return read_file_at(AT_FDCWD, path, SMALL, b) == 0;
}

/* Microseconds of each period; 0: no quota, or none of this kind. */
static uint32_t cores_of_quota(long long quota, long long period)
{
	if (quota <= 0 || period <= 0)
		return 0;
	return (uint32_t)((quota + period - 1) / period);
}

static uint32_t quota_v2(const char *dir)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	long long quota, period;

	/* "max 100000" without one. */
	if (!read_small(dir, "cpu.max", &b) ||
	    sscanf(buf_cstr(&b), "%lld %lld", &quota, &period) != 2)
		return 0;
	return cores_of_quota(quota, period);
}

static uint32_t quota_v1(const char *dir)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	long long quota, period;

	if (!read_small(dir, "cpu.cfs_quota_us", &b) || sscanf(buf_cstr(&b), "%lld", &quota) != 1)
		return 0;
	if (!read_small(dir, "cpu.cfs_period_us", &b) || sscanf(buf_cstr(&b), "%lld", &period) != 1)
		return 0;
	return cores_of_quota(quota, period);
}

static void least(uint32_t *n, uint32_t quota)
{
	if (quota && quota < *n)
		*n = quota;
}

/*
 * The group and those above it, up to where they are mounted.  In a container
 * the path may be of the host's tree, of which only the mount's root is there.
 */
static void up_the_tree(const char *mount, char *group, uint32_t (*quota)(const char *dir),
			uint32_t *n)
{
	for (char *slash; (slash = strrchr(group, '/')); *slash = '\0') {
		_cleanup_free_ char *dir = xasprintf("%s%s", mount, group);

		least(n, quota(dir));
	}
	least(n, quota(mount));
}

static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += n)
		if ((p == list || p[-1] == ',') && (p[n] == ',' || p[n] == '\0'))
			return true;
	return false;
}

/* "4:cpu,cpuacct:/group", or "0::/group" of version 2; cgroups(7). */
static void of_group(char *line, uint32_t *n)
{
	char *kinds = strchr(line, ':'), *group = kinds ? strchr(kinds + 1, ':') : NULL;

	if (!group)
		return;
	*group++ = '\0';
	kinds++;
	if (!*kinds)
		up_the_tree("/sys/fs/cgroup", group, quota_v2, n);
	else if (has_word(kinds, "cpu"))
		up_the_tree("/sys/fs/cgroup/cpu", group, quota_v1, n);
}

uint32_t cores_usable(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	uint32_t n = of_affinity();
	char *save = NULL;

	if (!read_small("/proc/self", "cgroup", &b))
		return n;
	for (char *line = strtok_r((char *)buf_cstr(&b), "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		of_group(line, &n);
	return n;
}

/* ---- how fast ---- */

/* As much as a second-level cache has, in words: compilers live in that one. */
#define TABLE_WORDS (1 << 15)
#define ROUNDS	    100000
#define RUNS	    4

/* Loads that depend on each other, and branches that nobody foresees: what compilers do most. */
static uint64_t wander(uint64_t *table)
{
	uint64_t x = 88172645463325252ULL, sum = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t *at = &table[x % TABLE_WORDS];

		/* xorshift64 (Marsaglia, "Xorshift RNGs", 2003) */
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (*at & 1)
			sum += *at ^ x;
		else
			sum -= x >> 3;
		x += *at;
		*at += sum;
	}
	return sum;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint32_t core_speed(void)
{
	_cleanup_free_ uint64_t *table = xcalloc(TABLE_WORDS, sizeof(*table));
	uint64_t least = UINT64_MAX;
	volatile uint64_t used;

	for (unsigned i = 0; i < RUNS; i++) {
		uint64_t from = cpu_ns(), took;

		used = wander(table);
		(void)used;
		took = cpu_ns() - from;
		least = took < least ? took : least;
	}
	/* Rounds in a millisecond. */
	least = least ? least : 1;
	return (uint32_t)((uint64_t)ROUNDS * 1000000 / least) ?: 1;
}
