/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * What lies in ~/.cache/concc: the first byte chooses, 0 the digests of the
 * client's files, 1 a working set, 2 names in a worker's store, each ended by NUL.
 */
#include <dirent.h>
#include <string.h>

#include "concc/log.h"
#include "concc/store.h"
#include "scratch.h"
/* Its load() is the decoder, and nobody else's business. */
#include "project/working_set.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	log_init("fuzz", LOG_LEVEL_ERR);
	return 0;
}

static struct stat a_file(uint64_t ino)
{
	return (struct stat){.st_dev = 1, .st_ino = ino, .st_mode = S_IFREG, .st_size = 5};
}

static void digests(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *file = path_join(scratch_dir, "digests");
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct digest d = {{7}}, got;
	struct hash_cache *h;
	size_t before;

	scratch_write("digests", data, n);
	CHECK(hash_cache_open(file, &h) == 0);
	before = hash_cache_count(h);
	CHECK(before <= n / 80);
	for (uint64_t i = 1; i <= 3; i++) {
		struct stat st = a_file(i);

		hash_cache_put(h, &st, &d, true);
		CHECK(hash_cache_get(h, &st, &got) && digest_eq(&got, &d));
	}
	for (uint64_t i = 1; i <= 2; i++) {
		struct stat st = a_file(i);

		hash_cache_drop(h, &st);
		CHECK(!hash_cache_get(h, &st, &got));
	}
	before = hash_cache_count(h);
	CHECK(hash_cache_changes(h, &b) && replace_file(file, b.data, b.len) == 0);
	hash_cache_free(h);
	CHECK(hash_cache_open(file, &h) == 0 && hash_cache_count(h) == before);
	hash_cache_free(h);
}

static void working_set(const uint8_t *data, size_t n)
{
	struct server s = {0};
	struct working_set *w = xcalloc(1, sizeof(*w));

	scratch_write("set", data, n);
	w->root = xstrdup("/w");
	w->file = path_join(scratch_dir, "set");
	map_put_str(&s.working_sets, w->root, w);
	load(w);
	CHECK(w->n <= ENTRIES_MAX && !w->changed);
	for (size_t i = 0; i < w->n; i++) {
		const char *rel = w->entries[i] + 1;

		if (w->entries[i][0] == 'T') {
			CHECK(path_is_clean(rel));
			continue;
		}
		_cleanup_free_ char *path = *rel ? path_join(w->root, rel) : xstrdup(w->root);
		_cleanup_free_ char *clean = path_clean("/", path);

		CHECK(strchr("DF", w->entries[i][0]));
		CHECK(streq(path, clean) && path_is_below(path, "/w"));
	}
	w->changed = true;
	save(&s, w);
	working_sets_free(&s);
}

/* Files with odd names, in the store and in a folder of it: trimming takes only what is its own. */
static void store_names(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *dir = path_join(scratch_dir, "store");
	struct digest d = {{9}};
	struct errmsg msg = {0};
	struct store *s;
	int n_files = 0;

	scratch_write("precious", "x", 1);
	CHECK(store_open(dir, 1, &s, &msg) == 0);
	(void)mkdirat(scratch(), "store/ab", 0700);
	while (n && n_files++ < 16) {
		size_t len = strnlen((const char *)data, n);
		_cleanup_free_ char *name = xstrndup((const char *)data, len);
		_cleanup_free_ char *in = xasprintf("store/%s%s", n_files & 1 ? "ab/" : "", name);
		int fd = len && !strchr(name, '/')
				 ? openat(scratch(), in, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)
				 : -1;

		if (fd >= 0) {
			CHECK(write_full(fd, "12", 2) == 0);
			(void)close(fd);
		}
		data += len + (len < n);
		n -= len + (len < n);
	}
	CHECK(store_trim(s) == 0);
	CHECK(!store_has(s, &d) && store_get(s, &d) < 0);
	store_close(s);
	CHECK(faccessat(scratch(), "precious", F_OK, 0) == 0);
	(void)nftw(dir, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n < 1)
		return 0;
	(void)scratch();
	switch (data[0]) {
	case 0:
		digests(data + 1, n - 1);
		break;
	case 1:
		working_set(data + 1, n - 1);
		break;
	case 2:
		store_names(data + 1, n - 1);
		break;
	}
	return 0;
}
