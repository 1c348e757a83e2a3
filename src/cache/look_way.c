/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Where names that are not there would be.  Sets have hundreds of these: loaders and compilers look
 * for a file in each of many directories, most of which are not there, either.
 */
#include "look.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define WAYS_MAX (32 * 1024) /* directories: some 10 MB */

static void forget_roots(struct cache_look *l)
{
	char *root;

	for (size_t it = 0; (root = map_next(&l->roots, &it, NULL));)
		free(root);
	map_release(&l->roots);
	l->roots = MAP_INIT;
}

static void forget_way(struct look_way *w)
{
	if (!w)
		return;
	free(w->root);
	free(w->way);
	free(w);
}

void look_forget_known_ways(struct cache_look *l)
{
	struct look_way *w;

	for (size_t it = 0; (w = map_next(&l->ways, &it, NULL));)
		forget_way(w);
	map_release(&l->ways);
	l->ways = MAP_INIT;
}

void look_forget_ways(struct cache_look *l)
{
	forget_roots(l);
	free(steal_ptr(&l->way_dir));
	free(steal_ptr(&l->way));
	free(steal_ptr(&l->gone));
	free(steal_ptr(&l->gone_way));
}

bool look_is_beneath_gone(const struct cache_look *l, const char *path)
{
	size_t n = l->gone ? strlen(l->gone) : 0;

	return n && strncmp(path, l->gone, n) == 0 && path[n] == '/';
}

/* The first name that is not there has nothing beneath it, either. */
static void note_gone(struct cache_look *l, size_t n)
{
	size_t beneath = strlen(l->way_dir) - n;

	free(l->gone);
	free(l->gone_way);
	l->gone = xstrndup(l->way_dir, n);
	l->gone_way = xstrndup(l->way, strlen(l->way) - beneath);
	l->gone_err = l->err; /* it may be no directory */
}

/*
 * Of what is served the tree knows what is beneath it, but not what becomes of the directories
 * above: where it is, each look asks the kernel once.  NULL: the place of this directory can't be
 * told by it.
 */
static const char *way_of_root(struct cache_look *l, const char *path, size_t n)
{
	const char *root = l->ops->root ? l->ops->root(l->data, path, n) : NULL;
	char *way = root ? map_get_str(&l->roots, root) : NULL;

	if (!root || way)
		return way;
	way = path_way(root, true);
	if (way)
		(void)map_put_str(&l->roots, root, way);
	return way;
}

static bool is_still(const struct look_way *w, const struct cache_place *now, const char *root)
{
	return w->route == now->route && w->is_there == !!now->where && streq(w->root, root);
}

/* With root in front, and what follows as path says it: through no symlink. */
static bool is_beneath(const char *way, const char *root, const char *path)
{
	_cleanup_free_ char *clean = path_clean("/", path);
	const char *rest = path_below(way, root);
	size_t n_rest = rest ? strlen(rest) : 0, n = strlen(clean);

	return rest && n_rest < n && streq(clean + n - n_rest, rest) &&
	       (!n_rest || clean[n - n_rest - 1] == '/');
}

/* Takes way, of path. */
static const struct look_way *note_way(struct cache_look *l, const char *path,
				       const struct look_way *w)
{
	struct look_way *known;

	if (l->ways.n >= WAYS_MAX)
		look_forget_known_ways(l);
	known = xmalloc(sizeof(*known));
	*known = *w;
	known->root = xstrdup(w->root);
	forget_way(map_put_str(&l->ways, path, known));
	return known;
}

/* It is looked at once while nothing that is on its way changes.  NULL: it can't be told by that.
 */
static const struct look_way *known_way(struct cache_look *l, const char *path)
{
	size_t n = strlen(path);
	const char *root = way_of_root(l, path, n);
	struct cache_place now = root ? l->ops->place(l->data, path, n) : (struct cache_place){0};
	struct look_way *w = root ? map_get(&l->ways, path, n) : NULL;
	struct look_way new = {.route = now.route, .is_there = now.where, .root = (char *)root};

	if (!root || (w && is_still(w, &now, root)))
		return w;
	new.way = path_way_missing(path, true, &new.missing);
	if (new.way && is_beneath(new.way, root, path) && new.is_there == !new.missing)
		return note_way(l, path, &new);
	free(new.way);
	return NULL;
}

const char *look_place_of_dir(struct cache_look *l, const char *dir)
{
	const struct look_way *w = known_way(l, dir);

	return w && w->is_there ? w->way : NULL;
}

/* Of several names in one directory, once.  NULL: errno says why not. */
static const char *way_of_dir(struct cache_look *l, const char *path, size_t n)
{
	const struct look_way *known;
	size_t missing = 0;

	if (l->way_dir && strlen(l->way_dir) == n && memcmp(l->way_dir, path, n) == 0)
		return l->way;
	free(l->way_dir);
	free(l->way);
	l->way_dir = xstrndup(path, n);
	known = known_way(l, l->way_dir);
	if (known)
		missing = known->missing;
	l->way = known ? xstrdup(known->way) : path_way_missing(l->way_dir, true, &missing);
	if (!l->way)
		free(steal_ptr(&l->way_dir)); /* errno is asked for next time, too */
	else if (missing)
		note_gone(l, missing);
	return l->way;
}

char *look_way_of_absent(struct cache_look *l, const char *path)
{
	const char *base = path_base(path), *dir;
	bool is_name = base > path + 1 && *base && !streq(base, ".") && !streq(base, "..");

	if (!is_name || !l->err || l->output || l->without)
		return path_way(path, true);
	if (look_is_beneath_gone(l, path))
		return xasprintf("%s%s", l->gone_way, path + strlen(l->gone));
	dir = way_of_dir(l, path, (size_t)(base - path) - 1);
	return dir ? xasprintf("%s/%s", streq(dir, "/") ? "" : dir, base) : NULL;
}
