/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * stop [-c] SECONDS PID...: as kill -STOP, but when it returns, the processes do nothing more:
 * kill(2) only asks for that, and on a busy machine they may do much before they listen.  Each
 * thread's stop is told by the kernel (ptrace(2), "Group-stop"); left alone again, a thread enters
 * that stop without running any of its program, but /proc may show an R until it has.  So what its
 * threads were stopped in is asked before: with -c, the number of each one's system call is a line.
 * Those that have ended, or do meanwhile, are no loss.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS_MAX 256

struct stop {
	pid_t threads[THREADS_MAX];
	size_t n;
};

static void seize_thread(struct stop *s, pid_t tid)
{
	if (s->n == THREADS_MAX) {
		fprintf(stderr, "stop: more than %d threads\n", THREADS_MAX);
		exit(125);
	}
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) == 0)
		s->threads[s->n++] = tid;
	else if (errno != ESRCH) {
		fprintf(stderr, "stop: thread %d: %s\n", (int)tid, strerror(errno));
		exit(125);
	}
}

/* Those that it starts after this stop with it. */
static void seize(struct stop *s, const char *pid)
{
	char path[64];
	struct dirent *e;
	DIR *d;

	(void)snprintf(path, sizeof(path), "/proc/%s/task", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		if (e->d_name[0] != '.')
			seize_thread(s, (pid_t)atol(e->d_name));
	}
	if (d)
		closedir(d);
}

/* Passes on what comes before: any of the threads may be the one that is given the signal. */
static void wait_stopped(const struct stop *s)
{
	size_t left = s->n;
	int status;
	pid_t tid;

	while (left && (tid = waitpid(-1, &status, __WALL)) > 0) {
		bool event = WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP;

		if (!WIFSTOPPED(status) || (event && WSTOPSIG(status) == SIGSTOP))
			left--;
		else
			(void)ptrace(PTRACE_CONT, tid, NULL,
				     (void *)(long)(event ? 0 : WSTOPSIG(status)));
	}
}

/* "running" for one that is in none (proc(5)). */
static void print_call(pid_t tid)
{
	char path[64], call[32] = "";
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/syscall", (int)tid);
	f = fopen(path, "r");
	if (f && fscanf(f, "%31s", call) == 1)
		puts(call);
	if (f)
		(void)fclose(f);
}

int main(int argc, char **argv)
{
	static struct stop s;
	bool calls = argc > 1 && strcmp(argv[1], "-c") == 0;

	argc -= calls;
	argv += calls;
	if (argc < 2) {
		fprintf(stderr, "usage: stop [-c] SECONDS PID...\n");
		return 125;
	}
	alarm((unsigned)atol(argv[1]));
	for (int i = 2; i < argc; i++)
		seize(&s, argv[i]);
	for (int i = 2; i < argc; i++)
		(void)kill((pid_t)atol(argv[i]), SIGSTOP);
	wait_stopped(&s);
	for (size_t i = 0; i < s.n && calls; i++)
		print_call(s.threads[i]);
	for (size_t i = 0; i < s.n; i++)
		(void)ptrace(PTRACE_DETACH, s.threads[i], NULL, NULL);
	return 0;
}
