/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_SETS_H
#define CONCC_PROJECT_SETS_H

/*
 * Sets of names out of the store, into which a shared cache may have put any: what those of one
 * question cost together is bounded, and where names would have the kernel mount something nothing
 * is looked at.
 */
#include "results.h"

struct sets_left {
	size_t to_keep; /* bytes, see cache_names_cost(): of all sets that are read */
	size_t to_look; /* the same: of all looks, each time */
};

#define SETS_KEPT_MAX	(16u * 1024 * 1024) /* three of the largest, or a hundred of a compile */
#define SETS_LOOKED_MAX (64u * 1024 * 1024) /* a second of the loop's thread, at the worst */

/* Of the store only, on a thread; first: what is kept first of the call, or zero.  False: it is not
 * there, or no set, or too much. */
bool sets_read(struct cache_store *s, const struct cache_first *first, const struct digest *set,
	       struct sets_left *left, struct cache_names *ret, size_t *ret_cost);
/* 0, or why these names are not to be looked at now: -EACCES, -E2BIG. */
int sets_check(struct results *r, const struct digest *set, const struct cache_names *names,
	       size_t cost, struct sets_left *left);

#endif
