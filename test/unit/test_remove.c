/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/io.h"

static char dir[] = "/tmp/concc-test-remove.XXXXXX";

static void touch(int fd, const char *name)
{
	int file = openat(fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	cr_assert_geq(file, 0);
	(void)close(file);
}

static int make_tree(void)
{
	int fd;

	cr_assert(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(mkdirat(fd, "sub", 0700), 0);
	touch(fd, "a");
	touch(fd, "sub/b");
	return fd;
}

static void remove_files(void *data)
{
	(void)unlinkat(*(int *)data, "a", 0);
	(void)unlinkat(*(int *)data, "sub/b", 0);
}

static void remove_all(void *data)
{
	remove_files(data);
	(void)unlinkat(*(int *)data, "sub", AT_REMOVEDIR);
}

static void expect_emptied(void (*other)(void *data))
{
	int fd = make_tree();

	cr_expect_eq(path_empty_dir(fd, other, &fd), 0);
	cr_expect_eq(path_remove_tree(AT_FDCWD, dir), 0);
	cr_expect_eq(access(dir, F_OK), -1);
	(void)close(fd);
}

Test(remove, alone)
{
	expect_emptied(NULL);
}

/* Somebody else who removes the same has done what was to be done: a server that ends, its socket.
 */
Test(remove, files_beside_another)
{
	expect_emptied(remove_files);
}

Test(remove, all_beside_another)
{
	expect_emptied(remove_all);
}
