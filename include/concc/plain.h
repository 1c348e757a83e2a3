/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PLAIN_H
#define CONCC_PLAIN_H

/*
 * A worker without concc: to the project server it is a worker like any other
 * (the same messages on the same kind of stream), but it runs on the client and
 * does each job by ssh, as a script, on a machine that has nothing but sshd.
 * That machine sees the client's files through stock sshfs, whose SFTP server
 * runs here, or has them at the same path already.
 */
#include <stdbool.h>
#include <stdint.h>

#include "concc/err.h"

struct plain_config {
	const char *host; /* as ssh takes it */
	const char *user; /* NULL: ssh's own choice */
	uint32_t port;	  /* 0: ssh's own choice */
	uint32_t slots;	  /* jobs at once; 0: as many as it has cores */
	bool sshfs;	  /* false: the paths are there already */
};

/*
 * Speaks to one client over the two fds (taken) until the link or the
 * connection ends; nothing of it is left here then.  Single-threaded.  Blocks.
 */
int plain_run(const struct plain_config *c, int read_fd, int write_fd, struct errmsg *msg);

#endif
