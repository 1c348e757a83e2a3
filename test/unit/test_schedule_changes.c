/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Builds with a worker that does not stay as it is: others begin to use it, its processors are
 * throttled, nothing is heard of it for a while, it vanishes, or it does not have its files yet.
 */
#include "../lib/build_sim.h"

static void one_cell(const struct source *source, const struct machine *worker, unsigned offered,
		     bool quiet, struct known known, struct cells *t)
{
	struct cell cell = {.workers = {*worker},
			    .n_workers = 1,
			    .n_clients = 1,
			    .offered = offered,
			    .source = source,
			    .times = 1,
			    .cores = 2,
			    .quiet = quiet};
	struct result r = run_cell(&cell, known);
	char what[200];

	snprintf(
		what, sizeof(what),
		"%s of %u, speed %.1f, %u, -j%u, slow %.0f (%.0f) stall %.0f gone %.0f fill %.1f%s%s",
		source->name, source->jobs->work_ms, worker->speed, worker->slots, offered,
		worker->slow, worker->strangers, worker->stall, worker->gone, worker->fill,
		known.guessed_low ? ", low" : "", text_of(known));
	tell(what, &r);
	count(t, worker, &r);
}

enum change { STRANGERS, QUOTA, SLOWED, STALLS, VANISHES };

static struct machine machine_of(enum change change, double speed, uint32_t slots, double at)
{
	struct machine m = {.speed = speed,
			    .cores = slots,
			    .slots = slots,
			    .concurrency = slots,
			    .overhead = 0.02};

	switch (change) {
	case STRANGERS:
		m.strangers = slots * 3;
		m.slow = at;
		break;
	case QUOTA:
		m.quota = slots / 4.0;
		m.slow = at;
		break;
	case SLOWED:
		m.slow = at;
		break;
	case STALLS:
		m.stall = at;
		m.on = at + 3;
		break;
	case VANISHES:
		m.gone = at;
		break;
	}
	return m;
}

#define AT_MAX 3
static const double in_the_middle[AT_MAX] = {1.3, 5.3, 20.3}, at_first[AT_MAX] = {1e-3};

static void with_source(const struct source *source, enum change change, const double at[AT_MAX],
			struct known known, struct cells *t)
{
	static const double speeds[] = {0.5, 1, 2, 4};
	static const unsigned offers[] = {2, 8, 200};
	static const uint32_t slots[] = {2, 8};

	for (size_t i = 0; i < N(speeds); i++)
		for (size_t j = 0; j < N(slots); j++)
			for (size_t k = 0; k < N(offers); k++)
				for (size_t l = 0; l < AT_MAX && at[l] > 0; l++) {
					struct machine w = machine_of(change, speeds[i], slots[j],
								      at[l]);

					one_cell(source, &w, offers[k], false, known, t);
				}
}

static void expect_cells(const struct cells *t, unsigned slow, double worst)
{
	if (getenv("SCHEDULE_TABLE"))
		fprintf(stderr, "%u of %u above 1.05, worst %.2f\n", t->n_slow, t->n, t->worst);
	cr_expect_leq(t->n_slow, slow, "%u of %u take longer than local", t->n_slow, t->n);
	cr_expect_leq(t->worst, worst, "%.2f of local", t->worst);
}

static void expect_change_at(const double at[AT_MAX], enum change change, struct known known,
			     unsigned slow, double worst)
{
	struct cells t = {0};

	for (size_t i = 0; i < N(sources); i++)
		with_source(&sources[i], change, at, known, &t);
	expect_cells(&t, slow, worst);
}

static void expect_change(enum change change, struct known known, unsigned slow, double worst)
{
	expect_change_at(in_the_middle, change, known, slow, worst);
}

/* What was done there until then is lost: of one job of 60 s up to 20. */
Test(changes, others_begin_to_use_the_worker)
{
	expect_change(STRANGERS, (struct known){0}, 32, 1.68);
	expect_change(STRANGERS, (struct known){.guessed_low = true}, 18, 1.38);
	expect_change(STRANGERS, (struct known){.built_before = 2}, 8, 1.2);
	expect_change(STRANGERS, (struct known){.built_before = 2, .guessed_low = true}, 18, 1.71);
}

/* Of a quarter of its processors' time. */
Test(changes, the_worker_gets_a_quota)
{
	expect_change(QUOTA, (struct known){0}, 8, 1.41);
	expect_change(QUOTA, (struct known){.guessed_low = true}, 0, 1.05);
	expect_change(QUOTA, (struct known){.built_before = 2}, 1, 1.07);
	expect_change(QUOTA, (struct known){.built_before = 2, .guessed_low = true}, 6, 1.24);
}

/* Which is that of a group above its own, so that it does not know of it; when it was used last it
 * had none.  The second in which it is not heard of is lost. */
Test(changes, the_worker_has_a_quota)
{
	expect_change_at(at_first, QUOTA, (struct known){0}, 2, 1.13);
	expect_change_at(at_first, QUOTA, (struct known){.guessed_low = true}, 2, 1.13);
	expect_change_at(at_first, QUOTA, (struct known){.built_before = 2}, 1, 1.13);
	expect_change_at(at_first, QUOTA, (struct known){.built_before = 2, .guessed_low = true}, 1,
			 1.11);
}

/* To a quarter: too hot, or who has the processors of a virtual machine keeps them. */
Test(changes, the_workers_processors_slow_down)
{
	expect_change(SLOWED, (struct known){0}, 27, 1.35);
	expect_change(SLOWED, (struct known){.guessed_low = true}, 14, 1.35);
	expect_change(SLOWED, (struct known){.built_before = 2}, 6, 1.11);
	expect_change(SLOWED, (struct known){.built_before = 2, .guessed_low = true}, 21, 1.63);
}

/* A line that stops for 3 s, which is not long enough to give its worker up. */
Test(changes, nothing_is_heard_of_the_worker_for_a_while)
{
	expect_change(STALLS, (struct known){0}, 12, 1.39);
	expect_change(STALLS, (struct known){.built_before = 2}, 4, 1.13);
	expect_change(STALLS, (struct known){.built_before = 2, .guessed_low = true}, 5, 1.28);
}

/* Beside what a worker that is lost costs. */
Test(changes, the_worker_vanishes)
{
	expect_change(VANISHES, (struct known){0}, 0, 1.05);
	expect_change(VANISHES, (struct known){.built_before = 2}, 0, 1.05);
	expect_change(VANISHES, (struct known){.built_before = 2, .guessed_low = true}, 0, 1.05);
}

/* ---- a worker that is being filled ---- */

static void lone_job(const struct machine *w, bool quiet, struct known known, struct cells *t)
{
	static const unsigned works_ms[] = {1000, 5000, 20000, 60000};

	for (size_t i = 0; i < N(works_ms); i++) {
		const struct recorded job = {.work_ms = works_ms[i]};
		const struct source lone = {"lone", &job, 1};

		one_cell(&lone, w, 2, quiet, known, t);
	}
}

static void builds(const struct machine *w, bool quiet, struct known known, struct cells *t)
{
	static const unsigned offers[] = {2, 8, 200};

	for (size_t i = 0; i < RECORDED; i++)
		for (size_t j = 0; j < N(offers); j++)
			one_cell(&sources[i], w, offers[j], quiet, known, t);
}

static void expect_filled(void (*of)(const struct machine *w, bool quiet, struct known known,
				     struct cells *t),
			  unsigned slow, double worst)
{
	static const double speeds[] = {0.5, 1, 2, 4}, fills[] = {0.5, 1.1, 3, 10, 48};
	struct cells t = {0};

	for (size_t i = 0; i < N(speeds); i++)
		for (size_t j = 0; j < N(fills); j++)
			for (unsigned k = 0; k < 4; k++) {
				struct machine w = {.speed = speeds[i],
						    .cores = 4,
						    .slots = 4,
						    .concurrency = 4,
						    .overhead = 0.02,
						    .fill = fills[j]};

				of(&w, k & 1, (struct known){.guessed_low = k & 2}, &t);
			}
	expect_cells(&t, slow, worst);
}

/* Half a second is lost until it is seen, or it would have been filled in the next moment. */
Test(filled, a_lone_job_of_which_nothing_is_known)
{
	expect_filled(lone_job, 84, 1.5);
}

Test(filled, first_builds)
{
	expect_filled(builds, 12, 1.13);
}
