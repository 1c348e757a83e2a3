/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The server's files in the runtime directory.  That is in /tmp, where cleaners
 * remove what looks old, and users what looks stale.  A server that nobody can
 * find any more is of no use, and its workers would be taken twice: it hears of
 * it, makes room for another at once, and leaves when its last job has ended.  So
 * it does when its configuration has changed, or when a wrapper of another version
 * removes them.
 */
#include "place.h"
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

#define PLACE_MASK                                                                                 \
	(IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

#define CONF_MASK                                                                                  \
	(IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MASK_ADD |      \
	 IN_ONLYDIR)

struct place {
	int fd;		       /* inotify, or -1 */
	int wd;		       /* the watch of the runtime directory */
	struct stat sock;      /* of project.sock */
	struct stat conf_seen; /* the configuration's file when it was last looked at */
	char *conf_error;      /* why what it says now is not followed, or NULL */
	struct loop_source *source;
};

static bool is_named(const struct server *s, const char *name, const struct stat *ours)
{
	struct stat st;

	return fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       stat_is_same_file(&st, ours);
}

bool place_is_ours(const struct server *s)
{
	struct stat lock, dir, named;

	return s->lock_fd >= 0 && fstat(s->lock_fd, &lock) == 0 && fstat(s->dir_fd, &dir) == 0 &&
	       stat(s->dir, &named) == 0 && stat_is_same_file(&dir, &named) &&
	       is_named(s, "project.lock", &lock);
}

static bool is_whole(const struct server *s)
{
	return place_is_ours(s) && is_named(s, "project.sock", &s->place->sock) &&
	       pool_is_in_place(s->pool, s->dir);
}

/* ---- the configuration ---- */

/*
 * The next call starts a server that reads it.  Ours goes on for those jobs that it has, and for
 * wrappers that have found it.
 */
void place_make_room(struct server *s)
{
	(void)unlinkat(s->dir_fd, "project.lock", 0);
	(void)unlinkat(s->dir_fd, "project.sock", 0);
	pool_forget(s->dir_fd);
	server_abandon(s);
}

void place_check_conf(struct server *s)
{
	struct errmsg msg = {0};
	struct conf *now = NULL;
	struct stat st;

	if (!s->ready || !s->place)
		return; /* who started us waits for that */
	conf_look(s->conf, &st);
	if (stat_is_unchanged(&st, &s->place->conf_seen))
		return;
	s->place->conf_seen = st;
	free(steal_ptr(&s->place->conf_error));
	if (stat_is_unchanged(&st, &s->conf->seen))
		return; /* it is again what it was */
	if (conf_load(s->conf->asked, &now, &msg) < 0 || conf_check_workspaces(now, &msg) < 0) {
		log_warn("the configuration was changed and is wrong; going on with the former: %s",
			 msg.text);
		s->place->conf_error = xstrdup(msg.text);
	} else {
		log_info("the configuration was changed: leaving when %u running jobs have ended",
			 s->n_running);
		place_make_room(s);
	}
	conf_free(now);
}

/* Editors replace files, so it is their directories that are watched. */
static void watch_dir_of(const struct server *s, const char *file)
{
	_cleanup_free_ char *dir = xstrndup(file, (size_t)(path_base(file) - file));

	if (inotify_add_watch(s->place->fd, dir, CONF_MASK) < 0)
		log_info("can't watch %s: %s; a change of the configuration is not noticed", dir,
			 err_text(-errno));
}

/* Another's name in such a directory costs no look at ours. */
static bool is_of_conf(const struct server *s, const char *name)
{
	return streq(name, path_base(s->conf->file)) ||
	       (s->conf->path && streq(name, path_base(s->conf->path)));
}

/* ---- events ---- */

static void on_event(void *data, uint32_t events)
{
	struct server *s = data;
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool of_conf = false, of_place = false;
	ssize_t n;

	/* What happened shows when we look. */
	while ((n = read(s->place->fd, buf, sizeof(buf))) > 0) {
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			of_conf = of_conf || (e->mask & IN_Q_OVERFLOW) ||
				  (e->len && is_of_conf(s, e->name));
			of_place = of_place || (e->mask & IN_Q_OVERFLOW) || e->wd == s->place->wd;
			p += sizeof(*e) + e->len;
		}
	}
	if (of_place && !is_whole(s)) {
		log_warn("files in %s were removed: leaving when %u running jobs have ended",
			 s->dir, s->n_running);
		server_abandon(s);
	} else if (of_conf) {
		place_check_conf(s);
	}
}

int place_watch(struct server *s, struct errmsg *msg)
{
	char path[32];
	int r = 0;

	s->place = xcalloc(1, sizeof(*s->place));
	s->place->fd = -1;
	if (fstatat(s->dir_fd, "project.sock", &s->place->sock, AT_SYMLINK_NOFOLLOW) < 0)
		return errmsg_set(msg, -errno, "can't find %s/project.sock: %s", s->dir,
				  err_text(-errno));
	s->place->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", s->dir_fd);
	s->place->wd = s->place->fd < 0 ? -1 : inotify_add_watch(s->place->fd, path, PLACE_MASK);
	if (s->place->wd < 0)
		r = -errno;
	if (r < 0) {
		/* The user's limit of watches: builds work as long as nobody cleans up. */
		log_warn("can't watch %s: %s; ignoring", s->dir, err_text(r));
		return 0;
	}
	s->place->source = loop_add_fd(s->loop, s->place->fd, LOOP_READ, on_event, s);
	s->place->conf_seen = s->conf->seen;
	watch_dir_of(s, s->conf->file);
	if (s->conf->path)
		watch_dir_of(s, s->conf->path);
	return 0;
}

const char *place_conf_error(const struct server *s)
{
	return s->place ? s->place->conf_error : NULL;
}

void place_stop_watching(struct server *s)
{
	if (s->place)
		loop_remove(steal_ptr(&s->place->source));
}

void place_close(struct server *s)
{
	if (!s->place)
		return;
	place_stop_watching(s);
	fd_close(&s->place->fd);
	free(s->place->conf_error);
	free(steal_ptr(&s->place));
}
