/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_PUSH_H
#define CONCC_LINK_PUSH_H

/*
 * concc-worker put on a host that a stream leads to, and started there.
 *
 * What the host runs is a POSIX sh script, the same for every transport: it
 * starts the file it has, if that is the client's own byte for byte, or asks
 * for it.  The bytes are sent when asked for and never before, since what is
 * sent to a worker that has the file would get into its link.  Nothing but
 * the file, its hash and size goes there.
 *
 * The thread of the loop owns a push.  Nothing here blocks.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/digest.h"
#include "concc/err.h"
#include "concc/link.h"

struct loop;
struct stream;

/* A concc-worker of this machine, open. */
struct worker_file {
	int fd;
	uint64_t size;
	char hex[DIGEST_HEX];
};

/* Reads and hashes the file: some milliseconds, and any thread may. */
int worker_file_open(const char *path, struct worker_file **ret, struct errmsg *msg);
/* 0, or -ENOEXEC when it needs libraries that another host may not have. */
int worker_file_check(const struct worker_file *f, const char *path, struct errmsg *msg);
void worker_file_free(struct worker_file *f); /* NULL is fine */

/*
 * The command for the user's login shell, whichever that is.  INSTALL_NO starts
 * what was pushed if it is f, else the concc-worker in PATH; f may be NULL then.
 */
char *push_command(enum install install, const struct worker_file *f);

struct push;

/* Once, from the loop: the stream, at the worker's first byte (or, with
 * INSTALL_ONLY, at its end), is the callee's; or NULL, a code and a text.  how:
 * what was done, and where.  Borrowed for the call. */
typedef void (*push_fn)(void *data, struct stream *s, int err, const char *text, const char *how);

/* Takes the stream, whose far end runs push_command(); f is borrowed.  silence_ms
 * without an answer ends it; once the file moves, a minute in which it does not. */
struct push *push_new(struct loop *l, struct stream *s, const struct worker_file *f,
		      uint32_t silence_ms, push_fn fn, void *data);
void push_free(struct push *p); /* fn will not be called; NULL is fine */

#endif
