/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_JOB_PRELOAD_H
#define CONCC_JOB_PRELOAD_H

/*
 * LD_PRELOAD.  A few libraries are about the client's session and change
 * nothing in what a compiler writes: they stay behind.  Any other may change
 * everything (libfaketime: __DATE__), and may not exist on a worker.
 */

/* LD_PRELOAD's value without the libraries that stay behind; NULL when none is left. */
char *preload_rest(const char *value);

#endif
