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
#include "concc/str.h"

#define TALLY_MAGIC 0x31796c6c74636e63u /* "cnctlly1" */

/* A name is written once, under the file's lock, before `used` tells that it is there. */
struct slot {
	atomic_uint used;
	char name[TALLY_NAME_MAX + 1];
	atomic_ullong n;
};

struct table {
	atomic_ullong magic;
	struct slot slots[TALLY_ENTRIES];
};

static struct table *map_table(const char *path, int flags, int *ret_fd)
{
	_cleanup_close_ int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct table *t;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return NULL;
	/* With its blocks: a store to a mapped page that finds the disk full is a SIGBUS. */
	if (st.st_size < (off_t)sizeof(*t) &&
	    (!(flags & O_CREAT) || posix_fallocate(fd, 0, sizeof(*t)) != 0))
		return NULL;
	t = mmap(NULL, sizeof(*t), flags & O_CREAT ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
		 fd, 0);
	if (t == MAP_FAILED)
		return NULL;
	if (flags & O_CREAT)
		atomic_store(&t->magic, TALLY_MAGIC);
	*ret_fd = steal_fd(&fd);
	return t;
}

static struct slot *find_slot(struct table *t, const char *name)
{
	for (int i = 0; i < TALLY_ENTRIES; i++) {
		struct slot *s = &t->slots[i];

		if (!atomic_load(&s->used))
			return NULL;
		if (strncmp(s->name, name, TALLY_NAME_MAX) == 0)
			return s;
	}
	return NULL;
}

static struct slot *claim_slot(struct table *t, int fd, const char *name)
{
	struct slot *s;

	if (flock(fd, LOCK_EX) < 0)
		return NULL;
	s = find_slot(t, name);
	for (int i = 0; !s && i < TALLY_ENTRIES; i++) {
		if (atomic_load(&t->slots[i].used))
			continue;
		s = &t->slots[i];
		(void)snprintf(s->name, sizeof(s->name), "%s", name);
		atomic_store(&s->used, 1);
	}
	(void)flock(fd, LOCK_UN); /* closing does it too */
	return s;
}

static struct slot *open_slot(const char *path, const char *name, struct table **ret)
{
	_cleanup_close_ int fd = -1;
	struct table *t = map_table(path, O_RDWR | O_CREAT, &fd);
	struct slot *s;

	if (!t)
		return NULL;
	s = find_slot(t, name);
	if (!s)
		s = claim_slot(t, fd, name);
	if (!s) {
		munmap(t, sizeof(*t));
		return NULL;
	}
	*ret = t;
	return s;
}

void tally_add(const char *path, const char *name, uint64_t n)
{
	struct table *t;
	struct slot *s = open_slot(path, name, &t);

	if (!s)
		return;
	atomic_fetch_add(&s->n, n);
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

bool tally_may_say(const char *path, const char *name, uint64_t period_s)
{
	unsigned long long last;
	uint32_t now = now_s();
	struct table *t;
	struct slot *s = open_slot(path, name, &t);
	bool may;

	if (!s)
		return true;
	last = atomic_load(&s->n);
	may = is_over((uint32_t)last, now, period_s) &&
	      atomic_compare_exchange_strong(&s->n, &last, now);
	munmap(t, sizeof(*t));
	return may;
}

/* FNV-1a: nobody gains by two texts of one hash. */
static uint32_t hash_text(const char *text)
{
	uint32_t h = 2166136261u;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 16777619u;
	return h;
}

/* A reason's place: its n is the hash, and when it was said. */
static bool is_said(const struct slot *s, uint32_t hash, uint32_t now, uint64_t period_s)
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

bool tally_may_say_why(const char *path, const char *name, const char *reason, uint64_t period_s)
{
	uint32_t hash = hash_text(reason), now = now_s();
	struct slot *s[TALLY_REASONS] = {0};
	_cleanup_close_ int fd = -1;
	struct table *t = map_table(path, O_RDWR | O_CREAT, &fd);
	bool may = false, said = false;

	if (!t)
		return true;
	for (unsigned i = 0; i < TALLY_REASONS; i++) {
		_cleanup_free_ char *key = xasprintf("%s:%u", name, i);

		s[i] = find_slot(t, key);
		if (!s[i])
			s[i] = claim_slot(t, fd, key);
		said = said || (s[i] && is_said(s[i], hash, now, period_s));
	}
	for (unsigned i = 0; i < TALLY_REASONS && !may && !said; i++) {
		may = !s[i] || take_place(s[i], hash, now, period_s);
		said = !may && is_said(s[i], hash, now, period_s);
	}
	munmap(t, sizeof(*t));
	return may;
}

size_t tally_read(const char *path, struct tally_entry *ret, size_t max)
{
	_cleanup_close_ int fd = -1;
	struct table *t = map_table(path, O_RDONLY, &fd);
	size_t n = 0;

	if (!t)
		return 0;
	for (int i = 0; i < TALLY_ENTRIES && n < max; i++) {
		struct slot *s = &t->slots[i];

		if (atomic_load(&t->magic) != TALLY_MAGIC || !atomic_load(&s->used))
			break;
		memcpy(ret[n].name, s->name, sizeof(ret[n].name));
		ret[n].name[TALLY_NAME_MAX] = '\0';
		ret[n++].n = atomic_load(&s->n);
	}
	munmap(t, sizeof(*t));
	return n;
}

static void told_name(const char *text, char name[static TALLY_NAME_MAX + 1])
{
	(void)snprintf(name, TALLY_NAME_MAX + 1, "told:%08" PRIx32, hash_text(text));
}

void tally_told(const char *path, const char *text)
{
	char name[TALLY_NAME_MAX + 1];

	told_name(text, name);
	tally_add(path, name, 1);
}

bool tally_was_told(const char *path, const char *text)
{
	struct tally_entry e[TALLY_ENTRIES];
	size_t n = tally_read(path, e, TALLY_ENTRIES);
	char name[TALLY_NAME_MAX + 1];

	told_name(text, name);
	for (size_t i = 0; i < n; i++) {
		if (streq(e[i].name, name))
			return true;
	}
	return false;
}
