/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "mountpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "mnt.h"

/*
 * Each child of a replaced directory becomes a mount, and every job's namespace
 * copies every mount (about a microsecond each): more than this is refused.
 */
#define CHILDREN_MAX 1024

struct root_tmpfs {
	char *path; /* where its tmpfs is mounted, without symlinks; owned */
	dev_t dev;
	int fd; /* a writable clone of that mount, which itself is read-only; owned */
};

int root_add_tmpfs(struct root *r, const char *path, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	r->tmpfs = xrealloc(r->tmpfs, (r->n + 1) * sizeof(r->tmpfs[0]));
	r->tmpfs[r->n++] = (struct root_tmpfs){.path = xstrdup(path), .dev = st.st_dev, .fd = fd};
	return 0;
}

static int real_path(int fd, char path[PATH_MAX])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	path[n] = '\0';
	return 0;
}

static const struct root_tmpfs *find_tmpfs(const struct root *r, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return NULL;
	for (size_t i = 0; i < r->n; i++)
		if (r->tmpfs[i].dev == st.st_dev)
			return &r->tmpfs[i];
	return NULL;
}

static int show_children(int from_fd, int to_fd)
{
	int copy = openat(from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	unsigned n = 0;
	int r = dir ? 0 : -errno;

	if (!dir && copy >= 0)
		(void)close(copy);
	while (dir && r == 0 && (errno = 0, e = readdir(dir))) {
		if (streq(e->d_name, ".") || streq(e->d_name, ".."))
			continue;
		r = ++n > CHILDREN_MAX ? CONCC_E_TOOBIG : mnt_show(from_fd, e->d_name, to_fd);
	}
	if (r == 0)
		r = -errno; /* of readdir(3) */
	if (dir)
		(void)closedir(dir);
	return r;
}

/* Covers the directory `from` at path with a tmpfs that holds its children. */
static int cover(struct root *r, int from, const char *path, const struct root_tmpfs **ret)
{
	_cleanup_close_ int top = -1, clone = -1;
	struct stat st;
	char opts[32];
	int err;

	if (fstat(from, &st) < 0)
		return -errno;
	snprintf(opts, sizeof(opts), "mode=%04o", (unsigned)(st.st_mode & 0777));
	if (mount("concc-root", path, "tmpfs", MS_NOSUID | MS_NODEV, opts) < 0)
		return -errno;
	top = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	clone = top < 0 ? -errno : mnt_clone(top);
	err = clone < 0 ? clone : show_children(from, top);
	if (err == 0)
		err = mnt_set_readonly(top, true);
	if (err == 0)
		err = root_add_tmpfs(r, path, clone);
	if (err < 0) {
		(void)umount2(path, MNT_DETACH); /* back to what it was */
		return err;
	}
	(void)steal_fd(&clone);
	*ret = &r->tmpfs[r->n - 1];
	return 0;
}

/* Where path stops to exist: the length of its longest part that is there. */
static size_t existing_part(const char *path)
{
	_cleanup_free_ char *copy = xstrdup(path);
	struct stat st;
	size_t len = strlen(copy);

	while (len > 1 && stat(copy, &st) < 0) {
		while (len > 1 && copy[len - 1] != '/')
			len--;
		if (len > 1)
			len--;
		copy[len] = '\0';
	}
	return len;
}

int root_mountpoint(struct root *r, const char *path, struct errmsg *msg)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const struct root_tmpfs *at;
	char real[PATH_MAX], *rel;
	_cleanup_free_ char *part = NULL, *full = NULL;
	size_t len;
	int err;

	if (fd >= 0)
		return 0;
	if (!err_is_fact(-errno))
		return errmsg_set(msg, -errno, "can't open %s on the worker: %s", path,
				  err_text(-errno));
	len = existing_part(path);
	part = xstrndup(path, len);
	fd = open(part, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errmsg_set(msg, -errno, "%s: %s is in the way on the worker: %s", path, part,
				  err_text(-errno));
	err = real_path(fd, real);
	at = find_tmpfs(r, fd);
	if (err == 0 && !at)
		err = cover(r, fd, real, &at);
	if (err < 0)
		return errmsg_set(msg, err, "can't make room for %s in %s on the worker: %s", path,
				  real, err_text(err));
	full = path_join(real, path + len + (path[len] == '/'));
	rel = full + strlen(at->path) + (at->path[1] != '\0');
	err = mnt_make_dirs(at->fd, rel);
	if (err < 0)
		return errmsg_set(msg, err, "can't make the mount point %s on the worker: %s", path,
				  err_text(err));
	return 0;
}
