/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/*
 * Each directory has a number that no other one ever had, and gets another one with every event,
 * look or commit that may have to do with it.  So the largest of several is the same only if each
 * of them is: that is the stamp of a path which goes through several (by "..").  A directory that
 * is lost is found no more, and its parent has been touched.
 *
 * Jobs put what they make beside what others look at, so stamps change all the time.  The route is
 * made alike of numbers that names in a directory don't change: while it is the same, what became
 * of a name there its version tells.  It may be the same for a directory and for its absence, when
 * the largest number is that of another one on the way; no version is the same then.
 */

void dir_touch(struct tree *t, struct dir *d)
{
	d->stamp = ++t->last_stamp;
}

static void touch_below(struct tree *t, struct dir *d)
{
	dir_touch(t, d);
	d->route = d->stamp;
	list_for_each (l, &d->children)
		touch_below(t, container_of(l, struct dir, siblings));
}

void dir_note_access(struct tree *t, struct dir *d, int fd, const struct stat *st)
{
	bool acl = fgetxattr(fd, "system.posix_acl_access", NULL, 0) > 0;

	if (acl || d->access_acl || st->st_uid != d->uid || st->st_gid != d->gid ||
	    st->st_mode != d->mode)
		touch_below(t, d);
	d->access_acl = acl;
	d->mode = st->st_mode;
	d->uid = st->st_uid;
	d->gid = st->st_gid;
}

static const struct dir *find_told(const struct tree *t, const char *path, size_t n)
{
	const struct dir *d = map_get(&t->by_path, path, n);

	return d && !d->dead && !d->elsewhere && !dir_is_swept(d) ? d : NULL;
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void go_by(struct tree_place *place, const struct dir *d)
{
	place->stamp = later(place->stamp, d->stamp);
	place->route = later(place->route, d->route);
}

/*
 * Without "." and "..": what is left of the path, in clean.  What ".." leaves must be a directory
 * in another one that is known, since of a symlink, which a root may be, the parent is elsewhere;
 * false when it is not.
 */
static bool clean_path(const struct tree *t, const char *path, size_t n, char clean[PROTO_PATH_MAX],
		       size_t *ret_n, struct tree_place *place)
{
	size_t len = 0;

	if (n >= PROTO_PATH_MAX)
		return false;
	for (const char *p = path, *end = path + n, *next; p < end; p = next) {
		const char *name = p + 1; /* p is at a slash */
		size_t name_len;

		next = name < end ? memchr(name, '/', (size_t)(end - name)) : NULL;
		next = next ? next : end;
		name_len = (size_t)(next - name);
		if (!name_len || (name_len == 1 && *name == '.'))
			continue;
		if (name_len == 2 && memcmp(name, "..", 2) == 0) {
			const struct dir *d = find_told(t, clean, len);

			if (!d || !d->parent)
				return false;
			go_by(place, d);
			while (clean[--len] != '/')
				;
			continue;
		}
		memcpy(clean + len, p, name_len + 1);
		len += name_len + 1;
	}
	clean[len] = '\0';
	*ret_n = len;
	return len;
}

/* Of such names there are no events, or they are no entries. */
static bool is_untold(const char *name, size_t len)
{
	bool dots = (len == 1 && *name == '.') || (len == 2 && memcmp(name, "..", 2) == 0);

	return !len || dots || len > PROTO_NAME_MAX || str_starts(name, TEMP_PREFIX);
}

static bool is_absent(const struct tree *t, const struct dir *d, const char *name, size_t len)
{
	const struct ent *e;

	if (is_untold(name, len))
		return false;
	e = dir_name(t, d, name, len);
	return !e || (e->type == ENTRY_ABSENT && !(e->flags & ENT_DIRTY));
}

/* The last one on its way that is there, if that says that there is no such directory; or NULL. */
static const struct dir *absent_in(const struct tree *t, const char *path, size_t n)
{
	const struct dir *d = NULL;
	size_t at = n;

	while (!d && at) {
		n = at;
		while (path[--at] != '/')
			;
		d = at ? find_told(t, path, at) : NULL;
	}
	return d && is_absent(t, d, path + at + 1, n - at - 1) ? d : NULL;
}

/* ---- symlinks in the root directory ---- */

#define TOPS_MAX 32

/*
 * Of /lib, where it is that of /usr, no event tells, since nobody serves what it is in.  While it
 * has the same inode and times it says the same: it is looked at once after each drain.  What leads
 * through another one has another stamp.
 */
struct top {
	char *target; /* NULL: it is no such symlink */
	struct stat st;
	uint64_t stamp;
	uint64_t drain; /* after which it was looked at */
};

void tops_release(struct tree *t)
{
	struct top *top;

	for (size_t it = 0; (top = map_next(&t->tops, &it, NULL));) {
		free(top->target);
		free(top);
	}
	map_release(&t->tops);
}

static bool root_is_network(void)
{
	_cleanup_close_ int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fs_is_network(fd);
}

static void look_at_top(struct tree *t, struct top *top, const char *path)
{
	char target[PROTO_PATH_MAX];
	int64_t since = clock_ns();
	struct stat st;
	ssize_t n;

	top->drain = t->counts.drains;
	if (lstat(path, &st) == 0 && top->target && stat_is_same_file(&st, &top->st) &&
	    stat_is_unchanged(&st, &top->st))
		return;
	free(steal_ptr(&top->target));
	top->stamp = ++t->last_stamp;
	if (lstat(path, &top->st) < 0 || !S_ISLNK(top->st.st_mode) ||
	    stat_is_racy(&top->st, since, false) || root_is_network())
		return;
	n = readlink(path, target, sizeof(target));
	if (n > 0 && n < (ssize_t)sizeof(target))
		top->target = xstrndup(target, (size_t)n);
}

/* NULL: the path does not begin with one, as far as is known. */
static const struct top *top_of(struct tree *t, const char *path, size_t n)
{
	const char *slash = n > 1 ? memchr(path + 1, '/', n - 1) : NULL;
	char name[NAME_MAX + 2];
	struct top *top;

	if (!slash || slash - path > NAME_MAX + 1)
		return NULL;
	memcpy(name, path, (size_t)(slash - path));
	name[slash - path] = '\0';
	top = map_get_str(&t->tops, name);
	if (!top && t->tops.n < TOPS_MAX) {
		top = xcalloc(1, sizeof(*top));
		(void)map_put_str(&t->tops, name, top);
		look_at_top(t, top, name);
	}
	if (top && S_ISLNK(top->st.st_mode) && top->drain != t->counts.drains)
		look_at_top(t, top, name);
	return top && top->target ? top : NULL;
}

/* What a path means that begins with one; 0: it does not. */
static size_t go_through_top(struct tree *t, const char *path, size_t n, char ret[PROTO_PATH_MAX],
			     uint64_t *ret_stamp)
{
	const struct top *top = top_of(t, path, n);
	const char *rest;
	int len;

	if (!top)
		return 0;
	rest = memchr(path + 1, '/', n - 1);
	len = snprintf(ret, PROTO_PATH_MAX, "%s%s%.*s", *top->target == '/' ? "" : "/", top->target,
		       (int)(path + n - rest), rest);
	*ret_stamp = top->stamp;
	return len < PROTO_PATH_MAX ? (size_t)len : 0;
}

/* ---- paths ---- */

/* Beneath two of them the inner one may be a symlink. */
static const char *only_root_of(const struct tree *t, const struct dir *d)
{
	const char *found = NULL;

	list_for_each (l, &t->roots) {
		const struct root *r = container_of(l, struct root, in_tree);

		if (!path_is_below(d->path, r->path))
			continue;
		if (found)
			return NULL;
		found = r->path;
	}
	return found;
}

/* What leads to this path has stamp.  *ret_last: the last directory on its way that is there. */
static struct tree_place place_at(const struct tree *t, const char *path, size_t n, uint64_t stamp,
				  const struct dir **ret_last)
{
	struct tree_place place = {.stamp = stamp, .route = stamp};
	char clean[PROTO_PATH_MAX];
	const struct dir *d;
	size_t len;

	if (!clean_path(t, path, n, clean, &len, &place))
		return (struct tree_place){0};
	place.dir = find_told(t, clean, len);
	d = place.dir ?: absent_in(t, clean, len);
	if (!d)
		return (struct tree_place){0};
	go_by(&place, d);
	*ret_last = d;
	return place;
}

static struct tree_place find_place(struct tree *t, const char *path, size_t n,
				    const struct dir **ret_last)
{
	struct tree_place place = place_at(t, path, n, 0, ret_last);
	char through[PROTO_PATH_MAX];
	uint64_t stamp;

	if (place.stamp)
		return place;
	n = go_through_top(t, path, n, through, &stamp);
	return n ? place_at(t, through, n, stamp, ret_last) : place;
}

struct tree_place tree_place(struct tree *t, const char *path, size_t n)
{
	const struct dir *last;

	return find_place(t, path, n, &last);
}

const char *tree_place_root(struct tree *t, const char *path, size_t n)
{
	const struct dir *last;

	return find_place(t, path, n, &last).stamp ? only_root_of(t, last) : NULL;
}

uint64_t tree_last_stamp(const struct tree *t)
{
	return t->last_stamp;
}

/* What it is has changed, or that would not be seen. */
#define ENT_UNSURE (ENT_DIRTY | ENT_WRITTEN | ENT_GONE | ENT_LINKED)

static bool has_one_name(const struct ent *e)
{
	return (e->type == ENTRY_FILE || e->type == ENTRY_SYMLINK) && e->nlink == 1;
}

uint64_t tree_name_version(struct tree *t, const struct dir *d, const char *name)
{
	const uint64_t absent = 1; /* versions begin with 1 */
	size_t len = strlen(name);
	const struct ent *e;

	if (!d || is_absent(t, d, name, len))
		return absent;
	e = is_untold(name, len) ? NULL : dir_name(t, d, name, len);
	return e && has_one_name(e) && !(e->flags & ENT_UNSURE) ? absent + e->version : 0;
}

bool tree_vouches(struct tree *t, const struct dir *d, const char *name, const struct stat *st)
{
	size_t len = strlen(name);
	const struct ent *e;

	if (!d)
		return !st;
	if (!st)
		return is_absent(t, d, name, len);
	if (streq(name, "."))
		return fold_ino(t, st->st_dev, st->st_ino) == d->attr.ino;
	if (is_untold(name, len))
		return false;
	e = dir_name(t, d, name, len);
	return e && (e->type == ENTRY_DIR || has_one_name(e)) && !(e->flags & ENT_UNSURE) &&
	       ent_matches(t, e, st);
}
