/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_BUF_H
#define CONCC_BUF_H

/*
 * A growable byte buffer for what we write, and a bounded reader for what
 * others wrote.  Integers on the wire are little endian; a string is a u32
 * length and its bytes, without a terminator.
 *
 * The reader's error is sticky: after the first short or oversize field every
 * get returns zero, so a decoder reads a whole message and tests once, with
 * rd_done().  Nothing here allocates by a length a peer sent.
 *
 * Nothing fails but for what a peer wrote (no memory: abort), and nothing blocks.  Any thread, one
 * at a time for each buffer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data;
	size_t len;
	size_t cap;
};

#define BUF_INIT ((struct buf){0})

void buf_release(struct buf *b);	    /* frees; the buffer is empty and usable again */
void buf_reset(struct buf *b);		    /* empties, keeps the memory */
uint8_t *buf_grow(struct buf *b, size_t n); /* n more bytes at the end, uninitialised */
void buf_append(struct buf *b, const void *p, size_t n); /* a copy, as all that is put */
void buf_consume(struct buf *b, size_t n);		 /* drops n bytes from the front */
void buf_putf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The bytes as a C string, owned by b until its next change. */
const char *buf_cstr(struct buf *b);

void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u16(struct buf *b, uint16_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_blob(struct buf *b, const void *p, size_t n); /* with its length in front */
void buf_put_str(struct buf *b, const char *s);
void buf_set_u32(struct buf *b, size_t at, uint32_t v); /* overwrites four bytes at `at` */

#define _cleanup_buf_ __attribute__((cleanup(buf_release)))

/* A borrowed run of bytes, valid as long as what it was read from. */
struct blob {
	const uint8_t *p;
	size_t n;
};

struct rd {
	const uint8_t *p;
	size_t left;
	bool bad;
};

void rd_init(struct rd *r, const void *p, size_t n);
uint8_t rd_u8(struct rd *r);
uint16_t rd_u16(struct rd *r);
uint32_t rd_u32(struct rd *r);
uint64_t rd_u64(struct rd *r);
/* 0 and bad when it is more. */
uint64_t rd_u64_max(struct rd *r, uint64_t max);
const uint8_t *rd_bytes(struct rd *r, size_t n); /* borrowed; NULL and bad when short */
/* As buf_put_blob() and buf_put_str() write it; empty and bad when short or over max. */
struct blob rd_blob(struct rd *r, size_t max);
struct blob rd_rest(struct rd *r); /* all that is left */
/* A copy as a C string on the heap; NULL and bad when short, over max or with a NUL inside. */
char *rd_strdup(struct rd *r, size_t max);
/* A count of items that take at least min_size bytes each, so that it can't exceed what is left. */
uint32_t rd_count(struct rd *r, size_t min_size);
/* 0 when all was read and nothing was missing, else CONCC_E_PROTO. */
int rd_done(const struct rd *r);

#endif
