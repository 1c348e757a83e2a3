/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Where names that are not there would be.  Sets have hundreds of these: loaders and compilers look
 * for a file in each of many directories, most of which are not there, either.
 */
#include "look.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

void look_forget_ways(struct cache_look *l)
{
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

/* Of several names in one directory, once.  NULL: errno says why not. */
static const char *way_of_dir(struct cache_look *l, const char *path, size_t n)
{
	size_t missing;

	if (l->way_dir && strlen(l->way_dir) == n && memcmp(l->way_dir, path, n) == 0)
		return l->way;
	free(l->way_dir);
	free(l->way);
	l->way_dir = xstrndup(path, n);
	l->way = path_way_missing(l->way_dir, true, &missing);
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
