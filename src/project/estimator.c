/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What jobs take, and how fast workers and this machine are: learnt from the
 * records of jobs as they end, and told to the pool's table, where wrappers
 * choose by it.  A new server begins with what the records of the last ones say.
 */
#include "estimator.h"
#include "filling.h"
#include "peer.h"
#include "peers.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/cores.h"
#include "concc/cpu_share.h"
#include "concc/io.h"
#include "concc/schedule.h"
#include "concc/str.h"

/* So much of the record file is read at the start: some thousand jobs, in milliseconds. */
#define PAST_BYTES (1024 * 1024)
/* One that fetched more than this waited for that. */
#define FILLING_BYTES (64 * 1024)
/* So did one during which its worker asked for the names of so many directories. */
#define FILLING_LISTS 8

struct estimator {
	struct server *server;
	struct sched_model *model;
	struct observer observer;
	uint32_t cores, speed; /* of this machine; see cores.h */
	unsigned n_here;       /* jobs in slots of it */
	double others;	       /* tasks of others that want its processors, lately */
	struct loop_source *look_timer;
	uint64_t look_at_ms; /* of now_ms(); 0: not to be looked */
	uint64_t busy_at_us; /* of the last event of a job */
	unsigned next;	     /* the peer to be told of next; n_peers: this machine */
};

/* What came home as a straggler has a slot, too. */
static bool is_of_slot(const struct record *r)
{
	return !*r->worker && (streq(r->rule, "local-slot") || streq(r->rule, "straggler"));
}

/* False when it says nothing of how long such a job takes. */
static bool sample_of(const struct record *r, uint32_t concurrency, struct sched_sample *ret)
{
	if (!r->sent_us || r->committed_us <= r->sent_us || (!*r->worker && !is_of_slot(r)))
		return false;
	if (*r->worker && (r->how != RECORD_END_EXIT || r->code != 0))
		return false; /* what fails is sooner done */
	*ret = (struct sched_sample){
		.place = *r->worker ? r->worker : NULL,
		.job = sched_key_of_job(r->program, r->cwd, r->subject),
		.kind = sched_key_of_kind(r->program, r->cwd),
		.concurrency = concurrency,
		.total_us = r->committed_us - r->sent_us,
		.wall_us = r->wall_us,
		.cpu_us = r->utime_us + r->stime_us,
		.filling = r->bytes_fetched > FILLING_BYTES,
		.at_us = now_us(),
	};
	return true;
}

/* ---- to the pool ---- */

/* Another server's it is when that has replaced ours; and we close it before the last jobs go. */
static bool has_pool(const struct estimator *p)
{
	return p->server->pool && !p->server->replaced;
}

static void tell_place(struct estimator *p, const char *member, const char *place, uint32_t cores,
		       uint64_t wait_us)
{
	struct sched_profile profile;

	if (!has_pool(p))
		return;
	sched_model_optimistic_profile(p->model, place, now_us(), &profile);
	profile.cores = cores;
	wait_us += profile.overhead_us;
	profile.overhead_us = wait_us > UINT32_MAX ? UINT32_MAX : (uint32_t)wait_us;
	(void)pool_set_profile(p->server->pool, member, &profile); /* it may be gone */
}

void estimator_publish_worker(struct estimator *p, const struct peer *peer)
{
	uint64_t speed = (uint64_t)peer->hello.cpu_speed * 1000 / p->speed;

	sched_model_prior(p->model, peer->conf->name, speed > UINT32_MAX ? UINT32_MAX : speed);
	tell_place(p, peer->conf->name, peer->conf->name, peer->hello.cpus, filling_left_us(peer));
}

void estimator_publish_local(struct estimator *p)
{
	/* Who sets a number has seen to what else this machine is to do. */
	tell_place(p, POOL_LOCAL, NULL,
		   p->server->conf->local_slots == CONF_LOCAL_AUTO ? p->cores : 0, 0);
}

static void tell_work(struct estimator *p, uint64_t key)
{
	pool_set_work(p->server->pool, key, sched_model_work_us(p->model, key));
}

/* Of one that had no job for long, less and less counts: with each job, one of all is told. */
static void tell_next(struct estimator *p)
{
	const struct server *s = p->server;

	p->next = p->next < s->n_peers ? p->next + 1 : 0;
	if (p->next == s->n_peers)
		estimator_publish_local(p);
	else if (s->peers[p->next] && s->peers[p->next]->state == PEER_UP)
		estimator_publish_worker(p, s->peers[p->next]);
}

static void learn(struct estimator *p, const struct sched_sample *s)
{
	const struct peer *peer = s->place ? server_peer(p->server, s->place) : NULL;

	sched_model_learn(p->model, s);
	if (!has_pool(p))
		return;
	if (peer)
		estimator_publish_worker(p, peer);
	else if (!s->place)
		estimator_publish_local(p);
	tell_work(p, s->job);
	tell_work(p, s->kind);
	pool_set_mean(p->server->pool, sched_model_mean_us(p->model));
	tell_next(p);
}

static uint32_t work_of(const struct estimator *p, const struct job *j, bool *ret_same)
{
	const struct record *r = &j->record;
	uint32_t us = sched_model_work_us(p->model,
					  sched_key_of_job(r->program, r->cwd, r->subject));

	*ret_same = us;
	return us ? us : sched_model_work_us(p->model, sched_key_of_kind(r->program, r->cwd));
}

/* What few of such jobs exceed; 0: not known. */
static uint32_t at_most(const struct estimator *p, const struct job *j, bool *ret_same)
{
	const struct record *r = &j->record;
	uint32_t work = work_of(p, j, ret_same);

	return *ret_same ? work
			 : sched_model_upper_bound_us(p->model,
						      sched_key_of_kind(r->program, r->cwd));
}

static struct sched_place place_there(const struct estimator *p, const struct job *j)
{
	struct sched_place ret = {.slots = 1, .taken = (uint32_t)j->peer->jobs.n};

	sched_model_profile(p->model, j->record.worker, now_us(), &ret.profile);
	ret.profile.cores = j->peer->hello.cpus;
	return ret;
}

static struct sched_place place_here(const struct estimator *p)
{
	struct sched_place ret = {.slots = 1, .taken = p->n_here, .here = true};

	sched_model_profile(p->model, NULL, now_us(), &ret.profile);
	return ret;
}

static uint64_t done_us(const struct estimator *p, const struct job *j, uint64_t until_ms)
{
	struct sched_place there = place_there(p, j);
	uint64_t more_ms = until_ms > j->noted_ms ? until_ms - j->noted_ms : 0;

	return j->done_us + sched_done_us(&there, more_ms * 1000);
}

/* What is told of a worker is about the time since it was told the last time. */
#define TOLD_MS 1000

/* What was believed of that worker is about to change. */
static void note_done(const struct estimator *p, const struct peer *peer)
{
	uint64_t until = now_ms() - TOLD_MS;

	list_for_each (l, &p->server->jobs) {
		struct job *j = container_of(l, struct job, of_server);

		if (j->state != JOB_AT_WORKER || j->peer != peer || j->noted_ms >= until)
			continue;
		j->done_us = done_us(p, j, until);
		j->noted_ms = until;
	}
}

void estimator_note_load(struct estimator *p, const struct peer *peer)
{
	const struct msg_load *load = &peer->load;

	note_done(p, peer);
	sched_model_others(p->model, peer->conf->name, load->others, peer->hello.cpus);
	sched_model_speed(p->model, peer->conf->name, load->speed ?: LOAD_SPEED_MAX);
	if (peer->state == PEER_UP)
		estimator_publish_worker(p, peer);
}

uint64_t estimator_upper_bound_us(struct estimator *p, const struct job *j)
{
	bool same;
	struct sched_job s = {.work_us = at_most(p, j, &same)};
	struct sched_place there = place_there(p, j);

	return s.work_us ? sched_takes_us(&there, there.taken ? there.taken - 1 : 0, &s) : 0;
}

bool estimator_local_pays(struct estimator *p, const struct job *j)
{
	struct sched_place there = place_there(p, j), here = place_here(p);
	uint32_t most;
	bool same;

	most = at_most(p, j, &same);
	return sched_restart_pays(&there, &here, most, same, done_us(p, j, now_ms()));
}

uint64_t estimator_local_pays_after_us(struct estimator *p, const struct job *j)
{
	struct sched_place there = place_there(p, j), here = place_here(p);
	bool same, begun = !j->client->run->queued;
	uint32_t most = at_most(p, j, &same);

	/* One that differs from its kind may just be long, and what it waits for may be its
	 * contents. */
	if (begun && (!same || filling_is(j)))
		return UINT64_MAX;
	return sched_restart_after_us(&there, &here, most, begun);
}

uint64_t estimator_local_us(struct estimator *p, const struct job *j, bool *ret_same)
{
	struct sched_job s = {.work_us = work_of(p, j, ret_same)};
	struct sched_place here = place_here(p);

	return s.work_us ? sched_takes_us(&here, 0, &s) : 0;
}

uint64_t estimator_remote_us(struct estimator *p, const struct job *j)
{
	bool same;
	struct sched_job s = {.work_us = work_of(p, j, &same)};
	struct sched_place there = place_there(p, j);

	return s.work_us ? sched_takes_us(&there, there.taken ? there.taken - 1 : 0, &s) : 0;
}

bool estimator_has_local_slot(const struct estimator *p)
{
	return p->n_here < p->server->local_slots;
}

void estimator_learn_censored(struct estimator *p, const struct job *j)
{
	const struct record *r = &j->record;
	struct sched_sample s = {.place = r->worker,
				 .job = sched_key_of_job(r->program, r->cwd, r->subject),
				 .kind = sched_key_of_kind(r->program, r->cwd),
				 .concurrency = (uint32_t)j->peer->jobs.n,
				 .total_us = (now_ms() - j->began_ms) * 1000,
				 .at_us = now_us()};

	sched_model_learn_censored(p->model, &s);
	estimator_publish_worker(p, j->peer);
}

void estimator_note_begin(const struct job *j, struct estimator_begin *ret)
{
	const struct record *r = &j->record;

	*ret = (struct estimator_begin){.job = sched_key_of_job(r->program, r->cwd, r->subject),
					.kind = sched_key_of_kind(r->program, r->cwd),
					.at_ms = j->began_ms,
					.bytes = j->bytes_before,
					.lists = j->lists_before};
}

/* ---- from jobs ---- */

/* Over a line of some length each costs its time, and the next job finds them there. */
static bool waited_for_names(const struct peer *p, uint64_t lists_before)
{
	return p->lists > lists_before + FILLING_LISTS;
}

void estimator_learn_detached(struct estimator *p, const struct estimator_begin *b,
			      const struct peer *peer, const struct msg_exit *m)
{
	struct sched_sample s = {.place = peer->conf->name,
				 .job = b->job,
				 .kind = b->kind,
				 .concurrency = (uint32_t)peer->jobs.n,
				 .total_us = (now_ms() - b->at_ms) * 1000,
				 .wall_us = m->wall_us,
				 .cpu_us = m->utime_us + m->stime_us,
				 .at_us = now_us()};

	s.filling = peer->fetched_bytes - b->bytes > FILLING_BYTES ||
		    waited_for_names(peer, b->lists);
	learn(p, &s);
}

/* How many were there with it, about: what it met and what it left. */
static uint32_t concurrency(const struct estimator *p, const struct job *j)
{
	uint32_t now = j->peer ? (uint32_t)j->peer->jobs.n : p->n_here;

	return (j->beside + now + 1) / 2;
}

/* ---- who else uses this machine ---- */

/* Each look is one moment of many: so often, and so many of them make a mean. */
#define LOOK_MS 500
#define LOOKS	8
/* One that began here is to be seen while it lasts. */
#define LOOK_FIRST_MS 150

/* "0.20 0.18 0.12 1/80 11206", proc(5): those that run or want to, us included. */
static bool read_running(unsigned *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	return read_file_at(AT_FDCWD, "/proc/loadavg", 4096, &b) == 0 &&
	       sscanf(buf_cstr(&b), "%*s %*s %*s %u/", ret) == 1;
}

static uint32_t processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 0 ? (uint32_t)n : 1;
}

/* Since it was looked at last; a process of it that has ended since takes its part with it. */
static void add_share(struct job *j, struct cpu_share *sum)
{
	struct cpu_share now, before = j->share;

	if (!cpu_share_of((pid_t)j->record.pid, &now))
		return;
	j->share = now;
	if (now.ran_us < before.ran_us || now.waited_us < before.waited_us)
		before = (struct cpu_share){0};
	sum->ran_us += now.ran_us - before.ran_us;
	sum->waited_us += now.waited_us - before.waited_us;
}

/* How many want the processors says little where they are nice, or have small shares. */
static void look_at_jobs_here(struct estimator *p)
{
	struct cpu_share sum = {0};

	list_for_each (l, &p->server->jobs) {
		struct job *j = container_of(l, struct job, of_server);

		if (j->state == JOB_LOCAL && is_of_slot(&j->record))
			add_share(j, &sum);
	}
	sched_model_contention(p->model, p->n_here, sum.ran_us, sum.waited_us, now_us());
}

static void on_look(void *data)
{
	struct estimator *p = data;
	unsigned running, ours = 1 + p->n_here;

	p->look_at_ms = 0;
	if (!read_running(&running))
		return;
	p->others += ((running > ours ? running - ours : 0) - p->others) / LOOKS;
	sched_model_background_load(p->model, p->others, processors());
	if (p->n_here)
		look_at_jobs_here(p);
	estimator_publish_local(p);
}

/* Only as long as jobs come, and at no moment that has to do with one: then wrappers run. */
static void look_soon(struct estimator *p)
{
	bool first = p->n_here && !sched_model_knows_contention(p->model, now_us());
	unsigned in_ms = first ? LOOK_FIRST_MS : LOOK_MS;
	uint64_t at_ms = now_ms() + in_ms;

	if (p->server->conf->local_slots != CONF_LOCAL_AUTO || !p->server->local_slots ||
	    (p->look_at_ms && p->look_at_ms <= at_ms))
		return;
	if (!p->look_timer)
		p->look_timer = loop_add_timer(p->server->loop, 0, on_look, p);
	p->look_at_ms = p->look_timer ? at_ms : 0;
	loop_timer_set(p->look_timer, in_ms);
}

/* So long without a job, and it is another build. */
#define GAP_US 5000000

static void note_busy(struct estimator *p)
{
	uint64_t now = now_us();

	if (now - p->busy_at_us > GAP_US) {
		if (has_pool(p))
			pool_set_busy_since(p->server->pool, now);
	}
	p->busy_at_us = now;
	look_soon(p);
}

/*
 * The wrapper had become the command, so nobody gave the slot back: it looks taken, and the next
 * job would go to a worker, however slow.
 */
static void left_slot(struct estimator *p)
{
	p->n_here -= p->n_here > 0;
	if (has_pool(p))
		pool_verify(p->server->pool, POOL_LOCAL);
}

static void on_job(void *data, enum job_event what, struct job *j)
{
	struct estimator *p = data;
	struct sched_sample s;

	if (what == JOB_EVENT_SENT && is_of_slot(&j->record)) {
		p->n_here++;
		sched_model_begins_here(p->model);
		estimator_publish_local(p);
	}
	note_busy(p);
	if (what != JOB_EVENT_ENDED)
		return;
	if (sample_of(&j->record, concurrency(p, j), &s)) {
		s.filling |= j->peer && !j->overtaken && waited_for_names(j->peer, j->lists_before);
		learn(p, &s);
	}
	if (is_of_slot(&j->record))
		left_slot(p);
}

/* How many there were at once is not in a record; what jobs take is. */
static bool learn_past(void *data, struct record *r)
{
	struct estimator *p = data;
	struct sched_sample s;

	if (sample_of(r, 1, &s)) {
		s.filling = true;
		sched_model_learn(p->model, &s);
		tell_work(p, s.job);
		tell_work(p, s.kind);
	}
	return true;
}

struct estimator *estimator_new(struct server *s)
{
	_cleanup_free_ char *path = record_path(s->cache);
	struct estimator *p = xcalloc(1, sizeof(*p));

	p->server = s;
	p->cores = cores_usable();
	p->speed = core_speed();
	p->model = sched_model_new(p->cores);
	p->observer = (struct observer){.event = on_job, .data = p};
	jobs_observe(s, &p->observer);
	if (record_read_last(path, PAST_BYTES, learn_past, p) == 0)
		pool_set_mean(s->pool, sched_model_mean_us(p->model));
	return p;
}

void estimator_free(struct estimator *p)
{
	if (!p)
		return;
	list_remove(&p->observer.of_server);
	loop_remove(p->look_timer);
	sched_model_free(p->model);
	free(p);
}
