/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "mnt.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/sandbox.h"
#include "concc/str.h"

int mnt_bind_at(int dirfd, const char *name, bool recursive, int target_dirfd, const char *target)
{
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW;
	_cleanup_close_ int fd = -1;

	if (recursive)
		flags |= AT_RECURSIVE;
	if (!*name)
		flags |= AT_EMPTY_PATH;
	fd = open_tree(dirfd, name, flags);
	if (fd < 0)
		return -errno;
	if (move_mount(fd, "", target_dirfd, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}

int mnt_bind(const char *source, const char *target)
{
	return mnt_bind_at(AT_FDCWD, source, true, AT_FDCWD, target);
}

int mnt_clone(int fd)
{
	int clone = open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

	return clone < 0 ? -errno : clone;
}

int mnt_seal(const char *path)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID,
		.propagation = MS_PRIVATE,
	};

	if (mount_setattr(AT_FDCWD, path, AT_RECURSIVE, &attr, sizeof(attr)) == 0)
		return 0;
	return errno == ENOSYS ? mnt_seal_each(path) : -errno;
}

int mnt_set_readonly(int fd, bool on)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_NOSUID | (on ? MOUNT_ATTR_RDONLY : 0),
		.attr_clr = on ? 0 : MOUNT_ATTR_RDONLY,
	};
	unsigned long flags = MS_REMOUNT | MS_BIND | MS_NOSUID | (on ? MS_RDONLY : 0);
	struct statvfs fs;
	char path[64];

	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) == 0)
		return 0;
	if (errno != ENOSYS || fstatvfs(fd, &fs) < 0)
		return -errno;
	/* The other flags must be repeated; those of statvfs(3) are those of mount(2). */
	flags |= fs.f_flag & (ST_NODEV | ST_NOEXEC | ST_NOATIME | ST_NODIRATIME | ST_RELATIME);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return mount(NULL, path, NULL, flags, NULL) < 0 ? -errno : 0;
}

/* A remount sets all flags anew, and those inherited from outside must not be cleared. */
static unsigned long flags_of_options(const char *options)
{
	static const struct {
		const char *name;
		unsigned long flag;
	} known[] = {
		{"ro", MS_RDONLY},	   {"nosuid", MS_NOSUID},
		{"nodev", MS_NODEV},	   {"noexec", MS_NOEXEC},
		{"noatime", MS_NOATIME},   {"nodiratime", MS_NODIRATIME},
		{"relatime", MS_RELATIME}, {"nosymfollow", 256 /* MS_NOSYMFOLLOW */},
	};
	unsigned long flags = 0;

	while (*options) {
		size_t len = strcspn(options, ",");

		for (size_t i = 0; i < N_OF(known); i++)
			if (strlen(known[i].name) == len && !memcmp(options, known[i].name, len))
				flags |= known[i].flag;
		options += len + (options[len] == ',');
	}
	return flags;
}

/* \040 and the like, as the kernel writes blanks and backslashes, in place. */
static void unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
}

static int seal_one(const char *path, const char *options)
{
	unsigned long flags = flags_of_options(options) | MS_RDONLY | MS_NOSUID;

	if (mount(NULL, path, NULL, MS_PRIVATE, NULL) < 0 && errno != EINVAL)
		return -errno;
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | flags, NULL) == 0)
		return 0;
	/* A mount point that another mount covers, or that we can't reach: no job can either. */
	return errno == ENOENT || errno == EACCES || errno == EINVAL ? 0 : -errno;
}

int mnt_seal_each(const char *path)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	size_t cap = 0;
	int r = f ? 0 : -errno;

	while (f && r == 0 && getline(&line, &cap, f) > 0) {
		char *save = NULL, *word = strtok_r(line, " ", &save), *where = NULL;

		/* id parent dev root MOUNTPOINT OPTIONS ... */
		for (int i = 0; word && i < 4; i++)
			word = strtok_r(NULL, " ", &save);
		where = word;
		word = where ? strtok_r(NULL, " ", &save) : NULL;
		if (!word)
			continue;
		unescape(where);
		if (path_is_below(where, path))
			r = seal_one(where, word);
	}
	if (f)
		(void)fclose(f); /* read only: nothing to lose */
	return r;
}

int mnt_make_dirs(int base, const char *path)
{
	_cleanup_free_ char *copy = xstrdup(path);

	for (char *p = copy; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdirat(base, copy, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdirat(base, copy, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* The access time of a mount point of ours; with noatime, nothing else sets such a time. */
#define MARK_ATIME 0x636f6e6363LL

void mnt_mark(const char *path)
{
	struct timespec times[2] = {{.tv_sec = MARK_ATIME}, {.tv_nsec = UTIME_OMIT}};

	(void)utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

bool sandbox_is_mountpoint(const struct stat *st)
{
	return st->st_atim.tv_sec == MARK_ATIME;
}

static int copy_symlink(int from_fd, const char *name, int to_fd)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(from_fd, name, target, sizeof(target) - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	return symlinkat(target, to_fd, name) < 0 ? -errno : 0;
}

static int make_file(int dirfd, const char *name)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);

	return fd < 0 ? -errno : 0;
}

int mnt_show(int from_fd, const char *name, int to_fd)
{
	struct stat st;
	int r;

	if (fstatat(from_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode))
		return copy_symlink(from_fd, name, to_fd);
	if (S_ISDIR(st.st_mode))
		r = mkdirat(to_fd, name, 0755) < 0 ? -errno : 0;
	else
		r = make_file(to_fd, name);
	return r < 0 ? r : mnt_bind_at(from_fd, name, true, to_fd, name);
}
