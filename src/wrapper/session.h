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

/*
 * An fd at the start of all of it, or -errno.  What has not come yet is passed on by a process of
 * its own, which ends with the input or with its reader: a command need not read to the end.
 */
int input_replay_fd(struct input *in);

struct session_end {
	bool failed;
	struct msg_run_fail fail; /* when failed; the caller releases it */
	uint8_t how;		  /* of RUN_EXIT, else */
	uint32_t code;
	char *worker; /* which did it; the caller's */
};

struct conn;
struct shown;

/*
 * Tells the server that this command waits for a slot, so that `concc status` can
 * say so until the connection ends or brings the job.  Nothing depends on it:
 * when it fails, c is closed.
 */
void session_wait(const char *dir, struct conn *c, char *const *argv);

/*
 * Sends the RUN message, over c when that is open; relays until the end, and
 * closes c.  shown: what is relayed, on any outcome.
 * A negative code when the server was lost.
 */
int session_run(const char *dir, struct conn *c, const struct buf *run, struct input *in,
		struct shown *shown, struct session_end *ret);

#endif
