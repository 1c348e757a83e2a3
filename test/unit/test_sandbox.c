/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The sandbox and the launcher, with real namespaces, mounts and processes.
 * Each test body runs in a forked child, which is an agent: single-threaded,
 * as root or as an unprivileged user.  A plain directory stands in for the
 * mirror's mount.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/caller.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/loop.h"
#include "concc/mirror.h"
#include "concc/str.h"
#include "worker/home.h"
#include "worker/leftover.h"
#include "sandbox/mnt.h"
#include "sandbox/refusal.h"
#include "concc/sandbox.h"
#include "../lib/check.h"

#define USER	    1001 /* the unprivileged worker user */
#define CLIENT	    4242 /* the client's, with another id */
#define DEADLINE_MS 60000

struct agent;

struct result {
	struct agent *agent;
	uint32_t id;
	struct buf out, err;
	int out_fd, err_fd; /* read ends, -1 at EOF */
	struct loop_source *out_source, *err_source;
	int uppers[8], tmp_fd;
	size_t n_uppers;
	bool ended;
	struct job_end end;
	char *trace; /* a line for each name, or "void: WHY"; NULL: none */
};

struct agent {
	uid_t uid;
	char dir[64], mirror[80];
	struct loop *loop;
	struct launcher *launcher;
	struct result *jobs[512];
	size_t n_running;
	bool lost;
	int lost_status;
	const char *umask_text;
	struct caller caller; /* of the next jobs, and their program's path, when not argv[0] */
	const char *path;
	char *beyond; /* what the last one was ended for */
	char *locked; /* paths that were, to be read */
	bool traces;  /* the next jobs */
};

static void on_prepared(void *data, uint32_t id, int *fds, size_t n, int tmp_fd)
{
	struct agent *a = data;
	struct result *r = a->jobs[id];

	memcpy(r->uppers, fds, n * sizeof(*fds));
	r->n_uppers = n;
	r->tmp_fd = tmp_fd;
}

static void check_done(struct result *r)
{
	if (r->ended && r->out_fd < 0 && r->err_fd < 0 && --r->agent->n_running == 0)
		loop_quit(r->agent->loop);
}

static char *read_trace(int fd)
{
	struct buf b = BUF_INIT;
	struct stat st;
	size_t n;
	char *text;

	CHECK(fstat(fd, &st) == 0 && st.st_size > 0);
	n = (size_t)st.st_size;
	CHECK(pread(fd, buf_grow(&b, n), n, 0) == (ssize_t)n && !b.data[n - 1]);
	if (b.data[0])
		return xasprintf("void: %s", (char *)b.data);
	for (size_t i = 0; i < n; i++)
		if (!b.data[i])
			b.data[i] = '\n';
	text = xstrdup(buf_cstr(&b));
	buf_release(&b);
	return text;
}

static void on_ended(void *data, uint32_t id, const struct job_end *end)
{
	struct agent *a = data;

	CHECK(!a->jobs[id]->ended);
	if (end->trace_fd >= 0)
		a->jobs[id]->trace = read_trace(end->trace_fd);
	a->jobs[id]->ended = true;
	a->jobs[id]->end = *end;
	check_done(a->jobs[id]);
}

static void on_beyond(void *data, uint32_t id, const char *text)
{
	struct agent *a = data;

	free(a->beyond);
	a->beyond = xstrdup(text);
	launcher_kill(a->launcher, id, SIGKILL);
}

static void on_look(void *data, uint32_t id, enum launch_look how, size_t workspace,
		    const char *path)
{
	struct agent *a = data;
	char *before = steal_ptr(&a->locked);

	(void)id;
	CHECK(workspace == 0);
	a->locked = xasprintf("%s%s ", before ? before : "", path);
	free(before);
}

static void on_lost(void *data, int wait_status)
{
	struct agent *a = data;

	a->lost = true;
	a->lost_status = wait_status;
	loop_quit(a->loop);
}

static const struct launcher_ops ops = {
	.prepared = on_prepared,
	.beyond = on_beyond,
	.looks = on_look,
	.ended = on_ended,
	.lost = on_lost,
};

static void drain(struct result *r, struct buf *b, int *fd, struct loop_source **source)
{
	ssize_t n = read(*fd, buf_grow(b, 65536), 65536);

	b->len -= 65536 - (size_t)(n < 0 ? 0 : n);
	if (n > 0)
		return;
	loop_remove(*source);
	close(*fd);
	*fd = -1;
	check_done(r);
}

static void on_out(void *data, uint32_t events)
{
	struct result *r = data;

	drain(r, &r->out, &r->out_fd, &r->out_source);
}

static void on_err(void *data, uint32_t events)
{
	struct result *r = data;

	drain(r, &r->err, &r->err_fd, &r->err_source);
}

static void on_deadline(void *data)
{
	fprintf(stderr, "no end of it after %d ms\n", DEADLINE_MS);
	exit(3);
}

static void loop_until_quit(struct agent *a)
{
	struct loop_source *t = loop_add_timer(a->loop, DEADLINE_MS, on_deadline, NULL);

	CHECK(loop_run(a->loop) == 0);
	loop_remove(t);
}

static char *default_env[] = {(char *)"PATH=/usr/bin:/bin", NULL};

/* Starts a job; stdin_fd -1: /dev/null. */
static struct result *start_job(struct agent *a, uint32_t id, char *const *workspaces,
				const char *cwd, char *const *argv, char *const *env, int stdin_fd)
{
	struct result *r = xcalloc(1, sizeof(*r));
	int out[2], err[2], null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct launch j = {.job_id = id,
			   .exe = argv[0],
			   .path = a->path ? a->path : argv[0],
			   .argv = argv,
			   .env = env ? env : default_env,
			   .cwd = cwd,
			   .workspaces = workspaces,
			   .umask = 027,
			   .trace = a->traces,
			   .caller = a->caller,
			   .stdin_fd = stdin_fd < 0 ? null : stdin_fd};

	CHECK(null >= 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0);
	j.stdout_fd = out[1];
	j.stderr_fd = err[1];
	*r = (struct result){
		.agent = a, .id = id, .out_fd = out[0], .err_fd = err[0], .tmp_fd = -1};
	a->jobs[id] = r;
	a->n_running++;
	r->out_source = loop_add_fd(a->loop, out[0], LOOP_READ, on_out, r);
	r->err_source = loop_add_fd(a->loop, err[0], LOOP_READ, on_err, r);
	CHECK(launcher_run(a->launcher, &j) == 0);
	close(out[1]);
	close(err[1]);
	close(null);
	return r;
}

static struct result *run_in(struct agent *a, const char *workspace, const char *script)
{
	static uint32_t id;
	char *workspaces[] = {(char *)workspace, NULL};
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};
	struct result *r = start_job(a, ++id, workspaces, workspace, argv, NULL, -1);

	loop_until_quit(a);
	return r;
}

#define WS "/home/client/proj"

static struct result *run(struct agent *a, const char *script)
{
	return run_in(a, WS, script);
}

static const char *out_of(struct result *r)
{
	return buf_cstr(&r->out);
}

static void check_exit(struct result *r, int code)
{
	CHECK(r->end.started, "%s", r->end.text);
	CHECK(WIFEXITED(r->end.wait_status) && WEXITSTATUS(r->end.wait_status) == code,
	      "status %x: %s%s", r->end.wait_status, out_of(r), buf_cstr(&r->err));
}

static void check_out(struct result *r, const char *want)
{
	check_exit(r, 0);
	CHECK(streq(out_of(r), want), "got \"%s\"%s", out_of(r), buf_cstr(&r->err));
}

/* ---- an agent ---- */

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", path);
}

static void add_workspace(struct agent *a, const char *path)
{
	char full[PATH_MAX];

	snprintf(full, sizeof(full), "%s%s", a->mirror, path);
	CHECK(path_mkdirs(full, 0755) == 0, "%s", full);
	CHECK(chown(full, a->uid, a->uid) == 0);
}

static void make_mirror(struct agent *a)
{
	char path[256];

	add_workspace(a, WS);
	snprintf(path, sizeof(path), "%s" WS, a->mirror);
	CHECK(chdir(path) == 0);
	write_file("a.c", "int a;\n");
	write_file("b.c", "int b;\n");
	CHECK(mkdir("dir", 0755) == 0);
	write_file("dir/x", "x\n");
	snprintf(path, sizeof(path), "chown -R %u:%u .", (unsigned)a->uid, (unsigned)a->uid);
	CHECK(system(path) == 0);
	CHECK(chdir("/") == 0);
	CHECK(a->uid != 0 || sandbox_give(a->dir) == 0);
}

/* On a machine without udev /dev/fuse is root's only: the user gets a node of its own. */
static void become_user(struct agent *a)
{
	char node[80];

	if (a->uid == 0)
		return;
	CHECK(unshare(CLONE_NEWNS) == 0);
	CHECK(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) == 0);
	snprintf(node, sizeof(node), "%s/fuse", a->dir);
	CHECK(mknod(node, S_IFCHR | 0600, makedev(10, 229)) == 0 && chmod(node, 0666) == 0);
	CHECK(mount(node, "/dev/fuse", NULL, MS_BIND, NULL) == 0, "no /dev/fuse");
	CHECK(setresgid(a->uid, a->uid, a->uid) == 0 && setresuid(a->uid, a->uid, a->uid) == 0);
	/* An exec would do this; without one, /proc/self stays root's. */
	CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
}

static struct sandbox_config config = {.uid = CLIENT, .gid = CLIENT + 1, .host = "client-host"};

static void start_launcher(struct agent *a)
{
	struct errmsg msg = {""};

	caller_read(&a->caller);
	a->caller.ignored = a->caller.blocked = 0; /* whoever runs this test */
	CHECK(loop_new(&a->loop) == 0);
	CHECK(launcher_start(a->loop, &config, a->mirror, &ops, a, &a->launcher, &msg) == 0, "%s",
	      msg.text);
}

static void start_agent(struct agent *a)
{
	struct sandbox_paths paths;
	struct errmsg msg = {""};

	make_mirror(a);
	become_user(a);
	CHECK(sandbox_enter(&config, &paths, &msg) == 0, "%s", msg.text);
	CHECK(access(paths.mirror, X_OK) == 0, "%s", paths.mirror);
	start_launcher(a);
}

/* Runs body in a child and checks that it, and with it all it started, ended well. */
static void with_agent(uid_t uid, void (*body)(struct agent *a))
{
	struct agent a = {.uid = uid, .dir = "/tmp/concc-sandbox-XXXXXX"};
	char cmd[128];
	int status;
	pid_t pid;

	cr_assert(mkdtemp(a.dir));
	cr_assert(chmod(a.dir, 0755) == 0 && chown(a.dir, uid, uid) == 0);
	snprintf(a.mirror, sizeof(a.mirror), "%s/mirror", a.dir);
	setenv("CONCC_CACHE_DIR", a.dir, 1);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		body(&a);
		launcher_stop(a.launcher);
		exit(0);
	}
	cr_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", a.dir);
	cr_assert(system(cmd) == 0);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "agent ended with %x", status);
}

/* Defines the test twice: for a worker that is root, and for one that is an ordinary user. */
#define TEST_BOTH(name)                                                                            \
	static void name(struct agent *a);                                                         \
	Test(sandbox, name##_root)                                                                 \
	{                                                                                          \
		with_agent(0, name);                                                               \
	}                                                                                          \
	Test(sandbox, name##_user)                                                                 \
	{                                                                                          \
		with_agent(USER, name);                                                            \
	}                                                                                          \
	static void name(struct agent *a)

/* How many processes have the marker in their environment, as seen from this pid namespace. */
static int count_marked(const char *marker)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while ((e = readdir(d))) {
		struct buf b = BUF_INIT;
		char path[300];

		snprintf(path, sizeof(path), "/proc/%s/environ", e->d_name);
		if (e->d_name[0] >= '0' && e->d_name[0] <= '9' &&
		    read_file_at(AT_FDCWD, path, 1 << 20, &b) == 0 &&
		    memmem(b.data, b.len, marker, strlen(marker)))
			n++;
		buf_release(&b);
	}
	closedir(d);
	return n;
}

/* ---- what a job is ---- */

TEST_BOTH(exit_status)
{
	struct result *r;

	start_agent(a);
	check_exit(run(a, "exit 0"), 0);
	check_exit(run(a, "exit 42"), 42);
	check_exit(run(a, "exec no-such-command"), 127);
	r = run(a, "kill -SEGV $$");
	CHECK(r->end.started && WIFSIGNALED(r->end.wait_status) &&
	      WTERMSIG(r->end.wait_status) == SIGSEGV);
	r = run(a, "kill -KILL $$");
	CHECK(WIFSIGNALED(r->end.wait_status) && WTERMSIG(r->end.wait_status) == SIGKILL);
	r = run(a, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
	check_exit(r, 0);
	CHECK(r->end.rusage.ru_utime.tv_sec * 1000000 + r->end.rusage.ru_utime.tv_usec > 0);
	CHECK(r->end.wall_us > 0);
}

TEST_BOTH(not_started)
{
	char *ws[] = {(char *)WS, NULL};
	char *missing[] = {(char *)"/no/such/compiler", NULL};
	char *plain[] = {(char *)WS "/a.c", NULL};
	char *sh[] = {(char *)"/bin/sh", NULL};
	char *bad_ws[] = {(char *)"/home/client/none", NULL};
	char *proc_ws[] = {(char *)"/proc/self", NULL};
	struct result *r;

	start_agent(a);
	r = start_job(a, 1, ws, WS, missing, NULL, -1);
	loop_until_quit(a);
	CHECK(!r->end.started && r->end.err == -ENOENT);
	CHECK(strstr(r->end.text, "/no/such/compiler"), "%s", r->end.text);
	r = start_job(a, 2, ws, WS, plain, NULL, -1);
	loop_until_quit(a);
	CHECK(!r->end.started && r->end.err == -EACCES, "%d", r->end.err);
	r = start_job(a, 3, ws, WS "/none", sh, NULL, -1);
	loop_until_quit(a);
	CHECK(!r->end.started && r->end.err == -ENOENT && strstr(r->end.text, WS "/none"));
	r = start_job(a, 4, bad_ws, "/", sh, NULL, -1);
	loop_until_quit(a);
	CHECK(!r->end.started && r->end.err == -ENOENT && strstr(r->end.text, "mirror"));
	r = start_job(a, 5, proc_ws, "/", sh, NULL, -1);
	loop_until_quit(a);
	CHECK(!r->end.started && r->end.err == -EINVAL);
	check_exit(run(a, "exit 0"), 0);
}

TEST_BOTH(what_it_sees)
{
	char *argv[] = {(char *)"/bin/cat", NULL};
	char *ws[] = {(char *)WS, NULL};
	struct result *r;
	int in[2];

	start_agent(a);
	check_out(run(a, "umask; pwd; id -u; id -g; uname -n; echo $0 $PATH"),
		  "0027\n" WS "\n4242\n4243\nclient-host\n/bin/sh /usr/bin:/bin\n");
	check_out(run(a, "stat -c '%u %g %a' . a.c"), "4242 4243 755\n4242 4243 644\n");
	r = run(a, "echo out; echo err >&2; echo out");
	check_out(r, "out\nout\n");
	CHECK(streq(buf_cstr(&r->err), "err\n"));
	check_out(run(a, "cd /proc/self/fd && ls"), "0\n1\n2\n");
	check_out(run(a, "grep -E '^(SigBlk|SigIgn)' /proc/self/status | tr -d '[:space:]0'"),
		  "SigBlk:SigIgn:");
	/* One at a time: of a pipeline, the first may look before there is a second. */
	check_out(run(a, "ps -o pid=,comm= -e 2>/dev/null >list; wc -l <list; "
			 "set -- /proc/[0-9]*; echo $#"),
		  "3\n2\n"); /* init, sh and ps; then without */
	CHECK(pipe2(in, O_CLOEXEC) == 0 && write_full(in[1], "from stdin", 10) == 0);
	close(in[1]);
	r = start_job(a, 400, ws, WS, argv, NULL, in[0]);
	loop_until_quit(a);
	check_out(r, "from stdin");
}

TEST_BOTH(what_it_does_not_see)
{
	struct result *r;

	start_agent(a);
	check_out(
		run(a, "ls -A /tmp /var/tmp /root /run /sys /mnt | grep -v :; ls -A /home /home/*"),
		"\n\n\n\n\n/home:\nclient\n\n/home/client:\nproj\n");
	check_out(run(a, "cut -d: -f1 -s /proc/net/dev | tr -d ' '"), "lo\n");
	check_out(
		run(a, "grep -c 127.0.0.1 /proc/net/fib_trie | grep -v '^0' >/dev/null && echo up"),
		"up\n");
	check_out(run(a, "ls /dev | tr '\\n' ' '; echo x >/dev/null; head -c 3 /dev/zero | wc -c"),
		  "fd full null random shm stderr stdin stdout tty urandom zero 3\n");
	r = run(a,
		"for d in / /usr /etc /dev /home /home/client /opt /run; do "
		"touch $d/.concc-test 2>&1 | grep -c 'Read-only'; done | sort | uniq -c | tr -d ' '");
	check_out(r, "81\n");
	check_exit(run(a, "mount -t tmpfs x /opt 2>/dev/null || umount /tmp 2>/dev/null || exit 9"),
		   9);
	check_exit(run(a, "cat /proc/1/environ >/dev/null 2>&1 || exit 9"), 9);
}

TEST_BOTH(privileges)
{
	start_agent(a);
	check_out(run(a, "grep -E '^(Cap(Prm|Eff|Amb)|NoNew)' /proc/self/status"),
		  "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
		  "CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n");
}

TEST_BOTH(privileges_of_a_client_root)
{
	config.uid = config.gid = 0;
	start_agent(a);
	/* CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7 */
	check_out(run(a, "id -u; grep -E '^Cap(Eff|Bnd)' /proc/self/status; "
			 "umask 0777; echo x >m; cat m"),
		  "0\nCapEff:\t00000000000000fb\nCapBnd:\t00000000000000fb\nx\n");
}

TEST_BOTH(many_arguments)
{
	char *ws[] = {(char *)WS, NULL};
	size_t n = 20000;
	char **argv = xcalloc(n + 4, sizeof(*argv));
	struct result *r;

	argv[0] = (char *)"/bin/sh";
	argv[1] = (char *)"-c";
	argv[2] = (char *)"echo $#; shift 19999; echo \"$1\"";
	for (size_t i = 0; i <= n - 1; i++)
		argv[3 + i] = xasprintf("argument number %zu, \n of some length", i);
	start_agent(a);
	r = start_job(a, 1, ws, WS, argv, NULL, -1);
	loop_until_quit(a);
	check_exit(r, 0);
	CHECK(str_starts(out_of(r), "19999\n"), "%.40s", out_of(r));
	for (size_t i = 0; i <= n - 1; i++)
		free(argv[3 + i]);
	free(argv);
}

/* ---- by what name, and with what of its caller ---- */

static struct result *run_path(struct agent *a, const char *path, const char *exe)
{
	char *ws[] = {(char *)WS, NULL};
	char *argv[] = {(char *)exe, (char *)"word", NULL};
	static uint32_t id = 300;
	struct result *r;

	a->path = path;
	r = start_job(a, ++id, ws, WS "/dir", argv, NULL, -1);
	a->path = NULL;
	loop_until_quit(a);
	return r;
}

static void check_paths(struct agent *a)
{
	struct result *r;

	check_out(run_path(a, WS "/dir/me", WS "/dir/me"), WS "/dir/me word\n");
	check_out(run_path(a, "me", WS "/dir/me"), "me word\n");
	check_out(run_path(a, "./me", WS "/dir/me"), "./me word\n");
	check_out(run_path(a, "../dir/me", WS "/dir/me"), "../dir/me word\n");
	/* No "#!": as execvp(3) does it. */
	check_out(run_path(a, "./bare", WS "/dir/bare"), "./bare word 1\n");
	/* To another file than on the client, or to none. */
	r = run_path(a, "../away/true", WS "/dir/me");
	CHECK(!r->end.started && strstr(r->end.text, "finds another file"), "%s", r->end.text);
	r = run_path(a, "../away/../me", WS "/dir/me");
	CHECK(!r->end.started && r->end.err == -ENOENT, "%s", r->end.text);
}

TEST_BOTH(called_by_path)
{
	start_agent(a);
	check_exit(run(a, "echo"), 0);
	/* A plain directory stands in for the mirror: what is written there is there for all. */
	CHECK(chdir(a->mirror) == 0 && chdir(WS + 1) == 0);
	write_file("dir/me", "#!/bin/sh\necho \"$0 $1\"\n");
	write_file("dir/bare", "echo \"$0 $1 $#\"\n");
	CHECK(chmod("dir/me", 0755) == 0 && chmod("dir/bare", 0755) == 0);
	CHECK(symlink("/usr/bin", "away") == 0 && chdir("/") == 0);
	check_paths(a);
	/* It is another process then that executes it. */
	a->traces = true;
	check_paths(a);
}

TEST_BOTH(limits_of_its_caller)
{
	struct result *r;
	char want[64];

	start_agent(a);
	a->caller.limits[CALLER_FSIZE] = (struct caller_limit){1024, 4096};
	a->caller.limits[CALLER_NOFILE] = (struct caller_limit){50, 60};
	a->caller.limits[CALLER_CPU] = (struct caller_limit){100, 200};
	/* This test may be nice itself, and nobody is less than that again. */
	a->caller.nice = a->caller.nice > 8 ? 19 : a->caller.nice + 11;
	a->caller.ignored = 1ull << (SIGTERM - 1);
	a->caller.blocked = 1ull << (SIGUSR1 - 1);
	snprintf(want, sizeof(want), "2\n8\n50\n60\n100\n200\n%d\non\n", a->caller.nice);
	check_out(run(a, "ulimit -S -f; ulimit -H -f; ulimit -S -n; ulimit -H -n; ulimit -S -t; "
			 "ulimit -H -t; nice; kill -TERM $$; echo on"),
		  want);
	r = run(a, "exec head -c 2000 /dev/zero >big");
	CHECK(WIFSIGNALED(r->end.wait_status) && WTERMSIG(r->end.wait_status) == SIGXFSZ);
	/* `job-memory` is on top. */
	a->caller.limits[CALLER_DATA].soft = a->caller.limits[CALLER_DATA].hard = 1 << 30;
	check_out(run(a, "ulimit -d"), "1048576\n");
}

/* ---- the filter ---- */

/* The job is ended for it, with a word that has this in it; NULL: it goes on. */
static void check_beyond(struct agent *a, const char *script, const char *word)
{
	struct result *r;

	free(steal_ptr(&a->beyond));
	r = run(a, script);
	if (word) {
		CHECK(a->beyond && strstr(a->beyond, word), "%s: %s", script,
		      a->beyond ? a->beyond : "nothing was told");
		CHECK(WIFSIGNALED(r->end.wait_status) && WTERMSIG(r->end.wait_status) == SIGKILL);
	} else {
		CHECK(!a->beyond, "%s: %s", script, a->beyond);
		check_exit(r, 0);
	}
}

static void check_filter(struct agent *a)
{
	check_beyond(a, "chown 4242 a.c; chown 4242:4243 a.c; chgrp 4243 a.c; chown -h 4242 a.c",
		     NULL);
	check_beyond(a, "touch n; cp -p n m; cp -a n o; mkfifo p; install -m 600 n q", NULL);
	check_beyond(a, "chown 7 a.c || true; echo went on", "another user");
	check_beyond(a, "chgrp 7 a.c", "another user");
	check_beyond(a, "chown -h 0 a.c", "another user");
	check_beyond(a, "(chown 7 a.c &) ; sleep 20", "another user");
	check_beyond(a, "chattr +d a.c", "chattr");
	/* What fails for such a user on the client, too. */
	check_beyond(a,
		     "mount -t tmpfs x dir 2>/dev/null || /usr/sbin/chroot dir true 2>/dev/null || "
		     "unshare -m true 2>/dev/null || hostname x 2>/dev/null || true",
		     NULL);
	check_beyond(a, "unshare -U true || true", "user namespace");
	check_beyond(a, "unshare -r true || true", "user namespace");
	check_beyond(a,
		     "sleep 20 & kill -0 $! && kill -9 $!; wait; kill -0 $! || kill -0 $PPID && "
		     "setsid -w sh -c 'trap : TERM; kill 0; kill -- -$$'; kill -CONT $$",
		     NULL);
	check_beyond(a, "kill -KILL 1", "signals a process");
	check_beyond(a, "kill -TERM $PPID || true", "signals a process");
	check_beyond(a, "kill -0 200 || true", "signals a process");
	check_beyond(a, "kill -CONT 0", "signals a process");
	check_beyond(a, "kill -CONT -1", "signals a process");
}

/* The same is told of when all else is, too. */
TEST_BOTH(filter)
{
	start_agent(a);
	check_filter(a);
	a->traces = true;
	check_filter(a);
}

static void check_filter_of_root(struct agent *a)
{
	check_beyond(a, "chown 0:0 a.c; setpriv --reuid 0 true; nice -n 3 true; umask 0; touch n",
		     NULL);
	check_beyond(a, "chown 1 a.c", "another user");
	check_beyond(a, "mknod c c 1 3", "device");
	check_beyond(a, "mknod b b 1 3", "device");
	check_beyond(a, "mount -t tmpfs x dir", "mounts");
	check_beyond(a, "umount /tmp", "mounts");
	check_beyond(a, "/usr/sbin/chroot dir true", "mounts");
	check_beyond(a, "unshare -m true", "namespaces");
	check_beyond(a, "setpriv --reuid 1 true", "becomes");
	check_beyond(a, "setpriv --regid 1 --clear-groups true", "becomes");
	check_beyond(a, "nice -n -1 true", "priority");
	check_beyond(a, "nice -n 10 nice -n 30 true", NULL);
	check_beyond(a, "nice -n 10 nice -n -1 true", "priority");
	check_beyond(a, "hostname x", "system");
}

TEST_BOTH(filter_of_a_client_root)
{
	config.uid = config.gid = 0;
	start_agent(a);
	check_filter_of_root(a);
	a->traces = true;
	check_filter_of_root(a);
}

/* Names of what the job has made, and of files. */
static const char *const moves_as_here[] = {
	"echo x >n; ln n m; ln ./m dir/m; mv n o; mv o dir/o; test m -ef dir/o",
	"mv a.c moved.c; mv b.c a.c; mv -f moved.c a.c; test ! -e b.c",
	"mkdir d; mv d e; mkdir -p e/s/t; mv e/s e/u; mv e/u .; mv u/t e; test -d e/t",
	"mkdir dir/d; echo x >dir/d/f; cd dir/d; mv f ../g; ln ../g h; cd ..; mv d ../d",
	"rm -r dir; mkdir -p dir/sub; mv dir other; mv other/sub .; test ! -e dir -a -d sub",
	"mkdir new; mv -T new dir/new; ln -s a.c link; mv link l; ln -s dir to; mv to dir/t",
	"ln nothing x 2>/dev/null || mv nothing x 2>/dev/null || ln dir x 2>/dev/null || true",
	"echo x >/tmp/x; ln /tmp/x /tmp/y",
	"echo x >/tmp/x; mv /tmp/x x",
	"mkdir /tmp/d; mv /tmp/d dir",
	"echo x >x; mv x /tmp",
	"python3 -c 'import os; f = os.open(\".\", os.O_TMPFILE | os.O_RDWR); "
	"os.link(\"/proc/self/fd/%d\" % f, \"x\", dst_dir_fd=os.open(\".\", 0))' || ! test -e x",
	"exec 5<dir; echo x >x; python3 -c 'import os; os.link(\"x\", \"y\", dst_dir_fd=5)'",
};

static const char *const moves_of_the_clients[] = {
	"ln a.c x",
	"ln $PWD/dir/../a.c $PWD/x",
	"cd dir; ln ../a.c x",
	"echo x >>a.c; ln a.c x",
	"mv a.c moved; ln moved x",
	"ln -s a.c s; ln -L s x",
	"ln -s dir s; mv s/../dir moved",
	"exec 5<dir; python3 -c 'import os; os.rename(\"../dir\", \"../d\", src_dir_fd=5, dst_dir_fd=5)'",
	"ln dir/x x",
	"mv dir moved",
	"mkdir x; mv dir x",
	"echo x >dir/new; rm dir/x; mv dir moved",
	"mv dir/ moved/",
	"perl -e 'rename(\"dir\", \"moved\") or print $!'",
	"perl -e 'link(\"a.c\", \"moved\") or print $!'",
	"ln /bin/true x",
	"(mkdir own; mv -T dir own &); sleep 20",
};

TEST_BOTH(names_of_the_clients)
{
	start_agent(a);
	for (size_t i = 0; i < sizeof(moves_as_here) / sizeof(moves_as_here[0]); i++)
		check_beyond(a, moves_as_here[i], NULL);
	for (size_t i = 0; i < sizeof(moves_of_the_clients) / sizeof(moves_of_the_clients[0]); i++)
		check_beyond(a, moves_of_the_clients[i], "client's");
	a->traces = true;
	check_beyond(a, "mv a.c moved; chmod 400 b.c; mv b.c a.c; mv moved b.c", NULL);
}

#define LOCK(file, how)                                                                            \
	"python3 -c 'import fcntl; fcntl.lockf(open(\"" file "\", \"r+\"), fcntl.LOCK_" how ")'; "

/* To read, and each is told of once; or what the job has made. */
static void check_locks(struct agent *a)
{
	free(steal_ptr(&a->locked));
	check_beyond(a, LOCK("a.c", "SH") LOCK("dir/x", "SH|fcntl.LOCK_NB") LOCK("a.c", "UN"),
		     NULL);
	CHECK(a->locked && streq(a->locked, "a.c dir/x "), "%s", a->locked);
	check_beyond(a, LOCK("a.c", "SH") LOCK("a.c", "EX"), "locks one of the client's files");
	check_beyond(a,
		     "python3 -c 'import fcntl, struct; fcntl.fcntl(open(\"a.c\"), fcntl.F_GETLK, "
		     "struct.pack(\"hhqqi\", fcntl.F_WRLCK, 0, 0, 0, 0))'",
		     "asks who does");
	check_beyond(a, "flock -s a.c true", "locks one of the client's files");
	free(steal_ptr(&a->locked));
	check_beyond(a, "echo x >new; flock new true; rm a.c; echo >a.c;" LOCK("a.c", "EX"), NULL);
	CHECK(!a->locked, "%s", a->locked);
}

TEST_BOTH(locks)
{
	start_agent(a);
	check_locks(a);
	a->traces = true;
	check_locks(a);
}

/* What a call by its number says. */
#define CALL(args) "perl -e 'print syscall(" args ") < 0 ? $!+0 : q(done), qq(\\n)'"

/* ---- what a job looks at ---- */

static void check_traced(struct agent *a, const char *script, const char *const *names)
{
	struct result *r = run(a, script);

	CHECK(r->end.started, "%s", r->end.text);
	CHECK(r->trace, "%s: no trace", script);
	for (; *names; names++) {
		_cleanup_free_ char *line = xasprintf("\n%s\n", *names);

		CHECK(strstr(r->trace, line), "%s: no %s in %s", script, *names, r->trace);
	}
}

static void check_void(struct agent *a, const char *script, const char *why)
{
	struct result *r = run(a, script);
	_cleanup_free_ char *want = xasprintf("void: %s", why);

	CHECK(r->trace && streq(r->trace, want), "%s: %s", script, r->trace ? r->trace : "none");
}

TEST_BOTH(trace)
{
	static const char *const simple[] = {"x/bin/sh", "x/usr/bin/cat", "r" WS "/a.c",
					     "r" WS "/nothing/x", NULL};
	static const char *const elsewhere[] = {"r" WS "/dir/x", "r" WS "/dir/../a.c",
						"s" WS "/dir", "s" WS "/dir/none", NULL};
	static const char *const made[] = {"w" WS "/new", "l" WS "/new", "w" WS "/more",
					   "r" WS "/more", NULL};
	static const char *const listed[] = {"d" WS "/dir", "k" WS "/a.c", NULL};
	static const char *const moved[] = {"l" WS "/n", "l" WS "/dir/m", NULL};
	struct result *r;

	start_agent(a);
	r = run(a, "true");
	CHECK(!r->trace, "nobody wanted it");
	a->traces = true;
	check_traced(a, "/usr/bin/cat a.c nothing/x", simple);
	check_traced(a, "cd dir; cat x ../a.c; test -e none", elsewhere);
	check_traced(a, ": >new; rm new; echo >>more", made);
	check_traced(a, "echo dir/*; readlink a.c", listed);
	check_traced(a, "echo x >n; perl -e 'rename q(n), q(dir/m)'", moved);
	/* It fails as without. */
	r = run(a, "exit 3");
	check_exit(r, 3);
	check_out(run(a, "echo a; cat a.c >/dev/null; echo b"), "a\nb\n");
}

TEST_BOTH(trace_is_void)
{
	start_agent(a);
	a->traces = true;
	check_void(a, "perl -e 'use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0)'", "socket");
	check_void(a, "stat -f a.c", "statfs");
#ifdef __x86_64__
	check_void(a, CALL("303, -100, my $p = q(a.c), my $h = q(x) x 200, my $m = q(x) x 8, 0"),
		   "handles");
	check_void(a, CALL("2, 1, 0"), "memory"); /* open(2) of no string */
#endif
	check_void(a, "perl -e 'mkdir q(gone); chdir q(gone); rmdir q(../gone); open(F, q(x))'",
		   "lost-directory");
}

/* Each job is told of by itself, and many at once. */
TEST_BOTH(filter_of_many)
{
	char *ws[] = {(char *)WS, NULL};
	struct result *r[20];

	start_agent(a);
	for (uint32_t i = 0; i < 20; i++) {
		const char *script = i % 2 ? "chown 7 a.c" : "sleep .2; echo fine";
		char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};

		r[i] = start_job(a, 100 + i, ws, WS, argv, NULL, -1);
	}
	loop_until_quit(a);
	for (uint32_t i = 0; i < 20; i++) {
		if (i % 2)
			CHECK(WIFSIGNALED(r[i]->end.wait_status), "%u: started %d, status %x: %s%s",
			      i, r[i]->end.started, r[i]->end.wait_status, r[i]->end.text,
			      buf_cstr(&r[i]->err));
		else
			check_out(r[i], "fine\n");
	}
}

/* Numbers of x86-64; elsewhere the table is checked by other means: none. */
static void check_refused(struct agent *a)
{
#ifdef __x86_64__
	static const struct {
		const char *call;
		int err;
	} calls[] = {
		{CALL("425, 1, my $x = q(x) x 200"), EPERM},		/* io_uring_setup */
		{CALL("323, 0"), EPERM},				/* userfaultfd */
		{CALL("323, 1"), EPERM},				/* of user mode only */
		{CALL("298, my $x = q(x) x 200, 0, -1, -1, 0"), EPERM}, /* perf_event_open */
		{CALL("248, my $x = q(user), my $y = q(k), my $z = q(v), 1, -4"),
		 EPERM},						    /* add_key */
		{CALL("249, my $x = q(user), my $y = q(k), 0, -4"), EPERM}, /* request_key */
		{CALL("250, 0, -3, 1"), EPERM},				    /* keyctl */
		{CALL("246, 0, 0, 0, 0"), EPERM},			    /* kexec_load */
		{CALL("103, 10, 0, 0"), EPERM}, /* syslog, which says how large it is */
		{CALL("435, my $x = q(x) x 200, 64"), ENOSYS}, /* clone3 */
		{CALL("41, 40, 1, 0"), EAFNOSUPPORT},	       /* socket: AF_VSOCK */
		{CALL("41, 38, 5, 0"), EAFNOSUPPORT},	       /* AF_ALG */
		{CALL("41, 17, 3, 0"), EPERM},		       /* AF_PACKET */
		{CALL("0x40000000 + 39"), ENOSYS},	       /* of x32: getpid */
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		struct result *r = run(a, calls[i].call);

		check_exit(r, 0);
		CHECK(atoi(out_of(r)) == calls[i].err, "%s: %s", calls[i].call, out_of(r));
	}
#endif
}

/* Where seccomp(2) is refused, as by a container's own filter, or a listener is there already. */
static void refuse_seccomp(bool listens)
{
	struct sock_filter refuse[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog all = {1, &refuse[3]}, some = {4, refuse};
	long r;

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		    listens ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0, listens ? &all : &some);
	CHECK(r >= 0);
}

TEST_BOTH(filter_refused)
{
	refuse_seccomp(false);
	start_agent(a);
	check_beyond(a, "chown 7 a.c || true; echo went on", NULL);
	check_refused(a);
}

TEST_BOTH(filter_beside_another)
{
	refuse_seccomp(true);
	start_agent(a);
	check_beyond(a, "chown 7 a.c || true; echo went on", NULL);
	check_refused(a);
	check_out(run(a, "! unshare -U true 2>/dev/null && echo no"), "no\n");
}

/* ---- the wall ---- */

TEST_BOTH(wall)
{
	start_agent(a);
	check_refused(a);
}

TEST_BOTH(wall_of_a_client_root)
{
	config.uid = config.gid = 0;
	start_agent(a);
	check_refused(a);
	check_beyond(a, "unshare -U true", "user namespace");
	check_beyond(a,
		     "python3 -c 'import ctypes; c = ctypes.CDLL(None); "
		     "c.capset((ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()); "
		     "c.unshare(0x10000000)'",
		     "user namespace");
	check_beyond(a, CALL("321, 0, 0, 0"), "system"); /* bpf: on the client it may succeed */
	check_beyond(a,
		     "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0);"
		     "connect(S, pack_sockaddr_in(7711, INADDR_LOOPBACK))'",
		     "network");
}

/* Threads, traced children and what looks for leaks by tracing its parent go on. */
TEST_BOTH(wall_lets_through)
{
	start_agent(a);
	check_out(
		run(a,
		    "perl -e '"
		    "use Socket; socket(my $s, AF_INET, SOCK_STREAM, 0) or die $!;"
		    "bind($s, pack_sockaddr_in(0, INADDR_LOOPBACK)) or die $!; listen($s, 1);"
		    "socket(my $c, AF_INET, SOCK_STREAM, 0) or die $!;"
		    "connect($c, getsockname($s)) or die $!; accept(my $b, $s) or die $!;"
		    "syswrite($c, qq(over lo\n)); sysread($b, my $t, 100); print $t;"
		    "if (!(my $p = fork)) { exec q(/bin/sleep), 100 } else {"
		    "syscall(101, 16, $p, 0, 0) == 0 or die $!; kill 9, $p; print qq(traced\n) }'"),
		"over lo\ntraced\n");
}

/* ---- alone ---- */

/* One makes things, says so, and keeps them until the other has looked. */
TEST_BOTH(alone)
{
	static const char make[] =
		"exec perl -MSocket -e '"
		"socket(my $t, AF_INET, SOCK_STREAM, 0) or die $!;"
		"bind($t, pack_sockaddr_in(7711, INADDR_LOOPBACK)) or die $!; listen($t, 9) or die $!;"
		"socket(my $u, AF_UNIX, SOCK_STREAM, 0) or die $!;"
		"bind($u, pack_sockaddr_un(qq(\\0concc-alone))) or die $!; listen($u, 9) or die $!;"
		"defined(shmget(4711, 99, 01666)) or die $!; defined(msgget(4711, 01666)) or die $!;"
		"defined(semget(4711, 1, 01666)) or die $!;"
		"syscall(240, my $n = qq(concc-alone\\0), 0102, 0666, 0) >= 0 or die $!;"
		"open(my $f, q(+<&=0)); syswrite($f, q(x)); sysread($f, my $b, 1)'";
	static const char look[] =
		"exec perl -MSocket -e 'open(my $f, q(+<&=0)); sysread($f, my $b, 1);"
		"socket(my $t, AF_INET, SOCK_STREAM, 0) or die $!;"
		/* To connect to what is not there is for the client. */
		"print qq(port\\n) if !bind($t, pack_sockaddr_in(7711, INADDR_LOOPBACK));"
		"socket(my $u, AF_UNIX, SOCK_STREAM, 0) or die $!;"
		"print qq(name\\n) if !bind($u, pack_sockaddr_un(qq(\\0concc-alone)));"
		"print qq(shm\\n) if defined(shmget(4711, 99, 0));"
		"print qq(msg\\n) if defined(msgget(4711, 0)); print qq(sem\\n) if defined(semget(4711, 1, 0));"
		"print qq(mq\\n) if syscall(240, my $n = qq(concc-alone\\0), 2, 0, 0) >= 0;"
		"print -s q(/proc/keys) ? q(keys) : q(), -s q(/proc/key-users) ? q(users) : q();"
		"open(my $k, q(/proc/keys)); print <$k>;"
		"print qq(end\\n); syswrite($f, q(y))'";
	char *ws[] = {(char *)WS, NULL};
	char *maker[] = {(char *)"/bin/sh", (char *)"-c", (char *)make, NULL};
	char *looker[] = {(char *)"/bin/sh", (char *)"-c", (char *)look, NULL};
	struct result *r[3];
	int pair[2];

	start_agent(a);
	for (uint32_t left = 0; left < 2; left++) {
		CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
		r[0] = start_job(a, 50 + left * 2, ws, WS, maker, NULL, pair[0]);
		if (left) { /* what it leaves, another can't find */
			close(pair[0]);
			CHECK(write(pair[1], "y", 1) == 1);
			loop_until_quit(a);
			check_out(r[0], "");
			close(pair[1]);
		}
		r[1] = start_job(a, 51 + left * 2, ws, WS, looker, NULL, left ? -1 : pair[1]);
		if (!left) {
			close(pair[0]);
			close(pair[1]);
		}
		loop_until_quit(a);
		check_out(r[0], "");
		check_out(r[1], "end\n");
	}
}

/* All the instances a job can get are a part of the login's. */
TEST_BOTH(inotify_share)
{
	int whole = (int)knob_read("/proc/sys/fs/inotify/max_user_instances"), got;
	struct result *r;

	start_agent(a);
	a->caller.limits[CALLER_NOFILE].soft = a->caller.limits[CALLER_NOFILE].hard;
	r = run(a, "exec perl -e '$n++ while syscall(294, 0) >= 0; print $n, q( ), $! + 0'");
	check_exit(r, 0);
	got = atoi(out_of(r));
	CHECK(got > 0 && got < whole / 3, "%s of %d", out_of(r), whole);
	CHECK(strstr(out_of(r), " 24"), "%s", out_of(r));
	check_exit(run(a, "perl -e 'exit(syscall(294, 0) < 0)'"), 0);
}

/* ---- files ---- */

static bool is_whiteout(int fd, const char *name)
{
	struct stat st;

	return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISCHR(st.st_mode) &&
	       st.st_rdev == 0;
}

static void check_captured(struct agent *a)
{
	struct result *r = run(a, "rm a.c && rm -r dir && mkdir dir && echo new >dir/y && "
				  "echo t >tmp && mv tmp b.c && ln b.c hard && ln -s b.c soft && "
				  "echo x >x && chmod 755 x && umask");
	struct stat st, st2;
	char path[256], v;
	int fd, u;

	check_exit(r, 0);
	CHECK(r->n_uppers == 1);
	u = r->uppers[0];
	CHECK(is_whiteout(u, "a.c"));
	CHECK(fstatat(u, "dir/y", &st, 0) == 0 && S_ISREG(st.st_mode));
	fd = openat(u, "dir", O_RDONLY);
	CHECK(fgetxattr(fd, "user.overlay.opaque", &v, 1) == 1 && v == 'y');
	CHECK(fstatat(u, "b.c", &st, 0) == 0 && fstatat(u, "hard", &st2, 0) == 0);
	CHECK(st.st_ino == st2.st_ino && st.st_nlink == 2 && st.st_size == 2);
	CHECK((st.st_mode & 07777) == 0640);
	CHECK(fstatat(u, "soft", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode));
	CHECK(fstatat(u, "x", &st, 0) == 0 && (st.st_mode & 07777) == 0755);
	/* What is below is as it was, and the next job sees it so. */
	snprintf(path, sizeof(path), "%s" WS "/a.c", a->mirror);
	CHECK(access(path, R_OK) == 0);
	check_out(run(a, "cat a.c b.c dir/x; ls"), "int a;\nint b;\nx\na.c\nb.c\ndir\n");
}

TEST_BOTH(writes_are_captured)
{
	start_agent(a);
	check_captured(a);
}

static int count_names(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return d ? n : -1;
}

struct wait_names {
	struct loop *loop;
	int fd; /* of inotify */
	const char *path;
	int max;
};

static void on_name_gone(void *data, uint32_t events)
{
	struct wait_names *w = data;
	char b[4096];

	(void)events;
	CHECK(read(w->fd, b, sizeof(b)) > 0);
	if (count_names(w->path) <= w->max)
		loop_quit(w->loop);
}

/* Jobs are told as ended before their init is reaped, and only that frees their space. */
static void wait_for_names(struct agent *a, const char *path, int max)
{
	_cleanup_close_ int fd = inotify_init1(IN_CLOEXEC);
	struct wait_names w = {.loop = a->loop, .fd = fd, .path = path, .max = max};
	struct loop_source *s;

	CHECK(fd >= 0 && inotify_add_watch(fd, path, IN_DELETE) >= 0, "%s", path);
	s = loop_add_fd(a->loop, fd, EPOLLIN, on_name_gone, &w);
	if (count_names(path) > max)
		loop_until_quit(a);
	loop_remove(s);
}

/* As on kernels whose tmpfs can't hold uppers. */
TEST_BOTH(writes_are_captured_on_disk)
{
	char path[128];
	struct result *r;

	setenv("CONCC_WORKER_UPPER", "disk", 1);
	start_agent(a);
	check_captured(a);
	snprintf(path, sizeof(path), "%s/scratch", a->dir);
	CHECK(count_names(path) == 1);
	r = run(a, "mkdir -p d/e && head -c 100000 /dev/zero >d/e/f && chmod 0 d");
	check_exit(r, 0);
	for (uint32_t id = 1; id < 512; id++) {
		struct home_config c = {.workspace = WS};

		if (!a->jobs[id] || a->jobs[id]->n_uppers == 0)
			continue;
		c.upper_fd = a->jobs[id]->uppers[0];
		home_free(home_new(&c));
	}
	/* Each end removes those before it that nobody reads any more. */
	check_exit(run(a, "ls -A /var/tmp | grep . && exit 1; exit 0"), 0);
	{
		DIR *d = opendir(path);
		struct dirent *e;
		_cleanup_free_ char *sub = NULL;

		while ((e = readdir(d))) {
			if (e->d_name[0] == '.')
				continue;
			free(sub);
			sub = path_join(path, e->d_name);
		}
		closedir(d);
		/* Of the last job, unread, and perhaps not even that. */
		CHECK(sub);
		wait_for_names(a, sub, 1);
	}
	launcher_stop(a->launcher);
	a->launcher = NULL;
	CHECK(count_names(path) == 0);
}

TEST_BOTH(crashed_scratch_is_swept)
{
	char path[128];

	setenv("CONCC_WORKER_UPPER", "disk", 1);
	start_agent(a);
	check_exit(run(a, "mkdir -p d/e && chmod 0 d"), 0);
	snprintf(path, sizeof(path), "%s/scratch/stale", a->dir);
	CHECK(path_mkdirs(path, 0700) == 0 && chdir(path) == 0);
	/* Deeper than any path may be long. */
	for (int i = 0; i < 3000; i++)
		CHECK(mkdir("deep", 0700) == 0 && chdir("deep") == 0);
	write_file("file", "x");
	CHECK(chdir("/") == 0);
	snprintf(path, sizeof(path), "%s/scratch", a->dir);
	CHECK(count_names(path) == 2);
	/* A second launcher sweeps the stale one, and leaves alone what the first uses. */
	start_launcher(a);
	CHECK(count_names(path) == 2);
	snprintf(path, sizeof(path), "%s/scratch/stale", a->dir);
	CHECK(access(path, F_OK) < 0 && errno == ENOENT);
}

TEST_BOTH(any_name_of_a_workspace)
{
	static const char *const names[] = {
		"/home/client/with space", "/home/client/with,comma",
		"/home/client/with:colon", "/home/client/back\\slash",
		"/home/client/new\nline",  "/home/client/gr\xc3\xbc\xc3\x9f",
		"/home/client/'quote\"s$", "/home/client/\xff\xfe",
		"/tmp/in/tmp,:\\",	   "/var/tmp/there",
		"/usr/src/concc-test/p",   "/srv/x/y",
		"/var/lib/concc-test/p",   "/concc-test-top/level/proj",
		"/opt/concc-test/p",	   "/tmp",
		"/usr/src/concc-test/q",
	};
	size_t n = sizeof(names) / sizeof(names[0]);

	for (size_t i = 0; i < n; i++)
		add_workspace(a, names[i]);
	start_agent(a);
	for (size_t i = 0; i < n; i++) {
		struct result *r = run_in(
			a, names[i], "echo hello >made && cat made && pwd && ls .. >/dev/null");
		char *want = xasprintf("hello\n%s\n", names[i]);
		struct stat st;
		char left[256];

		check_out(r, want);
		CHECK(fstatat(r->uppers[0], "made", &st, 0) == 0 && st.st_size == 6);
		CHECK(leftover_in_tmp(r->tmp_fd, left, sizeof(left)) == 0, "%s", left);
		free(want);
	}
	/* The directories that were covered still show all they have, read-only. */
	check_out(
		run(a, "ls /usr/src | grep -c concc-test; touch /usr/src/x 2>/dev/null || echo ro"),
		"1\nro\n");
	check_out(run(a, "ls /usr/lib | wc -l | grep -vx 0 >/dev/null && echo some"), "some\n");
	CHECK(access("/usr/src/concc-test", F_OK) < 0 && access("/concc-test-top", F_OK) < 0);
}

TEST_BOTH(several_workspaces)
{
	char *ws[] = {(char *)WS, (char *)"/opt/concc-second", (char *)"/tmp/third", NULL};
	char *argv[] = {
		(char *)"/bin/sh", (char *)"-c",
		(char *)"echo 1 >one; echo 2 >/opt/concc-second/two; echo 3 >/tmp/third/three",
		NULL};
	static const char *const made[] = {"one", "two", "three"};
	struct result *r;

	add_workspace(a, ws[1]);
	add_workspace(a, ws[2]);
	start_agent(a);
	r = start_job(a, 1, ws, WS, argv, NULL, -1);
	loop_until_quit(a);
	check_exit(r, 0);
	CHECK(r->n_uppers == 3);
	for (int i = 0; i < 3; i++)
		CHECK(faccessat(r->uppers[i], made[i], R_OK, 0) == 0, "%s", made[i]);
}

TEST_BOTH(leftovers_in_tmp)
{
	char left[256] = "";
	struct result *r;

	add_workspace(a, "/tmp/w/proj");
	start_agent(a);
	r = run(a, "echo x >/tmp/y; rm /tmp/y; echo $(ls /tmp)");
	check_exit(r, 0);
	CHECK(leftover_in_tmp(r->tmp_fd, left, sizeof(left)) == 0, "%s", left);
	r = run(a, "mkdir /tmp/d && echo x >/tmp/d/f");
	CHECK(leftover_in_tmp(r->tmp_fd, left, sizeof(left)) == 1 && streq(left, "d"), "%s", left);
	r = run(a, "echo x >/dev/shm/s");
	CHECK(leftover_in_tmp(r->tmp_fd, left, sizeof(left)) == 1 && streq(left, "s"), "%s", left);
	r = run(a, "echo x >/var/tmp/v");
	CHECK(leftover_in_tmp(r->tmp_fd, left, sizeof(left)) == 1 && streq(left, "v"), "%s", left);
	/* What nobody needs that comes after. */
	r = run(a, "mkdir /tmp/hsperfdata_u && echo x >/tmp/hsperfdata_u/17; : >/tmp/.java_pid17");
	CHECK(leftover_in_tmp(r->tmp_fd, left, sizeof(left)) == 0, "%s", left);
	r = run(a, "mkdir /tmp/my-hsperfdata_u");
	CHECK(leftover_in_tmp(r->tmp_fd, left, sizeof(left)) == 1, "%s", left);
	r = run_in(a, "/tmp/w/proj", "echo x >here");
	CHECK(leftover_in_tmp(r->tmp_fd, left, sizeof(left)) == 0, "%s", left);
	r = run_in(a, "/tmp/w/proj", "echo x >../beside");
	CHECK(leftover_in_tmp(r->tmp_fd, left, sizeof(left)) == 1 && streq(left, "w/beside"), "%s",
	      left);
	check_out(run(a, "ls -A /tmp"), "");
}

TEST_BOTH(big_and_many)
{
	struct result *r;
	struct stat st;

	start_agent(a);
	r = run(a, "head -c 50000000 /dev/zero >big; i=0; "
		   "while [ $i -lt 3000 ]; do : >f$i; i=$((i+1)); done");
	check_exit(r, 0);
	CHECK(fstatat(r->uppers[0], "big", &st, 0) == 0 && st.st_size == 50000000);
	CHECK(faccessat(r->uppers[0], "f2999", F_OK, 0) == 0);
}

TEST_BOTH(shows_more_of_the_worker)
{
	_cleanup_free_ char *list = NULL;
	char shown[128];

	snprintf(shown, sizeof(shown), "%s/tools/bin", a->dir);
	CHECK(path_mkdirs(shown, 0755) == 0);
	list = xasprintf("%s:/no/such/dir:relative", shown);
	setenv("CONCC_WORKER_SHOW", list, 1);
	snprintf(shown, sizeof(shown), "%s/tools/bin/tool", a->dir);
	write_file(shown, "a tool\n");
	/* In a job /tmp is private, so the list's place must be elsewhere: bind it there. */
	CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) == 0);
	snprintf(shown, sizeof(shown), "%s/tools", a->dir);
	CHECK(mount(shown, "/srv", NULL, MS_BIND, NULL) == 0);
	setenv("CONCC_WORKER_SHOW", "/srv/bin:/no/such/dir:relative", 1);
	start_agent(a);
	check_out(run(a, "cat /srv/bin/tool; touch /srv/bin/x 2>/dev/null || echo ro"),
		  "a tool\nro\n");
}

/* A root of our own, in which anything may be made: the machine's below a tmpfs. */
static void own_root(const struct agent *a)
{
	char cmd[512];

	CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) == 0);
	snprintf(cmd, sizeof(cmd),
		 "d=%s/root; mkdir $d && mount -t tmpfs t $d && mkdir $d/u $d/w $d/m && "
		 "mount -t overlay -o lowerdir=/,upperdir=$d/u,workdir=$d/w o $d/m && "
		 "for s in proc dev sys tmp; do mount --rbind /$s $d/m/$s; done",
		 a->dir);
	CHECK(system(cmd) == 0);
	snprintf(cmd, sizeof(cmd), "%s/root/m", a->dir);
	CHECK(chdir(cmd) == 0 && syscall(SYS_pivot_root, ".", ".") == 0);
	CHECK(umount2(".", MNT_DETACH) == 0 && chdir("/") == 0);
}

/* What a host has besides its system, by whatever name, and what answers in what is shown. */
TEST_BOTH(shows_a_system_only)
{
	char cmd[256];

	own_root(a);
	snprintf(
		cmd, sizeof(cmd),
		"for d in exporthome/builder /bigdisk /var/lib/jenkins /var/lib/x /opt/login /opt/tool "
		"/nix/store /nix/var/nix/daemon-socket; do mkdir -p /$d && echo secret >/$d/id && "
		"chown -R %u /$d; done; mkfifo -m 666 /var/lib/x/fifo; mkdir -p /var/lib/texmf",
		(unsigned)(a->uid ? a->uid : SANDBOX_UID));
	CHECK(system(cmd) == 0);
	CHECK(setenv("HOME", "/opt/login", 1) == 0);
	start_agent(a);
	check_out(run(a, "find /exporthome /bigdisk /var/lib/jenkins /var/lib/x /opt/login "
			 "/nix/var/nix/daemon-socket -mindepth 1 2>/dev/null; "
			 "cat /opt/tool/id /nix/store/id; test -d /var/lib/texmf && echo texmf"),
		  "secret\nsecret\ntexmf\n");
}

/* Shown nevertheless when its owner says so. */
TEST_BOTH(shows_of_a_home)
{
	own_root(a);
	CHECK(path_mkdirs("/opt/login/tool", 0755) == 0);
	write_file("/opt/login/tool/t", "tool\n");
	write_file("/opt/login/secret", "secret\n");
	CHECK(system("mkdir /bigdisk && echo big >/bigdisk/tool") == 0);
	CHECK(chown("/opt/login", a->uid ? a->uid : SANDBOX_UID, 0) == 0);
	CHECK(setenv("HOME", "/opt/login", 1) == 0);
	setenv("CONCC_WORKER_SHOW", "/opt/login/tool:/bigdisk", 1);
	start_agent(a);
	check_out(run(a, "ls /opt/login; cat /opt/login/tool/t /bigdisk/tool"),
		  "tool\ntool\nbig\n");
}

/* What of the client's root is no system leads into the mirror, with what is shown in it. */
TEST_BOTH(shows_the_root_of_the_client)
{
	static char *const top[] = {(char *)"home", (char *)"usr", (char *)"tmp", (char *)"srv",
				    NULL};
	char path[128];

	add_workspace(a, "/" MIRROR_OUTSIDE WS);
	add_workspace(a, "/" MIRROR_OUTSIDE "/srv/bin");
	add_workspace(a, "/" MIRROR_OUTSIDE "/srv/from-mirror");
	add_workspace(a, "/" MIRROR_OUTSIDE "/usr/from-mirror");
	/* One that nobody has named there. */
	add_workspace(a, "/srv/other/ws");
	snprintf(path, sizeof(path), "%s/tools/bin", a->dir);
	CHECK(path_mkdirs(path, 0755) == 0);
	snprintf(path, sizeof(path), "%s/tools/bin/tool", a->dir);
	write_file(path, "a tool\n");
	snprintf(path, sizeof(path), "%s/tools/hidden", a->dir);
	write_file(path, "the worker's\n");
	CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) == 0);
	snprintf(path, sizeof(path), "%s/tools", a->dir);
	CHECK(mount(path, "/srv", NULL, MS_BIND, NULL) == 0);
	setenv("CONCC_WORKER_SHOW", "/srv/bin", 1);
	config.top = top;
	start_agent(a);
	check_out(run(a, "ls a.c; ls /srv; cat /srv/bin/tool; ls -d /usr/bin; ls /usr | grep from;"
			 "touch /srv/x 2>/dev/null || echo ro; ls -A /tmp"),
		  "a.c\nbin\nfrom-mirror\na tool\n/usr/bin\nro\n");
	check_out(run_in(a, "/srv/other/ws", "pwd; ls /srv"),
		  "/srv/other/ws\nbin\nfrom-mirror\nother\n");
}

/* The same with a directory for which the worker has a name of its own, all of it. */
TEST_BOTH(shows_a_whole_directory_of_the_worker)
{
	static char *const top[] = {(char *)"srv", NULL};
	char path[128];

	snprintf(path, sizeof(path), "%s/tools", a->dir);
	CHECK(path_mkdirs(path, 0755) == 0);
	snprintf(path, sizeof(path), "%s/tools/tool", a->dir);
	write_file(path, "a tool\n");
	CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) == 0);
	snprintf(path, sizeof(path), "%s/tools", a->dir);
	CHECK(mount(path, "/srv", NULL, MS_BIND, NULL) == 0);
	setenv("CONCC_WORKER_SHOW", "/srv", 1);
	config.top = top;
	start_agent(a);
	check_out(run(a, "cat /srv/tool"), "a tool\n");
}

/* ---- which job ---- */

/* How many processes say that they are of this job. */
static int count_of_job(int64_t job)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while ((e = readdir(d)))
		n += e->d_name[0] >= '0' && e->d_name[0] <= '9' &&
		     launcher_job_of((pid_t)atoi(e->d_name)) == job;
	closedir(d);
	return n;
}

struct counting {
	struct result *r;
	struct loop_source *source;
	int go_fd, count[2];
};

static void on_up_count(void *data, uint32_t events)
{
	struct counting *c = data;
	char text[64];

	CHECK(read(c->r->out_fd, text, sizeof(text)) > 0);
	c->count[0] = count_of_job(c->r->id);
	c->count[1] = count_of_job(c->r->id + 1);
	close(c->go_fd);
	loop_remove(c->source);
	c->r->out_source = loop_add_fd(c->r->agent->loop, c->r->out_fd, LOOP_READ, on_out, c->r);
}

TEST_BOTH(job_of_a_process)
{
	char *ws[] = {(char *)WS, NULL};
	/* A child, and one whose parent has ended. */
	char *argv[] = {(char *)"/bin/sh", (char *)"-c",
			(char *)"exec 3<&0; (setsid sh -c 'read x; true' <&3 &); "
				"(read x; true) <&3 & echo up; wait",
			NULL};
	struct counting c = {0};
	int in[2];

	start_agent(a);
	CHECK(launcher_job_of(getpid()) == JOB_NONE);
	CHECK(launcher_job_of(getppid()) == JOB_UNKNOWN);
	CHECK(launcher_job_of(0) == JOB_UNKNOWN);
	CHECK(pipe2(in, O_CLOEXEC) == 0);
	c.go_fd = in[1];
	c.r = start_job(a, 0xfedcba98 % 500, ws, WS, argv, NULL, in[0]);
	close(in[0]);
	loop_remove(c.r->out_source);
	c.source = loop_add_fd(a->loop, c.r->out_fd, LOOP_READ, on_up_count, &c);
	loop_until_quit(a);
	check_exit(c.r, 0);
	/* With its init and the shell. */
	CHECK(c.count[0] == 4 && c.count[1] == 0, "%d, %d", c.count[0], c.count[1]);
}

/* ---- ends ---- */

TEST_BOTH(all_it_left_is_killed)
{
	_cleanup_free_ char *marker = xasprintf("CONCC_TEST_MARK=%d-%d", (int)getpid(),
						(int)a->uid);
	char *env[] = {(char *)"PATH=/usr/bin:/bin", marker, NULL};
	char *ws[] = {(char *)WS, NULL};
	char *argv[] = {(char *)"/bin/sh", (char *)"-c",
			(char *)"for i in 1 2 3; do (setsid sh -c 'trap \"\" TERM HUP; "
				"echo up >&2; exec sleep 1000' </dev/null >/dev/null &) ; done; "
				"sleep 1000 & echo main",
			NULL};
	struct result *r;

	start_agent(a);
	r = start_job(a, 1, ws, WS, argv, env, -1);
	loop_until_quit(a); /* needs EOF of both pipes, which the daemons hold */
	check_out(r, "main\n");
	CHECK(count_marked(marker) == 0);
}

struct waiting {
	struct result *r;
	struct loop_source *source;
	int signo;
};

/* The first output says that the job is where it should be killed. */
static void on_up(void *data, uint32_t events)
{
	struct waiting *w = data;
	char c[64];

	if (read(w->r->out_fd, c, sizeof(c)) > 0)
		launcher_kill(w->r->agent->launcher, w->r->id, w->signo);
	loop_remove(w->source);
	w->r->out_source = loop_add_fd(w->r->agent->loop, w->r->out_fd, LOOP_READ, on_out, w->r);
}

static struct result *kill_with(struct agent *a, uint32_t id, const char *script, int signo)
{
	char *ws[] = {(char *)WS, NULL};
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};
	struct waiting w = {.signo = signo};

	w.r = start_job(a, id, ws, WS, argv, NULL, -1);
	loop_remove(w.r->out_source);
	w.source = loop_add_fd(a->loop, w.r->out_fd, LOOP_READ, on_up, &w);
	loop_until_quit(a);
	return w.r;
}

TEST_BOTH(kill_reaches_the_group)
{
	const char *sleeper = "sleep 1000 & echo up; wait";
	struct result *r;

	start_agent(a);
	check_exit(kill_with(a, 1, "trap 'exit 7' INT; sleep 1000 & echo up; wait", SIGINT), 7);
	r = kill_with(a, 2, sleeper, SIGTERM);
	CHECK(WIFSIGNALED(r->end.wait_status) && WTERMSIG(r->end.wait_status) == SIGTERM);
	r = kill_with(a, 3, "trap '' TERM INT; sleep 1000 & echo up; wait", SIGKILL);
	CHECK(r->end.started && WIFSIGNALED(r->end.wait_status) &&
	      WTERMSIG(r->end.wait_status) == SIGKILL);
	/* The shell acts on it only when what it runs in the foreground has ended by it. */
	r = kill_with(a, 4,
		      "trap 'exit 8' TERM; "
		      "sh -c 'trap \"echo child; exit 0\" TERM; echo up; sleep 1000 & wait'",
		      SIGTERM);
	check_exit(r, 8);
	CHECK(streq(out_of(r), "child\n"), "%s", out_of(r));
	/* One that is not there is no error. */
	launcher_kill(a->launcher, 77, SIGTERM);
	check_exit(run(a, "exit 0"), 0);
}

TEST_BOTH(two_hundred_at_once)
{
	enum { N = 200 };
	char *ws[] = {(char *)WS, NULL};
	struct result *r[N];
	int in[2];
	char *argv[] = {(char *)"/bin/sh", (char *)"-c",
			(char *)"echo $0 >mine; read x; cat mine; exit $(($0 % 100))", NULL, NULL};

	start_agent(a);
	CHECK(pipe2(in, O_CLOEXEC) == 0);
	for (int i = 0; i < N; i++) {
		_cleanup_free_ char *number = xasprintf("%d", i);

		argv[3] = number;
		r[i] = start_job(a, (uint32_t)i + 1, ws, WS, argv, NULL, in[0]);
	}
	/* None can end before this, so all have to be there at once. */
	close(in[0]);
	close(in[1]);
	loop_until_quit(a);
	for (int i = 0; i < N; i++) {
		char want[16];

		check_exit(r[i], i % 100);
		snprintf(want, sizeof(want), "%d\n", i);
		CHECK(streq(out_of(r[i]), want));
		CHECK(faccessat(r[i]->uppers[0], "mine", F_OK, 0) == 0);
	}
}

static void run_until_killed(struct agent *a, int report_fd, const char *marker)
{
	char *ws[] = {(char *)WS, NULL};
	char *env[] = {(char *)"PATH=/usr/bin:/bin", (char *)marker, NULL};
	char *argv[] = {(char *)"/bin/sh", (char *)"-c",
			/* Shells that exec nothing: while it does, a process has no environment. */
			(char *)"(setsid sh -c 'echo up; sleep 1000; :' &); sleep 1000; :", NULL};
	struct launch j = {.job_id = 1,
			   .exe = argv[0],
			   .path = argv[0],
			   .argv = argv,
			   .env = env,
			   .cwd = WS,
			   .workspaces = ws,
			   .stdin_fd = open("/dev/null", O_RDONLY),
			   .stdout_fd = report_fd,
			   .stderr_fd = report_fd};

	start_agent(a);
	j.caller = a->caller;
	a->jobs[1] = xcalloc(1, sizeof(struct result));
	CHECK(launcher_run(a->launcher, &j) == 0);
	loop_until_quit(a);
}

static void agent_dies(uid_t uid)
{
	struct agent a = {.uid = uid, .dir = "/tmp/concc-sandbox-XXXXXX"};
	_cleanup_free_ char *marker = xasprintf("CONCC_TEST_MARK=%d-%d", (int)getpid(), (int)uid);
	struct pollfd pfd;
	char cmd[128], buf[8];
	pid_t pid;
	int fds[2];

	cr_assert(mkdtemp(a.dir) && chmod(a.dir, 0755) == 0 && chown(a.dir, uid, uid) == 0);
	snprintf(a.mirror, sizeof(a.mirror), "%s/mirror", a.dir);
	cr_assert(pipe2(fds, O_CLOEXEC) == 0);
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		run_until_killed(&a, fds[1], marker);
		exit(0);
	}
	close(fds[1]);
	pfd = (struct pollfd){.fd = fds[0], .events = POLLIN};
	cr_assert(poll(&pfd, 1, DEADLINE_MS) == 1 && read(fds[0], buf, sizeof(buf)) == 3);
	cr_assert(count_marked(marker) >= 2);
	cr_assert(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	/* Launcher, init and job all hold the pipe: its end is theirs. */
	cr_assert(poll(&pfd, 1, DEADLINE_MS) == 1 && read(fds[0], buf, sizeof(buf)) == 0);
	cr_assert(count_marked(marker) == 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", a.dir);
	cr_assert(system(cmd) == 0);
}

Test(sandbox, agent_dies_root)
{
	agent_dies(0);
}

Test(sandbox, agent_dies_user)
{
	agent_dies(USER);
}

static pid_t child_of(pid_t parent)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
	CHECK(read_file_at(AT_FDCWD, path, 4096, &b) == 0, "%s", path);
	return (pid_t)atoi(buf_cstr(&b));
}

TEST_BOTH(launcher_dies)
{
	struct launch j = {.job_id = 9,
			   .exe = "/bin/true",
			   .path = "/bin/true",
			   .argv = default_env,
			   .env = default_env,
			   .cwd = WS,
			   .workspaces = default_env};
	pid_t pid;

	start_agent(a);
	check_exit(run(a, "exit 0"), 0);
	pid = child_of(getpid());
	CHECK(pid > 0 && kill(pid, SIGKILL) == 0);
	loop_until_quit(a);
	CHECK(a->lost && WIFSIGNALED(a->lost_status) && WTERMSIG(a->lost_status) == SIGKILL);
	CHECK(launcher_run(a->launcher, &j) == CONCC_E_UNAVAIL);
}

/*
 * Its socket is closed some time before it has ended: in between the kernel ends all that is in its
 * namespace, and waits for that.  Here for the init of a job, since who traces it does not reap it.
 */
TEST_BOTH(launcher_is_dying)
{
	char *ws[] = {(char *)WS, NULL};
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)"echo up; sleep 1000", NULL};
	struct pollfd pfd = {.events = POLLIN};
	pid_t pid, init;
	siginfo_t si;

	start_agent(a);
	pfd.fd = start_job(a, 8, ws, WS, argv, NULL, -1)->out_fd;
	CHECK(poll(&pfd, 1, DEADLINE_MS) == 1);
	pid = child_of(getpid());
	init = child_of(pid);
	CHECK(init > 0 && ptrace(PTRACE_SEIZE, init, 0, 0) == 0);
	CHECK(kill(pid, SIGKILL) == 0);
	CHECK(waitid(P_PID, (id_t)init, &si, WEXITED | WNOWAIT) == 0);
	(void)start_job(a, 9, ws, WS, argv, NULL, -1);
	loop_until_quit(a);
	CHECK(a->lost && a->lost_status == -1);
	CHECK(!a->jobs[9]->ended, "%s", a->jobs[9]->end.text);
	CHECK(waitpid(init, NULL, 0) == init);
}

/* ---- refusals ---- */

static void write_proc(pid_t pid, const char *name, const char *text)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0 && write_full(fd, text, strlen(text)) == 0, "%s", path);
	close(fd);
}

/* A user namespace with all ids, root's rights, and a limit of no more namespaces inside. */
static void limit_namespaces(void)
{
	pid_t parent = getpid(), pid;
	int fds[2], status;
	char c;

	CHECK(pipe2(fds, O_CLOEXEC) == 0);
	pid = fork();
	if (pid == 0) {
		close(fds[1]);
		CHECK(read(fds[0], &c, 1) == 1);
		write_proc(parent, "uid_map", "0 0 65536");
		write_proc(parent, "gid_map", "0 0 65536");
		_exit(0);
	}
	CHECK(unshare(CLONE_NEWUSER) == 0);
	CHECK(write_full(fds[1], "x", 1) == 0);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	close(fds[0]);
	close(fds[1]);
	write_proc(parent, "../sys/user/max_user_namespaces", "0");
}

/* As in a container that gives CAP_SYS_ADMIN but refuses user namespaces. */
static void without_userns(struct agent *a)
{
	a->uid = CLIENT; /* who owns the mirror's files */
	make_mirror(a);
	limit_namespaces();
	{
		struct sandbox_paths paths;
		struct errmsg msg = {""};

		CHECK(sandbox_enter(&config, &paths, &msg) == 0, "%s", msg.text);
	}
	start_launcher(a);
	check_out(run(a, "id -u; id -g; grep CapEff /proc/self/status; touch new; "
			 "stat -c '%u %a' new; rm -r dir; mkdir dir; ls -A dir"),
		  "4242\n4243\nCapEff:\t0000000000000000\n4242 640\n");
}

Test(sandbox, without_userns)
{
	with_agent(0, without_userns);
}

/* Jobs of a client root would be the container's. */
static void without_userns_root(struct agent *a)
{
	struct sandbox_paths paths;
	struct errmsg msg = {""};

	make_mirror(a);
	limit_namespaces();
	config.uid = config.gid = 0;
	CHECK(sandbox_enter(&config, &paths, &msg) < 0);
	CHECK(strstr(msg.text, "root = client") && strstr(msg.text, "max_user_namespaces"), "%s",
	      msg.text);
	config.client_root = true;
	CHECK(sandbox_enter(&config, &paths, &msg) == 0, "%s", msg.text);
}

Test(sandbox, without_userns_root)
{
	with_agent(0, without_userns_root);
}

static void refused_userns(struct agent *a)
{
	struct sandbox_paths paths;
	struct errmsg msg = {""};
	int fd;

	limit_namespaces();
	CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) == 0);
	CHECK(setresuid(USER, USER, USER) == 0);
	fd = sandbox_enter(&config, &paths, &msg);
	if (strstr(msg.text, "/dev/fuse")) {
		CHECK(fd == -EACCES && strstr(msg.text, "chmod 0666 /dev/fuse"), "%s", msg.text);
		return;
	}
	CHECK(fd == -ENOSPC && strstr(msg.text, "user.max_user_namespaces=15000"), "%s", msg.text);
}

Test(sandbox, refused_userns)
{
	with_agent(0, refused_userns);
}

Test(sandbox, remedies)
{
	const struct userns_knobs none = {-1, -1, -1}, limited = {0, -1, -1}, debian = {100, 0, -1},
				  ubuntu = {100, -1, 1};

	cr_assert(strstr(userns_remedy(-ENOSPC, &none), "max_user_namespaces"));
	cr_assert(strstr(userns_remedy(-EPERM, &limited), "max_user_namespaces"));
	cr_assert(strstr(userns_remedy(-EPERM, &debian), "unprivileged_userns_clone=1"));
	cr_assert(
		strstr(userns_remedy(-EACCES, &ubuntu), "apparmor_restrict_unprivileged_userns=0"));
	cr_assert(strstr(userns_remedy(-EACCES, &ubuntu), "apparmor_parser -r"));
	cr_assert(strstr(userns_remedy(-EPERM, &none), "--cap-add SYS_ADMIN"));
	cr_assert(strstr(userns_remedy(-EINVAL, &none), "5.11"));
}

/* ---- the way of kernels before 5.12 ---- */

static void seals_each(struct agent *a)
{
	char path[128], deep[160];

	CHECK(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) == 0);
	snprintf(path, sizeof(path), "%s/a b\\c", a->dir);
	CHECK(mkdir(path, 0755) == 0);
	CHECK(mount("t", path, "tmpfs", MS_NODEV | MS_NOEXEC, NULL) == 0);
	snprintf(deep, sizeof(deep), "%s/below", path);
	CHECK(mkdir(deep, 0755) == 0 && mount("t", deep, "tmpfs", 0, NULL) == 0);
	CHECK(mnt_seal_each(path) == 0);
	CHECK(mkdir(deep, 0755) < 0);
	snprintf(deep, sizeof(deep), "%s/below/x", path);
	CHECK(mkdir(deep, 0755) < 0 && errno == EROFS);
	snprintf(deep, sizeof(deep), "%s/x", path);
	CHECK(mkdir(deep, 0755) < 0 && errno == EROFS);
	snprintf(deep, sizeof(deep), "%s/beside", a->dir);
	CHECK(mkdir(deep, 0755) == 0);
	snprintf(deep, sizeof(deep),
		 "grep -F 'a\\040b\\134c' /proc/self/mountinfo | "
		 "grep -c 'ro,nosuid,nodev,noexec'");
	CHECK(system(deep) == 0);
}

Test(sandbox, seals_each)
{
	with_agent(0, seals_each);
}
