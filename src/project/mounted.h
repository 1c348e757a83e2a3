/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_MOUNTED_H
#define CONCC_PROJECT_MOUNTED_H

/*
 * What is mounted on this machine's system.  Jobs of a worker here with root = worker see it as it
 * was when that worker started, in a mount namespace of its own; once it has changed, what they do
 * is not what the command does here.
 */
#include <stdbool.h>

struct peer;

/* Before the worker is started: it will see no less than this. */
void mounted_note(struct peer *p);
/* Is that still so?  Always, where the worker's system is another one or is told of as files are.
 * A call of poll(2), and a read of mountinfo when any mount has changed. */
bool mounted_is_as_noted(struct peer *p);

#endif
