/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "client.h"
#include "place.h"
#include "server.h"

/* Connections that can't be taken, for want of memory of the kernel's, say, are tried again then;
 * so often in vain, and another server has to try. */
#define LISTEN_PAUSE_MS 1000
#define LISTEN_TRIES	3
/* How long a server may take to end: its workers' commands, its disk and the far store have their
 * limits, which are 32 s together. */
#define TAKE_OVER_S 40

struct listener {
	int fd;
	int spare_fd;	   /* to be closed when there is no other for accept(2) */
	int fd_limit;	   /* as last read: whoever may can lower it */
	unsigned n_failed; /* in a row */
	struct loop_source *source, *timer;
};

void listen_set_up(struct server *s)
{
	s->listener = xmalloc(sizeof(*s->listener));
	*s->listener = (struct listener){.fd = -1, .spare_fd = -1};
	listen_learn_fd_limit(s);
}

/* ---- the lock ---- */

static int lock_byte(int fd, int cmd, short type, off_t at)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

	return fcntl(fd, cmd, &fl) < 0 ? -errno : 0;
}

static void on_alarm(int signo)
{
	(void)signo;
}

/* A server that is about to end still holds the lock for a moment: worth waiting for. */
static int wait_instance_lock(int fd)
{
	struct sigaction sa = {.sa_handler = on_alarm}; /* without SA_RESTART: ends the wait */
	int r;

	(void)sigaction(SIGALRM, &sa, NULL);
	(void)alarm(TAKE_OVER_S);
	r = lock_byte(fd, F_OFD_SETLKW, F_WRLCK, 0);
	(void)alarm(0);
	return r;
}

int listen_lock(struct server *s, struct errmsg *msg)
{
	struct flock ready = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 1};
	char pid[16];
	int r;

	s->lock_fd = openat(s->dir_fd, "project.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
			    0600);
	if (s->lock_fd < 0)
		return errmsg_set(msg, -errno, "can't open %s/project.lock: %s", s->dir,
				  err_text(-errno));
	r = lock_byte(s->lock_fd, F_OFD_SETLK, F_WRLCK, 0);
	if (r < 0 && fcntl(s->lock_fd, F_OFD_GETLK, &ready) == 0 && ready.l_type == F_UNLCK)
		r = wait_instance_lock(s->lock_fd);
	if (r < 0)
		return errmsg_set(msg, -EEXIST, "a project server runs already for %s", s->dir);
	/* For server_wait_end(), which does without on a full disk. */
	if (ftruncate(s->lock_fd, 0) == 0)
		(void)!write(s->lock_fd, pid,
			     (size_t)snprintf(pid, sizeof(pid), "%d\n", (int)getpid()));
	return 0;
}

/* These locks are what wrappers look at; the line is for who started us. */
void listen_say_ready(struct server *s)
{
	/* First for those who speak our version: so nobody takes us for another. */
	int r = lock_byte(s->lock_fd, F_OFD_SETLK, F_WRLCK, PROTO_READY_BYTE);

	if (r == 0)
		r = lock_byte(s->lock_fd, F_OFD_SETLK, F_WRLCK, PROTO_THERE_BYTE);
	if (r < 0)
		log_err("can't lock project.lock: %s", err_text(r));
	if (s->ready_fd >= 0) {
		(void)write_full(s->ready_fd, "ready\n", 6); /* it may have gone */
		close(s->ready_fd);
		s->ready_fd = -1;
	}
	s->ready = true;
	if (s->listener)
		fd_close(&s->listener->spare_fd);
	listen_learn_fd_limit(s); /* the lowest that there is now: the last that a limit takes */
}

/* ---- the socket ---- */

void listen_learn_fd_limit(struct server *s)
{
	struct rlimit rl;

	if (!s->listener)
		return;
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0)
		s->listener->fd_limit = rl.rlim_cur < INT_MAX ? (int)rl.rlim_cur : INT_MAX;
	if (s->listener->spare_fd < 0)
		s->listener->spare_fd = open("/", O_PATH | O_CLOEXEC);
}

int listen_fd_limit(const struct server *s)
{
	return s->listener ? s->listener->fd_limit : INT_MAX;
}

static int accept_one(const struct server *s)
{
	int fd = accept4(s->listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* With the descriptor that is kept for it.  0, or why there is none: -EAGAIN when nobody waits,
 * which accept(2) does not look at before. */
static int refuse_one(struct server *s)
{
	int fd;

	fd_close(&s->listener->spare_fd);
	fd = accept_one(s);
	if (fd >= 0)
		client_refuse(fd);
	listen_learn_fd_limit(s);
	return fd < 0 ? fd : 0;
}

static void listen_again(void *data)
{
	struct server *s = data;

	listen_learn_fd_limit(s);
	loop_set_events(s->listener->source, LOOP_READ);
}

/* Who has connected and is not heard would keep the loop awake.  They wait a moment. */
static void listen_later(struct server *s, int err)
{
	log_warn("can't take connections now: %s", err_text(err));
	if (++s->listener->n_failed >= LISTEN_TRIES) {
		server_abandon(s);
		return;
	}
	loop_set_events(s->listener->source, 0);
	loop_timer_set(s->listener->timer, LISTEN_PAUSE_MS);
}

static void on_connection(void *data, uint32_t events)
{
	struct server *s = data;

	while (s->listener->fd >= 0) {
		int fd = accept_one(s);

		if (fd >= 0) {
			client_accept(s, fd);
			continue;
		}
		if (fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED)
			fd = refuse_one(s);
		if (fd == 0 || fd == -EAGAIN)
			s->listener->n_failed = 0;
		if (fd == -EAGAIN)
			return;
		if (fd < 0 && fd != -EINTR && fd != -ECONNABORTED) {
			listen_later(s, fd);
			return;
		}
	}
}

int listen_open(struct server *s, struct errmsg *msg)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_free_ char *path = path_join(s->dir, "project.sock");

	if (strlen(path) >= sizeof(sa.sun_path))
		return errmsg_set(msg, -ENAMETOOLONG,
				  "%s is too long for a socket's name; set CONCC_RUNTIME_DIR to a "
				  "shorter directory",
				  path);
	strcpy(sa.sun_path, path);
	/* We hold the instance lock, so what is there was left by a server that died. */
	(void)unlink(path);
	s->listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->listener->fd < 0 || bind(s->listener->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    listen(s->listener->fd, 4096) < 0)
		return errmsg_set(msg, -errno, "can't listen at %s: %s", path, err_text(-errno));
	/* Who watches the directory for us (`concc top`) has heard of the socket too early. */
	(void)chmod(path, 0600);
	s->listener->source = loop_add_fd(s->loop, s->listener->fd, LOOP_READ, on_connection, s);
	s->listener->timer = loop_add_timer(s->loop, 0, listen_again, s);
	return 0;
}

void listen_close(struct server *s)
{
	if (!s->listener)
		return;
	loop_remove(steal_ptr(&s->listener->source));
	loop_remove(steal_ptr(&s->listener->timer));
	fd_close(&s->listener->fd);
}

void listen_take_all(struct server *s)
{
	if (s->listener && s->listener->fd >= 0)
		on_connection(s, LOOP_READ);
}

void listen_say_ending(struct server *s)
{
	if (!s->ready || s->lock_fd < 0)
		return; /* they go with the fd, too */
	(void)lock_byte(s->lock_fd, F_OFD_SETLK, F_UNLCK, PROTO_THERE_BYTE);
	(void)lock_byte(s->lock_fd, F_OFD_SETLK, F_UNLCK, PROTO_READY_BYTE);
}

void listen_end(struct server *s)
{
	if (!s->listener)
		return;
	listen_say_ending(s);
	if (s->listener->fd >= 0 && place_is_ours(s))
		(void)unlinkat(s->dir_fd, "project.sock", 0);
	listen_close(s);
	fd_close(&s->listener->spare_fd);
	free(steal_ptr(&s->listener));
}
