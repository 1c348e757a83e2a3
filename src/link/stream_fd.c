/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A stream over a pair of fds: sockets, pipes, a terminal's other end. */
#include "concc/link.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/loop.h"
#include "concc/str.h"

enum write_how {
	WRITE_SOCKET, /* send(2) can keep SIGPIPE away by itself */
	WRITE_PLAIN,  /* SIGPIPE is ignored in this process */
	WRITE_MASKED, /* SIGPIPE must be held back around the call */
};

struct stream_fd {
	struct stream stream;
	int read_fd, write_fd;
	enum write_how how;
};

static ssize_t fd_read(struct stream *s, void *p, size_t n)
{
	struct stream_fd *f = (struct stream_fd *)s;
	ssize_t r;

	do
		r = read(f->read_fd, p, n);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

/* A pipe's writer has no MSG_NOSIGNAL; the signal is the thread's, so it is taken back here. */
static ssize_t write_masked(int fd, const void *p, size_t n)
{
	static const struct timespec now = {0};
	sigset_t pipe_only, before, pending;
	bool was_pending;
	ssize_t r;

	sigemptyset(&pipe_only);
	sigaddset(&pipe_only, SIGPIPE);
	sigpending(&pending);
	was_pending = sigismember(&pending, SIGPIPE);
	(void)pthread_sigmask(SIG_BLOCK, &pipe_only, &before); /* fails for a bad `how` only */
	r = write(fd, p, n);
	r = r < 0 ? -errno : r;
	if (r == -EPIPE && !was_pending)
		(void)sigtimedwait(&pipe_only, NULL, &now); /* nothing pending is fine */
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static ssize_t fd_write(struct stream *s, const void *p, size_t n)
{
	struct stream_fd *f = (struct stream_fd *)s;
	ssize_t r;

	do {
		if (f->how == WRITE_MASKED)
			r = write_masked(f->write_fd, p, n);
		else if (f->how == WRITE_SOCKET)
			r = send(f->write_fd, p, n, MSG_NOSIGNAL);
		else
			r = write(f->write_fd, p, n);
		if (r < 0 && f->how != WRITE_MASKED)
			r = -errno;
	} while (r == -EINTR);
	return r;
}

static void fd_want(struct stream *s, bool reading, bool blocked, int fds[2], uint32_t events[2])
{
	struct stream_fd *f = (struct stream_fd *)s;
	bool same = f->read_fd == f->write_fd;

	fds[0] = fds[1] = -1;
	events[0] = events[1] = 0;
	if (reading || (same && blocked)) {
		fds[0] = f->read_fd;
		events[0] = (reading ? LOOP_READ : 0u) | (same && blocked ? LOOP_WRITE : 0u);
	}
	/* Not watched when idle: a pipe without a reader would report that without end. */
	if (!same && blocked) {
		fds[1] = f->write_fd;
		events[1] = LOOP_WRITE;
	}
}

static void fd_free(struct stream *s)
{
	struct stream_fd *f = (struct stream_fd *)s;

	close(f->read_fd);
	if (f->write_fd != f->read_fd)
		close(f->write_fd);
	free(f);
}

static const struct stream_ops fd_ops = {
	.read = fd_read,
	.write = fd_write,
	.want = fd_want,
	.free = fd_free,
};

static enum write_how how_to_write(int fd)
{
	struct sigaction sa;
	struct stat st;

	if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode))
		return WRITE_SOCKET;
	if (sigaction(SIGPIPE, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN)
		return WRITE_PLAIN;
	return WRITE_MASKED;
}

struct stream *stream_from_fds(int read_fd, int write_fd)
{
	struct stream_fd *f = xcalloc(1, sizeof(*f));

	f->stream.ops = &fd_ops;
	f->read_fd = read_fd;
	f->write_fd = write_fd;
	f->how = how_to_write(write_fd);
	(void)fd_set_nonblock(read_fd, true); /* fails for bad fds only, as each read will */
	if (write_fd != read_fd)
		(void)fd_set_nonblock(write_fd, true);
	return &f->stream;
}

void stream_free(struct stream *s)
{
	if (s)
		s->ops->free(s);
}
