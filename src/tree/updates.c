/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/str.h"

bool peer_set_empty(const struct peer_set *s)
{
	for (size_t i = 0; i < TREE_PEERS_MAX / 64; i++) {
		if (s->w[i])
			return false;
	}
	return true;
}

void ent_vec_push(struct ent_vec *v, struct ent *e)
{
	if (v->n == v->cap) {
		v->cap = v->cap ? v->cap * 2 : 8;
		v->v = xrealloc(v->v, v->cap * sizeof(struct ent *));
	}
	v->v[v->n++] = e;
}

void ent_vec_release(struct ent_vec *v)
{
	free(v->v);
	*v = (struct ent_vec){0};
}

void ent_to_attr(const struct ent *e, unsigned peer, struct entry_attr *ret)
{
	*ret = (struct entry_attr){
		.type = e->type,
		.mode = e->mode,
		.nlink = e->nlink,
		.ino = e->ino,
		.size = e->size,
		.mtime_s = e->mtime_s,
		.mtime_ns = e->mtime_ns,
		.ctime_s = e->ctime_s,
		.ctime_ns = e->ctime_ns,
		.version = e->version,
	};
	if (e->type != ENTRY_FILE || !e->known)
		return;
	if (e->known->claimed_by != CLAIM_NONE && e->known->claimed_by != peer)
		return;
	ret->has_digest = true;
	ret->digest = e->known->digest;
}

static void put_ent(struct buf *b, const struct ent *e, unsigned peer)
{
	struct entry_attr a;

	ent_to_attr(e, peer, &a);
	dir_entry_encode(b, e->name, e->name_len, &a, e->type == ENTRY_SYMLINK ? e->target : "");
}

static bool is_partial(const struct tree *t, const struct dir *d)
{
	const struct root *r = root_find(t, d->path);

	if (!r || !r->source)
		return false;
	return t->ops.is_partial ? t->ops.is_partial(t->data, d->path) : streq(r->path, d->path);
}

static size_t dir_bytes_max(const struct tree *t)
{
	return t->limits.dir_bytes ? t->limits.dir_bytes : PROTO_DIR_MAX;
}

void updates_send_dir(struct tree *t, struct dir *d, unsigned peer)
{
	uint8_t state = is_partial(t, d) ? DIR_PARTIAL : DIR_LISTED;
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_free_ struct ent **all = names_in_order(&d->names);
	struct entry_attr attr;
	uint32_t n = 0;

	dir_get_attr(d, &attr);
	for (uint32_t i = 0; i < d->names.n; i++)
		n += all[i]->type != ENTRY_ABSENT;
	msg_dir_encode(&b, d->id, state, d->path, &attr, n);
	for (uint32_t i = 0; i < d->names.n; i++) {
		if (all[i]->type != ENTRY_ABSENT)
			put_ent(&b, all[i], peer);
	}
	if (b.len > dir_bytes_max(t)) {
		updates_send_unknown(t, peer, d->id, d->path, -E2BIG);
		return;
	}
	peer_set_add(&d->subscribers, peer);
	t->ops.send(t->data, peer, MSG_DIR, &b);
}

void updates_send_unknown(struct tree *t, unsigned peer, uint32_t id, const char *path, int err)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_dir_unknown_encode(&b, id, path, err < 0 && err > -4096 ? (uint32_t)-err : EIO);
	t->ops.send(t->data, peer, MSG_DIR, &b);
}

void updates_send_absent(struct tree *t, unsigned peer, uint32_t id, uint8_t state,
			 const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct entry_attr none = {0};

	msg_dir_encode(&b, id, state, path, &none, 0);
	t->ops.send(t->data, peer, MSG_DIR, &b);
}

void updates_send_stale(struct tree *t, const struct peer_set *to, uint32_t id)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (peer_set_empty(to))
		return;
	msg_u32_encode(&b, id);
	for (unsigned p = 0; p < TREE_PEERS_MAX; p++) {
		if (peer_set_has(to, p))
			t->ops.send(t->data, p, MSG_DIR_STALE, &b);
	}
}

/* Of one message, far below PROTO_MSG_MAX; with room for a last symlink. */
#define UPDATE_BYTES (1024 * 1024)
#define ENT_BYTES    128 /* of an entry without its name and target */

/* Where the message that begins with entry i ends. */
static uint32_t update_end(const struct dir *d, uint32_t i)
{
	size_t bytes = 0;

	for (; i < d->pending.n && bytes < UPDATE_BYTES; i++) {
		const struct ent *e = d->pending.v[i];

		bytes += ENT_BYTES + e->name_len;
		if (e->type == ENTRY_SYMLINK)
			bytes += strlen(e->target);
	}
	return i;
}

/* A worker's own claims make its message differ from the others'. */
static bool has_claim(const struct dir *d, uint32_t from, uint32_t end, unsigned peer)
{
	for (uint32_t i = from; i < end; i++) {
		const struct ent *e = d->pending.v[i];

		if (e->type == ENTRY_FILE && e->known && e->known->claimed_by == peer)
			return true;
	}
	return false;
}

static void put_update(struct buf *b, const struct dir *d, uint32_t from, uint32_t end,
		       unsigned peer)
{
	struct entry_attr attr;

	dir_get_attr(d, &attr);
	buf_reset(b);
	msg_update_encode(b, d->id, &attr, end - from);
	for (uint32_t i = from; i < end; i++)
		put_ent(b, d->pending.v[i], peer);
}

static void send_update(struct tree *t, const struct dir *d, uint32_t from, uint32_t end)
{
	_cleanup_buf_ struct buf common = BUF_INIT;
	_cleanup_buf_ struct buf own = BUF_INIT;

	for (unsigned p = 0; p < TREE_PEERS_MAX; p++) {
		struct buf *b;

		if (!peer_set_has(&d->subscribers, p))
			continue;
		b = has_claim(d, from, end, p) ? &own : &common;
		if (b == &own || !b->len)
			put_update(b, d, from, end, b == &own ? p : TREE_PEERS_MAX);
		t->counts.updates++;
		t->ops.send(t->data, p, MSG_UPDATE, b);
	}
}

static void dir_flush(struct tree *t, struct dir *d)
{
	uint32_t from = 0;

	if (d->attr_changed && !d->pending.n)
		send_update(t, d, 0, 0);
	while (from < d->pending.n) {
		uint32_t end = update_end(d, from);

		send_update(t, d, from, end);
		from = end;
	}
	for (uint32_t i = 0; i < d->pending.n; i++) {
		struct ent *e = d->pending.v[i];

		e->flags &= (uint16_t)~ENT_PENDING;
		/* One that an event has named again is needed by that list. */
		if (e->type == ENTRY_ABSENT && !(e->flags & ENT_DIRTY))
			dir_del_name(t, d, e);
	}
	ent_vec_release(&d->pending);
	d->attr_changed = false;
}

void updates_send(struct tree *t)
{
	for (size_t i = 0; i < t->flush.n; i++) {
		struct dir *d = t->flush.v[i];

		d->flush_queued = false;
		if (!d->dropped)
			dir_flush(t, d);
	}
	t->flush.n = 0;
}

void updates_flush(struct tree *t)
{
	updates_send(t);
	if (t->queue.n)
		return; /* it may name what is on the grave list */
	list_for_each_safe (l, &t->grave)
		dir_free(container_of(l, struct dir, siblings));
	list_init(&t->grave);
}

void updates_later(struct tree *t, struct dir *d)
{
	dir_touch(t, d);
	if (d->flush_queued)
		return;
	d->flush_queued = true;
	dir_vec_push(&t->flush, d);
}

void updates_put(struct tree *t, struct dir *d, struct ent *e)
{
	updates_later(t, d);
	if (e->flags & ENT_PENDING)
		return;
	e->flags |= ENT_PENDING;
	ent_vec_push(&d->pending, e);
}
