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
	FLOOR_CPU = 512,  /* a processor stays what it is; of weights, see below */
	FLOOR_LEVEL = 12, /* others come and go */
	FLOOR_OVERHEAD = 8,
	FLOOR_MEAN = 64,
	FLOOR_WEIGHT = 4, /* others come and go */
};

/*
 * What says how fast a place's processors are weighs by how far it may be off:
 * that it is as fast as was guessed; the same job, done elsewhere before; others
 * of its kind, by how much those differ (a crate and its build script, of one
 * directory, by a factor of twenty): that over the variance of their logarithms, and little of it,
 * since those of a kind that have ended first are its short ones.
 */
#define GUESS_WEIGHT 32
#define SAME_WEIGHT  64
#define KIND_WEIGHT  8
#define KIND_SPREAD  0.7
/* Of a kind of which there was one. */
#define SPREAD_UNKNOWN 1.0
/* Fewer say nothing of what is unusual. */
#define KIND_MIN 8

/* A command that used less CPU time, or a smaller part of one processor, waits for other things. */
#define BUSY_US	  10000
#define SHARE_MAX 64
/*
 * Shorter ones are not worth finding out about, and say nothing of what others take: what they
 * take longer is a moment's wait, which is added to a job of any length.
 */
#define LONG_US 50000

/* Nothing is this much faster or slower; beyond it, something else was measured. */
#define FACTOR_MAX 1000.0

struct mean {
	double value;
	unsigned n; /* 0: none yet */
};

struct work {
	uint64_t key;
	struct mean ln_us;
	double spread;		/* the mean square of what samples differ from ln_us by */
	double here;		/* the part of them that ran here */
	bool idle;		/* they wait instead of computing, which takes the same each time */
	const struct place *at; /* where the last one did; its address only */
};

struct place {
	struct mean ln_cpu;
	struct mean ln_shared[SCHED_LEVELS];
	struct mean overhead_us;
	uint64_t at_us;	  /* of its last sample */
	uint32_t others;  /* jobs of other clients there, as it has said; 0 of here */
	uint32_t cores;	  /* that they share with ours */
	double ln_slowed; /* since it was measured, as it has said */
};

struct sched_model {
	struct map places; /* name -> struct place */
	struct place here;
	uint32_t cores; /* of here */
	double background, processors;
	struct mean
		weight; /* of what a task of others takes, against one of ours; none: not seen */
	uint64_t weight_at_us;
	uint64_t ran_us, waited_us; /* jobs here, since the last sample of it */
	unsigned n_tried;	    /* jobs that began here */
	unsigned n_there;	    /* and that ended elsewhere */
	unsigned n_here;	    /* and here */
	double shown;		    /* what jobs weigh that said how fast workers are */
	struct mean ln_mean, spread;
	double longest_us; /* job of late, about */
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

void sched_model_background_load(struct sched_model *m, double tasks, uint32_t processors)
{
	m->background = tasks;
	m->processors = processors;
}

/* The logarithm of how much longer each of so many jobs takes here beside so many tasks of others.
 */
static double crowd_of(const struct sched_model *m, uint32_t concurrency, double others)
{
	double all = concurrency + others, room = fmax(m->processors, concurrency);

	return m->processors && all > room ? log(all / room) : 0;
}

/*
 * Tasks of others count less than ours where these are nice, or in control groups with small
 * shares; how much less is known when jobs have run beside them.
 */
static double crowd(const struct sched_model *m, uint32_t concurrency)
{
	return crowd_of(m, concurrency, m->background * (m->weight.n ? m->weight.value : 1));
}

/* A moment's wait comes of many things, as of being put beside another where it begins. */
#define CONTENTION_US 300000
/* Who waits for no more than this part of what it runs is yielded to. */
#define HARDLY_WAITS 0.1

void sched_model_contention(struct sched_model *m, uint32_t concurrency, uint64_t ran_us,
			    uint64_t waited_us, uint64_t now_us)
{
	double room = fmax(m->processors, concurrency), waits, others;

	/* Where there is room for all it does not show. */
	if (crowd_of(m, concurrency, m->background) <= 0)
		return;
	m->ran_us += ran_us;
	m->waited_us += waited_us;
	if (!m->ran_us || m->ran_us + m->waited_us < CONTENTION_US)
		return;
	waits = (double)m->waited_us / (double)m->ran_us;
	m->ran_us = m->waited_us = 0;
	others = waits < HARDLY_WAITS ? room * waits : room * (1 + waits) - concurrency;
	learn(&m->weight, fmin(fmax(others, 0) / m->background, 1), FLOOR_WEIGHT);
	m->weight_at_us = now_us;
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

static void learn_work(struct sched_model *m, const struct place *at, uint64_t key, double ln_us,
		       unsigned floor)
{
	struct work *w = work_at(m, key);
	double off = ln_us - w->ln_us.value;

	if (w->key != key)
		*w = (struct work){.key = key, .spread = SPREAD_UNKNOWN};
	else if (w->ln_us.n)
		w->spread += (off * off - w->spread) / (w->ln_us.n + 1);
	learn(&w->ln_us, ln_us, floor);
	w->here += ((at == &m->here) - w->here) / w->ln_us.n;
	w->at = at;
}

uint32_t sched_model_work_us(const struct sched_model *m, uint64_t key)
{
	const struct work *w = work_find(m, key);
	double us = w ? exp(w->ln_us.value) : 0;

	return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

/* The logarithm of what few of a kind exceed. */
static double at_most(const struct work *kind)
{
	return kind->ln_us.value + 2 * sqrt(kind->spread);
}

uint32_t sched_model_upper_bound_us(const struct sched_model *m, uint64_t kind)
{
	const struct work *w = work_find(m, kind);
	double us = w ? exp(at_most(w)) : 0;

	return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

uint32_t sched_model_mean_us(const struct sched_model *m)
{
	/* Of many that differ by factors: the mean, not the middle one.  A tiny one among few makes
	 * their spread so great that it would be longer than any of them. */
	double us = m->ln_mean.n ? exp(m->ln_mean.value + m->spread.value / 2) : 0;

	us = fmin(us, m->longest_us);
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

/* How slow its processors are: what was learnt is beyond what it has said. */
static double ln_cpu_of(const struct place *p)
{
	return p->ln_cpu.value + p->ln_slowed;
}

/* The logarithm of how much longer each of so many jobs takes there, since others have told. */
static double told(const struct place *p, uint32_t concurrency)
{
	double room = p->cores > concurrency ? p->cores : concurrency;
	double all = (double)concurrency + p->others;

	return p->cores && all > room ? log(all / room) : 0;
}

/* And since they share its cores among themselves, where that has not been measured. */
static double crowded(const struct place *p, uint32_t concurrency)
{
	return p->cores && concurrency > p->cores ? log((double)concurrency / p->cores) : 0;
}

/*
 * What is measured is beside others, too; so what is learnt is what remains beyond what they are
 * said to take: less than nothing where they leave more (they wait for their disks, or are nice).
 * No number of theirs makes a place faster than it is alone.
 */
static double shared_beside_others(const struct place *p, unsigned level, double weight)
{
	const struct mean *m = &p->ln_shared[level];
	uint32_t n = 1u << level;

	return fmax(0, told(p, n) + (m->n ? m->value * weight : crowded(p, n)));
}

void sched_model_others(struct sched_model *m, const char *name, uint32_t jobs, uint32_t cores)
{
	struct place *p = place_of(m, name);

	p->others = jobs;
	p->cores = cores;
}

void sched_model_speed(struct sched_model *m, const char *name, uint32_t permille)
{
	place_of(m, name)->ln_slowed = -log(fmax(permille, 1) / 1000);
}

/* CPU time says how much of a processor a command had only where it wants all of one. */
static bool is_busy(const struct sched_sample *s)
{
	return s->wall_us && s->cpu_us >= BUSY_US && s->cpu_us >= s->wall_us / SHARE_MAX;
}

/* Of a sample that is held against what jobs of its kind take. */
static double kind_weight(const struct work *kind)
{
	return fmin(KIND_WEIGHT, KIND_SPREAD / (kind->spread * (1 + 1.0 / kind->ln_us.n)));
}

/*
 * Of a sample, as evidence of how fast its place is.  What was learnt at that very place says
 * nothing of it: it would only make what is believed believed the more.
 */
static unsigned weight_of(const struct sched_model *m, const struct place *p,
			  const struct sched_sample *s)
{
	const struct work *job = work_find(m, s->job), *kind = work_find(m, s->kind);
	double elsewhere;

	if (job)
		return job->at == p ? 0 : SAME_WEIGHT;
	if (!kind)
		return 0;
	if (kind->idle)
		return KIND_WEIGHT;
	elsewhere = p == &m->here ? 1 - kind->here : kind->here;
	return (unsigned)lround(kind_weight(kind) * elsewhere);
}

/*
 * How much the command had to share its processor with: by its own CPU time,
 * which needs no knowledge of it; else by what it, or others of its kind, took before.
 */
static bool shared_by(const struct sched_model *m, const struct place *p,
		      const struct sched_sample *s, double *ret_ln)
{
	const struct work *job = work_find(m, s->job);
	uint64_t us = s->wall_us ? s->wall_us : s->total_us;
	double work;

	/* Without CPU time, what was learnt of others says too little. */
	if (!s->place && (s->concurrency <= m->cores || !job))
		return false;
	if (is_busy(s)) {
		*ret_ln = us > s->cpu_us ? log((double)us / (double)s->cpu_us) : 0;
		return true;
	}
	if (!expected(m, s, &work) || work < log(LONG_US))
		return false;
	*ret_ln = log((double)us) - work - ln_cpu_of(p);
	/* A short one of its kind is that, and no sign of a fast place. */
	return job || us >= LONG_US;
}

/* What it took of a processor, or would have, had it shared none; 0: not known. */
static uint64_t alone_us(const struct sched_model *m, const struct sched_sample *s)
{
	if (s->place)
		return is_busy(s) ? s->cpu_us : 0;
	return s->concurrency <= m->cores ? s->total_us : 0;
}

/* A long job has met more of what others do than a short one. */
#define LONG_WEIGHT 6

static unsigned shared_weight(const struct sched_model *m, const struct sched_sample *s)
{
	double usual = sched_model_mean_us(m) ?: (double)s->total_us;

	return (unsigned)lround(fmin(fmax((double)s->total_us / usual, 1), LONG_WEIGHT));
}

static void learn_place(struct sched_model *m, struct place *p, const struct sched_sample *s)
{
	uint64_t alone = alone_us(m, s);
	unsigned weight = weight_of(m, p, s);
	double shared, work;

	if (alone && weight && expected(m, s, &work)) {
		learn_weighted(&p->ln_cpu, log((double)alone) - work - p->ln_slowed, weight,
			       FLOOR_CPU);
		m->shown += s->place ? weight : 0;
	}
	if (s->filling)
		return; /* it waited for what will be there */
	if (shared_by(m, p, s, &shared))
		learn_weighted(&p->ln_shared[level_of(s->concurrency)],
			       shared - told(p, s->concurrency), shared_weight(m, s), FLOOR_LEVEL);
	if (s->place && s->wall_us)
		learn(&p->overhead_us,
		      s->total_us > s->wall_us ? (double)(s->total_us - s->wall_us) : 0,
		      FLOOR_OVERHEAD);
}

void sched_model_prior(struct sched_model *m, const char *name, uint32_t speed)
{
	struct place *p = place_of(m, name);

	if (!p->ln_cpu.n && speed)
		p->ln_cpu = (struct mean){-log(speed / 1000.0), GUESS_WEIGHT};
}

static double work_done(const struct place *p, const struct sched_sample *s)
{
	uint64_t us = s->wall_us ? s->wall_us : s->total_us;
	double shared = p->ln_shared[level_of(s->concurrency)].value;

	if (is_busy(s))
		return log((double)s->cpu_us) - ln_cpu_of(p);
	return log((double)us) - ln_cpu_of(p) - fmax(0, shared + told(p, s->concurrency));
}

static void learn_sample(struct sched_model *m, const struct sched_sample *s)
{
	struct place *p = place_of(m, s->place);
	double ln_us, off;

	p->at_us = s->at_us;
	m->n_there += s->place != NULL;
	m->n_here += s->place == NULL;
	learn_place(m, p, s);
	if (s->filling && !is_busy(s))
		return;
	ln_us = work_done(p, s);
	learn_work(m, p, s->job, ln_us, FLOOR_JOB);
	learn_work(m, p, s->kind, ln_us, FLOOR_KIND);
	if (s->place)
		work_at(m, s->kind)->idle = !is_busy(s) && s->wall_us >= LONG_US;
	m->longest_us = fmax(exp(ln_us), m->longest_us * (1 - 1.0 / FLOOR_MEAN));
	learn(&m->ln_mean, ln_us, FLOOR_MEAN);
	off = ln_us - m->ln_mean.value;
	learn(&m->spread, off * off, FLOOR_MEAN);
}

void sched_model_learn(struct sched_model *m, const struct sched_sample *s)
{
	struct sched_sample alone = *s;

	if (!s->place)
		alone.total_us = (uint64_t)((double)s->total_us / exp(crowd(m, s->concurrency)));
	if (alone.total_us)
		learn_sample(m, &alone);
}

void sched_model_learn_censored(struct sched_model *m, const struct sched_sample *s)
{
	struct place *p = place_of(m, s->place);
	struct mean *shared = &p->ln_shared[level_of(s->concurrency)];
	const struct work *job = work_find(m, s->job), *kind = work_find(m, s->kind);
	double work, at_least;

	if (!s->total_us || (!job && (!kind || kind->ln_us.n < KIND_MIN)))
		return;
	work = fmax(job ? job->ln_us.value : at_most(kind), log(LONG_US));
	at_least = log((double)s->total_us) - work - ln_cpu_of(p) - told(p, s->concurrency);
	if (at_least <= (shared->n ? shared->value : 0))
		return;
	p->at_us = s->at_us;
	learn_weighted(shared, at_least, FLOOR_LEVEL / 2, FLOOR_LEVEL);
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

/* So many jobs tell what jobs take here, and then one for so many that are done elsewhere. */
#define TRIES	  2
#define TRY_EVERY 8

void sched_model_begins_here(struct sched_model *m)
{
	m->n_tried++;
}

/*
 * Unless jobs are done here, nobody knows what they take here, and what others leave of its
 * processors: a little hope has it tried now and then, where the difference is small anyway.
 */
#define HOPE log(0.75)

static bool is_here_to_be_tried(const struct sched_model *m)
{
	return m->n_tried < TRIES + m->n_there / TRY_EVERY && sched_model_mean_us(m) > LONG_US;
}

/* So long what others take here is what was seen last. */
#define SEEN_US 30000000

bool sched_model_knows_contention(const struct sched_model *m, uint64_t now_us)
{
	return m->weight.n && now_us < m->weight_at_us + SEEN_US;
}

/*
 * How fast workers are was guessed, within a third or so: until jobs have shown it, they may well
 * be slower, and don't get what this machine has a core for; but for a few, by which it is found
 * out. Of all of them alike, since between two of them a guess is all there is.
 */
#define CAUTION 0.4

static double caution(const struct sched_model *m)
{
	return CAUTION * GUESS_WEIGHT / (GUESS_WEIGHT + m->shown / (double)(m->places.n ?: 1));
}

static bool is_to_be_tried(const struct sched_model *m)
{
	return m->n_there < TRIES + m->n_here / TRY_EVERY;
}

/* As far as jobs have cores of their own here; beyond, they share as was measured. */
static double beside_others(const struct sched_model *m, const struct place *p, unsigned level)
{
	return p == &m->here && 1u << level <= m->cores ? crowd(m, 1u << level) : 0;
}

static void profile_at(const struct sched_model *m, const char *name, uint64_t now_us, bool trying,
		       struct sched_profile *ret)
{
	const struct place *p = name ? map_get_str(&m->places, name) : &m->here;
	bool try = trying && p == &m->here && is_here_to_be_tried(m);
	bool crowded = !try || sched_model_knows_contention(m, now_us);
	double weight, overhead, cpu;

	*ret = (struct sched_profile){0};
	if (!p)
		return;
	cpu = ln_cpu_of(p);
	if (p != &m->here && !(trying && is_to_be_tried(m)))
		cpu += caution(m);
	weight = now_us > p->at_us ? exp2(-(double)(now_us - p->at_us) / HALF_LIFE_US) : 1;
	ret->slowdown[0] = fixed(cpu + (try ? HOPE : 0) + (crowded ? beside_others(m, p, 0) : 0));
	for (unsigned i = 0; i < SCHED_LEVELS; i++) {
		double others = crowded ? beside_others(m, p, i) : 0;

		if (p->others)
			ret->slowdown[i] = fixed(cpu + shared_beside_others(p, i, weight));
		else if (p->ln_shared[i].n || others > 0)
			ret->slowdown[i] = fixed(cpu + fmax(0, p->ln_shared[i].value * weight) +
						 others);
	}
	overhead = p->overhead_us.value * weight;
	ret->overhead_us = overhead > UINT32_MAX ? UINT32_MAX : (uint32_t)overhead;
}

void sched_model_profile(const struct sched_model *m, const char *name, uint64_t now_us,
			 struct sched_profile *ret)
{
	profile_at(m, name, now_us, false, ret);
}

void sched_model_optimistic_profile(const struct sched_model *m, const char *name, uint64_t now_us,
				    struct sched_profile *ret)
{
	profile_at(m, name, now_us, true, ret);
}
