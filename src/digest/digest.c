/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/digest.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"

struct digest_ctx {
	EVP_MD_CTX *md;
};

DEFINE_CLEANUP(struct digest_ctx, digest, digest_free);

/* libcrypto fails here only without memory or without SHA-256: neither can be worked around. */
static void must(int ok)
{
	if (ok != 1)
		abort();
}

static EVP_MD *found;
static pthread_once_t found_once = PTHREAD_ONCE_INIT;

/* Without the machine's openssl.cnf: it may name modules that a static program can't load. */
static void find_sha256(void)
{
	must(OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL)); /* the first call counts */
	found = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (!found)
		abort();
}

/* EVP_sha256() is looked for anew with each digest, which takes longer than a short one itself. */
static const EVP_MD *sha256(void)
{
	(void)pthread_once(&found_once, find_sha256);
	return found;
}

struct digest_ctx *digest_new(void)
{
	struct digest_ctx *c = xcalloc(1, sizeof(*c));

	c->md = EVP_MD_CTX_new();
	if (!c->md)
		abort();
	must(EVP_DigestInit_ex(c->md, sha256(), NULL));
	return c;
}

void digest_update(struct digest_ctx *c, const void *p, size_t n)
{
	must(EVP_DigestUpdate(c->md, p, n));
}

void digest_final(struct digest_ctx *c, struct digest *ret)
{
	must(EVP_DigestFinal_ex(c->md, ret->b, NULL));
	must(EVP_DigestInit_ex(c->md, sha256(), NULL));
}

void digest_free(struct digest_ctx *c)
{
	if (!c)
		return;
	EVP_MD_CTX_free(c->md);
	free(c);
}

void digest_of(const void *p, size_t n, struct digest *ret)
{
	must(EVP_Digest(p, n, ret->b, NULL, sha256(), NULL));
}

int digest_of_fd(int fd, struct digest *ret, uint64_t *ret_size)
{
	_cleanup_(cleanup_digest) struct digest_ctx *c = digest_new();
	_cleanup_free_ char *chunk = xmalloc(128 * 1024);
	off_t at = 0;

	for (;;) {
		ssize_t k = pread(fd, chunk, 128 * 1024, at);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			break;
		digest_update(c, chunk, (size_t)k);
		at += k;
	}
	digest_final(c, ret);
	if (ret_size)
		*ret_size = (uint64_t)at;
	return 0;
}

void digest_hex(const struct digest *d, char hex[DIGEST_HEX])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < DIGEST_SIZE; i++) {
		hex[2 * i] = digits[d->b[i] >> 4];
		hex[2 * i + 1] = digits[d->b[i] & 15];
	}
	hex[2 * DIGEST_SIZE] = '\0';
}
