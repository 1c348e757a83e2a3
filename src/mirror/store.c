/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/map.h"
#include "concc/str.h"
#include "objects.h"

/*
 * Nothing is synced to disk: that would cost milliseconds for each of the
 * thousands of objects of a cold start.  So a power cut may leave a name with
 * torn bytes, and a name alone proves nothing about what an earlier session
 * wrote.  Therefore each file is hashed when it is opened for the first time
 * in this process (0.7 ms per MB, once); what this process wrote itself it has
 * hashed already.  The same set says whose time stamp was renewed.
 *
 * The folder may be on a network file system and used by many hosts: nothing
 * depends on a lock, nor on names that were there a moment ago.  A file that
 * is there is not replaced, since reads of one that is open elsewhere would fail
 * there (ESTALE); who meets that reads once more (content.c).
 */

/* Digests remembered as checked: about 25 MB at the most; then it starts anew. */
#define SEEN_MAX (256 * 1024)
/* Trimming goes below the bound by a tenth, so that not each new object trims again. */
#define TRIM_TO(max) ((max) / 10 * 9)
/* What makes it worth to look how large it has become: a twentieth of the bound. */
#define GROWN(max) ((max) / 20)
/* Evicted at least when the disk is full, so that not each write finds it so. */
#define ROOM_MIN   (16ull << 20)
#define PROBE_SIZE (1u << 20)
#define COPY_SIZE  (256 * 1024)

struct store {
	char *dir;
	uint64_t max_bytes;
	pthread_mutex_t lock;
	struct map seen; /* digest -> inode number of the file with it; under lock */
	atomic_ullong n_hits, n_added;
	atomic_ullong size;  /* on the disk, when it was trimmed last */
	atomic_ullong grown; /* put in by us since */
	atomic_bool measured;
	void (*on_full)(void *data);
	void *on_full_data;
	atomic_int unable; /* why the last write failed: -errno, or 0 */
};

struct store_writer {
	struct store *store;
	int fd;
	char *tmp; /* path of the temporary file */
	struct digest_ctx *ctx;
	uint64_t at;
	int err; /* the first failure; the bytes are not whole any more */
};

static char *object_path(const struct store *s, const struct digest *d)
{
	char hex[DIGEST_HEX];

	digest_hex(d, hex);
	return xasprintf("%s/%.2s/%s", s->dir, hex, hex + 2);
}

/* Another file of that name may be torn, though the former was not. */
static bool seen_has(struct store *s, const struct digest *d, int fd)
{
	struct stat st;
	bool has;

	if (fstat(fd, &st) < 0)
		return false;
	pthread_mutex_lock(&s->lock);
	has = map_get(&s->seen, d->b, DIGEST_SIZE) == (void *)(uintptr_t)st.st_ino;
	pthread_mutex_unlock(&s->lock);
	return has;
}

static void seen_add(struct store *s, const struct digest *d, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !st.st_ino)
		return;
	pthread_mutex_lock(&s->lock);
	if (s->seen.n >= SEEN_MAX)
		map_release(&s->seen);
	(void)map_put(&s->seen, d->b, DIGEST_SIZE, (void *)(uintptr_t)st.st_ino);
	pthread_mutex_unlock(&s->lock);
}

/* Makes the parent folder of path, which someone may have deleted at any time. */
static int make_parent(const char *path)
{
	_cleanup_free_ char *dir = xstrndup(path, (size_t)(path_base(path) - path - 1));

	return path_mkdirs(dir, 0700);
}

int store_open(const char *dir, uint64_t max_bytes, struct store **ret, struct errmsg *msg)
{
	_cleanup_free_ char *tmp = path_join(dir, "tmp");
	struct store *s;
	int err;

	err = path_mkdirs(tmp, 0700);
	if (err < 0)
		return errmsg_set(msg, err,
				  "can't make the store's folder %s: %s; name another with "
				  "CONCC_CACHE_DIR",
				  tmp, err_text(err));
	if (access(tmp, W_OK | X_OK) < 0)
		return errmsg_set(msg, -errno,
				  "can't write to the store's folder %s: %s; change its owner, or "
				  "name another with CONCC_CACHE_DIR",
				  tmp, strerror(errno));
	s = xcalloc(1, sizeof(*s));
	s->dir = xstrdup(dir);
	s->max_bytes = max_bytes;
	pthread_mutex_init(&s->lock, NULL);
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	map_release(&s->seen);
	pthread_mutex_destroy(&s->lock);
	free(s->dir);
	free(s);
}

bool store_has(struct store *s, const struct digest *d)
{
	_cleanup_free_ char *path = object_path(s, d);

	return access(path, R_OK) == 0;
}

/* First use in this process: are these the bytes that the name promises?  Drops them if not. */
static int check_object(struct store *s, const char *path, int fd, const struct digest *d)
{
	struct digest found;
	int err;

	err = digest_of_fd(fd, &found, NULL);
	if (err < 0)
		return err;
	if (!digest_eq(&found, d)) {
		log_warn("%s has not the bytes its name promises (cut short by a crash?): removed",
			 path);
		(void)unlink(path); /* gone already is as good */
		return -ENOENT;
	}
	(void)futimens(fd, NULL); /* only the order of trimming depends on it */
	seen_add(s, d, fd);
	return 0;
}

void store_doubt(struct store *s, const struct digest *d)
{
	pthread_mutex_lock(&s->lock);
	(void)map_del(&s->seen, d->b, DIGEST_SIZE);
	pthread_mutex_unlock(&s->lock);
}

int store_get(struct store *s, const struct digest *d)
{
	_cleanup_free_ char *path = object_path(s, d);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int err;

	if (fd < 0)
		return -errno;
	if (!seen_has(s, d, fd)) {
		err = check_object(s, path, fd, d);
		if (err < 0)
			return err;
	}
	atomic_fetch_add(&s->n_hits, 1);
	return steal_fd(&fd);
}

static int make_room(struct store *s, uint64_t bytes);

static uint64_t disk_bytes(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* Random names: agents in different pid namespaces may share the folder. */
static int open_tmp(struct store *s, char **ret_path)
{
	_cleanup_free_ char *path = xasprintf("%s/tmp/XXXXXX", s->dir);
	int fd;

	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		int err = make_parent(path);

		if (err < 0)
			return err;
		strcpy(path + strlen(path) - 6, "XXXXXX");
		fd = mkostemp(path, O_CLOEXEC);
	}
	if (fd < 0)
		return -errno;
	*ret_path = steal_ptr(&path);
	return fd;
}

static bool is_full(int err)
{
	return err == -ENOSPC || err == -EDQUOT;
}

/* Of all that is done to the disk. */
static int note(struct store *s, int err)
{
	atomic_store(&s->unable, err);
	return err;
}

int store_begin(struct store *s, struct store_writer **ret)
{
	struct store_writer *w;
	char *tmp = NULL;
	int fd;

	fd = open_tmp(s, &tmp);
	/* It may have no inodes left, too. */
	if (is_full(fd) && make_room(s, 0) == 0)
		fd = open_tmp(s, &tmp);
	if (fd < 0)
		return note(s, fd);
	w = xcalloc(1, sizeof(*w));
	w->store = s;
	w->fd = fd;
	w->tmp = tmp;
	w->ctx = digest_new();
	*ret = w;
	return 0;
}

/* All that is missing up to `end`, of which p has the last n bytes. */
static int write_up_to(struct store_writer *w, uint64_t end, const uint8_t *p, size_t n)
{
	while (w->at < end) {
		ssize_t r = pwrite(w->fd, p + (n - (end - w->at)), end - w->at, (off_t)w->at);

		if (r < 0 && errno != EINTR)
			return -errno;
		w->at += r > 0 ? (uint64_t)r : 0;
	}
	return 0;
}

int store_write(struct store_writer *w, const void *p, size_t n)
{
	uint64_t end = w->at + n;

	if (w->err)
		return w->err;
	w->err = write_up_to(w, end, p, n);
	if (is_full(w->err) && make_room(w->store, n) == 0)
		w->err = write_up_to(w, end, p, n);
	if (w->err == 0)
		digest_update(w->ctx, p, n);
	else
		(void)note(w->store, w->err);
	return w->err;
}

int store_writer_fd(const struct store_writer *w)
{
	return w->fd;
}

static void writer_free(struct store_writer *w)
{
	if (w->tmp)
		(void)unlink(w->tmp); /* the folder may be gone */
	if (w->fd >= 0)
		(void)close(w->fd);
	digest_free(w->ctx);
	free(w->tmp);
	free(w);
}

void store_abort(struct store_writer *w)
{
	if (w)
		writer_free(w);
}

/* One that is as large has the same bytes, which shows when it is opened; else it is torn. */
static bool is_there(const struct store_writer *w, const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && (uint64_t)st.st_size == w->at;
}

static int put_in_place(struct store_writer *w, const struct digest *d)
{
	_cleanup_free_ char *path = object_path(w->store, d);
	int err;

	if (is_there(w, path)) {
		(void)unlink(w->tmp);
		free(steal_ptr(&w->tmp));
		return 0;
	}
	if (rename(w->tmp, path) < 0) {
		if (errno != ENOENT)
			return -errno;
		err = make_parent(path);
		if (err < 0)
			return err;
		if (rename(w->tmp, path) < 0)
			return -errno;
	}
	free(steal_ptr(&w->tmp));
	seen_add(w->store, d, w->fd);
	return 0;
}

int store_commit(struct store_writer *w, const struct digest *expect, struct digest *ret_digest,
		 int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	struct digest d;
	int err = w->err;

	if (err == 0) {
		digest_final(w->ctx, &d);
		if (expect && !digest_eq(expect, &d))
			err = CONCC_E_PROTO;
	}
	if (err < 0) {
		writer_free(w);
		return err;
	}
	if (ret_fd)
		fd = fcntl(w->fd, F_DUPFD_CLOEXEC, 3);
	if (fchmod(w->fd, 0400) < 0)
		err = -errno;
	if (err == 0)
		err = put_in_place(w, &d);
	if (is_full(err) && make_room(w->store, 0) == 0)
		err = put_in_place(w, &d);
	(void)note(w->store, err);
	if (err == 0)
		atomic_fetch_add(&w->store->grown, disk_bytes(w->fd));
	atomic_fetch_add(&w->store->n_added, err == 0);
	writer_free(w);
	if (ret_digest)
		*ret_digest = d;
	if (ret_fd)
		*ret_fd = steal_fd(&fd);
	return err;
}

/* To its end, or a byte beyond max.  How many, or -errno. */
static int64_t copy(struct store_writer *w, int fd, uint64_t max)
{
	_cleanup_free_ uint8_t *buf = xmalloc(COPY_SIZE);
	uint64_t at = 0;
	int err;

	while (at <= max) {
		uint64_t left = max - at + 1;
		ssize_t n = pread(fd, buf, left < COPY_SIZE ? (size_t)left : COPY_SIZE, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		err = store_write(w, buf, (size_t)n);
		if (err < 0)
			return err;
		at += (uint64_t)n;
	}
	return (int64_t)at;
}

int store_add_fd(struct store *s, int fd, const struct digest *d)
{
	struct store_writer *w;
	int64_t n;
	int err;

	if (store_has(s, d))
		return 0;
	err = store_begin(s, &w);
	if (err < 0)
		return err;
	n = copy(w, fd, INT64_MAX);
	if (n < 0) {
		store_abort(w);
		return (int)n;
	}
	return store_commit(w, d, NULL, NULL);
}

int store_copy_fd(struct store *s, int fd, uint64_t size, const struct digest *expect,
		  struct digest *ret)
{
	struct store_writer *w;
	int err = store_begin(s, &w);
	int64_t n;

	if (err < 0)
		return err;
	n = copy(w, fd, size);
	if (n < 0 || (uint64_t)n != size) {
		store_abort(w);
		return n < 0 ? (int)n : -ESTALE;
	}
	return store_commit(w, expect, ret, NULL);
}

/* ---- trimming ---- */

static void note_size(struct store *s, const struct objects *o)
{
	atomic_store(&s->size, o->total);
	atomic_store(&s->grown, 0);
	atomic_store(&s->measured, true);
}

/* Of who removes, one at a time spares the others the work.  An fd, or -errno. */
static int lock_trim(const struct store *s, int how)
{
	_cleanup_free_ char *path = path_join(s->dir, ".trim");
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 || flock(fd, LOCK_EX | how) < 0)
		return -errno;
	return steal_fd(&fd);
}

int store_trim(struct store *s)
{
	struct objects o = {0};
	_cleanup_close_ int fd = lock_trim(s, LOCK_NB);

	/* Somebody else does it; or there is no folder, and nothing to trim.  Where there are no
	 * locks, who trims at the same time removes the same. */
	if (fd == -EWOULDBLOCK || fd == -ENOENT) {
		atomic_store(&s->grown, 0);
		return 0;
	}
	objects_remove_old_tmp(s->dir);
	objects_collect(&o, s->dir);
	if (o.total > s->max_bytes)
		(void)objects_evict(&o, TRIM_TO(s->max_bytes));
	note_size(s, &o);
	objects_release(&o);
	return 0;
}

bool store_wants_trim(struct store *s)
{
	uint64_t grown = atomic_load(&s->grown);

	return !atomic_load(&s->measured) || grown > GROWN(s->max_bytes) ||
	       atomic_load(&s->size) + grown > s->max_bytes;
}

/* The disk is full: 0 when something was removed, of which more than `bytes` may be hoped for. */
static int make_room(struct store *s, uint64_t bytes)
{
	uint64_t room = bytes + ROOM_MIN, gone;
	struct objects o = {0};
	/* Without a file of its own, which may be what there is no room for, several do it at once.
	 */
	_cleanup_close_ int fd = lock_trim(s, 0);

	objects_collect(&o, s->dir);
	if (room < o.total / 10)
		room = o.total / 10;
	gone = objects_evict(&o, o.total > room ? o.total - room : 0);
	if (s->on_full)
		s->on_full(s->on_full_data);
	note_size(s, &o);
	objects_release(&o);
	if (gone)
		log_info("the disk of %s is full: removed %llu MB from it", s->dir,
			 (unsigned long long)(gone >> 20));
	return gone ? 0 : -ENOSPC;
}

void store_on_full(struct store *s, void (*fn)(void *data), void *data)
{
	s->on_full = fn;
	s->on_full_data = data;
}

int store_state(struct store *s)
{
	return atomic_load(&s->unable);
}

int store_probe(struct store *s)
{
	_cleanup_free_ uint8_t *zeros = xcalloc(1, PROBE_SIZE);
	struct store_writer *w;
	int err = store_begin(s, &w);

	if (err < 0)
		return err;
	err = store_write(w, zeros, PROBE_SIZE);
	store_abort(w);
	return note(s, err);
}

void store_counts(struct store *s, struct store_counts *ret)
{
	ret->hits = atomic_load(&s->n_hits);
	ret->added = atomic_load(&s->n_added);
	ret->bytes = atomic_load(&s->measured) ? atomic_load(&s->size) + atomic_load(&s->grown) : 0;
	ret->max = s->max_bytes;
}

void store_measure(const char *dir, uint64_t *ret_bytes, uint64_t *ret_objects)
{
	struct objects o = {0};

	objects_collect(&o, dir);
	*ret_bytes = o.total;
	*ret_objects = o.n;
	objects_release(&o);
}
