/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A workspace there.  With sshfs a session mounts it, and the SFTP server is
 * ours: it runs here, in a jail, with the session's input and output.  In both
 * ways a file made here for the purpose must show there before any job runs.
 */
#include "plain.h"
#include "script.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/process.h"
#include "concc/str.h"

#define RETRY_MS 30000 /* what was wrong there may have been put right */

struct share {
	struct plain *plain;
	char *workspace, *probe; /* probe: a path here, NULL when there is none */
	enum state state;
	char *why;
	uint64_t failed_ms;
	struct session *session;
	struct loop_source *server_source;
	pid_t server; /* 0: none */
};

static void drop_probe(struct share *h)
{
	if (!h->probe)
		return;
	(void)unlink(h->probe); /* the user may have been faster */
	free(steal_ptr(&h->probe));
}

static void failed(struct share *h, const char *why)
{
	drop_probe(h);
	free(h->why);
	h->why = xstrdup(why);
	h->state = STATE_BAD;
	h->failed_ms = now_ms();
}

/* The name is one that the tree knows as a temporary of this process. */
static int make_probe(struct share *h, struct errmsg *msg)
{
	char token[TOKEN_LEN + 1];
	int fd;

	token_new(token);
	h->probe = xasprintf("%s/.concc-tmp-%s", h->workspace, token);
	fd = open(h->probe, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	errmsg_set(msg, -errno, "can't write to %s: %s", h->workspace, err_text(-errno));
	free(steal_ptr(&h->probe));
	return -1;
}

static void stop_server(struct share *h)
{
	loop_remove(steal_ptr(&h->server_source));
	if (!h->server)
		return;
	(void)kill(h->server, SIGKILL);
	(void)process_wait(h->server, NULL);
	h->server = 0;
}

static void on_server(void *data, pid_t pid, int status)
{
	struct share *h = data;

	h->server_source = NULL;
	h->server = 0;
	/* Jobs that run there can't go on: the worker is as good as lost. */
	if (h->state == STATE_GOOD)
		plain_fail(h->plain, "the SFTP server here ended");
}

static void on_begin(void *data, const char *text)
{
	struct share *h = data;
	struct errmsg msg = {0};
	int in, out, r;

	if (!h->plain->conf->sshfs)
		return;
	session_go(h->session);
	session_take_fds(h->session, &in, &out);
	r = jail_sftp(h->workspace, h->plain->dir, out, in, &h->server, &msg);
	close(in);
	close(out);
	if (r == 0) {
		h->server_source = loop_add_child(h->plain->loop, h->server, on_server, h);
		if (!h->server_source) {
			r = errmsg_set(&msg, -errno, "can't watch the SFTP server here: %s",
				       err_text(-errno));
			stop_server(h);
		}
	}
	if (r < 0) {
		session_free(steal_ptr(&h->session));
		failed(h, msg.text);
		plain_go_on(h->plain);
	}
}

/* The mount's session goes on after its word; a probe's has ended. */
static void on_end(void *data, const char *text, const char *why)
{
	struct share *h = data;
	_cleanup_free_ char *no = xasprintf(
		"%s is not there: mirror = none needs the same files at the same path",
		h->workspace);

	_cleanup_free_ char *bad = NULL;

	if (text && !streq(text, "end no") && why)
		bad = xasprintf("%s (%s)", text + strlen("end "), why);
	else if (text)
		bad = xstrdup(streq(text, "end no") ? no : text + strlen("end "));
	drop_probe(h);
	if (text && streq(text, "end yes"))
		h->state = STATE_GOOD;
	else
		failed(h, bad ? bad : why);
	if (h->state == STATE_BAD || !h->plain->conf->sshfs) {
		stop_server(h);
		session_free(steal_ptr(&h->session));
	}
	plain_go_on(h->plain);
}

static const struct session_ops share_ops = {.begin = on_begin, .end = on_end};

static void begin(struct share *h)
{
	_cleanup_buf_ struct buf script = BUF_INIT;
	char token[TOKEN_LEN + 1];
	struct errmsg msg = {0};

	h->state = STATE_BUSY;
	if (make_probe(h, &msg) < 0) {
		failed(h, msg.text);
		return;
	}
	token_new(token);
	if (h->plain->conf->sshfs)
		script_mount(&script, token, h->workspace, path_base(h->probe));
	else
		script_probe(&script, token, h->probe);
	if (ssh_conn_session(h->plain->conns[0], &script, token, &share_ops, h, &h->session, &msg) <
	    0)
		failed(h, msg.text);
}

enum state share_get(struct plain *p, const char *workspace, const char **ret_why)
{
	struct share *h = map_get_str(&p->shares, workspace);

	if (!h) {
		h = xcalloc(1, sizeof(*h));
		h->plain = p;
		h->workspace = xstrdup(workspace);
		map_put_str(&p->shares, workspace, h);
	}
	if (h->state == STATE_BAD && now_ms() - h->failed_ms >= RETRY_MS)
		h->state = STATE_NEW;
	if (h->state == STATE_NEW)
		begin(h);
	*ret_why = h->why;
	return h->state;
}

void shares_free(struct plain *p)
{
	struct share *h;
	size_t it = 0;

	while ((h = map_next(&p->shares, &it, NULL))) {
		stop_server(h);
		session_free(h->session);
		drop_probe(h);
		free(h->workspace);
		free(h->why);
		free(h);
	}
	map_release(&p->shares);
}
