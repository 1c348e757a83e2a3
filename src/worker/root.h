/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_ROOT_H
#define CONCC_WORKER_ROOT_H

/*
 * The root that jobs see: the worker's own system read-only, without what
 * belongs to other people (home, /tmp, /run, ...), a /dev of a few nodes, a
 * /proc of the launcher's pid namespace, and the mirrored workspaces' mount
 * points.  Built and owned by the launcher, in a mount namespace of its own.
 *
 * The directories of the client's root that are nothing of a system (/home,
 * /srv, /data...) lead into the mirror, which sees what jobs look up there.
 *
 * Two mounts wait in the root for jobs, which cover them with their private
 * /tmp (so that nothing has to be unmounted per job, which is slow):
 * ROOT_MIRROR, and ROOT_SCRATCH when uppers are on disk.
 */
#include <stddef.h>
#include <sys/types.h>

#include "concc/err.h"

#define ROOT_MIRROR  "/tmp"
#define ROOT_SCRATCH "/var/tmp"

struct root_spot;

struct root {
	struct root_spot *spots; /* the tmpfs in which mount points can be made; owned */
	size_t n;
};

/* What of a worker's directories jobs see beyond its system: a colon-separated list in the
 * agent's environment, read-only for jobs.  For toolchains kept in a home directory. */
#define ROOT_SHOW_ENV "CONCC_WORKER_SHOW"

/* Those paths, cleaned; on the heap. */
char **root_shown(void);
/* Of the names in the client's root, those that jobs see by the mirror; on the heap. */
char **root_mirrored(char *const *top);

/*
 * Moves the caller, pid 1 of its pid namespace, into a new root.  mirror and
 * scratch (NULL: none) are paths in the caller's view up to now; mirror's
 * parent gets covered.  mirrored: names for which to show what MIRROR_OUTSIDE has.
 */
int root_build(struct root *r, const char *mirror, const char *scratch, char *const *mirrored,
	       struct errmsg *msg);

/*
 * Makes path an existing directory for a workspace to be mounted on.  Where the
 * worker has no such directory, its nearest parent is replaced by a tmpfs with
 * the former children bound in, so the worker's own files are never changed.
 */
int root_mountpoint(struct root *r, const char *path, struct errmsg *msg);

#endif
