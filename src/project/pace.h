/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_PACE_H
#define CONCC_PROJECT_PACE_H

/*
 * How fast workers and this machine are and what jobs take, learnt from the jobs
 * as they end and told to the pool, by whose table wrappers choose.
 */
#include "jobs.h"

struct pace;

/* After the pool and the record file, whose newest records it begins with. */
struct pace *pace_new(struct server *s);
void pace_free(struct pace *p); /* NULL is fine */
/* What few of such jobs exceed on the worker that has it; 0: not known. */
uint64_t pace_at_most_us(struct pace *p, const struct job *j);
/* What such a job usually takes on the worker that has it, when that has all that it reads; 0: not
 * known. */
uint64_t pace_takes_there_us(struct pace *p, const struct job *j);
/* What such a job usually takes here; same: it is known of this very job.  0: not known. */
uint64_t pace_takes_here_us(struct pace *p, const struct job *j, bool *ret_same);
/* Is it better begun anew here, were there a slot for it?  Never where its worker is no slower. */
bool pace_pays_here(struct pace *p, const struct job *j);
/* Has this machine a slot that no job is known to have? */
bool pace_has_room_here(const struct pace *p);
/* Its worker has it since it was sent, and it is given up there. */
void pace_learn_late(struct pace *p, const struct job *j);
/* The pool has this member anew: what is known of it. */
void pace_tell_worker(struct pace *p, const struct peer *peer);
void pace_tell_here(struct pace *p);

#endif
