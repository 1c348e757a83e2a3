/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_FUZZ_FILES_H
#define CONCC_TEST_FUZZ_FILES_H

/*
 * A model of files: what is on the disk beneath some directories of the scratch one, and what an
 * effect makes of it.  Paths are relative to the scratch directory.
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "scratch.h"

#define FILE_BYTES_MAX 64 /* more than any of them has */

struct file {
	char *path;
	mode_t mode;
	uint64_t ino; /* equal for names of one file */
	size_t n;
	char bytes[FILE_BYTES_MAX]; /* contents, or a symlink's target */
};

struct files {
	struct file *v;
	size_t n;
	uint64_t next_ino; /* of what the model makes: none that a disk has */
};

static void files_release(struct files *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->v[i].path);
	free(f->v);
	*f = (struct files){.next_ino = UINT64_C(1) << 63};
}

static struct file *files_find(const struct files *f, const char *path)
{
	for (size_t i = 0; i < f->n; i++)
		if (streq(f->v[i].path, path))
			return &f->v[i];
	return NULL;
}

static struct file *files_add(struct files *f, const char *path, mode_t mode, uint64_t ino)
{
	f->v = xrealloc(f->v, (f->n + 1) * sizeof(*f->v));
	f->v[f->n] = (struct file){.path = xstrdup(path), .mode = mode, .ino = ino};
	return &f->v[f->n++];
}

static void files_remove(struct files *f, const char *path)
{
	_cleanup_free_ char *top = xstrdup(path); /* it may be one of those */

	for (size_t i = f->n; i-- > 0;) {
		if (!path_is_below(f->v[i].path, top))
			continue;
		free(f->v[i].path);
		f->v[i] = f->v[--f->n];
	}
}

static void files_copy(const struct files *from, struct files *to)
{
	files_release(to);
	to->next_ino = from->next_ino;
	for (size_t i = 0; i < from->n; i++) {
		const struct file *o = &from->v[i];
		struct file *n = files_add(to, o->path, o->mode, o->ino);

		n->n = o->n;
		memcpy(n->bytes, o->bytes, sizeof(n->bytes));
	}
}

/* ---- from the disk ---- */

static void files_read(struct file *f, int dir_fd, const char *name)
{
	ssize_t n;
	int fd;

	if (S_ISLNK(f->mode)) {
		char target[4096];

		n = readlinkat(dir_fd, name, target, sizeof(target));
		CHECK(n >= 0);
		f->n = (size_t)n;
		memcpy(f->bytes, target, f->n < FILE_BYTES_MAX ? f->n : FILE_BYTES_MAX);
		return;
	}
	fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	CHECK(fd >= 0);
	n = read(fd, f->bytes, FILE_BYTES_MAX);
	CHECK(n >= 0);
	f->n = (size_t)n;
	(void)close(fd);
}

static void files_scan(struct files *f, int dir_fd, const char *name, const char *path)
{
	struct dirent *de;
	struct stat st;
	struct file *n;
	DIR *dir;
	int fd;

	CHECK(fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0);
	n = files_add(f, path, st.st_mode, st.st_ino);
	if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))
		files_read(n, dir_fd, name);
	if (!S_ISDIR(st.st_mode))
		return;
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	dir = fdopendir(fd);
	CHECK(dir);
	while ((de = readdir(dir))) {
		char *child;

		if (streq(de->d_name, ".") || streq(de->d_name, ".."))
			continue;
		child = path_join(path, de->d_name);
		files_scan(f, fd, de->d_name, child);
		free(child);
	}
	(void)closedir(dir);
}

/* ---- what an effect makes of them ---- */

static void files_set(struct file *f, mode_t mode, const char *bytes, size_t n)
{
	f->mode = mode;
	f->n = n;
	memmove(f->bytes, bytes, n);
}

static void files_replace(struct files *f, const char *path, mode_t mode, const char *bytes,
			  size_t n)
{
	files_remove(f, path);
	files_set(files_add(f, path, mode, f->next_ino++), mode, bytes, n);
}

/* All names of the file. */
static void files_write(struct files *f, uint64_t ino, mode_t mode, const char *bytes, size_t n)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i].ino == ino)
			files_set(&f->v[i], mode, bytes, n);
}

static void files_make_file(struct files *f, const struct msg_file *e, const char *path,
			    const char *bytes)
{
	struct file *old = files_find(f, path);

	if (e->flags & (EFFECT_F_FIFO | EFFECT_F_SOCKET))
		files_replace(f, path, (e->flags & EFFECT_F_FIFO ? S_IFIFO : S_IFSOCK) | e->mode,
			      "", 0);
	else if (old && S_ISREG(old->mode) && !(e->flags & EFFECT_F_REPLACED))
		files_write(f, old->ino, S_IFREG | e->mode, bytes, e->size);
	else
		files_replace(f, path, S_IFREG | e->mode, bytes, e->size);
}

static void files_link(struct files *f, const char *path, const char *target)
{
	struct file *t = files_find(f, target), copy;

	if (!t || streq(path, target))
		return;
	copy = *t;
	files_remove(f, path);
	files_set(files_add(f, path, copy.mode, copy.ino), copy.mode, copy.bytes, copy.n);
}

/* path and target: where they are in the scratch directory.  bytes: of a FILE. */
static void files_apply(struct files *f, const struct msg_file *e, const char *path,
			const char *target, const char *bytes)
{
	struct file *old = files_find(f, path);

	switch ((enum effect_kind)e->kind) {
	case EFFECT_FILE:
		files_make_file(f, e, path, bytes);
		break;
	case EFFECT_SYMLINK:
		files_replace(f, path, S_IFLNK | 0777, e->target, strlen(e->target));
		break;
	case EFFECT_DIR:
		if (!old || !S_ISDIR(old->mode) || e->flags & EFFECT_F_OPAQUE)
			files_replace(f, path, S_IFDIR | e->mode, "", 0);
		break; /* of one that is there, the mode is the client's when others made it */
	case EFFECT_REMOVE:
		files_remove(f, path);
		break;
	case EFFECT_META:
		if (old && !S_ISLNK(old->mode))
			files_write(f, old->ino, (old->mode & S_IFMT) | e->mode, old->bytes,
				    old->n);
		break;
	case EFFECT_LINK:
		files_link(f, path, target);
		break;
	case EFFECT_LOCKED:
	case EFFECT_ASKED:
		break;
	}
}

/* Is all of a in b, and the same?  With n equal, they are the same. */
static bool files_same(const struct files *a, const struct files *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		const struct file *x = &a->v[i], *y = files_find(b, x->path);

		if (!y || (x->mode & S_IFMT) != (y->mode & S_IFMT))
			return false;
		if (!S_ISDIR(x->mode) && x->mode != y->mode)
			return false;
		if (x->n != y->n || memcmp(x->bytes, y->bytes, x->n) != 0)
			return false;
	}
	return true;
}

#endif
