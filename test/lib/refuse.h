/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_REFUSE_H
#define CONCC_TEST_REFUSE_H

/*
 * System calls that look at files, refused for want of something or by a failing disk
 * while refuse_one_in is set, in the calling thread only.  Functions of the C
 * library's names, which stand before it in the program that includes this; the
 * kernel does the others.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

static __thread unsigned refuse_one_in; /* 0: none, 1: all */
static __thread uint64_t refuse_seed = 1;
static __thread unsigned n_refused;

static inline int refused(void)
{
	static const int why[] = {EIO, ENOMEM, ENFILE, EMFILE, ENOSPC, ENOBUFS, ETIMEDOUT};

	if (!refuse_one_in)
		return 0;
	refuse_seed = refuse_seed * 6364136223846793005u + 1442695040888963407u;
	if ((refuse_seed >> 33) % refuse_one_in)
		return 0;
	n_refused++;
	errno = why[(refuse_seed >> 40) % (sizeof(why) / sizeof(why[0]))];
	return -1;
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return refused() < 0 ? -1 : (int)syscall(SYS_openat, dir, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	return refused() < 0 ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int fstatat(int dir, const char *restrict path, struct stat *restrict st, int flags)
{
	return refused() < 0 ? -1 : (int)syscall(SYS_newfstatat, dir, path, st, flags);
}

int statx(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict st)
{
	return refused() < 0 ? -1 : (int)syscall(SYS_statx, dir, path, flags, mask, st);
}

int fstat(int fd, struct stat *st)
{
	return refused() < 0 ? -1 : (int)syscall(SYS_fstat, fd, st);
}

int stat(const char *restrict path, struct stat *restrict st)
{
	return refused() < 0 ? -1 : (int)syscall(SYS_newfstatat, AT_FDCWD, path, st, 0);
}

int fstatfs(int fd, struct statfs *st)
{
	return refused() < 0 ? -1 : (int)syscall(SYS_fstatfs, fd, st);
}

ssize_t readlinkat(int dir, const char *restrict path, char *restrict buf, size_t n)
{
	return refused() < 0 ? -1 : syscall(SYS_readlinkat, dir, path, buf, n);
}

ssize_t getdents64(int fd, void *buf, size_t n)
{
	return refused() < 0 ? -1 : syscall(SYS_getdents64, fd, buf, n);
}

#endif
