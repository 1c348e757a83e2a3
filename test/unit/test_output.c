/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/io.h"
#include "wrapper/output.h"

static struct output out;
static int saved = -1;

/* fd becomes standard output, which Criterion has again afterwards. */
static void open_as(int fd)
{
	cr_assert_geq(fd, 0);
	saved = fcntl(1, F_DUPFD_CLOEXEC, 10);
	cr_assert_eq(dup2(fd, 1), 1);
	output_init(&out);
}

static void give_back(void)
{
	dup2(saved, 1);
	close(saved);
}

TestSuite(output, .fini = give_back);

static int show(const char *text)
{
	return output_show(&out, 0, (struct blob){(const uint8_t *)text, strlen(text)});
}

static int temp(int flags)
{
	char path[] = "/tmp/test-output-XXXXXX";
	int fd = mkostemp(path, flags);

	cr_assert_geq(fd, 0);
	unlink(path);
	return fd;
}

static void put(int fd, const char *text)
{
	cr_assert_eq(write_full(fd, text, strlen(text)), 0);
}

static void expect_file(int fd, const char *want)
{
	char got[100] = "";

	cr_assert_geq(pread(fd, got, sizeof(got) - 1, 0), 0);
	cr_expect_str_eq(got, want);
}

Test(output, what_was_shown_is_left_out)
{
	int fd = temp(0);

	open_as(fd);
	cr_expect_not(output_has_shown(&out, 0));
	cr_expect_eq(show("one\n"), 0);
	cr_expect(output_has_shown(&out, 0));
	shown_restart(&out.shown);
	cr_expect_eq(show("one\ntwo\n"), 0);
	expect_file(fd, "one\ntwo\n");
	cr_expect_not(output_is_over(&out, 0));
}

/* Behind what others wrote before, by a descriptor that appends or not. */
static void takes_back(int flags)
{
	int fd = temp(flags);

	put(fd, "before\n");
	open_as(fd);
	cr_expect_eq(show("one\n"), 0);
	cr_expect_eq(show("two\n"), 0);
	cr_expect(output_take_back(&out, 0));
	cr_expect_not(output_has_shown(&out, 0));
	expect_file(fd, "before\n");
	put(1, "again\n");
	expect_file(fd, "before\nagain\n");
}

Test(output, is_taken_back)
{
	takes_back(0);
}

Test(output, is_taken_back_from_the_end)
{
	takes_back(O_APPEND);
}

/* In the middle of a file there is nothing to cut off. */
Test(output, is_taken_back_from_the_middle)
{
	int fd = temp(0);

	put(fd, "0123456789");
	lseek(fd, 2, SEEK_SET);
	open_as(fd);
	cr_expect_eq(show("abc"), 0);
	cr_expect(output_take_back(&out, 0));
	cr_expect_eq(lseek(1, 0, SEEK_CUR), 2);
	expect_file(fd, "01abc56789");
}

Test(output, others_wrote_since)
{
	int fd = temp(0);

	open_as(fd);
	cr_expect_eq(show("ours\n"), 0);
	put(fd, "of another\n");
	cr_expect_not(output_take_back(&out, 0));
	cr_expect_eq(show("ours\n"), 0);
	cr_expect_not(output_take_back(&out, 0));
	expect_file(fd, "ours\nof another\nours\n");
	cr_expect(output_has_shown(&out, 0));
}

Test(output, others_appended_since)
{
	int fd = temp(O_APPEND);
	char path[64];
	int other;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, O_WRONLY | O_APPEND);
	open_as(fd);
	cr_expect_eq(show("ours\n"), 0);
	put(other, "of another\n");
	cr_expect_not(output_take_back(&out, 0));
	expect_file(fd, "ours\nof another\n");
}

Test(output, nothing_is_taken_back_from_a_pipe)
{
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	open_as(fds[1]);
	cr_expect_eq(show("x"), 0);
	cr_expect_not(output_take_back(&out, 0));
}

/* No signal comes of it, now or later. */
Test(output, an_error_is_remembered)
{
	sigset_t mask, pending;
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	open_as(fds[1]);
	close(fds[1]);
	cr_expect_eq(show("seen"), 0);
	close(fds[0]);
	cr_expect_eq(show(", lost"), -EPIPE);
	sigprocmask(SIG_SETMASK, NULL, &mask);
	sigpending(&pending);
	cr_expect_not(sigismember(&mask, SIGPIPE));
	cr_expect_not(sigismember(&pending, SIGPIPE));
	cr_expect_eq(out.shown.streams[0].n, 4);
	cr_expect(output_is_over(&out, 0));
	shown_restart(&out.shown);
	cr_expect_not(output_is_over(&out, 0));
	cr_expect_eq(show("se"), 0);
	cr_expect_not(output_is_over(&out, 0));
	cr_expect_eq(show("en"), 0);
	cr_expect(output_is_over(&out, 0));
	cr_expect_eq(show(", lost"), -EPIPE);
	cr_expect_eq(out.shown.streams[0].n, 4);
}

Test(output, what_a_limit_cuts_off)
{
	struct rlimit r = {6, RLIM_INFINITY};
	int fd = temp(0);

	open_as(fd);
	setrlimit(RLIMIT_FSIZE, &r);
	cr_expect_eq(show("0123456789"), -EFBIG);
	r.rlim_cur = RLIM_INFINITY;
	setrlimit(RLIMIT_FSIZE, &r);
	expect_file(fd, "012345");
	cr_expect_eq(out.shown.streams[0].n, 6);
	cr_expect(output_take_back(&out, 0));
	expect_file(fd, "");
}

static void *drain(void *fd)
{
	size_t *n = calloc(1, sizeof(*n));
	char part[1000];
	ssize_t k;

	while ((k = read(*(int *)fd, part, sizeof(part))) > 0)
		*n += (size_t)k;
	return n;
}

/* A descriptor that does not wait is waited for. */
Test(output, waits_for_a_slow_reader)
{
	static uint8_t big[1024 * 1024];
	int fds[2];
	pthread_t reader;
	void *got;

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(fd_set_nonblock(fds[1], true), 0);
	open_as(fds[1]);
	close(fds[1]);
	cr_assert_eq(pthread_create(&reader, NULL, drain, &fds[0]), 0);
	cr_expect_eq(output_show(&out, 0, (struct blob){big, sizeof(big)}), 0);
	give_back();
	saved = dup(1);
	pthread_join(reader, &got);
	cr_expect_eq(*(size_t *)got, sizeof(big));
	free(got);
}

Test(output, closed)
{
	saved = fcntl(1, F_DUPFD_CLOEXEC, 10);
	close(1);
	fd_hold_stdio();
	output_init(&out);
	cr_expect_eq(show("x"), -EBADF);
	cr_expect(output_is_over(&out, 0));
	cr_expect_not(output_has_shown(&out, 0));
}
