/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_SSH2_ATTEMPT_H
#define CONCC_LINK_SSH2_ATTEMPT_H

/*
 * One attempt to connect, in a thread of its own.
 *
 *   ssh2_connect.c  address, handshake, the host's key, the channel
 *   ssh2_login.c    the user's keys
 *   stream_ssh2.c   what comes of it
 *
 * Codes are those of ssh2_connect(), with the message set.
 */
#include <libssh2.h>
#include <stdbool.h>
#include <stddef.h>

#include "concc/buf.h"
#include "concc/err.h"
#include "known_hosts.h"
#include "stream_ssh2.h"

#define SSH2_SEEN_MAX 64 /* keys offered to one host */

struct ssh2_attempt {
	const struct ssh2_request *req;
	struct errmsg *msg;
	LIBSSH2_SESSION *session;
	int sock;
	struct known_hosts known;
	struct known_hosts known_address; /* empty where it does not count */
	struct buf tried;		  /* the keys offered, for the message */
	char *seen[SSH2_SEEN_MAX];	  /* their blobs: none is offered twice */
	size_t n_seen;
	const char *beyond; /* a key that OpenSSH could use and libssh2 can't: why */
	bool locked;	    /* a key was not offered, since nobody types its passphrase here */
};

/* Waits for what the session waits for: 0, CONCC_E_TIMEOUT, -ECANCELED or another -errno. */
int attempt_wait_session(const struct ssh2_attempt *a);

/* Repeats a libssh2 call until it does not say EAGAIN; r is its result, err ours. */
#define ATTEMPT_REPEAT(a, r, err, call)                                                            \
	do {                                                                                       \
		err = 0;                                                                           \
		while ((r = (call)) == LIBSSH2_ERROR_EAGAIN &&                                     \
		       (err = attempt_wait_session(a)) == 0)                                       \
			;                                                                          \
	} while (0)

/* In libssh2's words; borrowed until its next call. */
const char *attempt_last_error(const struct ssh2_attempt *a);
/* Sets the message of a wait that failed, and returns err. */
int attempt_ended_early(const struct ssh2_attempt *a, int err, const char *what);
/* CONCC_E_UNAVAIL: OpenSSH may do better, and why. */
int attempt_beyond(const struct ssh2_attempt *a, const char *why);
/* Has libssh2 that algorithm?  method: LIBSSH2_METHOD_*. */
bool attempt_supports(const struct ssh2_attempt *a, int method, const char *alg);

/* ---- ssh2_login.c ---- */

/* As the configured user, with the keys of the agent and of files; 0 or a negative code. */
int ssh2_login(struct ssh2_attempt *a);

/* ---- stream_ssh2.c ---- */

/* Takes over the session and its socket; `channel` belongs to the session. */
struct stream *ssh2_stream_new(struct ssh2_attempt *a, LIBSSH2_CHANNEL *channel);
/* Frees the session without waiting, and closes the socket. */
void ssh2_session_end(LIBSSH2_SESSION *session, int sock);

#endif
