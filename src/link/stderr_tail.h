/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_STDERR_TAIL_H
#define CONCC_LINK_STDERR_TAIL_H

/* What a far end wrote to its stderr: logged line by line at debug, and its tail kept, since its
 * last lines say why it ended. */
#include <stddef.h>

#include "concc/buf.h"

struct stderr_tail {
	struct buf tail;
	size_t logged; /* of tail */
};

void stderr_tail_add(struct stderr_tail *s, const char *worker, const void *p, size_t n);
/* Appends the last lines, escaped and quoted, with ": " before them when out is not empty. */
void stderr_tail_put(const struct stderr_tail *s, struct buf *out);
void stderr_tail_release(struct stderr_tail *s);

/* The last line of text with something on it; empty when there is none. */
struct blob last_line(struct blob text);

#endif
