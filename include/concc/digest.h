/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_DIGEST_H
#define CONCC_DIGEST_H

/*
 * SHA-256 of contents: the key of the store and of the client's hash cache.
 * SHA-256 because processors have instructions for it (1.4 GB/s measured
 * against 0.35-0.55 for BLAKE2 without them), so it costs the client least.
 *
 * From any thread, each context by one at a time.  No memory: abort.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define DIGEST_SIZE 32
#define DIGEST_HEX  (2 * DIGEST_SIZE + 1)

struct digest {
	uint8_t b[DIGEST_SIZE];
};

struct digest_ctx;

struct digest_ctx *digest_new(void);
void digest_update(struct digest_ctx *c, const void *p, size_t n);
void digest_final(struct digest_ctx *c, struct digest *ret); /* c can be reused: starts anew */
void digest_free(struct digest_ctx *c);			     /* NULL is fine */

void digest_of(const void *p, size_t n, struct digest *ret);
/* Hashes fd from offset 0 to its end with pread; the offset is untouched.  ret_size (bytes) may be
 * NULL.  0 or -errno.  Blocks as long as the disk does. */
int digest_of_fd(int fd, struct digest *ret, uint64_t *ret_size);
void digest_hex(const struct digest *d, char hex[DIGEST_HEX]);

static inline bool digest_eq(const struct digest *a, const struct digest *b)
{
	return memcmp(a->b, b->b, DIGEST_SIZE) == 0;
}

static inline bool digest_is_zero(const struct digest *d)
{
	static const struct digest zero;

	return digest_eq(d, &zero);
}

#endif
