/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_WANT_H
#define CONCC_MIRROR_WANT_H

/*
 * What the mirror has for its owner: callbacks, put down by whatever thread under mirror.lock, and
 * made by mirror_dispatch() in the owner's.
 */
#include <stdint.h>

#include "concc/map.h"
#include "concc/mirror.h"
#include "concc/proto.h"

struct inode;
struct mirror;

enum want_kind { WANT_DIR, WANT_FILE, WANT_GUESSES, WANT_FAILED, WANT_OUTSIDE };

/* One callback to be made by mirror_dispatch(). */
struct want {
	struct list link;
	enum want_kind kind;
	char *path;		/* DIR, FAILED, OUTSIDE */
	struct msg_fetch fetch; /* FILE */
	int err;		/* FAILED */
	int64_t job;		/* FAILED, OUTSIDE */
	enum missing_how how;	/* OUTSIDE */
};

void want_dir(struct mirror *m, struct inode *d);
void want_file(struct mirror *m, uint32_t fetch_id, const struct inode *i);
/* There may be room for guesses. */
void want_guesses(struct mirror *m);
/* path as the client calls it. */
void want_outside(struct mirror *m, const char *path, enum missing_how how, int64_t job);
void want_failed(struct mirror *m, int64_t job, const char *path, int err);
void want_free(struct want *w);
/* Makes the event fd readable. */
void mirror_wake(struct mirror *m);

#endif
