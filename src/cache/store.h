/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CACHE_STORE_FILES_H
#define CONCC_CACHE_STORE_FILES_H

/*
 * The files of a store, between those that know what is in them: store.c reads and writes them,
 * store_results.c has sets and results in them, store_first.c what is kept of a call first,
 * store_parts.c parts of calls, store_size.c removes the oldest.
 */
#include <pthread.h>

#include "concc/cache.h"
#include "counts.h"

#define PARTS_RECENT 512

/* The call whose parts were added last by this key; both by their first bytes. */
struct parts_recent {
	uint64_t key, call;
};

struct cache_store {
	char *dir;
	int dir_fd;
	uint64_t max_bytes;
	struct counts *counts;	/* shared by all processes */
	unsigned n_temp;	/* atomic */
	pthread_mutex_t adding; /* of those who add to an object: one after the other */
	struct parts_recent recent[PARTS_RECENT]; /* by key; of those who add */
};

#define STORE_NAME_SIZE (DIGEST_HEX + 8)

void store_object_name(char kind, const struct digest *d, char ret[STORE_NAME_SIZE]);
/* The parts one after the other, beside it, and then by this name. */
int store_put(struct cache_store *s, const char *name, const struct buf *parts, size_t n);
/* Is it there?  Then it is used by that. */
bool cache_store_has(struct cache_store *s, const char *name);
/* Behind what the file by this name has, at one go; it is made when it is not there.  A crash may
 * leave a part. */
int store_append(struct cache_store *s, const char *name, const struct buf *b, uint64_t *ret_size);
/* Appends what it holds: at most max bytes, or CONCC_E_TOOBIG. */
int store_read(struct cache_store *s, const char *name, size_t max, struct buf *ret);
/* Written by a crash, a failing disk, or another program: removed.  -ENOENT. */
int store_damaged(struct cache_store *s, const char *name);

/* Of what is sealed: whole, and of just this name, whatever copies objects about. */
void store_seal_of(const char *name, const void *p, size_t n, struct digest *ret);
/* What is sealed, without its seal; borrowed. */
bool store_unseal(const char *name, const struct buf *b, struct blob *ret);
int store_put_sealed(struct cache_store *s, const char *name, struct buf *b);
int store_get_sealed(struct cache_store *s, const char *name, size_t max, struct buf *ret);

bool store_is_same(const struct cache_variant *a, const struct cache_variant *b);
/* Behind those that are newer, unless it is one of them, or there are enough. */
void store_put_older(struct cache_variant ret[CACHE_VARIANTS_MAX], size_t *n,
		     const struct cache_variant *variant);

#endif
