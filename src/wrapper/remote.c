/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/commit_mark.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/namespaces.h"
#include "concc/proto.h"
#include "concc/record.h"
#include "concc/schedule.h"
#include "concc/spare.h"
#include "concc/str.h"
#include "exec.h"

extern char **environ;

/* Remote tries of one command before it runs here: the first, and one for each bad surprise. */
#define ATTEMPTS_MAX 3
/* Times that it finds the server or the pool gone before it has a slot: none of them is an attempt.
 */
#define GONE_MAX 8
static bool is_null_device(int fd)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat("/dev/null", &b) == 0 && S_ISCHR(a.st_mode) &&
	       a.st_rdev == b.st_rdev;
}

bool remote_wants_stdin(const struct wrapper *w)
{
	struct stat st;

	if (fstat(0, &st) < 0 || isatty(0) || is_null_device(0))
		return false;
	return w->reads_stdin;
}

/* Which one need not be among the descriptors. */
static bool has_terminal(void)
{
	_cleanup_close_ int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	return fd >= 0;
}

static uint32_t job_flags(const struct wrapper *w, struct winsize *ws)
{
	uint32_t flags = w->o->any_command ? 0 : JOB_F_COMPILER;

	if (w->input.wanted)
		flags |= JOB_F_STDIN;
	if (w->input.wanted && w->input.kind == INPUT_FILE)
		flags |= (w->input.whole ? JOB_F_STDIN_FILE : JOB_F_STDIN_SEEKS) |
			 w->input.mode << JOB_F_STDIN_MODE_SHIFT;
	if (w->o->keeps)
		flags |= JOB_F_KEEP | (w->o->no_times ? JOB_F_NO_TIMES : 0);
	if (w->is_known)
		flags |= JOB_F_INPUT_KNOWN;
	if (w->output.merged)
		flags |= JOB_F_MERGED;
	if (!w->input.wanted && w->o->any_command && isatty(0))
		flags |= JOB_F_TTY_IN;
	if (w->o->any_command && has_terminal())
		flags |= JOB_F_TERMINAL;
	if (isatty(1))
		flags |= JOB_F_TTY_OUT;
	if (isatty(2))
		flags |= JOB_F_TTY_ERR;
	if (flags & (JOB_F_TTY_OUT | JOB_F_TTY_ERR | JOB_F_TTY_IN))
		(void)ioctl(flags & JOB_F_TTY_ERR   ? 2
			    : flags & JOB_F_TTY_OUT ? 1
						    : 0,
			    TIOCGWINSZ, ws); /* stays zero then */
	return flags;
}

void remote_encode(const struct wrapper *w, const char *worker, uint32_t attempt,
		   uint32_t more_flags, struct buf *b)
{
	/* What is kept would be found again by nobody with these. */
	bool shells_own = w->o->any_command && !w->o->keeps;
	_cleanup_strv_ char **env = job_env_filter(environ, w->cwd, shells_own);
	char *listed = getenv("CONCC_WORKSPACE"), *run_id = getenv("CONCC_RUN_ID");
	struct winsize ws = {0};
	mode_t mask = umask(0);
	struct msg_run m = {
		.version = PROTO_VERSION,
		.flags = job_flags(w, &ws) | more_flags,
		.umask = mask,
		.rows = ws.ws_row,
		.cols = ws.ws_col,
		.attempt = attempt,
		.arrived_us = w->arrived_us,
		.slot_us = w->slot_us,
		.worker = (char *)worker,
		.run_id = run_id ? run_id : (char *)"",
		.path = w->path,
		.exe = w->exe,
		.cwd = w->cwd,
		.workspace = listed ? listed : (char *)"",
		.caller = w->caller,
		.argv = w->argv,
		.env = env,
		.input = {w->known.data, w->known.len},
	};

	(void)umask(mask);
	msg_run_encode(b, &m);
}

enum step { STEP_DONE, STEP_AGAIN, STEP_HERE };

/* What the server said about a job that did not end: another worker, or here. */
static enum step on_fail(struct wrapper *w, const char *worker, const struct msg_run_fail *f,
			 int *ret_status)
{
	if (f->what == RUN_FAIL_SERVER) {
		(void)words_say(&w->words, WORDS_ASKED, "%s; starting another", f->text);
		wrapper_count(w, "retry", f->rule);
		return STEP_AGAIN;
	}
	if (f->what == RUN_FAIL_RETRY) {
		if (!words_say(&w->words, WORDS_ASKED, "%s; trying another worker", f->text) &&
		    !f->quiet)
			words_say(&w->words, WORDS_TROUBLE, "%s; trying another worker", f->text);
		wrapper_count(w, "retry", f->rule);
		/* One that was not there has not failed, and whether it is there the pool tells. */
		if (!streq(f->rule, "worker-down")) {
			free(w->avoid);
			w->avoid = xstrdup(worker);
		}
		free(w->failure);
		w->failure = xstrdup(f->text);
		w->no_compiler = streq(f->rule, "toolchain");
		return STEP_AGAIN;
	}
	/* Others can use it while we wait for a core here, and run. */
	pool_release(w->pool, &w->slot);
	if (streq(f->rule, "straggler"))
		*ret_status = local_straggler(w, f->text);
	else
		*ret_status = f->quiet ? local_by_rule(w, f->rule, f->text)
				       : local_fall_back(w, f->rule, f->text);
	return STEP_DONE;
}

static void on_lost(struct wrapper *w, int err)
{
	/* It has taken its socket away since we saw it ready: it makes room for another. */
	if (err == -ENOENT) {
		wrapper_count(w, "retry", "server-leaves");
		return;
	}
	if (!w->counters || counters_may_say(w->counters, "said:server-lost", SAY_PERIOD_S))
		words_say(&w->words, WORDS_TROUBLE,
			  "the project server was lost (%s); starting another", err_text(err));
	wrapper_count(w, "retry", "server-lost");
	/* Or the next attempt would meet the same one. */
	if (err == -ECONNREFUSED || server_is_ending(w->dir_fd))
		server_wait_end(w->dir_fd);
}

/* What a compiler makes it makes again; of others nobody knows what a second time would do. */
static bool is_half_done(const struct wrapper *w)
{
	return w->o->any_command && commit_mark_has(w->dir_fd, w->arrived_us);
}

static int half_done(struct wrapper *w)
{
	pool_release(w->pool, &w->slot);
	wrapper_count(w, "retry", "half-placed");
	words_say(
		&w->words, WORDS_ERROR,
		"the project server was killed while it put the results of %s in place: in %s some of "
		"them may be there and some not; see what it left before you run it again",
		w->argv[0], w->cwd);
	return WRAPPER_EXIT_FAILED;
}

/* It may have failed for want of one. */
static void tell_kept_back(struct wrapper *w)
{
	_cleanup_free_ char *names = job_env_kept_back(environ);

	if (names)
		words_say(&w->words, WORDS_ASKED,
			  "it failed, without %s; CONCC_PASS_ENV=NAME lets NAME travel", names);
}

static int on_exit_of(struct wrapper *w, struct session_end *end)
{
	input_done(&w->input);
	words_say(&w->words, WORDS_ASKED, "remote on %s", end->worker);
	if (end->how != EXIT_CODE || end->code)
		tell_kept_back(w);
	wrapper_count(w, "remote", end->worker);
	free(end->worker);
	return end->how == EXIT_SIGNAL ? exec_die_by((int)end->code) : (int)end->code;
}

/* The stream that takes no more. */
static int on_output_error(struct wrapper *w)
{
	unsigned stream = w->output.outlets[0].err ? 0 : 1;

	return local_come_home(w, "output", output_name(stream), w->output.outlets[stream].err);
}

static int on_input_error(struct wrapper *w)
{
	const char *what = w->input.lost ? "it can't be kept for another try" : "standard input";

	return local_come_home(w, "input", what, w->input.err);
}

static enum step attempt(struct wrapper *w, const char *worker, int *ret_status)
{
	_cleanup_buf_ struct buf run = BUF_INIT;
	struct session_end end = {0};
	enum step step = STEP_DONE;
	int r;

	remote_encode(w, worker, w->tries++, 0, &run);
	shown_restart(&w->output.shown);
	r = session_run(w->dir, &w->waiting, &run, &w->input, &w->output, &end);
	if (r < 0 && is_half_done(w)) {
		*ret_status = half_done(w);
		return STEP_DONE;
	}
	if (r == -EMFILE || r == -ENFILE) {
		_cleanup_free_ char *text = xasprintf("can't reach the project server: %s",
						      err_text(r));

		/* Ours, not the server's, and no better with another. */
		pool_release(w->pool, &w->slot);
		*ret_status = local_fall_back(w, "shortage", text);
		return STEP_DONE;
	}
	if (r < 0) {
		on_lost(w, r);
		return STEP_AGAIN;
	}
	switch (end.what) {
	case SESSION_FAIL:
		step = on_fail(w, worker, &end.fail, ret_status);
		msg_run_fail_release(&end.fail);
		break;
	case SESSION_INPUT:
		*ret_status = on_input_error(w);
		break;
	case SESSION_OUTPUT:
		*ret_status = on_output_error(w);
		break;
	case SESSION_EXIT:
		*ret_status = on_exit_of(w, &end);
		break;
	}
	return step;
}

static const char other_groups[] = GROUPS_DIFFER;

/*
 * Before a long wait for a slot that would be of no use: the server sends jobs of callers home that
 * don't see what it sees.  NULL when it would not, or can't be asked.
 */
static const char *foreign_server(const struct conn *c)
{
	struct namespaces ours;
	struct ucred server;
	socklen_t n = sizeof(server);
	const char *why;

	if (c->fd < 0 || getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &server, &n) < 0)
		return NULL;
	if (groups_differ(c->fd))
		return other_groups;
	namespaces_look(&ours);
	why = namespaces_differ(&ours, server.pid);
	/* One that is ending sends nobody home. */
	return why && namespaces_left(server.pid) ? NULL : why;
}

static bool is_here(const struct pool_slot *s)
{
	return streq(s->name, POOL_LOCAL);
}

/* As many slots as there are cores are a wish, a number of them is an order. */
static bool may_stay(const struct pool *p, const struct pool_slot *slot)
{
	struct sched_place local;

	return !pool_place(p, slot, &local) || !local.profile.cores || spare_local();
}

static int acquire_fit(struct pool *p, struct pool_request *q, struct pool_slot *slot)
{
	int r;

	do {
		r = pool_acquire(p, q, slot);
		if (r == 0 && is_here(slot) && !may_stay(p, slot)) {
			pool_release(p, slot);
			q->local_ok = false;
			r = -EINTR;
		}
	} while (r == -EINTR);
	return r;
}

/* -EXDEV: the server's workers are not for us, as w->foreign says. */
static int acquire(struct wrapper *w, struct pool *p, struct pool_slot *slot)
{
	struct pool_request q = {.cwd = w->cwd,
				 .avoid = w->avoid,
				 .local_ok = true,
				 .job = w->job_key,
				 .kind = w->kind_key,
				 .try = true};
	int r;

	r = acquire_fit(p, &q, slot);
	if (r != -EAGAIN)
		return r;
	session_wait(w->dir, &w->waiting, w->argv);
	w->foreign = foreign_server(&w->waiting);
	if (w->foreign)
		return -EXDEV;
	q.try = false;
	return acquire_fit(p, &q, slot);
}

/* The server's words on workers that are down; NULL when it has none. */
static char *ask_why(struct wrapper *w)
{
	char *words[] = {(char *)"why", NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct conn c = {.fd = -1};
	char *text = NULL;
	uint32_t status;
	uint8_t type;

	if (server_connect(w->dir, &c) < 0)
		return NULL;
	msg_ctl_encode(&b, words);
	if (conn_send(&c, MSG_CTL, &b) == 0 && conn_recv(&c, &type, &b) == 0 &&
	    type == MSG_CTL_REPLY)
		(void)msg_ctl_reply_decode((struct blob){b.data, b.len}, &status, &text);
	conn_release(&c);
	return text;
}

/*
 * Was it only that the server which knew the workers ends?  It closes the connections
 * of those who wait last of all, after another may have started.
 */
static bool server_ends(const struct wrapper *w)
{
	struct pollfd p = {.fd = w->waiting.fd, .events = POLLRDHUP};

	return !server_is_ready(w->dir_fd) || poll(&p, 1, 0) > 0;
}

static int no_worker(struct wrapper *w)
{
	/* The server answers at once, as it does to everything but jobs. */
	_cleanup_free_ char *why = ask_why(w);
	_cleanup_free_ char *text = NULL;
	const char *run = getenv("CONCC_RUN_TALLY");

	if (why && *why && run && *run && !w->words.explain && counters_was_shown(run, why))
		text = xstrdup("no worker can be reached");
	else
		text = xasprintf("no worker can be reached (%s)",
				 why && *why ? why : "`concc status` says why");
	return local_fall_back(w, "no-worker", text);
}

/* By the words that its record will have. */
static void set_keys(struct wrapper *w)
{
	struct record r;

	record_init(&r);
	record_set_words(&r, w->argv);
	w->kind_key = sched_key_of_kind(r.program, w->cwd);
	w->job_key = sched_key_of_job(r.program, w->cwd, r.subject);
	record_release(&r);
}

/* Without waiting: who writes it may wait for what the command says. */
static bool has_input(const struct input *in, uint64_t at)
{
	struct pollfd p = {.fd = 0, .events = POLLIN};

	return input_has(in, at) || poll(&p, 1, 0) > 0;
}

void remote_know_input(struct wrapper *w)
{
	char chunk[16 * 1024];
	ssize_t n = 1;

	while (n > 0 && w->known.len <= PROTO_KNOWN_INPUT_MAX &&
	       has_input(&w->input, w->known.len)) {
		n = input_read(&w->input, w->known.len, chunk, sizeof(chunk));
		if (n > 0)
			buf_append(&w->known, chunk, (size_t)n);
	}
	w->is_known = n == 0;
	if (!w->is_known)
		buf_release(&w->known);
}

/* Is its result kept already?  Compilers' are, that read no input, and what was asked for. */
static bool look_up(struct wrapper *w, int *ret_status)
{
	_cleanup_buf_ struct buf run = BUF_INIT;
	struct session_end end = {0};
	int r;

	if ((w->o->any_command && !w->o->keeps) || !pool_keeps_results(w->pool))
		return false;
	if (w->input.wanted && w->o->keeps)
		remote_know_input(w);
	if (w->input.wanted && !w->is_known)
		return false;
	remote_encode(w, "", 0, 0, &run);
	w->input.in_run = true;
	r = session_run(w->dir, &w->waiting, &run, &w->input, &w->output, &end);
	w->input.in_run = false;
	/* What went wrong will do so again, where more is known of what to do. */
	if (r < 0) {
		if (!is_half_done(w))
			return false;
		*ret_status = half_done(w);
		return true;
	}
	if (end.what == SESSION_EXIT) {
		*ret_status = on_exit_of(w, &end);
		return true;
	}
	if (end.what == SESSION_OUTPUT) {
		*ret_status = on_output_error(w);
		return true;
	}
	msg_run_fail_release(&end.fail);
	return false;
}

/* That no worker has the compiler is a thing of its own, with a remedy of its own. */
static int give_up(struct wrapper *w)
{
	_cleanup_free_ char *text = xasprintf("no worker could do this job%s%s%s",
					      w->failure ? " (" : "", w->failure ?: "",
					      w->failure ? ")" : "");

	return local_fall_back(w, w->no_compiler ? "toolchain" : "gave-up", text);
}

bool remote_read_caller(struct wrapper *w, char **ret_why)
{
	const char *what = "";
	int own = words_uncached_fd(); /* it stays here, as the variable does */
	int fd;

	caller_read(&w->caller);
	fd = caller_read_descriptors(&w->caller, &what);
	if (own >= 0 && own < CALLER_FDS)
		w->caller.fds[own] = CALLER_CLOSED;
	/* No compiler uses one that it has not been told of. */
	if (fd < 0 || !w->o->any_command)
		return true;
	*ret_why = xasprintf("its descriptor %d is %s: what it does with that can't be seen "
			     "elsewhere",
			     fd, what);
	return false;
}

/* What no job can be given, with its rule: NULL, or a text that goes on after "it". */
static const char *unlike_any_job(const struct wrapper *w)
{
	/* No compiler makes anything of them. */
	if (!w->o->any_command)
		return NULL;
	if (caller_has_timer())
		return "has a timer running (alarm, setitimer), whose signal no job would get";
	if (caller_is_lesser_root())
		return "runs as a root without the rights over files that a job of root's has";
	return NULL;
}

int remote_run(struct wrapper *w)
{
	_cleanup_free_ char *why = NULL;
	const char *unlike = unlike_any_job(w);
	struct errmsg msg = {0};
	int status = 0, r;

	if (!remote_read_caller(w, &why))
		return local_by_rule(w, "descriptor", why);
	if (unlike) {
		why = xasprintf("it %s", unlike);
		return local_by_rule(w, "caller", why);
	}
	set_keys(w);
	for (uint32_t n = 0, gone = 0; n < ATTEMPTS_MAX && gone < GONE_MAX;) {
		enum step step;

		r = server_ensure(w->dir, w->dir_fd, &msg);
		if (r == -EXDEV)
			return local_by_rule(w, "namespace", msg.text);
		if (r < 0)
			return local_fall_back(w, "no-server", msg.text);
		if (!w->pool)
			r = pool_open(w->dir, &w->pool, &msg);
		if (r < 0)
			return local_fall_back(w, "no-pool", msg.text);
		if (n == 0 && look_up(w, &status))
			return status;
		r = acquire(w, w->pool, &w->slot);
		/* Before it was ready there was none: only now it is known that there is none. */
		if (r == CONCC_E_UNAVAIL && !server_ends(w))
			r = acquire(w, w->pool, &w->slot);
		if (r == -EXDEV) {
			_cleanup_free_ char *text = xasprintf("it runs %s", w->foreign);

			conn_release(&w->waiting);
			return local_by_rule(w, w->foreign == other_groups ? "group" : "namespace",
					     text);
		}
		if (r < 0 && r != CONCC_E_UNAVAIL && !pool_is_in_place(w->pool, w->dir)) {
			/* Its files were removed while we waited: there is a new one. */
			pool_close(steal_ptr(&w->pool));
			gone++;
			continue;
		}
		if (r == CONCC_E_CLOSED || (r == CONCC_E_UNAVAIL && server_ends(w))) {
			/* The server went, and the workers with it. */
			conn_release(&w->waiting);
			server_wait_end(w->dir_fd);
			gone++;
			continue;
		}
		if (r < 0)
			return no_worker(w);
		w->slot_us = wrapper_now_us() - w->arrived_us + 1;
		if (is_here(&w->slot))
			return local_in_slot(w, "local-slot", "");
		if (w->avoid && streq(w->slot.name, w->avoid))
			n = ATTEMPTS_MAX; /* the only one: once more at most */
		n++;
		step = attempt(w, w->slot.name, &status);
		pool_release(w->pool, &w->slot);
		if (step == STEP_DONE)
			return status;
	}
	return give_up(w);
}
