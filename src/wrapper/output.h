/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_OUTPUT_H
#define CONCC_WRAPPER_OUTPUT_H

/*
 * The caller's standard output and error, and what of a job went out there.
 *
 * An error of a descriptor belongs to the command: a full disk, a reader that is
 * gone, one that was closed from the start.  A job elsewhere can't be told, so it is
 * ended and runs here, with the descriptor itself, where it meets the error.  What
 * went out before is taken back from a file; from a pipe nobody can, so there the
 * command's output passes through us until it has said all of that again.
 *
 * Stream 0 is stdout (and stderr, where both are one file), 1 is stderr.
 */
#include <stdbool.h>
#include <sys/types.h>

#include "shown.h"

struct outlet {
	int err;	 /* -errno since it takes no more; 0 before */
	off_t start;	 /* where in a file the first byte went; -1: in no file, or not yet known */
	uint64_t n_gone; /* bytes it took */
};

struct output {
	struct shown shown;
	bool merged; /* both are one file */
	struct outlet outlets[2];
};

void output_init(struct output *o);

/*
 * More of a stream: what an earlier attempt has shown is left out, the rest is written.  Waits for
 * as long as nobody takes it, also where the descriptor would not.  0, or -errno of a descriptor
 * that takes no more; what it took before counts as shown.
 */
int output_show(struct output *o, unsigned stream, struct blob bytes);
/* True once writing has failed and all that went out before has been said again. */
bool output_is_over(const struct output *o, unsigned stream);

bool output_has_shown(const struct output *o, unsigned stream);
/*
 * After an error: makes it as if nothing of the stream had been shown.  False where that can't be:
 * it is no file, or something else was written there since.
 */
bool output_take_back(struct output *o, unsigned stream);

/* "standard output", "standard error" */
const char *output_name(unsigned stream);

/*
 * All of it to a descriptor of the caller's, waiting as above.  *ret_n: how much it took.  0 or
 * -errno; no signal that the error raises (SIGPIPE, SIGXFSZ) reaches this process, whose mask is as
 * before.
 */
int output_write(int fd, const void *p, size_t n, size_t *ret_n);

#endif
