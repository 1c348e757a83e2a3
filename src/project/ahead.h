/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_AHEAD_H
#define CONCC_PROJECT_AHEAD_H

/*
 * What a worker that is far will want, told before it asks: each question takes a round trip, and a
 * job asks one after the other.  Two kinds: directories on the way to what a job names, which it
 * looks into for certain; and of files that are asked for those that they name (mentions.h,
 * elf_file.h), which are guesses, and the worker's to take (GUESS).  Where compilers and loaders look
 * for them is learnt: a name that is asked for below a directory, after a file named it, is looked
 * for there, as are all others.
 *
 * Only what is served to that worker is told, by the same calls as its answers, so it is kept right
 * as they are.
 */
#include <stdbool.h>
#include <stdint.h>

#include "concc/proto.h"

struct ahead;
struct peer;

struct ahead *ahead_new(struct peer *p);
void ahead_free(struct ahead *a); /* NULL is fine; at the end of the link */

/* The listing of a directory that the peer will look into, and those on the way there, as far as it
 * was not told of them.  Nothing when there is none. */
void ahead_dir(struct peer *p, const char *path);
/* Before a job: the listings of the trees that its root is built of, and on the way to its
 * directory and what its arguments name. */
void ahead_job(struct peer *p, const struct msg_run *m);
/* The peer has asked for this listing, and got it: those of few and small directories in it. */
void ahead_listed(struct peer *p, const char *path);
/* The peer asks for this file. */
void ahead_asked(struct peer *p, uint32_t dir_id, const char *name);
/* Is it being asked for since we told of it as a guess, and not known to be of use? */
bool ahead_is_guess(const struct peer *p, const char *path);
/* GUESSED: these were. */
int ahead_guessed(struct peer *p, struct blob payload);

#endif
