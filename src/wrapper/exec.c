/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/cores.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/pool.h"
#include "concc/process.h"
#include "concc/str.h"
#include "concc/wrapper.h"
#include "output.h"

const char *wrapper_meant(const char *name)
{
	static const char *const builtins[] = {"cd", "export", "set", "source", "ulimit", "umask"};
	size_t n = strcspn(name, "/= \t");

	if (n && name[n] == '=')
		return "; a variable is set so: env CC=gcc COMMAND";
	if (name[n] == ' ' || name[n] == '\t')
		return "; leave out the quotes, or have a shell run it: sh -c 'COMMAND; COMMAND'";
	for (size_t i = 0; i < N_OF(builtins); i++) {
		if (streq(name, builtins[i]))
			return "; only a shell has that: sh -c 'cd DIR && COMMAND'";
	}
	return "";
}

/* Says why, and returns the exit status of a shell. */
static int not_run(const struct exec_call *h, int err)
{
	err_say("can't run %s: %s%s", h->argv[0], err_text(err),
		err == -ENOENT ? wrapper_meant(h->argv[0]) : "");
	return err == -ENOENT ? 127 : 126;
}

extern char **environ;

int exec_become(const struct exec_call *h)
{
	if (h->stdin_fd >= 0)
		(void)dup2(h->stdin_fd, 0); /* both are valid */
	return not_run(h,
		       h->path ? job_exec(h->path, h->argv, environ) : process_exec(NULL, h->argv));
}

int exec_die_by(int signo)
{
	struct rlimit none = {0};
	sigset_t set;

	/* Not ours: a command that may leave one has run here, and left it. */
	(void)setrlimit(RLIMIT_CORE, &none);
	(void)signal(signo, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, signo);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	(void)raise(signo);
	return 128 + signo; /* a signal that does not kill */
}

/* ---- as a child ---- */

struct relay {
	struct output *out;
	int from[2]; /* the command's streams; -1: it has the caller's own, or it is at its end */
	int untold;  /* -errno when output was lost, and nobody is left who could be told so */
};

static bool is_reader_gone(int err)
{
	return err == -EPIPE || err == -ECONNRESET;
}

/* What the command is told of is a pipe without a reader, whatever the matter is. */
static void say_why(const struct output *out, unsigned stream)
{
	_cleanup_buf_ struct buf line = BUF_INIT;
	int err = out->outlets[stream].err;
	size_t n;

	if (!err || is_reader_gone(err))
		return;
	buf_putf(&line, "concc: %s: %s\n", output_name(stream), err_text(err));
	(void)output_write(2, line.data, line.len, &n); /* it may be the one */
}

/* Who writes on gets SIGPIPE; who has ended with something in the pipe had no chance to. */
static void give_up_stream(struct relay *r, unsigned stream, bool lost)
{
	struct pollfd p = {.fd = r->from[stream]};
	int unread = 0;

	(void)ioctl(p.fd, FIONREAD, &unread); /* zero then */
	if ((lost || unread) && poll(&p, 1, 0) > 0 && p.revents & POLLHUP)
		r->untold = r->out->outlets[stream].err;
	close(steal_fd(&r->from[stream]));
	say_why(r->out, stream);
}

/* Passes on what is there; of a stream that is dead no more than went out before it died. */
static void relay_stream(struct relay *r, unsigned stream)
{
	uint8_t chunk[16 * 1024];
	uint64_t left = shown_left(&r->out->shown, stream);
	bool dead = r->out->outlets[stream].err;
	size_t max = dead && left < sizeof(chunk) ? (size_t)left : sizeof(chunk);
	ssize_t n = read(r->from[stream], chunk, max);
	int err = 0;

	if (n < 0 && errno == EINTR)
		return;
	if (n > 0)
		err = output_show(r->out, stream, (struct blob){chunk, (size_t)n});
	if (n <= 0)
		close(steal_fd(&r->from[stream]));
	else if (err < 0 || output_is_over(r->out, stream))
		give_up_stream(r, stream, err < 0);
}

static void relay_all(struct relay *r)
{
	while (r->from[0] >= 0 || r->from[1] >= 0) {
		struct pollfd p[2] = {{.fd = r->from[0], .events = POLLIN},
				      {.fd = r->from[1], .events = POLLIN}};

		if (poll(p, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		for (unsigned i = 0; i < 2; i++) {
			if (p[i].revents)
				relay_stream(r, i);
		}
	}
}

/* As it would have ended had it been told. */
static int end_untold(int err)
{
	if (is_reader_gone(err) && !process_caller_ignores(SIGPIPE))
		return exec_die_by(SIGPIPE);
	return WRAPPER_EXIT_FAILED;
}

static int wait_child(pid_t pid, const struct relay *r)
{
	int status;

	if (process_wait(pid, &status) < 0)
		return WRAPPER_EXIT_FAILED;
	if (WIFSIGNALED(status))
		return exec_die_by(WTERMSIG(status));
	if (WEXITSTATUS(status) == 0 && r->untold)
		return end_untold(r->untold);
	return WEXITSTATUS(status);
}

/*
 * From the command to us.  Where the stream is dead it is as short as can be: what is in it when
 * the command comes to that point was written without the error.
 */
static int open_pipe(const struct outlet *to, int ret[2])
{
	int r = pipe_above_stdio(ret);

	if (r == 0 && to->err)
		(void)fcntl(ret[0], F_SETPIPE_SZ, 1); /* a page; longer is no harm but this */
	return r;
}

static int run_child(const struct exec_call *h, const bool relayed[2])
{
	struct process p = {.exe = h->path,
			    .argv = h->argv,
			    .fds = {h->stdin_fd >= 0 ? h->stdin_fd : 0, 1, 2},
			    .n_fds = 3,
			    .flags = PROCESS_COMMAND};
	struct relay r = {.out = h->out, .from = {-1, -1}};
	int fds[2], err;
	pid_t pid;

	for (unsigned i = 0; i < 2; i++) {
		if (!relayed[i])
			continue;
		if (open_pipe(&h->out->outlets[i], fds) < 0)
			return WRAPPER_EXIT_FAILED; /* the kernel closes the other */
		r.from[i] = fds[0];
		p.fds[i + 1] = fds[1];
	}
	if (h->out->merged)
		p.fds[2] = p.fds[1];
	err = process_start(&p, &pid);
	if (err < 0)
		return not_run(h, err);
	for (unsigned i = 0; i < 2; i++)
		if (relayed[i])
			close(p.fds[i + 1]);
	shown_restart(&h->out->shown);
	relay_all(&r);
	return wait_child(pid, &r);
}

int exec_child(const struct exec_call *h)
{
	bool relayed[2];

	for (unsigned i = 0; i < 2; i++)
		relayed[i] = output_has_shown(h->out, i) &&
			     !(h->out->outlets[i].err && output_take_back(h->out, i));
	return relayed[0] || relayed[1] ? run_child(h, relayed) : exec_become(h);
}

/* ---- slots ---- */

void exec_keep_slot(struct pool_slot *s)
{
	if (s->fd >= 0)
		(void)fd_set_cloexec(s->fd, false); /* then the slot is free a little too early */
}

void exec_take_slot(const char *runtime_dir)
{
	_cleanup_free_ char *dir = path_join(runtime_dir, "here");
	struct pool_request q = {.only = "here"};
	struct pool_member m;
	struct pool_slot slot = {.fd = -1};
	struct pool *p;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return;
	if (pool_open(dir, &p, NULL) < 0)
		return;
	if (pool_list(p, &m, 1, false) < 1)
		(void)pool_set(p, "here", cores_usable(), POOL_UP, 1000, NULL);
	if (pool_acquire(p, &q, &slot) == 0)
		exec_keep_slot(&slot);
	/* Not closed: the process is about to become the command, or waits for it. */
}
