/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_PACK_H
#define CONCC_LINK_PACK_H

/*
 * Payloads of frames, compressed each by itself: by LZ4, or by zstd, which makes a
 * quarter less of a compiler and takes several times the processor's time.  One
 * for each direction of a link; for its thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/proto.h"

struct packer;

struct packer *packer_new(void);
void packer_free(struct packer *p); /* NULL is fine */
/* The packed payload, the packer's until the next call, and the frame's flag for it.  0: it would
 * save less than a sixteenth. */
size_t packer_pack(struct packer *p, bool small, const void *payload, size_t n,
		   const uint8_t **ret_packed, uint8_t *ret_flag);

struct unpacker;

void unpacker_free(struct unpacker *u);
/* The payload as it was, the unpacker's until the next call; *u is made when first needed.
 * CONCC_E_PROTO: it is none. */
int unpacker_unpack(struct unpacker **u, uint8_t flags, struct blob packed, struct blob *ret);

#endif
