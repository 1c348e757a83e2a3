/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "concc/err.h"
#include "concc/proto.h"
#include "concc/wrapper.h"

void conn_release(struct conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->waits = false;
	buf_release(&c->in);
}

/* MSG_NOSIGNAL: that the server died must not kill the compiler call. */
static int send_all(int fd, struct iovec iov[2])
{
	struct msghdr h = {.msg_iov = iov, .msg_iovlen = 2};

	while (iov[0].iov_len + iov[1].iov_len) {
		ssize_t n = sendmsg(fd, &h, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EPIPE || errno == ECONNRESET ? CONCC_E_CLOSED : -errno;
		for (int i = 0; i < 2; i++) {
			size_t k = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

			iov[i].iov_base = (char *)iov[i].iov_base + k;
			iov[i].iov_len -= k;
			n -= (ssize_t)k;
		}
	}
	return 0;
}

int conn_send(struct conn *c, uint8_t type, const struct buf *b)
{
	size_t at = 0;

	do {
		size_t n = b->len - at < PROTO_FRAME_MAX ? b->len - at : PROTO_FRAME_MAX;
		uint8_t header[PROTO_HEADER_LEN];
		struct iovec iov[2] = {{header, sizeof(header)}, {b->data + at, n}};
		int r;

		at += n;
		proto_put_header(header, type, at < b->len ? PROTO_F_MORE : 0, (uint32_t)n);
		r = send_all(c->fd, iov);
		if (r < 0)
			return r;
	} while (at < b->len);
	return 0;
}

static bool whole_frame(const struct conn *c, struct proto_header *h, int *ret_err)
{
	*ret_err = 0;
	if (c->in.len < PROTO_HEADER_LEN)
		return false;
	*ret_err = proto_get_header(c->in.data, h);
	return *ret_err == 0 && c->in.len >= PROTO_HEADER_LEN + h->len;
}

bool conn_has_frame(const struct conn *c)
{
	struct proto_header h;
	int err;

	return whole_frame(c, &h, &err) || err < 0;
}

static int fill(struct conn *c)
{
	uint8_t *p = buf_grow(&c->in, PROTO_FRAME_MAX);
	ssize_t n;

	do
		n = read(c->fd, p, PROTO_FRAME_MAX);
	while (n < 0 && errno == EINTR);
	c->in.len -= PROTO_FRAME_MAX - (n > 0 ? (size_t)n : 0);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return CONCC_E_CLOSED;
	return n < 0 ? -errno : 0;
}

int conn_recv(struct conn *c, uint8_t *ret_type, struct buf *out)
{
	struct proto_header h;
	int err;

	buf_reset(out);
	for (;;) {
		while (!whole_frame(c, &h, &err)) {
			if (err == 0)
				err = fill(c);
			if (err < 0)
				return err;
		}
		/* The server never compresses here. */
		if (h.flags & PROTO_F_LZ4 || out->len + h.len > PROTO_MSG_MAX)
			return CONCC_E_PROTO;
		buf_append(out, c->in.data + PROTO_HEADER_LEN, h.len);
		buf_consume(&c->in, PROTO_HEADER_LEN + h.len);
		if (!(h.flags & PROTO_F_MORE)) {
			*ret_type = h.type;
			return 0;
		}
	}
}
