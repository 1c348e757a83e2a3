/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_SCRATCH_H
#define CONCC_SANDBOX_SCRATCH_H

/*
 * A directory on disk for the upper layers of one launcher's jobs, where tmpfs
 * can't hold them (see overlay.h): <cache>/scratch/XXXXXX.  A lock held while
 * it is in use tells other agents which ones are left-overs of a crash.
 */
#include <stdint.h>

#include "concc/err.h"

struct scratch;

/* Also removes what crashed agents left. */
int scratch_new(struct scratch **ret, struct errmsg *msg);
void scratch_free(struct scratch *s); /* removes it; NULL is fine */
const char *scratch_path(const struct scratch *s);
int scratch_clear(struct scratch *s); /* removes what is in it */
/* The job is over: its uppers go once they are empty, which home_free() makes them. */
void scratch_job_ended(struct scratch *s, uint32_t job_id, unsigned n_uppers);

#endif
