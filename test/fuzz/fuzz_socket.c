/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * The unix socket: what any process of this user can write to it, taken by the
 * project server's own code.  It has one worker, which is down, and must be
 * able to answer a question afterwards.
 */
#include <string.h>
#include <sys/socket.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/str.h"
#include "conf/parse.h"
#include "project/estimator.h"
#include "project/client.h"
#include "project/peer.h"
#include "project/status.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define INPUT_MAX (128 * 1024) /* below a socket's buffer: written at once */

static struct server server;
static struct conf_worker worker = {.name = (char *)"w", .address = (char *)"local:"};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct tree_ops ops = {0};
	struct errmsg msg = {0};
	struct server *s = &server;

	log_init("fuzz", LOG_LEVEL_ERR);
	(void)scratch();
	list_init(&s->clients);
	list_init(&s->jobs);
	list_init(&s->observers);
	s->conf = conf_new();
	s->dir = scratch_dir;
	s->cache = path_join(scratch_dir, "cache");
	CHECK(mkdir(s->cache, 0700) == 0);
	namespaces_look(&s->namespaces);
	/* Nobody has more: it is not to give way. */
	for (int i = 0; i < CALLER_N_LIMITS; i++)
		s->own.limits[i].hard = CALLER_UNLIMITED;
	CHECK(loop_new(&s->loop) == 0);
	server_set_up_hashing(s);
	CHECK(pool_open(s->dir, &s->pool, &msg) == 0);
	s->estimator = estimator_new(s);
	CHECK(tree_new(&ops, s, NULL, &s->tree, &msg) == 0);
	s->peers = xcalloc(2, sizeof(*s->peers));
	s->n_peers = 1;
	s->peers[0] = peer_new(s, 0, &worker);
	return 0;
}

static void quit(void *data, uint32_t events)
{
	char bytes[4096];

	/* Until the server has closed its end: nothing it may answer is to stop it. */
	while (read(*(int *)data, bytes, sizeof(bytes)) > 0)
		;
	if (events & LOOP_HANGUP)
		loop_quit(server.loop);
}

/* A RUN of version 0 means the one of today, or none in the corpus would be looked at for long. */
static void set_version(const uint8_t *data, size_t n, struct buf *out)
{
	static const uint8_t zero[4];
	struct proto_header h;

	buf_append(out, data, n);
	for (size_t at = 0; at + PROTO_HEADER_LEN + 4 <= n; at += PROTO_HEADER_LEN + h.len) {
		if (proto_get_header(data + at, &h) < 0)
			return;
		if (h.type == MSG_RUN && memcmp(data + at + PROTO_HEADER_LEN, zero, 4) == 0)
			buf_set_u32(out, at + PROTO_HEADER_LEN, PROTO_VERSION);
	}
}

static void converse(const uint8_t *data, size_t n)
{
	_cleanup_buf_ struct buf bytes = BUF_INIT;
	struct loop_source *source;
	int fds[2], size = 2 * INPUT_MAX;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
	CHECK(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
	client_accept(&server, fds[1]);
	set_version(data, n, &bytes);
	CHECK(write_full(fds[0], bytes.data, bytes.len) == 0 && shutdown(fds[0], SHUT_WR) == 0);
	source = loop_add_fd(server.loop, fds[0], LOOP_READ, quit, &fds[0]);
	/* `stop` ends the loop with the connection still there: on with it. */
	do
		CHECK(loop_run(server.loop) == 0);
	while (!list_empty(&server.clients));
	server.stopping = false;
	loop_remove(source);
	(void)close(fds[0]);
	CHECK(server.n_clients == 0 && server.n_running == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_buf_ struct buf out = BUF_INIT;

	if (n > INPUT_MAX)
		return 0;
	converse(data, n);
	status_text(&server, &out);
	CHECK(out.len > 0);
	return 0;
}
