/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "names.h"

#include <stdlib.h>
#include <string.h>

#include "concc/proto.h"
#include "concc/str.h"

/* FNV-1a with a final mix. */
static uint32_t name_hash(uint32_t seed, const char *name, size_t len)
{
	uint32_t h = 2166136261u ^ seed;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)name[i]) * 16777619u;
	h = (h ^ (h >> 16)) * 0x85ebca6bu;
	return h ^ (h >> 13);
}

/* Its place when nothing is in the way. */
static uint32_t home_of(const struct names *s, uint32_t seed, const struct ent *e)
{
	return name_hash(seed, e->name, e->name_len) & (s->cap - 1);
}

/* Where it is, or would be. */
static uint32_t slot_of(const struct names *s, uint32_t seed, const char *name, size_t len)
{
	uint32_t i = name_hash(seed, name, len) & (s->cap - 1);

	for (; s->slots[i]; i = (i + 1) & (s->cap - 1)) {
		const struct ent *e = s->slots[i];

		if (e->name_len == len && memcmp(e->name, name, len) == 0)
			break;
	}
	return i;
}

struct ent *names_find(const struct names *s, uint32_t seed, const char *name, size_t len)
{
	if (!s->cap || len > PROTO_NAME_MAX)
		return NULL;
	return s->slots[slot_of(s, seed, name, len)];
}

struct ent *names_next(const struct names *s, uint32_t *it)
{
	while (*it < s->cap) {
		struct ent *e = s->slots[(*it)++];

		if (e)
			return e;
	}
	return NULL;
}

static void grow(struct names *s, uint32_t seed)
{
	uint32_t old_cap = s->cap;
	struct ent **old = s->slots;

	s->cap = old_cap ? old_cap * 2 : 8;
	s->slots = xcalloc(s->cap, sizeof(struct ent *));
	for (uint32_t i = 0; i < old_cap; i++) {
		if (old[i])
			s->slots[slot_of(s, seed, old[i]->name, old[i]->name_len)] = old[i];
	}
	free(old);
}

struct ent *names_add(struct names *s, uint32_t seed, const char *name, size_t len)
{
	size_t size = offsetof(struct ent, name) + len + 1;
	struct ent *e = xcalloc(1, size > sizeof(*e) ? size : sizeof(*e));

	if (s->n >= s->cap / 4 * 3)
		grow(s, seed);
	memcpy(e->name, name, len);
	e->name_len = (uint8_t)len;
	names_put_last(s, e);
	s->slots[slot_of(s, seed, name, len)] = e;
	s->n++;
	return e;
}

void names_put_last(struct names *s, struct ent *e)
{
	e->order = s->next_order++;
}

static int by_order(const void *a, const void *b)
{
	uint32_t x = (*(struct ent *const *)a)->order, y = (*(struct ent *const *)b)->order;

	return (x > y) - (x < y);
}

struct ent **names_in_order(const struct names *s)
{
	struct ent **all = xcalloc(s->n + 1, sizeof(struct ent *));
	uint32_t n = 0;
	struct ent *e;

	for (uint32_t it = 0; (e = names_next(s, &it));)
		all[n++] = e;
	qsort(all, n, sizeof(struct ent *), by_order);
	return all;
}

void names_remove(struct names *s, uint32_t seed, struct ent *e)
{
	uint32_t mask = s->cap - 1;
	uint32_t hole = slot_of(s, seed, e->name, e->name_len);

	/* What follows moves up when its place is at or before the hole. */
	for (uint32_t i = (hole + 1) & mask; s->slots[i]; i = (i + 1) & mask) {
		uint32_t home = home_of(s, seed, s->slots[i]);

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			s->slots[hole] = s->slots[i];
			hole = i;
		}
	}
	s->slots[hole] = NULL;
	s->n--;
	ent_release(e);
	free(e);
}

void names_release(struct names *s)
{
	struct ent *e;

	for (uint32_t it = 0; (e = names_next(s, &it));) {
		ent_release(e);
		free(e);
	}
	free(s->slots);
	*s = NAMES_INIT;
}

void ent_release(struct ent *e)
{
	if (e->type == ENTRY_FILE)
		free(e->known);
	else if (e->type == ENTRY_SYMLINK)
		free(e->target);
	e->known = NULL;
}
