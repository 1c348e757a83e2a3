/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_LINKS_H
#define CONCC_PROJECT_LINKS_H

/* Symbolic links outside of the trees, as far as a worker was told. */
#include <stdbool.h>

struct peer;

/*
 * Where path (absolute, clean) leads; on the heap.  Links on the way that jobs of the peer don't
 * see by themselves are told to it; trees on the way are added.  NULL: one of them can't be shown.
 */
char *links_follow(struct peer *p, const char *path, char ***trees);
/* Can jobs of the peer be shown something of the client's at path, where no tree is? */
bool links_may_show(const struct peer *p, const char *path);
/* Before a job: what was told and is so no more is taken back. */
void links_check(struct peer *p);
void links_forget(struct peer *p);

#endif
