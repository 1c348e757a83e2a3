/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "home_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/sandbox.h"
#include "concc/str.h"

/* Bytes hashed in one scan: the job's end waits for it, and slow and busy machines hash 150 MB in a
 * second. */
#define HASH_MAX (256LL << 20)
/* A sparse file is sent with its holes.  Beyond, that takes longer than to run the job again. */
#define SPARSE_MAX (16LL << 30)

/* But for its mode and number of links. */
static bool same_file(const struct stat *a, const struct stat *b)
{
	return (a->st_mode & S_IFMT) == (b->st_mode & S_IFMT) && a->st_ino == b->st_ino &&
	       a->st_size == b->st_size && time_is_same(&a->st_mtim, &b->st_mtim);
}

/* What has no way home as it is. */
static int check_file(struct scan *s, const struct upper_entry *e, int fd, const struct stat *st)
{
	if (upper_has_attributes(fd))
		return scan_refuse(s, e, SCAN_HAS_ATTRIBUTES);
	if (st->st_size <= SPARSE_MAX || st->st_blocks * 512 >= st->st_size / 2)
		return 0;
	return scan_refuse(s, e, "is a sparse file of more than 16 GB");
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
	const struct announced *announced = home_announced(s->h, e->path);
	struct entry_attr a;

	*ret = (struct former){0};
	if (announced) {
		ret->exists = S_ISREG(announced->st.st_mode);
		ret->same_bytes = ret->exists && hashed && announced->hashed &&
				  digest_eq(&announced->digest, d);
		ret->mode = announced->st.st_mode & 07777;
		ret->mtime = announced->st.st_mtim;
	} else if (scan_below(s, e, &a) == 0 && a.type == ENTRY_FILE) {
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

/* Is it the file below, that was written to, rather than another in its place? */
static bool is_copied_up(const struct scan *s, const struct upper_entry *e, int fd)
{
	return overlay_is_from(fd, e->path) || map_get_str(&s->copied, e->path);
}

/* Of something that is made anew: the directories that it is in come first, and what it replaces.
 */
static int make_anew(struct scan *s, struct upper_entry *e, enum effect_kind kind,
		     struct msg_file *ret)
{
	int r = scan_parents(s, e);

	if (r == 0)
		r = scan_make_room(s, e);
	if (r == 0)
		scan_fill(s, e, kind, ret);
	return r;
}

int scan_file(struct scan *s, struct upper_entry *e)
{
	const struct announced *announced = home_announced(s->h, e->path);
	_cleanup_close_ int fd = -1;
	bool hashed = false, touched, set, copied_up, replaced, same;
	struct former was;
	struct digest d;
	struct msg_file f;
	int r;

	if (announced && same_file(&announced->st, &e->st) &&
	    announced->st.st_mode == e->st.st_mode)
		return scan_settle(s, e);
	r = read_file(s, e, &fd, &hashed, &d);
	if (r == 0)
		r = scan_parents(s, e);
	if (r < 0)
		return r;
	find_former(s, e, &d, hashed, &was);
	touched = !time_is_same(&was.mtime, &e->st.st_mtim);
	set = scan_atime_was_set(s, e);
	copied_up = is_copied_up(s, e, fd);
	replaced = was.exists && !copied_up;
	same = was.same_bytes && !touched && !set && was.mode == (e->st.st_mode & 07777);
	if (saw_links_wrongly(s, e, &was, copied_up, same))
		return scan_refuse(s, e, SCAN_SEVERAL_NAMES);
	/* Another file with the same bytes is none of the names that the one before may have. */
	if (same && !replaced)
		return scan_settle(s, e);
	was.same_bytes &= !(replaced && was.linked);
	if (!was.same_bytes)
		r = scan_make_room(s, e);
	if (r < 0)
		return r;
	scan_fill(s, e, was.same_bytes ? EFFECT_META : EFFECT_FILE, &f);
	if (replaced)
		f.flags |= EFFECT_F_REPLACED;
	if (was.same_bytes && touched)
		f.flags |= EFFECT_F_TOUCHED;
	if (!was.same_bytes)
		f.size = (uint64_t)e->st.st_size;
	if (!was.same_bytes && !hashed)
		f.flags |= EFFECT_F_NO_DIGEST;
	f.digest = d;
	r = scan_report(s, e, &f, was.same_bytes ? -1 : fd);
	if (s->announcing) {
		struct announced *a = home_announced(s->h, e->path);

		a->hashed = hashed;
		a->digest = d;
	}
	return r;
}

/* Of what is no regular file.  A client's has one name in here: what has more was made so. */
static int refuse_further_names(struct scan *s, const struct upper_entry *e)
{
	return e->st.st_nlink > 1 ? scan_refuse(s, e, "has several names, and is no regular file")
				  : 0;
}

int scan_symlink(struct scan *s, struct upper_entry *e)
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
	r = refuse_further_names(s, e);
	if (r == 0)
		r = make_anew(s, e, EFFECT_SYMLINK, &f);
	if (r < 0)
		return r;
	f.target = target;
	return scan_report(s, e, &f, -1);
}

int scan_special(struct scan *s, struct upper_entry *e)
{
	struct msg_file f;
	int r = refuse_further_names(s, e);

	if (r == 0)
		r = make_anew(s, e, EFFECT_FILE, &f);
	if (r < 0)
		return r;
	f.flags |= e->kind == UPPER_FIFO ? EFFECT_F_FIFO : EFFECT_F_SOCKET;
	digest_of("", 0, &f.digest);
	return scan_report(s, e, &f, -1);
}

/* ---- hard links ---- */

static struct upper_entry *primary_of(const struct scan *s, const struct upper_entry *e)
{
	if (e->kind != UPPER_FILE || e->st.st_nlink < 2)
		return NULL;
	return map_get_u64(&s->primary, e->st.st_ino);
}

bool scan_is_link(const struct scan *s, const struct upper_entry *e)
{
	const struct upper_entry *p = primary_of(s, e);

	return p && p != e;
}

/* How sure it is that the client has this very file by this name. */
enum likeness { LIKE_NOTHING, LIKE_A_FILE, LIKE_ITS_BYTES, LIKE_ANNOUNCED };

static int likeness_of(struct scan *s, struct upper_entry *e, enum likeness *ret)
{
	const struct announced *announced = home_announced(s->h, e->path);
	_cleanup_close_ int fd = -1;
	struct entry_attr a;
	struct digest d;
	bool hashed;
	int r;

	*ret = LIKE_NOTHING;
	if (announced && same_file(&announced->st, &e->st))
		*ret = LIKE_ANNOUNCED;
	if (announced || scan_below(s, e, &a) < 0 || a.type != ENTRY_FILE)
		return 0;
	r = read_file(s, e, &fd, &hashed, &d);
	if (r < 0 || !is_copied_up(s, e, fd))
		return r;
	*ret = has_bytes(&a, e, hashed, &d) ? LIKE_ITS_BYTES : LIKE_A_FILE;
	return 0;
}

/*
 * Of several names of one file, the one by which the client has it; else the first.  When a name
 * was linked over another one, and then written to, nothing tells which of them it was.
 */
int scan_choose_primaries(struct scan *s)
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
			r = scan_refuse(s, e, "was linked and written to");
		if (!p || known[i] > known[p - s->u.entries])
			(void)map_put_u64(&s->primary, e->st.st_ino, e);
	}
	return r;
}

int scan_link(struct scan *s, struct upper_entry *e)
{
	struct upper_entry *p = primary_of(s, e);
	struct msg_file f;
	int r;

	r = make_anew(s, e, EFFECT_LINK, &f);
	if (r < 0)
		return r;
	f.flags = 0; /* modes and times are the file's */
	f.target = p->path;
	return scan_report(s, e, &f, -1);
}
