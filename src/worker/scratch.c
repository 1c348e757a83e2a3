/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/map.h"
#include "concc/str.h"

struct ended_job {
	struct list link;
	uint32_t id;
	unsigned n_uppers;
};

struct scratch {
	char *path;
	int fd;		   /* of path, locked while we live */
	struct list ended; /* struct ended_job whose directories are still there */
};

/* ---- rm -rf ---- */

/* Removes what can be in fd; the name of a directory that is not empty, or NULL. */
static int remove_flat(int fd, void (*busy)(void *data), void *data, char **ret_dir)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	int r = dir ? 0 : -errno;

	*ret_dir = NULL;
	if (!dir && copy >= 0)
		(void)close(copy);
	while (dir && r == 0 && !*ret_dir && (e = readdir(dir))) {
		if (streq(e->d_name, ".") || streq(e->d_name, ".."))
			continue;
		if (busy)
			busy(data);
		if (unlinkat(fd, e->d_name, 0) == 0 || unlinkat(fd, e->d_name, AT_REMOVEDIR) == 0)
			continue;
		if (errno == ENOTEMPTY || errno == EEXIST)
			*ret_dir = xstrdup(e->d_name);
		else
			r = -errno;
	}
	if (dir)
		(void)closedir(dir);
	return r;
}

static int enter(int *fd, const char *name)
{
	int next;

	/* Overlay's work directory has mode 0, and a job may leave anything. */
	(void)fchmodat(*fd, name, 0700, 0);
	next = openat(*fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (next < 0)
		return -errno;
	(void)close(*fd);
	*fd = next;
	return 0;
}

/* One fd however deep it goes: back up is "..", and nobody else is in there. */
int scratch_empty(int dirfd, void (*busy)(void *data), void *data)
{
	_cleanup_close_ int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_strv_ char **names = NULL;
	size_t depth = 0;
	int r = fd < 0 ? -errno : 0;

	while (r == 0) {
		char *sub;

		r = remove_flat(fd, busy, data, &sub);
		if (r < 0)
			break;
		if (sub) {
			r = enter(&fd, sub);
			strv_push(&names, sub);
			depth++;
		} else if (depth == 0) {
			break;
		} else {
			r = enter(&fd, "..");
			depth--;
			if (r == 0 && unlinkat(fd, names[depth], AT_REMOVEDIR) < 0)
				r = -errno;
			free(names[depth]);
			names[depth] = NULL;
		}
	}
	return r;
}

int scratch_remove_tree(int dirfd, const char *name)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	(void)fchmodat(dirfd, name, 0700, 0);
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = scratch_empty(fd, NULL, NULL);
	if (r < 0)
		return r;
	return unlinkat(dirfd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* ---- the directory of one launcher ---- */

static void sweep(int parent)
{
	int copy = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	if (!dir && copy >= 0)
		(void)close(copy);
	while (dir && (e = readdir(dir))) {
		_cleanup_close_ int fd = -1;

		if (e->d_name[0] == '.')
			continue;
		fd = openat(parent, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			(void)scratch_remove_tree(parent, e->d_name); /* the next agent tries too */
	}
	if (dir)
		(void)closedir(dir);
}

int scratch_new(struct scratch **ret, struct errmsg *msg)
{
	_cleanup_free_ char *cache = NULL, *parent = NULL, *path = NULL;
	_cleanup_close_ int parent_fd = -1, fd = -1;
	struct scratch *s;
	int r = cache_dir(&cache, msg);

	if (r < 0)
		return r;
	parent = path_join(cache, "scratch");
	r = path_mkdirs(parent, 0700);
	parent_fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r < 0 || parent_fd < 0)
		return errmsg_set(msg, r < 0 ? r : -errno, "can't make %s: %s", parent,
				  err_text(r < 0 ? r : -errno));
	/* One at a time, so that none is swept between its birth and its lock. */
	if (flock(parent_fd, LOCK_EX) < 0)
		return errmsg_set(msg, -errno, "can't lock %s: %s", parent, err_text(-errno));
	sweep(parent_fd);
	path = path_join(parent, "XXXXXX");
	if (mkdtemp(path))
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errmsg_set(msg, -errno, "can't make a directory in %s: %s", parent,
				  err_text(-errno));
	s = xcalloc(1, sizeof(*s));
	s->path = steal_ptr(&path);
	s->fd = steal_fd(&fd);
	list_init(&s->ended);
	*ret = s;
	return 0;
}

void scratch_free(struct scratch *s)
{
	int r;

	if (!s)
		return;
	r = scratch_remove_tree(AT_FDCWD, s->path);
	if (r < 0)
		log_warn("ignoring left-over %s: %s", s->path, err_text(r));
	list_for_each_safe (pos, &s->ended)
		free(container_of(pos, struct ended_job, link));
	(void)close(s->fd);
	free(s->path);
	free(s);
}

const char *scratch_path(const struct scratch *s)
{
	return s->path;
}

int scratch_clear(struct scratch *s)
{
	return scratch_empty(s->fd, NULL, NULL);
}

/* A job's directory is <id>/ with uppers u0, u1, ... and work directories w0, w1, ... */
static bool remove_job(int scratch_fd, const struct ended_job *j)
{
	_cleanup_close_ int fd = -1;
	char name[16], upper[16];

	snprintf(name, sizeof(name), "%u", j->id);
	fd = openat(scratch_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned i = 0; fd >= 0 && i < j->n_uppers; i++) {
		snprintf(upper, sizeof(upper), "u%u", i);
		if (unlinkat(fd, upper, AT_REMOVEDIR) < 0 && errno != ENOENT)
			return false; /* still to be read */
	}
	return scratch_remove_tree(scratch_fd, name) == 0;
}

void scratch_job_ended(struct scratch *s, uint32_t job_id, unsigned n_uppers)
{
	struct ended_job *j = xcalloc(1, sizeof(*j));

	j->id = job_id;
	j->n_uppers = n_uppers;
	list_append(&s->ended, &j->link);
	list_for_each_safe (pos, &s->ended) {
		struct ended_job *e = container_of(pos, struct ended_job, link);

		if (!remove_job(s->fd, e))
			continue;
		list_remove(pos);
		free(e);
	}
}
