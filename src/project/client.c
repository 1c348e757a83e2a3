/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* One connection at the unix socket: a wrapper with a job, or `concc` with a question. */
#include "commits.h"
#include "disk.h"
#include "jobs.h"
#include "listen.h"
#include "lookup.h"
#include "peers.h"
#include "results.h"
#include "run.h"
#include "status.h"
#include "watchers.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

#define CLIENTS_MAX 8192 /* wrappers connected at once: an fd each */
/* Descriptors that new jobs leave alone, or a quarter of all: those that run need some for their
 * listings, contents and results. */
#define FDS_KEPT 128

const char client_too_many[] = "the project server can't open more files (see ulimit -n)";
#define ENVIRON_MAX (8 * 1024 * 1024) /* more than a process can be started with */

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

const char *client_sees_else(struct client *c)
{
	const char *why = NULL;

	if (!c->is_beside_us)
		why = namespaces_differ(&c->server->namespaces, c->pid);
	c->is_beside_us = !why;
	return why;
}

void client_settled(struct client *c)
{
	if (!c->waiting_up)
		return;
	c->waiting_up = false;
	reply(c, 0, "");
}

/*
 * The agent that we have from who started us ends with that login.  When workers are down and who
 * asks for them has another one, that is tried at once; its environment is this user's own.
 */
static void offer_agent(struct client *c)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/environ", (int)c->pid);
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *ours = getenv("SSH_AUTH_SOCK"), *theirs = NULL;
	struct stat st;

	if (!peers_any_down(c->server) || read_file_at(AT_FDCWD, path, ENVIRON_MAX, &b) < 0)
		return;
	(void)buf_cstr(&b); /* its last entry ends, too */
	for (size_t i = 0; i < b.len; i += strlen((char *)b.data + i) + 1) {
		if (str_starts((char *)b.data + i, "SSH_AUTH_SOCK="))
			theirs = (char *)b.data + i + strlen("SSH_AUTH_SOCK=");
	}
	if (!theirs || (ours && streq(ours, theirs)) || stat(theirs, &st) < 0 ||
	    !S_ISSOCK(st.st_mode))
		return;
	peers_offer_agent(c->server, theirs);
}

static int on_ctl(struct client *c, struct blob payload)
{
	_cleanup_strv_ char **words = NULL;
	_cleanup_buf_ struct buf out = BUF_INIT;
	int r;

	r = msg_ctl_decode(payload, &words);
	if (r < 0)
		return r;
	if (!streq(words[0], "stop") && !streq(words[0], "watch") && !streq(words[0], "flush"))
		offer_agent(c);
	if (streq(words[0], "status")) {
		if (words[1] && streq(words[1], "json"))
			status_json(c->server, &out);
		else
			status_text(c->server, &out);
		reply(c, 0, buf_cstr(&out));
	} else if (streq(words[0], "why")) {
		status_why(c->server, &out);
		reply(c, 0, buf_cstr(&out));
	} else if (streq(words[0], "reset")) {
		if (!words[1] || !server_is_busy(c->server))
			status_reset(c->server);
		reply(c, 0, "");
	} else if (streq(words[0], "settled")) {
		c->waiting_up = true;
		if (peers_settled(c->server))
			client_settled(c);
	} else if (streq(words[0], "waiting") && words[1]) {
		/* No reply: until it brings its job, or goes. */
		if (c->run || c->hit)
			return CONCC_E_PROTO;
		jobs_drop(c->job);
		c->job = jobs_wait(c, words[1]);
	} else if (streq(words[0], "watch")) {
		watch_ask(c);
	} else if (streq(words[0], "stop")) {
		/* No reply: that the connection ends is the sign that everything is down. */
		c->stops = true;
		server_stop(c->server);
	} else if (streq(words[0], "flush")) {
		results_flush(c);
	} else {
		reply(c, 1, "unknown command");
	}
	return 0;
}

static int on_run(struct client *c, struct blob payload)
{
	struct msg_run m;
	int r;

	r = msg_run_decode(payload, &m);
	if (r < 0)
		return r;
	if (!*m.worker)
		return lookup_start(c, &m);
	if (!c->seek && !c->hit)
		return run_start(c, &m);
	msg_run_release(&m);
	return CONCC_E_PROTO;
}

static void tell_fail(void *data)
{
	struct client *c = data;

	c->fail_waits = NULL;
	link_send_buf(c->link, MSG_RUN_FAIL, LINK_BULK, &c->fail);
}

void client_fail(struct client *c, const struct msg_run_fail *m)
{
	commits_untell(steal_ptr(&c->fail_waits));
	buf_reset(&c->fail);
	msg_run_fail_encode(&c->fail, m);
	commits_after_drops(c->server, tell_fail, c, &c->fail_waits);
}

static void forget_job(struct client *c)
{
	if (c->run)
		run_client_gone(c->run);
	run_forget_beginning(c);
	lookup_free(c->hit);
	seek_free(c->seek);
}

/* It will run the command itself.  Of a job whose end is under way, or told, it hears that. */
static void on_cancel(struct client *c)
{
	static const struct msg_run_fail fail = {
		.what = RUN_FAIL_LOCAL,
		.quiet = true,
		.rule = (char *)"cancelled",
		.text = (char *)"",
	};

	if (c->run ? run_is_ending(c->run) : c->hit ? lookup_is_ending(c->hit) : !c->seek)
		return;
	forget_job(c);
	jobs_cancel(steal_ptr(&c->job));
	client_fail(c, &fail);
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
	case MSG_RUN_OUTPUT_CREDIT:
		if (c->hit)
			return lookup_output_credit(c->hit, payload);
		return c->run ? run_output_credit(c->run, payload) : 0;
	case MSG_RUN_CANCEL:
		on_cancel(c);
		return 0;
	case MSG_RUN_HERE:
		return c->run ? CONCC_E_PROTO : jobs_local(c->server, c->fd, c->pid, payload);
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
	forget_job(c);
	/* We are inside a callback of its link. */
	loop_defer(c->server->loop, free_later, c);
}

static void on_drained(void *data)
{
	struct client *c = data;

	if (c->run)
		run_client_drained(c->run);
	watch_read(c);
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

void client_refuse(int fd)
{
	uint8_t header[PROTO_HEADER_LEN] = {0};
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_run_fail m = {.what = RUN_FAIL_LOCAL,
				 .rule = (char *)"shortage",
				 .text = (char *)client_too_many};

	buf_append(&b, header, sizeof(header));
	msg_run_fail_encode(&b, &m);
	proto_put_header(b.data, MSG_RUN_FAIL, 0, (uint32_t)(b.len - sizeof(header)));
	/* A new socket has room for it. */
	(void)send(fd, b.data, b.len, MSG_DONTWAIT | MSG_NOSIGNAL);
	close(fd);
}

/* The lowest free number is what accept(2) gives, so all below it are in use. */
static bool leaves_too_few(const struct server *s, int fd)
{
	int limit = listen_fd_limit(s);
	int kept = limit / 4 < FDS_KEPT ? limit / 4 : FDS_KEPT;

	return fd >= limit - kept;
}

static bool is_one_too_many(struct server *s, int fd)
{
	if (!leaves_too_few(s, fd))
		return false;
	listen_learn_fd_limit(s);
	return leaves_too_few(s, fd);
}

void client_accept(struct server *s, int fd)
{
	static const struct link_config config = {0};
	struct stream *stream;
	struct client *c;
	struct ucred cred;

	if (!is_ours(fd, &cred)) {
		close(fd);
		return;
	}
	if (s->n_clients >= CLIENTS_MAX) {
		client_refuse(fd);
		return;
	}
	stream = stream_from_fds(fd, fd);
	c = xcalloc(1, sizeof(*c));
	c->server = s;
	c->fd = fd;
	c->slot.fd = -1;
	c->pid = cred.pid;
	c->in_other_groups = groups_differ(fd);
	c->too_many = is_one_too_many(s, fd);
	list_append(&s->clients, &c->of_server);
	s->n_clients++;
	c->link = link_new(s->loop, stream, &config, &client_link_ops, c);
}

void client_free(struct client *c)
{
	watch_leave(c);
	disk_forget(c);
	list_remove(&c->of_server);
	c->server->n_clients--;
	forget_job(c);
	jobs_cancel(steal_ptr(&c->job));
	commits_untell(c->fail_waits);
	buf_release(&c->fail);
	if (c->server->pool)
		pool_release(c->server->pool, &c->slot);
	link_close(c->link);
	link_free(c->link);
	server_busy(c->server);
	free(c);
}
