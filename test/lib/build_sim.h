/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_BUILD_SIM_H
#define CONCC_TEST_BUILD_SIM_H

/*
 * Builds that were recorded (test/builds), done again by the program's own choice
 * and learning in a simulation, in which time is a number: one client or ten, one
 * worker or a hundred that they share, which become slow or vanish.  Each build is
 * compared with the same jobs on the client alone, and with the schedule of an
 * oracle, who knows what each job takes and how fast each machine is.
 * SCHEDULE_TABLE=1 prints all cells.
 *
 * What is as in the program: the queue in which jobs wait (pool_acquire()), what is
 * told of a worker that is still being filled (estimator.c), jobs that are late
 * (straggler.c), a host's queue in which all clients take turns (job_queue.c), and what it says of
 * them (agent_host.c).
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cpu_share.h"
#include "concc/schedule.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

/* ---- what was recorded ---- */

struct recorded {
	uint32_t work_ms;
	uint32_t after; /* the number of the job that made it possible, 0: none */
	uint32_t kind;
	uint32_t local; /* by a rule */
};

static const struct recorded lua[] = {
#include "../builds/lua.table"
};
static const struct recorded redis[] = {
#include "../builds/redis.table"
};
static const struct recorded abseil[] = {
#include "../builds/abseil.table"
};
static const struct recorded crates[] = {
#include "../builds/crates.table"
};

/* What comes after it is short. */
static const struct recorded one_long[] = {
	{60000, 0, 0, 0}, {500, 1, 1, 0}, {500, 1, 1, 0}, {800, 1, 1, 0},
	{500, 1, 1, 0},	  {700, 1, 1, 0}, {900, 1, 1, 0}, {500, 1, 1, 0},
};

static const struct source {
	const char *name;
	const struct recorded *jobs;
	unsigned n;
} sources[] = {
	{"lua", lua, N(lua)},
	{"redis", redis, N(redis)},
	{"abseil", abseil, N(abseil)},
	{"crates", crates, N(crates)},
	{"one long", one_long, N(one_long)},
};

#define RECORDED 4 /* the first ones of them */

/* ---- what is simulated ---- */

#define MACHINES_MAX 128
#define CLIENTS_MAX  10
#define JOBS_MAX     1500 /* of a client */
#define AT_ONCE_MAX  2048 /* on a machine, running or in its queue */
#define OTHERS_OFFER 8	  /* jobs at once, each of those */
#define NEVER	     INFINITY

/* So long until a worker that says nothing is lost: DEAD_MS of src/project/peer.c. */
#define LOST_S 4.0
/* And what a worker with jobs of ours says of others there is at most so old: LOAD_BUSY_MS of
 * src/worker/agent_host.c. */
#define LOAD_S 1.0
/* And straggler-after. */
#define LATE_S 1.0
/* Of which nothing is known: UNKNOWN_MS of src/project/straggler.c. */
#define UNKNOWN_S 0.5
/* MEASURED_US and SEEN_US of src/worker/crowd.c. */
#define CROWD_MEASURED_S 0.3
#define CROWD_SEEN_S	 30

/* A machine as it is, which the model has to find out. */
struct machine {
	double speed;	      /* of a core, 1: as a client's */
	double cores;	      /* that it has for us */
	uint32_t slots;	      /* for each client */
	uint32_t concurrency; /* its own bound for all clients; 0: none */
	double overhead;      /* seconds of each job */
	double fill;	      /* a client's first jobs there wait so long for what it lacks */
	double gone, back;
	double slow;	  /* from then on it has a quarter of its speed, or ... */
	double strangers; /* ... so many tasks that are nobody's jobs share its cores, or ... */
	double quota;	  /* ... so much time of them is all that it may have */
	double stall, on; /* nothing is heard of it between the two */
};

struct cell {
	struct machine workers[MACHINES_MAX];
	unsigned n_workers, n_clients, offered;
	unsigned n_others;   /* the last clients: without a core of their own or an end, of which no
				one asks */
	double others_first; /* so long before it begins they have been there */
	const struct source *source; /* NULL: each client another one */
	unsigned times;		     /* side by side */
	double cores;		     /* of a client */
	bool quiet;		     /* nobody knows what is left to be sent to a worker */
};

struct task;

/* A job at a place. */
struct run {
	struct task *task;
	unsigned at;	  /* machine */
	double since;	  /* it was sent */
	double begins;	  /* it gets there; NEVER: it is there */
	double arrived;	  /* there, where it may wait */
	double began;	  /* its command did */
	double left_at;	  /* the machine's work at which it has ended */
	double noted;	  /* until then, as is believed, ... */
	uint64_t done_us; /* ... so much of its work was done */
	uint32_t beside;  /* jobs of its client, with it */
	bool filling, active;
};

struct task {
	unsigned client, index;
	double work;
	unsigned after, kind;
	bool local;
	enum { TASK_NOT_YET, TASK_IN_QUEUE, TASK_AWAY, TASK_ENDED } state;
	double came;	  /* into the queue */
	uint64_t told_us; /* its work, as it was expected then */
	double late, home, waits;
	unsigned avoid; /* the machine that lost it; 0: none */
	struct run runs[2];
};

/* Of a host, when its agent for a client looked last. */
struct seen {
	double shared, busy, wanted, at;
	unsigned crowd;
};

/* machines[c] is client c; the workers come after all clients. */
struct host {
	struct machine m;
	double speed, cores, strangers;
	double work;   /* that one job there could have done since the beginning */
	double shared; /* the time that each had of a processor */
	double busy;   /* for so long there was one, ... */
	double wanted; /* ... and so long all of them together */
	double synced; /* when these were right */
	double next;   /* a job ends */
	unsigned n_running, n_queued;
	unsigned turn[CLIENTS_MAX], turns; /* clients take them */
	struct seen seen[CLIENTS_MAX];
	struct run *running[AT_ONCE_MAX], *queued[AT_ONCE_MAX];
};

struct client {
	struct sched_model *model;
	struct task tasks[JOBS_MAX];
	unsigned n_tasks, n_in_flight, n_ended;
	unsigned first, end; /* of those that are under way; some between them are not */
	unsigned queue[JOBS_MAX], n_queue;
	uint64_t queue_us; /* the work of all in it */
	double retry;	   /* the head of the queue wants to be asked again */
	double came;	   /* what it had left a free slot for, last */
	uint32_t taken[MACHINES_MAX];
	double filled[MACHINES_MAX];
	bool lost[MACHINES_MAX];
	double hears;					     /* of the load of workers, again */
	unsigned others[MACHINES_MAX], speeds[MACHINES_MAX]; /* as heard last */
	double ended;
};

struct sim {
	const struct cell *cell;
	struct host hosts[MACHINES_MAX];
	unsigned n_hosts;
	struct client clients[CLIENTS_MAX];
	double now;
	bool only_heard; /* at this time nothing else happens */
};

static bool is_worker(const struct sim *s, unsigned at)
{
	return at >= s->cell->n_clients;
}

static const char *name_of(const struct sim *s, unsigned at)
{
	static char names[MACHINES_MAX][16];

	if (!is_worker(s, at))
		return NULL;
	snprintf(names[at], sizeof(names[at]), "w%u", at);
	return names[at];
}

static bool is_other(const struct cell *cell, unsigned client)
{
	return client >= cell->n_clients - cell->n_others;
}

static unsigned offered_by(const struct cell *cell, unsigned client)
{
	return is_other(cell, client) ? OTHERS_OFFER : cell->offered;
}

static double begins_at(const struct cell *cell, unsigned client)
{
	return cell->n_others && !is_other(cell, client) ? cell->others_first : 0;
}

static uint64_t us(double s)
{
	return s > 0 ? (uint64_t)(s * 1e6) : 0;
}

static uint64_t key_of(const struct task *t)
{
	return 1000 + t->index;
}

static uint64_t kind_of(const struct task *t)
{
	return 1 + t->kind;
}

/* ---- machines ---- */

static double rate(const struct host *h)
{
	return h->n_running ? h->speed * fmin(1, h->cores / (h->n_running + h->strangers)) : 0;
}

static void sync(const struct sim *s, struct host *h)
{
	h->work += rate(h) * (s->now - h->synced);
	if (h->speed > 0) {
		h->shared += rate(h) / h->speed * (s->now - h->synced);
		h->busy += h->n_running ? s->now - h->synced : 0;
		h->wanted += h->n_running * (s->now - h->synced);
	}
	h->synced = s->now;
}

static void foresee(const struct sim *s, struct host *h)
{
	double first = NEVER;

	for (unsigned i = 0; i < h->n_running; i++)
		first = fmin(first, h->running[i]->left_at);
	h->next = rate(h) > 0 ? s->now + fmax(0, first - h->work) / rate(h) : NEVER;
}

static void remove_from(struct run **list, unsigned *n, const struct run *r)
{
	for (unsigned i = 0; i < *n; i++)
		if (list[i] == r) {
			memmove(&list[i], &list[i + 1], (--*n - i) * sizeof(*list));
			return;
		}
}

/* Clients take turns, and so do not the jobs of one. */
static struct run *next_in_turn(struct host *h)
{
	struct run *next = h->queued[0];

	for (unsigned i = 1; i < h->n_queued; i++)
		if (h->turn[h->queued[i]->task->client] < h->turn[next->task->client])
			next = h->queued[i];
	h->turn[next->task->client] = ++h->turns;
	return next;
}

/* As many as the host allows; the others wait in its queue, whosever they are. */
static void host_begin(struct sim *s, struct host *h)
{
	sync(s, h);
	while (h->n_queued && (!h->m.concurrency || h->n_running < h->m.concurrency)) {
		struct run *r = next_in_turn(h);

		remove_from(h->queued, &h->n_queued, r);
		r->began = r->noted = s->now;
		r->done_us = 0;
		r->task->late += s->now - r->arrived; /* see jobs_begun() */
		r->left_at = h->work + r->task->work;
		h->running[h->n_running++] = r;
	}
	foresee(s, h);
}

static void host_arrives(struct sim *s, struct run *r)
{
	struct host *h = &s->hosts[r->at];

	r->begins = NEVER;
	r->arrived = s->now;
	cr_assert_lt(h->n_queued + h->n_running, AT_ONCE_MAX);
	h->queued[h->n_queued++] = r;
	host_begin(s, h);
}

/* What others than jobs do there, as it sees it: see crowd_look(). */
static unsigned crowd_at(const struct sim *s, struct host *h, struct seen *seen)
{
	double busy = h->busy - seen->busy, wanted = h->wanted - seen->wanted;
	double ran = busy > 0 ? wanted * (h->shared - seen->shared) / busy : 0;

	if (wanted < CROWD_MEASURED_S)
		return s->now < seen->at + CROWD_SEEN_S ? seen->crowd : 0;
	*seen = (struct seen){h->shared, h->busy, h->wanted, s->now, 0};
	seen->crowd = cpu_share_others((uint32_t)h->m.cores, h->n_running,
				       &(struct cpu_share){us(ran), us(wanted - ran)}, us(busy));
	return seen->crowd;
}

/* What it says of others than that client: see host_slots_load(). */
static unsigned others_by_slots(const struct host *h, unsigned client)
{
	bool waits[CLIENTS_MAX] = {false};
	unsigned n = 0;

	for (unsigned i = 0; i < h->n_running; i++)
		n += h->running[i]->task->client != client;
	for (unsigned i = 0; i < h->n_queued; i++) {
		unsigned whose = h->queued[i]->task->client;

		n += whose != client && !waits[whose];
		waits[whose] = true;
	}
	return n;
}

static unsigned others_at(const struct sim *s, struct host *h, unsigned client)
{
	unsigned n = others_by_slots(h, client), crowd;

	sync(s, h);
	crowd = crowd_at(s, h, &h->seen[client]);
	return crowd > n ? crowd : n;
}

/* ---- a job's way ---- */

static struct client *client_of(struct sim *s, const struct task *t)
{
	return &s->clients[t->client];
}

static double fill_left(const struct sim *s, const struct client *c, unsigned at)
{
	return c->filled[at] > s->now ? c->filled[at] - s->now : 0;
}

static struct sched_job job_of(const struct sim *s, const struct task *t, bool *ret_same)
{
	const struct client *c = &s->clients[t->client];
	uint32_t same = sched_model_work_us(c->model, key_of(t));

	*ret_same = same;
	return (struct sched_job){
		.work_us = same ? same : sched_model_work_us(c->model, kind_of(t)),
		.mean_us = sched_model_mean_us(c->model),
		.busy_us = us(s->now - begins_at(s->cell, t->client)),
	};
}

static struct sched_place place_of(const struct sim *s, const struct client *c, unsigned at)
{
	const struct machine *m = &s->hosts[at].m;
	struct sched_place p = {.slots = c->lost[at] ? 0 : m->slots,
				.taken = c->taken[at],
				.here = !is_worker(s, at)};

	sched_model_profile(c->model, name_of(s, at), us(s->now), &p.profile);
	p.profile.cores = (uint32_t)m->cores;
	p.profile.overhead_us += (uint32_t)us(fill_left(s, c, at));
	return p;
}

/* What was believed of that place is about to change. */
static void note_done(const struct sim *s, struct client *c, unsigned at)
{
	struct sched_place p = place_of(s, c, at);

	for (unsigned i = c->first; i < c->end; i++)
		for (unsigned k = 0; k < 2; k++) {
			struct run *r = &c->tasks[i].runs[k];

			if (!r->active || r->at != at)
				continue;
			if (r->noted >= s->now - LOAD_S)
				continue;
			r->done_us += sched_done_us(&p, us(s->now - LOAD_S - r->noted));
			r->noted = s->now - LOAD_S;
		}
}

/* True when it is worse than before. */
static bool hear_of_loads(struct sim *s, unsigned client)
{
	struct client *c = &s->clients[client];
	bool news = false;

	for (unsigned at = s->cell->n_clients; at < s->n_hosts; at++) {
		unsigned n, speed = (unsigned)(s->hosts[at].speed / s->hosts[at].m.speed * 1000);

		if (c->lost[at] || s->hosts[at].speed <= 0)
			continue; /* nothing is heard of it */
		n = others_at(s, &s->hosts[at], client);
		if (n != c->others[at] || speed != c->speeds[at])
			note_done(s, c, at);
		sched_model_others(c->model, name_of(s, at), n, (uint32_t)s->hosts[at].m.cores);
		sched_model_speed(c->model, name_of(s, at), speed);
		news |= n > c->others[at] || speed < c->speeds[at];
		c->others[at] = n;
		c->speeds[at] = speed;
	}
	c->hears = s->now + LOAD_S;
	return news;
}

/* As who chooses sees it. */
static struct sched_place offer_of(const struct sim *s, const struct client *c, unsigned at)
{
	struct sched_place p = place_of(s, c, at);
	uint32_t cores = p.profile.cores;

	sched_model_optimistic_profile(c->model, name_of(s, at), us(s->now), &p.profile);
	p.profile.cores = cores;
	p.profile.overhead_us += (uint32_t)us(fill_left(s, c, at));
	return p;
}

static double takes(const struct sim *s, const struct task *t, unsigned at, bool *ret_same)
{
	const struct client *c = &s->clients[t->client];
	struct sched_job j = job_of(s, t, ret_same);
	struct sched_place p = place_of(s, c, at);

	return j.work_us ? (double)sched_takes_us(&p, c->taken[at] ? c->taken[at] - 1 : 0, &j) / 1e6
			 : 0;
}

/* Its work at the most. */
static uint32_t at_most_us(const struct sim *s, const struct task *t)
{
	const struct client *c = &s->clients[t->client];
	uint32_t same = sched_model_work_us(c->model, key_of(t));

	return same ? same : sched_model_upper_bound_us(c->model, kind_of(t));
}

/* When it will be late: see set_late() of straggler.c. */
static double late_at(const struct sim *s, const struct task *t, unsigned at)
{
	struct sched_job j = {.work_us = at_most_us(s, t)};
	struct sched_place p = place_of(s, &s->clients[t->client], at);

	if (!j.work_us)
		return NEVER;
	return s->now + fmax((double)sched_takes_us(&p, p.taken - 1, &j) / 1e6 * 3, LATE_S);
}

/* It waits for contents, and nobody knows for how long: see filling_limit_us() of straggler.c. */
static double fills_until(const struct sim *s, const struct task *t, unsigned at)
{
	bool same;
	double here = takes(s, t, t->client, &same), there = takes(s, t, at, &same);

	if (fill_left(s, &s->clients[t->client], at) <= 0)
		return NEVER;
	if (here <= 0)
		return s->now + UNKNOWN_S;
	there -= fill_left(s, &s->clients[t->client], at);
	return s->now + fmax(there + here * (same ? 1 : 2), 1);
}

static void start(struct sim *s, struct task *t, unsigned at)
{
	struct client *c = client_of(s, t);
	struct run *r = &t->runs[t->runs[0].active];
	const struct machine *m = &s->hosts[at].m;

	if (is_worker(s, at) && m->fill > 0 && c->filled[at] == 0)
		c->filled[at] = s->now + m->fill;
	*r = (struct run){.task = t, .at = at, .since = s->now, .noted = s->now, .active = true};
	r->filling = fill_left(s, c, at) > 0;
	r->begins = s->now + fmax(m->overhead, fill_left(s, c, at));
	if (!t->local) {
		r->beside = ++c->taken[at];
		t->late = is_worker(s, at) ? late_at(s, t, at) : NEVER;
		t->waits = is_worker(s, at) ? fills_until(s, t, at) : NEVER;
	}
	t->state = TASK_AWAY;
	if (!is_worker(s, at) && !t->local)
		sched_model_begins_here(c->model);
	if (r->begins <= s->now)
		host_arrives(s, r);
}

static void stop(struct sim *s, struct run *r)
{
	struct host *h = &s->hosts[r->at];
	struct client *c;

	if (!r->active)
		return;
	c = client_of(s, r->task);
	sync(s, h);
	remove_from(h->running, &h->n_running, r);
	remove_from(h->queued, &h->n_queued, r);
	host_begin(s, h);
	if (!r->task->local)
		c->taken[r->at]--;
	r->active = false;
	c->retry = s->now; /* a slot is free */
}

static struct sched_sample sample_of(const struct sim *s, const struct run *r)
{
	const struct client *c = &s->clients[r->task->client];
	struct sched_sample ret = {
		.place = name_of(s, r->at),
		.job = key_of(r->task),
		.kind = kind_of(r->task),
		.concurrency = (r->beside + c->taken[r->at] + 1) / 2,
		.total_us = us(s->now - r->since),
		.filling = r->filling,
		.at_us = us(s->now),
	};

	if (ret.place) {
		ret.cpu_us = us(r->task->work / s->hosts[r->at].speed);
		ret.wall_us = us(s->now - r->began);
	}
	return ret;
}

static void task_ended(struct sim *s, struct run *r)
{
	struct task *t = r->task;
	struct client *c = client_of(s, t);
	struct sched_sample sample = sample_of(s, r);

	if (!t->local)
		sched_model_learn(c->model, &sample);
	stop(s, &t->runs[0]);
	stop(s, &t->runs[1]);
	t->state = TASK_ENDED;
	c->n_in_flight--;
	if (++c->n_ended == c->n_tasks)
		c->ended = s->now;
}

/* ---- the queue ---- */

static unsigned look_around(const struct sim *s, const struct task *t, struct sched_place *ret,
			    unsigned *ret_at)
{
	const struct client *c = &s->clients[t->client];
	unsigned n = 0;

	for (unsigned at = 0; at < s->n_hosts; at++) {
		if ((!is_worker(s, at) && at != t->client) || (t->avoid && at == t->avoid))
			continue;
		ret_at[n] = at;
		ret[n++] = offer_of(s, c, at);
	}
	return n;
}

/* Of those that are as good as the best the one with most free capacity, as in pool.c. */
static unsigned spread(const struct sched_place *p, unsigned n, unsigned best,
		       const struct sched_job *j)
{
	uint64_t best_us = sched_takes_us(&p[best], p[best].taken, j);
	unsigned widest = best;

	for (unsigned i = 0; i < n; i++)
		if (p[i].taken < p[i].slots && p[i].here == p[best].here &&
		    sched_is_as_good(sched_takes_us(&p[i], p[i].taken, j), best_us) &&
		    p[i].slots - p[i].taken > p[widest].slots - p[widest].taken)
			widest = i;
	return widest;
}

static bool try_begin(struct sim *s, struct task *t, unsigned waiting, double waited)
{
	struct sched_place places[MACHINES_MAX];
	unsigned ats[MACHINES_MAX], n = look_around(s, t, places, ats);
	bool same;
	struct sched_job j = job_of(s, t, &same);
	uint64_t patience_us;
	int best;

	j.waiting = waiting;
	j.waiting_us = client_of(s, t)->queue_us - (t->state == TASK_IN_QUEUE ? t->told_us : 0);
	j.waited_us = us(waited);
	best = sched_choose(places, n, &j, &patience_us);
	if (best >= 0) {
		start(s, t, ats[spread(places, n, (unsigned)best, &j)]);
		return true;
	}
	if (patience_us != UINT64_MAX)
		client_of(s, t)->retry = fmin(client_of(s, t)->retry,
					      s->now + (double)patience_us / 1e6 + 1e-6);
	return false;
}

static void serve_queue(struct sim *s, struct client *c)
{
	double until = c->retry;

	c->retry = NEVER;
	while (c->n_queue) {
		struct task *t = &c->tasks[c->queue[0]];

		if (!try_begin(s, t, c->n_queue - 1, s->now - fmax(t->came, c->came)))
			return;
		if (until < NEVER && s->now < until)
			c->came = s->now;
		until = NEVER;
		c->queue_us -= t->told_us;
		memmove(c->queue, c->queue + 1, --c->n_queue * sizeof(*c->queue));
	}
}

static void arrive(struct sim *s, struct task *t)
{
	struct client *c = client_of(s, t);
	struct sched_job j;
	bool same;

	if (t->local) {
		start(s, t, t->client);
		return;
	}
	if (try_begin(s, t, c->n_queue, 0))
		return;
	t->state = TASK_IN_QUEUE;
	t->came = s->now;
	j = job_of(s, t, &same);
	t->told_us = j.work_us ? j.work_us : j.mean_us;
	c->queue_us += t->told_us;
	c->queue[c->n_queue++] = t->index;
}

static bool is_possible(const struct client *c, const struct task *t)
{
	return t->state == TASK_NOT_YET &&
	       (!t->after || c->tasks[t->after - 1].state == TASK_ENDED);
}

/* make -j */
static void offer(struct sim *s, struct client *c)
{
	unsigned offered = offered_by(s->cell, (unsigned)(c - s->clients));

	while (c->first < c->end && c->tasks[c->first].state == TASK_ENDED)
		c->first++;
	for (unsigned i = c->first; i < c->n_tasks && c->n_in_flight < offered; i++)
		if (is_possible(c, &c->tasks[i])) {
			c->n_in_flight++;
			c->end = i < c->end ? c->end : i + 1;
			arrive(s, &c->tasks[i]);
		}
}

/* ---- stragglers ---- */

static bool try_another(struct sim *s, struct task *t)
{
	const struct client *c = client_of(s, t);

	for (unsigned at = s->cell->n_clients; at < s->n_hosts; at++)
		if (at != t->runs[0].at && !c->lost[at] && c->taken[at] < s->hosts[at].m.slots) {
			start(s, t, at);
			t->late = NEVER;
			return true;
		}
	return false;
}

static bool is_queued(const struct run *r)
{
	return r->began == 0 && r->begins == NEVER;
}

static void try_home(struct sim *s, struct task *t, bool fills)
{
	struct client *c = client_of(s, t);
	struct sched_sample late = sample_of(s, &t->runs[0]);

	if (c->taken[t->client] >= s->hosts[t->client].m.slots)
		return;
	if (t->runs[0].began > 0)
		late.total_us -= us(t->runs[0].began - t->runs[0].arrived);
	if (!fills && !is_queued(&t->runs[0]))
		sched_model_learn_censored(c->model, &late);
	stop(s, &t->runs[0]);
	start(s, t, t->client);
}

/* estimator_local_pays_after_us() */
static double home_at(const struct sim *s, const struct client *c, const struct task *t)
{
	const struct run *r = &t->runs[0];
	struct sched_place there = place_of(s, c, r->at), here = place_of(s, c, t->client);
	bool begun = !is_queued(r);
	uint64_t us = sched_restart_after_us(&there, &here, at_most_us(s, t), begun);

	if (begun && !sched_model_work_us(c->model, key_of(t)))
		return NEVER;
	return us == UINT64_MAX
		       ? NEVER
		       : (begun && r->began > 0 ? r->began : r->since) + (double)us / 1e6 + 1e-6;
}

/* estimator_local_pays() */
static bool pays_here(const struct sim *s, const struct client *c, const struct task *t)
{
	const struct run *r = &t->runs[0];
	struct sched_place there = place_of(s, c, r->at), here = place_of(s, c, t->client);

	return sched_restart_pays(&there, &here, at_most_us(s, t),
				  sched_model_work_us(c->model, key_of(t)),
				  r->done_us + sched_done_us(&there, us(s->now - r->noted)));
}

static void deal_with_late(struct sim *s, struct client *c)
{
	for (unsigned i = c->first; i < c->end && !c->n_queue; i++) {
		struct task *t = &c->tasks[i];
		bool fills, same;

		if (t->state != TASK_AWAY || t->local || !t->runs[0].active || t->runs[1].active ||
		    !is_worker(s, t->runs[0].at))
			continue;
		fills = t->runs[0].filling && t->runs[0].begins < NEVER &&
			t->runs[0].begins - s->now >
				takes(s, t, t->client, &same) * (same ? 1 : 2) &&
			takes(s, t, t->client, &same) > 0 && !s->cell->quiet;
		fills |= t->waits <= s->now && t->runs[0].begins < NEVER;
		if ((t->late <= s->now || fills) && try_another(s, t))
			continue;
		t->home = home_at(s, c, t);
		if (t->late <= s->now || fills || t->home <= s->now || pays_here(s, c, t))
			try_home(s, t, fills);
	}
}

/* ---- time ---- */

static void set_speed(struct sim *s, struct host *h, double speed)
{
	sync(s, h);
	h->speed = speed;
	foresee(s, h);
}

/* Its client knows now: what it had there is tried again, by who comes last in the queue. */
static void lose(struct sim *s, struct client *c, unsigned at)
{
	c->lost[at] = true;
	c->filled[at] = 0;
	for (unsigned i = c->first; i < c->end; i++) {
		struct task *t = &c->tasks[i];

		if (t->state != TASK_AWAY)
			continue;
		for (unsigned k = 0; k < 2; k++)
			if (t->runs[k].active && t->runs[k].at == at)
				stop(s, &t->runs[k]);
		if (!t->runs[0].active && t->runs[1].active) {
			struct run *left = &t->runs[1];
			struct host *h = &s->hosts[left->at];

			t->runs[0] = *left;
			left->active = false;
			for (unsigned k = 0; k < h->n_running; k++)
				h->running[k] = h->running[k] == left ? &t->runs[0] : h->running[k];
			for (unsigned k = 0; k < h->n_queued; k++)
				h->queued[k] = h->queued[k] == left ? &t->runs[0] : h->queued[k];
		}
		if (!t->runs[0].active) {
			t->avoid = at;
			arrive(s, t);
		}
	}
}

static bool is_due(const struct sim *s, double at)
{
	return at > 0 && at == s->now;
}

static void slow_down(struct sim *s, struct host *h)
{
	bool is_shared = h->m.strangers > 0 || h->m.quota > 0;

	set_speed(s, h, is_shared ? h->m.speed : h->m.speed / 4);
	h->strangers = h->m.strangers;
	h->cores = h->m.quota > 0 ? h->m.quota : h->m.cores;
	foresee(s, h);
}

static void change(struct sim *s, unsigned at)
{
	struct host *h = &s->hosts[at];

	if (is_due(s, h->m.slow))
		slow_down(s, h);
	if (is_due(s, h->m.stall))
		set_speed(s, h, 0);
	if (is_due(s, h->m.on))
		set_speed(s, h, h->m.speed);
	if (is_due(s, h->m.gone))
		set_speed(s, h, 0);
	for (unsigned c = 0;
	     h->m.gone > 0 && is_due(s, h->m.gone + LOST_S) && c < s->cell->n_clients; c++)
		lose(s, &s->clients[c], at);
	if (is_due(s, h->m.back)) {
		set_speed(s, h, h->m.speed);
		for (unsigned c = 0; c < s->cell->n_clients; c++) {
			s->clients[c].lost[at] = false;
			s->clients[c].retry = s->now;
		}
	}
}

static double sooner(const struct sim *s, double best, double at)
{
	return at > s->now && at < best ? at : best;
}

static double next_change(const struct sim *s, const struct host *h, double best)
{
	best = sooner(s, best, h->m.slow);
	best = sooner(s, best, h->m.stall);
	best = sooner(s, best, h->m.on);
	if (h->m.gone > 0) {
		best = sooner(s, best, h->m.gone);
		best = sooner(s, best, h->m.gone + LOST_S);
	}
	return sooner(s, best, h->m.back);
}

static double next_of_client(const struct sim *s, const struct client *c, double best)
{
	best = fmin(best, c->retry);
	for (unsigned i = c->first; i < c->end; i++) {
		const struct task *t = &c->tasks[i];

		if (t->state != TASK_AWAY)
			continue;
		best = sooner(s, best, t->late);
		best = sooner(s, best, t->home);
		best = sooner(s, best, t->waits);
		for (unsigned k = 0; k < 2; k++)
			if (t->runs[k].active)
				best = fmin(best, t->runs[k].begins);
	}
	return best;
}

static double next_event(struct sim *s)
{
	double best = NEVER;

	for (unsigned i = 0; i < s->n_hosts; i++) {
		best = fmin(best, s->hosts[i].next);
		best = next_change(s, &s->hosts[i], best);
	}
	for (unsigned i = 0; i < s->cell->n_clients; i++) {
		best = sooner(s, best, begins_at(s->cell, i));
		best = next_of_client(s, &s->clients[i], best);
	}
	s->only_heard = false;
	for (unsigned i = 0; i < s->cell->n_clients; i++)
		if (s->clients[i].hears > s->now && s->clients[i].hears < best &&
		    s->clients[i].n_ended < s->clients[i].n_tasks) {
			best = s->clients[i].hears;
			s->only_heard = true;
		}
	return best;
}

static void end_jobs(struct sim *s, struct host *h)
{
	while (h->next <= s->now) {
		unsigned i = 0;

		sync(s, h);
		for (unsigned k = 1; k < h->n_running; k++)
			if (h->running[k]->left_at < h->running[i]->left_at)
				i = k;
		task_ended(s, h->running[i]);
	}
}

static void get_there(struct sim *s, struct client *c)
{
	for (unsigned i = c->first; i < c->end; i++)
		for (unsigned k = 0; k < 2 && c->tasks[i].state == TASK_AWAY; k++)
			if (c->tasks[i].runs[k].active && c->tasks[i].runs[k].begins <= s->now)
				host_arrives(s, &c->tasks[i].runs[k]);
}

static bool step(struct sim *s)
{
	bool more = false;

	for (unsigned i = 0; i < s->cell->n_clients; i++) {
		struct client *c = &s->clients[i];

		more |= !is_other(s->cell, i) && c->n_ended < c->n_tasks;
		if (begins_at(s->cell, i) > s->now)
			continue;
		bool news = c->hears <= s->now && hear_of_loads(s, i);

		if (c->retry <= s->now)
			serve_queue(s, c);
		offer(s, c);
		if (!s->only_heard || news)
			deal_with_late(s, c);
	}
	if (!more)
		return false;
	s->now = next_event(s);
	cr_assert(isfinite(s->now), "nothing goes on");
	for (unsigned i = 0; i < s->n_hosts; i++)
		change(s, i);
	for (unsigned i = 0; i < s->cell->n_clients; i++)
		get_there(s, &s->clients[i]);
	for (unsigned i = 0; i < s->n_hosts; i++)
		end_jobs(s, &s->hosts[i]);
	return true;
}

/* ---- builds ---- */

static const struct source *source_of(const struct cell *cell, unsigned client)
{
	if (is_other(cell, client))
		return &sources[2];
	return cell->source ? cell->source : &sources[client % RECORDED];
}

static void set_tasks(const struct cell *cell, unsigned client, struct client *c)
{
	const struct source *from = source_of(cell, client);

	c->n_tasks = from->n * (is_other(cell, client) ? JOBS_MAX / from->n : cell->times);
	cr_assert_leq(c->n_tasks, JOBS_MAX);
	for (unsigned i = 0; i < c->n_tasks; i++) {
		const struct recorded *r = &from->jobs[i % from->n];

		c->tasks[i] = (struct task){.client = client,
					    .index = i,
					    .work = r->work_ms / 1000.0,
					    .after = r->after ? r->after + i / from->n * from->n
							      : 0,
					    .kind = r->kind,
					    .local = r->local,
					    .late = NEVER,
					    .home = NEVER,
					    .waits = NEVER};
	}
}

/* Seconds of each client. */
static void simulate(const struct cell *cell, struct sched_model **models, double *ret)
{
	struct sim *s = calloc(1, sizeof(*s));

	s->cell = cell;
	s->n_hosts = cell->n_clients + cell->n_workers;
	for (unsigned i = 0; i < s->n_hosts; i++) {
		struct host *h = &s->hosts[i];

		if (is_worker(s, i))
			h->m = cell->workers[i - cell->n_clients];
		else
			h->m = (struct machine){.speed = 1,
						.cores = cell->cores,
						.slots = is_other(cell, i) ? 0
									   : (uint32_t)cell->cores};
		h->speed = h->m.speed;
		h->cores = h->m.cores;
		h->next = NEVER;
	}
	for (unsigned i = 0; i < cell->n_clients; i++) {
		s->clients[i].model = models[i];
		s->clients[i].retry = NEVER;
		set_tasks(cell, i, &s->clients[i]);
	}
	while (step(s))
		;
	for (unsigned i = 0; i < cell->n_clients; i++)
		ret[i] = s->clients[i].ended - begins_at(cell, i);
	free(s);
}

#include "build_oracle.h"

/* ---- cells ---- */

/* What is known of jobs and places is what earlier builds left. */
struct known {
	unsigned built_before;
	bool guessed_low; /* the speed of the first worker, instead of too high, and so in turn */
};

struct result {
	double local, took; /* means */
	double worst; /* client's part of its local time, but for what one that is lost costs */
	double oracle, in_order;
};

static double mean(const double *v, unsigned n)
{
	double sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += v[i];
	return sum / n;
}

static void models_new(const struct cell *cell, bool low, struct sched_model **ret)
{
	for (unsigned c = 0; c < cell->n_clients; c++) {
		ret[c] = sched_model_new((uint32_t)cell->cores);
		/* Measured when it came up; a third too high, or too low. */
		for (unsigned w = 0; w < cell->n_workers; w++) {
			char name[16];

			snprintf(name, sizeof(name), "w%u", cell->n_clients + w);
			sched_model_prior(ret[c], name,
					  (uint32_t)(cell->workers[w].speed * 1000 *
						     ((w + c + low) % 2 ? 0.75 : 1.33)));
		}
	}
}

static void models_free(const struct cell *cell, struct sched_model **models)
{
	for (unsigned c = 0; c < cell->n_clients; c++)
		sched_model_free(models[c]);
}

/* Of a worker that is lost: seeing it, and one job once more. */
static double price(const struct cell *cell, unsigned client)
{
	const struct source *from = source_of(cell, client);
	uint32_t longest = 0;

	for (unsigned i = 0; i < from->n; i++)
		longest = from->jobs[i].work_ms > longest ? from->jobs[i].work_ms : longest;
	return LOST_S + longest / 1000.0;
}

static struct result run_cell(const struct cell *cell, struct known known)
{
	struct sched_model *models[CLIENTS_MAX];
	double took[CLIENTS_MAX], local[CLIENTS_MAX];
	bool loses = false;
	unsigned n = cell->n_clients - cell->n_others;
	struct cell alone = *cell, before = *cell;
	struct result r = {0};

	models_new(cell, known.guessed_low, models);
	for (unsigned w = 0; w < cell->n_workers; w++) {
		loses |= cell->workers[w].gone > 0;
		before.workers[w].gone = before.workers[w].back = before.workers[w].slow =
			before.workers[w].stall = before.workers[w].on = 0;
	}
	for (unsigned i = 0; i < known.built_before; i++)
		simulate(&before, models, took);
	simulate(cell, models, took);
	models_free(cell, models);

	alone.n_workers = 0;
	alone.n_clients = n;
	alone.n_others = 0;
	models_new(&alone, false, models);
	simulate(&alone, models, local);
	models_free(&alone, models);
	r.local = mean(local, n);
	r.took = mean(took, n);
	for (unsigned c = 0; c < n; c++)
		r.worst = fmax(r.worst, (took[c] - (loses ? price(cell, c) : 0)) / local[c]);
	if (cell->n_others)
		return r; /* the oracle knows of none */
	r.in_order = oracle(cell, false);
	r.oracle = fmin(fmin(r.in_order, oracle(cell, true)), r.took);
	return r;
}

static void tell(const char *what, const struct result *r)
{
	if (getenv("SCHEDULE_TABLE"))
		fprintf(stderr,
			"%-64s local %6.1f  took %6.1f  oracle %6.1f (%6.1f)  worst %5.2f  of oracle "
			"%5.2f (%5.2f)\n",
			what, r->local, r->took, r->oracle, r->in_order, r->worst,
			r->oracle / r->took, r->in_order / r->took);
}

static const char *text_of(struct known known)
{
	return known.built_before ? "" : ", new";
}

/* The oracle places the jobs in the order in which the build offers them, as we have to. */
#define OF_ORACLE 0.9

struct cells {
	unsigned n, n_slow; /* all, and those that take more than 1.05 of local */
	double worst;
	unsigned n_faster, n_below; /* those of faster workers, and below OF_ORACLE */
};

static void count(struct cells *t, const struct machine *worker, const struct result *r)
{
	t->n++;
	t->n_slow += r->worst > 1.05;
	t->worst = fmax(t->worst, r->worst);
	t->n_faster += worker->speed > 1;
	t->n_below += worker->speed > 1 && r->in_order / r->took < OF_ORACLE;
}

#endif
