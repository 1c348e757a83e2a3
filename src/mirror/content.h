/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_CONTENT_H
#define CONCC_MIRROR_CONTENT_H

/*
 * The bytes of files: from the store, or from this machine's own disk or the client into it.
 * Reads of what has arrived are answered while the rest still streams.
 */
#include "concc/proto.h"

struct content;
struct inode;
struct list;
struct mirror;
struct request;

/*
 * Open fds kept.  RLIMIT_NOFILE is 1024 where nobody raised it, and jobs' pipes
 * and upper layers need some; losing one costs an open(2).
 */
#define CONTENTS_MAX 256

/* A READ; takes r.  Not under mirror.lock. */
void content_read(struct mirror *m, struct request *r);
/* Drops the inode's bytes; under mirror.lock. */
void content_drop(struct mirror *m, struct inode *i);
/* Closes what is open for later reads: as store_on_full() wants it. */
void content_close_idle(void *mirror);
/* Owner's thread: asks for the bytes of these files of a directory unless they are here or on their
 * way. */
void content_prefetch(struct mirror *m, struct inode *d, char *const *names);
/* Owner's thread: FETCH, unless a file of this machine has the same bytes. */
void content_ask(struct mirror *m, const struct msg_fetch *msg);
/* Owner's thread: one CONTENT message.  Taken at once, or in the lane of mirror_config.disk, whose
 * errors come by ops.broken. */
int content_message(struct mirror *m, const struct msg_content *c);
/* At the end: moves what waits for any fetch to ret.  Under mirror.lock. */
void content_waiting(struct mirror *m, struct list *ret);
/* Then, when nothing is in the lane any more: drops every fetch.  Under mirror.lock. */
void content_release(struct mirror *m);

#endif
