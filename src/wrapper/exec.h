/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_EXEC_H
#define CONCC_WRAPPER_EXEC_H

/* Running the command on this machine. */
#include <stdbool.h>

struct output;
struct pool;
struct pool_slot;

struct exec_call {
	const char *path; /* for execve(2); NULL: could not be resolved, execvp says why */
	char *const *argv;
	struct output *out; /* with what an earlier attempt has shown */
	int stdin_fd;	    /* what the command must read instead of 0, or -1 */
};

/* Becomes the command; returns only when that fails, with the exit status a shell would give. */
int exec_become(const struct exec_call *h);
/*
 * The same, with nothing shown twice: as a child, whose output passes through us, where something
 * was shown that can't be taken back.  Of a stream that takes no more, the command is told as soon
 * as it has said that again (SIGPIPE, EPIPE); one that ended before it could be does not end well.
 */
int exec_child(const struct exec_call *h);
/*
 * Waits until fewer commands run here as fall-backs than there are cores: a lost
 * farm must not start 200 compilers on a laptop.  The slot stays held across exec.
 * Goes on without one when the pool can't be used.
 */
void exec_take_slot(const char *runtime_dir);
/* Keeps a slot's lock across exec, for jobs that are ours to run. */
void exec_keep_slot(struct pool_slot *s);
/* Ends this process as the command ended: status, or the same signal. */
int exec_die_by(int signo);

#endif
