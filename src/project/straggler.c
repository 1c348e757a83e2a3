/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A job that runs far longer than others of its kind while slots are idle may
 * be on a worker that thrashes or hangs in a way no heartbeat tells, or that is
 * still being filled over a slow line; and one may not have begun there, since others' jobs have
 * all slots of the host.  It is started a second time elsewhere
 * (speculation.c), and whichever has something to show first wins.  Where there is no other
 * worker, but a slot of this machine, it is given up there and runs here.  So is one that a slow
 * worker got, since no better one was free, when this machine has nothing else to do.
 */
#include "straggler.h"
#include "estimator.h"
#include "filling.h"
#include "run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/spare.h"
#include "concc/str.h"

/* Times what few of its kind exceed. */
#define FAR_BEYOND 3
/* What comes over a line of some length may well take so long. */
#define FILLING_MS 1000
/* Of which nothing is known but that it waits for contents: it may be as short as this. */
#define UNKNOWN_MS 500
/* All jobs are looked at so often at the most when one ends. */
#define LOOK_MS 100
/* Dealt with in one go; others have their turn when a job ends. */
#define LATE_MAX 64

struct stragglers {
	struct server *server;
	struct observer observer;
	struct loop_source *timer, *releases_source;
	uint64_t timer_ms; /* when it is set for, 0: it is not */
	uint64_t looked_ms;
	int releases_fd; /* of the pool, while one lacks a slot; else -1 */
	bool any_untold; /* it could not tell of one when it is late, or here would be better */
};

/* To wait for contents for this long is worse than to begin anew here; 0: not known. */
static uint64_t wait_limit_us(const struct stragglers *t, const struct job *j)
{
	bool same;
	uint64_t here = estimator_local_us(t->server->estimator, j, &same);

	return here * (same ? 1 : 2);
}

/* Until when it waits for contents for so long that it is late. */
static uint64_t filling_limit_us(const struct stragglers *t, const struct job *j)
{
	uint64_t wait = wait_limit_us(t, j), there;

	if (!wait || !t->server->local_slots || !filling_is(j))
		return 0;
	there = estimator_remote_us(t->server->estimator, j);
	return there ? there + wait : 0;
}

/* When it will be late, if that can be told. */
static void set_late(struct stragglers *t, struct job *j)
{
	uint64_t late = estimator_upper_bound_us(t->server->estimator, j) * FAR_BEYOND / 1000;
	uint64_t least = (uint64_t)t->server->conf->straggler_after_s * 1000;
	uint64_t filling = filling_limit_us(t, j) / 1000;

	if (late && late < least)
		late = least;
	if (filling && filling < FILLING_MS)
		filling = FILLING_MS;
	if (filling && (!late || filling < late))
		late = filling;
	j->late_ms = late ? j->began_ms + late : 0;
}

/* Of its program nothing has ended there, and of how long it takes nothing is known. */
static bool is_unknown(const struct stragglers *t, const struct job *j)
{
	return t->server->local_slots && filling_is(j) && !wait_limit_us(t, j);
}

/* When to look whether one that is not known waits for contents; UINT64_MAX: not at all. */
static uint64_t look_at_unknown_ms(const struct stragglers *t, const struct job *j, uint64_t now)
{
	uint64_t first = j->began_ms + UNKNOWN_MS;

	if (!is_unknown(t, j))
		return UINT64_MAX;
	return now < first ? first : now + UNKNOWN_MS;
}

/*
 * It waits for contents, and that will take longer than all of it here.  What is not known may be
 * short, and has done nothing yet.
 */
static bool fills_for_long(const struct stragglers *t, const struct job *j)
{
	uint64_t left = filling_waits_us(j), limit = wait_limit_us(t, j);

	if (limit)
		return left > limit;
	return is_unknown(t, j) && now_ms() >= j->began_ms + UNKNOWN_MS && filling_asks(j);
}

/* From when on this machine would have it done sooner, of now_ms(); UINT64_MAX: it can't be told.
 */
static uint64_t better_here_ms(const struct stragglers *t, const struct job *j)
{
	uint64_t after;

	if (!t->server->local_slots)
		return UINT64_MAX;
	if (estimator_local_pays(t->server->estimator, j))
		return now_ms();
	after = estimator_local_pays_after_us(t->server->estimator, j);
	return after == UINT64_MAX ? UINT64_MAX : j->began_ms + after / 1000 + 1;
}

/* A number of slots is an order, as many as there are cores are a wish. */
static bool may_be_here(const struct server *s)
{
	return estimator_has_local_slot(s->estimator) &&
	       (s->conf->local_slots != CONF_LOCAL_AUTO || spare_local());
}

/* To this machine.  False when it has no slot for it; the wrapper waits for one. */
static bool try_home(const struct stragglers *t, struct job *j, bool late)
{
	struct server *s = t->server;
	struct pool_request q = {.only = POOL_LOCAL, .local_ok = true, .try = true};
	_cleanup_free_ char *text = NULL;
	struct pool_slot slot = {.fd = -1};

	if (pool_acquire(s->pool, &q, &slot) < 0)
		return false;
	j->client->slot = slot;
	if (!filling_is(j) && !j->client->run->queued)
		estimator_learn_censored(s->estimator, j);
	log_info("straggler: %s on %s runs here", j->record.command, j->record.worker);
	text = xasprintf(is_unknown(t, j) ? "%s does not have what it reads yet"
			 : late		  ? "it takes far longer on %s than such a job does"
			 : j->client->run->queued
				 ? "others have all slots of %s, and this machine has one"
				 : "%s is slow, and this machine has a slot for it",
			 j->record.worker);
	run_send_home(j->client->run, "straggler", text);
	return true;
}

/*
 * False when there is no slot for it.  One that is not late, but has not begun, is not taken from
 * its turn there for nothing: it may begin at once.
 */
static bool deal_with(const struct stragglers *t, struct job *j, bool late, bool home)
{
	if ((late || j->client->run->queued) && speculation_start(j))
		return true;
	return (late || home) && try_home(t, j, late);
}

static void look(struct stragglers *t);

static void on_release(void *data, uint32_t events)
{
	struct stragglers *t = data;
	char buf[4096];

	while (read(t->releases_fd, buf, sizeof(buf)) > 0)
		;
	look(t);
}

/* Without it they have to wait until a job ends. */
static void watch_releases(struct stragglers *t)
{
	if (t->releases_fd >= 0)
		return;
	t->releases_fd = pool_watch_releases(t->server->pool);
	if (t->releases_fd >= 0)
		t->releases_source = loop_add_fd(t->server->loop, t->releases_fd, LOOP_READ,
						 on_release, t);
}

static void stop_watching(struct stragglers *t)
{
	loop_remove(steal_ptr(&t->releases_source));
	if (t->releases_fd >= 0)
		(void)close(t->releases_fd);
	t->releases_fd = -1;
}

static void set_timer(struct stragglers *t, uint64_t at_ms)
{
	uint64_t now = now_ms();

	if (t->timer_ms && t->timer_ms <= at_ms)
		return;
	t->timer_ms = at_ms;
	loop_timer_set(t->timer, at_ms > now ? at_ms - now : 1);
}

/* All that are late by now.  The next one that will be has the timer, those without a slot wait for
 * one to be released. */
static void look(struct stragglers *t)
{
	uint64_t now = now_ms(), next = UINT64_MAX;
	unsigned n = 0;
	bool lacking = false, asked = false, room = false;
	bool waited = pool_waiters(t->server->pool) > 0; /* whoever waits for a slot comes first */

	t->looked_ms = now;
	t->any_untold = false;
	list_for_each_safe (l, &t->server->jobs) {
		struct job *j = container_of(l, struct job, of_server);
		uint64_t better, unknown;
		bool late, home;

		if (j->state != JOB_AT_WORKER || !speculation_is_possible(j))
			continue;
		set_late(t, j); /* more is known than when it was sent */
		better = better_here_ms(t, j);
		home = better <= now;
		t->any_untold |= !j->late_ms || home;
		if (!home && better < next)
			next = better;
		late = (j->late_ms && j->late_ms <= now) || fills_for_long(t, j);
		if (!late && j->late_ms && j->late_ms < next)
			next = j->late_ms;
		unknown = look_at_unknown_ms(t, j, now);
		if (!late && unknown < next)
			next = unknown;
		if (home && !waited && !asked) {
			room = may_be_here(t->server);
			asked = true;
		}
		home = home && room; /* else its time comes when a job ends here */
		if (late || home || j->client->run->queued)
			lacking |= n++ < LATE_MAX && /* it may be gone */
				   (waited || !deal_with(t, j, late, home));
	}
	if (lacking)
		watch_releases(t);
	else
		stop_watching(t);
	t->timer_ms = 0;
	if (next != UINT64_MAX)
		set_timer(t, next);
}

static void on_timer(void *data)
{
	look(data);
}

void stragglers_look(struct stragglers *t)
{
	if (t && t->server->n_running && !t->server->stopping)
		set_timer(t, t->looked_ms + LOOK_MS);
}

static void on_sent(struct stragglers *t, struct job *j)
{
	uint64_t better, unknown;

	if (!speculation_is_possible(j))
		return;
	set_late(t, j);
	unknown = look_at_unknown_ms(t, j, j->began_ms);
	if (unknown != UINT64_MAX)
		set_timer(t, unknown);
	better = better_here_ms(t, j);
	if (j->late_ms)
		set_timer(t, j->late_ms);
	if (better <= now_ms())
		stragglers_look(t);
	else if (better != UINT64_MAX)
		set_timer(t, better);
	else if (!j->late_ms)
		t->any_untold = true;
}

static void on_event(void *data, enum job_event what, struct job *j)
{
	struct stragglers *t = data;

	if (what == JOB_EVENT_SENT)
		on_sent(t, j);
	else if ((what == JOB_EVENT_ENDED || what == JOB_EVENT_BACK) && t->any_untold)
		stragglers_look(t); /* of another it may be known now */
}

struct stragglers *stragglers_new(struct server *s)
{
	struct stragglers *t;

	if (!s->conf->straggler_after_s)
		return NULL;
	t = xcalloc(1, sizeof(*t));
	t->server = s;
	t->releases_fd = -1;
	t->timer = loop_add_timer(s->loop, 0, on_timer, t);
	t->observer = (struct observer){.event = on_event, .data = t};
	jobs_observe(s, &t->observer);
	return t;
}

void stragglers_free(struct stragglers *t)
{
	if (!t)
		return;
	list_remove(&t->observer.of_server);
	loop_remove(t->timer);
	stop_watching(t);
	free(t);
}
