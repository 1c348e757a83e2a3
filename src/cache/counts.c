/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "counts.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"

#define MAGIC	"concc-counts 1\n"
#define REASONS 62
#define BLOCK	4096 /* of most file systems: an object takes whole ones */

struct reason {
	char why[32];
	uint64_t n;
};

struct counts {
	char magic[16];
	uint64_t bytes, objects, hits, misses, kept, uncacheable, saved_us;
	struct reason reasons[REASONS];
	uint64_t is_heap; /* ours alone: 1 */
};

static void add(uint64_t *field, uint64_t n)
{
	(void)__atomic_fetch_add(field, n, __ATOMIC_RELAXED);
}

static uint64_t get(const uint64_t *field)
{
	return __atomic_load_n(field, __ATOMIC_RELAXED);
}

static struct counts *on_heap(void)
{
	struct counts *c = xcalloc(1, sizeof(*c));

	c->is_heap = 1;
	return c;
}

/* The file's, at this address, or anywhere; NULL when there can be none. */
static struct counts *map_file(int dir_fd, struct counts *at)
{
	_cleanup_close_ int fd = openat(
		dir_fd, "counts", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	struct counts *c;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return NULL;
	/* Room on the disk now: a store into the mapping can't be refused later. */
	if (st.st_size != sizeof(*c) &&
	    (ftruncate(fd, 0) < 0 || posix_fallocate(fd, 0, sizeof(*c)) != 0))
		return NULL;
	c = mmap(at, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
	if (c == MAP_FAILED)
		return NULL;
	if (memcmp(c->magic, MAGIC, sizeof(MAGIC)) != 0) {
		memset(c, 0, sizeof(*c));
		memcpy(c->magic, MAGIC, sizeof(MAGIC));
	}
	c->is_heap = 0;
	return c;
}

struct counts *counts_open(int dir_fd)
{
	struct counts *c = map_file(dir_fd, NULL);

	return c ? c : on_heap();
}

void counts_move(struct counts *c, int dir_fd)
{
	if (!c->is_heap)
		(void)map_file(dir_fd, c);
}

void counts_close(struct counts *c)
{
	if (c->is_heap)
		free(c);
	else
		(void)munmap(c, sizeof(*c));
}

void counts_add_bytes(struct counts *c, uint64_t bytes)
{
	add(&c->bytes, (bytes + BLOCK - 1) / BLOCK * BLOCK);
	add(&c->objects, 1);
}

void counts_set_size(struct counts *c, uint64_t bytes, uint64_t objects)
{
	__atomic_store_n(&c->bytes, bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&c->objects, objects, __ATOMIC_RELAXED);
}

uint64_t counts_bytes(const struct counts *c)
{
	return get(&c->bytes);
}

void counts_hit(struct counts *c, uint64_t saved_us)
{
	add(&c->hits, 1);
	add(&c->saved_us, saved_us);
}

void counts_miss(struct counts *c)
{
	add(&c->misses, 1);
}

void counts_kept(struct counts *c)
{
	add(&c->kept, 1);
}

void counts_uncacheable(struct counts *c, const char *why)
{
	add(&c->uncacheable, 1);
	for (struct reason *r = c->reasons; r < c->reasons + REASONS; r++) {
		/* Two processes may take one place at once: then one of the words is lost. */
		if (!r->why[0])
			(void)strncpy(r->why, why, sizeof(r->why) - 1);
		if (strncmp(r->why, why, sizeof(r->why) - 1) != 0)
			continue;
		add(&r->n, 1);
		return;
	}
}

void counts_reset(struct counts *c)
{
	c->hits = c->misses = c->kept = c->uncacheable = c->saved_us = 0;
	memset(c->reasons, 0, sizeof(c->reasons));
}

void counts_read(const struct counts *c, struct cache_counts *ret)
{
	*ret = (struct cache_counts){
		.bytes = get(&c->bytes),
		.objects = get(&c->objects),
		.hits = get(&c->hits),
		.misses = get(&c->misses),
		.kept = get(&c->kept),
		.uncacheable = get(&c->uncacheable),
		.saved_us = get(&c->saved_us),
	};
}

bool counts_reason(const struct counts *c, size_t index, char ret_why[32], uint64_t *ret_n)
{
	if (index >= REASONS || !c->reasons[index].why[0])
		return false;
	memcpy(ret_why, c->reasons[index].why, 31);
	ret_why[31] = '\0';
	*ret_n = get(&c->reasons[index].n);
	return true;
}
