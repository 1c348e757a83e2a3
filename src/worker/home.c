/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "home.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
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

/* What a path was when it was last looked at, and so what the client has or will have there. */
struct known {
	char *path; /* owned */
	enum upper_kind_of kind;
	bool reported; /* an effect said so; otherwise it was as below */
	bool link;     /* reported as a hard link to the primary of its inode */
	bool opaque;
	bool finished; /* directories: mode and time are the right ones, see finish_dirs() */
	bool timed;    /* directories: st's time was reported */
	unsigned scan; /* in which it was there last */
	struct stat st;
	bool hashed;
	struct digest digest; /* files; when hashed */
};

struct home {
	struct mirror *mirror;
	char *workspace;
	uint32_t index;
	int fd;
	struct timespec started;
	uint64_t started_ms;
	void (*busy)(void *data);
	void *data;
	struct map known; /* path -> struct known */
	unsigned n_scans;
	char *refusal; /* see home_refusal() */
};

/* One scan: what is there and how far we are with it. */
struct scan {
	struct home *h;
	bool early;
	home_effect_fn fn;
	void *data;
	struct upper u;
	bool *settled;	    /* by entry: reported in this scan, or known to need no report */
	bool *sent;	    /* by entry: reported in this scan with its bytes */
	struct map primary; /* inode -> struct upper_entry: which of several links is the file */
	off_t hashed;	    /* bytes */
};

static void known_free(struct known *k)
{
	free(k->path);
	free(k);
}

struct home *home_new(const struct home_config *c)
{
	struct home *h = xcalloc(1, sizeof(*h));
	struct sigaction sa;

	h->mirror = c->mirror;
	h->workspace = xstrdup(c->workspace);
	h->index = c->index;
	h->fd = c->upper_fd;
	h->started = c->started;
	h->started_ms = c->started_ms;
	h->busy = c->busy;
	h->data = c->data;
	/* A lease that a writer breaks in the instant we hold it brings SIGIO, which would kill. */
	if (sigaction(SIGIO, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL)
		(void)signal(SIGIO, SIG_IGN);
	return h;
}

void home_free(struct home *h)
{
	struct statfs fs;
	struct known *k;
	size_t it = 0;

	if (!h)
		return;
	while ((k = map_next(&h->known, &it, NULL)))
		known_free(k);
	map_release(&h->known);
	free(h->refusal);
	/* What stays is removed with the launcher. */
	if (fstatfs(h->fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC)
		(void)path_empty_dir(h->fd, h->busy, h->data);
	(void)close(h->fd);
	free(h->workspace);
	free(h);
}

/* ---- what is known ---- */

static struct known *known_of(const struct home *h, const struct upper_entry *e)
{
	return map_get_str(&h->known, e->path);
}

static struct known *learn(struct scan *s, const struct upper_entry *e, bool reported)
{
	struct known *k = known_of(s->h, e);

	if (!k) {
		k = xcalloc(1, sizeof(*k));
		k->path = xstrdup(e->path);
		(void)map_put_str(&s->h->known, e->path, k);
	}
	k->kind = e->kind;
	k->reported = reported;
	k->link = false;
	k->opaque = e->opaque;
	k->scan = s->h->n_scans;
	k->st = e->st;
	s->settled[e - s->u.entries] = true;
	return k;
}

/* The client loses what it had below path, so all there must be reported anew. */
static void forget_below(struct home *h, const char *path)
{
	struct known *k;
	size_t it = 0;

	while ((k = map_next(&h->known, &it, NULL))) {
		if (streq(k->path, path) || !path_is_below(k->path, path))
			continue;
		(void)map_del_str(&h->known, k->path);
		known_free(k);
	}
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_stat(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mode == b->st_mode &&
	       same_time(&a->st_mtim, &b->st_mtim) && same_time(&a->st_ctim, &b->st_ctim);
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
		.path = e->path,
		.target = none,
	};
	if (e->kind != UPPER_DIR && time_was_set(s->h, &e->st.st_mtim))
		f->flags |= EFFECT_F_MTIME;
}

static int remove_path(struct scan *s, char *path)
{
	static char none[1];
	struct msg_file f = {
		.kind = EFFECT_REMOVE, .workspace = s->h->index, .path = path, .target = none};

	return s->fn(s->data, &f, -1);
}

/* What was reported in a directory goes with it. */
static int remove_dir(struct scan *s, char *path)
{
	struct known *k;
	size_t it = 0;

	while ((k = map_next(&s->h->known, &it, NULL)))
		if (path_is_below(k->path, path) && !streq(k->path, path))
			k->reported = false;
	return remove_path(s, path);
}

/* Something that no file can replace in place goes first: a directory. */
static int make_room(struct scan *s, const struct upper_entry *e)
{
	const struct known *k = known_of(s->h, e);
	struct entry_attr a;

	if (k && k->reported)
		return k->kind == UPPER_DIR ? remove_dir(s, e->path) : 0;
	return below(s, e, &a) == 0 && a.type == ENTRY_DIR ? remove_dir(s, e->path) : 0;
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

/*
 * In the last scan, when nothing will change in it any more.  A copied-up directory has
 * the time of the one below.  The workspace's own says when the overlay was made.
 */
static bool dir_time_was_set(const struct scan *s, const struct upper_entry *e)
{
	struct entry_attr a;
	struct timespec t;
	int r;

	if (s->early || !*e->path || !s->h->mirror || !time_was_set(s->h, &e->st.st_mtim))
		return false;
	r = below(s, e, &a);
	if (r < 0 || a.type != ENTRY_DIR)
		return r != -EAGAIN;
	t = (struct timespec){.tv_sec = (time_t)a.mtime_s, .tv_nsec = a.mtime_ns};
	return !same_time(&t, &e->st.st_mtim);
}

/* Whether the directory must be reported, and with which flags. */
static bool dir_is_news(const struct scan *s, const struct upper_entry *e, uint8_t *ret_flags)
{
	const struct known *k = known_of(s->h, e);
	struct entry_attr a;
	int r = below(s, e, &a);
	bool replaces = dir_replaces(s, e, r, &a);

	*ret_flags = 0;
	if (k && k->kind == UPPER_DIR) {
		if (replaces && e->opaque && (!k->opaque || k->st.st_ino != e->st.st_ino))
			*ret_flags = EFFECT_F_OPAQUE;
		return *ret_flags || k->st.st_mode != e->st.st_mode ||
		       (!(k->timed && same_time(&k->st.st_mtim, &e->st.st_mtim)) &&
			dir_time_was_set(s, e));
	}
	if (replaces)
		*ret_flags = EFFECT_F_OPAQUE;
	if (r == 0 && !replaces)
		return a.mode != (e->st.st_mode & 07777) || dir_time_was_set(s, e);
	return true;
}

/* First with a mode that lets its owner fill it; finish: then with its own, and its time. */
static int report_dir(struct scan *s, const struct upper_entry *e, bool finish)
{
	const struct known *k = known_of(s->h, e);
	struct msg_file f;
	struct known *l;
	uint8_t flags;
	bool timed;
	int r = 0;

	if (e->attributes && !s->early)
		return refuse(s, e, attributes);
	if (s->settled[e - s->u.entries] && !finish)
		return 0;
	if (!*e->path) {
		/* The workspace itself: only its mode can change. */
		struct entry_attr a;

		if (k ? k->st.st_mode == e->st.st_mode
		      : below(s, e, &a) < 0 || a.mode == (e->st.st_mode & 07777)) {
			learn(s, e, false);
			return 0;
		}
		flags = 0;
	} else if (finish) {
		flags = 0;
	} else if (!dir_is_news(s, e, &flags)) {
		learn(s, e, k && k->reported);
		return 0;
	}
	if (k && k->reported && k->kind != UPPER_DIR)
		r = remove_path(s, e->path);
	if (r < 0)
		return r;
	if (flags & EFFECT_F_OPAQUE)
		forget_below(s->h, e->path);
	fill(s, e, EFFECT_DIR, &f);
	f.flags |= flags;
	timed = dir_time_was_set(s, e);
	if (finish && timed)
		f.flags |= EFFECT_F_MTIME;
	if (!finish && *e->path)
		f.mode |= 0700;
	l = learn(s, e, true);
	l->finished = finish || (f.mode == (e->st.st_mode & 07777) && !timed);
	l->timed = finish && timed;
	return s->fn(s->data, &f, -1);
}

static int report_parents(struct scan *s, const struct upper_entry *e)
{
	const struct upper_entry *p = &s->u.entries[e->parent];
	int r = 0;

	/* Deep trees: the topmost that is not settled first, without recursion. */
	while (r == 0 && !s->settled[p - s->u.entries]) {
		const struct upper_entry *top = p;

		while (*top->path && !s->settled[top->parent])
			top = &s->u.entries[top->parent];
		r = report_dir(s, top, false);
	}
	return r;
}

static int report_dirs(struct scan *s)
{
	int r = 0;

	for (size_t i = 0; i < s->u.n && r == 0; i++)
		if (s->u.entries[i].kind == UPPER_DIR)
			r = report_dir(s, &s->u.entries[i], false);
	return r;
}

/* Innermost first: a directory without x lets nobody in. */
static int finish_dirs(struct scan *s)
{
	int r = 0;

	for (size_t i = s->u.n; i-- > 1 && r == 0;) {
		const struct upper_entry *e = &s->u.entries[i];
		const struct known *k = known_of(s->h, e);

		if (e->kind == UPPER_DIR && k && k->reported && !k->finished)
			r = report_dir(s, e, true);
	}
	return r;
}

/* ---- files ---- */

/* No process can write to it any more: none has it open for that, nor mapped. */
static bool is_complete(int fd)
{
	if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0) {
		if (errno != EAGAIN)
			log_debug("home: no lease: %s", err_text(-errno));
		return false;
	}
	(void)fcntl(fd, F_SETLEASE, F_UNLCK);
	return true;
}

/* What has no way home as it is; in early scans it waits for the last one to say so. */
static int check_file(struct scan *s, const struct upper_entry *e, int fd, const struct stat *st)
{
	if (upper_has_attributes(fd))
		return s->early ? 1 : refuse(s, e, attributes);
	if (st->st_size <= SPARSE_MAX || st->st_blocks * 512 >= st->st_size / 2)
		return 0;
	return s->early ? 1 : refuse(s, e, "is a sparse file of more than 16 GB");
}

/* All but the first bytes of a scan go without. */
static int hash_file(struct scan *s, int fd, const struct stat *st, bool *ret_hashed,
		     struct digest *ret)
{
	uint64_t size;
	int r;

	*ret = (struct digest){0};
	*ret_hashed = st->st_size <= HASH_MAX - s->hashed;
	if (!*ret_hashed)
		return 0;
	s->hashed += st->st_size;
	r = digest_of_fd(fd, ret, &size);
	return r < 0 ? r : s->early && size != (uint64_t)st->st_size;
}

/* Opens and hashes; 1 when it is not to be reported now. */
static int read_file(struct scan *s, struct upper_entry *e, int *ret_fd, bool *ret_hashed,
		     struct digest *ret)
{
	_cleanup_close_ int fd = upper_open(s->u.fd, e->path, O_RDONLY | O_NONBLOCK);
	struct stat before, after;
	int r;

	if (fd < 0)
		return s->early && (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP) ? 1 : fd;
	if (s->early && !is_complete(fd))
		return 1;
	if (fstat(fd, &before) < 0)
		return -errno;
	if (!S_ISREG(before.st_mode))
		return 1;
	r = check_file(s, e, fd, &before);
	if (r == 0)
		r = hash_file(s, fd, &before, ret_hashed, ret);
	if (r != 0)
		return r;
	if (fstat(fd, &after) < 0)
		return -errno;
	/* Opened and changed again meanwhile: its time comes later. */
	if (s->early && !same_stat(&before, &after))
		return 1;
	e->st = after;
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* What the client has at this path, as far as we know. */
struct former {
	bool exists; /* as a regular file */
	bool same_bytes;
	uint16_t mode;
	struct timespec mtime;
	bool linked; /* the file below has more names */
};

static void find_former(const struct scan *s, const struct upper_entry *e, const struct digest *d,
			bool hashed, struct former *ret)
{
	const struct known *k = known_of(s->h, e);
	struct entry_attr a;

	*ret = (struct former){0};
	if (k && k->reported) {
		ret->exists = k->kind == UPPER_FILE && !k->link;
		ret->same_bytes = ret->exists && hashed && k->hashed && digest_eq(&k->digest, d);
		ret->mode = k->st.st_mode & 07777;
		ret->mtime = k->st.st_mtim;
	} else if (below(s, e, &a) == 0 && a.type == ENTRY_FILE) {
		ret->exists = true;
		ret->linked = a.nlink > 1;
		/* Copying up read all of it, so its digest is known, or else it is sent. */
		ret->same_bytes = a.size == (uint64_t)e->st.st_size &&
				  (a.size == 0 ||
				   (hashed && a.has_digest && digest_eq(&a.digest, d)));
		ret->mode = a.mode;
		ret->mtime.tv_sec = (time_t)a.mtime_s;
		ret->mtime.tv_nsec = a.mtime_ns;
	}
}

static void learn_digest(struct scan *s, const struct upper_entry *e, bool reported, bool hashed,
			 const struct digest *d)
{
	struct known *k = learn(s, e, reported);

	k->hashed = hashed;
	k->digest = *d;
}

static int report_file(struct scan *s, struct upper_entry *e)
{
	const struct known *k = known_of(s->h, e);
	_cleanup_close_ int fd = -1;
	struct former was;
	struct digest d;
	struct msg_file f;
	bool hashed = false, touched, replaced;
	int r;

	if (k && k->kind == UPPER_FILE && !k->link && same_stat(&k->st, &e->st)) {
		bool reported = k->reported;

		learn(s, e, reported);
		return 0;
	}
	r = read_file(s, e, &fd, &hashed, &d);
	if (r != 0)
		return r < 0 ? r : 0;
	r = report_parents(s, e);
	if (r < 0)
		return r;
	find_former(s, e, &d, hashed, &was);
	touched = !same_time(&was.mtime, &e->st.st_mtim);
	/* Other names will be links to this one, and links are to what was sent. */
	if (e->st.st_nlink > 1 && !(k && k->reported))
		was.same_bytes = false;
	if (was.same_bytes && !touched && was.mode == (e->st.st_mode & 07777)) {
		learn_digest(s, e, k && k->reported, hashed, &d);
		return 0;
	}
	replaced = was.exists && !upper_is_copied_up(fd);
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
	learn_digest(s, e, true, hashed, &d);
	s->sent[e - s->u.entries] = !was.same_bytes;
	return s->fn(s->data, &f, was.same_bytes ? -1 : fd);
}

static int report_symlink(struct scan *s, struct upper_entry *e)
{
	const struct known *k = known_of(s->h, e);
	char target[PATH_MAX];
	_cleanup_close_ int fd = -1;
	struct msg_file f;
	ssize_t n;
	int r;

	if (k && k->kind == UPPER_SYMLINK && same_stat(&k->st, &e->st)) {
		learn(s, e, true);
		return 0;
	}
	fd = upper_open(s->u.fd, e->path, O_PATH);
	n = fd < 0 ? fd : readlinkat(fd, "", target, sizeof(target) - 1);
	if (n < 0)
		return s->early ? 0 : fd < 0 ? fd : -errno;
	target[n] = '\0';
	r = report_parents(s, e);
	if (r == 0)
		r = make_room(s, e);
	if (r < 0)
		return r;
	fill(s, e, EFFECT_SYMLINK, &f);
	f.target = target;
	learn(s, e, true);
	return s->fn(s->data, &f, -1);
}

/* A fifo, or the socket of a process that has ended or will. */
static int report_special(struct scan *s, struct upper_entry *e)
{
	const struct known *k = known_of(s->h, e);
	struct msg_file f;
	int r;

	if (k && k->kind == e->kind && k->st.st_mode == e->st.st_mode) {
		learn(s, e, true);
		return 0;
	}
	r = report_parents(s, e);
	if (r == 0)
		r = make_room(s, e);
	if (r < 0)
		return r;
	fill(s, e, EFFECT_FILE, &f);
	f.flags |= e->kind == UPPER_FIFO ? EFFECT_F_FIFO : EFFECT_F_SOCKET;
	digest_of("", 0, &f.digest);
	learn(s, e, true);
	return s->fn(s->data, &f, -1);
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

/* Of several names of one file, the one whose bytes the client has; else the first. */
static void choose_primaries(struct scan *s)
{
	for (size_t i = 0; i < s->u.n; i++) {
		struct upper_entry *e = &s->u.entries[i];
		const struct known *k;

		if (e->kind != UPPER_FILE || e->st.st_nlink < 2)
			continue;
		k = known_of(s->h, e);
		if (!map_get_u64(&s->primary, e->st.st_ino) ||
		    (k && k->reported && !k->link && k->st.st_ino == e->st.st_ino))
			(void)map_put_u64(&s->primary, e->st.st_ino, e);
	}
}

static int report_link(struct scan *s, struct upper_entry *e)
{
	const struct known *k = known_of(s->h, e);
	struct upper_entry *p = primary_of(s, e);
	struct msg_file f;
	int r;

	if (!s->settled[p - s->u.entries])
		return 0; /* not complete yet */
	if (k && k->link && k->st.st_ino == e->st.st_ino && !s->sent[p - s->u.entries]) {
		learn(s, e, true)->link = true;
		return 0;
	}
	r = report_parents(s, e);
	if (r == 0)
		r = make_room(s, e);
	if (r < 0)
		return r;
	fill(s, e, EFFECT_LINK, &f);
	f.target = p->path;
	learn(s, e, true)->link = true;
	return s->fn(s->data, &f, -1);
}

/* ---- removals ---- */

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Paths reported before that are no more: the client has them, from an earlier scan. */
static int report_vanished(struct scan *s)
{
	_cleanup_strv_ char **gone = NULL;
	const char *last = NULL;
	struct known *k;
	size_t it = 0, n = 0;
	int r = 0;

	while ((k = map_next(&s->h->known, &it, NULL))) {
		if (k->scan == s->h->n_scans)
			continue;
		if (k->reported && k->kind != UPPER_WHITEOUT) {
			gone = xrealloc(gone, (n + 2) * sizeof(*gone));
			gone[n++] = xstrdup(k->path);
			gone[n] = NULL;
		}
		(void)map_del_str(&s->h->known, k->path);
		known_free(k);
	}
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
		const struct known *k = known_of(s->h, e);

		if (e->kind != UPPER_WHITEOUT || e->hidden)
			continue;
		if (!k || k->kind != UPPER_WHITEOUT)
			r = remove_path(s, e->path);
		learn(s, e, true);
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

static void mark_seen(struct scan *s)
{
	for (size_t i = 0; i < s->u.n; i++) {
		struct known *k = known_of(s->h, &s->u.entries[i]);

		if (k)
			k->scan = s->h->n_scans;
	}
}

static int scan_all(struct scan *s)
{
	int r;

	if ((r = report_vanished(s)) < 0 || (r = report_whiteouts(s)) < 0 ||
	    (r = report_dirs(s)) < 0 || (r = report_others(s)) < 0)
		return r;
	return finish_dirs(s);
}

int home_scan(struct home *h, bool early, home_effect_fn fn, void *data)
{
	struct scan s = {.h = h, .early = early, .fn = fn, .data = data, .u.fd = -1};
	int r;

	h->n_scans++;
	r = upper_read(&s.u, h->fd, early);
	if (r == 0) {
		s.settled = xcalloc(s.u.n, sizeof(*s.settled));
		s.sent = xcalloc(s.u.n, sizeof(*s.sent));
		mark_seen(&s);
		choose_primaries(&s);
		r = early ? report_others(&s) : scan_all(&s);
		free(s.settled);
		free(s.sent);
		map_release(&s.primary);
	}
	upper_release(&s.u);
	return r;
}

/* ---- the private /tmp ---- */

int home_tmp_leftover(int tmp_fd, char *name, size_t n)
{
	struct upper u = {.fd = -1};
	int r = upper_read(&u, tmp_fd, false), found = 0;

	for (size_t i = 1; i < u.n && r == 0 && !found; i++) {
		const struct upper_entry *e = &u.entries[i];

		if (e->kind == UPPER_DIR && sandbox_is_mountpoint(&e->st))
			continue;
		snprintf(name, n, "%s", e->path);
		found = 1;
	}
	upper_release(&u);
	return r < 0 ? r : found;
}
