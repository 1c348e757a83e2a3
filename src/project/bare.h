/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_BARE_H
#define CONCC_PROJECT_BARE_H

/* Bare directories: the user's, outside of the trees, as far as a worker was told of them. */
#include <stdbool.h>

struct peer;

/* With the link's first message: those that every home has. */
void bare_greet(struct peer *p);
/* A job looked for path (absolute, clean) in vain.  If it is such a directory, the next one finds
 * it. */
void bare_tell(struct peer *p, const char *path);
/* Do jobs see it as one? */
bool bare_is(const struct peer *p, const char *path);
/* Before a job: what was told and is so no more is taken back, or told anew. */
void bare_check(struct peer *p);
void bare_forget(struct peer *p); /* the link is gone */

#endif
