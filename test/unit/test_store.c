/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/digest.h"
#include "concc/io.h"
#include "concc/store.h"
#include "concc/str.h"

static char tmp[64];
static char dir[128];

static void setup(void)
{
	strcpy(tmp, "/tmp/concc-store-XXXXXX");
	cr_assert(mkdtemp(tmp));
	snprintf(dir, sizeof(dir), "%s/deep/store", tmp);
}

static void teardown(void)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", tmp);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(store, .init = setup, .fini = teardown, .timeout = 300);

static struct store *open_store(uint64_t max)
{
	struct store *s = NULL;
	struct errmsg msg = {0};

	cr_assert_eq(store_open(dir, max, &s, &msg), 0, "%s", msg.text);
	return s;
}

static struct digest put(struct store *s, const void *p, size_t n)
{
	struct store_writer *w;
	struct digest d;

	cr_assert_eq(store_begin(s, &w), 0);
	cr_assert_eq(store_write(w, p, n), 0);
	cr_assert_eq(store_commit(w, NULL, &d, NULL), 0);
	return d;
}

static struct digest put_text(struct store *s, const char *text)
{
	return put(s, text, strlen(text));
}

static char *object(const struct digest *d)
{
	char hex[DIGEST_HEX];

	digest_hex(d, hex);
	return xasprintf("%s/%.2s/%s", dir, hex, hex + 2);
}

static void check_text(struct store *s, const struct digest *d, const char *text)
{
	_cleanup_close_ int fd = store_get(s, d);
	char buf[256];
	ssize_t n;

	cr_assert_geq(fd, 0, "%s", err_text(fd));
	n = pread(fd, buf, sizeof(buf), 0);
	cr_assert_eq(n, (ssize_t)strlen(text));
	cr_assert_eq(memcmp(buf, text, (size_t)n), 0);
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static size_t count_files(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	size_t n = 0;

	cr_assert(d);
	while ((e = readdir(d)))
		n += e->d_type == DT_REG;
	closedir(d);
	return n;
}

static void check_no_tmp(void)
{
	_cleanup_free_ char *path = xasprintf("%s/tmp", dir);

	cr_assert_eq(count_files(path), 0);
}

Test(store, keeps_what_was_put)
{
	struct store *s = open_store(1 << 20);
	struct digest d, expect;

	d = put_text(s, "hello");
	digest_of("hello", 5, &expect);
	cr_assert(digest_eq(&d, &expect));
	cr_assert(store_has(s, &d));
	check_text(s, &d, "hello");
	check_no_tmp();
	store_close(s);

	s = open_store(1 << 20);
	check_text(s, &d, "hello");
	store_close(s);
}

Test(store, lacks_what_was_not)
{
	struct store *s = open_store(1 << 20);
	struct digest d;

	digest_of("x", 1, &d);
	cr_assert_not(store_has(s, &d));
	cr_assert_eq(store_get(s, &d), -ENOENT);
	store_close(s);
}

Test(store, refuses_other_bytes_than_expected)
{
	struct store *s = open_store(1 << 20);
	struct store_writer *w;
	struct digest want, found;

	digest_of("right", 5, &want);
	digest_of("wrong", 5, &found);
	cr_assert_eq(store_begin(s, &w), 0);
	cr_assert_eq(store_write(w, "wrong", 5), 0);
	cr_assert_eq(store_commit(w, &want, NULL, NULL), CONCC_E_PROTO);
	cr_assert_not(store_has(s, &want));
	cr_assert_not(store_has(s, &found));
	check_no_tmp();
	store_close(s);
}

Test(store, abort_leaves_nothing)
{
	struct store *s = open_store(1 << 20);
	struct store_writer *w;

	cr_assert_eq(store_begin(s, &w), 0);
	cr_assert_eq(store_write(w, "abc", 3), 0);
	store_abort(w);
	store_abort(NULL);
	check_no_tmp();
	store_close(s);
}

static void damage(const struct digest *d, const char *text)
{
	_cleanup_free_ char *path = object(d);
	_cleanup_close_ int fd = -1;

	cr_assert_eq(chmod(path, 0600), 0);
	fd = open(path, O_WRONLY | O_TRUNC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

/* What a power cut leaves: the right name, and not the bytes. */
Test(store, never_serves_damaged_objects)
{
	struct store *s = open_store(1 << 20);
	struct digest cut = put_text(s, "to be cut short");
	struct digest same_size = put_text(s, "to be altered");

	store_close(s);
	damage(&cut, "to be");
	damage(&same_size, "to be altereD");
	s = open_store(1 << 20);
	cr_assert_eq(store_get(s, &cut), -ENOENT);
	cr_assert_eq(store_get(s, &same_size), -ENOENT);
	cr_assert_not(store_has(s, &cut));
	/* And heals by the next transfer. */
	cut = put_text(s, "to be cut short");
	check_text(s, &cut, "to be cut short");
	store_close(s);
}

Test(store, survives_its_folder)
{
	struct store *s = open_store(1 << 20);
	struct digest d = put_text(s, "one");
	struct store_writer *w;
	char cmd[256];
	int fd = -1;

	cr_assert_eq(store_begin(s, &w), 0);
	cr_assert_eq(store_write(w, "two", 3), 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	cr_assert_eq(system(cmd), 0);
	cr_assert_eq(store_get(s, &d), -ENOENT);
	cr_assert_eq(store_trim(s), 0);
	/* A writer from before can't be put in place, but its bytes are there. */
	cr_assert_lt(store_commit(w, NULL, NULL, &fd), 0);
	cr_assert_geq(fd, 0);
	cr_assert_eq(lseek(fd, 0, SEEK_END), 3);
	close(fd);
	d = put_text(s, "one");
	check_text(s, &d, "one");
	store_close(s);
}

Test(store, adds_files)
{
	struct store *s = open_store(64 << 20);
	_cleanup_free_ char *path = xasprintf("%s/file", tmp);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT, 0600);
	struct digest d, wrong;
	char block[5000];

	for (unsigned i = 0; i < 200; i++) {
		memset(block, (int)i, sizeof(block));
		cr_assert_eq(write(fd, block, sizeof(block)), (ssize_t)sizeof(block));
	}
	cr_assert_eq(digest_of_fd(fd, &d, NULL), 0);
	digest_of("x", 1, &wrong);
	cr_assert_eq(store_add_fd(s, fd, &wrong), CONCC_E_PROTO);
	cr_assert_eq(store_add_fd(s, fd, &d), 0);
	cr_assert(store_has(s, &d));
	cr_assert_eq(store_add_fd(s, fd, &d), 0);
	check_no_tmp();
	store_close(s);
}

/* As is told by what was written, not by what is in the file afterwards. */
Test(store, copies_what_may_be_changed)
{
	struct store *s = open_store(1 << 30);
	_cleanup_free_ char *path = xasprintf("%s/file", tmp);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT, 0600);
	struct digest d, wrong, found;

	cr_assert_eq(write(fd, "bytes", 5), 5);
	digest_of("bytes", 5, &d);
	digest_of("bytez", 5, &wrong);
	cr_assert_eq(store_copy_fd(s, fd, 4, NULL, &found), -ESTALE, "it is longer");
	cr_assert_eq(store_copy_fd(s, fd, 6, NULL, &found), -ESTALE, "it is shorter");
	cr_assert_eq(store_copy_fd(s, fd, 5, &wrong, &found), CONCC_E_PROTO);
	cr_assert(!store_has(s, &d) && !store_has(s, &wrong));
	cr_assert_eq(store_copy_fd(s, fd, 5, NULL, &found), 0);
	cr_assert(digest_eq(&found, &d));
	cr_assert_eq(pwrite(fd, "z", 1, 4), 1);
	check_text(s, &d, "bytes");
	cr_assert_eq(store_copy_fd(s, fd, 5, &d, &found), CONCC_E_PROTO, "it was changed");
	check_no_tmp();
	store_close(s);
}

static void set_used(const struct digest *d, time_t when)
{
	_cleanup_free_ char *path = object(d);
	struct timespec ts[2] = {{.tv_sec = when}, {.tv_sec = when}};

	cr_assert_eq(utimensat(AT_FDCWD, path, ts, 0), 0);
}

Test(store, trims_the_least_recently_used)
{
	struct store *s = open_store(100 * 4096);
	struct digest d[20];
	char block[10 * 4096];

	for (unsigned i = 0; i < 20; i++) {
		memset(block, (int)i, sizeof(block));
		d[i] = put(s, block, sizeof(block));
		set_used(&d[i], 1000 + i);
	}
	store_close(s);
	s = open_store(100 * 4096);
	/* The oldest becomes the newest by being used. */
	(void)close(store_get(s, &d[0]));
	cr_assert_eq(store_trim(s), 0);
	cr_assert(store_has(s, &d[0]));
	for (unsigned i = 1; i <= 11; i++)
		cr_assert_not(store_has(s, &d[i]), "%u", i);
	for (unsigned i = 12; i < 20; i++)
		cr_assert(store_has(s, &d[i]), "%u", i);
	/* Under the bound nothing goes. */
	cr_assert_eq(store_trim(s), 0);
	cr_assert(store_has(s, &d[12]));
	store_close(s);
}

Test(store, trims_one_at_a_time)
{
	struct store *s = open_store(1);
	struct digest d = put_text(s, "something");
	_cleanup_free_ char *path = xasprintf("%s/.trim", dir);
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	cr_assert_eq(flock(fd, LOCK_EX), 0);
	cr_assert_eq(store_trim(s), 0);
	cr_assert(store_has(s, &d), "another process was trimming");
	close(fd);
	cr_assert_eq(store_trim(s), 0);
	cr_assert_not(store_has(s, &d));
	store_close(s);
}

#define MB (1u << 20)

static struct digest put_mb(struct store *s, int i)
{
	_cleanup_free_ uint8_t *p = xmalloc(MB);

	memset(p, i, MB);
	return put(s, p, MB);
}

/* While it is used, and not only between: it says when that is due. */
Test(store, says_when_it_has_grown)
{
	struct store *s = open_store(40 * MB);
	uint64_t bytes, n, most = 0;

	cr_expect(store_wants_trim(s));
	cr_assert_eq(store_trim(s), 0);
	cr_expect_not(store_wants_trim(s));
	for (int i = 0; i < 200; i++) {
		put_mb(s, i);
		if (store_wants_trim(s))
			cr_assert_eq(store_trim(s), 0);
		store_measure(dir, &bytes, &n);
		most = bytes > most ? bytes : most;
	}
	cr_expect_leq(most, 42 * MB, "%llu bytes", (unsigned long long)most);
	cr_expect_geq(bytes, 30 * MB);
	store_close(s);
}

static void small_disk(const char *size)
{
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	cr_assert_eq(mount("test", tmp, "tmpfs", 0, size), 0);
}

/* A full disk takes the least recently used; and when there is nothing left of that, it is said. */
Test(store, on_a_full_disk)
{
	_cleanup_free_ char *other = NULL;
	_cleanup_free_ uint8_t *p = xcalloc(1, MB);
	struct store_writer *w;
	struct digest d;
	struct store *s;
	int fd;

	small_disk("size=40m");
	s = open_store(1u << 30);
	for (int i = 0; i < 100; i++) {
		d = put_mb(s, i);
		cr_expect(store_has(s, &d));
		cr_expect_eq(store_state(s), 0);
	}
	/* Somebody else fills it, and nothing of ours is left that could go. */
	for (int i = 0; i < 256; i++) {
		_cleanup_free_ char *cmd = xasprintf("rm -rf %s/%02x", dir, i);

		cr_assert_eq(system(cmd), 0);
	}
	other = xasprintf("%s/other", tmp);
	fd = open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, p, MB) > 0)
		;
	cr_assert_eq(store_begin(s, &w), 0);
	cr_expect_eq(store_write(w, p, MB), -ENOSPC);
	store_abort(w);
	cr_expect_eq(store_state(s), -ENOSPC);
	cr_expect_eq(store_probe(s), -ENOSPC);
	close(fd);
	unlink(other);
	cr_expect_eq(store_probe(s), 0);
	cr_expect_eq(store_state(s), 0);
	d = put_mb(s, 200);
	cr_expect(store_has(s, &d));
	store_close(s);
	cr_assert_eq(umount2(tmp, MNT_DETACH), 0);
}

Test(store, removes_old_temporary_files)
{
	struct store *s = open_store(1 << 20);
	_cleanup_free_ char *old = xasprintf("%s/tmp/old", dir);
	_cleanup_free_ char *young = xasprintf("%s/tmp/young", dir);
	struct timespec ts[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

	close(open(old, O_CREAT | O_WRONLY, 0600));
	close(open(young, O_CREAT | O_WRONLY, 0600));
	cr_assert_eq(utimensat(AT_FDCWD, old, ts, 0), 0);
	cr_assert_eq(store_trim(s), 0);
	cr_assert_eq(access(old, F_OK), -1);
	cr_assert_eq(access(young, F_OK), 0);
	store_close(s);
}

/* Several agents of one user write and trim the same names at once. */
Test(store, is_shared_between_processes)
{
	pid_t pids[4];

	for (unsigned p = 0; p < 4; p++) {
		pids[p] = fork();
		cr_assert_geq(pids[p], 0);
		if (pids[p] == 0) {
			struct store *s = NULL;
			int bad = store_open(dir, 20 * 4096, &s, NULL) != 0;

			for (unsigned i = 0; i < 200 && !bad; i++) {
				char text[32];
				struct store_writer *w;
				struct digest d;
				int fd;

				snprintf(text, sizeof(text), "object %u", i % 50);
				bad |= store_begin(s, &w) != 0;
				bad |= !bad && store_write(w, text, strlen(text)) != 0;
				bad |= !bad && store_commit(w, NULL, &d, NULL) != 0;
				fd = bad ? -1 : store_get(s, &d);
				bad |= fd < 0 && fd != -ENOENT; /* trimmed by another */
				if (fd >= 0)
					close(fd);
				if (i % 10 == 0)
					(void)store_trim(s);
			}
			_exit(bad);
		}
	}
	for (unsigned p = 0; p < 4; p++) {
		int status;

		cr_assert_eq(waitpid(pids[p], &status, 0), pids[p]);
		cr_assert_eq(status, 0);
	}
	check_no_tmp();
}

Test(store, says_where_it_can_not_be)
{
	struct store *s = NULL;
	struct errmsg msg = {0};
	_cleanup_free_ char *file = xasprintf("%s/file", tmp);
	_cleanup_free_ char *below = xasprintf("%s/file/store", tmp);

	close(open(file, O_CREAT | O_WRONLY, 0600));
	cr_assert_lt(store_open(below, 1, &s, &msg), 0);
	cr_assert(strstr(msg.text, below), "%s", msg.text);
	cr_assert(strstr(msg.text, "CONCC_CACHE_DIR"), "%s", msg.text);
}
