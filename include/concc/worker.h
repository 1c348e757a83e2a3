/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_H
#define CONCC_WORKER_H

/* The worker's agent, as its main() starts it: one process per link. */
#include <stdint.h>

#include "concc/err.h"

/*
 * Speaks to one client over the two fds (taken) until the link ends, and leaves
 * no process, mount or temporary file behind.  The caller must be single-threaded:
 * it is moved into namespaces.  Blocks.  Returns 0 when the client said good-bye
 * or closed the link, else a code, and msg says what failed (the client was told).
 */
int agent_run(int read_fd, int write_fd, struct errmsg *msg);

enum worker_format { WORKER_TEXT, WORKER_JSON, WORKER_PROMETHEUS };

/* Prints what goes on on this host: slots, the jobs of each client, stores.  The exit status. */
int worker_status(enum worker_format format);
/* Removes what was used least from this user's store, until it has no more than so many bytes (0:
 * all).  Agents that run fetch it again when they need it.  The exit status. */
int worker_prune(uint64_t max_bytes);

#endif
