/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_ROOT_H
#define CONCC_SANDBOX_ROOT_H

/*
 * The root that jobs see, built and owned by the launcher in a mount namespace
 * of its own.  It has a /dev of a few nodes, a /proc of the launcher's pid
 * namespace, the mirrored workspaces' mount points, and read-only either
 *
 *  - the worker's own system, without what belongs to other people (home, /tmp,
 *    /run, ...).  The directories of the client's root that are nothing of a
 *    system (/home, /srv, /data...) lead into the mirror, which sees what jobs
 *    look up there; or
 *  - the client's trees as the mirror has them, and nothing of the worker's.  All
 *    other directories of the client's root lead into that part of the mirror.
 *
 * Two mounts wait in the root for jobs, which cover them with their private
 * /tmp (so that nothing has to be unmounted per job, which is slow):
 * ROOT_MIRROR, and ROOT_SCRATCH when uppers are on disk.  MIRROR_TMP, which is
 * below each job's /tmp, is there as well, or in there on ROOT_LOWER.  On the mirror
 * is MIRROR_OUTSIDE, as in the agent's view.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "concc/err.h"

#define ROOT_MIRROR  "/tmp"
#define ROOT_OUTSIDE ROOT_MIRROR "/" MIRROR_OUTSIDE
#define ROOT_SCRATCH "/var/tmp"
#define ROOT_LOWER   ROOT_SCRATCH "/lower"

struct root_tmpfs;

struct root {
	struct root_tmpfs *tmpfs; /* the tmpfs in which mount points can be made; owned */
	size_t n;
};

/* What of a worker's directories jobs see beyond its system: a colon-separated list in the
 * agent's environment, read-only for jobs.  For toolchains kept in a home directory. */
#define ROOT_SHOW_ENV "CONCC_WORKER_SHOW"

struct root_config {
	const char *mirror, *scratch; /* paths in the caller's view; scratch NULL: none */
	char *const *mirrored;	      /* names for which to show what MIRROR_OUTSIDE has */
	bool client;		      /* the client's system instead of the worker's */
	char *const *links;	      /* of the client's root directory */
};

/* Is it in a directory of a system that jobs may see of a worker, other than /etc? */
bool root_is_system_path(const char *path);

/* Moves the caller, pid 1 of its pid namespace, into a new root.  The mirror's parent gets
 * covered. */
int root_build(struct root *r, const struct root_config *c, struct errmsg *msg);

/*
 * Shows jobs a tree of the client's, which the mirror serves.  May wait for the
 * link, so only while the agent's loop runs.
 */
int root_show_tree(struct root *r, const char *path, struct errmsg *msg);

#endif
