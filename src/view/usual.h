/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_VIEW_USUAL_H
#define CONCC_VIEW_USUAL_H

/*
 * What is usual, by the records there are and the jobs seen since: how long a job takes, how fast a
 * worker is; and which jobs were the last.
 */
#include <stdbool.h>
#include <stdint.h>

#include "concc/map.h"

#define LAST_JOBS 64 /* more than a screen has lines */

struct last_job {
	char *worker, *rule, *why, *program, *what; /* worker "": here */
	uint64_t us;
	uint64_t code;
	bool by_signal;
};

struct usual {
	struct map times;		 /* a program, or the same work -> struct seen */
	struct map speeds;		 /* worker -> struct speed */
	struct last_job last[LAST_JOBS]; /* oldest first */
	unsigned n_last;
};

/* Takes what the record file has; one that can't be read has nothing. */
void usual_read(struct usual *u);
void usual_release(struct usual *u);
/* One more job has ended; takes j. */
void usual_add(struct usual *u, const char *directory, const char *subject, struct last_job *j);
/* Of the same work, else of this program; 0: never seen. */
uint64_t usual_us(const struct usual *u, const char *program, const char *subject,
		  const char *directory);
/* Times as fast as this machine; 0: not known. */
double usual_speed(const struct usual *u, const char *worker);

#endif
