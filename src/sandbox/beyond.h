/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_BEYOND_H
#define CONCC_SANDBOX_BEYOND_H

/*
 * The calls of filter.h's ASK: whether one can have its effect here is told by what is behind its
 * arguments.  Names of files are in moves.h; input and network are here.
 *
 * Input: the client's is a file and the job's a pipe, in which one can't seek.  What a program does
 * then is its own affair, and where it gives back what it has read too much (head(1), and each
 * program at its end), who reads after it would find less.  To ask for the position does no harm.
 *
 * A terminal has nobody there who types: so nobody may wait for that.
 *
 * Network: a job has its own, with a loopback interface.  What it connects to there is of the job
 * when somebody listens, and else of the client.
 *
 * Signals: of the client's processes a job sees none, and their numbers are not those of its own.
 * What it has started, also what has ended since, is told by the number.  Its parent is the init
 * here, which is there as the caller is, but takes no signal for it.
 */
#include <stdbool.h>
#include <sys/stat.h>

#include "filter.h"
#include "moves.h"

struct beyond {
	struct moves moves;
	const struct stat *input; /* the job's standard input, ... */
	bool seeks, reads;	  /* ... and what may not be done with it: see launch */
	pid_t first;		  /* the job's first process, as its own namespace counts */
};

/* A filter_ask_fn; beyond: struct beyond. */
bool beyond_ask(const void *beyond, const struct filter_call *c);

#endif
