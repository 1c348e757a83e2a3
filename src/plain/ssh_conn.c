/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "plain.h"
#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/str.h"

struct ssh_conn {
	struct plain *plain;
	char *socket;
	struct session *control;
	char *host, *arch;
	uint32_t cpus;
	unsigned n_jobs;
	bool up;
};

static void push(char ***argv, const char *word)
{
	strv_push(argv, xstrdup(word));
}

/*
 * As for other workers nothing may ask, forward or run here; but the connection
 * is shared, by those who know the socket.
 */
static char **ssh_argv(const struct ssh_conn *c, bool master)
{
	static const char *const options[] = {
		"BatchMode=yes",	 "Compression=no",	  "ServerAliveInterval=2",
		"ServerAliveCountMax=2", "ConnectTimeout=12",	  "StrictHostKeyChecking=yes",
		"RemoteCommand=none",	 "ControlPersist=no",	  "ClearAllForwardings=yes",
		"EscapeChar=none",	 "PermitLocalCommand=no", "LogLevel=ERROR",
	};
	const struct plain_config *conf = c->plain->conf;
	char **argv = NULL;

	push(&argv, "ssh");
	push(&argv, "-Tax");
	for (size_t i = 0; i < N_OF(options); i++) {
		push(&argv, "-o");
		push(&argv, options[i]);
	}
	push(&argv, "-o");
	push(&argv, master ? "ControlMaster=yes" : "ControlMaster=no");
	push(&argv, "-S");
	push(&argv, c->socket);
	if (conf->port) {
		push(&argv, "-p");
		strv_push(&argv, xasprintf("%u", conf->port));
	}
	if (conf->user) {
		push(&argv, "-l");
		push(&argv, conf->user);
	}
	push(&argv, "--");
	push(&argv, conf->host);
	push(&argv, "exec /bin/sh");
	return argv;
}

static void on_begin(void *data, const char *text)
{
	struct ssh_conn *c = data;
	char host[256] = "", arch[64] = "";
	unsigned cpus = 0;

	if (sscanf(text, "begin %255s %63s %u", host, arch, &cpus) < 2) {
		plain_fail(c->plain, "its shell does not answer as a POSIX shell does");
		return;
	}
	c->host = xstrdup(host);
	c->arch = xstrdup(arch);
	c->cpus = cpus ? cpus : 1;
	c->up = true;
	plain_go_on(c->plain);
}

static void on_end(void *data, const char *text, const char *why)
{
	struct ssh_conn *c = data;

	c->up = false;
	plain_fail(c->plain, why ? why : "its shell ended");
}

static const struct session_ops control_ops = {.begin = on_begin, .end = on_end};

struct ssh_conn *ssh_conn_new(struct plain *p, unsigned index)
{
	_cleanup_buf_ struct buf script = BUF_INIT;
	struct ssh_conn *c = xcalloc(1, sizeof(*c));
	_cleanup_strv_ char **argv = NULL;
	char token[TOKEN_LEN + 1];
	struct errmsg msg = {0};
	int r;

	c->plain = p;
	c->socket = xasprintf("%s/%u", p->dir, index);
	argv = ssh_argv(c, true);
	token_new(token);
	script_control(&script, token);
	r = session_start(p, argv, &script, token, &control_ops, c, &c->control, &msg);
	if (r < 0)
		plain_fail(p, msg.text);
	return c;
}

void ssh_conn_free(struct ssh_conn *c)
{
	if (!c)
		return;
	session_free(c->control);
	free(c->socket);
	free(c->host);
	free(c->arch);
	free(c);
}

bool ssh_conn_is_up(const struct ssh_conn *c)
{
	return c->up;
}

const char *ssh_conn_host(const struct ssh_conn *c)
{
	return c->host;
}

const char *ssh_conn_arch(const struct ssh_conn *c)
{
	return c->arch;
}

uint32_t ssh_conn_cpus(const struct ssh_conn *c)
{
	return c->cpus;
}

struct ssh_conn *ssh_conn_take(struct plain *p)
{
	struct ssh_conn *best = p->conns[0];

	for (unsigned i = 1; i < p->n_conns; i++) {
		if (p->conns[i]->n_jobs < best->n_jobs)
			best = p->conns[i];
	}
	best->n_jobs++;
	return best;
}

void ssh_conn_release(struct ssh_conn *c)
{
	c->n_jobs--;
}

int ssh_conn_session(struct ssh_conn *c, const struct buf *script, const char *token,
		     const struct session_ops *ops, void *data, struct session **ret,
		     struct errmsg *msg)
{
	_cleanup_strv_ char **argv = ssh_argv(c, false);

	return session_start(c->plain, argv, script, token, ops, data, ret, msg);
}

static void tell(struct ssh_conn *c, char what, uint32_t pgid)
{
	char line[32];

	if (c->up && c->control)
		session_write(c->control, line,
			      (size_t)snprintf(line, sizeof(line), "%c %u\n", what, pgid));
}

void ssh_conn_group_add(struct ssh_conn *c, uint32_t pgid)
{
	tell(c, '+', pgid);
}

void ssh_conn_group_del(struct ssh_conn *c, uint32_t pgid)
{
	tell(c, '-', pgid);
}

void ssh_conn_group_kill(struct ssh_conn *c, uint32_t pgid)
{
	tell(c, 'k', pgid);
}
