/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_FETCH_H
#define CONCC_MIRROR_FETCH_H

/*
 * The bytes of a file on their way into the store: from a file of this machine's own, or from the
 * client by CONTENT messages, which are taken in the order in which they came, in the lane of the
 * owner's threads for what may block.  Reads wait here, and go on as soon as what they need is
 * there (content.h).
 */
#include "concc/proto.h"

struct fetch;
struct inode;
struct list;
struct mirror;
struct request;

/* Of an inode that has none: the owner will be asked for it.  Under mirror.lock. */
struct fetch *fetch_new(struct mirror *m, struct inode *i);
/* The READ waits for it: takes r.  Negative: why there is nothing to wait for; r is the caller's
 * then.  Under mirror.lock. */
int fetch_wait(struct fetch *f, struct request *r);

/* Owner's thread: FETCH, unless a file of this machine has the same bytes. */
void fetch_ask(struct mirror *m, const struct msg_fetch *msg);
/* Owner's thread: one CONTENT message.  Taken at once, or in the lane of mirror_config.disk, whose
 * errors come by ops.broken. */
int fetch_message(struct mirror *m, const struct msg_content *c);
/* At the end: moves what waits for any fetch to ret.  Under mirror.lock. */
void fetch_waiting(struct mirror *m, struct list *ret);
/* Then, when nothing is in the lane any more: drops every fetch.  Under mirror.lock. */
void fetch_release(struct mirror *m);

#endif
