/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * The project server between a worker and its wrappers: well-formed messages of both in any order,
 * four bytes each, while a user edits, connections end and workers come again.  All of it is the
 * server's own code on real sockets and files; only the worker's stream is brought to it.
 *
 * What must hold: each wrapper gets one answer, at the latest when the worker is gone; nothing is
 * left of a job then; nothing beside the workspace was read or written.
 */
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/str.h"
#include "conf/parse.h"
#include "project/commits.h"
#include "project/exe.h"
#include "project/estimator.h"
#include "project/run.h"
#include "project/serve.h"
#include "project/status.h"
#include "project/straggler.h"
#include "project/working_set.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define N_OF(a)	      (sizeof(a) / sizeof((a)[0]))
#define STEPS_MAX     64
#define WRAPPERS_MAX  4
#define SECRET	      "of-the-victim" /* nothing else is called so, or has these bytes */
#define BUFFER	      (4 * 1024 * 1024)
#define ROUNDS_AT_END 8 /* each lets the server answer what was said in the one before */

enum step {
	W_HELLO,
	W_READY,
	W_LIST,
	W_FETCH,
	W_COUNTS,
	W_LOAD,
	W_OUTPUT,
	W_FILE,
	W_DATA,
	W_COMMIT,
	W_EXIT,
	W_INPUT_CREDIT,
	W_MISSING,
	W_BYE,
	W_PING,
	W_HANG_UP,
	RUN,
	RUN_INPUT,
	RUN_CREDIT,
	RUN_HANG_UP,
	STATUS,
	EDIT,
	ROUND,
	RUN_CANCEL,
	N_STEPS
};

/* A connection's far end: what comes is read whole, and understood as far as needed. */
struct end {
	int fd; /* -1: none */
	struct buf in;
	unsigned answers;    /* RUN_EXIT and RUN_FAIL */
	unsigned runs;	     /* RUN that it has sent */
	uint32_t got, taken; /* bytes of RUN_OUTPUT, and those with credit given */
};

static struct server server;
static struct conf_worker conf_worker = {
	.name = (char *)"w", .address = (char *)"local:", .slots = 8};
static struct end worker;
static struct end wrappers[WRAPPERS_MAX];
static char *workspace, *victim;
static int round_fd;

/* ---- the loop, in rounds ---- */

static void quit(void *data)
{
	loop_quit(server.loop);
}

static void on_round(void *data, uint32_t events)
{
	eventfd_t v;

	(void)eventfd_read(round_fd, &v);
	(void)loop_defer(server.loop, quit, NULL);
}

static void take_frame(struct end *e, const struct proto_header *h, const uint8_t *payload)
{
	struct blob bytes;
	uint8_t stream;
	uint32_t id;

	CHECK(!memmem(payload, h->len, SECRET, strlen(SECRET)));
	if (h->type == MSG_RUN_EXIT || h->type == MSG_RUN_FAIL)
		e->answers++;
	if (h->type == MSG_RUN_OUTPUT) {
		CHECK(msg_output_decode((struct blob){payload, h->len}, &id, &stream, &bytes) == 0);
		e->got += (uint32_t)bytes.n;
	}
}

static void read_end(struct end *e)
{
	uint8_t bytes[64 * 1024];
	struct proto_header h;
	size_t at = 0;
	ssize_t n;

	while (e->fd >= 0 && (n = recv(e->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		buf_append(&e->in, bytes, (size_t)n);
	while (at + PROTO_HEADER_LEN <= e->in.len) {
		CHECK(proto_get_header(e->in.data + at, &h) == 0);
		if (at + PROTO_HEADER_LEN + h.len > e->in.len)
			break;
		take_frame(e, &h, e->in.data + at + PROTO_HEADER_LEN);
		at += PROTO_HEADER_LEN + h.len;
	}
	buf_consume(&e->in, at);
}

/* All that is at hand is dealt with. */
static void go_round(void)
{
	CHECK(eventfd_write(round_fd, 1) == 0);
	CHECK(loop_run(server.loop) == 0);
	server.stopping = false;
	/* By the clock nothing is tried again here. */
	loop_timer_set(server.peers[0]->retry_timer, 0);
	read_end(&worker);
	for (size_t i = 0; i < WRAPPERS_MAX; i++) {
		read_end(&wrappers[i]);
		CHECK(wrappers[i].answers <= wrappers[i].runs);
	}
}

static void send_frame(struct end *e, uint8_t type, const struct buf *payload)
{
	uint8_t header[PROTO_HEADER_LEN];

	CHECK(payload->len <= PROTO_FRAME_MAX);
	proto_put_header(header, type, 0, (uint32_t)payload->len);
	if (e->fd < 0 || send(e->fd, header, sizeof(header), MSG_NOSIGNAL) < 0)
		return;
	if (payload->len)
		(void)!send(e->fd, payload->data, payload->len, MSG_NOSIGNAL);
}

static int new_end(struct end *e)
{
	int fds[2], size = BUFFER;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	(void)setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	*e = (struct end){.fd = fds[0]};
	return fds[1];
}

static void close_end(struct end *e)
{
	if (e->fd >= 0)
		(void)close(e->fd);
	e->fd = -1;
	buf_release(&e->in);
}

/* ---- the worker ---- */

/* In or near the workspace. */
static const char *const paths[] = {"a.c", "a.o",   "d",	 "d/b", "d/b/c", ".git/config",
				    "l",   "l/key", "new/x/y.o", "f",	"a.c/x", "d/../e"};

static void w_hello(struct buf *b, const uint8_t s[4])
{
	struct utsname u;
	struct msg_hello m = {.version = s[1] == 1 ? 1 : PROTO_VERSION,
			      .program = (char *)"fuzz",
			      .host = (char *)"\033[2J",
			      .arch = u.machine,
			      .cpus = s[2],
			      .cpu_model = (char *)""};

	CHECK(uname(&u) == 0);
	msg_hello_encode(b, &m);
}

static void w_connect(void)
{
	struct peer *p = server.peers[0];
	int fd;

	if (p->link || p->state == PEER_CONNECTING)
		return;
	close_end(&worker);
	fd = new_end(&worker);
	CHECK(send(worker.fd, PROTO_MAGIC, strlen(PROTO_MAGIC), 0) > 0);
	p->state = PEER_CONNECTING;
	peer_connected(p, stream_from_fds(fd, fd), 0, "", "fuzz");
}

static void w_list(struct buf *b, const uint8_t s[4])
{
	const char *const tops[] = {workspace, victim, scratch_dir, "/etc"};
	const char *top = tops[s[1] % N_OF(tops)];
	_cleanup_free_ char *path = s[2] & 1 ? xstrdup(top) : path_join(top, paths[s[3] % 11]);

	msg_list_encode(b, path);
}

/* Of what was told, or not. */
static void w_fetch(struct buf *b, const uint8_t s[4])
{
	_cleanup_free_ char *dir = s[1] & 1 ? path_join(workspace, "d") : xstrdup(workspace);
	const char *name = s[1] & 2 ? "f" : s[1] & 1 ? "b" : "a.c";
	struct msg_fetch m = {.fetch_id = s[2],
			      .dir_id = tree_dir_id(server.tree, 0, dir) + (s[1] & 4 ? 1 : 0),
			      .name = (char *)name};
	struct entry_attr attr;

	tree_entry(server.tree, m.dir_id, name, &attr);
	m.version = attr.version + (s[1] & 8 ? 1 : 0);
	m.offers = s[1] & 16;
	digest_of("b", 1, &m.offer); /* of one of them, and of none of the others */
	msg_fetch_encode(b, &m);
}

static uint32_t job_id(uint8_t b)
{
	return server.next_job_id - b % 4;
}

static void w_file(struct buf *b, const uint8_t s[4])
{
	static const char *const targets[] = {"a.c", "../victim", "/", "d/b"};
	struct msg_file m = {
		.job_id = job_id(s[1]),
		.kind = (uint8_t)(1 + s[2] % 7),
		.flags = s[3] & 64 ? s[2] : 0,
		.mode = s[3] & 128 ? 04755 : 0755,
		.workspace = s[2] == 255,
		.path = (char *)paths[s[3] % 11],
		.target = (char *)"",
	};

	if (m.kind == EFFECT_SYMLINK || m.kind == EFFECT_LINK)
		m.target = (char *)targets[m.kind == EFFECT_LINK ? s[1] / 8 % 2 * 3 : s[1] / 8 % 4];
	if (m.kind == EFFECT_FILE && !(m.flags & (EFFECT_F_FIFO | EFFECT_F_SOCKET)))
		m.size = s[1] / 4 % 8;
	msg_file_encode(b, &m);
}

static void w_missing(struct buf *b, const uint8_t s[4])
{
	_cleanup_free_ char *path = path_join(s[2] & 1 ? workspace : victim, paths[s[3] % 11]);
	char *list[] = {path, NULL};

	msg_missing_encode(b, job_id(s[1]), (enum missing_how)(s[2] / 2 % 4), list);
}

static void w_exit(struct buf *b, const uint8_t s[4])
{
	char *none[] = {NULL}, *some[] = {victim, NULL};
	struct msg_exit m = {.job_id = job_id(s[1]),
			     .how = s[2] % 4,
			     .code = s[3],
			     .text = (char *)"\033]0;text",
			     .outside = s[2] & 64 ? some : none};

	msg_exit_encode(b, &m);
}

static void w_numbers(enum step what, struct buf *b, const uint8_t s[4])
{
	struct msg_mirror_counts counts = {.total = s[1]};
	struct msg_load load = {.running = s[1],
				.waiting = s[2],
				.speed = s[2] * 4,
				.slots = s[3],
				.store_bytes = s[1]};

	if (what == W_COUNTS)
		msg_mirror_counts_encode(b, &counts);
	else if (what == W_LOAD)
		msg_load_encode(b, &load);
	else if (what == W_INPUT_CREDIT)
		msg_pair_encode(b, job_id(s[1]), (uint32_t)s[2] << (s[3] % 16));
	else
		msg_u32_encode(b, job_id(s[1]));
}

static void worker_says(enum step what, const uint8_t s[4])
{
	static const uint8_t types[] = {
		MSG_HELLO,    MSG_READY,	MSG_LIST,	 MSG_FETCH,    MSG_MIRROR_COUNTS,
		MSG_LOAD,     MSG_JOB_OUTPUT,	MSG_JOB_FILE,	 MSG_JOB_DATA, MSG_JOB_COMMIT,
		MSG_JOB_EXIT, MSG_INPUT_CREDIT, MSG_JOB_MISSING, MSG_BYE,      MSG_PING,
	};
	static const uint8_t bytes[4096];
	_cleanup_buf_ struct buf b = BUF_INIT;

	switch (what) {
	case W_HELLO:
		w_connect();
		w_hello(&b, s);
		break;
	case W_LIST:
		w_list(&b, s);
		break;
	case W_FETCH:
		w_fetch(&b, s);
		break;
	case W_OUTPUT:
		msg_output_encode(&b, job_id(s[1]), 1 + s[2] % 2, bytes, s[3] * 16u);
		break;
	case W_DATA:
		msg_bytes_encode(&b, job_id(s[1]), bytes, s[3] % 8);
		break;
	case W_FILE:
		w_file(&b, s);
		break;
	case W_EXIT:
		w_exit(&b, s);
		break;
	case W_MISSING:
		w_missing(&b, s);
		break;
	case W_BYE:
		msg_bye_encode(&b, "\033[2J good bye");
		break;
	case W_PING:
	case W_READY:
		break;
	default:
		w_numbers(what, &b, s);
	}
	/* The same, but for what they say; a step of its own would change what inputs mean. */
	if (what == W_INPUT_CREDIT && s[3] & 0x80)
		send_frame(&worker, MSG_JOB_QUEUED, &b);
	else
		send_frame(&worker, types[what], &b);
}

/* ---- wrappers ---- */

static void run(const uint8_t s[4])
{
	struct end *e = &wrappers[s[1] % WRAPPERS_MAX];
	char *argv[] = {(char *)"true", (char *)paths[s[2] % 11], NULL};
	char *env[] = {(char *)"PATH=/bin", s[3] & 4 ? (char *)"A=b" : NULL, NULL};
	_cleanup_free_ char *sub = path_join(workspace, "d");
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_run m = {
		.version = PROTO_VERSION,
		.umask = 022,
		.worker = (char *)"w",
		.run_id = (char *)"",
		.path = (char *)"/bin/true",
		.exe = (char *)"/bin/true",
		.cwd = s[3] & 1	  ? sub
		       : s[3] & 2 ? victim
				  : workspace,
		.workspace = (char *)"",
		.argv = argv,
		.env = env,
	};

	if (e->fd < 0)
		client_accept(&server, new_end(e));
	caller_read(&m.caller);
	msg_run_encode(&b, &m);
	send_frame(e, MSG_RUN, &b);
	e->runs++;
	go_round(); /* so that the worker's next words may be of it */
}

static void wrapper_says(enum step what, const uint8_t s[4])
{
	struct end *e = &wrappers[s[1] % WRAPPERS_MAX];
	uint32_t taken;
	char *words[] = {(char *)"status", s[2] & 1 ? (char *)"json" : NULL, NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;

	switch (what) {
	case RUN:
		run(s);
		return;
	case RUN_HANG_UP:
		close_end(e);
		*e = (struct end){.fd = -1};
		return;
	case RUN_INPUT:
		msg_bytes_encode(&b, 0, s, s[2] % 5);
		break;
	case RUN_CREDIT:
		/* Now and then more than it got. */
		taken = s[3] & 1 ? s[2] * 16u : e->got - e->taken;
		e->taken += taken;
		msg_pair_encode(&b, 0, taken);
		break;
	case RUN_CANCEL:
		break;
	default:
		msg_ctl_encode(&b, words);
	}
	send_frame(e,
		   what == RUN_INPUT	? MSG_RUN_INPUT
		   : what == RUN_CREDIT ? MSG_RUN_OUTPUT_CREDIT
		   : what == RUN_CANCEL ? MSG_RUN_CANCEL
					: MSG_CTL,
		   &b);
}

/* ---- the user ---- */

static void edit(const uint8_t s[4])
{
	_cleanup_close_ int dir = open(workspace, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int fd = -1;

	switch (s[1] % 4) {
	case 0:
		fd = openat(dir, "a.c", O_WRONLY | O_CREAT | O_NOFOLLOW | O_TRUNC | O_CLOEXEC,
			    0644);
		if (fd >= 0)
			CHECK(write(fd, s, 4) == 4);
		break;
	case 1:
		(void)path_remove_tree(dir, "d");
		break;
	case 2:
		(void)mkdirat(dir, "d", 0755);
		break;
	default:
		(void)unlinkat(dir, "l", 0);
		(void)symlinkat("../victim", dir, "l");
	}
}

/* ---- one input ---- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct errmsg msg = {0};
	struct server *s = &server;
	_cleanup_free_ char *hashes = NULL;

	log_init("fuzz", LOG_LEVEL_ERR);
	(void)scratch();
	list_init(&s->clients);
	list_init(&s->jobs);
	list_init(&s->observers);
	s->conf = conf_new();
	s->conf->file = xstrdup("/nonexistent");
	s->dir = scratch_dir;
	s->dir_fd = scratch();
	s->cache = path_join(scratch_dir, "cache");
	CHECK(mkdir(s->cache, 0700) == 0);
	s->ready = true; /* nobody waits to hear it */
	namespaces_look(&s->namespaces);
	caller_read(&s->own);
	CHECK(loop_new(&s->loop) == 0);
	server_set_up_hashing(s);
	commits_set_piece(s, 0);
	CHECK(pool_open(s->dir, &s->pool, &msg) == 0);
	s->estimator = estimator_new(s);
	s->stragglers = stragglers_new(s);
	s->peers = xcalloc(2, sizeof(*s->peers));
	s->n_peers = 1;
	s->peers[0] = peer_new(s, 0, &conf_worker);
	hashes = path_join(s->cache, "digests");
	CHECK(hash_cache_open(hashes, &s->hashes) == 0);
	round_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(loop_add_fd(s->loop, round_fd, LOOP_READ, on_round, NULL));
	workspace = path_join(scratch_dir, "ws");
	victim = path_join(scratch_dir, "victim");
	strv_push(&s->conf->workspaces, xstrdup(workspace));
	CHECK(mkdirat(scratch(), "victim", 0755) == 0);
	scratch_write("victim/" SECRET, SECRET, strlen(SECRET));
	for (size_t i = 0; i < WRAPPERS_MAX; i++)
		wrappers[i].fd = -1;
	worker.fd = -1;
	return 0;
}

static void on_send(void *data, unsigned peer, uint8_t type, const struct buf *b)
{
	struct peer *p = server.peers[peer];

	if (p->link)
		link_send_buf(p->link, type, LINK_PRIO, b);
}

static void on_program(void *data, struct exe *e, const struct errmsg *msg)
{
	CHECK(e);
	loop_quit(server.loop);
}

/* A thread looks at it the first time: no input is to depend on how long that takes. */
static void know_program(void)
{
	char *none[] = {NULL}, *argv[] = {(char *)"true", NULL};
	const struct msg_run m = {
		.exe = (char *)"/bin/true", .cwd = workspace, .argv = argv, .env = none};
	struct errmsg msg = {0};
	struct exe *e;

	if (exe_get(server.peers[0], &m, NULL, &e, &msg) != CONCC_E_LATER)
		return;
	CHECK(exe_wait(server.peers[0], &m, on_program, NULL, &msg));
	CHECK(loop_run(server.loop) == 0);
}

static void begin(void)
{
	static const struct tree_ops ops = {.send = on_send};
	struct errmsg msg = {0};

	CHECK(path_remove_tree(scratch(), "ws") == 0 && mkdirat(scratch(), "ws", 0755) == 0);
	CHECK(mkdirat(scratch(), "ws/d", 0755) == 0);
	scratch_write("ws/a.c", "int a;", 6);
	scratch_write("ws/d/b", "b", 1);
	CHECK(tree_new(&ops, &server, server.hashes, &server.tree, &msg) == 0);
	CHECK(tree_serve(server.tree, workspace, true, &msg) == 0);
	know_program();
}

/* Wrappers take what they got, the worker goes: each of them has its answer then. */
static void end(void)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	struct peer *p = server.peers[0];
	struct serve_counts contents;
	struct commits_counts commits;

	go_round();
	for (size_t i = 0; i < WRAPPERS_MAX; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;

		msg_pair_encode(&b, 0, wrappers[i].got - wrappers[i].taken);
		if (wrappers[i].got > wrappers[i].taken)
			send_frame(&wrappers[i], MSG_RUN_OUTPUT_CREDIT, &b);
	}
	close_end(&worker);
	for (int i = 0; i < ROUNDS_AT_END; i++)
		go_round();
	for (commits_counts(&server, &commits); commits.waiting || commits.dropped;
	     commits_counts(&server, &commits))
		go_round();
	serve_counts(p, &contents);
	CHECK(!p->link && p->jobs.n == 0 && contents.n_fetches == 0 && contents.n_begun == 0);
	CHECK(server.n_running == 0);
	status_text(&server, &out);
	status_json(&server, &out);
	CHECK(out.len > 0 && !memchr(out.data, 033, out.len));
	for (size_t i = 0; i < WRAPPERS_MAX; i++) {
		CHECK(wrappers[i].fd < 0 || wrappers[i].answers == wrappers[i].runs ||
		      recv(wrappers[i].fd, &(char){0}, 1, MSG_DONTWAIT) == 0);
		close_end(&wrappers[i]);
		wrappers[i] = (struct end){.fd = -1};
	}
	for (int i = 0; i < ROUNDS_AT_END && server.n_clients; i++)
		go_round();
	CHECK(server.n_clients == 0 && list_empty(&server.jobs));
	tree_free(server.tree);
	working_sets_free(&server);
}

static void check_files(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_free_ char *key = path_join(victim, SECRET);
	struct stat st;

	CHECK(read_file_at(AT_FDCWD, key, 64, &b) == 0 && b.len == strlen(SECRET));
	CHECK(stat(victim, &st) == 0 && st.st_nlink == 2 && (st.st_mode & 07777) == 0755);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n > 4 * STEPS_MAX)
		return 0;
	begin();
	for (size_t i = 0; i + 4 <= n; i += 4) {
		enum step what = data[i] % N_STEPS;

		if (what == W_HANG_UP)
			close_end(&worker);
		else if (what < W_HANG_UP)
			worker_says(what, data + i);
		else if (what < EDIT || what == RUN_CANCEL)
			wrapper_says(what, data + i);
		else if (what == EDIT)
			edit(data + i);
		/* Some are said in one breath. */
		if (what == ROUND || data[i] < 128)
			go_round();
	}
	end();
	check_files();
	return 0;
}
