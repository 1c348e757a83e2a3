/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "results.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/*
 * In directories that some worker was told of, the tree has a version of each name, also of those
 * that are gone: since it was read, which for what jobs see by themselves must be before they
 * began. Elsewhere the time of the last change tells, which nobody can set: of the file, and of the
 * directory for names that are not in it.  A directory changes with each name that comes or goes in
 * it; it is the same one when it, or the directory that it is in, has not changed.
 */
#define TICK_NS	  20000000 /* of any file system's clock, twice */
#define LINKS_MAX 40

void baseline_init(struct baseline *s, struct tree *t, uint64_t version, char *const *mirrored,
		   struct map *disks)
{
	*s = (struct baseline){.tree = t, .version = version, .mirrored = mirrored, .disks = disks};
	s->stamp = tree_last_stamp(t);
	(void)clock_gettime(CLOCK_REALTIME_COARSE, &s->when);
}

void baseline_release(struct baseline *s)
{
	map_release(&s->seen);
	map_release(&s->dirs);
}

static bool is_before(const struct baseline *s, const struct timespec *t)
{
	return (s->when.tv_sec - t->tv_sec) * 1000000000LL + (s->when.tv_nsec - t->tv_nsec) >
	       TICK_NS;
}

/* Other machines' clocks say nothing. */
static bool is_local(struct baseline *s, const char *dir, const struct stat *st)
{
	uintptr_t kind = (uintptr_t)map_get_u64(s->disks, st->st_dev);
	_cleanup_close_ int fd = -1;
	struct stat now;

	if (kind)
		return kind == DISK_LOCAL;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &now) < 0 || now.st_dev != st->st_dev)
		return false;
	kind = fs_is_network(fd) ? DISK_NETWORK : DISK_LOCAL;
	(void)map_put_u64(s->disks, st->st_dev, (void *)kind);
	return kind == DISK_LOCAL;
}

enum {
	LOOKED = 1, /* so that it is not 0 */
	LOCAL = 2,
	OLD = 4,
};

/* Of a symlink, where it leads. */
static uintptr_t look_at_dir(struct baseline *s, const char *path)
{
	uintptr_t what = (uintptr_t)map_get_str(&s->dirs, path);
	struct stat st;

	if (what)
		return what;
	what = LOOKED;
	if (stat(path, &st) == 0) {
		if (is_local(s, path, &st))
			what |= LOCAL;
		if (is_before(s, &st.st_ctim) && is_before(s, &st.st_mtim))
			what |= OLD;
	}
	(void)map_put_str(&s->dirs, path, (void *)what);
	return what;
}

static bool is_mirrored(const struct baseline *s, const char *path)
{
	bool found = !s->mirrored;

	for (char *const *w = s->mirrored; w && *w && !found; w++)
		found = path_is_below(path, *w);
	return found;
}

bool baseline_same_names(struct baseline *s, const char *dir)
{
	const uintptr_t wanted = LOCAL | OLD;
	struct stat st;
	int changed;

	/* Nothing is listed of what is none, or was not there. */
	if (stat(dir, &st) < 0 ? errno == ENOENT || errno == ENOTDIR : !S_ISDIR(st.st_mode))
		return true;
	changed = tree_names_changed_since(s->tree, dir, s->version, is_mirrored(s, dir));
	if (changed != -ENOENT)
		return changed == 0;
	return (look_at_dir(s, dir) & wanted) == wanted;
}

/* st: NULL, when there is no such thing. */
static bool is_old(struct baseline *s, const char *path, const struct stat *st)
{
	_cleanup_free_ char *parent = path_parent(path);

	uintptr_t dir = look_at_dir(s, parent);

	if (!(dir & LOCAL))
		return false;
	if (st && is_before(s, &st->st_ctim))
		return true;
	if (st && !S_ISDIR(st->st_mode))
		return false;
	return dir & OLD;
}

/* What is there now must be what the tree knows: else it has changed, and no event has told. */
static bool name_is_unchanged(struct baseline *s, const char *path, const struct stat *st,
			      bool links_count)
{
	int changed = links_count
			      ? tree_links_changed_since(s->tree, path, s->version,
							 is_mirrored(s, path))
			      : tree_changed_since(s->tree, path, s->version, is_mirrored(s, path));

	if (changed == -ENOENT)
		return is_old(s, path, st);
	return !changed && (!st || tree_confirms(s->tree, path, st));
}

static int look(const char *path, const struct cache_looked *looked, struct stat *ret)
{
	if (!looked)
		return lstat(path, ret) < 0 ? errno : 0;
	*ret = looked->st;
	return looked->err;
}

enum {
	SEEN = 1, /* so that it is not 0 */
	SAME = 2,
	THERE = 4,
	LINK = 8,
	DIRECTORY = 16,
};

static uintptr_t look_at_name(struct baseline *s, const char *path,
			      const struct cache_looked *looked, bool links_count)
{
	struct stat st;
	int err = look(path, looked, &st);

	if (err)
		return SEEN |
		       (err_is_fact(-err) && name_is_unchanged(s, path, NULL, links_count) ? SAME
											   : 0);
	return SEEN | THERE | (name_is_unchanged(s, path, &st, links_count) ? SAME : 0) |
	       (S_ISLNK(st.st_mode) ? LINK : 0) | (S_ISDIR(st.st_mode) ? DIRECTORY : 0);
}

/* One more name on the way; what others lead through is met again and again. */
static uintptr_t step(struct baseline *s, const char *path, const struct cache_looked *looked,
		      bool last, bool links_count)
{
	uintptr_t seen = (uintptr_t)map_get_str(&s->seen, path);

	if (seen && (!links_count || seen & DIRECTORY))
		return seen;
	seen = look_at_name(s, path, looked, links_count);
	if (!last || seen & DIRECTORY)
		(void)map_put_str(&s->seen, path, (void *)seen);
	return seen;
}

static void enter_dir(struct baseline *s, const char *path, size_t n)
{
	if (s->dir && s->dir_len == n && memcmp(s->dir, path, n) == 0)
		return;
	s->dir = path;
	s->dir_len = n;
	s->place = tree_place(s->tree, path, n);
}

bool baseline_is_quiet(struct baseline *s, const char *path, uint64_t stamp,
		       const struct cache_looked *looked)
{
	const char *base = path_base(path);

	enter_dir(s, path, (size_t)(base - path));
	if (!s->place.stamp || s->place.stamp > s->stamp)
		return false;
	if (stamp)
		return stamp == s->place.stamp;
	return looked && (looked->err ? looked->err == ENOENT : !S_ISLNK(looked->st.st_mode)) &&
	       tree_vouches(s->tree, s->place.dir, base, looked->err ? NULL : &looked->st);
}

struct walk {
	char at[PATH_MAX];   /* clean, "" for the root */
	char rest[PATH_MAX]; /* yet to come */
	unsigned n_links;
};

/* What a link says comes before the rest. */
static bool go_through(struct walk *w, const char *link, const char *rest)
{
	char target[PATH_MAX], whole[PATH_MAX];
	ssize_t n = readlink(link, target, sizeof(target) - 1);

	if (n <= 0 || ++w->n_links > LINKS_MAX)
		return false;
	target[n] = '\0';
	if (*target == '/')
		w->at[0] = '\0';
	if (snprintf(whole, sizeof(whole), "%s/%s", target, rest) >= (int)sizeof(whole))
		return false;
	memcpy(w->rest, whole, strlen(whole) + 1);
	return true;
}

static void go_up(struct walk *w)
{
	char *slash = strrchr(w->at, '/');

	if (slash)
		*slash = '\0';
}

bool baseline_unchanged(struct baseline *s, const char *path, bool follow, bool links_count,
			const struct cache_looked *looked)
{
	struct walk w = {.n_links = 0};
	const char *at;

	if (strlen(path) >= sizeof(w.rest))
		return false;
	memcpy(w.rest, path, strlen(path) + 1);
	if (str_ends(path, "/") || str_ends(path, "/."))
		looked = NULL; /* that was through the symlink */
	for (at = w.rest; *(at += strspn(at, "/"));) {
		size_t n = strcspn(at, "/"), len = strlen(w.at);
		const char *rest = at + n + strspn(at + n, "/");
		char next[PATH_MAX];
		uintptr_t seen;

		if (n == 2 && memcmp(at, "..", 2) == 0)
			go_up(&w);
		if ((n == 1 && *at == '.') || (n == 2 && memcmp(at, "..", 2) == 0)) {
			at += n;
			continue;
		}
		if (len + 1 + n >= sizeof(next))
			return false;
		memcpy(next, w.at, len);
		next[len] = '/';
		memcpy(next + len + 1, at, n);
		next[len + 1 + n] = '\0';
		bool last = !at[n] && !*rest;

		seen = step(s, next, last ? looked : NULL, last, last && links_count);
		if (!(seen & SAME))
			return false;
		if (!(seen & THERE))
			return true; /* nor anything beneath */
		if (seen & LINK && (*rest || at[n] || follow)) {
			if (!go_through(&w, next, rest))
				return false;
			if (last)
				looked = NULL; /* it was of the symlink */
			at = w.rest;
			continue;
		}
		memcpy(w.at, next, len + 1 + n + 1);
		at += n;
	}
	return true;
}
