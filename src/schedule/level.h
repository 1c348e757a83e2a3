/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SCHEDULE_LEVEL_H
#define CONCC_SCHEDULE_LEVEL_H

#include "concc/schedule.h"

/* Of that many jobs at once. */
static inline unsigned level_of(uint32_t concurrency)
{
	unsigned level = concurrency ? 31u - (unsigned)__builtin_clz(concurrency) : 0;

	return level < SCHED_LEVELS ? level : SCHED_LEVELS - 1;
}

#endif
