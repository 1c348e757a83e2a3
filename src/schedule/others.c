/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/schedule.h"

/* Who gets so much of what it wants has hardly anybody beside it. */
#define HARDLY_LESS 0.9

/*
 * Where all are served alike, each of n beside x others on c cores has the part c / (n + x).
 * Those that ended meanwhile are not among what ran, so n is at least the jobs that there are.
 */
uint32_t sched_others(uint32_t cores, uint32_t jobs, uint64_t ran_us, uint64_t waited_us,
		      uint64_t elapsed_us)
{
	double wanted = (double)ran_us + (double)waited_us;
	double had = wanted > 0 ? (double)(ran_us ?: 1) / wanted : 1;
	double n = elapsed_us ? wanted / (double)elapsed_us : 0, others;

	if (had >= HARDLY_LESS)
		return 0;
	others = cores / had - (n > jobs ? n : jobs);
	if (others <= 0)
		return 0;
	return others < SCHED_OTHERS_MAX ? (uint32_t)(others + 0.5) : SCHED_OTHERS_MAX;
}
