/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_OUTQUEUE_H
#define CONCC_LINK_OUTQUEUE_H

/*
 * What a link has to send.  Messages are cut into frames when they are put in, straight into
 * chunks: runs of whole frames of one class that go out in one write(2).  A chunk is at most a
 * frame of the largest size, so that is how long a PRIO message waits for a BULK one.
 *
 * No fd, no clock.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/link.h"
#include "concc/map.h"

struct chunk;
struct packer;

struct outqueue {
	struct list chunks[2]; /* by enum link_prio */
	size_t bytes[2];       /* the current chunk's rest included */
	struct chunk *current; /* partly written: nothing may go before its rest */
	enum link_prio current_prio;
	bool open[2]; /* the last chunk written ended inside a message, of open_type */
	uint8_t open_type[2];
	struct packer *packer; /* NULL without compression; owned */
	bool pack_hard;	       /* the line is slower than the processor */
};

void outqueue_init(struct outqueue *q, bool compress);
void outqueue_release(struct outqueue *q);
void outqueue_compress_no_more(struct outqueue *q);
void outqueue_put(struct outqueue *q, enum link_prio prio, uint8_t type, const uint8_t *p,
		  size_t n);
/* Bytes that are no frame, before all others. */
void outqueue_put_raw(struct outqueue *q, const void *p, size_t n);
/*
 * What to write next, of class *ret_prio; NULL when there is nothing.  PRIO before BULK, but for a
 * PRIO message of the type of a half-sent BULK one: the receiver joins by type.
 */
const uint8_t *outqueue_next(struct outqueue *q, size_t *ret_n, enum link_prio *ret_prio);
/* So much of that was written. */
void outqueue_wrote(struct outqueue *q, size_t n);
void outqueue_drop(struct outqueue *q); /* all of it */
bool outqueue_is_empty(const struct outqueue *q);

#endif
