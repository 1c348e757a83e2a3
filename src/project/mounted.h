/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_MOUNTED_H
#define CONCC_PROJECT_MOUNTED_H

/*
 * Which directories this machine's system has, and what is mounted on them.  Jobs of a worker here
 * with root = worker see that as it was when the worker started, in a mount namespace of its own;
 * once it has changed, what they do is not what the command does here.  So it is with trees of
 * tools that they are shown as they are (shown.h).
 */
#include <stdbool.h>

struct peer;

/* Before the worker is started: it will see no less than this. */
void mounted_note(struct peer *p);
/* Is that still so?  Always, where the worker's system is another one or is told of as files are.
 * Two system calls, two more for each tree of tools, and a read of mountinfo when any mount has
 * changed, or the root directory. */
bool mounted_is_as_noted(struct peer *p);

#endif
