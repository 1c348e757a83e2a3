/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "stream_ssh2.h"

#include <errno.h>
#include <libssh2.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/link.h"
#include "concc/log.h"
#include "concc/loop.h"
#include "concc/str.h"
#include "known_hosts.h"
#include "said.h"
#include "ssh_config.h"
#include "ssh_key.h"

#define WINDOW	      (2 * 1024 * 1024) /* bytes under way to us: 100 MB/s at 20 ms */
#define PACKET	      32768
#define NOTSENT_LOWAT (128 * 1024) /* what waits in the kernel can't be overtaken any more */
#define READ_UNIT     (64 * 1024)  /* of every read; a link always has room for it */
#define GRACE_MS      2000	   /* for the exit status to follow the end of the output */
#define SEEN_MAX      64	   /* keys offered to one host */

/* Aes-ctr first: the fastest that libssh2 has; the rest is its own order of preference. */
#define CIPHERS "aes128-ctr,aes192-ctr,aes256-ctr"

/* ---- the stream ---- */

enum owner { OWNER_NONE, OWNER_READ, OWNER_WRITE };

struct stream_ssh2 {
	struct stream stream;
	LIBSSH2_SESSION *session;
	LIBSSH2_CHANNEL *channel;
	int sock;
	char *worker;
	/*
	 * Whose packet is half sent.  libssh2 keeps the rest of it in the session
	 * and refuses every other packet until the same call was repeated.
	 */
	enum owner owner;
	size_t offered;	  /* bytes of the write that said EAGAIN: they are offered again */
	struct buf ahead; /* read while a write had to wait for OWNER_READ */
	bool put_off;	  /* a read waits for the end of a half sent write */
	bool at_end;	  /* the remote process's output ended */
	int grace_fd;
	struct said said;
	struct buf why;
	char error[128]; /* of the session, when it broke */
};

static bool sends_blocked(const struct stream_ssh2 *s)
{
	return libssh2_session_block_directions(s->session) & LIBSSH2_SESSION_BLOCK_OUTBOUND;
}

/* Notes whether the call that returned r left a packet half sent. */
static void note_owner(struct stream_ssh2 *s, enum owner who, ssize_t r)
{
	if (s->owner != OWNER_NONE && s->owner != who)
		return;
	s->owner = r == LIBSSH2_ERROR_EAGAIN && sends_blocked(s) ? who : OWNER_NONE;
}

static int session_error(struct stream_ssh2 *s, ssize_t r)
{
	char *text = NULL;

	(void)libssh2_session_last_error(s->session, &text, NULL, 0); /* the code is r */
	(void)snprintf(s->error, sizeof(s->error), "libssh2: %s (%zd)", text ? text : "error", r);
	return -ECONNRESET;
}

/*
 * Every read goes through here, with READ_UNIT for its size: what a read adds to
 * the window depends on the size asked for, and one that is repeated to finish
 * its half sent window adjustment must add what the first one announced.
 * Otherwise libssh2 1.10 counts less than the remote was given, and silently
 * drops what the remote sends beyond that.
 */
static ssize_t channel_read(struct stream_ssh2 *s, int stream_id, void *p)
{
	ssize_t r = libssh2_channel_read_ex(s->channel, stream_id, p, READ_UNIT);

	note_owner(s, OWNER_READ, r);
	return r;
}

/*
 * Behind a half sent write no window adjustment can go out: the read fails with
 * SOCKET_SEND, and libssh2's count of the window is wrong from then on.  So
 * there is no read that would want to send one.
 */
static bool may_read(struct stream_ssh2 *s)
{
	unsigned long initial = 0, window;

	if (s->owner != OWNER_WRITE)
		return true;
	window = libssh2_channel_window_read_ex(s->channel, NULL, &initial);
	return window >= initial / 4 * 3 + READ_UNIT;
}

/* Undrained, the remote's stderr would eat up the window of its stdout. */
static void drain_stderr(struct stream_ssh2 *s)
{
	uint8_t part[READ_UNIT];
	ssize_t r;

	while (s->owner == OWNER_NONE && libssh2_poll_channel_read(s->channel, 1)) {
		r = channel_read(s, SSH_EXTENDED_DATA_STDERR, part);
		if (r <= 0)
			return;
		said_add(&s->said, s->worker, part, (size_t)r);
	}
}

static void start_grace(struct stream_ssh2 *s)
{
	struct itimerspec its = {.it_value.tv_sec = GRACE_MS / 1000,
				 .it_value.tv_nsec = (GRACE_MS % 1000) * 1000000};

	s->at_end = true;
	s->grace_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->grace_fd >= 0)
		(void)timerfd_settime(s->grace_fd, 0, &its, NULL); /* valid by constants */
}

static bool grace_is_over(const struct stream_ssh2 *s)
{
	struct pollfd p = {.fd = s->grace_fd, .events = POLLIN};

	return s->grace_fd < 0 || poll(&p, 1, 0) > 0;
}

/* The end is told once the channel was closed, for the exit status comes before that. */
static ssize_t read_end(struct stream_ssh2 *s)
{
	int r;

	drain_stderr(s);
	r = libssh2_channel_wait_closed(s->channel);
	return r == LIBSSH2_ERROR_EAGAIN && !grace_is_over(s) ? -EAGAIN : 0;
}

static ssize_t take_ahead(struct stream_ssh2 *s, void *p, size_t n)
{
	n = n < s->ahead.len ? n : s->ahead.len;
	memcpy(p, s->ahead.data, n);
	buf_consume(&s->ahead, n);
	return (ssize_t)n;
}

/* Reads into s->ahead. */
static ssize_t read_ahead(struct stream_ssh2 *s)
{
	size_t before = s->ahead.len;
	ssize_t r = channel_read(s, 0, buf_grow(&s->ahead, READ_UNIT));

	s->ahead.len = before + (r > 0 ? (size_t)r : 0);
	return r;
}

static ssize_t ssh2_read(struct stream *stream, void *p, size_t n)
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;
	ssize_t r;

	s->stream.inside = false;
	if (s->ahead.len)
		return take_ahead(s, p, n);
	if (s->at_end)
		return read_end(s);
	s->put_off = !may_read(s);
	if (s->put_off)
		return -EAGAIN;
	r = n >= READ_UNIT ? channel_read(s, 0, p) : read_ahead(s);
	if (r > 0)
		return n >= READ_UNIT ? r : take_ahead(s, p, n);
	if (r < 0 && r != LIBSSH2_ERROR_EAGAIN)
		return session_error(s, r);
	drain_stderr(s);
	if (!libssh2_channel_eof(s->channel))
		return -EAGAIN;
	start_grace(s);
	return read_end(s);
}

/* Finishes what a read left half sent, without losing what the read brings.  True when done. */
static bool finish_read(struct stream_ssh2 *s)
{
	(void)read_ahead(s); /* an error comes again, to the next read or write */
	return s->owner != OWNER_READ;
}

static ssize_t write_channel(struct stream_ssh2 *s, const void *p, size_t n)
{
	ssize_t r;

	if (s->owner == OWNER_READ && !finish_read(s))
		return -EAGAIN;
	if (s->offered)
		n = s->offered;
	r = libssh2_channel_write(s->channel, p, n);
	note_owner(s, OWNER_WRITE, r);
	s->offered = r == LIBSSH2_ERROR_EAGAIN ? n : 0;
	if (r > 0)
		return r;
	if (r == 0 || r == LIBSSH2_ERROR_EAGAIN)
		return -EAGAIN;
	/* The remote process closed its input or is gone; the session may be well. */
	if (r == LIBSSH2_ERROR_CHANNEL_CLOSED || r == LIBSSH2_ERROR_CHANNEL_EOF_SENT)
		return -EPIPE;
	return session_error(s, r);
}

/*
 * A write takes in all that has come before it sends, so that the socket goes
 * quiet while libssh2 holds data, or the end of it.  And a read that had to
 * wait for this write may open the window now; the remote may wait for that.
 */
static bool holds_input(struct stream_ssh2 *s)
{
	if (s->put_off && s->owner == OWNER_NONE) {
		s->put_off = false;
		return true;
	}
	return s->ahead.len || libssh2_poll_channel_read(s->channel, 1) ||
	       (!s->at_end && libssh2_channel_eof(s->channel));
}

static ssize_t ssh2_write(struct stream *stream, const void *p, size_t n)
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;
	ssize_t r = write_channel(s, p, n);

	s->stream.inside = holds_input(s);
	return r;
}

static void ssh2_want(struct stream *stream, bool reading, bool blocked, int fds[2],
		      uint32_t events[2])
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;

	fds[0] = fds[1] = -1;
	events[0] = events[1] = 0;
	if (!reading && !blocked)
		return;
	/* A write may wait for the remote's window, so for input. */
	fds[0] = s->sock;
	events[0] = (s->put_off ? 0u : LOOP_READ) | (sends_blocked(s) ? LOOP_WRITE : 0u);
	if (s->at_end) {
		fds[1] = s->grace_fd;
		events[1] = LOOP_READ;
	}
}

static void put_remote_end(struct stream_ssh2 *s)
{
	char *signal = NULL;
	size_t n = 0;

	(void)libssh2_channel_get_exit_signal(s->channel, &signal, &n, NULL, NULL, NULL, NULL);
	if (signal) {
		char *shown = str_escape(signal, n, 16);

		buf_putf(&s->why, "killed by signal %s", shown);
		free(shown);
		libssh2_free(s->session, signal);
	} else {
		buf_putf(&s->why, "exit status %d", libssh2_channel_get_exit_status(s->channel));
	}
}

static const char *ssh2_explain(struct stream *stream)
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;

	buf_reset(&s->why);
	if (s->error[0])
		buf_putf(&s->why, "%s", s->error);
	else if (s->at_end && libssh2_channel_wait_closed(s->channel) == 0)
		put_remote_end(s);
	said_put(&s->said, &s->why);
	return buf_cstr(&s->why);
}

/* The session is freed without being waited for: its socket takes nothing any more. */
static void session_end(LIBSSH2_SESSION *session, int sock)
{
	(void)shutdown(sock, SHUT_RDWR);
	/* Each call gets one step further; a dead socket can't block it for ever. */
	for (int i = 0; i < 16 && libssh2_session_free(session) == LIBSSH2_ERROR_EAGAIN; i++)
		;
	close(sock);
}

static void ssh2_free(struct stream *stream)
{
	struct stream_ssh2 *s = (struct stream_ssh2 *)stream;

	if (!s->error[0] && s->owner == OWNER_NONE)
		(void)libssh2_session_disconnect(s->session, "done"); /* a courtesy */
	session_end(s->session, s->sock);
	if (s->grace_fd >= 0)
		close(s->grace_fd);
	buf_release(&s->ahead);
	buf_release(&s->why);
	said_release(&s->said);
	free(s->worker);
	free(s);
}

static const struct stream_ops ssh2_ops = {
	.read = ssh2_read,
	.write = ssh2_write,
	.want = ssh2_want,
	.explain = ssh2_explain,
	.free = ssh2_free,
};

/* ---- connecting: all below runs in a thread of its own ---- */

struct attempt {
	const struct ssh2_request *req;
	struct errmsg *msg;
	LIBSSH2_SESSION *session;
	int sock;
	struct known_hosts known;
	struct known_hosts known_address; /* empty where it does not count */
	struct buf tried;		  /* the keys offered, for the message */
	char *seen[SEEN_MAX];		  /* their blobs: none is offered twice */
	size_t n_seen;
	const char *beyond; /* a key that OpenSSH could use and libssh2 can't: why */
};

static const char *address(const struct attempt *a)
{
	return a->req->address;
}

/* 0 when fd is ready for the events, or a negative code. */
static int wait_fd(const struct attempt *a, int fd, short events)
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

static int wait_session(const struct attempt *a)
{
	int dirs = libssh2_session_block_directions(a->session);
	short events = 0;

	if (dirs & LIBSSH2_SESSION_BLOCK_OUTBOUND)
		events |= POLLOUT;
	if (dirs & LIBSSH2_SESSION_BLOCK_INBOUND || !events)
		events |= POLLIN;
	return wait_fd(a, a->sock, events);
}

/* Repeats a libssh2 call until it does not say EAGAIN; r is its result, err ours. */
#define REPEAT(a, r, err, call)                                                                    \
	do {                                                                                       \
		err = 0;                                                                           \
		while ((r = (call)) == LIBSSH2_ERROR_EAGAIN && (err = wait_session(a)) == 0)       \
			;                                                                          \
	} while (0)

static const char *last_error(const struct attempt *a)
{
	char *text = NULL;

	(void)libssh2_session_last_error(a->session, &text, NULL, 0); /* for its text only */
	return text ? text : "";
}

static int ended_early(const struct attempt *a, int err, const char *what)
{
	return errmsg_set(a->msg, err, "%s: %s: %s", address(a), what, err_text(err));
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

static int connect_one(const struct attempt *a, const struct addrinfo *ai, int *ret)
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

static int tcp_connect(struct attempt *a)
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
		return errmsg_set(a->msg, -ENOENT, "%s: looking up %s: %s", address(a), c->hostname,
				  gai_strerror(err));
	a->req->stage(a->req->data, STAGE_CONNECT);
	for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		err = connect_one(a, ai, &a->sock);
		if (err == 0 || err == CONCC_E_TIMEOUT || err == -ECANCELED)
			break;
	}
	freeaddrinfo(list);
	if (err < 0)
		return errmsg_set(a->msg, err, "%s: connecting to %s port %s: %s", address(a),
				  c->hostname, port, err_text(err));
	return 0;
}

/* ---- handshake ---- */

static int beyond_libssh2(const struct attempt *a, const char *why)
{
	return errmsg_set(a->msg, CONCC_E_UNAVAIL, "%s", why);
}

/* Sets a preference to what libssh2 has, the user's configuration allows and `ours` (NULL: all)
 * prefers.  False when nothing is left. */
static bool prefer(const struct attempt *a, int method, const char *ours, const char *users)
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

static bool supports(const struct attempt *a, int method, const char *alg)
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

static int set_preferences(const struct attempt *a)
{
	const struct ssh_config *c = a->req->config;
	_cleanup_buf_ struct buf host = BUF_INIT;

	known_hosts_algorithms(&a->known, &host);
	/* Of an unknown host, the key that ssh would show a person too. */
	if (!prefer(a, LIBSSH2_METHOD_HOSTKEY, host.len ? buf_cstr(&host) : c->host_key_algorithms,
		    c->host_key_algorithms))
		return beyond_libssh2(a, "libssh2 has no algorithm for the known host key");
	if (!prefer(a, LIBSSH2_METHOD_KEX, NULL, c->kex_algorithms))
		return beyond_libssh2(a, "libssh2 has none of the KexAlgorithms");
	if (!prefer(a, LIBSSH2_METHOD_CRYPT_CS, CIPHERS, c->ciphers) ||
	    !prefer(a, LIBSSH2_METHOD_CRYPT_SC, CIPHERS, c->ciphers))
		return beyond_libssh2(a, "libssh2 has none of the Ciphers");
	if (!prefer(a, LIBSSH2_METHOD_MAC_CS, NULL, c->macs) ||
	    !prefer(a, LIBSSH2_METHOD_MAC_SC, NULL, c->macs))
		return beyond_libssh2(a, "libssh2 has none of the MACs");
	return 0;
}

static int unknown_host(const struct attempt *a, const char *what, const char *value)
{
	/* It writes down what it takes, where it is configured to. */
	if (a->req->config->takes_new_keys)
		return beyond_libssh2(a, "StrictHostKeyChecking lets ssh take an unknown key");
	return errmsg_set(a->msg, CONCC_E_AUTH,
			  "%s: no key of host %s is known%s%s; run `ssh %s` once to check and "
			  "accept it",
			  address(a), a->known.name, what, value, a->req->words);
}

static int handshake(struct attempt *a)
{
	int r, err;

	a->req->stage(a->req->data, STAGE_HANDSHAKE);
	err = set_preferences(a);
	if (err < 0)
		return err;
	REPEAT(a, r, err, libssh2_session_handshake(a->session, a->sock));
	if (err < 0)
		return ended_early(a, err, "SSH handshake");
	if (r == 0)
		return 0;
	if (r == LIBSSH2_ERROR_KEX_FAILURE || r == LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE ||
	    r == LIBSSH2_ERROR_METHOD_NONE) {
		/* OpenSSH would not know the host either, and its words come later. */
		if (a->known.n == 0)
			return unknown_host(a, "", "");
		return beyond_libssh2(a, "libssh2 and the host share no key exchange, cipher or "
					 "host key type");
	}
	return errmsg_set(a->msg, -EPROTO, "%s: SSH handshake: %s (libssh2 %d)", address(a),
			  last_error(a), r);
}

/* ---- the host's key ---- */

static void put_fingerprint(const struct attempt *a, struct buf *out)
{
	const char *hash = libssh2_hostkey_hash(a->session, LIBSSH2_HOSTKEY_HASH_SHA256);

	buf_putf(out, "SHA256:");
	if (hash)
		base64_put(out, hash, 32);
	while (out->len && out->data[out->len - 1] == '=')
		out->len--;
}

/* The host is known by its name; what ssh makes of another key for its address is ssh's to say. */
static int check_address(const struct attempt *a, const char *type, const char *key)
{
	const struct known_key *entry;
	enum known_verdict v = known_hosts_check(&a->known_address, type, key, &entry);

	if (v == KNOWN_CHANGED || v == KNOWN_REVOKED)
		return beyond_libssh2(a, "CheckHostIP: another key is known of the address");
	return 0;
}

static int check_host(const struct attempt *a)
{
	_cleanup_buf_ struct buf key = BUF_INIT, shown = BUF_INIT;
	const struct known_key *entry;
	char type[SSH_KEY_TYPE_MAX];
	const char *blob;
	size_t n = 0;

	blob = libssh2_session_hostkey(a->session, &n, NULL);
	if (!blob)
		return errmsg_set(a->msg, CONCC_E_AUTH, "%s: the host showed no key", address(a));
	ssh_key_type(blob, n, type);
	base64_put(&key, blob, n);
	buf_putf(&shown, "%s ", type);
	put_fingerprint(a, &shown);
	switch (known_hosts_check(&a->known, type, buf_cstr(&key), &entry)) {
	case KNOWN_OK:
		return check_address(a, type, buf_cstr(&key));
	case KNOWN_AUTHORITY:
		return beyond_libssh2(a, "known_hosts has a certificate authority for the host");
	case KNOWN_REVOKED:
		return errmsg_set(a->msg, CONCC_E_AUTH, "%s: host key %s is revoked by %s:%u",
				  address(a), buf_cstr(&shown), entry->file, entry->line);
	case KNOWN_CHANGED:
		if (a->req->config->takes_changed_keys)
			return beyond_libssh2(a,
					      "StrictHostKeyChecking lets ssh take a changed key");
		return errmsg_set(a->msg, CONCC_E_AUTH,
				  "%s: the key of host %s has CHANGED: it shows %s, which is not "
				  "the one in %s:%u; someone may be listening in. If the change "
				  "is right: ssh-keygen -f %s -R '%s', then `ssh %s` once",
				  address(a), a->known.name, buf_cstr(&shown), entry->file,
				  entry->line, entry->file, a->known.name, a->req->words);
	case KNOWN_UNKNOWN:
		break;
	}
	return unknown_host(a, "; it shows ", buf_cstr(&shown));
}

/* ---- the user's keys ---- */

static bool has_rsa_sha2(const struct attempt *a)
{
	return supports(a, LIBSSH2_METHOD_HOSTKEY, "rsa-sha2-256");
}

static bool is_seen(const struct attempt *a, const char *key)
{
	for (size_t i = 0; i < a->n_seen; i++)
		if (streq(a->seen[i], key))
			return true;
	return false;
}

static void note_tried(struct attempt *a, const char *key, const char *name)
{
	char *shown = str_escape(name, strlen(name), 80);

	buf_putf(&a->tried, "%s%s", a->tried.len ? ", " : "", shown);
	free(shown);
	if (key && a->n_seen < SEEN_MAX)
		a->seen[a->n_seen++] = xstrdup(key);
}

/* False, with the reason noted, for a key that libssh2 can't use at all. */
static bool can_use(struct attempt *a, const char *type)
{
	if (!str_starts(type, "sk-") && !strstr(type, "-cert-"))
		return true;
	a->beyond = "libssh2 can't use a security key or certificate that is there";
	return false;
}

/* After a refusal: is the session of any use, and might OpenSSH do better? */
static bool goes_on(struct attempt *a, const char *type, int r)
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
static int try_agent_key(struct attempt *a, LIBSSH2_AGENT *agent,
			 struct libssh2_agent_publickey *id)
{
	_cleanup_buf_ struct buf key = BUF_INIT;
	char type[SSH_KEY_TYPE_MAX];
	int r, err;

	ssh_key_type(id->blob, id->blob_len, type);
	base64_put(&key, id->blob, id->blob_len);
	if (!is_configured(a->req->config, buf_cstr(&key)) || !can_use(a, type))
		return 0;
	REPEAT(a, r, err, libssh2_agent_userauth(agent, a->req->config->user, id));
	if (err < 0)
		return ended_early(a, err, "logging in with a key of the agent");
	if (r == 0)
		return 1;
	note_tried(a, buf_cstr(&key), id->comment && *id->comment ? id->comment : type);
	return goes_on(a, type, r) ? 0 : -ECONNRESET;
}

static int try_agent_keys(struct attempt *a, LIBSSH2_AGENT *agent)
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

static int try_agent(struct attempt *a)
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

static int try_file(struct attempt *a, const char *path, const struct ssh_key_file *k)
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
		return 0;
	}
	REPEAT(a, r, err,
	       libssh2_userauth_publickey_fromfile(a->session, a->req->config->user, NULL, path,
						   NULL));
	if (err < 0)
		return ended_early(a, err, "logging in");
	if (r == 0)
		return 1;
	if (r == LIBSSH2_ERROR_FILE)
		a->beyond = "libssh2 can't read the format of a key file";
	note_tried(a, k->public, path);
	return goes_on(a, k->type, r) ? 0 : -ECONNRESET;
}

static int try_files(struct attempt *a)
{
	int r = 0;

	for (char **f = a->req->config->identity_files; f && *f && r == 0; f++) {
		struct ssh_key_file k;

		if (ssh_key_look(*f, &k) < 0)
			continue; /* the defaults are named whether they exist or not */
		r = try_file(a, *f, &k);
		ssh_key_file_release(&k);
	}
	return r;
}

static int not_let_in(const struct attempt *a, const char *methods)
{
	struct buf *tried = (struct buf *)&a->tried;

	return errmsg_set(a->msg, CONCC_E_AUTH,
			  "%s: user %s was not let in with a key (tried: %s; the host takes: %s); "
			  "does `ssh -o BatchMode=yes %s true` work?",
			  address(a), a->req->config->user,
			  tried->len ? buf_cstr(tried) : "none, there is no key", methods,
			  a->req->words);
}

/* 0 with the list of methods (owned by the session), or NULL in it when none is needed. */
static int ask_methods(const struct attempt *a, const char **ret)
{
	const char *user = a->req->config->user;
	int err;

	for (;;) {
		*ret = libssh2_userauth_list(a->session, user, (unsigned)strlen(user));
		if (*ret || libssh2_userauth_authenticated(a->session))
			return 0;
		if (libssh2_session_last_errno(a->session) != LIBSSH2_ERROR_EAGAIN)
			return errmsg_set(a->msg, -EPROTO, "%s: logging in: %s", address(a),
					  last_error(a));
		err = wait_session(a);
		if (err < 0)
			return ended_early(a, err, "logging in");
	}
}

static int login(struct attempt *a)
{
	const char *methods;
	char *kept;
	int r;

	a->req->stage(a->req->data, STAGE_LOGIN);
	r = ask_methods(a, &methods);
	if (r < 0 || !methods)
		return r;
	if (!strstr(methods, "publickey"))
		return beyond_libssh2(a, "the host takes no public keys");
	kept = str_escape(methods, strlen(methods), 80); /* the session reuses its memory */
	r = try_agent(a);
	if (r == 0)
		r = try_files(a);
	if (r == 0 || r == -ECONNRESET)
		r = a->beyond ? beyond_libssh2(a, a->beyond) : not_let_in(a, kept);
	free(kept);
	return r < 0 ? r : 0;
}

/* ---- the channel ---- */

static int open_channel(const struct attempt *a, LIBSSH2_CHANNEL **ret)
{
	int err;

	for (;;) {
		*ret = libssh2_channel_open_ex(a->session, "session", sizeof("session") - 1, WINDOW,
					       PACKET, NULL, 0);
		if (*ret)
			return 0;
		if (libssh2_session_last_errno(a->session) != LIBSSH2_ERROR_EAGAIN)
			return errmsg_set(a->msg, -EPROTO, "%s: opening a channel: %s", address(a),
					  last_error(a));
		err = wait_session(a);
		if (err < 0)
			return ended_early(a, err, "opening a channel");
	}
}

static int start_command(const struct attempt *a, LIBSSH2_CHANNEL **ret)
{
	int r, err;

	a->req->stage(a->req->data, STAGE_EXEC);
	err = open_channel(a, ret);
	if (err < 0)
		return err;
	REPEAT(a, r, err, libssh2_channel_exec(*ret, a->req->command));
	if (err < 0)
		return ended_early(a, err, "starting the worker");
	if (r < 0)
		return errmsg_set(a->msg, -EPROTO, "%s: starting \"%s\": %s", address(a),
				  a->req->command, last_error(a));
	return 0;
}

static struct stream *stream_new(struct attempt *a, LIBSSH2_CHANNEL *channel)
{
	struct stream_ssh2 *s = xcalloc(1, sizeof(*s));

	s->stream.ops = &ssh2_ops;
	s->stream.engine = true;
	s->session = a->session;
	s->channel = channel;
	s->sock = a->sock;
	s->worker = xstrdup(a->req->worker);
	s->grace_fd = -1;
	a->session = NULL;
	a->sock = -1;
	return &s->stream;
}

static int find_known(struct attempt *a)
{
	const struct ssh2_request *r = a->req;
	int err = known_hosts_find(r->config, r->deadline_ms, r->cancel_fd, &a->known, a->msg);

	/* With an alias, ssh looks at no address either. */
	if (err == 0 && r->config->checks_address && !r->config->host_key_alias)
		err = known_hosts_find_address(r->config, a->sock, r->deadline_ms, r->cancel_fd,
					       &a->known_address, a->msg);
	return err;
}

static int run_attempt(struct attempt *a, struct stream **ret)
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
		return errmsg_set(a->msg, -ENOMEM, "%s: libssh2 can't start", address(a));
	libssh2_session_set_blocking(a->session, 0);
	err = handshake(a);
	if (err == 0)
		err = check_host(a);
	if (err == 0)
		err = login(a);
	if (err == 0)
		err = start_command(a, &channel);
	if (err == 0)
		*ret = stream_new(a, channel);
	return err;
}

static void release_attempt(struct attempt *a)
{
	if (a->session)
		session_end(a->session, a->sock);
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
	struct attempt a = {.req = r, .msg = msg, .sock = -1};
	int err;

	/* libssh2_init() is not thread safe by itself. */
	(void)pthread_once(&once, init_once); /* fails for a bad `once` only */
	if (init_error)
		return errmsg_set(msg, CONCC_E_UNAVAIL, "libssh2 can't start");
	err = run_attempt(&a, ret);
	release_attempt(&a);
	return err;
}
