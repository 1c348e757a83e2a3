/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A memo has what a set meant, by groups.  A group whose directory has the stamp that it had
 * before it was looked at means the same: what changed since, or while it was looked at, would have
 * made it another one.  Of others all names are looked at; when they mean the same, of the same
 * files, so does the set.  When anything does not, all is looked at anew.
 */
#include "look.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/map.h"
#include "concc/proto.h"
#include "concc/str.h"

#define GROUPS_MAX (256 * 1024) /* of all memos: 14 MB, of some 1000 sets */

static void forget_all(struct cache_look *l)
{
	struct look_memo *m;

	for (size_t it = 0; (m = map_next(&l->memos, &it, NULL));)
		free(m);
	map_release(&l->memos);
	l->memos = MAP_INIT;
	l->n_groups = 0;
}

void look_forget_memos(struct cache_look *l)
{
	forget_all(l);
	free(l->groups);
}

static struct cache_place place_of(struct cache_look *l, const struct cache_names *s, size_t from,
				   const struct look_group *g)
{
	return l->ops->place(l->data, s->v[from] + 1, g->dir_len);
}

/* Will the stamp tell of changes of all these names, which have just been looked at? */
static bool is_covered(struct cache_look *l, const struct cache_names *s, size_t from,
		       const struct look_group *g)
{
	if (!g->stamp || place_of(l, s, from, g).stamp != g->stamp)
		return false;
	for (size_t i = from; i < g->end; i++)
		if (cache_look_stamp(l, i) != g->stamp)
			return false;
	return true;
}

static void cover(struct cache_look *l, const struct cache_names *s, size_t from,
		  struct look_group *g)
{
	if (!is_covered(l, s, from, g))
		g->stamp = g->absent = 0;
}

/* Does it surely mean what it did? */
static bool is_covered_still(const struct look_group *g, const struct cache_place *now)
{
	return now->stamp && (g->stamp == now->stamp || (!now->where && g->absent == now->route));
}

static int put_group(struct cache_look *l, const struct cache_names *s, size_t from,
		     struct look_group *g)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	size_t state_at = l->state.len, ids_at = l->ids.len;
	struct cache_place place = place_of(l, s, from, g);
	int r;

	g->stamp = place.stamp;
	g->absent = place.where ? 0 : place.route;
	r = look_put_names(l, s, from, g->end, NULL);
	buf_append(&b, l->state.data + state_at, l->state.len - state_at);
	buf_append(&b, l->ids.data + ids_at, l->ids.len - ids_at);
	digest_of(b.data, b.len, &g->state);
	return r;
}

static size_t dir_len(const char *name)
{
	return (size_t)(path_base(name + 1) - (name + 1));
}

static struct look_group group_at(const struct cache_names *s, size_t from)
{
	size_t n = dir_len(s->v[from]), to = from + 1;

	while (to < s->n && dir_len(s->v[to]) == n && memcmp(s->v[to] + 1, s->v[from] + 1, n) == 0)
		to++;
	return (struct look_group){.end = (uint32_t)to, .dir_len = (uint32_t)n};
}

static void remember(struct cache_look *l, const struct digest *set, const struct digest *state,
		     const struct look_group *groups, size_t n)
{
	struct look_memo *m = xmalloc(sizeof(*m) + n * sizeof(*groups));

	if (l->n_groups + n > GROUPS_MAX)
		forget_all(l);
	m->state = *state;
	m->n = n;
	memcpy(m->groups, groups, n * sizeof(*groups));
	l->n_groups += n;
	(void)map_put(&l->memos, set->b, DIGEST_SIZE, m);
}

static void forget_memo(struct cache_look *l, const struct digest *set)
{
	struct look_memo *m = map_del(&l->memos, set->b, DIGEST_SIZE);

	if (m)
		l->n_groups -= m->n;
	free(m);
}

static int look_anew(struct cache_look *l, const struct digest *set, const struct cache_names *s,
		     struct digest *ret)
{
	size_t n = 0;
	int r = 0;

	look_begin(l, s);
	for (size_t from = 0; from < s->n && r == 0; from = l->groups[n++].end) {
		if (n == l->cap_groups) {
			l->cap_groups = n ? 2 * n : 256;
			l->groups = xrealloc(l->groups, l->cap_groups * sizeof(*l->groups));
		}
		l->groups[n] = group_at(s, from);
		r = put_group(l, s, from, &l->groups[n]);
	}
	if (r < 0)
		return r;
	look_end(l, ret);
	for (size_t i = 0; i < n; i++)
		cover(l, s, i ? l->groups[i - 1].end : 0, &l->groups[i]);
	remember(l, set, ret, l->groups, n);
	return 0;
}

static bool is_still(struct cache_look *l, const struct cache_names *s, struct look_memo *m)
{
	look_begin(l, s);
	for (size_t i = 0, from = 0; i < m->n; from = m->groups[i++].end) {
		struct look_group *g = &m->groups[i], now = *g;
		struct cache_place place = place_of(l, s, from, g);

		if (is_covered_still(g, &place))
			continue;
		buf_reset(&l->state);
		buf_reset(&l->ids);
		if (put_group(l, s, from, &now) < 0 || !digest_eq(&now.state, &g->state))
			return false;
		cover(l, s, from, &now);
		*g = now;
	}
	return true;
}

int cache_look_again(struct cache_look *l, const struct digest *set, const struct cache_names *s,
		     struct digest *ret)
{
	struct look_memo *m = map_get(&l->memos, set->b, DIGEST_SIZE);

	if (!l->ops->place || l->without)
		return cache_look_state(l, s, ret, NULL);
	if (m && is_still(l, s, m)) {
		*ret = m->state;
		return 0;
	}
	forget_memo(l, set);
	return look_anew(l, set, s, ret);
}
