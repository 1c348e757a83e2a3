/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_OVERLAY_H
#define CONCC_SANDBOX_OVERLAY_H

/*
 * How this kernel lets us stack an overlay: which file system can hold uppers,
 * and with which extended attributes.  An overlay marks replaced directories
 * with one; as an unprivileged user that takes user.* attributes, which tmpfs
 * has only since Linux 6.6.
 */
#include "concc/err.h"

enum upper_kind {
	UPPER_TMPFS_USER,    /* tmpfs and user.overlay.* */
	UPPER_TMPFS_TRUSTED, /* tmpfs and trusted.overlay.*: needs the real CAP_SYS_ADMIN */
	UPPER_DISK_USER,     /* a directory on disk and user.overlay.* */
};

/* Jobs' tmpfs: upper layers and /tmp.  "size=" option of each, as tmpfs(5) takes it. */
#define OVERLAY_SIZE_ENV "CONCC_WORKER_TMPFS_SIZE"
/* "disk" in the agent's environment keeps uppers out of memory also where tmpfs would do. */
#define OVERLAY_UPPER_ENV "CONCC_WORKER_UPPER"

/* Paths must be without commas, colons and backslashes. */
int overlay_mount(enum upper_kind kind, const char *lower, const char *upper, const char *work,
		  const char *target);
int overlay_tmpfs_mount(const char *target);
/*
 * The kernel takes half of the machine's memory for the size of a tmpfs.  Where control groups
 * allow less (a container's limit), half of that is taken from here on, unless our user has said a
 * size: who writes more is told that the disk is full, and not killed.
 */
void overlay_bound_tmpfs(void);

/*
 * Tries kind for real, in a process and a mount namespace of its own: removes a
 * directory of the lower layer and makes it again, which needs all that jobs
 * need.  dir is an existing directory, covered in that namespace; disk is an
 * empty one on disk, only for UPPER_DISK_USER.  0 or -errno.
 */
int overlay_probe(enum upper_kind kind, const char *dir, const char *disk);

#endif
