/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_JOB_POLICY_H
#define CONCC_JOB_POLICY_H

/* What the rules of policy.c share with those that are elsewhere (policy_paths.c, policy_link.c).
 */
#include "command.h"
#include "concc/job.h"

struct policy_call {
	const struct policy_input *in;
	struct policy_verdict *ret;
	enum tool tool;
	char *const *args;   /* those of the tool itself */
	char *const *all;    /* the same with what is in @files */
	const char *unknown; /* an argument, when that can't be told; else NULL */
	char *tmpdir;	     /* $TMPDIR, clean; NULL when it can't matter */
};

/* True, and the verdict says that it is for the sake of this. */
bool policy_because(struct policy_call *c, const char *what);

/* A variable of ours: neither empty nor "0"?  value may be NULL. */
bool policy_is_set(const char *value);

/* Rules: does it apply, and why. */
bool policy_tmp_output(struct policy_call *c);
bool policy_descriptor(struct policy_call *c);
bool policy_link(struct policy_call *c);

#endif
