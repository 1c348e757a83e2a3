/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A job that runs far longer than others of its program while slots are idle may
 * be on a worker that thrashes or hangs in a way no heartbeat tells, or that is
 * still being filled over a slow line; and one may not have begun there, since others' jobs have
 * all slots of the host.  It is started a second time elsewhere
 * (twin.c), and whichever has something to show first wins.  Where there is no other
 * worker, but a slot of this machine, it is given up there and runs here.
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
/* All jobs are looked at so often at the most when one ends. */
#define LOOK_MS 100
/* Dealt with in one go; others have their turn when a job ends. */
#define LATE_MAX 64

struct stragglers {
	struct server *server;
	struct observer observer;
	struct map recents; /* program -> struct recent */
	struct loop_source *timer, *releases_source;
	uint64_t timer_ms; /* when it is set for, 0: it is not */
	uint64_t looked_ms;
	int releases_fd; /* of the pool, while one lacks a slot; else -1 */
	bool any_untold; /* it could not tell of one when it is late */
};

/* How long the jobs of one program take. */
struct recent {
	uint64_t times_ms[TIMES];
	unsigned n; /* in all */
};

static struct recent *recent_of(struct stragglers *t, const struct job *j)
{
	struct recent *p = map_get_str(&t->recents, j->record.program);

	if (!p) {
		p = xcalloc(1, sizeof(*p));
		map_put_str(&t->recents, j->record.program, p);
	}
	return p;
}

/* The longest that is usual for it there.  0: nothing is known yet. */
static uint64_t usual_ms(struct stragglers *t, const struct job *j)
{
	const struct recent *p = recent_of(t, j);
	uint64_t longest = pace_takes_us(t->server->pace, j) / 1000;

	for (unsigned i = 0; p->n >= PEERS_MIN && i < TIMES && i < p->n; i++)
		longest = p->times_ms[i] > longest ? p->times_ms[i] : longest;
	return longest;
}

/*
 * By when it would be done twice over if it ran here.  0: it can't, or nothing is known.  One that
 * was sent to a slower worker, since no better one was free, is not late before it has taken twice
 * what it should take there: it would be given up shortly before its end.
 */
static uint64_t home_limit_ms(const struct stragglers *t, const struct job *j)
{
	uint64_t here = t->server->local_slots ? pace_at_most_here_us(t->server->pace, j) : 0;
	uint64_t there = pace_takes_us(t->server->pace, j);

	return here ? (here > there ? here : there) * 2 / 1000 : 0;
}

/* When it will be late, if that can be told. */
static void set_late(struct stragglers *t, struct job *j)
{
	uint64_t least = (uint64_t)t->server->conf->straggler_after_s * 1000;
	uint64_t limit = usual_ms(t, j) * FAR_BEYOND, home = home_limit_ms(t, j);

	if (home && (!limit || home < limit))
		limit = home;
	if (limit)
		j->late_ms = j->began_ms + (limit > least ? limit : least);
}

/* It waits for contents, and that will take longer than all of it here. */
static bool fills_for_long(const struct stragglers *t, const struct job *j)
{
	uint64_t left = run_waits_us(j), here;
	bool same;

	if (!left)
		return false;
	here = pace_takes_here_us(t->server->pace, j, &same);
	return here && left > here * (same ? 1 : 2);
}

/* To this machine.  False when it has no slot for it; the wrapper waits for one. */
static bool try_home(const struct stragglers *t, struct job *j)
{
	struct server *s = t->server;
	struct pool_request q = {.only = POOL_LOCAL, .local_ok = true, .try = true};
	_cleanup_free_ char *text = NULL;
	struct pool_slot slot = {.fd = -1};

	if (pool_acquire(s->pool, &q, &slot) < 0)
		return false;
	j->client->slot = slot;
	if (!fills_for_long(t, j))
		pace_learn_late(s->pace, j);
	log_info("straggler: %s on %s runs here", j->record.command, j->record.worker);
	text = xasprintf("it takes far longer on %s than such a job does", j->record.worker);
	run_send_home(j->client->run, "straggler", text);
	return true;
}

/*
 * False when there is no slot for it: whoever waits for one comes first.  One that is not late, but
 * has not begun, is not taken from its turn there: it may begin at once.
 */
static bool deal_with(const struct stragglers *t, struct job *j, bool late)
{
	return pool_waiters(t->server->pool) == 0 && (twin_start(j) || (late && try_home(t, j)));
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
	bool lacking = false;

	t->looked_ms = now;
	t->any_untold = false;
	list_for_each_safe (l, &t->server->jobs) {
		struct job *j = container_of(l, struct job, of_server);
		bool late;

		if (j->state != JOB_AT_WORKER || !twin_is_possible(j))
			continue;
		if (!j->late_ms)
			set_late(t, j);
		t->any_untold |= !j->late_ms;
		late = (j->late_ms && j->late_ms <= now) || fills_for_long(t, j);
		if (!late && j->late_ms && j->late_ms < next)
			next = j->late_ms;
		if (late || j->client->run->queued)
			lacking |= n++ < LATE_MAX && !deal_with(t, j, late); /* it may be gone */
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
	if (!twin_is_possible(j))
		return;
	set_late(t, j);
	if (j->late_ms)
		set_timer(t, j->late_ms);
	else
		t->any_untold = true;
}

static void on_ended(struct stragglers *t, const struct job *j)
{
	struct recent *p;

	if (j->peer && j->record.placed_us) {
		p = recent_of(t, j);
		p->times_ms[p->n++ % TIMES] = (j->record.placed_us - j->record.sent_us) / 1000;
	}
	/* Of another it may be known now when it is late. */
	if (t->any_untold)
		stragglers_look(t);
}

static void on_event(void *data, enum job_event what, struct job *j)
{
	if (what == JOB_EVENT_SENT)
		on_sent(data, j);
	else if (what == JOB_EVENT_ENDED || what == JOB_EVENT_BACK)
		on_ended(data, j);
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
	struct recent *p;
	size_t it = 0;

	if (!t)
		return;
	list_remove(&t->observer.of_server);
	while ((p = map_next(&t->recents, &it, NULL)))
		free(p);
	map_release(&t->recents);
	loop_remove(t->timer);
	stop_watching(t);
	free(t);
}
