/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "pick.h"

#include <errno.h>
#include <string.h>

#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

static bool is_asked_for(const struct member_view *v, const struct pool_request *q)
{
	if (q->only)
		return streq(v->name, q->only);
	return q->local_ok || !streq(v->name, POOL_LOCAL);
}

bool pick_is_eligible(const struct member_view *v, const struct pool_request *q)
{
	return v->state == MEMBER_UP && v->slots > 0 && is_asked_for(v, q);
}

static bool is_asleep(const struct member_view *v, const struct pool_request *q)
{
	return v->state == MEMBER_ASLEEP && is_asked_for(v, q);
}

bool pick_can_call(const struct table *t, const struct pool_request *q)
{
	struct member_view v;

	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++) {
		if (member_view(t, i, &v) && is_asleep(&v, q))
			return true;
	}
	return false;
}

int pick_to_call(const struct table *t, const struct pool_request *q)
{
	struct member_view v;
	int asleep = -1;

	if (q->only)
		return member_find(t, q->only);
	for (uint32_t i = 0; i < POOL_MEMBERS_MAX && q->avoid; i++) {
		if (!member_view(t, i, &v) || !is_asked_for(&v, q) || streq(v.name, q->avoid))
			continue;
		if (v.state == MEMBER_UP)
			return -1;
		if (v.state == MEMBER_ASLEEP && asleep < 0)
			asleep = (int)i;
	}
	return asleep;
}

static uint64_t free_capacity(const struct sched_place *p, uint32_t speed)
{
	return p->taken < p->slots ? (uint64_t)(p->slots - p->taken) * speed : 0;
}

static uint64_t hash_path(const char *s)
{
	uint64_t h = 0xcbf29ce484222325ULL; /* FNV-1a */

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ULL;
	return h;
}

/* The member that had the last job of this directory, or -1. */
static int affinity_get(const struct table *t, const char *cwd)
{
	uint64_t hash, entry;

	if (!cwd)
		return -1;
	hash = hash_path(cwd);
	entry = __atomic_load_n(&t->affinity[hash % AFFINITY_SLOTS], __ATOMIC_RELAXED);
	return entry >> 32 == hash >> 32 ? (int)(entry & 0xffff) - 1 : -1;
}

void pick_remember(struct table *t, const char *cwd, uint32_t member)
{
	uint64_t hash, entry, *at;

	if (!cwd)
		return;
	hash = hash_path(cwd);
	entry = (hash >> 32 << 32) | (member + 1);
	at = &t->affinity[hash % AFFINITY_SLOTS];
	/* Most often it is there already, and a load keeps the cache line shared. */
	if (__atomic_load_n(at, __ATOMIC_RELAXED) != entry)
		__atomic_store_n(at, entry, __ATOMIC_RELAXED);
}

/* The members that may be chosen from. */
struct field {
	size_t n;
	bool any_worker; /* one is up, though it may be the one to avoid */
	bool any_asleep; /* one can be called */
	int full;	 /* see struct pick */
	struct sched_place places[POOL_MEMBERS_MAX];
	uint32_t members[POOL_MEMBERS_MAX];
	uint32_t speeds[POOL_MEMBERS_MAX];
	int free_slots[POOL_MEMBERS_MAX];
};

struct sched_place pick_place(const struct member_view *v)
{
	struct sched_place p = {
		.profile = v->profile,
		.slots = v->slots,
		.taken = v->taken,
		.here = streq(v->name, POOL_LOCAL),
	};
	bool known = false;

	for (unsigned i = 0; i < SCHED_LEVELS; i++)
		known |= p.profile.slowdown[i] != 0;
	if (!known)
		p.profile.slowdown[0] = SCHED_ONE * 1000 / v->speed ?: 1;
	return p;
}

static void enter(struct field *f, uint32_t index, const struct member_view *v)
{
	f->places[f->n] = pick_place(v);
	if (f->places[f->n].here && v->free_slot < 0)
		f->full = (int)index;
	f->members[f->n] = index;
	f->free_slots[f->n] = v->free_slot;
	f->speeds[f->n++] = v->speed;
}

/*
 * Without the one to avoid, unless it is the only one.  Each member is looked at once: who is up by
 * the second look would be neither asleep nor there.
 */
static void look_around(const struct table *t, const struct pool_request *q, struct field *ret)
{
	struct member_view v, avoided;
	bool other_asleep = false;
	int avoided_index = -1;

	ret->n = 0;
	ret->any_worker = ret->any_asleep = false;
	ret->full = -1;
	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++) {
		bool avoids;

		if (!member_view(t, i, &v))
			continue;
		avoids = q->avoid && streq(v.name, q->avoid);
		if (is_asleep(&v, q)) {
			ret->any_asleep = true;
			other_asleep |= !avoids;
		}
		if (!pick_is_eligible(&v, q))
			continue;
		ret->any_worker |= !streq(v.name, POOL_LOCAL);
		if (avoids) {
			avoided_index = (int)i;
			avoided = v;
			continue;
		}
		enter(ret, i, &v);
	}
	if (!ret->n && avoided_index >= 0 && !other_asleep)
		enter(ret, (uint32_t)avoided_index, &avoided);
}

/*
 * Of those that are as good as the best, the one with most free capacity.  The
 * directory's last member wins while it still has half of that: then warmth costs nothing.
 */
static size_t spread(const struct field *f, size_t best, int affine, const struct sched_job *j)
{
	uint64_t best_us = sched_takes_us(&f->places[best], f->places[best].taken, j);
	uint64_t most = free_capacity(&f->places[best], f->speeds[best]), warm = 0;
	size_t widest = best, warmest = best;

	for (size_t i = 0; i < f->n; i++) {
		const struct sched_place *p = &f->places[i];
		uint64_t capacity = free_capacity(p, f->speeds[i]);

		if (!capacity || p->here != f->places[best].here ||
		    !sched_is_as_good(sched_takes_us(p, p->taken, j), best_us))
			continue;
		if ((int)f->members[i] == affine) {
			warm = capacity;
			warmest = i;
		}
		if (capacity > most) {
			most = capacity;
			widest = i;
		}
	}
	return warm * 2 >= most ? warmest : widest;
}

int pick(const struct table *t, const struct pool_request *q, struct pick_wish *w, struct pick *ret)
{
	struct field f;
	size_t at;
	int best;

	w->patience_us = UINT64_MAX;
	look_around(t, q, &f);
	/* Without any worker this machine is no pool: who asked is to hear that there is none. */
	if (!f.any_worker && !q->only && !f.any_asleep)
		return CONCC_E_UNAVAIL;
	if (!f.n)
		return f.any_asleep ? -EAGAIN : CONCC_E_UNAVAIL;
	best = sched_choose(f.places, f.n, &w->job, &w->patience_us);
	if (best < 0)
		return -EAGAIN;
	at = spread(&f, (size_t)best, affinity_get(t, q->cwd), &w->job);
	ret->index = (int)f.members[at];
	ret->slot = f.free_slots[at];
	ret->full = f.full;
	/* It may have changed meanwhile: then the slot is not had. */
	return member_view(t, f.members[at], &ret->view) ? 0 : -EAGAIN;
}

struct pick_wish pick_wish(const struct table *t, const struct pool_request *q)
{
	uint64_t mean = __atomic_load_n(&t->mean_us, __ATOMIC_RELAXED);
	uint64_t since = __atomic_load_n(&t->busy_since_us, __ATOMIC_RELAXED);
	uint64_t now = now_us();
	uint32_t work = work_find(t, q->job) ?: work_find(t, q->kind);

	return (struct pick_wish){
		.job = {.work_us = work,
			.mean_us = mean > UINT32_MAX ? UINT32_MAX : (uint32_t)mean,
			.busy_us = since && since < now ? now - since : 0},
		.patience_us = UINT64_MAX};
}

uint32_t pick_expected_us(const struct pick_wish *w)
{
	return w->job.work_us ?: w->job.mean_us;
}
