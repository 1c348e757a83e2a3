/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Directories outside every workspace in which jobs seek commands: those of
 * PATH in a home directory.  Every compiler looks there for itself and for the
 * assembler, in vain, and each look-up would be a message.  So the worker is
 * told that they are absent, until the directory changes: which is seen by its
 * times before the next job.  Whatever adds a name changes them, and a change
 * after a look at them shows when they were older than the clock's tick then.
 */
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
#define SPOTS_MAX 32

struct spot {
	char *dir;
	bool exists;
	struct stat st;
};

static void spot_free(struct spot *s)
{
	free(s->dir);
	free(s);
}

/* False when nothing can be concluded from how it looks. */
static bool look(const char *dir, struct spot *ret)
{
	_cleanup_close_ int fd = open(dir, O_PATH | O_CLOEXEC);

	ret->exists = fd >= 0;
	if (!ret->exists)
		return errno == ENOENT || errno == ENOTDIR;
	return fstat(fd, &ret->st) == 0 && !fs_is_network(fd) && !stat_is_racy(&ret->st, false);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool is_unchanged(const struct spot *s)
{
	struct stat st;

	if (stat(s->dir, &st) < 0)
		return !s->exists && (errno == ENOENT || errno == ENOTDIR);
	return s->exists && st.st_dev == s->st.st_dev && st.st_ino == s->st.st_ino &&
	       st.st_mode == s->st.st_mode && same_time(&st.st_mtim, &s->st.st_mtim) &&
	       same_time(&st.st_ctim, &s->st.st_ctim);
}

static void tell(struct peer *p, const char *dir, const char *name)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *const names[] = {(char *)name, NULL}; /* NULL: none */

	msg_outside_encode(&b, dir, names);
	link_send_later(p->link, MSG_OUTSIDE, &b);
}

void outside_absent(struct peer *p, const char *path)
{
	_cleanup_free_ char *dir = path_clean(path, "..");
	struct spot *s = map_get_str(&p->spots, dir);
	struct spot now = {0};
	struct stat st;

	/* One that changed meanwhile has its turn when the next job begins. */
	if (!s && (p->spots.n >= SPOTS_MAX || !look(dir, &now)))
		return;
	if (lstat(path, &st) == 0 || !err_is_fact(-errno) || (s && !is_unchanged(s)))
		return;
	if (!s) {
		s = xcalloc(1, sizeof(*s));
		*s = now;
		s->dir = steal_ptr(&dir);
		map_put_str(&p->spots, s->dir, s);
	}
	tell(p, s->dir, path_base(path));
}

void outside_check(struct peer *p)
{
	struct spot *s;
	size_t it = 0;

	while ((s = map_next(&p->spots, &it, NULL))) {
		if (is_unchanged(s))
			continue;
		tell(p, s->dir, NULL);
		map_del_str(&p->spots, s->dir);
		spot_free(s);
	}
}

void outside_forget(struct peer *p)
{
	struct spot *s;
	size_t it = 0;

	while ((s = map_next(&p->spots, &it, NULL)))
		spot_free(s);
	map_release(&p->spots);
}
