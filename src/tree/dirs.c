/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

struct dir *dir_find(const struct tree *t, const char *path)
{
	return map_get_str(&t->by_path, path);
}

void dir_vec_push(struct dir_vec *v, struct dir *d)
{
	if (v->n == v->cap) {
		v->cap = v->cap ? v->cap * 2 : 16;
		v->v = xrealloc(v->v, v->cap * sizeof(struct dir *));
	}
	v->v[v->n++] = d;
}

void dir_queue(struct tree *t, struct dir *d)
{
	dir_touch(t, d);
	if (d->queued || d->dropped)
		return;
	d->queued = true;
	dir_vec_push(&t->queue, d);
}

void dir_queue_scan(struct tree *t, struct dir *d)
{
	d->scan_now = true;
	dir_queue(t, d);
}

void dir_sweep(struct tree *t, struct dir *d, bool on)
{
	if (!on) {
		list_remove(&d->in_sweep);
		d->idle_since = 0;
	} else if (list_empty(&d->in_sweep)) {
		list_append(&t->sweep, &d->in_sweep);
		lease_begin(t, d);
	}
}

struct ent *dir_name(const struct tree *t, const struct dir *d, const char *name, size_t len)
{
	return names_find(&d->names, t->name_seed, name, len);
}

struct ent *dir_add_name(struct tree *t, struct dir *d, const char *name, size_t len)
{
	struct ent *e = dir_name(t, d, name, len);

	if (e)
		return e;
	t->counts.entries++;
	return names_add(&d->names, t->name_seed, name, len);
}

void dir_del_name(struct tree *t, struct dir *d, struct ent *e)
{
	t->counts.entries--;
	names_remove(&d->names, t->name_seed, e);
}

static void mark(struct tree *t, struct dir *d, struct ent *e, unsigned flags)
{
	e->flags |= (uint16_t)flags;
	if (!(e->flags & ENT_DIRTY)) {
		e->flags |= ENT_DIRTY;
		ent_vec_push(&d->dirty, e);
	}
	dir_queue(t, d);
}

void dir_mark_name(struct tree *t, struct dir *d, const char *name, size_t len, unsigned flags)
{
	if (len && len <= PROTO_NAME_MAX)
		mark(t, d, dir_add_name(t, d, name, len), flags);
}

void dir_mark_ent(struct tree *t, struct dir *d, struct ent *e, unsigned flags)
{
	mark(t, d, e, flags);
}

struct ent *dir_entry(const struct tree *t, const struct dir *d)
{
	const char *base = path_base(d->path);
	struct ent *e;

	if (!d->parent)
		return NULL;
	e = dir_name(t, d->parent, base, strlen(base));
	return e && e->type == ENTRY_DIR && e->child == d ? e : NULL;
}

void dir_mark_dead(struct tree *t, struct dir *d)
{
	struct ent *e = dir_entry(t, d);

	d->dead = true;
	if (e)
		dir_mark_ent(t, d->parent, e, 0);
	else
		dir_queue(t, d);
	/* The root itself may have been replaced. */
	if (!d->parent)
		t->roots_suspect = true;
}

void dir_forget(struct tree *t, struct dir *d)
{
	_cleanup_free_ char *parent = path_parent(d->path);

	/* Listings that are void by an UPDATE of what is dropped here would be by none. */
	updates_send(t);
	/* What was there when a job began, and what is now, is not known: for it, that is a change.
	 */
	tomb_put(t, parent, path_base(d->path), ++t->version);
	dir_drop(t, d, NULL);
}

void dir_drop(struct tree *t, struct dir *d, const struct peer_set *covered)
{
	struct peer_set stale = d->subscribers;
	struct peer_set below = {0};
	struct ent *e = dir_entry(t, d);
	const struct ent *name;

	for (size_t i = 0; covered && i < TREE_PEERS_MAX / 64; i++) {
		stale.w[i] &= ~covered->w[i];
		below.w[i] = d->subscribers.w[i] & covered->w[i];
	}
	updates_send_stale(t, &stale, d->id);
	list_for_each_safe (l, &d->children)
		dir_drop(t, container_of(l, struct dir, siblings), &below);
	if (e)
		e->child = NULL;
	list_remove(&d->siblings);
	list_remove(&d->in_sweep);
	list_for_each_safe (l, &d->linked)
		hardlinks_forget(t, container_of(l, struct linked, in_dir));
	for (uint32_t it = 0; (name = names_next(&d->names, &it));)
		hardlinks_unindex(t, d, name);
	t->counts.entries -= d->names.n;
	t->counts.dirs--;
	watch_release_dir(t, d);
	map_del_str(&t->by_path, d->path);
	map_del_u64(&t->by_id, d->id);
	d->dropped = true;
	list_append(&t->grave, &d->siblings);
}

void dir_free(struct dir *d)
{
	names_release(&d->names);
	ent_vec_release(&d->dirty);
	ent_vec_release(&d->pending);
	free(d->path);
	free(d);
}

/* Makes the parent's entry lead to d; looks at it again when it does not fit: CONCC_E_STALE. */
static int link_parent(struct tree *t, struct dir *d, struct dir *parent)
{
	_cleanup_close_ int fd = -1;
	const char *base = path_base(d->path);
	struct ent *e = dir_name(t, parent, base, strlen(base));
	int err;

	if (!e || e->type != ENTRY_DIR || e->ino != d->attr.ino) {
		fd = resolve_open(t, parent->path, O_PATH | O_DIRECTORY);
		if (fd < 0)
			return fd;
		e = dir_add_name(t, parent, base, strlen(base));
		err = snap_check(t, parent, fd, e, NULL);
		if (err || e->type != ENTRY_DIR || e->ino != d->attr.ino) {
			dir_mark_ent(t, parent, e, 0);
			return err ? err : CONCC_E_STALE;
		}
	}
	e->child = d;
	d->parent = parent;
	list_append(&parent->children, &d->siblings);
	return 0;
}

static struct dir *dir_alloc(struct tree *t, const char *path)
{
	struct dir *d = xcalloc(1, sizeof(*d));

	d->id = ++t->next_id;
	dir_touch(t, d);
	d->route = d->stamp;
	d->path = xstrdup(path);
	d->was_told = map_get_str(&t->leases, path); /* it may be watched by now */
	list_init(&d->siblings);
	list_init(&d->children);
	list_init(&d->in_watch);
	list_init(&d->in_sweep);
	list_init(&d->linked);
	map_put_borrowed(&t->by_path, d->path, d);
	map_put_u64(&t->by_id, d->id, d);
	t->counts.dirs++;
	return d;
}

/* Of reading a directory that was opened: what it would not tell is no fact about it. */
static int read_error(int err)
{
	return err_is_fact(err) ? -EIO : err;
}

/* Watched first, read after: what falls between has an event. */
static int dir_read(struct tree *t, struct dir *d, int fd, bool orphan)
{
	struct stat st;
	struct ent *e;
	int err = watch_dir(t, d, fd);

	if (err == -ENOSPC)
		log_debug("no watch for %s: compared with the disk at each job", d->path);
	(void)mounts_note_fs(t, d, fd);
	d->orphan = orphan;
	d->elsewhere = root_find(t, d->path)->source;
	dir_sweep(t, d, err || d->network || orphan);
	mounts_note_dir(t, d->path);
	err = dir_scan(t, d, fd);
	if (err)
		return read_error(err);
	for (uint32_t it = 0; (e = names_next(&d->names, &it));) {
		e->flags &= (uint16_t)~ENT_PENDING;
		/* Seen by readdir, gone before its lstat. */
		if (e->type == ENTRY_ABSENT)
			dir_mark_ent(t, d, e, 0);
	}
	ent_vec_release(&d->pending);
	if (fstat(fd, &st) < 0)
		return -errno;
	d->default_acl = fd_has_default_acl(fd);
	dir_set_attr(t, d, &st);
	d->attr_changed = false;
	d->known_since = ++t->version;
	return 0;
}

static int dir_make(struct tree *t, const char *path, struct dir *parent, bool orphan,
		    struct dir **ret)
{
	_cleanup_close_ int fd = resolve_open(t, path, O_RDONLY | O_DIRECTORY);
	struct stat st;
	struct dir *d;
	int err;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	d = dir_alloc(t, path);
	dir_init_attr(t, d, &st);
	dir_note_access(t, d, fd, &st);
	err = parent ? link_parent(t, d, parent) : 0;
	if (!err)
		err = dir_read(t, d, fd, orphan);
	if (err)
		dir_drop(t, d, NULL);
	else
		*ret = d;
	return err;
}

int dir_ensure(struct tree *t, const char *path, struct dir **ret)
{
	const struct root *top = root_outermost(t, path);
	_cleanup_free_ char *prefix = NULL;
	bool orphan = false;
	struct dir *d;
	size_t len;

	lease_renew(t, path);
	d = dir_find(t, path);
	*ret = d;
	if (d)
		return 0;
	if (!top)
		return -EACCES;
	prefix = xstrdup(path);
	for (len = strlen(top->path);; len += 1 + strcspn(path + len + 1, "/")) {
		struct dir *parent = d;
		int err = 0;

		if (len == 1)
			len = 0; /* served "/" : the next part starts at its slash */
		memcpy(prefix, path, len ? len : 1);
		prefix[len ? len : 1] = '\0';
		d = dir_find(t, prefix);
		if (!d)
			err = dir_make(t, prefix, parent, orphan, &d);
		if (!path[len] || (len == 0 && !path[1])) {
			*ret = d;
			return err;
		}
		if (err && err != -EACCES)
			return err;
		orphan = !d;
	}
}
