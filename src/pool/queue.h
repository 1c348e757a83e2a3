/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_POOL_QUEUE_H
#define CONCC_POOL_QUEUE_H

/*
 * First come, first served, kept by the kernel.
 *
 * A waiter draws a ticket t and locks two bytes of the table's file that are
 * its own: HEAD(t) as long as it is in the queue, and QUEUE(t) until it is the head.
 * It waits for exactly one byte, that of its predecessor, so each release wakes
 * one process and a waiter's death is its locks' end: nothing leaks and nothing
 * needs repair.  A plain lock for all would not do: who is woken has to try
 * again and can be overtaken by a newcomer, and a killed waiter wakes the rest.
 *
 * Whose predecessor has become the head is second and prepares (see watch.h),
 * so that no moment passes unwatched when the head leaves.
 */
#include "table.h"

struct ticket {
	uint32_t queue;
	uint64_t number;
};

bool queue_has_waiters(const struct pool *p, uint32_t queue);
/* About how many, where queue_has_waiters(); without a system call. */
uint32_t queue_waiting(const struct pool *p, uint32_t queue);
/* The work of those in all, as far as they told it; 0: not known. */
uint64_t queue_work_us(const struct pool *p, uint32_t queue);
uint32_t queue_count_waiters(const struct pool *p); /* in all */
uint32_t queue_count_waiters_in(const struct pool *p, uint32_t queue);

/* work_us: of the job that the place in the queue is for; 0: not known. */
int ticket_take(struct pool *p, uint32_t queue, uint32_t work_us, struct ticket *ret);
/* Both return 0 or -EINTR or another -errno; the ticket is kept in any case. */
int ticket_wait_second(struct pool *p, const struct ticket *t);
int ticket_wait_head(struct pool *p, const struct ticket *t);
void ticket_is_head(struct pool *p, const struct ticket *t); /* the next may prepare */
void ticket_drop(struct pool *p, const struct ticket *t);

#endif
