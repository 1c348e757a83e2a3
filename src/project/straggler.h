/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_STRAGGLER_H
#define CONCC_PROJECT_STRAGGLER_H

struct server;
struct stragglers;

/* Jobs that run far longer than others of their program; NULL when the configuration wants none. */
struct stragglers *stragglers_new(struct server *s);
void stragglers_free(struct stragglers *t); /* NULL is fine, and here: */
void stragglers_look(struct stragglers *t); /* more is known of how long jobs take */

#endif
