/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * Whose memory a sanitized unit test is asked about: that of its own process.  Criterion's runner,
 * which starts one process for each test, keeps some to its end; and one that a test forks and that
 * becomes another user can't be stopped by LeakSanitizer, which then takes what is on its stack for
 * lost.
 */
#include <stdlib.h>
#include <unistd.h>

int __lsan_is_turned_off(void);

static pid_t test_pid;

__attribute__((constructor)) static void remember_test(void)
{
	/* The runner gives it to the tests' processes. */
	test_pid = getenv("BXFI_MAP") ? getpid() : 0;
}

int __lsan_is_turned_off(void)
{
	return getpid() != test_pid;
}
