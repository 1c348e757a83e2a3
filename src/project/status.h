/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_STATUS_H
#define CONCC_PROJECT_STATUS_H

/* What a person is told of a server, and scripts. */
#include <stdbool.h>

#include "concc/buf.h"

struct server;

void status_text(struct server *s, struct buf *out);
void status_why(struct server *s, struct buf *out);  /* one line: what keeps workers from working */
void status_json(struct server *s, struct buf *out); /* for `concc status --json` */
void status_reset(struct server *s);		     /* counters begin anew */
bool server_is_busy(const struct server *s);	     /* jobs run here, or wait */

#endif
