/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CONF_WORKERS_H
#define CONCC_CONF_WORKERS_H

/* Growing lists of workers, and worker lists as written in one line. */
#include <stdbool.h>
#include <stddef.h>

struct conf;
struct conf_worker;
struct errmsg;

void worker_release(struct conf_worker *w);
void workers_free(struct conf_worker *w, size_t n);
/* What depends on the address, where nothing was said. */
void worker_set_defaults(struct conf_worker *w);
void worker_copy(const struct conf_worker *from, struct conf_worker *ret);
/* A new worker at the end, all zero; valid until the next one is added. */
struct conf_worker *workers_add(struct conf_worker **w, size_t *n);
struct conf_worker *workers_find(struct conf_worker *w, size_t n, const char *name);
/* One of this name, or of a section of this name. */
bool workers_has(struct conf_worker *w, size_t n, const char *name);
/* The last known worker becomes as many as its `count`: NAME-1, NAME-2 ... */
int workers_multiply(struct conf *c, struct errmsg *why);

/* Drops what the system's file says of this section: the user has one of his own. */
void workers_replace(struct conf *c, const char *name);

/* Replaces the workers of c by those of list; why does not say where the list came from. */
int workers_from_list(struct conf *c, const char *list, struct errmsg *why);

#endif
