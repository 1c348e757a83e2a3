/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CONF_PARSE_H
#define CONCC_CONF_PARSE_H

/* The steps of conf_load(), apart: for it, for tests and for the fuzzer. */
#include <stddef.h>

struct conf;
struct errmsg;

#define CONF_FILE_MAX (1024 * 1024)

struct conf *conf_new(void); /* the defaults; no workers yet */
/* Adds what a file says.  file is its name, for messages. */
int conf_parse_text(struct conf *c, const char *file, const char *text, size_t n,
		    struct errmsg *msg);
/* Adds what the environment says. */
int conf_parse_env(struct conf *c, struct errmsg *msg);
/* Fills in the workers when none were named. */
void conf_finish(struct conf *c);

#endif
