/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_CONF_H
#define CONCC_PROJECT_CONF_H

/*
 * .concc.ini of a project: what its authors may say of how it is built, and no more.  It came with
 * the sources, so nothing in it names a command, a host or a directory, or shows anybody anything:
 * all that it can do is to have less run elsewhere, or to fail.
 */
#include <stdbool.h>
#include <stdint.h>

#include "concc/err.h"

#define PROJECT_CONF ".concc.ini"

struct project_conf {
	uint32_t jobs;		 /* 0: not said */
	uint32_t require_remote; /* percent; 0: not said */
	bool local;		 /* all of it is to be built here */
};

/* 0 with ret, all zeros when dir has no such file; CONCC_E_CONF when it is wrong: nothing of it
 * counts then.  Blocks as long as the disk does. */
int project_conf_load(const char *dir, struct project_conf *ret, struct errmsg *msg);

#endif
