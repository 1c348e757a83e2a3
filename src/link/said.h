/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_SAID_H
#define CONCC_LINK_SAID_H

/* What a far end wrote to its stderr: logged line by line at debug, and its tail kept, since its
 * last lines say why it ended. */
#include <stddef.h>

#include "concc/buf.h"

struct said {
	struct buf tail;
	size_t logged; /* of tail */
};

void said_add(struct said *s, const char *worker, const void *p, size_t n);
/* Appends the last lines, escaped and quoted, with ": " before them when out is not empty. */
void said_put(const struct said *s, struct buf *out);
void said_release(struct said *s);

/* The last line of text with something on it; empty when there is none. */
struct blob said_last_line(struct blob text);

#endif
