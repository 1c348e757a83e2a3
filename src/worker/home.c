/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "home.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/map.h"
#include "concc/mirror.h"
#include "concc/sandbox.h"
#include "concc/str.h"
#include "upper.h"

/* File times come from the kernel's coarse clock, which lags by up to a tick of it. */
#define CLOCK_SLACK_NS 20000000

/*
 * Bytes hashed in one scan.  It keeps the agent's thread from its link, and after 4 s without
 * an answer the client gives the worker up; slow and busy machines hash 150 MB in one.
 */
#define HASH_MAX (256LL << 20)
/* A sparse file is sent with its holes.  Beyond, that takes longer than to run the job again. */
#define SPARSE_MAX (16LL << 30)

/* What was said of a path before the job ended: what the client has there, if nobody changed it. */
struct announced {
	char *path; /* owned */
	struct stat st;
	bool hashed;
	struct digest digest;
};

struct home {
	struct mirror *mirror;
	char *workspace;
	bool any_command;
	uint32_t index;
	int fd;
	struct timespec started;
	uint64_t started_ms;
	void (*busy)(void *data);
	void *data;
	struct map announced; /* path -> struct announced */
	char *refusal;	      /* see home_refusal() */
};

/* How far a scan is with an entry. */
struct progress {
	bool settled;  /* reported, or known to need no report */
	bool reported; /* an effect said so; otherwise it is as below */
	bool finished; /* a directory's mode and time are the right ones, see finish_dirs() */
};

/* One scan: what is there and how far we are with it. */
struct scan {
	struct home *h;
	bool announcing; /* the job goes on, and this is not all of it */
	home_effect_fn fn;
	void *data;
	struct upper u;
	struct progress *progress; /* by entry */
	struct map primary; /* inode -> struct upper_entry: which of several links is the file */
	off_t hashed;	    /* bytes */
};

struct home *home_new(const struct home_config *c)
{
	struct home *h = xcalloc(1, sizeof(*h));

	h->mirror = c->mirror;
	h->workspace = xstrdup(c->workspace);
	h->any_command = c->any_command;
	h->index = c->index;
	h->fd = c->upper_fd;
	h->started = c->started;
	h->started_ms = c->started_ms;
	h->busy = c->busy;
	h->data = c->data;
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
		(void)path_empty_dir(h->fd, h->busy, h->data);
	(void)close(h->fd);
	free(h->workspace);
	free(h);
}

/* ---- what is known ---- */

static struct progress *progress_of(const struct scan *s, const struct upper_entry *e)
{
	return &s->progress[e - s->u.entries];
}

/* As it is, nothing is to be said of it. */
static int settle(const struct scan *s, const struct upper_entry *e)
{
	progress_of(s, e)->settled = true;
	return 0;
}

static struct announced *announced_of(const struct home *h, const char *path)
{
	return h->announced.n ? map_get_str(&h->announced, path) : NULL;
}

static struct announced *announce(struct home *h, const struct upper_entry *e)
{
	struct announced *a = announced_of(h, e->path);

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
static int report(struct scan *s, const struct upper_entry *e, const struct msg_file *f, int fd)
{
	struct progress *p = progress_of(s, e);

	p->settled = p->reported = true;
	if (s->announcing)
		(void)announce(s->h, e);
	return s->fn(s->data, f, fd);
}

/* But for its mode and number of links. */
static bool same_file(const struct stat *a, const struct stat *b)
{
	return (a->st_mode & S_IFMT) == (b->st_mode & S_IFMT) && a->st_ino == b->st_ino &&
	       a->st_size == b->st_size && time_is_same(&a->st_mtim, &b->st_mtim);
}

/* What the job saw at this path below its overlay: 0, -ENOENT (nothing) or -EAGAIN (not known). */
static int below(const struct scan *s, const struct upper_entry *e, struct entry_attr *ret)
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
static int64_t ns_between(const struct timespec *a, const struct timespec *b)
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
static bool time_was_set(const struct home *h, const struct timespec *mtime)
{
	int64_t ran = (int64_t)(now_ms() - h->started_ms) * 1000000, back;
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	back = ran - ns_between(&h->started, &now);
	if (back < 0)
		back = 0;
	return ns_between(mtime, &h->started) > CLOCK_SLACK_NS + back ||
	       ns_between(&now, mtime) > CLOCK_SLACK_NS + back;
}

/* Not what reading leaves: the job's own files have none of that (noatime), copies that of below.
 */
static bool atime_was_set(const struct scan *s, const struct upper_entry *e)
{
	struct timespec t;
	struct entry_attr a;

	if (!time_was_set(s->h, &e->st.st_atim) || (e->kind == UPPER_DIR && !s->h->mirror))
		return false;
	if (below(s, e, &a) < 0)
		return true;
	t = (struct timespec){.tv_sec = (time_t)a.mtime_s, .tv_nsec = a.mtime_ns};
	return !time_is_same(&t, &e->st.st_atim);
}

static void fill(const struct scan *s, const struct upper_entry *e, uint8_t kind,
		 struct msg_file *f)
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
	if (e->kind != UPPER_DIR && time_was_set(s->h, &e->st.st_mtim))
		f->flags |= EFFECT_F_MTIME;
	if (e->kind != UPPER_DIR && atime_was_set(s, e))
		f->flags |= EFFECT_F_ATIME;
}

static int remove_path(struct scan *s, char *path)
{
	static char none[1];
	struct msg_file f = {
		.kind = EFFECT_REMOVE, .workspace = s->h->index, .path = path, .target = none};

	return s->fn(s->data, &f, -1);
}

/* Something that no file can replace in place goes first: a directory. */
static int make_room(struct scan *s, const struct upper_entry *e)
{
	const struct announced *said = announced_of(s->h, e->path);
	struct entry_attr a;
	bool is_dir = said ? S_ISDIR(said->st.st_mode)
			   : below(s, e, &a) == 0 && a.type == ENTRY_DIR;

	return is_dir ? remove_path(s, e->path) : 0;
}

static int refuse(struct scan *s, const struct upper_entry *e, const char *what)
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

static const char attributes[] = "has extended attributes, an ACL or capabilities of the job's";

/* ---- directories ---- */

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

	if (s->announcing || !*e->path || !s->h->mirror || !time_was_set(s->h, &e->st.st_mtim))
		return false;
	r = below(s, e, &a);
	if (r < 0 || a.type != ENTRY_DIR)
		return r != -EAGAIN;
	t = (struct timespec){.tv_sec = (time_t)a.mtime_s, .tv_nsec = a.mtime_ns};
	return !time_is_same(&t, &e->st.st_mtim);
}

/* Whether the directory must be reported, and with which flags. */
static bool dir_is_news(const struct scan *s, const struct upper_entry *e, uint8_t *ret_flags)
{
	const struct announced *said = announced_of(s->h, e->path);
	struct entry_attr a;
	int r = below(s, e, &a);
	bool replaces = dir_replaces(s, e, r, &a);

	*ret_flags = 0;
	/* The workspace itself: only its mode can change. */
	if (!*e->path)
		return r == 0 && a.mode != (e->st.st_mode & 07777);
	/* What it replaced went when it was announced, and what it holds is in place. */
	if (said && S_ISDIR(said->st.st_mode) && said->st.st_ino == e->st.st_ino)
		return true;
	if (replaces)
		*ret_flags = EFFECT_F_OPAQUE;
	if (r == 0 && !replaces)
		return a.mode != (e->st.st_mode & 07777) || dir_time_was_set(s, e) ||
		       atime_was_set(s, e);
	return true;
}

/* With a mode that lets its owner fill it: its own, and its times, come with finish_dir(). */
static int report_dir(struct scan *s, const struct upper_entry *e)
{
	const struct announced *said = announced_of(s->h, e->path);
	struct msg_file f;
	uint8_t flags;
	int r;

	if (e->attributes && !s->announcing)
		return refuse(s, e, attributes);
	if (progress_of(s, e)->settled)
		return 0;
	if (!dir_is_news(s, e, &flags))
		return settle(s, e);
	if (said && !S_ISDIR(said->st.st_mode)) {
		r = remove_path(s, e->path);
		if (r < 0)
			return r;
	}
	fill(s, e, EFFECT_DIR, &f);
	f.flags |= flags;
	if (*e->path)
		f.mode |= 0700;
	progress_of(s, e)->finished = f.mode == (e->st.st_mode & 07777) &&
				      !dir_time_was_set(s, e) && !atime_was_set(s, e);
	return report(s, e, &f, -1);
}

static int finish_dir(struct scan *s, const struct upper_entry *e)
{
	struct msg_file f;

	fill(s, e, EFFECT_DIR, &f);
	if (dir_time_was_set(s, e))
		f.flags |= EFFECT_F_MTIME;
	if (atime_was_set(s, e))
		f.flags |= EFFECT_F_ATIME;
	return report(s, e, &f, -1);
}

static int report_parents(struct scan *s, const struct upper_entry *e)
{
	const struct upper_entry *p = &s->u.entries[e->parent];
	int r = 0;

	/* Deep trees: the topmost that is not settled first, without recursion. */
	while (r == 0 && !progress_of(s, p)->settled) {
		const struct upper_entry *top = p;

		while (*top->path && !progress_of(s, &s->u.entries[top->parent])->settled)
			top = &s->u.entries[top->parent];
		r = report_dir(s, top);
	}
	return r;
}

static int report_dirs(struct scan *s)
{
	int r = 0;

	for (size_t i = 0; i < s->u.n && r == 0; i++)
		if (s->u.entries[i].kind == UPPER_DIR)
			r = report_dir(s, &s->u.entries[i]);
	return r;
}

/* Innermost first: a directory without x lets nobody in. */
static int finish_dirs(struct scan *s)
{
	int r = 0;

	for (size_t i = s->u.n; i-- > 1 && r == 0;) {
		const struct upper_entry *e = &s->u.entries[i];

		if (e->kind == UPPER_DIR && s->progress[i].reported && !s->progress[i].finished)
			r = finish_dir(s, e);
	}
	return r;
}

/* ---- files ---- */

/* What has no way home as it is. */
static int check_file(struct scan *s, const struct upper_entry *e, int fd, const struct stat *st)
{
	if (upper_has_attributes(fd))
		return refuse(s, e, attributes);
	if (st->st_size <= SPARSE_MAX || st->st_blocks * 512 >= st->st_size / 2)
		return 0;
	return refuse(s, e, "is a sparse file of more than 16 GB");
}

/* All but the first bytes of a scan go without. */
static int hash_file(struct scan *s, int fd, const struct stat *st, bool *ret_hashed,
		     struct digest *ret)
{
	*ret = (struct digest){0};
	*ret_hashed = st->st_size <= HASH_MAX - s->hashed;
	if (!*ret_hashed)
		return 0;
	s->hashed += st->st_size;
	return digest_of_fd(fd, ret, NULL);
}

static int read_file(struct scan *s, struct upper_entry *e, int *ret_fd, bool *ret_hashed,
		     struct digest *ret)
{
	_cleanup_close_ int fd = openat_beneath(s->u.fd, e->path, O_RDONLY | O_NONBLOCK);
	int r;

	if (fd < 0)
		return fd;
	if (fstat(fd, &e->st) < 0)
		return -errno;
	if (!S_ISREG(e->st.st_mode))
		return CONCC_E_STALE;
	r = check_file(s, e, fd, &e->st);
	if (r == 0)
		r = hash_file(s, fd, &e->st, ret_hashed, ret);
	if (r == 0)
		*ret_fd = steal_fd(&fd);
	return r;
}

/* What the client has at this path, as far as we know. */
struct former {
	bool exists; /* as a regular file */
	bool same_bytes;
	uint16_t mode;
	struct timespec mtime;
	bool linked; /* the file below has more names */
};

static bool has_bytes(const struct entry_attr *a, const struct upper_entry *e, bool hashed,
		      const struct digest *d)
{
	/* Copying up read all of it, so its digest is known, or else it is sent. */
	return a->size == (uint64_t)e->st.st_size &&
	       (a->size == 0 || (hashed && a->has_digest && digest_eq(&a->digest, d)));
}

static void find_former(const struct scan *s, const struct upper_entry *e, const struct digest *d,
			bool hashed, struct former *ret)
{
	const struct announced *said = announced_of(s->h, e->path);
	struct entry_attr a;

	*ret = (struct former){0};
	if (said) {
		ret->exists = S_ISREG(said->st.st_mode);
		ret->same_bytes = ret->exists && hashed && said->hashed &&
				  digest_eq(&said->digest, d);
		ret->mode = said->st.st_mode & 07777;
		ret->mtime = said->st.st_mtim;
	} else if (below(s, e, &a) == 0 && a.type == ENTRY_FILE) {
		ret->exists = true;
		ret->linked = a.nlink > 1;
		ret->same_bytes = has_bytes(&a, e, hashed, d);
		ret->mode = a.mode;
		ret->mtime.tv_sec = (time_t)a.mtime_s;
		ret->mtime.tv_nsec = a.mtime_ns;
	}
}

/*
 * overlayfs shows the names of one file as what they are only when all of them were made in the
 * job.  Who writes to a file that was there, by one of its names, does not see that by the others;
 * and a new link to such a file has another inode number (with index=off, and no right to decode
 * file handles: ovl_check_origin() in fs/overlayfs/namei.c).  Compilers don't look.
 */
static bool saw_links_wrongly(const struct scan *s, const struct upper_entry *e,
			      const struct former *was, bool copied_up, bool same)
{
	return s->h->any_command && copied_up && (e->st.st_nlink > 1 || (was->linked && !same));
}

static int report_file(struct scan *s, struct upper_entry *e)
{
	const struct announced *said = announced_of(s->h, e->path);
	_cleanup_close_ int fd = -1;
	bool hashed = false, touched, set, copied_up, replaced, same;
	struct former was;
	struct digest d;
	struct msg_file f;
	int r;

	if (said && same_file(&said->st, &e->st) && said->st.st_mode == e->st.st_mode)
		return settle(s, e);
	r = read_file(s, e, &fd, &hashed, &d);
	if (r == 0)
		r = report_parents(s, e);
	if (r < 0)
		return r;
	find_former(s, e, &d, hashed, &was);
	touched = !time_is_same(&was.mtime, &e->st.st_mtim);
	set = atime_was_set(s, e);
	copied_up = overlay_is_copied_up(fd);
	replaced = was.exists && !copied_up;
	same = was.same_bytes && !touched && !set && was.mode == (e->st.st_mode & 07777);
	if (saw_links_wrongly(s, e, &was, copied_up, same))
		return refuse(s, e,
			      "is a file with several names, which jobs see as several files");
	if (same)
		return settle(s, e);
	was.same_bytes &= !(replaced && was.linked);
	if (!was.same_bytes)
		r = make_room(s, e);
	if (r < 0)
		return r;
	fill(s, e, was.same_bytes ? EFFECT_META : EFFECT_FILE, &f);
	if (replaced)
		f.flags |= EFFECT_F_REPLACED;
	if (was.same_bytes && touched)
		f.flags |= EFFECT_F_TOUCHED;
	if (!was.same_bytes)
		f.size = (uint64_t)e->st.st_size;
	if (!was.same_bytes && !hashed)
		f.flags |= EFFECT_F_NO_DIGEST;
	f.digest = d;
	r = report(s, e, &f, was.same_bytes ? -1 : fd);
	if (s->announcing) {
		struct announced *a = announced_of(s->h, e->path);

		a->hashed = hashed;
		a->digest = d;
	}
	return r;
}

static int report_symlink(struct scan *s, struct upper_entry *e)
{
	char target[PATH_MAX];
	_cleanup_close_ int fd = -1;
	struct msg_file f;
	ssize_t n;
	int r;

	fd = openat_beneath(s->u.fd, e->path, O_PATH);
	n = fd < 0 ? fd : readlinkat(fd, "", target, sizeof(target) - 1);
	if (n < 0)
		return fd < 0 ? fd : -errno;
	target[n] = '\0';
	r = report_parents(s, e);
	if (r == 0)
		r = make_room(s, e);
	if (r < 0)
		return r;
	fill(s, e, EFFECT_SYMLINK, &f);
	f.target = target;
	return report(s, e, &f, -1);
}

/* A fifo, or the socket of a process that has ended. */
static int report_special(struct scan *s, struct upper_entry *e)
{
	struct msg_file f;
	int r;

	r = report_parents(s, e);
	if (r == 0)
		r = make_room(s, e);
	if (r < 0)
		return r;
	fill(s, e, EFFECT_FILE, &f);
	f.flags |= e->kind == UPPER_FIFO ? EFFECT_F_FIFO : EFFECT_F_SOCKET;
	digest_of("", 0, &f.digest);
	return report(s, e, &f, -1);
}

/* ---- hard links ---- */

static struct upper_entry *primary_of(const struct scan *s, const struct upper_entry *e)
{
	if (e->kind != UPPER_FILE || e->st.st_nlink < 2)
		return NULL;
	return map_get_u64(&s->primary, e->st.st_ino);
}

static bool is_link(const struct scan *s, const struct upper_entry *e)
{
	const struct upper_entry *p = primary_of(s, e);

	return p && p != e;
}

/* How sure it is that the client has this very file by this name. */
enum likeness { LIKE_NOTHING, LIKE_A_FILE, LIKE_ITS_BYTES, LIKE_ANNOUNCED };

static int likeness_of(struct scan *s, struct upper_entry *e, enum likeness *ret)
{
	const struct announced *said = announced_of(s->h, e->path);
	_cleanup_close_ int fd = -1;
	struct entry_attr a;
	struct digest d;
	bool hashed;
	int r;

	*ret = LIKE_NOTHING;
	if (said && same_file(&said->st, &e->st))
		*ret = LIKE_ANNOUNCED;
	if (said || below(s, e, &a) < 0 || a.type != ENTRY_FILE)
		return 0;
	r = read_file(s, e, &fd, &hashed, &d);
	if (r < 0 || !overlay_is_copied_up(fd))
		return r;
	*ret = has_bytes(&a, e, hashed, &d) ? LIKE_ITS_BYTES : LIKE_A_FILE;
	return 0;
}

/*
 * Of several names of one file, the one by which the client has it; else the first.  When a name
 * was linked over another one, and then written to, nothing tells which of them it was.
 */
static int choose_primaries(struct scan *s)
{
	_cleanup_free_ enum likeness *known = xcalloc(s->u.n, sizeof(*known));
	int r = 0;

	for (size_t i = 0; i < s->u.n && r == 0; i++) {
		struct upper_entry *e = &s->u.entries[i], *p;

		if (e->kind != UPPER_FILE || e->st.st_nlink < 2)
			continue;
		r = likeness_of(s, e, &known[i]);
		p = primary_of(s, e);
		if (r == 0 && p && known[i] == LIKE_A_FILE && known[p - s->u.entries] == known[i])
			r = refuse(s, e, "was linked and written to");
		if (!p || known[i] > known[p - s->u.entries])
			(void)map_put_u64(&s->primary, e->st.st_ino, e);
	}
	return r;
}

static int report_link(struct scan *s, struct upper_entry *e)
{
	struct upper_entry *p = primary_of(s, e);
	struct msg_file f;
	int r;

	r = report_parents(s, e);
	if (r == 0)
		r = make_room(s, e);
	if (r < 0)
		return r;
	fill(s, e, EFFECT_LINK, &f);
	f.flags = 0; /* modes and times are the file's */
	f.target = p->path;
	return report(s, e, &f, -1);
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
		r = remove_path(s, gone[i]);
	}
	return r;
}

static int report_whiteouts(struct scan *s)
{
	int r = 0;

	for (size_t i = 0; i < s->u.n && r == 0; i++) {
		const struct upper_entry *e = &s->u.entries[i];

		if (e->kind == UPPER_WHITEOUT && !e->hidden)
			r = remove_path(s, e->path);
	}
	return r;
}

/* ---- the scan ---- */

static int compare_written(const void *a, const void *b, void *data)
{
	const struct upper *u = data;
	const struct upper_entry *x = &u->entries[*(const size_t *)a];
	const struct upper_entry *y = &u->entries[*(const size_t *)b];
	int64_t ns = ns_between(&y->st.st_mtim, &x->st.st_mtim);

	return ns < 0 ? -1 : ns > 0 ? 1 : strcmp(x->path, y->path);
}

static int report_one(struct scan *s, struct upper_entry *e)
{
	if (s->h->busy)
		s->h->busy(s->h->data);
	switch (e->kind) {
	case UPPER_FILE:
		return report_file(s, e);
	case UPPER_SYMLINK:
		return report_symlink(s, e);
	case UPPER_FIFO:
	case UPPER_SOCKET:
		return report_special(s, e);
	default:
		return 0;
	}
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
		if (!is_link(s, &s->u.entries[order[i]]))
			r = report_one(s, &s->u.entries[order[i]]);
	for (size_t i = 0; i < n && r == 0; i++)
		if (is_link(s, &s->u.entries[order[i]]))
			r = report_link(s, &s->u.entries[order[i]]);
	return r;
}

static int scan_all(struct scan *s)
{
	int r;

	if ((r = choose_primaries(s)) < 0 || (r = report_vanished(s)) < 0 ||
	    (r = report_whiteouts(s)) < 0 || (r = report_dirs(s)) < 0 || (r = report_others(s)) < 0)
		return r;
	return finish_dirs(s);
}

/* path NULL: all of it. */
static int scan(struct home *h, const char *path, home_effect_fn fn, void *data)
{
	struct scan s = {.h = h, .announcing = path, .fn = fn, .data = data, .u.fd = -1};
	int r;

	r = path ? upper_read_path(&s.u, h->fd, path) : upper_read(&s.u, h->fd);
	if (r == 0) {
		s.progress = xcalloc(s.u.n, sizeof(*s.progress));
		r = path ? report_one(&s, &s.u.entries[s.u.n - 1]) : scan_all(&s);
		free(s.progress);
		map_release(&s.primary);
	}
	upper_release(&s.u);
	return r;
}

int home_scan(struct home *h, home_effect_fn fn, void *data)
{
	return scan(h, NULL, fn, data);
}

int home_announce(struct home *h, const char *path, home_effect_fn fn, void *data)
{
	return scan(h, path, fn, data);
}

/* ---- the private /tmp ---- */

/*
 * What programs leave in /tmp that no later program needs: counters and sockets of their own
 * processes, and caches of what can be made again.  Each would make all jobs of its program run
 * twice.
 */
static const char *const may_stay[] = {
	"hsperfdata_*",	       /* JVM: counters for jps and jstat, a directory for each user */
	".java_pid*",	       /* JVM: a socket for who attaches */
	"clr-debug-pipe-*",    /* .NET: fifos for debuggers */
	"dotnet-diagnostic-*", /* .NET: sockets */
	".dotnet",	       /* .NET: locks of its processes */
	"v8-compile-cache*",   /* node: compiled scripts */
	"node-compile-cache",  /* the same, of node itself */
};

static bool stays(const char *path)
{
	_cleanup_free_ char *top = xstrndup(path, strcspn(path, "/"));

	for (size_t i = 0; i < sizeof(may_stay) / sizeof(may_stay[0]); i++) {
		if (fnmatch(may_stay[i], top, 0) == 0)
			return true;
	}
	return false;
}

int home_tmp_leftover(int tmp_fd, char *name, size_t n)
{
	struct upper u = {.fd = -1};
	int r = upper_read(&u, tmp_fd), found = 0;

	for (size_t i = 1; i < u.n && r == 0 && !found; i++) {
		const struct upper_entry *e = &u.entries[i];

		if ((e->kind == UPPER_DIR && sandbox_is_mountpoint(&e->st)) || stays(e->path))
			continue;
		snprintf(name, n, "%s", e->path);
		found = 1;
	}
	upper_release(&u);
	return r < 0 ? r : found;
}
