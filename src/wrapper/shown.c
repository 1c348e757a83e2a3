/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "shown.h"

#include <string.h>

void shown_release(struct shown *s)
{
	for (int i = 0; i < 2; i++) {
		buf_release(&s->streams[i].kept);
		buf_release(&s->streams[i].again);
	}
}

void shown_restart(struct shown *s)
{
	for (int i = 0; i < 2; i++)
		s->streams[i].at = 0;
}

uint64_t shown_left(const struct shown *s, unsigned stream)
{
	return s->streams[stream].n - s->streams[stream].at;
}

void shown_cut(struct shown *shown, unsigned stream, uint64_t n)
{
	struct shown_stream *s = &shown->streams[stream];

	s->n -= n;
	if (s->at > s->n)
		s->at = s->n;
	if (s->kept.len > s->n)
		s->kept.len = (size_t)s->n;
}

static size_t same_prefix(const uint8_t *a, const uint8_t *b, size_t n)
{
	size_t i = 0;

	while (i < n && a[i] == b[i])
		i++;
	return i;
}

static size_t line_start(const struct buf *b, size_t at)
{
	const uint8_t *nl = at ? memrchr(b->data, '\n', at) : NULL;

	return nl ? (size_t)(nl - b->data) + 1 : 0;
}

/* What goes out is new: remembers it. */
static void went_out(struct shown_stream *s, struct blob bytes)
{
	size_t room = s->kept.len == s->n ? SHOWN_KEPT_MAX - s->kept.len : 0;

	if (room && bytes.n)
		buf_append(&s->kept, bytes.p, bytes.n < room ? bytes.n : room);
	s->n += bytes.n;
	s->at = s->n;
}

struct blob shown_next(struct shown *shown, unsigned stream, struct blob bytes)
{
	struct shown_stream *s = &shown->streams[stream];
	size_t old = s->n - s->at < bytes.n ? (size_t)(s->n - s->at) : bytes.n;
	size_t known = 0, same = 0;

	if (s->at < s->kept.len)
		known = s->kept.len - s->at < old ? (size_t)(s->kept.len - s->at) : old;
	if (known)
		same = same_prefix(s->kept.data + s->at, bytes.p, known);
	if (same < known) {
		size_t from = line_start(&s->kept, (size_t)s->at + same);

		buf_reset(&s->again);
		buf_append(&s->again, s->kept.data + from, (size_t)s->at + same - from);
		buf_append(&s->again, bytes.p + same, bytes.n - same);
		s->kept.len = from;
		s->n = from;
		bytes = (struct blob){s->again.data, s->again.len};
	} else {
		s->at += old;
		bytes = (struct blob){bytes.p + old, bytes.n - old};
		if (!bytes.n)
			return bytes;
	}
	went_out(s, bytes);
	return bytes;
}
