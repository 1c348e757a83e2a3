/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "commit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* The block of most file systems: a smaller hole saves none. */
#define BLOCK 4096
#define PIECE ((size_t)1024 * 1024) /* that nobody wants it any more is seen between two */

static bool is_zero(const uint8_t *p, size_t n)
{
	return !p[0] && memcmp(p, p + 1, n - 1) == 0;
}

/* How many of n bytes for offset at are alike, block by block: zeros, or to be written. */
static size_t run_of(const uint8_t *p, size_t n, uint64_t at, bool *ret_hole)
{
	size_t len = 0;

	while (len < n) {
		size_t block = BLOCK - (at + len) % BLOCK;
		bool hole = is_zero(p + len, block < n - len ? block : n - len);

		if (len && hole != *ret_hole)
			return len;
		*ret_hole = hole;
		len += block;
	}
	return n;
}

static int write_run(struct temp_file *t, const void *p, size_t n, uint64_t at)
{
	if (t->allocate && fallocate(t->fd, 0, (off_t)at, (off_t)n) < 0) {
		if (errno != EOPNOTSUPP && errno != ENOSYS)
			return -errno;
		t->allocate = false;
	}
	return write_full(t->fd, p, n);
}

/* Holes of sparse files stay holes: they come as zeros. */
int temp_write(struct temp_file *t, const void *bytes, size_t n, uint64_t at)
{
	const uint8_t *p = bytes;
	int err = 0;

	while (n && !err) {
		bool hole = false;
		size_t len = run_of(p, n, at, &hole);

		if (!hole)
			err = write_run(t, p, len, at);
		else if (lseek(t->fd, (off_t)len, SEEK_CUR) < 0)
			err = -errno;
		t->holes |= hole;
		p += len;
		n -= len;
		at += len;
	}
	return err;
}

int temp_finish(struct temp_file *t)
{
	int err = 0;

	/* A hole at the end is still missing. */
	if (t->holes && ftruncate(t->fd, (off_t)t->size) < 0)
		err = -errno;
	if (fchmod(t->fd, t->mode) < 0 || (t->set_times && futimens(t->fd, t->times) < 0))
		err = -errno;
	if (close(steal_fd(&t->fd)) < 0 && !err)
		err = -errno; /* where network file systems tell of a full disk */
	return err;
}

/* ---- by another thread ---- */

struct commit_writing {
	struct list of_commit;
	struct commit *commit; /* NULL: it is no more */
	char *path;	       /* for errors */
	const uint8_t *p;      /* borrowed */
	size_t n;
	/* The thread's: */
	struct temp_file file;
	atomic_bool useless;
	int err;
};

struct commit_writing *commit_data_later(struct commit *c, const void *p, size_t n)
{
	const struct effect *e = c->n ? &c->effects[c->n - 1] : NULL;
	struct commit_writing *w;

	if (c->full || !c->receiving || c->received || n != e->size || c->file.fd < 0) {
		(void)commit_data(c, p, n); /* which says what is wrong */
		return NULL;
	}
	c->receiving = false;
	watch_own_events(c->tree, EVENTS_OF_EFFECT);
	w = xcalloc(1, sizeof(*w));
	w->commit = c;
	w->path = xstrdup(e->path);
	w->p = p;
	w->n = n;
	w->file = c->file;
	c->file.fd = -1;
	list_append(&c->writing, &w->of_commit);
	return w;
}

void commit_write(struct commit_writing *w)
{
	int err;

	for (size_t at = 0; at < w->n && !w->err && !atomic_load(&w->useless); at += PIECE)
		w->err = temp_write(&w->file, w->p + at, w->n - at < PIECE ? w->n - at : PIECE, at);
	err = temp_finish(&w->file);
	w->err = w->err ?: err;
}

void commit_written(struct commit_writing *w)
{
	if (w->commit && w->err)
		commit_fail(w->commit, w->err, "write", w->path);
	if (w->commit)
		list_remove(&w->of_commit);
	free(w->path);
	free(w);
}

void commit_forget_writing(struct commit *c)
{
	while (!list_empty(&c->writing)) {
		struct commit_writing *w = list_first(&c->writing, struct commit_writing,
						      of_commit);

		list_remove(&w->of_commit);
		w->commit = NULL;
		atomic_store(&w->useless, true);
	}
}
