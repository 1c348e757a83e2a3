/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Workers that are as they are, alone or shared, and that others fill. */
#include "../lib/build_sim.h"

/* Where all workers are slower; it does not know that clients take turns. */
#define OF_ORACLE_SLOW 0.87

static struct result one_worker(const struct source *source, const struct machine *worker,
				unsigned offered, struct known known)
{
	struct cell cell = {.workers = {*worker},
			    .n_workers = 1,
			    .n_clients = 1,
			    .offered = offered,
			    .source = source,
			    .times = 1,
			    .cores = 2};
	struct result r = run_cell(&cell, known);
	char what[100];

	snprintf(what, sizeof(what), "%s, speed %.2f, %u cores, %.0f ms, -j%u%s%s", source->name,
		 worker->speed, worker->slots, worker->overhead * 1000, offered,
		 known.guessed_low ? ", low" : "", text_of(known));
	tell(what, &r);
	return r;
}

static void source_with_one_worker(const struct source *source, struct known known, struct cells *t)
{
	static const double speeds[] = {0.25, 0.5, 1, 2, 4}, overheads[] = {0.002, 0.02, 0.1};
	static const unsigned offers[] = {2, 4, 16, 200};
	static const uint32_t slots[] = {1, 4, 32};

	for (size_t i = 0; i < N(speeds); i++)
		for (size_t j = 0; j < N(slots); j++)
			for (size_t k = 0; k < N(overheads); k++)
				for (size_t l = 0; l < N(offers); l++) {
					struct machine w = {.speed = speeds[i],
							    .cores = slots[j],
							    .slots = slots[j],
							    .overhead = overheads[k]};
					struct result r = one_worker(source, &w, offers[l], known);

					count(t, &w, &r);
				}
}

static struct cells with_one_worker(struct known known)
{
	struct cells t = {0};

	for (size_t i = 0; i < RECORDED; i++)
		source_with_one_worker(&sources[i], known, &t);
	if (getenv("SCHEDULE_TABLE"))
		fprintf(stderr,
			"%u built before, guessed %s: %u of %u above 1.05, worst %.2f; %u of %u below %.1f of the oracle\n",
			known.built_before, known.guessed_low ? "low" : "high", t.n_slow, t.n,
			t.worst, t.n_below, t.n_faster, OF_ORACLE);
	return t;
}

static void expect(struct known known, unsigned slow, double worst, unsigned below)
{
	struct cells t = with_one_worker(known);

	cr_expect_leq(t.n_slow, slow, "%u of %u take longer than local", t.n_slow, t.n);
	cr_expect_leq(t.worst, worst, "%.2f of local", t.worst);
	cr_expect_leq(t.n_below, below, "%u of %u are below %.1f of the oracle", t.n_below,
		      t.n_faster, OF_ORACLE);
}

/*
 * Below the oracle are short builds with one long job that is not known to be the last: nobody sees
 * ahead.  Those that are slow have a worker whose speed was guessed too low, and learnt halfway.
 */
Test(recorded, known_with_one_worker)
{
	expect((struct known){.built_before = 2}, 0, 1.05, 13);
	expect((struct known){.built_before = 2, .guessed_low = true}, 2, 1.1, 29);
}

/* Of which nothing is known but a wrong guess of the worker's speed. */
Test(recorded, new_with_one_worker)
{
	expect((struct known){0}, 0, 1.05, 74);
	expect((struct known){.guessed_low = true}, 0, 1.05, 136);
}

/* ---- a worker that others fill ---- */

static void one_beside_others(const struct source *source, const struct machine *worker,
			      unsigned offered, unsigned others, double first, struct known known,
			      struct cells *t)
{
	struct cell cell = {.workers = {*worker},
			    .n_workers = 1,
			    .n_clients = 1 + others,
			    .n_others = others,
			    .others_first = first,
			    .offered = offered,
			    .source = source,
			    .times = 1,
			    .cores = 2};
	struct result r = run_cell(&cell, known);
	char what[100];

	snprintf(what, sizeof(what), "%s, speed %.2f, %u slots, -j%u, %u others%s%s%s",
		 source->name, worker->speed, worker->slots, offered, others,
		 first > 0 ? " before" : "", known.guessed_low ? ", low" : "", text_of(known));
	tell(what, &r);
	count(t, worker, &r);
}

static void source_beside_others(const struct source *source, double first, struct known known,
				 struct cells *t)
{
	static const double speeds[] = {0.5, 1, 2};
	static const unsigned offers[] = {2, 8, 200};
	static const uint32_t slots[] = {4, 8};

	for (size_t i = 0; i < N(speeds); i++)
		for (size_t j = 0; j < N(slots); j++)
			for (size_t k = 0; k < N(offers); k++)
				for (unsigned others = 1; others <= 2; others++) {
					struct machine w = {.speed = speeds[i],
							    .cores = slots[j] / 4,
							    .slots = slots[j],
							    .concurrency = slots[j],
							    .overhead = 0.02};

					one_beside_others(source, &w, offers[k], others, first,
							  known, t);
				}
}

static void expect_beside_others(double first, struct known known, unsigned slow, double worst)
{
	struct cells t = {0};

	for (size_t i = 0; i < RECORDED; i++)
		source_beside_others(&sources[i], first, known, &t);
	cr_expect_leq(t.n_slow, slow, "%u of %u take longer than local", t.n_slow, t.n);
	cr_expect_leq(t.worst, worst, "%.2f of local", t.worst);
}

/* The worker says how many there are. */
Test(recorded, beside_others)
{
	expect_beside_others(2.5, (struct known){0}, 1, 1.18);
	expect_beside_others(2.5, (struct known){.guessed_low = true}, 0, 1.05);
	expect_beside_others(2.5, (struct known){.built_before = 2}, 0, 1.05);
	expect_beside_others(2.5, (struct known){.built_before = 2, .guessed_low = true}, 0, 1.05);
}

/* Those who come with our first jobs it has not seen when these are sent: a second is lost. */
Test(recorded, with_others_who_come)
{
	expect_beside_others(0, (struct known){0}, 6, 1.13);
	expect_beside_others(0, (struct known){.guessed_low = true}, 2, 1.1);
	expect_beside_others(0, (struct known){.built_before = 2}, 2, 1.08);
	expect_beside_others(0, (struct known){.built_before = 2, .guessed_low = true}, 1, 1.13);
}

/* ---- a hundred workers ---- */

static void set_farm(struct cell *cell, double slowest, double fastest, unsigned n_bad)
{
	for (unsigned w = 0; w < cell->n_workers; w++) {
		struct machine *m = &cell->workers[w];
		double u = (rand() + 0.5) / ((double)RAND_MAX + 1);

		*m = (struct machine){.speed = slowest * pow(fastest / slowest, u),
				      .cores = 10,
				      .slots = 10,
				      .concurrency = 10,
				      .overhead = 0.02};
		if (w < n_bad && w % 2)
			m->slow = 2 + u * 10;
		else if (w < n_bad) {
			m->gone = 2 + u * 10;
			m->back = w % 4 ? m->gone + 15 : 0;
		}
	}
}

static void farm(unsigned n_clients, const double speeds[2], unsigned offered, unsigned n_bad,
		 struct known known)
{
	struct cell *cell = calloc(1, sizeof(*cell));
	struct result r;
	char what[100];

	*cell = (struct cell){.n_workers = 100,
			      .n_clients = n_clients,
			      .offered = offered,
			      .times = 2,
			      .cores = 2};
	srand(1);
	set_farm(cell, speeds[0], speeds[1], n_bad);
	r = run_cell(cell, known);
	snprintf(what, sizeof(what), "%u clients, speeds %.2f to %.2f, -j%u, %u fail%s", n_clients,
		 speeds[0], speeds[1], offered, n_bad, text_of(known));
	tell(what, &r);
	cr_expect_leq(r.worst, 1.05, "%s: %.2f of local", what, r.worst);
	if (!n_bad && known.built_before) /* the oracle uses none that fails */
		cr_expect_geq(r.in_order / r.took, speeds[1] > 1 ? OF_ORACLE : OF_ORACLE_SLOW,
			      "%s: %.2f of the oracle", what, r.in_order / r.took);
	free(cell);
}

static void farms(struct known known)
{
	static const unsigned offers[] = {2, 16, 200}, clients[] = {1, 10};
	static const double speeds[][2] = {{0.25, 0.5}, {0.25, 4}, {1, 4}};

	for (size_t i = 0; i < N(clients); i++)
		for (size_t j = 0; j < N(speeds); j++)
			for (size_t k = 0; k < N(offers); k++)
				for (unsigned bad = 0; bad <= 20; bad += 20)
					farm(clients[i], speeds[j], offers[k], bad, known);
}

Test(recorded, known_with_a_hundred_workers)
{
	farms((struct known){.built_before = 2});
}

Test(recorded, new_with_a_hundred_workers)
{
	farms((struct known){0});
}
