/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

enum { BYTE_USER, BYTE_OWNER };

static bool lock(int fd, short type, off_t byte)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &fl) == 0;
}

static bool is_held(int fd, off_t byte)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

/* Around each decision, so that none is made on what another is about to change. */
static void decide(int fd, int operation)
{
	while (flock(fd, operation) < 0 && errno == EINTR)
		;
}

void users_join(int dir_fd, bool (*ready)(int dir_fd), struct users *ret)
{
	*ret = (struct users){
		.fd = openat(dir_fd, "builds", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)};
	if (ret->fd < 0) {
		ret->own = !ready(dir_fd);
		return;
	}
	decide(ret->fd, LOCK_EX);
	ret->own = !ready(dir_fd) || is_held(ret->fd, BYTE_OWNER);
	(void)lock(ret->fd, F_RDLCK, BYTE_USER);
	if (ret->own)
		(void)lock(ret->fd, F_RDLCK, BYTE_OWNER);
	decide(ret->fd, LOCK_UN);
}

bool users_leave(struct users *u)
{
	if (u->fd < 0)
		return u->own;
	decide(u->fd, LOCK_EX);
	return u->own && lock(u->fd, F_WRLCK, BYTE_USER);
}

void users_left(struct users *u)
{
	if (u->fd >= 0)
		(void)close(u->fd);
	*u = (struct users){.fd = -1};
}
