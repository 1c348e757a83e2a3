/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What of a file counts: whether it is there, and if not, why (a compiler tells EACCES from
 * ENOENT); its type, mode and owner; the size of what was looked at, the bytes of what was read;
 * of what is only written, whether it is empty is enough (the assembler and the linker remove an
 * output that is not, and write into one that is), and of an output of a compiler mostly nothing
 * (look_output.c);
 * of what is made, the place; of what was not there for a command that makes others, where it would
 * be; which names are the same file or directory (a compiler leaves out a directory that it has
 * searched by another name), and which files have the same bytes and time, since that is how
 * #pragma once knows a header again.  What does not: inode numbers and times themselves, which
 * differ in each checkout.  Of programs that may go by times these are names of their own
 * (TRACE_TIMES), of files, and of symlinks themselves: those of a directory change with each file
 * that anybody makes in it, the job included.
 */
#include "look.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/map.h"
#include "concc/str.h"

#define LIST_NAMES_MAX 100000 /* of all directories of one look: some 0.1 s */
#define ALL_LISTED_MAX (4 * LIST_NAMES_MAX)
#define LINKS_MAX      40

void look_put_error(struct cache_look *l, int err)
{
	buf_put_u8(&l->state, '!');
	buf_put_u32(&l->state, (uint32_t)err);
}

static void put_stat(struct cache_look *l, const struct stat *st)
{
	buf_put_u8(&l->state, '+');
	buf_put_u32(&l->state, st->st_mode);
	buf_put_u32(&l->state, st->st_uid);
	buf_put_u32(&l->state, st->st_gid);
}

static void put_inode(struct cache_look *l, const struct stat *st, uint32_t index)
{
	const struct look_id id = {.a = st->st_dev, .b = st->st_ino, .index = index};

	buf_append(&l->ids, &id, sizeof(id));
}

static void put_bytes(struct cache_look *l, const struct stat *st, const struct digest *d,
		      uint32_t index)
{
	const struct look_id id = {
		.a = (uint64_t)st->st_mtim.tv_sec,
		.b = (uint64_t)st->st_mtim.tv_nsec,
		.digest = *d,
		.index = index,
		.by_bytes = 1,
	};

	buf_append(&l->state, d->b, DIGEST_SIZE);
	buf_append(&l->ids, &id, sizeof(id));
}

/* 0 when that was an answer, be it that there is no such thing. */
static int put_no(struct cache_look *l, int err)
{
	if (!err_is_fact(-err))
		return -err;
	look_put_error(l, err);
	return 0;
}

static void look_once(struct cache_look *l, const char *path)
{
	if (l->path && streq(l->path, path))
		return;
	l->path = path;
	if (l->without && map_get_str(l->without, path))
		l->err = ENOENT;
	else
		l->err = look_is_beneath_gone(l, path) ? l->gone_err : look_lstat(l, path);
	l->looked[l->index] = (struct cache_looked){
		.err = l->err,
		.st = l->st,
	};
	if (!l->err && l->output && look_is_as_made(l, path))
		l->err = ENOENT;
}

static bool is_link(struct cache_look *l, const char *path)
{
	look_once(l, path);
	return !l->err && S_ISLNK(l->st.st_mode);
}

static int look_at(struct cache_look *l, const char *path, bool follow, struct stat *st,
		   bool *ret_there)
{
	int err;

	look_once(l, path);
	err = l->err;
	*st = l->st;
	if (!err && follow && S_ISLNK(st->st_mode) && stat(path, st) < 0)
		err = errno;
	*ret_there = !err;
	return err ? put_no(l, err) : 0;
}

/* overwritten: the name is only opened to be written anew. */
static int put_look(struct cache_look *l, const char *path, bool follow, bool overwritten,
		    uint32_t index)
{
	struct stat st;
	bool there;
	int r = look_at(l, path, follow, &st, &there);

	if (!there)
		return r;
	put_stat(l, &st);
	if (S_ISREG(st.st_mode))
		buf_put_u64(&l->state, overwritten ? st.st_size > 0 : (uint64_t)st.st_size);
	else if (S_ISLNK(st.st_mode))
		buf_put_u64(&l->state, (uint64_t)st.st_size);
	put_inode(l, &st, index);
	return 0;
}

static int put_link(struct cache_look *l, const char *path)
{
	char target[PATH_MAX];
	ssize_t n;

	look_once(l, path);
	if (l->err)
		return put_no(l, l->err);
	if (!S_ISLNK(l->st.st_mode)) {
		look_put_error(l, EINVAL);
		return 0;
	}
	n = readlink(path, target, sizeof(target));
	if (n < 0)
		return put_no(l, errno);
	buf_put_u8(&l->state, '>');
	buf_put_blob(&l->state, target, (size_t)n);
	return 0;
}

static int put_read(struct cache_look *l, const char *path, uint32_t index)
{
	struct digest d;
	struct stat st;
	bool there;
	int r = look_at(l, path, true, &st, &there);

	if (!there)
		return r;
	put_stat(l, &st);
	put_inode(l, &st, index);
	if (!S_ISREG(st.st_mode))
		return 0;
	r = l->ops->digest(l->data, path, &st, &d);
	if (r == -EACCES || r == -EPERM) {
		l->is_unsure = true;
		look_put_error(l, -r);
		return 0;
	}
	if (r < 0)
		return r;
	put_bytes(l, &st, &d, index);
	return 0;
}

/* What will be overwritten: that there is something, and of what kind. */
static int put_write(struct cache_look *l, const char *path, uint32_t index)
{
	struct stat st;
	bool there;
	int r = look_at(l, path, true, &st, &there);

	if (!there)
		return r;
	put_stat(l, &st);
	put_inode(l, &st, index);
	return 0;
}

static void put_place_as(struct cache_look *l, const char *place, size_t n)
{
	buf_put_u8(&l->state, '@');
	buf_put_blob(&l->state, place, n);
}

static bool put_place_known(struct cache_look *l, const char *dir)
{
	const char *place = look_place_of_dir(l, dir);

	if (place)
		put_place_as(l, place, strlen(place));
	return place;
}

/* Where the kernel says that it is.  type: O_DIRECTORY, so that it is not there if it is none, or
 * 0. */
static int put_place(struct cache_look *l, const char *path, int type)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC | type);
	char link[32], place[PATH_MAX];
	ssize_t n;

	if (fd < 0)
		return put_no(l, errno);
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, place, sizeof(place));
	if (n <= 0)
		return n < 0 ? -errno : -EIO;
	put_place_as(l, place, (size_t)n);
	return 0;
}

static int put_place_of_name(struct cache_look *l, const char *path)
{
	if (l->output)
		look_once(l, path);
	return l->output && l->err ? put_no(l, l->err) : put_place(l, path, 0);
}

/* Of several files in one directory, once. */
static int put_place_of_dir(struct cache_look *l, const char *dir)
{
	size_t at = l->state.len;
	int r;

	if (l->dir && streq(l->dir, dir)) {
		buf_append(&l->state, l->dir_state.data, l->dir_state.len);
		return 0;
	}
	free(l->dir);
	l->dir = xstrdup(dir);
	buf_reset(&l->dir_state);
	r = put_place_known(l, dir) ? 0 : put_place(l, dir, O_DIRECTORY);
	if (r == 0)
		buf_append(&l->dir_state, l->state.data + at, l->state.len - at);
	return r;
}

static void cut_slashes(char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		path[--n] = '\0';
}

/* What this name, a symlink, says, seen from where it is. */
static int read_target(const char *path, const char *parent, char **ret)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	*ret = *target == '/' ? xstrdup(target) : path_join(parent, target);
	return 0;
}

/*
 * What is made by this name is made in the directory that holds it, or where the symlinks lead that
 * it ends with.  A result is put in place by the paths of these, whatever led there.
 */
static int put_made(struct cache_look *l, const char *name)
{
	_cleanup_free_ char *path = xstrdup(name);
	int r = 0;

	for (unsigned n_links = 0; r == 0 && n_links < LINKS_MAX; n_links++) {
		_cleanup_free_ char *parent = NULL;
		char *next;

		cut_slashes(path);
		parent = path_parent(path);
		r = put_place_of_dir(l, parent);
		if (r < 0 || (n_links == 0 && !is_link(l, name)))
			return r;
		r = read_target(path, parent, &next);
		if (r < 0)
			/* It is none, or not there yet: whether it is, is for others to say. */
			return r == -EINVAL || r == -ENOENT ? 0 : put_no(l, -r);
		free(path);
		path = next;
	}
	return r;
}

/*
 * What the job makes where this name leads it may see by this name, too; and elsewhere what it
 * makes by this name.
 */
static int put_way(struct cache_look *l, const char *path)
{
	_cleanup_free_ char *way = NULL;
	struct stat st;
	bool there;
	int r = look_at(l, path, true, &st, &there);

	if (there || r < 0)
		return r;
	way = look_way_of_absent(l, path);
	if (!way)
		return put_no(l, errno);
	buf_put_u8(&l->state, '@');
	buf_put_str(&l->state, way);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Ours are never listed to a job. */
static bool is_ours(const char *name)
{
	return str_starts(name, ".concc-tmp-");
}

/* *ret_n: how many were read, also when it fails. */
static int read_names(DIR *dir, char ***ret, size_t *ret_n)
{
	size_t n = 0, cap = 64;
	char **v = xcalloc(cap + 1, sizeof(*v));
	struct dirent *de;

	for (errno = 0; (de = readdir(dir)); errno = 0) {
		if (streq(de->d_name, ".") || streq(de->d_name, "..") || is_ours(de->d_name))
			continue;
		*ret_n = n + 1;
		if (n == cap) {
			cap *= 2;
			v = xrealloc(v, (cap + 1) * sizeof(*v));
		}
		v[n++] = xasprintf("%s/%u", de->d_name, de->d_type);
		v[n] = NULL;
		if (n > LIST_NAMES_MAX) {
			errno = EFBIG;
			break;
		}
	}
	if (errno) {
		int err = -errno;

		strv_free(v);
		return err;
	}
	*ret = v;
	return 0;
}

static int put_list(struct cache_look *l, const char *path, uint32_t index)
{
	_cleanup_strv_ char **v = NULL;
	DIR *dir = opendir(path);
	struct stat st;
	size_t n = 0;
	int r;

	if (!dir)
		return errno == ENOTDIR ? (look_put_error(l, ENOTDIR), 0) : put_no(l, errno);
	r = fstat(dirfd(dir), &st) < 0 ? -errno : 0;
	if (r == 0 && l->ops->may_list && !l->ops->may_list(l->data, path, &st))
		r = -EACCES;
	if (r == 0 && l->all_listed > ALL_LISTED_MAX)
		r = -E2BIG;
	if (r == 0)
		r = read_names(dir, &v, &n);
	(void)closedir(dir);
	l->n_listed += n;
	l->all_listed += n;
	if (r == 0 && (l->n_listed > LIST_NAMES_MAX || l->all_listed > ALL_LISTED_MAX))
		r = -E2BIG;
	if (r < 0)
		return r;
	put_inode(l, &st, index);
	qsort(v, n, sizeof(*v), by_name);
	buf_put_u8(&l->state, '*');
	buf_put_u32(&l->state, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		buf_put_str(&l->state, v[i]);
	return 0;
}

static void put_time(struct cache_look *l, const struct stat *st)
{
	buf_put_u64(&l->state, (uint64_t)st->st_mtim.tv_sec);
	buf_put_u32(&l->state, (uint32_t)st->st_mtim.tv_nsec);
	buf_put_u64(&l->state, st->st_nlink);
}

static int put_times(struct cache_look *l, const char *path)
{
	struct stat st;
	bool there;
	int r;

	if (is_link(l, path))
		put_time(l, &l->st);
	r = look_at(l, path, true, &st, &there);
	if (there && S_ISREG(st.st_mode))
		put_time(l, &st);
	return r;
}

int look_put_name(struct cache_look *l, const char *name, bool overwritten, uint32_t index)
{
	const char *path = name + 1;

	switch (name[0]) {
	case TRACE_LOOK:
		return put_look(l, path, false, overwritten, index);
	case TRACE_STAT:
		return put_look(l, path, true, overwritten, index);
	case TRACE_LINK:
		return put_link(l, path);
	case TRACE_READ:
	case TRACE_EXEC:
		return put_read(l, path, index);
	case TRACE_LIST:
		return put_list(l, path, index);
	case TRACE_WRITE:
		return put_write(l, path, index);
	case TRACE_PLACE:
		return put_place_of_name(l, path);
	case TRACE_MAKE:
		return put_made(l, path);
	case TRACE_TIMES:
		return put_times(l, path);
	case TRACE_WAY:
		return put_way(l, path);
	case TRACE_OUTPUT:
	case TRACE_OUTPUT_EXEC:
	case TRACE_OUTPUT_MOVED:
		return 0; /* it says how to take the others of this path */
	}
	return CONCC_E_PROTO;
}
