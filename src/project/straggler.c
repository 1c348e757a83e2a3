/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A job that runs far longer than others of its program while slots are idle may
 * be on a worker that thrashes or hangs in a way no heartbeat tells, or that is
 * still being filled over a slow line.  It is started a second time elsewhere, and
 * whichever has something to show first wins: each writes to an upper layer of its
 * own, so the other is killed and leaves no trace.  Where there is no other worker, but a
 * slot of this machine, it is given up there and runs here: then it has
 * taken twice what it would have, at the most.  Only jobs without input, of which
 * nothing has been shown yet.
 */
#include "pace.h"
#include "run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

/* Fewer than this many of a program's jobs say nothing of the next. */
#define PEERS_MIN 8
/* Times the longest of them. */
#define FAR_BEYOND 3
/* Of the last so many. */
#define TIMES 32
/* All running jobs are looked at so often at the most when one ends. */
#define LOOK_MS 100
/* Looked at of one worker in one go; others have their turn when a job ends. */
#define LATE_MAX 64

/* How long the jobs of one program take. */
struct recent {
	uint64_t times_ms[TIMES];
	unsigned n; /* in all */
};

static struct recent *recent_of(struct server *s, const char *exe)
{
	struct recent *p = map_get_str(&s->recents, exe);

	if (!p) {
		p = xcalloc(1, sizeof(*p));
		map_put_str(&s->recents, exe, p);
	}
	return p;
}

static void stop_watching(struct server *s)
{
	loop_remove(steal_ptr(&s->releases_source));
	if (s->releases_fd >= 0)
		(void)close(s->releases_fd);
	s->releases_fd = -1;
}

void stragglers_free(struct server *s)
{
	struct recent *p;
	size_t it = 0;

	while ((p = map_next(&s->recents, &it, NULL)))
		free(p);
	map_release(&s->recents);
	loop_remove(steal_ptr(&s->late_timer));
	stop_watching(s);
}

/* The longest that is usual for it there.  0: nothing is known yet. */
static uint64_t usual_ms(const struct run *r)
{
	struct server *s = r->peer->server;
	const struct recent *p = recent_of(s, r->exe);
	uint64_t longest = pace_takes_us(s->pace, r->peer, r->job_key, r->kind_key) / 1000;

	for (unsigned i = 0; p->n >= PEERS_MIN && i < TIMES && i < p->n; i++)
		longest = p->times_ms[i] > longest ? p->times_ms[i] : longest;
	return longest;
}

/* By when it would be done twice over if it ran here.  0: it can't, or nothing is known. */
static uint64_t home_limit_ms(const struct run *r)
{
	struct server *s = r->peer->server;
	bool same;
	uint64_t us = s->local_slots ? pace_takes_here_us(s->pace, r->job_key, r->kind_key, &same)
				     : 0;

	/* Others of its kind are but a hint. */
	return us ? us / 1000 * (same ? 2 : 4) : 0;
}

/* When it will be late, if that can be told. */
static void set_late(struct run *r)
{
	uint64_t least = (uint64_t)r->peer->server->conf->straggler_after_s * 1000;
	uint64_t limit = usual_ms(r) * FAR_BEYOND, home = home_limit_ms(r);

	if (home && (!limit || home < limit))
		limit = home;
	if (limit)
		r->late_ms = r->started_ms + (limit > least ? limit : least);
}

static bool is_candidate(const struct run *r)
{
	return r->again && r->client && !r->twin && !r->failure && !r->shown;
}

static void forget(struct run *r)
{
	if (r->again)
		msg_run_release(r->again);
	free(steal_ptr(&r->again));
}

/* Could it be on that worker?  Asked before a slot is taken, since giving one back wakes us again.
 */
static bool can_twin(const struct run *r, struct peer *p, struct exe **ret)
{
	if (p == r->peer || p->state != PEER_UP || p->unable ||
	    p->conf->root != r->peer->conf->root || map_get_u64(&p->exes_refused, r->exe_id))
		return false;
	/* The compiler may be another one by now. */
	return exe_get(p, r->again, ret, NULL) == 0 && exe_msg(*ret)->exe_id == r->exe_id;
}

static bool start_twin(struct run *r, struct peer *p, struct exe *e, struct pool_slot *slot)
{
	struct server *s = r->peer->server;
	/* Links by which it calls things are told to each worker. */
	_cleanup_free_ char *unserved = NULL;
	_cleanup_strv_ char **trees = workspaces_of(p, r->again, &unserved, NULL);
	struct run *twin;

	if (!trees || unserved || workspaces_other_cwd(p, r->again, &trees))
		return false;
	if (p->conf->root == ROOT_CLIENT && system_refresh(p, NULL) < 0)
		return false;
	if (run_dispatch(r->client, p, r->again, e, trees, &twin) < 0)
		return false;
	log_info("straggler: %s is started again on %s", r->command, p->conf->name);
	r->client->run = r;
	r->twin = twin;
	twin->twin = r;
	twin->slot = *slot;
	s->n_twice++;
	return true;
}

/* False when there is no slot for it. */
static bool try_twin(struct run *r)
{
	struct server *s = r->peer->server;

	/* Whoever waits for a slot comes first. */
	if (pool_waiters(s->pool) > 0)
		return false;
	for (unsigned i = 0; i < s->n_peers; i++) {
		struct peer *p = s->peers[i];
		struct pool_request q = {.cwd = r->cwd, .only = p->conf->name, .try = true};
		struct pool_slot slot = {.fd = -1};
		struct exe *e;

		if (!can_twin(r, p, &e) || pool_acquire(s->pool, &q, &slot) < 0)
			continue;
		if (start_twin(r, p, e, &slot))
			return true;
		pool_release(s->pool, &slot);
	}
	return false;
}

/* It waits for contents, and that will take longer than all of it here. */
static bool fills_for_long(const struct run *r)
{
	struct server *s = r->peer->server;
	uint64_t left = map_get_u64(&r->peer->exes_done, r->exe_id) ? 0 : serve_left_us(r->peer);
	bool same;
	uint64_t here = left ? pace_takes_here_us(s->pace, r->job_key, r->kind_key, &same) : 0;

	return here && left > here * (same ? 1 : 2);
}

/* The same, on this machine.  False when it has no slot for it either; the wrapper waits for one.
 */
static bool try_home(struct run *r)
{
	struct server *s = r->peer->server;
	struct pool_request q = {.only = POOL_LOCAL, .local_ok = true, .try = true};
	_cleanup_free_ char *text = NULL;
	struct pool_slot slot = {.fd = -1};

	if (pool_waiters(s->pool) > 0 || pool_acquire(s->pool, &q, &slot) < 0)
		return false;
	r->client->slot = slot;
	if (!fills_for_long(r))
		pace_learn_late(s->pace, r->peer, r->job_key, r->kind_key,
				(now_ms() - r->started_ms) * 1000);
	log_info("straggler: %s on %s runs here", r->command, r->peer->conf->name);
	text = xasprintf("it takes far longer on %s than such a job does", r->peer->conf->name);
	s->n_sent_home++;
	run_send_home(r, "straggler", text);
	return true;
}

static void on_late(void *data);

static void on_release(void *data, uint32_t events)
{
	struct server *s = data;
	char buf[4096];

	while (read(s->releases_fd, buf, sizeof(buf)) > 0)
		;
	on_late(s);
}

/* Without it they have to wait until a job ends. */
static void watch_releases(struct server *s)
{
	if (s->releases_fd >= 0)
		return;
	s->releases_fd = pool_watch_releases(s->pool);
	if (s->releases_fd >= 0)
		s->releases_source = loop_add_fd(s->loop, s->releases_fd, LOOP_READ, on_release, s);
}

static void set_timer(struct server *s, uint64_t at_ms)
{
	uint64_t now = now_ms();

	if (s->late_at_ms && s->late_at_ms <= at_ms)
		return;
	if (!s->late_timer)
		s->late_timer = loop_add_timer(s->loop, 0, on_late, s);
	s->late_at_ms = at_ms;
	loop_timer_set(s->late_timer, at_ms > now ? at_ms - now : 1);
}

/* All that are late by now.  The next one that will be has the timer, those without a slot wait for
 * one to be released. */
static void look(struct server *s)
{
	uint64_t now = now_ms(), next = UINT64_MAX;
	bool lacking = false;

	s->looked_ms = now;
	s->any_untold = false;

	for (unsigned i = 0; i < s->n_peers; i++) {
		struct run *late[LATE_MAX], *r;
		unsigned n = 0;
		size_t it = 0;

		while ((r = map_next(&s->peers[i]->jobs, &it, NULL))) {
			if (!is_candidate(r))
				continue;
			if (!r->late_ms)
				set_late(r);
			s->any_untold |= !r->late_ms;
			if ((r->late_ms && r->late_ms <= now) || fills_for_long(r)) {
				if (n < LATE_MAX)
					late[n++] = r;
			} else if (r->late_ms) {
				next = r->late_ms < next ? r->late_ms : next;
			}
		}
		while (n-- > 0)
			lacking |= !try_twin(late[n]) && !try_home(late[n]);
	}
	if (lacking)
		watch_releases(s);
	else
		stop_watching(s);
	s->late_at_ms = 0;
	if (next != UINT64_MAX)
		set_timer(s, next);
}

static void on_late(void *data)
{
	look(data);
}

void stragglers_look(struct server *s)
{
	if (s->n_running && s->conf->straggler_after_s && !s->stopping)
		set_timer(s, s->looked_ms + LOOK_MS);
}

void straggler_watch(struct run *r, struct msg_run *m)
{
	struct server *s = r->peer->server;

	if (!s->conf->straggler_after_s || m->flags & JOB_F_STDIN)
		return;
	r->again = xmemdup(m, sizeof(*m));
	*m = (struct msg_run){0};
	set_late(r);
	if (r->late_ms)
		set_timer(s, r->late_ms);
	else
		s->any_untold = true;
}

void straggler_won(struct run *r)
{
	struct run *loser = steal_ptr(&r->twin);

	if (!loser)
		return;
	loser->twin = NULL;
	loser->client = NULL;
	r->client->run = r;
	if (r->slot.fd >= 0)
		r->peer->server->n_twice_won++;
	if (!loser->failure)
		run_give_up(loser, "straggler", "another worker was faster");
}

void straggler_done(struct run *r)
{
	struct server *s = r->peer->server;
	struct recent *p;

	straggler_won(r);
	if (!s->conf->straggler_after_s)
		return;
	p = recent_of(s, r->exe);
	p->times_ms[p->n++ % TIMES] = now_ms() - r->started_ms;
}

bool straggler_goes_on(struct run *r)
{
	struct run *twin = steal_ptr(&r->twin);

	if (!twin)
		return false;
	twin->twin = NULL;
	r->client->run = twin;
	r->client = NULL;
	return true;
}

void straggler_ended(struct run *r)
{
	struct server *s = r->peer->server;

	forget(r);
	pool_release(s->pool, &r->slot);
	/* One that was late may have its slot now; of another it may be known now when it is late.
	 */
	if (s->stopping || !s->conf->straggler_after_s)
		return;
	if (s->releases_fd >= 0)
		look(s);
	else if (s->any_untold)
		stragglers_look(s);
}
