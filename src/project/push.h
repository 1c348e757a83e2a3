/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_PUSH_H
#define CONCC_PROJECT_PUSH_H

struct conf_worker;

/* Why nothing of ours is put on this worker; NULL when it can be. */
const char *push_refused(const struct conf_worker *w);

#endif
