/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "assemble.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "concc/err.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "pack.h"

/* Two whole frames: a read can always take one more frame behind an incomplete one.  The noise
 * before the magic is kept here too. */
#define IN_CAP (2 * (PROTO_HEADER_LEN + PROTO_FRAME_MAX))
_Static_assert(IN_CAP > PROTO_NOISE_MAX + 2 * PROTO_GREETING_LEN, "noise must fit");
_Static_assert(sizeof(PROTO_GREETING) - 1 == PROTO_GREETING_LEN, "as long as it says");
_Static_assert(PROTO_GREETING_LEN >= PROTO_MAGIC_LEN, "the longer one");

/* A joined message's memory above this is given back once it was delivered. */
#define PART_KEEP (1024 * 1024)

#define MAGIC_PREFIX	 "\nCONCC-LINK/"
#define MAGIC_PREFIX_LEN (sizeof(MAGIC_PREFIX) - 1)

void assembler_init(struct assembler *a, enum link_end end)
{
	*a = (struct assembler){.end = end, .in_frames = end == LINK_SOCKET};
	a->in = xmalloc(IN_CAP);
}

void assembler_release(struct assembler *a)
{
	free(a->in);
	unpacker_free(a->unpacker);
	buf_release(&a->parts[0].data);
	buf_release(&a->parts[1].data);
	*a = (struct assembler){.err = CONCC_E_CLOSED};
}

uint8_t *assembler_space(struct assembler *a, size_t *ret_n)
{
	if (a->start == a->stop) {
		a->start = a->stop = 0;
	} else if (a->start > 0 && IN_CAP - a->stop < PROTO_FRAME_MAX) {
		memmove(a->in, a->in + a->start, a->stop - a->start);
		a->stop -= a->start;
		a->start = 0;
	}
	*ret_n = IN_CAP - a->stop;
	return a->in + a->stop;
}

void assembler_filled(struct assembler *a, size_t n)
{
	a->stop += n;
}

/* A greeting of another link version is worth a clear word; its digits may be still on their way.
 */
static bool other_version(const uint8_t *p, size_t n)
{
	const uint8_t *end = p + n;
	const uint8_t *at = memmem(p, n, MAGIC_PREFIX, MAGIC_PREFIX_LEN);
	const uint8_t *digit;

	if (!at)
		return false;
	for (digit = at + MAGIC_PREFIX_LEN; digit < end && *digit >= '0' && *digit <= '9'; digit++)
		;
	return digit < end && digit > at + MAGIC_PREFIX_LEN && *digit == '\n';
}

/* A client of version 11 or before does not greet: it says HELLO at once, and is to be told why
 * not. */
static bool hello_at_once(const uint8_t *p, size_t n)
{
	struct proto_header h;

	return n >= PROTO_HEADER_LEN && proto_get_header(p, &h) == 0 && h.type == MSG_HELLO;
}

/* 1 when the peer's greeting was found and consumed. */
static int skip_noise(struct assembler *a)
{
	bool client = a->end == LINK_CLIENT;
	const char *mark = client ? PROTO_MAGIC : PROTO_GREETING;
	size_t len = client ? PROTO_MAGIC_LEN : PROTO_GREETING_LEN;
	size_t n = a->stop - a->start;
	const uint8_t *p = a->in + a->start;
	const uint8_t *at = memmem(p, n, mark, len);

	if (!client && hello_at_once(p, n)) {
		a->in_frames = true;
		return 1;
	}
	if (at && at - p <= PROTO_NOISE_MAX) {
		a->start += (size_t)(at - p) + len;
		a->in_frames = true;
		return 1;
	}
	if (!at && client && other_version(p, n))
		return CONCC_E_VERSION;
	if (at || n >= PROTO_NOISE_MAX + len)
		return CONCC_E_PROTO;
	return 0;
}

/* The frame's payload as it was before compression. */
static int unpack(struct assembler *a, const struct proto_header *h, const uint8_t *p,
		  struct blob *ret)
{
	*ret = (struct blob){.p = p, .n = h->len};
	if (!(h->flags & (PROTO_F_LZ4 | PROTO_F_ZSTD)))
		return 0;
	return unpacker_unpack(&a->unpacker, h->flags, *ret, ret);
}

static struct partial *find_part(struct assembler *a, uint8_t type)
{
	for (size_t i = 0; i < 2; i++)
		if (a->parts[i].active && a->parts[i].type == type)
			return &a->parts[i];
	return NULL;
}

static struct partial *open_part(struct assembler *a, uint8_t type)
{
	for (size_t i = 0; i < 2; i++) {
		if (a->parts[i].active)
			continue;
		a->parts[i].active = true;
		a->parts[i].type = type;
		return &a->parts[i];
	}
	return NULL;
}

/* Gives back what the last call lent out. */
static void end_delivery(struct assembler *a)
{
	struct partial *p = a->delivered;

	if (!p)
		return;
	a->delivered = NULL;
	p->active = false;
	if (p->data.cap > PART_KEEP)
		buf_release(&p->data);
	else
		buf_reset(&p->data);
}

/* 1 when the frame completes a message. */
static int join(struct assembler *a, const struct proto_header *h, struct blob raw,
		struct assembled *ret)
{
	bool more = h->flags & PROTO_F_MORE;
	struct partial *part = find_part(a, h->type);

	ret->type = h->type;
	if (!part && !more) {
		ret->payload = raw;
		return 1;
	}
	/* An empty part would let a peer keep us busy with nothing. */
	if (raw.n == 0)
		return CONCC_E_PROTO;
	if (!part)
		part = open_part(a, h->type);
	if (!part)
		return CONCC_E_PROTO;
	if (raw.n > message_max(h->type) - part->data.len)
		return CONCC_E_TOOBIG;
	buf_append(&part->data, raw.p, raw.n);
	if (more)
		return 0;
	a->delivered = part;
	ret->payload = (struct blob){.p = part->data.data, .n = part->data.len};
	return 1;
}

/* 1 with a message, 0 when the frame was consumed, -EAGAIN when it is not all there. */
static int next_frame(struct assembler *a, struct assembled *ret)
{
	const uint8_t *p = a->in + a->start;
	struct proto_header h;
	struct blob raw;
	int err;

	if (a->stop - a->start < PROTO_HEADER_LEN)
		return -EAGAIN;
	err = proto_get_header(p, &h);
	if (err < 0)
		return err;
	if (a->stop - a->start - PROTO_HEADER_LEN < h.len)
		return -EAGAIN;
	err = unpack(a, &h, p + PROTO_HEADER_LEN, &raw);
	if (err < 0)
		return err;
	a->start += PROTO_HEADER_LEN + h.len;
	a->frames++;
	a->raw_bytes += raw.n;
	return join(a, &h, raw, ret);
}

int assembler_next(struct assembler *a, struct assembled *ret)
{
	int r = a->err;

	end_delivery(a);
	if (r == 0 && !a->in_frames) {
		r = skip_noise(a);
		if (r == 0)
			return 0;
		if (r > 0)
			r = 0;
	}
	while (r == 0)
		r = next_frame(a, ret);
	if (r == -EAGAIN)
		return 0;
	if (r < 0)
		a->err = r;
	return r;
}

/* A frame that a peer meant as one has zeros in its first eight bytes. */
static bool is_text(const uint8_t *p, size_t n)
{
	return n >= PROTO_HEADER_LEN && !memchr(p, '\0', PROTO_HEADER_LEN);
}

struct blob assembler_noise(const struct assembler *a)
{
	const uint8_t *p = a->in + a->start;
	size_t n = a->stop - a->start;

	if (a->in_frames && !(a->err == CONCC_E_PROTO && is_text(p, n)))
		return (struct blob){0};
	return (struct blob){.p = p, .n = n};
}

bool assembler_is_empty(const struct assembler *a)
{
	return a->start == a->stop;
}

bool assembler_idle(const struct assembler *a)
{
	return a->in_frames && a->start == a->stop && !a->parts[0].active && !a->parts[1].active;
}
