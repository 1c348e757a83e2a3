/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_ANNOUNCE_H
#define CONCC_WORKER_ANNOUNCE_H

/*
 * Artifacts that a program announces: it prints that a file is there while it goes on, and
 * whoever reads that may use the file at once.  cargo starts the next crate so.  Such a
 * file, and nothing else, goes home before its job's end: before that line is relayed.
 *
 * Who prints what is a table in announce.c.  Reads output only; one thread.
 */
#include <stddef.h>
#include <stdint.h>

struct announcements;

/* NULL when the command announces nothing. */
struct announcements *announcements_new(char *const *argv);
void announcements_free(struct announcements *a);

/*
 * More output, of stream 1 or 2.  Calls fn for each file that is announced by a line which ends
 * in it: with the path as it was printed, borrowed for the call.
 */
void announcements_read(struct announcements *a, uint8_t stream, const char *p, size_t n,
			void (*fn)(void *data, const char *path), void *data);

#endif
