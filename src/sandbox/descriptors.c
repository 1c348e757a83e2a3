/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "descriptors.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "concc/caller.h"

/* By O_RDONLY, O_WRONLY or O_RDWR: what stands in for it. */
static int mode_of(const struct caller *c, int fd)
{
	return c->fds[fd] == CALLER_READS    ? O_RDONLY
	       : c->fds[fd] == CALLER_WRITES ? O_WRONLY
					     : O_RDWR;
}

static int move_above(int *fd, int least)
{
	int moved = fcntl(*fd, F_DUPFD_CLOEXEC, least);

	if (moved >= 0)
		*fd = moved;
	return moved;
}

int descriptors_place(const struct caller *caller, const int stand_ins[3], int *above)
{
	int from[3] = {stand_ins[0], stand_ins[1], stand_ins[2]};

	if (caller->fds_end == 0)
		return 0;
	for (int i = 0; i < 3; i++)
		if (move_above(&from[i], caller->fds_end) < 0)
			return -1;
	if (*above >= 0 && move_above(above, caller->fds_end) < 0)
		return -1;
	for (int fd = CALLER_FDS_FROM; fd < caller->fds_end; fd++)
		if (caller->fds[fd] != CALLER_CLOSED && dup2(from[mode_of(caller, fd)], fd) < 0)
			return -1;
	return 0;
}

static void close_range_of(int from, int end)
{
	if (from < end)
		(void)syscall(SYS_close_range, from, end - 1, 0U);
}

void descriptors_close_others(const struct caller *caller, int keep)
{
	int from = CALLER_FDS_FROM;

	for (int fd = CALLER_FDS_FROM; fd < caller->fds_end; fd++) {
		if (caller->fds[fd] == CALLER_CLOSED)
			continue;
		close_range_of(from, fd);
		from = fd + 1;
	}
	if (keep >= 0) {
		close_range_of(from, keep);
		from = keep + 1;
	}
	(void)syscall(SYS_close_range, from, ~0U, 0U);
}
