/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_FUZZ_SCRATCH_H
#define CONCC_TEST_FUZZ_SCRATCH_H

/* A directory in memory for one fuzzing process, removed at its end; for code that reads files. */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/err.h"
#include "concc/io.h"
#include "check.h"

static char scratch_dir[] = "/dev/shm/concc-fuzz.XXXXXX";

static int scratch_remove_one(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return remove(path);
}

static void scratch_remove(void)
{
	(void)nftw(scratch_dir, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Its fd; the directory is made by the first call. */
static int scratch(void)
{
	static int fd = -1;

	if (fd < 0) {
		CHECK(mkdtemp(scratch_dir));
		(void)atexit(scratch_remove);
		fd = open(scratch_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		CHECK(fd >= 0);
	}
	return fd;
}

static inline void scratch_write(const char *name, const void *p, size_t n)
{
	int fd = openat(scratch(), name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write_full(fd, p, n) == 0);
	(void)close(fd);
}

#endif
