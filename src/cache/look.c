/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "look.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/map.h"
#include "concc/str.h"

struct cache_look *cache_look_new(const struct cache_look_ops *ops, void *data)
{
	struct cache_look *l = xcalloc(1, sizeof(*l));

	l->ops = ops;
	l->data = data;
	return l;
}

static void forget(struct cache_look *l)
{
	buf_reset(&l->state);
	buf_reset(&l->ids);
	l->path = NULL;
	l->output = 0;
	l->last_dir = NULL;
	look_leave_place(l);
	free(l->dir);
	l->dir = NULL;
	look_forget_ways(l);
}

void cache_look_free(struct cache_look *l)
{
	if (!l)
		return;
	forget(l);
	buf_release(&l->state);
	buf_release(&l->ids);
	buf_release(&l->dir_state);
	look_forget_known(l);
	look_forget_states(l);
	look_forget_memos(l);
	look_forget_known_ways(l);
	free(l->looked);
	free(l);
}

void cache_look_without(struct cache_look *l, const struct map *paths)
{
	l->without = paths && paths->n ? paths : NULL;
}

void cache_look_begin(struct cache_look *l)
{
	l->all_listed = 0;
}

void cache_look_facts(struct cache_look *l, unsigned *facts)
{
	l->facts = facts;
}

uint64_t cache_look_stamp(const struct cache_look *l, size_t i)
{
	return i < l->n_looked ? l->looked[i].stamp : 0;
}

const struct cache_looked *cache_look_last(const struct cache_look *l, size_t i)
{
	return i < l->n_looked && l->looked[i].err >= 0 ? &l->looked[i] : NULL;
}

/* ---- all of them ---- */

static uint32_t *find_id(uint32_t *slots, size_t cap, const struct look_id *ids,
			 const struct look_id *id)
{
	uint64_t h = (id->a ^ id->b * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
	size_t i = (size_t)(h ^ h >> 29) & (cap - 1);

	for (; slots[i]; i = (i + 1) & (cap - 1)) {
		const struct look_id *o = &ids[slots[i] - 1];

		if (o->a == id->a && o->b == id->b && o->by_bytes == id->by_bytes &&
		    digest_eq(&o->digest, &id->digest))
			break;
	}
	return &slots[i];
}

/* Which names are the same file, or alike: of each, the first. */
static void put_same(struct cache_look *l)
{
	const struct look_id *ids = (const struct look_id *)l->ids.data;
	size_t n = l->ids.len / sizeof(*ids), cap = 64;
	uint32_t *slots;

	while (cap < 2 * n)
		cap *= 2;
	slots = xcalloc(cap, sizeof(*slots)); /* index in ids + 1 */
	for (uint32_t i = 0; i < n; i++) {
		uint32_t *s = find_id(slots, cap, ids, &ids[i]);

		if (!*s)
			*s = i + 1;
		buf_put_u32(&l->state, ids[*s - 1].index + 1);
	}
	free(slots);
}

/* Short, and only to tell a person what is different. */
static uint64_t fingerprint_of(const uint8_t *p, size_t n)
{
	uint64_t sum = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < n; i++)
		sum = (sum ^ p[i]) * UINT64_C(1099511628211);
	return sum;
}

static uint64_t fingerprint_of_absence(int err)
{
	struct cache_look l = {0};
	uint64_t fingerprint;

	look_put_error(&l, err);
	fingerprint = fingerprint_of(l.state.data, l.state.len);
	buf_release(&l.state);
	return fingerprint;
}

static bool is_absence(uint64_t fingerprint)
{
	return fingerprint == fingerprint_of_absence(ENOENT) ||
	       fingerprint == fingerprint_of_absence(ENOTDIR);
}

const char *cache_look_change(char how, uint64_t before, uint64_t now)
{
	bool was_absent = is_absence(before), is_absent = is_absence(now);

	if (was_absent != is_absent)
		return is_absent ? "is gone" : "exists now";
	switch (how) {
	case TRACE_READ:
	case TRACE_EXEC:
		return "changed";
	case TRACE_LIST:
		return "has other names in it";
	case TRACE_LINK:
	case TRACE_PLACE:
	case TRACE_MAKE:
	case TRACE_WAY:
		return "leads elsewhere";
	case TRACE_TIMES:
		return "has another time, or number of names";
	}
	return "has another type, mode, owner or size";
}

/* How far do names of the same path go, and is it one that is only written, or an output? */
static size_t same_path(const struct cache_names *s, size_t from, bool *ret_overwritten,
			char *ret_output)
{
	bool written = false, read = false;
	size_t i = from;

	*ret_output = 0;
	for (; i < s->n && streq(s->v[i] + 1, s->v[from] + 1); i++) {
		if (trace_is_output(s->v[i][0]))
			*ret_output = s->v[i][0];
		written |= s->v[i][0] == TRACE_WRITE || *ret_output;
		read |= s->v[i][0] == TRACE_READ || s->v[i][0] == TRACE_EXEC;
	}
	*ret_overwritten = written && !read;
	return i;
}

/* Looks, and notes what that was. */
static int put_now(struct cache_look *l, const char *name, bool overwritten, uint64_t *fingerprint)
{
	const struct look_mark from = {l->state.len, l->ids.len, l->facts ? *l->facts : 0};
	int r;

	l->is_unsure = false;
	if (l->facts)
		*l->facts = 0;
	r = look_put_name(l, name, overwritten, (uint32_t)l->index);
	if (r == 0 && fingerprint)
		*fingerprint = fingerprint_of(l->state.data + from.state,
					      l->state.len - from.state);
	if (r == 0 && !overwritten)
		look_note_state(l, name, &from, fingerprint ? *fingerprint : 0);
	if (l->facts)
		*l->facts |= from.facts;
	return r;
}

int look_put_names(struct cache_look *l, const struct cache_names *s, size_t from, size_t to,
		   uint64_t *ret_fingerprints)
{
	bool overwritten = false;
	int r = 0;

	l->set = s;
	l->end = from;
	for (size_t i = from; i < to && r == 0; i++) {
		uint64_t *fingerprint = ret_fingerprints ? &ret_fingerprints[i] : NULL;

		l->index = i;
		l->looked[i] = (struct cache_looked){.err = -1}; /* unless it is looked at */
		if (i == l->end) {
			l->first = i;
			l->end = same_path(s, i, &overwritten, &l->output);
		}
		if (overwritten || !look_put_known(l, s->v[i], fingerprint))
			r = put_now(l, s->v[i], overwritten, fingerprint);
	}
	return r;
}

void look_begin(struct cache_look *l, const struct cache_names *s)
{
	forget(l);
	l->n_looks++;
	l->n_listed = 0;
	if (s->n > l->cap_looked) {
		l->cap_looked = s->n;
		l->looked = xrealloc(l->looked, s->n * sizeof(*l->looked));
	}
	l->n_looked = s->n;
}

void look_end(struct cache_look *l, struct digest *ret)
{
	put_same(l);
	digest_of(l->state.data, l->state.len, ret);
}

int cache_look_state(struct cache_look *l, const struct cache_names *s, struct digest *ret,
		     uint64_t *ret_fingerprints)
{
	int r;

	look_begin(l, s);
	r = look_put_names(l, s, 0, s->n, ret_fingerprints);
	if (r == 0)
		look_end(l, ret);
	return r;
}
