/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_FILLING_H
#define CONCC_PROJECT_FILLING_H

/*
 * A worker that is still being filled: what a program reads that has not run there on this link
 * comes over the line first, and its jobs wait for that.  How long it takes is known by the bytes
 * that are wanted; or, where they are few and far between since each waits for a round trip, by how
 * long jobs have waited: what has gone on for long will go on.
 */
#include "run.h"

/* Is the job's one of those programs? */
bool filling_is(const struct job *j);
/* And waits for it at the moment: it asks, or has asked a moment ago. */
bool filling_asks(const struct job *j);
/* How long it will wait there, as far as can be told; 0: not at all, or its program is there. */
uint64_t filling_waits_us(const struct job *j);
/* The same of any job of such a program, for who chooses a worker. */
uint64_t filling_left_us(const struct peer *p);

/*
 * The job's wrapper is about to run it on this machine.  True when it goes on there as well, for
 * what it fetches, and comes to nothing: the next one finds that there.  One of a worker does, as
 * long as no other job wants its slot.
 */
bool filling_goes_on(struct run *r);
/* That one has ended, so. */
void filling_ended(struct run *r, const struct msg_exit *m);
/* Its slot is wanted, or we are leaving. */
void filling_stop(struct peer *p);

#endif
