/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A directory in which no event tells of changes is compared with the disk before each job, an
 * lstat for each of its names: too dear for what no job looks at any more.  Nobody says what jobs
 * look at, since what a worker was told it need not ask for again.  So what is told of such a
 * directory is good for a number of sweeps; then it is taken back (DIR_STALE), and it is swept no
 * more until it is asked for: then for twice as long.
 *
 * Of what it held then, jobs that have begun before still depend, for the conflict checks.  When
 * none is left it is forgotten, and who asks for it has it read as if it had never been known:
 * else what was changed while nobody looked would have changed since the job that asks began.
 */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define LEASE_MIN  8
#define LEASE_MAX  8192
#define LEASES_MAX (64 * 1024) /* directories: some 10 MB */

void lease_begin(struct tree *t, struct dir *d)
{
	uint32_t last = (uint32_t)(uintptr_t)map_get_str(&t->leases, d->path);

	d->idle_since = 0;
	d->lease = last < LEASE_MIN ? LEASE_MIN : last < LEASE_MAX ? 2 * last : LEASE_MAX;
	d->lease_left = d->lease;
}

/* Those of its directories are found by it. */
static bool may_end(const struct tree *t, const struct dir *d)
{
	if (!d->parent || d->queued || d->flush_queued || t->leases.n >= LEASES_MAX)
		return false;
	list_for_each (l, &d->children)
		if (!container_of(l, const struct dir, siblings)->idle_since)
			return false;
	return true;
}

static void end(struct tree *t, struct dir *d)
{
	const struct peer_set told = d->subscribers;

	d->lease_left = LEASE_MIN;
	if (!may_end(t, d))
		return;
	(void)map_put_str(&t->leases, d->path, (void *)(uintptr_t)d->lease);
	d->idle_since = ++t->version;
	list_remove(&d->in_sweep);
	list_append(&t->idle, &d->in_sweep);
	d->subscribers = (struct peer_set){0};
	updates_send_stale(t, &told, d->id);
}

/* Ended before its parent's did, so it comes first. */
static void forget_idle(struct tree *t)
{
	list_for_each_safe (l, &t->idle) {
		struct dir *d = container_of(l, struct dir, in_sweep);

		if (d->idle_since > t->horizon)
			return;
		dir_drop(t, d, NULL);
	}
}

void leases_sweep(struct tree *t)
{
	forget_idle(t);
	list_for_each_safe (l, &t->sweep) {
		struct dir *d = container_of(l, struct dir, in_sweep);

		if (--d->lease_left == 0)
			end(t, d);
	}
}

static struct dir *deepest_known(const struct tree *t, const char *path)
{
	_cleanup_free_ char *name = xstrdup(path);
	struct dir *d = dir_find(t, name);

	while (!d && name[1]) {
		char *parent = path_parent(name);

		free(name);
		name = parent;
		d = dir_find(t, name);
	}
	return d;
}

void lease_renew(struct tree *t, const char *path)
{
	struct dir *d, *top = NULL;

	if (list_empty(&t->idle))
		return;
	d = deepest_known(t, path);
	for (struct dir *p = d; p && p->idle_since; p = p->parent)
		top = p;
	if (top && top->idle_since <= t->horizon) {
		dir_drop(t, top, NULL);
		return;
	}
	for (; d && d->idle_since; d = d->parent) {
		dir_sweep(t, d, false);
		dir_sweep(t, d, true);
		dir_queue_scan(t, d);
	}
}
