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
#include "concc/pool.h"
#include "concc/process.h"
#include "concc/str.h"
#include "concc/wrapper.h"
#include "shown.h"

/* Says why, and returns the exit status of a shell. */
static int not_run(const struct here *h, int err)
{
	fprintf(stderr, "concc: can't run %s: %s\n", h->argv[0], err_text(err));
	return err == -ENOENT ? 127 : 126;
}

int here_exec(const struct here *h)
{
	if (h->stdin_fd >= 0)
		(void)dup2(h->stdin_fd, 0); /* both are valid */
	return not_run(h, process_exec(h->exe, h->argv));
}

int here_die_by(int signo)
{
	struct rlimit none = {0};
	sigset_t set;

	/* The core, if any, is the command's affair and on the worker. */
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
	int out[2], err[2], status, r;
	pid_t pid;

	if (pipe_above_stdio(out) < 0)
		return WRAPPER_EXIT_FAILED;
	out_from = out[0];
	out_to = out[1];
	if (pipe_above_stdio(err) < 0)
		return WRAPPER_EXIT_FAILED;
	err_from = err[0];
	err_to = err[1];
	r = process_start(&(struct process){.exe = h->exe,
					    .argv = h->argv,
					    .fds = {h->stdin_fd >= 0 ? h->stdin_fd : 0, out_to,
						    h->merged ? out_to : err_to},
					    .n_fds = 3,
					    .flags = PROCESS_COMMAND},
			  &pid);
	if (r < 0)
		return not_run(h, r);
	close(steal_fd(&out_to));
	close(steal_fd(&err_to));
	shown_restart(h->shown);
	relay_all((const int[]){out_from, err_from}, h->shown);
	/* Who writes on after our reader went away gets SIGPIPE. */
	close(steal_fd(&out_from));
	close(steal_fd(&err_from));
	if (process_wait(pid, &status) < 0)
		return WRAPPER_EXIT_FAILED;
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
