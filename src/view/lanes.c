/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "lanes.h"

#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/str.h"

/* ---- which slot ---- */

static int by_beginning(const void *a, const void *b, void *jobs)
{
	const struct record *x = (const struct record *)jobs + *(const size_t *)a;
	const struct record *y = (const struct record *)jobs + *(const size_t *)b;
	uint64_t i = job_began_us(x), k = job_began_us(y);

	return i != k ? (i < k ? -1 : 1) : (x < y ? -1 : x > y);
}

/* Until when each lane of a place is taken. */
struct lanes {
	uint64_t *until;
};

/* The lowest that is free by then, which leaves the last ones to the rush hours. */
static uint32_t take_lane(struct place *p, struct lanes *l, const struct record *r)
{
	uint32_t i = 0;

	while (i < p->n_lanes && l->until[i] > job_began_us(r))
		i++;
	if (i == p->n_lanes)
		l->until = xrealloc(l->until, ++p->n_lanes * sizeof(*l->until));
	l->until[i] = job_done_us(r);
	return i;
}

void lanes_assign(struct summary *s)
{
	size_t n = s->build->n;
	_cleanup_free_ size_t *order = xcalloc(n, sizeof(*order));
	_cleanup_free_ struct lanes *lanes = xcalloc(s->n_places, sizeof(*lanes));

	for (size_t i = 0; i < n; i++)
		order[i] = i;
	qsort_r(order, n, sizeof(*order), by_beginning, s->build->jobs);
	for (size_t k = 0; k < n; k++) {
		size_t i = order[k];
		const struct record *r = &s->build->jobs[i];

		s->lane_of[i] = r->sent_us ? take_lane(&s->places[s->place_of[i]],
						       &lanes[s->place_of[i]], r)
					   : SUMMARY_NO_LANE;
	}
	for (size_t i = 0; i < s->n_places; i++)
		free(lanes[i].until);
}

/* ---- how many at once ---- */

struct step {
	uint64_t at_us;
	int by;
};

/* At the same moment one ends before the next begins. */
static int by_time(const void *a, const void *b)
{
	const struct step *x = a, *y = b;

	return x->at_us != y->at_us ? (x->at_us < y->at_us ? -1 : 1) : x->by - y->by;
}

static size_t put_steps(struct step *steps, size_t n, uint64_t from_us, uint64_t to_us)
{
	steps[n++] = (struct step){from_us, 1};
	steps[n++] = (struct step){to_us, -1};
	return n;
}

static struct width measure(const struct step *steps, size_t n, uint64_t wall_us)
{
	struct width w = {0};
	uint32_t now = 0;
	double area = 0;

	for (size_t i = 0; i < n; i++) {
		now += (uint32_t)steps[i].by;
		w.most = now > w.most ? now : w.most;
		if (i + 1 < n)
			area += (double)now * (double)(steps[i + 1].at_us - steps[i].at_us);
	}
	w.mean = wall_us ? area / (double)wall_us : 0;
	return w;
}

/* From the end back, the moment at which half of what the build offers on the average began. */
static uint64_t find_tail(const struct step *steps, size_t n, double mean)
{
	int now = 0;

	while (n-- > 0) {
		now -= steps[n].by;
		if (2 * now >= mean)
			return steps[n].at_us;
	}
	return 0;
}

void lanes_measure(struct summary *s)
{
	const struct build *b = s->build;
	_cleanup_free_ struct step *steps = xcalloc(2 * b->n, sizeof(*steps));
	size_t n = 0;
	uint64_t tail;

	for (size_t i = 0; i < b->n; i++) {
		const struct record *r = &b->jobs[i];

		if (job_has_slot(r))
			n = put_steps(steps, n, job_began_us(r), job_done_us(r));
	}
	qsort(steps, n, sizeof(*steps), by_time);
	s->busy = measure(steps, n, s->wall_us);
	n = 0;
	for (size_t i = 0; i < b->n; i++)
		n = put_steps(steps, n, b->jobs[i].arrived_us, job_done_us(&b->jobs[i]));
	qsort(steps, n, sizeof(*steps), by_time);
	s->offered = measure(steps, n, s->wall_us);
	tail = find_tail(steps, n, s->offered.mean);
	s->tail_us = tail > b->began_us ? tail - b->began_us : 0;
}
