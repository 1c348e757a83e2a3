/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Places of different speed that share one queue: the classic answer is a
 * threshold.  A slow one is worth taking when the queue for the faster ones is
 * long enough that the last in it would be done later (Lin and Kumar, "Optimal
 * control of a queueing system with two heterogeneous servers", IEEE TAC 29,
 * 1984).  So at the end of a build, when nobody waits, no job begins where it
 * would be the last to end by much.
 */
#include "level.h"

/* Work of a job of which nothing is known: worth being spread over cores, whatever others took. */
#define WORK_UNKNOWN_US 1000000

/* The level that says most about this one: itself, the next below, the next above; or -1. */
static int known_level(const struct sched_profile *p, unsigned level)
{
	for (int i = (int)level; i >= 0; i--)
		if (p->slowdown[i])
			return i;
	for (unsigned i = level + 1; i < SCHED_LEVELS; i++)
		if (p->slowdown[i])
			return (int)i;
	return -1;
}

/*
 * More jobs than it was seen with share what it has: its cores, or, where it has
 * been found to be at its end with fewer, that.
 */
static uint64_t slowdown(const struct sched_profile *p, uint32_t concurrency)
{
	unsigned level = level_of(concurrency);
	int known = known_level(p, level);
	uint64_t slow = known < 0 ? SCHED_ONE : p->slowdown[known];
	uint64_t enough = p->cores ? p->cores : UINT32_MAX;

	if (known >= 0 && (unsigned)known >= level)
		return slow;
	if (known >= 0 && (2u << known) - 1 > enough)
		enough = (2u << known) - 1;
	/* Twice the jobs took twice the time: there is no more of it. */
	if (known > 0 && p->slowdown[known - 1] && slow * 2 > (uint64_t)p->slowdown[known - 1] * 3)
		enough = (2u << known) - 1;
	return concurrency > enough ? slow * concurrency / enough : slow;
}

static uint64_t work_of(const struct sched_job *j)
{
	uint32_t unknown = j->mean_us > WORK_UNKNOWN_US ? j->mean_us : WORK_UNKNOWN_US;

	return j->work_us ? j->work_us : unknown;
}

static uint64_t takes_us(const struct sched_place *p, uint32_t concurrency, uint64_t work)
{
	return work * slowdown(&p->profile, concurrency) / SCHED_ONE + p->profile.overhead_us;
}

uint64_t sched_takes_us(const struct sched_place *p, uint32_t beside, const struct sched_job *j)
{
	return takes_us(p, beside + 1, work_of(j));
}

bool sched_is_as_good(uint64_t takes, uint64_t best)
{
	return takes <= best + best / 8;
}

/* What a person does not notice, of one job; and of a build that has only begun. */
#define HARDLY_US	10000
#define HARDLY_FIRST_US 300000
/* Until then what was measured is the price of beginning, in good part. */
#define FIRST_US 1000000

/* This machine has other things to do, too: a worker that is hardly slower is preferred. */
static uint64_t weighed(const struct sched_place *p, const struct sched_job *j, uint64_t takes)
{
	uint64_t hardly = j->busy_us < FIRST_US ? HARDLY_FIRST_US : HARDLY_US;

	if (!p->here)
		return takes;
	return takes + (takes / 20 > hardly ? takes / 20 : hardly);
}

/* What waiting for better places means. */
struct better {
	uint64_t takes_us; /* the job, at the best of them */
	uint64_t mean_us;  /* a job as they are, at the slowest of them */
	uint64_t next_us;  /* until one of their slots is free */
	uint64_t queue_us; /* until their slots have dealt with all others that wait */
};

static uint64_t mean_waiting(const struct sched_job *j)
{
	if (j->waiting && j->waiting_us)
		return j->waiting_us / j->waiting;
	return j->mean_us ? j->mean_us : work_of(j);
}

static bool better_than(const struct sched_place *places, size_t n, const struct sched_job *j,
			uint64_t free_us, struct better *ret)
{
	uint64_t mean = j->mean_us ? j->mean_us : work_of(j), others = mean_waiting(j), last = 0;
	double each = 0, all = 0;

	ret->takes_us = UINT64_MAX;
	ret->mean_us = 0;
	for (size_t i = 0; i < n; i++) {
		const struct sched_place *p = &places[i];
		uint64_t takes, other, usual;

		if (!p->slots || p->taken < p->slots)
			continue; /* what is free has lost already */
		takes = weighed(p, j, takes_us(p, p->slots, work_of(j)));
		if (takes >= free_us)
			continue;
		other = takes_us(p, p->slots, others);
		usual = takes_us(p, p->slots, mean) ?: 1;
		each += p->slots / (double)usual;
		ret->mean_us = usual > ret->mean_us ? usual : ret->mean_us;
		all += p->slots / (double)(other ?: 1);
		last = other > last ? other : last;
		ret->takes_us = takes < ret->takes_us ? takes : ret->takes_us;
	}
	if (ret->takes_us == UINT64_MAX)
		return false;
	ret->next_us = (uint64_t)(1 / each);
	ret->queue_us = j->waiting ? (uint64_t)(j->waiting / all) + last : 0;
	return true;
}

/*
 * A free slot that is slower is worth it when the job ends there before the last of those that
 * wait would end at the better ones: then it is not what the build waits for.  So a long job
 * leaves it to a shorter one.
 *
 * Slots that idle cost throughput, a job that begins on a slow one costs its
 * lateness, once, at the end of a build or of a stage of it.  How much is to come
 * nobody knows; what has gone on for long is likely to go on.  So that may cost this part of it.
 */
#define LATE_PART 20
/*
 * It, or a job as they are, could have been done there so many times: that a slot there is about to
 * be free, or that the free one is so much slower, is no longer believed.
 */
#define BELIEVED 4

int sched_choose(const struct sched_place *places, size_t n, const struct sched_job *j,
		 uint64_t *ret_patience_us)
{
	struct better better;
	uint64_t best_us = UINT64_MAX, gain, patience;
	int best = SCHED_WAIT;

	*ret_patience_us = UINT64_MAX;
	for (size_t i = 0; i < n; i++) {
		const struct sched_place *p = &places[i];
		uint64_t takes;

		if (p->taken >= p->slots)
			continue;
		takes = weighed(p, j, sched_takes_us(p, p->taken, j));
		if (takes < best_us) {
			best_us = takes;
			best = (int)i;
		}
	}
	if (best < 0 || !better_than(places, n, j, best_us, &better))
		return best;
	gain = best_us - better.takes_us;
	patience = BELIEVED * (better.mean_us > better.takes_us ? better.mean_us : better.takes_us);
	patience = gain < patience ? gain : patience;
	/* Estimates are rough: a small gain is none. */
	if (gain * 4 < best_us || gain < j->busy_us / LATE_PART || better.next_us >= gain ||
	    better.queue_us >= best_us || j->waited_us >= patience)
		return best;
	*ret_patience_us = patience - j->waited_us;
	return SCHED_WAIT;
}

/* What has gone on for long is likely to go on: times what it has done so far. */
#define GOES_ON 4
/* Less may be a guess that is wrong, and what it counts as slower for that; but of a job whose work
 * is known. */
#define FAR_SLOWER 2

uint64_t sched_done_us(const struct sched_place *there, uint64_t elapsed_us)
{
	return elapsed_us * SCHED_ONE / (slowdown(&there->profile, there->taken ?: 1) ?: 1);
}

/*
 * Whichever is chosen may be wrong.  Left there, it costs most when the job is as long as can be;
 * begun anew, when it was about to end there.  The smaller of the two is taken.
 */
bool sched_restart_pays(const struct sched_place *there, const struct sched_place *here,
			uint32_t most_us, bool known, uint64_t done_us)
{
	double slow_there = (double)slowdown(&there->profile, there->taken ?: 1) / SCHED_ONE;
	double slow_here = (double)slowdown(&here->profile, here->taken + 1) / SCHED_ONE;
	double done = (double)done_us, most = most_us;

	known &= most > done;
	if (most <= done)
		most = GOES_ON * done;
	return (known || slow_there >= FAR_SLOWER * slow_here) &&
	       (most - done) * slow_there > (most + done) * slow_here + HARDLY_US;
}

/* Of a job that has taken so many times what it should nobody knows how long it will take. */
#define BEYOND 2

/*
 * It will go on for as long as it has: so it is better begun here when it has been there for
 * longer than it takes here.  In a queue that is all there is to know.
 */
uint64_t sched_restart_after_us(const struct sched_place *there, const struct sched_place *here,
				uint32_t most_us, bool begun)
{
	uint64_t beyond, takes_here;

	if (!most_us)
		return UINT64_MAX;
	beyond = begun ? BEYOND * takes_us(there, there->taken ?: 1, most_us) : 0;
	takes_here = takes_us(here, here->taken + 1, most_us) + HARDLY_US;
	return beyond > takes_here ? beyond : takes_here;
}
