/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Directories: which are compared with the disk, when, and in what order. */
#include "snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

static int scan_names(struct tree *t, struct dir *d, int fd)
{
	bool writable = false;
	ssize_t n;

	(void)tree_root_of(t, d->path, &writable);
	d->names.next_order = 0; /* as the disk has them; who is not met is gone */
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	while ((n = getdents64(fd, t->scan_buf, sizeof(t->scan_buf))) > 0) {
		for (char *p = t->scan_buf; p < t->scan_buf + n;) {
			struct dirent64 *de = (struct dirent64 *)p;
			struct ent *e;

			p += de->d_reclen;
			if (streq(de->d_name, ".") || streq(de->d_name, ".."))
				continue;
			if (str_starts(de->d_name, TEMP_PREFIX)) {
				if (writable)
					temp_clean(t, fd, de->d_name);
				continue;
			}
			if (strlen(de->d_name) > PROTO_NAME_MAX)
				continue;
			e = dir_add_name(t, d, de->d_name, strlen(de->d_name));
			e->flags |= ENT_SEEN;
			names_put_last(&d->names, e);
			(void)snap_check(t, d, fd, e, NULL); /* can't fail: there is such a name */
		}
	}
	/* ENOENT: one that was removed, and can still be seen where it is mounted.  It is empty. */
	return n < 0 && errno != ENOENT ? -errno : 0;
}

int dir_scan(struct tree *t, struct dir *d, int fd)
{
	struct ent *e;
	int err;

	t->counts.scans++;
	d->unknown = false;
	err = scan_names(t, d, fd);
	for (uint32_t it = 0; (e = names_next(&d->names, &it));) {
		if (!err && !(e->flags & ENT_SEEN))
			err = snap_check(t, d, fd, e, NULL);
		e->flags &= (uint16_t)~ENT_SEEN;
	}
	return err;
}

/* Events named them, but nothing is or was there. */
static void drop_placeholders(struct tree *t, struct dir *d)
{
	for (uint32_t i = 0; i < d->dirty.n; i++) {
		struct ent *e = d->dirty.v[i];

		e->flags &= (uint16_t)~ENT_DIRTY;
		if (e->type == ENTRY_ABSENT && !(e->flags & ENT_PENDING))
			dir_del_name(t, d, e);
	}
	ent_vec_release(&d->dirty);
}

/* Watched at last, or again: after an overflow the loss of a watch may have been missed. */
static void rewatch(struct tree *t, struct dir *d, int fd)
{
	int err = watch_dir(t, d, fd);

	dir_sweep(t, d, err || d->network || d->orphan);
}

bool fd_has_default_acl(int fd)
{
	return fgetxattr(fd, "system.posix_acl_default", NULL, 0) > 0;
}

/* Others may be there now that look the same. */
static void doubt_all(struct dir *d)
{
	struct ent *e;

	for (uint32_t it = 0; (e = names_next(&d->names, &it));)
		if (e->type == ENTRY_FILE || e->type == ENTRY_SYMLINK)
			e->flags |= ENT_WRITTEN;
}

static int dir_look_fd(struct tree *t, struct dir *d, int fd)
{
	bool all = d->scan_now;
	struct stat st;
	int err = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (fold_ino(t, st.st_dev, st.st_ino) != d->attr.ino)
		return CONCC_E_STALE;
	if (all || d->acl_suspect) {
		d->default_acl = fd_has_default_acl(fd);
		dir_note_access(t, d, fd, &st);
	}
	d->acl_suspect = false;
	if (all) {
		if (mounts_note_fs(t, d, fd))
			doubt_all(d);
		rewatch(t, d, fd);
		err = dir_scan(t, d, fd);
		d->scan_now = false;
	}
	for (uint32_t i = 0; !err && i < d->dirty.n; i++)
		err = snap_check(t, d, fd, d->dirty.v[i], NULL);
	drop_placeholders(t, d);
	/* Of what changed since the first look an event tells, if it was watched by then. */
	if (!err && all && fstat(fd, &st) < 0)
		err = -errno;
	if (!err)
		dir_set_attr(t, d, &st);
	return err;
}

static void dir_look(struct tree *t, struct dir *d)
{
	_cleanup_close_ int fd = -1;
	int err;

	d->queued = false;
	if (d->dropped)
		return;
	if (d->dead) {
		/* With a parent, that one's look has dropped it or will; without, it's ours. */
		if (!dir_entry(t, d))
			dir_forget(t, d);
		return;
	}
	fd = resolve_open(t, d->path, O_RDONLY | O_DIRECTORY);
	err = fd < 0 ? fd : dir_look_fd(t, d, fd);
	if (err == CONCC_E_STALE || err_is_fact(err)) {
		dir_mark_dead(t, d);
	} else if (err) {
		log_warn("can't look at %s: %s", d->path, err_text(err));
		dir_forget(t, d);
	}
}

static void queue_overflow(struct tree *t)
{
	struct dir *d;

	if (!t->overflow)
		return;
	t->overflow = false;
	t->counts.overflows++;
	t->roots_suspect = true;
	log_info("too many file events at once: comparing %zu directories with the disk",
		 t->by_path.n);
	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL));)
		dir_queue_scan(t, d);
}

void snap_sweep(struct tree *t)
{
	roots_look(t);
	leases_sweep(t);
	list_for_each (l, &t->sweep)
		dir_queue_scan(t, container_of(l, struct dir, in_sweep));
	list_for_each (i, &t->linked) {
		struct linked *l = container_of(i, struct linked, in_unwatched);

		dir_mark_ent(t, l->dir, l->ent, 0);
	}
}

/* Where no event tells of it. */
static void freshen_name(struct tree *t, struct dir *d, const char *name)
{
	const struct ent *e = dir_name(t, d, name, strlen(name));

	if (dir_is_swept(d))
		dir_mark_name(t, d, name, strlen(name), 0);
	else if (e && e->flags & ENT_LINKED && !hardlinks_is_watched(t, e))
		dir_mark_ent(t, d, (struct ent *)e, 0);
}

static void freshen_below(struct tree *t, struct dir *d)
{
	if (dir_is_swept(d))
		dir_queue_scan(t, d);
	list_for_each (l, &d->children)
		freshen_below(t, container_of(l, struct dir, siblings));
}

void snap_freshen(struct tree *t, const char *path)
{
	_cleanup_free_ char *name = NULL;
	struct dir *d;

	if (list_empty(&t->sweep) && list_empty(&t->linked))
		return;
	name = xstrdup(path);
	d = dir_find(t, path);
	if (d)
		freshen_below(t, d);
	while (name[1]) {
		char *parent = path_parent(name);

		d = dir_find(t, parent);
		if (d)
			freshen_name(t, d, path_base(name));
		free(name);
		name = parent;
	}
}

void snap_settle(struct tree *t)
{
	queue_overflow(t);
	do {
		if (t->roots_suspect)
			roots_check(t);
		for (size_t i = 0; i < t->queue.n; i++)
			dir_look(t, t->queue.v[i]);
		t->queue.n = 0;
		hardlinks_mark_new(t);
	} while (t->queue.n || t->roots_suspect);
	updates_flush(t);
}

uint64_t snap_note(struct tree *t, int dir_fd, const char *path, const struct digest *claim,
		   unsigned peer, bool written, struct stat *ret_st)
{
	_cleanup_free_ char *parent = path_parent(path);
	const char *base = path_base(path);
	struct dir *d = dir_find(t, parent);
	struct stat st;
	struct ent *e;
	uint64_t ino;

	if (!d) {
		if (fstatat(dir_fd, base, ret_st, AT_SYMLINK_NOFOLLOW) < 0)
			*ret_st = (struct stat){0};
		return ++t->version;
	}
	e = dir_add_name(t, d, base, strlen(base));
	ino = e->ino;
	if (written)
		e->flags |= ENT_WRITTEN;
	if (snap_check(t, d, dir_fd, e, ret_st) < 0)
		dir_mark_dead(t, d);
	/* Of the same file as before the directory is what it was. */
	else if ((e->ino != ino || !ret_st->st_mode) && fstat(dir_fd, &st) == 0)
		dir_set_attr(t, d, &st);
	if (claim && e->type == ENTRY_FILE && !e->known) {
		ent_set_known(e, claim, (uint16_t)peer);
		e->flags |= ENT_RACY; /* the bytes were read before they got these times */
	}
	/* A name that was not there and is not: looked at, to be dropped, at the end. */
	if (e->type == ENTRY_ABSENT && !(e->flags & ENT_PENDING))
		dir_mark_ent(t, d, e, 0);
	return e->type == ENTRY_ABSENT && !e->version ? ++t->version : e->version;
}
