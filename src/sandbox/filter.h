/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_FILTER_H
#define CONCC_SANDBOX_FILTER_H

/*
 * The system calls of a job that are not simply let through, by a seccomp filter: a table in
 * filter.c has their numbers, what is tested of their arguments, and what becomes of them.  A call
 * that is in no row costs nothing: since Linux 5.11 the kernel knows so by its number.
 *
 * TELL is for those that can't have the effect here that they have on the client: somebody else's
 * files, device nodes, mounts.  The process waits while a listener reads of it
 * (seccomp_unotify(2)); the job is ended then, and runs at home.  Calls that fail here as they
 * would there are none of these.  ASK is for those where it depends on more than the arguments: on
 * what a path leads to, say. The listener looks, and it is TELL, or the call goes on.
 *
 * With `traces`, calls that name files are told of as well, and go on: the listener is to read them
 * with filter_traced().
 *
 * Only calls of the machine's own kind are looked at: those of 32-bit programs have other numbers,
 * and pass, but those by which one could get around wall.h.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct filter_config {
	uid_t uid; /* of the client's user */
	gid_t gid;
	bool becomes; /* jobs are given these by calls of ours that the filter sees */
	bool seeks;   /* who seeks in its input is told of, which was a file */
	bool reads;   /* the same of who reads it, which is a terminal */
	bool traces;  /* what trace.h wants to know is told, too */
};

struct filter;

/* -ENOTSUP on an architecture that filter.c does not know.  Fails for no other reason. */
int filter_new(const struct filter_config *c, struct filter **ret);
void filter_free(struct filter *f); /* NULL is fine */

/*
 * From now on for the calling thread and all it starts, for good; it must have no_new_privs.
 * Returns the listener, close-on-exec: readable when there is somebody to be told of, a hang-up
 * when no process of the filter is left.  -errno where the kernel (before 5.0) or a container
 * refuses, or has a listener already; then nothing is told of.
 */
int filter_install(const struct filter *f);

/* What a process wants that waits.  Ids are those of the reader's namespace. */
struct filter_call {
	pid_t pid; /* of the thread */
	int nr;
	uint64_t args[6];
};

/* Can't it have the effect that it has on the client? */
typedef bool filter_ask_fn(const void *data, const struct filter_call *c);

/*
 * What the process that waits wants to do, for a person (static); NULL: it has gone, or goes on.
 * Does not block when the listener was readable, but for what ask() does.
 */
const char *filter_notified(int listener, filter_ask_fn *ask, const void *data);

/* Who waits and who answers take turns on one core, where the kernel can (since 6.6). */
void filter_take_turns(int listener);

/* An extended attribute of this size may be set: so large is an access list that says no more than
 * the mode, as cp -p sets it on each file. */
#define FILTER_ATTR_SIZE 28

/* The third argument of a kill(2), or fifth of an fgetxattr(2), that is not the job's: the kernel
 * does not look at it. */
#define FILTER_OURS 0x636f6e63
/* kill(2) and fgetxattr(2), by who is under the filter and listens itself. */
int filter_kill(pid_t pid, int signo);
ssize_t filter_fgetxattr(int fd, const char *name, void *value, size_t size);

struct trace;
/* The same of a filter that traces: each call is given to t, and goes on unless it can't. */
const char *filter_traced(const struct filter *f, int listener, filter_ask_fn *ask,
			  const void *data, struct trace *t);

#endif
