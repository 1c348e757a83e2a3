/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "stream_ssh2.h"

#include <errno.h>
#include <libssh2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/str.h"
#include "stderr_tail.h"
#include "ssh2_attempt.h"

#define READ_UNIT (64 * 1024) /* of every read; a link always has room for it */
#define GRACE_MS  2000	      /* for the exit status to follow the end of the output */

enum owner { OWNER_NONE, OWNER_READ, OWNER_WRITE };

struct stream_ssh2 {
	struct stream stream;
	LIBSSH2_SESSION *session;
	LIBSSH2_CHANNEL *channel;
	int sock;
	char *worker;
	/*
	 * Whose packet is half sent.  libssh2 keeps the rest of it in the session
	 * and refuses every other packet until the same call was repeated.
	 */
	enum owner owner;
	size_t offered;	  /* bytes of the write that said EAGAIN: they are offered again */
	struct buf ahead; /* read while a write had to wait for OWNER_READ */
	bool put_off;	  /* a read waits for the end of a half sent write */
	bool at_end;	  /* the remote process's output ended */
	int grace_fd;
	struct stderr_tail tail;
	struct buf why;
	char error[128]; /* of the session, when it broke */
};

static bool sends_blocked(const struct stream_ssh2 *s)
{
	return libssh2_session_block_directions(s->session) & LIBSSH2_SESSION_BLOCK_OUTBOUND;
}

/* Notes whether the call that returned r left a packet half sent. */
static void note_owner(struct stream_ssh2 *s, enum owner who, ssize_t r)
{
	if (s->owner != OWNER_NONE && s->owner != who)
		return;
	s->owner = r == LIBSSH2_ERROR_EAGAIN && sends_blocked(s) ? who : OWNER_NONE;
}

static int session_error(struct stream_ssh2 *s, ssize_t r)
{
	char *text = NULL;

	(void)libssh2_session_last_error(s->session, &text, NULL, 0); /* the code is r */
	(void)snprintf(s->error, sizeof(s->error), "libssh2: %s (%zd)", text ? text : "error", r);
	return -ECONNRESET;
}

/*
 * Every read goes through here, with READ_UNIT for its size: what a read adds to
 * the window depends on the size asked for, and one that is repeated to finish
 * its half sent window adjustment must add what the first one announced.
 * Otherwise libssh2 1.10 counts less than the remote was given, and silently
 * drops what the remote sends beyond that.
 */
static ssize_t channel_read(struct stream_ssh2 *s, int stream_id, void *p)
{
	ssize_t r = libssh2_channel_read_ex(s->channel, stream_id, p, READ_UNIT);

	note_owner(s, OWNER_READ, r);
	return r;
}

/*
 * Behind a half sent write no window adjustment can go out: the read fails with
 * SOCKET_SEND, and libssh2's count of the window is wrong from then on.  So
 * there is no read that would want to send one.
 */
static bool may_read(struct stream_ssh2 *s)
{
	unsigned long initial = 0, window;

	if (s->owner != OWNER_WRITE)
		return true;
	window = libssh2_channel_window_read_ex(s->channel, NULL, &initial);
	return window >= initial / 4 * 3 + READ_UNIT;
}

/* Undrained, the remote's stderr would eat up the window of its stdout. */
static void drain_stderr(struct stream_ssh2 *s)
{
	uint8_t part[READ_UNIT];
	ssize_t r;

	while (s->owner == OWNER_NONE && libssh2_poll_channel_read(s->channel, 1)) {
		r = channel_read(s, SSH_EXTENDED_DATA_STDERR, part);
		if (r <= 0)
			return;
		stderr_tail_add(&s->tail, s->worker, part, (size_t)r);
	}
}

static void start_grace(struct stream_ssh2 *s)
{
	struct itimerspec its = {.it_value.tv_sec = GRACE_MS / 1000,
				 .it_value.tv_nsec = (GRACE_MS % 1000) * 1000000};

	s->at_end = true;
	s->grace_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->grace_fd >= 0)
		(void)timerfd_settime(s->grace_fd, 0, &its, NULL); /* valid by constants */
}

static bool grace_is_over(const struct stream_ssh2 *s)
{
	struct pollfd p = {.fd = s->grace_fd, .events = POLLIN};

	return s->grace_fd < 0 || poll(&p, 1, 0) > 0;
}

/* The end is told once the channel was closed, for the exit status comes before that. */
static ssize_t read_end(struct stream_ssh2 *s)
{
	int r;

	drain_stderr(s);
	r = libssh2_channel_wait_closed(s->channel);
	return r == LIBSSH2_ERROR_EAGAIN && !grace_is_over(s) ? -EAGAIN : 0;
}

static ssize_t take_ahead(struct stream_ssh2 *s, void *p, size_t n)
{
	n = n < s->ahead.len ? n : s->ahead.len;
	memcpy(p, s->ahead.data, n);
	buf_consume(&s->ahead, n);
	return (ssize_t)n;
}

/* Reads into s->ahead. */
static ssize_t read_ahead(struct stream_ssh2 *s)
{
	size_t before = s->ahead.len;
	ssize_t r = channel_read(s, 0, buf_grow(&s->ahead, READ_UNIT));

	s->ahead.len = before + (r > 0 ? (size_t)r : 0);
	return r;
}

static ssize_t ssh2_read(struct stream *stream, void *p, size_t n)
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;
	ssize_t r;

	s->stream.inside = false;
	if (s->ahead.len)
		return take_ahead(s, p, n);
	if (s->at_end)
		return read_end(s);
	s->put_off = !may_read(s);
	if (s->put_off)
		return -EAGAIN;
	r = n >= READ_UNIT ? channel_read(s, 0, p) : read_ahead(s);
	if (r > 0)
		return n >= READ_UNIT ? r : take_ahead(s, p, n);
	if (r < 0 && r != LIBSSH2_ERROR_EAGAIN)
		return session_error(s, r);
	drain_stderr(s);
	if (!libssh2_channel_eof(s->channel))
		return -EAGAIN;
	start_grace(s);
	return read_end(s);
}

/* Finishes what a read left half sent, without losing what the read brings.  True when done. */
static bool finish_read(struct stream_ssh2 *s)
{
	(void)read_ahead(s); /* an error comes again, to the next read or write */
	return s->owner != OWNER_READ;
}

static ssize_t write_channel(struct stream_ssh2 *s, const void *p, size_t n)
{
	ssize_t r;

	if (s->owner == OWNER_READ && !finish_read(s))
		return -EAGAIN;
	if (s->offered)
		n = s->offered;
	r = libssh2_channel_write(s->channel, p, n);
	note_owner(s, OWNER_WRITE, r);
	s->offered = r == LIBSSH2_ERROR_EAGAIN ? n : 0;
	if (r > 0)
		return r;
	if (r == 0 || r == LIBSSH2_ERROR_EAGAIN)
		return -EAGAIN;
	/* The remote process closed its input or is gone; the session may be well. */
	if (r == LIBSSH2_ERROR_CHANNEL_CLOSED || r == LIBSSH2_ERROR_CHANNEL_EOF_SENT)
		return -EPIPE;
	return session_error(s, r);
}

/*
 * A write takes in all that has come before it sends, so that the socket goes
 * quiet while libssh2 holds data, or the end of it.  And a read that had to
 * wait for this write may open the window now; the remote may wait for that.
 */
static bool holds_input(struct stream_ssh2 *s)
{
	if (s->put_off && s->owner == OWNER_NONE) {
		s->put_off = false;
		return true;
	}
	return s->ahead.len || libssh2_poll_channel_read(s->channel, 1) ||
	       (!s->at_end && libssh2_channel_eof(s->channel));
}

static ssize_t ssh2_write(struct stream *stream, const void *p, size_t n)
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;
	ssize_t r = write_channel(s, p, n);

	s->stream.inside = holds_input(s);
	return r;
}

static void ssh2_want(struct stream *stream, bool reading, bool blocked, int fds[2],
		      uint32_t events[2])
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;

	fds[0] = fds[1] = -1;
	events[0] = events[1] = 0;
	if (!reading && !blocked)
		return;
	/* A write may wait for the remote's window, so for input. */
	fds[0] = s->sock;
	events[0] = (s->put_off ? 0u : LOOP_READ) | (sends_blocked(s) ? LOOP_WRITE : 0u);
	if (s->at_end) {
		fds[1] = s->grace_fd;
		events[1] = LOOP_READ;
	}
}

static void put_remote_end(struct stream_ssh2 *s)
{
	char *signal = NULL;
	size_t n = 0;

	(void)libssh2_channel_get_exit_signal(s->channel, &signal, &n, NULL, NULL, NULL, NULL);
	if (signal) {
		char *shown = str_escape(signal, n, 16);

		buf_putf(&s->why, "killed by signal %s", shown);
		free(shown);
		libssh2_free(s->session, signal);
	} else {
		buf_putf(&s->why, "exit status %d", libssh2_channel_get_exit_status(s->channel));
	}
}

static const char *ssh2_explain(struct stream *stream)
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;

	buf_reset(&s->why);
	if (s->error[0])
		buf_putf(&s->why, "%s", s->error);
	else if (s->at_end && libssh2_channel_wait_closed(s->channel) == 0)
		put_remote_end(s);
	stderr_tail_put(&s->tail, &s->why);
	return buf_cstr(&s->why);
}

void ssh2_session_end(LIBSSH2_SESSION *session, int sock)
{
	(void)shutdown(sock, SHUT_RDWR);
	/* Each call gets one step further; a dead socket can't block it for ever. */
	for (int i = 0; i < 16 && libssh2_session_free(session) == LIBSSH2_ERROR_EAGAIN; i++)
		;
	close(sock);
}

static void ssh2_free(struct stream *stream)
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;

	if (!s->error[0] && s->owner == OWNER_NONE)
		(void)libssh2_session_disconnect(s->session, "done"); /* a courtesy */
	ssh2_session_end(s->session, s->sock);
	if (s->grace_fd >= 0)
		close(s->grace_fd);
	buf_release(&s->ahead);
	buf_release(&s->why);
	stderr_tail_release(&s->tail);
	free(s->worker);
	free(s);
}

static const struct stream_ops ssh2_ops = {
	.read = ssh2_read,
	.write = ssh2_write,
	.want = ssh2_want,
	.explain = ssh2_explain,
	.free = ssh2_free,
};

struct stream *ssh2_stream_new(struct ssh2_attempt *a, LIBSSH2_CHANNEL *channel)
{
	struct stream_ssh2 *s = xcalloc(1, sizeof(*s));

	s->stream.ops = &ssh2_ops;
	s->stream.engine = true;
	s->session = a->session;
	s->channel = channel;
	s->sock = a->sock;
	s->worker = xstrdup(a->req->worker);
	s->grace_fd = -1;
	a->session = NULL;
	a->sock = -1;
	return &s->stream;
}
