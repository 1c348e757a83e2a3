/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

struct root *root_find(const struct tree *t, const char *path)
{
	struct root *best = NULL;

	list_for_each (l, &t->roots) {
		struct root *r = container_of(l, struct root, in_tree);

		if (path_is_below(path, r->path) && (!best || strlen(r->path) > strlen(best->path)))
			best = r;
	}
	return best;
}

struct root *root_outermost(const struct tree *t, const char *path)
{
	struct root *best = NULL;

	list_for_each (l, &t->roots) {
		struct root *r = container_of(l, struct root, in_tree);

		if (path_is_below(path, r->path) && (!best || strlen(r->path) < strlen(best->path)))
			best = r;
	}
	return best;
}

bool root_is_beneath(const struct tree *t, const char *path)
{
	list_for_each (l, &t->roots) {
		if (path_is_below(container_of(l, struct root, in_tree)->path, path))
			return true;
	}
	return false;
}

/* Before Linux 5.6: one step at a time, each refusing a symlink. */
static int walk_open(int root_fd, const char *rel, int flags)
{
	_cleanup_close_ int at = -1;
	char part[PROTO_NAME_MAX + 1];
	size_t n;
	int fd;

	for (; n = strcspn(rel, "/"), rel[n]; rel += n + 1) {
		int next;

		if (n > PROTO_NAME_MAX)
			return -ENAMETOOLONG;
		memcpy(part, rel, n);
		part[n] = '\0';
		next = openat(at >= 0 ? at : root_fd, part,
			      O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			return -errno;
		if (at >= 0)
			(void)close(at);
		at = next;
	}
	fd = openat(at >= 0 ? at : root_fd, rel, flags | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int open_beneath(struct tree *t, int root_fd, const char *rel, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_NOFOLLOW | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fd;

	if (!t->openat2_missing) {
		fd = (int)syscall(SYS_openat2, root_fd, rel, &how, sizeof(how));
		if (fd >= 0)
			return fd;
		/* EPERM: what container engines of that time answer for an unknown call. */
		if (errno != ENOSYS && errno != EPERM)
			return -errno;
		if (errno == ENOSYS)
			t->openat2_missing = true;
	}
	return walk_open(root_fd, rel, flags);
}

int resolve_open(struct tree *t, const char *path, int flags)
{
	const struct root *r = root_find(t, path);
	const char *rel;

	if (!r)
		return -EACCES;
	if (r->fd < 0)
		return r->err;
	rel = path_below(path, r->path);
	return open_beneath(t, r->fd, *rel ? rel : ".", flags);
}

int resolve_open_regular(struct tree *t, const char *path)
{
	_cleanup_close_ int at = resolve_open(t, path, O_PATH);
	struct stat st;
	char proc[32];
	int fd;

	if (at < 0)
		return at;
	if (fstat(at, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENXIO;
	(void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", at);
	fd = open(proc, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int resolve_parent(struct tree *t, const char *path, const char **ret_name)
{
	char dir[PROTO_PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t n;

	if (!slash || !slash[1])
		return -EINVAL;
	n = slash > path ? (size_t)(slash - path) : 1;
	if (n >= sizeof(dir))
		return -EINVAL;
	memcpy(dir, path, n);
	dir[n] = '\0';
	*ret_name = slash + 1;
	return resolve_open(t, dir, O_PATH | O_DIRECTORY);
}

/* Where it is on this machine. */
static const char *root_place(const struct root *r)
{
	return r->source ? r->source : r->path;
}

static void root_release_anchors(struct tree *t, struct root *r)
{
	list_for_each_safe (l, &r->anchors)
		watch_release_anchor(t, container_of(l, struct anchor, in_root));
}

/* ---- where a root is ---- */

#define SYMLINKS_MAX 40 /* as the kernel has it: MAXSYMLINKS */

/* A path that is being followed. */
struct walk {
	struct tree *t;
	const struct root *root; /* that it is to lead to */
	int fd;			 /* O_PATH, of at; owned */
	char *at;		 /* where we are, without symlinks; owned */
	char *rest;		 /* what is left of the path; owned */
	unsigned n_symlinks;
};

/* Is it, or was it, a tree that workers write to?  By its path without symlinks, where that is
 * known, and by what it is: the user may have moved it. */
static bool is_workers(const struct walk *w, const char *path, const struct stat *st)
{
	list_for_each (l, &w->t->roots) {
		const struct root *r = container_of(l, struct root, in_tree);

		if (r == w->root || !r->writable || !r->real)
			continue;
		if ((path && path_is_below(path, r->real)) ||
		    (st->st_ino == r->ino && st->st_dev == r->dev) ||
		    (st->st_ino == r->former_ino && st->st_dev == r->former_dev))
			return true;
	}
	return false;
}

/* May a worker have made what is in the directory where we are?  1, 0, or -errno. */
static int workers_write_here(const struct walk *w)
{
	_cleanup_close_ int at = -1;
	struct stat st, up;

	if (fstat(w->fd, &st) < 0)
		return -errno;
	if (is_workers(w, w->at, &st))
		return 1;
	for (;;) {
		int fd = openat(at >= 0 ? at : w->fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (at >= 0)
			(void)close(at);
		at = fd;
		if (fd < 0 || fstat(fd, &up) < 0)
			return -errno;
		if (up.st_ino == st.st_ino && up.st_dev == st.st_dev)
			return 0; /* the top */
		if (is_workers(w, NULL, &up))
			return 1;
		st = up;
	}
}

static int walk_to(struct walk *w, int fd, char *at)
{
	if (w->fd >= 0)
		(void)close(w->fd);
	w->fd = fd;
	free(w->at);
	w->at = at;
	return fd < 0 ? -errno : 0;
}

static int walk_symlink(struct walk *w, int link_fd)
{
	char target[PROTO_PATH_MAX];
	ssize_t n = readlinkat(link_fd, "", target, sizeof(target) - 1);
	char *rest;
	int theirs;

	if (n < 0)
		return -errno;
	target[n] = '\0';
	theirs = workers_write_here(w);
	if (theirs < 0)
		return theirs;
	if (theirs || ++w->n_symlinks > SYMLINKS_MAX)
		return -ELOOP;
	rest = xasprintf("%s/%s", target, w->rest);
	free(w->rest);
	w->rest = rest;
	if (*target != '/')
		return 0;
	return walk_to(w, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), xstrdup("/"));
}

static int walk_part(struct walk *w, const char *part)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	char *at;

	fd = openat(w->fd, part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode))
		return walk_symlink(w, fd);
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	at = path_clean(w->at, part); /* also "..", of which w->at knows no symlink */
	return walk_to(w, steal_fd(&fd), at);
}

/* An O_PATH fd of the directory, and its path without symlinks; or -errno. */
static int walk_root(struct tree *t, const struct root *r, char **ret_real)
{
	struct walk w = {.t = t, .root = r, .fd = -1, .rest = xstrdup(root_place(r))};
	int err = walk_to(&w, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), xstrdup("/"));

	while (!err) {
		size_t slashes = strspn(w.rest, "/"), n = strcspn(w.rest + slashes, "/");
		_cleanup_free_ char *part = xstrndup(w.rest + slashes, n);

		if (!n)
			break;
		memmove(w.rest, w.rest + slashes + n, strlen(w.rest + slashes + n) + 1);
		err = walk_part(&w, part);
	}
	free(w.rest);
	if (err) {
		free(w.at);
		if (w.fd >= 0)
			(void)close(w.fd);
		return err;
	}
	*ret_real = w.at;
	return w.fd;
}

/*
 * Watches each directory on the way for what happens to the next part.  Only
 * the loss of a part is watched for: an O_PATH fd keeps a removed directory's
 * inode, so the root itself would not tell of its removal.
 */
static int root_set_anchors(struct tree *t, struct root *r)
{
	char prefix[PROTO_PATH_MAX] = "/";
	const char *place = root_place(r), *p = place + 1;

	root_release_anchors(t, r);
	while (*p) {
		size_t n = strcspn(p, "/");
		_cleanup_free_ char *name = xstrndup(p, n);
		_cleanup_close_ int fd = open(prefix, O_PATH | O_DIRECTORY | O_CLOEXEC);
		int err;

		if (fd < 0)
			return -errno;
		err = watch_anchor(t, r, fd, name);
		if (err)
			return err;
		memcpy(prefix, place, (size_t)(p - place) + n);
		prefix[(p - place) + n] = '\0';
		p += n + (p[n] == '/');
	}
	return 0;
}

int root_open(struct tree *t, struct root *r)
{
	struct stat st;
	bool same, anchored = root_set_anchors(t, r) == 0; /* watched first, opened after */
	char *real = NULL;
	int fd = walk_root(t, r, &real);

	if (fd < 0 || fstat(fd, &st) < 0) {
		int err = fd < 0 ? fd : -errno;

		if (fd >= 0)
			(void)close(fd);
		free(real);
		r->loose = true;
		return err;
	}
	free(r->real);
	r->real = real;
	r->loose = !anchored;
	r->remounted = false;
	same = r->fd >= 0 && st.st_dev == r->dev && st.st_ino == r->ino;
	/* Also of the same directory: what is mounted beneath may be seen through this one only. */
	if (r->fd >= 0)
		(void)close(r->fd);
	r->fd = fd;
	mounts_note_root(t, r);
	if (st.st_dev != r->dev || st.st_ino != r->ino) {
		r->former_dev = r->dev;
		r->former_ino = r->ino;
	}
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	return !same;
}

/* Is what was opened still what the path leads to?  Needs no descriptor.  0 or -errno when not. */
static int root_look(const struct root *r)
{
	struct stat st;

	if (stat(root_place(r), &st) < 0)
		return -errno;
	return st.st_dev == r->dev && st.st_ino == r->ino ? 0 : -ENOENT;
}

/* The directory that was served is not at its path any more: all told about it is void. */
static void root_forget(struct tree *t, struct root *r)
{
	struct dir *d = dir_find(t, r->path);

	if (d && d->parent && err_is_fact(r->err))
		dir_mark_dead(t, d);
	else if (d)
		dir_forget(t, d);
}

static void root_check(struct tree *t, struct root *r)
{
	bool was_missing = r->fd < 0;
	int changed = root_open(t, r);

	/* We could not open it again, and need not. */
	if (changed < 0 && !err_is_fact(changed) && !was_missing && !r->remounted &&
	    root_look(r) == 0)
		return;
	r->err = changed < 0 ? changed : -ENOENT;
	if (changed < 0 && !was_missing) {
		(void)close(r->fd);
		r->fd = -1;
	}
	if (changed && !was_missing)
		root_forget(t, r);
	if (changed > 0 && was_missing) {
		updates_send_stale(t, &r->absent_subscribers, r->absent_id);
		memset(&r->absent_subscribers, 0, sizeof(r->absent_subscribers));
	}
}

/* What one call tells of a root that is looked at at every drain: as it was? */
static bool root_is_as_it_was(const struct root *r)
{
	struct stat st;

	if (r->fd >= 0)
		return !r->remounted && root_look(r) == 0;
	return stat(root_place(r), &st) < 0 && -errno == r->err;
}

void roots_check(struct tree *t)
{
	list_for_each (l, &t->roots) {
		struct root *r = container_of(l, struct root, in_tree);

		if (t->roots_suspect || (r->loose && !root_is_as_it_was(r)))
			root_check(t, r);
	}
	t->roots_suspect = false;
}

void roots_look(struct tree *t)
{
	list_for_each (l, &t->roots) {
		if (container_of(l, struct root, in_tree)->loose) {
			roots_check(t);
			return;
		}
	}
}

void root_free(struct tree *t, struct root *r)
{
	root_release_anchors(t, r);
	list_remove(&r->in_tree);
	if (r->fd >= 0)
		(void)close(r->fd);
	free(r->path);
	free(r->real);
	free(r->source);
	free(r);
}
