/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/sandbox.h"
#include "root.h"

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

bool sandbox_may_own(const char *path)
{
	return root_is_system_path(path);
}

char *sandbox_own_home(void)
{
	_cleanup_free_ char *home = path_expand_home("~");

	return realpath(home, NULL);
}

/* Of one file system: what is mounted within is not of the system, and may have to be mounted
 * first. */
static int open_in_place(const char *path, const char *below)
{
	_cleanup_free_ char *top = xstrndup(path, (size_t)(below - path));
	_cleanup_close_ int dir = open(top, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};
	int fd;

	if (dir < 0)
		return -errno;
	fd = (int)syscall(SYS_openat2, dir, below + 1, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

int sandbox_open_own(const char *path, uint64_t size, const char *home)
{
	const char *below = strchr(path + 1, '/');
	_cleanup_close_ int place = -1;
	char again[64];
	struct stat st;
	int fd;

	if (!below || !root_is_system_path(path) || (home && path_is_below(path, home)))
		return -ENOENT;
	place = open_in_place(path, below);
	if (place < 0)
		return place;
	/* Before it is opened: a fifo has somebody at its other end, a device may begin to do
	 * something. */
	if (fstat(place, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || !(st.st_mode & S_IROTH) || (uint64_t)st.st_size != size)
		return -ENOENT;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", place);
	fd = open(again, O_RDONLY | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}
