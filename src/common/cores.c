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

/* A group's files, of both versions, and what they say; 0: no limit, or none of this kind. */
struct limit {
	const char *kind, *mount_v1;
	uint64_t (*v1)(const char *dir);
	uint64_t (*v2)(const char *dir);
};

static bool read_small(const char *dir, const char *name, struct buf *b)
{
	_cleanup_free_ char *path = path_join(dir, name);

	b->len = 0;
	return read_file_at(AT_FDCWD, path, SMALL, b) == 0;
}

/* Microseconds of each period. */
static uint64_t cores_of_quota(long long quota, long long period)
{
	if (quota <= 0 || period <= 0)
		return 0;
	return (uint64_t)((quota + period - 1) / period);
}

static uint64_t quota_v2(const char *dir)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	long long quota, period;

	/* "max 100000" without one. */
	if (!read_small(dir, "cpu.max", &b) ||
	    sscanf(buf_cstr(&b), "%lld %lld", &quota, &period) != 2)
		return 0;
	return cores_of_quota(quota, period);
}

static uint64_t quota_v1(const char *dir)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	long long quota, period;

	if (!read_small(dir, "cpu.cfs_quota_us", &b) || sscanf(buf_cstr(&b), "%lld", &quota) != 1)
		return 0;
	if (!read_small(dir, "cpu.cfs_period_us", &b) || sscanf(buf_cstr(&b), "%lld", &period) != 1)
		return 0;
	return cores_of_quota(quota, period);
}

static uint64_t bytes_in(const char *dir, const char *name)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	unsigned long long n;

	/* "max" without one; version 1 has a number that no machine has. */
	return read_small(dir, name, &b) && sscanf(buf_cstr(&b), "%llu", &n) == 1 ? n : 0;
}

static uint64_t memory_v2(const char *dir)
{
	return bytes_in(dir, "memory.max");
}

static uint64_t memory_v1(const char *dir)
{
	return bytes_in(dir, "memory.limit_in_bytes");
}

static void least(uint64_t *n, uint64_t limit)
{
	if (limit && limit < *n)
		*n = limit;
}

/*
 * The group and those above it, up to where they are mounted.  In a container
 * the path may be of the host's tree, of which only the mount's root is there.
 */
static void up_the_tree(const char *mount, char *group, uint64_t (*limit)(const char *dir),
			uint64_t *n)
{
	for (char *slash; (slash = strrchr(group, '/')); *slash = '\0') {
		_cleanup_free_ char *dir = xasprintf("%s%s", mount, group);

		least(n, limit(dir));
	}
	least(n, limit(mount));
}

static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; (p = strstr(p, word)); p += n)
		if ((p == list || p[-1] == ',') && (p[n] == ',' || p[n] == '\0'))
			return true;
	return false;
}

/* "4:cpu,cpuacct:/group", or "0::/group" of version 2; cgroups(7).  NULL: neither. */
static char *group_of(char *line, char **ret_kinds)
{
	char *kinds = strchr(line, ':'), *group = kinds ? strchr(kinds + 1, ':') : NULL;

	if (!group)
		return NULL;
	*group = '\0';
	*ret_kinds = kinds + 1;
	return group + 1;
}

static void of_group(char *line, const struct limit *l, uint64_t *n)
{
	char *kinds, *group = group_of(line, &kinds);

	if (group && !*kinds)
		up_the_tree("/sys/fs/cgroup", group, l->v2, n);
	else if (group && has_word(kinds, l->kind))
		up_the_tree(l->mount_v1, group, l->v1, n);
}

/* The least of n and what our groups allow. */
static uint64_t of_groups(const struct limit *l, uint64_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *save = NULL;

	if (!read_small("/proc/self", "cgroup", &b))
		return n;
	for (char *line = strtok_r((char *)buf_cstr(&b), "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		of_group(line, l, &n);
	return n;
}

uint32_t cores_usable(void)
{
	static const struct limit cpu = {"cpu", "/sys/fs/cgroup/cpu", quota_v1, quota_v2};

	return (uint32_t)of_groups(&cpu, of_affinity());
}

static int open_in(const char *mount, const char *group, const char *name)
{
	_cleanup_free_ char *dir = xasprintf("%s%s", mount, group);
	_cleanup_free_ char *path = path_join(dir, name), *top = path_join(mount, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 ? fd : open(top, O_RDONLY | O_CLOEXEC); /* of a container: as above */
}

static int open_events(char *line)
{
	char *kinds, *group = group_of(line, &kinds);

	if (group && !*kinds)
		return open_in("/sys/fs/cgroup", group, "memory.events");
	return group && has_word(kinds, "memory")
		       ? open_in("/sys/fs/cgroup/memory", group, "memory.oom_control")
		       : -1;
}

int memory_events_open(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *save = NULL;
	int fd = -1;

	if (read_small("/proc/self", "cgroup", &b))
		for (char *line = strtok_r((char *)buf_cstr(&b), "\n", &save); line && fd < 0;
		     line = strtok_r(NULL, "\n", &save))
			fd = open_events(line);
	return fd >= 0 ? fd : open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
}

uint64_t memory_limit(void)
{
	static const struct limit memory = {"memory", "/sys/fs/cgroup/memory", memory_v1,
					    memory_v2};
	uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t n = of_groups(&memory, all);

	return n < all ? n : 0;
}

/* ---- how fast ---- */

/* As much as a second-level cache has, in words: compilers live in that one. */
#define TABLE_WORDS (1 << 15)
#define ROUNDS	    100000
#define RUNS	    4
/* Of a quick look: the first ones find the table in no cache. */
#define ROUNDS_QUICK 10000
#define RUNS_QUICK   4

/* Loads that depend on each other, and branches that nobody foresees: what compilers do most. */
static uint64_t wander(uint64_t *table, unsigned rounds)
{
	uint64_t x = 88172645463325252ULL, sum = 0;

	for (unsigned i = 0; i < rounds; i++) {
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

/* Rounds in a millisecond, of the fastest of so many runs or of those within that time. */
static uint32_t speed_of(unsigned rounds, unsigned runs, uint64_t within_ns)
{
	_cleanup_free_ uint64_t *table = xcalloc(TABLE_WORDS, sizeof(*table));
	uint64_t least = UINT64_MAX, began = cpu_ns();
	volatile uint64_t used;

	for (unsigned i = 0; i < runs || cpu_ns() - began < within_ns; i++) {
		uint64_t from = cpu_ns(), took;

		used = wander(table, rounds);
		(void)used;
		took = cpu_ns() - from;
		least = took < least ? took : least;
	}
	least = least ? least : 1;
	return (uint32_t)((uint64_t)rounds * 1000000 / least) ?: 1;
}

uint32_t core_speed(void)
{
	return speed_of(ROUNDS, RUNS, 0);
}

uint32_t core_speed_within(uint32_t cpu_ms)
{
	return speed_of(ROUNDS_QUICK, RUNS_QUICK, (uint64_t)cpu_ms * 1000000);
}
