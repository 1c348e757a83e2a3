/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_SYSTEM_H
#define CONCC_PROJECT_SYSTEM_H

/* The trees of this machine that jobs of workers with root = client see beside workspaces. */
#include <stdbool.h>
#include <stddef.h>

#include "concc/err.h"

struct peer;
struct server;
struct system;

int system_set_up(struct server *s, struct errmsg *msg);
void system_free(struct system *y);
/* Links of the root directory that lead into trees: name, target, ...; NULL when there are none. */
char *const *system_links(const struct server *s);
/* The i-th of the p->n_trees that the peer was told of; borrowed. */
const char *system_tree(const struct peer *p, size_t i);
/* These are for peers with root = client only.  After HELLO: which trees there are. */
void system_greet(struct peer *p);
/* Before the tree is drained for a job: what has changed in /etc, and which trees came.  Negative:
 * what jobs would see of /etc is not what it is. */
int system_refresh(struct peer *p, struct errmsg *msg);
/* The trees that they are to see, as the configuration and custom have them, be they there or not.
 * Of any peer. */
char *const *system_wanted(const struct server *s);
/* The toolchain tree that path is in, as they are listed, be it there or not; or NULL.  Of any
 * peer. */
const char *system_tree_of(const struct server *s, const char *path);
/* Is it in a tree that all jobs of such peers see? */
bool system_has(const struct server *s, const char *path);
/* Do jobs of such peers see what is at this path (absolute, clean), if anything is? */
bool system_shows(const struct server *s, const char *path);

/* Is something of that directory of /etc not shown? */
bool system_is_partial(const struct server *s, const char *path);

#endif
