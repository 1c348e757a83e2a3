/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "peers.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "peer.h"
#include "server.h"
#include "wake.h"

struct peer *server_peer(struct server *s, const char *name)
{
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (streq(s->peers[i]->conf->name, name))
			return s->peers[i];
	}
	return NULL;
}

bool peers_any_up(const struct server *s)
{
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (s->peers[i]->state == PEER_UP)
			return true;
	}
	return false;
}

bool peers_settled(const struct server *s)
{
	if (s->next_agent)
		return false; /* they are about to be tried again */
	for (unsigned i = 0; i < s->n_peers; i++) {
		const struct peer *p = s->peers[i];

		if (p->state != PEER_UP && p->state != PEER_ASLEEP &&
		    !(p->state == PEER_DOWN && p->failures))
			return false;
	}
	return true;
}

/* ---- the SSH agent of another login ---- */

bool peers_any_down(const struct server *s)
{
	for (unsigned i = 0; i < s->n_peers; i++) {
		const struct peer *p = s->peers[i];

		if (p->state == PEER_DOWN || (p->state == PEER_CONNECTING && p->failures))
			return true;
	}
	return false;
}

bool peers_any_connecting(const struct server *s)
{
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (s->peers[i]->state == PEER_CONNECTING)
			return true;
	}
	return false;
}

/* Threads that connect read the environment, so it is changed when there are none. */
static void adopt_agent(void *data)
{
	struct server *s = data;
	_cleanup_free_ char *agent = NULL;

	if (!s->next_agent || peers_any_connecting(s))
		return;
	agent = steal_ptr(&s->next_agent);
	log_info("SSH_AUTH_SOCK is %s from now on", agent);
	setenv("SSH_AUTH_SOCK", agent, 1);
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (s->peers[i]->state == PEER_DOWN)
			peer_start(s->peers[i]);
	}
	server_ready_check(s);
}

void peers_try_agent(struct server *s)
{
	if (s->next_agent)
		loop_defer(s->loop, adopt_agent, s);
}

void peers_offer_agent(struct server *s, const char *sock)
{
	free(s->next_agent);
	s->next_agent = xstrdup(sock);
	peers_try_agent(s);
}

/* ---- workers that are asleep ---- */

void peers_on_call(void *data, uint32_t events)
{
	char name[POOL_NAME_MAX + 1];
	struct server *s = data;

	while (pool_next_call(s->pool, name) == 0) {
		struct peer *p = *name ? server_peer(s, name) : NULL;

		if (p && p->state == PEER_ASLEEP)
			peer_start(p);
	}
	wake_workers(s);
}

/* ---- their beginning ---- */

void peers_start(struct server *s)
{
	s->n_peers = (unsigned)s->conf->n_workers;
	s->peers = xcalloc(s->n_peers + 1, sizeof(*s->peers));
	wake_open(s);
	for (unsigned i = 0; i < s->n_peers; i++)
		s->peers[i] = peer_new(s, i, &s->conf->workers[i]);
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (s->peers[i]->state != PEER_ASLEEP)
			peer_start(s->peers[i]);
	}
	wake_workers(s); /* of a server that died, calls may have been lost */
}
