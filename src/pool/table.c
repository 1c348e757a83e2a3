/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/str.h"

#define TABLE_VERSION 6
static const char table_magic[8] = {'c', 'o', 'n', 'c', 'p', 'o', 'o', 'l'};

_Static_assert(sizeof(struct table_member) == 256, "the layout is shared between versions");

#define load(p)	    __atomic_load_n((p), __ATOMIC_RELAXED)
#define load_acq(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)

/* ---- members and hints ---- */

bool member_name_valid(const char *name)
{
	size_t n = strnlen(name, POOL_NAME_MAX + 1);

	/* It becomes part of a file name. */
	if (n == 0 || n > POOL_NAME_MAX || name[0] == '.')
		return false;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c <= ' ' || c >= 0x7f || c == '/')
			return false;
	}
	return true;
}

static uint64_t word_mask(uint32_t word, uint32_t slots)
{
	uint32_t from = word * 64;

	if (slots <= from)
		return 0;
	return slots - from >= 64 ? ~0ULL : (1ULL << (slots - from)) - 1;
}

static void view_hints(const struct table_member *m, struct member_view *ret)
{
	ret->taken = 0;
	ret->free_slot = -1;
	for (uint32_t w = 0; w * 64 < ret->slots; w++) {
		uint64_t taken = load(&m->taken[w]), clear = ~taken & word_mask(w, ret->slots);

		ret->taken += (uint32_t)__builtin_popcountll(taken & word_mask(w, ret->slots));
		if (clear && ret->free_slot < 0)
			ret->free_slot = (int)(w * 64) + __builtin_ctzll(clear);
	}
}

bool member_view(const struct table *t, uint32_t index, struct member_view *ret)
{
	const struct table_member *m = &t->members[index];

	ret->gen = load_acq(&m->gen);
	ret->state = load_acq(&m->state);
	if (ret->state == MEMBER_NONE || ret->state > MEMBER_ASLEEP)
		return false;
	ret->slots = load(&m->slots);
	if (ret->slots > POOL_SLOTS_MAX)
		ret->slots = POOL_SLOTS_MAX;
	ret->speed = load(&m->speed);
	if (ret->speed == 0)
		ret->speed = 1;
	view_hints(m, ret);
	for (unsigned i = 0; i < SCHED_LEVELS; i++)
		ret->profile.slowdown[i] = load(&m->profile.slowdown[i]);
	ret->profile.overhead_us = load(&m->profile.overhead_us);
	ret->profile.cores = load(&m->profile.cores);
	memcpy(ret->name, m->name, sizeof(ret->name));
	ret->name[POOL_NAME_MAX] = '\0';
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return load(&m->gen) == ret->gen && member_name_valid(ret->name);
}

int member_find(const struct table *t, const char *name)
{
	struct member_view v;

	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++)
		if (member_view(t, i, &v) && streq(v.name, name))
			return (int)i;
	return -ENOENT;
}

static uint64_t *work_at(const struct table *t, uint64_t key)
{
	return (uint64_t *)&t->works[(key ^ key >> 32) % WORK_SLOTS];
}

uint32_t work_find(const struct table *t, uint64_t key)
{
	uint64_t entry = load(work_at(t, key));

	return key && entry >> 32 == key >> 32 ? (uint32_t)entry : 0;
}

void work_set(struct table *t, uint64_t key, uint32_t us)
{
	__atomic_store_n(work_at(t, key), (key >> 32 << 32) | us, __ATOMIC_RELAXED);
}

bool hint_is_set(const struct table *t, uint32_t member, uint32_t slot)
{
	return load_acq(&t->members[member].taken[slot / 64]) >> (slot % 64) & 1;
}

bool hint_set(struct table *t, uint32_t member, uint32_t slot)
{
	uint64_t bit = 1ULL << (slot % 64);

	return !(__atomic_fetch_or(&t->members[member].taken[slot / 64], bit, __ATOMIC_ACQ_REL) &
		 bit);
}

void hint_clear(struct table *t, uint32_t member, uint32_t slot)
{
	__atomic_fetch_and(&t->members[member].taken[slot / 64], ~(1ULL << (slot % 64)),
			   __ATOMIC_ACQ_REL);
}

/* ---- the file ---- */

static bool header_is_good(int fd)
{
	struct {
		char magic[8];
		uint32_t version;
		uint32_t size;
	} h;
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size != sizeof(struct table))
		return false;
	return pread(fd, &h, sizeof(h), 0) == sizeof(h) &&
	       memcmp(h.magic, table_magic, sizeof(h.magic)) == 0 && h.version == TABLE_VERSION &&
	       h.size == sizeof(struct table);
}

static int write_fresh(int fd)
{
	struct {
		uint32_t version;
		uint32_t size;
	} rest = {TABLE_VERSION, sizeof(struct table)};
	int err;

	if (ftruncate(fd, 0) < 0)
		return -errno;
	/* All blocks now: a store to a mapped page that finds the disk full is a SIGBUS. */
	err = posix_fallocate(fd, 0, sizeof(struct table));
	if (err)
		return -err;
	if (pwrite(fd, &rest, sizeof(rest), sizeof(table_magic)) != sizeof(rest))
		return -EIO;
	/* Last, since it is what others look for. */
	if (pwrite(fd, table_magic, sizeof(table_magic), 0) != sizeof(table_magic))
		return -EIO;
	return 0;
}

/*
 * Every user of a good table keeps a shared flock on it, of whatever version
 * the program is; who gets the exclusive one is alone.
 */
static int rebuild_locked(int fd, const char *dir, struct errmsg *msg)
{
	struct stat st;
	int rc;

	if (header_is_good(fd))
		return 0; /* somebody else was first */
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return errmsg_set(msg, -errno, "locking %s/%s: %s", dir, TABLE_NAME,
					  strerror(errno));
		return errmsg_set(msg, CONCC_E_VERSION,
				  "%s/%s is damaged or of another version of concc, and in use; "
				  "wait for the running builds to end, then try again",
				  dir, TABLE_NAME);
	}
	if (fstat(fd, &st) == 0 && st.st_size > 0)
		log_warn("%s/%s is damaged or of another version; making a new one", dir,
			 TABLE_NAME);
	rc = write_fresh(fd);
	if (rc < 0)
		return errmsg_set(msg, rc, "writing %s/%s: %s; is the disk full?", dir, TABLE_NAME,
				  err_text(rc));
	return 0;
}

static int rebuild(int fd, const char *dir, struct errmsg *msg)
{
	int rc;

	do
		rc = byte_lock_wait(fd, TABLE_LOCK_AT, F_WRLCK);
	while (rc == -EINTR); /* the holder needs microseconds */
	if (rc < 0)
		return errmsg_set(msg, rc, "locking %s/%s: %s", dir, TABLE_NAME, err_text(rc));
	rc = rebuild_locked(fd, dir, msg);
	(void)flock(fd, LOCK_UN); /* taken again, shared, by the caller */
	byte_unlock(fd, TABLE_LOCK_AT);
	return rc;
}

static int use_file(int fd, const char *dir, struct errmsg *msg)
{
	/* Twice, for a table that was replaced just as it was found good. */
	for (int i = 0; i < 2; i++) {
		int rc = header_is_good(fd) ? 0 : rebuild(fd, dir, msg);

		if (rc < 0)
			return rc;
		do
			rc = flock(fd, LOCK_SH);
		while (rc < 0 && errno == EINTR);
		if (rc < 0)
			return errmsg_set(msg, -errno, "locking %s/%s: %s", dir, TABLE_NAME,
					  strerror(errno));
		if (header_is_good(fd))
			return 0;
		(void)flock(fd, LOCK_UN);
	}
	return errmsg_set(msg, CONCC_E_VERSION, "%s/%s changes while it is opened; remove it", dir,
			  TABLE_NAME);
}

static int open_file(int dir_fd, const char *dir, int *ret, struct errmsg *msg)
{
	/* O_NONBLOCK: a FIFO somebody put there must not hang us. */
	_cleanup_close_ int fd = openat(
		dir_fd, TABLE_NAME,
		O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
	struct stat st;

	if (fd < 0 && errno != ELOOP && errno != EISDIR)
		return errmsg_set(msg, -errno, "opening %s/%s: %s", dir, TABLE_NAME,
				  strerror(errno));
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
	    st.st_nlink != 1)
		return errmsg_set(msg, CONCC_E_UNSAFE,
				  "%s/%s is not a plain file of our own; remove it", dir,
				  TABLE_NAME);
	*ret = steal_fd(&fd);
	return 0;
}

int table_open(int dir_fd, const char *dir, int *ret_fd, struct table **ret, struct errmsg *msg)
{
	_cleanup_close_ int fd = -1;
	void *map;
	int rc;

	rc = open_file(dir_fd, dir, &fd, msg);
	if (rc < 0)
		return rc;
	rc = use_file(fd, dir, msg);
	if (rc < 0)
		return rc;
	map = mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return errmsg_set(msg, -errno, "mapping %s/%s: %s", dir, TABLE_NAME,
				  strerror(errno));
	*ret = map;
	*ret_fd = steal_fd(&fd);
	return 0;
}

void table_close(int fd, struct table *t)
{
	if (t)
		munmap(t, sizeof(*t));
	if (fd >= 0)
		(void)close(fd);
}
