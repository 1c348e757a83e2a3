/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_SSH_KEY_H
#define CONCC_LINK_SSH_KEY_H

/* What an SSH key is, from its public blob or its file, without using it. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/buf.h"

#define SSH_KEY_TYPE_MAX 64

void base64_put(struct buf *b, const void *p, size_t n); /* with padding */
/* Decodes up to the first byte that is no base64; white space is skipped. */
void base64_get(struct buf *b, const char *s, size_t n);

/* "ssh-ed25519", ... from a public blob; "" when it is none. */
void ssh_key_type(const void *blob, size_t n, char ret[SSH_KEY_TYPE_MAX]);

struct ssh_key_file {
	char type[SSH_KEY_TYPE_MAX]; /* "" when unknown */
	bool encrypted;
	char *public; /* base64 of the public blob, NULL when unknown; owned */
};

/* Looks at path and path.pub.  -errno when the private one can't be read. */
int ssh_key_look(const char *path, struct ssh_key_file *ret);
void ssh_key_file_release(struct ssh_key_file *k);

#endif
