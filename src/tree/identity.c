/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "commit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <linux/limits.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"

/* Through /proc: the name may be a symlink by now. */
int chmod_fd(int path_fd, mode_t mode)
{
	char proc[32];

	(void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", path_fd);
	return chmod(proc, mode) < 0 ? -errno : 0;
}

int chmod_at(int dir_fd, const char *name, mode_t mode)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : chmod_fd(fd, mode);
}

/* Those that a write leaves alone; the kernel takes capabilities away, labels are the policy's. */
static bool is_kept_attribute(const char *name)
{
	return str_starts(name, "user.") || streq(name, "system.posix_acl_access");
}

bool identity_has_attributes(int fd, const char *name)
{
	char path[PROTO_NAME_MAX + 40], names[XATTR_LIST_MAX];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", fd, name);
	n = llistxattr(path, names, sizeof(names));
	for (ssize_t i = 0; i < n; i += (ssize_t)strlen(names + i) + 1)
		if (is_kept_attribute(names + i) || streq(names + i, "security.capability"))
			return true;
	return false;
}

static int copy_attribute(const char *from, const char *to, const char *name)
{
	_cleanup_free_ void *value = NULL;
	ssize_t n = lgetxattr(from, name, NULL, 0);

	if (n < 0)
		return errno == ENODATA ? 0 : -errno;
	value = xmalloc((size_t)n + 1);
	n = lgetxattr(from, name, value, (size_t)n);
	if (n < 0)
		return -errno;
	return lsetxattr(to, name, value, (size_t)n, 0) < 0 ? -errno : 0;
}

int identity_keep(const struct effect *e, const struct stat *was, int fd, const char *name,
		  int temp_fd, const char *temp)
{
	char from[PROTO_NAME_MAX + 40], to[PROTO_NAME_MAX + 40], names[XATTR_LIST_MAX];
	bool mode_lost = false;
	struct stat st;
	ssize_t n;
	int err = 0;

	if (fstatat(temp_fd, temp, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (st.st_uid != was->st_uid || st.st_gid != was->st_gid) {
		if (fchownat(temp_fd, temp, was->st_uid, was->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
		mode_lost = true;
	}
	(void)snprintf(from, sizeof(from), "/proc/self/fd/%d/%s", fd, name);
	(void)snprintf(to, sizeof(to), "/proc/self/fd/%d/%s", temp_fd, temp);
	/* What it was made with is its directory's default access list. */
	if (lremovexattr(to, "system.posix_acl_access") == 0)
		mode_lost = true;
	n = llistxattr(from, names, sizeof(names));
	if (n < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (ssize_t i = 0; !err && i < n; i += (ssize_t)strlen(names + i) + 1) {
		if (!is_kept_attribute(names + i))
			continue;
		err = copy_attribute(from, to, names + i);
		mode_lost = true; /* to an access list */
	}
	if (!err && mode_lost)
		err = chmod_at(temp_fd, temp, e->mode);
	return err;
}
