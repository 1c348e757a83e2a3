/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_BUILDS_H
#define CONCC_VIEW_BUILDS_H

/*
 * Records as builds: what one `concc run` did; of jobs without it, those that have no longer gap
 * between them than BUILD_GAP_S seconds.
 */
#include <stddef.h>

#include "concc/record.h"

#define BUILD_GAP_S 10

struct build {
	char *id;		     /* of `concc run`, or made of the time of its first job */
	uint64_t began_us, ended_us; /* CLOCK_REALTIME: of its first and its last job */
	struct record *jobs;	     /* by their arrival */
	size_t n;
};

struct builds {
	struct build *builds; /* by their beginning */
	size_t n;
	struct record *records; /* which all of them share */
	size_t n_records, cap;
	char *late; /* the directory of a server whose newest jobs may be missing; NULL: none */
};

/* All that there are on this machine, the newest too: asks the servers, limit_ms at most.  0 or
 * negative and msg, which may be NULL; b is to be released in any case. */
int builds_read(struct builds *b, unsigned limit_ms, struct errmsg *msg);
void builds_release(struct builds *b);
/* The one of this id; else the one that ended last of those whose id begins so, of all for NULL;
 * NULL when there is none. */
const struct build *builds_find(const struct builds *b, const char *id);

#endif
