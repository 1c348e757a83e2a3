/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "upper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/proto.h"
#include "concc/sandbox.h"
#include "concc/str.h"

bool upper_has_attributes(int fd)
{
	char names[4096];
	ssize_t n = flistxattr(fd, names, sizeof(names));

	if (n < 0) /* too many, or it can't be told: as if it had some */
		return errno != EOPNOTSUPP;
	for (const char *p = names; p < names + n; p += strlen(p) + 1)
		if ((str_starts(p, "user.") && !str_starts(p, "user.overlay.")) ||
		    str_starts(p, "system.posix_acl_") || streq(p, "security.capability"))
			return true;
	return false;
}

static bool kind_of(const struct stat *st, enum upper_kind_of *ret)
{
	switch (st->st_mode & S_IFMT) {
	case S_IFCHR:
		*ret = UPPER_WHITEOUT;
		return st->st_rdev == makedev(0, 0);
	case S_IFDIR:
		*ret = UPPER_DIR;
		return true;
	case S_IFREG:
		*ret = UPPER_FILE;
		return true;
	case S_IFLNK:
		*ret = UPPER_SYMLINK;
		return true;
	case S_IFIFO:
		*ret = UPPER_FIFO;
		return true;
	case S_IFSOCK:
		*ret = UPPER_SOCKET;
		return true;
	default:
		return false;
	}
}

static struct upper_entry *add(struct upper *u)
{
	if (u->n == u->cap) {
		u->cap = u->cap ? 2 * u->cap : 64;
		u->entries = xrealloc(u->entries, u->cap * sizeof(u->entries[0]));
	}
	return memset(&u->entries[u->n++], 0, sizeof(u->entries[0]));
}

static int add_child(struct upper *u, size_t parent, int dir_fd, const char *name)
{
	const struct upper_entry *p = &u->entries[parent];
	size_t dir_len = strlen(p->path);
	struct upper_entry *e;
	enum upper_kind_of kind;
	struct stat st;
	char *path;

	if (dir_len + strlen(name) + 2 > PROTO_PATH_MAX)
		return -ENAMETOOLONG; /* no message can carry it */
	if (u->n >= u->max)
		return CONCC_E_TOOBIG;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	path = dir_len ? xasprintf("%s/%s", p->path, name) : xstrdup(name);
	if (!kind_of(&st, &kind)) {
		_cleanup_free_ char *shown = str_escape(path, strlen(path), 200);

		log_warn("%s is a device: those are not sent home", shown);
		free(path);
		return CONCC_E_UNSAFE;
	}
	e = add(u);
	e->kind = kind;
	e->path = path;
	e->parent = parent;
	e->st = st;
	e->hidden = u->entries[parent].hidden || u->entries[parent].opaque;
	return 0;
}

static int look_at_dir(struct upper_entry *e, int fd)
{
	int r = overlay_is_opaque(fd);

	e->opaque = r > 0;
	e->attributes = upper_has_attributes(fd);
	return r < 0 ? r : 0;
}

static int read_dir(struct upper *u, size_t i)
{
	int fd = openat_beneath(u->fd, u->entries[i].path, O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int r;

	if (!dir) {
		r = fd < 0 ? fd : -errno;
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	r = look_at_dir(&u->entries[i], dirfd(dir));
	while (r == 0 && (errno = 0, e = readdir(dir)))
		if (!streq(e->d_name, ".") && !streq(e->d_name, ".."))
			r = add_child(u, i, dirfd(dir), e->d_name);
	if (r == 0)
		r = -errno; /* of readdir(3): half of it is not what the job did */
	(void)closedir(dir);
	return r;
}

static int begin(struct upper *u, int fd)
{
	struct upper_entry *top;

	upper_release(u);
	u->fd = fd;
	u->max = UPPER_ENTRIES_MAX;
	top = add(u);
	top->kind = UPPER_DIR;
	top->path = xstrdup("");
	return fstat(fd, &top->st) < 0 ? -errno : 0;
}

int upper_read(struct upper *u, int fd)
{
	return upper_read_few(u, fd, UPPER_ENTRIES_MAX);
}

int upper_read_few(struct upper *u, int fd, size_t max)
{
	return upper_read_some(u, fd, max, NULL);
}

int upper_read_some(struct upper *u, int fd, size_t max,
		    bool (*enters)(const struct upper_entry *dir))
{
	int r = begin(u, fd);

	u->max = max;
	for (size_t i = 0; i < u->n && r == 0; i++)
		if (u->entries[i].kind == UPPER_DIR && (!i || !enters || enters(&u->entries[i])))
			r = read_dir(u, i);
	return r;
}

int upper_read_path(struct upper *u, int fd, const char *path)
{
	int r = begin(u, fd);

	for (size_t i = 0; *path && r == 0; i++) {
		_cleanup_close_ int dir = openat_beneath(fd, u->entries[i].path,
							 O_RDONLY | O_DIRECTORY);
		_cleanup_free_ char *name = xstrndup(path, strcspn(path, "/"));

		if (dir < 0)
			return dir;
		r = look_at_dir(&u->entries[i], dir);
		if (r == 0)
			r = add_child(u, i, dir, name);
		path += strlen(name);
		path += *path == '/';
	}
	return r;
}

static char *find_in(int fd, const char *path, const char *name)
{
	int dir_fd = openat_beneath(fd, path, O_RDONLY | O_DIRECTORY);
	DIR *dir = dir_fd < 0 ? NULL : fdopendir(dir_fd);
	char *found = NULL;
	struct dirent *e;

	if (!dir && dir_fd >= 0)
		(void)close(dir_fd);
	while (dir && !found && (e = readdir(dir))) {
		_cleanup_free_ char *child = NULL;

		if (streq(e->d_name, ".") || streq(e->d_name, "..") ||
		    (e->d_type != DT_DIR && e->d_type != DT_REG))
			continue;
		child = *path ? path_join(path, e->d_name) : xstrdup(e->d_name);
		if (strlen(child) >= PROTO_PATH_MAX)
			continue; /* also the end of all depth */
		if (e->d_type == DT_DIR)
			found = find_in(fd, child, name);
		else if (streq(e->d_name, name))
			found = steal_ptr(&child);
	}
	if (dir)
		(void)closedir(dir);
	return found;
}

char *upper_find(int fd, const char *name)
{
	return find_in(fd, "", name);
}

void upper_release(struct upper *u)
{
	for (size_t i = 0; i < u->n; i++)
		free(u->entries[i].path);
	free(u->entries);
	*u = (struct upper){.fd = -1};
}
