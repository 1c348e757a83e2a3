/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_FRONT_USERS_H
#define CONCC_FRONT_USERS_H

/*
 * Which builds use the project server of a runtime directory, and whether it was started for them:
 * then the last one to end stops it.  Kept in locks of a file there, "builds": bytes 0, each build
 * reads it, and 1, each whose server it is.  So there is nothing to be mended after a crash.
 */
#include <stdbool.h>

struct users {
	int fd;
	bool own; /* the server is to end with the builds */
};

/* ready: one runs already.  Waits while the last of others stops theirs. */
void users_join(int dir_fd, bool (*ready)(int dir_fd), struct users *ret);
/* True: this was the last, and the server is to be stopped now; none begins before users_left(). */
bool users_leave(struct users *u);
void users_left(struct users *u);

#endif
