/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "ssh_key.h"

#include <ctype.h>
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

#define KEY_FILE_MAX (64 * 1024) /* a 16384-bit RSA key has 13 KB */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_put(struct buf *b, const void *p, size_t n)
{
	const uint8_t *in = p;

	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)in[i] << 16;
		char out[4];

		if (i + 1 < n)
			v |= (uint32_t)in[i + 1] << 8;
		if (i + 2 < n)
			v |= in[i + 2];
		out[0] = digits[v >> 18];
		out[1] = digits[v >> 12 & 63];
		out[2] = i + 1 < n ? digits[v >> 6 & 63] : '=';
		out[3] = i + 2 < n ? digits[v & 63] : '=';
		buf_append(b, out, 4);
	}
}

void base64_get(struct buf *b, const char *s, size_t n)
{
	uint32_t v = 0;
	int bits = 0;

	for (size_t i = 0; i < n; i++) {
		const char *d;

		if (isspace((unsigned char)s[i]))
			continue;
		d = s[i] ? strchr(digits, s[i]) : NULL;
		if (!d)
			return;
		v = v << 6 | (uint32_t)(d - digits);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			buf_put_u8(b, (uint8_t)(v >> bits));
			v &= (1u << bits) - 1;
		}
	}
}

/* SSH's strings have big endian lengths, so the project's reader is no help. */
static bool get_string(const uint8_t **p, size_t *left, const uint8_t **ret, size_t *ret_n)
{
	uint32_t n;

	if (*left < sizeof(n))
		return false;
	memcpy(&n, *p, sizeof(n));
	n = be32toh(n);
	if (n > *left - sizeof(n))
		return false;
	*ret = *p + sizeof(n);
	*ret_n = n;
	*p += sizeof(n) + n;
	*left -= sizeof(n) + n;
	return true;
}

void ssh_key_type(const void *blob, size_t n, char ret[SSH_KEY_TYPE_MAX])
{
	const uint8_t *p = blob, *type;
	size_t n_type;

	ret[0] = '\0';
	if (!get_string(&p, &n, &type, &n_type) || n_type >= SSH_KEY_TYPE_MAX)
		return;
	for (size_t i = 0; i < n_type; i++)
		if (!isgraph(type[i]))
			return;
	memcpy(ret, type, n_type);
	ret[n_type] = '\0';
}

static void set_public(struct ssh_key_file *k, const uint8_t *blob, size_t n)
{
	struct buf b = BUF_INIT;

	ssh_key_type(blob, n, k->type);
	base64_put(&b, blob, n);
	k->public = xstrdup(buf_cstr(&b));
	buf_release(&b);
}

/* OpenSSH's own format says openly which key is inside and whether it is encrypted. */
static void look_openssh(struct ssh_key_file *k, const char *body, size_t n)
{
	static const char magic[] = "openssh-key-v1"; /* its NUL is part of it */
	_cleanup_buf_ struct buf raw = BUF_INIT;
	const uint8_t *p, *cipher, *skip, *blob;
	size_t left, n_cipher, n_skip, n_blob;

	base64_get(&raw, body, n);
	if (raw.len < sizeof(magic) || memcmp(raw.data, magic, sizeof(magic)) != 0)
		return;
	p = raw.data + sizeof(magic);
	left = raw.len - sizeof(magic);
	if (!get_string(&p, &left, &cipher, &n_cipher) || !get_string(&p, &left, &skip, &n_skip) ||
	    !get_string(&p, &left, &skip, &n_skip) || left < 4)
		return;
	k->encrypted = n_cipher != 4 || memcmp(cipher, "none", 4) != 0;
	p += 4; /* number of keys: always one */
	left -= 4;
	if (get_string(&p, &left, &blob, &n_blob))
		set_public(k, blob, n_blob);
}

static void look_private(struct ssh_key_file *k, const char *text)
{
	static const char openssh[] = "-----BEGIN OPENSSH PRIVATE KEY-----";
	const char *at = strstr(text, openssh);

	if (at) {
		at += sizeof(openssh) - 1;
		look_openssh(k, at, strlen(at));
		return;
	}
	if (strstr(text, "-----BEGIN RSA PRIVATE KEY-----"))
		strcpy(k->type, "ssh-rsa");
	k->encrypted = strstr(text, "Proc-Type: 4,ENCRYPTED") ||
		       strstr(text, "-----BEGIN ENCRYPTED PRIVATE KEY-----");
}

/* "type base64 comment"; the blob inside names the type itself. */
static void look_public(struct ssh_key_file *k, const char *path)
{
	char *name = xasprintf("%s.pub", path);
	_cleanup_buf_ struct buf text = BUF_INIT, blob = BUF_INIT;
	const char *space;

	if (read_file_at(AT_FDCWD, name, KEY_FILE_MAX, &text) == 0) {
		space = strchr(buf_cstr(&text), ' ');
		if (space) {
			space++;
			base64_get(&blob, space, strcspn(space, " \r\n"));
			if (blob.len)
				set_public(k, blob.data, blob.len);
		}
	}
	free(name);
}

int ssh_key_look(const char *path, struct ssh_key_file *ret)
{
	_cleanup_buf_ struct buf text = BUF_INIT;
	int err = read_file_at(AT_FDCWD, path, KEY_FILE_MAX, &text);

	if (err < 0)
		return err;
	*ret = (struct ssh_key_file){.public = NULL};
	look_private(ret, buf_cstr(&text));
	if (text.len) /* a secret: not left in freed memory */
		explicit_bzero(text.data, text.len);
	if (!ret->public)
		look_public(ret, path);
	return 0;
}

void ssh_key_file_release(struct ssh_key_file *k)
{
	free(k->public);
	*k = (struct ssh_key_file){.public = NULL};
}
