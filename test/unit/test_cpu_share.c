/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "concc/cpu_share.h"

#define BURNT_US 20000

static void burn(clockid_t clock)
{
	struct timespec t;

	do
		(void)clock_gettime(clock, &t);
	while (t.tv_sec == 0 && t.tv_nsec < BURNT_US * 1000);
}

static void tell_and_wait(int fd)
{
	(void)!write(fd, "x", 1);
	for (;;)
		(void)pause();
}

static void *burning_thread(void *fd)
{
	burn(CLOCK_THREAD_CPUTIME_ID);
	tell_and_wait(*(int *)fd);
	return NULL;
}

static void be_child(int fd, void (*body)(int fd))
{
	if (fork() == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		body(fd);
	}
}

static void burning(int fd)
{
	burn(CLOCK_PROCESS_CPUTIME_ID);
	tell_and_wait(fd);
}

static void with_thread(int fd)
{
	pthread_t thread;

	(void)pthread_create(&thread, NULL, burning_thread, &fd);
	for (;;)
		(void)pause();
}

static void with_child(int fd)
{
	be_child(fd, burning);
	for (;;)
		(void)pause();
}

static void with_grandchild(int fd)
{
	be_child(fd, with_child);
	for (;;)
		(void)pause();
}

static void idle(int fd)
{
	tell_and_wait(fd);
}

/* Of one that has come to its end of work. */
static struct cpu_share share_of(void (*body)(int fd))
{
	struct cpu_share ret = {0};
	int fds[2];
	pid_t pid;
	char c;

	cr_assert_eq(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		body(fds[1]);
	}
	cr_assert_eq(read(fds[0], &c, 1), 1);
	cr_expect(cpu_share_of(pid, &ret));
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	return ret;
}

Test(cpu_share, is_of_all_that_a_job_is_made_of)
{
	cr_expect_geq(share_of(burning).ran_us, BURNT_US);
	cr_expect_geq(share_of(with_thread).ran_us, BURNT_US);
	cr_expect_geq(share_of(with_child).ran_us, BURNT_US);
	cr_expect_geq(share_of(with_grandchild).ran_us, BURNT_US);
	cr_expect_lt(share_of(idle).ran_us, BURNT_US);
}

static void wait_for(int fd)
{
	char c;

	cr_assert_eq(read(fd, &c, 1), 1);
}

/* Burns, tells, and burns again when it is told to. */
static void burn_twice(int to, int from)
{
	struct timespec t;

	burn(CLOCK_PROCESS_CPUTIME_ID);
	(void)!write(to, "x", 1);
	wait_for(from);
	do
		(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	while (t.tv_sec == 0 && t.tv_nsec < 3 * BURNT_US * 1000);
	tell_and_wait(to);
}

Test(cpu_share, since_the_last_look)
{
	struct cpu_look look = {0};
	struct cpu_share s;
	int to_us[2], to_it[2];
	pid_t pid;

	cr_assert_eq(pipe(to_us), 0);
	cr_assert_eq(pipe(to_it), 0);
	pid = fork();
	if (pid == 0)
		burn_twice(to_us[1], to_it[0]);
	wait_for(to_us[0]);
	cr_expect(cpu_share_since(&look, pid, &s));
	cr_expect_geq(s.ran_us, BURNT_US, "since it began");
	cr_expect_lt(s.ran_us, 2 * BURNT_US);
	cr_assert_eq(write(to_it[1], "x", 1), 1);
	wait_for(to_us[0]);
	cr_expect(cpu_share_since(&look, pid, &s));
	cr_expect_geq(s.ran_us, BURNT_US);
	cr_expect_lt(s.ran_us, 3 * BURNT_US, "without what was before");
	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_expect_not(cpu_share_since(&look, pid, &s));
	cpu_look_release(&look);
}

Test(cpu_share, of_nobody_is_not_known)
{
	struct cpu_share s;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_expect_not(cpu_share_of(pid, &s));
	cr_expect_not(cpu_share_of(0, &s));
	cr_expect_not(cpu_share_of(-1, &s));
}

static uint32_t others(uint32_t cores, uint32_t jobs, uint64_t ran_us, uint64_t waited_us,
		       uint64_t elapsed_us)
{
	const struct cpu_share got = {ran_us, waited_us};

	return cpu_share_others(cores, jobs, &got, elapsed_us);
}

/* Ours ran for so long of a second on four cores. */
Test(cpu_share, others_are_what_ours_did_not_get)
{
	const uint64_t s = 1000000;

	cr_expect_eq(others(4, 1, s, 0, s), 0);
	cr_expect_eq(others(4, 4, 4 * s, s / 4, s), 0, "hardly waits");
	cr_expect_eq(others(4, 1, s / 2, s / 2, s), 7, "eight on four");
	cr_expect_eq(others(4, 2, s, s, s), 6);
	cr_expect_eq(others(4, 8, 4 * s, 4 * s, s), 0, "they are eight themselves");
	cr_expect_eq(others(4, 8, 2 * s, 2 * s, s), 0, "some have ended, and are not seen");
	cr_expect_eq(others(4, 8, 2 * s, 6 * s, s), 8);
	cr_expect_eq(others(4, 0, 0, 0, 0), 0);
	cr_expect_eq(others(4, 1, 0, s, s), CPU_SHARE_OTHERS_MAX, "ours do not run at all");
	cr_expect_eq(others(0, 1, 1, s, s), 0);
	cr_expect_leq(others(UINT32_MAX, 0, 1, UINT64_MAX, 1), CPU_SHARE_OTHERS_MAX);
}

Test(cpu_share, less_what_is_stolen)
{
	struct cpu_stolen before = cpu_stolen_parse(
		"cpu  10 20 30 4000 50 60 70 80 9 9\ncpu0 1 2\n");
	struct cpu_stolen now = before;
	struct cpu_share got = {.ran_us = 1000, .waited_us = 10}, s;

	cr_expect_eq(before.all, 10 + 20 + 30 + 60 + 70 + 80);
	cr_expect_eq(before.stolen, 80);
	s = cpu_share_less_stolen(&got, &before, &now);
	cr_expect_eq(s.ran_us, 1000);
	now.all += 400;
	now.stolen += 300;
	s = cpu_share_less_stolen(&got, &before, &now);
	cr_expect_eq(s.ran_us, 250);
	cr_expect_eq(s.waited_us, 760);
	s = cpu_share_less_stolen(&got, &now, &before);
	cr_expect_eq(s.ran_us, 1000, "what goes back is no time");
	cr_expect_eq(cpu_stolen_parse("intr 1 2 3").all, 0);
	cr_expect_eq(cpu_stolen_parse("").all, 0);
}
