/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

#define DIR_MASK                                                                                   \
	(IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM |          \
	 IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK)
#define LINK_MASK (IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF)
#define ANCHOR_MASK                                                                                \
	(IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

/*
 * What is known of file systems.  Local: nobody but this kernel changes them, so that inotify tells
 * of all that is done to them.  Stamps: see struct fs_traits.  Those that linux/magic.h does not
 * have, or not for long, are named by their number.
 */
enum { LOCAL = 1, STAMPS = 2 };

static const struct fs_type {
	uint32_t magic;
	unsigned is;
} types[] = {
	{EXT4_SUPER_MAGIC, LOCAL | STAMPS}, /* ext2 and ext3, too */
	{BTRFS_SUPER_MAGIC, LOCAL | STAMPS},
	{XFS_SUPER_MAGIC, LOCAL | STAMPS},
	{TMPFS_MAGIC, LOCAL | STAMPS}, /* devtmpfs, too */
	{RAMFS_MAGIC, LOCAL | STAMPS},
	/* What is beneath must not be changed by the kernel's own rules. */
	{OVERLAYFS_SUPER_MAGIC, LOCAL | STAMPS},
	{F2FS_SUPER_MAGIC, LOCAL | STAMPS},
	{REISERFS_SUPER_MAGIC, LOCAL | STAMPS},
	{NILFS_SUPER_MAGIC, LOCAL | STAMPS},
	{MSDOS_SUPER_MAGIC, LOCAL},
	{HPFS_SUPER_MAGIC, LOCAL},
	{MINIX_SUPER_MAGIC, LOCAL},
	{MINIX_SUPER_MAGIC2, LOCAL},
	{MINIX2_SUPER_MAGIC, LOCAL},
	{MINIX2_SUPER_MAGIC2, LOCAL},
	{MINIX3_SUPER_MAGIC, LOCAL},
	{AFFS_SUPER_MAGIC, LOCAL},
	{ADFS_SUPER_MAGIC, LOCAL},
	{ISOFS_SUPER_MAGIC, LOCAL},
	{SQUASHFS_MAGIC, LOCAL},
	{CRAMFS_MAGIC, LOCAL},
	{0x2011bab0, LOCAL},	      /* exFAT */
	{0x15013346, LOCAL},	      /* UDF */
	{0xe0f5e1e2, LOCAL},	      /* EROFS */
	{0x2fc12fc1, LOCAL | STAMPS}, /* OpenZFS */
	{0xca451a4e, LOCAL | STAMPS}, /* bcachefs */
	{0x3153464a, LOCAL | STAMPS}, /* JFS */
	{0x7366746e, LOCAL | STAMPS}, /* ntfs3 */
	{0x5346544e, LOCAL},	      /* ntfs */
	{0x4244, LOCAL},	      /* HFS */
	{0x482b, LOCAL},	      /* HFS+ */
	{0x00011954, LOCAL},	      /* UFS */
	{0x19540119, LOCAL},	      /* UFS2 */
	{0x7275, LOCAL},	      /* romfs */
	{0x61756673, LOCAL},	      /* aufs */
	{NFS_SUPER_MAGIC, STAMPS},
	{CEPH_SUPER_MAGIC, STAMPS},
	{0x0bd00bd0, STAMPS}, /* Lustre */
	{0x47504653, STAMPS}, /* GPFS */
};

struct fs_traits fs_traits_of_type(uint32_t magic)
{
	for (const struct fs_type *t = types; t < types + N_OF(types); t++) {
		if (t->magic == magic)
			return (struct fs_traits){!(t->is & LOCAL), t->is & STAMPS};
	}
	return (struct fs_traits){.network = true};
}

struct fs_traits fs_traits(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return (struct fs_traits){.network = true};
	return fs_traits_of_type((uint32_t)fs.f_type);
}

bool fs_is_network(int fd)
{
	return fs_traits(fd).network;
}

/* Through /proc, so that the directory watched is the one that was opened, whatever its path. */
static int watch_fd(struct tree *t, int fd, uint32_t mask, struct watch **ret)
{
	char proc[32];
	struct watch *w;
	int wd;

	(void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	/* One inode has one watch, whose purposes add up. */
	wd = inotify_add_watch(t->inotify_fd, proc, mask | IN_MASK_ADD);
	if (wd < 0)
		return -errno;
	w = map_get_u64(&t->watches, (uint64_t)wd);
	if (!w) {
		w = xcalloc(1, sizeof(*w));
		w->wd = wd;
		list_init(&w->dirs);
		list_init(&w->anchors);
		list_init(&w->links);
		map_put_u64(&t->watches, (uint64_t)wd, w);
		t->counts.watches++;
	}
	*ret = w;
	return 0;
}

static void watch_forget(struct tree *t, struct watch *w)
{
	map_del_u64(&t->watches, (uint64_t)w->wd);
	t->counts.watches--;
	free(w);
}

static void watch_release(struct tree *t, struct watch *w)
{
	if (!list_empty(&w->dirs) || !list_empty(&w->anchors) || !list_empty(&w->links))
		return;
	/* EINVAL when the kernel dropped it already and IN_IGNORED is on its way. */
	(void)inotify_rm_watch(t->inotify_fd, w->wd);
	watch_forget(t, w);
}

int watch_dir(struct tree *t, struct dir *d, int fd)
{
	struct watch *w;
	int err;

	if (!d->watch && t->limits.max_watches && t->counts.watches >= t->limits.max_watches)
		return -ENOSPC;
	err = watch_fd(t, fd, DIR_MASK, &w);
	if (err || w == d->watch)
		return err;
	watch_release_dir(t, d);
	d->watch = w;
	list_append(&w->dirs, &d->in_watch);
	return 0;
}

void watch_release_dir(struct tree *t, struct dir *d)
{
	struct watch *w = d->watch;

	if (!w)
		return;
	d->watch = NULL;
	list_remove(&d->in_watch);
	watch_release(t, w);
}

/* All watches there may be, but for a quarter, are the directories': without theirs all is
 * compared. */
void watch_init(struct tree *t)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	uint64_t max = 0;

	if (read_file_at(AT_FDCWD, "/proc/sys/fs/inotify/max_user_watches", 64, &b) >= 0)
		max = strtoull(buf_cstr(&b), NULL, 10);
	t->link_watches_max = max / 4;
}

int watch_link(struct tree *t, struct linked *l, int fd)
{
	struct watch *w;
	int err;

	if (t->counts.link_watches >= t->link_watches_max ||
	    (t->limits.max_watches && t->counts.watches >= t->limits.max_watches))
		return -ENOSPC;
	err = watch_fd(t, fd, LINK_MASK, &w);
	if (err)
		return err;
	if (list_empty(&w->links))
		t->counts.link_watches++;
	l->watch = w;
	list_append(&w->links, &l->in_watch);
	return 0;
}

static void link_unwatched(struct tree *t, struct linked *l)
{
	list_remove(&l->in_watch);
	if (list_empty(&l->watch->links))
		t->counts.link_watches--;
	l->watch = NULL;
}

void watch_release_link(struct tree *t, struct linked *l)
{
	struct watch *w = l->watch;

	if (!w)
		return;
	link_unwatched(t, l);
	watch_release(t, w);
}

int watch_anchor(struct tree *t, struct root *r, int fd, const char *name)
{
	struct watch *w;
	struct anchor *a;
	int err = watch_fd(t, fd, ANCHOR_MASK, &w);

	if (err)
		return err;
	a = xcalloc(1, sizeof(*a));
	a->root = r;
	a->watch = w;
	a->name = xstrdup(name);
	list_append(&w->anchors, &a->in_watch);
	list_append(&r->anchors, &a->in_root);
	return 0;
}

static void anchor_free(struct anchor *a)
{
	list_remove(&a->in_watch);
	list_remove(&a->in_root);
	free(a->name);
	free(a);
}

void watch_release_anchor(struct tree *t, struct anchor *a)
{
	struct watch *w = a->watch;

	anchor_free(a);
	watch_release(t, w);
}

/* The kernel removed the watch: the directory is gone, or its file system. */
static void on_ignored(struct tree *t, struct watch *w)
{
	list_for_each_safe (l, &w->dirs) {
		struct dir *d = container_of(l, struct dir, in_watch);

		list_remove(&d->in_watch);
		d->watch = NULL;
		dir_mark_dead(t, d);
	}
	if (!list_empty(&w->anchors))
		t->roots_suspect = true;
	list_for_each_safe (l, &w->anchors)
		anchor_free(container_of(l, struct anchor, in_watch));
	list_for_each_safe (i, &w->links) {
		struct linked *l = container_of(i, struct linked, in_watch);

		link_unwatched(t, l);
		list_append(&t->linked, &l->in_unwatched);
	}
	watch_forget(t, w);
}

static void on_self(struct tree *t, struct dir *d, uint32_t mask)
{
	if (!(mask & (IN_MOVE_SELF | IN_DELETE_SELF | IN_UNMOUNT))) {
		d->acl_suspect |= !!(mask & IN_ATTRIB);
		dir_queue(t, d); /* its attributes */
		return;
	}
	/* The watch follows the inode, so nothing is lost when the path still leads to it. */
	if (d->parent)
		dir_mark_name(t, d->parent, path_base(d->path), strlen(path_base(d->path)), 0);
	else
		t->roots_suspect = true;
	dir_queue(t, d);
}

static void on_name(struct tree *t, struct dir *d, const struct inotify_event *ev)
{
	unsigned flags = 0;

	if (str_starts(ev->name, TEMP_PREFIX))
		return;
	if (ev->mask & (IN_MODIFY | IN_CLOSE_WRITE))
		flags |= ENT_WRITTEN;
	if (ev->mask & (IN_DELETE | IN_MOVED_FROM))
		flags |= ENT_GONE;
	dir_mark_name(t, d, ev->name, strlen(ev->name), flags);
}

/* Each job that makes another name of it causes such an event, and there may be many names. */
static void on_link(struct tree *t, struct watch *w, uint32_t mask)
{
	unsigned flags = mask & (IN_MODIFY | IN_CLOSE_WRITE) ? ENT_WRITTEN : 0;

	if (w->marked == t->collects && (w->marked_flags & flags) == flags)
		return;
	w->marked_flags = flags;
	w->marked = t->collects;
	list_for_each (i, &w->links) {
		const struct linked *l = container_of(i, struct linked, in_watch);

		t->counts.walked++;
		dir_mark_ent(t, l->dir, l->ent, flags);
	}
}

static void on_anchor(struct tree *t, const struct anchor *a, const struct inotify_event *ev)
{
	if (ev->mask & (IN_MOVE_SELF | IN_DELETE_SELF | IN_UNMOUNT))
		t->roots_suspect = true;
	else if (ev->len && ev->mask & (IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE) &&
		 streq(ev->name, a->name))
		t->roots_suspect = true;
}

static void on_event(struct tree *t, const struct inotify_event *ev)
{
	struct watch *w;

	t->counts.events++;
	if (ev->mask & IN_Q_OVERFLOW) {
		t->overflow = true;
		return;
	}
	w = map_get_u64(&t->watches, (uint64_t)ev->wd);
	if (!w)
		return; /* of a watch we gave up */
	if (ev->mask & IN_IGNORED) {
		on_ignored(t, w);
		return;
	}
	list_for_each (l, &w->anchors)
		on_anchor(t, container_of(l, struct anchor, in_watch), ev);
	list_for_each (l, &w->dirs) {
		struct dir *d = container_of(l, struct dir, in_watch);

		if (ev->len)
			on_name(t, d, ev);
		else
			on_self(t, d, ev->mask);
	}
	on_link(t, w, ev->mask);
}

void watch_collect(struct tree *t)
{
	t->own_events = 0;
	t->collects++;
	for (;;) {
		ssize_t n = read(t->inotify_fd, t->event_buf, sizeof(t->event_buf));

		t->counts.reads++;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			log_warn("can't read file events (%s): comparing all with the disk",
				 err_text(-errno));
			t->overflow = true;
		}
		if (n <= 0)
			return;
		for (char *p = t->event_buf; p < t->event_buf + n;) {
			const struct inotify_event *ev = (const struct inotify_event *)p;

			on_event(t, ev);
			p += sizeof(*ev) + ev->len;
		}
		/* There was room for another one, so there was none. */
		if ((size_t)n + sizeof(struct inotify_event) + NAME_MAX + 1 <= sizeof(t->event_buf))
			return;
	}
}

/* A quarter of what the kernel's queue holds by default (fs.inotify.max_queued_events). */
#define OWN_EVENTS_MAX 4096

void watch_own_events(struct tree *t, unsigned n)
{
	t->own_events += n;
	if (t->own_events >= OWN_EVENTS_MAX)
		watch_collect(t);
}
