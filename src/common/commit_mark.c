/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/commit_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define FILE_NAME "commit"

struct words {
	atomic_ullong now, ended; /* 0: none */
};

struct commit_mark {
	struct words *words;
};

static int open_own(int dir_fd, int flags)
{
	_cleanup_close_ int fd = openat(dir_fd, FILE_NAME, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) && st.st_uid == geteuid() ? steal_fd(&fd) : -EPERM;
}

int commit_mark_open(int dir_fd, struct commit_mark **ret)
{
	_cleanup_close_ int fd = open_own(dir_fd, O_RDWR | O_CREAT);
	struct words *w;
	uint64_t left;
	int err;

	if (fd < 0)
		return fd;
	err = fd_allocate(fd, sizeof(*w));
	if (err < 0)
		return err;
	w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (w == MAP_FAILED)
		return -errno;
	left = atomic_exchange(&w->now, 0);
	if (left)
		atomic_store(&w->ended, left);
	*ret = xcalloc(1, sizeof(**ret));
	(*ret)->words = w;
	return 0;
}

void commit_mark_close(struct commit_mark *m)
{
	if (!m)
		return;
	(void)munmap(m->words, sizeof(*m->words));
	free(m);
}

void commit_mark_set(struct commit_mark *m, uint64_t token)
{
	if (m)
		atomic_store(&m->words->now, token);
}

bool commit_mark_has(int dir_fd, uint64_t token)
{
	_cleanup_close_ int fd = open_own(dir_fd, O_RDONLY);
	uint64_t words[2];

	return fd >= 0 && pread(fd, words, sizeof(words), 0) == sizeof(words) &&
	       (words[0] == token || words[1] == token);
}
