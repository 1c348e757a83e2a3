/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_OBJECTS_H
#define CONCC_MIRROR_OBJECTS_H

/*
 * The files that lie in a store's directory, when they were used last, and which of them go.  Reads
 * directories and removes files, whoever else does so at the same time; no lock, no state.
 */
#include <stddef.h>
#include <stdint.h>

struct object;

struct objects {
	struct object *v;
	size_t n, cap;
	uint64_t total;
};

/* Adds all objects of the store in this directory; what can't be read is left out. */
void objects_collect(struct objects *o, const char *store_dir);
void objects_release(struct objects *o);
/* The least recently used first, until so many bytes are left.  How many bytes went. */
uint64_t objects_evict(struct objects *o, uint64_t max);
/* What writers that are dead left of files that they had begun. */
void objects_remove_old_tmp(const char *store_dir);

#endif
