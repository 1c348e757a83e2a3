/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_GREETING_H
#define CONCC_PROJECT_GREETING_H

/*
 * The first message of each side of a link: who we are, and may we work together.  When not, the
 * peer fails, with the reason.
 */
#include "concc/proto.h"

struct peer;

void greeting_say(struct peer *p);
/* HELLO, once; 0, or CONCC_E_PROTO. */
int greeting_hear(struct peer *p, struct blob payload);

#endif
