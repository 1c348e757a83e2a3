/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "wake.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/schedule.h"
#include "concc/str.h"
#include "disk.h"
#include "jobs.h"
#include "peer.h"
#include "server.h"

/* Lines of "MICROSECONDS SECTION". */
#define FILE_NAME "starts"
#define FILE_MAX  (64 * 1024)
/* Longer than any that is waited for: a damaged file. */
#define START_MAX_US (24 * 3600 * 1000000ULL)
/* The last one counts as much as all before: a machine is booted, or an image is there by now. */
#define PARTS 2

struct wake {
	struct map takes; /* of a section: microseconds, as a pointer */
	struct loop_source *timer;
	struct observer observer;
	uint64_t since_us; /* since when jobs wait, about; 0: none did when it was looked last */
	uint64_t idle_us;  /* since when there is no job at all; 0: there is one */
};

static const char *section_of(const struct peer *p)
{
	return p->conf->group ? p->conf->group : p->conf->name;
}

uint64_t wake_takes_us(const struct peer *p)
{
	const struct wake *w = p->server->wake;

	return w ? (uintptr_t)map_get_str(&w->takes, section_of(p)) : 0;
}

/* ---- what is remembered ---- */

static void remember_line(struct wake *w, char *line)
{
	char *name = strchr(line, ' ');
	unsigned long long us;

	if (!name || !name[1])
		return;
	*name++ = '\0';
	if (str_to_u64(line, START_MAX_US, &us) && us)
		(void)map_put_str(&w->takes, name, (void *)(uintptr_t)us);
}

static void load(struct server *s)
{
	_cleanup_free_ char *path = path_join(s->cache, FILE_NAME);
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *rest = NULL;

	if (read_file_at(AT_FDCWD, path, FILE_MAX, &b) < 0)
		return; /* none yet */
	buf_put_u8(&b, '\0');
	for (char *line = strtok_r((char *)b.data, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest))
		remember_line(s->wake, line);
}

static void save(struct server *s)
{
	_cleanup_free_ char *path = path_join(s->cache, FILE_NAME);
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *section;
	size_t it = 0;
	void *us;

	while ((us = map_next(&s->wake->takes, &it, &section)))
		buf_putf(&b, "%llu %s\n", (unsigned long long)(uintptr_t)us, section);
	disk_replace(s, path, &b);
}

void wake_learn(const struct peer *p, uint64_t us)
{
	struct server *s = p->server;
	uint64_t before = wake_takes_us(p);

	if (!s->wake)
		return;
	us = before ? (us + (PARTS - 1) * before) / PARTS : us;
	us = us > START_MAX_US ? START_MAX_US : us;
	(void)map_put_str(&s->wake->takes, section_of(p), (void *)(uintptr_t)(us ?: 1));
	save(s);
}

/* ---- who is started ---- */

/* So long without any job, and those that wait are of another build. */
#define GAP_US 5000000

static void on_job(void *data, enum job_event what, struct job *j)
{
	struct wake *w = data;
	bool last = j->of_server.next == j->of_server.prev; /* the list itself, on both sides */
	uint64_t now = now_us();

	if (w->idle_us && now - w->idle_us > GAP_US)
		w->since_us = 0;
	w->idle_us = what == JOB_EVENT_ENDED && last ? now : 0;
}

/* Those who wait and can have the same slots, and what there is for them or will be. */
struct queue {
	enum pool_queue kind;
	struct sched_job job;
	struct sched_start there[POOL_MEMBERS_MAX + 1];
	size_t n;
	uint32_t coming; /* slots of those that are being started */
};

static struct sched_start *add(struct queue *q, const struct server *s, const char *name,
			       uint64_t ready_us)
{
	struct sched_start *at = &q->there[q->n];

	*at = (struct sched_start){.ready_us = ready_us, .known = true};
	if (q->n >= POOL_MEMBERS_MAX || !pool_place_of(s->pool, name, &at->place))
		return NULL;
	q->n++;
	return at;
}

static bool is_coming(const struct peer *p)
{
	return p->state == PEER_CONNECTING || p->state == PEER_GREETING;
}

/* What takes longer than it did is likely to go on for as long. */
static uint64_t left_us(const struct peer *p, uint64_t now)
{
	uint64_t takes = wake_takes_us(p), gone = now - p->began_us;

	return gone < takes ? takes - gone : gone - takes;
}

static unsigned count_up(const struct server *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->n_peers; i++)
		n += s->peers[i]->state == PEER_UP && !s->peers[i]->unable;
	return n;
}

static void add_coming(struct queue *q, const struct peer *p, uint64_t now)
{
	(void)add(q, p->server, p->conf->name, left_us(p, now) ?: 1);
	q->coming += p->slots ? p->slots : 1;
}

/* Nobody who waits avoids it: it was started since. */
static bool is_new(const struct peer *p)
{
	const struct wake *w = p->server->wake;

	return w->since_us && p->began_us >= w->since_us;
}

/*
 * Of those who avoid a worker nobody says here which.  The only one that is up may be it; and where
 * there are more, one that is free may be.
 */
static void add_up(struct queue *q, const struct peer *p)
{
	bool avoids = q->kind == POOL_QUEUE_AVOID && !is_new(p);
	struct sched_start *at;

	if (avoids && count_up(p->server) < 2)
		return;
	at = add(q, p->server, p->conf->name, 0);
	if (at && avoids)
		at->place.taken = at->place.slots;
}

static void look_at_queue(struct queue *q, const struct server *s, uint64_t now)
{
	q->n = q->coming = 0;
	if (s->local_slots && q->kind != POOL_QUEUE_AWAY)
		(void)add(q, s, POOL_LOCAL, 0);
	for (unsigned i = 0; i < s->n_peers; i++) {
		const struct peer *p = s->peers[i];

		if (is_coming(p))
			add_coming(q, p, now);
		else if (p->state == PEER_UP && !p->unable)
			add_up(q, p);
	}
}

/* The first of each section, whose workers are alike; that has most of what jobs read. */
static size_t who_sleep(const struct server *s, struct peer **peers, struct sched_start *ret)
{
	size_t n = 0;

	for (unsigned i = 0; i < s->n_peers && n < POOL_MEMBERS_MAX; i++) {
		struct peer *p = s->peers[i];
		uint64_t takes = wake_takes_us(p);

		if (p->state != PEER_ASLEEP ||
		    (n && streq(section_of(peers[n - 1]), section_of(p))) ||
		    !pool_place_of(s->pool, p->conf->name, &ret[n].place))
			continue;
		ret[n].ready_us = takes;
		ret[n].known = takes > 0;
		peers[n++] = p;
	}
	return n;
}

/* The one to be started for that queue, or NULL. */
static struct peer *next_for(const struct server *s, const struct queue *q, uint64_t now)
{
	uint64_t lasted = s->wake->since_us ? now - s->wake->since_us : 0;
	struct sched_start asleep[POOL_MEMBERS_MAX];
	struct peer *peers[POOL_MEMBERS_MAX];
	size_t n = who_sleep(s, peers, asleep);
	int at = sched_start(q->there, q->n, asleep, n, &q->job, lasted);

	return at < 0 ? NULL : peers[at];
}

/* No more slots than there are who wait. */
static void start_for(struct server *s, enum pool_queue kind, uint64_t now)
{
	struct queue q = {.kind = kind};
	struct peer *p;

	pool_queue(s->pool, kind, &q.job);
	if (q.job.waiting)
		look_at_queue(&q, s, now);
	while (q.coming < q.job.waiting && (p = next_for(s, &q, now))) {
		peer_start(p);
		add_coming(&q, p, now);
	}
}

static bool any_asleep(const struct server *s)
{
	for (unsigned i = 0; i < s->n_peers; i++)
		if (s->peers[i]->state == PEER_ASLEEP)
			return true;
	return false;
}

/* How long the soonest of those asleep takes; 0: there is none. */
static uint64_t soonest_us(const struct server *s)
{
	uint64_t soonest = 0;

	for (unsigned i = 0; i < s->n_peers; i++) {
		uint64_t takes = s->peers[i]->state == PEER_ASLEEP ? wake_takes_us(s->peers[i]) : 0;

		if (takes && (!soonest || takes < soonest))
			soonest = takes;
	}
	return soonest;
}

/* When a queue has lasted as long as a start takes, that is likely to pay; and else at times that
 * are further and further apart. */
static void look_again(struct server *s, uint64_t now)
{
	struct wake *w = s->wake;
	uint64_t soonest = soonest_us(s), lasted;

	if (!pool_waiters(s->pool))
		w->since_us = 0;
	else if (!w->since_us)
		w->since_us = now;
	if (!w->since_us || !soonest)
		return;
	lasted = now - w->since_us;
	loop_timer_set(w->timer, (lasted < soonest ? soonest - lasted : lasted / 2) / 1000 + 1);
}

void wake_workers(struct server *s)
{
	uint64_t now = now_us();

	if (!s->wake || s->stopping || s->replaced || !any_asleep(s))
		return;
	for (unsigned i = 0; i < s->n_peers; i++)
		if (s->peers[i]->state == PEER_ASLEEP &&
		    pool_is_wanted(s->pool, s->peers[i]->conf->name))
			peer_start(s->peers[i]);
	start_for(s, POOL_QUEUE_ALL, now);
	start_for(s, POOL_QUEUE_AWAY, now);
	start_for(s, POOL_QUEUE_AVOID, now);
	look_again(s, now);
}

char *wake_why_asleep(const struct peer *p)
{
	uint64_t takes = wake_takes_us(p);

	if (p->state != PEER_ASLEEP || !takes)
		return NULL;
	return xasprintf("takes %llu.%llu s to start%s", (unsigned long long)(takes / 1000000),
			 (unsigned long long)(takes / 100000 % 10),
			 pool_waiters(p->server->pool) ? ", by which those that wait will be done"
						       : "");
}

static void on_timer(void *data)
{
	wake_workers(data);
}

void wake_open(struct server *s)
{
	s->wake = xcalloc(1, sizeof(*s->wake));
	s->wake->timer = loop_add_timer(s->loop, 0, on_timer, s);
	s->wake->observer = (struct observer){.event = on_job, .data = s->wake};
	jobs_observe(s, &s->wake->observer);
	load(s);
}

void wake_close(struct server *s)
{
	struct wake *w = steal_ptr(&s->wake);

	if (!w)
		return;
	list_remove(&w->observer.of_server);
	loop_remove(w->timer);
	map_release(&w->takes);
	free(w);
}
