/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/wrapper.h"

static char file[] = "/tmp/test-tally-XXXXXX";

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

TestSuite(tally, .init = setup, .fini = teardown);

static bool may_say(const char *reason)
{
	return tally_may_say_why(file, "said:no-worker", reason, 1000000);
}

Test(tally, each_reason_is_said_once)
{
	cr_expect(may_say("the host is down"));
	cr_expect_not(may_say("the host is down"));
	cr_expect(may_say("the disk is full"), "another reason is said at once");
	cr_expect_not(may_say("the disk is full"));
	cr_expect_not(may_say("the host is down"));
	cr_expect(tally_may_say_why(file, "said:missing", "the host is down", 1000000));
	/* a period that is over makes room, and says none of the others again */
	cr_expect(tally_may_say_why(file, "said:no-worker", "the third", 0));
	cr_expect_not(may_say("the disk is full"));
	cr_expect_not(may_say("the third"));
}

Test(tally, a_reason_for_each_job_is_no_flood)
{
	struct tally_entry e[TALLY_ENTRIES];
	char reason[40];
	int said = 0;

	for (int i = 0; i < 1000; i++) {
		snprintf(reason, sizeof(reason), "/data/%d is outside", i);
		said += may_say(reason);
	}
	cr_expect_eq(said, TALLY_REASONS);
	cr_expect_eq(tally_read(file, e, TALLY_ENTRIES), TALLY_REASONS);
}

/* However many jobs of a build have it at the same time. */
Test(tally, by_many_at_once)
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
