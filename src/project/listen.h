/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_LISTEN_H
#define CONCC_PROJECT_LISTEN_H

/*
 * How wrappers find the server of a runtime directory: the lock that says that it is there, and
 * ready, and the socket that it listens at.  Connections are taken as long as there are descriptors
 * for them; with the one that is kept, who can't be heard is told to do without.
 */
struct errmsg;
struct server;

/* First of all, so that what it keeps has a number below any limit that is set later. */
void listen_set_up(struct server *s);
/* There is one server in each: waits for one that is about to end.  Blocks; before the loop. */
int listen_lock(struct server *s, struct errmsg *msg);
int listen_open(struct server *s, struct errmsg *msg);
/* Tells wrappers, by the lock, and who started us, by a line. */
void listen_say_ready(struct server *s);
/* Those that are in the queue of the socket; nothing when it is closed. */
void listen_take_all(struct server *s);
void listen_close(struct server *s); /* twice is fine */
/* Nobody is told any more that we are there.  Who has asked for the end sees that it has begun. */
void listen_say_ending(struct server *s);
/* And closed; the lock stays until its end. */
void listen_end(struct server *s);
void listen_learn_fd_limit(struct server *s); /* it may have been changed */
int listen_fd_limit(
	const struct server *s); /* as last learnt; none for a server that never listened */

#endif
