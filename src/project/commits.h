/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_COMMITS_H
#define CONCC_PROJECT_COMMITS_H

/*
 * What came home is put in place, one commit after the other as they are ready, and each in pieces
 * of some milliseconds, between which the loop goes on.  A small one, as nearly all are, is in
 * place when it is handed over.  What came to nothing is removed in pieces, too.
 */
#include <stdbool.h>
#include <stdint.h>

struct commit;
struct errmsg;
struct placing;
struct server;

struct commit_order {
	struct commit *commit;
	unsigned peer;	  /* for commit_apply() */
	uint64_t wrapper; /* for commit_mark_set() */
	/* When it was not done at once.  err, msg: of commit_apply(). */
	void (*done)(void *data, int err, const struct errmsg *msg);
	void *data;
};

/* As commit_apply(); or 0, and *ret is no longer NULL: done() will be called. */
int commits_place(struct server *s, const struct commit_order *o, struct placing **ret,
		  struct errmsg *msg);
/*
 * Instead of commit_free().  Takes *c, and sets it to NULL as *p (or NULL), by which it waits:
 * nobody is told any more.  Of what some is in place the rest follows.
 */
void commits_drop(struct server *s, struct commit **c, struct placing **p);
/*
 * Calls tell(data) when nothing is left of what was dropped until now: within this call, or later,
 * and then *ret is no longer NULL.  commits_untell() takes that back; NULL is fine.
 */
struct drop;
void commits_after_drops(struct server *s, void (*tell)(void *data), void *data, struct drop **ret);
void commits_untell(struct drop *d);
bool commits_is_begun(const struct placing *p); /* some may be in place */
/* The peer's word is not worth anything any more. */
void commits_distrust(struct server *s, unsigned peer);
/* What is under way or waits up to this one, or all of it: in this call, however long. */
void commits_hurry(struct server *s, const struct placing *p);

struct commits_counts {
	uint64_t n_pieces; /* after the first ones */
	unsigned waiting;  /* now, with what is under way */
	unsigned dropped;  /* of which there is something left to be removed */
};
void commits_counts(const struct server *s, struct commits_counts *ret);

void commits_open(struct server *s);
void commits_set_piece(struct server *s, unsigned ms); /* of a test, which has many by little */
void commits_close(struct server *s);		       /* with nothing left that waits */

#endif
