/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_SHOWN_H
#define CONCC_WRAPPER_SHOWN_H

/*
 * What of a job's output went out already.  When the job has to be run again, what
 * it says again is left out for as long as it is the same.  From the line where it
 * differs all of it goes out: rather something twice than anything lost.
 *
 * Stream 0 is stdout (and stderr, where both are one file), 1 is stderr.
 */
#include "concc/buf.h"

/* What is compared; behind it, output is taken for the same without a look. */
#define SHOWN_KEPT_MAX (256 * 1024)

struct shown_stream {
	struct buf kept;  /* the first bytes that went out */
	struct buf again; /* what shown_next() returned, when it is not its argument's */
	uint64_t n;	  /* how many went out */
	uint64_t at;	  /* how many of those this attempt has said again */
};

/* Zeros are a valid start. */
struct shown {
	struct shown_stream streams[2];
};

void shown_release(struct shown *s);
/* Another attempt begins. */
void shown_restart(struct shown *s);
/* What is to go out now that these bytes came: maybe nothing.  It counts as gone, and is valid
 * until the next call or the end of bytes. */
struct blob shown_next(struct shown *s, unsigned stream, struct blob bytes);
/* The last n bytes that counted as gone did not go out, or were taken back. */
void shown_cut(struct shown *s, unsigned stream, uint64_t n);
/* How many bytes of what went out this attempt has not said again yet. */
uint64_t shown_left(const struct shown *s, unsigned stream);

#endif
