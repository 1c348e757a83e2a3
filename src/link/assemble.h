/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_ASSEMBLE_H
#define CONCC_LINK_ASSEMBLE_H

/*
 * The receiving half of a link without its fd: bytes in, whole messages out.
 * Everything here came from a peer and is hostile.  A frame is checked before
 * its payload is looked at; a joined message grows only by what was received
 * and up to its type's maximum; the first error is final.
 *
 * PRIO messages may be sent between the frames of a BULK one, and a sender
 * never starts a second message of a class before the first is complete.  So at
 * most two messages are incomplete at any time, of different types; a peer that
 * opens a third, or mixes two of one type, breaks the protocol.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/buf.h"
#include "concc/link.h"
#include "concc/proto.h"

/* Of one message: what we send, the peer must take, and nothing above. */
static inline size_t message_max(uint8_t type)
{
	return type == MSG_DIR ? PROTO_DIR_MAX : PROTO_MSG_MAX;
}

struct partial {
	bool active;
	uint8_t type;
	struct buf data;
};

struct assembler {
	enum link_end end; /* which decides what the peer says first */
	bool in_frames;	   /* false: still looking for that */
	int err;
	uint8_t *in; /* received and not yet consumed: in[start..stop) */
	size_t start, stop;
	struct unpacker *unpacker; /* made when first needed */
	struct partial parts[2];
	struct partial *delivered; /* lent out by the last assembler_next() */
	uint64_t raw_bytes;	   /* payload after decompression */
	uint64_t frames;	   /* whole ones so far */
};

struct assembled {
	uint8_t type;
	struct blob payload; /* valid until the next call on the assembler */
};

void assembler_init(struct assembler *a, enum link_end end);
void assembler_release(struct assembler *a);

/* Where to put received bytes, and how many fit (never 0 after assembler_next() returned 0). */
uint8_t *assembler_space(struct assembler *a, size_t *ret_n);
void assembler_filled(struct assembler *a, size_t n);

/* 1 with a message, 0 when more bytes are needed, or a negative code. */
int assembler_next(struct assembler *a, struct assembled *ret);

/* What came instead of the peer's greeting so far, or, after an error, of a frame: words of what
 * started it.  Empty when it is neither. */
struct blob assembler_noise(const struct assembler *a);
/* Nothing that was read is left to be looked at. */
bool assembler_is_empty(const struct assembler *a);
/* True between messages: an end of the stream here cuts nothing off. */
bool assembler_idle(const struct assembler *a);

#endif
