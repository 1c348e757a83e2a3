/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The server's files in the runtime directory.  That is in /tmp, where cleaners
 * remove what looks old, and users what looks stale.  A server that nobody can
 * find any more is of no use, and its workers would be taken twice: it hears of
 * it, makes room for another at once, and leaves when its last job has ended.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/err.h"
#include "concc/log.h"

#define PLACE_MASK                                                                                 \
	(IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool is_named(const struct server *s, const char *name, const struct stat *ours)
{
	struct stat st;

	return fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && same(&st, ours);
}

bool place_is_ours(const struct server *s)
{
	struct stat lock, dir, named;

	return s->lock_fd >= 0 && fstat(s->lock_fd, &lock) == 0 && fstat(s->dir_fd, &dir) == 0 &&
	       stat(s->dir, &named) == 0 && same(&dir, &named) &&
	       is_named(s, "project.lock", &lock);
}

bool place_has_our_socket(const struct server *s)
{
	return is_named(s, "project.sock", &s->sock_stat);
}

static bool is_whole(const struct server *s)
{
	return place_is_ours(s) && is_named(s, "project.sock", &s->sock_stat) &&
	       pool_is_in_place(s->pool, s->dir);
}

static void on_event(void *data, uint32_t events)
{
	struct server *s = data;
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

	while (read(s->place_fd, buf, sizeof(buf)) > 0)
		; /* what happened shows when we look */
	if (s->replaced) {
		server_leave(s);
	} else if (!is_whole(s)) {
		log_warn("files in %s were removed: leaving when %u running jobs have ended",
			 s->dir, s->n_running);
		server_abandon(s);
	}
}

int place_watch(struct server *s, struct errmsg *msg)
{
	char path[32];
	int r = 0;

	if (fstatat(s->dir_fd, "project.sock", &s->sock_stat, AT_SYMLINK_NOFOLLOW) < 0)
		return errmsg_set(msg, -errno, "can't find %s/project.sock: %s", s->dir,
				  err_text(-errno));
	s->place_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", s->dir_fd);
	if (s->place_fd < 0 || inotify_add_watch(s->place_fd, path, PLACE_MASK) < 0)
		r = -errno;
	if (r < 0) {
		/* The user's limit of watches: builds work as long as nobody cleans up. */
		log_warn("can't watch %s: %s; ignoring", s->dir, err_text(r));
		return 0;
	}
	s->place_source = loop_add_fd(s->loop, s->place_fd, LOOP_READ, on_event, s);
	return 0;
}
