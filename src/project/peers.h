/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_PEERS_H
#define CONCC_PROJECT_PEERS_H

/*
 * All workers of the configuration together: which are up, and the SSH agent of another login for
 * those that could not be reached.  One of them is peer.c's.
 */
#include <stdbool.h>
#include <stdint.h>

struct peer;
struct server;

/* Those of the configuration; all that may not sleep begin to connect. */
void peers_start(struct server *s);
struct peer *server_peer(struct server *s, const char *name);
bool peers_any_up(const struct server *s);
bool peers_any_connecting(const struct server *s);
bool peers_any_down(const struct server *s);	   /* or tried again after that */
bool peers_settled(const struct server *s);	   /* every one is up or has failed at least once */
void peers_on_call(void *server, uint32_t events); /* the pool's FIFO is readable */
/* Of a login that wants them: they are tried with it, as soon as no attempt is under way. */
void peers_offer_agent(struct server *s, const char *sock);
void peers_try_agent(struct server *s); /* an attempt is over: is one to be taken now? */

#endif
