/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What need not be looked at again: names that are absent still, files that nobody has touched. */
#include "look.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define ABSENT_MAX (128 * 1024) /* names: some 16 MB */
#define FILES_MAX  (64 * 1024)	/* the same */
#define DIRS_MAX   (16 * 1024)

/*
 * What tells of a directory's changes reads it once, with a look at each of its names: that pays
 * when as many looks have been made.  How many names it has its size tells, about.
 */
#define BYTES_PER_NAME 32
#define OFTEN_MIN      16
#define OFTEN_MAX      4000

static unsigned often(const struct looked_dir *d)
{
	unsigned n_names = (unsigned)(d->st.st_size / BYTES_PER_NAME);

	if (n_names > OFTEN_MAX)
		return OFTEN_MAX;
	return n_names > OFTEN_MIN ? n_names : OFTEN_MIN;
}

static void forget_all(struct map *m)
{
	size_t it = 0;
	void *p;

	while ((p = map_next(m, &it, NULL)))
		free(p);
	map_release(m);
	*m = MAP_INIT;
}

static void forget_dirs(struct cache_look *l)
{
	struct looked_dir *d;
	size_t it = 0;

	while ((d = map_next(&l->dirs, &it, NULL)))
		free(d->real);
	forget_all(&l->dirs);
	l->last_dir = NULL;
}

static bool same_times(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_mode == b->st_mode &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void look_at_dir(struct cache_look *l, struct looked_dir *d, const char *path)
{
	struct stat st;

	d->look = l->n_looks;
	d->err = stat(path, &st) < 0 ? errno : 0;
	if (d->err) {
		d->epoch = 0;
		return;
	}
	if (d->epoch && same_times(&d->st, &st))
		return;
	d->st = st;
	free(steal_ptr(&d->real));
	d->epoch = l->ops->shows_changes(l->data, path, &st) ? ++l->last_epoch : 0;
}

/* Is there somebody who knows all names of just this directory, which can be searched? */
static void find_where(struct cache_look *l, const struct looked_dir *d)
{
	struct cache_place place;

	l->where = NULL;
	if (d->err || !l->ops->place)
		return;
	place = l->ops->place(l->data, l->last_dir_path, l->last_dir_len);
	if (place.where && l->ops->vouches(l->data, place.where, ".", &d->st))
		l->where = place.where;
}

/* Of the directory that is looked at; NULL: it can't be told. */
static const char *real_of(struct cache_look *l, struct looked_dir *d)
{
	_cleanup_free_ char *dir = NULL;

	if (d->real)
		return d->real;
	dir = xasprintf("%.*s.", (int)l->last_dir_len, l->last_dir_path);
	d->real = realpath(dir, NULL);
	return d->real;
}

/* A call was made that need not have been, had somebody told of its changes. */
static void count_call(struct cache_look *l, struct looked_dir *d)
{
	const char *real;

	if (l->where || !l->ops->looks_often || ++d->n_calls < often(d))
		return;
	d->n_calls = 0;
	real = real_of(l, d);
	if (!real)
		return;
	l->ops->looks_often(l->data, real);
	find_where(l, d); /* what was known may be no more */
	look_leave_place(l);
}

static struct looked_dir *remember_dir(struct cache_look *l, struct looked_dir *d, const char *path,
				       size_t n)
{
	l->last_dir = d;
	l->last_dir_path = path;
	l->last_dir_len = n;
	find_where(l, d);
	return d;
}

static bool same_dir(const char *a, const char *b)
{
	size_t n = (size_t)(path_base(a) - a);

	return n == (size_t)(path_base(b) - b) && memcmp(a, b, n) == 0 && !streq(a, b);
}

/* Is another name beside it of the same directory? */
static bool has_neighbour(const struct cache_look *l, const char *path)
{
	const struct cache_names *s = l->set;

	return (l->first && same_dir(s->v[l->first - 1] + 1, path)) ||
	       (l->end < s->n && same_dir(s->v[l->end] + 1, path));
}

/* NULL: it is not worth it.  A single name is looked at by itself, but for one look of so many. */
static struct looked_dir *dir_of(struct cache_look *l, const char *path)
{
	size_t n = (size_t)(path_base(path) - path);
	_cleanup_free_ char *dir = NULL;
	struct looked_dir *d;

	/* Mostly it is that of the name before. */
	if (l->last_dir && l->last_dir_len == n && memcmp(l->last_dir_path, path, n) == 0)
		return l->last_dir;
	d = map_get(&l->dirs, path, n);
	if (d && d->look == l->n_looks)
		return remember_dir(l, d, path, n);
	if (n < 2 || !l->ops->shows_changes)
		return NULL;
	if (!d && l->dirs.n >= DIRS_MAX)
		forget_dirs(l);
	if (!d) {
		d = xcalloc(1, sizeof(*d));
		(void)map_put(&l->dirs, path, n, d);
	}
	if (!has_neighbour(l, path) && ++d->n_calls % OFTEN_MIN)
		return NULL;
	dir = xasprintf("%.*s.", (int)n, path); /* which can be asked for only if names in it can */
	look_at_dir(l, d, dir);
	remember_dir(l, d, path, n);
	if (!d->err)
		count_call(l, d);
	return d;
}

/* Is the name surely not there?  Positive errno, or 0. */
static int known_absence(struct cache_look *l, const struct looked_dir *d, const char *path)
{
	if (d->err)
		return d->err == ENOENT || d->err == ENOTDIR ? d->err : 0;
	if (l->where && l->ops->vouches(l->data, l->where, path_base(path), NULL))
		return ENOENT;
	if (d->epoch && (uintptr_t)map_get_str(&l->absent, path) == d->epoch)
		return ENOENT;
	return 0;
}

static void note_absence(struct cache_look *l, const struct looked_dir *d, const char *path)
{
	if (!d->epoch || l->where)
		return;
	if (l->absent.n >= ABSENT_MAX) {
		map_release(&l->absent);
		l->absent = MAP_INIT;
	}
	(void)map_put_str(&l->absent, path, (void *)(uintptr_t)d->epoch);
}

/*
 * Compilers name their headers by "../../..", and is_same() goes by real paths.  Where the
 * directory was, if it was moved since, another file is by the same name, or none.
 */
static const char *real_path(struct cache_look *l, struct looked_dir *d, const char *path)
{
	const char *real = d ? real_of(l, d) : NULL;

	if (!real)
		return path;
	buf_reset(&l->real);
	buf_append(&l->real, real, strlen(real));
	buf_put_u8(&l->real, '/');
	buf_append(&l->real, path_base(path), strlen(path_base(path)));
	return buf_cstr(&l->real);
}

static bool known_file(struct cache_look *l, struct looked_dir *d, const char *path,
		       struct stat *ret)
{
	const struct stat *st = l->ops->is_same ? map_get_str(&l->files, path) : NULL;
	bool same;

	if (!st || (d && d->err))
		return false;
	if (d && l->where)
		same = l->ops->vouches(l->data, l->where, path_base(path), st);
	else
		same = l->ops->is_same(l->data, real_path(l, d, path), st);
	if (!same)
		return false;
	*ret = *st;
	return true;
}

static void note_file(struct cache_look *l, const char *path, const struct stat *st)
{
	struct stat *known;

	if (!l->ops->is_same || !S_ISREG(st->st_mode))
		return;
	known = map_get_str(&l->files, path);
	if (!known && l->files.n >= FILES_MAX)
		forget_all(&l->files);
	if (!known) {
		known = xmalloc(sizeof(*known));
		(void)map_put_str(&l->files, path, known);
	}
	*known = *st;
}

int look_lstat(struct cache_look *l, const char *path)
{
	struct looked_dir *d = dir_of(l, path);
	int err = d ? known_absence(l, d, path) : 0;

	if (err || known_file(l, d, path, &l->st))
		return err;
	err = lstat(path, &l->st) < 0 ? errno : 0;
	if (d && !err)
		count_call(l, d);
	if (!err)
		note_file(l, path, &l->st);
	else if (d && err == ENOENT)
		note_absence(l, d, path);
	return err;
}

void look_forget_known(struct cache_look *l)
{
	forget_dirs(l);
	forget_all(&l->files);
	buf_release(&l->real);
	map_release(&l->absent);
}
