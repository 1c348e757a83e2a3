/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "commit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

void commit_forget_dir(struct commit *c)
{
	if (c->dir_fd >= 0)
		(void)close(c->dir_fd);
	c->dir_fd = -1;
	free(steal_ptr(&c->dir_path));
}

int commit_parent_fd(struct commit *c, const char *path, const char **ret_name)
{
	const char *base = path_base(path);
	size_t len = (size_t)(base - path);
	int fd;

	*ret_name = base;
	if (c->dir_fd >= 0 && strlen(c->dir_path) == len && memcmp(c->dir_path, path, len) == 0)
		return c->dir_fd;
	commit_forget_dir(c);
	fd = resolve_parent(c->tree, path, ret_name);
	if (fd < 0)
		return fd;
	c->dir_fd = fd;
	c->dir_path = xstrndup(path, len);
	return fd;
}

/* st: all zero when nothing is. */
static bool is_there(const struct stat *st)
{
	return st->st_mode;
}

/* Takes over what is at path now, as this job's. */
static struct own *note(struct commit *c, int dir_fd, const char *path, const struct known *known,
			bool written)
{
	struct own *o = map_get_str(&c->own, path);

	if (!o) {
		o = xcalloc(1, sizeof(*o));
		map_put_str(&c->own, path, o);
	}
	o->version = snap_note(c->tree, dir_fd, path, known ? &known->digest : NULL,
			       known ? known->claimed_by : CLAIM_NONE, written, &o->st);
	o->there = is_there(&o->st);
	return o;
}

/* As far as it comes in this piece: the next one finds less, and begins at the top again. */
static int remove_tree(struct commit *c, int dir_fd, const char *name)
{
	_cleanup_close_ int fd = -1;
	struct dirent *de;
	DIR *dir;
	int err = 0, why;

	tree_busy(c->tree);
	watch_own_events(c->tree, 2);
	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	why = errno;
	if (why != EISDIR && why != EPERM)
		return -why;
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOTDIR ? -why : -errno; /* then it may not be removed */
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	(void)steal_fd(&fd); /* dir's now */
	while (!err && (de = readdir(dir))) {
		if (streq(de->d_name, ".") || streq(de->d_name, ".."))
			continue;
		err = remove_tree(c, dirfd(dir), de->d_name);
		if (!err && commit_is_over(c))
			err = CONCC_E_LATER;
	}
	(void)closedir(dir);
	if (!err && unlinkat(dir_fd, name, AT_REMOVEDIR) < 0)
		err = -errno;
	return err;
}

/* Removes what is where e goes when it is a directory (or anything, with all).  was: what it is. */
static int clear_place(struct commit *c, struct effect *e, int fd, const char *name,
		       const struct stat *was, bool all)
{
	struct own *o;
	int err;

	if (!is_there(was) || (!all && !S_ISDIR(was->st_mode)))
		return 0;
	err = remove_tree(c, fd, name);
	e->cleared = !err || S_ISDIR(was->st_mode);
	if (err == CONCC_E_LATER)
		return err;
	o = note(c, fd, e->path, NULL, false);
	if (!err && S_ISDIR(was->st_mode)) {
		o->cleared = c->tree->version;
		c->clears = true;
	}
	return err;
}

/* From where the piece before has come to. */
static int copy_bytes(struct commit *c, struct effect *e, int from, int to)
{
	static char chunk[64 * 1024];
	ssize_t n;
	int err = 0;

	if (lseek(from, (off_t)e->over, SEEK_SET) < 0 || lseek(to, (off_t)e->over, SEEK_SET) < 0)
		return -errno;
	while (!err && (n = read_full(from, chunk, sizeof(chunk))) != 0) {
		err = n < 0 ? (int)n : write_full(to, chunk, (size_t)n);
		if (err)
			break;
		e->over += (uint64_t)n;
		tree_busy(c->tree);
		if (commit_is_over(c))
			err = CONCC_E_LATER;
	}
	return err;
}

bool commit_is_open(int dir_fd, const char *name)
{
	_cleanup_close_ int fd = openat(dir_fd, name,
					O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME | O_CLOEXEC);

	if (fd < 0 && errno == EPERM)
		fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fcntl(fd, F_SETSIG, SIGURG) < 0)
		return false;
	if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {
		(void)fcntl(fd, F_SETLEASE, F_UNLCK); /* or by the close */
		return false;
	}
	/* Of network file systems the server is asked, which gives leases as it likes. */
	return errno == EAGAIN && !fs_is_network(fd);
}

/*
 * Over the bytes of a file with other names, which are to see it, or that somebody has open, or
 * that is someone else's.  Room is made first, so that a full disk shows before anything is
 * overwritten.
 */
static int write_over(struct commit *c, struct effect *e, int temp_dir_fd, const char *temp, int fd,
		      const char *name)
{
	_cleanup_close_ int from = -1;
	_cleanup_close_ int to = -1;
	struct timespec times[2];
	struct stat st;
	int err;

	if (fchmodat(temp_dir_fd, temp, 0600, 0) < 0)
		return -errno;
	from = openat(temp_dir_fd, temp, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (from < 0)
		return -errno;
	to = openat(fd, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (to < 0 || fstat(to, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return CONCC_E_CONFLICT;
	if (e->size > (uint64_t)st.st_size && fallocate(to, 0, 0, (off_t)e->size) < 0 &&
	    errno != EOPNOTSUPP)
		return -errno;
	e->in_place = true;
	err = copy_bytes(c, e, from, to);
	if (!err && ftruncate(to, (off_t)e->size) < 0)
		err = -errno;
	if (!err && e->mode != (st.st_mode & 07777) && fchmod(to, e->mode) < 0)
		err = -errno;
	effect_times(e, &st, times);
	if (!err && futimens(to, times) < 0)
		err = -errno;
	if (!err && close(steal_fd(&to)) < 0)
		err = -errno;
	return err;
}

static int apply_file(struct commit *c, struct effect *e, int fd, const char *name,
		      const struct stat *was, unsigned peer)
{
	struct known known = {.digest = e->digest, .claimed_by = (uint16_t)peer};
	bool hashed = !(e->flags & EFFECT_F_NO_DIGEST);
	struct timespec times[2];
	_cleanup_close_ int owned = -1;
	const char *temp;
	bool written, beside;
	int temp_fd;
	int err = clear_place(c, e, fd, name, was, false);

	if (err)
		return err;
	temp = path_base(e->temp);
	temp_fd = e->temp_fd;
	if (temp_fd < 0)
		temp_fd = owned = resolve_parent(c->tree, e->temp, &temp);
	if (temp_fd < 0)
		return temp_fd;
	if (S_ISCHR(was->st_mode) || S_ISBLK(was->st_mode))
		return CONCC_E_UNSAFE;
	written = S_ISREG(was->st_mode) && !(e->flags & EFFECT_F_REPLACED);
	if (written && (e->over || was->st_nlink > 1 || commit_is_open(fd, name) ||
			identity_keep(e, was, fd, name, temp_fd, temp) < 0)) {
		err = write_over(c, e, temp_fd, temp, fd, name);
		if (e->in_place && err != CONCC_E_LATER)
			(void)note(c, fd, e->path, err || !hashed ? NULL : &known, true);
		return err; /* the temporary goes with the batch */
	}
	effect_times(e, written ? was : NULL, times);
	if (e->stamped && utimensat(temp_fd, temp, times, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	/* Of its own directory apply_effect() sees to it. */
	beside = path_base(e->temp) - e->temp == path_base(e->path) - e->path &&
		 strncmp(e->temp, e->path, (size_t)(path_base(e->path) - e->path)) == 0;
	if (!beside)
		dir_time_before(c, temp_fd, e->temp);
	if (renameat(temp_fd, temp, fd, name) < 0)
		return -errno;
	if (!beside)
		dir_time_after(c, temp_fd, e->temp, NAME_NONE);
	free(steal_ptr(&e->temp));
	(void)note(c, fd, e->path, hashed ? &known : NULL, false);
	return 0;
}

/* Makes something under a temporary name, then gives it its own. */
static int apply_made(struct commit *c, struct effect *e, int fd, const char *name,
		      const struct stat *was)
{
	char temp[TEMP_NAME_SIZE];
	_cleanup_close_ int from = -1;
	const char *from_name = NULL;
	struct timespec times[2];
	int err = clear_place(c, e, fd, name, was, false);
	int r;

	if (!err && e->kind == EFFECT_LINK) {
		from = resolve_parent(c->tree, e->target, &from_name);
		err = from < 0 ? from : 0;
	}
	if (err)
		return err;
	temp_name(c->tree, temp);
	if (e->kind == EFFECT_SYMLINK)
		r = symlinkat(e->target, fd, temp);
	else if (e->kind == EFFECT_LINK)
		r = linkat(from, from_name, fd, temp, 0);
	else
		r = mknodat(fd, temp, 0600 | (e->flags & EFFECT_F_FIFO ? S_IFIFO : S_IFSOCK), 0);
	if (r < 0)
		return -errno;
	effect_times(e, NULL, times);
	if (e->kind == EFFECT_FILE)
		err = chmod_at(fd, temp, e->mode);
	if (!err && e->kind != EFFECT_LINK && e->flags & EFFECT_F_TIMES &&
	    utimensat(fd, temp, times, AT_SYMLINK_NOFOLLOW) < 0)
		err = -errno;
	if (!err && renameat(fd, temp, fd, name) < 0)
		err = -errno;
	/* Also when rename did nothing, since both were names of one file. */
	(void)unlinkat(fd, temp, 0);
	if (err)
		return err;
	(void)note(c, fd, e->path, NULL, false);
	if (e->kind == EFFECT_LINK)
		(void)note(c, from, e->target, NULL, false);
	return 0;
}

static void dir_times(const struct effect *e, struct timespec ret[2])
{
	effect_times(e, NULL, ret);
	for (int i = 0; i < 2; i++)
		if (ret[i].tv_nsec == UTIME_NOW)
			ret[i].tv_nsec = UTIME_OMIT;
}

static int apply_dir(struct commit *c, struct effect *e, int fd, const char *name,
		     const struct stat *was)
{
	struct timespec times[2];
	bool keep = S_ISDIR(was->st_mode) && !(e->flags & EFFECT_F_OPAQUE);
	bool set_mode = !keep || ((was->st_mode & 07777) != e->mode &&
				  (e->known || map_get_str(&c->own, e->path)));
	int err = keep ? 0 : clear_place(c, e, fd, name, was, true);

	if (err)
		return err;
	if (mkdirat(fd, name, 0700) == 0)
		dir_time_made(c, e->path);
	else if (errno != EEXIST)
		return -errno;
	if (set_mode)
		err = chmod_at(fd, name, e->mode);
	/* Again in apply_dir_times(), if what is around it lets us in then. */
	dir_times(e, times);
	if (!err && e->flags & EFFECT_F_TIMES &&
	    utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		err = -errno;
	(void)note(c, fd, e->path, NULL, false);
	return err;
}

/* No name comes or goes, so the directory is what it was. */
static int apply_meta(struct commit *c, struct effect *e, int fd, const char *name,
		      const struct stat *was)
{
	const struct dir *d;
	const struct ent *ent = commit_find_ent(c, e->path, &d);
	struct timespec times[2];
	struct known known;
	bool keep;
	int err = 0;

	if (!is_there(was))
		return -ENOENT;
	/* The bytes stay what they were, and so does their digest. */
	keep = ent && ent->type == ENTRY_FILE && ent->known;
	if (keep)
		known = *ent->known;
	if (!S_ISLNK(was->st_mode) && (was->st_mode & 07777) != e->mode)
		err = chmod_at(fd, name, e->mode);
	effect_times(e, was, times);
	if (!(e->flags & (EFFECT_F_TOUCHED | EFFECT_F_MTIME)))
		times[1] = was->st_mtim;
	if (!err && e->flags & (EFFECT_F_TOUCHED | EFFECT_F_TIMES) &&
	    utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		err = -errno;
	(void)note(c, fd, e->path, keep ? &known : NULL, false);
	return err;
}

/* The workspace itself has no name beneath a served root: its mode is all that can be set. */
static int apply_workspace(struct commit *c, const struct effect *e)
{
	_cleanup_close_ int fd = resolve_open(c->tree, e->path, O_PATH | O_DIRECTORY);
	struct dir *d = dir_find(c->tree, e->path);
	struct stat st;
	int err = 0;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((st.st_mode & 07777) != e->mode)
		err = chmod_fd(fd, e->mode);
	if (d)
		dir_queue(c->tree, d);
	return err;
}

/* What was there may be removed on the way: that is a name that went. */
static int64_t name_time(const struct commit *c, const struct effect *e, const struct stat *was)
{
	if ((e->kind == EFFECT_REMOVE && !is_there(was)) ||
	    (e->kind == EFFECT_DIR && S_ISDIR(was->st_mode) && !(e->flags & EFFECT_F_OPAQUE)) ||
	    (e->kind == EFFECT_FILE && S_ISREG(was->st_mode) && !(e->flags & EFFECT_F_REPLACED)))
		return NAME_NONE;
	return e->kind == EFFECT_REMOVE ? NAME_UNKNOWN : dir_time_of_name(c, e);
}

static int apply_kind(struct commit *c, struct effect *e, int fd, const char *name,
		      const struct stat *was, unsigned peer)
{
	switch (e->kind) {
	case EFFECT_FILE:
		return e->temp ? apply_file(c, e, fd, name, was, peer)
			       : apply_made(c, e, fd, name, was);
	case EFFECT_DIR:
		return apply_dir(c, e, fd, name, was);
	case EFFECT_REMOVE:
		return clear_place(c, e, fd, name, was, true);
	default:
		return apply_made(c, e, fd, name, was);
	}
}

static int apply_effect(struct commit *c, struct effect *e, unsigned peer)
{
	struct stat was = {0};
	const char *name;
	int fd, held;
	int err;

	if (effect_is_look(e->kind))
		return 0;
	if (streq(e->path, e->workspace))
		return apply_workspace(c, e);
	fd = commit_parent_fd(c, e->path, &name);
	if (fd == -ENOENT && e->kind == EFFECT_REMOVE)
		return 0;
	if (fd < 0)
		return fd;
	if (fstatat(fd, name, &was, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
		return -errno;
	if (e->kind == EFFECT_META)
		return apply_meta(c, e, fd, name, &was);
	held = commit_hold_large(fd, name, S_ISREG(was.st_mode) ? (uint64_t)was.st_size : 0);
	dir_time_before(c, fd, e->path);
	err = apply_kind(c, e, fd, name, &was, peer);
	commit_let_go(c, held);
	if (err == CONCC_E_LATER)
		return err;
	dir_time_after(c, fd, e->path, name_time(c, e, &was));
	/* It may have been the parent of what comes next. */
	if (e->kind == EFFECT_DIR || e->kind == EFFECT_REMOVE)
		commit_forget_dir(c);
	return err;
}

int commit_apply_dir_times(struct commit *c)
{
	struct timespec times[2];
	const char *name;

	while (c->at) {
		struct effect *e = &c->effects[--c->at];
		struct dir *d;
		int fd;

		if (e->kind != EFFECT_DIR || !(e->flags & EFFECT_F_TIMES))
			continue;
		d = dir_find(c->tree, e->path);
		fd = commit_parent_fd(c, e->path, &name);
		dir_times(e, times);
		if (fd < 0 || utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
			log_debug("can't set the time of %s", e->path);
		if (d)
			dir_queue(c->tree, d);
		if (commit_is_over(c))
			return CONCC_E_LATER;
	}
	return 0;
}

/*
 * The events of our own changes: what was noted is newer, so they are not to
 * make further versions.  What others did since shows in the stat.
 */
void commit_absorb_events(struct commit *c)
{
	const struct dir *d;

	watch_collect(c->tree);
	for (; c->n_absorbed < c->n_applied; c->n_absorbed++) {
		const struct effect *e = &c->effects[c->n_absorbed];
		struct ent *ent = commit_find_ent(c, e->path, &d);

		if (!ent || effect_is_look(e->kind))
			continue;
		ent->flags &= (uint16_t)~ENT_GONE;
		if (e->in_place)
			ent->flags &= (uint16_t)~ENT_WRITTEN;
	}
}

int commit_apply_effects(struct commit *c, unsigned peer, struct errmsg *msg)
{
	int err;

	while (c->at < c->n) {
		struct effect *e = &c->effects[c->at];

		tree_busy(c->tree);
		watch_own_events(c->tree, EVENTS_OF_EFFECT);
		err = apply_effect(c, e, peer);
		if (err == CONCC_E_LATER)
			return err;
		if (err)
			return errmsg_set(msg, err, "can't write %s: %s%s", e->path, err_text(err),
					  c->at || e->in_place || e->cleared
						  ? "; some of the job's files are in place"
						  : "");
		c->at++;
		c->n_applied++;
		c->totals.files += e->kind == EFFECT_FILE;
		c->totals.bytes += e->size;
		if (c->at < c->n && commit_is_over(c))
			return CONCC_E_LATER;
	}
	return 0;
}
