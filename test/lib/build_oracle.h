/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_BUILD_ORACLE_H
#define CONCC_TEST_BUILD_ORACLE_H

/*
 * A part of build_sim.h, which alone includes it: the schedule of who knows what each job takes and
 * how fast each machine is.
 */

struct oracle {
	const struct cell *cell;
	struct client *clients;
	double free_at[CLIENTS_MAX + MACHINES_MAX][64]; /* of each core or slot */
	double filled[CLIENTS_MAX][MACHINES_MAX];
	double ended[CLIENTS_MAX][JOBS_MAX];
	bool placed[CLIENTS_MAX][JOBS_MAX];
	double latest[CLIENTS_MAX][JOBS_MAX]; /* the same ends, the last one first */
	unsigned n_placed[CLIENTS_MAX];
	double rank[CLIENTS_MAX][JOBS_MAX]; /* of the longest way to the end that begins with it */
	bool longest_first;
};

static unsigned places_of(double cores, uint32_t slots)
{
	return slots && slots < cores ? slots : (unsigned)cores;
}

static double *soonest(double *at, unsigned n)
{
	double *best = at;

	for (unsigned i = 1; i < n; i++)
		best = at[i] < *best ? &at[i] : best;
	return best;
}

static void oracle_note(struct oracle *o, unsigned client, unsigned i, double ends)
{
	double *latest = o->latest[client];
	unsigned k = o->n_placed[client]++;

	for (; k > 0 && latest[k - 1] < ends; k--)
		latest[k] = latest[k - 1];
	latest[k] = o->ended[client][i] = ends;
	o->placed[client][i] = true;
}

/* Where it ends first. */
static void oracle_place(struct oracle *o, unsigned client, unsigned i, double ready)
{
	const struct task *t = &o->clients[client].tasks[i];
	double *best = soonest(o->free_at[client], places_of(o->cell->cores, 0));
	double ends = fmax(ready, *best) + t->work;

	for (unsigned w = 0; w < o->cell->n_workers && !t->local; w++) {
		const struct machine *m = &o->cell->workers[w];
		double *at = soonest(o->free_at[CLIENTS_MAX + w], places_of(m->cores, m->slots));
		double from = fmax(ready, *at);

		from += fmax(m->overhead, m->fill - from);
		if (m->gone > 0 || m->slow > 0 || from + t->work / m->speed >= ends)
			continue;
		ends = from + t->work / m->speed;
		best = at;
	}
	*best = ends;
	oracle_note(o, client, i, ends);
}

/* With so many in flight the next one is offered when one of them has ended. */
static double oracle_offers(const struct oracle *o, unsigned client)
{
	unsigned offered = o->cell->offered;

	return o->n_placed[client] >= offered ? o->latest[client][offered - 1] : 0;
}

static bool oracle_step(struct oracle *o)
{
	double best_at = NEVER, best_rank = 0;
	unsigned best_c = 0, best_i = 0;

	for (unsigned c = 0; c < o->cell->n_clients; c++) {
		double offers = oracle_offers(o, c);

		for (unsigned i = 0; i < o->clients[c].n_tasks; i++) {
			unsigned after = o->clients[c].tasks[i].after;
			double at, rank = o->longest_first ? o->rank[c][i] : 0;

			if (o->placed[c][i] || (after && !o->placed[c][after - 1]))
				continue;
			at = fmax(offers, after ? o->ended[c][after - 1] : 0);
			if (at > best_at || (at == best_at && rank <= best_rank))
				continue;
			best_at = at;
			best_rank = rank;
			best_c = c;
			best_i = i;
		}
	}
	if (best_at == NEVER)
		return false;
	oracle_place(o, best_c, best_i, best_at);
	return true;
}

/* The mean of all clients. */
static double oracle(const struct cell *cell, bool longest_first)
{
	struct oracle *o = calloc(1, sizeof(*o));
	double sum = 0;

	o->cell = cell;
	o->longest_first = longest_first;
	o->clients = calloc(cell->n_clients, sizeof(*o->clients));
	for (unsigned c = 0; c < cell->n_clients; c++) {
		set_tasks(cell, c, &o->clients[c]);
		for (unsigned i = o->clients[c].n_tasks; i-- > 0;) {
			const struct task *t = &o->clients[c].tasks[i];

			o->rank[c][i] += t->work;
			if (t->after)
				o->rank[c][t->after - 1] = fmax(o->rank[c][t->after - 1],
								o->rank[c][i]);
		}
	}
	while (oracle_step(o))
		;
	for (unsigned c = 0; c < cell->n_clients; c++) {
		double ended = 0;

		for (unsigned i = 0; i < o->clients[c].n_tasks; i++)
			ended = fmax(ended, o->ended[c][i]);
		sum += ended;
	}
	free(o->clients);
	free(o);
	return sum / cell->n_clients;
}

#endif
