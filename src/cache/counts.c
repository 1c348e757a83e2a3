/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "counts.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"

#define MAGIC	"concc-counts 1\n"
#define REASONS 62
#define BLOCK	4096 /* of most file systems: an object takes whole ones */
#define MANY	64   /* a process that is killed loses no more than that */

struct reason {
	char why[32];
	uint64_t n;
};

/* The file. */
struct table {
	char magic[16];
	uint64_t bytes, objects, hits, misses, kept, uncacheable, saved_us;
	struct reason reasons[REASONS];
	uint64_t unused;
};

struct counts {
	pthread_mutex_t lock;
	struct table file; /* as it was last */
	struct table more; /* not added to it yet */
	unsigned n_more;
};

static void lock(struct counts *c)
{
	(void)pthread_mutex_lock(&c->lock);
}

static void unlock(struct counts *c)
{
	(void)pthread_mutex_unlock(&c->lock);
}

static void add_reason(struct table *t, const char *why, uint64_t n)
{
	for (struct reason *r = t->reasons; r < t->reasons + REASONS; r++) {
		if (!r->why[0])
			(void)strncpy(r->why, why, sizeof(r->why) - 1);
		if (strncmp(r->why, why, sizeof(r->why) - 1) != 0)
			continue;
		r->n += n;
		return;
	}
}

static void add(struct table *to, const struct table *more)
{
	to->bytes += more->bytes;
	to->objects += more->objects;
	to->hits += more->hits;
	to->misses += more->misses;
	to->kept += more->kept;
	to->uncacheable += more->uncacheable;
	to->saved_us += more->saved_us;
	for (const struct reason *r = more->reasons; r < more->reasons + REASONS && r->why[0]; r++)
		add_reason(to, r->why, r->n);
}

static void reset_but_size(struct table *t)
{
	const struct table size = {.bytes = t->bytes, .objects = t->objects};

	*t = size;
	memcpy(t->magic, MAGIC, sizeof(MAGIC));
}

static void read_table(int fd, struct table *ret)
{
	ssize_t n = pread(fd, ret, sizeof(*ret), 0);

	if (n == sizeof(*ret) && memcmp(ret->magic, MAGIC, sizeof(MAGIC)) == 0) {
		for (struct reason *r = ret->reasons; r < ret->reasons + REASONS; r++)
			r->why[sizeof(r->why) - 1] = '\0';
		return;
	}
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->magic, MAGIC, sizeof(MAGIC));
}

struct change {
	const struct table *more;
	const uint64_t *size; /* bytes and objects, or NULL: what they are */
	bool reset;
};

static void apply(struct table *t, const struct change *h)
{
	if (h->reset)
		reset_but_size(t);
	add(t, h->more);
	if (!h->size)
		return;
	t->bytes = h->size[0];
	t->objects = h->size[1];
}

/* Of a file that can't be had, what it held last is gone on from. */
static void change(struct counts *c, int dir_fd, const uint64_t *size, bool reset)
{
	_cleanup_close_ int fd = openat(
		dir_fd, "counts", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	struct table more, t;
	const struct change h = {&more, size, reset};

	lock(c);
	more = c->more;
	memset(&c->more, 0, sizeof(c->more));
	c->n_more = 0;
	t = c->file;
	unlock(c);
	if (fd >= 0 && flock(fd, LOCK_EX) == 0)
		read_table(fd, &t);
	apply(&t, &h);
	if (fd >= 0)
		(void)!pwrite(fd, &t, sizeof(t), 0); /* else it counts from nothing */
	lock(c);
	c->file = t;
	unlock(c);
}

static void look(struct counts *c, int dir_fd)
{
	_cleanup_close_ int fd = openat(dir_fd, "counts",
					O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct table t;

	read_table(fd, &t);
	lock(c);
	c->file = t;
	unlock(c);
}

struct counts *counts_open(int dir_fd)
{
	struct counts *c = xcalloc(1, sizeof(*c));

	(void)pthread_mutex_init(&c->lock, NULL);
	look(c, dir_fd);
	return c;
}

void counts_free(struct counts *c)
{
	(void)pthread_mutex_destroy(&c->lock);
	free(c);
}

void counts_write(struct counts *c, int dir_fd)
{
	bool any;

	lock(c);
	any = c->n_more;
	unlock(c);
	if (any)
		change(c, dir_fd, NULL, false);
	else
		look(c, dir_fd);
}

void counts_begin_anew(struct counts *c)
{
	lock(c);
	memset(&c->file, 0, sizeof(c->file));
	memset(&c->more, 0, sizeof(c->more));
	c->n_more = 0;
	unlock(c);
}

bool counts_are_many(struct counts *c)
{
	bool many;

	lock(c);
	many = c->n_more >= MANY;
	unlock(c);
	return many;
}

void counts_set_size(struct counts *c, int dir_fd, uint64_t bytes, uint64_t objects)
{
	const uint64_t size[] = {bytes, objects};

	change(c, dir_fd, size, false);
}

void counts_reset(struct counts *c, int dir_fd)
{
	change(c, dir_fd, NULL, true);
}

uint64_t counts_bytes(struct counts *c)
{
	uint64_t n;

	lock(c);
	n = c->file.bytes + c->more.bytes;
	unlock(c);
	return n;
}

static uint64_t blocks_of(uint64_t bytes)
{
	return (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

void counts_grow(struct counts *c, uint64_t from, uint64_t to)
{
	lock(c);
	c->more.bytes += blocks_of(to) - blocks_of(from);
	c->more.objects += !from;
	c->n_more++;
	unlock(c);
}

void counts_hit(struct counts *c, uint64_t saved_us)
{
	lock(c);
	c->more.hits++;
	c->more.saved_us += saved_us;
	c->n_more++;
	unlock(c);
}

void counts_miss(struct counts *c)
{
	lock(c);
	c->more.misses++;
	c->n_more++;
	unlock(c);
}

void counts_kept(struct counts *c)
{
	lock(c);
	c->more.kept++;
	c->n_more++;
	unlock(c);
}

void counts_uncacheable(struct counts *c, const char *why)
{
	lock(c);
	c->more.uncacheable++;
	add_reason(&c->more, why, 1);
	c->n_more++;
	unlock(c);
}

static void read_all(struct counts *c, struct table *ret)
{
	lock(c);
	*ret = c->file;
	add(ret, &c->more);
	unlock(c);
}

void counts_read(struct counts *c, struct cache_counts *ret)
{
	struct table t;

	read_all(c, &t);
	*ret = (struct cache_counts){
		.bytes = t.bytes,
		.objects = t.objects,
		.hits = t.hits,
		.misses = t.misses,
		.kept = t.kept,
		.uncacheable = t.uncacheable,
		.saved_us = t.saved_us,
	};
}

bool counts_reason(struct counts *c, size_t index, char ret_why[32], uint64_t *ret_n)
{
	struct table t;

	read_all(c, &t);
	if (index >= REASONS || !t.reasons[index].why[0])
		return false;
	memcpy(ret_why, t.reasons[index].why, 32);
	*ret_n = t.reasons[index].n;
	return true;
}
