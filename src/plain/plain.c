/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "plain.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

#define PING_MS 2000
#define DEAD_MS 6000
/* As many as a client keeps; it names them by itself. */
#define TABLE_MAX 65536

void plain_fail(struct plain *p, const char *why)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (p->ending)
		return;
	p->ending = true;
	/* Before the client hears of it: whatever still runs there writes to its files no more. */
	shares_free(p);
	p->result = errmsg_set(p->msg, CONCC_E_CLOSED, "%s: %s", p->conf->host, why);
	msg_bye_encode(&b, why);
	link_send_buf(p->link, MSG_BYE, LINK_PRIO, &b);
	loop_quit(p->loop);
}

static bool all_up(const struct plain *p)
{
	for (unsigned i = 0; i < p->n_conns; i++) {
		if (!ssh_conn_is_up(p->conns[i]))
			return false;
	}
	return true;
}

static void say_hello(struct plain *p)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct ssh_conn *c = p->conns[0];
	struct msg_hello m = {
		.version = PROTO_VERSION,
		.program = (char *)"plain ssh",
		.host = (char *)ssh_conn_host(c),
		.arch = (char *)ssh_conn_arch(c),
		.cpus = ssh_conn_cpus(c),
		.cpu_model = (char *)"",
	};

	msg_hello_encode(&b, &m);
	link_send_buf(p->link, MSG_HELLO, LINK_PRIO, &b);
	link_send(p->link, MSG_READY, LINK_PRIO, NULL, 0);
}

/* The first connection tells how many are needed. */
static void more_conns(struct plain *p)
{
	unsigned slots = p->conf->slots ? p->conf->slots : ssh_conn_cpus(p->conns[0]);
	unsigned want = (slots + JOBS_PER_CONN - 1) / JOBS_PER_CONN;

	while (p->n_conns < want && p->n_conns < CONNS_MAX && !p->ending) {
		p->conns[p->n_conns] = ssh_conn_new(p, p->n_conns);
		p->n_conns++;
	}
}

void plain_go_on(struct plain *p)
{
	struct job *j;
	size_t it = 0;

	if (p->ending)
		return;
	if (!p->ready && ssh_conn_is_up(p->conns[0])) {
		more_conns(p);
		if (!all_up(p))
			return;
		p->ready = true;
		say_hello(p);
	}
	while ((j = map_next(&p->jobs, &it, NULL))) {
		if (job_waits(j))
			job_try(j);
	}
}

/* ---- messages ---- */

static int on_env(struct plain *p, struct blob payload)
{
	struct msg_env *e = xcalloc(1, sizeof(*e)), *old;
	int r = p->envs.n < TABLE_MAX ? msg_env_decode(payload, e) : CONCC_E_TOOBIG;

	if (r < 0) {
		free(e);
		return r;
	}
	old = map_put_u64(&p->envs, e->env_id, e);
	if (old) {
		msg_env_release(old);
		free(old);
	}
	return 0;
}

static int on_caller(struct plain *p, struct blob payload)
{
	struct msg_caller m;
	int r = p->callers.n < TABLE_MAX ? msg_caller_decode(payload, &m) : CONCC_E_TOOBIG;

	if (r < 0)
		return r;
	if (map_get_u64(&p->callers, m.caller_id))
		return CONCC_E_PROTO;
	map_put_u64(&p->callers, m.caller_id, xmemdup(&m.caller, sizeof(m.caller)));
	return 0;
}

static int on_exe(struct plain *p, struct blob payload)
{
	struct program *g = xcalloc(1, sizeof(*g));
	int r = p->programs.n < TABLE_MAX ? msg_exe_decode(payload, &g->exe) : CONCC_E_TOOBIG;

	if (r < 0) {
		free(g);
		return r;
	}
	g->plain = p;
	if (map_get_u64(&p->programs, g->exe.exe_id)) {
		program_free(g);
		return CONCC_E_PROTO;
	}
	map_put_u64(&p->programs, g->exe.exe_id, g);
	return 0;
}

static int on_job(struct plain *p, struct blob payload)
{
	struct msg_job m;
	int r = msg_job_decode(payload, &m);

	return r < 0 ? r : job_start(p, &m);
}

static int on_input(struct plain *p, struct blob payload)
{
	struct blob bytes;
	struct job *j;
	uint32_t id;
	int r = msg_bytes_decode(payload, &id, &bytes);

	if (r < 0)
		return r;
	j = map_get_u64(&p->jobs, id); /* one that has ended needs none */
	return j ? job_input(j, bytes.p, bytes.n) : 0;
}

static int on_pair(struct plain *p, uint8_t type, struct blob payload)
{
	uint32_t id, value;
	struct job *j;
	int r = msg_pair_decode(payload, &id, &value);

	if (r < 0)
		return r;
	j = map_get_u64(&p->jobs, id);
	if (j && type == MSG_JOB_KILL)
		job_kill(j);
	else if (j)
		job_credit(j, value);
	return 0;
}

/* The first connection: why there is none can be said only to who has greeted. */
static int on_hello(struct plain *p)
{
	if (p->n_conns)
		return CONCC_E_PROTO;
	p->n_conns = 1;
	p->conns[0] = ssh_conn_new(p, 0);
	return 0;
}

static int on_message(void *data, uint8_t type, struct blob payload)
{
	struct plain *p = data;

	if (type == MSG_HELLO)
		return on_hello(p);
	if (!p->n_conns)
		return CONCC_E_PROTO;
	switch (type) {
	case MSG_ENV:
		return on_env(p, payload);
	case MSG_CALLER:
		return on_caller(p, payload);
	case MSG_EXE:
		return on_exe(p, payload);
	case MSG_JOB:
		return on_job(p, payload);
	case MSG_JOB_INPUT:
		return on_input(p, payload);
	case MSG_JOB_CREDIT:
	case MSG_JOB_KILL:
		return on_pair(p, type, payload);
	}
	return 0; /* listings and the like: the far end looks for itself */
}

static void on_closed(void *data, int err, const char *text)
{
	struct plain *p = data;

	p->ending = true;
	p->result = err == CONCC_E_CLOSED ? 0 : err;
	if (p->result < 0)
		errmsg_set(p->msg, err, "the link failed: %s",
			   text && *text ? text : err_text(err));
	loop_quit(p->loop);
}

static const struct link_ops link_ops = {.message = on_message, .closed = on_closed};

/* ---- life ---- */

static void on_signal(void *data, int signo)
{
	struct plain *p = data;

	p->ending = true;
	loop_quit(p->loop);
}

static int make_dir(struct plain *p)
{
	_cleanup_free_ char *base = NULL;
	int r = runtime_dir_open(&base, NULL, p->msg);

	if (r < 0)
		return r;
	/* Short: it holds sockets, and ssh makes their names longer for a moment. */
	p->dir = xasprintf("%s/ssh.XXXXXX", base);
	if (!mkdtemp(p->dir))
		return errmsg_set(p->msg, -errno, "can't make %s: %s", p->dir, err_text(-errno));
	return 0;
}

static void free_tables(struct plain *p)
{
	struct program *g;
	struct msg_env *e;
	struct caller *c;
	struct job *j;
	size_t it = 0;

	while ((j = map_next(&p->jobs, &it, NULL)))
		job_free(j);
	map_release(&p->jobs);
	it = 0;
	while ((g = map_next(&p->programs, &it, NULL)))
		program_free(g);
	map_release(&p->programs);
	it = 0;
	while ((e = map_next(&p->envs, &it, NULL))) {
		msg_env_release(e);
		free(e);
	}
	map_release(&p->envs);
	it = 0;
	while ((c = map_next(&p->callers, &it, NULL)))
		free(c);
	map_release(&p->callers);
}

static void tear_down(struct plain *p)
{
	p->ending = true;
	shares_free(p);
	free_tables(p);
	for (unsigned i = 0; i < p->n_conns; i++) {
		_cleanup_free_ char *socket = xasprintf("%s/%u", p->dir, i);

		ssh_conn_free(p->conns[i]);
		(void)unlink(socket); /* ssh does it, unless it was killed */
	}
	free(p->conns);
	(void)rmdir(p->dir);
	free(p->dir);
}

int plain_run(const struct plain_config *conf, int read_fd, int write_fd, struct errmsg *msg)
{
	struct link_config c = {.end = LINK_WORKER, .ping_ms = PING_MS, .dead_ms = DEAD_MS};
	struct plain p = {.conf = conf, .msg = msg};
	int r = make_dir(&p);

	if (r < 0)
		return r;
	r = loop_new(&p.loop);
	if (r < 0)
		return errmsg_set(msg, r, "can't make an event loop: %s", err_text(r));
	if (!loop_add_signal(p.loop, SIGTERM, on_signal, &p) ||
	    !loop_add_signal(p.loop, SIGINT, on_signal, &p)) {
		r = errmsg_set(msg, -errno, "can't wait for signals: %s", err_text(-errno));
		loop_free(p.loop);
		return r;
	}
	p.link = link_new(p.loop, stream_from_fds(read_fd, write_fd), &c, &link_ops, &p);
	p.conns = xcalloc(CONNS_MAX, sizeof(struct ssh_conn *));
	r = loop_run(p.loop);
	if (r < 0)
		p.result = errmsg_set(msg, r, "the event loop failed: %s", err_text(r));
	link_close(p.link);
	tear_down(&p);
	link_free(p.link);
	loop_free(p.loop);
	return p.result;
}
