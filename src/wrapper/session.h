/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_SESSION_H
#define CONCC_WRAPPER_SESSION_H

/* One job at the project server: from RUN to its end. */
#include <stdbool.h>
#include <stdint.h>

#include "concc/buf.h"
#include "concc/proto.h"

/*
 * Standard input on its way to a job.  What was read from it is kept, so that
 * the job can be run again elsewhere: nobody can give it back to a pipe.
 */
struct input {
	bool wanted; /* this job reads it */
	bool eof;
	int spool_fd;	  /* a memfd with all that was read, -1 before the first byte */
	uint64_t spooled; /* bytes in it */
};

#define INPUT_INIT ((struct input){.spool_fd = -1})

/* Reads what is left, and returns an fd at the start of all of it; or -errno.  Blocks. */
int input_replay_fd(struct input *in);

struct session_end {
	bool failed;
	struct msg_run_fail fail; /* when failed; the caller releases it */
	uint8_t how;
	uint32_t code;
};

/*
 * Sends the RUN message, relays until the end.  shown counts the bytes of stdout
 * and stderr relayed, on any outcome.  A negative code when the server was lost.
 */
int session_run(const char *dir, const struct buf *run, struct input *in, uint64_t shown[2],
		struct session_end *ret);

#endif
