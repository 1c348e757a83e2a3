/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_STREAM_SSH2_H
#define CONCC_LINK_STREAM_SSH2_H

/* A stream over one channel of an SSH session of our own, by libssh2. */
#include <stdint.h>

#include "concc/err.h"

struct ssh_config;
struct stream;

/* What a connecting thread is at, for the message of a time-out. */
enum ssh2_stage {
	STAGE_CONFIG,
	STAGE_LOOKUP,
	STAGE_CONNECT,
	STAGE_HANDSHAKE,
	STAGE_LOGIN,
	STAGE_EXEC
};

struct ssh2_request {
	const char *worker;  /* name, for logs */
	const char *address; /* as it was configured, for messages */
	const char *words;   /* what a person gives to ssh(1): "-p 2222 me@host" */
	const struct ssh_config *config;
	const char *command; /* for the remote shell */
	uint64_t deadline_ms;
	int cancel_fd;
	void (*stage)(void *data, enum ssh2_stage stage);
	void *data;
};

/*
 * Blocks, up to the deadline: for a thread of its own.  CONCC_E_UNAVAIL when
 * OpenSSH's client could do what libssh2 can't; msg then holds the reason only.
 * The stream belongs to whichever thread uses it next.
 */
int ssh2_connect(const struct ssh2_request *r, struct stream **ret, struct errmsg *msg);

#endif
