/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What was measured, as a model of few numbers: the logarithm of a job's time is
 * that of its work, plus how slow the place's processors are, plus how much
 * they are shared by as many jobs as it had at once.
 *
 * Means that forget: the first sample counts whole, the n-th by 1/n, and none
 * less than a floor, so that what changes (other users, a warmer room) is
 * followed.  In logarithms, since times of jobs differ by factors.
 */
#include "level.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "concc/map.h"
#include "concc/str.h"

/* Files of one project at once; of two that fall on one entry the older is forgotten. */
#define WORKS 16384

enum {
	FLOOR_JOB = 3,	  /* what a file takes changes with each edit of it */
	FLOOR_KIND = 32,  /* its jobs differ much */
	FLOOR_CPU = 64,	  /* a processor stays what it is */
	FLOOR_LEVEL = 12, /* others come and go */
	FLOOR_OVERHEAD = 8,
	FLOOR_MEAN = 64,
};

/* That a place is as fast as was guessed weighs as much as so many jobs. */
#define GUESS_WEIGHT 4

/* A command that used less CPU time, or a smaller part of one processor, waits for other things. */
#define BUSY_US	  10000
#define SHARE_MAX 64

/* Nothing is this much faster or slower; beyond it, something else was measured. */
#define FACTOR_MAX 1000.0

struct mean {
	double value;
	unsigned n; /* 0: none yet */
};

struct work {
	uint64_t key;
	struct mean ln_us;
};

struct place {
	struct mean ln_cpu;
	struct mean ln_shared[SCHED_LEVELS];
	struct mean overhead_us;
	uint64_t at_us; /* of its last sample */
};

struct sched_model {
	struct map places; /* name -> struct place */
	struct place here;
	uint32_t cores; /* of here */
	double others, processors;
	unsigned n_tried; /* jobs that began here */
	unsigned n_there; /* and that ended elsewhere */
	struct mean ln_mean;
	struct work works[WORKS];
};

/* weight: of so many samples. */
static void learn_weighted(struct mean *m, double sample, unsigned weight, unsigned floor)
{
	m->n = m->n + weight < floor ? m->n + weight : floor;
	m->value += (sample - m->value) * weight / m->n;
}

static void learn(struct mean *m, double sample, unsigned floor)
{
	learn_weighted(m, sample, 1, floor);
}

struct sched_model *sched_model_new(uint32_t cores)
{
	struct sched_model *m = xcalloc(1, sizeof(*m));

	m->cores = cores;
	m->here.ln_cpu.n = GUESS_WEIGHT;
	return m;
}

void sched_model_free(struct sched_model *m)
{
	struct place *p;
	size_t it = 0;

	if (!m)
		return;
	while ((p = map_next(&m->places, &it, NULL)))
		free(p);
	map_release(&m->places);
	free(m);
}

/* ---- who else uses this machine ---- */

void sched_model_others(struct sched_model *m, double tasks, uint32_t processors)
{
	m->others = tasks;
	m->processors = processors;
}

/* The logarithm of how much longer each of so many jobs takes here for that. */
static double crowd(const struct sched_model *m, uint32_t at_once)
{
	double all = at_once + m->others, room = fmax(m->processors, at_once);

	return m->processors && all > room ? log(all / room) : 0;
}

/* ---- works ---- */

static struct work *work_at(const struct sched_model *m, uint64_t key)
{
	return (struct work *)&m->works[(key ^ key >> 32) % WORKS];
}

static const struct work *work_find(const struct sched_model *m, uint64_t key)
{
	const struct work *w = work_at(m, key);

	return w->key == key && w->ln_us.n ? w : NULL;
}

static void learn_work(struct sched_model *m, uint64_t key, double ln_us, unsigned floor)
{
	struct work *w = work_at(m, key);

	if (w->key != key)
		*w = (struct work){.key = key};
	learn(&w->ln_us, ln_us, floor);
}

uint32_t sched_model_work_us(const struct sched_model *m, uint64_t key)
{
	const struct work *w = work_find(m, key);
	double us = w ? exp(w->ln_us.value) : 0;

	return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

uint32_t sched_model_mean_us(const struct sched_model *m)
{
	double us = m->ln_mean.n ? exp(m->ln_mean.value) : 0;

	return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

/* What is expected of this job; false when nothing is. */
static bool expected(const struct sched_model *m, const struct sched_sample *s, double *ret_ln_us)
{
	const struct work *w = work_find(m, s->job);

	if (!w)
		w = work_find(m, s->kind);
	if (w)
		*ret_ln_us = w->ln_us.value;
	return w;
}

/* ---- places ---- */

static struct place *place_of(struct sched_model *m, const char *name)
{
	struct place *p;

	if (!name)
		return &m->here;
	p = map_get_str(&m->places, name);
	if (!p) {
		p = xcalloc(1, sizeof(*p));
		map_put_str(&m->places, name, p);
	}
	return p;
}

/* CPU time says how much of a processor a command had only where it wants all of one. */
static bool is_busy(const struct sched_sample *s)
{
	return s->wall_us && s->cpu_us >= BUSY_US && s->cpu_us >= s->wall_us / SHARE_MAX;
}

/*
 * How much the command had to share its processor with: by its own CPU time,
 * which needs no knowledge of it; else by what it, or others of its kind, took before.
 */
static bool shared_by(const struct sched_model *m, const struct place *p,
		      const struct sched_sample *s, double *ret_ln)
{
	uint64_t us = s->wall_us ? s->wall_us : s->total_us;
	double work;

	/* Without CPU time, what was learnt of others says too little. */
	if (!s->place && (s->at_once <= m->cores || !work_find(m, s->job)))
		return false;
	if (is_busy(s)) {
		*ret_ln = us > s->cpu_us ? log((double)us / (double)s->cpu_us) : 0;
		return true;
	}
	if (!expected(m, s, &work))
		return false;
	*ret_ln = log((double)us) - work - p->ln_cpu.value;
	return true;
}

/* The same job says more of a place than others that are like it. */
#define SAME_WEIGHT 8

/* What it took of a processor, or would have, had it shared none; 0: not known. */
static uint64_t alone_us(const struct sched_model *m, const struct sched_sample *s)
{
	if (s->place)
		return is_busy(s) ? s->cpu_us : 0;
	return s->at_once <= m->cores ? s->total_us : 0;
}

static void learn_place(struct sched_model *m, struct place *p, const struct sched_sample *s)
{
	uint64_t alone = alone_us(m, s);
	double shared, work;

	if (alone && expected(m, s, &work))
		learn_weighted(&p->ln_cpu, log((double)alone) - work,
			       work_find(m, s->job) ? SAME_WEIGHT : 1, FLOOR_CPU);
	if (s->filling)
		return; /* it waited for what will be there */
	if (shared_by(m, p, s, &shared))
		learn(&p->ln_shared[level_of(s->at_once)], shared, FLOOR_LEVEL);
	if (s->place && s->wall_us)
		learn(&p->overhead_us,
		      s->total_us > s->wall_us ? (double)(s->total_us - s->wall_us) : 0,
		      FLOOR_OVERHEAD);
}

void sched_model_guess(struct sched_model *m, const char *name, uint32_t speed)
{
	struct place *p = place_of(m, name);

	if (!p->ln_cpu.n && speed)
		p->ln_cpu = (struct mean){-log(speed / 1000.0), GUESS_WEIGHT};
}

static double work_done(const struct place *p, const struct sched_sample *s)
{
	uint64_t us = s->wall_us ? s->wall_us : s->total_us;

	if (is_busy(s))
		return log((double)s->cpu_us) - p->ln_cpu.value;
	return log((double)us) - p->ln_cpu.value - p->ln_shared[level_of(s->at_once)].value;
}

static void learn_sample(struct sched_model *m, const struct sched_sample *s)
{
	struct place *p = place_of(m, s->place);
	double ln_us;

	p->at_us = s->at_us;
	m->n_there += s->place != NULL;
	learn_place(m, p, s);
	if (s->filling && !is_busy(s))
		return;
	ln_us = work_done(p, s);
	learn_work(m, s->job, ln_us, FLOOR_JOB);
	learn_work(m, s->kind, ln_us, FLOOR_KIND);
	learn(&m->ln_mean, ln_us, FLOOR_MEAN);
}

void sched_model_learn(struct sched_model *m, const struct sched_sample *s)
{
	struct sched_sample alone = *s;

	if (!s->place)
		alone.total_us = (uint64_t)((double)s->total_us / exp(crowd(m, s->at_once)));
	if (alone.total_us)
		learn_sample(m, &alone);
}

void sched_model_learn_late(struct sched_model *m, const struct sched_sample *s)
{
	struct place *p = place_of(m, s->place);
	struct mean *shared = &p->ln_shared[level_of(s->at_once)];
	double work, at_least;

	if (!s->total_us || !expected(m, s, &work))
		return;
	at_least = log((double)s->total_us) - work - p->ln_cpu.value;
	if (at_least <= (shared->n ? shared->value : 0))
		return;
	p->at_us = s->at_us;
	learn(shared, at_least, FLOOR_LEVEL);
}

static uint32_t fixed(double ln)
{
	double factor = exp(ln);

	if (factor > FACTOR_MAX)
		factor = FACTOR_MAX;
	if (factor < 1 / FACTOR_MAX)
		factor = 1 / FACTOR_MAX;
	return (uint32_t)(factor * SCHED_ONE);
}

/*
 * A place that was found to be slow is given no jobs, so that nothing more is
 * learnt of it: what was measured loses half its weight in this time, until it is tried again.
 */
#define HALF_LIFE_US 60000000.0

/* So many jobs tell what jobs take here, and then one for so many that are done elsewhere.  Shorter
 * ones are not worth finding out about. */
#define TRIES	  2
#define TRY_EVERY 8
#define LONG_US	  50000

void sched_model_begins_here(struct sched_model *m)
{
	m->n_tried++;
}

/*
 * Unless jobs are done here, nobody knows what they take here: a little hope has
 * it tried now and then, where the difference is small anyway.
 */
static double hope(const struct sched_model *m, const struct place *p)
{
	bool try = p == &m->here && m->n_tried < TRIES + m->n_there / TRY_EVERY &&
		   sched_model_mean_us(m) > LONG_US;

	return try ? log(0.75) : 0;
}

/* As far as jobs have cores of their own here; beyond, they share as was measured. */
static double beside_others(const struct sched_model *m, const struct place *p, unsigned level)
{
	return p == &m->here && 1u << level <= m->cores ? crowd(m, 1u << level) : 0;
}

void sched_model_pace(const struct sched_model *m, const char *name, uint64_t now_us,
		      struct sched_pace *ret)
{
	const struct place *p = name ? map_get_str(&m->places, name) : &m->here;
	double weight, overhead;

	*ret = (struct sched_pace){0};
	if (!p)
		return;
	weight = now_us > p->at_us ? exp2(-(double)(now_us - p->at_us) / HALF_LIFE_US) : 1;
	ret->slowness[0] = fixed(p->ln_cpu.value + hope(m, p) + beside_others(m, p, 0));
	for (unsigned i = 0; i < SCHED_LEVELS; i++) {
		double others = beside_others(m, p, i);

		if (p->ln_shared[i].n || others > 0)
			ret->slowness[i] = fixed(p->ln_cpu.value + p->ln_shared[i].value * weight +
						 others);
	}
	overhead = p->overhead_us.value * weight;
	ret->overhead_us = overhead > UINT32_MAX ? UINT32_MAX : (uint32_t)overhead;
}
