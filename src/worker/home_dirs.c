/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "home_scan.h"

#include <errno.h>
#include <sys/stat.h>

#include "concc/io.h"
#include "concc/str.h"

/*
 * Some kernels mark each new directory as opaque, to save look-ups.  To replace
 * by it on the client would remove what another job put there since, so this
 * holds only for directories that do hide something.
 */
static bool dir_replaces(const struct scan *s, const struct upper_entry *e, int below_err,
			 const struct entry_attr *a)
{
	if (below_err == 0 && a->type != ENTRY_DIR)
		return true;
	return e->opaque && !e->hidden && (below_err != -ENOENT || !s->h->mirror);
}

/* A copied-up directory has the time of the one below.  The workspace's own says when the overlay
 * was made. */
static bool dir_time_was_set(const struct scan *s, const struct upper_entry *e)
{
	struct entry_attr a;
	struct timespec t;
	int r;

	if (s->announcing || !*e->path || !s->h->mirror || !scan_time_was_set(s->h, &e->st.st_mtim))
		return false;
	r = scan_below(s, e, &a);
	if (r < 0 || a.type != ENTRY_DIR)
		return r != -EAGAIN;
	t = (struct timespec){.tv_sec = (time_t)a.mtime_s, .tv_nsec = a.mtime_ns};
	return !time_is_same(&t, &e->st.st_mtim);
}

/* Whether the directory must be reported, and with which flags. */
static bool dir_is_news(const struct scan *s, const struct upper_entry *e, uint8_t *ret_flags)
{
	const struct announced *announced = home_announced(s->h, e->path);
	struct entry_attr a;
	int r = scan_below(s, e, &a);
	bool replaces = dir_replaces(s, e, r, &a);

	*ret_flags = 0;
	/* The workspace itself: only its mode can change. */
	if (!*e->path)
		return r == 0 && a.mode != (e->st.st_mode & 07777);
	/* What it replaced went when it was announced, and what it holds is in place. */
	if (announced && S_ISDIR(announced->st.st_mode) && announced->st.st_ino == e->st.st_ino)
		return true;
	if (replaces)
		*ret_flags = EFFECT_F_OPAQUE;
	if (r == 0 && !replaces)
		return a.mode != (e->st.st_mode & 07777) || dir_time_was_set(s, e) ||
		       scan_atime_was_set(s, e);
	return true;
}

/* With a mode that lets its owner fill it: its own, and its times, come with finish_dir(). */
static int report_dir(struct scan *s, const struct upper_entry *e)
{
	const struct announced *announced = home_announced(s->h, e->path);
	struct msg_file f;
	uint8_t flags;
	int r;

	if (e->attributes && !s->announcing)
		return scan_refuse(s, e, SCAN_HAS_ATTRIBUTES);
	if (scan_progress_of(s, e)->settled)
		return 0;
	if (!dir_is_news(s, e, &flags))
		return scan_settle(s, e);
	if (announced && !S_ISDIR(announced->st.st_mode)) {
		r = scan_remove(s, e->path);
		if (r < 0)
			return r;
	}
	scan_fill(s, e, EFFECT_DIR, &f);
	f.flags |= flags;
	if (*e->path)
		f.mode |= 0700;
	scan_progress_of(s, e)->finished = f.mode == (e->st.st_mode & 07777) &&
					   !dir_time_was_set(s, e) && !scan_atime_was_set(s, e);
	return scan_report(s, e, &f, -1);
}

static int finish_dir(struct scan *s, const struct upper_entry *e)
{
	struct msg_file f;

	scan_fill(s, e, EFFECT_DIR, &f);
	if (dir_time_was_set(s, e))
		f.flags |= EFFECT_F_MTIME;
	if (scan_atime_was_set(s, e))
		f.flags |= EFFECT_F_ATIME;
	return scan_report(s, e, &f, -1);
}

int scan_parents(struct scan *s, const struct upper_entry *e)
{
	const struct upper_entry *p = &s->u.entries[e->parent];
	int r = 0;

	/* Deep trees: the topmost that is not settled first, without recursion. */
	while (r == 0 && !scan_progress_of(s, p)->settled) {
		const struct upper_entry *top = p;

		while (*top->path && !scan_progress_of(s, &s->u.entries[top->parent])->settled)
			top = &s->u.entries[top->parent];
		r = report_dir(s, top);
	}
	return r;
}

int scan_dirs(struct scan *s)
{
	int r = 0;

	for (size_t i = 0; i < s->u.n && r == 0; i++)
		if (s->u.entries[i].kind == UPPER_DIR)
			r = report_dir(s, &s->u.entries[i]);
	return r;
}

/* Innermost first: a directory without x lets nobody in. */
int scan_finish_dirs(struct scan *s)
{
	int r = 0;

	for (size_t i = s->u.n; i-- > 1 && r == 0;) {
		const struct upper_entry *e = &s->u.entries[i];

		if (e->kind == UPPER_DIR && s->progress[i].reported && !s->progress[i].finished)
			r = finish_dir(s, e);
	}
	return r;
}
