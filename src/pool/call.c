/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "call.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/pool.h"

#define CALLS_NAME "calls"

static int open_fifo(const struct pool *p, int flags)
{
	_cleanup_close_ int fd = openat(p->dir_fd, CALLS_NAME,
					flags | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode) || st.st_uid != geteuid())
		return CONCC_E_UNSAFE;
	return steal_fd(&fd);
}

int call_out(const struct pool *p, uint16_t member, int *ret_fd)
{
	int fd = open_fifo(p, O_WRONLY);

	if (fd == -ENXIO || fd == -ENOENT)
		return CONCC_E_CLOSED;
	if (fd < 0)
		return fd;
	/* A full FIFO has calls enough in it. */
	(void)!write(fd, &member, sizeof(member));
	*ret_fd = fd;
	return 0;
}

int pool_listen(struct pool *p, int *ret_fd, struct errmsg *msg)
{
	int fd;

	if (mkfifoat(p->dir_fd, CALLS_NAME, 0600) < 0 && errno != EEXIST)
		return errmsg_set(msg, -errno, "making %s in the runtime directory: %s", CALLS_NAME,
				  strerror(errno));
	/* For writing too: without a writer it would be readable for ever. */
	fd = open_fifo(p, O_RDWR);
	if (fd < 0)
		return errmsg_set(msg, fd, "opening %s in the runtime directory: %s; remove it",
				  CALLS_NAME, err_text(fd));
	p->calls_fd = *ret_fd = fd;
	return 0;
}

void pool_unlisten(struct pool *p)
{
	if (p->calls_fd >= 0)
		(void)close(p->calls_fd);
	p->calls_fd = -1;
}

int pool_next_call(struct pool *p, char ret_name[POOL_NAME_MAX + 1])
{
	struct member_view v;
	uint16_t member;
	ssize_t n = read(p->calls_fd, &member, sizeof(member));

	ret_name[0] = '\0';
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if (n == sizeof(member) && member < POOL_MEMBERS_MAX && member_view(p->table, member, &v))
		memcpy(ret_name, v.name, sizeof(v.name));
	return 0;
}
