/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "commit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

static int64_t ns_of(int64_t s, uint32_t ns)
{
	const int64_t max = INT64_MAX / 1000000000 - 1;

	/* Of a worker's clock that is far out, nothing can be kept. */
	return (s > max ? max : s < -max ? -max : s) * 1000000000 + ns;
}

/* As file systems tell the time, which a precise clock would be ahead of. */
int64_t clock_coarse_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME_COARSE, &t);
	return ns_of(t.tv_sec, (uint32_t)t.tv_nsec);
}

void effect_times(const struct effect *e, const struct stat *was, struct timespec ret[2])
{
	/* Both times: setting one alone is reported as MODIFY (fsnotify_change in
	 * include/linux/fsnotify.h), after which the bytes would count as new. */
	ret[0] = was ? was->st_atim : (struct timespec){.tv_nsec = UTIME_NOW};
	if (e->flags & EFFECT_F_ATIME)
		ret[0] = (struct timespec){.tv_sec = e->atime_s, .tv_nsec = e->atime_ns};
	ret[1] = e->flags & EFFECT_F_MTIME
			 ? (struct timespec){.tv_sec = e->mtime_s, .tv_nsec = e->mtime_ns}
			 : (struct timespec){.tv_nsec = UTIME_NOW};
}

/* Written by the job, with no time of its own choice: its order among the others counts. */
static bool has_order(const struct effect *e)
{
	return !(e->flags & EFFECT_F_MTIME) &&
	       (e->kind == EFFECT_FILE || e->kind == EFFECT_SYMLINK ||
		(e->kind == EFFECT_META && e->flags & EFFECT_F_TOUCHED));
}

/*
 * What a time there is here: as long before the last of its batch as it was, not before the
 * dispatch, and after all that was earlier.  Equal times stay equal, in all of the job.
 */
static int64_t time_here(const struct commit *c, int64_t there)
{
	int64_t from, at;
	size_t i = 0;

	while (i + 1 < c->n_stamps && c->stamps[i].there < there)
		i++;
	from = i ? c->stamps[i - 1].here + 1 : c->dispatched;
	if (__builtin_sub_overflow(c->stamps[i].there, there, &at) ||
	    __builtin_sub_overflow(c->stamps[i].here, at, &at) || at < from)
		at = from;
	return at < c->stamps[i].here ? at : c->stamps[i].here;
}

static void push_stamp(struct commit *c, int64_t there, int64_t here)
{
	const struct stamp *last = c->n_stamps ? &c->stamps[c->n_stamps - 1] : NULL;

	if (last && there <= last->there)
		return;
	if (last && here < last->here)
		here = last->here;
	if (c->n_stamps == STAMPS_MAX)
		memmove(c->stamps, c->stamps + 1, --c->n_stamps * sizeof(c->stamps[0]));
	c->stamps[c->n_stamps++] = (struct stamp){there, here};
}

/* When the bytes came, by the clock of the file system that they are on. */
static int64_t arrival_of(const struct effect *e)
{
	struct stat st;

	if (!e->temp || e->temp_fd < 0 ||
	    fstatat(e->temp_fd, path_base(e->temp), &st, AT_SYMLINK_NOFOLLOW) < 0)
		return clock_coarse_ns();
	return ns_of(st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec);
}

/*
 * Times by a clock that agrees with ours, between the dispatch and the arrival, may stay what they
 * are: the job may have written them down.  For a compiler that is a system call not worth it.
 */
static bool stays_as_it_is(const struct commit *c, int64_t first, int64_t last, int64_t arrival)
{
	return c->any_command && c->dispatched <= first && last <= arrival;
}

void commit_stamp(struct commit *c)
{
	struct effect *last = NULL;
	int64_t first_there = INT64_MAX, last_there = INT64_MIN, arrival;

	for (struct effect *e = c->effects; e < c->effects + c->n; e++) {
		int64_t there = ns_of(e->mtime_s, e->mtime_ns);

		if (!has_order(e))
			continue;
		if (there < first_there)
			first_there = there;
		if (last_there <= there) {
			last_there = there;
			last = e;
		}
	}
	if (!last)
		return;
	arrival = arrival_of(last);
	push_stamp(c, last_there,
		   stays_as_it_is(c, first_there, last_there, arrival) ? last_there : arrival);
	for (struct effect *e = c->effects; e < c->effects + c->n; e++) {
		int64_t here;

		if (!has_order(e))
			continue;
		here = time_here(c, ns_of(e->mtime_s, e->mtime_ns));
		e->here = here;
		if (e == last && e->temp && here == arrival)
			continue;
		e->mtime_s = here / 1000000000;
		e->mtime_ns = (uint32_t)(here % 1000000000);
		e->flags |= EFFECT_F_MTIME;
		e->stamped = true;
	}
}

/* ---- of directories ---- */

/* None: it was made by this batch. */
#define NEVER INT64_MIN

static int64_t dir_mtime(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? NEVER : ns_of(st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec);
}

static struct dir_time *dir_time_of(struct commit *c, const char *dir, size_t len, int64_t was)
{
	struct dir_time *d = map_get(&c->dir_times, dir, len);

	if (!d) {
		d = xcalloc(1, sizeof(*d));
		*d = (struct dir_time){.was = was, .last = was};
		(void)map_put(&c->dir_times, dir, len, d);
	}
	return d;
}

static size_t dir_len(const char *path)
{
	return (size_t)(path_base(path) - path) - 1;
}

void dir_time_before(struct commit *c, int dir_fd, const char *path)
{
	int64_t now = dir_mtime(dir_fd);
	struct dir_time *d = dir_time_of(c, path, dir_len(path), now);

	d->leave |= d->last != now && d->last != NEVER;
}

void dir_time_after(struct commit *c, int dir_fd, const char *path, int64_t name)
{
	struct dir_time *d = dir_time_of(c, path, dir_len(path), NEVER);

	d->last = dir_mtime(dir_fd);
	d->leave |= name == NAME_UNKNOWN;
	if (name > d->names)
		d->names = name;
}

void dir_time_made(struct commit *c, const char *dir)
{
	struct dir_time *d = dir_time_of(c, dir, strlen(dir), NEVER);

	*d = (struct dir_time){.was = NEVER, .last = NEVER};
}

int64_t dir_time_of_name(const struct commit *c, const struct effect *e)
{
	/* What it made in it was later. */
	if (e->kind == EFFECT_DIR && c->n_stamps)
		return time_here(c, ns_of(e->mtime_s, e->mtime_ns));
	return e->here;
}

static void restore(struct commit *c, const char *path, const struct dir_time *d)
{
	int64_t want = d->was > d->names ? d->was : d->names;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};
	struct dir *dir = dir_find(c->tree, path);
	_cleanup_close_ int opened = -1;
	int fd = c->dir_fd;

	if (d->leave || want <= 0 || d->last <= want)
		return;
	/* That of the last effect, most likely. */
	if (fd < 0 || !path_is_below(c->dir_path, path) || c->dir_path[strlen(path) + 1])
		fd = opened = resolve_open(c->tree, path, O_PATH | O_DIRECTORY);
	if (fd < 0 || dir_mtime(fd) != d->last)
		return;
	times[1] = (struct timespec){want / 1000000000, want % 1000000000};
	watch_own_events(c->tree, 2);
	if (utimensat(fd, ".", times, 0) < 0) /* another user's */
		return;
	if (dir)
		dir_queue(c->tree, dir);
}

int dir_times_restore(struct commit *c)
{
	const struct dir_time *d;
	const char *path;

	while ((d = map_next(&c->dir_times, &c->it_times, &path))) {
		restore(c, path, d);
		if (commit_is_over(c))
			return CONCC_E_LATER;
	}
	return 0;
}

void dir_times_forget(struct commit *c)
{
	struct dir_time *d;

	for (size_t it = 0; (d = map_next(&c->dir_times, &it, NULL));)
		free(d);
	map_release(&c->dir_times);
	c->dir_times = MAP_INIT;
	c->it_times = 0;
}
