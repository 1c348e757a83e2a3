/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/tree.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "snapshot.h"

#define EFFECT_F_SPECIAL (EFFECT_F_FIFO | EFFECT_F_SOCKET)

/* One batch: an unpacked kernel tree and more, at about 250 bytes each. */
#define EFFECTS_MAX (256 * 1024)
/* Of all paths of one job: that same tree has 10 MB of them. */
#define NAMES_MAX (128u * 1024 * 1024)

struct effect {
	uint8_t kind;  /* enum effect_kind */
	uint8_t flags; /* enum effect_flags */
	uint16_t mode;
	uint32_t mtime_ns, atime_ns;
	int64_t mtime_s, atime_s;
	uint64_t size;
	struct digest digest;
	const char *workspace; /* borrowed */
	char *path;	       /* absolute */
	char *target;	       /* SYMLINK: its text; LINK: absolute path; else NULL */
	char *temp;    /* FILE: absolute path of the bytes, NULL when there is none (any more) */
	int temp_fd;   /* its directory, borrowed from temp_dirs; -1: find it by its path */
	bool in_place; /* was written over what was there */
	bool stamped;  /* has its time from stamp_batch(): its temporary has not */
	bool known; /* DIR: the job found the directory there, so its mode is what the job made it
		     */
};

/* Directories with temporaries stay open, so that these are found when a directory is moved. */
#define TEMP_DIRS_MAX 32
struct temp_dir {
	int fd;
	dev_t dev;
	ino_t ino;
};

/* What this job left under a path. */
struct own {
	uint64_t version;
	bool there;
	struct stat st;
};

/* A file time of the job: by the worker's clock, and what it became here, in ns. */
struct stamp {
	int64_t there, here;
};
/* One for each batch.  Beyond, the oldest is forgotten: times from before may fall together. */
#define STAMPS_MAX 32

struct commit {
	struct tree *tree;
	char *const *workspaces;
	uint64_t started;
	struct effect *effects;
	size_t n, cap;
	size_t n_applied;
	size_t name_bytes; /* of the whole job */
	bool full;	   /* more than is taken: what comes is dropped */
	/* The EFFECT_FILE whose bytes are coming: the last effect. */
	bool receiving;
	uint64_t received;
	bool holes; /* some of it was not written, being zeros */
	int fd;	    /* its temporary, -1 after an error */
	int err;
	struct errmsg msg;
	struct map own; /* struct own by path */
	struct map
		removed; /* paths that this batch removes or replaces: no place for temporaries */
	/* The parent of the target before: most targets share it. */
	int dir_fd;
	char *dir_path;
	struct temp_dir temp_dirs[TEMP_DIRS_MAX];
	size_t n_temp_dirs;
	struct commit_totals totals;
	int64_t dispatched; /* ns; no file of the job is older */
	struct stamp stamps[STAMPS_MAX];
	size_t n_stamps;
};

static int64_t ns_of(int64_t s, uint32_t ns)
{
	const int64_t max = INT64_MAX / 1000000000 - 1;

	/* Of a worker's clock that is far out, nothing can be kept. */
	return (s > max ? max : s < -max ? -max : s) * 1000000000 + ns;
}

/* As file systems tell the time, which a precise clock would be ahead of. */
static int64_t coarse_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME_COARSE, &t);
	return ns_of(t.tv_sec, (uint32_t)t.tv_nsec);
}

struct commit *commit_new(struct tree *t, char *const *workspaces, uint64_t started, mode_t umask)
{
	struct commit *c = xcalloc(1, sizeof(*c));

	/* The modes of effects are final: the job's own umask was applied where it ran. */
	(void)umask;
	c->tree = t;
	c->workspaces = workspaces;
	c->started = started;
	c->fd = -1;
	c->dir_fd = -1;
	c->dispatched = coarse_now();
	return c;
}

static void forget_dir(struct commit *c)
{
	if (c->dir_fd >= 0)
		(void)close(c->dir_fd);
	c->dir_fd = -1;
	free(steal_ptr(&c->dir_path));
}

static void remove_temp(struct commit *c, struct effect *e)
{
	_cleanup_close_ int found = -1;
	int fd = e->temp_fd;
	const char *name;

	if (!e->temp)
		return;
	name = path_base(e->temp);
	if (fd < 0)
		fd = found = resolve_parent(c->tree, e->temp, &name);
	if (fd >= 0)
		(void)unlinkat(fd, name, 0); /* what stays is removed when its server is dead */
	watch_own_events(c->tree, 1);
	free(steal_ptr(&e->temp));
}

/* Keeps the directory open for the batch; takes fd.  -1 when there are too many. */
static int keep_temp_dir(struct commit *c, int fd)
{
	struct stat st;
	struct temp_dir *d;

	if (fstat(fd, &st) == 0) {
		for (d = c->temp_dirs; d < c->temp_dirs + c->n_temp_dirs; d++) {
			if (d->dev == st.st_dev && d->ino == st.st_ino) {
				(void)close(fd);
				return d->fd;
			}
		}
		if (c->n_temp_dirs < TEMP_DIRS_MAX) {
			d = &c->temp_dirs[c->n_temp_dirs++];
			*d = (struct temp_dir){fd, st.st_dev, st.st_ino};
			return fd;
		}
	}
	(void)close(fd);
	return -1;
}

static void reset_batch(struct commit *c)
{
	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
	for (size_t i = 0; i < c->n; i++) {
		remove_temp(c, &c->effects[i]);
		free(c->effects[i].path);
		free(c->effects[i].target);
	}
	while (c->n_temp_dirs)
		(void)close(c->temp_dirs[--c->n_temp_dirs].fd);
	c->n = 0;
	c->n_applied = 0;
	c->receiving = false;
	c->full = false;
	c->err = 0;
	map_release(&c->removed);
	c->removed = MAP_INIT;
	forget_dir(c);
}

void commit_free(struct commit *c)
{
	struct own *o;

	if (!c)
		return;
	reset_batch(c);
	free(c->effects);
	for (size_t it = 0; (o = map_next(&c->own, &it, NULL));)
		free(o);
	map_release(&c->own);
	free(c);
}

void commit_totals(const struct commit *c, struct commit_totals *ret)
{
	*ret = c->totals;
}

/* ---- collecting ---- */

/* The first error decides; its bytes are dropped as they come. */
static void remember(struct commit *c, int err, const char *what, const char *path)
{
	if (c->err)
		return;
	c->err = errmsg_set(&c->msg, err, "can't %s %s: %s", what, path, err_text(err));
}

static int protocol(struct commit *c, const char *what)
{
	if (!c->err)
		c->err = errmsg_set(&c->msg, CONCC_E_PROTO, "the worker sent %s", what);
	return CONCC_E_PROTO;
}

static char *parent_of(const char *path)
{
	const char *base = path_base(path);

	return base - path > 1 ? xstrndup(path, (size_t)(base - path) - 1) : xstrdup("/");
}

/* The nearest directory on path that exists and that this batch does not remove. */
static int temp_dir(struct commit *c, const struct effect *e, char **ret_path)
{
	char *dir = parent_of(e->path);
	size_t top = strlen(e->workspace);
	int fd;

	for (size_t len = top; c->removed.n && dir[len];) {
		char kept;

		len += 1 + strcspn(dir + len + 1, "/");
		kept = dir[len];
		dir[len] = '\0';
		if (map_get_str(&c->removed, dir)) {
			*strrchr(dir, '/') = '\0';
			break;
		}
		dir[len] = kept;
	}
	for (;;) {
		fd = resolve_open(c->tree, dir, O_PATH | O_DIRECTORY);
		if ((fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP) || strlen(dir) <= top)
			break;
		*strrchr(dir, '/') = '\0';
	}
	if (fd < 0)
		free(dir);
	else
		*ret_path = dir;
	return fd;
}

static int open_temp(struct commit *c, struct effect *e)
{
	_cleanup_free_ char *dir = NULL;
	char name[TEMP_NAME_SIZE];
	_cleanup_close_ int dir_fd = temp_dir(c, e, &dir);
	int fd;

	if (dir_fd < 0)
		return dir_fd;
	do {
		temp_name(c->tree, name);
		fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0600);
	} while (fd < 0 && errno == EEXIST);
	if (fd < 0)
		return -errno;
	e->temp = path_join(dir, name);
	e->temp_fd = keep_temp_dir(c, steal_fd(&dir_fd));
	return fd;
}

#define EFFECT_F_TIMES (EFFECT_F_MTIME | EFFECT_F_ATIME)

/* was: of the file that it writes to, or NULL. */
static void effect_times(const struct effect *e, const struct stat *was, struct timespec ret[2])
{
	/* Both times: setting one alone is reported as MODIFY (fsnotify_change in
	 * include/linux/fsnotify.h), after which the bytes would count as new. */
	ret[0] = was ? was->st_atim : (struct timespec){.tv_nsec = UTIME_NOW};
	if (e->flags & EFFECT_F_ATIME)
		ret[0] = (struct timespec){.tv_sec = e->atime_s, .tv_nsec = e->atime_ns};
	ret[1] = e->flags & EFFECT_F_MTIME
			 ? (struct timespec){.tv_sec = e->mtime_s, .tv_nsec = e->mtime_ns}
			 : (struct timespec){.tv_nsec = UTIME_NOW};
}

/* A file's creation, writing, attributes and rename, and what was there before: some more at most.
 */
#define EVENTS_OF_EFFECT 8

/* All bytes are there.  Closed before its rename: the event of a close names what it is then. */
static void finish_temp(struct commit *c)
{
	struct effect *e = &c->effects[c->n - 1];
	struct timespec times[2];
	int err = 0;

	c->receiving = false;
	watch_own_events(c->tree, EVENTS_OF_EFFECT);
	if (c->fd < 0)
		return;
	effect_times(e, NULL, times);
	/* A hole at the end is still missing. */
	if (c->holes && ftruncate(c->fd, (off_t)e->size) < 0)
		err = -errno;
	if (fchmod(c->fd, e->mode) < 0 || (e->flags & EFFECT_F_TIMES && futimens(c->fd, times) < 0))
		err = -errno;
	if (close(steal_fd(&c->fd)) < 0 && !err)
		err = -errno; /* where network file systems tell of a full disk */
	if (err)
		remember(c, err, "write", e->path);
}

static struct effect *new_effect(struct commit *c, const struct msg_file *f)
{
	struct effect *e;

	if (c->n == c->cap) {
		c->cap = c->cap ? c->cap * 2 : 8;
		c->effects = xrealloc(c->effects, c->cap * sizeof(*e));
	}
	e = &c->effects[c->n++];
	*e = (struct effect){
		.kind = f->kind,
		.flags = f->flags,
		.mode = f->mode & 07777,
		.mtime_s = f->mtime_s,
		.mtime_ns = f->mtime_ns,
		.atime_s = f->atime_s,
		.atime_ns = f->atime_ns,
		.size = f->size,
		.digest = f->digest,
		.workspace = c->workspaces[f->workspace],
		.temp_fd = -1,
	};
	e->path = f->path[0] ? path_join(e->workspace, f->path) : xstrdup(e->workspace);
	if (f->kind == EFFECT_SYMLINK)
		e->target = xstrdup(f->target);
	else if (f->kind == EFFECT_LINK)
		e->target = path_join(e->workspace, f->target);
	return e;
}

/* A job may make such a name; here it would be taken for one of our temporaries. */
static bool is_temp_name(const char *abs)
{
	return strstr(abs, "/" TEMP_PREFIX);
}

static const char *check_message(const struct commit *c, const struct msg_file *f)
{
	if (f->workspace >= strv_len(c->workspaces))
		return "a file for no workspace";
	if (f->kind < EFFECT_FILE || f->kind > EFFECT_LINK)
		return "an unknown kind of file";
	/* Again what the decoder checked: this is where a wrong path would do harm. */
	if (f->path[0] ? !path_is_clean_relative(f->path)
		       : f->kind != EFFECT_DIR && f->kind != EFFECT_META)
		return "an unsafe path";
	if (!f->path[0] && f->flags & EFFECT_F_OPAQUE)
		return "a workspace's removal";
	if (f->kind == EFFECT_LINK && !path_is_clean_relative(f->target))
		return "an unsafe link";
	if (f->kind == EFFECT_SYMLINK && (!f->target[0] || strlen(f->target) >= PROTO_PATH_MAX))
		return "a symlink without a usable target";
	if (f->kind != EFFECT_FILE && f->size)
		return "bytes for something that is no file";
	if (f->kind == EFFECT_FILE && f->flags & EFFECT_F_SPECIAL && f->size)
		return "bytes for a fifo or socket";
	if (f->mtime_ns >= 1000000000 || f->atime_ns >= 1000000000)
		return "an impossible time";
	return NULL;
}

/* What is at path now, symlinks not followed: 0 or -errno. */
static int look(struct commit *c, const char *path, struct stat *ret)
{
	const char *name;
	_cleanup_close_ int fd = resolve_parent(c->tree, path, &name);

	if (fd < 0)
		return fd;
	return fstatat(fd, name, ret, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static bool is_named(const char *name, size_t n, const char *const *names, size_t n_names)
{
	for (size_t i = 0; i < n_names; i++)
		if (strlen(names[i]) == n && strncasecmp(name, names[i], n) == 0)
			return true;
	return false;
}

/*
 * What has a version control run commands when its user asks for the state of things: below its
 * own directory, at any depth (git's modules have theirs), or another thing in that one's place.
 * Jobs that change it are rare, and run here.
 */
static const char *const control_dirs[] = {".git", ".hg",  ".jj",    ".sl",
					   ".bzr", "_MTN", ".pijul", "_darcs"};
static const char *const control_files[] = {
	"branch.conf",		"commondir", "config",	   "config.toml",
	"config.worktree",	"defaults",  "git_target", "hgrc",
	"hgrc-not-shared",	"hooks",     "monotonerc", "sharedpath",
	"workspace-config.toml"};

static bool is_control_file(const char *name, size_t n)
{
	return is_named(name, n, control_files, sizeof(control_files) / sizeof(*control_files));
}

static bool is_control_dir(const char *name, size_t n)
{
	return is_named(name, n, control_dirs, sizeof(control_dirs) / sizeof(*control_dirs));
}

/* As bare repositories are called. */
static bool ends_in_git(const char *name, size_t n)
{
	return n > 4 && strncasecmp(name + n - 4, ".git", 4) == 0;
}

static bool is_run_by_git(const char *path, bool is_dir)
{
	const char *at = path, *last = path;
	bool inside = false, last_is_own = false, in_jj = false;

	while (*(at += strspn(at, "/"))) {
		size_t n = strcspn(at, "/");

		if (inside && is_control_file(at, n))
			return true;
		/* A file that names another repository. */
		if (in_jj && !at[n] && !is_dir && n == 4 && strncasecmp(at, "repo", n) == 0)
			return true;
		in_jj = n == 3 && strncasecmp(at, ".jj", n) == 0;
		last_is_own = is_control_dir(at, n);
		inside |= last_is_own || ends_in_git(at, n);
		last = at;
		at += n;
	}
	/* A directory with one is a repository to git, whatever it is called. */
	if (!inside && !is_dir && strcasecmp(last, "HEAD") == 0)
		return true;
	return last_is_own && !is_dir;
}

/* The same in a repository without such a name: a directory that has a HEAD. */
static bool is_in_bare_repository(struct commit *c, const char *path)
{
	struct stat st;

	for (const char *at = path; *(at += strspn(at, "/")); at += strcspn(at, "/")) {
		_cleanup_free_ char *head = NULL;

		if (!is_control_file(at, strcspn(at, "/")))
			continue;
		head = xasprintf("%.*sHEAD", (int)(at - path), path);
		/* What is not served can't be looked at, and is not written to either. */
		if (look(c, head, &st) == 0)
			return true;
	}
	return false;
}

/* A further name of such a file would be a way to its bytes. */
static bool changes_what_git_runs(struct commit *c, const struct effect *e)
{
	bool is_dir = e->kind == EFFECT_META ||
		      (e->kind == EFFECT_DIR && !(e->flags & EFFECT_F_OPAQUE));

	return is_run_by_git(e->path, is_dir) || is_in_bare_repository(c, e->path) ||
	       (e->kind == EFFECT_LINK &&
		(is_run_by_git(e->target, false) || is_in_bare_repository(c, e->target)));
}

static void check_place(struct commit *c, const struct effect *e)
{
	bool writable = false;

	if (!tree_root_of(c->tree, e->path, &writable) || !writable || streq(e->workspace, "/"))
		remember(c, -EROFS, "write", e->path);
	/* A further name of a file that is only read would be a way to write to it. */
	if (e->kind == EFFECT_LINK && (!tree_root_of(c->tree, e->target, &writable) || !writable))
		remember(c, -EROFS, "link", e->target);
	/* A tree in the tree would go, be it one to be read only, or become something else. */
	if (!streq(e->path, e->workspace) && root_is_beneath(c->tree, e->path) &&
	    (e->kind != EFFECT_DIR || e->flags & EFFECT_F_OPAQUE))
		remember(c, CONCC_E_NO_WAY, "replace what holds another served tree,", e->path);
	if (is_temp_name(e->path) || (e->kind == EFFECT_LINK && is_temp_name(e->target)))
		remember(c, CONCC_E_UNSAFE, "use the name of", e->path);
	if (changes_what_git_runs(c, e))
		remember(c, CONCC_E_NO_WAY, "change what git runs,", e->path);
	/* The user's own rights would be for whoever runs it, with bytes that a worker chose. */
	if (e->kind != EFFECT_DIR && e->mode & (S_ISUID | S_ISGID))
		remember(c, CONCC_E_UNSAFE, "set user or group id on", e->path);
}

int commit_file(struct commit *c, const struct msg_file *f)
{
	const char *wrong = check_message(c, f);
	struct effect *e;
	int fd;

	if (c->receiving)
		wrong = "a file before the bytes of the last";
	if (wrong)
		return protocol(c, wrong);
	c->name_bytes += strlen(f->path) + strlen(f->target);
	if (c->n >= EFFECTS_MAX || c->name_bytes > NAMES_MAX) {
		c->full = true;
		remember(c, CONCC_E_TOOBIG, "take in as many files as", f->path);
		return CONCC_E_TOOBIG;
	}
	e = new_effect(c, f);
	check_place(c, e);
	if (e->kind == EFFECT_REMOVE || e->flags & EFFECT_F_OPAQUE)
		map_put_str(&c->removed, e->path, e->path);
	if (e->kind != EFFECT_FILE || e->flags & EFFECT_F_SPECIAL)
		return 0;
	c->receiving = true;
	c->received = 0;
	c->holes = false;
	if (!c->err) {
		fd = open_temp(c, e);
		if (fd < 0)
			remember(c, fd, "write", e->path);
		else
			c->fd = fd;
	}
	if (!e->size)
		finish_temp(c);
	return 0;
}

/* The block of most file systems: a smaller hole saves none. */
#define BLOCK 4096

static bool is_zero(const uint8_t *p, size_t n)
{
	return !p[0] && memcmp(p, p + 1, n - 1) == 0;
}

/* How many of n bytes for offset at are alike, block by block: zeros, or to be written. */
static size_t run_of(const uint8_t *p, size_t n, uint64_t at, bool *ret_hole)
{
	size_t len = 0;

	while (len < n) {
		size_t block = BLOCK - (at + len) % BLOCK;
		bool hole = is_zero(p + len, block < n - len ? block : n - len);

		if (len && hole != *ret_hole)
			return len;
		*ret_hole = hole;
		len += block;
	}
	return n;
}

/* Holes of sparse files stay holes: they come as zeros. */
static int write_sparse(struct commit *c, const uint8_t *p, size_t n, uint64_t at)
{
	int err = 0;

	while (n && !err) {
		bool hole = false;
		size_t len = run_of(p, n, at, &hole);

		if (!hole)
			err = write_full(c->fd, p, len);
		else if (lseek(c->fd, (off_t)len, SEEK_CUR) < 0)
			err = -errno;
		c->holes |= hole;
		p += len;
		n -= len;
		at += len;
	}
	return err;
}

int commit_data(struct commit *c, const void *p, size_t n)
{
	struct effect *e = c->n ? &c->effects[c->n - 1] : NULL;
	int err;

	if (c->full)
		return CONCC_E_TOOBIG;
	if (!c->receiving || n > e->size - c->received)
		return protocol(c, "more bytes than it announced");
	c->received += n;
	if (c->fd >= 0) {
		err = write_sparse(c, p, n, c->received - n);
		if (err) {
			remember(c, err, "write", e->path);
			(void)close(steal_fd(&c->fd));
			remove_temp(c, e);
		}
	}
	if (c->received == e->size)
		finish_temp(c);
	return 0;
}

/* ---- conflicts ---- */

static bool same_stat(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_mode == b->st_mode &&
	       a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Changes up to here were seen by the job, or made by it. */
static uint64_t seen_until(const struct commit *c, const char *path)
{
	const struct own *o = map_get_str(&c->own, path);

	return o && o->version > c->started ? o->version : c->started;
}

static bool was_lost(const struct commit *c, const char *path)
{
	uint64_t seen = seen_until(c, path);

	return tomb_version(c->tree, path) > seen || c->tree->tomb_floor > seen;
}

static const struct ent *find_ent(const struct commit *c, const char *path, bool *ret_listed)
{
	_cleanup_free_ char *parent = parent_of(path);
	const struct dir *d = dir_find(c->tree, parent);
	const char *base = path_base(path);

	*ret_listed = d;
	return d ? names_find(c->tree, d, base, strlen(base)) : NULL;
}

static bool changed_by_others(struct commit *c, const char *path)
{
	bool listed;
	const struct ent *e = find_ent(c, path, &listed);
	const struct own *o;
	struct stat st;
	int err;

	if (was_lost(c, path))
		return true;
	if (listed)
		return e && e->type != ENTRY_ABSENT && !(e->flags & ENT_INITIAL) &&
		       ent_content_version(e) > seen_until(c, path);
	/* The job can't have seen a directory that was never listed: it must be its own. */
	err = look(c, path, &st);
	if (err < 0)
		return !err_is_fact(err); /* what can't be looked at may have changed */
	o = map_get_str(&c->own, path);
	return !o || !o->there || !same_stat(&o->st, &st);
}

/* 1 and what is at path, 0 when nothing is, or a negative code and the message: nobody knows. */
static int look_or_say(struct commit *c, const char *path, struct stat *ret, struct errmsg *msg)
{
	int err = look(c, path, ret);

	if (err == 0)
		return 1;
	return err_is_fact(err) ? 0
				: errmsg_set(msg, err, "can't look at %s: %s", path, err_text(err));
}

static int conflict(const char *path, struct errmsg *msg)
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
		return conflict(e->workspace, msg);
	while (path[len]) {
		char kept;

		len += 1 + strcspn(path + len + 1, "/");
		kept = path[len];
		path[len] = '\0';
		if (was_lost(c, path))
			return conflict(path, msg);
		path[len] = kept;
	}
	return 0;
}

/* Everything at and beneath path is about to go: none of it may be news to the job. */
static int check_tree(struct commit *c, const char *path, struct errmsg *msg)
{
	_cleanup_close_ int fd = -1;
	struct dirent *de;
	struct stat st;
	DIR *dir;
	int err;

	if (changed_by_others(c, path))
		return conflict(path, msg);
	err = look_or_say(c, path, &st, msg);
	if (err <= 0 || !S_ISDIR(st.st_mode))
		return err < 0 ? err : 0;
	fd = resolve_open(c->tree, path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return errmsg_set(msg, fd, "can't remove %s: %s", path, err_text(fd));
	dir = fdopendir(fd);
	if (!dir)
		return errmsg_set(msg, -errno, "can't remove %s: %s", path, err_text(-errno));
	(void)steal_fd(&fd); /* dir's now */
	for (err = 0; !err && (errno = 0, de = readdir(dir));) {
		_cleanup_free_ char *child = NULL;

		if (streq(de->d_name, ".") || streq(de->d_name, "..") ||
		    str_starts(de->d_name, TEMP_PREFIX))
			continue;
		child = path_join(path, de->d_name);
		err = check_tree(c, child, msg);
	}
	/* Half of it is not all of it. */
	if (!err && errno)
		err = errmsg_set(msg, -errno, "can't remove %s: %s", path, err_text(-errno));
	(void)closedir(dir);
	return err;
}

/* Its default access list decides the modes of what is made in there: a job knew nothing of it. */
static bool parent_has_default_acl(struct commit *c, const char *path)
{
	_cleanup_free_ char *parent = parent_of(path);
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

/* Did the job find the directory there?  Told before anything is applied: a directory whose mode
 * changes is listed anew, and all beneath it. */
static bool was_known(const struct commit *c, const char *path)
{
	bool listed;
	const struct ent *e = find_ent(c, path, &listed);

	return e && e->type == ENTRY_DIR && (e->flags & ENT_INITIAL || e->version <= c->started);
}

static int check_effect(struct commit *c, struct effect *e, struct errmsg *msg)
{
	struct stat st;
	bool is_dir;
	int err = check_ancestors(c, e, msg);

	if (err || streq(e->path, e->workspace))
		return err;
	if (e->kind == EFFECT_LINK && changed_by_others(c, e->target))
		return conflict(e->target, msg);
	err = look_or_say(c, e->path, &st, msg);
	if (err < 0)
		return err;
	is_dir = err > 0 && S_ISDIR(st.st_mode);
	/* Two jobs that make the same directory agree. */
	if (e->kind == EFFECT_DIR && is_dir && !(e->flags & EFFECT_F_OPAQUE)) {
		e->known = was_known(c, e->path);
		return 0;
	}
	if (e->kind == EFFECT_META)
		return changed_by_others(c, e->path) ? conflict(e->path, msg) : 0;
	if (makes(e, &st) && parent_has_default_acl(c, e->path))
		return errmsg_set(
			msg, CONCC_E_NO_WAY,
			"the directory of %s has a default access list (setfacl -d), which "
			"jobs elsewhere don't see",
			e->path);
	return check_tree(c, e->path, msg);
}

/* ---- applying ---- */

/* The directory that holds path, borrowed until the next call. */
static int parent_fd(struct commit *c, const char *path, const char **ret_name)
{
	const char *base = path_base(path);
	size_t len = (size_t)(base - path);
	int fd;

	*ret_name = base;
	if (c->dir_fd >= 0 && strlen(c->dir_path) == len && memcmp(c->dir_path, path, len) == 0)
		return c->dir_fd;
	forget_dir(c);
	fd = resolve_parent(c->tree, path, ret_name);
	if (fd < 0)
		return fd;
	c->dir_fd = fd;
	c->dir_path = xstrndup(path, len);
	return fd;
}

/* Takes over what is at path now, as this job's. */
static void note(struct commit *c, int dir_fd, const char *path, const struct known *known,
		 bool written)
{
	struct own *o = map_get_str(&c->own, path);

	if (!o) {
		o = xcalloc(1, sizeof(*o));
		map_put_str(&c->own, path, o);
	}
	o->version = snap_note(c->tree, dir_fd, path, known ? &known->digest : NULL,
			       known ? known->claimed_by : CLAIM_NONE, written);
	o->there = fstatat(dir_fd, path_base(path), &o->st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int remove_tree(struct tree *t, int dir_fd, const char *name)
{
	_cleanup_close_ int fd = -1;
	struct dirent *de;
	DIR *dir;
	int err = 0;

	watch_own_events(t, 2);
	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	(void)steal_fd(&fd); /* dir's now */
	while (!err && (de = readdir(dir))) {
		if (!streq(de->d_name, ".") && !streq(de->d_name, ".."))
			err = remove_tree(t, dirfd(dir), de->d_name);
	}
	(void)closedir(dir);
	if (!err && unlinkat(dir_fd, name, AT_REMOVEDIR) < 0)
		err = -errno;
	return err;
}

/* Removes what is at path when it is a directory (or anything, with all). */
static int clear_place(struct commit *c, int fd, const char *name, const char *path, bool all)
{
	struct stat st;
	int err;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!all && !S_ISDIR(st.st_mode))
		return 0;
	err = remove_tree(c->tree, fd, name);
	note(c, fd, path, NULL, false);
	return err;
}

/* Through /proc: chmod(2) of what was opened, with no way to slip a symlink in. */
static int chmod_fd(int path_fd, mode_t mode)
{
	char proc[32];

	(void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", path_fd);
	return chmod(proc, mode) < 0 ? -errno : 0;
}

static int chmod_at(int dir_fd, const char *name, mode_t mode)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : chmod_fd(fd, mode);
}

static int copy_bytes(int from, int to)
{
	static char chunk[64 * 1024];
	ssize_t n;
	int err = 0;

	while (!err && (n = read_full(from, chunk, sizeof(chunk))) != 0)
		err = n < 0 ? (int)n : write_full(to, chunk, (size_t)n);
	return err;
}

/*
 * Over the bytes of a file with other names, which are to see it, or that is
 * someone else's.  Room is made
 * first, so that a full disk shows before anything is overwritten.
 */
static int write_over(struct effect *e, int temp_dir_fd, const char *temp, int fd, const char *name)
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
	err = copy_bytes(from, to);
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

/* Those that a write leaves alone; the kernel takes capabilities away, labels are the policy's. */
static bool is_kept_attribute(const char *name)
{
	return str_starts(name, "user.") || streq(name, "system.posix_acl_access");
}

static int copy_attribute(const char *from, const char *to, const char *name)
{
	_cleanup_free_ void *value = NULL;
	ssize_t n = lgetxattr(from, name, NULL, 0);

	if (n < 0)
		return errno == ENODATA ? 0 : -errno;
	value = xmalloc((size_t)n + 1);
	n = lgetxattr(from, name, value, (size_t)n);
	if (n < 0)
		return -errno;
	return lsetxattr(to, name, value, (size_t)n, 0) < 0 ? -errno : 0;
}

/*
 * The job wrote into the file that is there, so whose it is and what is attached
 * to it stays.  0 when the temporary is like it, or a negative code: then the
 * file itself has to be written.
 */
static int keep_identity(const struct effect *e, const struct stat *was, int fd, const char *name,
			 int temp_fd, const char *temp)
{
	char from[PROTO_NAME_MAX + 40], to[PROTO_NAME_MAX + 40], names[XATTR_LIST_MAX];
	bool mode_lost = false;
	struct stat st;
	ssize_t n;
	int err = 0;

	if (fstatat(temp_fd, temp, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (st.st_uid != was->st_uid || st.st_gid != was->st_gid) {
		if (fchownat(temp_fd, temp, was->st_uid, was->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
		mode_lost = true;
	}
	(void)snprintf(from, sizeof(from), "/proc/self/fd/%d/%s", fd, name);
	(void)snprintf(to, sizeof(to), "/proc/self/fd/%d/%s", temp_fd, temp);
	n = llistxattr(from, names, sizeof(names));
	if (n < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (ssize_t i = 0; !err && i < n; i += (ssize_t)strlen(names + i) + 1) {
		if (!is_kept_attribute(names + i))
			continue;
		err = copy_attribute(from, to, names + i);
		mode_lost = true; /* to an access list */
	}
	if (!err && mode_lost)
		err = chmod_at(temp_fd, temp, e->mode);
	return err;
}

static int apply_file(struct commit *c, struct effect *e, int fd, const char *name, unsigned peer)
{
	struct known known = {.digest = e->digest, .claimed_by = (uint16_t)peer};
	bool hashed = !(e->flags & EFFECT_F_NO_DIGEST);
	struct timespec times[2];
	_cleanup_close_ int owned = -1;
	const char *temp;
	bool written;
	struct stat st;
	int temp_fd;
	int err = clear_place(c, fd, name, e->path, false);

	if (err)
		return err;
	temp = path_base(e->temp);
	temp_fd = e->temp_fd;
	if (temp_fd < 0)
		temp_fd = owned = resolve_parent(c->tree, e->temp, &temp);
	if (temp_fd < 0)
		return temp_fd;
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT)
			return -errno;
		st = (struct stat){0};
	}
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		return CONCC_E_UNSAFE;
	written = S_ISREG(st.st_mode) && !(e->flags & EFFECT_F_REPLACED);
	if (written && (st.st_nlink > 1 || keep_identity(e, &st, fd, name, temp_fd, temp) < 0)) {
		err = write_over(e, temp_fd, temp, fd, name);
		if (e->in_place)
			note(c, fd, e->path, err || !hashed ? NULL : &known, true);
		return err; /* the temporary goes with the batch */
	}
	effect_times(e, written ? &st : NULL, times);
	if (e->stamped && utimensat(temp_fd, temp, times, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (renameat(temp_fd, temp, fd, name) < 0)
		return -errno;
	free(steal_ptr(&e->temp));
	note(c, fd, e->path, hashed ? &known : NULL, false);
	return 0;
}

/* Makes something under a temporary name, then gives it its own. */
static int apply_made(struct commit *c, struct effect *e, int fd, const char *name)
{
	char temp[TEMP_NAME_SIZE];
	_cleanup_close_ int from = -1;
	const char *from_name = NULL;
	struct timespec times[2];
	int err = clear_place(c, fd, name, e->path, false);
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
	note(c, fd, e->path, NULL, false);
	if (e->kind == EFFECT_LINK)
		note(c, from, e->target, NULL, false);
	return 0;
}

static void dir_times(const struct effect *e, struct timespec ret[2])
{
	effect_times(e, NULL, ret);
	for (int i = 0; i < 2; i++)
		if (ret[i].tv_nsec == UTIME_NOW)
			ret[i].tv_nsec = UTIME_OMIT;
}

static int apply_dir(struct commit *c, struct effect *e, int fd, const char *name)
{
	struct timespec times[2];
	struct stat st;
	bool set_mode = true;
	int err = 0;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		bool keep = S_ISDIR(st.st_mode) && !(e->flags & EFFECT_F_OPAQUE);

		set_mode = !keep || ((st.st_mode & 07777) != e->mode &&
				     (e->known || map_get_str(&c->own, e->path)));
		if (!keep)
			err = clear_place(c, fd, name, e->path, true);
	}
	if (err)
		return err;
	if (mkdirat(fd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	if (set_mode)
		err = chmod_at(fd, name, e->mode);
	/* Again in apply_dir_times(), if what is around it lets us in then. */
	dir_times(e, times);
	if (!err && e->flags & EFFECT_F_TIMES &&
	    utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		err = -errno;
	note(c, fd, e->path, NULL, false);
	return err;
}

static int apply_meta(struct commit *c, struct effect *e, int fd, const char *name)
{
	_cleanup_close_ int path_fd = openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	bool listed;
	const struct ent *ent = find_ent(c, e->path, &listed);
	struct timespec times[2];
	struct known known;
	bool keep;
	struct stat st;
	int err = 0;

	if (path_fd < 0 || fstat(path_fd, &st) < 0)
		return -errno;
	/* The bytes stay what they were, and so does their digest. */
	keep = ent && ent->type == ENTRY_FILE && ent->known;
	if (keep)
		known = *ent->known;
	if (!S_ISLNK(st.st_mode) && (st.st_mode & 07777) != e->mode)
		err = chmod_fd(path_fd, e->mode);
	effect_times(e, &st, times);
	if (!(e->flags & (EFFECT_F_TOUCHED | EFFECT_F_MTIME)))
		times[1] = st.st_mtim;
	if (!err && e->flags & (EFFECT_F_TOUCHED | EFFECT_F_TIMES) &&
	    utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		err = -errno;
	note(c, fd, e->path, keep ? &known : NULL, false);
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

static int apply_effect(struct commit *c, struct effect *e, unsigned peer)
{
	const char *name;
	int fd;
	int err;

	if (streq(e->path, e->workspace))
		return apply_workspace(c, e);
	fd = parent_fd(c, e->path, &name);
	if (fd == -ENOENT && e->kind == EFFECT_REMOVE)
		return 0;
	if (fd < 0)
		return fd;
	switch (e->kind) {
	case EFFECT_FILE:
		return e->temp ? apply_file(c, e, fd, name, peer) : apply_made(c, e, fd, name);
	case EFFECT_DIR:
		err = apply_dir(c, e, fd, name);
		break;
	case EFFECT_REMOVE:
		err = clear_place(c, fd, name, e->path, true);
		break;
	case EFFECT_META:
		return apply_meta(c, e, fd, name);
	default:
		return apply_made(c, e, fd, name);
	}
	/* It may have been the parent of what comes next. */
	forget_dir(c);
	return err;
}

/* Times that jobs gave to directories, when nothing will change in them any more. */
static void apply_dir_times(struct commit *c)
{
	struct timespec times[2];
	const char *name;

	for (size_t i = c->n; i-- > 0;) {
		struct effect *e = &c->effects[i];
		struct dir *d = dir_find(c->tree, e->path);
		int fd;

		if (e->kind != EFFECT_DIR || !(e->flags & EFFECT_F_TIMES))
			continue;
		fd = parent_fd(c, e->path, &name);
		dir_times(e, times);
		if (fd < 0 || utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
			log_debug("can't set the time of %s", e->path);
		if (d)
			dir_queue(c->tree, d);
	}
}

/*
 * The events of our own changes: what was noted is newer, so they are not to
 * make further versions.  What others did since shows in the stat.
 */
static void absorb_events(struct commit *c)
{
	bool listed;

	watch_collect(c->tree);
	for (size_t i = 0; i < c->n_applied; i++) {
		const struct effect *e = &c->effects[i];
		struct ent *ent = (struct ent *)find_ent(c, e->path, &listed);

		if (!ent)
			continue;
		ent->flags &= (uint16_t)~ENT_GONE;
		if (e->in_place)
			ent->flags &= (uint16_t)~ENT_WRITTEN;
	}
}

/* ---- times ---- */

/* Written by the job, with no time of its own choice: its order among the others counts. */
static bool has_order(const struct effect *e)
{
	return !(e->flags & EFFECT_F_MTIME) &&
	       (e->kind == EFFECT_FILE || e->kind == EFFECT_SYMLINK ||
		(e->kind == EFFECT_META && e->flags & EFFECT_F_TOUCHED));
}

/*
 * What a time there is here: as long before the last of its batch as it was, not before the
 * dispatch, and after all that was earlier.  Equal times stay equal, in all of the job.
 */
static int64_t time_here(const struct commit *c, int64_t there)
{
	int64_t from, at;
	size_t i = 0;

	while (i + 1 < c->n_stamps && c->stamps[i].there < there)
		i++;
	from = i ? c->stamps[i - 1].here + 1 : c->dispatched;
	if (__builtin_sub_overflow(c->stamps[i].there, there, &at) ||
	    __builtin_sub_overflow(c->stamps[i].here, at, &at) || at < from)
		at = from;
	return at < c->stamps[i].here ? at : c->stamps[i].here;
}

static void push_stamp(struct commit *c, int64_t there, int64_t here)
{
	const struct stamp *last = c->n_stamps ? &c->stamps[c->n_stamps - 1] : NULL;

	if (last && there <= last->there)
		return;
	if (last && here < last->here)
		here = last->here;
	if (c->n_stamps == STAMPS_MAX)
		memmove(c->stamps, c->stamps + 1, --c->n_stamps * sizeof(c->stamps[0]));
	c->stamps[c->n_stamps++] = (struct stamp){there, here};
}

/* When the bytes came, by the clock of the file system that they are on. */
static int64_t arrival_of(const struct effect *e)
{
	struct stat st;

	if (!e->temp || e->temp_fd < 0 ||
	    fstatat(e->temp_fd, path_base(e->temp), &st, AT_SYMLINK_NOFOLLOW) < 0)
		return coarse_now();
	return ns_of(st.st_mtim.tv_sec, (uint32_t)st.st_mtim.tv_nsec);
}

/* make and ninja compare the times of a job's outputs: their order and equality come home. */
static void stamp_batch(struct commit *c)
{
	struct effect *last = NULL;
	int64_t now;

	for (struct effect *e = c->effects; e < c->effects + c->n; e++)
		if (has_order(e) && (!last || ns_of(last->mtime_s, last->mtime_ns) <=
						      ns_of(e->mtime_s, e->mtime_ns)))
			last = e;
	if (!last)
		return;
	now = arrival_of(last);
	push_stamp(c, ns_of(last->mtime_s, last->mtime_ns), now);
	for (struct effect *e = c->effects; e < c->effects + c->n; e++) {
		int64_t here;

		if (!has_order(e))
			continue;
		here = time_here(c, ns_of(e->mtime_s, e->mtime_ns));
		if (e == last && e->temp && here == now)
			continue;
		e->mtime_s = here / 1000000000;
		e->mtime_ns = (uint32_t)(here % 1000000000);
		e->flags |= EFFECT_F_MTIME;
		e->stamped = true;
	}
}

static int apply_all(struct commit *c, unsigned peer, struct errmsg *msg)
{
	int err = 0;

	stamp_batch(c);
	for (size_t i = 0; i < c->n && !err; i++) {
		struct effect *e = &c->effects[i];

		tree_busy(c->tree);
		watch_own_events(c->tree, EVENTS_OF_EFFECT);
		err = apply_effect(c, e, peer);
		if (err) {
			errmsg_set(msg, err, "can't write %s: %s%s", e->path, err_text(err),
				   i || e->in_place ? "; some of the job's files are in place"
						    : "");
			break;
		}
		c->n_applied++;
		c->totals.files += e->kind == EFFECT_FILE;
		c->totals.bytes += e->size;
	}
	apply_dir_times(c);
	absorb_events(c);
	return err;
}

/* What was so when the job began is so still, or not: of all that it is going to change. */
static void freshen_targets(struct commit *c)
{
	mounts_collect(c->tree);
	for (size_t i = 0; i < c->n; i++) {
		snap_freshen(c->tree, c->effects[i].path);
		if (c->effects[i].kind == EFFECT_LINK)
			snap_freshen(c->tree, c->effects[i].target);
	}
	tree_on_event(c->tree);
}

int commit_apply(struct commit *c, unsigned peer, struct errmsg *msg)
{
	int err = 0;

	if (!c->n && !c->err)
		return 0;
	if (c->receiving)
		(void)protocol(c, "fewer bytes than it announced");
	/* Again: what holds it may be served since it came, for another job. */
	for (size_t i = 0; i < c->n && !c->err; i++)
		check_place(c, &c->effects[i]);
	if (c->err)
		err = errmsg_set(msg, c->err, "%s", c->msg.text);
	if (!err && c->n) {
		freshen_targets(c);
		for (size_t i = 0; i < c->n && !err; i++)
			err = check_effect(c, &c->effects[i], msg);
		if (!err)
			err = apply_all(c, peer, msg);
	}
	reset_batch(c);
	/* Tells the peers, also of what a failed batch left. */
	snap_settle(c->tree);
	return err;
}
