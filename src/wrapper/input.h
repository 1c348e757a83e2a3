/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_INPUT_H
#define CONCC_WRAPPER_INPUT_H

/*
 * The caller's standard input on its way to a job.  The job may have to be run again,
 * elsewhere or here, so all of it must be there once more.  A file is read again from
 * where it was.  What came from a pipe is kept, for nobody can give it back: the
 * first of it in memory, more in a file without a name in $TMPDIR or /var/tmp
 * (/tmp is memory on many systems).  Where it can't be kept, the job is
 * of no use any more, and the command runs here, with all of it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/buf.h"

/* A stream of more than that is for no job: the disk is the user's. */
#define INPUT_KEPT_MAX	 (1024ULL * 1024 * 1024)
#define INPUT_MEMORY_MAX (1024ULL * 1024)

struct input {
	bool wanted; /* this job reads it */
	bool eof;
	int err;   /* -errno of reading it, or of keeping it: no job can use it */
	bool lost; /* err is of keeping it */
	bool is_file;
	off_t start;	 /* of a file */
	int kept_fd;	 /* with what was read of another, -1 before the first byte */
	uint64_t kept;	 /* bytes in it */
	uint64_t n_read; /* in all */
	struct buf rest; /* what was read last and could not be kept */
};

#define INPUT_INIT ((struct input){.kept_fd = -1})

/* Looks what fd 0 is, before it is read: 0, or -errno where it can't be, closed or a directory. */
int input_open(struct input *in);

/*
 * The bytes from at on, which is at most n_read: how many, at most n, 0 at the end, or
 * -errno: -EAGAIN and -EINTR are no end of it, any other is kept as in->err.
 * Blocks unless input_has() or poll(2) says that there is something.
 */
ssize_t input_read(struct input *in, uint64_t at, void *p, size_t n);
/* Are there bytes from at on, or is it known that there are none, without a look at fd 0? */
bool input_has(const struct input *in, uint64_t at);
/* No job needs it any more: a file's position is moved behind what was read. */
void input_done(struct input *in);

/*
 * *ret_fd: what the command must read here instead of fd 0, at the start of all of it; -1: that is
 * fd 0 itself.  What has not come yet is passed on by a process of its own, which ends with
 * the input or with its reader: a command need not read to the end.  0 or -errno.
 */
int input_replay(struct input *in, int *ret_fd);

#endif
