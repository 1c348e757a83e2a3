/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "stream_ssh2.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/link.h"
#include "concc/str.h"
#include "ssh2_attempt.h"
#include "ssh_config.h"
#include "ssh_key.h"

#define WINDOW	      (2 * 1024 * 1024) /* bytes under way to us: 100 MB/s at 20 ms */
#define PACKET	      32768
#define NOTSENT_LOWAT (128 * 1024) /* what waits in the kernel can't be overtaken any more */

/* Aes-ctr first: the fastest that libssh2 has; the rest is its own order of preference. */
#define CIPHERS "aes128-ctr,aes192-ctr,aes256-ctr"

/* 0 when fd is ready for the events, or a negative code. */
static int wait_fd(const struct ssh2_attempt *a, int fd, short events)
{
	for (;;) {
		struct pollfd p[2] = {{.fd = fd, .events = events},
				      {.fd = a->req->cancel_fd, .events = POLLIN}};
		uint64_t now = now_ms();
		int r;

		if (now >= a->req->deadline_ms)
			return CONCC_E_TIMEOUT;
		r = poll(p, 2, (int)(a->req->deadline_ms - now));
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0 && p[1].revents)
			return -ECANCELED;
		if (r > 0)
			return 0;
	}
}

int attempt_wait_session(const struct ssh2_attempt *a)
{
	int dirs = libssh2_session_block_directions(a->session);
	short events = 0;

	if (dirs & LIBSSH2_SESSION_BLOCK_OUTBOUND)
		events |= POLLOUT;
	if (dirs & LIBSSH2_SESSION_BLOCK_INBOUND || !events)
		events |= POLLIN;
	return wait_fd(a, a->sock, events);
}

const char *attempt_last_error(const struct ssh2_attempt *a)
{
	char *text = NULL;

	(void)libssh2_session_last_error(a->session, &text, NULL, 0); /* for its text only */
	return text ? text : "";
}

int attempt_ended_early(const struct ssh2_attempt *a, int err, const char *what)
{
	return errmsg_set(a->msg, err, "%s: %s: %s", a->req->address, what, err_text(err));
}

/* ---- tcp ---- */

static void tune(int sock)
{
	int one = 1, lowat = NOTSENT_LOWAT;

	/* Matters of speed only: a refusal is no reason to fail. */
	(void)setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(sock, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	(void)setsockopt(sock, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

static int connect_one(const struct ssh2_attempt *a, const struct addrinfo *ai, int *ret)
{
	_cleanup_close_ int sock = socket(
		ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
	socklen_t len = sizeof(int);
	int err, status = 0;

	if (sock < 0)
		return -errno;
	if (connect(sock, ai->ai_addr, ai->ai_addrlen) < 0) {
		if (errno != EINPROGRESS)
			return -errno;
		err = wait_fd(a, sock, POLLOUT);
		if (err < 0)
			return err;
		if (getsockopt(sock, SOL_SOCKET, SO_ERROR, &status, &len) < 0)
			return -errno;
		if (status)
			return -status;
	}
	tune(sock);
	*ret = steal_fd(&sock);
	return 0;
}

static int family_of(const char *name)
{
	if (name && streq(name, "inet"))
		return AF_INET;
	return name && streq(name, "inet6") ? AF_INET6 : AF_UNSPEC;
}

static int tcp_connect(struct ssh2_attempt *a)
{
	const struct ssh_config *c = a->req->config;
	struct addrinfo hints = {.ai_family = family_of(c->address_family),
				 .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char port[8];
	int err;

	(void)snprintf(port, sizeof(port), "%u", c->port);
	a->req->stage(a->req->data, STAGE_LOOKUP);
	err = getaddrinfo(c->hostname, port, &hints, &list);
	if (err != 0)
		return errmsg_set(a->msg, -ENOENT, "%s: looking up %s: %s", a->req->address,
				  c->hostname, gai_strerror(err));
	a->req->stage(a->req->data, STAGE_CONNECT);
	for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		err = connect_one(a, ai, &a->sock);
		if (err == 0 || err == CONCC_E_TIMEOUT || err == -ECANCELED)
			break;
	}
	freeaddrinfo(list);
	if (err < 0)
		return errmsg_set(a->msg, err, "%s: connecting to %s port %s: %s", a->req->address,
				  c->hostname, port, err_text(err));
	return 0;
}

/* ---- handshake ---- */

int attempt_beyond(const struct ssh2_attempt *a, const char *why)
{
	return errmsg_set(a->msg, CONCC_E_UNAVAIL, "%s", why);
}

/* Sets a preference to what libssh2 has, the user's configuration allows and `ours` (NULL: all)
 * prefers.  False when nothing is left. */
static bool prefer(const struct ssh2_attempt *a, int method, const char *ours, const char *users)
{
	_cleanup_buf_ struct buf all = BUF_INIT;
	const char **algs = NULL;
	char *allowed, *chosen;
	bool ok;
	int n;

	n = libssh2_session_supported_algs(a->session, method, &algs);
	for (int i = 0; i < n; i++)
		buf_putf(&all, "%s%s", i ? "," : "", algs[i]);
	if (n > 0)
		libssh2_free(a->session, algs);
	allowed = list_common(ours ? ours : buf_cstr(&all), users);
	chosen = list_common(allowed, buf_cstr(&all));
	ok = *chosen && libssh2_session_method_pref(a->session, method, chosen) == 0;
	free(allowed);
	free(chosen);
	return ok;
}

bool attempt_supports(const struct ssh2_attempt *a, int method, const char *alg)
{
	const char **algs = NULL;
	bool found = false;
	int n = libssh2_session_supported_algs(a->session, method, &algs);

	for (int i = 0; i < n; i++)
		found |= streq(algs[i], alg);
	if (n > 0)
		libssh2_free(a->session, algs);
	return found;
}

static int set_preferences(const struct ssh2_attempt *a)
{
	const struct ssh_config *c = a->req->config;
	_cleanup_buf_ struct buf host = BUF_INIT;

	known_hosts_algorithms(&a->known, &host);
	/* Of an unknown host, the key that ssh would show a person too. */
	if (!prefer(a, LIBSSH2_METHOD_HOSTKEY, host.len ? buf_cstr(&host) : c->host_key_algorithms,
		    c->host_key_algorithms))
		return attempt_beyond(a, "libssh2 has no algorithm for the known host key");
	if (!prefer(a, LIBSSH2_METHOD_KEX, NULL, c->kex_algorithms))
		return attempt_beyond(a, "libssh2 has none of the KexAlgorithms");
	if (!prefer(a, LIBSSH2_METHOD_CRYPT_CS, CIPHERS, c->ciphers) ||
	    !prefer(a, LIBSSH2_METHOD_CRYPT_SC, CIPHERS, c->ciphers))
		return attempt_beyond(a, "libssh2 has none of the Ciphers");
	if (!prefer(a, LIBSSH2_METHOD_MAC_CS, NULL, c->macs) ||
	    !prefer(a, LIBSSH2_METHOD_MAC_SC, NULL, c->macs))
		return attempt_beyond(a, "libssh2 has none of the MACs");
	return 0;
}

static int unknown_host(const struct ssh2_attempt *a, const char *what, const char *value)
{
	/* It writes down what it takes, where it is configured to. */
	if (a->req->config->takes_new_keys)
		return attempt_beyond(a, "StrictHostKeyChecking lets ssh take an unknown key");
	return errmsg_set(a->msg, CONCC_E_AUTH,
			  "%s: no key of host %s is known%s%s; run `ssh %s` once to check and "
			  "accept it",
			  a->req->address, a->known.name, what, value, a->req->words);
}

static int handshake(struct ssh2_attempt *a)
{
	int r, err;

	a->req->stage(a->req->data, STAGE_HANDSHAKE);
	err = set_preferences(a);
	if (err < 0)
		return err;
	ATTEMPT_REPEAT(a, r, err, libssh2_session_handshake(a->session, a->sock));
	if (err < 0)
		return attempt_ended_early(a, err, "SSH handshake");
	if (r == 0)
		return 0;
	if (r == LIBSSH2_ERROR_KEX_FAILURE || r == LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE ||
	    r == LIBSSH2_ERROR_METHOD_NONE) {
		/* OpenSSH would not know the host either, and its words come later. */
		if (a->known.n == 0)
			return unknown_host(a, "", "");
		return attempt_beyond(a, "libssh2 and the host share no key exchange, cipher or "
					 "host key type");
	}
	return errmsg_set(a->msg, -EPROTO, "%s: SSH handshake: %s (libssh2 %d)", a->req->address,
			  attempt_last_error(a), r);
}

/* ---- the host's key ---- */

static void put_fingerprint(const struct ssh2_attempt *a, struct buf *out)
{
	const char *hash = libssh2_hostkey_hash(a->session, LIBSSH2_HOSTKEY_HASH_SHA256);

	buf_putf(out, "SHA256:");
	if (hash)
		base64_put(out, hash, 32);
	while (out->len && out->data[out->len - 1] == '=')
		out->len--;
}

/* The host is known by its name; what ssh makes of another key for its address is ssh's to say. */
static int check_address(const struct ssh2_attempt *a, const char *type, const char *key)
{
	const struct known_key *entry;
	enum known_verdict v = known_hosts_check(&a->known_address, type, key, &entry);

	if (v == KNOWN_CHANGED || v == KNOWN_REVOKED)
		return attempt_beyond(a, "CheckHostIP: another key is known of the address");
	return 0;
}

static int check_host(const struct ssh2_attempt *a)
{
	_cleanup_buf_ struct buf key = BUF_INIT, shown = BUF_INIT;
	const struct known_key *entry;
	char type[SSH_KEY_TYPE_MAX];
	const char *blob;
	size_t n = 0;

	blob = libssh2_session_hostkey(a->session, &n, NULL);
	if (!blob)
		return errmsg_set(a->msg, CONCC_E_AUTH, "%s: the host showed no key",
				  a->req->address);
	ssh_key_type(blob, n, type);
	base64_put(&key, blob, n);
	buf_putf(&shown, "%s ", type);
	put_fingerprint(a, &shown);
	switch (known_hosts_check(&a->known, type, buf_cstr(&key), &entry)) {
	case KNOWN_OK:
		return check_address(a, type, buf_cstr(&key));
	case KNOWN_AUTHORITY:
		return attempt_beyond(a, "known_hosts has a certificate authority for the host");
	case KNOWN_REVOKED:
		return errmsg_set(a->msg, CONCC_E_AUTH, "%s: host key %s is revoked by %s:%u",
				  a->req->address, buf_cstr(&shown), entry->file, entry->line);
	case KNOWN_CHANGED:
		if (a->req->config->takes_changed_keys)
			return attempt_beyond(a,
					      "StrictHostKeyChecking lets ssh take a changed key");
		return errmsg_set(a->msg, CONCC_E_AUTH,
				  "%s: the key of host %s has CHANGED: it shows %s, which is not "
				  "the one in %s:%u; someone may be listening in. If the change "
				  "is right: ssh-keygen -f %s -R '%s', then `ssh %s` once",
				  a->req->address, a->known.name, buf_cstr(&shown), entry->file,
				  entry->line, entry->file, a->known.name, a->req->words);
	case KNOWN_UNKNOWN:
		break;
	}
	return unknown_host(a, "; it shows ", buf_cstr(&shown));
}

/* ---- the channel ---- */

static int open_channel(const struct ssh2_attempt *a, LIBSSH2_CHANNEL **ret)
{
	int err;

	for (;;) {
		*ret = libssh2_channel_open_ex(a->session, "session", sizeof("session") - 1, WINDOW,
					       PACKET, NULL, 0);
		if (*ret)
			return 0;
		if (libssh2_session_last_errno(a->session) != LIBSSH2_ERROR_EAGAIN)
			return errmsg_set(a->msg, -EPROTO, "%s: opening a channel: %s",
					  a->req->address, attempt_last_error(a));
		err = attempt_wait_session(a);
		if (err < 0)
			return attempt_ended_early(a, err, "opening a channel");
	}
}

static int start_command(const struct ssh2_attempt *a, LIBSSH2_CHANNEL **ret)
{
	int r, err;

	a->req->stage(a->req->data, STAGE_EXEC);
	err = open_channel(a, ret);
	if (err < 0)
		return err;
	ATTEMPT_REPEAT(a, r, err, libssh2_channel_exec(*ret, a->req->command));
	if (err < 0)
		return attempt_ended_early(a, err, "starting the worker");
	if (r < 0)
		return errmsg_set(a->msg, -EPROTO, "%s: starting \"%s\": %s", a->req->address,
				  a->req->command, attempt_last_error(a));
	return 0;
}

static int find_known(struct ssh2_attempt *a)
{
	const struct ssh2_request *r = a->req;
	int err = known_hosts_find(r->config, r->deadline_ms, r->cancel_fd, &a->known, a->msg);

	/* With an alias, ssh looks at no address either. */
	if (err == 0 && r->config->checks_address && !r->config->host_key_alias)
		err = known_hosts_find_address(r->config, a->sock, r->deadline_ms, r->cancel_fd,
					       &a->known_address, a->msg);
	return err;
}

static int run_attempt(struct ssh2_attempt *a, struct stream **ret)
{
	LIBSSH2_CHANNEL *channel = NULL;
	int err;

	err = tcp_connect(a);
	if (err < 0)
		return err;
	err = find_known(a);
	if (err < 0)
		return err;
	a->session = libssh2_session_init();
	if (!a->session)
		return errmsg_set(a->msg, -ENOMEM, "%s: libssh2 can't start", a->req->address);
	libssh2_session_set_blocking(a->session, 0);
	err = handshake(a);
	if (err == 0)
		err = check_host(a);
	if (err == 0)
		err = ssh2_login(a);
	if (err == 0)
		err = start_command(a, &channel);
	if (err == 0)
		*ret = ssh2_stream_new(a, channel);
	return err;
}

static void release_attempt(struct ssh2_attempt *a)
{
	if (a->session)
		ssh2_session_end(a->session, a->sock);
	else if (a->sock >= 0)
		close(a->sock);
	known_hosts_release(&a->known);
	known_hosts_release(&a->known_address);
	for (size_t i = 0; i < a->n_seen; i++)
		free(a->seen[i]);
	buf_release(&a->tried);
}

static int init_error;

static void init_once(void)
{
	init_error = libssh2_init(0);
}

int ssh2_connect(const struct ssh2_request *r, struct stream **ret, struct errmsg *msg)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct ssh2_attempt a = {.req = r, .msg = msg, .sock = -1};
	int err;

	/* libssh2_init() is not thread safe by itself. */
	(void)pthread_once(&once, init_once); /* fails for a bad `once` only */
	if (init_error)
		return errmsg_set(msg, CONCC_E_UNAVAIL, "libssh2 can't start");
	err = run_attempt(&a, ret);
	release_attempt(&a);
	return err;
}
