/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What the kernel asks of the places outside the workspaces: see outside.h.
 */
#define FUSE_USE_VERSION 312
#include "outside_places.h"
#include "outside.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/str.h"
#include "fuse.h"
#include "inode.h"
#include "stand_in.h"
#include "want.h"

#define FOR_EVER 1e9 /* seconds, as in fuse.c */

static struct outside *outside_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static struct place *place_of(fuse_req_t req, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? outside_of(req)->root : (struct place *)(uintptr_t)ino;
}

static void fill_stat(struct outside *o, const struct place *p, struct stat *st)
{
	struct timespec t = o->mirror->started;
	mode_t mode = 0755;

	pthread_mutex_lock(&o->lock);
	if (p->bare) {
		t = p->mtim;
		mode = p->mode;
	}
	pthread_mutex_unlock(&o->lock);
	*st = (struct stat){
		.st_ino = p->ino,
		.st_mode = p->target ? S_IFLNK | 0777 : S_IFDIR | mode,
		.st_nlink = 1,
		.st_size = p->target ? (off_t)strlen(p->target) : 0,
		.st_uid = o->mirror->uid,
		.st_gid = o->mirror->gid,
		.st_mtim = t,
		.st_atim = t,
		.st_ctim = t,
	};
}

/* Before the answer: the owner knows of it before it can hear of anything the asker does next. */
static void report(fuse_req_t req, const struct place *p, const char *name, enum missing_how how)
{
	struct mirror *m = outside_of(req)->mirror;
	_cleanup_free_ char *path = outside_path(p, name);
	int64_t job;

	if (!m->ops.outside)
		return;
	job = m->ops.job_of(m->data, fuse_req_ctx(req)->pid);
	pthread_mutex_lock(&m->lock);
	want_outside(m, path, how, job);
	pthread_mutex_unlock(&m->lock);
}

/*
 * What can't be written to at home is refused with these words there; where it can,
 * the owner throws the job away.
 */
static void refuse_change(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	report(req, place_of(req, ino), name, MISSING_CHANGED);
	(void)fuse_reply_err(req, EACCES); /* fails when the asker is gone */
}
static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	conn->time_gran = 1;
	stand_in_init(conn);
}

/* What is served there, or in /var/tmp, which is the same to a job, is mounted above.  The lock is
 * held. */
static bool is_served_in_tmp(const struct outside *o, const char *name)
{
	const struct place *tmp = map_get_str(&o->root->children, "tmp"),
			   *var = map_get_str(&o->root->children, "var"),
			   *var_tmp = var ? map_get_str(&var->children, "tmp") : NULL;

	return (tmp && map_get_str(&tmp->children, name)) ||
	       (var_tmp && map_get_str(&var_tmp->children, name));
}

static void lookup_in_tmp(fuse_req_t req, const char *name)
{
	struct outside *o = outside_of(req);
	bool served;

	pthread_mutex_lock(&o->lock);
	served = is_served_in_tmp(o, name);
	pthread_mutex_unlock(&o->lock);
	if (!served)
		report(req, o->tmp, name, fuse_asks(o->mirror, fuse_req_ctx(req)->pid, name));
	(void)fuse_reply_err(req, ENOENT);
}

static bool is_file(const struct outside *o, const struct place *p)
{
	return p == o->stand_in || p == o->terminal;
}

/* NULL: it names none. */
static struct place *file_of(const struct outside *o, const struct place *dir, const char *name)
{
	if (dir != o->root)
		return NULL;
	return streq(name, MIRROR_STAND_IN)   ? o->stand_in
	       : streq(name, MIRROR_TERMINAL) ? o->terminal
					      : NULL;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct outside *o = outside_of(req);
	struct place *dir = place_of(req, parent), *child;
	struct fuse_entry_param e = {.entry_timeout = FOR_EVER, .attr_timeout = FOR_EVER};
	enum missing_how how = MISSING_LOOKED_UP;
	bool known;

	child = file_of(o, dir, name);
	if (child) {
		stand_in_lookup(req, (fuse_ino_t)(uintptr_t)child, child->ino);
		return;
	}
	if (dir == o->tmp) {
		lookup_in_tmp(req, name);
		return;
	}
	pthread_mutex_lock(&o->lock);
	child = dir == o->root && streq(name, MIRROR_TMP) ? o->tmp
							  : map_get_str(&dir->children, name);
	known = child || map_get_str(&dir->absent, name);
	pthread_mutex_unlock(&o->lock);
	/* A link to what is on another mount comes no further than this, remembered or not. */
	if (!child)
		how = fuse_asks(o->mirror, fuse_req_ctx(req)->pid, name);
	if (!known || how == MISSING_CHANGED) {
		report(req, dir, name, how);
		(void)fuse_reply_err(req, ENOENT); /* which the kernel does not remember */
		return;
	}
	if (child) {
		e.ino = (fuse_ino_t)(uintptr_t)child;
		fill_stat(o, child, &e.attr);
	}
	(void)fuse_reply_entry(req, &e);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct outside *o = outside_of(req);
	const struct place *p = place_of(req, ino);
	struct stat st;

	if (is_file(o, p)) {
		stand_in_getattr(req, ino, p->ino);
		return;
	}
	fill_stat(o, p, &st);
	(void)fuse_reply_attr(req, &st, FOR_EVER);
}

/* Where the entry at `at` ends, as add_name() has said. */
static size_t entry_end(const struct buf *b, size_t at)
{
	struct fuse_dirent d;

	memcpy(&d, b->data + at, offsetof(struct fuse_dirent, name));
	return (size_t)d.off;
}

static void add_name(fuse_req_t req, struct buf *b, const char *name, const struct place *p)
{
	struct stat st = {.st_ino = p->ino, .st_mode = p->target ? S_IFLNK : S_IFDIR};
	size_t n = fuse_add_direntry(req, NULL, 0, name, NULL, 0);

	uint8_t *to = buf_grow(b, n);

	(void)fuse_add_direntry(req, (char *)to, n, name, &st, (off_t)b->len);
}

/*
 * What is served, and what leads there: so much a listing may say of somebody's directories.  What
 * else is there a job finds by its name only; the owner knows whether it could have wanted it.
 */
static void list(struct outside *o, fuse_req_t req, const struct place *p, struct buf *b)
{
	const struct place *child;
	size_t it = 0;

	add_name(req, b, ".", p);
	add_name(req, b, "..", p->parent ? p->parent : p);
	pthread_mutex_lock(&o->lock);
	while ((child = map_next(&p->children, &it, NULL))) {
		if (child->kept || child->target)
			add_name(req, b, child->name, child);
	}
	pthread_mutex_unlock(&o->lock);
}

/* Made anew for each who opens it, so that the kernel must not keep it. */
static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct buf *b = xcalloc(1, sizeof(*b));

	list(outside_of(req), req, place_of(req, ino), b);
	fi->fh = (uint64_t)(uintptr_t)b;
	fi->cache_readdir = 0;
	if (fuse_reply_open(req, fi) < 0) { /* the asker is gone, and closes nothing */
		buf_release(b);
		free(b);
	}
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	const struct buf *b = (const struct buf *)(uintptr_t)fi->fh;
	size_t at = (size_t)off, end = at;

	if (at == 0)
		report(req, place_of(req, ino), "", MISSING_LISTED);
	/* Whole entries: each begins where the offset of the one before says. */
	while (end < b->len && entry_end(b, end) - at <= size)
		end = entry_end(b, end);
	(void)fuse_reply_buf(req, end > at ? (const char *)b->data + at : NULL, end - at);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct buf *b = (struct buf *)(uintptr_t)fi->fh;

	buf_release(b);
	free(b);
	(void)fuse_reply_err(req, 0);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	const struct place *p = place_of(req, ino);

	/* No place becomes a link, or stops to be one: another takes its name. */
	if (p->target)
		(void)fuse_reply_readlink(req, p->target);
	else
		(void)fuse_reply_err(req, EINVAL);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_MAX};

	(void)fuse_reply_statfs(req, &st);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	refuse_change(req, parent, name);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	refuse_change(req, parent, name);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	refuse_change(req, parent, name);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	refuse_change(req, parent, name);
}

static void op_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	refuse_change(req, parent, name);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		      const char *newname, unsigned flags)
{
	report(req, place_of(req, parent), name, MISSING_CHANGED);
	refuse_change(req, newparent, newname);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	refuse_change(req, newparent, newname);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	if (is_file(outside_of(req), place_of(req, ino)))
		stand_in_refuse(req, ino);
	else
		refuse_change(req, ino, "");
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			size_t size, int flags)
{
	refuse_change(req, ino, "");
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	refuse_change(req, ino, "");
}

const struct fuse_lowlevel_ops outside_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.releasedir = op_releasedir,
	.readlink = op_readlink,
	.statfs = op_statfs,
	.create = op_create,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.unlink = op_remove,
	.rmdir = op_remove,
	.rename = op_rename,
	.link = op_link,
	.setattr = op_setattr,
	.setxattr = op_setxattr,
	.removexattr = op_removexattr,
};
