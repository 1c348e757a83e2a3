/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_SEEK_H
#define CONCC_PROJECT_SEEK_H

/*
 * What is kept of a call, read by a thread on behalf of one connection.  What was used last of it
 * is read at one go, its files as well when they are small; what it turns out to need besides is
 * asked for and read then.  What is not in the store is asked of others, and then all begins anew.
 */
#include "facts.h"
#include "sets.h"

/* Names that the call looked at. */
struct set {
	struct digest call, digest;
	struct cache_names names;
	size_t cost; /* of these */
	bool there;
	bool looked; /* state is that of now */
	int err;     /* of the look, or 0 */
	struct digest state;
};

/* One result, or where one may be. */
struct kept {
	size_t set; /* index */
	struct digest state;
	bool wanted;   /* to be read, with its files, if it is there; */
	bool was_true; /* since its names meant just that, a moment before */
	bool read;     /* it was looked for; then */
	int err;       /* 0: this is it */
	struct cache_entry entry;
	bool has_files; /* these were: */
	int files_err;	/* some are not there, or too much */
	size_t n_files;
	struct buf *files; /* of each effect; no bytes where none are needed; owned */
};

struct seek {
	struct results *results;
	struct client *client; /* NULL: it has gone, or waits no more */
	struct msg_run run;    /* owned */
	void (*go_on)(struct seek *k);
	/* Whatever it is, once what is being kept now is in the store; nothing is read then. */
	bool only_waits;
	bool reading; /* a thread has it: what follows is that one's */
	bool hung;    /* for so long that nobody waits */
	struct loop_source *timer;
	struct reading *facts;	      /* what it looks at is read; or NULL */
	bool has_facts;		      /* it was, once */
	struct digest calls[2];	      /* as workers of either kind would see it */
	struct cache_first firsts[2]; /* of each, what is kept first, if it is there */
	unsigned n_calls;
	bool begun;
	/* What is large is written beside its place by a thread, and then chosen once more. */
	struct commit *commit; /* of that result; or NULL */
	size_t written;	       /* which: its index */
	struct commit_writing **writing;
	size_t n_writing_files;
	struct set *sets;
	size_t n_sets;
	struct sets_left left; /* of what they may cost */
	struct kept *kept;     /* of each call, what was used last first */
	size_t n_kept;
	unsigned n_rounds;
	/* Others: */
	struct buf wanted;   /* struct cache_wanted, of what was looked for here in vain */
	uint64_t bytes_left; /* of files that they may still be asked for, */
	uint64_t until_ms; /* and until when they are waited for; 0: they were asked for nothing */
	struct loop_source *patience; /* while something was asked for */
	struct map asked;	      /* struct cache_key -> itself, static */
	uint64_t tag;
	unsigned n_waiting; /* of those that were asked for; */
	unsigned n_writing; /* these have come, and go into the store */
	struct why *why;    /* why.c: somebody wants to know; or NULL */
};

/* Takes what m holds.  The client has it until seek_free(). */
struct seek *seek_new(struct client *c, struct msg_run *m, void (*go_on)(struct seek *k));
/* The same, m may be NULL: when all is in the store that is being kept now, it goes on. */
void seek_wait(struct client *c, struct msg_run *m, void (*go_on)(struct seek *k));
/* Reads what is wanted of it, and goes on then.  False: it does not. */
bool seek_read(struct seek *k);
/* The same, and what is read is whatever run(k) reads, of the store only. */
bool seek_read_by(struct seek *k, void (*run)(void *arg));
/* Has what is not known of these files read by a thread, and goes on then.  False: it does not. */
bool seek_wait_for_facts(struct seek *k, const struct cache_names *names);
/* The files of what was found are written into its commit by a thread; takes that, and the vector
 * of what it has to write.  It goes on then, as ever. */
void seek_write(struct seek *k, const struct kept *found, struct commit *c,
		struct commit_writing **writing, size_t n);
/* Something may be there where no result of that set was known. */
struct kept *seek_add(struct seek *k, size_t set, const struct digest *state);
/* It is not here; others may have it.  size: of a file, else 0. */
void seek_want(struct seek *k, enum cache_kind kind, const struct digest *d, uint64_t size);
/* Asks them for what they were not asked for yet, and begins anew then.  False: there is nothing.
 */
bool seek_ask(struct seek *k);
/* Which of the calls' results were used last is kept in mind. */
void seek_used(struct seek *k, const struct kept *used);

#endif
