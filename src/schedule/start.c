/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Whether to start a place for the jobs that wait.  Their work is taken for a fluid: each place
 * deals with it at its rate from when it is ready, and the end is when all is gone.  How much is to
 * come nobody knows; what has gone on for long is likely to go on for as long.
 */
#include <math.h>
#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/schedule.h"
#include "concc/str.h"

struct part {
	double ready_us;
	double slots;
	double rate; /* jobs in a microsecond */
};

struct end {
	double us;	 /* when the last of those who wait has a slot */
	double takes_us; /* a job, in the mean of the places that deal with them */
};

static struct part part_of(const struct sched_start *s, const struct sched_job *j)
{
	struct sched_job mean = {.work_us = j->mean_us};
	uint32_t slots = s->place.slots ?: 1;

	if (j->waiting && j->waiting_us)
		mean.work_us = (uint32_t)fmin((double)j->waiting_us / j->waiting, UINT32_MAX);
	return (struct part){.ready_us = (double)s->ready_us,
			     .slots = slots,
			     .rate = slots /
				     (double)(sched_takes_us(&s->place, slots - 1, &mean) ?: 1)};
}

static int by_ready(const void *a, const void *b)
{
	const struct part *p = a, *q = b;

	return (p->ready_us > q->ready_us) - (p->ready_us < q->ready_us);
}

/* Of those that are in order, and one more or NULL. */
static struct end end_of(const struct part *p, size_t n, const struct part *more, double jobs)
{
	struct end ret = {.us = INFINITY, .takes_us = 0};
	double rate = 0, slots = 0, late = 0;

	for (size_t i = 0; i < n || more;) {
		bool is_more = more && (i == n || more->ready_us <= p[i].ready_us);
		const struct part *next = is_more ? more : &p[i];

		if (next->ready_us >= ret.us)
			break; /* all is gone by then */
		rate += next->rate;
		slots += next->slots;
		late += next->rate * next->ready_us;
		ret = (struct end){.us = (jobs + late) / rate, .takes_us = slots / rate};
		if (is_more)
			more = NULL;
		else
			i++;
	}
	return ret;
}

/* Those who wait, or as many as were dealt with since there is a queue. */
static double jobs_of(const struct part *p, size_t n, const struct sched_job *j, uint64_t lasted_us)
{
	double rate = 0;

	for (size_t i = 0; i < n && p[i].ready_us <= 0; i++)
		rate += p[i].rate;
	return fmax(j->waiting, rate * (double)lasted_us);
}

/*
 * Who waits may be slow to hear of a slot that is free, and what was started for it is up before it
 * runs.  Those for whom there are free slots, which they would take, need nothing more.
 */
static struct sched_job without_served(const struct sched_start *there, size_t n,
				       const struct sched_job *j)
{
	_cleanup_free_ struct sched_place *places = xcalloc(n + 1, sizeof(*places));
	struct sched_job left = *j;
	uint64_t patience_us;
	size_t n_ready = 0;

	for (size_t i = 0; i < n; i++)
		if (!there[i].ready_us)
			places[n_ready++] = there[i].place;
	while (left.waiting) {
		struct sched_place *p;
		uint32_t served;
		int at;

		left.waiting--; /* others than the first of them */
		at = sched_choose(places, n_ready, &left, &patience_us);
		left.waiting++;
		if (at < 0)
			break;
		p = &places[at];
		served = p->slots - p->taken < left.waiting ? p->slots - p->taken : left.waiting;
		p->taken += served;
		left.waiting_us -= left.waiting_us * served / left.waiting;
		left.waiting -= served;
	}
	return left;
}

static bool pays(const struct sched_start *s, const struct part *p, const struct end *without)
{
	return !s->known || p->ready_us + p->slots / p->rate < without->us + without->takes_us;
}

int sched_start(const struct sched_start *there, size_t n_there, const struct sched_start *asleep,
		size_t n_asleep, const struct sched_job *j, uint64_t lasted_us)
{
	_cleanup_free_ struct part *parts = xcalloc(n_there + 1, sizeof(*parts));
	struct sched_job left = without_served(there, n_there, j);
	double jobs, soonest = INFINITY;
	struct end without;
	int best = SCHED_WAIT;

	if (!left.waiting)
		return SCHED_WAIT;
	for (size_t i = 0; i < n_there; i++)
		parts[i] = part_of(&there[i], j);
	qsort(parts, n_there, sizeof(*parts), by_ready);
	jobs = jobs_of(parts, n_there, j, lasted_us);
	without = end_of(parts, n_there, NULL, jobs);
	for (size_t i = 0; i < n_asleep; i++) {
		struct part p = part_of(&asleep[i], j);
		double us = end_of(parts, n_there, &p, jobs).us;

		if (us < soonest && pays(&asleep[i], &p, &without)) {
			soonest = us;
			best = (int)i;
		}
	}
	return best;
}
