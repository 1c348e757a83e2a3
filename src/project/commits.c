/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "commits.h"
#include "server.h"

#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/commit_mark.h"
#include "concc/io.h"
#include "concc/str.h"

/* Some of them are in one round of the loop, with what else there is. */
#define PIECE_MS 10

struct placing {
	struct list in_queue;
	struct commit_order order;
	bool dropped; /* nobody wants to know, and the commit is ours */
};

/* Of which temporaries are left; or who wants to know that those before it are gone. */
struct drop {
	struct list in_drops;
	struct commit *commit; /* NULL: */
	void (*tell)(void *data);
	void *data;
};

struct commits {
	struct list queue; /* struct placing; the first is under way */
	struct list drops;
	struct loop_source *turn;
	unsigned piece_ms;
	uint64_t n_pieces;
};

static uint64_t piece_end(const struct server *s)
{
	return now_ms() + s->commits->piece_ms;
}

static void take_turn(void *data);

static void go_on_later(struct server *s)
{
	struct commits *c = s->commits;

	if (!c->turn && (!list_empty(&c->queue) || !list_empty(&c->drops)))
		c->turn = loop_defer(s->loop, take_turn, s);
}

static void placing_free(struct server *s, struct placing *p)
{
	list_remove(&p->in_queue);
	if (p->dropped)
		commits_drop(s, &p->order.commit, NULL);
	free(p);
}

/* False: it goes on. */
static bool one_piece(struct server *s, struct commit_order *o, uint64_t until_ms, int *ret_err,
		      struct errmsg *msg)
{
	bool whole;

	commit_mark_set(s->commit_mark, o->wrapper);
	whole = commit_apply_some(o->commit, o->peer, until_ms, ret_err, msg);
	if (whole)
		commit_mark_set(s->commit_mark, 0);
	return whole;
}

/* The first of the queue.  It is no more when it was done. */
static void place_first(struct server *s, uint64_t until_ms)
{
	struct placing *p = list_first(&s->commits->queue, struct placing, in_queue);
	struct errmsg msg = {0};
	int err;

	s->commits->n_pieces++;
	if (!one_piece(s, &p->order, until_ms, &err, &msg))
		return;
	list_remove(&p->in_queue);
	list_init(&p->in_queue);
	if (!p->dropped)
		p->order.done(p->order.data, err, &msg);
	placing_free(s, p);
}

static struct drop *drop_new(struct server *s)
{
	struct drop *d = xcalloc(1, sizeof(*d));

	list_append(&s->commits->drops, &d->in_drops);
	return d;
}

/* Nothing of it is left. */
static void drop_done(struct drop *d)
{
	void (*tell)(void *data) = d->tell;
	void *data = d->data;

	list_remove(&d->in_drops);
	free(d);
	if (tell)
		tell(data);
}

/* Who waits for it goes on at once. */
static void tell_first(struct server *s)
{
	struct list *drops = &s->commits->drops;

	while (!list_empty(drops) && !list_first(drops, struct drop, in_drops)->commit)
		drop_done(list_first(drops, struct drop, in_drops));
}

static void drop_some(struct server *s)
{
	struct drop *d = list_first(&s->commits->drops, struct drop, in_drops);

	s->commits->n_pieces++;
	if (!commit_drop_some(d->commit, piece_end(s)))
		return;
	drop_done(d);
	tell_first(s);
}

static void take_turn(void *data)
{
	struct server *s = data;
	struct commits *c = s->commits;

	c->turn = NULL;
	if (!list_empty(&c->queue))
		place_first(s, piece_end(s));
	if (!list_empty(&c->drops))
		drop_some(s);
	go_on_later(s);
}

int commits_place(struct server *s, const struct commit_order *o, struct placing **ret,
		  struct errmsg *msg)
{
	struct commits *c = s->commits;
	struct commit_order order = *o;
	struct placing *p;
	int err;

	*ret = NULL;
	if (commit_is_empty(order.commit))
		return 0; /* whoever else is under way */
	if (list_empty(&c->queue) && one_piece(s, &order, piece_end(s), &err, msg))
		return err;
	p = xcalloc(1, sizeof(*p));
	p->order = order;
	list_append(&c->queue, &p->in_queue);
	go_on_later(s);
	*ret = p;
	return 0;
}

void commits_drop(struct server *s, struct commit **c, struct placing **p)
{
	struct commit *commit = steal_ptr(c);
	struct placing *placing = p ? steal_ptr(p) : NULL;

	if (placing) {
		placing->dropped = true;
		if (commits_is_begun(placing))
			return;
		if (list_first(&s->commits->queue, struct placing, in_queue) == placing)
			commit_mark_set(s->commit_mark, 0);
		placing_free(s, placing);
		return;
	}
	if (!commit || commit_drop_some(commit, piece_end(s)))
		return;
	drop_new(s)->commit = commit;
	go_on_later(s);
}

void commits_after_drops(struct server *s, void (*tell)(void *data), void *data, struct drop **ret)
{
	struct drop *d;

	*ret = NULL;
	if (list_empty(&s->commits->drops)) {
		tell(data);
		return;
	}
	d = drop_new(s);
	d->tell = tell;
	d->data = data;
	*ret = d;
}

void commits_untell(struct drop *d)
{
	if (!d)
		return;
	list_remove(&d->in_drops);
	free(d);
}

bool commits_is_begun(const struct placing *p)
{
	return p && commit_is_begun(p->order.commit);
}

void commits_distrust(struct server *s, unsigned peer)
{
	list_for_each (l, &s->commits->queue) {
		struct placing *p = container_of(l, struct placing, in_queue);

		if (p->order.peer == peer)
			commit_without_digests(p->order.commit);
	}
}

void commits_hurry(struct server *s, const struct placing *p)
{
	struct list *queue = &s->commits->queue;

	for (bool last = false; !last && !list_empty(queue);) {
		last = p && list_first(queue, struct placing, in_queue) == p;
		place_first(s, COMMIT_AT_ONCE);
	}
}

void commits_counts(const struct server *s, struct commits_counts *ret)
{
	*ret = (struct commits_counts){.n_pieces = s->commits->n_pieces};
	list_for_each (l, &s->commits->queue)
		ret->waiting++;
	list_for_each (l, &s->commits->drops)
		ret->dropped += container_of(l, struct drop, in_drops)->commit != NULL;
}

void commits_open(struct server *s)
{
	s->commits = xcalloc(1, sizeof(*s->commits));
	s->commits->piece_ms = PIECE_MS;
	list_init(&s->commits->queue);
	list_init(&s->commits->drops);
}

void commits_set_piece(struct server *s, unsigned ms)
{
	s->commits->piece_ms = ms;
}

void commits_close(struct server *s)
{
	struct commits *c = s->commits;

	if (!c)
		return;
	commits_hurry(s, NULL);
	loop_remove(c->turn);
	while (!list_empty(&c->drops)) {
		struct drop *d = list_first(&c->drops, struct drop, in_drops);

		commit_free(d->commit);
		drop_done(d);
	}
	free(steal_ptr(&s->commits));
}
