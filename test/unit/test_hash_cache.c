/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/digest.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/tree.h"

static char path[64];

static void make_path(void)
{
	int fd;

	strcpy(path, "/tmp/concc-test-hashes.XXXXXX");
	fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	close(fd);
	cr_assert_eq(unlink(path), 0);
}

static void remove_path(void)
{
	(void)unlink(path);
}

TestSuite(hash_cache, .init = make_path, .fini = remove_path);

static struct stat stat_of(unsigned n)
{
	return (struct stat){
		.st_dev = 7,
		.st_ino = 1000 + n,
		.st_size = n,
		.st_mtim = {n, 5},
		.st_ctim = {n, 6},
	};
}

static struct digest digest_for(unsigned n)
{
	struct digest d;

	digest_of(&n, sizeof(n), &d);
	return d;
}

static struct hash_cache *open_cache(void)
{
	struct hash_cache *h;

	cr_assert_eq(hash_cache_open(path, &h), 0);
	return h;
}

static int save(struct hash_cache *h)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	return hash_cache_changes(h, &b) ? replace_file(path, b.data, b.len) : 0;
}

static void put(struct hash_cache *h, unsigned n)
{
	struct stat st = stat_of(n);
	struct digest d = digest_for(n);

	hash_cache_put(h, &st, &d, true);
}

static bool has(struct hash_cache *h, unsigned n)
{
	struct stat st = stat_of(n);
	struct digest d;
	struct digest want = digest_for(n);

	if (!hash_cache_get(h, &st, &d))
		return false;
	cr_assert(digest_eq(&d, &want), "a wrong digest for %u", n);
	return true;
}

Test(hash_cache, each_part_of_the_stat_counts)
{
	struct hash_cache *h = open_cache();
	struct digest d;
	struct stat st;

	put(h, 1);
	cr_assert(has(h, 1));
	cr_assert_not(has(h, 2));
#define DIFFERS(field)                                                                             \
	do {                                                                                       \
		st = stat_of(1);                                                                   \
		st.field++;                                                                        \
		cr_assert_not(hash_cache_get(h, &st, &d), #field);                                 \
	} while (0)
	DIFFERS(st_dev);
	DIFFERS(st_ino);
	DIFFERS(st_size);
	DIFFERS(st_mtim.tv_sec);
	DIFFERS(st_mtim.tv_nsec);
	DIFFERS(st_ctim.tv_sec);
	DIFFERS(st_ctim.tv_nsec);
	/* A file has one state: the new one takes the old one's place. */
	st = stat_of(1);
	st.st_size = 99;
	d = digest_for(99);
	hash_cache_put(h, &st, &d, true);
	cr_assert_not(has(h, 1));
	cr_assert_eq(hash_cache_count(h), 1);
	hash_cache_free(h);
}

/* What a stat can't tell from others is known while it is mounted. */
Test(hash_cache, what_passes)
{
	struct hash_cache *h = open_cache();
	struct stat st = stat_of(1);
	struct digest d = digest_for(1);

	put(h, 2);
	cr_assert_eq(save(h), 0);
	hash_cache_put(h, &st, &d, false);
	cr_assert(has(h, 1));
	hash_cache_mounts_changed(h);
	cr_assert_not(has(h, 1));
	cr_assert(has(h, 2));
	hash_cache_put(h, &st, &d, false);
	put(h, 3);
	cr_assert_eq(save(h), 0);
	cr_assert(has(h, 1));
	hash_cache_free(h);

	h = open_cache();
	cr_assert_eq(hash_cache_count(h), 2);
	cr_assert_not(has(h, 1));
	cr_assert(has(h, 2));
	cr_assert(has(h, 3));
	hash_cache_free(h);
}

Test(hash_cache, survives_and_drops)
{
	struct hash_cache *h = open_cache();
	struct stat st;
	struct stat file;

	for (unsigned i = 0; i < 5000; i++)
		put(h, i);
	for (unsigned i = 0; i < 5000; i += 3) {
		st = stat_of(i);
		hash_cache_drop(h, &st);
	}
	for (unsigned i = 0; i < 5000; i++)
		cr_assert_eq(has(h, i), i % 3 != 0, "%u", i);
	cr_assert_eq(save(h), 0);
	hash_cache_free(h);
	cr_assert_eq(stat(path, &file), 0);
	cr_assert_eq(file.st_mode & 07777, 0600);
	h = open_cache();
	for (unsigned i = 0; i < 5000; i++)
		cr_assert_eq(has(h, i), i % 3 != 0, "%u", i);
	hash_cache_free(h);
}

static void damage(off_t at, const void *p, size_t n)
{
	int fd = open(path, O_WRONLY);

	cr_assert_eq(pwrite(fd, p, n, at), (ssize_t)n);
	close(fd);
}

Test(hash_cache, damage_costs_what_it_hit)
{
	struct hash_cache *h = open_cache();
	unsigned kept = 0;
	struct stat st;

	log_set_file(open("/dev/null", O_RDWR | O_CLOEXEC), 4096);
	for (unsigned i = 0; i < 100; i++)
		put(h, i);
	cr_assert_eq(save(h), 0);
	hash_cache_free(h);
	damage(24 + 88 * 10 + 60, "XXXX", 4);
	h = open_cache();
	for (unsigned i = 0; i < 100; i++)
		kept += has(h, i);
	cr_assert_eq(kept, 99);
	hash_cache_free(h);
	/* Cut in the middle of a record. */
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(truncate(path, 24 + 88 * 50 + 30), 0);
	h = open_cache();
	cr_assert_eq(hash_cache_count(h), 49);
	hash_cache_free(h);
	/* Another format, or nothing of ours. */
	damage(14, "2", 1);
	h = open_cache();
	cr_assert_eq(hash_cache_count(h), 0);
	hash_cache_free(h);
	cr_assert_eq(truncate(path, 3), 0);
	h = open_cache();
	cr_assert_eq(hash_cache_count(h), 0);
	put(h, 1);
	cr_assert_eq(save(h), 0);
	hash_cache_free(h);
	h = open_cache();
	cr_assert(has(h, 1));
	hash_cache_free(h);
}

Test(hash_cache, foreign_files_are_ignored)
{
	struct hash_cache *h = open_cache();
	char link[80];

	log_set_file(open("/dev/null", O_RDWR | O_CLOEXEC), 4096);
	put(h, 1);
	cr_assert_eq(save(h), 0);
	hash_cache_free(h);
	cr_assert_eq(chmod(path, 0622), 0);
	h = open_cache();
	cr_assert_eq(hash_cache_count(h), 0, "others may write it");
	hash_cache_free(h);
	cr_assert_eq(chmod(path, 0600), 0);
	snprintf(link, sizeof(link), "%s.link", path);
	cr_assert_eq(symlink(path, link), 0);
	cr_assert_eq(hash_cache_open(link, &h), 0);
	cr_assert_eq(hash_cache_count(h), 0, "a symlink");
	hash_cache_free(h);
	cr_assert_eq(unlink(link), 0);
	if (geteuid() == 0) {
		cr_assert_eq(chown(path, 65534, 65534), 0);
		h = open_cache();
		cr_assert_eq(hash_cache_count(h), 0, "another user's");
		hash_cache_free(h);
	}
}

Test(hash_cache, bounded_and_the_least_recently_used_go, .timeout = 1000)
{
	enum { MAX = 256 * 1024, MORE = 1000 };
	struct hash_cache *h = open_cache();
	unsigned old = 0;

	for (unsigned i = 0; i < MAX; i++)
		put(h, i);
	cr_assert_eq(save(h), 0);
	hash_cache_free(h);
	h = open_cache();
	cr_assert_eq(hash_cache_count(h), MAX);
	/* This session uses some of the old and adds new ones. */
	for (unsigned i = 0; i < 500; i++)
		cr_assert(has(h, i));
	for (unsigned i = 0; i < MORE; i++)
		put(h, MAX + i);
	cr_assert_eq(save(h), 0);
	hash_cache_free(h);
	h = open_cache();
	cr_assert_eq(hash_cache_count(h), MAX);
	for (unsigned i = 0; i < 500; i++)
		cr_assert(has(h, i), "in use, but dropped");
	for (unsigned i = 0; i < MORE; i++)
		cr_assert(has(h, MAX + i), "new, but dropped");
	for (unsigned i = 500; i < MAX; i++)
		old += has(h, i);
	cr_assert_eq(old, MAX - 500 - MORE);
	hash_cache_free(h);
}
