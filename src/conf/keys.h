/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CONF_KEYS_H
#define CONCC_CONF_KEYS_H

/*
 * The keys of a configuration: their names, the variables that override them, and what is done with
 * a value.  Of lines and sections parse.c knows.
 */
#include <stddef.h>

struct conf;
struct errmsg;

/* parse: as value.h has them, into a struct conf, or for worker_keys a struct conf_worker. */
struct key {
	const char *name;
	int (*parse)(void *obj, const char *value, struct errmsg *why);
	const char *env; /* the variable that overrides it, NULL for keys of workers */
	/* For the variable, where it is written differently; NULL: as in the file. */
	int (*parse_env)(void *obj, const char *value, struct errmsg *why);
};

#define KEYS_MAX 32 /* of a section: who reads it has a bit for each */

extern const struct key concc_keys[], worker_keys[]; /* of [concc], of [worker NAME] */
extern const size_t n_concc_keys, n_worker_keys;

/* Its value was taken from this line: for messages about it that come later. */
void key_read_at(const struct key *key, struct conf *c, const char *file, unsigned line);

#endif
