/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_LINKS_H
#define CONCC_PROJECT_LINKS_H

/* Symbolic links outside of the trees, as far as a worker was told. */
struct peer;

/*
 * Where path (absolute, clean) leads; on the heap.  Links on the way that jobs of the peer don't
 * see by themselves are told to it; trees on the way are added.  NULL: one of them can't be shown.
 */
char *links_follow(struct peer *p, const char *path, char ***trees);
/* Before a job: what was told and is so no more is taken back. */
void links_check(struct peer *p);
void links_forget(struct peer *p);

#endif
