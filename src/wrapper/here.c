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
#include "concc/str.h"
#include "concc/wrapper.h"

int here_exec(const struct here *h)
{
	if (h->stdin_fd >= 0)
		(void)dup2(h->stdin_fd, 0); /* both are valid */
	if (h->exe)
		execv(h->exe, h->argv);
	else
		execvp(h->argv[0], h->argv);
	if (errno == ENOEXEC) {
		/* A script without "#!": execvp(3) and shells give it to sh. */
		execvp(h->argv[0], h->argv);
	}
	fprintf(stderr, "concc: can't run %s: %s\n", h->argv[0], err_text(-errno));
	return errno == ENOENT ? 127 : 126;
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

/* Copies what arrives to fd, but for the first *skip bytes.  False at the end. */
static bool relay(int from, int to, uint64_t *skip)
{
	char chunk[16 * 1024];
	ssize_t n = read(from, chunk, sizeof(chunk));
	size_t cut;

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	cut = *skip < (uint64_t)n ? (size_t)*skip : (size_t)n;
	*skip -= cut;
	return write_full(to, chunk + cut, (size_t)n - cut) == 0;
}

static int run_child(const struct here *h)
{
	uint64_t skip[2] = {h->skip[0], h->skip[1]};
	struct pollfd p[2];
	int out[2], err[2], status;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0)
		return WRAPPER_EXIT_FAILED;
	if (pipe2(err, O_CLOEXEC) < 0)
		return WRAPPER_EXIT_FAILED;
	pid = fork();
	if (pid < 0)
		return WRAPPER_EXIT_FAILED;
	if (pid == 0) {
		(void)dup2(out[1], 1);
		(void)dup2(err[1], 2);
		_exit(here_exec(h));
	}
	close(out[1]);
	close(err[1]);
	p[0] = (struct pollfd){.fd = out[0], .events = POLLIN};
	p[1] = (struct pollfd){.fd = err[0], .events = POLLIN};
	while (p[0].fd >= 0 || p[1].fd >= 0) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		for (int i = 0; i < 2; i++) {
			if (p[i].revents && !relay(p[i].fd, i + 1, &skip[i]))
				p[i].fd = -1;
		}
	}
	close(out[0]);
	close(err[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFSIGNALED(status) ? here_die_by(WTERMSIG(status)) : WEXITSTATUS(status);
}

int here_run(const struct here *h)
{
	return h->skip[0] || h->skip[1] ? run_child(h) : here_exec(h);
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
