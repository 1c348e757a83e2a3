/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * File systems that are mounted on what is served, and taken away.  inotify says
 * nothing of it, but the kernel counts the changes of our mount namespace before the
 * call that makes one returns (touch_mnt_namespace() in fs/namespace.c), and
 * poll(2) on mountinfo compares that count with the last (mounts_poll() in
 * fs/proc_namespace.c).  Which mount changed it does not say, and the lines do
 * not either: what is mounted anew in the same place may look the same, and a mount
 * point moves with the directories around it.  So a root is opened again when there is
 * a mount on the way to it, and all that is known of one is compared when there is, or
 * ever was, one beneath it: few have any.  Whether something is mounted on a name is not
 * looked up in the lines, since that move counts as no change, but told by the look at it.
 */
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/mountinfo.h"
#include "concc/str.h"

#define READ_SIZE 65536
/* Who mounts while we read is waited for so often; then what was seen has to do until the next
 * drain, which hears of the rest. */
#define READ_TRIES 8

static int read_all(int fd, struct buf *text)
{
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, buf_grow(text, READ_SIZE), READ_SIZE);

		text->len -= READ_SIZE - (n > 0 ? (size_t)n : 0);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			break;
	}
	buf_put_u8(text, 0);
	return 0;
}

/* Anew, into what is empty. */
static int read_mounts(struct tree *t)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	_cleanup_free_ char *copy = NULL;
	struct mount_line line;
	bool automatic = false;
	int err = read_all(t->mounts_fd, &text);
	char *at;

	free(steal_ptr(&t->automounts));
	t->mounts_unknown = err < 0;
	if (err < 0)
		return err;
	copy = xstrdup((char *)text.data);
	at = (char *)text.data;
	while (mountinfo_next(&at, &line)) {
		automatic |= streq(line.type, "autofs");
		(void)map_put_str(&t->mount_points, line.point, t);
	}
	if (automatic)
		t->automounts = steal_ptr(&copy);
	return 0;
}

/* All that is known of it is compared with the disk. */
static void compare_all(struct tree *t, const struct root *r)
{
	struct dir *d;

	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL));) {
		if (!path_is_below(d->path, r->path))
			continue;
		d->scan_now = true;
		dir_queue(t, d);
	}
}

static void suspect(struct tree *t, struct root *r)
{
	r->remounted = true;
	t->roots_suspect = true;
}

static void note_mount_points(struct tree *t, const struct map *points, struct root *r)
{
	const char *p;

	for (size_t it = 0; map_next(points, &it, &p);) {
		if (path_is_below(r->real, p) && p[1]) /* "/" stays what it is for us */
			suspect(t, r);
		else if (path_is_below(p, r->real))
			r->has_mounts = true;
	}
}

static void mark_changes(struct tree *t, const struct map *before)
{
	list_for_each (l, &t->roots) {
		struct root *r = container_of(l, struct root, in_tree);

		note_mount_points(t, before, r);
		note_mount_points(t, &t->mount_points, r);
		if (r->has_mounts)
			compare_all(t, r);
	}
}

/* Which they are can't be told: all is compared with the disk. */
static void mark_all(struct tree *t, int err)
{
	log_warn("can't read /proc/self/mountinfo: %s", err_text(err));
	list_for_each (l, &t->roots)
		suspect(t, container_of(l, struct root, in_tree));
	t->overflow = true;
}

static bool has_changed(const struct tree *t)
{
	/* -1 is fine: no event, ever. */
	struct pollfd p = {.fd = t->mounts_fd, .events = POLLPRI};

	return poll(&p, 1, 0) != 0;
}

void mounts_collect(struct tree *t)
{
	for (int tries = 0; tries < READ_TRIES && has_changed(t); tries++) {
		struct map before = t->mount_points;
		int err;

		t->counts.mounts++;
		if (t->cache)
			hash_cache_mounts_changed(t->cache);
		t->mount_points = MAP_INIT;
		err = read_mounts(t);
		if (err < 0)
			mark_all(t, err);
		else
			mark_changes(t, &before);
		map_release(&before);
	}
}

void mounts_note_root(struct tree *t, struct root *r)
{
	const char *p;

	for (size_t it = 0; !r->has_mounts && map_next(&t->mount_points, &it, &p);)
		r->has_mounts = path_is_below(p, r->real) && !streq(p, r->real);
}

/* As mountinfo said at the last change of mounts, or when dir became known. */
static bool has_point(const struct tree *t, const char *dir, const char *name)
{
	_cleanup_free_ char *at = NULL, *path = NULL;
	const struct root *r = root_find(t, dir);

	if (!r || !r->has_mounts)
		return false;
	at = path_join(r->real, path_below(dir, r->path));
	path = path_join(at, name);
	return map_get_str(&t->mount_points, path);
}

static void stat_of_statx(const struct statx *x, struct stat *ret)
{
	*ret = (struct stat){
		.st_dev = makedev(x->stx_dev_major, x->stx_dev_minor),
		.st_ino = x->stx_ino,
		.st_mode = x->stx_mode,
		.st_nlink = x->stx_nlink,
		.st_size = (off_t)x->stx_size,
		.st_mtim = {x->stx_mtime.tv_sec, x->stx_mtime.tv_nsec},
		.st_ctim = {x->stx_ctime.tv_sec, x->stx_ctime.tv_nsec},
	};
}

/* It may have come with a directory that was moved, which is no change of mounts. */
static void note_mounted(struct tree *t, const char *dir)
{
	struct root *r = root_find(t, dir);

	if (r)
		r->has_mounts = true;
}

/* Before Linux 5.8, and where a container's filter refuses the call, paths have to do. */
int mounts_stat(struct tree *t, const char *dir, int fd, const char *name, struct stat *ret,
		bool *ret_mounted)
{
	const int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
	struct statx x;

	if (!t->mount_root_missing && statx(fd, name, flags, STATX_BASIC_STATS, &x) == 0) {
		stat_of_statx(&x, ret);
		*ret_mounted = x.stx_attributes & STATX_ATTR_MOUNT_ROOT;
		if (*ret_mounted)
			note_mounted(t, dir);
		return 0;
	}
	if (!t->mount_root_missing)
		return -errno;
	if (fstatat(fd, name, ret, flags) < 0)
		return -errno;
	*ret_mounted = has_point(t, dir, name);
	return 0;
}

void mounts_note_dir(struct tree *t, const char *dir)
{
	const struct root *r = root_find(t, dir);

	/* It may have been moved here with what is mounted in it. */
	if (!t->mount_root_missing || !r || !r->has_mounts)
		return;
	map_release(&t->mount_points);
	t->mount_points = MAP_INIT;
	(void)read_mounts(t); /* of a failure the next drain hears */
}

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U /* since Linux 6.8 */
#endif

static uint64_t mount_number(const struct tree *t, int fd)
{
	struct statx x;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &x) == 0 &&
	    x.stx_mask & STATX_MNT_ID_UNIQUE)
		return x.stx_mnt_id;
	return t->counts.mounts;
}

bool mounts_note_fs(struct tree *t, struct dir *d, int fd)
{
	const bool was_known = d->fs_known, stamped = d->stamps;
	const uint64_t before = d->mount;
	struct fs_traits traits;

	if (was_known && d->mounts == t->counts.mounts)
		return false;
	traits = fs_traits(fd);
	d->fs_known = true;
	d->network = t->limits.network || traits.network;
	d->stamps = traits.stamps;
	d->mounts = t->counts.mounts;
	d->mount = mount_number(t, fd);
	return was_known && d->mount != before && !(stamped && d->stamps);
}

static bool mount_root_is_missing(void)
{
	struct statx x;

	return statx(AT_FDCWD, "/", 0, STATX_BASIC_STATS, &x) < 0 ||
	       !(x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT);
}

void mounts_init(struct tree *t)
{
	int err;

	t->mount_root_missing = t->limits.no_openat2 || mount_root_is_missing();
	t->mounts_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	t->mounts_unknown = t->mounts_fd < 0;
	err = t->mounts_fd < 0 ? -errno : read_mounts(t);
	if (err < 0)
		log_warn("can't read /proc/self/mountinfo: %s; what is mounted on served files "
			 "later is not seen",
			 err_text(err));
}

void mounts_release(struct tree *t)
{
	if (t->mounts_fd >= 0)
		(void)close(t->mounts_fd);
	map_release(&t->mount_points);
	free(t->automounts);
}

bool tree_triggers(const struct tree *t, const char *path)
{
	_cleanup_free_ char *text = t->automounts ? xstrdup(t->automounts) : NULL;

	return t->mounts_unknown || (text && mountinfo_triggers(text, path));
}

bool tree_names_trigger(const struct tree *t, char *const *names, size_t n)
{
	_cleanup_free_ char *text = t->automounts ? xstrdup(t->automounts) : NULL;

	return t->mounts_unknown || (text && mountinfo_names_trigger(text, names, n));
}
