/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "asker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/sandbox.h"
#include "concc/str.h"

/* How often it is let run until it sleeps: from asking to that it needs microseconds. */
#define YIELDS_MAX 100

struct call {
	long nr;
	unsigned long args[6];
};

#define ALWAYS -1
#define IN_HOW -2 /* openat2(2): in what the next argument points to */
#define NONE   -1
#define SOCKET -3 /* bind(2): the path is in a struct sockaddr_un */

/*
 * Calls that make a name: which argument is its path, which has flags, with O_CREAT for it, and
 * which is another path, that of what is there already.
 */
static const struct maker {
	long nr;
	int path, flags, source;
} makers[] = {
#ifdef SYS_open
	{SYS_open, 0, 1, NONE},		  {SYS_creat, 0, ALWAYS, NONE},
	{SYS_mkdir, 0, ALWAYS, NONE},	  {SYS_mknod, 0, ALWAYS, NONE},
	{SYS_symlink, 1, ALWAYS, NONE},	  {SYS_link, 1, ALWAYS, 0},
	{SYS_rename, 1, ALWAYS, 0},
#endif
#ifdef SYS_renameat
	{SYS_renameat, 3, ALWAYS, 1},
#endif
	{SYS_openat, 1, 2, NONE},	  {SYS_openat2, 1, IN_HOW, NONE},
	{SYS_mkdirat, 1, ALWAYS, NONE},	  {SYS_mknodat, 1, ALWAYS, NONE},
	{SYS_symlinkat, 2, ALWAYS, NONE}, {SYS_linkat, 3, ALWAYS, 1},
	{SYS_renameat2, 3, ALWAYS, 1},	  {SYS_bind, 1, SOCKET, NONE},
};

/* Is it one of the names of the path; and the last? */
static bool has_name(const char *path, const char *name, bool *ret_last)
{
	size_t len = strlen(name);
	bool found = false;

	*ret_last = false;
	while (*(path += strspn(path, "/"))) {
		size_t n = strcspn(path, "/");

		*ret_last = n == len && memcmp(path, name, n) == 0;
		found |= *ret_last;
		path += n;
	}
	return found;
}

bool path_makes(const char *path, const char *source, const char *name)
{
	bool last, ignored, on_the_way = has_name(path, name, &last);

	if (last)
		return true;
	return !on_the_way && !(source && has_name(source, name, &ignored));
}

/* "NUMBER 0xARG... SP PC", "running" when it is not in a call yet, or does not sleep in it. */
static int read_call(pid_t pid, struct call *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char path[32], *at;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
	r = read_file_at(-1, path, 4096, &b);
	if (r < 0)
		return r;
	at = (char *)buf_cstr(&b);
	if (str_starts(at, "running"))
		return -EAGAIN;
	ret->nr = strtol(at, &at, 10);
	for (int i = 0; i < 6; i++)
		ret->args[i] = strtoul(at, &at, 16);
	return 0;
}

ssize_t peek(pid_t pid, unsigned long address, void *p, size_t size)
{
	_cleanup_close_ int fd = -1;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -1 : pread(fd, p, size, (off_t)address);
}

static bool creates(pid_t pid, const struct call *c, int flags)
{
	uint64_t how = 0;

	if (flags == IN_HOW)
		return peek(pid, c->args[2], &how, sizeof(how)) == sizeof(how) && (how & O_CREAT);
	return flags < 0 || (c->args[flags] & O_CREAT);
}

bool peek_path(pid_t pid, unsigned long address, char path[PATH_MAX])
{
	ssize_t n = peek(pid, address, path, PATH_MAX);

	return n > 0 && memchr(path, '\0', (size_t)n);
}

static bool makes(pid_t pid, const struct call *c, const struct maker *m, const char *name)
{
	size_t skip = m->flags == SOCKET ? offsetof(struct sockaddr_un, sun_path) : 0;
	char path[PATH_MAX], source[PATH_MAX] = "";

	if (!creates(pid, c, m->flags) || !peek_path(pid, c->args[m->path] + skip, path))
		return false;
	if (m->source != NONE && !peek_path(pid, c->args[m->source], source))
		return false;
	return path_makes(path, source, name);
}

bool sandbox_makes(pid_t pid, const char *name)
{
	struct call c;
	int r;

	for (int i = 0; (r = read_call(pid, &c)) == -EAGAIN && i < YIELDS_MAX; i++)
		sched_yield();
	for (size_t i = 0; r == 0 && i < N_OF(makers); i++)
		if (makers[i].nr == c.nr)
			return makes(pid, &c, &makers[i], name);
	return false;
}
