/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CONF_ONE_SECTION_H
#define CONCC_CONF_ONE_SECTION_H

/*
 * Files of one section: a project's .concc.ini, a worker's /etc/concc-worker.ini.  Each mistake is
 * told with the line that it is in, a section's of another name, too, with keys or without.
 */
#include "concc/err.h"

struct one_section {
	const char *name;
	const char *only; /* what is said where anything is outside of it */
	/* Takes a key of it; a mistake is a text in why, and the last that is asked. */
	void (*take)(void *data, const char *name, const char *value, struct errmsg *why);
	void *data;
};

/* 0, or CONCC_E_CONF with the line and what is wrong in it. */
int one_section_parse(const struct one_section *s, const char *text, unsigned *ret_line,
		      struct errmsg *why);

#endif
