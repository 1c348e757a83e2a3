/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_WATCHERS_H
#define CONCC_PROJECT_WATCHERS_H

/*
 * Who looks at what goes on (`concc top`).  A client asks by the word `watch`, each time for one
 * reply: it comes when something has changed since the one before, a few times a second at most,
 * and tells all of it.  So a reader that is slow or stopped misses what was in between, and neither
 * holds the server nor makes it keep anything for it.  Costs nothing while nobody looks.
 */
#include <jansson.h>

#include "concc/cleanup.h"
#include "jobs.h"

void watch_ask(struct client *c);
void watch_read(struct client *c);  /* it has taken some of what is queued for it */
void watch_leave(struct client *c); /* it goes; fine for one that did not watch */
/* Something has changed besides jobs: a worker's state, or its load. */
void watchers_tell(struct server *s);
unsigned watchers_count(const struct server *s);

/* status.c: what they are told; recent: the last jobs that ended, n_ended: how many did. */
void status_watch(struct server *s, json_t *recent, uint64_t n_ended, struct buf *out);

#endif
