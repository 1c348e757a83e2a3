/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_DOCTOR_H
#define CONCC_DOCTOR_H

/*
 * `concc doctor`: what can keep builds from being distributed, in the order in which it would bite,
 * and what to do about each.  Looks at this machine, connects to workers as a project server does,
 * and compiles something there.  Every wait has an end.
 */
#include <stdbool.h>

struct doctor_options {
	const char *config;  /* the configuration's file, NULL: as usual */
	const char *workers; /* a worker list instead of the configured ones, or NULL */
	bool json;
	bool brief; /* one line, of what can be told without connecting */
};

/*
 * Prints each check on standard output as it is done, and at the end whether builds will be
 * distributed.  0: they will; 1: they won't.  Blocks, for a minute and a half for each worker at
 * the most.
 */
int doctor_run(const struct doctor_options *o);

#endif
