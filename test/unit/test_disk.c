/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "project/disk.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

static char dir[64];
static char *path;
static struct server server;

static void setup(void)
{
	log_init("test", LOG_LEVEL_ERR);
	strcpy(dir, "/tmp/concc-test-disk.XXXXXX");
	cr_assert(mkdtemp(dir));
	server.cache = dir;
	path = record_path(dir);
	cr_assert_eq(loop_new(&server.loop), 0);
	disk_open(&server);
}

static void teardown(void)
{
	_cleanup_free_ char *cmd = xasprintf("rm -rf %s", dir);

	loop_free(server.loop);
	free(path);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(disk, .init = setup, .fini = teardown);

static void keep(uint32_t pid)
{
	struct record r;

	record_init(&r);
	r.pid = pid;
	disk_record(&server, &r);
	record_release(&r);
}

struct seen {
	uint64_t n, last;
	bool in_order;
};

static bool see(void *data, struct record *r)
{
	struct seen *s = data;

	s->in_order &= r->pid > s->last;
	s->last = r->pid;
	s->n++;
	return true;
}

static uint64_t read_all(void)
{
	struct seen s = {.in_order = true};

	cr_assert_eq(record_read(path, see, &s), 0);
	cr_assert(s.in_order);
	return s.n;
}

static struct disk_counts counts(void)
{
	struct disk_counts k;

	disk_counts(&server, &k);
	return k;
}

Test(disk, whole_at_the_end)
{
	for (uint32_t i = 1; i <= 5000; i++)
		keep(i);
	cr_assert_eq(counts().lost, 0);
	cr_assert_gt(counts().waiting, 0);
	cr_assert(disk_close(&server));
	cr_assert_eq(read_all(), 5000);
}

/* What hangs is the lock by which a full file is renamed. */
Test(disk, one_that_hangs_costs_what_does_not_fit)
{
	enum { N = 60000 };
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct disk_counts k;

	cr_assert_eq(ftruncate(fd, RECORD_FILE_MAX), 0);
	cr_assert_eq(flock(fd, LOCK_EX), 0);
	for (uint32_t i = 1; i <= N; i++)
		keep(i);
	k = counts();
	cr_assert_gt(k.lost, 0);
	cr_assert_gt(k.waiting, N / 10);
	cr_assert_eq(k.waiting + k.lost, N);
	cr_assert_lt(k.err, 0);
	cr_assert_eq(close(fd), 0);
	cr_assert(disk_close(&server));
	cr_assert_eq(read_all(), k.waiting);
}

Test(disk, files_written_anew)
{
	_cleanup_buf_ struct buf b = BUF_INIT, got = BUF_INIT;
	_cleanup_free_ char *file = xasprintf("%s/set", dir);

	for (int i = 0; i < 2; i++) {
		buf_putf(&b, "bytes %d", i);
		disk_replace(&server, file, &b);
		cr_assert_eq(b.len, 0);
	}
	cr_assert(disk_is_replacing(&server));
	cr_assert(disk_close(&server));
	cr_assert_eq(read_file_at(AT_FDCWD, file, 100, &got), 0);
	cr_assert_str_eq(buf_cstr(&got), "bytes 1");
}

Test(disk, not_there)
{
	cr_assert(disk_close(&server));
	keep(1);
	cr_assert_eq(counts().waiting, 0);
	cr_assert_not(disk_is_replacing(&server));
	cr_assert(disk_close(&server));
}
