/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_CONTENT_H
#define CONCC_MIRROR_CONTENT_H

/*
 * The bytes of files that are here, and reads of them: from the store, or, while they are on their
 * way (fetch.h), what has arrived.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct content;
struct inode;
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

/* The same of these.  Takes a reference to each. */
void content_fetch_ahead(struct mirror *m, struct inode *const *files, size_t n);
/* A file whose bytes are neither here nor on their way?  Under mirror.lock. */
bool content_is_wanted(const struct inode *i);

/* ---- for fetch.c; under mirror.lock, but for the last ---- */

/* The inode's bytes are in fd, so many of them from the start.  Takes fd. */
void content_set(struct mirror *m, struct inode *i, int fd, uint64_t have);
/* There are so many by now. */
void content_has(struct inode *i, uint64_t have);
/* Where in its file that READ ends. */
uint64_t content_read_end(const struct request *r);

#endif
