/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_HOST_SLOTS_H
#define CONCC_HOST_SLOTS_H

/*
 * The slots of one host, shared by all users on it: how the agents of several
 * clients together run no more jobs than the host has slots.
 *
 * Same rules as the pool of one user (pool.h): the truth is something the kernel
 * takes away from who ends, who finds nothing free waits in a queue, nobody polls.
 * But the pool's table and lock files are one user's; among users who don't
 * trust each other a shared file has an owner who can cut it short or replace it,
 * and a directory has one who can remove what is in it.  So here a slot is a
 * name, an abstract unix socket: the kernel gives it to one process, and frees it
 * when that ends.  No file, so nothing in /tmp to be careful with.  Who waits is
 * connected to whom it waits for, and the hang-up is the event.
 *
 * Turns: within an agent first come, first served (the caller's queue).  The
 * agents of a user stand in the user's queue; its head stands in the host's queue,
 * whose head gets the next free slot; after each slot one goes to the end of both.
 * So users take turns, and so do clients of one user, however many jobs each has.
 *
 * All that another user can do is to take or hold up slots, see SECURITY.md.  The
 * caller's wait must have an end.
 *
 * One thread; nothing blocks.  Names belong to the network namespace.
 */
#include <stdint.h>

#include "concc/err.h"

struct host_slots;

#define HOST_SLOTS_MAX 1024

/* Before any namespace is entered: takes note of the user.  limit: slots of the host, 1 to
 * HOST_SLOTS_MAX.  0, or -errno and msg. */
int host_slots_new(uint32_t limit, struct host_slots **ret, struct errmsg *msg);
void host_slots_free(struct host_slots *h); /* frees all slots; NULL is fine */

/*
 * A slot (>= 0); or -EAGAIN: now in the queue, and to be called again after
 * host_slots_dispatch().  Any other error: no guard can be had.
 */
int host_slots_take(struct host_slots *h);
void host_slots_give_back(struct host_slots *h, int slot);

/* Readable when host_slots_dispatch() has something to do. */
int host_slots_event_fd(const struct host_slots *h);
void host_slots_dispatch(struct host_slots *h);

/* How many of the caller's jobs wait: for others to see.  0: leaves the queues. */
void host_slots_waiting(struct host_slots *h, uint32_t n);

/*
 * What all agents of the host say of themselves.  Anyone can say anything: for people, and for
 * estimates, which a user who takes slots for nothing could spoil as well.
 */
struct host_load {
	uint32_t running, waiting;
	uint32_t others; /* running for others than h, and such others that wait */
};

/* h: the caller's, or NULL. */
void host_slots_load(const struct host_slots *h, struct host_load *ret);

#endif
