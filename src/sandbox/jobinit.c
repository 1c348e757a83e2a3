/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The init of one job: a fork of the launcher, pid 1 of its own pid namespace.
 * It makes the mounts that any job needs, waits for its job, makes that one's,
 * starts the command, passes signals on, reaps, and reports.  What the command left behind it kills
 * first, if that does not end by itself: so its report lets the results be read, while the kernel
 * takes its time over the namespaces.  If it dies before, the kernel kills what is left.
 * What it does with mounts is in job_mounts.c.
 */
#include "jobinit.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/log.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "descriptors.h"
#include "beyond.h"
#include "trace.h"
#include "wall.h"

void jobinit_refuse(const struct job *j, int err, const char *fmt, ...)
{
	struct lm_packet p = {.kind = LM_REFUSED, .job_id = j->id, .value = err};
	va_list ap;
	size_t len;

	va_start(ap, fmt);
	vsnprintf(p.text, sizeof(p.text), fmt, ap);
	va_end(ap);
	len = strlen(p.text);
	snprintf(p.text + len, sizeof(p.text) - len, ": %s", err_text(err));
	(void)lm_send(j->sock, &p, NULL, 0, 0); /* the agent is gone: so are we, soon */
	_exit(1);
}

/* ---- the command ---- */

struct child {
	const struct job *j;
	const char *path; /* what is executed, with these words */
	char *const *argv;
	volatile int err;
	const char *volatile what; /* failed, on which object */
	const char *volatile object;
	int sock;	 /* with a trace: where to say so; else -1 */
	char *const *sh; /* then: what to try when path is a script without an interpreter */
};

static int set_limit(int what, uint64_t max)
{
	struct rlimit rl;

	if (!max || getrlimit(what, &rl) < 0)
		return 0;
	/* Never above what the worker's own user has. */
	if (rl.rlim_max == RLIM_INFINITY || rl.rlim_max > max)
		rl.rlim_max = max;
	if (rl.rlim_cur == RLIM_INFINITY || rl.rlim_cur > rl.rlim_max)
		rl.rlim_cur = rl.rlim_max;
	return setrlimit(what, &rl);
}

/* With "..", a path may lead elsewhere than on the client, where a symlink on the way does. */
static bool is_other_file(const char *path, const char *exe)
{
	struct stat a, b;

	return !streq(path, exe) && stat(path, &a) == 0 && stat(exe, &b) == 0 &&
	       !stat_is_same_file(&a, &b);
}

/*
 * With a trace it is the command's own process that installs the filter, last of all: its exec is
 * the first call that is told of.  The socket is open until the exec.
 */
static int give_listener(struct child *c)
{
	int fd = filter_install(c->j->setup->trace_filter);
	struct lm_packet p = {.kind = LM_PREPARED, .value = fd < 0 ? fd : 0};
	int r;

	if (fd < 0)
		(void)wall_install_untold(c->j->setup->ids.uid == 0);
	r = lm_send(c->sock, &p, &fd, fd >= 0, 0);
	if (r < 0)
		return r;
	descriptors_close_others(&c->j->req.caller, c->sock);
	return 0;
}

/*
 * Runs in the memory of its parent, which sleeps until the exec: system calls
 * only.  Signals are blocked and at their defaults since the launcher began, until the caller's
 * way with them is taken; capabilities end with the exec, by no_new_privs and the bounding set.
 */
__attribute__((noinline)) static void exec_command(struct child *c)
{
	const struct job *j = c->j;
	const struct sandbox_config *ids = &j->setup->ids;
	const char *object = "";
	int r;

	c->what = "can't set up the process for";
	c->object = j->req.exe;
	for (int i = 0; i < 3; i++)
		if (dup2(j->stdio[i], i) < 0)
			goto fail;
	if (descriptors_place(&j->req.caller, j->setup->stand_ins, &c->sock) < 0)
		goto fail;
	(void)umask(j->req.umask);
	r = caller_become(&j->req.caller, &j->setup->own, &object);
	errno = -r;
	if (r < 0) {
		c->what = "can't give it its caller's";
		c->object = object;
		goto fail;
	}
	if (set_limit(RLIMIT_DATA, j->req.max_memory) < 0 ||
	    set_limit(RLIMIT_NPROC, j->req.max_processes) < 0)
		goto fail;
	/* Only without a user namespace, where the ids differ.  Raw calls: glibc's want all
	 * threads, of which it knows the launcher's former ones. */
	if (geteuid() != ids->uid || getegid() != ids->gid) {
		c->what = "can't become the client's user for";
		if (syscall(SYS_setgroups, 0, NULL) < 0 ||
		    syscall(SYS_setresgid, ids->gid, ids->gid, ids->gid) < 0 ||
		    syscall(SYS_setresuid, ids->uid, ids->uid, ids->uid) < 0)
			goto fail;
	}
	c->what = "can't change to the directory";
	c->object = j->req.cwd;
	if (chdir(j->req.cwd) < 0)
		goto fail;
	c->what = "finds another file than on the client by";
	c->object = j->req.path;
	errno = ENOENT;
	if (is_other_file(j->req.path, j->req.exe))
		goto fail;
	c->what = "can't run";
	if (c->sock < 0) {
		descriptors_close_others(&j->req.caller, -1);
	} else {
		r = give_listener(c);
		errno = -r;
		if (r < 0)
			goto fail;
	}
	execve(c->path, c->argv, j->req.env);
	if (errno == ENOEXEC && c->sh)
		execve(c->sh[0], c->sh, j->req.env);
fail:
	c->err = errno ? errno : EIO;
}

/* Negative when the command can't be executed: then it was no process for long. */
static pid_t try_start(struct child *c)
{
	pid_t pid = vfork();

	if (pid == 0) {
		exec_command(c);
		_exit(127);
	}
	if (pid > 0 && c->err)
		(void)waitpid(pid, NULL, 0);
	return c->err ? -c->err : pid;
}

/*
 * Not by process_start(): limits and identities come before the exec, each failure has words of its
 * own, and every job would pay for a pipe and for signals that the launcher has reset.
 */
static pid_t start_command(struct job *j)
{
	struct child c = {.j = j, .path = j->req.path, .argv = j->req.argv, .sock = -1};
	pid_t pid = try_start(&c);

	/* As execvp(3), by which it was called. */
	if (pid == -ENOEXEC) {
		_cleanup_free_ char **words = job_sh_argv(j->req.path, j->req.argv);

		c = (struct child){.j = j, .path = words[0], .argv = words, .sock = -1};
		pid = try_start(&c);
	}
	if (pid < 0 && c.err)
		jobinit_refuse(j, -c.err, "%s %s", c.what, c.object);
	if (pid < 0)
		jobinit_refuse(j, -errno, "can't fork");
	return pid;
}

/* Its exec waits for our answer: so we can't wait for that, as we do otherwise. */
static void traced_child(const struct job *j, int sock)
{
	_cleanup_free_ char **words = job_sh_argv(j->req.path, j->req.argv);
	struct child c = {
		.j = j, .path = j->req.path, .argv = j->req.argv, .sock = sock, .sh = words};
	struct lm_packet p = {.kind = LM_REFUSED};

	exec_command(&c);
	p.value = c.err;
	(void)snprintf(p.text, sizeof(p.text), "%s %s", c.what, c.object);
	(void)lm_send(c.sock, &p, NULL, 0, 0);
	_exit(127);
}

/* What it says: its listener, that it could not start, or its exec. */
static void hear_start(struct job *j)
{
	int fds[LM_FDS_MAX];
	struct lm_packet p;
	size_t n = 0;
	int r = lm_recv(j->starting, &p, fds, &n, 0);

	if (r == 0 && p.kind == LM_REFUSED) {
		p.text[sizeof(p.text) - 1] = '\0';
		jobinit_refuse(j, -p.value, "%s", p.text);
	}
	if (r < 0)
		(void)close(steal_fd(&j->starting));
	else if (n == 1)
		filter_take_turns(j->listener = fds[0]);
	else
		trace_spoil(j->trace, "no-listener");
}

static pid_t start_traced(struct job *j)
{
	int fds[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		jobinit_refuse(j, -errno, "can't make a socket pair");
	/* Not by process_fork(): see start_command(). */
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		traced_child(j, fds[1]);
	if (pid < 0)
		jobinit_refuse(j, -errno, "can't fork");
	(void)close(fds[1]);
	j->starting = fds[0];
	return pid;
}

static void pass_signal(const struct signalfd_siginfo *si)
{
	/* 0: sent from outside of our pid namespace, so by the launcher. */
	if (si->ssi_signo == (uint32_t)JOB_SIGNAL && si->ssi_code == SI_QUEUE && si->ssi_pid == 0)
		(void)filter_kill(0, si->ssi_int); /* to us, it is one from inside */
}

/* What a job locks to read it is a few files, of a coverage run one for each source; what it copies
 * with all that it has may be a tree. */
#define LOOKS_MAX 4096

static bool tell_look(void *data, bool locks, size_t workspace, const char *path)
{
	struct lm_packet p = {.kind = locks ? LM_LOCKED : LM_ASKED, .value = (int32_t)workspace};
	_cleanup_free_ char *key = xasprintf("%d/%zu/%s", locks, workspace, path);
	struct job *j = data;

	if (map_get_str(&j->looks, key))
		return true;
	if (strlen(path) >= sizeof(p.text) || j->looks.n >= LOOKS_MAX)
		return false;
	(void)map_put_str(&j->looks, key, j);
	p.job_id = j->id;
	(void)snprintf(p.text, sizeof(p.text), "%s", path);
	return lm_send(j->sock, &p, NULL, 0, 0) == 0;
}

/* Once: the job is ended for it.  Who waits goes on, with an error, when the listener is closed: so
 * that stays. */
static void look_at_call(struct job *j)
{
	const struct beyond b = {
		.moves = {j->mirror, j->fds, j->req.workspaces, j->n, tell_look, j},
		.input = &j->input,
		.seeks = j->req.seeks,
		.reads = j->req.reads,
		.first = j->first,
	};
	const char *text = j->trace ? filter_traced(j->setup->trace_filter, j->listener, beyond_ask,
						    &b, j->trace)
				    : filter_notified(j->listener, beyond_ask, &b);
	struct lm_packet p = {.kind = LM_BEYOND, .job_id = j->id};

	if (!text)
		return;
	(void)snprintf(p.text, sizeof(p.text), "%s", text);
	(void)lm_send(j->sock, &p, NULL, 0, 0); /* the agent is gone: so are we, soon */
	j->listener = -1;
}

/*
 * Kills what the command left behind and reaps it.  Whatever has lost its parent
 * is ours, so without a child there is no process in this namespace but us; and
 * nothing that a kill reaches can have forked meanwhile (copy_process() in
 * kernel/fork.c looks for signals under the lock that kill(2) holds).
 */
static void end_all(void)
{
	(void)filter_kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
}

/*
 * How long what the command left behind may go on, and what it does counts: it is about to end as
 * well (a shell does not wait for what it reads by <(...)), or else it is meant to stay.  Short:
 * what the command printed may be held until then (run.c of the client), and is then never shown.
 */
#define LEFT_WAIT_MS 100

/* How far a job is. */
struct course {
	pid_t command;	 /* 0: it has ended */
	bool alone;	 /* there is no process but us */
	uint64_t end_ms; /* of the time for what it left */
};

static void reap(struct course *c, struct lm_packet *done)
{
	int status;
	pid_t p;

	while ((p = waitpid(-1, &status, WNOHANG)) > 0) {
		if (p != c->command)
			continue;
		c->command = 0;
		c->end_ms = now_ms() + LEFT_WAIT_MS;
		done->value = status;
		done->wall_us = now_us() - done->wall_us;
	}
	c->alone = p < 0;
}

/* Until the command has ended and what it left, if that does so soon; signals: a signalfd of all.
 */
static void wait_for(struct job *j, pid_t pid, int signals, struct lm_packet *done)
{
	struct course c = {.command = pid};
	bool changed = true;
	uint64_t now;

	done->wall_us = now_us();
	for (;;) {
		struct pollfd ready[] = {{.fd = signals, .events = POLLIN},
					 {.fd = j->listener, .events = POLLIN},
					 {.fd = j->starting, .events = POLLIN}};
		struct signalfd_siginfo si;
		struct timespec left;

		/* What it says when it can't start comes before its end. */
		if (changed && j->starting < 0)
			reap(&c, done);
		now = c.command || c.alone ? 0 : now_ms();
		done->left = !c.command && !c.alone;
		if (!c.command && (c.alone || now >= c.end_ms))
			return;
		left = (struct timespec){.tv_nsec = (long)(c.end_ms - now) * 1000000};
		/* Not poll(2): see filter.c. */
		if (ppoll(ready, 3, c.command ? NULL : &left, NULL) < 0)
			continue;
		changed = ready[0].revents || ready[2].revents;
		if (ready[2].revents)
			hear_start(j);
		if (ready[1].revents)
			look_at_call(j);
		if (ready[0].revents && read(signals, &si, sizeof(si)) == sizeof(si))
			pass_signal(&si);
	}
}

static int open_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	return signalfd(-1, &all, SFD_CLOEXEC);
}

/*
 * From here on we, too, are under it: what it looks for was done, or is not done by us; nor by a
 * child before its exec, for which we wait and can't listen.
 */
static void listen_to_filter(struct job *j)
{
	const struct filter *filter = j->req.seeks   ? j->setup->seek_filter
				      : j->req.reads ? j->setup->read_filter
						     : j->setup->filter;

	j->listener = j->starting = -1;
	if (j->req.trace && j->setup->trace_filter) {
		j->trace = trace_new();
		return;
	}
	j->listener = filter ? filter_install(filter) : -ENOTSUP;
	if (j->listener >= 0)
		return;
	log_debug("no filter of system calls: %s", err_text(j->listener));
	(void)wall_install_untold(j->setup->ids.uid == 0); /* see raise_wall() */
}

/* Ends the process when there is none to come. */
static void take_job(struct job *j, int orders)
{
	int fds[LM_FDS_MAX], r;
	struct lm_packet p;
	size_t n;

	r = lm_recv(orders, &p, fds, &n, 0);
	if (r < 0 || p.kind != LM_RUN || n != LM_RUN_FDS)
		_exit(0);
	(void)close(orders);
	j->id = p.job_id;
	job_init_name(j->id);
	if (j->err < 0)
		jobinit_refuse(j, j->err, "%s", j->failed);
	r = lm_request_unpack(fds[0], &j->req);
	if (r < 0)
		jobinit_refuse(j, r, "can't read the job");
	(void)close(fds[0]);
	memcpy(j->stdio, fds + 1, sizeof(j->stdio));
	if (fstat(j->stdio[0], &j->input) < 0)
		jobinit_refuse(j, -errno, "can't look at its input");
	j->n = strv_len(j->req.workspaces);
	if (j->n > PROTO_WORKSPACES_MAX)
		jobinit_refuse(j, CONCC_E_TOOBIG, "%zu workspaces", j->n);
	for (size_t i = 0; i < j->n; i++)
		j->overlay_fds[i] = -1;
}

/* For who measures: it is in no job's own account. */
static void log_trace_cost(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_SELF, &u);
	log_debug("a trace took %llu us of CPU",
		  (unsigned long long)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
			  (unsigned long long)(u.ru_utime.tv_usec + u.ru_stime.tv_usec));
}

void job_init(int sock, int orders, const struct launcher_setup *setup)
{
	struct job j = {.sock = sock, .setup = setup, .mirror = -1};
	struct lm_packet p = {.kind = LM_PREPARED};
	const char *what;
	int r, signals;
	pid_t pid;

	/* The command leads no group, as it leads none in a script or in make: setsid(1) forks
	 * where it does, and what it starts is on its own then. */
	(void)setsid();
	jobinit_mount_common(&j);
	take_job(&j, orders);
	jobinit_mount_own(&j);
	r = caller_become_nice(&j.req.caller, &setup->own, &what);
	if (r < 0)
		jobinit_refuse(&j, r, "can't give it its caller's %s", what);
	signals = open_signals();
	if (signals < 0)
		jobinit_refuse(&j, -errno, "can't make a signalfd");
	listen_to_filter(&j);
	p.job_id = j.id;
	r = lm_send(sock, &p, j.fds, j.n + 1, 0);
	if (r < 0)
		jobinit_refuse(&j, r, "can't hand over the upper layers");
	j.first = pid = j.trace ? start_traced(&j) : start_command(&j);
	/* So that the readers of the command's output see its end. */
	for (int i = 0; i < 3; i++)
		(void)close(j.stdio[i]);
	p.kind = LM_DONE;
	wait_for(&j, pid, signals, &p);
	if (p.left)
		end_all();
	(void)getrusage(RUSAGE_CHILDREN, &p.rusage);
	r = j.trace ? trace_finish(j.trace) : -1;
	if (j.trace)
		log_trace_cost();
	(void)lm_send(sock, &p, &r, r >= 0, 0);
	_exit(0);
}
