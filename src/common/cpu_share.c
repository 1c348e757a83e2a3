/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/cpu_share.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define SMALL 4096 /* bytes of a file of the kernel's */
/* A job of more is a build of its own. */
#define THREADS_MAX 256

static bool read_small(int dir_fd, const char *thread, const char *name, struct buf *b)
{
	_cleanup_free_ char *path = path_join(thread, name);

	b->len = 0;
	return read_file_at(dir_fd, path, SMALL, b) == 0;
}

static bool add(pid_t pid, unsigned *left, struct cpu_share *sum);

/* "12 34 ": those that this thread has started. */
static void add_children(int dir_fd, const char *thread, unsigned *left, struct cpu_share *sum)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *end;
	long pid;

	if (!read_small(dir_fd, thread, "children", &b))
		return;
	for (const char *at = buf_cstr(&b); (pid = strtol(at, &end, 10)) > 0; at = end)
		(void)add((pid_t)pid, left, sum); /* it may have ended */
}

/* Nanoseconds on a processor, nanoseconds in its queue, how often:
 * Documentation/scheduler/sched-stats.rst */
static bool add_thread(int dir_fd, const char *thread, struct cpu_share *sum)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	unsigned long long ran, waited;

	if (!read_small(dir_fd, thread, "schedstat", &b) ||
	    sscanf(buf_cstr(&b), "%llu %llu", &ran, &waited) != 2)
		return false;
	sum->ran_us += ran / 1000;
	sum->waited_us += waited / 1000;
	return true;
}

static bool add(pid_t pid, unsigned *left, struct cpu_share *sum)
{
	char path[64];
	bool any = false;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return false;
	for (struct dirent *e; *left && (e = readdir(dir));) {
		if (e->d_name[0] == '.')
			continue;
		--*left;
		any |= add_thread(dirfd(dir), e->d_name, sum);
		add_children(dirfd(dir), e->d_name, left, sum);
	}
	closedir(dir);
	return any;
}

bool cpu_share_of(pid_t pid, struct cpu_share *ret)
{
	struct cpu_share sum = {0};
	unsigned left = THREADS_MAX;

	if (pid <= 0 || !add(pid, &left, &sum))
		return false;
	*ret = sum;
	return true;
}
