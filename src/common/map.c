/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/map.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "concc/str.h"

enum slot_kind { SLOT_FREE, SLOT_DELETED, SLOT_HEAP, SLOT_BORROWED, SLOT_NUMBER };

struct map_slot {
	union {
		char *heap;	 /* SLOT_BORROWED: somebody else's */
		uint64_t number; /* of the map_*_u64() functions: a heap block each would be four
				    times that */
	} key;
	void *value;
	uint32_t hash;
	uint32_t kind : 3; /* enum slot_kind */
	uint32_t len : 29;
};

static const void *key_of(const struct map_slot *s)
{
	return s->kind == SLOT_NUMBER ? (const void *)&s->key.number : s->key.heap;
}

static uint64_t seed;
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

static void make_seed(void)
{
	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
		seed = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u;
}

/* Multiply and fold, eight bytes at a time: fast, and seeded against chosen names. */
static uint64_t mix(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint32_t hash_bytes(const void *key, size_t len)
{
	const uint8_t *p = key;
	uint64_t h = seed ^ len, w;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&w, p, 8);
		h = mix(h ^ w, 0xa0761d6478bd642fu);
	}
	w = 0;
	memcpy(&w, p, len);
	h = mix(h ^ w ^ 0x8bb84b93962eacc9u, 0xe7037ed1a0b428dbu);
	return (uint32_t)(h ^ h >> 32);
}

/* The slot that holds key, or the one to put it in; the table is never full. */
static struct map_slot *find(const struct map *m, uint32_t hash, const void *key, size_t len)
{
	struct map_slot *free_slot = NULL;

	for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct map_slot *s = &m->slots[i];

		if (s->kind == SLOT_FREE)
			return free_slot ? free_slot : s;
		if (s->kind == SLOT_DELETED) {
			if (!free_slot)
				free_slot = s;
			continue;
		}
		if (s->hash == hash && s->len == len && memcmp(key_of(s), key, len) == 0)
			return s;
	}
}

static bool is_live(const struct map_slot *s)
{
	return s->kind >= SLOT_HEAP;
}

static void rehash(struct map *m)
{
	struct map old = *m;

	m->cap = 16;
	while (m->cap < old.n * 2 + 2)
		m->cap *= 2;
	m->slots = xcalloc(m->cap, sizeof(*m->slots));
	m->used = m->n;
	for (size_t i = 0; i < old.cap; i++) {
		if (is_live(&old.slots[i]))
			*find(m, old.slots[i].hash, key_of(&old.slots[i]),
			      old.slots[i].len) = old.slots[i];
	}
	free(old.slots);
}

static void free_key(struct map_slot *s)
{
	if (s->kind == SLOT_HEAP)
		free(s->key.heap);
}

void map_release(struct map *m)
{
	for (size_t i = 0; i < m->cap; i++)
		free_key(&m->slots[i]);
	free(m->slots);
	*m = MAP_INIT;
}

void *map_get(const struct map *m, const void *key, size_t len)
{
	struct map_slot *s;

	if (!m->n)
		return NULL;
	s = find(m, hash_bytes(key, len), key, len);
	return is_live(s) ? s->value : NULL;
}

static void *put(struct map *m, const void *key, size_t len, enum slot_kind kind, void *value)
{
	struct map_slot *s;
	uint32_t hash;
	void *old;

	pthread_once(&seed_once, make_seed);
	if ((m->used + 1) * 4 > m->cap * 3)
		rehash(m);
	hash = hash_bytes(key, len);
	s = find(m, hash, key, len);
	if (is_live(s)) {
		old = s->value;
		s->value = value;
		if (s->kind == SLOT_BORROWED)
			s->key.heap = (char *)key;
		return old;
	}
	if (s->kind == SLOT_FREE)
		m->used++;
	m->n++;
	*s = (struct map_slot){.hash = hash, .kind = kind, .len = (uint32_t)len, .value = value};
	if (kind == SLOT_NUMBER)
		memcpy(&s->key.number, key, sizeof(s->key.number));
	else if (kind == SLOT_BORROWED)
		s->key.heap = (char *)key;
	else
		s->key.heap = xstrndup(key, len);
	return NULL;
}

void *map_put(struct map *m, const void *key, size_t len, void *value)
{
	return put(m, key, len, SLOT_HEAP, value);
}

void *map_del(struct map *m, const void *key, size_t len)
{
	struct map_slot *s;

	if (!m->n)
		return NULL;
	s = find(m, hash_bytes(key, len), key, len);
	if (!is_live(s))
		return NULL;
	free_key(s);
	s->kind = SLOT_DELETED;
	m->n--;
	return s->value;
}

void *map_get_str(const struct map *m, const char *key)
{
	return map_get(m, key, strlen(key));
}

void *map_put_str(struct map *m, const char *key, void *value)
{
	return map_put(m, key, strlen(key), value);
}

void *map_put_borrowed(struct map *m, const char *key, void *value)
{
	return put(m, key, strlen(key), SLOT_BORROWED, value);
}

void *map_del_str(struct map *m, const char *key)
{
	return map_del(m, key, strlen(key));
}

void *map_get_u64(const struct map *m, uint64_t key)
{
	return map_get(m, &key, sizeof(key));
}

void *map_put_u64(struct map *m, uint64_t key, void *value)
{
	return put(m, &key, sizeof(key), SLOT_NUMBER, value);
}

void *map_del_u64(struct map *m, uint64_t key)
{
	return map_del(m, &key, sizeof(key));
}

void *map_next(const struct map *m, size_t *it, const char **ret_key)
{
	while (*it < m->cap) {
		struct map_slot *s = &m->slots[(*it)++];

		if (is_live(s)) {
			if (ret_key)
				*ret_key = key_of(s);
			return s->value;
		}
	}
	return NULL;
}
