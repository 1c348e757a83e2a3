/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * One thing that a process does or is, on one line: for comparing it here and on a worker.
 *
 *	do-call WHAT ARG...	see the table at the end; exit status 1 when a call fails
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

static int say(long r)
{
	puts(r < 0 ? strerrorname_np(errno) : "done");
	return r < 0;
}

static unsigned number(const char *s)
{
	return (unsigned)strtol(s, NULL, 0);
}

/* ---- what it is ---- */

static int called(char **argv)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[n < 0 ? 0 : n] = '\0';
	printf("%s %s %s\n", (const char *)getauxval(AT_EXECFN), argv[0], exe);
	return 0;
}

static int signals(char **argv)
{
	sigset_t blocked;

	sigprocmask(SIG_BLOCK, NULL, &blocked);
	for (int i = 1; i < NSIG; i++) {
		struct sigaction sa;

		if (sigaction(i, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN)
			printf("ignored %d ", i);
		if (sigismember(&blocked, i) == 1)
			printf("blocked %d ", i);
	}
	puts(".");
	return 0;
}

/* blocking SIGNAL CMD...: runs it with that signal blocked. */
static int blocking(char **argv)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, (int)number(argv[2]));
	sigprocmask(SIG_BLOCK, &set, NULL);
	execvp(argv[3], argv + 3);
	return say(-1);
}

/* ---- what it uses ---- */

static __attribute__((noinline)) unsigned deep(unsigned kb)
{
	volatile char here[1024];

	memset((char *)here, (int)kb, sizeof(here));
	return kb ? deep(kb - 1) + (unsigned char)here[kb % sizeof(here)] : 0;
}

static int stack(char **argv)
{
	printf("%d\n", deep(number(argv[2])) != 1);
	return 0;
}

static int memory(char **argv)
{
	size_t n = (size_t)number(argv[2]) << 20;
	char *p = malloc(n);

	if (p)
		memset(p, 1, n);
	return say(p ? 0 : -1);
}

static int files(char **argv)
{
	unsigned n = 0;

	(void)syscall(SYS_close_range, 3U, ~0U, 0U);
	while (n < number(argv[2]) && open("/dev/null", O_RDONLY) >= 0)
		n++;
	printf("%u\n", n);
	return 0;
}

static const struct {
	const char *name;
	int (*fn)(char **argv);
	int n_args;
} table[] = {
	{"called", called, 0},	   {"signals", signals, 0},
	{"blocking", blocking, 2}, {"stack", stack, 1}, /* KB */
	{"memory", memory, 1},				/* MB */
	{"files", files, 1},				/* at most so many: how many it may open */
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(argv[1], table[i].name) == 0 && argc - 2 >= table[i].n_args)
			return table[i].fn(argv);
	fprintf(stderr, "do-call: see its source\n");
	return 2;
}
