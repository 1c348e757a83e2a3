/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What one name, or a directory itself, stands for on the disk, and whether that is a new version.
 */
#include "snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

uint64_t fold_ino(struct tree *t, dev_t dev, ino_t ino)
{
	size_t i = 0;

	while (i < t->n_devs && t->devs[i] != dev)
		i++;
	if (i == t->n_devs) {
		t->devs = xrealloc(t->devs, (t->n_devs + 1) * sizeof(dev_t));
		t->devs[t->n_devs++] = dev;
	}
	/* Inode numbers of real file systems leave the top 16 bits alone. */
	return (uint64_t)ino ^ (uint64_t)i << 48;
}

static uint8_t mode_type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return ENTRY_FILE;
	case S_IFDIR:
		return ENTRY_DIR;
	case S_IFLNK:
		return ENTRY_SYMLINK;
	case S_IFIFO:
		return ENTRY_FIFO;
	case S_IFSOCK:
		return ENTRY_SOCKET;
	case S_IFCHR:
		return ENTRY_CHAR;
	default:
		return ENTRY_BLOCK;
	}
}

/* Where no event tells of writes: may somebody have bytes of this version that are no more? */
static bool is_doubtful(const struct dir *d, const struct ent *e)
{
	return dir_is_swept(d) && e->flags & ENT_RACY &&
	       (e->flags & ENT_TOLD || (e->type == ENTRY_FILE && e->known));
}

/* What somebody has the bytes of stays young there: only another version is old. */
void ent_grow_old(const struct dir *d, struct ent *e, const struct stat *st, int64_t since)
{
	if (!is_doubtful(d, e) && !stat_is_racy(st, since, d->network))
		e->flags &= (uint16_t)~ENT_RACY;
}

bool ent_matches(struct tree *t, const struct ent *e, const struct stat *st)
{
	if (e->type != mode_type(st->st_mode) || e->mode != (st->st_mode & 07777) ||
	    e->ino != fold_ino(t, st->st_dev, st->st_ino))
		return false;
	/* The rest of a directory's attributes comes from its own listing. */
	if (e->type == ENTRY_DIR)
		return true;
	return e->size == (uint64_t)st->st_size && e->nlink == st->st_nlink &&
	       e->mtime_s == st->st_mtim.tv_sec && e->mtime_ns == st->st_mtim.tv_nsec &&
	       e->ctime_s == st->st_ctim.tv_sec && e->ctime_ns == st->st_ctim.tv_nsec;
}

static void ent_set_stat(struct tree *t, struct ent *e, const struct stat *st)
{
	e->type = mode_type(st->st_mode);
	e->mode = st->st_mode & 07777;
	e->ino = fold_ino(t, st->st_dev, st->st_ino);
	e->nlink = (uint32_t)st->st_nlink;
	e->size = (uint64_t)st->st_size;
	e->mtime_s = st->st_mtim.tv_sec;
	e->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
	e->ctime_s = st->st_ctim.tv_sec;
	e->ctime_ns = (uint32_t)st->st_ctim.tv_nsec;
}

void ent_set_known(struct ent *e, const struct digest *d, uint16_t claimed_by)
{
	if (e->type != ENTRY_FILE)
		return;
	if (!e->known)
		e->known = xmalloc(sizeof(*e->known));
	e->known->digest = *d;
	e->known->claimed_by = claimed_by;
}

/* ENTRY_ABSENT or ENTRY_UNKNOWN. */
static void set_nothing(struct tree *t, const struct dir *d, struct ent *e, uint8_t type)
{
	static const struct stat none;

	hardlinks_unindex(t, d, e);
	ent_release(e);
	ent_set_stat(t, e, &none);
	e->type = type;
	e->ino = 0;
	e->flags &= (uint16_t)~ENT_RACY;
	e->version = ++t->version;
	e->relinked = 0;
}

/*
 * It got or lost another name, and no more: its bytes and their digest are what they were.  Not
 * where no event would tell of a write that the times don't show.
 */
static bool is_relinked(struct tree *t, const struct dir *d, const struct ent *e,
			const struct stat *st)
{
	return e->type == ENTRY_FILE && S_ISREG(st->st_mode) &&
	       e->ino == fold_ino(t, st->st_dev, st->st_ino) && e->nlink != st->st_nlink &&
	       e->mode == (st->st_mode & 07777) && e->size == (uint64_t)st->st_size &&
	       e->mtime_s == st->st_mtim.tv_sec && e->mtime_ns == st->st_mtim.tv_nsec &&
	       !(e->flags & (ENT_WRITTEN | ENT_GONE)) && !d->scan_now && !dir_is_swept(d) &&
	       (!(e->flags & ENT_RACY) || hardlinks_is_watched(t, e));
}

/* A new version, which who has the last one may still ask for. */
static void set_newer(struct tree *t, struct ent *e)
{
	uint64_t newer = ++t->version - e->version;

	e->version = t->version;
	/* So far that it does not fit: as if the bytes had changed. */
	e->relinked = newer < UINT32_MAX - e->relinked ? e->relinked + (uint32_t)newer : 0;
}

static void set_relinked(struct tree *t, const struct dir *d, struct ent *e, const struct stat *st)
{
	hardlinks_unindex(t, d, e);
	ent_set_stat(t, e, st);
	hardlinks_index(t, d, e);
	set_newer(t, e);
	/* Both in one can't be told from other bytes. */
	if (e->flags & ENT_RENEWED)
		e->relinked = 0;
	e->flags &= (uint16_t)~ENT_RENEWED;
}

/*
 * Some of its bytes went out when it could be written to and look the same.  So they are asked for
 * anew by whoever begins from now on.
 */
static void renew(struct tree *t, const struct dir *d, struct ent *e, const struct stat *st,
		  int64_t since)
{
	ent_release(e);
	set_newer(t, e);
	e->flags &= (uint16_t) ~(ENT_TOLD | ENT_RACY);
	e->flags |= ENT_RENEWED;
	if (stat_is_racy(st, since, d->network))
		e->flags |= ENT_RACY;
}

static bool may_renew(struct tree *t, const struct dir *d, const struct ent *e,
		      const struct stat *st)
{
	return is_doubtful(d, e) && !(e->flags & (ENT_WRITTEN | ENT_GONE)) &&
	       (!e->relinked || e->flags & ENT_RENEWED) && ent_matches(t, e, st);
}

static void set_present(struct tree *t, struct dir *d, struct ent *e, const struct stat *st,
			const char *target, int64_t since)
{
	struct digest digest;

	hardlinks_unindex(t, d, e);
	ent_release(e);
	ent_set_stat(t, e, st);
	hardlinks_index(t, d, e);
	e->version = ++t->version;
	e->relinked = 0;
	e->flags &= (uint16_t) ~(ENT_RACY | ENT_TOLD | ENT_RENEWED);
	if (stat_is_racy(st, since, d->network))
		e->flags |= ENT_RACY;
	if (e->type == ENTRY_SYMLINK)
		e->target = xstrdup(target);
	else if (e->type == ENTRY_FILE && t->cache && hash_cache_get(t->cache, st, &digest))
		ent_set_known(e, &digest, CLAIM_NONE);
}

/* True when what e stands for now (nothing: of type `nothing`) is another version than the one we
 * know. */
static bool ent_changed(struct tree *t, const struct dir *d, const struct ent *e,
			const struct stat *st, uint8_t nothing)
{
	if (!st)
		return e->type != nothing;
	if (!ent_matches(t, e, st))
		return true;
	if (e->type == ENTRY_DIR)
		return e->child && e->child->dead;
	if (e->flags & (ENT_WRITTEN | ENT_GONE))
		return true;
	/* No event told whether it was written since; the times can't. */
	return d->scan_now && e->flags & ENT_RACY && (!dir_is_swept(d) || is_doubtful(d, e));
}

/*
 * What was under this name is lost.  Whatever changed of a directory's entry,
 * what was told about all beneath it is void by the protocol.
 */
static void ent_lose(struct tree *t, struct dir *d, struct ent *e, const struct stat *st)
{
	bool is_dir = e->type == ENTRY_DIR;
	bool same_dir = is_dir && st && S_ISDIR(st->st_mode) &&
			e->ino == fold_ino(t, st->st_dev, st->st_ino) &&
			!(e->child && e->child->dead);

	if (is_dir && e->child)
		dir_drop(t, e->child, &d->subscribers);
	if (e->type != ENTRY_ABSENT && !same_dir && (is_dir || !st))
		tomb_put(t, d->path, e->name, t->version + 1);
}

/* Somebody has mounted keys there, or what holds them. */
static bool shows_keys(const struct dir *d, const char *name)
{
	_cleanup_free_ char *path = path_join(d->path, name);
	_cleanup_free_ char *secret = path_secret(path);

	return secret;
}

/* 1 and the stat (with a symlink's target), 0 when nothing is there, or -errno: can't be told. */
static int look_at(struct tree *t, const struct dir *d, int fd, const char *name, struct stat *st,
		   char target[PROTO_PATH_MAX], bool *ret_mounted)
{
	/* A symlink may be replaced between the two calls, again and again. */
	for (int tries = 0; tries < 100; tries++) {
		int err = mounts_stat(t, d->path, fd, name, st, ret_mounted);
		ssize_t n;

		if (err)
			return err == -ENOENT ? 0 : err;
		if (*ret_mounted && shows_keys(d, name))
			return CONCC_E_UNSAFE;
		if (!S_ISLNK(st->st_mode))
			return 1;
		n = readlinkat(fd, name, target, PROTO_PATH_MAX - 1);
		if (n >= 0) {
			target[n] = '\0';
			return 1;
		}
		if (errno != ENOENT && errno != EINVAL)
			return -errno;
	}
	return -EAGAIN;
}

void tree_busy(struct tree *t)
{
	if (t->ops.busy)
		t->ops.busy(t->data);
}

/* What the disk would not say now, it may say at the next drain; no event will tell when. */
static void note_unknown(struct tree *t, struct dir *d, const struct ent *e, int err)
{
	/* Of many in one directory, one line.  What this user may not see is nobody's failure. */
	if (e->type != ENTRY_UNKNOWN && !d->unknown && err != -EACCES)
		log_warn("can't tell what %s/%s is: %s; jobs that need it run here", d->path,
			 e->name, err == CONCC_E_UNSAFE ? "keys are mounted there" : err_text(err));
	d->unknown = true;
	dir_sweep(t, d, true);
}

/* 1 when it must be looked at again, 0, or -errno. */
static int look_once(struct tree *t, struct dir *d, int fd, struct ent *e, bool in_vain,
		     struct stat *ret_st)
{
	char target[PROTO_PATH_MAX];
	bool mounted = false;
	struct stat buf;
	int64_t since = clock_ns();
	int there = look_at(t, d, fd, e->name, &buf, target, &mounted);
	const struct stat *st = there > 0 ? &buf : NULL;
	uint8_t nothing = there < 0 ? ENTRY_UNKNOWN : ENTRY_ABSENT;
	bool same = st && e->ino == fold_ino(t, st->st_dev, st->st_ino);
	bool was_dir = e->type == ENTRY_DIR;

	t->counts.stats++;
	tree_busy(t);
	if (ret_st)
		*ret_st = st ? buf : (struct stat){0};
	if (there < 0 && there != CONCC_E_UNSAFE && !(e->flags & ENT_SEEN))
		return there;
	if (there < 0)
		note_unknown(t, d, e, there);
	if (!ent_changed(t, d, e, st, nothing)) {
		if (st)
			ent_grow_old(d, e, st, since);
		e->flags &= (uint16_t) ~(ENT_WRITTEN | ENT_GONE);
		return 0;
	}
	if (st && t->cache && e->type == ENTRY_FILE && ent_matches(t, e, st))
		hash_cache_drop(t->cache, st);
	ent_lose(t, d, e, st);
	if (st && is_relinked(t, d, e, st))
		set_relinked(t, d, e, st);
	else if (st && may_renew(t, d, e, st))
		renew(t, d, e, st, since);
	else if (st)
		set_present(t, d, e, st, target, since);
	else
		set_nothing(t, d, e, nothing);
	e->flags &= (uint16_t) ~(ENT_WRITTEN | ENT_GONE);
	/* A directory that is read for the first time tells nothing new. */
	if (d->known_since && ent_content_version(e) == t->version)
		commits_hear(t, d->path, e->name, e->type != ENTRY_ABSENT, was_dir);
	updates_put(t, d, e);
	return hardlinks_track(t, d, fd, e, same, mounted, in_vain) ? 1 : 0;
}

int snap_check(struct tree *t, struct dir *d, int fd, struct ent *e, struct stat *ret_st)
{
	int r = 1;

	/* Who puts one file of many links after the other there has it looked at at every drain. */
	for (int tries = 0; r > 0 && tries < 10; tries++)
		r = look_once(t, d, fd, e, tries == 9, ret_st);
	return r < 0 ? r : 0;
}

static struct dir_attr dir_attr_of(struct tree *t, const struct stat *st)
{
	struct ent e = {0};

	ent_set_stat(t, &e, st);
	return (struct dir_attr){
		.ino = e.ino,
		.size = e.size,
		.mtime_s = e.mtime_s,
		.ctime_s = e.ctime_s,
		.mtime_ns = e.mtime_ns,
		.ctime_ns = e.ctime_ns,
		.nlink = e.nlink,
		.mode = e.mode,
	};
}

void dir_get_attr(const struct dir *d, struct entry_attr *ret)
{
	*ret = (struct entry_attr){
		.type = ENTRY_DIR,
		.mode = d->attr.mode,
		.nlink = d->attr.nlink,
		.ino = d->attr.ino,
		.size = d->attr.size,
		.mtime_s = d->attr.mtime_s,
		.ctime_s = d->attr.ctime_s,
		.mtime_ns = d->attr.mtime_ns,
		.ctime_ns = d->attr.ctime_ns,
		.version = d->attr.version,
	};
}

void dir_init_attr(struct tree *t, struct dir *d, const struct stat *st)
{
	d->attr = dir_attr_of(t, st);
}

static bool dir_attr_is_same(const struct dir_attr *a, const struct dir_attr *b)
{
	return a->ino == b->ino && a->size == b->size && a->mtime_s == b->mtime_s &&
	       a->mtime_ns == b->mtime_ns && a->ctime_s == b->ctime_s &&
	       a->ctime_ns == b->ctime_ns && a->nlink == b->nlink && a->mode == b->mode;
}

void dir_set_attr(struct tree *t, struct dir *d, const struct stat *st)
{
	struct dir_attr now = dir_attr_of(t, st);

	if (dir_attr_is_same(&now, &d->attr))
		return;
	now.version = ++t->version;
	d->attr = now;
	d->attr_changed = true;
	updates_later(t, d);
}
