/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Starting processes: what they get, what their parent is told, and a caller that ignores SIGCHLD.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/loop.h"
#include "concc/process.h"
#include "concc/str.h"
#include "../lib/unit.h"

#define WAIT_MS 60000 /* only ever reached by a failing test */

static bool has_children(void)
{
	siginfo_t si;

	return waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* What argv prints. */
static char *output(char *const *argv, unsigned flags)
{
	struct process p = {.argv = argv,
			    .fds = {PROCESS_FD_NULL, PROCESS_FD_KEPT, 2},
			    .n_fds = 3,
			    .flags = flags};
	struct buf out = BUF_INIT;
	int status, r = process_capture(&p, 1 << 16, now_ms() + WAIT_MS, -1, &out, &status);
	char *copy;

	cr_assert_eq(r, 0, "%s", err_text(r));
	cr_assert_eq(status, 0, "%s", buf_cstr(&out));
	copy = xstrdup(buf_cstr(&out));
	buf_release(&out);
	return copy;
}

static char *say(const char *text, unsigned flags)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)text, NULL};

	return output(argv, flags);
}

static void expect_said(const char *text, unsigned flags, const char *want)
{
	char *got = say(text, flags);

	cr_assert_str_eq(got, want, "%s: got '%s'", text, got);
	free(got);
}

/* Of a mask in /proc/self/status.  Without a shell: that has signals of its own. */
static bool has_signal(const char *field, int signo, unsigned flags)
{
	char *script = xasprintf("s/^%s:[[:space:]]*//p", field);
	char *argv[] = {(char *)"sed", (char *)"-n", script, (char *)"/proc/self/status", NULL};
	char *got = output(argv, flags);
	unsigned long long mask = strtoull(got, NULL, 16);

	free(got);
	free(script);
	return mask & 1ULL << (signo - 1);
}

static int start(char *const *argv, unsigned flags, pid_t *ret)
{
	struct process p = {.argv = argv, .fds = {0, 1, 2}, .n_fds = 3, .flags = flags};

	return process_start(&p, ret);
}

static int run_sh(const char *text, unsigned flags)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)text, NULL};
	int status, r;
	pid_t pid;

	r = start(argv, flags, &pid);
	if (r == 0)
		r = process_wait(pid, &status);
	return r < 0 ? r : status;
}

/* ---- what the parent is told ---- */

Test(process, status_of_its_end)
{
	cr_assert_eq(run_sh("exit 3", 0), 3 << 8);
	cr_assert_eq(run_sh("kill -9 $$", 0), SIGKILL);
	cr_assert_eq(process_wait(getpid(), NULL), -ECHILD);
}

Test(process, exec_that_fails_is_told_and_leaves_nothing)
{
	static const unsigned flags[] = {0, PROCESS_COMMAND, PROCESS_SESSION, PROCESS_DETACHED,
					 PROCESS_DETACHED | PROCESS_SESSION};
	char *none[] = {(char *)"/nonexistent/program", NULL};
	char *in_path[] = {(char *)"no-such-program-at-all", NULL};
	char *not_one[] = {(char *)"/etc/passwd", NULL};
	int fds = count_fds();
	pid_t pid;

	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		cr_assert_eq(start(none, flags[i], &pid), -ENOENT, "%u", flags[i]);
		cr_assert_eq(start(in_path, flags[i], &pid), -ENOENT, "%u", flags[i]);
		cr_assert_eq(start(not_one, flags[i], &pid), -EACCES, "%u", flags[i]);
		cr_assert_not(has_children(), "%u", flags[i]);
	}
	cr_assert_eq(count_fds(), fds);
}

Test(process, directory_that_is_not_there)
{
	char *argv[] = {(char *)"true", NULL};
	struct process p = {
		.argv = argv, .dir = "/nonexistent/concc-test", .fds = {0, 1, 2}, .n_fds = 3};
	pid_t pid;

	cr_assert_eq(process_start(&p, &pid), -ENOENT);
	p.dir = "/";
	cr_assert_eq(process_start(&p, &pid), 0);
	cr_assert_eq(process_wait(pid, NULL), 0);
}

/* A user whose processes nobody else has; max of them at once. */
static void become_limited(rlim_t max)
{
	struct rlimit rl = {max, max};

	cr_assert_eq(setrlimit(RLIMIT_NPROC, &rl), 0);
	cr_assert_eq(setresuid(54321, 54321, 54321), 0);
}

static void skip_unless_root(void)
{
	if (geteuid() != 0)
		cr_skip_test("needs root, to be another user");
}

static void fail_to_fork(void)
{
	char *argv[] = {(char *)"true", NULL};
	int fds = count_fds();
	pid_t pid;

	become_limited(1);
	cr_assert_eq(process_fork(), -EAGAIN);
	cr_assert_eq(process_fork_detached(), -EAGAIN);
	cr_assert_eq(start(argv, 0, &pid), -EAGAIN);
	cr_assert_eq(start(argv, PROCESS_DETACHED, NULL), -EAGAIN);
	cr_assert_eq(count_fds(), fds);
}

/* LeakSanitizer needs a thread at the end, which that process may not have. */
Test(process, fork_that_fails)
{
	skip_unless_root();
	IN_CHILD(fail_to_fork());
}

/* The child is there, but its own child can't be made: as if there had been none. */
Test(process, second_fork_that_fails)
{
	char *argv[] = {(char *)"true", NULL};

	skip_unless_root();
	become_limited(2);
	cr_assert_eq(process_fork_detached(), -EAGAIN);
	cr_assert_eq(start(argv, PROCESS_DETACHED, NULL), -EAGAIN);
	cr_assert_not(has_children());
}

/* ---- a caller that ignores SIGCHLD ---- */

Test(process, status_is_known_although_the_caller_ignores_sigchld)
{
	signal(SIGCHLD, SIG_IGN);
	cr_assert_eq(run_sh("exit 3", 0), 3 << 8);
	cr_assert_eq(run_sh("exit 4", PROCESS_COMMAND), 4 << 8);
	cr_assert(process_caller_ignores(SIGCHLD));
}

Test(process, forked_children_have_a_status_too)
{
	int status;
	pid_t pid;

	signal(SIGCHLD, SIG_IGN);
	pid = process_fork();
	if (pid == 0)
		_exit(7);
	cr_assert_eq(process_wait(pid, &status), 0);
	cr_assert_eq(status, 7 << 8);
	pid = process_fork_detached();
	if (pid == 0)
		_exit(7);
	cr_assert_eq(pid, 1);
}

Test(process, only_commands_get_what_the_caller_ignores)
{
	signal(SIGCHLD, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	for (int round = 0; round < 2; round++) { /* the first start makes it ours */
		cr_assert(has_signal("SigIgn", SIGCHLD, PROCESS_COMMAND));
		cr_assert(has_signal("SigIgn", SIGUSR1, PROCESS_COMMAND));
		cr_assert_not(has_signal("SigIgn", SIGCHLD, 0));
		cr_assert_not(has_signal("SigIgn", SIGUSR1, 0));
	}
	process_signal(SIGINT, SIG_IGN);
	cr_assert_not(has_signal("SigIgn", SIGINT, PROCESS_COMMAND));
	cr_assert_not(process_caller_ignores(SIGINT));
	cr_assert(process_caller_ignores(SIGUSR1));
	cr_assert_not(process_caller_ignores(SIGUSR2));
}

Test(process, nothing_is_ignored_when_the_caller_does_not)
{
	cr_assert_not(has_signal("SigIgn", SIGCHLD, PROCESS_COMMAND));
	cr_assert_not(has_signal("SigIgn", SIGCHLD, PROCESS_COMMAND));
}

/* What process_exec() becomes sees the caller's, after children of ours too. */
Test(process, exec_in_place)
{
	char *argv[] = {(char *)"grep", (char *)"-q", (char *)"^SigIgn:.*[13579bdf]....$",
			(char *)"/proc/self/status", NULL};
	int status;
	pid_t pid;

	signal(SIGCHLD, SIG_IGN); /* bit 16: the fifth digit from the end is odd */
	pid = process_fork();
	if (pid == 0)
		_exit(process_exec(NULL, argv) ? 99 : 98);
	cr_assert_eq(process_wait(pid, &status), 0);
	cr_assert_eq(status, 0);
}

static void on_end(void *data, pid_t pid, int status)
{
	*(int *)data = status;
}

/* Who reaps it does not matter: the loop must not turn for ever. */
Test(process, loop_notices_a_child_without_a_status, .timeout = 300)
{
	char *argv[] = {(char *)"true", NULL};
	struct loop *l;
	int status = 0;
	pid_t pid;

	cr_assert_eq(loop_new(&l), 0);
	cr_assert_eq(start(argv, 0, &pid), 0);
	loop_add_child(l, pid, on_end, &status);
	cr_assert_eq(process_wait(pid, NULL), 0);
	cr_assert_eq(loop_run_children(l, WAIT_MS), 0);
	cr_assert(WIFSIGNALED(status));
	loop_free(l);
}

/* ---- what the child gets ---- */

Test(process, blocked_signals)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	cr_assert_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
	cr_assert_not(has_signal("SigBlk", SIGTERM, 0));
	cr_assert_not(has_signal("SigBlk", SIGUSR1, 0));
	cr_assert(has_signal("SigBlk", SIGTERM, PROCESS_COMMAND));
	cr_assert_not(has_signal("SigBlk", SIGUSR1, PROCESS_COMMAND));
	cr_assert_eq(run_sh("exit 3", PROCESS_COMMAND), 3 << 8);
}

Test(process, descriptors)
{
	int kept = open("/dev/null", O_RDONLY), ours = open("/dev/null", O_RDONLY | O_CLOEXEC);
	char *text = xasprintf(
		"for fd in %d %d; do [ -e /proc/self/fd/$fd ] && echo $fd; done; :", kept, ours);
	char *want = xasprintf("%d\n", kept);

	cr_assert_gt(kept, 2);
	expect_said(text, PROCESS_COMMAND, want);
	expect_said(text, 0, "");
	free(want);
	free(text);
	close(kept);
	close(ours);
}

static void name_of(int fd, char *ret, size_t size)
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret, size - 1);
	ret[n < 0 ? 0 : n] = '\0';
}

/* Descriptors whose numbers are each other's targets, and one that is closed. */
Test(process, descriptors_that_change_places)
{
	char *argv[] = {(char *)"sh", (char *)"-c",
			(char *)"exec >&4; readlink /proc/self/fd/0 /proc/self/fd/2 /proc/self/fd/3"
				"; readlink /proc/self/fd/1 || echo none",
			NULL};
	struct process p = {.argv = argv, .n_fds = 4, .flags = PROCESS_COMMAND};
	int a = open("/dev/zero", O_RDONLY), b = open("/dev/full", O_RDWR);
	int fds[2], saved = dup(2), status;
	char got[4096], null[64];
	ssize_t n;
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	cr_assert_gt(dup2(fds[1], 30), 2);
	cr_assert_eq(dup2(a, 0), 0);
	cr_assert_eq(dup2(b, 2), 2);
	cr_assert_eq(dup2(30, 4), 4);
	name_of(PROCESS_FD_NULL, null, sizeof(null));
	p.fds[0] = 2;
	p.fds[1] = 4;
	p.fds[2] = 0;
	p.fds[3] = PROCESS_FD_NULL;
	n = process_start(&p, &pid);
	dup2(saved, 2);
	cr_assert_eq(n, 0, "%s", err_text((int)n));
	cr_assert_eq(process_wait(pid, &status), 0);
	n = read(fds[0], got, sizeof(got) - 1);
	cr_assert_gt(n, 0);
	got[n] = '\0';
	cr_assert(str_starts(got, "/dev/full\n/dev/zero\n/dev/null\npipe:"), "got '%s'", got);
}

/* A number that is its own target stays as it is, and closed when it was. */
Test(process, closed_descriptors_stay_closed)
{
	char *argv[] = {(char *)"sh", (char *)"-c",
			(char *)"[ ! -e /proc/self/fd/0 ] || exit 9; exit 5", NULL};
	int status;
	pid_t pid;

	close(0);
	cr_assert_eq(start(argv, PROCESS_COMMAND, &pid), 0);
	cr_assert_eq(process_wait(pid, &status), 0);
	cr_assert_eq(status, 5 << 8);
	cr_assert_eq(start(argv, 0, &pid), 0);
	cr_assert_eq(process_wait(pid, &status), 0);
	cr_assert_eq(status, 5 << 8);
}

Test(process, pipes_above_the_standard_ones)
{
	int fds[2];

	close(0);
	cr_assert_eq(pipe_above_stdio(fds), 0);
	cr_assert_gt(fds[0], 2);
	cr_assert_gt(fds[1], 2);
	cr_assert_lt(fcntl(0, F_GETFD), 0);
	cr_assert_eq(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	cr_assert_eq(fcntl(fds[1], F_GETFD), FD_CLOEXEC);
}

Test(process, session)
{
	char *own = xasprintf("%d\n", (int)getsid(0));

	/* Of /proc/PID/stat, the sixth field is the session. */
	expect_said("[ $(cut -d ' ' -f 6 /proc/$$/stat) = $$ ] && echo own", PROCESS_SESSION,
		    "own\n");
	expect_said("cut -d ' ' -f 6 /proc/$$/stat", 0, own);
	free(own);
}

/* Its parent is init, or whoever is that for us: none that has to reap it. */
Test(process, detached)
{
	char path[] = "/tmp/concc-test-XXXXXX";
	int fd = mkstemp(path), fds[2];
	char *text = xasprintf("cut -d ' ' -f 4 /proc/$$/stat >%s", path);
	char *argv[] = {(char *)"sh", (char *)"-c", text, NULL};
	struct process p = {.argv = argv, .n_fds = 4, .flags = PROCESS_DETACHED};
	char got[32] = "";

	/* The pipe's end tells the process's. */
	cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
	for (int i = 0; i < 3; i++)
		p.fds[i] = PROCESS_FD_NULL;
	p.fds[3] = fds[1];
	cr_assert_eq(process_start(&p, NULL), 0);
	close(fds[1]);
	cr_assert_not(has_children());
	cr_assert_eq(read(fds[0], got, 1), 0);
	cr_assert_gt(read(fd, got, sizeof(got) - 1), 0);
	cr_assert_neq(atoi(got), getpid());
	unlink(path);
	free(text);
}

static int fail_with(void *data)
{
	return *(int *)data;
}

static int set_mask(void *data)
{
	umask(*(mode_t *)data);
	return 0;
}

Test(process, prepare)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)"[ $(umask) = 0027 ]", NULL};
	struct process p = {.argv = argv, .fds = {0, 1, 2}, .n_fds = 3};
	int err = CONCC_E_UNSAFE, status;
	mode_t mask = 027, own = umask(022);
	pid_t pid;

	p.prepare = fail_with;
	p.data = &err;
	cr_assert_eq(process_start(&p, &pid), CONCC_E_UNSAFE);
	cr_assert_not(has_children());
	p.prepare = set_mask;
	p.data = &mask;
	cr_assert_eq(process_start(&p, &pid), 0);
	cr_assert_eq(process_wait(pid, &status), 0);
	cr_assert_eq(status, 0);
	cr_assert_eq(umask(own), 022);
}

/* By the name that it was called by, as a shell would. */
Test(process, script_without_an_interpreter)
{
	char dir[] = "/tmp/concc-test-XXXXXX";
	char *path, *argv[] = {(char *)"./script", (char *)"x", NULL};
	struct process p = {.argv = argv, .fds = {0, PROCESS_FD_KEPT, 2}, .n_fds = 3};
	struct buf out = BUF_INIT;
	FILE *f;

	cr_assert_not_null(mkdtemp(dir));
	path = path_join(dir, "script");
	f = fopen(path, "w");
	fputs("echo $0 $1\n", f);
	fclose(f);
	cr_assert_eq(chmod(path, 0755), 0);
	cr_assert_eq(chdir(dir), 0);
	p.exe = path;
	cr_assert_eq(process_capture(&p, 100, now_ms() + WAIT_MS, -1, &out, NULL), 0);
	cr_assert_str_eq(buf_cstr(&out), "./script x\n");
	unlink(path);
	rmdir(dir);
	free(path);
	buf_release(&out);
}

Test(process, environment)
{
	char *argv[] = {(char *)"env", NULL}, *env[] = {(char *)"A=b", NULL};
	struct process p = {.argv = argv, .env = env, .fds = {0, PROCESS_FD_KEPT, 2}, .n_fds = 3};
	struct buf out = BUF_INIT;

	cr_assert_eq(process_capture(&p, 100, now_ms() + WAIT_MS, -1, &out, NULL), 0);
	cr_assert_str_eq(buf_cstr(&out), "A=b\n");
	buf_release(&out);
}

/* ---- running to the end ---- */

static int capture(const char *text, size_t max, uint64_t deadline_ms, int cancel_fd)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)text, NULL};
	struct process p = {.argv = argv,
			    .fds = {PROCESS_FD_NULL, PROCESS_FD_KEPT, PROCESS_FD_NULL},
			    .n_fds = 3,
			    .flags = PROCESS_SESSION};
	struct buf out = BUF_INIT;
	int r = process_capture(&p, max, deadline_ms, cancel_fd, &out, NULL);

	buf_release(&out);
	return r;
}

Test(process, capture_has_ends)
{
	int fds = count_fds(), cancel[2];

	cr_assert_eq(pipe2(cancel, O_CLOEXEC), 0);
	cr_assert_eq(write(cancel[1], "x", 1), 1);
	cr_assert_eq(capture("cat /dev/zero", 10000, now_ms() + WAIT_MS, -1), CONCC_E_TOOBIG);
	cr_assert_eq(capture("sleep 1000", 100, now_ms(), -1), CONCC_E_TIMEOUT);
	cr_assert_eq(capture("sleep 1000 & wait", 100, now_ms() + WAIT_MS, cancel[0]), -ECANCELED);
	cr_assert_not(has_children());
	close(cancel[0]);
	close(cancel[1]);
	cr_assert_eq(count_fds(), fds);
}
