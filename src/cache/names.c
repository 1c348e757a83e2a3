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

void cache_names_release(struct cache_names *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
	*s = (struct cache_names){0};
}

static int by_path(const void *a, const void *b)
{
	const char *x = *(char *const *)a, *y = *(char *const *)b;
	int r = strcmp(x + 1, y + 1);

	return r ? r : x[0] - y[0];
}

void cache_names_set(struct cache_names *s, char **v, size_t n)
{
	size_t kept = 0;

	qsort(v, n, sizeof(*v), by_path);
	for (size_t i = 0; i < n; i++) {
		if (kept && streq(v[kept - 1], v[i]))
			free(v[i]);
		else
			v[kept++] = v[i];
	}
	*s = (struct cache_names){v, kept};
}

static size_t shared(const char *a, const char *b)
{
	size_t n = 0;

	while (a[n] && a[n] == b[n] && n < UINT16_MAX)
		n++;
	return n;
}

void cache_names_encode(struct buf *b, const struct cache_names *s)
{
	const char *last = "";

	buf_put_u32(b, (uint32_t)s->n);
	for (size_t i = 0; i < s->n; i++) {
		const char *path = s->v[i] + 1;
		size_t same = shared(last, path), rest = strlen(path + same);

		buf_put_u8(b, (uint8_t)s->v[i][0]);
		buf_put_u16(b, (uint16_t)same);
		buf_put_u16(b, (uint16_t)rest);
		buf_append(b, path + same, rest);
		last = path;
	}
}

/* The next one, after `last` (a path); NULL when it is none. */
static char *take_name(struct rd *r, const char *last)
{
	uint8_t how = rd_u8(r);
	size_t same = rd_u16(r), rest = rd_u16(r);
	const uint8_t *p = rd_bytes(r, rest);
	_cleanup_free_ char *name = NULL;

	if (!p || same > strlen(last) || same + rest > PROTO_PATH_MAX || memchr(p, '\0', rest))
		return NULL;
	name = xmalloc(same + rest + 2);
	name[0] = (char)how;
	memcpy(name + 1, last, same);
	memcpy(name + 1 + same, p, rest);
	name[1 + same + rest] = '\0';
	return trace_name_is_valid(name, 1 + same + rest) ? steal_ptr(&name) : NULL;
}

int cache_names_decode(struct blob payload, struct cache_names *ret)
{
	struct cache_names s = {0};
	const char *last = "";
	uint32_t n;
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	n = rd_count(&r, 5);
	if (r.bad || n > CACHE_NAMES_MAX)
		return CONCC_E_PROTO;
	s.v = xcalloc(n + 1, sizeof(*s.v));
	for (; s.n < n; s.n++) {
		char *name = take_name(&r, last);

		if (!name || (s.n && by_path(&s.v[s.n - 1], &name) >= 0)) {
			free(name);
			r.bad = true;
			break;
		}
		s.v[s.n] = name;
		last = name + 1;
	}
	if (rd_done(&r) < 0) {
		cache_names_release(&s);
		return CONCC_E_PROTO;
	}
	*ret = s;
	return 0;
}
