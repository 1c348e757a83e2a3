/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WRAPPER_SELF_H
#define CONCC_WRAPPER_SELF_H

/*
 * So that no command is us again, and again.  concc-cc and concc-dispatch are known by
 * a mark in the file, not by a name: links, copies and other versions have it, too.
 * A script that runs `concc-cc gcc` may be called gcc itself; which scripts we have
 * started above us, here or in the job that we are in, is in an environment variable,
 * _CONCC_STARTED, and the next gcc in PATH is taken.
 */
#include <stdbool.h>

enum self_kind {
	SELF_OTHER, /* also what can't be read */
	SELF_SCRIPT,
	SELF_OURS,
};

/* What the file begins with. */
enum self_kind self_look(const char *path);

/* Did we start it, and it us?  path is absolute. */
bool self_started(const char *path);
/* For what is started now: path is added.  False when that is so many that it never ends. */
bool self_start(const char *path);

#endif
