/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_INPUT_H
#define CONCC_WRAPPER_INPUT_H

/*
 * The caller's standard input on its way to a job.  Others may read it after the
 * job: a shell's loop, the rest of a script.  So no more is taken from it than the job has read:
 * what a pipe or a socket holds is looked at, and taken when the worker says that
 * it was read; a file is read where it is, and its position moved at the end.  Of what is
 * none of these, a device, what was sent is gone.
 *
 * The job may have to be run again, elsewhere or here, so all of it must be there
 * once more.  A file is read again from where it was.  What was taken from a pipe
 * is kept, for nobody can give it back: the first of it in memory, more in a file
 * without a name in $TMPDIR or /var/tmp (/tmp is memory on many systems).  Where it
 * can't be kept, the job is of no use any more, and the command runs here, with all of it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/buf.h"

/* A stream of more than that is for no job: the disk is the user's. */
#define INPUT_KEPT_MAX	 (1024ULL * 1024 * 1024)
#define INPUT_MEMORY_MAX (1024ULL * 1024)

enum input_kind {
	INPUT_STREAM, /* looking at it takes it */
	INPUT_FILE,   /* has a position */
	INPUT_PIPE,
	INPUT_SOCKET,
};

struct input {
	bool wanted; /* this job reads it */
	enum input_kind kind;
	bool eof;	  /* nothing comes after what was seen */
	int err;	  /* -errno of reading it, or of keeping it: no job can use it */
	bool lost;	  /* err is of keeping it */
	off_t start;	  /* of a file */
	mode_t mode;	  /* the same: who may do what with it */
	bool whole;	  /* a job finds a file, too: from its start, ... */
	off_t size;	  /* ... and no more of it than this */
	uint64_t seen;	  /* bytes of it that are known, from the start */
	bool in_run;	  /* what was seen is all that there is, and goes with RUN */
	bool again;	  /* there may be more than was seen, of which no event tells */
	int news_fd;	  /* of a pipe or socket: readable when something has come; else -1 */
	int copy[2];	  /* a pipe for what another one holds */
	struct buf front; /* what was seen of it last, the end of which is `seen` */
	int kept_fd;	  /* with what was taken, -1 before the first byte */
	uint64_t kept;	  /* bytes in it, which is what was taken of all but a file */
	uint64_t read;	  /* by the last job that has it */
	struct buf rest;  /* what was taken last and could not be kept */
};

#define INPUT_INIT ((struct input){.news_fd = -1, .copy = {-1, -1}, .kept_fd = -1})

/* Looks what fd 0 is, before it is read: 0, or -errno where it can't be, closed or a directory. */
int input_open(struct input *in);

/*
 * The bytes from at on, which is at most what was seen: how many, at most n, 0 at the end, or
 * -errno: -EAGAIN and -EINTR are no end of it, any other is kept as in->err.
 * Of a stream it blocks unless input_has() or poll(2) of input_fd() says that there is something.
 */
ssize_t input_read(struct input *in, uint64_t at, void *p, size_t n);
/* Are there bytes from at on, or is it known that there are none, without waiting? */
bool input_has(const struct input *in, uint64_t at);
/* Readable when something may have come that was not seen. */
int input_fd(const struct input *in);
/* A job has read the first n bytes, which were seen.  0, or -errno as in->err: they can't be kept,
 * or (-EBUSY) another has read them, too. */
int input_was_read(struct input *in, uint64_t n);
/* That job was the last. */
void input_done(struct input *in);

/*
 * *ret_fd: what the command must read here instead of fd 0, at the start of all of it; -1: that is
 * fd 0 itself.  What was not taken yet is passed on by a process of its own, which ends with
 * the input or with its reader: a command need not read to the end.  0 or -errno.
 */
int input_replay(struct input *in, int *ret_fd);

#endif
