/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* A tree of processes that is larger gets the signal in part, and ends by its root. */
#define TREE_MAX 4096

static const int signals[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT};
#define N_SIGNALS (sizeof(signals) / sizeof(*signals))

/* Set by the handler: the first, and one to be handed on. */
static volatile sig_atomic_t came, sent_to_us;

static void on_signal(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (!came)
		came = signo;
	if (info->si_code != SI_KERNEL)
		sent_to_us = signo;
}

/* What our caller ignores (nohup) stays ignored. */
static void set_handlers(const struct sigaction *sa)
{
	for (size_t i = 0; i < N_SIGNALS; i++) {
		if (!process_caller_ignores(signals[i]))
			(void)sigaction(signals[i], sa, NULL);
	}
}

void child_catch_signals(void)
{
	set_handlers(&(struct sigaction){.sa_sigaction = on_signal,
					 .sa_flags = SA_SIGINFO | SA_RESTART});
}

/* ---- handing on ---- */

static size_t add_children(pid_t pid, pid_t *list, size_t n)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/task/%d/children", (int)pid, (int)pid);
	FILE *f = fopen(path, "re");
	int child;

	while (f && n < TREE_MAX && fscanf(f, "%d", &child) == 1)
		list[n++] = child;
	if (f)
		(void)fclose(f);
	return n;
}

static void signal_all(const pid_t *list, size_t n, int signo)
{
	for (size_t i = 0; i < n; i++)
		(void)kill(list[i], signo);
}

/*
 * Each is stopped before it is asked for its children: so it neither ends, which would leave them
 * to init, nor starts any more (copy_process() in kernel/fork.c looks for signals last).
 */
static void signal_tree(pid_t root, int signo)
{
	_cleanup_free_ pid_t *list = xcalloc(TREE_MAX, sizeof(*list));
	size_t n = 1;

	list[0] = root;
	for (size_t i = 0; i < n; i++) {
		(void)kill(list[i], SIGSTOP);
		n = add_children(list[i], list, n);
	}
	signal_all(list, n, signo);
	signal_all(list, n, SIGCONT);
}

/* ---- waiting ---- */

/* The signals are blocked but in ppoll(2), so none comes unseen. */
static int wait_end(pid_t pid, int *ret_status)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	sigset_t block, mask;
	int r;

	sigemptyset(&block);
	for (size_t i = 0; i < N_SIGNALS; i++)
		sigaddset(&block, signals[i]);
	(void)sigprocmask(SIG_BLOCK, &block, &mask);
	do {
		if (sent_to_us)
			signal_tree(pid, sent_to_us);
		sent_to_us = 0;
		r = fd < 0 ? 1 : ppoll(&p, 1, NULL, &mask);
	} while (r < 0 && errno == EINTR);
	(void)sigprocmask(SIG_SETMASK, &mask, NULL);
	return process_wait(pid, ret_status);
}

int child_run(const struct process *p, int *ret_status)
{
	pid_t pid;
	int r = process_start(p, &pid);

	return r < 0 ? r : wait_end(pid, ret_status);
}

int child_call(int (*fn)(void *data), void *data, int *ret_status)
{
	pid_t pid = process_fork();

	if (pid == 0) {
		set_handlers(&(struct sigaction){.sa_handler = SIG_DFL});
		_exit(fn(data));
	}
	return pid < 0 ? pid : wait_end(pid, ret_status);
}

/* ---- ending ---- */

int child_signal(int status)
{
	if (came == SIGTERM || came == SIGHUP)
		return came;
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

void child_die_by(int signo)
{
	const struct rlimit none = {0};
	sigset_t set;

	(void)setrlimit(RLIMIT_CORE, &none); /* it would be of this process, not of the build */
	process_signal(signo, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, signo);
	(void)raise(signo);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}
