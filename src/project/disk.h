/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_DISK_H
#define CONCC_PROJECT_DISK_H

/*
 * What the server writes into its cache directory: records of jobs, digests, working sets.  A home
 * may be on a disk that is slow, full, or of a host that does not answer; so threads write it, and
 * the loop never waits.  What can't be written is lost and counted, and jobs go on.
 *
 * All functions are the loop's thread's, return at once but for disk_close(), and do nothing for a
 * server without one (s->disk is NULL).
 */
#include "concc/record.h"
#include "server.h"

struct client;

/* When the cache directory is there.  May block. */
void disk_open(struct server *s);
/* Waits for what was given to be written, some seconds.  False: it hangs, and ends with the
 * process. */
bool disk_close(struct server *s);

/* Written at once, or together with others a moment later. */
void disk_record(struct server *s, const struct record *r);
/* The file is to have these bytes, which are taken; nobody waits for that. */
void disk_replace(struct server *s, const char *path, struct buf *b);
/* Is what was given so not written yet? */
bool disk_is_replacing(const struct server *s);

/* The client is answered when all records are written that are known of now. */
void disk_flush(struct client *c);
void disk_forget(struct client *c); /* it goes */

struct disk_counts {
	uint64_t waiting, lost; /* records: not written yet; that never will be */
	uint64_t stuck_ms;	/* nothing was written for so long, though some wait */
	int err;		/* why the last ones could not be written, 0: they were */
};
void disk_counts(const struct server *s, struct disk_counts *ret);

#endif
