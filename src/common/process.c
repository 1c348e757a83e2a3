/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/process.h"

#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

/* ---- signals ---- */

/* One bit for each signal, from 1: those we have set, and those of them that were ignored. */
static atomic_ullong set_by_us, ignored_before;

static unsigned long long bit(int signo)
{
	return 1ULL << (signo - 1);
}

void process_signal(int signo, void (*handler)(int))
{
	struct sigaction sa = {.sa_handler = handler}, was;
	/* Asked first: of two threads the one that finds the caller's then says so in any case. */
	bool ours = atomic_load(&set_by_us) & bit(signo);

	if (sigaction(signo, &sa, &was) < 0)
		return;
	if (!ours && was.sa_handler == SIG_IGN)
		atomic_fetch_or(&ignored_before, bit(signo));
	atomic_fetch_or(&set_by_us, bit(signo));
}

bool process_caller_ignores(int signo)
{
	struct sigaction sa;

	if (atomic_load(&set_by_us) & bit(signo))
		return atomic_load(&ignored_before) & bit(signo);
	return sigaction(signo, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

/* Before a child is made.  A blocked SIGCHLD hinders no wait, and SA_NOCLDWAIT ends at an exec. */
static void own_children(void)
{
	if (!(atomic_load(&set_by_us) & bit(SIGCHLD)))
		process_signal(SIGCHLD, SIG_DFL);
}

static void set_handler(int signo, void (*handler)(int))
{
	struct sigaction sa = {.sa_handler = handler};

	(void)sigaction(signo, &sa, NULL); /* refused for KILL, STOP and those of libc */
}

static void give_back_signals(void)
{
	unsigned long long set = atomic_load(&set_by_us), ignored = atomic_load(&ignored_before);

	for (int signo = 1; signo < NSIG && set; signo++) {
		if (set & bit(signo))
			set_handler(signo, ignored & bit(signo) ? SIG_IGN : SIG_DFL);
		set &= ~bit(signo);
	}
}

/* The functions of these names are refused by musl, since by POSIX they are of a whole process. */
void process_set_policy(int policy)
{
	(void)syscall(SYS_sched_setscheduler, 0, policy, &(struct sched_param){0});
}

int process_policy(void)
{
	long policy = syscall(SYS_sched_getscheduler, 0);

	return policy < 0 ? -errno : (int)policy;
}

/* ---- in the child: system calls only, since its memory may be the parent's ---- */

/* A script without "#!", by the name that it was called: execvp(3) does so in glibc, not in musl.
 */
static int exec_by_sh(const char *path, char *const *argv, char *const *env)
{
	size_t n = strv_len(argv);
	char **words = alloca((n + 2) * sizeof(*words)); /* malloc is not for a child of vfork(2) */

	words[0] = (char *)"/bin/sh";
	words[1] = (char *)path;
	memcpy(words + 2, argv + 1, n * sizeof(*words)); /* with its NULL */
	execve(words[0], words, env);
	return -errno;
}

static int do_exec(const char *exe, char *const *argv, char *const *env)
{
	const char *path = exe ? exe : argv[0];

	if (strchr(path, '/'))
		execve(path, argv, env);
	else
		execvpe(path, argv, env);
	if (errno != ENOEXEC || !strchr(path, '/'))
		return -errno;
	return exec_by_sh(strchr(argv[0], '/') ? argv[0] : path, argv, env);
}

static int place(int from, int to)
{
	if (from == to) {
		/* What is closed, or held since it was (fd_hold_stdio()), stays so. */
		if (!(fcntl(to, F_GETFL) & O_PATH))
			(void)fcntl(to, F_SETFD, 0);
		return 0;
	}
	if (from == PROCESS_FD_NULL)
		from = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (from < 0)
		return -errno;
	/* What was opened at that very place is right but for its flag. */
	return (from == to ? fcntl(to, F_SETFD, 0) : dup2(from, to)) < 0 ? -errno : 0;
}

/* The report of a failure moves to be the one above those that are given. */
static int place_fds(const struct process *p, int *report)
{
	int fds[PROCESS_FDS_MAX], n = (int)p->n_fds;

	for (int i = 0; i < n; i++) {
		fds[i] = p->fds[i];
		/* It must not be overwritten before its turn. */
		if (fds[i] >= 0 && fds[i] < n && fds[i] != i)
			fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, n);
		if (fds[i] < 0 && fds[i] != PROCESS_FD_NULL)
			return -errno;
	}
	if (*report < n)
		*report = fcntl(*report, F_DUPFD_CLOEXEC, n);
	for (int i = 0; i < n; i++) {
		int r = place(fds[i], i);

		if (r < 0)
			return r;
	}
	if (p->flags & PROCESS_COMMAND)
		return 0;
	if (*report != n && dup3(*report, n, O_CLOEXEC) < 0)
		return -errno;
	*report = n;
	fd_close_from((unsigned)n + 1);
	return 0;
}

static int become(const struct process *p, const sigset_t *mask, int *report)
{
	sigset_t none;
	int r;

	if (p->flags & PROCESS_COMMAND)
		give_back_signals();
	else
		for (int signo = 1; signo < NSIG; signo++)
			set_handler(signo, SIG_DFL);
	if ((p->flags & PROCESS_SESSION) && setsid() < 0)
		return -errno;
	r = place_fds(p, report);
	if (r < 0)
		return r;
	if (p->dir && chdir(p->dir) < 0)
		return -errno;
	if (p->prepare) {
		r = p->prepare(p->data);
		if (r < 0)
			return r;
	}
	sigemptyset(&none);
	(void)pthread_sigmask(SIG_SETMASK, p->flags & PROCESS_COMMAND ? mask : &none, NULL);
	return do_exec(p->exe, p->argv, p->env ? p->env : environ);
}

__attribute__((noinline)) _Noreturn static void child(const struct process *p, const sigset_t *mask,
						      int report)
{
	int r = become(p, mask, &report);

	(void)write_full(report, &r, sizeof(r)); /* its reader waits */
	_exit(127);
}

/* ---- making one ---- */

pid_t process_fork(void)
{
	pid_t pid;

	own_children();
	pid = fork();
	return pid < 0 ? -errno : pid;
}

int process_fork_detached(void)
{
	int status, r;
	pid_t pid = process_fork();

	if (pid < 0)
		return pid;
	if (pid == 0) {
		pid = process_fork();
		if (pid == 0)
			return 0;
		_exit(pid < 0 ? -pid : 0); /* an errno of fork(2) is below 256 */
	}
	r = process_wait(pid, &status);
	if (r < 0)
		return r;
	if (!WIFEXITED(status))
		return -ECHILD; /* somebody killed it */
	return WEXITSTATUS(status) ? -WEXITSTATUS(status) : 1;
}

/* Signals are blocked: a handler of ours must not run in memory that is shared. */
static pid_t make_child(const struct process *p, const sigset_t *mask, int report)
{
	pid_t pid;

	if (p->flags & PROCESS_DETACHED) {
		pid = process_fork_detached();
	} else if (p->prepare) {
		pid = process_fork();
	} else {
		own_children();
		pid = vfork();
		if (pid < 0)
			return -errno;
	}
	if (pid == 0)
		child(p, mask, report);
	return pid;
}

int process_start(const struct process *p, pid_t *ret)
{
	bool detached = p->flags & PROCESS_DETACHED;
	_cleanup_close_ int report = -1;
	sigset_t all, mask;
	pid_t pid;
	int fds[2], err;

	err = pipe_above_stdio(fds);
	if (err < 0)
		return err;
	report = fds[0];
	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &mask); /* fails for a bad `how` only */
	pid = make_child(p, &mask, fds[1]);
	(void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
	close(fds[1]);
	if (pid < 0)
		return pid;
	/* The exec closes it without a word. */
	if (read_full(report, &err, sizeof(err)) == sizeof(err)) {
		if (!detached)
			(void)process_wait(pid, NULL);
		return err;
	}
	if (!detached)
		*ret = pid;
	return 0;
}

int process_exec(const char *exe, char *const *argv)
{
	give_back_signals();
	return do_exec(exe, argv, environ);
}

/* ---- its end ---- */

int process_wait(pid_t pid, int *ret_status)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (ret_status)
		*ret_status = status;
	return 0;
}

/* 0 when fd is readable, or a negative code. */
static int wait_readable(int fd, uint64_t deadline_ms, int cancel_fd)
{
	for (;;) {
		struct pollfd p[2] = {{.fd = fd, .events = POLLIN},
				      {.fd = cancel_fd, .events = POLLIN}};
		uint64_t now = now_ms();
		int r;

		if (now >= deadline_ms)
			return CONCC_E_TIMEOUT;
		r = poll(p, 2, (int)(deadline_ms - now));
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0 && p[1].revents)
			return -ECANCELED;
		if (r > 0 && p[0].revents)
			return 0;
	}
}

static int read_all(int fd, size_t max, uint64_t deadline_ms, int cancel_fd, struct buf *out)
{
	size_t start = out->len;

	for (;;) {
		uint8_t part[4096];
		ssize_t n;
		int err = wait_readable(fd, deadline_ms, cancel_fd);

		if (err < 0)
			return err;
		n = read(fd, part, sizeof(part));
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		if (out->len - start + (size_t)n > max)
			return CONCC_E_TOOBIG;
		buf_append(out, part, (size_t)n);
	}
}

static int wait_exit(pid_t pid, uint64_t deadline_ms, int cancel_fd)
{
	_cleanup_close_ int pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return pid_fd < 0 ? -errno : wait_readable(pid_fd, deadline_ms, cancel_fd);
}

int process_capture(const struct process *p, size_t max, uint64_t deadline_ms, int cancel_fd,
		    struct buf *out, int *ret_status)
{
	_cleanup_close_ int from = -1;
	struct process q = *p;
	int fds[2], r, ended;
	pid_t pid;

	r = pipe_above_stdio(fds);
	if (r < 0)
		return r;
	from = fds[0];
	for (unsigned i = 0; i < q.n_fds; i++)
		if (q.fds[i] == PROCESS_FD_KEPT)
			q.fds[i] = fds[1];
	r = process_start(&q, &pid);
	close(fds[1]);
	if (r < 0)
		return r;
	r = read_all(from, max, deadline_ms, cancel_fd, out);
	if (r == 0)
		r = wait_exit(pid, deadline_ms, cancel_fd);
	if (r < 0)
		(void)kill(q.flags & PROCESS_SESSION ? -pid : pid, SIGKILL);
	ended = process_wait(pid, ret_status);
	return r < 0 ? r : ended;
}

int process_ask(char *const *argv, char *const *env, size_t max, uint64_t deadline_ms,
		struct buf *out, int *ret_status)
{
	const struct process p = {
		.argv = argv,
		.env = env,
		.fds = {PROCESS_FD_NULL, PROCESS_FD_KEPT, PROCESS_FD_NULL},
		.n_fds = 3,
		.flags = PROCESS_SESSION,
	};

	return process_capture(&p, max, deadline_ms, -1, out, ret_status);
}
