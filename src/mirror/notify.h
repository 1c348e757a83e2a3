/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_NOTIFY_H
#define CONCC_MIRROR_NOTIFY_H

/*
 * The thread that invalidates kernel caches.  It is the only one: an
 * invalidation waits in the kernel for requests in the same directory, so a
 * thread that is needed to answer those would wait for itself.
 *
 * The queue grows by what the client's messages change, less than they weigh
 * themselves; a job waits for its emptying, so it can't fall behind for long.
 */
#include <stdint.h>

struct inode;
struct mirror;

int notify_start(struct mirror *m);
/* Ends the thread; after the connection is aborted, so that it waits for nothing in the kernel. */
void notify_stop(struct mirror *m);

/* All under mirror.lock.  Nothing is queued about what the kernel does not know. */

/* The name's entry is wrong: look it up again, and let go of what it led to. */
void notify_drop(struct mirror *m, const struct inode *dir, const char *name);
/* The same for a name that was a directory: working directories and mounts inside stay. */
void notify_expire(struct mirror *m, const struct inode *dir, const char *name);
/* Attributes and the cached listing of a directory are wrong. */
void notify_inode(struct mirror *m, const struct inode *dir);

#endif
