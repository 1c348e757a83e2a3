/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The near end of a link for tests: connects, sends messages to a link-echo,
 * checks what comes back, and says on stdout what happened:
 *	connected HOW / failed ERROR: TEXT / closed ERROR: TEXT / echoed N bulk, M prio
 * Exit status 0 when everything was echoed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/link.h"
#include "concc/log.h"
#include "concc/loop.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "reap.h"

#define BULK_SIZE  100000u
#define PRIO_EVERY 10

struct client {
	struct loop *loop;
	struct link *link;
	int sndbuf; /* 0: the kernel's choice */
	uint32_t n_bulk, bulk_sent, bulk_got, prio_sent, prio_got, overtook;
	uint8_t *payload;
	int status;
};

static void finish(struct client *c, int status)
{
	c->status = status;
	loop_quit(c->loop);
}

static void send_bulk(struct client *c)
{
	while (c->bulk_sent < c->n_bulk && link_queued_bulk(c->link) < LINK_BULK_LOW) {
		memcpy(c->payload, &c->bulk_sent, sizeof(c->bulk_sent));
		c->bulk_sent++;
		link_send(c->link, MSG_JOB_DATA, LINK_BULK, c->payload, BULK_SIZE);
		if (c->bulk_sent % PRIO_EVERY == 0) {
			uint32_t m[2] = {c->prio_sent++, c->bulk_sent};

			link_send(c->link, MSG_JOB, LINK_PRIO, m, sizeof(m));
		}
	}
}

static int on_bulk(struct client *c, struct blob p)
{
	uint32_t seq;

	memcpy(&seq, p.p, sizeof(seq));
	if (p.n != BULK_SIZE || seq != c->bulk_got ||
	    memcmp(p.p + sizeof(seq), c->payload + sizeof(seq), BULK_SIZE - sizeof(seq)) != 0)
		return CONCC_E_PROTO;
	c->bulk_got++;
	return 0;
}

static int on_message(void *data, uint8_t type, struct blob p)
{
	struct client *c = data;
	uint32_t m[2];
	int err = 0;

	if (type == MSG_JOB_DATA) {
		err = on_bulk(c, p);
	} else {
		if (p.n != sizeof(m))
			return CONCC_E_PROTO;
		memcpy(m, p.p, sizeof(m));
		if (m[0] != c->prio_got++)
			return CONCC_E_PROTO;
		c->overtook += c->bulk_got < m[1];
	}
	if (c->bulk_got == c->n_bulk && c->prio_got == c->n_bulk / PRIO_EVERY) {
		printf("echoed %u bulk, %u prio\n", c->bulk_got, c->prio_got);
		printf("overtook %u\n", c->overtook);
		finish(c, 0);
	}
	return err;
}

static void on_closed(void *data, int err, const char *text)
{
	printf("closed %s: %s\n", err_text(err), text);
	finish(data, 1);
}

static void on_drained(void *data)
{
	send_bulk(data);
}

static void set_sndbuf(struct stream *s, int size)
{
	uint32_t events[2];
	int fds[2];

	s->ops->want(s, true, false, fds, events);
	if (setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0)
		abort();
}

static void on_connected(void *data, struct stream *s, int err, const char *msg, const char *how)
{
	static const struct link_ops ops = {
		.message = on_message,
		.closed = on_closed,
		.drained = on_drained,
	};
	/* No PING: it would set going again what got stuck. */
	static const struct link_config conf = {.end = LINK_CLIENT, .dead_ms = 20000};
	struct client *c = data;

	if (err < 0) {
		printf("failed %s: %s\n", err_text(err), msg);
		finish(c, 1);
		return;
	}
	printf("connected %s\n", how);
	if (c->sndbuf)
		set_sndbuf(s, c->sndbuf);
	c->link = link_new(c->loop, s, &conf, &ops, c);
	send_bulk(c);
}

static enum ssh_mode mode_of(const char *name)
{
	if (streq(name, "libssh2"))
		return SSH_LIBSSH2;
	return streq(name, "openssh") ? SSH_OPENSSH : SSH_AUTO;
}

int main(int argc, char **argv)
{
	struct transport_config conf = {.name = "test", .timeout_ms = 20000};
	struct client c = {.n_bulk = PRIO_EVERY};
	int opt;

	while ((opt = getopt(argc, argv, "a:b:c:m:n:s:t:w:")) != -1) {
		switch (opt) {
		case 'a':
			conf.address = optarg;
			break;
		case 'b': /* megabytes each way */
			c.n_bulk = (uint32_t)atoi(optarg) * 1000000 / BULK_SIZE;
			break;
		case 'c':
			conf.command = optarg;
			break;
		case 'm':
			conf.ssh = mode_of(optarg);
			break;
		case 'n':
			c.sndbuf = atoi(optarg);
			break;
		case 's':
			conf.ssh_program = optarg;
			break;
		case 't':
			conf.timeout_ms = (uint32_t)atoi(optarg);
			break;
		case 'w':
			conf.worker_program = optarg;
			break;
		default:
			return 2;
		}
	}
	log_init("link-client", LOG_LEVEL_WARN);
	if (loop_new(&c.loop) < 0)
		return 2;
	c.payload = xmalloc(BULK_SIZE);
	for (size_t i = 0; i < BULK_SIZE; i++)
		c.payload[i] = (uint8_t)rand();
	(void)transport_connect(c.loop, &conf, on_connected, &c);
	(void)loop_run(c.loop);
	link_free(c.link);
	reap_children(c.loop);
	free(c.payload);
	loop_free(c.loop);
	return c.status;
}
