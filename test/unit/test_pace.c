/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a worker finds out of its processors: whether they are as fast, and as much its own, as they
 * were. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../src/worker/crowd.h"
#include "../../src/worker/pace.h"
#include "concc/cores.h"
#include "concc/offload.h"

static void dispatch(struct offload *threads)
{
	struct pollfd p = {.fd = offload_event_fd(threads), .events = POLLIN};

	cr_assert_eq(poll(&p, 1, -1), 1);
	offload_dispatch(threads);
}

static void count(void *n)
{
	++*(unsigned *)n;
}

/* Of processors that had that speed when the worker came up. */
static uint32_t look_again(uint32_t speed, bool has_jobs)
{
	struct offload *threads = offload_new(1, 0);
	unsigned n_changed = 0;
	struct pace *p = pace_new(speed, threads, count, &n_changed);
	uint32_t ret;

	cr_expect_eq(pace_look(p, has_jobs), 1000, "nothing was measured yet");
	if (has_jobs)
		dispatch(threads);
	ret = pace_look(p, false);
	cr_expect_eq(n_changed, ret != 1000);
	cr_expect(offload_free(threads, 10));
	pace_free(p);
	return ret;
}

Test(pace, as_it_was)
{
	cr_expect_eq(look_again(core_speed(), true), 1000);
	/* Who shares a core is no slower than that. */
	cr_expect_eq(look_again(core_speed() * 3 / 2, true), 1000);
}

Test(pace, of_a_tenth)
{
	uint32_t speed = core_speed() * 10;

	cr_expect_leq(look_again(speed, true), 250);
	cr_expect_eq(look_again(speed, false), 1000, "without jobs it may just be asleep");
}

/* ---- what a virtual machine's host keeps ---- */

#define BURNT_MS 400

static void say(int fd, const char *stat)
{
	cr_assert_eq(pwrite(fd, stat, strlen(stat), 0), (ssize_t)strlen(stat));
}

/* A file of ours is /proc/stat; -1: that can't be done here. */
static int stat_of_ours(void)
{
	char path[] = "/tmp/test_pace.XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(path, "/proc/stat", NULL, MS_BIND, NULL) < 0) {
		(void)close(fd);
		fd = -1;
	}
	(void)unlink(path);
	return fd;
}

static void burn_and_stay(int fd)
{
	struct timespec t;

	do
		(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	while (t.tv_sec == 0 && t.tv_nsec < BURNT_MS * 1000000L);
	(void)!write(fd, "x", 1);
	for (;;)
		(void)pause();
}

Test(crowd, sees_what_is_stolen)
{
	int stat = stat_of_ours(), fds[2];
	struct crowd *c;
	pid_t pid;
	char x;

	if (stat < 0)
		cr_skip_test("it takes root to have a /proc/stat of one's own");
	say(stat, "cpu  1000 0 1000 5000 0 0 0 00100 0 0\n");
	c = crowd_new(1);
	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		burn_and_stay(fds[1]);
	}
	cr_assert_eq(read(fds[0], &x, 1), 1);
	/* Of 1000 ticks 999; no other load of a machine looks like that. */
	say(stat, "cpu  1001 0 1000 5000 0 0 0 01099 0 0\n");
	cr_expect_geq(crowd_look(c, pid, 1), 900);
	crowd_free(c);
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	(void)close(stat);
}
