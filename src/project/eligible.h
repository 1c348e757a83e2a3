/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_ELIGIBLE_H
#define CONCC_PROJECT_ELIGIBLE_H

/*
 * May this call be a job of that worker?  Asked when a slot is taken, so of what only the server
 * knows: the rest is the wrapper's policy (concc/job.h).
 */
#include "run.h"

struct call {
	struct client *client;
	struct peer *peer;
	const struct msg_run *m;
	const struct exe *fresh; /* its program, which was just looked at for it; or NULL */
	/* What the checks found out, for the job; owned. */
	char **workspaces;
	char *unserved;	 /* a path that the call needs and no job would see, or NULL */
	struct exe *exe; /* of the server's table */
	bool later;	 /* its program must be looked at first: see exe_wait() */
};

/* True; or false, and `later` or why not, for the wrapper.  In any case call_release(). */
bool call_is_eligible(struct call *c, struct run_failure *ret);
void call_release(struct call *c);

/* Do jobs of the peer find path by symbolic links that it was told of, or is now? */
bool run_leads_there(struct peer *p, const char *path);

#endif
