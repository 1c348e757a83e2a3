/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "session.h"

#include <errno.h>
#include <poll.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/wrapper.h"
#include "input.h"
#include "output.h"

struct session {
	struct conn conn;
	struct input *in;
	uint64_t sent;	 /* of the input, to this job */
	uint64_t read;	 /* of it, by the job */
	uint32_t credit; /* bytes of input the server takes now */
	bool eof_sent;
	struct output *out;
};

#define ENDED 1 /* of what handles an event: this was the last, and *ret says what it was */

/* ---- input ---- */

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
static int pump_input(struct session *s, struct session_end *ret)
{
	char chunk[16 * 1024];
	size_t max = s->credit < sizeof(chunk) ? s->credit : sizeof(chunk);
	ssize_t n = input_read(s->in, s->sent, chunk, max);

	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n < 0) {
		ret->what = SESSION_INPUT;
		return ENDED;
	}
	return send_input(s, chunk, (size_t)n);
}

/* n more bytes. */
static int on_input_read(struct session *s, uint32_t n, struct session_end *ret)
{
	if (n > s->sent - s->read)
		return CONCC_E_PROTO;
	s->read += n;
	s->credit += n;
	if (input_was_read(s->in, s->read) == 0)
		return 0;
	ret->what = SESSION_INPUT;
	return ENDED;
}

static bool input_is_due(const struct session *s)
{
	return s->in->wanted && !s->eof_sent && s->credit > 0;
}

/* ---- messages ---- */

static int on_output(struct session *s, struct blob payload, struct session_end *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct blob bytes;
	uint8_t stream;
	uint32_t id;
	int r;

	r = msg_output_decode(payload, &id, &stream, &bytes);
	if (r < 0)
		return r;
	if (output_show(s->out, stream - 1, bytes) < 0) {
		ret->what = SESSION_OUTPUT;
		return ENDED;
	}
	/* Until all is out, the server puts none of the job's files in place. */
	msg_pair_encode(&b, 0, (uint32_t)bytes.n);
	return conn_send(&s->conn, MSG_RUN_OUTPUT_CREDIT, &b);
}

static int on_message(struct session *s, uint8_t type, struct blob payload, struct session_end *ret)
{
	uint32_t id, n;
	int r;

	switch (type) {
	case MSG_RUN_OUTPUT:
		return on_output(s, payload, ret);
	case MSG_RUN_INPUT_CREDIT:
		r = msg_pair_decode(payload, &id, &n);
		return r < 0 ? r : on_input_read(s, n, ret);
	case MSG_RUN_EXIT:
		r = msg_run_exit_decode(payload, &ret->how, &ret->code, &ret->worker);
		ret->what = SESSION_EXIT;
		return r < 0 ? r : ENDED;
	case MSG_RUN_FAIL:
		r = msg_run_fail_decode(payload, &ret->fail);
		ret->what = SESSION_FAIL;
		return r < 0 ? r : ENDED;
	}
	return CONCC_E_PROTO;
}

/* Waits for a message, and sends input as it is due. */
static int wait_message(struct session *s, struct session_end *ret)
{
	while (input_is_due(s) && !conn_has_frame(&s->conn)) {
		bool ready = input_has(s->in, s->sent);
		struct pollfd p[2] = {
			{.fd = s->conn.fd, .events = POLLIN},
			{.fd = ready ? -1 : input_fd(s->in), .events = POLLIN},
		};
		int r;

		if (poll(p, 2, ready ? 0 : -1) < 0 && errno != EINTR)
			return -errno;
		if (p[0].revents)
			break;
		if (!ready && !p[1].revents)
			continue;
		r = pump_input(s, ret);
		if (r != 0)
			return r;
	}
	return 0;
}

/*
 * The caller's descriptors are of no more use: the command runs here, where it meets the error
 * itself, when nothing of the job is left.  One that has ended without the input that there is no
 * more of has done what it had to.
 */
static int cancel(struct session *s, struct session_end *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	uint8_t type = 0;
	int r = conn_send(&s->conn, MSG_RUN_CANCEL, &b);

	while (r == 0 && type != MSG_RUN_FAIL && type != MSG_RUN_EXIT)
		r = conn_recv(&s->conn, &type, &b);
	if (r < 0 || type == MSG_RUN_FAIL || ret->what == SESSION_OUTPUT)
		return 0;
	r = on_message(s, type, (struct blob){b.data, b.len}, ret);
	return r < 0 ? r : 0;
}

static int relay(struct session *s, struct session_end *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	int r = 0;

	while (r == 0) {
		uint8_t type;

		r = wait_message(s, ret);
		if (r == 0)
			r = conn_recv(&s->conn, &type, &b);
		if (r == 0)
			r = on_message(s, type, (struct blob){b.data, b.len}, ret);
	}
	if (r == ENDED && (ret->what == SESSION_INPUT || ret->what == SESSION_OUTPUT))
		r = cancel(s, ret);
	return r < 0 ? r : 0;
}

#define WAIT_WORDS_MAX 200 /* bytes of the command, for a person */

void session_wait(const char *dir, struct conn *c, char *const *argv)
{
	_cleanup_buf_ struct buf words = BUF_INIT, b = BUF_INIT;
	char *ctl[] = {(char *)"waiting", NULL, NULL};

	if (c->waits || (c->fd < 0 && server_connect(dir, c) < 0))
		return;
	c->waits = true;
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
		struct output *out, struct session_end *ret)
{
	struct session s = {.in = in,
			    .sent = in->in_run ? in->seen : 0,
			    .eof_sent = in->in_run,
			    .credit = PROTO_INPUT_WINDOW,
			    .out = out};
	int r;

	(void)input_was_read(in, 0);
	r = send_run(dir, c, run);
	s.conn = *c;
	*c = (struct conn){.fd = -1};
	/* A server that has no room for us has said so, and not heard us out. */
	if (r == 0 || r == CONCC_E_CLOSED)
		r = relay(&s, ret);
	if (r == 0 && ret->what == SESSION_FAIL && ret->fail.what == RUN_FAIL_MISS)
		*c = s.conn;
	else
		conn_release(&s.conn);
	return r;
}
