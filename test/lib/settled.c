/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * settled DIR: ends when the last change beneath DIR is older than the clock of any file system can
 * tell from now; at once when it is so already.
 */
#include <fcntl.h>
#include <fts.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* What the server takes for the same moment (src/project/unchanged.c), and a tick of the clock by
 * which it knows when a job begins. */
#define SAME_NS (20000000 + 10000000)
#define S_NS	1000000000

static int64_t ns_of(const struct timespec *t)
{
	return (int64_t)t->tv_sec * S_NS + t->tv_nsec;
}

static int64_t newest(char *dir)
{
	char *dirs[] = {dir, NULL};
	FTS *f = fts_open(dirs, FTS_PHYSICAL, NULL);
	int64_t last = 0;
	FTSENT *e;

	while (f && (e = fts_read(f))) {
		if (e->fts_info != FTS_NS && ns_of(&e->fts_statp->st_ctim) > last)
			last = ns_of(&e->fts_statp->st_ctim);
	}
	if (f)
		fts_close(f);
	return last;
}

int main(int argc, char **argv)
{
	int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC);
	int64_t until = argc == 2 ? newest(argv[1]) + SAME_NS + 1 : 0;
	struct itimerspec at = {.it_value = {until / S_NS, until % S_NS}};
	uint64_t n;

	if (!until || fd < 0 || timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL) < 0 ||
	    read(fd, &n, sizeof(n)) != sizeof(n)) {
		fprintf(stderr, "settled: it can't be told\n");
		return 1;
	}
	return 0;
}
