/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/process.h"
#include "concc/str.h"
#include "stderr_tail.h"

#define GRACE_MS      2000	   /* for a child that closed its output to end and be explained */
#define PATIENCE_MS   3000	   /* for a container or batch job to end when its input does */
#define KILL_MS	      5000	   /* for a child that was told to end */
#define SOCKET_SNDBUF (128 * 1024) /* small: what is in the kernel can't be overtaken any more */

/* ---- starting ---- */

static int make_pipe(int *ret_read, int *ret_write)
{
	int fds[2], err;

	err = pipe_above_stdio(fds);
	if (err < 0)
		return err;
	*ret_read = fds[0];
	*ret_write = fds[1];
	return 0;
}

static int make_sockets(int *ret_ours, int *ret_theirs)
{
	int fds[2], size = SOCKET_SNDBUF;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) /* a matter of latency only */
		(void)setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	*ret_ours = fds[0];
	*ret_theirs = fds[1];
	return 0;
}

/* As shells, engines of containers and kubectl say it of what they ran. */
#define STATUS_KILLED (128 + SIGKILL)

void put_status(struct buf *b, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_KILLED)
		buf_putf(b, "exit status %d, as of what is killed there: out of memory, or removed",
			 STATUS_KILLED);
	else if (WIFEXITED(status))
		buf_putf(b, "exit status %d", WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		buf_putf(b, "killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
}

/* ---- the child behind a stream ---- */

/* Outlives its stream until it is reaped. */
struct child {
	struct loop *loop;
	char *name;
	pid_t pid;
	int pid_fd;
	int stderr_fd; /* -1 at its end */
	struct loop_source *stderr_source, *exit_source, *kill_timer;
	struct stderr_tail tail;
	bool exited, orphan, patient;
	int status;
};

struct stream_child {
	struct stream stream;
	struct stream *io;
	struct child *child;
	bool at_end;  /* the child closed its output */
	int grace_fd; /* how long its exit is waited for then */
	struct buf why;
};

static void child_free(struct child *c)
{
	loop_remove(c->stderr_source);
	loop_remove(c->exit_source);
	loop_remove(c->kill_timer);
	if (c->stderr_fd >= 0)
		close(c->stderr_fd);
	close(c->pid_fd);
	stderr_tail_release(&c->tail);
	free(c->name);
	free(c);
}

/* False at the end, or when nothing more is there now. */
static bool read_stderr(struct child *c)
{
	uint8_t part[4096];
	ssize_t n = read(c->stderr_fd, part, sizeof(part));

	if (n > 0) {
		stderr_tail_add(&c->tail, c->name, part, (size_t)n);
		return true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	loop_remove(c->stderr_source);
	c->stderr_source = NULL;
	close(c->stderr_fd);
	c->stderr_fd = -1;
	return false;
}

/* One part a round: a chatty child gets no more of the loop than others. */
static void on_stderr(void *data, uint32_t events)
{
	(void)read_stderr(data);
}

static void on_exit_status(void *data, pid_t pid, int status)
{
	struct child *c = data;

	c->exit_source = NULL;
	c->exited = true;
	c->status = status;
	if (!c->orphan)
		return;
	/* What it left behind in its group has lost its purpose.  The number can't have been given
	 * away yet: it was free for an instant only. */
	(void)kill(-c->pid, SIGKILL);
	child_free(c);
}

static void kill_group(void *data)
{
	struct child *c = data;

	(void)kill(-c->pid, SIGKILL); /* not reaped yet, so the group is ours */
}

static void end_group(void *data)
{
	struct child *c = data;

	(void)kill(-c->pid, SIGTERM);
	loop_remove(c->kill_timer);
	c->kill_timer = loop_add_timer(c->loop, KILL_MS, kill_group, c);
}

/* The stream is gone; the loop reaps what it leaves. */
static void child_end(struct child *c)
{
	if (c->exited) {
		child_free(c);
		return;
	}
	c->orphan = true;
	if (c->patient)
		c->kill_timer = loop_add_timer(c->loop, PATIENCE_MS, end_group, c);
	else
		end_group(c);
}

/* NULL and errno when its end can't be waited for; then the descriptors are still the caller's. */
static struct child *child_new(struct loop *l, pid_t pid, int pid_fd, int stderr_fd,
			       const char *name)
{
	struct child *c = xcalloc(1, sizeof(*c));

	c->exit_source = loop_add_child(l, pid, on_exit_status, c);
	if (!c->exit_source) {
		free(c);
		return NULL;
	}
	c->loop = l;
	c->name = xstrdup(name);
	c->pid = pid;
	c->pid_fd = pid_fd;
	c->stderr_fd = stderr_fd;
	c->stderr_source = loop_add_fd(l, stderr_fd, LOOP_READ, on_stderr, c);
	return c;
}

static bool grace_is_over(const struct stream_child *s)
{
	struct pollfd p = {.fd = s->grace_fd, .events = POLLIN};

	return s->grace_fd < 0 || poll(&p, 1, 0) > 0;
}

/* The end is told only when the exit status is known too, or does not come. */
static ssize_t child_read(struct stream *stream, void *p, size_t n)
{
	struct stream_child *s = (struct stream_child *)stream;
	struct itimerspec its = {.it_value.tv_sec = GRACE_MS / 1000,
				 .it_value.tv_nsec = (GRACE_MS % 1000) * 1000000};
	ssize_t r;

	if (!s->at_end) {
		r = s->io->ops->read(s->io, p, n);
		if (r != 0)
			return r;
		s->at_end = true;
		s->grace_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		if (s->grace_fd >= 0)
			(void)timerfd_settime(s->grace_fd, 0, &its, NULL); /* valid by constants */
	}
	return s->child->exited || grace_is_over(s) ? 0 : -EAGAIN;
}

static ssize_t child_write(struct stream *stream, const void *p, size_t n)
{
	struct stream_child *s = (struct stream_child *)stream;

	return s->io->ops->write(s->io, p, n);
}

static void child_want(struct stream *stream, bool reading, bool blocked, int fds[2],
		       uint32_t events[2])
{
	struct stream_child *s = (struct stream_child *)stream;

	if (!s->at_end) {
		s->io->ops->want(s->io, reading, blocked, fds, events);
		return;
	}
	fds[0] = s->child->pid_fd;
	fds[1] = s->grace_fd;
	events[0] = events[1] = LOOP_READ;
}

static const char *child_explain(struct stream *stream)
{
	struct stream_child *s = (struct stream_child *)stream;

	/* Bounded: a child that goes on talking is not waited for. */
	for (int i = 0; i < 16 && s->child->stderr_fd >= 0; i++)
		if (!read_stderr(s->child))
			break;
	buf_reset(&s->why);
	if (s->child->exited)
		put_status(&s->why, s->child->status);
	stderr_tail_put(&s->child->tail, &s->why);
	return buf_cstr(&s->why);
}

static void child_stream_free(struct stream *stream)
{
	struct stream_child *s = (struct stream_child *)stream;

	stream_free(s->io);
	child_end(s->child);
	if (s->grace_fd >= 0)
		close(s->grace_fd);
	buf_release(&s->why);
	free(s);
}

static const struct stream_ops child_ops = {
	.read = child_read,
	.write = child_write,
	.want = child_want,
	.explain = child_explain,
	.free = child_stream_free,
};

/* Our ends and the child's; both are closed on failure. */
struct ends {
	int read_fd, write_fd;	 /* ours; equal for a socket */
	int child_in, child_out; /* the child's; equal for a socket */
	int stderr_ours, stderr_theirs;
};

static void close_pair(int a, int b)
{
	if (a >= 0)
		close(a);
	if (b >= 0 && b != a)
		close(b);
}

static void close_ours(struct ends *e)
{
	close_pair(e->read_fd, e->write_fd);
	close_pair(e->stderr_ours, -1);
}

static void close_theirs(struct ends *e)
{
	close_pair(e->child_in, e->child_out);
	close_pair(e->stderr_theirs, -1);
}

static int make_ends(bool sockets, struct ends *e)
{
	int err;

	*e = (struct ends){-1, -1, -1, -1, -1, -1};
	err = make_pipe(&e->stderr_ours, &e->stderr_theirs);
	if (err == 0)
		err = fd_set_nonblock(e->stderr_ours, true);
	if (err == 0 && sockets) {
		err = make_sockets(&e->read_fd, &e->child_in);
		e->write_fd = e->read_fd;
		e->child_out = e->child_in;
	} else if (err == 0) {
		err = make_pipe(&e->child_in, &e->write_fd);
		if (err == 0)
			err = make_pipe(&e->read_fd, &e->child_out);
	}
	if (err < 0) {
		close_ours(e);
		close_theirs(e);
	}
	return err;
}

int spawn_stream(struct loop *l, char *const *argv, bool sockets, bool patient, const char *name,
		 struct stream **ret, struct errmsg *msg)
{
	struct stream_child *s;
	struct child *c = NULL;
	struct ends e;
	int err, pid_fd;
	pid_t pid;

	err = make_ends(sockets, &e);
	if (err < 0)
		return errmsg_set(msg, err, "starting %s: pipes: %s", argv[0], err_text(err));
	err = process_start(&(struct process){.argv = argv,
					      .fds = {e.child_in, e.child_out, e.stderr_theirs},
					      .n_fds = 3,
					      .flags = PROCESS_SESSION},
			    &pid);
	close_theirs(&e);
	if (err < 0) {
		close_ours(&e);
		return errmsg_set(msg, err, "starting %s: %s", argv[0], err_text(err));
	}
	pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pid_fd >= 0)
		c = child_new(l, pid, pid_fd, e.stderr_ours, name);
	if (!c) {
		err = -errno;
		close_pair(pid_fd, -1);
		close_ours(&e);
		(void)kill(-pid, SIGKILL);
		(void)process_wait(pid, NULL); /* was just killed */
		return errmsg_set(msg, err, "watching %s: %s", argv[0], err_text(err));
	}
	s = xcalloc(1, sizeof(*s));
	s->stream.ops = &child_ops;
	s->io = stream_from_fds(e.read_fd, e.write_fd);
	s->child = c;
	s->child->patient = patient;
	s->grace_fd = -1;
	*ret = &s->stream;
	return 0;
}

int spawn_capture(char *const *argv, size_t max, uint64_t deadline_ms, int cancel_fd,
		  struct buf *out, int *ret_status)
{
	struct process p = {
		.argv = argv,
		.fds = {PROCESS_FD_NULL, PROCESS_FD_KEPT, PROCESS_FD_KEPT},
		.n_fds = 3,
		.flags = PROCESS_SESSION,
	};

	return process_capture(&p, max, deadline_ms, cancel_fd, out, ret_status);
}
