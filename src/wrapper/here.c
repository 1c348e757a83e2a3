/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "here.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/pool.h"
#include "concc/str.h"
#include "concc/wrapper.h"
#include "shown.h"

extern char **environ;

int here_exec(const struct here *h)
{
	int r;

	if (h->stdin_fd >= 0)
		(void)dup2(h->stdin_fd, 0); /* both are valid */

	if (h->path) {
		r = job_exec(h->path, h->argv, environ);
	} else {
		execvp(h->argv[0], h->argv);
		r = -errno;
	}
	fprintf(stderr, "concc: can't run %s: %s\n", h->argv[0], err_text(r));
	return r == -ENOENT ? 127 : 126;
}

int here_die_by(int signo)
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

/* Copies what arrives to stream's fd, but for what was shown.  False at the end. */
static bool relay(int from, unsigned stream, struct shown *shown)
{
	uint8_t chunk[16 * 1024];
	ssize_t n = read(from, chunk, sizeof(chunk));
	struct blob left;

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	left = shown_next(shown, stream, (struct blob){chunk, (size_t)n});
	return write_full((int)stream + 1, left.p, left.n) == 0;
}

static void relay_all(const int fds[2], struct shown *shown)
{
	struct pollfd p[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};

	while (p[0].fd >= 0 || p[1].fd >= 0) {
		if (poll(p, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		for (unsigned i = 0; i < 2; i++) {
			if (p[i].revents && !relay(p[i].fd, i, shown))
				p[i].fd = -1;
		}
	}
}

static int run_child(const struct here *h)
{
	_cleanup_close_ int out_from = -1, out_to = -1, err_from = -1, err_to = -1;
	int out[2], err[2], status;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0)
		return WRAPPER_EXIT_FAILED;
	out_from = out[0];
	out_to = out[1];
	if (pipe2(err, O_CLOEXEC) < 0)
		return WRAPPER_EXIT_FAILED;
	err_from = err[0];
	err_to = err[1];
	pid = fork();
	if (pid < 0)
		return WRAPPER_EXIT_FAILED;
	if (pid == 0) {
		(void)dup2(out_to, 1);
		(void)dup2(h->merged ? out_to : err_to, 2);
		_exit(here_exec(h));
	}
	close(steal_fd(&out_to));
	close(steal_fd(&err_to));
	shown_restart(h->shown);
	relay_all((const int[]){out_from, err_from}, h->shown);
	/* Who writes on after our reader went away gets SIGPIPE. */
	close(steal_fd(&out_from));
	close(steal_fd(&err_from));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFSIGNALED(status) ? here_die_by(WTERMSIG(status)) : WEXITSTATUS(status);
}

int here_run(const struct here *h)
{
	return shown_any(h->shown) ? run_child(h) : here_exec(h);
}

void here_keep_slot(struct pool_slot *s)
{
	if (s->fd >= 0)
		(void)fd_set_cloexec(s->fd, false); /* then the slot is free a little too early */
}

void here_take_slot(const char *runtime_dir)
{
	_cleanup_free_ char *dir = path_join(runtime_dir, "here");
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	struct pool_request q = {.only = "here"};
	struct pool_member m;
	struct pool_slot slot = {.fd = -1};
	struct pool *p;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return;
	if (pool_open(dir, &p, NULL) < 0)
		return;
	if (pool_list(p, &m, 1, false) < 1)
		(void)pool_set(p, "here", cores > 0 ? (uint32_t)cores : 1, POOL_UP, 1000, NULL);
	if (pool_acquire(p, &q, &slot) == 0)
		here_keep_slot(&slot);
	/* Not closed: the process is about to become the command, or waits for it. */
}
