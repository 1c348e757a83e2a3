/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_ABSENT_H
#define CONCC_PROJECT_ABSENT_H

/* What is not there, outside of the trees, as far as a worker was told. */
struct peer;

/* A job looked for this in vain, and it is of no consequence that it did: others need not tell. */
void absent_tell(struct peer *p, const char *path);
/* Before a job: takes back what was said of directories that have changed since. */
void absent_check(struct peer *p);
void absent_forget(struct peer *p); /* the link is gone */

#endif
