/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_FUSE_H
#define CONCC_MIRROR_FUSE_H

/*
 * The kernel's side of the mirror: mount, session and reader threads (fuse.c), requests
 * (request.c). The only users of <fuse_lowlevel.h>.  A request is tried when it comes; what it
 * lacks decides where it waits (a directory, a fetch), and it is tried anew
 * when that has changed.  It is answered exactly once.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/err.h"
#include "concc/map.h"
#include "concc/mirror.h"

struct inode;
struct mirror;

enum request_kind { REQUEST_LOOKUP, REQUEST_GETATTR, REQUEST_READDIR, REQUEST_READ };

struct request {
	struct list link; /* where it waits; under mirror.lock */
	enum request_kind kind;
	void *req;	     /* fuse_req_t */
	struct inode *inode; /* a reference */
	uint64_t offset;
	size_t size;
	bool denied;	   /* the listing it waited for was refused: do without */
	bool not_in_store; /* looked there in vain */
	bool read_again;   /* what was found could not be read */
	char name[];	   /* LOOKUP */
};

/* Takes r.  Not under mirror.lock. */
void request_run(struct mirror *m, struct request *r);
void request_fail(struct mirror *m, struct request *r, int err);
void request_data(struct mirror *m, struct request *r, const void *p, size_t n);
/* Takes all in the list. */
void requests_run(struct mirror *m, struct list *l);
void requests_fail(struct mirror *m, struct list *l, int err);
/* These can't be answered as it is on the client: the owner is told of each whose it is, and why.
 */
void requests_lose(struct mirror *m, struct list *l, const char *path, int err);

/* Why the process looks a name up that is not there: as ops.makes tells.  Not under mirror.lock. */
enum missing_how fuse_asks(const struct mirror *m, pid_t pid, const char *name);

/* /dev/fuse, non-blocking; or a negative code and what to do. */
int fuse_open_device(struct errmsg *msg);
int fuse_start(struct mirror *m, const struct mirror_config *c, struct errmsg *msg);
/* Ends the connection for the kernel: every request gets an error, now and from now on. */
void fuse_abort(struct mirror *m);
/* Joins the readers and releases all.  After fuse_abort() and notify_stop(). */
void fuse_stop(struct mirror *m);

/* For the notifier thread. */
uint64_t fuse_nodeid(const struct mirror *m, const struct inode *i);
void fuse_inval_entry(struct mirror *m, uint64_t dir, const char *name, bool expire);
void fuse_inval_inode(struct mirror *m, uint64_t ino);

#endif
