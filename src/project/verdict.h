/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_VERDICT_H
#define CONCC_PROJECT_VERDICT_H

/*
 * A job's end, as its worker tells it: the command's, for its caller; or a reason of ours to run it
 * here or elsewhere.  Decided from the message and these facts alone.
 */
#include "run.h"

struct verdict_facts {
	const char *worker;
	bool has_agent;	     /* of ours there; else ssh and sshfs */
	bool dumps_core;     /* its caller's limit lets processes leave core files */
	const char *missing; /* why its failure would be ours, or NULL */
};

/* True when it is the command's own end; or false, and why not. */
bool verdict_is_its_own(const struct verdict_facts *f, const struct msg_exit *m,
			struct run_failure *ret);

#endif
