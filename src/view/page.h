/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_PAGE_H
#define CONCC_VIEW_PAGE_H

/*
 * A build as files for other programs.  Both only format: of what is in records, any byte may be
 * anything, and none becomes more than text.
 */
#include "concc/buf.h"
#include "summary.h"

/* One page of HTML that needs nothing else, and no network. */
void page_html(struct buf *out, const struct summary *s);
/* Trace events as Perfetto and Chrome's chrome://tracing read them. */
void page_trace(struct buf *out, const struct summary *s);

#endif
