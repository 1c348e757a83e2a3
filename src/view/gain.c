/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What workers were good for in a build, and what kept them from more: by the records of its jobs.
 */
#include "concc/view.h"

#include <stdlib.h>
#include <string.h>

#include "concc/err.h"
#include "concc/record.h"
#include "concc/str.h"

#define PART_HERE                                                                                  \
	0.7	       /* of this machine's cores, so long as they were busy with jobs: that is it \
			*/
#define PART_WAIT  0.3 /* of what jobs took from their beginning to their end */
#define PART_WAY   0.5
#define PART_SLOTS 0.6 /* of the slots used on average: the build had no more to do */

static bool is_here(const struct record *r)
{
	return !*r->worker;
}

static uint64_t after(uint64_t end, uint64_t begin)
{
	return end > begin ? end - begin : 0;
}

/* From its beginning on its machine until all it made was in place. */
static uint64_t taken_us(const struct record *r)
{
	return after(r->placed_us > r->ended_us ? r->placed_us : r->ended_us, r->sent_us);
}

void view_gain_add(struct view_gain *g, const struct record *r)
{
	uint64_t taken = taken_us(r), work = is_here(r) ? taken : r->utime_us + r->stime_us;

	g->n++;
	g->n_remote += !is_here(r);
	g->work_us += work;
	g->longest_us = work > g->longest_us ? work : g->longest_us;
	g->waited_us += is_here(r) ? 0 : r->slot_us;
	if (is_here(r)) {
		g->here_us += taken;
		return;
	}
	g->there_us += taken;
	g->way_us += after(taken, r->wall_us);
}

double view_gain_speed_up(const struct view_gain *g)
{
	uint64_t alone = g->cores ? g->work_us / g->cores : 0;

	/* No job runs on more than one core. */
	alone = alone > g->longest_us ? alone : g->longest_us;
	return g->n_remote && g->wall_us ? (double)alone / (double)g->wall_us : 0;
}

const char *view_gain_limit(const struct view_gain *g)
{
	double wall = (double)g->wall_us, there = (double)g->there_us;

	if (!g->n || !g->wall_us)
		return "";
	if (!g->n_remote)
		return "no job went to a worker";
	if ((double)g->here_us > PART_HERE * wall * g->cores)
		return "this machine, busy with the jobs that stayed here";
	if ((double)g->waited_us > PART_WAIT * (there + (double)g->waited_us))
		return "too few slots: jobs waited for them";
	if ((double)g->way_us > PART_WAY * there)
		return "the way to the workers, which took most of the jobs' time";
	if (g->slots && there / wall < PART_SLOTS * g->slots)
		return "the build itself, which had too few jobs at once";
	return "the workers' own speed";
}

struct reading {
	const char *build;
	struct view_gain *gain;
};

static bool take(void *data, struct record *r)
{
	struct reading *k = data;

	if (streq(r->build, k->build))
		view_gain_add(k->gain, r);
	return true;
}

int view_gain_read(struct view_gain *g, const char *build)
{
	struct reading k = {.build = build, .gain = g};
	char *path = NULL;
	int r = record_find(&path, NULL);

	if (r == 0)
		r = record_read(path, take, &k);
	free(path);
	return r;
}
