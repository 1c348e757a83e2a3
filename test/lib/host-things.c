/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * host-things: makes, on a worker's host, what breakout looks for, open to
 * everybody: sockets, shared memory, a message queue, a key.  Prints "ready",
 * and removes it all when its standard input ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <mqueue.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define SHM_KEY 0x636f6e63

static void need(int r, const char *what)
{
	if (r >= 0)
		return;
	(void)fprintf(stderr, "host-things: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void listen_at(const char *path, size_t n)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sa.sun_path, path, n);
	need(bind(fd, (struct sockaddr *)&sa,
		  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)),
	     *path ? path : path + 1);
	need(listen(fd, 8), "listen");
	if (*path)
		need(chmod(path, 0777), path);
}

int main(void)
{
	struct mq_attr at = {.mq_maxmsg = 1, .mq_msgsize = 1};
	int shm;
	char c;

	(void)umask(0);
	listen_at("\0host-abstract", 14);
	listen_at("/tmp/host.sock", 14);
	listen_at("/run/host.sock", 14);
	shm = shmget(SHM_KEY, 4096, IPC_CREAT | 0666);
	need(shm, "shmget");
	need(mq_open("/host-queue", O_CREAT | O_RDWR, 0666, &at), "mq_open");
	need((int)syscall(SYS_add_key, "user", "host-key", "x", 1, KEY_SPEC_USER_KEYRING),
	     "add_key");
	puts("ready");
	(void)fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	(void)unlink("/tmp/host.sock");
	(void)unlink("/run/host.sock");
	(void)mq_unlink("/host-queue");
	(void)shmctl(shm, IPC_RMID, NULL);
	return 0;
}
