/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_COMMIT_MARK_H
#define CONCC_COMMIT_MARK_H

/*
 * Whose results a project server is putting in place just now, so that a wrapper whose server was
 * killed (SIGKILL, no memory) knows whether some of them may be there.  A mapped file of the
 * runtime directory: what is stored there outlives the process, and costs no system call.  One
 * thread.
 */
#include <stdbool.h>
#include <stdint.h>

struct commit_mark;

/* Made when it is not there.  What the one before was about when it ended stays known until another
 * ends so.  0 or -errno. */
int commit_mark_open(int dir_fd, struct commit_mark **ret);
void commit_mark_close(struct commit_mark *m); /* NULL is fine, here and below */
/* token: of a wrapper, its arrived_us of RUN; 0: nobody's. */
void commit_mark_set(struct commit_mark *m, uint64_t token);

/* Had a server begun with this one's, and not ended?  False when it can't be told. */
bool commit_mark_has(int dir_fd, uint64_t token);

#endif
