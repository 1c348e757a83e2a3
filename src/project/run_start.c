/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A job begins: from RUN to what its worker gets, or to why it does not.
 */
#include "eligible.h"
#include "exe.h"
#include "peers.h"
#include "place.h"
#include "run.h"

#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/log.h"
#include "concc/str.h"

/* Of the program of one job, while that changes again and again. */
#define LOOKS_MAX 3

/* For another server, which can serve a caller that we can't. */
static void make_room(struct server *s)
{
	if (s->replaced)
		return;
	log_info("a caller has higher limits: leaving when %u running jobs have ended",
		 s->n_running);
	s->replaced = true;
	place_make_room(s);
}

static void dispatch(const struct call *call, struct msg_run *m)
{
	struct run *r;
	int err = run_dispatch(call->client, call->peer, m, call->exe, call->workspaces, &r);

	if (err < 0) {
		run_send_back(call->client, RUN_FAIL_LOCAL, false, "watch", err_text(err));
		return;
	}
	speculation_keep(r, m);
	jobs_sent(call->client->job, call->peer);
}

/* A job whose program is looked at.  Meanwhile nothing is read of its wrapper. */
struct beginning {
	struct client *client;
	struct msg_run m;
	struct exe_wait *wait;
	unsigned n_looks;
};

void run_forget_beginning(struct client *c)
{
	struct beginning *b = steal_ptr(&c->beginning);

	if (!b)
		return;
	exe_wait_free(b->wait);
	msg_run_release(&b->m);
	free(b);
}

static void looked_at(void *data, struct exe *e, const struct errmsg *msg);

/* Takes what m holds. */
static void begin_later(struct client *c, struct peer *p, struct msg_run *m, unsigned n_looks)
{
	struct beginning *b = xcalloc(1, sizeof(*b));
	struct errmsg msg = {0};

	b->client = c;
	b->m = *m;
	b->n_looks = n_looks;
	*m = (struct msg_run){0};
	c->beginning = b;
	if (n_looks > LOOKS_MAX)
		(void)errmsg_set(&msg, CONCC_E_STALE, "%s changes again and again", b->m.exe);
	else
		b->wait = exe_wait(p, &b->m, looked_at, b, &msg);
	if (b->wait) {
		link_pause_reading(c->link, true);
		return;
	}
	run_forget_beginning(c);
	run_send_back(c, RUN_FAIL_LOCAL, true, "command", msg.text);
}

/* fresh: see exe_get(); after so many looks. */
static int start(struct client *c, struct msg_run *m, const struct exe *fresh, unsigned n_looks)
{
	struct server *s = c->server;
	struct call call = {.client = c, .peer = server_peer(s, m->worker), .m = m, .fresh = fresh};
	struct run_failure f;

	if (c->too_many) {
		run_send_back(c, RUN_FAIL_LOCAL, false, "shortage", client_too_many);
		return 0;
	}
	if (s->stopping && !s->replaced)
		return CONCC_E_CLOSED; /* the wrapper starts another server */
	if (call_is_eligible(&call, &f)) {
		dispatch(&call, m);
	} else if (call.later) {
		begin_later(c, call.peer, m, n_looks + 1);
	} else {
		if (f.what == RUN_FAIL_SERVER)
			make_room(s);
		run_send_back(c, f.what, f.quiet, f.rule, f.text);
		free(f.text);
	}
	call_release(&call);
	return 0;
}

static void looked_at(void *data, struct exe *e, const struct errmsg *msg)
{
	struct beginning *b = data;
	struct client *c = b->client;
	struct msg_run m = b->m;
	unsigned n_looks = b->n_looks;
	int r = 0;

	b->m = (struct msg_run){0};
	b->wait = NULL;
	run_forget_beginning(c);
	link_pause_reading(c->link, false);
	if (e)
		r = start(c, &m, e, n_looks); /* all else may have changed, too */
	else
		run_send_back(c, RUN_FAIL_LOCAL, true, "command", msg->text);
	msg_run_release(&m);
	if (r < 0)
		client_free(c);
}

int run_start(struct client *c, struct msg_run *m)
{
	int r;

	if (c->run || c->beginning) {
		msg_run_release(m);
		return CONCC_E_PROTO;
	}
	c->job = jobs_take(c, m);
	r = start(c, m, NULL, 0);
	msg_run_release(m);
	return r;
}
