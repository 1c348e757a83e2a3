/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_GUESS_H
#define CONCC_MIRROR_GUESS_H

/*
 * Files that the client guesses jobs will read.  They wait here in its order and are asked for as
 * far as there is room: what was asked for and nobody has read yet is never more than what was of
 * use, and GUESS_BYTES_MIN.  So a guess that is right has the next ones come, ever more at once,
 * and what comes in vain is bounded, whatever is guessed.
 */
#include <stdint.h>

struct inode;
struct mirror;

/* Enough to begin with: some dozens of headers, and 0.3 s of a line of 5 Mbit/s, compressed. */
#define GUESS_BYTES_MIN (512 * 1024)
/* That wait, and of those that were read and not told of.  More are ignored. */
#define GUESSES_MAX 16384

enum guess {
	GUESS_NONE,
	GUESS_WAITS, /* in mirror.guesses */
	GUESS_ASKED, /* asked for, and not read yet */
};

void guess_init(struct mirror *m);
void guess_release(struct mirror *m);
/* Owner's thread: GUESS of names in this directory. */
void guess_add(struct mirror *m, struct inode *d, char *const *names);
/* Owner's thread: asks for what there is room for. */
void guess_go_on(struct mirror *m);
/* A job reads it.  Under mirror.lock. */
void guess_note_read(struct mirror *m, struct inode *i);
/* Bytes that were asked for without a guess.  Under mirror.lock. */
void guess_note_asked(struct mirror *m, uint64_t size);

#endif
