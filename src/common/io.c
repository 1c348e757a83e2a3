/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/str.h"

ssize_t read_full(int fd, void *p, size_t n)
{
	size_t got = 0;

	while (got < n) {
		ssize_t k = read(fd, (char *)p + got, n - got);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			break;
		got += (size_t)k;
	}
	return (ssize_t)got;
}

int write_full(int fd, const void *p, size_t n)
{
	while (n) {
		ssize_t k = write(fd, p, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		p = (const char *)p + k;
		n -= (size_t)k;
	}
	return 0;
}

int replace_file(const char *path, const void *p, size_t n)
{
	_cleanup_free_ char *beside = xasprintf("%s.%d", path, (int)getpid());
	_cleanup_close_ int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
				      0600);
	int err;

	if (fd < 0)
		return -errno;
	err = write_full(fd, p, n);
	if (!err && rename(beside, path) < 0)
		err = -errno;
	if (err)
		(void)unlink(beside); /* nothing of use in it */
	return err;
}

static int read_fd(int fd, size_t max, struct buf *b)
{
	size_t start = b->len;

	for (;;) {
		ssize_t k = read_full(fd, buf_grow(b, 4096), 4096);

		b->len -= k < 0 ? 4096 : 4096 - (size_t)k;
		if (k < 0)
			return (int)k;
		if (b->len - start > max)
			return CONCC_E_TOOBIG;
		if (k < 4096)
			return 0;
	}
}

int openat_beneath(int dirfd, const char *path, int flags)
{
	struct open_how how = {
		.flags = (unsigned)(flags | O_NOFOLLOW | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	int r = (int)syscall(SYS_openat2, dirfd, *path ? path : ".", &how, sizeof(how));

	return r < 0 ? -errno : r;
}

int read_file_at(int dirfd, const char *path, size_t max, struct buf *b)
{
	_cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : read_fd(fd, max, b);
}

int open_regular_file(const char *path)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	/* Before it is opened: who writes to a FIFO would take us for its reader. */
	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) ? steal_fd(&fd) : -EINVAL;
}

int read_regular_file(const char *path, size_t max, struct buf *b)
{
	_cleanup_close_ int fd = open_regular_file(path);

	return fd < 0 ? fd : read_fd(fd, max, b);
}

int fd_set_nonblock(int fd, bool on)
{
	int fl = fcntl(fd, F_GETFL);

	if (fl < 0)
		return -errno;
	if (!(fl & O_NONBLOCK) != on)
		return 0;
	return fcntl(fd, F_SETFL, fl ^ O_NONBLOCK) < 0 ? -errno : 0;
}

int fd_set_cloexec(int fd, bool on)
{
	return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0 ? -errno : 0;
}

void fd_hold_stdio(void)
{
	struct pollfd p[3] = {{.fd = 0}, {.fd = 1}, {.fd = 2}};

	if (poll(p, 3, 0) <= 0)
		return;
	/* The lowest free number is the next that was closed. */
	for (int fd = 0; fd <= 2; fd++) {
		if (p[fd].revents & POLLNVAL)
			(void)open("/", O_PATH | O_CLOEXEC);
	}
}

int fd_take_stdio(int *ret_in, int *ret_out)
{
	_cleanup_close_ int in = fcntl(0, F_DUPFD_CLOEXEC, 3), out = fcntl(1, F_DUPFD_CLOEXEC, 3);
	_cleanup_close_ int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (in < 0 || out < 0 || null < 0 || dup2(null, 0) < 0 || dup2(2, 1) < 0)
		return -errno;
	*ret_in = steal_fd(&in);
	*ret_out = steal_fd(&out);
	return 0;
}

int pipe_above_stdio(int ret[2])
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		int moved = fds[i] > 2 ? fds[i] : fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		int err = -errno;

		if (moved != fds[i])
			close(fds[i]);
		if (moved < 0) {
			close(fds[!i]);
			return err;
		}
		fds[i] = moved;
	}
	ret[0] = fds[0];
	ret[1] = fds[1];
	return 0;
}

void fd_close(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd); /* not retried: on Linux the number is free even after EINTR */
	*fd = -1;
}

void fd_close_from(unsigned lowest)
{
	struct rlimit max;

	/* Refused by a filter of system calls, or older than Linux 5.9: one by one. */
	if (syscall(SYS_close_range, lowest, ~0U, 0U) == 0 || getrlimit(RLIMIT_NOFILE, &max) < 0)
		return;
	for (unsigned fd = lowest; fd < max.rlim_cur && fd < 1U << 20; fd++)
		(void)close((int)fd); /* most are not open */
}

#define BLOCK 512 /* no file system has smaller ones */

int fd_allocate(int fd, size_t n)
{
	int err = posix_fallocate(fd, 0, (off_t)n);

	if (err != EOPNOTSUPP)
		return -err;
	/* By hand: glibc does so where the file system can't, musl does not. */
	for (size_t at = BLOCK - 1; n && at < n + BLOCK; at += BLOCK) {
		off_t last = (off_t)(at < n ? at : n - 1);
		char c = 0;

		if (pread(fd, &c, 1, last) < 0 || pwrite(fd, &c, 1, last) != 1)
			return -errno;
	}
	return 0;
}

static bool in_list(int fd, const int *keep, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (keep[i] == fd)
			return true;
	}
	return false;
}

void fd_detach_all(const int *keep, size_t n_keep)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int max = 2;

	for (int fd = 0; fd <= 2; fd++) {
		if (!in_list(fd, keep, n_keep) && null >= 0)
			(void)dup2(null, fd); /* can only fail for a bad fd */
	}
	if (null > 2)
		close(null);
	for (size_t i = 0; i < n_keep; i++) {
		if (keep[i] > max)
			max = keep[i];
	}
	for (int fd = 3; fd <= max; fd++) {
		if (!in_list(fd, keep, n_keep))
			(void)close(fd); /* most are not open */
	}
	fd_close_from((unsigned)max + 1);
}

bool time_is_same(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool stat_is_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool stat_is_unchanged(const struct stat *a, const struct stat *b)
{
	return stat_is_same_file(a, b) && a->st_size == b->st_size &&
	       time_is_same(&a->st_mtim, &b->st_mtim) && time_is_same(&a->st_ctim, &b->st_ctim);
}

bool file_is_unchanged(const char *path, const struct stat *was)
{
	struct stat st;

	return stat(path, &st) == 0 && stat_is_unchanged(&st, was);
}

int64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/*
 * A file changed twice within one tick of the clock that stamps it may show the
 * same times for both.  Kernels tick every 1 to 10 ms; other machines' clocks
 * are off by more.
 */
#define RACY_NS		(20 * 1000 * 1000LL)
#define RACY_NETWORK_NS (2 * 1000 * 1000 * 1000LL)

bool stat_is_racy(const struct stat *st, int64_t since, bool network)
{
	int64_t s = since / 1000000000 - st->st_ctim.tv_sec;

	return s * 1000000000 + since % 1000000000 - st->st_ctim.tv_nsec <
	       (network ? RACY_NETWORK_NS : RACY_NS);
}

uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t now_ms(void)
{
	return now_us() / 1000;
}
