/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/io.h"

#define TEMPLATE "/tmp/concc-test-remove.XXXXXX"

static char dir[] = TEMPLATE;

static void touch(int fd, const char *name)
{
	int file = openat(fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	cr_assert_geq(file, 0);
	(void)close(file);
}

#define FILES  300
#define ROUNDS 20

static int make_tree(void)
{
	char name[32];
	int fd;

	cr_assert(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(mkdirat(fd, "sub", 0700), 0);
	for (int i = 0; i < FILES; i++) {
		(void)snprintf(name, sizeof(name), "%s%d", i % 2 ? "sub/" : "", i);
		touch(fd, name);
	}
	return fd;
}

static void remove_tree(void)
{
	cr_expect_eq(path_remove_tree(AT_FDCWD, dir), 0);
	cr_expect_eq(access(dir, F_OK), -1);
	(void)strcpy(dir, TEMPLATE);
}

Test(remove, alone)
{
	int fd = make_tree();

	cr_expect_eq(path_empty_dir(fd), 0);
	cr_expect_eq(faccessat(fd, "sub", F_OK, 0), -1);
	(void)close(fd);
	remove_tree();
}

/* Somebody else who removes the same has done what was to be done: a server that ends, its socket.
 */
Test(remove, beside_another)
{
	for (int i = 0; i < ROUNDS; i++) {
		int fd = make_tree(), status = -1;
		pid_t pid = fork();

		cr_assert_geq(pid, 0);
		if (pid == 0)
			_exit(path_empty_dir(fd) == 0 ? 0 : 1);
		cr_expect_eq(path_empty_dir(fd), 0);
		cr_expect_eq(waitpid(pid, &status, 0), pid);
		cr_expect_eq(status, 0);
		(void)close(fd);
		remove_tree();
	}
}
