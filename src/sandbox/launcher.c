/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The agent's end of the launcher: starts the process, queues requests to it, joins its reports. */
#include "concc/sandbox.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/map.h"
#include "concc/process.h"
#include "concc/str.h"
#include "filter.h"
#include "launchmsg.h"
#include "overlay.h"
#include "scratch.h"

#define START_MS   10000 /* until the launcher's root is built */
#define STOP_MS	   5000	 /* until the kernel has killed all jobs */
#define END_MS	   1000	 /* the same, when it died by itself and nobody can have a job any more */
#define RECV_BURST 64	 /* packets in a row before others in the loop get their turn */

struct queued {
	struct list link;
	struct lm_packet packet;
	int fds[4]; /* owned */
	size_t n_fds;
};

struct running {
	unsigned n_workspaces;
	bool reported;	/* its init said how it went */
	bool delivered; /* to our owner */
	struct job_end end;
};

struct launcher {
	struct loop *loop;
	const struct launcher_ops *ops;
	void *data;
	pid_t pid; /* -1 once reaped */
	int sock;
	struct loop_source *sock_source, *child_source;
	struct map jobs;    /* job id -> struct running */
	struct list queue;  /* struct queued, what waits for the window */
	struct list unsent; /* struct queued, jobs to be reported as ended: they can't be sent */
	struct loop_source *unsent_source;
	struct loop_source *end_timer; /* its socket is closed, so it is about to end */
	unsigned n_unacked;
	struct scratch *scratch;   /* NULL unless uppers are on disk */
	bool dispatching, stopped; /* stopped by a callback: freed when that returns */
	bool closed, lost;	   /* the far end of its socket; ops.lost was called */
};

static void launcher_release(struct launcher *l);

/* ---- sending ---- */

static void queued_free(struct queued *q)
{
	for (size_t i = 0; i < q->n_fds; i++)
		(void)close(q->fds[i]);
	free(q);
}

/* Later, since who asks for a job does not expect its end at once. */
static void report_unsent(void *data)
{
	struct launcher *l = data;

	l->unsent_source = NULL;
	l->dispatching = true;
	while (!list_empty(&l->unsent) && !l->stopped) {
		struct queued *q = list_first(&l->unsent, struct queued, link);
		struct job_end end = {.err = q->packet.value, .trace_fd = -1};
		uint32_t id = q->packet.job_id;

		snprintf(end.text, sizeof(end.text), "can't send the job to its launcher: %s",
			 err_text(end.err));
		list_remove(&q->link);
		queued_free(q);
		free(map_del_u64(&l->jobs, id)); /* which has not begun */
		l->ops->ended(l->data, id, &end);
	}
	l->dispatching = false;
	if (l->stopped)
		launcher_release(l);
}

static void end_over(void *data);

/* Its process is about to end, and tells how; while it can't, the jobs are lost all the same. */
static void expect_end(struct launcher *l)
{
	if (l->pid > 0 && !l->lost && !l->end_timer)
		l->end_timer = loop_add_timer(l->loop, END_MS, end_over, l);
}

static void send_failed(struct launcher *l, struct queued *q, int err)
{
	if (err == -EPIPE || err == -ECONNRESET) {
		expect_end(l);
		queued_free(q);
		return;
	}
	if (q->packet.kind != LM_RUN || !map_get_u64(&l->jobs, q->packet.job_id)) {
		queued_free(q);
		return;
	}
	q->packet.value = err;
	list_append(&l->unsent, &q->link);
	if (!l->unsent_source)
		l->unsent_source = loop_defer(l->loop, report_unsent, l);
}

static void send_queued(struct launcher *l)
{
	while (!list_empty(&l->queue) && l->n_unacked < LM_WINDOW) {
		struct queued *q = list_first(&l->queue, struct queued, link);
		int r = lm_send(l->sock, &q->packet, q->fds, q->n_fds, MSG_DONTWAIT);

		/* Another process of this user has too much in flight: the next ACK tries again. */
		if (r == -ETOOMANYREFS && l->n_unacked > 0)
			return;
		list_remove(&q->link);
		if (r < 0) {
			send_failed(l, q, r);
			continue;
		}
		l->n_unacked++;
		queued_free(q);
	}
}

static int dup_stdio(struct queued *q, const struct launch *j)
{
	const int stdio[3] = {j->stdin_fd, j->stdout_fd, j->stderr_fd};

	for (int i = 0; i < 3; i++) {
		int fd = fcntl(stdio[i], F_DUPFD_CLOEXEC, 3);

		if (fd < 0)
			return -errno;
		q->fds[q->n_fds++] = fd;
	}
	return 0;
}

int launcher_run(struct launcher *l, const struct launch *j)
{
	struct queued *q;
	struct running *run;
	int r;

	if (l->pid < 0 || l->lost)
		return CONCC_E_UNAVAIL;
	if (map_get_u64(&l->jobs, j->job_id))
		return -EEXIST;
	r = lm_request_pack(j);
	if (r < 0)
		return r;
	q = xcalloc(1, sizeof(*q));
	q->packet.kind = LM_RUN;
	q->packet.job_id = j->job_id;
	q->fds[q->n_fds++] = r;
	r = dup_stdio(q, j);
	if (r < 0) {
		queued_free(q);
		return r;
	}
	run = xcalloc(1, sizeof(*run));
	run->n_workspaces = (unsigned)strv_len(j->workspaces);
	(void)map_put_u64(&l->jobs, j->job_id, run);
	list_append(&l->queue, &q->link);
	send_queued(l);
	return 0;
}

pid_t launcher_pid(const struct launcher *l)
{
	return l->pid;
}

void launcher_kill(struct launcher *l, uint32_t job_id, int signo)
{
	struct queued *q;

	if (l->pid < 0 || !map_get_u64(&l->jobs, job_id))
		return;
	q = xcalloc(1, sizeof(*q));
	q->packet.kind = LM_KILL;
	q->packet.job_id = job_id;
	q->packet.value = signo;
	list_append(&l->queue, &q->link);
	send_queued(l);
}

/* ---- reports ---- */

static void close_fds(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)close(fds[i]);
}

static void on_prepared(struct launcher *l, struct running *run, const struct lm_packet *p,
			int *fds, size_t n)
{
	if (n != run->n_workspaces + 1) {
		close_fds(fds, n);
		return;
	}
	run->end.started = true;
	l->ops->prepared(l->data, p->job_id, fds, n - 1, fds[n - 1]);
}

static void on_beyond(struct launcher *l, struct lm_packet *p)
{
	p->text[sizeof(p->text) - 1] = '\0';
	l->ops->beyond(l->data, p->job_id, p->text);
}

static void on_look(struct launcher *l, struct running *run, struct lm_packet *p)
{
	p->text[sizeof(p->text) - 1] = '\0';
	if (p->value >= 0 && (size_t)p->value < run->n_workspaces)
		l->ops->looks(l->data, p->job_id, p->kind == LM_LOCKED ? LAUNCH_LOCKS : LAUNCH_ASKS,
			      (size_t)p->value, p->text);
}

static void on_refused(struct running *run, const struct lm_packet *p)
{
	run->reported = true;
	run->end.started = false;
	run->end.err = p->value;
	memcpy(run->end.text, p->text, sizeof(run->end.text));
	run->end.text[sizeof(run->end.text) - 1] = '\0';
}

/* Only its init is left of the job, about to end. */
static void on_done(struct launcher *l, struct running *run, const struct lm_packet *p, int trace)
{
	struct job_end end;

	if (run->reported)
		return;
	run->reported = run->delivered = true;
	run->end.wait_status = p->value;
	run->end.rusage = p->rusage;
	run->end.wall_us = p->wall_us;
	run->end.left = p->left;
	end = run->end;
	end.trace_fd = trace;
	l->ops->ended(l->data, p->job_id, &end);
}

/* The init is reaped, so the kernel has ended every process of the job. */
static void on_gone(struct launcher *l, struct running *run, const struct lm_packet *p)
{
	bool delivered = run->delivered;
	struct job_end end;

	if (!run->reported && run->end.started) {
		/* Killed from here: the command's end is its init's. */
		run->end.wait_status = p->value;
		run->end.rusage = p->rusage;
	} else if (!run->reported) {
		run->end.err = CONCC_E_CLOSED;
		snprintf(run->end.text, sizeof(run->end.text),
			 "the job was killed before its command started");
	}
	end = run->end;
	end.trace_fd = -1;
	if (l->scratch)
		scratch_job_ended(l->scratch, p->job_id, run->n_workspaces);
	(void)map_del_u64(&l->jobs, p->job_id);
	free(run);
	if (!delivered)
		l->ops->ended(l->data, p->job_id, &end);
}

static void on_packet(struct launcher *l, struct lm_packet *p, int *fds, size_t n)
{
	struct running *run = map_get_u64(&l->jobs, p->job_id);

	if (p->kind == LM_ACK) {
		l->n_unacked -= l->n_unacked > 0;
		send_queued(l);
	} else if (run && p->kind == LM_PREPARED) {
		on_prepared(l, run, p, fds, n);
	} else if (run && p->kind == LM_BEYOND) {
		on_beyond(l, p);
	} else if (run && (p->kind == LM_LOCKED || p->kind == LM_ASKED)) {
		on_look(l, run, p);
	} else if (run && p->kind == LM_REFUSED) {
		on_refused(run, p);
	} else if (run && p->kind == LM_DONE) {
		on_done(l, run, p, n == 1 ? fds[0] : -1);
		close_fds(fds, n);
	} else if (run && p->kind == LM_GONE) {
		on_gone(l, run, p);
	} else {
		close_fds(fds, n);
	}
}

static void launcher_release(struct launcher *l)
{
	struct running *run;
	size_t it = 0;

	list_for_each_safe (pos, &l->queue)
		queued_free(container_of(pos, struct queued, link));
	list_for_each_safe (pos, &l->unsent)
		queued_free(container_of(pos, struct queued, link));
	while ((run = map_next(&l->jobs, &it, NULL)))
		free(run);
	map_release(&l->jobs);
	loop_remove(l->sock_source);
	loop_remove(l->child_source);
	loop_remove(l->unsent_source);
	loop_remove(l->end_timer);
	if (l->sock >= 0)
		(void)close(l->sock);
	scratch_free(l->scratch);
	free(l);
}

/* At most max packets; false when a callback stopped the launcher, which is then no more. */
static bool receive(struct launcher *l, unsigned max)
{
	l->dispatching = true;
	while (max-- > 0 && !l->stopped) {
		struct lm_packet p;
		int fds[LM_FDS_MAX];
		size_t n;
		int r = lm_recv(l->sock, &p, fds, &n, MSG_DONTWAIT);

		l->closed |= r == CONCC_E_CLOSED;
		if (r == -EMFILE) /* that job lacks its uppers, and ends as refused */
			log_err("launcher: out of file descriptors: raise RLIMIT_NOFILE");
		else if (r < 0)
			break;
		else
			on_packet(l, &p, fds, n);
	}
	l->dispatching = false;
	if (!l->stopped)
		return true;
	launcher_release(l);
	return false;
}

static void on_readable(void *data, uint32_t events)
{
	struct launcher *l = data;

	if (!receive(l, RECV_BURST))
		return;
	if (l->closed || ((events & LOOP_HANGUP) && !(events & LOOP_READ))) {
		loop_remove(steal_ptr(&l->sock_source));
		expect_end(l);
	}
}

static void lost(struct launcher *l, int status)
{
	/* What it said before it died still counts. */
	if (!receive(l, ~0U))
		return;
	loop_remove(steal_ptr(&l->sock_source));
	loop_remove(steal_ptr(&l->end_timer));
	l->lost = true;
	l->dispatching = true;
	l->ops->lost(l->data, status);
	l->dispatching = false;
	if (l->stopped)
		launcher_release(l);
}

static void end_over(void *data)
{
	lost(data, -1);
}

static void on_child(void *data, pid_t pid, int status)
{
	struct launcher *l = data;

	l->pid = -1;
	l->child_source = NULL;
	if (!l->lost)
		lost(l, status);
}

/* ---- life ---- */

static int choose_disk(const char *mirror, struct scratch **ret, struct errmsg *msg)
{
	struct scratch *s = NULL;
	int r = scratch_new(&s, msg);

	if (r < 0)
		return r;
	r = overlay_probe(UPPER_DISK_USER, mirror, scratch_path(s));
	if (r < 0) {
		errmsg_set(msg, r,
			   "can't stack an overlay in %s: %s: Linux 5.11 or newer is needed, with "
			   "the overlay module, and CONCC_CACHE_DIR on ext4, xfs or btrfs",
			   scratch_path(s), err_text(r));
		scratch_free(s);
		return r;
	}
	(void)scratch_clear(s); /* of the probe; what stays goes in the end */
	*ret = s;
	return 0;
}

static int choose_upper(const char *mirror, enum upper_kind *ret, struct scratch **ret_scratch,
			struct errmsg *msg)
{
	const char *wish = getenv(OVERLAY_UPPER_ENV);

	*ret_scratch = NULL;
	for (*ret = UPPER_TMPFS_USER; *ret < UPPER_DISK_USER; (*ret)++)
		if (!(wish && streq(wish, "disk")) && overlay_probe(*ret, mirror, NULL) == 0)
			return 0;
	return choose_disk(mirror, ret_scratch, msg);
}

/*
 * Two steps, since only fork(2) leaves a child of a threaded process with a
 * sane allocator, and only clone(2) makes namespaces: the first child makes the
 * second, as another child of the agent, says which pid it has, and ends.
 */
static pid_t fork_launcher(int sock, struct launcher_setup *setup)
{
	int fds[2];
	pid_t step, pid = -1;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	step = process_fork();
	if (step == 0) {
		long r = syscall(SYS_clone,
				 CLONE_PARENT | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | SIGCHLD,
				 NULL, NULL, NULL, NULL);

		if (r == 0)
			launcher_main(sock, setup);
		pid = r < 0 ? (pid_t)-errno : (pid_t)r;
		(void)write_full(fds[1], &pid, sizeof(pid));
		_exit(0);
	}
	if (step < 0)
		pid = step;
	(void)close(fds[1]);
	if (step > 0 && read_full(fds[0], &pid, sizeof(pid)) != sizeof(pid))
		pid = -ECHILD;
	(void)close(fds[0]);
	if (step > 0)
		(void)process_wait(step, NULL);
	return pid;
}

static int wait_ready(int sock, struct errmsg *msg)
{
	struct pollfd pfd = {.fd = sock, .events = POLLIN};
	struct lm_packet p;
	int fds[LM_FDS_MAX], r;
	size_t n;

	do {
		r = poll(&pfd, 1, START_MS);
	} while (r < 0 && errno == EINTR);
	if (r == 0)
		return errmsg_set(msg, CONCC_E_TIMEOUT,
				  "the launcher of jobs did not get ready in %d s",
				  START_MS / 1000);
	r = lm_recv(sock, &p, fds, &n, MSG_DONTWAIT);
	if (r < 0)
		return errmsg_set(msg, r, "the launcher of jobs died at its start: %s",
				  err_text(r));
	close_fds(fds, n);
	return p.value < 0 ? errmsg_set(msg, p.value, "%s", p.text) : 0;
}

static void kill_and_reap(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0), r = 1;
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	(void)kill(pid, SIGKILL);
	/* A process that waits for the mirror can't die before that answers or is stopped. */
	if (fd >= 0) {
		do {
			r = poll(&pfd, 1, STOP_MS);
		} while (r < 0 && errno == EINTR);
		(void)close(fd);
	}
	if (r == 0)
		log_warn("launcher: processes of jobs are stuck in the kernel; going on");
	(void)waitpid(pid, NULL, r == 0 ? WNOHANG : 0);
}

int launcher_start(struct loop *l, const struct sandbox_config *c, const char *mirror,
		   const struct launcher_ops *ops, void *data, struct launcher **ret,
		   struct errmsg *msg)
{
	struct launcher_setup setup = {.ids = *c, .mirror = mirror};
	struct launcher *la;
	struct scratch *scratch;
	int fds[2], r;
	pid_t pid;

	overlay_bound_tmpfs();
	r = choose_upper(mirror, &setup.upper, &scratch, msg);
	if (r < 0)
		return r;
	setup.scratch = scratch ? scratch_path(scratch) : NULL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		r = errmsg_set(msg, -errno, "can't make a socket pair: %s", err_text(-errno));
		scratch_free(scratch);
		return r;
	}
	pid = fork_launcher(fds[1], &setup);
	(void)close(fds[1]);
	r = pid < 0 ? errmsg_set(msg, pid, "can't start the launcher of jobs: %s", err_text(pid))
		    : wait_ready(fds[0], msg);
	if (r < 0) {
		if (pid > 0)
			kill_and_reap(pid);
		(void)close(fds[0]);
		scratch_free(scratch);
		return r;
	}
	la = xcalloc(1, sizeof(*la));
	la->loop = l;
	la->ops = ops;
	la->data = data;
	la->pid = pid;
	la->sock = fds[0];
	la->scratch = scratch;
	list_init(&la->queue);
	list_init(&la->unsent);
	la->child_source = loop_add_child(l, pid, on_child, la);
	if (!la->child_source) {
		r = errmsg_set(msg, -errno, "can't watch the launcher of jobs: %s",
			       err_text(-errno));
		launcher_stop(la);
		return r;
	}
	la->sock_source = loop_add_fd(l, la->sock, LOOP_READ, on_readable, la);
	log_debug("launcher: pid %d, uppers %s", (int)pid,
		  setup.upper == UPPER_DISK_USER ? scratch_path(scratch) : "on tmpfs");
	*ret = la;
	return 0;
}

void launcher_stop(struct launcher *l)
{
	if (!l)
		return;
	loop_remove(l->child_source);
	l->child_source = NULL;
	if (l->pid > 0)
		kill_and_reap(l->pid);
	l->pid = -1;
	l->stopped = true;
	if (!l->dispatching)
		launcher_release(l);
}
