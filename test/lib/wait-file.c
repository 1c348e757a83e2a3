/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * wait-file SECONDS DIR PREFIX [CMD...]: waits until a file whose name begins
 * with PREFIX is in DIR, told by the kernel (inotify), then runs CMD, at once.
 * The exit status is 1 when none came in time.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool is_there(const char *dir, const char *prefix)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d)))
		found = strncmp(e->d_name, prefix, strlen(prefix)) == 0;
	if (d)
		closedir(d);
	return found;
}

int main(int argc, char **argv)
{
	char events[4096];
	long deadline_ms;
	int fd, n = 1;

	if (argc < 4) {
		fprintf(stderr, "usage: wait-file SECONDS DIR PREFIX [CMD...]\n");
		return 125;
	}
	deadline_ms = now_ms() + atol(argv[1]) * 1000;
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd < 0 || inotify_add_watch(fd, argv[2], IN_CREATE | IN_MOVED_TO) < 0) {
		perror(argv[2]);
		return 125;
	}
	while (!is_there(argv[2], argv[3])) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		long left = deadline_ms - now_ms();

		n = poll(&p, 1, left > 0 ? (int)left : 0);
		if (n == 0 || (n < 0 && errno != EINTR))
			return 1;
		while (read(fd, events, sizeof(events)) > 0)
			;
	}
	if (argc == 4)
		return 0;
	execvp(argv[4], argv + 4);
	perror(argv[4]);
	return 125;
}
