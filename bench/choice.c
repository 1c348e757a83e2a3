/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * choice [ROUNDS]: what the choice of a place costs a job, in pools of 4, 128 and 1000 slots:
 * microseconds of CPU time and system calls, of a slot that is chosen, taken and given back.
 * Prints a Markdown table.
 */
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/pool.h"
#include "concc/str.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

/* What who comes meets. */
enum situation {
	ALL_FREE,
	ONE_FREE,
	SLOW_FREE, /* which it takes when it has waited for a better one, for a moment */
	SITUATIONS,
};

/* A job takes so long, and twice on the slow one: as long as that it has patience. */
#define WORK_US 1000
#define KIND	1

static void die(const char *what, const char *why)
{
	(void)fprintf(stderr, "choice: %s: %s\n", what, why);
	exit(1);
}

static void add(struct pool *p, const char *name, unsigned slots, unsigned speed)
{
	struct errmsg msg;

	if (pool_set(p, name, slots, POOL_UP, speed, &msg) < 0)
		die("pool_set", msg.text);
}

static struct pool_slot take(struct pool *p)
{
	struct pool_request q = {.cwd = "/bench", .local_ok = true, .kind = KIND};
	struct pool_slot s;
	int rc = pool_acquire(p, &q, &s);

	if (rc < 0)
		die("pool_acquire", err_text(rc));
	return s;
}

static void once(struct pool *p)
{
	struct pool_slot s = take(p);

	pool_release(p, &s);
}

static struct pool *open_pool(const char *dir)
{
	struct errmsg msg;
	struct pool *p;

	if (pool_open(dir, &p, &msg) < 0)
		die("pool_open", msg.text);
	return p;
}

/* Another process, since slots are held from each other by processes; to be killed. */
static pid_t hold(const char *dir, unsigned n)
{
	int fds[2];
	char byte;
	pid_t pid;

	if (pipe(fds) < 0)
		die("pipe", strerror(errno));
	pid = fork();
	if (pid == 0) {
		struct pool *p = open_pool(dir);

		while (n--)
			(void)take(p);
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (write(fds[1], "", 1) != 1)
			_exit(1);
		for (;;)
			(void)pause();
	}
	(void)close(fds[1]);
	if (pid < 0 || read(fds[0], &byte, 1) != 1)
		die("the holder of slots", "did not start");
	(void)close(fds[0]);
	return pid;
}

static pid_t make_situation(const char *dir, struct pool *p, enum situation what, unsigned members,
			    unsigned slots)
{
	char name[16];
	pid_t holder;

	pool_set_work(p, KIND, WORK_US);
	pool_set_mean(p, WORK_US);
	for (unsigned i = 0; i < members; i++) {
		(void)snprintf(name, sizeof(name), "w%u", i);
		add(p, name, slots, 1000);
	}
	holder = hold(dir, what == ALL_FREE ? 0 : members * slots - (what == ONE_FREE));
	if (what == SLOW_FREE)
		add(p, "slow", 1, 500);
	return holder;
}

static double cpu_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static double cost_us(struct pool *p, unsigned rounds)
{
	double from;

	once(p);
	from = cpu_us();
	for (unsigned i = 0; i < rounds; i++)
		once(p);
	return (cpu_us() - from) / rounds;
}

/* The second of two, between two calls that nobody else makes. */
static void be_counted(struct pool *p)
{
	if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
		_exit(1);
	(void)raise(SIGSTOP);
	once(p);
	(void)syscall(SYS_getppid);
	once(p);
	(void)syscall(SYS_getppid);
	_exit(0);
}

static unsigned calls(struct pool *p)
{
	struct __ptrace_syscall_info info;
	unsigned marks = 0, n = 0;
	pid_t pid = fork();
	int st = 0;

	if (pid == 0)
		be_counted(p);
	if (pid < 0 || waitpid(pid, &st, 0) < 0)
		die("fork", strerror(errno));
	(void)ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	while (ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0 && waitpid(pid, &st, 0) == pid &&
	       WIFSTOPPED(st)) {
		if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) <= 0 ||
		    info.op != PTRACE_SYSCALL_INFO_ENTRY)
			continue;
		marks += info.entry.nr == SYS_getppid;
		n += marks == 1 && info.entry.nr != SYS_getppid;
	}
	if (!WIFEXITED(st) || WEXITSTATUS(st) != 0)
		die("tracing", "the traced process failed");
	return n;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)remove(path); /* a leftover in /tmp is all that can come of it */
	return 0;
}

static void cell(enum situation what, unsigned members, unsigned slots, unsigned rounds)
{
	char dir[] = "/tmp/concc-bench-choice-XXXXXX";
	struct pool *p;
	pid_t holder;

	if (!mkdtemp(dir))
		die("mkdtemp", strerror(errno));
	p = open_pool(dir);
	holder = make_situation(dir, p, what, members, slots);
	(void)printf(" %.0f us, %u |", cost_us(p, rounds), calls(p));
	(void)fflush(stdout);
	(void)kill(holder, SIGKILL);
	(void)waitpid(holder, NULL, 0);
	pool_close(p);
	(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(int argc, char **argv)
{
	static const unsigned pools[][2] = {{1, 4}, {16, 8}, {125, 8}};
	static const struct rlimit many = {8192, 8192};
	unsigned long long rounds = 1000;

	if (argc > 1 && (!str_to_u64(argv[1], 1000000, &rounds) || rounds == 0))
		die(argv[1], "not a number of rounds");
	if (setrlimit(RLIMIT_NOFILE, &many) < 0)
		die("setrlimit", strerror(errno));
	(void)printf("| workers x slots | all are free | one is | none is, but a slow one |\n"
		     "|---|---|---|---|\n");
	for (size_t i = 0; i < N(pools); i++) {
		(void)printf("| %u x %u |", pools[i][0], pools[i][1]);
		for (unsigned what = 0; what < SITUATIONS; what++)
			cell(what, pools[i][0], pools[i][1], (unsigned)rounds);
		(void)printf("\n");
	}
	return 0;
}
