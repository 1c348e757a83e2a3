/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_SPAWN_H
#define CONCC_LINK_SPAWN_H

/*
 * The processes a transport starts: each leads a session of its own, so that
 * the terminal's signals stay away from it and its whole group can be ended;
 * has default signals, no fd but 0, 1 and 2, and the environment of ours.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/buf.h"
#include "concc/err.h"

struct loop;
struct stream;

/*
 * Starts argv[0] (looked up in PATH unless it has a slash) as the far end of a
 * stream.  sockets: its stdin and stdout are one socket, for programs of ours;
 * otherwise two pipes.  Its stderr is read by the loop, kept for explain() and
 * logged at debug with name.  Freeing the stream closes its stdin and ends its
 * group: at once, or patient after some seconds in which the end of its input may
 * do that.  The loop reaps it.
 */
int spawn_stream(struct loop *l, char *const *argv, bool sockets, bool patient, const char *name,
		 struct stream **ret, struct errmsg *msg);

/*
 * Runs argv to its end and keeps what it printed, stderr included, up to max
 * bytes.  For threads that may block: gives up at deadline_ms (of now_ms()) or
 * when cancel_fd becomes readable, and kills it.  0 when it exited (ret_status
 * as from waitpid), or a negative code.
 */
int spawn_capture(char *const *argv, size_t max, uint64_t deadline_ms, int cancel_fd,
		  struct buf *out, int *ret_status);

/* "exit status 127", "killed by signal 9 (Killed)". */
void put_status(struct buf *b, int status);

#endif
