/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct flock region(int type, off_t from, off_t len)
{
	/* l_pid must be 0 for the F_OFD commands. */
	return (struct flock){
		.l_type = (short)type, .l_whence = SEEK_SET, .l_start = from, .l_len = len};
}

int byte_trylock(int fd, off_t at)
{
	struct flock f = region(F_WRLCK, at, 1);

	if (fcntl(fd, F_OFD_SETLK, &f) == 0)
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

int byte_lock_wait(int fd, off_t at, int type)
{
	struct flock f = region(type, at, 1);

	return fcntl(fd, F_OFD_SETLKW, &f) == 0 ? 0 : -errno;
}

void byte_unlock(int fd, off_t at)
{
	struct flock f = region(F_UNLCK, at, 1);

	/* Can fail only for want of memory to split a region, and ours are single bytes. */
	(void)fcntl(fd, F_OFD_SETLK, &f);
}

off_t byte_locked_in(int fd, off_t from, off_t len)
{
	/* Asking as a reader, so that only write locks count. */
	struct flock f = region(F_RDLCK, from, len);

	if (fcntl(fd, F_OFD_GETLK, &f) < 0 || f.l_type == F_UNLCK)
		return -1;
	return f.l_start < from ? from : f.l_start;
}
