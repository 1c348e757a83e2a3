/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_MOUNTPOINT_H
#define CONCC_SANDBOX_MOUNTPOINT_H

/*
 * Directories of the jobs' root to mount something on, where the worker has none: made in a tmpfs
 * of the root's, or in one that then covers the nearest directory that is there and shows its
 * children.  The worker's own files are never changed.
 */
#include "root.h"

/*
 * Makes path an existing directory for a workspace to be mounted on.  Where the
 * worker has no such directory, its nearest parent is replaced by a tmpfs with
 * the former children bound in, so the worker's own files are never changed.
 */
int root_mountpoint(struct root *r, const char *path, struct errmsg *msg);

/* A tmpfs of the root in which they can be made: it is mounted at path (without symlinks), and fd
 * is a writable clone of that mount.  Takes fd, unless it fails. */
int root_add_tmpfs(struct root *r, const char *path, int fd);

#endif
