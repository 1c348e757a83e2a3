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
			(void)path_remove_tree(parent, e->d_name); /* the next agent tries too */
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
	r = path_remove_tree(AT_FDCWD, s->path);
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
	return path_empty_dir(s->fd);
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
	return path_remove_tree(scratch_fd, name) == 0;
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
