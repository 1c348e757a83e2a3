/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_TEXT_H
#define CONCC_VIEW_TEXT_H

/* Numbers as a person reads them. */
#include <stdint.h>

#include "concc/buf.h"

void put_span(struct buf *out, uint64_t us);	/* 0.12 s, 39.8 s, 3 min 12 s, 2 h 05 min */
void put_size(struct buf *out, uint64_t bytes); /* 17 B, 4.2 KB, 312 MB */

#endif
