/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CONF_WORKERS_H
#define CONCC_CONF_WORKERS_H

/* Growing lists of workers, and worker lists as written in one line. */
#include <stddef.h>

struct conf;
struct conf_worker;
struct errmsg;

void worker_release(struct conf_worker *w);
void workers_free(struct conf_worker *w, size_t n);
void worker_copy(const struct conf_worker *from, struct conf_worker *ret);
/* A new worker at the end, all zero; valid until the next one is added. */
struct conf_worker *workers_add(struct conf_worker **w, size_t *n);
struct conf_worker *workers_find(struct conf_worker *w, size_t n, const char *name);

/* Replaces the workers of c by those of list; why does not say where the list came from. */
int workers_from_list(struct conf *c, const char *list, struct errmsg *why);

#endif
