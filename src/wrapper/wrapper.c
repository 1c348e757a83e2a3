/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/wrapper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/caller.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/namespaces.h"
#include "concc/pool.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "here.h"
#include "session.h"
#include "shown.h"

extern char **environ;

/* Remote tries of one command before it runs here: the first, and one for each bad surprise. */
#define ATTEMPTS_MAX 3
/* How often one kind of trouble is told when every job of a build has it. */
#define SAY_PERIOD_S 30

struct wrapper {
	const struct wrapper_options *o;
	char *cwd;
	char *path;	 /* what execve(2) gets; NULL when PATH has none */
	char *exe;	 /* the same file, by an absolute path */
	int lacking;	 /* errno, where there is no cwd or path */
	char *workspace; /* NULL: the server may know one */
	char *dir;	 /* runtime directory; NULL when there is none we may use */
	int dir_fd;
	char *tally;
	bool explain;
	struct input input;
	struct shown shown;
	char *avoid;	   /* the worker that failed last */
	struct pool *pool; /* NULL until it is needed */
	struct pool_slot slot;
	struct conn waiting; /* told the server that we wait for a slot; else closed */
	struct caller caller;
	const char *foreign; /* how the server differs from us; static */
};

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n;

	n = snprintf(line, sizeof(line), "concc: ");
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	if ((size_t)n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	(void)!write(2, line, (size_t)n); /* one write, so that lines of many jobs don't mix */
}

static bool env_is_set(const char *name)
{
	const char *v = getenv(name);

	return v && *v && !streq(v, "0");
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

/* Our own programs reached through PATH, as symlinks named like compilers. */
static bool is_ours(const char *path, void *data)
{
	char real[PATH_MAX];
	const char *base;

	if (!realpath(path, real))
		return false;
	base = path_base(real);
	return streq(base, "concc-cc") || streq(base, "concc-dispatch");
}

/* True for a directory of symlinks to us: what `concc run` puts in front of PATH. */
static bool is_masquerade(const char *dir, size_t n)
{
	_cleanup_free_ char *cc = xasprintf("%.*s/cc", (int)n, dir);
	char target[PATH_MAX];
	ssize_t len = readlink(cc, target, sizeof(target) - 1);

	if (len < 0)
		return false;
	target[len] = 0;
	return streq(path_base(target), "concc-cc");
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
	bool changed = false, by_name = !strchr(command, '/');

	if (!path)
		return;
	for (const char *p = path; *p; p += strspn(p, ":")) {
		size_t n = strcspn(p, ":");
		_cleanup_free_ char *there = xasprintf("%.*s/%s", (int)n, p, command);

		/* Most are not there at all, which one call tells. */
		if (is_masquerade(p, n) ||
		    (by_name && access(there, X_OK) == 0 && is_ours(there, NULL)))
			changed = true;
		else
			buf_putf(&kept, "%s%.*s", kept.len ? ":" : "", (int)n, p);
		p += n;
	}
	if (changed)
		setenv("PATH", buf_cstr(&kept), 1);
}

/*
 * True when $PWD names the cwd through a symlink.  Compilers write it into debug
 * information, and a worker that does not have the symlink would write another path.
 */
static bool cwd_is_symlinked(const char *cwd)
{
	const char *pwd = getenv("PWD");
	struct stat a, b;

	return pwd && *pwd == '/' && !streq(pwd, cwd) && stat(pwd, &a) == 0 && stat(".", &b) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* ---- here ---- */

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

static int run_here(struct wrapper *w, bool gated)
{
	struct here h = {
		.path = w->path,
		.argv = w->o->argv,
		.shown = &w->shown,
		.merged = same_file(1, 2),
		.stdin_fd = -1,
	};

	if (w->input.spooled) {
		h.stdin_fd = input_replay_fd(&w->input);
		if (h.stdin_fd < 0) {
			say("can't run %s again: its input can't be kept: %s", w->o->argv[0],
			    err_text(h.stdin_fd));
			return WRAPPER_EXIT_FAILED;
		}
	}
	if (gated && w->dir)
		here_take_slot(w->dir);
	return here_run(&h);
}

/* A rule of the policy says so: at once, without a word. */
static int local(struct wrapper *w, const char *rule, const char *why)
{
	if (w->explain)
		say("local: %s%s%s%s", rule, *why ? " (" : "", why, *why ? ")" : "");
	count(w, "local", rule);
	return run_here(w, false);
}

/* Something of ours failed: the build goes on, and one line says why it is slower. */
static int fall_back(struct wrapper *w, const char *rule, const char *text)
{
	_cleanup_free_ char *key = xasprintf("said:%s", rule);

	if (w->explain)
		say("local: %s (%s)", rule, text);
	else if (!w->tally || tally_may_say_why(w->tally, key, text, SAY_PERIOD_S))
		say("%s; running it here", text);
	count(w, "fallback", rule);
	return run_here(w, true);
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
	return w->o->any_command || job_reads_stdin(w->o->argv);
}

static uint32_t job_flags(const struct wrapper *w, struct winsize *ws)
{
	uint32_t flags = 0;

	if (wants_stdin(w))
		flags |= JOB_F_STDIN;
	if (same_file(1, 2))
		flags |= JOB_F_MERGED;
	if (isatty(1))
		flags |= JOB_F_TTY_OUT;
	if (isatty(2))
		flags |= JOB_F_TTY_ERR;
	if (flags & (JOB_F_TTY_OUT | JOB_F_TTY_ERR))
		(void)ioctl(flags & JOB_F_TTY_ERR ? 2 : 1, TIOCGWINSZ, ws); /* stays zero then */
	return flags;
}

static void encode_run(struct wrapper *w, const char *worker, uint32_t attempt, struct buf *b)
{
	_cleanup_strv_ char **env = job_env_filter(environ);
	struct winsize ws = {0};
	mode_t mask = umask(0);
	struct msg_run m = {
		.version = PROTO_VERSION,
		.flags = job_flags(w, &ws),
		.umask = mask,
		.rows = ws.ws_row,
		.cols = ws.ws_col,
		.attempt = attempt,
		.worker = (char *)worker,
		.run_id = (char *)"",
		.path = w->path,
		.exe = w->exe,
		.cwd = w->cwd,
		.workspace = w->workspace ? w->workspace : (char *)"",
		.caller = w->caller,
		.argv = (char **)w->o->argv,
		.env = env,
	};

	(void)umask(mask);
	w->input.wanted = m.flags & JOB_F_STDIN;
	msg_run_encode(b, &m);
}

enum step { STEP_DONE, STEP_AGAIN, STEP_HERE };

/* What the server said about a job that did not end: another worker, or here. */
static enum step on_fail(struct wrapper *w, const char *worker, const struct msg_run_fail *f,
			 int *ret_status)
{
	if (f->what == RUN_FAIL_SERVER) {
		if (w->explain)
			say("%s; starting another", f->text);
		count(w, "retry", f->rule);
		return STEP_AGAIN;
	}
	if (f->what == RUN_FAIL_RETRY) {
		if (w->explain || !f->quiet)
			say("%s; trying another worker", f->text);
		count(w, "retry", f->rule);
		free(w->avoid);
		w->avoid = xstrdup(worker);
		return STEP_AGAIN;
	}
	/* Others can use it while we wait for a core here, and run. */
	pool_release(w->pool, &w->slot);
	*ret_status = f->quiet ? local(w, f->rule, f->text) : fall_back(w, f->rule, f->text);
	return STEP_DONE;
}

static enum step attempt(struct wrapper *w, const char *worker, uint32_t n, int *ret_status)
{
	_cleanup_buf_ struct buf run = BUF_INIT;
	struct session_end end = {0};
	enum step step;
	int r;

	encode_run(w, worker, n, &run);
	shown_restart(&w->shown);
	r = session_run(w->dir, &w->waiting, &run, &w->input, &w->shown, &end);
	if (r < 0) {
		if (!w->tally || tally_may_say(w->tally, "said:server-lost", SAY_PERIOD_S))
			say("the project server was lost (%s); starting another", err_text(r));
		count(w, "retry", "server-lost");
		if (r == -ECONNREFUSED)
			server_wait_end(w->dir_fd);
		return STEP_AGAIN;
	}
	if (end.failed) {
		step = on_fail(w, worker, &end.fail, ret_status);
		msg_run_fail_release(&end.fail);
		return step;
	}
	if (w->explain)
		say("remote on %s", end.worker);
	count(w, "remote", end.worker);
	free(end.worker);
	*ret_status = end.how == EXIT_SIGNAL ? here_die_by((int)end.code) : (int)end.code;
	return STEP_DONE;
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

/* -EXDEV: the server's workers are not for us, as w->foreign says. */
static int acquire(struct wrapper *w, struct pool *p, struct pool_slot *slot)
{
	struct pool_request q = {.cwd = w->cwd, .avoid = w->avoid, .local_ok = true, .try = true};
	int r;

	r = pool_acquire(p, &q, slot);
	if (r != -EAGAIN)
		return r;
	session_wait(w->dir, &w->waiting, w->o->argv);
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

	if (why && *why && run && *run && !w->explain && tally_was_told(run, why))
		text = xstrdup("no worker can be reached");
	else
		text = xasprintf("no worker can be reached (%s)",
				 why && *why ? why : "`concc status` says why");
	return fall_back(w, "no-worker", text);
}

static int remote(struct wrapper *w)
{
	struct errmsg msg = {0};
	int status = 0, r;

	caller_read(&w->caller);
	for (uint32_t n = 0; n < ATTEMPTS_MAX; n++) {
		enum step step;

		r = server_ensure(w->dir, w->dir_fd, &msg);
		if (r < 0)
			return fall_back(w, "no-server", msg.text);
		if (!w->pool)
			r = pool_open(w->dir, &w->pool, &msg);
		if (r < 0)
			return fall_back(w, "no-pool", msg.text);
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
		if (streq(w->slot.name, POOL_LOCAL)) {
			conn_release(&w->waiting);
			here_keep_slot(&w->slot);
			return local(w, "local-slot", "");
		}
		if (w->avoid && streq(w->slot.name, w->avoid))
			n = ATTEMPTS_MAX; /* the only one: once more at most */
		step = attempt(w, w->slot.name, n, &status);
		pool_release(w->pool, &w->slot);
		if (step == STEP_DONE)
			return status;
	}
	return fall_back(w, "gave-up", "no worker could do this job");
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static void prepare(struct wrapper *w)
{
	struct errmsg msg = {0};

	w->explain = env_is_set("CONCC_EXPLAIN");
	w->cwd = getcwd(NULL, 0);
	w->path = w->cwd ? job_resolve(w->o->argv[0], getenv("PATH"), w->cwd, is_ours, NULL) : NULL;
	w->lacking = w->path ? 0 : errno;
	w->exe = w->path ? job_exe(w->path, w->cwd) : NULL;
	w->workspace = w->cwd ? job_workspace(w->cwd, environ, exists) : NULL;
	leave_masquerade(w->o->argv[0]);
	if (runtime_dir_open(&w->dir, &w->dir_fd, &msg) < 0)
		say("%s", msg.text);
	else
		w->tally = path_join(w->dir, "tally");
}

/* Why there is no program to run elsewhere. */
static const char *lacks(const struct wrapper *w)
{
	bool by_path = strchr(w->o->argv[0], '/');

	if (!w->cwd)
		return w->lacking == ENOENT ? "the current directory is gone"
					    : "the current directory can't be told";
	if (w->lacking == EACCES)
		return by_path ? "it can't be executed" : "what PATH has can't be executed";
	return by_path ? "it is not there" : "it is not in PATH";
}

int wrapper_run(const struct wrapper_options *o)
{
	struct wrapper w = {.o = o,
			    .dir_fd = -1,
			    .input = INPUT_INIT,
			    .waiting = {.fd = -1},
			    .slot = {.fd = -1}};
	struct policy_verdict v;
	struct policy_input in = {.argv = o->argv, .env = environ, .any_command = o->any_command};

	prepare(&w);
	in.cwd = w.cwd ? w.cwd : "/";
	in.workspace = w.workspace;
	policy_decide(&in, &v);
	if (v.local)
		return local(&w, v.rule, v.why);
	if (!w.path || !w.cwd)
		return local(&w, "command", lacks(&w));
	if (cwd_is_symlinked(w.cwd))
		return local(&w, "symlinked-cwd", getenv("PWD"));
	if (!w.dir)
		return fall_back(&w, "no-runtime-dir", "the runtime directory can't be used");
	return remote(&w);
}
