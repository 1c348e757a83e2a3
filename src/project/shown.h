/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_SHOWN_H
#define CONCC_PROJECT_SHOWN_H

/*
 * What jobs of workers on this machine see of it as it is: with root = worker the system, and the
 * trees of tools that are elsewhere, as rustup's in a home.  Nothing of that is served to them: to
 * have it through the mirror would be a copy of each file, on the same disk.
 */
#include <stdbool.h>

struct peer;
struct server;

/* Once it is known which trees of tools there are, by system_set_up(), before a worker is started:
 * it tells workers here which of them to show. */
void shown_set_up(struct server *s);
/* Before one is started: it is shown what there is now.  False: it will be shown what there was. */
bool shown_look(struct server *s);
/* Clean, with no symlink on the way to any; NULL: there are none. */
char *const *shown_trees(const struct server *s);
/* Is the peer's system this machine's very own? */
bool shown_sees_this_system(const struct peer *p);
/* Such a peer: is the path (absolute, clean) in one of these trees? */
bool shown_has(const struct peer *p, const char *path);

#endif
