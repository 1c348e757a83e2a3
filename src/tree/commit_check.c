/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "commit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h> /* of statx(2), as in namespaces.c */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* A job may make such a name; here it would be taken for one of our temporaries. */
static bool is_temp_name(const char *abs)
{
	return strstr(abs, "/" TEMP_PREFIX);
}

/* The same in a repository without such a name: a directory that has a HEAD. */
static bool is_in_bare_repository(struct commit *c, const char *path)
{
	struct stat st;

	for (const char *at = path; *(at += strspn(at, "/")); at += strcspn(at, "/")) {
		_cleanup_free_ char *head = NULL;
		_cleanup_close_ int fd = -1;
		const char *name;

		if (!vcs_is_control_file(at, strcspn(at, "/")))
			continue;
		head = xasprintf("%.*sHEAD", (int)(at - path), path);
		/* What is not served can't be looked at, and is not written to either. */
		fd = resolve_parent(c->tree, head, &name);
		if (fd >= 0 && fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	}
	return false;
}

/* A further name of such a file would be a way to its bytes. */
static bool changes_what_git_runs(struct commit *c, const struct effect *e)
{
	bool is_dir = e->kind == EFFECT_META ||
		      (e->kind == EFFECT_DIR && !(e->flags & EFFECT_F_OPAQUE));

	return vcs_runs(e->path, is_dir) || is_in_bare_repository(c, e->path) ||
	       (e->kind == EFFECT_LINK &&
		(vcs_runs(e->target, false) || is_in_bare_repository(c, e->target)));
}

void commit_check_place(struct commit *c, const struct effect *e)
{
	bool writable = false;

	if (effect_is_look(e->kind))
		return; /* it is only looked at, and by resolve_open_regular() */
	if (!tree_root_of(c->tree, e->path, &writable) || !writable || streq(e->workspace, "/"))
		commit_fail(c, -EROFS, "write", e->path);
	/* A further name of a file that is only read would be a way to write to it. */
	if (e->kind == EFFECT_LINK && (!tree_root_of(c->tree, e->target, &writable) || !writable))
		commit_fail(c, -EROFS, "link", e->target);
	/* Its own place, and what is in it, has gone by the time it is linked to. */
	if (e->kind == EFFECT_LINK && path_is_below(e->target, e->path))
		commit_fail(c, CONCC_E_UNSAFE, "link to itself", e->path);
	/* A tree in the tree would go, be it one to be read only, or become something else. */
	if (!streq(e->path, e->workspace) && root_is_beneath(c->tree, e->path) &&
	    (e->kind != EFFECT_DIR || e->flags & EFFECT_F_OPAQUE))
		commit_fail(c, CONCC_E_NO_WAY, "replace what holds another served tree,", e->path);
	if (is_temp_name(e->path) || (e->kind == EFFECT_LINK && is_temp_name(e->target)))
		commit_fail(c, CONCC_E_UNSAFE, "use the name of", e->path);
	if (changes_what_git_runs(c, e))
		commit_fail(c, CONCC_E_NO_WAY, "change what git runs,", e->path);
	/* The user's own rights would be for whoever runs it, with bytes that a worker chose. */
	if (e->kind != EFFECT_DIR && e->mode & (S_ISUID | S_ISGID))
		commit_fail(c, CONCC_E_UNSAFE, "set user or group id on", e->path);
}

/* What is at path now, symlinks not followed: 0 or -errno. */
static int look(struct commit *c, const char *path, struct stat *ret)
{
	const char *name;
	int fd = commit_parent_fd(c, path, &name);

	if (fd < 0)
		return fd;
	return fstatat(fd, name, ret, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* Changes up to here were seen by the job, or made by it. */
static uint64_t seen_until(const struct commit *c, const char *path)
{
	const struct own *o = map_get_str(&c->own, path);

	return o && o->version > c->started ? o->version : c->started;
}

/* What went before with a directory above it: in pieces, so that each name's loss may have been
 * noticed by itself. */
static uint64_t cleared_until(const struct commit *c, const char *path)
{
	uint64_t until = 0;

	for (size_t len = 1; c->clears && path[len]; len++) {
		const struct own *o = NULL;

		if (path[len] == '/')
			o = map_get(&c->own, path, len);
		if (o && o->cleared > until)
			until = o->cleared;
	}
	return until;
}

static bool was_lost(const struct commit *c, const char *path)
{
	uint64_t seen = seen_until(c, path), cleared = cleared_until(c, path);

	if (seen < cleared)
		seen = cleared;
	return tomb_version(c->tree, path) > seen || c->tree->tomb_floor > seen;
}

struct ent *commit_find_ent(const struct commit *c, const char *path, const struct dir **ret_dir)
{
	_cleanup_free_ char *parent = path_parent(path);
	const struct dir *d = dir_find(c->tree, parent);
	const char *base = path_base(path);

	*ret_dir = d;
	return d ? dir_name(c->tree, d, base, strlen(base)) : NULL;
}

static bool changed_by_others(struct commit *c, const char *path)
{
	const struct dir *d;
	const struct ent *e = commit_find_ent(c, path, &d);
	const struct own *o;
	struct stat st;
	int err;

	if (was_lost(c, path))
		return true;
	if (d)
		return e && e->type != ENTRY_ABSENT && ent_content_version(e) > d->known_since &&
		       ent_content_version(e) > seen_until(c, path);
	/* The job can't have seen a directory that was never listed: it must be its own. */
	err = look(c, path, &st);
	if (err < 0)
		return !err_is_fact(err); /* what can't be looked at may have changed */
	o = map_get_str(&c->own, path);
	return !o || !o->there || o->st.st_mode != st.st_mode || !stat_is_unchanged(&o->st, &st);
}

/* 1 and what is at path, 0 when nothing is, or a negative code and the message: nobody knows. */
static int look_or_say(struct commit *c, const char *path, struct stat *ret, struct errmsg *msg)
{
	int err = look(c, path, ret);

	if (err == 0)
		return 1;
	*ret = (struct stat){0};
	return err_is_fact(err) ? 0
				: errmsg_set(msg, err, "can't look at %s: %s", path, err_text(err));
}

int commit_conflict(const char *path, struct errmsg *msg)
{
	return errmsg_set(msg, CONCC_E_CONFLICT, "%s changed on this machine while the job ran",
			  path);
}

/* A directory on the way that was removed or replaced: what the job saw in it is gone. */
static int check_ancestors(struct commit *c, const struct effect *e, struct errmsg *msg)
{
	size_t len = strlen(e->workspace);
	_cleanup_free_ char *path = xstrdup(e->path);

	if (!c->tree->tombs.n && !c->tree->tomb_floor)
		return 0;
	if (was_lost(c, e->workspace))
		return commit_conflict(e->workspace, msg);
	while (path[len]) {
		char kept;

		len += 1 + strcspn(path + len + 1, "/");
		kept = path[len];
		path[len] = '\0';
		if (was_lost(c, path))
			return commit_conflict(path, msg);
		path[len] = kept;
	}
	return 0;
}

/*
 * A further name of it came up, or went, and the job did not know: it may have moved what it should
 * have left, or written to one file of two.  A link that is made in a directory that no job has
 * looked at makes no event in this one, so the file tells.
 */
static bool has_other_names(struct commit *c, const struct effect *e, const struct stat *st)
{
	const struct dir *d;
	const struct ent *ent = commit_find_ent(c, e->path, &d);

	if (!c->any_command || !S_ISREG(st->st_mode) || !ent || ent->type != ENTRY_FILE ||
	    changed_by_others(c, e->path))
		return false;
	return ent->nlink != st->st_nlink ||
	       (!(ent->flags & ENT_RENEWED) && ent->version > d->known_since &&
		ent->version > seen_until(c, e->path));
}

/* The next job is to know. */
static void look_again(struct commit *c, const char *path)
{
	_cleanup_free_ char *parent = path_parent(path);
	struct dir *d = dir_find(c->tree, parent);

	if (d)
		dir_queue_scan(c->tree, d);
}

void commit_end_walk(struct commit *c)
{
	while (c->n_walk) {
		struct walk_dir *w = &c->walk[--c->n_walk];

		(void)closedir(w->dir);
		free(w->path);
	}
	free(steal_ptr(&c->walk));
	c->cap_walk = 0;
}

/* Takes path. */
static int walk_into(struct commit *c, char *path, struct errmsg *msg)
{
	int fd = resolve_open(c->tree, path, O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int err = fd < 0 ? fd : dir ? 0 : -errno;

	if (err) {
		if (fd >= 0)
			(void)close(fd);
		(void)errmsg_set(msg, err, "can't remove %s: %s", path, err_text(err));
		free(path);
		return err;
	}
	if (c->n_walk == c->cap_walk) {
		c->cap_walk = c->cap_walk ? 2 * c->cap_walk : 8;
		c->walk = xrealloc(c->walk, c->cap_walk * sizeof(*c->walk));
	}
	c->walk[c->n_walk++] = (struct walk_dir){dir, path};
	return 0;
}

/* Of statx(2), that of the directory itself with an empty name; all zero when it can't be told. */
static struct statx look_at_mount(int fd, const char *name)
{
	struct statx st = {0};

	(void)syscall(SYS_statx, fd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		      STATX_MNT_ID, &st);
	return st;
}

static int refuse_mount(const char *path, int err, struct errmsg *msg)
{
	return errmsg_set(msg, err, "can't write %s: %s", path, err_text(err));
}

static int check_name(struct commit *c, const struct walk_dir *w, const char *name,
		      struct errmsg *msg)
{
	_cleanup_free_ char *path = path_join(w->path, name);
	struct stat st;
	int err = look_or_say(c, path, &st, msg);
	bool is_dir = err > 0 && S_ISDIR(st.st_mode);

	if (err < 0)
		return err;
	if (changed_by_others(c, path))
		return commit_conflict(path, msg);
	if (is_dir && look_at_mount(dirfd(w->dir), name).stx_attributes & STATX_ATTR_MOUNT_ROOT)
		return refuse_mount(path, -EBUSY, msg);
	return is_dir ? walk_into(c, steal_ptr(&path), msg) : 0;
}

static int check_beneath(struct commit *c, struct errmsg *msg)
{
	int err = 0;

	while (!err && c->n_walk) {
		struct walk_dir *w = &c->walk[c->n_walk - 1];
		const struct dirent *de;

		errno = 0;
		de = readdir(w->dir);
		if (de && !streq(de->d_name, ".") && !streq(de->d_name, "..") &&
		    !str_starts(de->d_name, TEMP_PREFIX))
			err = check_name(c, w, de->d_name, msg);
		else if (!de && errno) /* half of it is not all of it */
			err = errmsg_set(msg, -errno, "can't remove %s: %s", w->path,
					 err_text(-errno));
		else if (!de) {
			(void)closedir(w->dir);
			free(w->path);
			c->n_walk--;
		}
		if (!err && c->n_walk && commit_is_over(c))
			return CONCC_E_LATER;
	}
	commit_end_walk(c);
	return err;
}

/* Everything at and beneath path is about to go: none of it may be news to the job. */
static int check_tree(struct commit *c, const char *path, bool is_dir, struct errmsg *msg)
{
	int err;

	if (changed_by_others(c, path))
		return commit_conflict(path, msg);
	if (!is_dir)
		return 0;
	err = walk_into(c, xstrdup(path), msg);
	return err ? err : check_beneath(c, msg);
}

/* Its default access list decides the modes of what is made in there: a job knew nothing of it. */
static bool parent_has_default_acl(struct commit *c, const char *path)
{
	_cleanup_free_ char *parent = path_parent(path);
	const struct dir *d = dir_find(c->tree, parent);
	_cleanup_close_ int fd = -1;

	if (d)
		return d->default_acl;
	fd = resolve_open(c->tree, parent, O_RDONLY | O_DIRECTORY);
	return fd >= 0 && fd_has_default_acl(fd);
}

/* Does it make a new file with a mode of its own?  st: what is there, mode 0: nothing. */
static bool makes(const struct effect *e, const struct stat *st)
{
	if (e->kind == EFFECT_DIR)
		return true;
	return e->kind == EFFECT_FILE &&
	       (!S_ISREG(st->st_mode) || e->flags & (EFFECT_F_REPLACED | EFFECT_F_SPECIAL));
}

/*
 * Whose a file is, and its access list, a job can't tell: what replaces files often gives the new
 * one those of the old one (sed -i, patch, cp -p).
 */
static bool has_attributes(struct commit *c, const struct effect *e)
{
	const char *name;
	int fd = c->any_command ? commit_parent_fd(c, e->path, &name) : -1;

	return fd >= 0 && identity_has_attributes(fd, name);
}

static bool replaces(const struct effect *e, const struct stat *was)
{
	return e->temp && e->flags & EFFECT_F_REPLACED && S_ISREG(was->st_mode);
}

static bool replaces_others(const struct effect *e, const struct stat *was)
{
	struct stat st;

	return replaces(e, was) && e->temp_fd >= 0 &&
	       fstatat(e->temp_fd, path_base(e->temp), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (st.st_uid != was->st_uid || st.st_gid != was->st_gid);
}

/* Where it will be, if its directory is still to be made. */
static uint64_t mount_of(struct commit *c, const char *path)
{
	_cleanup_free_ char *at = xstrdup(path);
	const char *name;
	int fd;

	while ((fd = commit_parent_fd(c, at, &name)) < 0) {
		char *parent = path_parent(at);

		free(at);
		at = parent;
		if (streq(at, "/"))
			return 0;
	}
	return look_at_mount(fd, "").stx_mnt_id;
}

/* Makes, replaces or removes a name. */
static bool is_of_names(const struct effect *e, const struct stat *was)
{
	return e->kind == EFFECT_REMOVE || e->kind == EFFECT_SYMLINK || e->kind == EFFECT_LINK ||
	       makes(e, was);
}

static bool removes_mount(const struct effect *e, const struct stat *was, uint64_t attributes)
{
	bool stays = e->kind == EFFECT_META ||
		     (e->kind == EFFECT_DIR && !(e->flags & EFFECT_F_OPAQUE));

	return S_ISDIR(was->st_mode) && !stays && attributes & STATX_ATTR_MOUNT_ROOT;
}

/*
 * Does the file system here let nobody do it, root neither?  It is mounted read-only, say, or ends
 * there, or the file or directory must not change (chattr +i, +a), of which a job knows nothing.
 * Modes it has seen.
 */
static int check_mount(struct commit *c, const struct effect *e, const struct stat *was)
{
	uint64_t attributes;
	const char *name;
	int fd;

	if (e->kind == EFFECT_LINK && mount_of(c, e->path) != mount_of(c, e->target))
		return -EXDEV;
	fd = commit_parent_fd(c, e->path, &name);
	if (fd < 0)
		return 0; /* the job has made that directory */
	if (faccessat(fd, ".", W_OK, 0) < 0 &&
	    (errno == EROFS || (errno == EPERM && is_of_names(e, was))))
		return -errno;
	attributes = was->st_mode ? look_at_mount(fd, name).stx_attributes : 0;
	if (S_ISREG(was->st_mode) && attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND))
		return -EPERM;
	return removes_mount(e, was, attributes) ? -EBUSY : 0;
}

/*
 * Who has all rights here keeps these bits when he writes to such a file, and a job, which has
 * fewer, loses them; nothing tells that from a chmod(2).
 */
static bool loses_ids(const struct effect *e, const struct stat *was)
{
	return geteuid() == 0 && S_ISREG(was->st_mode) && was->st_mode & (S_ISUID | S_ISGID) &&
	       (e->kind == EFFECT_META || e->kind == EFFECT_FILE) &&
	       !(e->flags & (EFFECT_F_REPLACED | EFFECT_F_SPECIAL));
}

/*
 * A program that runs can't be written to (ETXTBSY), which the job was not told.  That is to be
 * known before anything is in place, or what runs again here does it twice.
 */
static bool writes_to_running(struct commit *c, const struct effect *e, const struct stat *was)
{
	_cleanup_close_ int to = -1;
	const char *name;
	int fd;

	if (e->kind != EFFECT_FILE || !e->temp || e->flags & EFFECT_F_REPLACED ||
	    !S_ISREG(was->st_mode) || !(was->st_mode & 0111))
		return false;
	fd = commit_parent_fd(c, e->path, &name);
	if (fd < 0 || !commit_is_open(fd, name))
		return false;
	to = openat(fd, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return to < 0 && errno == ETXTBSY;
}

/* Did the job find the directory there?  Told before anything is applied: a directory whose mode
 * changes is listed anew, and all beneath it. */
static bool was_known(const struct commit *c, const char *path)
{
	const struct dir *d;
	const struct ent *e = commit_find_ent(c, path, &d);

	return e && e->type == ENTRY_DIR &&
	       (e->version <= d->known_since || e->version <= c->started);
}

/*
 * Could the job have had a lock on it to read it, all the time since its dispatch?  Who has one
 * that keeps it away has one now, or has opened the file for writing and closed it since, which
 * makes a new version of it, whatever was written.  Not noticed is who keeps the file open all
 * along, and neither writes to it nor has its lock now.
 */
static int check_locked(struct commit *c, const struct effect *e, struct errmsg *msg)
{
	struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET}; /* all of it */
	_cleanup_close_ int fd = resolve_open_regular(c->tree, e->path);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || changed_by_others(c, e->path) ||
	    !tree_confirms(c->tree, e->path, &st))
		return commit_conflict(e->path, msg);
	if (fcntl(fd, F_OFD_GETLK, &l) < 0 || l.l_type != F_UNLCK)
		return errmsg_set(msg, CONCC_E_CONFLICT,
				  "%s was locked on this machine while the job read it", e->path);
	return 0;
}

/* It was told that there are none. */
static int check_asked(struct commit *c, const struct effect *e, struct errmsg *msg)
{
	if (!has_attributes(c, e))
		return 0;
	return errmsg_set(msg, CONCC_E_NO_WAY,
			  "%s has extended attributes or an access list, for which the job asked",
			  e->path);
}

int commit_check_locks(struct commit *c, struct errmsg *msg)
{
	int err = 0;

	for (size_t i = 0; c->locks && i < c->n; i++)
		if (c->effects[i].kind == EFFECT_LOCKED)
			snap_freshen(c->tree, c->effects[i].path);
	if (c->locks)
		tree_on_event(c->tree);
	for (size_t i = 0; c->locks && !err && i < c->n; i++)
		if (c->effects[i].kind == EFFECT_LOCKED)
			err = check_locked(c, &c->effects[i], msg);
	return err;
}

int commit_check_effect(struct commit *c, struct effect *e, struct errmsg *msg)
{
	struct stat st;
	bool is_dir;
	int err;

	if (c->n_walk)
		return check_beneath(c, msg);
	err = check_ancestors(c, e, msg);
	if (err || streq(e->path, e->workspace))
		return err;
	if (e->kind == EFFECT_LOCKED)
		return check_locked(c, e, msg);
	if (e->kind == EFFECT_ASKED)
		return check_asked(c, e, msg);
	if (e->kind == EFFECT_LINK && changed_by_others(c, e->target))
		return commit_conflict(e->target, msg);
	err = look_or_say(c, e->path, &st, msg);
	if (err < 0)
		return err;
	is_dir = err > 0 && S_ISDIR(st.st_mode);
	if (c->any_command) {
		int denied = check_mount(c, e, &st);

		if (denied)
			return refuse_mount(e->path, denied, msg);
	}
	if (err > 0 && has_other_names(c, e, &st)) {
		look_again(c, e->path);
		return errmsg_set(msg, CONCC_E_CONFLICT,
				  "%s got or lost another name on this machine", e->path);
	}
	if (err > 0 && loses_ids(e, &st))
		return errmsg_set(
			msg, CONCC_E_NO_WAY,
			"%s has its user's or group's rights (chmod u+s, g+s), which it may "
			"have lost since a job wrote to it",
			e->path);
	if (err > 0 && writes_to_running(c, e, &st))
		return errmsg_set(msg, CONCC_E_NO_WAY, "%s is a program that runs here", e->path);
	/* Two jobs that make the same directory agree. */
	if (e->kind == EFFECT_DIR && is_dir && !(e->flags & EFFECT_F_OPAQUE)) {
		e->known = was_known(c, e->path);
		return 0;
	}
	if (e->kind == EFFECT_META)
		return changed_by_others(c, e->path) ? commit_conflict(e->path, msg) : 0;
	if (makes(e, &st) && parent_has_default_acl(c, e->path))
		return errmsg_set(
			msg, CONCC_E_NO_WAY,
			"the directory of %s has a default access list (setfacl -d), which "
			"jobs elsewhere don't see",
			e->path);
	/* Moved, if what it made or wrote to is that: no owner or list would come along. */
	if (e->kind == EFFECT_REMOVE && err > 0 && !is_dir &&
	    (st.st_uid != geteuid() || (S_ISREG(st.st_mode) && has_attributes(c, e))))
		c->others = e;
	if (e->kind == EFFECT_FILE && e->temp)
		c->made = true;
	if (c->others && c->made)
		return errmsg_set(msg, CONCC_E_NO_WAY,
				  "%s is another user's, or has extended attributes or an access "
				  "list, and may have been moved by the job",
				  c->others->path);
	if (replaces_others(e, &st))
		return errmsg_set(msg, CONCC_E_NO_WAY,
				  "%s is another user's or group's, and jobs can't see whose",
				  e->path);
	if (replaces(e, &st) && has_attributes(c, e))
		return errmsg_set(
			msg, CONCC_E_NO_WAY,
			"%s has extended attributes or an access list, which jobs don't see",
			e->path);
	return check_tree(c, e->path, is_dir, msg);
}
