/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_STORE_H
#define CONCC_STORE_H

/*
 * A worker's contents by SHA-256, as files <dir>/ab/cdef...: written beside and
 * renamed, so a name always holds whole, right bytes, and any number of agents
 * of one user, on any number of hosts, share the folder without a lock.  Bounded: the least
 * recently used go first, when store_trim() is called, and at once when the disk is full. Every
 * call may wait for the disk: none is for a loop's thread (loop.h). Losing any object, or the
 * folder, costs a transfer and nothing else: every open may fail with -ENOENT and the caller
 * fetches anew. Thread safe; a writer is used by one at a time.  0 or -errno, where no more is
 * said.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/digest.h"
#include "concc/err.h"

struct store;
struct store_writer;

/* dir is made when it is missing.  max_bytes: of all objects. */
int store_open(const char *dir, uint64_t max_bytes, struct store **ret, struct errmsg *msg);
void store_close(struct store *s); /* NULL is fine */

bool store_has(struct store *s, const struct digest *d);
/* A read-only fd, or -errno.  Marks the object as used. */
int store_get(struct store *s, const struct digest *d);

/* What was read of it was wrong, or could not be read: it is hashed when it is opened next. */
void store_doubt(struct store *s, const struct digest *d);

/* A new object, written from its first byte on, with hashing as it goes. */
int store_begin(struct store *s, struct store_writer **ret);
int store_write(struct store_writer *w, const void *p, size_t n);
/* An fd to what has been written so far, for reading; borrowed from the writer. */
int store_writer_fd(const struct store_writer *w);
/* Puts the object in place and frees w.  ret_digest: of what was written.  When expect is given
 * and differs, nothing is kept and the result is CONCC_E_PROTO.  ret_fd, when given, gets a
 * read-only fd to the bytes (valid also when putting them in place failed and an error returns). */
int store_commit(struct store_writer *w, const struct digest *expect, struct digest *ret_digest,
		 int *ret_fd);
void store_abort(struct store_writer *w); /* NULL is fine */
/* Copies an open regular file in, when its digest is not there yet. */
int store_add_fd(struct store *s, int fd, const struct digest *d);
/* Copies one in that somebody may be changing: ret is of what was copied.  -ESTALE when it has
 * another size than this; with expect as store_commit(). */
int store_copy_fd(struct store *s, int fd, uint64_t size, const struct digest *expect,
		  struct digest *ret);
/* Since it was opened: objects that were there when asked for, and that were put in. */
struct store_counts {
	uint64_t hits, added;
	/* About what is on the disk, of all who use it; 0: not measured yet.  What it may become.
	 */
	uint64_t bytes, max;
};

void store_counts(struct store *s, struct store_counts *ret);
/* Bytes and objects of a store's folder, whoever has it open. */
void store_measure(const char *dir, uint64_t *ret_bytes, uint64_t *ret_objects);
/* Brings the size under the bound; one process at a time, others return at once. */
int store_trim(struct store *s);
/* Nobody has yet, or so much was put in since that it may be above the bound.  Does not block. */
bool store_wants_trim(struct store *s);
/* What was removed takes room as long as it is open: fn is to close what it need not keep.  Called
 * by whoever finds the disk full, with nothing locked. */
void store_on_full(struct store *s, void (*fn)(void *data), void *data);
/* 0, or why the last object could not be written, though others were removed to make room: -errno.
 * Does not block. */
int store_state(struct store *s);
/* The same, from trying now. */
int store_probe(struct store *s);

#endif
