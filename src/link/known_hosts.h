/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_KNOWN_HOSTS_H
#define CONCC_LINK_KNOWN_HOSTS_H

/*
 * The keys that the user's known_hosts files hold for a host, found by
 * `ssh-keygen -F`: so patterns, hashed names, [host]:port and the @revoked and
 * @cert-authority markers mean exactly what they mean to ssh itself (libssh2's
 * own reader knows no markers and no patterns, and names no line).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/buf.h"
#include "concc/err.h"

struct ssh_config;

struct known_key {
	char *type, *key; /* "ssh-ed25519", base64 of the blob */
	char *file;
	unsigned line;
	bool authority, revoked;
};

struct known_hosts {
	char *name; /* as the files have it: host, alias or [host]:port */
	struct known_key *keys;
	size_t n;
};

enum known_verdict { KNOWN_OK, KNOWN_UNKNOWN, KNOWN_CHANGED, KNOWN_REVOKED, KNOWN_AUTHORITY };

/* Blocks; for a connecting thread.  A missing file holds no keys. */
int known_hosts_find(const struct ssh_config *c, uint64_t deadline_ms, int cancel_fd,
		     struct known_hosts *ret, struct errmsg *msg);
/* The same of the address that sock is connected to, for CheckHostIP. */
int known_hosts_find_address(const struct ssh_config *c, int sock, uint64_t deadline_ms,
			     int cancel_fd, struct known_hosts *ret, struct errmsg *msg);
void known_hosts_release(struct known_hosts *k);
/* Adds what ssh-keygen printed about one file. */
void known_hosts_parse(struct known_hosts *k, const char *file, const char *text, size_t n);

/*
 * The host key algorithms to ask the host for, so that it shows a key we know
 * and not one of another type; "" when nothing is known.
 */
void known_hosts_algorithms(const struct known_hosts *k, struct buf *out);
/* ret_key: the entry that decided, NULL when none did. */
enum known_verdict known_hosts_check(const struct known_hosts *k, const char *type, const char *key,
				     const struct known_key **ret_key);

#endif
