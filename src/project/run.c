/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "run.h"
#include "commits.h"
#include "filling.h"
#include "missing.h"
#include "results.h"
#include "straggler.h"
#include "verdict.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

/* Looking at all running jobs costs more than keeping the marks of some removals. */
#define HORIZON_EVERY 64
/* A worker ends a killed job at once; this is for a slow line, and for one that reclaims memory. */
#define KILL_MS 20000

/* What was removed before the oldest job began matters to nobody: the tree may forget it. */
static void set_horizon(struct server *s)
{
	uint64_t oldest = UINT64_MAX;

	for (unsigned i = 0; i < s->n_peers; i++) {
		struct run *r;
		size_t it = 0;

		while ((r = map_next(&s->peers[i]->jobs, &it, NULL)))
			oldest = r->commit && r->saw < oldest ? r->saw : oldest;
	}
	tree_set_horizon(s->tree, oldest);
}

/* Of what was announced the rest is in place before the command runs anywhere else. */
static void drop_commit(struct run *r)
{
	struct server *s = r->peer->server;
	struct placing *early = !r->ended && commits_is_begun(r->placing) ? r->placing : NULL;

	commits_drop(s, &r->commit, &r->placing);
	if (early)
		commits_hurry(s, early);
}

void run_free(struct run *r)
{
	struct server *s;

	if (!r)
		return;
	s = r->peer->server;
	map_del_u64(&r->peer->jobs, r->job_id);
	if (r->client && r->client->run == r)
		r->client->run = NULL;
	speculation_forget(r);
	if (r->peer->filler == r)
		r->peer->filler = NULL;
	s->n_running -= !r->detached;
	server_busy(s);
	peer_busy(r->peer);
	loop_remove(r->kill_timer);
	loop_remove(r->show_timer);
	drop_commit(r);
	recording_free(r->recording);
	buf_release(&r->held);
	buf_release(&r->later);
	loop_remove(r->replay);
	strv_free(r->workspaces);
	free(r->name);
	free(r->exe);
	strv_free(r->search);
	free(r->missing);
	free(r->failure);
	free(r);
	if (!s->n_running || ++s->n_ended % HORIZON_EVERY == 0 || tree_waits_for_horizon(s->tree))
		set_horizon(s);
}

bool run_failure_set(struct run_failure *f, enum run_fail what, bool quiet, const char *rule,
		     char *text)
{
	*f = (struct run_failure){what, quiet, rule, text};
	return true;
}

void run_send_back(struct client *c, enum run_fail what, bool quiet, const char *rule,
		   const char *text)
{
	_cleanup_free_ char *shown = xstrdup(text);
	struct msg_run_fail m = {
		.what = (uint8_t)what,
		.quiet = quiet,
		.rule = (char *)rule,
		.text = shown,
	};

	/* It may name a file that a worker chose the name of. */
	str_defuse(shown);

	jobs_back(steal_ptr(&c->job), what != RUN_FAIL_LOCAL, rule, shown);
	client_fail(c, &m);
}

void run_fail(struct run *r, enum run_fail what, bool quiet, const char *rule, const char *text)
{
	r->peer->n_failed += !quiet;
	drop_commit(r);
	if (r->client && !speculation_goes_on(r))
		run_send_back(r->client, what, quiet, rule, text);
	run_free(r);
}

static void kill_timeout(void *data)
{
	struct run *r = data;

	r->kill_timer = NULL;
	peer_fail(r->peer, "it does not end a job that was killed");
}

void run_kill(struct run *r)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	loop_remove(r->kill_timer);
	msg_pair_encode(&b, r->job_id, SIGKILL);
	link_send_buf(r->peer->link, MSG_JOB_KILL, LINK_PRIO, &b);
	r->kill_timer = loop_add_timer(r->peer->server->loop, KILL_MS, kill_timeout, r);
}

static void set_failure(struct run *r, const char *rule, const char *text)
{
	r->failure = xstrdup(text);
	r->failure_rule = rule;
	drop_commit(r);
	if (r->later.len && !r->replay)
		r->replay = loop_defer(r->peer->server->loop, run_replay, r);
}

void run_give_up(struct run *r, const char *rule, const char *text)
{
	set_failure(r, rule, text);
	run_kill(r);
}

void run_detach(struct run *r, uint32_t at_most_ms, void (*end)(void *))
{
	struct server *s = r->peer->server;

	set_failure(r, "straggler", "its wrapper runs it");
	recording_free(steal_ptr(&r->recording));
	loop_remove(r->kill_timer);
	r->kill_timer = loop_add_timer(s->loop, at_most_ms, end, r);
	r->detached = true;
	s->n_running--;
	server_busy(s);
}

void run_send_home(struct run *r, const char *rule, const char *text)
{
	struct client *c = r->client;
	bool goes_on = filling_goes_on(r);

	r->client = NULL;
	c->run = NULL;
	if (!goes_on)
		run_give_up(r, rule, text);
	run_send_back(c, RUN_FAIL_LOCAL, true, rule, text);
}

static void overdue(void *data);

static void set_clock(struct run *r, uint64_t s)
{
	r->kill_timer = loop_add_timer(r->peer->server->loop,
				       (s + PROTO_TURN_MAX_S) * 1000 + KILL_MS, overdue, r);
}

/* It was to be ended there, some time ago. */
static void overdue(void *data)
{
	struct run *r = data;
	_cleanup_free_ char *text = xasprintf(
		"worker %s does not end it, though it has a `job-time`", r->peer->conf->name);

	r->kill_timer = NULL;
	if (r->ended)
		return; /* it is the wrapper that is waited for */
	if (!r->comes_home) {
		run_give_up(r, "limit", text);
		return;
	}
	r->comes_home = false;
	set_clock(r, 0);
}

/* The worker's word is not all there is. */
void run_start_clock(struct run *r)
{
	if (r->peer->conf->job_time_s)
		set_clock(r, r->peer->conf->job_time_s);
}

/* What it would refuse again is not asked for again. */
static void note_refusal(struct run *r, uint32_t why, const char *text)
{
	if (why == REFUSED_TOOLCHAIN)
		free(map_put_u64(&r->peer->exes_refused, r->exe_id, xstrdup(text)));
	if (why == REFUSED_CALLER)
		free(map_put_u64(&r->peer->callers_refused, r->caller_id, xstrdup(text)));
}

static int on_exit_msg(struct peer *p, struct run *r, const struct msg_exit *m)
{
	struct verdict_facts facts = {
		.worker = p->conf->name,
		.has_agent = p->conf->mirror == MIRROR_CONCC,
		.dumps_core = r->dumps_core,
		.missing = r->missing,
	};
	struct run_failure f;

	p->cpu_us += m->utime_us + m->stime_us;
	p->failures = 0; /* it works */
	if (!r->client) {
		filling_ended(r, m);
		run_free(r);
		return 0;
	}
	if (r->failure) {
		run_fail(r, RUN_FAIL_LOCAL, false, r->failure_rule, r->failure);
		return 0;
	}
	if (verdict_is_its_own(&facts, m, &f))
		return run_done(r, m);
	if (m->how == EXIT_REFUSED)
		note_refusal(r, m->code, f.text);
	run_fail(r, f.what, f.quiet, f.rule, f.text);
	free(f.text);
	return 0;
}

/* NULL when it has ended, as far as the worker is concerned. */
static struct run *job_of(const struct peer *p, uint32_t id)
{
	struct run *r = map_get_u64(&p->jobs, id);

	return r && !r->ended ? r : NULL;
}

static int message_exit(struct peer *p, struct blob payload)
{
	struct msg_exit m;
	struct run *r;
	int err;

	err = msg_exit_decode(payload, &m);
	if (err < 0)
		return err;
	r = job_of(p, m.job_id);
	if (r)
		err = on_exit_msg(p, r, &m);
	msg_exit_release(&m);
	return err;
}

static int message_output(struct peer *p, struct blob payload)
{
	struct blob bytes;
	uint8_t stream;
	struct run *r;
	uint32_t id;
	int err;

	err = msg_output_decode(payload, &id, &stream, &bytes);
	if (err < 0)
		return err;
	r = job_of(p, id);
	if (!r)
		return 0;
	r->bytes_back += payload.n;
	return run_output(r, stream, bytes);
}

static int message_data(struct peer *p, struct blob payload)
{
	struct blob bytes;
	struct run *r;
	uint32_t id;
	int err;

	err = msg_bytes_decode(payload, &id, &bytes);
	if (err < 0)
		return err;
	r = job_of(p, id);
	if (!r || !r->commit)
		return 0;
	r->bytes_back += payload.n;
	return run_data(r, bytes);
}

static int message_missing(struct peer *p, struct blob payload)
{
	struct msg_missing m;
	struct run *r;
	int err;

	err = msg_missing_decode(payload, &m);
	if (err < 0)
		return err;
	r = job_of(p, m.job_id);
	if (r)
		missing_on(r, &m);
	if (r && r->missing)
		recording_missing(r->recording);
	msg_missing_release(&m);
	return 0;
}

static int on_queued(struct run *r, bool queued)
{
	r->queued = queued;
	if (queued) {
		filling_stop(r->peer);
		stragglers_look(r->peer->server->stragglers);
	} else if (r->client && r->client->run == r && r->client->job) {
		jobs_begun(r->client->job);
	}
	return 0;
}

/* Jobs end on the two sides at different times, but none was ever called that. */
static bool is_job_id(const struct server *s, uint32_t id)
{
	return id && (id <= s->next_job_id || s->counts.n_sent > UINT32_MAX / 2);
}

int run_message(struct peer *p, uint8_t type, struct blob payload)
{
	uint32_t id, value = 0;
	struct run *r;
	struct rd rd;
	int err;

	rd_init(&rd, payload.p, payload.n);
	id = rd_u32(&rd);
	if (rd.bad || !is_job_id(p->server, id))
		return CONCC_E_PROTO;
	r = job_of(p, id);
	if (r && (r->placing || r->replay)) {
		if (run_keep_for_later(r, type, payload))
			return 0;
		if (r->placing)
			commits_hurry(p->server, r->placing);
	}
	switch (type) {
	case MSG_JOB_OUTPUT:
		return message_output(p, payload);
	case MSG_JOB_DATA:
		return message_data(p, payload);
	case MSG_JOB_EXIT:
		return message_exit(p, payload);
	case MSG_JOB_MISSING:
		return message_missing(p, payload);
	}
	r = job_of(p, id);
	if (!r)
		return 0;
	switch (type) {
	case MSG_JOB_FILE:
		return run_file(r, payload);
	case MSG_JOB_TRACE:
		return recording_trace(r->recording, payload);
	case MSG_JOB_COMMIT:
		err = msg_u32_decode(payload, &id);
		recording_announced(r->recording); /* what is there before */
		return err == 0 && r->commit ? run_announce(r) : err;
	case MSG_JOB_QUEUED:
		err = msg_pair_decode(payload, &id, &value);
		return err < 0 || value > 1 ? CONCC_E_PROTO : on_queued(r, value);
	case MSG_INPUT_CREDIT:
		err = msg_pair_decode(payload, &id, &value);
		return err < 0 ? err : run_input_credit(r, value);
	}
	return CONCC_E_PROTO;
}

/* ---- the other ends go away ---- */

bool run_is_ending(const struct run *r)
{
	return r->ended && !r->untaken;
}

void run_client_gone(struct run *r)
{
	speculation_won(r); /* neither is wanted: one is killed there, the other here */
	r->client->run = NULL;
	r->client = NULL;
	if (r->ended)
		run_free(r);
	else if (!r->failure)
		run_give_up(r, "cancelled", "its wrapper is gone");
}

void run_peer_gone(struct peer *p, const char *why)
{
	_cleanup_free_ char *text = xasprintf("worker %s was lost: %s", p->conf->name, why);
	struct run *r;
	size_t it = 0;

	commits_distrust(p->server, p->index);
	while ((r = map_next(&p->jobs, &it, NULL))) {
		/* All of it is here, and some may be in place. */
		r->lost = r->ended && commits_is_begun(r->placing);
		if (!r->lost)
			run_fail(r, RUN_FAIL_RETRY, false, "worker-lost", text);
	}
}
