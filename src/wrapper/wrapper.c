/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/wrapper.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "concc/caller.h"
#include "concc/cleanup.h"
#include "concc/commit_mark.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/namespaces.h"
#include "concc/pool.h"
#include "concc/proto.h"
#include "concc/record.h"
#include "concc/schedule.h"
#include "concc/str.h"
#include "here.h"
#include "input.h"
#include "output.h"
#include "self.h"
#include "session.h"
#include "spare.h"
#include "words.h"

extern char **environ;

/* Remote tries of one command before it runs here: the first, and one for each bad surprise. */
#define ATTEMPTS_MAX 3
/* How often one kind of trouble is told when every job of a build has it. */
#define SAY_PERIOD_S 30

/*
 * Bytes of arguments and environment together that exec takes of a process with the usual stack of
 * 8 MB, a quarter of it, less what a job has beside them.
 */
#define ARGS_MAX (2 * 1024 * 1024 - 64 * 1024)

struct wrapper {
	const struct wrapper_options *o;
	char **argv; /* the command */
	char *cwd;
	char *path;	 /* what execve(2) gets; NULL when PATH has none */
	char *exe;	 /* the same file, by an absolute path */
	bool is_script;	 /* exe is one */
	bool ourselves;	 /* there is nothing else of that name */
	bool marked;	 /* as started by us, in the environment */
	int lacking;	 /* errno, where there is no cwd or path */
	char *workspace; /* of a cwd in /tmp or the like; else NULL */
	char *dir;	 /* runtime directory; NULL when there is none we may use */
	int dir_fd;
	char *tally;
	struct words words;
	struct input input;
	struct output output;
	char *avoid;	   /* the worker that failed last, */
	char *failure;	   /* in these words, */
	bool no_compiler;  /* since it has another compiler */
	struct pool *pool; /* NULL until it is needed */
	struct pool_slot slot;
	struct conn waiting; /* told the server that we wait for a slot; else closed */
	struct caller caller;
	uint64_t arrived_us, slot_us; /* as in a record */
	uint64_t job_key, kind_key;   /* of what it takes, see sched_key_of_job() */
	uint32_t tries;		      /* workers that had it */
	const char *foreign;	      /* how the server differs from us; static */
};

static uint64_t real_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Counts for `concc status`, and for the build that `concc run` watches. */
static void count(const struct wrapper *w, const char *kind, const char *name)
{
	_cleanup_free_ char *key = xasprintf("%s:%s", kind, name);
	const char *run = getenv("CONCC_RUN_TALLY");

	if (w->tally)
		tally_add(w->tally, key, 1);
	if (run && *run)
		tally_add(run, key, 1);
}

/* ---- what to run ---- */

struct candidate {
	bool by_name; /* then those scripts are not meant that we have started above us */
	bool script_passed, us_passed;
	enum self_kind kind;
};

static bool is_no_command(const char *path, void *data)
{
	struct candidate *c = data;

	c->kind = self_look(path);
	if (c->kind == SELF_OURS) {
		c->us_passed = c->by_name = true; /* by the path of one, it is by that one's name */
		return true;
	}
	if (c->kind != SELF_SCRIPT || !c->by_name || !self_started(path))
		return false;
	c->script_passed = true;
	return true;
}

static void find_command(struct wrapper *w)
{
	bool by_path = strchr(w->argv[0], '/'), own = wrapper_is_own_name(w->argv[0]);
	struct candidate c = {.by_name = !by_path};
	const char *path = getenv("PATH");

	w->path = job_resolve(w->argv[0], path, w->cwd, is_no_command, &c);
	w->lacking = w->path ? 0 : errno;
	w->is_script = w->path && c.kind == SELF_SCRIPT;
	w->ourselves = !w->path && c.us_passed;
	if (by_path && c.us_passed && !own)
		w->argv[0] = (char *)path_base(w->argv[0]);
	/* gcc finds its parts from where PATH has a gcc, and that is the script. */
	if (w->path && c.script_passed)
		w->argv[0] = w->path;
	if (!w->path && (own || c.script_passed)) {
		/* We are asked for our version, say; or it calls itself, as scripts may. */
		w->path = job_resolve(w->argv[0], path, w->cwd, NULL, NULL);
		w->is_script = w->path && c.script_passed;
	}
	w->exe = w->path ? job_exe(w->path, w->cwd) : NULL;
}

/* `concc-cc concc-cc gcc` is `concc-cc gcc`. */
static char **without_ourselves(char **argv, const char *cwd)
{
	for (; wrapper_is_own_name(argv[0]) && argv[1] && argv[1][0] != '-'; argv++) {
		_cleanup_free_ char *path = job_resolve(argv[0], getenv("PATH"), cwd, NULL, NULL);

		if (!path || self_look(path) != SELF_OURS)
			break;
	}
	return argv;
}

static bool is_masquerade(const char *dir, size_t n)
{
	_cleanup_free_ char *path = xstrndup(dir, n);

	return n && masquerade_is(path);
}

static bool is_ours_in(const char *dir, size_t n, const char *name)
{
	/* An empty one is the current directory. */
	_cleanup_free_ char *path = xasprintf("%.*s/%s", n ? (int)n : 1, n ? dir : ".", name);

	return self_look(path) == SELF_OURS;
}

/*
 * Takes the directories out of PATH in which the command, or what it starts in turn, would be us
 * again.  gcc looks itself up in PATH to find its own parts, and rustc looks for cc to link with:
 * they must not find our symlinks, which a worker does not have.
 */
static void leave_masquerade(const char *command)
{
	const char *path = getenv("PATH");
	_cleanup_buf_ struct buf kept = BUF_INIT;
	bool by_name = !strchr(command, '/') && !streq(command, "cc");
	bool changed = false, first = true;

	for (const char *p = path; p; p = *p ? p + 1 : NULL) {
		size_t n = strcspn(p, ":");

		/* Most are not there at all, which one call tells. */
		if (is_masquerade(p, n) || is_ours_in(p, n, "cc") ||
		    (by_name && is_ours_in(p, n, command))) {
			changed = true;
		} else {
			buf_putf(&kept, "%s%.*s", first ? "" : ":", (int)n, p);
			first = false;
		}
		p += n;
	}
	if (changed)
		setenv("PATH", buf_cstr(&kept), 1);
}

/* What can't be said to a server and its workers, or NULL. */
static const char *too_long(const struct wrapper *w)
{
	const char *listed = getenv("CONCC_WORKSPACE");
	size_t n = 0;

	if (strlen(w->cwd) >= PROTO_PATH_MAX)
		return "the path of the current directory";
	if (listed && strlen(listed) > PROTO_PATH_MAX)
		return "CONCC_WORKSPACE";
	for (char *const *a = w->argv; *a; a++)
		n += strlen(*a) + 1 + sizeof(*a);
	for (char *const *e = environ; *e; e++)
		n += strlen(*e) + 1 + sizeof(*e);
	return n > ARGS_MAX ? "the arguments with the environment" : NULL;
}

/* ---- here ---- */

/* False when it would start us, and we it, for ever. */
static bool mark_started(struct wrapper *w)
{
	w->marked = w->marked || self_start(w->exe);
	return w->marked;
}

static int not_found(const struct wrapper *w)
{
	words_say(&w->words, WORDS_ERROR, "can't run %s: %s", w->argv[0], err_text(-ENOENT));
	return 127; /* of a shell */
}

/* What becomes of it is the server's to see. */
static void tell_server(const struct wrapper *w, const char *rule, const char *why)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct record r;

	if (!w->dir)
		return;
	record_init(&r);
	r.arrived_us = w->arrived_us;
	r.slot_us = w->slot_us;
	r.sent_us = real_us() - w->arrived_us + 1;
	r.tries = w->tries;
	record_set(&r.rule, rule);
	record_set(&r.why, why);
	record_set(&r.build, getenv("CONCC_RUN_ID") ?: "");
	record_set(&r.cwd, w->cwd ? w->cwd : "");
	record_set_words(&r, w->argv);
	record_encode(&b, &r);
	record_release(&r);
	server_tell(w->dir, MSG_RUN_HERE, &b);
}

static int run_here(struct wrapper *w, bool gated, const char *rule, const char *why)
{
	struct here h = {.path = w->path, .argv = w->argv, .out = &w->output};
	int r;

	if (w->ourselves && !w->exe)
		return not_found(w); /* execvp(3) would find us */
	if (w->exe && !mark_started(w)) {
		words_say(&w->words, WORDS_ERROR, "%s starts itself without end", w->exe);
		return WRAPPER_EXIT_FAILED;
	}
	r = input_replay(&w->input, &h.stdin_fd);
	if (r < 0) {
		words_say(&w->words, WORDS_ERROR,
			  "can't run %s again: its input can't be given to it: %s", w->argv[0],
			  err_text(r));
		return WRAPPER_EXIT_FAILED;
	}
	if (gated && w->dir)
		here_take_slot(w->dir);
	tell_server(w, rule, why);
	return here_run(&h);
}

static void explain_local(const struct wrapper *w, const char *rule, const char *why)
{
	bool is_try = streq(rule, "probe") || streq(rule, "query");

	words_say(&w->words, is_try ? WORDS_OF_TRY : WORDS_ASKED, "local: %s%s%s%s", rule,
		  *why ? " (" : "", why, *why ? ")" : "");
	count(w, "local", rule);
}

/* A rule of the policy says so: at once, without a word. */
static int local(struct wrapper *w, const char *rule, const char *why)
{
	explain_local(w, rule, why);
	return run_here(w, false, rule, why);
}

/* Not as a build's own: what a person does here comes first.  No command can tell but one that
 * asks for just that, unlike of niceness. */
static int in_slot_here(struct wrapper *w, const char *rule, const char *why)
{
	struct sched_param none = {0};

	if (sched_getscheduler(0) == SCHED_OTHER)
		(void)sched_setscheduler(0, SCHED_BATCH, &none);
	conn_release(&w->waiting);
	here_keep_slot(&w->slot);
	return local(w, rule, why);
}

/* It was sent home since a slot is free here, unless somebody was quicker. */
static int straggles_here(struct wrapper *w, const char *why)
{
	struct pool_request q = {.cwd = w->cwd, .only = POOL_LOCAL, .local_ok = true};
	int r;

	do
		r = pool_acquire(w->pool, &q, &w->slot);
	while (r == -EINTR);
	return r < 0 ? local(w, "straggler", why) : in_slot_here(w, "straggler", why);
}

/* A job was ended for what it can't be told of: where the command runs, it meets that itself. */
static int come_home(struct wrapper *w, const char *rule, const char *what, int err)
{
	_cleanup_free_ char *why = xasprintf("%s: %s", what, err_text(err));

	pool_release(w->pool, &w->slot);
	explain_local(w, rule, why);
	return run_here(w, true, rule, why);
}

static bool may_say(const struct wrapper *w, const char *rule, const char *text)
{
	_cleanup_free_ char *key = xasprintf("said:%s", rule);

	return !w->tally || tally_may_say_why(w->tally, key, text, SAY_PERIOD_S);
}

/* Something of ours failed: the build goes on, and one line says why it is slower. */
static int fall_back(struct wrapper *w, const char *rule, const char *text)
{
	if (!words_say(&w->words, WORDS_ASKED, "local: %s (%s)", rule, text) &&
	    may_say(w, rule, text))
		words_say(&w->words, WORDS_TROUBLE, "%s; running it here", text);
	count(w, "fallback", rule);
	return run_here(w, true, rule, text);
}

/* ---- remote ---- */

static bool is_null_device(int fd)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat("/dev/null", &b) == 0 && S_ISCHR(a.st_mode) &&
	       a.st_rdev == b.st_rdev;
}

/* A terminal is never read ahead, and what is never read need not travel. */
static bool wants_stdin(const struct wrapper *w)
{
	struct stat st;

	if (fstat(0, &st) < 0 || isatty(0) || is_null_device(0))
		return false;
	return w->o->any_command || job_reads_stdin(w->argv);
}

static uint32_t job_flags(const struct wrapper *w, struct winsize *ws)
{
	uint32_t flags = w->o->any_command ? 0 : JOB_F_COMPILER;

	if (w->input.wanted)
		flags |= JOB_F_STDIN;
	if (w->output.merged)
		flags |= JOB_F_MERGED;
	if (isatty(1))
		flags |= JOB_F_TTY_OUT;
	if (isatty(2))
		flags |= JOB_F_TTY_ERR;
	if (flags & (JOB_F_TTY_OUT | JOB_F_TTY_ERR))
		(void)ioctl(flags & JOB_F_TTY_ERR ? 2 : 1, TIOCGWINSZ, ws); /* stays zero then */
	return flags;
}

static void encode_run(const struct wrapper *w, const char *worker, uint32_t attempt,
		       uint32_t more_flags, struct buf *b)
{
	_cleanup_strv_ char **env = job_env_filter(environ);
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
		count(w, "retry", f->rule);
		return STEP_AGAIN;
	}
	if (f->what == RUN_FAIL_RETRY) {
		if (!words_say(&w->words, WORDS_ASKED, "%s; trying another worker", f->text) &&
		    !f->quiet)
			words_say(&w->words, WORDS_TROUBLE, "%s; trying another worker", f->text);
		count(w, "retry", f->rule);
		free(w->avoid);
		w->avoid = xstrdup(worker);
		free(w->failure);
		w->failure = xstrdup(f->text);
		w->no_compiler = streq(f->rule, "toolchain");
		return STEP_AGAIN;
	}
	/* Others can use it while we wait for a core here, and run. */
	pool_release(w->pool, &w->slot);
	if (streq(f->rule, "straggler"))
		*ret_status = straggles_here(w, f->text);
	else
		*ret_status = f->quiet ? local(w, f->rule, f->text)
				       : fall_back(w, f->rule, f->text);
	return STEP_DONE;
}

static void on_lost(struct wrapper *w, int err)
{
	/* It has taken its socket away since we saw it ready: it makes room for another. */
	if (err == -ENOENT) {
		count(w, "retry", "server-leaves");
		return;
	}
	if (!w->tally || tally_may_say(w->tally, "said:server-lost", SAY_PERIOD_S))
		words_say(&w->words, WORDS_TROUBLE,
			  "the project server was lost (%s); starting another", err_text(err));
	count(w, "retry", "server-lost");
	if (err == -ECONNREFUSED)
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
	count(w, "retry", "half-placed");
	words_say(
		&w->words, WORDS_ERROR,
		"the project server was killed while it put the results of %s in place: in %s some of "
		"them may be there and some not; see what it left before you run it again",
		w->argv[0], w->cwd);
	return WRAPPER_EXIT_FAILED;
}

static int on_exit_of(struct wrapper *w, struct session_end *end)
{
	input_done(&w->input);
	words_say(&w->words, WORDS_ASKED, "remote on %s", end->worker);
	count(w, "remote", end->worker);
	free(end->worker);
	return end->how == EXIT_SIGNAL ? here_die_by((int)end->code) : (int)end->code;
}

/* The stream that takes no more. */
static int on_output_error(struct wrapper *w)
{
	unsigned stream = w->output.outlets[0].err ? 0 : 1;

	return come_home(w, "output", output_name(stream), w->output.outlets[stream].err);
}

static int on_input_error(struct wrapper *w)
{
	const char *what = w->input.lost ? "it can't be kept for another try" : "standard input";

	return come_home(w, "input", what, w->input.err);
}

static enum step attempt(struct wrapper *w, const char *worker, int *ret_status)
{
	_cleanup_buf_ struct buf run = BUF_INIT;
	struct session_end end = {0};
	enum step step = STEP_DONE;
	int r;

	encode_run(w, worker, w->tries++, 0, &run);
	shown_restart(&w->output.shown);
	r = session_run(w->dir, &w->waiting, &run, &w->input, &w->output, &end);
	if (r < 0 && is_half_done(w)) {
		*ret_status = half_done(w);
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

/*
 * Before a long wait for a slot that would be of no use: the server sends jobs of callers home that
 * don't see what it sees.  NULL when it would not, or can't be asked.
 */
static const char *foreign_server(const struct conn *c)
{
	struct namespaces ours;
	struct ucred server;
	socklen_t n = sizeof(server);

	if (c->fd < 0 || getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &server, &n) < 0)
		return NULL;
	namespaces_look(&ours);
	return namespaces_differ(&ours, server.pid);
}

static bool is_here(const struct pool_slot *s)
{
	return streq(s->name, POOL_LOCAL);
}

/* As many slots as there are cores are a wish, a number of them is an order. */
static bool may_stay(const struct pool *p, const struct pool_slot *slot)
{
	struct sched_place here;

	return !pool_place(p, slot, &here) || !here.pace.cores || spare_here();
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

	r = pool_acquire(p, &q, slot);
	if (r == 0 && is_here(slot) && !may_stay(p, slot)) {
		pool_release(p, slot);
		q.local_ok = false;
		r = pool_acquire(p, &q, slot);
	}
	if (r != -EAGAIN)
		return r;
	session_wait(w->dir, &w->waiting, w->argv);
	w->foreign = foreign_server(&w->waiting);
	if (w->foreign)
		return -EXDEV;
	q.try = false;
	do
		r = pool_acquire(p, &q, slot);
	while (r == -EINTR);
	return r;
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

	if (why && *why && run && *run && !w->words.explain && tally_was_told(run, why))
		text = xstrdup("no worker can be reached");
	else
		text = xasprintf("no worker can be reached (%s)",
				 why && *why ? why : "`concc status` says why");
	return fall_back(w, "no-worker", text);
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

/* Is its result kept already?  Only compilers' are, that read no input. */
static bool look_up(struct wrapper *w, int *ret_status)
{
	_cleanup_buf_ struct buf run = BUF_INIT;
	struct session_end end = {0};

	if (w->o->any_command || w->input.wanted || !pool_keeps_results(w->pool))
		return false;
	encode_run(w, "", 0, 0, &run);
	/* What went wrong will do so again, where more is known of what to do. */
	if (session_run(w->dir, &w->waiting, &run, &w->input, &w->output, &end) < 0)
		return false;
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

	return fall_back(w, w->no_compiler ? "toolchain" : "gave-up", text);
}

static int remote(struct wrapper *w)
{
	struct errmsg msg = {0};
	int status = 0, r;

	caller_read(&w->caller);
	set_keys(w);
	for (uint32_t n = 0; n < ATTEMPTS_MAX; n++) {
		enum step step;

		r = server_ensure(w->dir, w->dir_fd, &msg);
		if (r < 0)
			return fall_back(w, "no-server", msg.text);
		if (!w->pool)
			r = pool_open(w->dir, &w->pool, &msg);
		if (r < 0)
			return fall_back(w, "no-pool", msg.text);
		if (n == 0 && look_up(w, &status))
			return status;
		r = acquire(w, w->pool, &w->slot);
		/* Before it was ready there was none: only now it is known that there is none. */
		if (r == CONCC_E_UNAVAIL && !server_ends(w))
			r = acquire(w, w->pool, &w->slot);
		if (r == -EXDEV) {
			_cleanup_free_ char *text = xasprintf("it runs %s", w->foreign);

			conn_release(&w->waiting);
			return local(w, "namespace", text);
		}
		if (r < 0 && r != CONCC_E_UNAVAIL && !pool_is_in_place(w->pool, w->dir)) {
			/* Its files were removed while we waited: there is a new one. */
			pool_close(steal_ptr(&w->pool));
			continue;
		}
		if (r == CONCC_E_CLOSED || (r == CONCC_E_UNAVAIL && server_ends(w))) {
			/* The server went, and the workers with it. */
			conn_release(&w->waiting);
			server_wait_end(w->dir_fd);
			continue;
		}
		if (r < 0)
			return no_worker(w);
		w->slot_us = real_us() - w->arrived_us + 1;
		if (is_here(&w->slot))
			return in_slot_here(w, "local-slot", "");
		if (w->avoid && streq(w->slot.name, w->avoid))
			n = ATTEMPTS_MAX; /* the only one: once more at most */
		step = attempt(w, w->slot.name, &status);
		pool_release(w->pool, &w->slot);
		if (step == STEP_DONE)
			return status;
	}
	return give_up(w);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static void prepare(struct wrapper *w)
{
	w->cwd = getcwd(NULL, 0);
	w->lacking = w->cwd ? 0 : errno;
	w->argv = without_ourselves(w->o->argv, w->cwd ? w->cwd : "/");
	words_init(&w->words, w->argv);
	if (w->cwd)
		find_command(w);
	/* All else is the project server's to find. */
	if (w->cwd && policy_is_tmp(w->cwd))
		w->workspace = job_workspace(w->cwd, environ, exists);
	leave_masquerade(w->argv[0]);
}

static void open_dir(struct wrapper *w)
{
	struct errmsg msg = {0};

	if (runtime_dir_open(&w->dir, &w->dir_fd, &msg) < 0) {
		words_say(&w->words, WORDS_TROUBLE, "%s", msg.text);
		return;
	}
	w->words.dir = w->dir;
	w->tally = path_join(w->dir, "tally");
}

/* Why there is no program to run elsewhere. */
static const char *lacks(const struct wrapper *w)
{
	bool by_path = strchr(w->argv[0], '/');

	if (!w->cwd)
		return w->lacking == ENOENT ? "the current directory is gone"
					    : "the current directory can't be told";
	if (w->ourselves)
		return "it is concc itself";
	if (w->lacking == EACCES)
		return by_path ? "it can't be executed" : "what PATH has can't be executed";
	if (w->lacking == ENAMETOOLONG)
		return "its path is too long";
	return by_path ? "it is not there" : "it is not in PATH";
}

/* What keeps it here, beside the policy, that is known without a server; else remote. */
static int decide(struct wrapper *w)
{
	const char *what = w->cwd ? too_long(w) : NULL;
	int err;

	if (what)
		return local(w, "too-long", what);
	if (!w->exe || !w->cwd || w->ourselves)
		return local(w, "command", lacks(w));
	output_init(&w->output);
	w->input.wanted = wants_stdin(w);
	err = w->input.wanted ? input_open(&w->input) : 0;
	if (err < 0)
		return local(w, "input", err_text(err));
	if (w->is_script)
		(void)mark_started(w); /* told where it runs */
	if (!w->dir)
		return fall_back(w, "no-runtime-dir", "the runtime directory can't be used");
	return remote(w);
}

static struct wrapper wrapper_of(const struct wrapper_options *o)
{
	return (struct wrapper){.o = o,
				.dir_fd = -1,
				.input = INPUT_INIT,
				.waiting = {.fd = -1},
				.slot = {.fd = -1},
				.arrived_us = real_us()};
}

int wrapper_run(const struct wrapper_options *o)
{
	struct wrapper w = wrapper_of(o);
	struct policy_input in = {
		.env = environ,
		.any_command = o->any_command,
		.read_file = read_regular_file,
	};
	struct policy_verdict v;

	prepare(&w);
	if (o->alone)
		return run_here(&w, false, "", "");
	in.argv = w.argv;
	in.cwd = w.cwd ? w.cwd : "/";
	in.workspace = w.workspace;
	policy_decide(&in, &v);
	/* In a job, what we touch would be its doing. */
	if (!v.local || !streq(v.rule, "on-worker"))
		open_dir(&w);
	return v.local ? local(&w, v.rule, v.why) : decide(&w);
}

/* ---- would it be found? ---- */

static int ask_of_result(struct wrapper *w, struct errmsg *msg)
{
	_cleanup_buf_ struct buf run = BUF_INIT, in = BUF_INIT;
	struct conn c = {.fd = -1};
	struct msg_run_fail f;
	int status = 1, r;
	uint8_t type;

	caller_read(&w->caller);
	encode_run(w, "", 0, JOB_F_WHY, &run);
	r = server_connect(w->dir, &c);
	if (r == 0)
		r = conn_send(&c, MSG_RUN, &run);
	if (r == 0)
		r = conn_recv(&c, &type, &in);
	conn_release(&c);
	if (r == 0)
		r = type == MSG_RUN_FAIL ? msg_run_fail_decode((struct blob){in.data, in.len}, &f)
					 : CONCC_E_PROTO;
	if (r < 0)
		return errmsg_set(msg, r, "the project server does not answer: %s", err_text(r));
	printf("%s", f.text);
	status = streq(f.rule, "hit") ? 0 : 1;
	msg_run_fail_release(&f);
	return status;
}

static int not_cacheable(const char *rule, const char *why)
{
	printf("not cacheable: it runs here: %s%s%s%s\n", rule, *why ? " (" : "", why,
	       *why ? ")" : "");
	return 1;
}

int wrapper_why(const struct wrapper_options *o)
{
	struct wrapper w = wrapper_of(o);
	struct policy_input in = {.env = environ, .read_file = read_regular_file};
	struct errmsg msg = {0};
	struct policy_verdict v;
	int r;

	prepare(&w);
	in.argv = w.argv;
	in.cwd = w.cwd ? w.cwd : "/";
	in.workspace = w.workspace;
	policy_decide(&in, &v);
	if (v.local)
		return not_cacheable(v.rule, v.why);
	if (!w.exe || !w.cwd || w.ourselves)
		return not_cacheable("command", lacks(&w));
	output_init(&w.output);
	w.input.wanted = job_reads_stdin(w.argv);
	open_dir(&w);
	r = w.dir ? server_ensure(w.dir, w.dir_fd, &msg) : -1;
	if (r == 0)
		r = ask_of_result(&w, &msg);
	if (r >= 0)
		return r;
	if (w.dir)
		fprintf(stderr, "concc: %s\n", msg.text);
	return WRAPPER_EXIT_SERVER;
}
