/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_LIB_UNIT_H
#define CONCC_TEST_LIB_UNIT_H

/* What several unit tests do. */
#include <criterion/criterion.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of this process, and one for the look. */
static inline int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static inline void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

/* In a process of its own, as editors and compilers are. */
#define IN_CHILD(code)                                                                             \
	do {                                                                                       \
		pid_t pid_ = fork();                                                               \
		int status_;                                                                       \
		if (pid_ == 0) {                                                                   \
			code;                                                                      \
			_exit(0);                                                                  \
		}                                                                                  \
		cr_assert_eq(waitpid(pid_, &status_, 0), pid_);                                    \
		cr_assert_eq(status_, 0);                                                          \
	} while (0)

#endif
