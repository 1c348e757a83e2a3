/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A client that lies.  evil-client SCENARIO[.SEED] PROGRAM ARG... starts the worker,
 * greets it as a client does, unless the scenario is about that, and sends what
 * the scenario says; at last a message of no known type, so that a worker that
 * rightly took all before it ends here.  Says on standard output what jobs came
 * to and what the worker said; exit status 0 when it ended the link and itself
 * in time.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/link.h"
#include "concc/log.h"
#include "concc/loop.h"
#include "concc/proto.h"
#include "concc/str.h"

#define LIMIT_MS   40000
#define WORKSPACE  "/srv/ws"
#define UNKNOWN	   200
#define TRICKLE_MS 200
#define BETWEEN_MS 10 /* messages that come in any order */

struct evil {
	struct loop *loop;
	struct link *link;
	int fd; /* the link's */
	const struct scenario *scenario;
	struct loop_source *timer;
	bool closed;
	uint32_t seed; /* of what is chance; never 0 */
	uint32_t n_jobs, n_left;
	uint32_t fetch_id; /* that it waits for; 0: none */
};

struct scenario {
	const char *name;
	void (*greet)(struct evil *e); /* instead of HELLO */
	void (*lie)(struct evil *e);
	bool has_job; /* the end comes after its JOB_EXIT, if that comes */
	bool ends_itself;
};

/* ---- pieces ---- */

static void send_buf(struct evil *e, uint8_t type, const struct buf *b)
{
	link_send_buf(e->link, type, LINK_PRIO, b);
}

static void send_path(struct evil *e, uint8_t type, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_list_encode(&b, path);
	send_buf(e, type, &b);
}

static void send_serve(struct evil *e, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_serve_encode(&b, path, SERVE_WORKSPACE);
	send_buf(e, MSG_SERVE, &b);
}

static void send_pair(struct evil *e, uint8_t type, uint32_t id, uint32_t v)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_pair_encode(&b, id, v);
	send_buf(e, type, &b);
}

static struct entry_attr attr(uint8_t type)
{
	return (struct entry_attr){
		.type = type,
		.mode = type == ENTRY_DIR ? 0755 : 0644,
		.nlink = 1,
		.ino = 7,
		.size = 5,
		.version = 3,
	};
}

static void put_entry(struct buf *b, const char *name, size_t n)
{
	struct entry_attr a = attr(ENTRY_FILE);

	dir_entry_encode(b, name, n, &a, NULL);
}

/* The workspace's listing with the entries that put has appended. */
static void begin_dir(struct buf *b, uint32_t id, const char *path, uint32_t n)
{
	struct entry_attr a = attr(ENTRY_DIR);

	msg_dir_encode(b, id, DIR_LISTED, path, &a, n);
}

static void dir_with(struct evil *e, const char *name, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	begin_dir(&b, 1, WORKSPACE, 1);
	put_entry(&b, name, n);
	send_serve(e, WORKSPACE);
	send_buf(e, MSG_DIR, &b);
}

static void hello_with(struct evil *e, uint32_t version, char **top)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct utsname u = {0};
	struct msg_hello m = {
		.version = version,
		.program = (char *)"evil",
		.host = (char *)"evil",
		.arch = u.machine,
		.uid = 1000,
		.gid = 1000,
		.cpu_model = (char *)"",
		.top = top,
	};

	(void)uname(&u);
	msg_hello_encode(&b, &m);
	send_buf(e, MSG_HELLO, &b);
}

static void env_and_exe(struct evil *e)
{
	_cleanup_buf_ struct buf env = BUF_INIT, exe = BUF_INIT, caller = BUF_INIT;
	struct msg_caller c = {.caller_id = 1};
	char *vars[] = {(char *)"PATH=/usr/bin", NULL};
	struct msg_exe m = {.exe_id = 1, .path = (char *)"/bin/true"};

	msg_env_encode(&env, 1, vars);
	send_buf(e, MSG_ENV, &env);
	msg_exe_encode(&exe, &m);
	send_buf(e, MSG_EXE, &exe);
	caller_read(&c.caller);
	msg_caller_encode(&caller, &c);
	send_buf(e, MSG_CALLER, &caller);
}

static void job_with(struct evil *e, struct msg_job m, const char *cwd, const char *workspace,
		     const char *second)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *workspaces[] = {(char *)workspace, (char *)second, NULL};
	char *argv[] = {(char *)"true", NULL};

	m.path = (char *)"/bin/true";
	m.cwd = (char *)cwd;
	m.workspaces = workspaces;
	m.argv = argv;
	msg_job_encode(&b, &m);
	send_buf(e, MSG_JOB, &b);
}

static const struct msg_job plain = {.job_id = 1, .env_id = 1, .exe_id = 1, .caller_id = 1};

static void job_at(struct evil *e, const char *workspace)
{
	env_and_exe(e);
	job_with(e, plain, workspace, workspace, NULL);
}

/* ---- greetings ---- */

static void greet_well(struct evil *e)
{
	char *top[] = {(char *)"srv", NULL};

	hello_with(e, PROTO_VERSION, top);
}

static void greet_not(struct evil *e)
{
	env_and_exe(e);
}

static void greet_twice(struct evil *e)
{
	greet_well(e);
	greet_well(e);
}

static void greet_other_version(struct evil *e)
{
	hello_with(e, 77, NULL);
}

/* Not through the link, so before all that is queued there. */
static void say_first(struct evil *e, const void *p, size_t n)
{
	if (write_full(e->fd, p, n) < 0)
		exit(2);
}

/* As clients did before there was a greeting: HELLO alone. */
static void greet_old(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT, frame = BUF_INIT;
	struct msg_hello m = {.version = 11,
			      .program = (char *)"old",
			      .host = (char *)"evil",
			      .arch = (char *)"x",
			      .cpu_model = (char *)""};

	msg_hello_encode(&b, &m);
	proto_put_header(buf_grow(&frame, PROTO_HEADER_LEN), MSG_HELLO, 0, (uint32_t)b.len);
	buf_append(&frame, b.data, b.len);
	say_first(e, frame.data, frame.len);
	greet_well(e);
}

/* Nearly a greeting, nearly a HELLO, and as much as may stand before one. */
static void greet_after_noise(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	buf_append(&b, PROTO_GREETING, PROTO_GREETING_LEN - 1);
	proto_put_header(buf_grow(&b, PROTO_HEADER_LEN), MSG_HELLO, 0, 4);
	while (b.len < PROTO_NOISE_MAX)
		buf_append(&b, PROTO_MAGIC, 1);
	b.len = PROTO_NOISE_MAX;
	say_first(e, b.data, b.len);
	greet_well(e);
}

static void greet_never(struct evil *e)
{
	_cleanup_free_ char *noise = xmalloc(PROTO_NOISE_MAX + 100);

	memset(noise, 'x', PROTO_NOISE_MAX + 100);
	say_first(e, noise, PROTO_NOISE_MAX + 100);
	greet_well(e);
}

/* It is a PING, behind the first one. */
static void greet_again(struct evil *e)
{
	say_first(e, PROTO_GREETING, PROTO_GREETING_LEN);
	greet_well(e);
}

static void greet_top_dotdot(struct evil *e)
{
	char *top[] = {(char *)"..", NULL};

	hello_with(e, PROTO_VERSION, top);
}

static void greet_top_slash(struct evil *e)
{
	char *top[] = {(char *)"srv/../etc", NULL};

	hello_with(e, PROTO_VERSION, top);
}

static void greet_top_many(struct evil *e)
{
	_cleanup_strv_ char **top = xcalloc(1, sizeof(*top));

	for (int i = 0; i < 300; i++)
		strv_push(&top, xasprintf("d%d", i));
	hello_with(e, PROTO_VERSION, top);
}

/* ---- listings ---- */

static void name_dotdot(struct evil *e)
{
	dir_with(e, "..", 2);
}

static void name_slash(struct evil *e)
{
	dir_with(e, "../etc", 6);
}

static void name_nul(struct evil *e)
{
	dir_with(e, "a\0b", 3);
}

static void name_empty(struct evil *e)
{
	dir_with(e, "", 0);
}

static void name_long(struct evil *e)
{
	char name[300];

	memset(name, 'n', sizeof(name));
	dir_with(e, name, sizeof(name));
}

static void names_twice(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	begin_dir(&b, 1, WORKSPACE, 3);
	for (int i = 0; i < 3; i++)
		put_entry(&b, "same", 4);
	send_serve(e, WORKSPACE);
	send_buf(e, MSG_DIR, &b);
}

static void dir_count(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	begin_dir(&b, 1, WORKSPACE, UINT32_MAX);
	put_entry(&b, "a", 1);
	send_buf(e, MSG_DIR, &b);
}

static void dir_id_zero(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	begin_dir(&b, 0, WORKSPACE, 0);
	send_buf(e, MSG_DIR, &b);
}

/* "Can't be told" has to say why. */
static void dir_error(struct evil *e, uint32_t error)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_dir_unknown_encode(&b, 0, WORKSPACE, error);
	send_buf(e, MSG_DIR, &b);
}

static void dir_error_none(struct evil *e)
{
	dir_error(e, 0);
}

static void dir_error_huge(struct evil *e)
{
	dir_error(e, UINT32_MAX);
}

static void dir_unclean(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	begin_dir(&b, 1, WORKSPACE "/../x", 0);
	send_buf(e, MSG_DIR, &b);
}

static void dir_id_twice(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	dir_with(e, "a", 1);
	begin_dir(&b, 1, "/srv/other", 0);
	send_serve(e, "/srv/other");
	send_buf(e, MSG_DIR, &b);
}

static void update_unknown(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct entry_attr a = attr(ENTRY_DIR);

	msg_update_encode(&b, 12345, &a, 1);
	put_entry(&b, "a", 1);
	send_buf(e, MSG_UPDATE, &b);
}

static void update_dotdot(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct entry_attr a = attr(ENTRY_DIR);

	msg_update_encode(&b, 1, &a, 1);
	put_entry(&b, "..", 2);
	send_buf(e, MSG_UPDATE, &b);
}

static void serve_many(struct evil *e)
{
	char path[64];

	for (int i = 0; i < 70000; i++) {
		(void)snprintf(path, sizeof(path), "/srv/%d", i);
		send_serve(e, path);
	}
}

static void serve_relative(struct evil *e)
{
	send_serve(e, "srv");
}

static void send_link(struct evil *e, const char *path, const char *target)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_link_encode(&b, path, target);
	send_buf(e, MSG_LINK, &b);
}

static void link_in_root(struct evil *e)
{
	send_link(e, "/etc", "/srv");
}

static void link_many(struct evil *e)
{
	for (int i = 0; i < 100000; i++) {
		_cleanup_free_ char *path = xasprintf("/srv/l%d", i);

		send_link(e, path, "/");
	}
}

/* Where the workspace is mounted, and what leads to it. */
static void link_for_workspace(struct evil *e)
{
	send_serve(e, WORKSPACE);
	send_link(e, WORKSPACE, "/etc");
}

static void prefetch_many(struct evil *e)
{
	_cleanup_strv_ char **names = xcalloc(1, sizeof(*names));
	_cleanup_buf_ struct buf b = BUF_INIT;

	for (int i = 0; i < 4000; i++)
		strv_push(&names, xasprintf("n%d", i));
	msg_prefetch_encode(&b, 1, names);
	for (int i = 0; i < 100; i++)
		send_buf(e, i % 2 ? MSG_GUESS : MSG_PREFETCH, &b);
}

/* ---- contents ---- */

static void content(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_content m = {.fetch_id = 1, .data = {(const uint8_t *)"owned", 5}};

	msg_content_encode(&b, &m);
	send_buf(e, MSG_CONTENT, &b);
}

/* ---- jobs ---- */

static void job_cwd_outside(struct evil *e)
{
	env_and_exe(e);
	job_with(e, plain, "/etc", WORKSPACE, NULL);
}

static void job_nested(struct evil *e)
{
	env_and_exe(e);
	job_with(e, plain, WORKSPACE, WORKSPACE, WORKSPACE "/a");
}

static void job_no_env(struct evil *e)
{
	struct msg_job m = plain;

	m.env_id = 99;
	env_and_exe(e);
	job_with(e, m, WORKSPACE, WORKSPACE, NULL);
}

static void job_no_exe(struct evil *e)
{
	struct msg_job m = plain;

	m.exe_id = 99;
	env_and_exe(e);
	job_with(e, m, WORKSPACE, WORKSPACE, NULL);
}

static void job_no_caller(struct evil *e)
{
	struct msg_job m = plain;

	m.caller_id = 99;
	env_and_exe(e);
	job_with(e, m, WORKSPACE, WORKSPACE, NULL);
}

static void send_caller(struct evil *e, uint32_t id, struct caller caller)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_caller m = {.caller_id = id, .caller = caller};

	msg_caller_encode(&b, &m);
	send_buf(e, MSG_CALLER, &b);
}

static void caller_twice(struct evil *e)
{
	struct caller c;

	caller_read(&c);
	send_caller(e, 1, c);
	send_caller(e, 1, c);
}

static void caller_soft_over_hard(struct evil *e)
{
	struct caller c;

	caller_read(&c);
	c.limits[CALLER_CPU] = (struct caller_limit){2, 1};
	send_caller(e, 1, c);
}

static void caller_ignores_kill(struct evil *e)
{
	struct caller c;

	caller_read(&c);
	c.ignored = CALLER_SIGNALS_NEVER;
	send_caller(e, 1, c);
}

static void caller_nicest(struct evil *e)
{
	struct caller c;

	caller_read(&c);
	c.nice = -100;
	send_caller(e, 1, c);
}

/* Standard error, for which nothing may stand. */
static void caller_descriptor(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_caller m = {.caller_id = 1};

	caller_read(&m.caller);
	m.caller.fds_end = CALLER_FDS;
	m.caller.fds[CALLER_FDS - 1] = CALLER_READS;
	msg_caller_encode(&b, &m);
	memcpy(b.data + b.len - 3, "\2\0\1", 3);
	send_buf(e, MSG_CALLER, &b);
}

static void job_twice(struct evil *e)
{
	job_at(e, WORKSPACE);
	job_with(e, plain, WORKSPACE, WORKSPACE, NULL);
}

static void env_twice(struct evil *e)
{
	env_and_exe(e);
	env_and_exe(e);
}

static void env_count(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	buf_put_u32(&b, 1);
	buf_put_u32(&b, UINT32_MAX);
	send_buf(e, MSG_ENV, &b);
}

static void exe_relative(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_exe m = {.exe_id = 1, .path = (char *)"../bin/sh"};

	msg_exe_encode(&b, &m);
	send_buf(e, MSG_EXE, &b);
}

/* The link's sender keeps to the maximum, so the frames are made here. */
static void giant_message(struct evil *e)
{
	static char bytes[PROTO_MSG_MAX];

	for (int i = 0; i < 2; i++)
		link_send(e->link, MSG_JOB, LINK_PRIO, bytes, sizeof(bytes));
}

static void job_at_root(struct evil *e)
{
	job_at(e, "/");
}

static void job_at_proc(struct evil *e)
{
	job_at(e, "/proc");
}

static void job_at_dev(struct evil *e)
{
	job_at(e, "/dev/shm");
}

static void job_at_usr(struct evil *e)
{
	job_at(e, "/usr");
}

static void job_at_etc(struct evil *e)
{
	job_at(e, "/etc");
}

static void job_at_tmp(struct evil *e)
{
	job_at(e, "/tmp");
}

static void job_killed(struct evil *e)
{
	job_at(e, WORKSPACE);
	send_pair(e, MSG_JOB_KILL, 1, SIGKILL);
}

static void kill_unknown(struct evil *e)
{
	send_pair(e, MSG_JOB_KILL, 4242, SIGKILL);
}

static void kill_odd(struct evil *e)
{
	send_pair(e, MSG_JOB_KILL, 1, 1000);
}

static void credit_over_window(struct evil *e)
{
	job_at(e, WORKSPACE);
	send_pair(e, MSG_JOB_CREDIT, 1, UINT32_MAX);
}

static void input_over_window(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_free_ char *bytes = xcalloc(1, 2 * PROTO_INPUT_WINDOW);
	struct msg_job m = plain;

	m.flags = JOB_F_STDIN;
	env_and_exe(e);
	job_with(e, m, WORKSPACE, WORKSPACE, NULL);
	msg_bytes_encode(&b, 1, bytes, 2 * PROTO_INPUT_WINDOW);
	send_buf(e, MSG_JOB_INPUT, &b);
}

static void workers_words(struct evil *e)
{
	send_path(e, MSG_LIST, "/etc");
}

/* ---- no messages ---- */

static void noise_frames(struct evil *e)
{
	uint8_t noise[4096];
	uint32_t x = 1;

	for (size_t i = 0; i < sizeof(noise); i++) {
		x = x * 1664525 + 1013904223;
		noise[i] = (uint8_t)(x >> 24);
	}
	(void)!write(e->fd, noise, sizeof(noise));
}

static void trickle(void *data)
{
	struct evil *e = data;

	(void)!write(e->fd, "", 1);
	loop_timer_set(e->timer, TRICKLE_MS);
}

/* A byte at a time is no sign of life. */
static void half_frame(struct evil *e)
{
	static const uint8_t header[] = {0xff, 0xff, 0, 0, MSG_JOB, 0, 0, 0};

	(void)!write(e->fd, header, sizeof(header));
	e->timer = loop_add_timer(e->loop, TRICKLE_MS, trickle, e);
}

static void pings(struct evil *e)
{
	static const char token[8];

	for (int i = 0; i < 100000; i++)
		link_send(e->link, MSG_PING, LINK_PRIO, token, sizeof(token));
}

/* ---- any order ---- */

/*
 * Messages that are well-formed each, and that an honest client sends at some time, in an order and
 * about things that are chance.
 */
static uint32_t chance(struct evil *e, uint32_t below)
{
	e->seed ^= e->seed << 13;
	e->seed ^= e->seed >> 17;
	e->seed ^= e->seed << 5;
	return e->seed % below;
}

static const char *any_dir(struct evil *e)
{
	static const char *const dirs[] = {WORKSPACE, WORKSPACE "/d", WORKSPACE "/d/d", "/srv/x"};

	return dirs[chance(e, sizeof(dirs) / sizeof(dirs[0]))];
}

static void any_entry(struct evil *e, struct buf *b)
{
	static const uint8_t types[] = {ENTRY_FILE, ENTRY_FILE, ENTRY_DIR, ENTRY_SYMLINK,
					ENTRY_FIFO};
	static const char *const names[] = {"a", "d", "l"};
	struct entry_attr a = attr(types[chance(e, sizeof(types))]);
	const char *name = names[chance(e, sizeof(names) / sizeof(names[0]))];

	a.version = 1 + chance(e, 1000);
	dir_entry_encode(b, name, 1, &a, a.type == ENTRY_SYMLINK ? "d/../a" : NULL);
}

static void any_listing(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct entry_attr a = attr(ENTRY_DIR);
	uint8_t type = MSG_DIR;

	a.version = 1 + chance(e, 1000);
	switch (chance(e, 4)) {
	case 0:
		msg_update_encode(&b, 1 + chance(e, 4), &a, 1);
		type = MSG_UPDATE;
		break;
	case 1:
		buf_put_u32(&b, 1 + chance(e, 4));
		send_buf(e, MSG_DIR_STALE, &b);
		return;
	default:
		msg_dir_encode(&b, 1 + chance(e, 4), chance(e, 2) ? DIR_LISTED : DIR_PARTIAL,
			       any_dir(e), &a, 1);
	}
	any_entry(e, &b);
	send_buf(e, type, &b);
}

/* Of what it asked for: some of it, all, or that there is none. */
static void any_content(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_content m = {
		.fetch_id = e->fetch_id,
		.state = (uint8_t)chance(e, 4),
		.data = {(const uint8_t *)"owned", chance(e, 6)},
	};

	if (!e->fetch_id)
		return;
	m.error = m.state == CONTENT_ERROR ? 5 : 0;
	if (m.state != CONTENT_DATA)
		e->fetch_id = 0;
	msg_content_encode(&b, &m);
	send_buf(e, MSG_CONTENT, &b);
}

static void any_hint(struct evil *e)
{
	char *names[] = {(char *)"a", (char *)"d", NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;

	switch (chance(e, 5)) {
	case 0:
		msg_prefetch_encode(&b, 1 + chance(e, 4), names);
		send_buf(e, chance(e, 2) ? MSG_GUESS : MSG_PREFETCH, &b);
		break;
	case 1:
		msg_outside_encode(&b, "/srv/bin", names + chance(e, 3));
		send_buf(e, MSG_OUTSIDE, &b);
		break;
	case 2:
		msg_link_encode(&b, "/srv/link", chance(e, 2) ? WORKSPACE : "");
		send_buf(e, MSG_LINK, &b);
		break;
	case 3:
		msg_bare_encode(&b, &(struct msg_bare){
					    .path = (char *)(chance(e, 2) ? "/srv/bin" : WORKSPACE),
					    .there = chance(e, 2)});
		send_buf(e, MSG_BARE, &b);
		break;
	default:
		send_serve(e, any_dir(e));
	}
}

static void any_job(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *workspaces[] = {(char *)WORKSPACE, NULL}, *argv[] = {(char *)"cat", NULL};
	struct msg_job m = plain;

	m.job_id = ++e->n_jobs;
	m.exe_id = 1 + chance(e, 4) / 2;
	m.path = (char *)(m.exe_id == 2 ? "/bin/cat" : "/bin/true");
	m.cwd = (char *)(chance(e, 8) ? WORKSPACE : WORKSPACE "/d");
	m.workspaces = workspaces;
	m.argv = argv;
	msg_job_encode(&b, &m);
	send_buf(e, MSG_JOB, &b);
}

static void any_word_to_a_job(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	uint32_t id = 1 + chance(e, e->n_jobs + 1);

	switch (chance(e, 4)) {
	case 0:
		send_pair(e, MSG_JOB_KILL, id, 1 + chance(e, 31));
		break;
	case 1:
		send_pair(e, MSG_JOB_CREDIT, id, chance(e, 100));
		break;
	default: /* none: the end of it */
		msg_bytes_encode(&b, id, "owned", chance(e, 6));
		send_buf(e, MSG_JOB_INPUT, &b);
	}
}

static void any_message(void *data)
{
	struct evil *e = data;

	switch (chance(e, 6)) {
	case 0:
		any_job(e);
		break;
	case 1:
		any_content(e);
		break;
	case 2:
		any_hint(e);
		break;
	case 3:
		any_listing(e);
		break;
	default:
		any_word_to_a_job(e);
	}
	if (e->n_left-- > 0)
		loop_timer_set(e->timer, BETWEEN_MS);
	else
		link_send(e->link, UNKNOWN, LINK_PRIO, NULL, 0);
}

/* One by one, so that what the worker says in between counts. */
static void any_order(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_exe cat = {.exe_id = 2, .path = (char *)"/bin/cat"};

	env_and_exe(e);
	msg_exe_encode(&b, &cat);
	send_buf(e, MSG_EXE, &b);
	send_serve(e, WORKSPACE);
	any_job(e);
	e->n_left = chance(e, 60);
	e->timer = loop_add_timer(e->loop, BETWEEN_MS, any_message, e);
}

static const struct scenario scenarios[] = {
	{"any-order", NULL, any_order, .ends_itself = true},
	{"no-hello", greet_not, NULL, false},
	{"hello-twice", greet_twice, NULL, false},
	{"other-version", greet_other_version, NULL, false},
	{"old-version", greet_old, NULL, false},
	{"greeting-after-noise", greet_after_noise, NULL, false},
	{"greeting-never", greet_never, NULL, true},
	{"greeting-again", greet_again, NULL, false},
	{"top-dotdot", greet_top_dotdot, NULL, false},
	{"top-slash", greet_top_slash, NULL, false},
	{"top-many", greet_top_many, NULL, false},
	{"name-dotdot", NULL, name_dotdot, false},
	{"name-slash", NULL, name_slash, false},
	{"name-nul", NULL, name_nul, false},
	{"name-empty", NULL, name_empty, false},
	{"name-long", NULL, name_long, false},
	{"names-twice", NULL, names_twice, false},
	{"dir-count", NULL, dir_count, false},
	{"dir-id-zero", NULL, dir_id_zero, false},
	{"dir-error-none", NULL, dir_error_none, false},
	{"dir-error-huge", NULL, dir_error_huge, false},
	{"dir-unclean", NULL, dir_unclean, false},
	{"dir-id-twice", NULL, dir_id_twice, false},
	{"update-unknown", NULL, update_unknown, false},
	{"update-dotdot", NULL, update_dotdot, false},
	{"serve-many", NULL, serve_many, false},
	{"serve-relative", NULL, serve_relative, false},
	{"link-in-root", NULL, link_in_root, false},
	{"link-many", NULL, link_many, false},
	{"link-for-workspace", NULL, link_for_workspace, false},
	{"prefetch-many", NULL, prefetch_many, false},
	{"content-never-asked", NULL, content, false},
	{"job-cwd-outside", NULL, job_cwd_outside, false},
	{"job-nested", NULL, job_nested, false},
	{"job-no-env", NULL, job_no_env, false},
	{"job-no-exe", NULL, job_no_exe, false},
	{"job-no-caller", NULL, job_no_caller, false},
	{"caller-twice", NULL, caller_twice, false},
	{"caller-descriptor", NULL, caller_descriptor, false},
	{"caller-soft-over-hard", NULL, caller_soft_over_hard, false},
	{"caller-ignores-kill", NULL, caller_ignores_kill, false},
	{"caller-nicest", NULL, caller_nicest, false},
	{"job-twice", NULL, job_twice, false},
	{"env-twice", NULL, env_twice, false},
	{"env-count", NULL, env_count, false},
	{"exe-relative", NULL, exe_relative, false},
	{"giant-message", NULL, giant_message, false},
	{"job-at-root", NULL, job_at_root, true},
	{"job-at-proc", NULL, job_at_proc, true},
	{"job-at-dev", NULL, job_at_dev, true},
	{"job-at-usr", NULL, job_at_usr, true},
	{"job-at-etc", NULL, job_at_etc, true},
	{"job-at-tmp", NULL, job_at_tmp, true},
	{"job-killed", NULL, job_killed, true},
	{"kill-unknown", NULL, kill_unknown, false},
	{"kill-odd", NULL, kill_odd, false},
	{"credit-over-window", NULL, credit_over_window, false},
	{"input-over-window", NULL, input_over_window, false},
	{"workers-words", NULL, workers_words, false},
	{"noise-frames", NULL, noise_frames, true},
	{"half-frame", NULL, half_frame, true},
	{"pings", NULL, pings, false},
};

/* ---- the client ---- */

static void say_end(struct evil *e)
{
	link_send(e->link, UNKNOWN, LINK_PRIO, NULL, 0);
}

static void lie(struct evil *e)
{
	if (e->scenario->lie)
		e->scenario->lie(e);
	if (!e->scenario->has_job && !e->scenario->ends_itself)
		say_end(e);
}

static int on_fetch(struct evil *e, struct blob payload)
{
	struct msg_fetch m;

	if (msg_fetch_decode(payload, &m) < 0)
		return CONCC_E_PROTO;
	e->fetch_id = m.fetch_id;
	msg_fetch_release(&m);
	return 0;
}

/* Whatever is asked for is empty. */
static int on_list(struct evil *e, struct blob payload)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_buf_ struct buf b = BUF_INIT;
	static uint32_t next_id = 100;

	if (msg_list_decode(payload, &path) < 0)
		return CONCC_E_PROTO;
	begin_dir(&b, next_id++, path, 0);
	send_buf(e, MSG_DIR, &b);
	return 0;
}

static int on_exit_msg(struct evil *e, struct blob payload)
{
	struct msg_exit m;

	if (msg_exit_decode(payload, &m) < 0)
		return CONCC_E_PROTO;
	printf("job %u ended: how %u code %u %s\n", m.job_id, m.how, m.code, m.text);
	msg_exit_release(&m);
	if (e->scenario->has_job)
		say_end(e);
	return 0;
}

static int on_bye(struct blob payload)
{
	_cleanup_free_ char *text = NULL;

	if (msg_bye_decode(payload, &text) < 0)
		return CONCC_E_PROTO;
	printf("bye: %s\n", text);
	return 0;
}

static int on_message(void *data, uint8_t type, struct blob payload)
{
	struct evil *e = data;

	switch (type) {
	case MSG_READY:
		lie(e);
		break;
	case MSG_LIST:
		return on_list(e, payload);
	case MSG_FETCH:
		return on_fetch(e, payload);
	case MSG_JOB_EXIT:
		return on_exit_msg(e, payload);
	case MSG_BYE:
		return on_bye(payload);
	}
	return 0;
}

static void on_closed(void *data, int err, const char *text)
{
	struct evil *e = data;

	printf("closed: %s\n", err_text(err));
	e->closed = true;
	loop_quit(e->loop);
}

static void too_late(void *data)
{
	printf("the worker did not end the link\n");
	loop_quit(((struct evil *)data)->loop);
}

static const struct scenario *find(const char *name)
{
	size_t n = strcspn(name, ".");

	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		if (strlen(scenarios[i].name) == n && strncmp(scenarios[i].name, name, n) == 0)
			return &scenarios[i];
	}
	return NULL;
}

static pid_t start_worker(char **argv, int *ret_fd)
{
	pid_t pid;
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		exit(2);
	pid = fork();
	if (pid == 0) {
		(void)dup2(sv[1], 0);
		(void)dup2(sv[1], 1);
		(void)execvp(argv[0], argv);
		_exit(127);
	}
	(void)close(sv[1]);
	*ret_fd = sv[0];
	return pid;
}

int main(int argc, char **argv)
{
	static const struct link_ops ops = {.message = on_message, .closed = on_closed};
	static const struct link_config conf = {.end = LINK_CLIENT};
	struct evil e = {.scenario = argc > 2 ? find(argv[1]) : NULL};
	int fd, status;
	pid_t pid;

	if (argc == 2 && streq(argv[1], "list")) {
		for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
			puts(scenarios[i].name);
		return 0;
	}
	if (argc > 2 && strchr(argv[1], '.'))
		e.seed = (uint32_t)strtoul(strchr(argv[1], '.') + 1, NULL, 10);
	e.seed += !e.seed;
	log_init("evil-client", LOG_LEVEL_ERR);
	if (!e.scenario || loop_new(&e.loop) < 0)
		return 2;
	pid = start_worker(argv + 2, &fd);
	e.fd = fd;
	e.link = link_new(e.loop, stream_from_fds(fd, fd), &conf, &ops, &e);
	(void)loop_add_timer(e.loop, LIMIT_MS, too_late, &e);
	if (e.scenario->greet)
		e.scenario->greet(&e);
	else
		greet_well(&e);
	(void)loop_run(e.loop);
	link_free(e.link);
	loop_free(e.loop);
	(void)fflush(stdout);
	if (!e.closed)
		return 1;
	(void)waitpid(pid, &status, 0);
	printf("worker ended: %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
	return WIFSIGNALED(status) ? 1 : 0;
}
