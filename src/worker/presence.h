/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_PRESENCE_H
#define CONCC_WORKER_PRESENCE_H

/*
 * What an agent tells of itself to whoever asks on its host: `concc-worker --status`.  By a name of
 * the kernel's (an abstract socket), as slots are: so nothing is left of one that ends, and a job
 * costs nothing for it.  Names belong to the network namespace, and jobs have their own.
 */
#define PRESENCE_PREFIX "concc/1/agent/"

struct agent;
struct presence;

/* Before any namespace is entered.  NULL when there can be none, which is no failure. */
struct presence *presence_new(struct agent *a);
void presence_free(struct presence *p); /* NULL is fine */

#endif
