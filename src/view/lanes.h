/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_LANES_H
#define CONCC_VIEW_LANES_H

/* Jobs side by side: which of them could have had the same slot, and how many there were at once.
 */
#include "summary.h"

/* lane_of and n_lanes of its places, whose place_of is set. */
void lanes_assign(struct summary *s);
/* offered, busy and tail_us. */
void lanes_measure(struct summary *s);

#endif
