/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/process.h"
#include "concc/str.h"

int input_open(struct input *in)
{
	struct stat st;
	char none;

	if (read(0, &none, 0) < 0 || fstat(0, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return 0;
	in->start = lseek(0, 0, SEEK_CUR);
	in->is_file = in->start >= 0;
	return 0;
}

/* ---- keeping ---- */

static int open_unnamed(const char *dir)
{
	_cleanup_free_ char *path = NULL;
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	/* Not every file system can. */
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd < 0 ? -errno : fd;
	path = path_join(dir, "concc-stdin-XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)unlink(path);
	return fd;
}

static int open_on_disk(void)
{
	const char *const dirs[] = {getenv("TMPDIR"), "/var/tmp", "/tmp"};
	int fd = -ENOENT;

	for (unsigned i = 0; i < 3 && fd < 0; i++) {
		if (dirs[i] && *dirs[i] == '/')
			fd = open_unnamed(dirs[i]);
	}
	return fd;
}

static int move_to_disk(struct input *in)
{
	_cleanup_close_ int fd = open_on_disk();
	off_t at = 0;

	if (fd < 0)
		return fd;
	while ((uint64_t)at < in->kept) {
		ssize_t n = sendfile(fd, in->kept_fd, &at, (size_t)(in->kept - (uint64_t)at));

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
	}
	close(in->kept_fd);
	in->kept_fd = steal_fd(&fd);
	return 0;
}

static int open_kept(struct input *in, size_t more)
{
	if (in->kept_fd < 0)
		in->kept_fd = memfd_create("concc-stdin", MFD_CLOEXEC);
	if (in->kept_fd < 0)
		return -errno;
	if (in->kept + more > INPUT_KEPT_MAX)
		return -EFBIG;
	if (in->kept <= INPUT_MEMORY_MAX && in->kept + more > INPUT_MEMORY_MAX)
		return move_to_disk(in);
	return 0;
}

static int keep(struct input *in, const void *p, size_t n)
{
	int r = open_kept(in, n);
	size_t done = 0;

	while (r == 0 && done < n) {
		ssize_t k = pwrite(in->kept_fd, (const char *)p + done, n - done,
				   (off_t)(in->kept + done));

		if (k > 0)
			done += (size_t)k;
		else if (k == 0 || errno != EINTR)
			r = k < 0 ? -errno : -EIO;
	}
	if (r == 0)
		in->kept += n;
	else
		buf_append(&in->rest, p, n);
	return r;
}

/* ---- reading ---- */

static ssize_t read_new(struct input *in, void *p, size_t n)
{
	ssize_t k = in->is_file ? pread(0, p, n, in->start + (off_t)in->n_read) : read(0, p, n);
	int r;

	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return -errno;
	if (k < 0) {
		in->err = -errno;
		return in->err;
	}
	in->eof = k == 0;
	in->n_read += (size_t)k;
	if (in->is_file || k == 0)
		return k;
	r = keep(in, p, (size_t)k);
	if (r < 0) {
		in->err = r;
		in->lost = true;
	}
	return r < 0 ? r : k;
}

ssize_t input_read(struct input *in, uint64_t at, void *p, size_t n)
{
	ssize_t k;

	if (at == in->n_read)
		return in->eof ? 0 : read_new(in, p, n);
	n = in->n_read - at < n ? (size_t)(in->n_read - at) : n;
	k = in->is_file ? pread(0, p, n, in->start + (off_t)at)
			: pread(in->kept_fd, p, n, (off_t)at);
	if (k > 0)
		return k;
	in->err = k < 0 ? -errno : -EIO; /* it was longer before */
	return in->err;
}

bool input_has(const struct input *in, uint64_t at)
{
	return in->is_file || in->eof || at < in->n_read;
}

void input_done(struct input *in)
{
	if (in->is_file && in->n_read)
		(void)lseek(0, in->start + (off_t)in->n_read, SEEK_SET); /* it was there just now */
}

/* ---- again, here ---- */

static bool is_socket(void)
{
	struct stat st;

	return fstat(0, &st) == 0 && S_ISSOCK(st.st_mode);
}

/*
 * From us (1) to the command (0).  A socket may end with an error, which a pipe could not pass on,
 * but another socket can: closed with something unread in it, its peer is told of a reset.
 */
static int open_channel(const struct input *in, int ret[2])
{
	if (!is_socket()) {
		if (in->err && !in->lost)
			return in->err;
		return pipe2(ret, O_CLOEXEC) < 0 ? -errno : 0;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret) < 0)
		return -errno;
	return write_full(ret[0], "", 1);
}

static void end_channel(int to)
{
	char unread;

	(void)!read(to, &unread, 1); /* a pipe has no such thing */
}

/* False when the command reads no more. */
static bool feed_kept(const struct input *in, int to)
{
	char chunk[16 * 1024];
	uint64_t at = 0;

	while (at < in->kept) {
		size_t left = in->kept - at < sizeof(chunk) ? (size_t)(in->kept - at)
							    : sizeof(chunk);
		ssize_t n = pread(in->kept_fd, chunk, left, (off_t)at);

		if (n <= 0 || write_full(to, chunk, (size_t)n) < 0)
			return false;
		at += (uint64_t)n;
	}
	return write_full(to, in->rest.data, in->rest.len) == 0;
}

/* Until the end of the input, or that of its reader, which the channel tells. */
static void feed_new(int to)
{
	struct pollfd p[2] = {{.fd = 0, .events = POLLIN}, {.fd = to}};
	char chunk[16 * 1024];

	while (poll(p, 2, -1) >= 0 || errno == EINTR) {
		ssize_t n;

		if (p[1].revents)
			return;
		if (!p[0].revents)
			continue;
		n = read(0, chunk, sizeof(chunk));
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n == 0)
			end_channel(to);
		if (n <= 0 || write_full(to, chunk, (size_t)n) < 0)
			return;
	}
}

static void feed(const struct input *in, int to)
{
	if (!feed_kept(in, to) || (in->err && !in->lost))
		return;
	if (in->eof)
		end_channel(to);
	else
		feed_new(to);
}

/* Detached: the command must not find a child that it did not start. */
static int start_feeder(const struct input *in, int to)
{
	const int keep[] = {0, in->kept_fd, to};
	int r = process_fork_detached();

	if (r != 0)
		return r < 0 ? r : 0;
	fd_detach_all(keep, sizeof(keep) / sizeof(keep[0]));
	feed(in, to);
	_exit(0);
}

int input_replay(struct input *in, int *ret_fd)
{
	int fds[2], r;

	*ret_fd = -1;
	if (in->is_file || !in->n_read)
		return 0;
	if (in->eof && !is_socket()) {
		*ret_fd = in->kept_fd;
		return lseek(in->kept_fd, 0, SEEK_SET) < 0 ? -errno : 0;
	}
	r = open_channel(in, fds);
	if (r < 0)
		return r;
	r = start_feeder(in, fds[1]);
	close(fds[1]);
	if (r < 0)
		close(fds[0]);
	else
		*ret_fd = fds[0];
	return r;
}
