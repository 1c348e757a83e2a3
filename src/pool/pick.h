/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_POOL_PICK_H
#define CONCC_POOL_PICK_H

/*
 * Which member of the table has a slot worth taking.  Reads the table, which says how many slots
 * seem to be free, and decides by concc/schedule.h; takes nothing, so the slot may be gone when it
 * is tried.  No system calls.
 */
#include <stdbool.h>
#include <stdint.h>

#include "concc/pool.h"
#include "concc/schedule.h"
#include "table.h"

struct pick {
	int index; /* -1: none */
	int slot;  /* of it, free when it was picked */
	int full;  /* POOL_LOCAL, when it would do but that its slots look taken; or -1 */
	struct member_view view;
};

/* What a choice depends on beside the members, and what it says of waiting. */
struct pick_wish {
	struct sched_job job;
	uint64_t patience_us; /* after that, what is free is better after all */
};

struct pick_wish pick_wish(const struct table *t, const struct pool_request *q);
/* How long the job may take: what others in the queue are to reckon with. */
uint32_t pick_expected_us(const struct pick_wish *w);
/* -EAGAIN when all are taken or asleep, or not worth it; CONCC_E_UNAVAIL when there is none. */
int pick(const struct table *t, const struct pool_request *q, struct pick_wish *w,
	 struct pick *ret);
/* May the request have a slot of it at all? */
bool pick_is_eligible(const struct member_view *v, const struct pool_request *q);
/* Is there one that can be called for, be it the one to avoid? */
bool pick_can_call(const struct table *t, const struct pool_request *q);
/* Who avoids one is not helped when just that one is started: the member that must be, when no
 * other is up; -1: any will do. */
int pick_to_call(const struct table *t, const struct pool_request *q);
/* That member has the last job of the directory; cwd may be NULL. */
void pick_remember(struct table *t, const char *cwd, uint32_t member);
struct sched_place pick_place(const struct member_view *v);

/* ---- pool.c ---- */

/*
 * The slot that was picked, or -EAGAIN: it is taken.  Of several who picked by the same sight one
 * has it; for the others that member has one job more than they thought, so they pick anew.
 */
int pool_take_picked(struct pool *p, const struct pool_request *q, const struct pick *c,
		     struct pool_slot *ret);

#endif
