/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_ETC_H
#define CONCC_PROJECT_ETC_H

/*
 * What workers with root = client see of this machine's /etc: a copy in the
 * runtime directory, so that nothing else can be asked for, and the user database
 * can be one that names nobody but the user.  The copy is made anew before a job
 * when inotify tells of a change.
 *
 * In it is what a table names, and what the user lists; and of that nothing that
 * not everybody on this machine may read, and no private key.  A directory of which
 * something is left out is told as partial, so that a job which looks for that runs
 * here.
 */
#include <stdbool.h>
#include <stddef.h>

#include "concc/err.h"

struct etc;

/* Of the directory dir, in which "etc" is made.  listed: absolute paths of the user's, those that
 * are below /etc matter. */
int etc_new(const char *dir, int dir_fd, char *const *listed, struct etc **ret, struct errmsg *msg);
void etc_free(struct etc *e);
/* Negative: the copy is not what /etc is, and no job may see it. */
int etc_refresh(struct etc *e, struct errmsg *msg);
const char *etc_copy(const struct etc *e); /* the path of the copy; borrowed */
/* path: absolute, /etc or below. */
bool etc_shows(const struct etc *e, const char *path);
bool etc_is_partial(const struct etc *e, const char *path);

/* Would it be shown, if it were listed?  path: absolute, below /etc.  Looks at the file. */
bool etc_may_show(const char *path);

/* ---- pure, for tests ---- */

enum etc_rule {
	ETC_LEFT_OUT,
	ETC_ON_THE_WAY, /* a directory of which something may be shown */
	ETC_SHOWN,	/* with all that is in it */
};
/* By its name alone: path is relative to /etc, "" that itself. */
enum etc_rule etc_rule_of(const char *path, char *const *listed);
/* Is it, or is there in it, a key that is nobody else's business? */
bool etc_is_private(const char *name, const char *bytes, size_t n);

#endif
