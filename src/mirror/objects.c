/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "objects.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* A temporary file this old belongs to no living writer. */
#define TMP_AGE_S (24 * 3600)

struct object {
	struct timespec used;
	uint64_t size;
	char *path;
};

void objects_release(struct objects *o)
{
	for (size_t i = 0; i < o->n; i++)
		free(o->v[i].path);
	free(o->v);
}

static int by_use(const void *pa, const void *pb)
{
	const struct timespec *a = &((const struct object *)pa)->used;
	const struct timespec *b = &((const struct object *)pb)->used;

	if (a->tv_sec != b->tv_sec)
		return a->tv_sec < b->tv_sec ? -1 : 1;
	return (a->tv_nsec > b->tv_nsec) - (a->tv_nsec < b->tv_nsec);
}

static void collect(const char *dir, struct objects *o)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	if (!d)
		return; /* deleted meanwhile: nothing to count */
	while ((e = readdir(d))) {
		struct stat st;

		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISREG(st.st_mode))
			continue;
		if (o->n == o->cap) {
			o->cap = o->cap ? 2 * o->cap : 256;
			o->v = xrealloc(o->v, o->cap * sizeof(*o->v));
		}
		/* What it takes on disk: thousands of small objects count for their blocks. */
		o->v[o->n++] = (struct object){.used = st.st_mtim,
					       .size = (uint64_t)st.st_blocks * 512,
					       .path = path_join(dir, e->d_name)};
		o->total += (uint64_t)st.st_blocks * 512;
	}
	(void)closedir(d);
}

void objects_collect(struct objects *o, const char *store_dir)
{
	for (unsigned i = 0; i < 256; i++) {
		_cleanup_free_ char *dir = xasprintf("%s/%02x", store_dir, i);

		collect(dir, o);
	}
}

void objects_remove_old_tmp(const char *store_dir)
{
	_cleanup_free_ char *dir = path_join(store_dir, "tmp");
	struct objects o = {0};

	collect(dir, &o);
	for (size_t i = 0; i < o.n; i++)
		if (o.v[i].used.tv_sec + TMP_AGE_S < time(NULL))
			(void)unlink(o.v[i].path); /* another process may have been first */
	objects_release(&o);
}

uint64_t objects_evict(struct objects *o, uint64_t max)
{
	uint64_t before = o->total;

	if (o->total <= max)
		return 0;
	qsort(o->v, o->n, sizeof(*o->v), by_use);
	for (size_t i = 0; i < o->n && o->total > max; i++) {
		if (unlink(o->v[i].path) == 0 || errno == ENOENT)
			o->total -= o->v[i].size;
	}
	return before - o->total;
}
