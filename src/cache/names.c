/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/cache.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/str.h"

/*
 * On the disk names are sorted by path, and each says how many bytes it shares with the one before:
 * those of a compile take a third of the room then, which is read and hashed at each look-up.
 */

/* With what names share it is more than they take on the disk. */
#define NAMES_BYTES_MAX (64u * 1024 * 1024)
#define NAME_COST	64 /* to look at one of no length, and to know what it meant */
#define CODED_SIZE	5  /* bytes of a name before what it does not share */

void cache_names_release(struct cache_names *s)
{
	for (size_t i = 0; i < s->n_own; i++)
		free(s->own[i]);
	free(s->own);
	free(s->all);
	free(s->v);
	*s = (struct cache_names){0};
}

static int by_path(const void *a, const void *b)
{
	const char *x = *(char *const *)a, *y = *(char *const *)b;
	int r = strcmp(x + 1, y + 1);

	return r ? r : x[0] - y[0];
}

/* True: each is there once.  So it is for what a worker sends. */
static bool is_sorted(char *const *v, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (by_path(&v[i - 1], &v[i]) >= 0)
			return false;
	return true;
}

static void sort(char **v, size_t n)
{
	if (!is_sorted(v, n))
		qsort(v, n, sizeof(*v), by_path);
}

/* Each once. */
static void unite(struct cache_names *s, char *const *more, size_t n_more)
{
	char **v = xcalloc(s->n + n_more + 1, sizeof(*v));
	size_t n = 0;

	for (size_t i = 0, k = 0; i < s->n || k < n_more;) {
		bool mine = k == n_more || (i < s->n && by_path(&s->v[i], &more[k]) <= 0);
		char *name = mine ? s->v[i++] : more[k++];

		if (!n || !streq(v[n - 1], name))
			v[n++] = name;
	}
	free(s->v);
	s->v = v;
	s->n = n;
}

void cache_names_set(struct cache_names *s, char **v, size_t n, char *all)
{
	*s = (struct cache_names){.all = all};
	if (n && is_sorted(v, n)) {
		s->v = v;
		s->n = n;
		return;
	}
	qsort(v, n, sizeof(*v), by_path);
	unite(s, v, n);
	free(v);
}

void cache_names_add(struct cache_names *s, char **more, size_t n)
{
	sort(more, n);
	if (n)
		unite(s, more, n);
	s->own = xrealloc(s->own, (s->n_own + n + 1) * sizeof(*s->own));
	memcpy(s->own + s->n_own, more, n * sizeof(*more));
	s->n_own += n;
	free(more);
}

/* Of two that have so many bytes at least.  Neighbours have most of theirs in common. */
static size_t shared(const char *a, const char *b, size_t max)
{
	size_t n = 0;
	uint64_t x, y;

	for (; n + sizeof(x) <= max; n += sizeof(x)) {
		memcpy(&x, a + n, sizeof(x));
		memcpy(&y, b + n, sizeof(y));
		if (x != y)
			break;
	}
	while (n < max && a[n] == b[n])
		n++;
	return n;
}

static void put_name_coded(struct buf *b, char how, size_t same, const char *rest, size_t n)
{
	uint8_t *at = buf_grow(b, CODED_SIZE + n);

	at[0] = (uint8_t)how;
	at[1] = (uint8_t)same;
	at[2] = (uint8_t)(same >> 8);
	at[3] = (uint8_t)n;
	at[4] = (uint8_t)(n >> 8);
	memcpy(at + CODED_SIZE, rest, n);
}

void cache_names_encode(struct buf *b, const struct cache_names *s)
{
	const char *last = "";
	size_t n_last = 0;

	buf_put_u32(b, (uint32_t)s->n);
	for (size_t i = 0; i < s->n; i++) {
		const char *path = s->v[i] + 1;
		size_t n = strlen(path), same = shared(last, path, n < n_last ? n : n_last);

		put_name_coded(b, s->v[i][0], same, path + same, n - same);
		last = path;
		n_last = n;
	}
}

struct coded {
	uint8_t how;
	size_t same, n_rest;
	const uint8_t *rest;
};

static bool take_coded(struct rd *r, struct coded *ret)
{
	ret->how = rd_u8(r);
	ret->same = rd_u16(r);
	ret->n_rest = rd_u16(r);
	ret->rest = rd_bytes(r, ret->n_rest);
	return ret->rest;
}

/* How many bytes all names take; 0: they are none. */
static size_t size_of_all(struct rd r, uint32_t n)
{
	size_t last = 0, size = 1;

	for (uint32_t i = 0; i < n; i++) {
		struct coded c;

		if (!take_coded(&r, &c) || c.same > last || c.same + c.n_rest > PROTO_PATH_MAX)
			return 0;
		last = c.same + c.n_rest;
		size += last + 2;
	}
	return rd_done(&r) < 0 || size > NAMES_BYTES_MAX ? 0 : size;
}

/* At `at`, after `last` (a path); false: it is none. */
static bool put_name(const struct coded *c, const char *last, char *at)
{
	size_t n = 1 + c->same + c->n_rest;

	if (memchr(c->rest, '\0', c->n_rest))
		return false;
	at[0] = (char)c->how;
	memcpy(at + 1, last, c->same);
	memcpy(at + 1 + c->same, c->rest, c->n_rest);
	at[n] = '\0';
	return trace_name_is_valid(at, n);
}

size_t cache_names_cost(struct blob payload)
{
	uint32_t n;
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	n = rd_count(&r, CODED_SIZE);
	return r.bad ? 0 : size_of_all(r, n) + (size_t)n * NAME_COST;
}

int cache_names_decode(struct blob payload, struct cache_names *ret)
{
	struct cache_names s = {0};
	const char *last = "";
	size_t size;
	uint32_t n;
	struct rd r;
	char *at;

	rd_init(&r, payload.p, payload.n);
	n = rd_count(&r, CODED_SIZE);
	if (r.bad || n > CACHE_NAMES_MAX)
		return CONCC_E_PROTO;
	size = size_of_all(r, n);
	if (!size)
		return CONCC_E_PROTO;
	s.v = xcalloc(n + 1, sizeof(*s.v));
	s.all = at = xmalloc(size);
	for (; s.n < n; s.n++) {
		struct coded c;

		(void)take_coded(&r, &c);
		s.v[s.n] = at;
		if (!put_name(&c, last, at) || (s.n && by_path(&s.v[s.n - 1], &s.v[s.n]) >= 0)) {
			cache_names_release(&s);
			return CONCC_E_PROTO;
		}
		last = at + 1;
		at += 2 + c.same + c.n_rest;
	}
	*ret = s;
	return 0;
}
