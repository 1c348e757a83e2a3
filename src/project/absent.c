/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Directories outside every workspace in which jobs seek commands: those of
 * PATH in a home directory.  Every compiler looks there for itself and for the
 * assembler, in vain, and each look-up would be a message.  So the worker is
 * told that they are absent, until the directory changes: which is seen by its
 * times before the next job.  Whatever adds a name changes them, and a change
 * after a look at them shows when they were older than the clock's tick then.
 */
#include "absent.h"
#include "peer.h"
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

/* Each is looked at before each job. */
#define ABSENT_DIRS_MAX 32

struct absent_dir {
	char *dir;
	bool exists;
	struct stat st;
};

static void absent_dir_free(struct absent_dir *s)
{
	free(s->dir);
	free(s);
}

/* False when nothing can be concluded from how it looks. */
static bool look(const char *dir, struct absent_dir *ret)
{
	_cleanup_close_ int fd = open(dir, O_PATH | O_CLOEXEC);
	int64_t since = clock_ns();

	ret->exists = fd >= 0;
	if (!ret->exists)
		return errno == ENOENT || errno == ENOTDIR;
	return fstat(fd, &ret->st) == 0 && !fs_is_network(fd) &&
	       !stat_is_racy(&ret->st, since, false);
}

static bool is_unchanged(const struct absent_dir *s)
{
	struct stat st;

	if (stat(s->dir, &st) < 0)
		return !s->exists && (errno == ENOENT || errno == ENOTDIR);
	return s->exists && st.st_mode == s->st.st_mode && stat_is_unchanged(&st, &s->st);
}

static void tell(struct peer *p, const char *dir, const char *name)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *const names[] = {(char *)name, NULL}; /* NULL: none */

	msg_outside_encode(&b, dir, names);
	link_send_later(p->link, MSG_OUTSIDE, &b);
}

void absent_tell(struct peer *p, const char *path)
{
	_cleanup_free_ char *dir = path_clean(path, "..");
	struct absent_dir *s = map_get_str(&p->absent, dir);
	struct absent_dir now = {0};
	struct stat st;

	/* One that changed meanwhile has its turn when the next job begins. */
	if (!s && (p->absent.n >= ABSENT_DIRS_MAX || !look(dir, &now)))
		return;
	if (lstat(path, &st) == 0 || !err_is_fact(-errno) || (s && !is_unchanged(s)))
		return;
	if (!s) {
		s = xcalloc(1, sizeof(*s));
		*s = now;
		s->dir = steal_ptr(&dir);
		map_put_str(&p->absent, s->dir, s);
	}
	tell(p, s->dir, path_base(path));
}

void absent_check(struct peer *p)
{
	struct absent_dir *s;
	size_t it = 0;

	while ((s = map_next(&p->absent, &it, NULL))) {
		if (is_unchanged(s))
			continue;
		tell(p, s->dir, NULL);
		map_del_str(&p->absent, s->dir);
		absent_dir_free(s);
	}
}

void absent_forget(struct peer *p)
{
	struct absent_dir *s;
	size_t it = 0;

	while ((s = map_next(&p->absent, &it, NULL)))
		absent_dir_free(s);
	map_release(&p->absent);
}
