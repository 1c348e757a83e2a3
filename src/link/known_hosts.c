/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "known_hosts.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "spawn.h"
#include "ssh_config.h"

#define OUTPUT_MAX (256 * 1024)
#define KEYS_MAX   256 /* of one host; a wildcard authority file has a handful */
#define SSH_PORT   22

static void add_key(struct known_hosts *k, const struct known_key *key)
{
	k->keys = xrealloc(k->keys, (k->n + 1) * sizeof(*k->keys));
	k->keys[k->n++] = *key;
}

/* "[@marker] names type key [comment]" */
static void take_key_line(struct known_hosts *k, const char *file, unsigned line_number, char *line)
{
	char *save = NULL, *word = strtok_r(line, " \t", &save);
	struct known_key key = {.line = line_number};

	if (word && word[0] == '@') {
		key.authority = streq(word, "@cert-authority");
		key.revoked = streq(word, "@revoked");
		if (!key.authority && !key.revoked)
			return;
		word = strtok_r(NULL, " \t", &save);
	}
	key.type = strtok_r(NULL, " \t", &save);
	key.key = strtok_r(NULL, " \t", &save);
	if (!word || !key.type || !key.key || k->n == KEYS_MAX)
		return;
	key.type = xstrdup(key.type);
	key.key = xstrdup(key.key);
	key.file = xstrdup(file);
	add_key(k, &key);
}

void known_hosts_parse(struct known_hosts *k, const char *file, const char *text, size_t n)
{
	char *copy = xstrndup(text, n), *save = NULL;
	unsigned number = 0;

	for (char *line = strtok_r(copy, "\r\n", &save); line;
	     line = strtok_r(NULL, "\r\n", &save)) {
		const char *found = line[0] == '#' ? strstr(line, " found: line ") : NULL;

		if (found)
			number = (unsigned)strtoul(found + strlen(" found: line "), NULL, 10);
		else if (line[0] != '#' && number)
			take_key_line(k, file, number, line);
	}
	free(copy);
}

static int search_file(struct known_hosts *k, const char *name, const char *file,
		       uint64_t deadline_ms, int cancel_fd, struct errmsg *msg)
{
	const char *const argv[] = {"ssh-keygen", "-F", name, "-f", file, NULL};
	_cleanup_buf_ struct buf out = BUF_INIT;
	int status, err;

	if (access(file, R_OK) < 0)
		return 0;
	err = spawn_capture((char *const *)argv, OUTPUT_MAX, deadline_ms, cancel_fd, &out, &status);
	if (err < 0)
		return errmsg_set(msg, err, "looking for %s in %s with ssh-keygen: %s", name, file,
				  err_text(err));
	/* Its exit status differs by version for "not there"; what it printed decides. */
	known_hosts_parse(k, file, buf_cstr(&out), out.len);
	return 0;
}

static int search_files(struct known_hosts *k, const char *name, char *const *files,
			uint64_t deadline_ms, int cancel_fd, struct errmsg *msg)
{
	for (; files && *files; files++) {
		int err = search_file(k, name, *files, deadline_ms, cancel_fd, msg);

		if (err < 0)
			return err;
	}
	return 0;
}

static char *lower(const char *s)
{
	char *copy = xstrdup(s);

	for (char *p = copy; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return copy;
}

static int find(const struct ssh_config *c, const char *name, bool with_port, uint64_t deadline_ms,
		int cancel_fd, struct known_hosts *ret, struct errmsg *msg)
{
	_cleanup_free_ char *host = lower(name);
	struct known_hosts k = {0};
	int err;

	k.name = with_port ? xasprintf("[%s]:%u", host, c->port) : xstrdup(host);
	err = search_files(&k, k.name, c->known_hosts_files, deadline_ms, cancel_fd, msg);
	if (err == 0 && k.n == 0 && with_port) {
		/* As ssh does: a key known for the host counts on every port of it. */
		err = search_files(&k, host, c->known_hosts_files, deadline_ms, cancel_fd, msg);
		if (err == 0 && k.n > 0) {
			free(k.name);
			k.name = steal_ptr(&host);
		}
	}
	if (err < 0)
		known_hosts_release(&k);
	else
		*ret = k;
	return err;
}

int known_hosts_find(const struct ssh_config *c, uint64_t deadline_ms, int cancel_fd,
		     struct known_hosts *ret, struct errmsg *msg)
{
	const char *name = c->host_key_alias ? c->host_key_alias : c->hostname;
	bool with_port = !c->host_key_alias && c->port != SSH_PORT;

	return find(c, name, with_port, deadline_ms, cancel_fd, ret, msg);
}

int known_hosts_find_address(const struct ssh_config *c, int sock, uint64_t deadline_ms,
			     int cancel_fd, struct known_hosts *ret, struct errmsg *msg)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	char name[NI_MAXHOST];

	if (getpeername(sock, (struct sockaddr *)&peer, &len) < 0)
		return errmsg_set(msg, -errno, "%s: its address: %s", c->hostname,
				  err_text(-errno));
	if (getnameinfo((struct sockaddr *)&peer, len, name, sizeof(name), NULL, 0,
			NI_NUMERICHOST) != 0)
		return errmsg_set(msg, -EINVAL, "%s: its address has no name", c->hostname);
	return find(c, name, c->port != SSH_PORT, deadline_ms, cancel_fd, ret, msg);
}

void known_hosts_release(struct known_hosts *k)
{
	for (size_t i = 0; i < k->n; i++) {
		free(k->keys[i].type);
		free(k->keys[i].key);
		free(k->keys[i].file);
	}
	free(k->keys);
	free(k->name);
	*k = (struct known_hosts){0};
}

static bool is_plain(const struct known_key *key)
{
	return !key->authority && !key->revoked;
}

static bool type_seen_before(const struct known_hosts *k, size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (is_plain(&k->keys[j]) && streq(k->keys[j].type, k->keys[i].type))
			return true;
	return false;
}

void known_hosts_algorithms(const struct known_hosts *k, struct buf *out)
{
	for (size_t i = 0; i < k->n; i++) {
		const char *type = k->keys[i].type;

		if (!is_plain(&k->keys[i]) || type_seen_before(k, i))
			continue;
		/* An RSA key signs in three ways; the old one with SHA-1 comes last. */
		if (streq(type, "ssh-rsa"))
			buf_putf(out, "%srsa-sha2-512,rsa-sha2-256,ssh-rsa", out->len ? "," : "");
		else
			buf_putf(out, "%s%s", out->len ? "," : "", type);
	}
}

enum known_verdict known_hosts_check(const struct known_hosts *k, const char *type, const char *key,
				     const struct known_key **ret_key)
{
	enum known_verdict v = KNOWN_UNKNOWN;

	*ret_key = NULL;
	for (size_t i = 0; i < k->n; i++) {
		const struct known_key *e = &k->keys[i];
		bool same = streq(e->type, type) && streq(e->key, key);

		if (e->revoked && same) {
			*ret_key = e;
			return KNOWN_REVOKED;
		}
		if (e->revoked || v == KNOWN_OK)
			continue;
		if (e->authority) {
			if (v == KNOWN_UNKNOWN)
				v = KNOWN_AUTHORITY;
			continue;
		}
		if (same) {
			v = KNOWN_OK;
			*ret_key = e;
		} else if (v != KNOWN_CHANGED) {
			v = KNOWN_CHANGED;
			*ret_key = e;
		}
	}
	return v;
}
