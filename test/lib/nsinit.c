/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * nsinit [--report] CMD...: runs CMD as a host of its own: new mount, network,
 * pid, UTS and IPC namespaces, with a fresh /proc and the loopback up.
 *
 * The process itself stays outside, passes SIGTERM, SIGINT and SIGHUP on as the
 * end of everything inside, and exits with CMD's status.  Pid 1 inside reaps
 * orphans; when CMD has ended it ends too, and the kernel takes all that is
 * left along.  With --report what was left is listed first, and makes the exit
 * status 99 when it would have been 0.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_LEFTOVERS 99

static pid_t inner;

static void end_all(int signo)
{
	(void)signo;
	kill(inner, SIGKILL);
}

static void fail(const char *what)
{
	fprintf(stderr, "nsinit: %s: %s\n", what, strerror(errno));
	exit(125);
}

static void loopback_up(void)
{
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (s < 0 || ioctl(s, SIOCSIFFLAGS, &r) < 0)
		fail("can't bring the loopback up");
	close(s);
}

/* False when it has ended: pid 1 has not seen that yet, and there are no words of it any more. */
static bool print_process(const char *pid)
{
	char path[64], text[512];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%.20s/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	if (n <= 0)
		return false;
	for (ssize_t i = 0; i < n; i++) {
		if (!isprint((unsigned char)text[i]))
			text[i] = ' ';
	}
	text[n] = 0;
	fprintf(stderr, "left running: %s %s\n", pid, text);
	return true;
}

static unsigned report_leftovers(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	unsigned n = 0;

	if (!d)
		fail("/proc");
	while ((e = readdir(d))) {
		if (!isdigit((unsigned char)e->d_name[0]) || atoi(e->d_name) == 1)
			continue;
		n += print_process(e->d_name);
	}
	closedir(d);
	return n;
}

static int status_of(int wait_status)
{
	return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

/* Pid 1 inside. */
static int run_inside(bool report, char **cmd)
{
	int st, status = 0;
	pid_t main_pid, pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		fail("can't mount /proc");
	loopback_up();
	main_pid = fork();
	if (main_pid < 0)
		fail("fork");
	if (main_pid == 0) {
		execvp(cmd[0], cmd);
		fail(cmd[0]);
	}
	while ((pid = wait(&st)) != main_pid || (!WIFEXITED(st) && !WIFSIGNALED(st))) {
		if (pid < 0 && errno != EINTR)
			fail("wait");
	}
	status = status_of(st);
	if (report && report_leftovers() > 0 && status == 0)
		status = EXIT_LEFTOVERS;
	return status;
}

int main(int argc, char **argv)
{
	static const int passed[] = {SIGTERM, SIGINT, SIGHUP};
	bool report = argc > 1 && strcmp(argv[1], "--report") == 0;
	char **cmd = argv + 1 + report;
	sigset_t set, old;
	int st;

	if (!cmd[0]) {
		fprintf(stderr, "usage: nsinit [--report] CMD...\n");
		return 125;
	}
	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC) < 0)
		fail("unshare");
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++)
		sigaddset(&set, passed[i]);
	sigprocmask(SIG_BLOCK, &set, &old);
	inner = fork();
	if (inner < 0)
		fail("fork");
	if (inner == 0) {
		sigprocmask(SIG_SETMASK, &old, NULL);
		return run_inside(report, cmd);
	}
	for (size_t i = 0; i < sizeof(passed) / sizeof(*passed); i++)
		signal(passed[i], end_all);
	sigprocmask(SIG_SETMASK, &old, NULL);
	while (waitpid(inner, &st, 0) < 0) {
		if (errno != EINTR)
			fail("waitpid");
	}
	return status_of(st);
}
