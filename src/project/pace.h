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
/* What such a job usually takes on the worker that has it; 0: not known. */
uint64_t pace_takes_us(struct pace *p, const struct job *j);
/* The same here; same: it is known of this very job. */
uint64_t pace_takes_here_us(struct pace *p, const struct job *j, bool *ret_same);
/* What few of such jobs exceed here. */
uint64_t pace_at_most_here_us(struct pace *p, const struct job *j);
/* Its worker has it since it was sent, and it is given up there. */
void pace_learn_late(struct pace *p, const struct job *j);
/* The pool has this member anew: what is known of it. */
void pace_tell_worker(struct pace *p, const struct peer *peer);
void pace_tell_here(struct pace *p);

#endif
