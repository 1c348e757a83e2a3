/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CACHE_COUNTS_H
#define CONCC_CACHE_COUNTS_H

/*
 * What the processes that use one store count together, in a file.  Each counts in its own memory,
 * which never waits for a disk, and adds that to the file now and then (counts_write()).  Nothing
 * but when to trim depends on it, so a file that is damaged or can't be had counts from nothing.
 *
 * Any thread.  Those that have a dir_fd, the store's folder, may block.
 */
#include "concc/cache.h"

struct counts;

struct counts *counts_open(int dir_fd); /* never NULL */
void counts_free(struct counts *c);
/* Then what others have counted is known as well. */
void counts_write(struct counts *c, int dir_fd);
void counts_begin_anew(struct counts *c); /* the folder was removed */
/* Is there so much to write that it should be? */
bool counts_are_many(struct counts *c);

void counts_grow(struct counts *c, uint64_t from, uint64_t to); /* one object; from 0: it is new */
void counts_set_size(struct counts *c, int dir_fd, uint64_t bytes, uint64_t objects);
uint64_t counts_bytes(struct counts *c);
void counts_hit(struct counts *c, uint64_t saved_us);
void counts_miss(struct counts *c);
void counts_kept(struct counts *c);
void counts_uncacheable(struct counts *c, const char *why);
void counts_reset(struct counts *c, int dir_fd); /* all but the size */
void counts_read(struct counts *c, struct cache_counts *ret);
bool counts_reason(struct counts *c, size_t index, char ret_why[32], uint64_t *ret_n);

#endif
