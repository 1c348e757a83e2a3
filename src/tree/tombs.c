/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

static void tomb_free(struct tree *t, struct tomb *tomb)
{
	map_del_str(&t->tombs, tomb->path);
	list_remove(&tomb->order);
	free(tomb);
}

void tomb_put(struct tree *t, const char *dir, const char *name, uint64_t version)
{
	size_t dir_len = dir[1] ? strlen(dir) : 0;
	size_t len = dir_len + 1 + strlen(name);
	struct tomb *tomb;
	struct tomb *old;

	commits_hear(t, dir, name, false, true);
	if (t->horizon >= version)
		return;
	tomb = xmalloc(sizeof(*tomb) + len + 1);
	memcpy(tomb->path, dir, dir_len);
	tomb->path[dir_len] = '/';
	strcpy(tomb->path + dir_len + 1, name);
	tomb->version = version;
	list_append(&t->tomb_order, &tomb->order);
	old = map_put_str(&t->tombs, tomb->path, tomb);
	if (old) {
		list_remove(&old->order);
		free(old);
	}
	tombs_trim(t);
}

uint64_t tomb_version(const struct tree *t, const char *path)
{
	const struct tomb *tomb = map_get_str(&t->tombs, path);

	return tomb ? tomb->version : 0;
}

bool tombs_in_since(const struct tree *t, const char *dir, uint64_t version)
{
	for (const struct list *l = t->tomb_order.prev; l != &t->tomb_order; l = l->prev) {
		const struct tomb *tomb = container_of(l, const struct tomb, order);
		_cleanup_free_ char *parent = NULL;

		if (tomb->version <= version)
			return false;
		parent = path_parent(tomb->path);
		if (streq(parent, dir))
			return true;
	}
	return false;
}

void tombs_trim(struct tree *t)
{
	while (!list_empty(&t->tomb_order)) {
		struct tomb *first = list_first(&t->tomb_order, struct tomb, order);

		if (first->version > t->horizon && t->tombs.n <= TOMBS_MAX)
			return;
		if (first->version > t->horizon)
			t->tomb_floor = first->version;
		tomb_free(t, first);
	}
}
