/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_ESTIMATOR_H
#define CONCC_PROJECT_ESTIMATOR_H

/*
 * How fast workers and this machine are and what jobs take, learnt from the jobs
 * as they end and told to the pool, by whose table wrappers choose.
 */
#include "jobs.h"

struct estimator;

/* After the pool and the record file, whose newest records it begins with. */
struct estimator *estimator_new(struct server *s);
void estimator_free(struct estimator *p); /* NULL is fine */
/* What few of such jobs exceed on the worker that has it; 0: not known. */
uint64_t estimator_upper_bound_us(struct estimator *p, const struct job *j);
/* What such a job usually takes on the worker that has it, when that has all that it reads; 0: not
 * known. */
uint64_t estimator_remote_us(struct estimator *p, const struct job *j);
/* What such a job usually takes here; same: it is known of this very job.  0: not known. */
uint64_t estimator_local_us(struct estimator *p, const struct job *j, bool *ret_same);
/* Is it better begun anew here, were there a slot for it?  Never where its worker is no slower. */
bool estimator_local_pays(struct estimator *p, const struct job *j);
/* From when on it is, in any case, since it was sent: it takes longer there than it should, or has
 * not begun.  UINT64_MAX: that can't be told. */
uint64_t estimator_local_pays_after_us(struct estimator *p, const struct job *j);
/* Has this machine a slot that no job is known to have? */
bool estimator_has_local_slot(const struct estimator *p);
/* A job that goes on at its worker without being one any more: what it takes to learn from it. */
struct estimator_begin {
	uint64_t job, kind, at_ms;
	uint64_t bytes, lists; /* the worker had asked for when it got the job */
};
void estimator_note_begin(const struct job *j, struct estimator_begin *ret);
/* It has ended there, well. */
void estimator_learn_detached(struct estimator *p, const struct estimator_begin *b,
			      const struct peer *peer, const struct msg_exit *m);
/* Its worker has it since it was sent, and it is given up there. */
void estimator_learn_censored(struct estimator *p, const struct job *j);
/* The pool has this member anew: what is known of it. */
void estimator_publish_worker(struct estimator *p, const struct peer *peer);
/* What the worker says of its host: who else uses it, and how fast it is. */
void estimator_note_load(struct estimator *p, const struct peer *peer);
void estimator_publish_local(struct estimator *p);

#endif
