/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "usual.h"

#include <stdlib.h>
#include <string.h>

#include "builds.h"
#include "concc/cleanup.h"
#include "concc/str.h"
#include "summary.h"

/* Of the same work and of programs together: more than the record file has jobs.  What comes then
 * is not remembered. */
#define TIMES_MAX (256 * 1024)
#define FLUSH_MS  3000 /* someone waits for the screen */

struct seen {
	double mean_us;
	unsigned n;
};

/* ---- times ---- */

/* The newer ones count for more, since what is built changes. */
static void see(struct usual *u, const char *key, uint64_t us)
{
	struct seen *t = map_get_str(&u->times, key);

	if (!t) {
		if (u->times.n >= TIMES_MAX)
			return;
		t = xcalloc(1, sizeof(*t));
		map_put_str(&u->times, key, t);
	}
	t->n += t->n < 8;
	t->mean_us += ((double)us - t->mean_us) / t->n;
}

static char *key_of(const char *program, const char *subject, const char *directory)
{
	return xasprintf("%s\n%s\n%s", program, subject, directory);
}

static void see_both(struct usual *u, const char *program, const char *subject,
		     const char *directory, uint64_t us)
{
	_cleanup_free_ char *key = key_of(program, subject, directory);

	see(u, program, us);
	see(u, key, us);
}

uint64_t usual_us(const struct usual *u, const char *program, const char *subject,
		  const char *directory)
{
	_cleanup_free_ char *key = key_of(program, subject, directory);
	const struct seen *t = map_get_str(&u->times, key);

	if (!t)
		t = map_get_str(&u->times, program);
	return t ? (uint64_t)t->mean_us : 0;
}

/* ---- the last jobs ---- */

static void release_job(struct last_job *j)
{
	free(j->worker);
	free(j->rule);
	free(j->why);
	free(j->program);
	free(j->what);
}

static void put_last(struct usual *u, struct last_job *j)
{
	if (u->n_last == LAST_JOBS) {
		release_job(&u->last[0]);
		memmove(u->last, u->last + 1, --u->n_last * sizeof(*u->last));
	}
	u->last[u->n_last++] = *j;
	*j = (struct last_job){0};
}

void usual_add(struct usual *u, const char *directory, const char *subject, struct last_job *j)
{
	if (!j->code && !j->by_signal)
		see_both(u, j->program, subject, directory, j->us);
	put_last(u, j);
}

/* ---- records ---- */

static uint64_t ran_us(const struct record *r)
{
	return r->sent_us ? job_done_us(r) - r->arrived_us - r->sent_us : 0;
}

static void put_record(struct usual *u, const struct record *r)
{
	struct last_job j = {.worker = xstrdup(r->worker),
			     .rule = xstrdup(r->rule),
			     .why = xstrdup(r->why),
			     .program = xstrdup(r->program),
			     .what = xstrdup(*r->subject ? r->subject : r->command),
			     .us = ran_us(r),
			     .code = r->code,
			     .by_signal = r->how == RECORD_END_SIGNAL};

	put_last(u, &j);
}

struct speed {
	double times;
};

static void keep_speeds(struct usual *u, const struct summary *s)
{
	for (size_t i = 0; i < s->n_places; i++) {
		struct speed *x;

		if (s->places[i].speed_local <= 0)
			continue;
		x = xcalloc(1, sizeof(*x));
		x->times = s->places[i].speed_local;
		free(map_put_str(&u->speeds, s->places[i].name, x));
	}
}

void usual_read(struct usual *u)
{
	struct summary s;
	struct builds b;
	struct build all;

	*u = (struct usual){0};
	if (builds_read(&b, FLUSH_MS, NULL) < 0)
		return;
	for (size_t i = 0; i < b.n_records; i++) {
		const struct record *r = &b.records[i];

		if (!job_has_failed(r) && r->ended_us)
			see_both(u, r->program, r->subject, r->cwd, ran_us(r));
		if (i + LAST_JOBS >= b.n_records)
			put_record(u, r);
	}
	/* As if they were one: a worker is the same in all of them. */
	all = (struct build){.id = (char *)"", .jobs = b.records, .n = b.n_records};
	if (all.n) {
		summary_make(&s, &b, &all, 1);
		keep_speeds(u, &s);
		summary_release(&s);
	}
	builds_release(&b);
}

double usual_speed(const struct usual *u, const char *worker)
{
	const struct speed *x = map_get_str(&u->speeds, worker);

	return x ? x->times : 0;
}

static void free_values(struct map *m)
{
	size_t it = 0;
	void *v;

	while ((v = map_next(m, &it, NULL)))
		free(v);
	map_release(m);
}

void usual_release(struct usual *u)
{
	free_values(&u->times);
	free_values(&u->speeds);
	for (unsigned i = 0; i < u->n_last; i++)
		release_job(&u->last[i]);
	*u = (struct usual){0};
}
