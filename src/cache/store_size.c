/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* How large a store is, and what goes when it is too large. */
#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"

#define TMP_AGE_S    3600 /* a temporary file this old belongs to no living writer */
#define TRIM_TO(max) ((max) / 10 * 9)

struct object {
	char name[STORE_NAME_SIZE];
	time_t used;
	uint64_t bytes;
};

struct objects {
	struct object *v;
	size_t n, cap;
	uint64_t bytes;
};

static void add_object(struct objects *o, const char *name, const struct stat *st)
{
	if (o->n == o->cap) {
		o->cap = o->cap ? o->cap * 2 : 1024;
		o->v = xrealloc(o->v, o->cap * sizeof(*o->v));
	}
	(void)snprintf(o->v[o->n].name, STORE_NAME_SIZE, "%s", name);
	o->v[o->n].used = st->st_mtim.tv_sec;
	o->v[o->n].bytes = (uint64_t)st->st_blocks * 512;
	o->bytes += o->v[o->n++].bytes;
}

static void scan_folder(struct cache_store *s, const char *folder, struct objects *o)
{
	int fd = openat(s->dir_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!dir) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	while ((de = readdir(dir))) {
		char name[STORE_NAME_SIZE];
		struct stat st;
		int n = snprintf(name, sizeof(name), "%s/%s", folder, de->d_name);

		/* Others' files are none of ours, whatever they are. */
		if (n >= (int)sizeof(name) ||
		    fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			continue;
		add_object(o, name, &st);
	}
	(void)closedir(dir);
}

static void scan_all(struct cache_store *s, struct objects *o)
{
	static const char kinds[] = "bcrw", before[] = "crwn"; /* to format 7 */
	char folder[8];

	scan_folder(s, "p", o);
	for (unsigned i = 0; i < 4 * 16; i++) {
		(void)snprintf(folder, sizeof(folder), "%c/%x", kinds[i / 16], i % 16);
		scan_folder(s, folder, o);
	}
	for (unsigned i = 0; i < 4 * 256; i++) {
		(void)snprintf(folder, sizeof(folder), "%c/%02x", before[i / 256], i % 256);
		scan_folder(s, folder, o);
	}
}

static int by_use(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	return x->used < y->used ? -1 : x->used > y->used;
}

static void remove_old_temps(struct cache_store *s)
{
	struct objects o = {0};

	scan_folder(s, "tmp", &o);
	for (size_t i = 0; i < o.n; i++)
		if (o.v[i].used + TMP_AGE_S < time(NULL))
			(void)unlinkat(s->dir_fd, o.v[i].name, 0);
	free(o.v);
}

/* Down to max bytes. */
static int reduce(struct cache_store *s, uint64_t max)
{
	_cleanup_close_ int lock = openat(s->dir_fd, "lock",
					  O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct objects o = {0};
	uint64_t bytes, left = 0;

	if (lock < 0)
		return -errno;
	if (flock(lock, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? 0 : -errno;
	remove_old_temps(s);
	scan_all(s, &o);
	bytes = o.bytes;
	if (bytes > max)
		qsort(o.v, o.n, sizeof(*o.v), by_use);
	for (size_t i = 0; i < o.n; i++) {
		if (bytes > max && unlinkat(s->dir_fd, o.v[i].name, 0) == 0)
			bytes -= o.v[i].bytes;
		else
			left++;
	}
	free(o.v);
	counts_set_size(s->counts, s->dir_fd, bytes, left);
	return 0;
}

int cache_trim(struct cache_store *s)
{
	return reduce(s, TRIM_TO(s->max_bytes));
}

int cache_clear(struct cache_store *s)
{
	int r = reduce(s, 0);

	if (r == 0)
		counts_reset(s->counts, s->dir_fd);
	return r;
}

bool cache_is_full(const struct cache_store *s)
{
	return counts_bytes(s->counts) > s->max_bytes;
}
