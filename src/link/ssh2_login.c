/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "ssh2_attempt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "ssh_config.h"
#include "ssh_key.h"

static bool has_rsa_sha2(const struct ssh2_attempt *a)
{
	return attempt_supports(a, LIBSSH2_METHOD_HOSTKEY, "rsa-sha2-256");
}

static bool is_seen(const struct ssh2_attempt *a, const char *key)
{
	for (size_t i = 0; i < a->n_seen; i++)
		if (streq(a->seen[i], key))
			return true;
	return false;
}

static void note_tried(struct ssh2_attempt *a, const char *key, const char *name)
{
	char *shown = str_escape(name, strlen(name), 80);

	buf_putf(&a->tried, "%s%s", a->tried.len ? ", " : "", shown);
	free(shown);
	if (key && a->n_seen < SSH2_SEEN_MAX)
		a->seen[a->n_seen++] = xstrdup(key);
}

/* False, with the reason noted, for a key that libssh2 can't use at all. */
static bool can_use(struct ssh2_attempt *a, const char *type)
{
	if (!str_starts(type, "sk-") && !strstr(type, "-cert-"))
		return true;
	a->beyond = "libssh2 can't use a security key or certificate that is there";
	return false;
}

/* After a refusal: is the session of any use, and might OpenSSH do better? */
static bool goes_on(struct ssh2_attempt *a, const char *type, int r)
{
	if (streq(type, "ssh-rsa") && !has_rsa_sha2(a))
		a->beyond = "an RSA key needs rsa-sha2 signatures, which libssh2 " LIBSSH2_VERSION
			    " lacks";
	return r != LIBSSH2_ERROR_SOCKET_DISCONNECT && r != LIBSSH2_ERROR_SOCKET_SEND &&
	       r != LIBSSH2_ERROR_SOCKET_RECV;
}

/* With IdentitiesOnly, the agent's keys count only when a configured file names them. */
static bool is_configured(const struct ssh_config *c, const char *key)
{
	bool found = !c->identities_only;

	for (char **f = c->identity_files; f && *f && !found; f++) {
		struct ssh_key_file k;

		if (ssh_key_look(*f, &k) < 0)
			continue;
		found = k.public && streq(k.public, key);
		ssh_key_file_release(&k);
	}
	return found;
}

/* 1 when logged in, 0 to try on, or a negative code. */
static int try_agent_key(struct ssh2_attempt *a, LIBSSH2_AGENT *agent,
			 struct libssh2_agent_publickey *id)
{
	_cleanup_buf_ struct buf key = BUF_INIT;
	char type[SSH_KEY_TYPE_MAX];
	int r, err;

	ssh_key_type(id->blob, id->blob_len, type);
	base64_put(&key, id->blob, id->blob_len);
	if (!is_configured(a->req->config, buf_cstr(&key)) || !can_use(a, type))
		return 0;
	ATTEMPT_REPEAT(a, r, err, libssh2_agent_userauth(agent, a->req->config->user, id));
	if (err < 0)
		return attempt_ended_early(a, err, "logging in with a key of the agent");
	if (r == 0)
		return 1;
	note_tried(a, buf_cstr(&key), id->comment && *id->comment ? id->comment : type);
	return goes_on(a, type, r) ? 0 : -ECONNRESET;
}

static int try_agent_keys(struct ssh2_attempt *a, LIBSSH2_AGENT *agent)
{
	struct libssh2_agent_publickey *id, *prev = NULL;
	int r = 0;

	if (libssh2_agent_connect(agent) != 0 || libssh2_agent_list_identities(agent) != 0)
		return 0; /* no agent is no error: the files remain */
	while (r == 0 && libssh2_agent_get_identity(agent, &id, prev) == 0) {
		r = try_agent_key(a, agent, id);
		prev = id;
	}
	(void)libssh2_agent_disconnect(agent); /* our side of a socket */
	return r;
}

static int try_agent(struct ssh2_attempt *a)
{
	const char *path = a->req->config->identity_agent;
	LIBSSH2_AGENT *agent;
	int r;

	if (path ? streq(path, "none") : !getenv("SSH_AUTH_SOCK"))
		return 0;
	agent = libssh2_agent_init(a->session);
	if (!agent)
		return 0;
	if (path)
		libssh2_agent_set_identity_path(agent, path);
	r = try_agent_keys(a, agent);
	libssh2_agent_free(agent);
	return r;
}

static bool certificate_beside(const char *path)
{
	char *name = xasprintf("%s-cert.pub", path);
	bool there = access(name, R_OK) == 0;

	free(name);
	return there;
}

static int try_file(struct ssh2_attempt *a, const char *path, const struct ssh_key_file *k)
{
	_cleanup_free_ char *shown = NULL;
	int r, err;

	if (certificate_beside(path))
		a->beyond = "a certificate stands beside a key file";
	if ((k->public && is_seen(a, k->public)) || !can_use(a, k->type))
		return 0;
	if (k->encrypted) {
		shown = xasprintf("%s (needs its passphrase: ssh-add it)", path);
		note_tried(a, k->public, shown);
		a->locked = true;
		return 0;
	}
	ATTEMPT_REPEAT(a, r, err,
		       libssh2_userauth_publickey_fromfile(a->session, a->req->config->user, NULL,
							   path, NULL));
	if (err < 0)
		return attempt_ended_early(a, err, "logging in");
	if (r == 0)
		return 1;
	if (r == LIBSSH2_ERROR_FILE)
		a->beyond = "libssh2 can't read the format of a key file";
	note_tried(a, k->public, path);
	return goes_on(a, k->type, r) ? 0 : -ECONNRESET;
}

/* The defaults are named whether they exist or not. */
static void note_unreadable(struct ssh2_attempt *a, const char *path, int err)
{
	_cleanup_free_ char *shown = xasprintf("%s (can't be read: %s)", path, err_text(err));

	if (err != -ENOENT && err != -ENOTDIR)
		note_tried(a, NULL, shown);
}

static int try_files(struct ssh2_attempt *a)
{
	int r = 0;

	for (char **f = a->req->config->identity_files; f && *f && r == 0; f++) {
		struct ssh_key_file k;
		int err = ssh_key_look(*f, &k);

		if (err < 0) {
			note_unreadable(a, *f, err);
			continue;
		}
		r = try_file(a, *f, &k);
		ssh_key_file_release(&k);
	}
	return r;
}

/* Of names with commas between them. */
static bool takes(const char *methods, const char *method)
{
	size_t n = strlen(method);

	for (const char *m = methods; (m = strstr(m, method)); m += n) {
		if ((m == methods || m[-1] == ',') && (!m[n] || m[n] == ','))
			return true;
	}
	return false;
}

static int not_let_in(const struct ssh2_attempt *a, const char *methods)
{
	struct buf *tried = (struct buf *)&a->tried;
	bool copies = !a->locked && takes(methods, "publickey") &&
		      (takes(methods, "password") || takes(methods, "keyboard-interactive"));
	/* Who types a password can put a key there. */
	_cleanup_free_ char *then =
		copies ? xasprintf("nobody types a password here: %s`ssh-copy-id %s` lets a key in",
				   tried->len ? "" : "`ssh-keygen`, then ", a->req->words)
		       : xasprintf("does `ssh -o BatchMode=yes %s true` work?", a->req->words);

	return errmsg_set(a->msg, CONCC_E_AUTH,
			  "%s: user %s was not let in with a key (tried: %s; the host takes: %s); "
			  "%s",
			  a->req->address, a->req->config->user,
			  tried->len ? buf_cstr(tried) : "none, there is no key", methods, then);
}

/* 0 with the list of methods (owned by the session), or NULL in it when none is needed. */
static int ask_methods(const struct ssh2_attempt *a, const char **ret)
{
	const char *user = a->req->config->user;
	int err;

	for (;;) {
		*ret = libssh2_userauth_list(a->session, user, (unsigned)strlen(user));
		if (*ret || libssh2_userauth_authenticated(a->session))
			return 0;
		if (libssh2_session_last_errno(a->session) != LIBSSH2_ERROR_EAGAIN)
			return errmsg_set(a->msg, -EPROTO, "%s: logging in: %s", a->req->address,
					  attempt_last_error(a));
		err = attempt_wait_session(a);
		if (err < 0)
			return attempt_ended_early(a, err, "logging in");
	}
}

int ssh2_login(struct ssh2_attempt *a)
{
	const char *methods;
	char *kept;
	int r;

	a->req->stage(a->req->data, STAGE_LOGIN);
	r = ask_methods(a, &methods);
	if (r < 0 || !methods)
		return r;
	if (!strstr(methods, "publickey"))
		return attempt_beyond(a, "the host takes no public keys");
	kept = str_escape(methods, strlen(methods), 80); /* the session reuses its memory */
	r = try_agent(a);
	if (r == 0)
		r = try_files(a);
	if (r == 0 || r == -ECONNRESET)
		r = a->beyond ? attempt_beyond(a, a->beyond) : not_let_in(a, kept);
	free(kept);
	return r < 0 ? r : 0;
}
