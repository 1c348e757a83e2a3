/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * latency [-j PARALLEL] [-w WARMUP] N CMD...: runs CMD N times and prints, as
 * JSON, how long each took from before the spawn to after the wait, in
 * microseconds, and what all of them, WARMUP included, used of the processor.
 * Small, so that what is measured is CMD and not this.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PARALLEL_MAX 4096

struct child {
	pid_t pid;
	int64_t from_ns;
};

static struct child children[PARALLEL_MAX];
static posix_spawn_file_actions_t quiet;

static void fail(const char *what, int err)
{
	(void)fprintf(stderr, "latency: %s: %s\n", what, strerror(err));
	exit(125);
}

static int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void start(struct child *c, char **cmd)
{
	extern char **environ;
	int err;

	c->from_ns = now_ns();
	err = posix_spawnp(&c->pid, cmd[0], &quiet, NULL, cmd, environ);
	if (err)
		fail(cmd[0], err);
}

/* Waits for any child; returns how long it ran, or -1 when it failed. */
static int64_t finish(struct child **ret_slot)
{
	int status;
	pid_t pid = wait(&status);

	if (pid < 0)
		fail("wait", errno);
	for (struct child *c = children;; c++) {
		if (c->pid == pid) {
			*ret_slot = c;
			return status == 0 ? now_ns() - c->from_ns : -1;
		}
	}
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static long run(char **cmd, long n, long parallel, int64_t *times)
{
	long started = 0, done = 0, failed = 0;
	struct child *c;

	while (started < n && started < parallel)
		start(&children[started++], cmd);
	for (; done < n; done++) {
		int64_t t = finish(&c);

		if (t < 0)
			failed++;
		times[done] = t < 0 ? 0 : t;
		if (started < n) {
			start(c, cmd);
			started++;
		}
	}
	return failed;
}

static int64_t us_of(struct timeval t)
{
	return t.tv_sec * 1000000LL + t.tv_usec;
}

static double us(const int64_t *sorted, long n, double share)
{
	return (double)sorted[(long)((double)(n - 1) * share + 0.5)] / 1000;
}

static long number(const char *s, long max)
{
	char *end;
	long n = strtol(s, &end, 10);

	if (*end || n < 1 || n > max)
		fail(s, EINVAL);
	return n;
}

int main(int argc, char **argv)
{
	long parallel = 1, warmup = 0, n, failed;
	int64_t *times, from;
	struct rusage used;
	int opt;

	while ((opt = getopt(argc, argv, "+j:w:")) != -1) {
		if (opt == 'j')
			parallel = number(optarg, PARALLEL_MAX);
		else if (opt == 'w')
			warmup = number(optarg, 1000000);
		else
			return 125;
	}
	if (argc - optind < 2) {
		(void)fprintf(stderr, "usage: latency [-j PARALLEL] [-w WARMUP] N CMD...\n");
		return 125;
	}
	n = number(argv[optind], 1000000);
	times = calloc((size_t)(n > warmup ? n : warmup), sizeof(*times));
	if (!times)
		fail("calloc", errno);
	(void)posix_spawn_file_actions_init(&quiet);
	(void)posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	if (warmup)
		(void)run(argv + optind + 1, warmup, parallel, times);
	from = now_ns();
	failed = run(argv + optind + 1, n, parallel, times);
	from = now_ns() - from;
	qsort(times, (size_t)n, sizeof(*times), compare);
	(void)getrusage(RUSAGE_CHILDREN, &used);
	(void)printf("{\"n\": %ld, \"failed\": %ld, \"wall_us\": %.0f, \"min_us\": %.0f, "
		     "\"p50_us\": %.0f, \"p90_us\": %.0f, \"p99_us\": %.0f, \"max_us\": %.0f, "
		     "\"cpu_us\": %lld, \"switches\": %ld}\n",
		     n, failed, (double)from / 1000, us(times, n, 0), us(times, n, 0.5),
		     us(times, n, 0.9), us(times, n, 0.99), us(times, n, 1),
		     (long long)(us_of(used.ru_utime) + us_of(used.ru_stime)),
		     used.ru_nvcsw + used.ru_nivcsw);
	free(times);
	return failed != 0;
}
