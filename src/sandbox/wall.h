/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_WALL_H
#define CONCC_SANDBOX_WALL_H

/*
 * What of the kernel jobs have no business with, refused by a seccomp filter as container engines
 * do by default: io_uring, bpf, userfaultfd, perf events, keys, modules, families of sockets that a
 * network namespace does not hold.  Unlike the calls of filter.h these fail, in the way that
 * programs which look for them expect, and nobody is told.  A 32-bit program meets the same, by its
 * own numbers (x86, arm); calls of a third kind (x32) don't exist.
 */
#include <stdbool.h>

/*
 * client_root: of what only root may do, filter.h tells.
 *
 * From now on for the calling thread and all it starts, for good; it must have no_new_privs.
 * -ENOTSUP for a machine that wall.c does not know, -errno where the kernel or a container refuses.
 */
int wall_install(bool client_root);
/* The same for what filter.h would tell of, for a job of which nothing can be told. */
int wall_install_untold(bool client_root);

#endif
