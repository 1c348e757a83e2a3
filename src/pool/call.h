/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_POOL_CALL_H
#define CONCC_POOL_CALL_H

/*
 * How waiters call for members that are asleep: `calls`, a FIFO beside the table.
 * The project server reads it, and each waiter writes one word, which of the
 * members it can use.  A word that is lost costs nothing: who reads counts the
 * waiters.  The write end of a FIFO without a reader shows POLLERR, which tells
 * a waiter that nobody is there to wake anything.
 */
#include "table.h"

#define CALL_ANY UINT16_MAX

/* Calls for the member.  The write end, to be watched; CONCC_E_CLOSED when nobody hears. */
int call_out(const struct pool *p, uint16_t member, int *ret_fd);

#endif
