/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_PLACE_H
#define CONCC_PROJECT_PLACE_H

/* The files of the server, by which it is found, and its configuration: has either changed? */
#include <stdbool.h>

#include "concc/err.h"

struct server;

int place_watch(struct server *s, struct errmsg *msg); /* when all of them are there */
void place_stop_watching(struct server *s);
void place_close(struct server *s);
/* Why what the configuration says now is not followed; borrowed until it is looked at again.  NULL:
 * it is. */
const char *place_conf_error(const struct server *s);
/* Has the configuration changed?  Then it makes room for a server that reads it. */
void place_check_conf(struct server *s);
/* For another server, which the next call starts; ours goes on with the jobs that it has. */
void place_make_room(struct server *s);
bool place_is_ours(const struct server *s); /* no other server can have begun here */

#endif
