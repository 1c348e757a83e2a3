/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "home.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"
#include "home_scan.h"

/* File times come from the kernel's coarse clock, which lags by up to a tick of it. */
#define CLOCK_SLACK_NS 20000000
/* What is looked at and hashed by the loop's thread, also when each open takes its time. */
#define FEW_ENTRIES 32
#define FEW_BYTES   (8 << 20)

struct home *home_new(const struct home_config *c)
{
	struct home *h = xcalloc(1, sizeof(*h));

	h->mirror = c->mirror;
	h->workspace = xstrdup(c->workspace);
	h->workspaces = c->workspaces;
	h->job_id = c->job_id;
	h->any_command = c->any_command;
	h->index = c->index;
	h->fd = c->upper_fd;
	h->started = c->started;
	h->started_ms = c->started_ms;
	return h;
}

void home_free(struct home *h)
{
	struct announced *a;
	struct statfs fs;
	size_t it = 0;

	if (!h)
		return;
	while ((a = map_next(&h->announced, &it, NULL))) {
		free(a->path);
		free(a);
	}
	map_release(&h->announced);
	free(h->refusal);
	/* What stays is removed with the launcher. */
	if (fstatfs(h->fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC)
		(void)path_empty_dir(h->fd);
	(void)close(h->fd);
	free(h->workspace);
	free(h);
}

/* ---- what is known ---- */

struct progress *scan_progress_of(const struct scan *s, const struct upper_entry *e)
{
	return &s->progress[e - s->u.entries];
}

/* As it is, nothing is to be said of it. */
int scan_settle(const struct scan *s, const struct upper_entry *e)
{
	scan_progress_of(s, e)->settled = true;
	return 0;
}

struct announced *home_announced(const struct home *h, const char *path)
{
	return h->announced.n ? map_get_str(&h->announced, path) : NULL;
}

static struct announced *announce(struct home *h, const struct upper_entry *e)
{
	struct announced *a = home_announced(h, e->path);

	if (!a) {
		a = xcalloc(1, sizeof(*a));
		a->path = xstrdup(e->path);
		(void)map_put_str(&h->announced, a->path, a);
	}
	a->st = e->st;
	a->hashed = false;
	return a;
}

/* Calls back with an effect on this entry. */
int scan_report(struct scan *s, const struct upper_entry *e, const struct msg_file *f, int fd)
{
	struct progress *p = scan_progress_of(s, e);

	p->settled = p->reported = true;
	if (s->announcing)
		(void)announce(s->h, e);
	return s->fn(s->data, f, fd);
}

/* What the job saw at this path below its overlay: 0, -ENOENT (nothing) or -EAGAIN (not known). */
int scan_below(const struct scan *s, const struct upper_entry *e, struct entry_attr *ret)
{
	_cleanup_free_ char *path = NULL;
	int r;

	if (e->hidden || !s->h->mirror)
		return -ENOENT;
	path = *e->path ? path_join(s->h->workspace, e->path) : xstrdup(s->h->workspace);
	r = mirror_peek(s->h->mirror, path, ret);
	return r == 0 && ret->type == ENTRY_ABSENT ? -ENOENT : r;
}

/* ---- effects ---- */

/* More than 68 years are not told apart. */
int64_t scan_ns_between(const struct timespec *a, const struct timespec *b)
{
	int64_t s = (int64_t)b->tv_sec - a->tv_sec;

	if (s > INT32_MAX)
		s = INT32_MAX;
	if (s < -(int64_t)INT32_MAX)
		s = -(int64_t)INT32_MAX;
	return s * 1000000000 + (b->tv_nsec - a->tv_nsec);
}

/*
 * Times before the job or after now don't come from writing: the job set them.
 * Unless the clock was set back meanwhile, by what the monotonic one tells.
 */
bool scan_time_was_set(const struct home *h, const struct timespec *mtime)
{
	int64_t ran = (int64_t)(now_ms() - h->started_ms) * 1000000, back;
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	back = ran - scan_ns_between(&h->started, &now);
	if (back < 0)
		back = 0;
	return scan_ns_between(mtime, &h->started) > CLOCK_SLACK_NS + back ||
	       scan_ns_between(&now, mtime) > CLOCK_SLACK_NS + back;
}

/* Not what reading leaves: the job's own files have none of that (noatime), copies that of below.
 */
bool scan_atime_was_set(const struct scan *s, const struct upper_entry *e)
{
	struct timespec t;
	struct entry_attr a;

	if (!scan_time_was_set(s->h, &e->st.st_atim) || (e->kind == UPPER_DIR && !s->h->mirror))
		return false;
	if (scan_below(s, e, &a) < 0)
		return true;
	t = (struct timespec){.tv_sec = (time_t)a.mtime_s, .tv_nsec = a.mtime_ns};
	return !time_is_same(&t, &e->st.st_atim);
}

void scan_fill(const struct scan *s, const struct upper_entry *e, uint8_t kind, struct msg_file *f)
{
	static char none[1];

	*f = (struct msg_file){
		.kind = kind,
		.mode = e->st.st_mode & 07777,
		.workspace = s->h->index,
		.mtime_s = e->st.st_mtim.tv_sec,
		.mtime_ns = (uint32_t)e->st.st_mtim.tv_nsec,
		.atime_s = e->st.st_atim.tv_sec,
		.atime_ns = (uint32_t)e->st.st_atim.tv_nsec,
		.path = e->path,
		.target = none,
	};
	if (e->kind != UPPER_DIR && scan_time_was_set(s->h, &e->st.st_mtim))
		f->flags |= EFFECT_F_MTIME;
	if (e->kind != UPPER_DIR && scan_atime_was_set(s, e))
		f->flags |= EFFECT_F_ATIME;
}

int scan_remove(struct scan *s, char *path)
{
	static char none[1];
	struct msg_file f = {
		.kind = EFFECT_REMOVE, .workspace = s->h->index, .path = path, .target = none};

	return s->fn(s->data, &f, -1);
}

/* Something that no file can replace in place goes first: a directory. */
int scan_make_room(struct scan *s, const struct upper_entry *e)
{
	const struct announced *announced = home_announced(s->h, e->path);
	struct entry_attr a;
	bool is_dir = announced ? S_ISDIR(announced->st.st_mode)
				: scan_below(s, e, &a) == 0 && a.type == ENTRY_DIR;

	return is_dir ? scan_remove(s, e->path) : 0;
}

int scan_refuse(struct scan *s, const struct upper_entry *e, const char *what)
{
	_cleanup_free_ char *shown = str_escape(e->path, strlen(e->path), 200);

	free(s->h->refusal);
	s->h->refusal = xasprintf("%s/%s %s", s->h->workspace, shown, what);
	return CONCC_E_UNSAFE;
}

const char *home_refusal(const struct home *h)
{
	return h->refusal;
}

/* ---- removals ---- */

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What was announced and is no more: the client has it. */
static int report_vanished(struct scan *s)
{
	_cleanup_free_ char **gone = xcalloc(s->h->announced.n + 1, sizeof(*gone));
	struct map there = MAP_INIT;
	const char *last = NULL;
	struct announced *a;
	size_t it = 0, n = 0;
	int r = 0;

	if (!s->h->announced.n)
		return 0;
	for (size_t i = 0; i < s->u.n; i++)
		(void)map_put_str(&there, s->u.entries[i].path, s);
	while ((a = map_next(&s->h->announced, &it, NULL)))
		if (!map_get_str(&there, a->path))
			gone[n++] = a->path;
	map_release(&there);
	if (n > 1)
		qsort(gone, n, sizeof(*gone), compare_paths);
	for (size_t i = 0; i < n && r == 0; i++) {
		if (last && path_is_below(gone[i], last))
			continue;
		last = gone[i];
		r = scan_remove(s, gone[i]);
	}
	return r;
}

static int report_whiteouts(struct scan *s)
{
	int r = 0;

	for (size_t i = 0; i < s->u.n && r == 0; i++) {
		const struct upper_entry *e = &s->u.entries[i];

		if (e->kind == UPPER_WHITEOUT && !e->hidden)
			r = scan_remove(s, e->path);
	}
	return r;
}

/* ---- the scan ---- */

static int compare_written(const void *a, const void *b, void *data)
{
	const struct upper *u = data;
	const struct upper_entry *x = &u->entries[*(const size_t *)a];
	const struct upper_entry *y = &u->entries[*(const size_t *)b];
	int64_t ns = scan_ns_between(&y->st.st_mtim, &x->st.st_mtim);

	return ns < 0 ? -1 : ns > 0 ? 1 : strcmp(x->path, y->path);
}

static int report_one(struct scan *s, struct upper_entry *e)
{
	switch (e->kind) {
	case UPPER_FILE:
		return scan_file(s, e);
	case UPPER_SYMLINK:
		return scan_symlink(s, e);
	case UPPER_FIFO:
	case UPPER_SOCKET:
		return scan_special(s, e);
	default:
		return 0;
	}
}

/* In this workspace, and in none that lies within it. */
static bool is_ours(const struct home *h, const char *path)
{
	if (!path_is_below(path, h->workspace))
		return false;
	for (char *const *w = h->workspaces; w && *w; w++)
		if (!streq(*w, h->workspace) && path_is_below(*w, h->workspace) &&
		    path_is_below(path, *w))
			return false;
	return true;
}

/*
 * Files with several names that were copied up for the job: of those that are there, scan_file()
 * sees whether they changed.  What the job did to others, their further names show here.
 */
static int take_copied(struct scan *s)
{
	_cleanup_strv_ char **paths = NULL;
	int r = 0;

	if (!s->h->mirror)
		return 0;
	paths = mirror_copied(s->h->mirror, s->h->job_id);
	for (char **p = paths; *p && r == 0; p++) {
		struct upper_entry e = {.path = *p};
		struct stat st;

		if (!is_ours(s->h, *p))
			continue;
		e.path = (char *)path_below(*p, s->h->workspace);
		(void)map_put_str(&s->copied, e.path, s);
		if (s->h->any_command && !s->announcing &&
		    (fstatat(s->h->fd, e.path, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		     !S_ISREG(st.st_mode)))
			r = scan_refuse(s, &e, SCAN_SEVERAL_NAMES);
	}
	return r;
}

/* In the order in which they were written, which the client's clock then repeats. */
static int report_others(struct scan *s)
{
	_cleanup_free_ size_t *order = xcalloc(s->u.n, sizeof(*order));
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < s->u.n; i++)
		if (s->u.entries[i].kind != UPPER_DIR && s->u.entries[i].kind != UPPER_WHITEOUT)
			order[n++] = i;
	qsort_r(order, n, sizeof(*order), compare_written, &s->u);
	for (size_t i = 0; i < n && r == 0; i++)
		if (!scan_is_link(s, &s->u.entries[order[i]]))
			r = report_one(s, &s->u.entries[order[i]]);
	for (size_t i = 0; i < n && r == 0; i++)
		if (scan_is_link(s, &s->u.entries[order[i]]))
			r = scan_link(s, &s->u.entries[order[i]]);
	return r;
}

static int scan_all(struct scan *s)
{
	int r;

	if ((r = scan_choose_primaries(s)) < 0 || (r = report_vanished(s)) < 0 ||
	    (r = report_whiteouts(s)) < 0 || (r = scan_dirs(s)) < 0 || (r = report_others(s)) < 0)
		return r;
	return scan_finish_dirs(s);
}

/* Is it read in some milliseconds? */
static bool is_little(const struct upper *u)
{
	off_t bytes = 0;

	for (size_t i = 0; i < u->n; i++)
		if (u->entries[i].kind == UPPER_FILE)
			bytes += u->entries[i].st.st_size < FEW_BYTES ? u->entries[i].st.st_size
								      : FEW_BYTES;
	return bytes < FEW_BYTES;
}

static int read_few(struct upper *u, int fd)
{
	int r = upper_read_few(u, fd, FEW_ENTRIES);

	return r == CONCC_E_TOOBIG || (r == 0 && !is_little(u)) ? CONCC_E_LATER : r;
}

/* Is a file that is announced so large that its bytes are not read in some milliseconds? */
static int read_path(struct upper *u, int fd, const char *path, bool few)
{
	int r = upper_read_path(u, fd, path);

	return r == 0 && few && !is_little(u) ? CONCC_E_LATER : r;
}

/* path NULL: all of it.  few: only when that is little. */
static int scan(struct home *h, const char *path, bool few, home_effect_fn fn, void *data)
{
	struct scan s = {.h = h, .announcing = path, .fn = fn, .data = data, .u.fd = -1};
	int r;

	if (path)
		r = read_path(&s.u, h->fd, path, few);
	else
		r = few ? read_few(&s.u, h->fd) : upper_read(&s.u, h->fd);
	if (r == 0) {
		s.progress = xcalloc(s.u.n, sizeof(*s.progress));
		r = take_copied(&s);
	}
	if (r == 0) {
		r = path ? report_one(&s, &s.u.entries[s.u.n - 1]) : scan_all(&s);
	}
	free(s.progress);
	map_release(&s.primary);
	map_release(&s.copied);
	upper_release(&s.u);
	return r;
}

int home_scan(struct home *h, home_effect_fn fn, void *data)
{
	return scan(h, NULL, false, fn, data);
}

int home_scan_few(struct home *h, home_effect_fn fn, void *data)
{
	return scan(h, NULL, true, fn, data);
}

int home_announce(struct home *h, const char *path, home_effect_fn fn, void *data)
{
	return scan(h, path, false, fn, data);
}

int home_announce_few(struct home *h, const char *path, home_effect_fn fn, void *data)
{
	return scan(h, path, true, fn, data);
}
