/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_LOOKUP_H
#define CONCC_PROJECT_LOOKUP_H

#include "concc/proto.h"

struct client;
struct hit;
struct seek;

/* Is a result of this kept?  Then it is put in place, else the wrapper hears that it is not. */
int lookup_start(struct client *c, struct msg_run *m); /* takes what m owns */
int lookup_output_credit(struct hit *h, struct blob payload);
/* All that it said is out: its files are put in place, or could not be, and the wrapper hears that.
 */
bool lookup_is_ending(const struct hit *h);
void seek_free(struct seek *k);	 /* NULL is fine; here, too: */
void lookup_free(struct hit *h); /* NULL is fine; nothing is put in place any more */

#endif
