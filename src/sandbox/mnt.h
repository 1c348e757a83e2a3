/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_MNT_H
#define CONCC_SANDBOX_MNT_H

/*
 * Mounts, as the private root and the jobs need them.  Each function returns 0
 * or -errno.  Nothing here is for more than the caller's own mount namespace.
 */
#include <stdbool.h>

/* A bind of the file or directory that dirfd and name lead to (name "": dirfd itself), with what
 * is mounted beneath it when recursive, onto target.  A last symlink is not followed. */
int mnt_bind_at(int dirfd, const char *name, bool recursive, int target_dirfd, const char *target);
int mnt_bind(const char *source, const char *target);

/* An fd to a detached, non-recursive clone of the mount at fd: writable after the mount itself is
 * made read-only, and seen by nobody else.  -errno on failure. */
int mnt_clone(int fd);

/* path and all that is mounted beneath it: read-only, nosuid, out of propagation. */
int mnt_seal(const char *path);
/* The same for kernels before 5.12, one mount after the other; needs /proc. */
int mnt_seal_each(const char *path);

/* The one mount at fd. */
int mnt_set_readonly(int fd, bool on);

/* Shows one name of the directory from_fd in the tmpfs to_fd: a symlink as itself, others bound. */
int mnt_show(int from_fd, const char *name, int to_fd);

/* mkdir -p beneath base; path is relative.  0 or -errno. */
int mnt_make_dirs(int base, const char *path);

/* Marks a directory that is there to be mounted on: see sandbox_is_mountpoint(). */
void mnt_mark(const char *path);

#endif
