/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/io.h"
#include "wrapper/input.h"

static struct input in;
static int opened;

/* fd becomes standard input. */
static void open_as(int fd)
{
	cr_assert_geq(fd, 0);
	cr_assert_eq(dup2(fd, 0), 0);
	close(fd);
	buf_release(&in.front);
	buf_release(&in.rest);
	in = INPUT_INIT;
	opened = input_open(&in);
}

/* The other end of the pipe that becomes standard input. */
static int open_pipe(void)
{
	int fds[2];

	cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
	open_as(fds[0]);
	return fds[1];
}

static void put(int fd, const char *text)
{
	cr_assert_eq(write_full(fd, text, strlen(text)), 0);
}

/* All that a descriptor has until its end, or the error that is there instead. */
static void expect_all(int fd, const char *want, int want_err)
{
	char got[100];
	ssize_t n = read_full(fd, got, strlen(want));

	cr_expect_eq(n, (ssize_t)strlen(want));
	cr_expect_eq(memcmp(got, want, strlen(want)), 0, "%.*s", (int)n, got);
	n = read(fd, got, 1);
	cr_expect_eq(n < 0 ? -errno : n, want_err);
}

static void expect_replay(const char *want, int want_err)
{
	int fd;

	cr_assert_eq(input_replay(&in, &fd), 0);
	expect_all(fd < 0 ? 0 : fd, want, want_err);
	if (fd >= 0)
		close(fd);
}

/* What the next reader finds. */
static void expect_left(const char *want)
{
	char got[100];

	cr_expect_eq(read(0, got, sizeof(got)), (ssize_t)strlen(want));
	cr_expect_eq(memcmp(got, want, strlen(want)), 0);
}

Test(input, what_was_not_read_is_left)
{
	int to = open_pipe();
	char got[100];

	put(to, "one\ntwo\n");
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 8);
	cr_expect_eq(input_was_read(&in, 4), 0);
	input_done(&in);
	expect_left("two\n");
	close(to);
}

Test(input, of_a_socket_too)
{
	int fds[2];
	char got[100];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	open_as(fds[0]);
	put(fds[1], "one\ntwo\n");
	cr_expect_eq(input_read(&in, 0, got, 4), 4);
	cr_expect_eq(input_read(&in, 4, got, 100), 4);
	cr_expect_eq(input_read(&in, 8, got, 100), -EAGAIN);
	cr_expect_eq(input_was_read(&in, 3), 0);
	input_done(&in);
	expect_left("\ntwo\n");
	close(fds[1]);
}

static bool has_news(void)
{
	struct pollfd p = {.fd = input_fd(&in), .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

Test(input, what_was_seen_is_no_news)
{
	int to = open_pipe();
	char got[100];

	cr_expect_not(has_news());
	put(to, "one");
	cr_expect(has_news());
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 3);
	cr_expect_eq(input_read(&in, 3, got, sizeof(got)), -EAGAIN);
	cr_expect_not(has_news());
	put(to, "two");
	cr_expect(has_news());
	cr_expect_eq(input_read(&in, 3, got, sizeof(got)), 3);
	cr_expect_not(has_news());
	close(to);
	cr_expect(has_news());
	cr_expect_eq(input_read(&in, 6, got, sizeof(got)), 0);
}

/* More than can be looked at at once: what was read makes room to see on. */
Test(input, a_pipe_that_holds_much)
{
	static char part[4096], got[sizeof(part)];
	int to = open_pipe();
	uint64_t at = 0;

	cr_assert_geq(fcntl(to, F_SETPIPE_SZ, 1 << 20), 1 << 20);
	for (unsigned i = 0; i < (1 << 20) / sizeof(part); i++)
		cr_assert_eq(write_full(to, part, sizeof(part)), 0);
	close(to);
	while (at < 1 << 20) {
		ssize_t n = input_has(&in, at) || has_news() ? input_read(&in, at, got, sizeof(got))
							     : -EAGAIN;

		if (n == -EAGAIN) {
			cr_assert_eq(input_was_read(&in, at), 0);
			cr_assert(input_has(&in, at));
			continue;
		}
		cr_assert_gt(n, 0);
		at += (uint64_t)n;
	}
	cr_assert_eq(input_was_read(&in, at), 0);
	cr_expect_eq(input_read(&in, at, got, sizeof(got)), 0);
}

Test(input, a_try_that_was_lost_has_read_it)
{
	int to = open_pipe();
	char got[100];

	put(to, "one two");
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 7);
	cr_expect_eq(input_was_read(&in, 4), 0);
	/* the next try */
	cr_expect_eq(input_was_read(&in, 0), 0);
	cr_expect(input_has(&in, 0));
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 4);
	cr_expect_eq(input_read(&in, 4, got, sizeof(got)), 3);
	cr_expect_eq(memcmp(got, "two", 3), 0);
	/* or here */
	close(to);
	expect_replay("one two", 0);
}

Test(input, another_reads_it_too)
{
	int to = open_pipe();
	char got[100];

	put(to, "one two ");
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 8);
	cr_expect_eq(read(0, got, 4), 4);
	cr_expect_eq(input_was_read(&in, 8), -EBUSY);
	put(to, "three");
	close(to);
	expect_replay("two three", 0);
	/* all of it, and to wait for more would be wrong */
	to = open_pipe();
	put(to, "one");
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 3);
	cr_expect_eq(read(0, got, 3), 3);
	cr_expect_eq(input_was_read(&in, 3), -EBUSY);
	put(to, "two");
	close(to);
	expect_replay("two", 0);
}

Test(input, a_pipe_is_kept)
{
	int to = open_pipe();
	char got[100];

	put(to, "first ");
	cr_expect_not(input_has(&in, 0));
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 6);
	cr_expect(input_has(&in, 0));
	cr_expect_not(input_has(&in, 6));
	put(to, "second");
	cr_expect_eq(input_read(&in, 6, got, sizeof(got)), 6);
	/* another attempt */
	cr_expect_eq(input_read(&in, 2, got, 3), 3);
	cr_expect_eq(memcmp(got, "rst", 3), 0);
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 12);
	put(to, " third");
	close(to);
	cr_expect_eq(input_was_read(&in, 8), 0);
	expect_replay("first second third", 0);
}

Test(input, its_end_is_kept_too)
{
	int to = open_pipe();
	char got[100];

	put(to, "all");
	close(to);
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 3);
	cr_expect_eq(input_read(&in, 3, got, sizeof(got)), 0);
	cr_expect(input_has(&in, 3));
	cr_expect_eq(input_read(&in, 3, got, sizeof(got)), 0);
	expect_replay("all", 0);
}

Test(input, nothing_was_read)
{
	int to = open_pipe(), fd;

	cr_assert_eq(input_replay(&in, &fd), 0);
	cr_expect_eq(fd, -1);
	close(to);
}

static int temp(void)
{
	char path[] = "/tmp/test-input-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	unlink(path);
	return fd;
}

Test(input, a_file_is_read_where_it_was)
{
	int fd = temp();
	char got[100];

	put(fd, "skipped, and the rest");
	lseek(fd, 9, SEEK_SET);
	open_as(fd);
	cr_expect(input_has(&in, 0));
	cr_expect_eq(input_read(&in, 0, got, 4), 4);
	cr_expect_eq(memcmp(got, "and ", 4), 0);
	cr_expect_eq(input_read(&in, 4, got, sizeof(got)), 8);
	cr_expect_eq(input_read(&in, 1, got, 2), 2);
	cr_expect_eq(memcmp(got, "nd", 2), 0);
	cr_expect_eq(lseek(0, 0, SEEK_CUR), 9, "nobody else sees that");
	expect_replay("and the rest", 0);
	lseek(0, 9, SEEK_SET);
	cr_expect_eq(input_was_read(&in, 8), 0);
	input_done(&in);
	cr_expect_eq(lseek(0, 0, SEEK_CUR), 17);
	cr_expect_lt(in.kept_fd, 0);
}

Test(input, a_file_that_was_cut_meanwhile)
{
	int fd = temp();
	char got[100];

	put(fd, "to be cut");
	lseek(fd, 0, SEEK_SET);
	open_as(fd);
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 9);
	cr_assert_eq(ftruncate(0, 0), 0);
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), -EIO);
	cr_expect_eq(in.err, -EIO);
	cr_expect_not(in.lost);
	expect_replay("", 0);
}

Test(input, what_can_not_be_read)
{
	char got[1];

	open_as(open("/", O_RDONLY | O_CLOEXEC));
	cr_expect_eq(opened, -EISDIR);
	cr_expect_eq(input_read(&in, 0, got, 1), -EISDIR);
	open_as(open("/", O_PATH | O_CLOEXEC));
	cr_expect_eq(opened, -EBADF);
	open_as(open("/dev/null", O_WRONLY | O_CLOEXEC));
	cr_expect_eq(opened, -EBADF);
	open_as(open("/dev/null", O_RDONLY | O_CLOEXEC));
	cr_expect_eq(opened, 0);
	close(open_pipe());
	cr_expect_eq(opened, 0, "it does not wait");
}

static bool is_in_memory(int fd)
{
	char path[64], target[256];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	cr_assert_gt(n, 0);
	target[n] = '\0';
	return strstr(target, "memfd:") != NULL;
}

Test(input, much_goes_to_the_disk)
{
	static char part[4096];
	char got[sizeof(part)];
	int to = open_pipe();
	uint64_t at = 0;

	for (unsigned i = 0; at < 3 * INPUT_MEMORY_MAX; i++, at += sizeof(part)) {
		memset(part, 'a' + (int)(i % 26), sizeof(part));
		cr_assert_eq(write_full(to, part, sizeof(part)), 0);
		cr_assert_eq(input_read(&in, at, got, sizeof(got)), (ssize_t)sizeof(got));
		cr_assert_eq(input_was_read(&in, at + sizeof(part)), 0);
		cr_expect_eq(is_in_memory(in.kept_fd), at + sizeof(part) <= INPUT_MEMORY_MAX);
	}
	for (unsigned i = 0; i < at / sizeof(part); i++) {
		memset(part, 'a' + (int)(i % 26), sizeof(part));
		cr_assert_eq(input_read(&in, i * sizeof(part), got, sizeof(got)),
			     (ssize_t)sizeof(got));
		cr_assert_eq(memcmp(part, got, sizeof(got)), 0, "part %u", i);
	}
	close(to);
}

/* As if so much had come already. */
static void pretend(uint64_t kept)
{
	in.kept_fd = memfd_create("test", MFD_CLOEXEC);
	cr_assert_eq(ftruncate(in.kept_fd, (off_t)kept), 0);
	in.kept = in.seen = kept;
}

Test(input, more_than_is_kept)
{
	int to = open_pipe(), fd;
	char got[100];

	pretend(INPUT_KEPT_MAX - 3);
	put(to, "123");
	cr_expect_eq(input_read(&in, in.seen, got, sizeof(got)), 3);
	cr_expect_eq(input_was_read(&in, in.seen), 0);
	put(to, "over");
	cr_expect_eq(input_read(&in, in.seen, got, sizeof(got)), 4);
	cr_expect_eq(input_was_read(&in, in.seen), -EFBIG);
	cr_expect(in.lost);
	cr_expect_eq(in.rest.len, 4);
	/* all of it is there for the command all the same */
	in.kept = 0;
	put(to, " and more");
	close(to);
	cr_assert_eq(input_replay(&in, &fd), 0);
	expect_all(fd, "over and more", 0);
	close(fd);
}

Test(input, no_disk_for_it)
{
	static char big[64 * 1024];
	int to = open_pipe(), fd;
	char got[sizeof(big)];

	/* what comes first, and can't be moved there */
	cr_assert_eq(fcntl(to, F_SETPIPE_SZ, sizeof(big)), (int)sizeof(big));
	setenv("TMPDIR", "/nonexistent", 1);
	pretend(INPUT_MEMORY_MAX);
	in.kept_fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* has nothing to move */
	memset(big, 'x', sizeof(big));
	cr_assert_eq(write_full(to, big, sizeof(big)), 0);
	cr_expect_eq(input_read(&in, in.seen, got, sizeof(got)), (ssize_t)sizeof(got));
	cr_expect_lt(input_was_read(&in, in.seen), 0);
	cr_expect(in.lost);
	cr_expect_gt(in.rest.len, 0);
	in.kept = 0;
	close(to);
	cr_assert_eq(input_replay(&in, &fd), 0);
	cr_expect_eq(read_full(fd, got, sizeof(got)), (ssize_t)sizeof(got));
	close(fd);
}

/* One end is ours, the other that of whoever gives the input. */
static int open_socket(void)
{
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	put(fds[0], "?"); /* something to leave unread */
	open_as(fds[0]);
	return fds[1];
}

Test(input, a_socket_that_ends)
{
	int to = open_socket();
	char got[100];

	put(to, "one ");
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 4);
	cr_expect_eq(input_was_read(&in, 2), 0);
	put(to, "two");
	cr_expect_eq(read(to, got, 1), 1);
	close(to);
	expect_replay("one two", 0);
}

Test(input, a_socket_that_is_reset)
{
	int to = open_socket(), fd;
	char got[100];

	put(to, "one ");
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 4);
	/* before the command runs here */
	cr_expect_eq(input_was_read(&in, 2), 0);
	close(to);
	cr_expect_eq(input_read(&in, 4, got, sizeof(got)), -ECONNRESET);
	expect_replay("one ", -ECONNRESET);
	/* and while it does */
	to = open_socket();
	put(to, "one ");
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 4);
	cr_expect_eq(input_was_read(&in, 1), 0);
	cr_assert_eq(input_replay(&in, &fd), 0);
	put(to, "two");
	cr_expect_eq(read_full(fd, got, 7), 7);
	close(to);
	cr_expect_eq(read(fd, got, 1), -1);
	cr_expect_eq(errno, ECONNRESET);
	close(fd);
}

/* Who does not read on holds up nobody. */
Test(input, a_reader_that_goes)
{
	int to = open_pipe(), fd;
	struct pollfd p = {.fd = to};
	char got[100];

	put(to, "one");
	cr_expect_eq(input_read(&in, 0, got, sizeof(got)), 3);
	cr_expect_eq(input_was_read(&in, 1), 0);
	cr_assert_eq(input_replay(&in, &fd), 0);
	close(fd);
	close(0);
	/* the feeder has the last of its readers */
	cr_expect_eq(poll(&p, 1, 10000), 1);
	cr_expect(p.revents & POLLERR);
	close(to);
}
