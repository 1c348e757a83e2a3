/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/wrapper.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define COUNTERS_MAGIC 0x32796c6c74636e63u /* "cnctlly2" */

/*
 * A name is written once, under the file's lock, before `used` tells that it is there.  Its place
 * is the first free one from where its hash says: names never go.
 */
struct slot {
	atomic_uint used;
	char name[COUNTERS_NAME_MAX + 1];
	atomic_ullong n;
};

struct table {
	atomic_ullong magic;
	struct slot slots[COUNTERS_MAX];
	struct slot rest; /* when what has no place was said last */
};

/* FNV-1a: nobody gains by two texts of one hash. */
static uint32_t hash_text(const char *text)
{
	uint32_t h = 2166136261u;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 16777619u;
	return h;
}

/* Whatever it holds. */
static struct table *map_file(const char *path, int flags, int *ret_fd)
{
	_cleanup_close_ int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct table *t;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return NULL;
	if (st.st_size < (off_t)sizeof(*t) &&
	    (!(flags & O_CREAT) || fd_allocate(fd, sizeof(*t)) < 0))
		return NULL;
	t = mmap(NULL, sizeof(*t), flags & O_CREAT ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
		 fd, 0);
	if (t == MAP_FAILED)
		return NULL;
	*ret_fd = steal_fd(&fd);
	return t;
}

static struct table *map_table(const char *path, int flags, int *ret_fd)
{
	for (int tries = 0; tries < 2; tries++) {
		_cleanup_close_ int fd = -1;
		struct table *t = map_file(path, flags, &fd);
		unsigned long long magic = 0;

		if (!t)
			return NULL;
		if (flags & O_CREAT)
			(void)atomic_compare_exchange_strong(&t->magic, &magic, COUNTERS_MAGIC);
		if (atomic_load(&t->magic) == COUNTERS_MAGIC) {
			*ret_fd = steal_fd(&fd);
			return t;
		}
		munmap(t, sizeof(*t));
		/* Of another version, which may still use it. */
		if (!(flags & O_CREAT) || unlink(path) < 0)
			return NULL;
	}
	return NULL;
}

/* The name's place, else the free one that would be it, else NULL. */
static struct slot *place_of(struct table *t, const char *name, bool *ret_there)
{
	uint32_t at = hash_text(name);

	for (uint32_t i = 0; i < COUNTERS_MAX; i++) {
		struct slot *s = &t->slots[(at + i) % COUNTERS_MAX];

		*ret_there = atomic_load(&s->used);
		if (!*ret_there || strncmp(s->name, name, COUNTERS_NAME_MAX) == 0)
			return s;
	}
	*ret_there = false;
	return NULL;
}

/* NULL when all places are taken, or this can't be told. */
static struct slot *claim_slot(struct table *t, int fd, const char *name)
{
	bool there;
	struct slot *s = place_of(t, name, &there);

	if (!s || there)
		return s;
	if (flock(fd, LOCK_EX) < 0)
		return NULL;
	s = place_of(t, name, &there); /* another may have taken it */
	if (s && !there) {
		(void)snprintf(s->name, sizeof(s->name), "%s", name);
		atomic_store(&s->used, 1);
	}
	(void)flock(fd, LOCK_UN); /* closing does it too */
	return s;
}

void counters_add(const char *path, const char *name, uint64_t n)
{
	_cleanup_close_ int fd = -1;
	struct table *t = map_table(path, O_RDWR | O_CREAT, &fd);
	struct slot *s = t ? claim_slot(t, fd, name) : NULL;

	if (s)
		atomic_fetch_add(&s->n, n);
	if (t)
		munmap(t, sizeof(*t));
}

/* Never 0, which means not yet said. */
static uint32_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint32_t)ts.tv_sec + 1;
}

static bool is_over(uint32_t last, uint32_t now, uint64_t period_s)
{
	return last == 0 || now < last || now - last >= period_s;
}

bool counters_may_say(const char *path, const char *name, uint64_t period_s)
{
	_cleanup_close_ int fd = -1;
	struct table *t = map_table(path, O_RDWR | O_CREAT, &fd);
	unsigned long long last;
	uint32_t now = now_s();
	struct slot *s;
	bool may;

	if (!t)
		return true;
	s = claim_slot(t, fd, name) ?: &t->rest;
	last = atomic_load(&s->n);
	may = is_over((uint32_t)last, now, period_s) &&
	      atomic_compare_exchange_strong(&s->n, &last, now);
	munmap(t, sizeof(*t));
	return may;
}

/* A reason's place: its n is the hash, and when it was said. */
static bool was_shown(const struct slot *s, uint32_t hash, uint32_t now, uint64_t period_s)
{
	unsigned long long n = atomic_load(&s->n);

	return (uint32_t)(n >> 32) == hash && !is_over((uint32_t)n, now, period_s);
}

/* True when the place was free; else it may have been taken for the same reason just now. */
static bool take_place(struct slot *s, uint32_t hash, uint32_t now, uint64_t period_s)
{
	unsigned long long n = atomic_load(&s->n);

	return is_over((uint32_t)n, now, period_s) &&
	       atomic_compare_exchange_strong(&s->n, &n, (unsigned long long)hash << 32 | now);
}

bool counters_may_say_why(const char *path, const char *name, const char *reason, uint64_t period_s)
{
	uint32_t hash = hash_text(reason), now = now_s();
	struct slot *s[COUNTERS_REASONS] = {0};
	_cleanup_close_ int fd = -1;
	struct table *t = map_table(path, O_RDWR | O_CREAT, &fd);
	bool may = false, shown = false;

	if (!t)
		return true;
	for (unsigned i = 0; i < COUNTERS_REASONS; i++) {
		_cleanup_free_ char *key = xasprintf("%s:%u", name, i);

		s[i] = claim_slot(t, fd, key) ?: &t->rest;
		shown = shown || was_shown(s[i], hash, now, period_s);
	}
	for (unsigned i = 0; i < COUNTERS_REASONS && !may && !shown; i++) {
		may = take_place(s[i], hash, now, period_s);
		shown = !may && was_shown(s[i], hash, now, period_s);
	}
	munmap(t, sizeof(*t));
	return may;
}

size_t counters_read(const char *path, struct counter *ret, size_t max)
{
	_cleanup_close_ int fd = -1;
	struct table *t = map_table(path, O_RDONLY, &fd);
	size_t n = 0;

	if (!t)
		return 0;
	for (int i = 0; i < COUNTERS_MAX && n < max; i++) {
		struct slot *s = &t->slots[i];

		if (!atomic_load(&s->used))
			continue;
		memcpy(ret[n].name, s->name, sizeof(ret[n].name));
		ret[n].name[COUNTERS_NAME_MAX] = '\0';
		ret[n++].n = atomic_load(&s->n);
	}
	munmap(t, sizeof(*t));
	return n;
}

static void shown_name(const char *text, char name[static COUNTERS_NAME_MAX + 1])
{
	(void)snprintf(name, COUNTERS_NAME_MAX + 1, "told:%08" PRIx32, hash_text(text));
}

void counters_mark_shown(const char *path, const char *text)
{
	char name[COUNTERS_NAME_MAX + 1];

	shown_name(text, name);
	counters_add(path, name, 1);
}

bool counters_was_shown(const char *path, const char *text)
{
	_cleanup_close_ int fd = -1;
	struct table *t = map_table(path, O_RDONLY, &fd);
	char name[COUNTERS_NAME_MAX + 1];
	bool shown = false;

	if (!t)
		return false;
	shown_name(text, name);
	(void)place_of(t, name, &shown);
	munmap(t, sizeof(*t));
	return shown;
}
