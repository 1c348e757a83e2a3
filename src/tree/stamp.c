/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <string.h>
#include <sys/xattr.h>

#include "concc/str.h"

/*
 * Each directory has a number that no other one ever had, and gets another one with every event,
 * look or commit that may have to do with it.  So the largest of several is the same only if each
 * of them is: that is the stamp of a path which goes through several (by "..").  A directory that
 * is lost is found no more, and its parent has been touched.
 */

void dir_touch(struct tree *t, struct dir *d)
{
	d->stamp = ++t->last_stamp;
}

static void touch_below(struct tree *t, struct dir *d)
{
	dir_touch(t, d);
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

/*
 * Without "." and "..": what is left of the path, in clean.  What ".." leaves must be a directory
 * in another one that is known, since of a symlink, which a root may be, the parent is elsewhere;
 * false when it is not.
 */
static bool clean_path(const struct tree *t, const char *path, size_t n, char clean[PROTO_PATH_MAX],
		       size_t *ret_n, uint64_t *stamp)
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
			*stamp = later(*stamp, d->stamp);
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

/* There is no such directory, if the last one on its way that is there says so. */
static uint64_t stamp_of_absence(const struct tree *t, const char *path, size_t n)
{
	const struct dir *d = NULL;
	size_t at = n;

	while (!d && at) {
		n = at;
		while (path[--at] != '/')
			;
		d = at ? find_told(t, path, at) : NULL;
	}
	return d && is_absent(t, d, path + at + 1, n - at - 1) ? d->stamp : 0;
}

uint64_t tree_stamp(const struct tree *t, const char *path, size_t n, const struct dir **ret)
{
	char clean[PROTO_PATH_MAX];
	uint64_t stamp = 0, absence;
	const struct dir *d;
	size_t len;

	*ret = NULL;
	if (!clean_path(t, path, n, clean, &len, &stamp))
		return 0;
	d = find_told(t, clean, len);
	*ret = d;
	if (d)
		return later(stamp, d->stamp);
	absence = stamp_of_absence(t, clean, len);
	return absence ? later(stamp, absence) : 0;
}

uint64_t tree_last_stamp(const struct tree *t)
{
	return t->last_stamp;
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
	return e && (e->type == ENTRY_DIR || (e->type == ENTRY_FILE && e->nlink == 1)) &&
	       !(e->flags & (ENT_DIRTY | ENT_WRITTEN | ENT_GONE | ENT_LINKED)) &&
	       ent_matches(t, e, st);
}
