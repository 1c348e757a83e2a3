/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "builds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/map.h"
#include "concc/str.h"
#include "concc/wrapper.h"

static uint64_t end_of(const struct record *r)
{
	uint64_t last = r->sent_us;

	last = r->ended_us > last ? r->ended_us : last;
	last = r->committed_us > last ? r->committed_us : last;
	return r->arrived_us + last;
}

static bool take(void *data, struct record *r)
{
	struct builds *b = data;

	if (b->n_records == b->cap) {
		b->cap = b->cap ? 2 * b->cap : 1024;
		b->records = xrealloc(b->records, b->cap * sizeof(*b->records));
	}
	b->records[b->n_records++] = *r;
	*r = (struct record){0};
	return true;
}

static int by_arrival(const void *a, const void *b)
{
	const struct record *x = a, *y = b;

	return x->arrived_us != y->arrived_us ? (x->arrived_us < y->arrived_us ? -1 : 1) : 0;
}

/* ---- which build a job is of ---- */

/* Gives jobs that are of no `concc run` the id of the group that they are in. */
static void name_groups(struct builds *b)
{
	uint64_t last = 0;
	char id[32] = "";

	for (size_t i = 0; i < b->n_records; i++) {
		struct record *r = &b->records[i];

		if (*r->build)
			continue;
		if (!last || r->arrived_us > last + BUILD_GAP_S * 1000000ull)
			(void)snprintf(id, sizeof(id), "%llx",
				       (unsigned long long)r->arrived_us / 1000000);
		record_set(&r->build, id);
		last = end_of(r) > last ? end_of(r) : last;
	}
}

/* In the order of their first job. */
static void rank(const struct builds *b, struct map *ranks)
{
	for (size_t i = 0; i < b->n_records; i++)
		if (!map_get_str(ranks, b->records[i].build))
			map_put_str(ranks, b->records[i].build, (void *)(ranks->n + 1));
}

static int by_build(const void *a, const void *b, void *ranks)
{
	const struct record *x = a, *y = b;
	uintptr_t i = (uintptr_t)map_get_str(ranks, x->build);
	uintptr_t k = (uintptr_t)map_get_str(ranks, y->build);

	return i != k ? (i < k ? -1 : 1) : by_arrival(a, b);
}

static void add_to_build(struct build *t, const struct record *r)
{
	t->n++;
	t->ended_us = end_of(r) > t->ended_us ? end_of(r) : t->ended_us;
}

static void cut(struct builds *b)
{
	for (size_t i = 0; i < b->n_records; i++) {
		struct record *r = &b->records[i];

		if (!i || !streq(r->build, r[-1].build)) {
			b->builds = xrealloc(b->builds, (b->n + 1) * sizeof(*b->builds));
			b->builds[b->n++] = (struct build){
				.id = r->build, .began_us = r->arrived_us, .jobs = r};
		}
		add_to_build(&b->builds[b->n - 1], r);
	}
}

int builds_read(struct builds *b, unsigned limit_ms, struct errmsg *msg)
{
	_cleanup_free_ char *path = NULL;
	struct map ranks = MAP_INIT;
	int r;

	*b = (struct builds){0};
	b->late = servers_flush(limit_ms);
	r = record_find(&path, msg);
	if (r < 0)
		return r;
	r = record_read(path, take, b);
	if (r < 0)
		return errmsg_set(msg, r, "can't read %s: %s", path, err_text(r));
	if (!b->n_records)
		return 0;
	qsort(b->records, b->n_records, sizeof(*b->records), by_arrival);
	name_groups(b);
	rank(b, &ranks);
	qsort_r(b->records, b->n_records, sizeof(*b->records), by_build, &ranks);
	map_release(&ranks);
	cut(b);
	return 0;
}

void builds_release(struct builds *b)
{
	for (size_t i = 0; i < b->n_records; i++)
		record_release(&b->records[i]);
	free(b->records);
	free(b->builds);
	free(b->late);
	*b = (struct builds){0};
}

const struct build *builds_find(const struct builds *b, const char *id)
{
	const struct build *found = NULL;

	for (size_t i = 0; i < b->n; i++) {
		const struct build *t = &b->builds[i];

		if (id && streq(t->id, id))
			return t;
		if ((!id || str_starts(t->id, id)) && (!found || t->ended_us >= found->ended_us))
			found = t;
	}
	return found;
}
