/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* Removes what can be in fd; the name of a directory that is not empty, or NULL. */
static int remove_flat(int fd, char **ret_dir)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	int r = dir ? 0 : -errno;

	*ret_dir = NULL;
	if (!dir && copy >= 0)
		(void)close(copy);
	while (dir && r == 0 && !*ret_dir && (e = readdir(dir))) {
		if (streq(e->d_name, ".") || streq(e->d_name, ".."))
			continue;
		if (unlinkat(fd, e->d_name, 0) == 0 || unlinkat(fd, e->d_name, AT_REMOVEDIR) == 0)
			continue;
		if (errno == ENOENT)
			continue;
		if (errno == ENOTEMPTY || errno == EEXIST)
			*ret_dir = xstrdup(e->d_name);
		else
			r = -errno;
	}
	if (dir)
		(void)closedir(dir);
	return r;
}

static int enter(int *fd, const char *name)
{
	int next;

	/* Overlay's work directory has mode 0, and a job may leave anything. */
	(void)fchmodat(*fd, name, 0700, 0);
	next = openat(*fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (next < 0)
		return -errno;
	(void)close(*fd);
	*fd = next;
	return 0;
}

/* One fd however deep it goes: back up is "..", and nobody else moves what is in there.  Who
 * removes the same meanwhile, as a server that ends its socket, has done what was to be done. */
int path_empty_dir(int dirfd)
{
	_cleanup_close_ int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_strv_ char **names = NULL;
	size_t depth = 0;
	int r = fd < 0 ? -errno : 0;

	while (r == 0) {
		char *sub;

		r = remove_flat(fd, &sub);
		if (r < 0)
			break;
		if (sub) {
			r = enter(&fd, sub);
			if (r == -ENOENT) {
				free(sub);
				r = 0;
				continue;
			}
			strv_push(&names, sub);
			depth++;
		} else if (depth == 0) {
			break;
		} else {
			r = enter(&fd, "..");
			depth--;
			if (r == 0 && unlinkat(fd, names[depth], AT_REMOVEDIR) < 0 &&
			    errno != ENOENT)
				r = -errno;
			free(names[depth]);
			names[depth] = NULL;
		}
	}
	return r;
}

int path_remove_tree(int dirfd, const char *name)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	(void)fchmodat(dirfd, name, 0700, 0);
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = path_empty_dir(fd);
	if (r < 0)
		return r;
	return unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}
