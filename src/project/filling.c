/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "filling.h"
#include "estimator.h"
#include "serve.h"

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

/* Even a large toolchain over a slow line comes in parts: the next job goes on from there. */
#define LONGEST_MS (120 * 1000)
/* Between two questions are a round trip and the work of a moment. */
#define ASKS_MS 250

static bool is_there(const struct run *r)
{
	return map_get_u64(&r->peer->exes_done, r->exe_id);
}

/* How much longer it has been there than such a job takes; 0 as well where that is not known. */
static uint64_t beyond_us(const struct run *r)
{
	const struct job *j = r->client ? r->client->job : NULL;
	uint64_t usual, gone;

	if (r->fills_since_ms)
		return (now_ms() - r->fills_since_ms) * 1000;
	if (!j || j->peer != r->peer)
		return 0;
	usual = estimator_remote_us(r->peer->server->estimator, j);
	gone = (now_ms() - j->began_ms) * 1000;
	return usual && gone > usual ? gone - usual : 0;
}

bool filling_is(const struct job *j)
{
	return !is_there(j->client->run);
}

bool filling_asks(const struct job *j)
{
	const struct peer *p = j->client->run->peer;

	return filling_is(j) && (serve_is_asked(p) || now_ms() - p->asked_ms < ASKS_MS);
}

uint64_t filling_waits_us(const struct job *j)
{
	const struct run *r = j->client->run;
	uint64_t left, beyond;

	if (is_there(r))
		return 0;
	left = serve_left_us(r->peer);
	beyond = beyond_us(r);
	return left > beyond ? left : beyond;
}

uint64_t filling_left_us(const struct peer *p)
{
	uint64_t most = 0;
	bool any = !p->exes_done.n;
	const struct run *r;
	size_t it = 0;

	while ((r = map_next(&p->jobs, &it, NULL))) {
		uint64_t beyond = is_there(r) ? 0 : beyond_us(r);

		any |= !is_there(r);
		most = most > beyond ? most : beyond;
	}
	if (any && serve_left_us(p) > most)
		most = serve_left_us(p);
	return most;
}

static void long_enough(void *data)
{
	struct run *r = data;

	r->kill_timer = NULL;
	filling_stop(r->peer);
}

bool filling_goes_on(struct run *r)
{
	struct peer *p = r->peer;
	const struct server *s = p->server;
	struct job *j = r->client->job;

	if (is_there(r) || r->queued || p->filler || s->stopping || s->abandoned || s->replaced)
		return false;
	r->fills_since_ms = now_ms() - beyond_us(r) / 1000;
	estimator_note_begin(j, &r->begin);
	log_info("filling: %s goes on on %s, for what it reads", j->record.command, p->conf->name);
	p->filler = r;
	run_detach(r, LONGEST_MS, long_enough);
	return true;
}

void filling_ended(struct run *r, const struct msg_exit *m)
{
	struct peer *p = r->peer;

	if (!r->fills_since_ms)
		return;
	if (m->how == EXIT_CODE && m->code == 0) {
		(void)map_put_u64(&p->exes_done, r->exe_id, p);
		estimator_learn_detached(p->server->estimator, &r->begin, p, m);
	}
	r->fills_since_ms = 0;
	if (p->filler == r)
		p->filler = NULL;
	estimator_publish_worker(p->server->estimator, p);
}

void filling_stop(struct peer *p)
{
	struct run *r = steal_ptr(&p->filler);

	if (!r)
		return;
	r->fills_since_ms = 0;
	run_kill(r);
	estimator_publish_worker(p->server->estimator, p);
}
