/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_EXE_H
#define CONCC_PROJECT_EXE_H

#include "concc/err.h"
#include "concc/proto.h"

struct peer;
struct server;

struct exe;
struct exe_wait;

/*
 * The program of a job with the files that make up its identity for this peer: those that it has
 * of its own and does not get from here.  Of a compiler (through concc-cc) these are its parts,
 * too, and of a script that is called like one, the compilers that it may run.  Kept while none of
 * them changes.  CONCC_E_LATER when one has, or it is a new one: see exe_wait().
 * fresh: what that has just come to for this job, or NULL.  It is taken although one of its files
 * is so young that it may change and look the same, which is looked at anew for each job.
 */
int exe_get(struct peer *p, const struct msg_run *m, const struct exe *fresh, struct exe **ret,
	    struct errmsg *msg);

/* e NULL: why not, in msg.  The wait is no more. */
typedef void (*exe_fn)(void *arg, struct exe *e, const struct errmsg *msg);
/*
 * Has a thread look: it reads the files, and asks a compiler for its parts.  Nothing else is ever
 * run here: not what is only called like one.  Then, or after some seconds, done() is called, never
 * within this call.  Who waits for the same is told at once with others.  NULL and msg: a disk
 * hangs.
 */
struct exe_wait *exe_wait(struct peer *p, const struct msg_run *m, exe_fn done, void *arg,
			  struct errmsg *msg);
void exe_wait_free(struct exe_wait *w); /* done() is not called; NULL is fine */
const struct msg_exe *exe_msg(const struct exe *e);
/* The file that a driver means by its answer to -print-prog-name=PART, on the heap; or NULL. */
char *exe_part(const char *part, const char *answer, const char *path, const char *cwd);
/* Nobody is told any more: the peers are about to go. */
void exes_stop(struct server *s);
void exes_free(struct server *s);

#endif
