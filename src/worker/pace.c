/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "pace.h"

#include <stdlib.h>

#include "concc/cores.h"
#include "concc/io.h"
#include "concc/offload.h"
#include "concc/str.h"

#define WHOLE	1000
#define SLOW	500
#define STEP	50 /* less is no news */
#define SURE_MS 100
#define SURE_US 10000000 /* it costs a hundredth of a core */

struct pace {
	uint32_t speed;
	struct offload_lane *lane;
	void (*changed)(void *data);
	void *data;
	uint32_t told;	/* thousandths, as what follows */
	bool measuring; /* then what is below is the thread's */
	uint32_t measured;
	uint64_t sure_us; /* when that was looked at for long; 0: never */
};

struct pace *pace_new(uint32_t speed, struct offload *threads, void (*changed)(void *data),
		      void *data)
{
	struct pace *p = xcalloc(1, sizeof(*p));

	p->speed = speed ?: 1;
	p->lane = offload_lane(threads);
	p->changed = changed;
	p->data = data;
	p->measured = p->told = WHOLE;
	return p;
}

void pace_free(struct pace *p)
{
	free(p);
}

static uint32_t part_of(const struct pace *p, uint32_t speed)
{
	uint64_t part = (uint64_t)speed * WHOLE / p->speed;

	if (part >= SLOW)
		return WHOLE;
	return part > STEP ? (uint32_t)part / STEP * STEP : STEP;
}

/* One that has nothing else to do may be at its lowest clock, until it has been busy for a while.
 */
static void measure(void *arg)
{
	struct pace *p = arg;
	uint64_t now = now_us();

	if (part_of(p, core_speed_within(0)) == WHOLE) {
		p->measured = WHOLE;
	} else if (!p->sure_us || now >= p->sure_us + SURE_US) {
		p->measured = part_of(p, core_speed_within(SURE_MS));
		p->sure_us = now;
	}
}

static void measured(void *arg)
{
	struct pace *p = arg;

	p->measuring = false;
	if (p->told == p->measured)
		return;
	p->told = p->measured;
	p->changed(p->data);
}

uint32_t pace_look(struct pace *p, bool has_jobs)
{
	if (has_jobs && !p->measuring)
		p->measuring = offload_put(p->lane, measure, measured, p, 0); /* one at a time */
	return p->told;
}
