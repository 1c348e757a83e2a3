/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "outqueue.h"

#include <stdlib.h>
#include <string.h>

#include "concc/proto.h"
#include "concc/str.h"
#include "pack.h"

#define CHUNK_MIN (16 * 1024) /* so that the small messages of a round share one write */

struct chunk {
	struct list node;
	uint32_t types[8]; /* set of the types inside */
	bool sealed;	   /* takes no more frames */
	bool open;	   /* ends with a frame that has PROTO_F_MORE, of open_type */
	uint8_t open_type;
	size_t len, off, cap;
	uint8_t data[];
};

void outqueue_init(struct outqueue *q, bool compress)
{
	*q = (struct outqueue){.packer = compress ? packer_new() : NULL};
	list_init(&q->chunks[LINK_PRIO]);
	list_init(&q->chunks[LINK_BULK]);
}

void outqueue_compress_no_more(struct outqueue *q)
{
	packer_free(q->packer);
	q->packer = NULL;
}

void outqueue_release(struct outqueue *q)
{
	outqueue_drop(q);
	packer_free(q->packer);
}

bool outqueue_is_empty(const struct outqueue *q)
{
	return !q->current && !q->bytes[LINK_PRIO] && !q->bytes[LINK_BULK];
}

static struct chunk *chunk_new(struct outqueue *q, enum link_prio prio, size_t cap)
{
	struct chunk *c = xcalloc(1, sizeof(*c) + cap);

	c->cap = cap;
	list_append(&q->chunks[prio], &c->node);
	return c;
}

static struct chunk *last_chunk(struct outqueue *q, enum link_prio prio)
{
	if (list_empty(&q->chunks[prio]))
		return NULL;
	return container_of(q->chunks[prio].prev, struct chunk, node);
}

static void put_frame(struct outqueue *q, enum link_prio prio, uint8_t type, uint8_t flags,
		      const void *p, size_t n)
{
	struct chunk *c = last_chunk(q, prio);
	size_t need = PROTO_HEADER_LEN + n;

	if (!c || c->sealed || c->cap - c->len < need)
		c = chunk_new(q, prio, need > CHUNK_MIN ? need : CHUNK_MIN);
	proto_put_header(c->data + c->len, type, flags, (uint32_t)n);
	if (n)
		memcpy(c->data + c->len + PROTO_HEADER_LEN, p, n);
	c->len += need;
	c->types[type / 32] |= 1u << (type % 32);
	c->open = flags & PROTO_F_MORE;
	c->open_type = type;
	q->bytes[prio] += need;
}

static void put_slice(struct outqueue *q, enum link_prio prio, uint8_t type, uint8_t flags,
		      const void *p, size_t n)
{
	const uint8_t *packed;
	uint8_t how;
	size_t got = q->packer ? packer_pack(q->packer, q->pack_hard, p, n, &packed, &how) : 0;

	if (got)
		put_frame(q, prio, type, flags | how, packed, got);
	else
		put_frame(q, prio, type, flags, p, n);
}

static void seal(struct outqueue *q, enum link_prio prio)
{
	struct chunk *c = last_chunk(q, prio);

	if (c)
		c->sealed = true;
}

void outqueue_put(struct outqueue *q, enum link_prio prio, uint8_t type, const uint8_t *p, size_t n)
{
	bool cut = n > PROTO_FRAME_MAX;

	/* A message of several frames has its chunks for itself, so that pick() can tell by a
	 * chunk's types whether it may go between the frames of another. */
	if (cut)
		seal(q, prio);
	while (n > PROTO_FRAME_MAX) {
		put_slice(q, prio, type, PROTO_F_MORE, p, PROTO_FRAME_MAX);
		p += PROTO_FRAME_MAX;
		n -= PROTO_FRAME_MAX;
	}
	put_slice(q, prio, type, 0, p, n);
	if (cut)
		seal(q, prio);
}

static bool chunk_has(const struct chunk *c, uint8_t type)
{
	return c->types[type / 32] & (1u << (type % 32));
}

static void pick(struct outqueue *q)
{
	enum link_prio prio = LINK_PRIO;
	struct chunk *c;

	if (list_empty(&q->chunks[LINK_PRIO])) {
		prio = LINK_BULK;
	} else if (q->open[LINK_BULK] && !q->open[LINK_PRIO]) {
		c = list_first(&q->chunks[LINK_PRIO], struct chunk, node);
		if (chunk_has(c, q->open_type[LINK_BULK]))
			prio = LINK_BULK;
	}
	if (list_empty(&q->chunks[prio]))
		return;
	c = list_first(&q->chunks[prio], struct chunk, node);
	list_remove(&c->node);
	q->current = c;
	q->current_prio = prio;
}

void outqueue_drop(struct outqueue *q)
{
	free(q->current);
	q->current = NULL;
	for (int i = 0; i < 2; i++) {
		list_for_each_safe (pos, &q->chunks[i]) {
			list_remove(pos);
			free(container_of(pos, struct chunk, node));
		}
		q->bytes[i] = 0;
	}
}

void outqueue_put_raw(struct outqueue *q, const void *p, size_t n)
{
	struct chunk *c = chunk_new(q, LINK_PRIO, n > CHUNK_MIN ? n : CHUNK_MIN);

	memcpy(c->data, p, n);
	c->len = n;
	q->bytes[LINK_PRIO] += n;
}

const uint8_t *outqueue_next(struct outqueue *q, size_t *ret_n, enum link_prio *ret_prio)
{
	if (!q->current)
		pick(q);
	if (!q->current)
		return NULL;
	*ret_n = q->current->len - q->current->off;
	*ret_prio = q->current_prio;
	return q->current->data + q->current->off;
}

static void chunk_done(struct outqueue *q)
{
	struct chunk *c = q->current;

	q->open[q->current_prio] = c->open;
	q->open_type[q->current_prio] = c->open_type;
	q->current = NULL;
	free(c);
}

void outqueue_wrote(struct outqueue *q, size_t n)
{
	q->current->off += n;
	q->bytes[q->current_prio] -= n;
	if (q->current->off == q->current->len)
		chunk_done(q);
}
