/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

/*
 * DIR/c/x/...: contents and sets of names, by the digest of their bytes.  DIR/r/x/...: results, by
 * the digest of call, set and state, behind a digest of their name and all that follows.
 * DIR/w/x/...: the variants of a call, one behind the other, each behind such a digest of its own.
 * DIR/b/x/...: what is kept of a call first, see store_first.c.
 * DIR/p/x: parts of calls, see store_parts.c.  DIR/tmp: what is being written.  A file system takes
 * long to make a file or a folder, or to put a file in the place of another.
 */
#define RENEW_S	  3600	      /* the time of the last use is kept no finer than that */
#define COPY_SIZE (64 * 1024) /* more would be mapped, and unmapped, each time */

/* ---- names ---- */

void store_object_name(char kind, const struct digest *d, char ret[STORE_NAME_SIZE])
{
	char hex[DIGEST_HEX];

	digest_hex(d, hex);
	(void)snprintf(ret, STORE_NAME_SIZE, "%c/%.1s/%s", kind, hex, hex + 1);
}

/* What fails shows in what is done next. */
static void make_parents(const struct cache_store *s, const char *name)
{
	char dir[STORE_NAME_SIZE];

	for (const char *at = strchr(name, '/'); at; at = strchr(at + 1, '/')) {
		(void)snprintf(dir, sizeof(dir), "%.*s", (int)(at - name), name);
		(void)mkdirat(s->dir_fd, dir, 0700);
	}
}

static int open_folder(const char *dir)
{
	int err = path_mkdirs(dir, 0700), fd;

	if (err < 0)
		return err;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Whoever may write there decides what compilers are said to have made. */
static bool is_safe(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 022);
}

/* Somebody has removed the folder: another one, by the same descriptor.  A thread that trims meets
 * either. */
static int make_again(struct cache_store *s)
{
	_cleanup_close_ int fd = open_folder(s->dir);

	if (fd < 0)
		return fd;
	if (!is_safe(fd))
		return CONCC_E_UNSAFE;
	if (dup3(fd, s->dir_fd, O_CLOEXEC) < 0)
		return -errno;
	counts_begin_anew(s->counts);
	return mkdirat(s->dir_fd, "tmp", 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_temp(struct cache_store *s, char ret[STORE_NAME_SIZE])
{
	for (int tries = 0; tries < 16; tries++) {
		int fd;

		(void)snprintf(ret, STORE_NAME_SIZE, "tmp/%ld.%u.%llx", (long)getpid(),
			       __atomic_add_fetch(&s->n_temp, 1, __ATOMIC_RELAXED),
			       (unsigned long long)now_us());
		fd = openat(s->dir_fd, ret, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0600);
		if (fd >= 0)
			return fd;
		if (errno == EEXIST)
			continue;
		if (errno != ENOENT || (mkdirat(s->dir_fd, "tmp", 0700) < 0 && make_again(s) < 0))
			return -errno;
	}
	return -EEXIST;
}

/* Gives what is whole in temp its name. */
static int place(struct cache_store *s, const char *temp, const char *name, uint64_t size)
{
	int err = 0;

	if (renameat(s->dir_fd, temp, s->dir_fd, name) < 0) {
		make_parents(s, name);
		if (renameat(s->dir_fd, temp, s->dir_fd, name) < 0)
			err = -errno;
	}
	if (err < 0)
		(void)unlinkat(s->dir_fd, temp, 0); /* else it goes by its age */
	else
		counts_grow(s->counts, 0, size);
	return err;
}

/* ---- writing ---- */

int store_put(struct cache_store *s, const char *name, const struct buf *parts, size_t n)
{
	char temp[STORE_NAME_SIZE];
	_cleanup_close_ int fd = open_temp(s, temp);
	uint64_t size = 0;
	int err = 0;

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < n && err == 0; i++) {
		err = write_full(fd, parts[i].data, parts[i].len);
		size += parts[i].len;
	}
	if (err < 0) {
		(void)unlinkat(s->dir_fd, temp, 0);
		return err;
	}
	return place(s, temp, name, size);
}

/* It is used: trimmed later than what is not. */
static void renew(struct cache_store *s, const char *name, const struct stat *st)
{
	if (st->st_mtim.tv_sec + RENEW_S < time(NULL))
		(void)utimensat(s->dir_fd, name, NULL, AT_SYMLINK_NOFOLLOW);
}

bool cache_store_has(struct cache_store *s, const char *name)
{
	struct stat st;

	if (fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return false;
	renew(s, name, &st);
	return true;
}

static int open_to_append(struct cache_store *s, const char *name)
{
	const int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	int fd = openat(s->dir_fd, name, flags, 0600);

	if (fd < 0 && errno == ENOENT) {
		make_parents(s, name);
		fd = openat(s->dir_fd, name, flags, 0600);
	}
	return fd < 0 ? -errno : fd;
}

int store_append(struct cache_store *s, const char *name, const struct buf *b, uint64_t *ret_size)
{
	_cleanup_close_ int fd = open_to_append(s, name);
	struct stat st;
	int err;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EIO;
	err = write_full(fd, b->data, b->len);
	if (err < 0) {
		(void)unlinkat(s->dir_fd, name, 0); /* what follows half of it would be lost */
		return err;
	}
	*ret_size = (uint64_t)st.st_size + b->len;
	counts_grow(s->counts, (uint64_t)st.st_size, *ret_size);
	return 0;
}

int cache_put_bytes(struct cache_store *s, const void *p, size_t n, struct digest *ret)
{
	const struct buf whole = {.data = (uint8_t *)p, .len = n};
	char name[STORE_NAME_SIZE];

	digest_of(p, n, ret);
	store_object_name('c', ret, name);
	return cache_store_has(s, name) ? 0 : store_put(s, name, &whole, 1);
}

static int copy(int from, int to, struct digest *ret, uint64_t *ret_size)
{
	_cleanup_free_ uint8_t *chunk = xmalloc(COPY_SIZE);
	struct digest_ctx *ctx = digest_new();
	uint64_t at = 0;
	int err = 0;

	for (;;) {
		ssize_t n = pread(from, chunk, COPY_SIZE, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			err = n < 0 ? -errno : 0;
			break;
		}
		digest_update(ctx, chunk, (size_t)n);
		at += (uint64_t)n;
		err = write_full(to, chunk, (size_t)n);
		if (err < 0)
			break;
	}
	digest_final(ctx, ret);
	digest_free(ctx);
	*ret_size = at;
	return err;
}

int cache_put_fd(struct cache_store *s, int fd, const struct digest *d)
{
	char temp[STORE_NAME_SIZE], name[STORE_NAME_SIZE];
	_cleanup_close_ int to = -1;
	struct digest found;
	uint64_t size = 0;
	int err;

	store_object_name('c', d, name);
	if (cache_store_has(s, name))
		return 0;
	to = open_temp(s, temp);
	if (to < 0)
		return to;
	err = copy(fd, to, &found, &size);
	if (err == 0 && !digest_eq(&found, d))
		err = CONCC_E_STALE;
	if (err == 0)
		return place(s, temp, name, size);
	(void)unlinkat(s->dir_fd, temp, 0);
	return err;
}

/* ---- reading ---- */

int store_read(struct cache_store *s, const char *name, size_t max, struct buf *ret)
{
	_cleanup_close_ int fd = openat(s->dir_fd, name,
					O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max)
		return CONCC_E_TOOBIG;
	n = read_full(fd, buf_grow(ret, (size_t)st.st_size + 1), (size_t)st.st_size);
	ret->len -= (size_t)st.st_size + 1 - (n > 0 ? (size_t)n : 0);
	if (n < 0)
		return (int)n;
	renew(s, name, &st);
	return 0;
}

int store_damaged(struct cache_store *s, const char *name)
{
	log_warn("%s/%s is damaged: removed", s->dir, name);
	(void)unlinkat(s->dir_fd, name, 0);
	return -ENOENT;
}

static int get_named(struct cache_store *s, const char *name, const struct digest *d, size_t max,
		     struct buf *ret)
{
	struct digest found;
	int r;

	buf_reset(ret);
	r = store_read(s, name, max, ret);
	if (r == CONCC_E_TOOBIG)
		return store_damaged(s, name);
	if (r < 0)
		return r;
	digest_of(ret->data, ret->len, &found);
	return digest_eq(&found, d) ? 0 : store_damaged(s, name);
}

int cache_get_bytes(struct cache_store *s, const struct digest *d, size_t max, struct buf *ret)
{
	char name[STORE_NAME_SIZE];

	store_object_name('c', d, name);
	return get_named(s, name, d, max, ret);
}

bool cache_has(struct cache_store *s, const struct digest *d)
{
	char name[STORE_NAME_SIZE];

	store_object_name('c', d, name);
	return cache_store_has(s, name);
}

void store_seal_of(const char *name, const void *p, size_t n, struct digest *ret)
{
	struct digest_ctx *ctx = digest_new();

	digest_update(ctx, name, strlen(name) + 1);
	digest_update(ctx, p, n);
	digest_final(ctx, ret);
	digest_free(ctx);
}

bool store_unseal(const char *name, const struct buf *b, struct blob *ret)
{
	struct digest found;

	if (b->len < DIGEST_SIZE)
		return false;
	*ret = (struct blob){b->data + DIGEST_SIZE, b->len - DIGEST_SIZE};
	store_seal_of(name, ret->p, ret->n, &found);
	return memcmp(found.b, b->data, DIGEST_SIZE) == 0;
}

/* With the seal in front. */
int store_put_sealed(struct cache_store *s, const char *name, struct buf *b)
{
	struct digest d;
	struct buf parts[2] = {{.data = d.b, .len = DIGEST_SIZE}, *b};

	store_seal_of(name, b->data, b->len, &d);
	return store_put(s, name, parts, 2);
}

int store_get_sealed(struct cache_store *s, const char *name, size_t max, struct buf *ret)
{
	struct blob in;
	int r;

	buf_reset(ret);
	r = store_read(s, name, max, ret);
	if (r < 0)
		return r == CONCC_E_TOOBIG ? store_damaged(s, name) : r;
	if (!store_unseal(name, ret, &in))
		return store_damaged(s, name);
	buf_consume(ret, DIGEST_SIZE);
	return 0;
}

/* ---- life ---- */

int cache_store_open(const char *dir, uint64_t max_bytes, struct cache_store **ret,
		     struct errmsg *msg)
{
	struct cache_store *s;
	int fd;

	fd = open_folder(dir);
	if (fd < 0)
		return errmsg_set(msg, fd,
				  "can't use the cache's folder %s: %s; name another with "
				  "CONCC_CACHE_DIR",
				  dir, err_text(fd));
	if (!is_safe(fd)) {
		(void)close(fd);
		return errmsg_set(msg, CONCC_E_UNSAFE,
				  "others may write to the cache's folder %s: chmod go-w it, or "
				  "name another with CONCC_CACHE_DIR",
				  dir);
	}
	s = xcalloc(1, sizeof(*s));
	s->dir = xstrdup(dir);
	s->dir_fd = fd;
	s->max_bytes = max_bytes;
	s->counts = counts_open(fd);
	(void)pthread_mutex_init(&s->adding, NULL);
	*ret = s;
	return 0;
}

void cache_store_close(struct cache_store *s)
{
	if (!s)
		return;
	counts_write(s->counts, s->dir_fd);
	counts_free(s->counts);
	(void)pthread_mutex_destroy(&s->adding);
	(void)close(s->dir_fd);
	free(s->dir);
	free(s);
}

/* ---- what is counted ---- */

void cache_counts(const struct cache_store *s, struct cache_counts *ret)
{
	counts_read(s->counts, ret);
}

void cache_count_hit(struct cache_store *s, uint64_t saved_us)
{
	counts_hit(s->counts, saved_us);
}

void cache_count_miss(struct cache_store *s)
{
	counts_miss(s->counts);
}

void cache_count_kept(struct cache_store *s)
{
	counts_kept(s->counts);
}

void cache_count_uncacheable(struct cache_store *s, const char *why)
{
	counts_uncacheable(s->counts, why);
}

void cache_write_counts(struct cache_store *s, bool all)
{
	if (all || counts_are_many(s->counts))
		counts_write(s->counts, s->dir_fd);
}

bool cache_reason(const struct cache_store *s, size_t index, char ret_why[32], uint64_t *ret_n)
{
	return counts_reason(s->counts, index, ret_why, ret_n);
}
