/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_MISSING_H
#define CONCC_PROJECT_MISSING_H

/*
 * What a job lacked on a worker, and what follows from it.  Only what could have
 * made a difference counts: a name that is nowhere was looked for in vain here as
 * well.  Decisions and words are pure; missing_on() and missing_text() look at
 * files of this machine.
 */
#include <stdbool.h>

#include "concc/proto.h"

struct peer;
struct run;

struct missing_facts {
	enum missing_how how;
	bool here;     /* it is on this machine, whatever it is */
	bool writable; /* the user may make and remove names in its directory */
	bool unseen;   /* the rest can't be told without having the kernel mount something */
	bool own;      /* jobs have a directory of their own in its place */
	bool marks;    /* of a directory: in it is what programs look for by listing it */
	bool more;     /* in it is anything that was not in the listing */
	bool own_name; /* the command's own name in a directory of PATH that it is not in */
};

enum missing_verdict {
	MISSING_NOTHING,
	MISSING_ABSENT,	  /* nothing, and the worker need not tell it again */
	MISSING_HOLD,	  /* if the job fails, it runs here: until then its output waits */
	MISSING_RUN_HERE, /* whatever comes of it: it is another thing than here */
};

enum missing_verdict missing_decide(const struct missing_facts *f);

struct missing_remedy {
	bool client_root;	 /* of the worker: it sees toolchains, too */
	bool writes;		 /* so that it must be a workspace */
	const char *tree;	 /* what could be listed, or NULL */
	char *const *toolchains; /* listed already; may be NULL */
	char *const *workspaces; /* the same, or of the job */
};

/* What a person can do, with the very line; on the heap. */
char *missing_remedy(const struct missing_remedy *m);

/*
 * The directory to be listed so that jobs see this path of ours: itself or the one
 * that holds it; on the heap.  NULL: none that would be taken, or too much.
 */
char *missing_tree(const char *path, bool client_root);

/* Why jobs of the peer don't see this path, and the remedy for this program; on the heap. */
char *missing_text(const struct peer *p, char *const *workspaces, const char *program,
		   const char *path, bool writes);

/* JOB_MISSING of a job. */
void missing_on(struct run *r, const struct msg_missing *m);

#endif
