/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/str.h"

static void new_link(struct tree *t, uint64_t ino)
{
	if (t->n_new_links == t->cap_new_links) {
		t->cap_new_links = t->cap_new_links ? t->cap_new_links * 2 : 64;
		t->new_links = xrealloc(t->new_links, t->cap_new_links * sizeof(uint64_t));
	}
	t->new_links[t->n_new_links++] = ino;
}

void hardlinks_forget(struct tree *t, struct linked *l)
{
	l->ent->flags &= (uint16_t)~ENT_LINKED;
	watch_release_link(t, l);
	list_remove(&l->in_unwatched);
	list_remove(&l->in_dir);
	(void)map_del_u64(&t->linked_by_ent, (uintptr_t)l->ent);
	t->counts.linked--;
	free(l);
}

static struct linked *linked_of(const struct tree *t, const struct ent *e)
{
	return e->flags & ENT_LINKED ? map_get_u64(&t->linked_by_ent, (uintptr_t)e) : NULL;
}

static void linked_watch(struct tree *t, struct linked *l, int fd, bool in_vain)
{
	_cleanup_close_ int file = openat(fd, l->ent->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (in_vain || file < 0 || fstat(file, &st) < 0 ||
	    fold_ino(t, st.st_dev, st.st_ino) != l->ent->ino || watch_link(t, l, file) < 0)
		list_append(&t->linked, &l->in_unwatched);
}

static void linked_begin(struct tree *t, struct dir *d, int fd, struct ent *e, bool in_vain)
{
	struct linked *l = xcalloc(1, sizeof(*l));

	e->flags |= ENT_LINKED;
	l->dir = d;
	l->ent = e;
	list_init(&l->in_watch);
	list_init(&l->in_unwatched);
	list_append(&d->linked, &l->in_dir);
	(void)map_put_u64(&t->linked_by_ent, (uintptr_t)e, l);
	t->counts.linked++;
	linked_watch(t, l, fd, in_vain);
	new_link(t, e->ino);
}

static bool is_linked(const struct ent *e, bool mounted)
{
	if (e->type == ENTRY_ABSENT || e->type == ENTRY_UNKNOWN)
		return false;
	return (e->type != ENTRY_DIR && e->nlink > 1) || mounted;
}

bool hardlinks_track(struct tree *t, struct dir *d, int fd, struct ent *e, bool same, bool mounted,
		     bool in_vain)
{
	bool was = e->flags & ENT_LINKED;
	bool linked = is_linked(e, mounted) || (same && was && e->type != ENTRY_DIR);

	if (was && !(linked && same))
		hardlinks_forget(t, linked_of(t, e));
	if (!linked || (was && same))
		return false;
	linked_begin(t, d, fd, e, in_vain);
	return true;
}

bool hardlinks_is_watched(const struct tree *t, const struct ent *e)
{
	const struct linked *l = linked_of(t, e);

	return l && l->watch;
}

/* May it be written by another name, that comes up one day, without an event of this one? */
static bool has_one_name(const struct ent *e)
{
	return e->type != ENTRY_ABSENT && e->type != ENTRY_UNKNOWN && e->type != ENTRY_DIR &&
	       e->nlink == 1;
}

void hardlinks_index(struct tree *t, const struct dir *d, const struct ent *e)
{
	if (has_one_name(e))
		inodes_add(&t->inodes, e->ino, d->id);
}

void hardlinks_unindex(struct tree *t, const struct dir *d, const struct ent *e)
{
	if (has_one_name(e))
		inodes_del(&t->inodes, e->ino, d->id);
}

static int ino_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void note_dir(void *data, uint32_t dir_id)
{
	struct tree *t = data;
	struct dir *d = map_get_u64(&t->by_id, dir_id);

	if (d && !d->in_links)
		dir_vec_push(&t->link_dirs, d);
	if (d)
		d->in_links = true;
}

static void mark_links(struct tree *t, struct dir *d)
{
	struct ent *e;

	t->counts.walked += d->names.n;
	for (uint32_t i = 0; (e = names_next(&d->names, &i));) {
		if (has_one_name(e) &&
		    bsearch(&e->ino, t->new_links, t->n_new_links, sizeof(uint64_t), ino_cmp))
			dir_mark_ent(t, d, e, 0);
	}
}

void hardlinks_mark_new(struct tree *t)
{
	if (!t->n_new_links)
		return;
	qsort(t->new_links, t->n_new_links, sizeof(uint64_t), ino_cmp);
	for (size_t i = 0; i < t->n_new_links; i++)
		inodes_find(&t->inodes, t->new_links[i], note_dir, t);
	for (size_t i = 0; i < t->link_dirs.n; i++) {
		mark_links(t, t->link_dirs.v[i]);
		t->link_dirs.v[i]->in_links = false;
	}
	t->link_dirs.n = 0;
	t->n_new_links = 0;
}
