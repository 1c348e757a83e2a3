/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_H
#define CONCC_PROJECT_H

/*
 * The project server, as its main() starts it: one process per runtime
 * directory, which owns the links to all workers and serves files to them.
 */
#include "concc/err.h"

struct conf;

/*
 * Runs until it is stopped (`concc stop`, SIGTERM, idle time-out).  Writes
 * "ready\n" to ready_fd (taken; -1: none) once the first worker is up, or all
 * have been tried.  Returns 0 after a clean stop; otherwise a code, and msg
 * says what failed.  -EEXIST: another one runs already.  Blocks.
 */
int project_run(struct conf *conf, int ready_fd, struct errmsg *msg);

/*
 * Puts this machine's concc-worker on each of the configuration's workers, all
 * at once, and prints a line for each.  Needs no server.  Returns how many
 * could not be served, or a negative code.  Blocks.
 */
int project_push(const struct conf *conf);

#endif
