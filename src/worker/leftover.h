/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_LEFTOVER_H
#define CONCC_WORKER_LEFTOVER_H

#include <stdbool.h>
#include <stddef.h>

/* Is this, relative to /tmp, what no other program needs, so that none looks for it either? */
bool leftover_stays(const char *path);

/*
 * 1 when the job left anything of consequence in its private /tmp, and the path of one such
 * thing in name; 0 when not; or -errno.  All other writes end up in an upper or
 * fail with EROFS, so this and the uppers are all that a job can have done.  -1: it
 * had none.  Any thread.
 */
int leftover_in_tmp(int tmp_fd, char *name, size_t n);
/* The same when it takes some milliseconds only; else CONCC_E_LATER. */
int leftover_in_tmp_few(int tmp_fd, char *name, size_t n);

#endif
