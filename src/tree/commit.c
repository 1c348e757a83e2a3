/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "commit.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* One batch: an unpacked kernel tree and more, at about 250 bytes each. */
#define EFFECTS_MAX (256 * 1024)
/* Of all paths of one job: that same tree has 10 MB of them. */
#define NAMES_MAX (128u * 1024 * 1024)

struct commit *commit_new(struct tree *t, char *const *workspaces, uint64_t started)
{
	struct commit *c = xcalloc(1, sizeof(*c));

	c->tree = t;
	c->workspaces = workspaces;
	c->started = started;
	c->file.fd = -1;
	list_init(&c->writing);
	c->dir_fd = -1;
	c->dispatched = clock_coarse_ns();
	return c;
}

void commit_of_any_command(struct commit *c)
{
	c->any_command = true;
}

/* On many a disk a file of so much is gone in a millisecond. */
#define LARGE ((uint64_t)4 * 1024 * 1024)

int commit_hold_large(int dir_fd, const char *name, uint64_t size)
{
	/* NFS renames what is open instead of removing it, and its directory stays then. */
	if (size < LARGE || fs_is_network(dir_fd))
		return -1;
	return openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

void commit_let_go(struct commit *c, int held)
{
	if (held >= 0 && c->tree->ops.close_large)
		c->tree->ops.close_large(c->tree->data, held);
	else if (held >= 0)
		(void)close(held);
}

void commit_remove_temp(struct commit *c, struct effect *e)
{
	_cleanup_close_ int found = -1;
	int fd = e->temp_fd, held;
	const char *name;

	if (!e->temp)
		return;
	name = path_base(e->temp);
	if (fd < 0)
		fd = found = resolve_parent(c->tree, e->temp, &name);
	if (fd >= 0) {
		held = commit_hold_large(fd, name, e->size);
		dir_time_before(c, fd, e->temp);
		(void)unlinkat(fd, name, 0); /* what stays is removed when its server is dead */
		commit_let_go(c, held);
		dir_time_after(c, fd, e->temp, NAME_NONE);
	}
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
	fd_close(&c->file.fd);
	commit_forget_writing(c);
	for (size_t i = 0; i < c->n; i++) {
		commit_remove_temp(c, &c->effects[i]);
		free(c->effects[i].path);
		free(c->effects[i].target);
	}
	while (c->n_temp_dirs)
		(void)close(c->temp_dirs[--c->n_temp_dirs].fd);
	c->n = 0;
	c->n_applied = 0;
	c->others = NULL;
	c->made = false;
	c->receiving = false;
	c->full = false;
	c->err = 0;
	map_release(&c->removed);
	c->removed = MAP_INIT;
	dir_times_forget(c);
	commit_forget_dir(c);
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

void commit_fail(struct commit *c, int err, const char *what, const char *path)
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

/* The nearest directory on path that exists and that this batch does not remove. */
static int temp_dir(struct commit *c, const struct effect *e, char **ret_path)
{
	char *dir = path_parent(e->path);
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
	_cleanup_free_ char *in_dir = NULL;
	char name[TEMP_NAME_SIZE];
	_cleanup_close_ int dir_fd = temp_dir(c, e, &dir);
	int fd;

	if (dir_fd < 0)
		return dir_fd;
	in_dir = path_join(dir, "");
	dir_time_before(c, dir_fd, in_dir);
	do {
		temp_name(c->tree, name);
		fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0600);
	} while (fd < 0 && errno == EEXIST);
	if (fd < 0)
		return -errno;
	dir_time_after(c, dir_fd, in_dir, NAME_NONE);
	e->temp = path_join(dir, name);
	e->temp_fd = keep_temp_dir(c, steal_fd(&dir_fd));
	return fd;
}

/* All bytes are there.  Closed before its rename: the event of a close names what it is then. */
static void finish_temp(struct commit *c)
{
	const struct effect *e = &c->effects[c->n - 1];
	int err;

	c->receiving = false;
	watch_own_events(c->tree, EVENTS_OF_EFFECT);
	if (c->file.fd < 0)
		return;
	err = temp_finish(&c->file);
	if (err)
		commit_fail(c, err, "write", e->path);
}

static void begin_temp(struct commit *c, struct effect *e)
{
	int fd = open_temp(c, e);

	if (fd < 0) {
		commit_fail(c, fd, "write", e->path);
		return;
	}
	c->file = (struct temp_file){
		.fd = fd,
		.size = e->size,
		.mode = e->mode,
		.set_times = e->flags & EFFECT_F_TIMES,
	};
	effect_times(e, NULL, c->file.times);
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

int commit_file(struct commit *c, const struct msg_file *f)
{
	const char *wrong = check_message(c, f);
	struct effect *e;

	if (c->receiving)
		wrong = "a file before the bytes of the last";
	if (wrong)
		return protocol(c, wrong);
	c->name_bytes += strlen(f->path) + strlen(f->target);
	if (c->n >= EFFECTS_MAX || c->name_bytes > NAMES_MAX) {
		c->full = true;
		commit_fail(c, CONCC_E_TOOBIG, "take in as many files as", f->path);
		return CONCC_E_TOOBIG;
	}
	e = new_effect(c, f);
	commit_check_place(c, e);
	if (e->kind == EFFECT_REMOVE || e->flags & EFFECT_F_OPAQUE)
		map_put_str(&c->removed, e->path, e->path);
	if (e->kind != EFFECT_FILE || e->flags & EFFECT_F_SPECIAL)
		return 0;
	c->receiving = true;
	c->received = 0;
	if (!c->err)
		begin_temp(c, e);
	if (!e->size)
		finish_temp(c);
	return 0;
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
	if (c->file.fd >= 0) {
		err = temp_write(&c->file, p, n, c->received - n);
		if (err) {
			commit_fail(c, err, "write", e->path);
			(void)close(steal_fd(&c->file.fd));
			commit_remove_temp(c, e);
		}
	}
	if (c->received == e->size)
		finish_temp(c);
	return 0;
}

/* ---- putting in place ---- */

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
	assert(list_empty(&c->writing));
	if (c->receiving)
		(void)protocol(c, "fewer bytes than it announced");
	/* Again: what holds it may be served since it came, for another job. */
	for (size_t i = 0; i < c->n && !c->err; i++)
		commit_check_place(c, &c->effects[i]);
	if (c->err)
		err = errmsg_set(msg, c->err, "%s", c->msg.text);
	if (!err && c->n) {
		freshen_targets(c);
		for (size_t i = 0; i < c->n && !err; i++)
			err = commit_check_effect(c, &c->effects[i], msg);
		if (!err)
			err = commit_apply_all(c, peer, msg);
	}
	reset_batch(c);
	/* Tells the peers, also of what a failed batch left. */
	snap_settle(c->tree);
	return err;
}
