/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_OFFLOAD_H
#define CONCC_OFFLOAD_H

/*
 * Calls that may block (a full or slow disk, a network home, hashing of large files), made on a few
 * threads for the owner of a loop, whose own thread has to answer PING: see loop.h.
 *
 * Calls of one lane are made one after the other, in order, and those of different lanes beside
 * each other, so that what hangs in one holds up nothing but that lane as long as there is a thread
 * for each that hangs.  Threads are started as they are needed and take no signals.
 *
 * All functions are the owner's thread's, but `run`, which is called on one of ours.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct offload;
struct offload_lane;

/* max_bytes: of what all calls that were not made yet keep in memory, as offload_put() is told. */
struct offload *offload_new(unsigned n_threads, size_t max_bytes);
/*
 * Waits for what was put to be done, and calls `done` of it: at_most_s seconds, and two without any
 * call that ended.  So many calls to a slow disk are waited for, and one that hangs is not.  It
 * ends with the process, and what it uses stays.  False then: nothing that `run` uses may be freed.
 */
bool offload_free(struct offload *o, unsigned at_most_s) /* NULL is fine */
	__attribute__((warn_unused_result));

struct offload_lane *offload_lane(struct offload *o); /* lives as long as o */

/*
 * Has run(arg) called, and later, in offload_dispatch(), done(arg), which may be NULL.  False when
 * bytes more than the maximum would be kept: nothing was put.  Zero bytes are always taken; their
 * number is bounded by the caller.
 */
bool offload_put(struct offload_lane *l, void (*run)(void *arg), void (*done)(void *arg), void *arg,
		 size_t bytes);

/* Readable when the owner must call offload_dispatch(). */
int offload_event_fd(const struct offload *o);
void offload_dispatch(struct offload *o);

struct offload_counts {
	size_t queued, bytes; /* now: not made yet */
	size_t most_queued, most_bytes;
	uint64_t n_done, n_refused; /* refused: for the maximum */
	uint64_t longest_us;	    /* from offload_put() to the end of `run` */
};
void offload_counts(struct offload *o, struct offload_counts *ret);

#endif
