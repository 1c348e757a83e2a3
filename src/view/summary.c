/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "summary.h"

#include <stdlib.h>
#include <string.h>

#include "concc/map.h"
#include "concc/str.h"
#include "lanes.h"

/* ---- one job ---- */

bool job_is_local(const struct record *r)
{
	return !*r->worker;
}

bool job_has_slot(const struct record *r)
{
	return r->sent_us && (!job_is_local(r) || streq(r->rule, "local-slot"));
}

bool job_has_failed(const struct record *r)
{
	return r->how == RECORD_END_SIGNAL || (r->how == RECORD_END_EXIT && r->code);
}

uint64_t job_began_us(const struct record *r)
{
	bool had_slot = !job_is_local(r) && r->slot_us && r->slot_us < r->sent_us;

	return r->arrived_us + (had_slot ? r->slot_us : r->sent_us);
}

uint64_t job_done_us(const struct record *r)
{
	uint64_t last = r->sent_us;

	last = r->ended_us > last ? r->ended_us : last;
	last = r->committed_us > last ? r->committed_us : last;
	return r->arrived_us + last;
}

static uint64_t taken_us(const struct record *r)
{
	return r->sent_us ? job_done_us(r) - job_began_us(r) : 0;
}

static uint64_t cpu_us(const struct record *r)
{
	return r->utime_us + r->stime_us;
}

/* ---- places ---- */

/* This machine after all workers. */
static int by_name(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (!*x->name || !*y->name)
		return !*x->name - !*y->name;
	return strcmp(x->name, y->name);
}

static void add_to_place(struct place *p, const struct record *r)
{
	p->n++;
	p->n_failed += job_has_failed(r);
	p->slots = r->worker_slots > p->slots ? r->worker_slots : p->slots;
	p->busy_us += taken_us(r);
	p->cpu_us += cpu_us(r);
	p->bytes_back += r->bytes_back;
	p->bytes_fetched += r->bytes_fetched;
}

static struct place *place_named(const struct summary *s, const char *name)
{
	for (size_t i = 0; i < s->n_places; i++)
		if (streq(s->places[i].name, name))
			return &s->places[i];
	return NULL;
}

static void find_places(struct summary *s)
{
	const struct build *b = s->build;

	for (size_t i = 0; i < b->n; i++) {
		if (place_named(s, b->jobs[i].worker))
			continue;
		s->places = xrealloc(s->places, (s->n_places + 1) * sizeof(*s->places));
		s->places[s->n_places++] = (struct place){.name = b->jobs[i].worker};
	}
	qsort(s->places, s->n_places, sizeof(*s->places), by_name);
	for (size_t i = 0; i < b->n; i++) {
		struct place *p = place_named(s, b->jobs[i].worker);

		s->place_of[i] = (uint32_t)(p - s->places);
		add_to_place(p, &b->jobs[i]);
	}
	s->n_workers = s->n_places - (place_named(s, "") != NULL);
}

/* ---- how fast they are ---- */

struct mean {
	double sum;
	size_t n;
};

static void add_to_mean(struct map *m, const char *key, double value)
{
	struct mean *x = map_get_str(m, key);

	if (!x) {
		x = xcalloc(1, sizeof(*x));
		map_put_str(m, key, x);
	}
	x->sum += value;
	x->n++;
}

static void release_means(struct map *m)
{
	struct mean *x;
	size_t it = 0;

	while ((x = map_next(m, &it, NULL)))
		free(x);
	map_release(m);
}

#define SPEED_MIN 10 /* jobs: fewer say more of what they had to do than of who did it */

/* Its share of each program's jobs may be of small ones, but over many jobs that evens out. */
static void compare_workers(struct summary *s)
{
	const struct build *b = s->build;
	struct map programs = MAP_INIT;

	for (size_t i = 0; i < b->n; i++)
		if (!job_is_local(&b->jobs[i]) && cpu_us(&b->jobs[i]))
			add_to_mean(&programs, b->jobs[i].program, (double)cpu_us(&b->jobs[i]));
	for (size_t k = 0; k < s->n_places && s->n_workers > 1; k++) {
		double usual = 0, own = 0;
		size_t n = 0;

		for (size_t i = 0; i < b->n; i++) {
			const struct mean *m = map_get_str(&programs, b->jobs[i].program);

			if (s->place_of[i] != k || !m || !cpu_us(&b->jobs[i]))
				continue;
			usual += m->sum / (double)m->n;
			own += (double)cpu_us(&b->jobs[i]);
			n++;
		}
		s->places[k].speed = n >= SPEED_MIN ? usual / own : 0;
	}
	release_means(&programs);
}

/* The same work, as far as records tell. */
static char *key_of(const struct record *r)
{
	return xasprintf("%s\n%s\n%s", r->program, r->subject, r->cwd);
}

static bool is_comparable(const struct record *r)
{
	return !job_has_failed(r) && *r->subject && !streq(r->rule, "cancelled") &&
	       (job_is_local(r) ? r->sent_us && r->ended_us > r->sent_us : r->wall_us > 0);
}

#define COMPARED_MIN 3 /* fewer say more of themselves than of the machines */

static void finish_comparison(struct place *p, const struct mean *local, const struct mean *remote)
{
	p->n_compared = remote->n;
	if (remote->n >= COMPARED_MIN && remote->sum > 0)
		p->speed_local = local->sum / remote->sum;
}

static void compare_with_here(struct summary *s, const struct builds *b)
{
	struct mean *local = xcalloc(s->n_places, sizeof(*local));
	struct mean *remote = xcalloc(s->n_places, sizeof(*remote));
	struct map done_here = MAP_INIT;

	for (size_t i = 0; i < b->n_records; i++) {
		const struct record *r = &b->records[i];
		char *key = key_of(r);

		if (job_is_local(r) && is_comparable(r))
			add_to_mean(&done_here, key, (double)(r->ended_us - r->sent_us));
		free(key);
	}
	for (size_t i = 0; i < b->n_records && done_here.n; i++) {
		const struct record *r = &b->records[i];
		struct place *p = place_named(s, r->worker);
		char *key = key_of(r);
		const struct mean *m = map_get_str(&done_here, key);

		free(key);
		if (job_is_local(r) || !is_comparable(r) || !p || !m)
			continue;
		local[p - s->places].sum += m->sum / (double)m->n;
		remote[p - s->places].sum += (double)r->wall_us;
		remote[p - s->places].n++;
	}
	for (size_t k = 0; k < s->n_places; k++)
		finish_comparison(&s->places[k], &local[k], &remote[k]);
	release_means(&done_here);
	free(local);
	free(remote);
}

/* ---- all together ---- */

static void add_remote(struct summary *s, const struct record *r)
{
	uint64_t taken = taken_us(r);

	s->n_remote++;
	s->waited_us += r->slot_us;
	s->there_us += taken;
	s->way_us += taken > r->wall_us ? taken - r->wall_us : 0;
}

static void add_up(struct summary *s)
{
	for (size_t i = 0; i < s->build->n; i++) {
		const struct record *r = &s->build->jobs[i];

		if (!job_is_local(r))
			add_remote(s, r);
		s->n_local += job_is_local(r);
		s->n_failed += job_has_failed(r);
		s->n_retried += r->tries > 1 || (r->tries && job_is_local(r));
		s->cpu_us += cpu_us(r);
		s->local_us += job_is_local(r) ? taken_us(r) : 0;
		s->bytes_back += r->bytes_back;
		s->bytes_fetched += r->bytes_fetched;
		s->slots = r->all_slots > s->slots ? r->all_slots : s->slots;
	}
}

/* All of it on all cores without a gap, but no job on more than one: no build does better. */
static void estimate_alone(struct summary *s)
{
	double sum = 0, longest = 0;

	for (size_t i = 0; i < s->build->n; i++) {
		const struct record *r = &s->build->jobs[i];
		double speed = s->places[s->place_of[i]].speed_local;
		double us = job_is_local(r) ? (double)taken_us(r) : (double)cpu_us(r);

		if (!job_is_local(r) && speed > 0) {
			us *= speed;
			s->scaled = true;
		}
		sum += us;
		longest = us > longest ? us : longest;
	}
	sum /= s->cores;
	s->alone_us = (uint64_t)(sum > longest ? sum : longest);
}

/* ---- what it was good for ---- */

double summary_speed_up(const struct summary *s)
{
	return s->n_remote && s->wall_us ? (double)s->alone_us / (double)s->wall_us : 0;
}

/* Parts of a whole from which on something is the limit. */
#define PART_HERE  0.7 /* of what this machine's cores could have done */
#define PART_WAIT  0.3 /* of what jobs took since they were ready to go */
#define PART_WAY   0.5 /* of what jobs took on workers */
#define PART_SLOTS 0.6 /* of the slots, used on average: fewer, and there was no more to do */

const char *summary_limit(const struct summary *s)
{
	double wall = (double)s->wall_us, remote = (double)s->there_us;

	if (!s->build->n || !s->wall_us)
		return "";
	if (!s->n_remote)
		return "no job went to a worker";
	if ((double)s->local_us > PART_HERE * wall * s->cores)
		return "this machine, busy with the jobs that stayed here";
	if ((double)s->waited_us > PART_WAIT * (remote + (double)s->waited_us))
		return "too few slots: jobs waited for them";
	if ((double)s->way_us > PART_WAY * remote)
		return "the way to the workers, which took most of the jobs' time";
	if (s->slots && remote < PART_SLOTS * wall * (double)s->slots)
		return "the build itself, which had too few jobs at once";
	return "the workers' own speed";
}

/* ---- why here ---- */

static int by_time_here(const void *a, const void *b)
{
	const struct rule_use *x = a, *y = b;

	if (x->us != y->us)
		return x->us > y->us ? -1 : 1;
	return strcmp(x->rule, y->rule);
}

static struct rule_use *rule_named(struct summary *s, const char *rule)
{
	for (size_t i = 0; i < s->n_rules; i++)
		if (streq(s->rules[i].rule, rule))
			return &s->rules[i];
	s->rules = xrealloc(s->rules, (s->n_rules + 1) * sizeof(*s->rules));
	s->rules[s->n_rules] = (struct rule_use){.rule = rule, .why = ""};
	return &s->rules[s->n_rules++];
}

static void collect_rules(struct summary *s)
{
	for (size_t i = 0; i < s->build->n; i++) {
		const struct record *r = &s->build->jobs[i];
		struct rule_use *u = job_is_local(r) ? rule_named(s, r->rule) : NULL;

		if (!u)
			continue;
		u->n++;
		u->us += taken_us(r);
		if (!*u->why)
			u->why = r->why;
	}
	if (s->n_rules)
		qsort(s->rules, s->n_rules, sizeof(*s->rules), by_time_here);
}

/* ---- lists of jobs ---- */

/* Puts i into a list of the largest, by which it is ordered. */
static void list_largest(size_t *list, size_t *n, size_t i,
			 uint64_t (*size)(const struct record *r), const struct record *jobs)
{
	size_t at = *n;

	while (at > 0 && size(&jobs[list[at - 1]]) < size(&jobs[i]))
		at--;
	if (at == SUMMARY_LISTED)
		return;
	if (*n < SUMMARY_LISTED)
		++*n;
	memmove(list + at + 1, list + at, (*n - at - 1) * sizeof(*list));
	list[at] = i;
}

static void list_jobs(struct summary *s)
{
	const struct record *jobs = s->build->jobs;
	uint64_t tail = s->build->began_us + s->tail_us;

	for (size_t i = 0; i < s->build->n; i++) {
		list_largest(s->slowest, &s->n_slowest, i, taken_us, jobs);
		if (job_done_us(&jobs[i]) > tail)
			list_largest(s->tail, &s->n_tail, i, job_done_us, jobs);
	}
}

void summary_make(struct summary *s, const struct builds *b, const struct build *t, uint32_t cores)
{
	*s = (struct summary){.build = t, .cores = cores ? cores : 1};
	s->place_of = xcalloc(t->n, sizeof(*s->place_of));
	s->lane_of = xcalloc(t->n, sizeof(*s->lane_of));
	s->wall_us = t->ended_us - t->began_us;
	find_places(s);
	lanes_assign(s);
	lanes_measure(s);
	compare_workers(s);
	compare_with_here(s, b);
	add_up(s);
	estimate_alone(s);
	collect_rules(s);
	list_jobs(s);
}

void summary_release(struct summary *s)
{
	free(s->places);
	free(s->place_of);
	free(s->lane_of);
	free(s->rules);
	*s = (struct summary){0};
}
