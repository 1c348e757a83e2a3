/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Finding and starting the project server. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "concc/caller.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/namespaces.h"
#include "concc/pool.h"
#include "concc/process.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "concc/wrapper.h"

/* The server says "ready" or why not; it bounds its own waits (connect, greet) well below this. */
#define START_TIMEOUT_MS 90000
#define END_TIMEOUT_MS	 5000 /* for the kernel to put away a process that was killed */

char *program_dir(void)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return NULL;
	self[n] = '\0';
	return xstrndup(self, (size_t)(path_base(self) - self));
}

char *program_path(const char *name)
{
	_cleanup_free_ char *dir = program_dir();
	_cleanup_free_ char *path = dir ? path_join(dir, name) : NULL;

	return path && access(path, X_OK) == 0 ? steal_ptr(&path) : xstrdup(name);
}

static bool is_locked(int dir_fd, off_t byte)
{
	struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	_cleanup_close_ int fd = openat(dir_fd, "project.lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	/* The server holds it from when it is ready to when it ends, however it ends. */
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

bool server_is_ready(int dir_fd)
{
	return is_locked(dir_fd, PROTO_READY_BYTE);
}

bool server_is_there(int dir_fd)
{
	return is_locked(dir_fd, PROTO_THERE_BYTE);
}

/*
 * It watches its files, in every version: without them it takes no more jobs, and ends with the
 * last.
 */
static void displace(int dir_fd)
{
	(void)unlinkat(dir_fd, "project.lock", 0);
	(void)unlinkat(dir_fd, "project.sock", 0);
	pool_forget(dir_fd);
}

/* Of the server that is there, or was last; 0: not told. */
static pid_t server_pid(int dir_fd)
{
	_cleanup_close_ int fd = openat(dir_fd, "project.lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char line[32];
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	long pid;

	if (n <= 0)
		return 0;
	line[n] = '\0';
	pid = strtol(line, NULL, 10);
	return pid > 0 ? (pid_t)pid : 0;
}

bool server_is_ending(int dir_fd)
{
	pid_t pid = server_pid(dir_fd);

	/* Only while the lock is held, that number is the server's. */
	return pid && namespaces_left(pid) && server_is_ready(dir_fd);
}

void server_wait_end(int dir_fd)
{
	pid_t pid = server_pid(dir_fd);
	struct pollfd p = {.fd = -1, .events = POLLIN};

	if (pid)
		p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p.fd < 0)
		return;
	/* Only now: while the lock is held, that number is the server's. */
	if (server_is_ready(dir_fd))
		(void)poll(&p, 1, END_TIMEOUT_MS);
	(void)close(p.fd);
}

/* Ours, but a configuration named from our directory, which is not the server's.  On the heap. */
static char **server_env(void)
{
	const char *set = getenv("CONCC_CONFIG");
	bool relative = set && *set && *set != '/' && *set != '~';
	_cleanup_free_ char *path = relative ? realpath(set, NULL) : NULL;
	char **env = NULL;

	for (char **e = environ; *e; e++)
		strv_push(&env, path && str_starts(*e, "CONCC_CONFIG=")
					? xasprintf("CONCC_CONFIG=%s", path)
					: xstrdup(*e));
	return env;
}

/* Nobody's child, so that no zombie stays with a shell's child; ready_fd tells readiness. */
static int start_server(int ready_fd)
{
	_cleanup_free_ char *program = program_path("concc-project");
	_cleanup_strv_ char **env = server_env();
	char *argv[] = {(char *)"concc-project", (char *)"--daemon", (char *)"--ready-fd=3", NULL};

	return process_start(
		&(struct process){
			.exe = program,
			.argv = argv,
			.env = env,
			.dir = "/", /* so that it keeps no file system busy */
			.fds = {PROCESS_FD_NULL, PROCESS_FD_NULL, PROCESS_FD_NULL, ready_fd},
			.n_fds = 4,
			.flags = PROCESS_SESSION | PROCESS_DETACHED,
		},
		NULL);
}

/* The first line the server writes, without the newline; empty when it ended without one. */
static void read_line(int fd, char *line, size_t size)
{
	uint64_t end = now_ms() + START_TIMEOUT_MS;
	size_t n = 0;

	while (n + 1 < size) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = now_ms();
		ssize_t k;

		if (now >= end || poll(&p, 1, (int)(end - now)) == 0) {
			n = (size_t)snprintf(line, size, "error: it did not become ready");
			break;
		}
		k = read(fd, line + n, 1);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0 || line[n] == '\n')
			break;
		n++;
	}
	line[n] = '\0';
}

static int start(struct errmsg *msg)
{
	_cleanup_close_ int ready = -1;
	char line[512];
	int fds[2], r;

	r = pipe_above_stdio(fds);
	if (r < 0)
		return errmsg_set(msg, r, "can't make a pipe: %s", err_text(r));
	ready = fds[0];
	r = start_server(fds[1]);
	close(fds[1]);
	if (r < 0)
		return errmsg_set(msg, r, "can't start the project server: %s", err_text(r));
	read_line(ready, line, sizeof(line));
	if (streq(line, "ready"))
		return 0;
	return errmsg_set(msg, CONCC_E_UNAVAIL, "%s",
			  str_starts(line, "error: ") ? line + 7
						      : "the project server ended at once");
}

int server_ensure(const char *dir, int dir_fd, struct errmsg *msg)
{
	_cleanup_close_ int lock = -1;

	if (server_is_ready(dir_fd))
		return 0;
	lock = openat(dir_fd, "start.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0)
		return errmsg_set(msg, -errno, "can't open %s/start.lock: %s", dir,
				  err_text(-errno));
	/* Whoever comes while another starts it waits here, not by the clock. */
	while (flock(lock, LOCK_EX) < 0) {
		if (errno != EINTR)
			return errmsg_set(msg, -errno, "can't lock %s/start.lock: %s", dir,
					  err_text(-errno));
	}
	if (server_is_ready(dir_fd))
		return 0;
	if (server_is_there(dir_fd))
		displace(dir_fd); /* from before an upgrade */
	/* It would keep those mounts, and whoever made them may wait for their end: tup does. */
	if (namespaces_pass())
		return errmsg_set(msg, -EXDEV, "it runs in mounts that end with this build");
	return start(msg);
}

/* A new socket, connected; flags of socket(2), or -errno. */
static int connect_to(const char *dir, int flags)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	int r;

	if (fd < 0)
		return -errno;
	if ((size_t)snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/project.sock", dir) >=
	    sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	do
		r = connect(fd, (struct sockaddr *)&sa, sizeof(sa));
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	return steal_fd(&fd);
}

int server_connect(const char *dir, struct conn *ret)
{
	int fd = connect_to(dir, 0);

	if (fd < 0)
		return fd;
	*ret = (struct conn){.fd = fd};
	return 0;
}

void server_tell(const char *dir, uint8_t type, const struct buf *b)
{
	_cleanup_close_ int fd = connect_to(dir, SOCK_NONBLOCK);
	uint8_t header[PROTO_HEADER_LEN];
	struct iovec iov[2] = {{header, sizeof(header)}, {b->data, b->len}};
	struct msghdr mh = {.msg_iov = iov, .msg_iovlen = 2};

	proto_put_header(header, type, 0, (uint32_t)b->len);
	/* A new socket has room for it. */
	if (fd >= 0)
		(void)sendmsg(fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
}
