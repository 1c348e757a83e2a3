/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CACHE_COUNTS_H
#define CONCC_CACHE_COUNTS_H

/*
 * What the processes that use one store count together: a file that each has mapped.  Nothing but
 * when to trim depends on it, so a file that is damaged or can't be had counts from nothing.
 */
#include "concc/cache.h"

struct counts;

struct counts *counts_open(int dir_fd); /* never NULL */
/* To another folder: from there on it counts for that one, for other threads, too. */
void counts_move(struct counts *c, int dir_fd);
void counts_close(struct counts *c);
void counts_add_bytes(struct counts *c, uint64_t bytes); /* one object */
void counts_set_size(struct counts *c, uint64_t bytes, uint64_t objects);
uint64_t counts_bytes(const struct counts *c);
void counts_hit(struct counts *c, uint64_t saved_us);
void counts_miss(struct counts *c);
void counts_kept(struct counts *c);
void counts_uncacheable(struct counts *c, const char *why);
void counts_reset(struct counts *c); /* all but the size */
void counts_read(const struct counts *c, struct cache_counts *ret);
bool counts_reason(const struct counts *c, size_t index, char ret_why[32], uint64_t *ret_n);

#endif
