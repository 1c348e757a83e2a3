/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/process.h"
#include "concc/proto.h"
#include "concc/str.h"

/* What is not looked at before it is taken can't be seen to come either: it is a stream. */
static int watch(struct input *in, enum input_kind kind)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};

	in->news_fd = epoll_create1(EPOLL_CLOEXEC);
	if (in->news_fd < 0 || epoll_ctl(in->news_fd, EPOLL_CTL_ADD, 0, &ev) < 0)
		return -errno;
	if (kind == INPUT_PIPE && pipe2(in->copy, O_CLOEXEC) < 0)
		return -errno;
	in->kind = kind;
	return 0;
}

static bool is_stream_socket(void)
{
	int type;
	socklen_t n = sizeof(type);

	return getsockopt(0, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM;
}

int input_open(struct input *in)
{
	struct stat st;
	char none;

	if (read(0, &none, 0) < 0 || fstat(0, &st) < 0)
		return -errno;
	if (S_ISFIFO(st.st_mode))
		return watch(in, INPUT_PIPE);
	if (S_ISSOCK(st.st_mode) && is_stream_socket())
		return watch(in, INPUT_SOCKET);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return 0;
	in->start = lseek(0, 0, SEEK_CUR);
	if (in->start < 0)
		return 0;
	in->kind = INPUT_FILE;
	in->size = st.st_size;
	in->mode = st.st_mode & 0777;
	in->whole = S_ISREG(st.st_mode) && in->start == 0 && in->size < PROTO_INPUT_WINDOW &&
		    (fcntl(0, F_GETFL) & O_ACCMODE) == O_RDONLY;
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

/* ---- taking ---- */

/* 0, 1 at its end, or -errno: as in->err, but for those that are none. */
static ssize_t take(struct input *in, void *p, size_t n)
{
	ssize_t k = read(0, p, n);
	int r;

	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return -errno;
	if (k < 0)
		return in->err = -errno;
	r = k > 0 ? keep(in, p, (size_t)k) : 0;
	if (r < 0) {
		in->err = r;
		in->lost = true;
	}
	return r < 0 ? r : k;
}

/*
 * What a pipe holds at once is what can be on its way to a job.  Those who read much have a larger
 * one; where that is not allowed it works all the same.
 */
#define LARGE_PIPE PROTO_INPUT_WINDOW

static void enlarge(const struct input *in)
{
	(void)fcntl(0, F_SETPIPE_SZ, LARGE_PIPE);
	(void)fcntl(in->copy[1], F_SETPIPE_SZ, LARGE_PIPE);
}

/* At most n of the bytes that were seen first, or -EBUSY: another has read them, and it was not the
 * job. */
static ssize_t take_seen(struct input *in, void *p, size_t n)
{
	const uint8_t *seen = in->front.data + in->front.len - (in->seen - in->kept);
	struct pollfd there = {.fd = 0, .events = POLLIN};
	ssize_t k;

	if (poll(&there, 1, 0) <= 0)
		return -EBUSY; /* to read would be to wait */
	k = take(in, p, n);
	if (k == 0 || (k > 0 && memcmp(p, seen, (size_t)k) != 0))
		return -EBUSY;
	return k;
}

int input_was_read(struct input *in, uint64_t n)
{
	char chunk[16 * 1024];

	if (in->kind == INPUT_PIPE && in->read <= PIPE_BUF && n > PIPE_BUF)
		enlarge(in);
	in->read = n;
	if (in->kind != INPUT_PIPE && in->kind != INPUT_SOCKET)
		return 0;
	in->again = true;
	while (in->kept < in->read) {
		uint64_t left = in->read - in->kept;
		ssize_t k = take_seen(in, chunk,
				      left < sizeof(chunk) ? (size_t)left : sizeof(chunk));

		if (k < 0 && k != -EINTR)
			return in->err = (int)k;
	}
	return 0;
}

void input_done(struct input *in)
{
	if (in->kind == INPUT_FILE && in->read)
		(void)lseek(0, in->start + (off_t)in->read, SEEK_SET); /* it was there just now */
}

/* ---- reading ---- */

/* What is there, from the front, and stays there: at most n bytes, or -errno. */
static ssize_t look(const struct input *in, void *p, size_t n)
{
	ssize_t k;

	if (in->kind == INPUT_SOCKET) {
		k = recv(0, p, n, MSG_PEEK | MSG_DONTWAIT);
		return k < 0 ? -errno : k;
	}
	k = tee(0, in->copy[1], n, SPLICE_F_NONBLOCK);
	if (k <= 0)
		return k < 0 ? -errno : 0;
	return read(in->copy[0], p, (size_t)k) == k ? k : -EIO;
}

/* 0 while more may come. */
static short how_it_ended(void)
{
	struct pollfd p = {.fd = 0, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

/* What comes after this is news, and what has ended before it does not grow: how it has. */
static int see(struct input *in)
{
	struct epoll_event ev;
	int ended;
	ssize_t k;

	(void)epoll_wait(in->news_fd, &ev, 1, 0);
	ended = how_it_ended();
	buf_reset(&in->front);
	k = look(in, buf_grow(&in->front, LARGE_PIPE), LARGE_PIPE);
	in->front.len = k > 0 ? (size_t)k : 0;
	in->again = false;
	if (k < 0 && k != -EAGAIN)
		return k == -EINTR ? -EINTR : (in->err = (int)k);
	in->seen = in->kept + in->front.len;
	return ended;
}

/* What was not taken yet. */
static ssize_t read_front(struct input *in, uint64_t at, void *p, size_t n)
{
	size_t left;

	if (at >= in->seen) {
		int ended = see(in);

		if (ended < 0)
			return ended;
		if (at >= in->seen && ended & POLLERR) /* who reads it there meets it */
			return in->err = -ECONNRESET;
		in->eof = at >= in->seen && ended;
		if (at >= in->seen)
			return ended ? 0 : -EAGAIN;
	}
	left = (size_t)(in->seen - at);
	n = left < n ? left : n;
	memcpy(p, in->front.data + in->front.len - left, n);
	return (ssize_t)n;
}

static ssize_t read_file(struct input *in, uint64_t at, void *p, size_t n)
{
	ssize_t k;

	if (in->whole && n > (uint64_t)in->size - at)
		n = (size_t)((uint64_t)in->size - at);
	k = pread(0, p, n, in->start + (off_t)at);
	if (k < 0 && errno == EINTR)
		return -EINTR;
	if (k < 0 || (k == 0 && at < in->seen)) /* it was longer before */
		return in->err = k < 0 ? -errno : -EIO;
	in->seen = at + (size_t)k > in->seen ? at + (size_t)k : in->seen;
	return k;
}

static ssize_t read_stream(struct input *in, void *p, size_t n)
{
	ssize_t k = take(in, p, n);

	if (k >= 0) {
		in->eof = k == 0;
		in->seen = in->kept;
	}
	return k;
}

ssize_t input_read(struct input *in, uint64_t at, void *p, size_t n)
{
	if (in->kind == INPUT_FILE)
		return read_file(in, at, p, n);
	if (at < in->kept) {
		ssize_t k = pread(in->kept_fd, p, n, (off_t)at);

		return k > 0 ? k : (in->err = k < 0 ? -errno : -EIO);
	}
	if (in->eof && at == in->seen)
		return 0;
	return in->kind == INPUT_STREAM ? read_stream(in, p, n) : read_front(in, at, p, n);
}

bool input_has(const struct input *in, uint64_t at)
{
	return in->kind == INPUT_FILE || in->eof || in->again || at < in->seen;
}

int input_fd(const struct input *in)
{
	return in->news_fd >= 0 ? in->news_fd : 0;
}

/* ---- again, here ---- */

/*
 * From us (1) to the command (0).  A socket may end with an error, which a pipe could not pass on,
 * but another socket can: closed with something unread in it, its peer is told of a reset.
 */
static int open_channel(const struct input *in, int ret[2])
{
	if (in->kind == INPUT_STREAM && in->err && !in->lost)
		return in->err;
	if (in->kind != INPUT_SOCKET)
		return pipe2(ret, O_CLOEXEC) < 0 ? -errno : 0;
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
static void feed_new(const struct input *in, int to)
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
		if (n == 0 && (!in->err || in->lost))
			end_channel(to);
		if (n <= 0 || write_full(to, chunk, (size_t)n) < 0)
			return;
	}
}

static void feed(const struct input *in, int to)
{
	if (feed_kept(in, to))
		feed_new(in, to);
}

/* Detached: the command must not find a child that it did not start. */
static int start_feeder(const struct input *in, int to)
{
	const int keep[] = {0, in->kept_fd, to};
	int r = process_fork_detached();

	if (r != 0)
		return r < 0 ? r : 0;
	fd_detach_all(keep, N_OF(keep));
	feed(in, to);
	_exit(0);
}

int input_replay(struct input *in, int *ret_fd)
{
	int fds[2], r;

	*ret_fd = -1;
	if (in->kind == INPUT_FILE || (!in->kept && !in->rest.len))
		return 0;
	if (in->eof && in->kind != INPUT_SOCKET && input_was_read(in, in->seen) == 0) {
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
