/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * An assertion that fails in a process that a test has forked.  Criterion would send it to its
 * runner, which knows that process not, over a socket whose thread is not there: both wait until
 * the test's time is over.  So it is told at once, on standard error, and is the end of the
 * process; the test sees its status.
 */
#include <criterion/criterion.h>
#include <criterion/event.h>

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

static pid_t test_pid;

__attribute__((constructor)) static void remember_test(void)
{
	test_pid = getpid();
}

static void send_to_runner(struct criterion_assert_stats *s)
{
	void (*send)(struct criterion_assert_stats *) = NULL;

	*(void **)&send = dlsym(RTLD_NEXT, "criterion_send_assert");
	send(s);
}

/* Instead of Criterion's. */
void criterion_send_assert(struct criterion_assert_stats *s)
{
	if (getpid() == test_pid) {
		send_to_runner(s);
	} else if (!s->passed) {
		fprintf(stderr, "%s:%u: in a process of the test: %s\n", s->file, s->line,
			s->message);
		_exit(1);
	}
}
