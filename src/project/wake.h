/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_WAKE_H
#define CONCC_PROJECT_WAKE_H

/*
 * Workers that are started when jobs need them, and when that pays (sched_start()): one that takes
 * a minute to start is no help to a queue that will be gone in ten seconds.  How long each
 * section's take is remembered in the cache directory; one of which that is not known is started,
 * which tells.
 *
 * All functions are the loop's thread's, and do nothing for a server without it (s->wake is NULL).
 */
#include <stdint.h>

struct peer;
struct server;

void wake_open(struct server *s); /* may block: it reads a file */
void wake_close(struct server *s);
/* A wrapper called, or a worker came, went or fell asleep: starts as many as have waiters. */
void wake_workers(struct server *s);
/* It is up, so long after it was begun to start. */
void wake_learn(const struct peer *p, uint64_t us);
/* What is known of that, in microseconds; 0: nothing. */
uint64_t wake_takes_us(const struct peer *p);
/* Why it is asleep, beside that nothing waits; NULL: for no other reason.  The caller's. */
char *wake_why_asleep(const struct peer *p);

#endif
