/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "session.h"
#include "shown.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/process.h"
#include "concc/wrapper.h"

struct session {
	struct conn conn;
	struct input *in;
	uint64_t sent;	 /* of the input, to this job */
	uint32_t credit; /* bytes of input the server takes now */
	bool eof_sent;
	struct shown *shown;
};

/* ---- input ---- */

static int spool(struct input *in, const void *p, size_t n)
{
	if (in->spool_fd < 0) {
		in->spool_fd = memfd_create("concc-stdin", MFD_CLOEXEC);
		if (in->spool_fd < 0)
			return -errno;
	}
	in->spooled += n;
	return write_full(in->spool_fd, p, n);
}

/* Ends with the input, or when nobody reads any more, which the pipe tells. */
static void feed(const struct input *in, int to)
{
	struct pollfd p[2] = {{.fd = 0, .events = POLLIN}, {.fd = to}};
	char chunk[16 * 1024];
	uint64_t at = 0;
	ssize_t n;

	while (at < in->spooled) {
		n = pread(in->spool_fd, chunk, sizeof(chunk), (off_t)at);
		if (n <= 0 || write_full(to, chunk, (size_t)n) < 0)
			return;
		at += (uint64_t)n;
	}
	while (poll(p, 2, -1) >= 0 || errno == EINTR) {
		if (p[1].revents)
			return;
		if (!p[0].revents)
			continue;
		n = read(0, chunk, sizeof(chunk));
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
			return;
		if (n > 0 && write_full(to, chunk, (size_t)n) < 0)
			return;
	}
}

/* Detached: the command must not find a child that it did not start. */
static int start_feeder(const struct input *in, const int pipe_fds[2])
{
	const int keep[] = {0, in->spool_fd, pipe_fds[1]};
	int r = process_fork_detached();

	if (r != 0)
		return r < 0 ? r : 0;
	fd_detach_all(keep, sizeof(keep) / sizeof(keep[0]));
	feed(in, pipe_fds[1]);
	_exit(0);
}

int input_replay_fd(struct input *in)
{
	int fds[2], r;

	if (in->eof)
		return lseek(in->spool_fd, 0, SEEK_SET) < 0 ? -errno : in->spool_fd;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	r = start_feeder(in, fds);
	close(fds[1]);
	if (r == 0)
		return fds[0];
	close(fds[0]);
	return r;
}

static int send_input(struct session *s, const void *p, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_bytes_encode(&b, 0, p, n);
	s->sent += n;
	s->credit -= (uint32_t)n;
	s->eof_sent = n == 0;
	return conn_send(&s->conn, MSG_RUN_INPUT, &b);
}

/* The next bytes: those an earlier attempt has read, then what comes from stdin. */
static int pump_input(struct session *s)
{
	char chunk[16 * 1024];
	size_t max = s->credit < sizeof(chunk) ? s->credit : sizeof(chunk);
	ssize_t n;
	int r;

	if (s->sent < s->in->spooled) {
		n = pread(s->in->spool_fd, chunk, max, (off_t)s->sent);
		return n <= 0 ? -EIO : send_input(s, chunk, (size_t)n);
	}
	if (s->in->eof)
		return send_input(s, NULL, 0);
	n = read(0, chunk, max);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		s->in->eof = true;
		return send_input(s, NULL, 0);
	}
	r = spool(s->in, chunk, (size_t)n);
	return r < 0 ? r : send_input(s, chunk, (size_t)n);
}

static bool input_is_due(const struct session *s)
{
	return s->in->wanted && !s->eof_sent && s->credit > 0;
}

/* ---- messages ---- */

static int on_output(struct session *s, struct blob payload)
{
	struct blob bytes;
	uint8_t stream;
	uint32_t id;
	int r;

	r = msg_output_decode(payload, &id, &stream, &bytes);
	if (r < 0)
		return r;
	bytes = shown_next(s->shown, stream - 1, bytes);
	/* A reader that went away is the command's own affair: locally it would get SIGPIPE too. */
	(void)write_full(stream, bytes.p, bytes.n);
	return 0;
}

/* 1 when the job ended, 0 to go on. */
static int on_message(struct session *s, uint8_t type, struct blob payload, struct session_end *ret)
{
	uint32_t id, n;
	int r;

	switch (type) {
	case MSG_RUN_OUTPUT:
		return on_output(s, payload);
	case MSG_RUN_INPUT_CREDIT:
		r = msg_pair_decode(payload, &id, &n);
		if (r == 0)
			s->credit += n;
		return r;
	case MSG_RUN_EXIT:
		r = msg_run_exit_decode(payload, &ret->how, &ret->code, &ret->worker);
		return r < 0 ? r : 1;
	case MSG_RUN_FAIL:
		r = msg_run_fail_decode(payload, &ret->fail);
		ret->failed = r == 0;
		return r < 0 ? r : 1;
	}
	return CONCC_E_PROTO;
}

/* Waits for a message, or for input when that is due.  True when there is a message. */
static int wait_message(struct session *s)
{
	struct pollfd p[2] = {
		{.fd = s->conn.fd, .events = POLLIN},
		{.fd = s->sent < s->in->spooled || s->in->eof ? -1 : 0, .events = POLLIN},
	};

	while (input_is_due(s) && !conn_has_frame(&s->conn)) {
		bool ready = p[1].fd < 0;
		int r;

		if (poll(p, 2, ready ? 0 : -1) < 0 && errno != EINTR)
			return -errno;
		if (p[0].revents)
			break;
		if (!ready && !p[1].revents)
			continue;
		r = pump_input(s);
		if (r < 0)
			return r;
		p[1].fd = s->sent < s->in->spooled || s->in->eof ? -1 : 0;
	}
	return 0;
}

static int relay(struct session *s, struct session_end *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	int r = 0;

	while (r == 0) {
		uint8_t type;

		r = wait_message(s);
		if (r == 0)
			r = conn_recv(&s->conn, &type, &b);
		if (r == 0)
			r = on_message(s, type, (struct blob){b.data, b.len}, ret);
	}
	return r < 0 ? r : 0;
}

#define WAIT_WORDS_MAX 200 /* bytes of the command, for a person */

void session_wait(const char *dir, struct conn *c, char *const *argv)
{
	_cleanup_buf_ struct buf words = BUF_INIT, b = BUF_INIT;
	char *ctl[] = {(char *)"waiting", NULL, NULL};

	if (c->fd >= 0 || server_connect(dir, c) < 0)
		return;
	for (; *argv && words.len < WAIT_WORDS_MAX; argv++)
		buf_putf(&words, "%s%.*s", words.len ? " " : "", WAIT_WORDS_MAX, *argv);
	ctl[1] = (char *)buf_cstr(&words);
	msg_ctl_encode(&b, ctl);
	if (conn_send(c, MSG_CTL, &b) < 0)
		conn_release(c);
}

/* A server that went while we waited for a slot has a successor by now. */
static int send_run(const char *dir, struct conn *c, const struct buf *run)
{
	int r;

	if (c->fd >= 0 && conn_send(c, MSG_RUN, run) == 0)
		return 0;
	conn_release(c);
	r = server_connect(dir, c);
	return r < 0 ? r : conn_send(c, MSG_RUN, run);
}

int session_run(const char *dir, struct conn *c, const struct buf *run, struct input *in,
		struct shown *shown, struct session_end *ret)
{
	struct session s = {.in = in, .credit = PROTO_INPUT_WINDOW, .shown = shown};
	int r;

	r = send_run(dir, c, run);
	s.conn = *c;
	*c = (struct conn){.fd = -1};
	if (r == 0)
		r = relay(&s, ret);
	conn_release(&s.conn);
	return r;
}
