/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/buf.h"

#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/err.h"
#include "concc/str.h"

void buf_release(struct buf *b)
{
	free(b->data);
	*b = BUF_INIT;
}

void buf_reset(struct buf *b)
{
	b->len = 0;
}

static void reserve(struct buf *b, size_t n)
{
	size_t cap = b->cap ? b->cap : 256;

	if (b->cap - b->len >= n)
		return;
	while (cap - b->len < n)
		cap *= 2;
	b->data = xrealloc(b->data, cap);
	b->cap = cap;
}

uint8_t *buf_grow(struct buf *b, size_t n)
{
	uint8_t *p;

	reserve(b, n);
	p = b->data + b->len;
	b->len += n;
	return p;
}

void buf_append(struct buf *b, const void *p, size_t n)
{
	if (n)
		memcpy(buf_grow(b, n), p, n);
}

void buf_consume(struct buf *b, size_t n)
{
	if (n >= b->len) {
		b->len = 0;
		return;
	}
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}

void buf_putf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		abort();
	reserve(b, (size_t)n + 1);
	va_start(ap, fmt);
	(void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

const char *buf_cstr(struct buf *b)
{
	reserve(b, 1);
	b->data[b->len] = '\0';
	return (const char *)b->data;
}

void buf_put_u8(struct buf *b, uint8_t v)
{
	*buf_grow(b, 1) = v;
}

void buf_put_u16(struct buf *b, uint16_t v)
{
	v = htole16(v);
	buf_append(b, &v, sizeof(v));
}

void buf_put_u32(struct buf *b, uint32_t v)
{
	v = htole32(v);
	buf_append(b, &v, sizeof(v));
}

void buf_put_u64(struct buf *b, uint64_t v)
{
	v = htole64(v);
	buf_append(b, &v, sizeof(v));
}

void buf_put_blob(struct buf *b, const void *p, size_t n)
{
	buf_put_u32(b, (uint32_t)n);
	buf_append(b, p, n);
}

void buf_put_str(struct buf *b, const char *s)
{
	buf_put_blob(b, s, strlen(s));
}

void buf_set_u32(struct buf *b, size_t at, uint32_t v)
{
	v = htole32(v);
	memcpy(b->data + at, &v, sizeof(v));
}

void rd_init(struct rd *r, const void *p, size_t n)
{
	*r = (struct rd){.p = p, .left = n};
}

const uint8_t *rd_bytes(struct rd *r, size_t n)
{
	const uint8_t *p = r->p;

	if (r->bad || n > r->left) {
		r->bad = true;
		return NULL;
	}
	r->p += n;
	r->left -= n;
	return p;
}

uint8_t rd_u8(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 1);

	return p ? *p : 0;
}

uint16_t rd_u16(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 2);
	uint16_t v;

	if (!p)
		return 0;
	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

uint32_t rd_u32(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 4);
	uint32_t v;

	if (!p)
		return 0;
	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

uint64_t rd_u64(struct rd *r)
{
	const uint8_t *p = rd_bytes(r, 8);
	uint64_t v;

	if (!p)
		return 0;
	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

struct blob rd_blob(struct rd *r, size_t max)
{
	uint32_t n = rd_u32(r);

	if (n > max)
		r->bad = true;
	return (struct blob){.p = rd_bytes(r, n), .n = r->bad ? 0 : n};
}

struct blob rd_rest(struct rd *r)
{
	size_t n = r->left;

	return (struct blob){.p = rd_bytes(r, n), .n = r->bad ? 0 : n};
}

char *rd_strdup(struct rd *r, size_t max)
{
	struct blob b = rd_blob(r, max);

	if (r->bad)
		return NULL;
	if (b.n && memchr(b.p, '\0', b.n)) {
		r->bad = true;
		return NULL;
	}
	return xstrndup((const char *)b.p, b.n);
}

uint64_t rd_u64_max(struct rd *r, uint64_t max)
{
	uint64_t v = rd_u64(r);

	if (v > max)
		r->bad = true;
	return r->bad ? 0 : v;
}

uint32_t rd_count(struct rd *r, size_t min_size)
{
	uint32_t n = rd_u32(r);

	if (min_size && n > r->left / min_size)
		r->bad = true;
	return r->bad ? 0 : n;
}

int rd_done(const struct rd *r)
{
	return r->bad || r->left ? CONCC_E_PROTO : 0;
}
