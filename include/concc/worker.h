/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_H
#define CONCC_WORKER_H

/* The worker's agent, as its main() starts it: one process per link. */
#include "concc/err.h"

/*
 * Speaks to one client over the two fds (taken) until the link ends, and leaves
 * no process, mount or temporary file behind.  The caller must be single-threaded:
 * it is moved into namespaces.  Blocks.  Returns 0 when the client said good-bye
 * or closed the link, else a code, and msg says what failed (the client was told).
 */
int agent_run(int read_fd, int write_fd, struct errmsg *msg);

#endif
