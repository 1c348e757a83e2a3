/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_ERR_H
#define CONCC_ERR_H

/*
 * One vocabulary of errors for every layer: a fallible function returns 0 (or
 * a count) or a negative code, -errno or one of enum concc_err.  Functions
 * whose failure a person will read also fill a `struct errmsg` with the file,
 * host or value concerned and what to do about it.  From any thread; err_say() alone may block, as
 * standard error does.
 */
#include <stdbool.h>

enum concc_err {
	/* Below -4095, where the kernel's errno range ends. */
	CONCC_E_PROTO = -5001,	  /* the peer broke the protocol */
	CONCC_E_VERSION = -5002,  /* the peer speaks another version */
	CONCC_E_TOOBIG = -5003,	  /* over a named maximum */
	CONCC_E_CONF = -5004,	  /* configuration is wrong; errmsg says where */
	CONCC_E_UNSAFE = -5005,	  /* a path is not ours: symlink, owner, type or mode */
	CONCC_E_CLOSED = -5006,	  /* the peer closed the connection */
	CONCC_E_TIMEOUT = -5007,  /* a deadline passed */
	CONCC_E_AUTH = -5008,	  /* host key or user authentication failed */
	CONCC_E_CONFLICT = -5009, /* a target changed while the job ran */
	CONCC_E_STALE = -5010,	  /* the version asked for exists no more */
	CONCC_E_UNAVAIL = -5011,  /* what is needed is not there (worker, server, feature) */
	CONCC_E_NO_WAY = -5012,	  /* what a job did can't be repeated on the client as it is */
	CONCC_E_SPECIAL = -5013,  /* a fifo, socket or device: it leads elsewhere on each machine */
	CONCC_E_DESCRIPTOR = -5014, /* an open file of the caller's, which only that has */
	CONCC_E_LATER = -5015,	    /* not on this thread: it would take too long */
};

/*
 * What is told of a file by a system call that failed on it?  True when that is so for
 * whoever asks, a compiler included: it is not there, or this user may not.  Anything
 * else is a shortage of ours, or a disk or server that fails, and no fact about the file.
 */
bool err_is_fact(int err);

/* A static string for any code above or any -errno; never NULL. */
const char *err_text(int err);

/* One line for a person, without a newline; empty when nothing failed. */
struct errmsg {
	char text[512];
};

/* Sets the message (truncates silently; what could control a terminal becomes '?') and returns err,
 * for `return errmsg_set(...)`.
 * msg may be NULL. */
int errmsg_set(struct errmsg *msg, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Says "concc: " and that on standard error, as one line, with the same care. */
void err_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
