/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_OUTSIDE_H
#define CONCC_MIRROR_OUTSIDE_H

/*
 * MIRROR_OUTSIDE: a second, tiny FUSE file system, mounted on that directory of
 * the first.  It has directories, which are mount points of jobs' roots, and links that lead there,
 * and is writable for the kernel: that alone tells a look at a name from the attempt to make it,
 * since on a read-only one both are the same look-up.  Each attempt to change something is
 * reported, and refused.  Its only files are MIRROR_STAND_IN and MIRROR_TERMINAL: see stand_in.h.
 *
 * One thread answers, from memory; so the owner may notify the kernel itself.
 * Never call anything here under mirror.lock.
 */
#include <stdbool.h>
#include <stdint.h>

#include "concc/err.h"

struct mirror;
struct msg_bare;
struct outside;

/* fuse_fd as in mirror_config.  On failure nothing is left. */
int outside_start(struct mirror *m, int fuse_fd, struct outside **ret, struct errmsg *msg);
/* Ends the connection for the kernel, and joins the thread.  NULL is fine. */
void outside_stop(struct outside *o);

struct mirror *outside_mirror(const struct outside *o);
/* Is that MIRROR_TERMINAL?  node: by which the kernel calls a place. */
bool outside_is_terminal(const struct outside *o, uint64_t node);

/* Makes path (clean) a directory there, with its parents.  kept: it may be a mount point, so that
 * it stays one. */
void outside_add(struct outside *o, const char *path, bool kept);
/*
 * Makes path, not in the root, a symbolic link; a target of "": it is none any more.  -EISDIR:
 * there is a directory by now, -ENOTDIR: its parent is behind a link, CONCC_E_TOOBIG: too many.
 */
int outside_link(struct outside *o, const char *path, const char *target);
/* Makes b->path a directory that looks like the client's, or takes that back.  CONCC_E_TOOBIG: too
 * many.  Where a link is, or leads there, nothing happens. */
int outside_bare(struct outside *o, const struct msg_bare *b);
/* A name in the directory whose absence is no news, "": all in it are news again. */
void outside_absent(struct outside *o, const char *dir, const char *name);

#endif
