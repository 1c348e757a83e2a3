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
	c->workspaces = strv_copy(workspaces);
	c->started = started;
	c->file.fd = -1;
	list_init(&c->writing);
	list_init(&c->in_checking);
	c->dir_fd = -1;
	c->until_ms = COMMIT_AT_ONCE;
	c->dispatched = clock_coarse_ns();
	return c;
}

bool commit_is_empty(const struct commit *c)
{
	return !c->n && !c->err;
}

bool commit_is_begun(const struct commit *c)
{
	return c->phase > COMMIT_CHECKS && !c->refused;
}

void commit_without_digests(struct commit *c)
{
	for (struct effect *e = c->effects; e < c->effects + c->n; e++)
		e->flags |= EFFECT_F_NO_DIGEST;
}

void commit_of_any_command(struct commit *c)
{
	c->any_command = true;
}

int commit_hold_large(int dir_fd, const char *name, uint64_t size)
{
	/* NFS renames what is open instead of removing it, and its directory stays then. */
	if (size < COMMIT_LARGE || fs_is_network(dir_fd))
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

bool commit_is_over(const struct commit *c)
{
	return c->until_ms != COMMIT_AT_ONCE && now_ms() >= c->until_ms;
}

/* 0 or CONCC_E_LATER. */
static int remove_temps(struct commit *c)
{
	while (c->at < c->n) {
		struct effect *e = &c->effects[c->at++];
		bool removes = e->temp;

		commit_remove_temp(c, e);
		if (removes && commit_is_over(c))
			return CONCC_E_LATER;
	}
	return 0;
}

static void reset_batch(struct commit *c)
{
	fd_close(&c->file.fd);
	commit_forget_writing(c);
	commit_end_walk(c);
	commit_end_listening(c); /* to what is freed now */
	for (size_t i = 0; i < c->n; i++) {
		commit_remove_temp(c, &c->effects[i]);
		free(c->effects[i].path);
		free(c->effects[i].target);
	}
	while (c->n_temp_dirs)
		(void)close(c->temp_dirs[--c->n_temp_dirs].fd);
	c->n = 0;
	c->n_applied = c->n_absorbed = 0;
	c->phase = COMMIT_TAKES;
	c->at = c->n_fresh = 0;
	c->n_pieces = 0;
	c->result = 0;
	c->refused = false;
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
	strv_free(c->workspaces);
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

static bool is_file(const struct commit *c, const char *path)
{
	const struct dir *d;
	const struct ent *e = commit_find_ent(c, path, &d);

	return e && e->type == ENTRY_FILE;
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
		.allocate = e->size >= COMMIT_LARGE && is_file(c, e->path),
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
	if (f->kind < EFFECT_FILE || f->kind > EFFECT_ASKED)
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
	c->locks |= e->kind == EFFECT_LOCKED;
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

/* So many are looked at together. */
#define FRESH_MAX 256

/* What was so when the job began is so still, or not: of what is checked next. */
static void freshen_targets(struct commit *c)
{
	size_t end = c->n - c->at < FRESH_MAX ? c->n : c->at + FRESH_MAX;

	commit_listen(c);
	mounts_collect(c->tree);
	for (size_t i = c->at; i < end; i++) {
		snap_freshen(c->tree, c->effects[i].path);
		if (c->effects[i].kind == EFFECT_LINK)
			snap_freshen(c->tree, c->effects[i].target);
	}
	c->n_fresh = end;
	tree_on_event(c->tree);
}

static int check_next(struct commit *c)
{
	struct effect *e = &c->effects[c->at];

	if (c->n_walk)
		return commit_check_effect(c, e, &c->msg);
	/* Again: what holds it may be served since it came, for another job. */
	commit_check_place(c, e);
	if (c->err)
		return c->err;
	if (c->n_fresh <= c->at)
		freshen_targets(c);
	return commit_check_effect(c, e, &c->msg);
}

/* What was checked in the first piece, with one look at what is to be heard, nobody changed. */
static int end_check(struct commit *c)
{
	int err;

	if (!c->n_marked)
		return 0;
	commit_listen(c);
	tree_on_event(c->tree);
	err = commit_check_heard(c, &c->msg);
	commit_end_listening(c);
	return err;
}

int commit_check_effects(struct commit *c)
{
	int err;

	if (c->err)
		return c->err;
	while (c->at < c->n) {
		err = commit_check_heard(c, &c->msg) ?: check_next(c);
		if (!err && ++c->at < c->n && commit_is_over(c))
			err = CONCC_E_LATER;
		if (err == CONCC_E_LATER)
			commit_listen(c);
		if (err)
			return err;
	}
	return end_check(c);
}

static int work(struct commit *c, unsigned peer)
{
	switch (c->phase) {
	case COMMIT_CHECKS:
		return commit_check_effects(c);
	case COMMIT_APPLIES:
		return commit_apply_effects(c, peer, &c->msg);
	case COMMIT_CLEANS:
		return remove_temps(c);
	default: /* COMMIT_DATES */
		return dir_times_restore(c) ?: commit_apply_dir_times(c);
	}
}

/* False: that was the last. */
static bool next_phase(struct commit *c, int err)
{
	enum commit_phase ended = c->phase;

	if (ended == COMMIT_DATES || (ended == COMMIT_CLEANS && c->refused))
		return false;
	if (ended != COMMIT_CLEANS)
		c->result = err;
	c->refused = ended == COMMIT_CHECKS && err;
	if (c->refused)
		commit_end_listening(c);
	c->phase = c->refused ? COMMIT_CLEANS : ended + 1;
	c->at = c->phase == COMMIT_DATES ? c->n : 0;
	if (c->phase == COMMIT_APPLIES)
		commit_stamp(c);
	return true;
}

static void begin(struct commit *c)
{
	assert(list_empty(&c->writing));
	if (c->receiving)
		(void)protocol(c, "fewer bytes than it announced");
	c->phase = COMMIT_CHECKS;
	c->at = 0;
	c->checked = c->tree->version;
}

/* False: the piece is over. */
static bool go_through(struct commit *c, unsigned peer)
{
	int err;

	do {
		err = work(c, peer);
		if (err == CONCC_E_LATER)
			return false;
	} while (next_phase(c, err));
	return true;
}

bool commit_apply_some(struct commit *c, unsigned peer, uint64_t until_ms, int *ret,
		       struct errmsg *msg)
{
	bool whole;

	*ret = 0;
	if (commit_is_empty(c))
		return true;
	if (c->phase == COMMIT_TAKES)
		begin(c);
	c->until_ms = until_ms;
	c->n_pieces++;
	whole = go_through(c, peer);
	if (c->n_absorbed < c->n_applied || c->phase == COMMIT_DATES)
		commit_absorb_events(c);
	/* Others may move it before the next piece; and what they changed is to be seen. */
	commit_forget_dir(c);
	c->n_fresh = c->n_walk ? c->at + 1 : c->at;
	*ret = c->result;
	if (*ret && msg)
		*msg = c->msg;
	if (whole)
		reset_batch(c);
	/* Tells the peers, also of what a failed batch left. */
	snap_settle(c->tree);
	return whole;
}

int commit_apply(struct commit *c, unsigned peer, struct errmsg *msg)
{
	int err;

	(void)commit_apply_some(c, peer, COMMIT_AT_ONCE, &err, msg);
	return err;
}

bool commit_drop_some(struct commit *c, uint64_t until_ms)
{
	if (!c->dropped) {
		c->dropped = true;
		fd_close(&c->file.fd);
		commit_forget_writing(c);
		commit_forget_dir(c);
		commit_end_listening(c);
		c->at = 0;
	}
	c->until_ms = until_ms;
	if (remove_temps(c) == CONCC_E_LATER)
		return false;
	commit_free(c);
	return true;
}
