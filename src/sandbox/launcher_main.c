/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The launcher process: pid 1 of the agent's pid namespace, single-threaded.
 * It waits for the agent's packets and for its children, the jobs' inits, and
 * never for anything else.  The init of the next job is there before the job is,
 * so that a job waits for none of the mounts that it shares with all others.  A send to the agent
 * may block, which is harmless: the agent never blocks on us.
 */
#include "launchmsg.h"
#include "mountpoint.h"
#include "wall.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/io.h"
#include "concc/mirror.h"
#include "concc/str.h"

struct running_job {
	pid_t pid;
	uint32_t id;
};

/* An init without a job; pid 0: none. */
struct spare {
	pid_t pid;
	int orders;
	size_t n_spots, n_trees; /* of the root it has seen: mounts made since then it lacks */
};

struct state {
	int sock;
	struct launcher_setup *setup;
	struct root root;
	struct running_job *jobs; /* in no order */
	size_t n, cap;
	struct spare spare;
	size_t n_trees; /* of the client's, shown so far */
};

/* ---- setting up ---- */

/* What was the agent's must not live on in here: its link, the FUSE device, its handlers. */
static int drop_inheritance(int sock)
{
	sigset_t all;
	int null;

	sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	caller_reset_signals();
	(void)setsid();
	if (sock != 3 && dup3(sock, 3, O_CLOEXEC) < 0)
		return -errno;
	(void)syscall(SYS_close_range, 4U, ~0U, 0U);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		return -errno;
	(void)close(null);
	return 3;
}

/*
 * What the root of a client may keep: acting on its own files and processes.  Not
 * CAP_DAC_READ_SEARCH, which adds to CAP_DAC_OVERRIDE only files by handle, of the whole host.
 */
static bool is_kept(int cap)
{
	return cap == CAP_CHOWN || cap == CAP_DAC_OVERRIDE || cap == CAP_FOWNER ||
	       cap == CAP_FSETID || cap == CAP_KILL || cap == CAP_SETGID || cap == CAP_SETUID;
}

/*
 * The bounding set limits what any exec in here gives; we, who never exec, keep
 * what we need for mounts.  Other users than root lose all at an exec anyway.
 */
static int limit_privileges(void)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if (!is_kept(cap) && prctl(PR_CAPBSET_DROP, cap) < 0)
			return -errno;
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/*
 * Of all jobs, so that none pays for it.  Where the kernel can't, the other walls stand: a job has
 * no capabilities, and namespaces of its own.
 */
static void raise_wall(const struct launcher_setup *setup)
{
	int r;

	/* The login's keys: a new session has none of them. */
	(void)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	r = wall_install(setup->ids.uid == 0);
	if (r < 0)
		log_warn("jobs may use all system calls: %s", err_text(r));
}

/* Jobs go on without one. */
static void make_filter(struct launcher_setup *setup)
{
	const struct sandbox_config *ids = &setup->ids;
	struct filter_config c = {
		.uid = ids->uid,
		.gid = ids->gid,
		.becomes = geteuid() != ids->uid || getegid() != ids->gid,
	};

	if (filter_new(&c, &setup->filter) < 0)
		log_debug("no filter of system calls for this architecture");
	c.reads = true;
	(void)filter_new(&c, &setup->read_filter); /* the same */
	c.reads = false;
	c.seeks = true;
	(void)filter_new(&c, &setup->seek_filter);
	c.reads = c.traces = true;
	(void)filter_new(&c, &setup->trace_filter); /* the same */
}

/*
 * Once for all jobs: one that has descriptors, most of which nobody uses, costs no message for
 * that.  In the agent's view, which is still ours.
 */
static void open_stand_ins(struct launcher_setup *setup)
{
	_cleanup_free_ char *dir = path_join(setup->mirror, MIRROR_OUTSIDE);
	_cleanup_free_ char *path = path_join(dir, MIRROR_STAND_IN);

	for (int access = 0; access < 3; access++) {
		setup->stand_ins[access] = open(path, access | O_CLOEXEC);
		if (setup->stand_ins[access] < 0)
			log_debug("nothing stands in for descriptors: %s", err_text(-errno));
	}
}

static int set_up(struct state *s, struct errmsg *msg)
{
	const struct sandbox_config *ids = &s->setup->ids;
	_cleanup_strv_ char **mirrored = root_mirrored(ids->top, ids->links, ids->client_root);
	struct root_config c = {
		.mirror = s->setup->mirror,
		.scratch = s->setup->scratch,
		.mirrored = mirrored,
		.client = ids->client_root,
		.links = ids->links,
	};
	int r;

	open_stand_ins(s->setup);
	r = root_build(&s->root, &c, msg);
	if (r < 0)
		return r;
	r = limit_privileges();
	if (r < 0)
		return errmsg_set(msg, r, "can't limit the jobs' privileges: %s", err_text(r));
	caller_read(&s->setup->own);
	raise_wall(s->setup);
	make_filter(s->setup);
	return 0;
}

/* ---- jobs ---- */

static void send_text(struct state *s, uint32_t kind, uint32_t job_id, int value, const char *text)
{
	struct lm_packet p = {.kind = kind, .job_id = job_id, .value = value};

	(void)strncpy(p.text, text, sizeof(p.text) - 1);
	if (lm_send(s->sock, &p, NULL, 0, 0) < 0)
		_exit(1); /* no agent, no launcher */
}

static void add_job(struct state *s, pid_t pid, uint32_t id)
{
	if (s->n == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 64;
		s->jobs = xrealloc(s->jobs, s->cap * sizeof(s->jobs[0]));
	}
	s->jobs[s->n++] = (struct running_job){.pid = pid, .id = id};
}

/* /proc and /dev are every job's own. */
static bool is_reserved(const char *path)
{
	return path[0] != '/' || streq(path, "/") || path_is_below(path, "/proc") ||
	       path_is_below(path, "/dev") || path_is_below(path, "/sys");
}

/* One that has gone meanwhile is left out: what a job looks up there is reported. */
static void show_new_trees(struct state *s, const struct lm_request *req)
{
	size_t n = strv_len(req->trees);

	for (; s->n_trees < n; s->n_trees++) {
		struct errmsg msg = {""};

		if (root_show_tree(&s->root, req->trees[s->n_trees], &msg) < 0)
			log_warn("%s", msg.text);
	}
}

static int prepare_mountpoints(struct state *s, const struct lm_request *req, struct errmsg *msg)
{
	for (size_t i = 0; req->workspaces[i]; i++) {
		const char *path = req->workspaces[i];
		int r = 0;

		if (is_reserved(path))
			return errmsg_set(msg, -EINVAL, "%s can't be a workspace", path);
		/* Those in /tmp get theirs in the job's private one. */
		if (!path_is_below(path, "/tmp") && !path_is_below(path, "/var/tmp"))
			r = root_mountpoint(&s->root, path, msg);
		if (r < 0)
			return r;
	}
	return 0;
}

/* It ends by itself when its orders do, or has ended. */
static void spare_forget(struct spare *p)
{
	if (p->pid)
		(void)close(p->orders);
	p->pid = 0;
}

static int spare_start(struct state *s)
{
	int fds[2];
	long pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	/* Not process_fork(), which has no flags; we are single-threaded, so all is well. */
	pid = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0) {
		(void)close(fds[0]);
		job_init(s->sock, fds[1], s->setup);
	}
	(void)close(fds[1]);
	if (pid < 0) {
		int err = -errno;

		(void)close(fds[0]);
		return err;
	}
	s->spare = (struct spare){(pid_t)pid, fds[0], s->root.n, s->n_trees};
	return 0;
}

static int hand_over(struct state *s, uint32_t id, const int fds[LM_RUN_FDS])
{
	struct lm_packet p = {.kind = LM_RUN, .job_id = id};
	int r = 0;

	if (s->spare.n_spots != s->root.n || s->spare.n_trees != s->n_trees)
		spare_forget(&s->spare);
	if (!s->spare.pid)
		r = spare_start(s);
	if (r < 0)
		return r;
	r = lm_send(s->spare.orders, &p, fds, LM_RUN_FDS, 0);
	if (r == 0)
		add_job(s, s->spare.pid, id);
	spare_forget(&s->spare);
	return r;
}

static void run_job(struct state *s, uint32_t id, const int fds[LM_RUN_FDS])
{
	struct lm_request req = {0};
	struct errmsg msg = {""};
	int r;

	r = lm_request_unpack(fds[0], &req);
	if (r == 0) {
		show_new_trees(s, &req);
		r = prepare_mountpoints(s, &req, &msg);
	}
	lm_request_release(&req);
	if (r == 0)
		r = hand_over(s, id, fds);
	if (r < 0) {
		send_text(s, LM_REFUSED, id, r, msg.text[0] ? msg.text : err_text(r));
		send_text(s, LM_GONE, id, 0, "");
	}
}

static void kill_job(struct state *s, uint32_t id, int signo)
{
	union sigval v = {.sival_int = signo};

	for (size_t i = 0; i < s->n; i++) {
		if (s->jobs[i].id != id)
			continue;
		if (signo == SIGKILL)
			(void)kill(s->jobs[i].pid, SIGKILL);
		else
			(void)sigqueue(s->jobs[i].pid, JOB_SIGNAL, v);
	}
}

static void reap(struct state *s)
{
	struct lm_packet p = {.kind = LM_GONE};
	int status;
	pid_t pid;

	while ((pid = wait4(-1, &status, WNOHANG, &p.rusage)) > 0) {
		if (pid == s->spare.pid)
			spare_forget(&s->spare);
		for (size_t i = 0; i < s->n; i++) {
			if (s->jobs[i].pid != pid)
				continue;
			p.job_id = s->jobs[i].id;
			p.value = status;
			s->jobs[i] = s->jobs[--s->n];
			if (lm_send(s->sock, &p, NULL, 0, 0) < 0)
				_exit(1);
			break;
		}
	}
}

static void receive(struct state *s)
{
	struct lm_packet p;
	int fds[LM_FDS_MAX];
	size_t n;
	int r = lm_recv(s->sock, &p, fds, &n, MSG_DONTWAIT);

	if (r == -EAGAIN)
		return;
	if (r < 0)
		_exit(r == CONCC_E_CLOSED ? 0 : 1);
	send_text(s, LM_ACK, 0, 0, "");
	if (p.kind == LM_RUN && n == LM_RUN_FDS)
		run_job(s, p.job_id, fds);
	else if (p.kind == LM_KILL)
		kill_job(s, p.job_id, p.value);
	for (size_t i = 0; i < n; i++)
		(void)close(fds[i]);
	/* Without it the next job makes one, or tells why not. */
	if (!s->spare.pid)
		(void)spare_start(s);
}

static _Noreturn void serve(struct state *s)
{
	sigset_t chld;
	struct pollfd pfd[2];

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	pfd[0] = (struct pollfd){.fd = s->sock, .events = POLLIN};
	pfd[1] = (struct pollfd){.fd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK),
				 .events = POLLIN};
	if (pfd[1].fd < 0)
		_exit(1);
	for (;;) {
		struct signalfd_siginfo si;

		if (poll(pfd, 2, -1) < 0 && errno != EINTR)
			_exit(1);
		if (pfd[1].revents) {
			(void)!read(pfd[1].fd, &si, sizeof(si)); /* one stands for all */
			reap(s);
		}
		if (pfd[0].revents)
			receive(s);
	}
}

void launcher_main(int sock, struct launcher_setup *setup)
{
	struct state s = {.setup = setup};
	struct errmsg msg = {""};
	int r;

	/* If the agent died before this, the socket's end tells. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	s.sock = drop_inheritance(sock);
	if (s.sock < 0)
		_exit(1);
	r = set_up(&s, &msg);
	send_text(&s, LM_READY, 0, r, msg.text);
	if (r < 0)
		_exit(1);
	(void)spare_start(&s); /* or with the first job */
	serve(&s);
}
