/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_POOL_WATCH_H
#define CONCC_POOL_WATCH_H

/*
 * How the head of a queue learns that a slot became free: one inotify watch on
 * the directory of the slot files reports every close of one, by pool_release()
 * or by death; and every change of the members, by a close of `bell`.
 *
 * inotify instances are few (128 a user), so only the head and the second of a
 * queue have one.
 */
#include "table.h"

#define BELL_NAME "bell"

struct pollfd;

struct pool_watch {
	struct pollfd *fds; /* [0] is inotify; the others are slots being closed, see slot.h */
	uint64_t *slots;    /* which slot fds[i] is: member << 32 | index; or WATCH_CALLS */
	size_t n;
	size_t cap;
};

int pool_watch_open(struct pool_watch *w,
		    const struct pool *p); /* -errno when the user has no more */
bool pool_watch_is_open(const struct pool_watch *w);
void pool_watch_close(struct pool_watch *w); /* fine when not open, or zero */

/* The write end of the calls (call.h), taken: pool_watch_wait() returns, without it, when nobody
 * hears.
 */
void pool_watch_add_calls(struct pool_watch *w, int fd);
bool pool_watch_has_calls(const struct pool_watch *w);

/*
 * Asks the locks of all slots whose hint says taken and clears the hints of
 * those that are free: their holders were killed.  With a watch, remembers those
 * that are just being closed.  Returns how many were repaired, or an error.
 */
int pool_watch_verify_member(struct pool *p, uint32_t member, struct pool_watch *w);

/*
 * Waits until something happened, and repairs the hints of holders that died.
 * Sets *recheck when all must be verified again: members changed, or events were lost.
 * Nothing happened for so many microseconds (UINT64_MAX: no matter how long): -ETIMEDOUT.
 */
int pool_watch_wait(struct pool_watch *w, struct pool *p, uint64_t patience_us, bool *recheck);
/* The same for what has happened already; false when the hints can't be vouched for. */
bool pool_watch_drain(struct pool_watch *w, struct pool *p);

#endif
