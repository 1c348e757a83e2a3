/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What an assertion does in a process that a test has forked (forked.c). */
#include "../lib/unit.h"

Test(forked, a_failed_assertion_ends_its_process, .timeout = 1000)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		(void)close(STDERR_FILENO);
		cr_assert(false);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}
