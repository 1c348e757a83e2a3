/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_WORKSPACES_H
#define CONCC_PROJECT_WORKSPACES_H

/* Which trees a job needs on a worker. */
#include <stdbool.h>

#include "concc/err.h"
#include "concc/proto.h"

struct peer;
struct server;

/* Is it a tree in which no name means the same for long: a work directory, or Go's cache? */
bool workspaces_is_passing(const struct server *s, const char *dir);
/* What a system may have of its own in the root directory; NULL at the end. */
extern const char *const workspaces_system_dirs[];
/* Is it there, or in /dev or /proc?  Then it may well be on the worker. */
bool workspaces_is_system_path(const char *path);
/* Negative: jobs have something of their own there, whatever a configuration says. */
int workspaces_check(const char *path, struct errmsg *msg);
/*
 * The trees that the job needs on that peer, on the heap, none beneath another, one of them with
 * its cwd; all served by now.  Negative and why: the cwd is in none; CONCC_E_CONF: what the call
 * itself lists is wrong.  *ret_unserved: the program's path, on the heap, when jobs would not see
 * it though it is this machine's that is to run there; or NULL.
 */
int workspaces_of(struct peer *p, const struct msg_run *m, char ***ret, char **ret_unserved,
		  struct errmsg *msg);

/* $PWD, when it is the cwd's name by a symbolic link that jobs of the peer can't be shown;
 * borrowed. NULL: it is none, or can be, and its trees are in the list. */
const char *workspaces_other_cwd(struct peer *p, const struct msg_run *m, char ***list);
/* Adds a tree to such a list. */
void workspaces_add(char ***list, const char *root);

#endif
