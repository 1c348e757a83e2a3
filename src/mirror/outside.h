/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_OUTSIDE_H
#define CONCC_MIRROR_OUTSIDE_H

/*
 * MIRROR_OUTSIDE: a second, tiny FUSE file system, mounted on that directory of
 * the first.  It has directories only, which are mount points of jobs' roots, and
 * is writable for the kernel: that alone tells a look at a name from the attempt
 * to make it, since on a read-only one both are the same look-up.  Each attempt to
 * change something is reported, and refused.
 *
 * One thread answers, from memory; so the owner may notify the kernel itself.
 * Never call anything here under mirror.lock.
 */
#include "concc/err.h"

struct mirror;
struct outside;

/* fuse_fd as in mirror_config.  On failure nothing is left. */
int outside_start(struct mirror *m, int fuse_fd, struct outside **ret, struct errmsg *msg);
/* Ends the connection for the kernel, and joins the thread.  NULL is fine. */
void outside_stop(struct outside *o);

/* Makes path (clean) a directory there, with its parents. */
void outside_add(struct outside *o, const char *path);
/* A name in the directory whose absence is no news, "": all in it are news again. */
void outside_absent(struct outside *o, const char *dir, const char *name);

#endif
