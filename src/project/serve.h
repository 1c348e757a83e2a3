/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_SERVE_H
#define CONCC_PROJECT_SERVE_H

/* Contents of files, which a worker asks for: sent by turns, as fast as its link takes them. */
#include <stdint.h>

#include "concc/proto.h"

struct peer;
struct serving;

struct serving *serving_new(void);
void serving_free(struct serving *s); /* NULL is fine; after serve_drop() */

int serve_fetch(struct peer *p, struct blob payload);
void serve_more(struct peer *p); /* little is queued: send more contents */
void serve_drop(struct peer *p); /* the link is gone */
/* Microseconds until all that the worker asked for is sent, at the rate of late.  0: hardly any, or
 * not known. */
uint64_t serve_left_us(const struct peer *p);
bool serve_is_asked(const struct peer *p); /* for what is not sent yet */

struct serve_counts {
	unsigned n_fetches, n_begun;	   /* of files that are asked for; with an open file */
	uint64_t wanted_bytes, sent_bytes; /* since none was wanted: asked for, and sent of those */
};
void serve_counts(const struct peer *p, struct serve_counts *ret);

#endif
