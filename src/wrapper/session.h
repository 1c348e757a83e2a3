/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_SESSION_H
#define CONCC_WRAPPER_SESSION_H

/* One job at the project server: from RUN to its end. */
#include <stdbool.h>
#include <stdint.h>

#include "concc/buf.h"
#include "concc/proto.h"

enum session_what {
	SESSION_EXIT,	/* how, code, worker */
	SESSION_FAIL,	/* fail */
	SESSION_INPUT,	/* the caller's input can't be read or kept (input->err): the job was ended
			 */
	SESSION_OUTPUT, /* one of his outputs takes no more (output->outlets[].err): the same */
};

struct session_end {
	enum session_what what;
	struct msg_run_fail fail; /* the caller releases it */
	uint8_t how;		  /* of RUN_EXIT */
	uint32_t code;
	char *worker; /* which did it; the caller's */
};

struct conn;
struct input;
struct output;

/*
 * Tells the server that this command waits for a slot, so that `concc status` can
 * say so until the connection ends or brings the job.  Nothing depends on it:
 * when it fails, c is closed.
 */
void session_wait(const char *dir, struct conn *c, char *const *argv);

/*
 * Sends the RUN message, over c when that is open; relays until the end, and
 * closes c.  The job's files are in place with SESSION_EXIT; with all else but a
 * lost server there is nothing of it any more, nor will be.  A negative code when the server was
 * lost.  After a look-up that found nothing (RUN_FAIL_MISS) c is open, for the job itself.
 */
int session_run(const char *dir, struct conn *c, const struct buf *run, struct input *in,
		struct output *out, struct session_end *ret);

#endif
