/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "slot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"

#define LOCK_AT	  ((off_t)0)
#define BEACON_AT ((off_t)1)

#define SLOT_FILE_MAX (POOL_NAME_MAX + 8)

static void slot_file(char *ret, const char *member, uint32_t index)
{
	(void)snprintf(ret, SLOT_FILE_MAX, "%s.%u", member, index);
}

static int check_fifo(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISFIFO(st.st_mode) && st.st_uid == geteuid() ? 0 : CONCC_E_UNSAFE;
}

/* Reading and writing in one: such an open of a FIFO never waits for the other end. */
static int open_holder(int slots_fd, const char *member, uint32_t index, int *ret_fd)
{
	char file[SLOT_FILE_MAX];
	int flags = O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
	_cleanup_close_ int fd = -1;
	int rc;

	slot_file(file, member, index);
	fd = openat(slots_fd, file, flags);
	if (fd < 0 && errno == ENOENT) {
		if (mkfifoat(slots_fd, file, 0600) < 0 && errno != EEXIST)
			return -errno;
		fd = openat(slots_fd, file, flags);
	}
	if (fd < 0)
		return errno == ELOOP || errno == EISDIR || errno == ENXIO ? CONCC_E_UNSAFE
									   : -errno;
	rc = check_fifo(fd);
	if (rc < 0)
		return rc;
	*ret_fd = steal_fd(&fd);
	return 0;
}

static void light_beacon(int fd)
{
	struct flock f = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = BEACON_AT, .l_len = 1};

	/* Without it waiters keep one descriptor more. */
	(void)fcntl(fd, F_SETLK, &f);
}

int slot_lock(int slots_fd, const char *member, uint32_t index, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	int rc;

	rc = open_holder(slots_fd, member, index, &fd);
	if (rc < 0)
		return rc;
	rc = byte_trylock(fd, LOCK_AT);
	if (rc < 0)
		return rc;
	light_beacon(fd);
	*ret_fd = steal_fd(&fd);
	return 0;
}

int slot_lock_wait(int slots_fd, const char *member, uint32_t index, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	int rc;

	rc = open_holder(slots_fd, member, index, &fd);
	if (rc < 0)
		return rc;
	rc = byte_lock_wait(fd, LOCK_AT, F_WRLCK);
	if (rc < 0)
		return rc;
	light_beacon(fd);
	*ret_fd = steal_fd(&fd);
	return 0;
}

void slot_unlock(int fd)
{
	byte_unlock(fd, LOCK_AT);
}

void slot_close(int fd, int slots_fd, const char *member, uint32_t index)
{
	char file[SLOT_FILE_MAX];

	(void)close(fd);
	slot_file(file, member, index);
	/* Fails with ENXIO when nobody has it open, which is nearly always. */
	fd = openat(slots_fd, file, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
	if (fd >= 0)
		(void)close(fd);
}

int slot_probe(int slots_fd, const char *member, uint32_t index, int *ret_fd)
{
	char file[SLOT_FILE_MAX];
	_cleanup_close_ int fd = -1;
	int rc;

	*ret_fd = -1;
	slot_file(file, member, index);
	/* For reading only: its close is no IN_CLOSE_WRITE, so probing wakes nobody. */
	fd = openat(slots_fd, file, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return errno == ENOENT ? SLOT_FREE : errno == ELOOP ? CONCC_E_UNSAFE : -errno;
	rc = check_fifo(fd);
	if (rc < 0)
		return rc;
	/* In this order: a beacon seen after the lock says that the close has not begun. */
	if (byte_locked_in(fd, LOCK_AT, 1) < 0)
		return SLOT_FREE;
	if (byte_locked_in(fd, BEACON_AT, 1) >= 0)
		return SLOT_HELD;
	*ret_fd = steal_fd(&fd);
	return SLOT_CLOSING;
}

bool slot_parse_name(const char *file, char *ret_member, uint32_t *ret_index)
{
	const char *dot = strrchr(file, '.');
	unsigned long long index;
	size_t n;

	if (!dot || dot == file || dot - file > POOL_NAME_MAX)
		return false;
	if (!str_to_u64(dot + 1, POOL_SLOTS_MAX - 1, &index))
		return false;
	n = (size_t)(dot - file);
	memcpy(ret_member, file, n);
	ret_member[n] = '\0';
	*ret_index = (uint32_t)index;
	return true;
}
