/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * One job on two workers: whichever has something to show first is the one that counts.  Each
 * writes to an upper layer of its own, so the other is killed and leaves no trace.
 */
#include "exe.h"
#include "mounted.h"
#include "run.h"
#include "system.h"
#include "workspaces.h"

#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/str.h"

void speculation_keep(struct run *r, struct msg_run *m)
{
	if (!r->peer->server->stragglers || m->flags & JOB_F_STDIN)
		return;
	r->again = xmemdup(m, sizeof(*m));
	*m = (struct msg_run){0};
}

bool speculation_is_possible(const struct job *j)
{
	const struct run *r = j->client ? j->client->run : NULL;

	return r && r->again && !r->other && !r->failure && !r->ended && !j->record.first_output_us;
}

/* Could it be on that worker?  Asked before a slot is taken, since giving one back wakes us again.
 */
static bool can_be_on(const struct run *r, struct peer *p, struct exe **ret)
{
	if (p == r->peer || p->state != PEER_UP || p->unable || p->outdated ||
	    p->conf->root != r->peer->conf->root || map_get_u64(&p->exes_refused, r->exe_id) ||
	    !mounted_is_as_noted(p))
		return false;
	/* The compiler may be another one by now. */
	return exe_get(p, r->again, NULL, ret, NULL) == 0 && exe_msg(*ret)->exe_id == r->exe_id;
}

static bool start(struct run *r, struct peer *p, struct exe *e, struct pool_slot *slot)
{
	/* Links by which it calls things are told to each worker. */
	_cleanup_free_ char *unserved = NULL;
	_cleanup_strv_ char **trees = NULL;
	struct job *j = r->client->job;
	struct run *other;

	if (workspaces_of(p, r->again, &trees, &unserved, NULL) < 0 || unserved ||
	    workspaces_other_cwd(p, r->again, &trees))
		return false;
	if (p->conf->root == ROOT_CLIENT && system_refresh(p, NULL) < 0)
		return false;
	if (run_dispatch(r->client, p, r->again, e, trees, &other) < 0)
		return false;
	log_info("straggler: %s is started again on %s", j->record.command, p->conf->name);
	r->client->run = r;
	r->other = other;
	other->other = r;
	other->slot = *slot;
	jobs_sent_again(j, p);
	return true;
}

bool speculation_start(struct job *j)
{
	struct server *s = j->server;
	struct run *r = j->client->run;

	for (unsigned i = 0; i < s->n_peers; i++) {
		struct peer *p = s->peers[i];
		struct pool_request q = {.cwd = j->record.cwd, .only = p->conf->name, .try = true};
		struct pool_slot slot = {.fd = -1};
		struct exe *e;

		if (!can_be_on(r, p, &e) || pool_acquire(s->pool, &q, &slot) < 0)
			continue;
		if (start(r, p, e, &slot))
			return true;
		pool_release(s->pool, &slot);
	}
	return false;
}

void speculation_won(struct run *r)
{
	struct run *loser = steal_ptr(&r->other);

	if (!loser)
		return;
	loser->other = NULL;
	loser->client = NULL;
	r->client->run = r;
	jobs_one_left(r->client->job, r->peer);
	if (!loser->failure)
		run_give_up(loser, "straggler", "another worker was faster");
}

bool speculation_goes_on(struct run *r)
{
	struct run *other = steal_ptr(&r->other);

	if (!other)
		return false;
	other->other = NULL;
	r->client->run = other;
	r->client = NULL;
	jobs_one_left(other->client->job, other->peer);
	return true;
}

void speculation_forget(struct run *r)
{
	if (r->again)
		msg_run_release(r->again);
	free(steal_ptr(&r->again));
	pool_release(r->peer->server->pool, &r->slot);
}
