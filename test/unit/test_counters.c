/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/pool.h"
#include "concc/wrapper.h"

static char file[] = "/tmp/test-counters-XXXXXX";

static void setup(void)
{
	int fd = mkstemp(file);

	cr_assert_geq(fd, 0);
	close(fd);
}

static void teardown(void)
{
	unlink(file);
}

TestSuite(counters, .init = setup, .fini = teardown);

static bool may_say(const char *reason)
{
	return counters_may_say_why(file, "said:no-worker", reason, 1000000);
}

Test(counters, each_reason_is_said_once)
{
	cr_expect(may_say("the host is down"));
	cr_expect_not(may_say("the host is down"));
	cr_expect(may_say("the disk is full"), "another reason is said at once");
	cr_expect_not(may_say("the disk is full"));
	cr_expect_not(may_say("the host is down"));
	cr_expect(counters_may_say_why(file, "said:missing", "the host is down", 1000000));
	/* a period that is over makes room, and says none of the others again */
	cr_expect(counters_may_say_why(file, "said:no-worker", "the third", 0));
	cr_expect_not(may_say("the disk is full"));
	cr_expect_not(may_say("the third"));
}

Test(counters, a_reason_for_each_job_is_no_flood)
{
	struct counter e[COUNTERS_MAX];
	char reason[40];
	int said = 0;

	for (int i = 0; i < 1000; i++) {
		snprintf(reason, sizeof(reason), "/data/%d is outside", i);
		said += may_say(reason);
	}
	cr_expect_eq(said, COUNTERS_REASONS);
	cr_expect_eq(counters_read(file, e, COUNTERS_MAX), COUNTERS_REASONS);
}

/* A farm's workers, each of the longest name, and what is said of each. */
Test(counters, of_as_many_workers_as_there_may_be)
{
	static struct counter e[COUNTERS_MAX];
	char name[COUNTERS_NAME_MAX + 1];
	size_t n;

	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < POOL_MEMBERS_MAX; i++) {
			snprintf(name, sizeof(name), "remote:%0*d", POOL_NAME_MAX, i);
			counters_add(file, name, 1);
			snprintf(name, sizeof(name), "said:lost-%0*d", POOL_NAME_MAX, i);
			cr_expect_eq(counters_may_say(file, name, 1000000), round == 0, "%s", name);
		}
	}
	n = counters_read(file, e, COUNTERS_MAX);
	cr_expect_eq(n, 2 * POOL_MEMBERS_MAX);
	for (size_t i = 0; i < n; i++)
		cr_expect(strncmp(e[i].name, "remote:", 7) != 0 || e[i].n == 2, "%s", e[i].name);
}

/* What has no place any more is said, and no more often than one name is. */
Test(counters, a_full_one_still_limits)
{
	char name[40], reason[40];
	int said = 0, why = 0;

	for (int i = 0; i < COUNTERS_MAX; i++) {
		snprintf(name, sizeof(name), "local:%d", i);
		counters_add(file, name, 1);
	}
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "said:%d", i);
		snprintf(reason, sizeof(reason), "%d is outside", i);
		said += counters_may_say(file, name, 1000000);
		why += counters_may_say_why(file, name, reason, 1000000);
	}
	cr_expect_eq(said, 1);
	cr_expect_leq(why, 1);
	cr_expect_not(counters_was_shown(file, "it"));
}

Test(counters, one_of_another_version)
{
	int fd = open(file, O_WRONLY | O_CLOEXEC);
	static struct counter e[COUNTERS_MAX];

	cr_assert_eq(write(fd, "cnctlly1\1\0\0\0local:x", 19), 19);
	close(fd);
	cr_expect_eq(counters_read(file, e, COUNTERS_MAX), 0);
	counters_add(file, "local:y", 3);
	cr_assert_eq(counters_read(file, e, COUNTERS_MAX), 1);
	cr_expect_str_eq(e[0].name, "local:y");
	cr_expect_eq(e[0].n, 3);
}

/* However many jobs of a build have it at the same time. */
Test(counters, by_many_at_once)
{
	int said = 0, status;

	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();

		cr_assert_geq(pid, 0);
		if (pid == 0)
			_exit(may_say(i % 2 ? "the disk is full" : "the host is down"));
	}
	while (wait(&status) > 0)
		said += WEXITSTATUS(status);
	cr_expect_eq(said, 2);
}
