/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * wait-gone SECONDS PID...: waits until none of the processes runs any more,
 * told by the kernel (pidfd).  Those that still do at the end of the time are
 * printed, and the exit status is 1.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* 0 when it ended within the time left, or was none already. */
static int wait_one(pid_t pid, long deadline_ms)
{
	struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	long left;
	int n;

	if (p.fd < 0)
		return errno == ESRCH ? 0 : -1;
	do {
		left = deadline_ms - now_ms();
		n = poll(&p, 1, left > 0 ? (int)left : 0);
	} while (n < 0 && errno == EINTR);
	close(p.fd);
	return n == 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
	long deadline_ms;
	int rc = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: wait-gone SECONDS PID...\n");
		return 125;
	}
	deadline_ms = now_ms() + atol(argv[1]) * 1000;
	for (int i = 2; i < argc; i++) {
		if (wait_one((pid_t)atol(argv[i]), deadline_ms) == 0)
			continue;
		printf("%s\n", argv[i]);
		rc = 1;
	}
	return rc;
}
