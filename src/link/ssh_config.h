/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_SSH_CONFIG_H
#define CONCC_LINK_SSH_CONFIG_H

/*
 * What the user's own SSH configuration says about a host, as `ssh -G` prints
 * it, and whether libssh2 can honour all of that.  Pure: text in, facts out.
 */
#include <stdbool.h>
#include <stddef.h>

#include "concc/err.h"

/* An address "ssh://[user@]host[:port]" taken apart; strings are owned. */
struct ssh_address {
	char *user;    /* NULL: not given */
	char *host;    /* without brackets */
	unsigned port; /* 0: not given */
};

int ssh_address_parse(const char *address, struct ssh_address *ret, struct errmsg *msg);
void ssh_address_release(struct ssh_address *a);
/* The same as words that a person gives to ssh(1): "-p 2222 me@build1"; owned. */
char *ssh_address_words(const struct ssh_address *a);

/* Words are as ssh prints them: lower-case keywords, lists joined by commas. */
struct ssh_config {
	char *hostname, *user;
	unsigned port;
	char *host_key_alias; /* NULL: none */
	char *identity_agent; /* NULL: $SSH_AUTH_SOCK; "none": no agent */
	bool identities_only;
	bool takes_new_keys; /* StrictHostKeyChecking says so: ssh accepts a key that is unknown */
	bool takes_changed_keys;  /* and one that is not the known one */
	bool checks_address;	  /* CheckHostIP: what is known of the host's address counts, too */
	char **identity_files;	  /* ~ expanded */
	char **known_hosts_files; /* the user's, then the global ones; ~ expanded */
	char *host_key_algorithms, *kex_algorithms, *ciphers, *macs;
	char *address_family; /* "any", "inet", "inet6" */
	char *unfit; /* why libssh2 can't do what is configured ("ProxyJump is set"), or NULL */
};

/* Takes any text; keywords not known here are skipped. */
void ssh_config_parse(const char *text, size_t n, struct ssh_config *ret);
void ssh_config_release(struct ssh_config *c);

/* The words of a comma-separated list that another has too, in the first one's order; owned. */
char *list_common(const char *ours, const char *theirs);

#endif
