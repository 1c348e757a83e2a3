/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_TRACE_H
#define CONCC_SANDBOX_TRACE_H

/*
 * What a job looks at: every name that one of its processes passes to the kernel, told by a filter
 * of system calls that lets each go on.  Not what the name meant, nor whether the call succeeded:
 * that can be worked out afterwards, by who knows what was there.
 *
 * Whatever can look at files in another way (handles, other namespaces, sockets, another's
 * descriptors) makes the trace void, with a reason.
 */
#include "filter.h"

struct trace;

struct trace *trace_new(void);
/* The process waits in this call; what it names is remembered. */
void trace_call(struct trace *t, const struct filter_call *c);
/* It is of no use, and why: a word.  The first counts. */
void trace_spoil(struct trace *t, const char *why);
/* A new descriptor, of a file that holds "why" ("" when it is whole) and then all names as in
 * JOB_TRACE, each ended by NUL.  Or -errno. */
int trace_finish(const struct trace *t);

#endif
