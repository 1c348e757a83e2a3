/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define MAGIC	   0x52636e63u /* "cncR" */
#define HEADER_LEN 12	       /* magic, length of what follows, its hash */
/* So many records of one process, then it looks how large the file is. */
#define LOOK_EVERY 64

struct record_file {
	char *path;
	int fd;
	unsigned n; /* appended since it looked */
};

/* FNV-1a: against halves, not against lies; it is this user's own file. */
static uint32_t hash(const uint8_t *p, size_t n)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 16777619u;
	return h;
}

static char *old_path(const char *path)
{
	return xasprintf("%s.old", path);
}

char *record_path(const char *cache)
{
	_cleanup_free_ char *name = NULL;
	char host[HOST_NAME_MAX + 1] = "";

	(void)gethostname(host, sizeof(host) - 1);
	name = xasprintf("jobs.%s", host);
	return path_join(cache, name);
}

int record_find(char **ret_path, struct errmsg *msg)
{
	_cleanup_free_ char *cache = NULL, *dir = NULL;
	int r = cache_dir(&cache, msg);

	/* Where a home can't be written to, the server has it beside its socket. */
	if (r < 0 || access(cache, W_OK) < 0) {
		r = runtime_dir_open(&dir, NULL, msg);
		if (r < 0)
			return r;
		free(cache);
		cache = path_join(dir, "cache");
	}
	*ret_path = record_path(cache);
	return 0;
}

static int open_own(const char *path, int flags)
{
	_cleanup_close_ int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return CONCC_E_UNSAFE;
	return steal_fd(&fd);
}

static bool is_named(const struct record_file *f)
{
	struct stat a, b;

	return fstat(f->fd, &a) == 0 && lstat(f->path, &b) == 0 && stat_is_same_file(&a, &b);
}

static bool is_full(const struct record_file *f)
{
	struct stat st;

	return fstat(f->fd, &st) == 0 && st.st_size >= RECORD_FILE_MAX;
}

static int open_file(struct record_file *f)
{
	int fd = open_own(f->path, O_WRONLY | O_APPEND | O_CREAT);

	if (fd < 0)
		return fd;
	if (f->fd >= 0)
		(void)close(f->fd);
	f->fd = fd;
	return 0;
}

/* Of those who find it full at once, one renames it: who comes later has another file then. */
static int turn_over(struct record_file *f)
{
	_cleanup_free_ char *old = old_path(f->path);

	if (flock(f->fd, LOCK_EX) < 0)
		return -errno;
	if (is_named(f) && rename(f->path, old) < 0)
		return -errno;
	return open_file(f); /* the lock ends with the old one */
}

static int look(struct record_file *f)
{
	if (is_full(f))
		return turn_over(f);
	return is_named(f) ? 0 : open_file(f);
}

int record_file_open(const char *path, struct record_file **ret)
{
	struct record_file *f = xcalloc(1, sizeof(*f));
	int r;

	f->path = xstrdup(path);
	f->fd = -1;
	r = open_file(f);
	if (r == 0 && is_full(f))
		r = turn_over(f);
	if (r < 0) {
		record_file_close(f);
		return r;
	}
	*ret = f;
	return 0;
}

void record_file_close(struct record_file *f)
{
	if (!f)
		return;
	if (f->fd >= 0)
		(void)close(f->fd);
	free(f->path);
	free(f);
}

void record_put(struct buf *b, const struct record *r)
{
	size_t at = b->len, from = at + HEADER_LEN;

	buf_put_u32(b, MAGIC);
	buf_put_u32(b, 0);
	buf_put_u32(b, 0);
	record_encode(b, r);
	buf_set_u32(b, at + 4, (uint32_t)(b->len - from));
	buf_set_u32(b, at + 8, hash(b->data + from, b->len - from));
}

int record_append(struct record_file *f, const struct buf *b, unsigned n_records)
{
	ssize_t n;
	int err;

	f->n += n_records;
	if (f->n >= LOOK_EVERY) {
		f->n = 0;
		err = look(f);
		if (err < 0)
			return err;
	}
	do
		n = write(f->fd, b->data, b->len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == b->len ? 0 : -ENOSPC; /* who reads passes over the half */
}

/* ---- reading ---- */

/* The record at p, of which n bytes are left; returns its bytes, 0 when there is none. */
static size_t record_at(const uint8_t *p, size_t n, struct record *ret)
{
	uint32_t magic, len, sum;
	struct rd rd;

	rd_init(&rd, p, n);
	magic = rd_u32(&rd);
	len = rd_u32(&rd);
	sum = rd_u32(&rd);
	if (rd.bad || magic != MAGIC || len > RECORD_MAX || len > n - HEADER_LEN)
		return 0;
	p += HEADER_LEN;
	if (hash(p, len) != sum || record_decode((struct blob){p, len}, ret) < 0)
		return 0;
	return HEADER_LEN + len;
}

/* False when fn has seen enough. */
static bool read_bytes(const uint8_t *p, size_t n, bool (*fn)(void *data, struct record *r),
		       void *data)
{
	bool more = true;

	for (size_t i = 0; more && i + HEADER_LEN <= n;) {
		struct record r;
		size_t len = record_at(p + i, n - i, &r);

		i += len ? len : 1;
		if (!len)
			continue;
		more = fn(data, &r);
		record_release(&r);
	}
	return more;
}

/* From there to its end. */
static int read_file(const char *path, off_t from, bool *more,
		     bool (*fn)(void *data, struct record *r), void *data)
{
	_cleanup_close_ int fd = open_own(path, O_RDONLY);
	_cleanup_buf_ struct buf b = BUF_INIT;
	ssize_t n;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	if (lseek(fd, from, from < 0 ? SEEK_END : SEEK_SET) < 0 && lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	do {
		n = read_full(fd, buf_grow(&b, 1 << 20), 1 << 20);
		b.len -= (1 << 20) - (size_t)(n < 0 ? 0 : n);
	} while (n == 1 << 20);
	if (n < 0)
		return (int)n;
	*more = read_bytes(b.data, b.len, fn, data);
	return 0;
}

int record_read(const char *path, bool (*fn)(void *data, struct record *r), void *data)
{
	_cleanup_free_ char *old = old_path(path);
	bool more = true;
	int r = read_file(old, 0, &more, fn, data);

	return r < 0 || !more ? r : read_file(path, 0, &more, fn, data);
}

int record_read_last(const char *path, size_t bytes, bool (*fn)(void *data, struct record *r),
		     void *data)
{
	bool more;

	return read_file(path, -(off_t)bytes, &more, fn, data);
}
