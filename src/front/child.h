/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_FRONT_CHILD_H
#define CONCC_FRONT_CHILD_H

/*
 * A child that we wait for while somebody may want us to end.  What a terminal sends, it sends to
 * the child as well; what was sent to us alone is handed on to the child and all that it has
 * started.  Either way we wait, since there is something to put away after it.  One at a time, and
 * one thread.
 */
#include "concc/process.h"

/* From now on no signal that asks us to end does so: they are kept, for child_signal(). */
void child_catch_signals(void);

/* 0 with its status as from waitpid(2), or a negative code when it could not be started.  Blocks.
 */
int child_run(const struct process *p, int *ret_status);
/* The same for a function that runs in a copy of this process and returns its exit status. */
int child_call(int (*fn)(void *data), void *data, int *ret_status);

/*
 * How we are to end ourselves after a child that ended so: by a signal, or 0.  Who sent SIGTERM or
 * SIGHUP wants it; of SIGINT and SIGQUIT the child decides by its own end, as shells do it: an
 * editor survives ^C, and a loop of commands ends.
 */
int child_signal(int status);

/* Ends this process by the signal, without a core file. */
void child_die_by(int signo);

#endif
