/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * From a worker's address to a stream.  For ssh:// a thread asks `ssh -G` what
 * the user's configuration says, and tries libssh2 where that can do it all;
 * otherwise, or where the negotiation shows that it can't, the loop's thread
 * spawns OpenSSH's client for the same address.
 *
 * One file: one attempt, from what is to be started to whichever way it ends.
 */
#include "concc/link.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/loop.h"
#include "concc/str.h"
#include "push.h"
#include "stderr_tail.h"
#include "spawn.h"
#include "ssh_command.h"
#include "ssh_config.h"
#include "stream_ssh2.h"

#define WORKER_PROGRAM	   "concc-worker"
#define PLAIN_PROGRAM	   "concc-plain"
#define DEFAULT_TIMEOUT_MS 30000
#define BACKSTOP_MS	   500		/* the thread sees its deadline first, and knows more */
#define CONFIG_MAX	   (256 * 1024) /* what `ssh -G` may print */

/* What loop and thread share; whoever lets go last frees it. */
struct ssh_task {
	atomic_int refs;
	atomic_int stage;	/* enum ssh2_stage */
	int done_fd, cancel_fd; /* eventfds: thread to loop, and loop to thread */
	/* read-only while the thread runs */
	char *worker, *address, *program, *ssh;
	struct ssh_address target;
	uint64_t deadline_ms;
	enum ssh_mode mode;
	enum install install;
	/* the thread's, then the loop's once done_fd was written */
	struct stream *stream;
	struct worker_file *file; /* NULL with a program given, or when there is none here */
	int err;
	struct errmsg msg;
};

struct connecting {
	struct loop *loop;
	connected_fn fn;
	void *data;
	char *name, *address, *command, *program, *ssh, *plain;
	uint32_t slots;
	enum ssh_mode mode;
	enum install install;
	uint32_t index;
	uint32_t timeout_ms;
	struct ssh_address target;
	struct ssh_task *task; /* NULL without a thread */
	pthread_t thread;      /* to be joined or detached while there is a task */
	struct loop_source *start, *done, *timer;
	struct worker_file *file; /* what may be put there; the task's until it is done */
	struct push *push;	  /* under way */
	char *how;		  /* for it: what carries the bytes */
};

static const char *const stage_names[] = {
	[STAGE_CONFIG] = "asking ssh for its configuration",
	[STAGE_LOOKUP] = "looking up the host",
	[STAGE_CONNECT] = "connecting",
	[STAGE_HANDSHAKE] = "in the SSH handshake",
	[STAGE_LOGIN] = "logging in",
	[STAGE_EXEC] = "starting the worker",
};

/* ---- what is started ---- */

/* name in the folder this program is in, so that a build tree works in place. */
static char *local_program(const char *name)
{
	char self[4096];
	ssize_t n;
	char *slash, *path;

	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		if (slash) {
			*slash = '\0';
			path = path_join(self, name);
			if (access(path, X_OK) == 0)
				return path;
			free(path);
		}
	}
	return xstrdup(name);
}

char *transport_words(const char *address)
{
	struct ssh_address a = {0};
	char *words;

	if (!address || !str_starts(address, "ssh://") || ssh_address_parse(address, &a, NULL) < 0)
		return NULL;
	words = ssh_address_words(&a);
	ssh_address_release(&a);
	return words;
}

/* ---- the end of an attempt ---- */

static void task_unref(struct ssh_task *t)
{
	if (atomic_fetch_sub(&t->refs, 1) != 1)
		return;
	stream_free(t->stream);
	close(t->done_fd);
	close(t->cancel_fd);
	free(t->worker);
	free(t->address);
	free(t->program);
	free(t->ssh);
	worker_file_free(t->file);
	ssh_address_release(&t->target);
	free(t);
}

static void let_task_go(struct connecting *c, bool done)
{
	uint64_t one = 1;

	if (!c->task)
		return;
	loop_remove(c->done);
	c->done = NULL;
	if (done) {
		/* It wrote done_fd with its last breath. */
		(void)pthread_join(c->thread, NULL);
	} else {
		/* A name look-up can't be interrupted: the thread ends when it can. */
		(void)pthread_detach(c->thread);
		(void)!write(c->task->cancel_fd, &one, sizeof(one)); /* an eventfd takes one more */
	}
	task_unref(c->task);
	c->task = NULL;
}

static void connecting_free(struct connecting *c)
{
	let_task_go(c, false);
	push_free(c->push);
	worker_file_free(c->file);
	free(c->how);
	loop_remove(c->start);
	loop_remove(c->timer);
	ssh_address_release(&c->target);
	free(c->name);
	free(c->address);
	free(c->command);
	free(c->program);
	free(c->ssh);
	free(c->plain);
	free(c);
}

static void hand_over(struct connecting *c, struct stream *s, const char *how)
{
	connected_fn fn = c->fn;
	void *data = c->data;

	log_debug("worker=%s connected by %s", c->name, how);
	connecting_free(c);
	fn(data, s, 0, "", how);
}

static void give_up(struct connecting *c, int err, const char *text)
{
	connected_fn fn = c->fn;
	void *data = c->data;
	struct errmsg msg;

	(void)errmsg_set(&msg, err, "%s", text); /* text may be the task's */
	connecting_free(c);
	fn(data, NULL, err, msg.text, "");
}

static void on_pushed(void *data, struct stream *s, int err, const char *text, const char *did)
{
	struct connecting *c = data;
	_cleanup_free_ char *all = NULL;

	c->push = NULL; /* it frees itself */
	all = err < 0			   ? xasprintf("%s: %s", c->address, text)
	      : c->install == INSTALL_ONLY ? xstrdup(did)
					   : xasprintf("%s, concc-worker %s", c->how, did);
	if (err < 0)
		give_up(c, err, all);
	else
		hand_over(c, s, all);
}

static void succeed(struct connecting *c, struct stream *s, const char *how)
{
	if (c->install == INSTALL_NO) {
		hand_over(c, s, how);
		return;
	}
	loop_remove(c->timer); /* a push takes as long as it moves */
	c->timer = NULL;
	c->how = xstrdup(how);
	c->push = push_new(c->loop, s, c->file, c->timeout_ms, on_pushed, c);
}

static void finish_spawned(struct connecting *c, char **argv, bool sockets, bool patient,
			   const char *how)
{
	_cleanup_free_ char *more = NULL;
	struct stream *s;
	struct errmsg msg;
	int err = spawn_stream(c->loop, argv, sockets, patient, c->name, &s, &msg);

	strv_free(argv);
	if (err < 0 && c->program && !c->plain)
		more = xasprintf("%s; correct `program` in its section, or remove it", msg.text);
	if (err < 0)
		give_up(c, err, more ? more : msg.text);
	else
		succeed(c, s, how);
}

/* ---- ssh ---- */

static char **openssh_argv(const struct connecting *c)
{
	const struct ssh_command command = {
		.ssh = c->ssh,
		.target = &c->target,
		.program = c->program,
		.install = c->install,
		.file = c->file,
		.timeout_ms = c->timeout_ms,
	};

	return ssh_command_argv(&command);
}

static void by_openssh(struct connecting *c, const char *reason)
{
	char *how = xasprintf("openssh: %s", reason);

	finish_spawned(c, openssh_argv(c), false, false, how);
	free(how);
}

static void set_stage(void *data, enum ssh2_stage stage)
{
	struct ssh_task *t = data;

	atomic_store(&t->stage, (int)stage);
}

/* What `ssh -G` says for the address. */
static int ask_ssh(struct ssh_task *t, struct ssh_config *ret)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	_cleanup_free_ char *words = ssh_address_words(&t->target);
	char **argv = NULL;
	int err, status;

	strv_push(&argv, xstrdup(t->ssh));
	strv_push(&argv, xstrdup("-G"));
	strv_push(&argv, xstrdup("-T"));
	ssh_command_push_target(&argv, &t->target);
	err = spawn_capture(argv, CONFIG_MAX, t->deadline_ms, t->cancel_fd, &out, &status);
	strv_free(argv);
	if (err < 0)
		return errmsg_set(&t->msg, err,
				  "%s: running `%s -G %s`: %s; is OpenSSH's client "
				  "installed?",
				  t->address, t->ssh, words, err_text(err));
	if (status != 0) {
		struct blob line = last_line((struct blob){out.data, out.len});
		char *shown = str_escape(line.p, line.n, 200);

		err = errmsg_set(&t->msg, CONCC_E_CONF, "%s: `%s -G %s` failed: \"%s\"", t->address,
				 t->ssh, words, shown);
		free(shown);
		return err;
	}
	ssh_config_parse(buf_cstr(&out), out.len, ret);
	if (ret->hostname && ret->user)
		return 0;
	ssh_config_release(ret);
	return errmsg_set(&t->msg, CONCC_E_CONF, "%s: `%s -G %s` names no host and user",
			  t->address, t->ssh, words);
}

/* Our own concc-worker: what the host starts if it has it, or is to have. */
static int find_file(struct ssh_task *t)
{
	_cleanup_free_ char *path = local_program(WORKER_PROGRAM);
	int err;

	if (t->program)
		return 0;
	err = worker_file_open(path, &t->file, &t->msg);
	if (t->install == INSTALL_NO)
		return 0;
	return err < 0 ? err : worker_file_check(t->file, path, &t->msg);
}

static int by_libssh2(struct ssh_task *t)
{
	_cleanup_free_ char *command = ssh_command_remote(t->program, t->install, t->file);
	_cleanup_free_ char *words = ssh_address_words(&t->target);
	struct ssh_config config;
	struct ssh2_request req = {
		.worker = t->worker,
		.address = t->address,
		.words = words,
		.config = &config,
		.command = command,
		.deadline_ms = t->deadline_ms,
		.cancel_fd = t->cancel_fd,
		.stage = set_stage,
		.data = t,
	};
	int err;

	err = ask_ssh(t, &config);
	if (err < 0)
		return err;
	if (config.unfit)
		err = errmsg_set(&t->msg, CONCC_E_UNAVAIL, "%s", config.unfit);
	else
		err = ssh2_connect(&req, &t->stream, &t->msg);
	ssh_config_release(&config);
	return err;
}

static int run_task(struct ssh_task *t)
{
	int err = find_file(t);

	if (err < 0)
		return err;
	if (t->mode == SSH_OPENSSH)
		return errmsg_set(&t->msg, CONCC_E_UNAVAIL, "the configuration asks for it");
	return by_libssh2(t);
}

static void *task_thread(void *arg)
{
	struct ssh_task *t = arg;
	uint64_t one = 1;

	t->err = run_task(t);
	(void)!write(t->done_fd, &one, sizeof(one)); /* an eventfd takes one more */
	task_unref(t);
	return NULL;
}

static void on_task_done(void *data, uint32_t events)
{
	struct connecting *c = data;
	struct ssh_task *t = c->task;
	struct errmsg msg;
	struct stream *s;
	uint64_t n;
	int err;

	/* Read, so that all that the thread did is before what follows. */
	(void)!read(t->done_fd, &n, sizeof(n));
	msg = t->msg;
	s = steal_ptr(&t->stream);
	err = t->err;
	c->file = steal_ptr(&t->file);
	let_task_go(c, true);
	if (err == 0) {
		succeed(c, s, "libssh2");
		return;
	}
	if (err != CONCC_E_UNAVAIL) {
		give_up(c, err, msg.text);
		return;
	}
	if (c->mode == SSH_LIBSSH2) {
		char *text = xasprintf("%s: %s, and the configuration asks for libssh2; set "
				       "`ssh = auto` to use OpenSSH's client here",
				       c->address, msg.text);

		give_up(c, CONCC_E_UNAVAIL, text);
		free(text);
		return;
	}
	by_openssh(c, msg.text);
}

static void on_timeout(void *data)
{
	struct connecting *c = data;
	char *text = xasprintf("%s: no connection after %.1f s (%s)", c->address,
			       (double)c->timeout_ms / 1000,
			       stage_names[atomic_load(&c->task->stage)]);

	give_up(c, CONCC_E_TIMEOUT, text);
	free(text);
}

/* A thread that takes no signals: those are the loop's. */
static int start_thread(struct ssh_task *t, pthread_t *ret)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before); /* fails for a bad `how` only */
	err = pthread_create(ret, NULL, task_thread, t);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

static struct ssh_task *task_new(const struct connecting *c)
{
	struct ssh_task *t = xcalloc(1, sizeof(*t));

	atomic_init(&t->refs, 2);
	atomic_init(&t->stage, STAGE_CONFIG);
	t->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->worker = xstrdup(c->name);
	t->address = xstrdup(c->address);
	t->program = c->program ? xstrdup(c->program) : NULL;
	t->mode = c->mode;
	t->install = c->install;
	t->ssh = xstrdup(ssh_command_program(c->ssh));
	t->target.host = xstrdup(c->target.host);
	t->target.user = c->target.user ? xstrdup(c->target.user) : NULL;
	t->target.port = c->target.port;
	t->deadline_ms = now_ms() + c->timeout_ms;
	return t;
}

static void by_thread(struct connecting *c)
{
	struct ssh_task *t = task_new(c);
	int err = t->done_fd < 0 || t->cancel_fd < 0 ? -EMFILE : start_thread(t, &c->thread);

	if (err < 0) {
		atomic_store(&t->refs, 1);
		task_unref(t);
		give_up(c, err, "starting a thread to connect: no resources");
		return;
	}
	c->task = t;
	c->done = loop_add_fd(c->loop, t->done_fd, LOOP_READ, on_task_done, c);
	c->timer = loop_add_timer(c->loop, (uint64_t)c->timeout_ms + BACKSTOP_MS, on_timeout, c);
}

static void start_ssh(struct connecting *c)
{
	struct errmsg msg;
	int err = ssh_address_parse(c->address, &c->target, &msg);

	if (err < 0)
		give_up(c, err, msg.text);
	else
		by_thread(c);
}

/* ---- a worker without concc ---- */

static void by_plain(struct connecting *c)
{
	struct errmsg msg;
	char **argv = NULL, *how;
	int err = ssh_address_parse(c->address, &c->target, &msg);

	if (err < 0) {
		give_up(c, err, msg.text);
		return;
	}
	strv_push(&argv, local_program(PLAIN_PROGRAM));
	strv_push(&argv, xstrdup("--mirror"));
	strv_push(&argv, xstrdup(c->plain));
	strv_push(&argv, xstrdup("--slots"));
	strv_push(&argv, xasprintf("%u", c->slots));
	if (c->target.user) {
		strv_push(&argv, xstrdup("--user"));
		strv_push(&argv, xstrdup(c->target.user));
	}
	strv_push(&argv, xstrdup("--port"));
	strv_push(&argv, xasprintf("%u", c->target.port));
	strv_push(&argv, xstrdup("--"));
	strv_push(&argv, xstrdup(c->target.host));
	how = xasprintf("plain ssh, mirror = %s", c->plain);
	finish_spawned(c, argv, true, true, how);
	free(how);
}

/* ---- all kinds ---- */

static void start(void *data)
{
	struct connecting *c = data;
	char **argv = NULL;

	c->start = NULL;
	if (c->plain) {
		by_plain(c);
	} else if (c->command) {
		strv_push(&argv, xstrdup("env"));
		strv_push(&argv, xasprintf("CONCC_WORKER_NAME=%s", c->name));
		strv_push(&argv, xasprintf("CONCC_WORKER_INDEX=%u", c->index));
		strv_push(&argv, xstrdup("/bin/sh"));
		strv_push(&argv, xstrdup("-c"));
		strv_push(&argv, xstrdup(c->command));
		finish_spawned(c, argv, false, true, "command");
	} else if (c->address && streq(c->address, "local:")) {
		strv_push(&argv, c->program ? xstrdup(c->program) : local_program(WORKER_PROGRAM));
		strv_push(&argv, xstrdup("--stdio"));
		finish_spawned(c, argv, true, true, "local");
	} else if (c->address) {
		start_ssh(c);
	} else {
		give_up(c, CONCC_E_CONF, "a worker needs an address or a command");
	}
}

static char *copy(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

struct connecting *transport_connect(struct loop *l, const struct transport_config *conf,
				     connected_fn fn, void *data)
{
	struct connecting *c = xcalloc(1, sizeof(*c));

	c->loop = l;
	c->fn = fn;
	c->data = data;
	c->name = xstrdup(conf->name ? conf->name : "?");
	c->address = copy(conf->address);
	c->command = copy(conf->command);
	c->program = copy(conf->worker_program);
	c->ssh = copy(conf->ssh_program);
	c->plain = copy(conf->plain);
	c->slots = conf->slots;
	c->mode = conf->ssh;
	if (!c->program && !c->plain && c->address && str_starts(c->address, "ssh://"))
		c->install = conf->install;
	c->index = conf->index;
	c->timeout_ms = conf->timeout_ms ? conf->timeout_ms : DEFAULT_TIMEOUT_MS;
	c->start = loop_defer(l, start, c);
	return c;
}

void transport_cancel(struct connecting *c)
{
	if (c)
		connecting_free(c);
}
