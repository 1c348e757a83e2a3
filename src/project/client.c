/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* One connection at the unix socket: a wrapper with a job, or `concc` with a question. */
#include "server.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

static void free_later(void *data)
{
	client_free(data);
}

static void reply(struct client *c, uint32_t status, const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_ctl_reply_encode(&b, status, text);
	link_send_buf(c->link, MSG_CTL_REPLY, LINK_BULK, &b);
}

void client_settled(struct client *c)
{
	if (!c->waiting_up)
		return;
	c->waiting_up = false;
	reply(c, 0, "");
}

static int on_ctl(struct client *c, struct blob payload)
{
	_cleanup_strv_ char **words = NULL;
	_cleanup_buf_ struct buf out = BUF_INIT;
	int r;

	r = msg_ctl_decode(payload, &words);
	if (r < 0)
		return r;
	if (streq(words[0], "status")) {
		if (words[1] && streq(words[1], "json"))
			status_json(c->server, &out);
		else
			status_text(c->server, &out);
		reply(c, 0, buf_cstr(&out));
	} else if (streq(words[0], "why")) {
		status_why(c->server, &out);
		reply(c, 0, buf_cstr(&out));
	} else if (streq(words[0], "settled")) {
		c->waiting_up = true;
		if (server_settled(c->server))
			client_settled(c);
	} else if (streq(words[0], "waiting") && words[1]) {
		/* No reply: until it brings its job, or goes. */
		free(c->waiting);
		c->waiting = str_escape(words[1], strlen(words[1]), 160);
		c->waiting_since_ms = now_ms();
	} else if (streq(words[0], "stop")) {
		/* No reply: that the connection ends is the sign that everything is down. */
		server_stop(c->server);
	} else {
		reply(c, 1, "unknown command");
	}
	return 0;
}

static int on_run(struct client *c, struct blob payload)
{
	struct msg_run m;
	int r;

	free(steal_ptr(&c->waiting));
	r = msg_run_decode(payload, &m);
	return r < 0 ? r : run_start(c, &m);
}

static int on_message(void *data, uint8_t type, struct blob payload)
{
	struct client *c = data;

	switch (type) {
	case MSG_RUN:
		return on_run(c, payload);
	case MSG_RUN_INPUT:
		/* Late input of a job that has ended is no offence. */
		return c->run ? run_input(c->run, payload) : 0;
	case MSG_CTL:
		return on_ctl(c, payload);
	}
	return CONCC_E_PROTO;
}

static void on_closed(void *data, int err, const char *text)
{
	struct client *c = data;

	if (err != CONCC_E_CLOSED)
		log_debug("a wrapper's connection ended: %s", text ? text : err_text(err));
	if (c->run)
		run_client_gone(c->run);
	/* We are inside a callback of its link. */
	loop_defer(c->server->loop, free_later, c);
}

static void on_drained(void *data)
{
	struct client *c = data;

	if (c->run)
		run_client_drained(c->run);
}

static const struct link_ops client_link_ops = {
	.message = on_message,
	.closed = on_closed,
	.drained = on_drained,
};

/* The directory is 0700, so only this user and root come here at all. */
static bool is_ours(int fd, struct ucred *ret)
{
	socklen_t n = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &n) == 0 &&
	       (ret->uid == geteuid() || ret->uid == 0);
}

void client_accept(struct server *s, int fd)
{
	static const struct link_config config = {0};
	struct stream *stream;
	struct ucred cred;
	struct client *c;

	if (s->n_clients >= SERVER_CLIENTS_MAX || !is_ours(fd, &cred)) {
		close(fd); /* the wrapper runs its command itself */
		return;
	}
	stream = stream_from_fds(fd, fd);
	c = xcalloc(1, sizeof(*c));
	c->server = s;
	c->pid = cred.pid;
	list_append(&s->clients, &c->of_server);
	s->n_clients++;
	c->link = link_new(s->loop, stream, &config, &client_link_ops, c);
}

void client_free(struct client *c)
{
	list_remove(&c->of_server);
	c->server->n_clients--;
	server_leave(c->server);
	if (c->run)
		run_client_gone(c->run);
	link_close(c->link);
	link_free(c->link);
	free(c->waiting);
	free(c);
}
