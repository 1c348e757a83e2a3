/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_PAGEDATA_H
#define CONCC_VIEW_PAGEDATA_H

#include "concc/buf.h"
#include "summary.h"

/*
 * What report.js draws, as JSON that can stand inside of <script>: nothing in it ends that.  Each
 * job is an array in the order of "columns"; each text a number in "strings", once however often
 * it is used; times are microseconds since the build began.
 */
void page_data(struct buf *out, const struct summary *s);

#endif
