/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Requests of the kernel: what each needs, where it waits for that, and its answer. */
#define FUSE_USE_VERSION 312
#include "fuse.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "content.h"
#include "inode.h"
#include "want.h"

/* Seconds; the kernel clamps what its clock can't hold.  A larger double would overflow it. */
#define FOR_EVER 1e9

/* ---- requests: answers ---- */

static void request_free(struct mirror *m, struct request *r)
{
	pthread_mutex_lock(&m->lock);
	inode_unref(m, r->inode);
	pthread_mutex_unlock(&m->lock);
	free(r);
}

void request_fail(struct mirror *m, struct request *r, int err)
{
	(void)fuse_reply_err(r->req, -err); /* fails when the asker is gone: nobody to tell */
	request_free(m, r);
}

void request_data(struct mirror *m, struct request *r, const void *p, size_t n)
{
	(void)fuse_reply_buf(r->req, p, n); /* as above */
	request_free(m, r);
}

void requests_run(struct mirror *m, struct list *l)
{
	list_for_each_safe (p, l) {
		list_remove(p);
		request_run(m, container_of(p, struct request, link));
	}
}

void requests_fail(struct mirror *m, struct list *l, int err)
{
	list_for_each_safe (p, l) {
		list_remove(p);
		request_fail(m, container_of(p, struct request, link), err);
	}
}

static int64_t asker(const struct mirror *m, const struct request *r)
{
	return m->ops.job_of ? m->ops.job_of(m->data, fuse_req_ctx(r->req)->pid) : MIRROR_SOME_JOB;
}

/* Takes r.  The owner hears of it before the asker does, whose answer the kernel does not remember.
 */
static void request_lose(struct mirror *m, struct request *r, const char *path, int err)
{
	int64_t job = asker(m, r);

	pthread_mutex_lock(&m->lock);
	want_failed(m, job, path, err);
	pthread_mutex_unlock(&m->lock);
	request_fail(m, r, -EIO);
}

void requests_lose(struct mirror *m, struct list *l, const char *path, int err)
{
	list_for_each_safe (p, l) {
		list_remove(p);
		request_lose(m, container_of(p, struct request, link), path, err);
	}
}

static mode_t type_bits(uint8_t type)
{
	static const mode_t bits[] = {
		[ENTRY_FILE] = S_IFREG,	 [ENTRY_DIR] = S_IFDIR,	    [ENTRY_SYMLINK] = S_IFLNK,
		[ENTRY_FIFO] = S_IFIFO,	 [ENTRY_SOCKET] = S_IFSOCK, [ENTRY_CHAR] = S_IFCHR,
		[ENTRY_BLOCK] = S_IFBLK, [ENTRY_UNKNOWN] = 0,
	};

	return bits[type];
}

#define BLOCK 4096 /* of most file systems; of a symlink they keep none */

/* As if there were no holes: du(1) and ls -s. */
static blkcnt_t blocks_of(const struct entry_attr *a)
{
	return a->type == ENTRY_SYMLINK ? 0
					: (blkcnt_t)((a->size + BLOCK - 1) / BLOCK * (BLOCK / 512));
}

static void fill_stat(const struct mirror *m, const struct inode *i, struct stat *st)
{
	const struct entry_attr *a = &i->attr;

	*st = (struct stat){
		.st_ino = a->ino,
		.st_mode = type_bits(a->type) | a->mode,
		/* Of a file with several names an overlay does not mark what it copies up
		 * (ovl_copy_up_one), by which one that was written to is told from one that was
		 * replaced: it has to be told otherwise, see mirror_copied(). */
		.st_nlink = a->type == ENTRY_FILE && a->nlink > 1 && atomic_load(&m->tells_copies)
				    ? a->nlink
				    : 1,
		.st_uid = m->uid,
		.st_gid = m->gid,
		.st_size = (off_t)a->size,
		.st_blocks = blocks_of(a),
		.st_mtim = {.tv_sec = a->mtime_s, .tv_nsec = a->mtime_ns},
		.st_atim = {.tv_sec = a->mtime_s, .tv_nsec = a->mtime_ns},
		.st_ctim = {.tv_sec = a->ctime_s, .tv_nsec = a->ctime_ns},
	};
}

/*
 * A directory's times change with what is in it, which only a listing that is
 * kept right tells; a file's attributes belong to its version.
 */
static double attr_timeout(const struct mirror *m, const struct inode *i)
{
	return !i->dir || dir_complete(i) || !inode_attached(m, i) ? FOR_EVER : 0;
}

/* ---- requests: one attempt each, under mirror.lock.  0: answer; 1: it waits; or -errno ---- */

static int need_listing(struct mirror *m, struct inode *d, struct request *r)
{
	if (m->stopping)
		return -EIO;
	if (!inode_attached(m, d)) {
		/* Nobody knows any more what was in it: a job must not take that for "nothing". */
		if (m->jobs.n)
			want_failed(m, MIRROR_SOME_JOB, d->lost_path ? d->lost_path : d->name,
				    CONCC_E_STALE);
		return -ENOENT;
	}
	if (dir_complete(d))
		return 0;
	want_dir(m, d);
	list_append(&d->dir->waiting, &r->link);
	return 1;
}

/* What is absent there is not remembered, but told. */
static bool tells_lookups(const struct inode *d)
{
	return d->dir && d->dir->partial;
}

static void give_entry(struct mirror *m, struct inode *child, struct fuse_entry_param *e)
{
	child->nlookup++;
	e->ino = (fuse_ino_t)(uintptr_t)child;
	e->attr_timeout = attr_timeout(m, child);
	fill_stat(m, child, &e->attr);
}

/* The job that asks, NULL when it is none.  The lock is given up meanwhile. */
static const struct job_seq *job_that_asks(struct mirror *m, const struct request *r)
{
	int64_t job;

	pthread_mutex_unlock(&m->lock);
	job = asker(m, r);
	pthread_mutex_lock(&m->lock);
	return job >= 0 ? map_get_u64(&m->jobs, (uint64_t)job) : NULL;
}

static char *path_of_name(const struct mirror *m, const struct request *r)
{
	_cleanup_free_ char *dir = inode_path(m, r->inode);

	return path_join(dir, r->name);
}

/*
 * What the asker's job has seen under this name, when that is another version by
 * now.  Its overlay compares what it has with the answer.
 */
static struct inode *seen_before(struct mirror *m, const struct request *r)
{
	const struct job_seq *j;

	if (!dir_has_former(r->inode, r->name))
		return NULL;
	j = job_that_asks(m, r);
	return j ? dir_former(r->inode, r->name, j->seq) : NULL;
}

/* 0, or why what is there can't be shown. */
static int can_show(const struct inode *i)
{
	switch (i->attr.type) {
	case ENTRY_FIFO:
	case ENTRY_SOCKET:
	case ENTRY_CHAR:
	case ENTRY_BLOCK:
		return CONCC_E_SPECIAL;
	case ENTRY_UNKNOWN:
		return CONCC_E_UNAVAIL;
	default:
		return 0;
	}
}

/* What can't be named in a message can't be asked for: one only gets there by relative paths. */
static bool can_name(const struct mirror *m, const struct inode *i)
{
	size_t len = 0;

	for (const struct inode *at = i; at->parent; at = at->parent)
		len += 1 + strlen(at->name);
	return i == m->root || len < PROTO_PATH_MAX;
}

static int try_lookup(struct mirror *m, struct request *r, struct fuse_entry_param *e)
{
	struct inode *child;
	int rc;

	if (!r->inode->dir)
		return -ENOTDIR;
	child = seen_before(m, r);
	if (child) {
		/* For this once: others must ask again. */
		*e = (struct fuse_entry_param){.entry_timeout = 0};
		give_entry(m, child, e);
		return 0;
	}
	rc = need_listing(m, r->inode, r);
	if (rc != 0)
		return rc;
	*e = (struct fuse_entry_param){.entry_timeout = FOR_EVER};
	if (r->inode == m->root && streq(r->name, MIRROR_OUTSIDE))
		child = m->outside;
	else
		child = dir_child(r->inode, r->name, strlen(r->name));
	if (!child && tells_lookups(r->inode))
		return -ENOENT; /* not remembered: it may be made some time, and that is news */
	if (!child) {
		negative_add(m, r->inode, r->name);
		return 0;
	}
	rc = can_show(child);
	if (rc == 0 && child->dir && !can_name(m, child))
		rc = -ENAMETOOLONG;
	if (rc == 0 && child->dir && child->dir->served)
		rc = need_listing(m, child, r);
	if (rc == 0)
		give_entry(m, child, e);
	return rc;
}

enum missing_how fuse_asks(const struct mirror *m, pid_t pid, const char *name)
{
	return m->ops.makes && m->ops.makes(m->data, pid, name) ? MISSING_CHANGED
								: MISSING_LOOKED_UP;
}

/* Before the answer: the owner knows of it before it can hear of anything the asker does next. */
static void report_outside(struct mirror *m, const struct request *r, enum missing_how how)
{
	_cleanup_free_ char *dir = NULL, *path = NULL;
	int64_t job;

	if (!m->ops.outside)
		return;
	job = asker(m, r);
	pthread_mutex_lock(&m->lock);
	dir = inode_path(m, r->inode);
	path = *r->name ? path_join(dir, r->name) : xstrdup(dir);
	want_outside(m, path, how, job);
	pthread_mutex_unlock(&m->lock);
}

static bool is_loss(int rc)
{
	return rc == CONCC_E_SPECIAL || rc == CONCC_E_UNAVAIL || rc == -ENAMETOOLONG;
}

/* Its absence is no news when the client has said so. */
static void tell_absent(struct mirror *m, const struct request *r)
{
	enum missing_how how = fuse_asks(m, fuse_req_ctx(r->req)->pid, r->name);
	bool known;

	pthread_mutex_lock(&m->lock);
	known = r->inode->dir && map_get_str(&r->inode->dir->absent, r->name);
	pthread_mutex_unlock(&m->lock);
	if (!known || how == MISSING_CHANGED)
		report_outside(m, r, how);
}

static void run_lookup(struct mirror *m, struct request *r)
{
	_cleanup_free_ char *lost = NULL;
	struct fuse_entry_param e;
	bool tell;
	int rc;

	pthread_mutex_lock(&m->lock);
	rc = try_lookup(m, r, &e);
	tell = rc == -ENOENT && tells_lookups(r->inode);
	if (is_loss(rc))
		lost = path_of_name(m, r);
	pthread_mutex_unlock(&m->lock);
	if (rc > 0)
		return;
	if (lost) {
		request_lose(m, r, lost, rc);
		return;
	}
	if (rc < 0) {
		if (tell)
			tell_absent(m, r);
		request_fail(m, r, rc); /* which the kernel does not remember */
		return;
	}
	rc = fuse_reply_entry(r->req, &e);
	if (rc < 0 && e.ino) {
		/* Interrupted: the kernel did not take the reference. */
		pthread_mutex_lock(&m->lock);
		inode_forget(m, (struct inode *)(uintptr_t)e.ino, 1);
		pthread_mutex_unlock(&m->lock);
	}
	request_free(m, r);
}

static void run_getattr(struct mirror *m, struct request *r)
{
	struct stat st;
	double timeout = 0;
	int rc = 0;

	pthread_mutex_lock(&m->lock);
	if (r->inode->dir && !r->denied && inode_attached(m, r->inode))
		rc = need_listing(m, r->inode, r);
	if (rc == 0) {
		fill_stat(m, r->inode, &st);
		timeout = attr_timeout(m, r->inode);
	}
	pthread_mutex_unlock(&m->lock);
	if (rc > 0)
		return;
	if (rc < 0) {
		request_fail(m, r, rc);
		return;
	}
	(void)fuse_reply_attr(r->req, &st, timeout); /* fails when the asker is gone */
	request_free(m, r);
}

/* Adds one name; false when there is no room for it. */
static bool add_dirent(struct request *r, char *buf, size_t *len, const char *name,
		       const struct inode *i, uint64_t cookie)
{
	struct stat st = {.st_ino = i->attr.ino, .st_mode = type_bits(i->attr.type)};
	size_t n = fuse_add_direntry(r->req, buf + *len, r->size - *len, name, &st, (off_t)cookie);

	if (n > r->size - *len)
		return false;
	*len += n;
	return true;
}

/* The offset is the cookie of the last name seen; cookies hold while names come and go. */
static size_t fill_dirents(struct request *r, char *buf)
{
	const struct inode *d = r->inode;
	const struct inode *up = d->parent ? d->parent : d;
	size_t len = 0;

	if (r->offset < 1 && !add_dirent(r, buf, &len, ".", d, 1))
		return len;
	if (r->offset < 2 && !add_dirent(r, buf, &len, "..", up, 2))
		return len;
	for (size_t k = dir_slot_after(d->dir, r->offset); k < d->dir->n_slots; k++) {
		const struct slot *s = &d->dir->slots[k];

		if (s->inode && !add_dirent(r, buf, &len, s->inode->name, s->inode, s->cookie))
			break;
	}
	return len;
}

static void run_readdir(struct mirror *m, struct request *r)
{
	_cleanup_free_ char *buf = xmalloc(r->size);
	bool tell = false;
	size_t len = 0;
	int rc;

	pthread_mutex_lock(&m->lock);
	rc = r->inode->dir ? need_listing(m, r->inode, r) : -ENOTDIR;
	if (rc == 0)
		tell = tells_lookups(r->inode);
	if (rc == 0 && !tell)
		len = fill_dirents(r, buf);
	pthread_mutex_unlock(&m->lock);
	if (tell) {
		report_outside(m, r, MISSING_LOOKED_UP);
		/* The kernel would keep any listing, and not ask for the next job. */
		request_fail(m, r, -EACCES);
	} else if (rc < 0) {
		request_fail(m, r, rc);
	} else if (rc == 0) {
		request_data(m, r, buf, len);
	}
}

void request_run(struct mirror *m, struct request *r)
{
	switch (r->kind) {
	case REQUEST_LOOKUP:
		run_lookup(m, r);
		break;
	case REQUEST_GETATTR:
		run_getattr(m, r);
		break;
	case REQUEST_READDIR:
		run_readdir(m, r);
		break;
	case REQUEST_READ:
		content_read(m, r);
		break;
	}
}
