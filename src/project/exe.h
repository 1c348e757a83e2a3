/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_EXE_H
#define CONCC_PROJECT_EXE_H

#include "concc/err.h"
#include "concc/proto.h"

struct peer;
struct server;

struct exe;

/*
 * The program of a job with the files that make up its identity for this peer: those that it has
 * of its own and does not get from here.  Of a compiler (through concc-cc) these are its parts,
 * too, and of a script that is called like one, the compilers that it may run.  Kept while none of
 * them changes.  May take a moment when one has: reads them, and asks a compiler for its parts.
 * Nothing else is ever run here: not what is only called like one.
 */
int exe_get(struct peer *p, const struct msg_run *m, struct exe **ret, struct errmsg *msg);
const struct msg_exe *exe_msg(const struct exe *e);
/* The file that a driver means by its answer to -print-prog-name=PART, on the heap; or NULL. */
char *exe_part(const char *part, const char *answer, const char *path, const char *cwd);
void exes_free(struct server *s);

#endif
