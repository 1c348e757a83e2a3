/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * listen-exec PORT CMD...: inetd in small.  Listens, says so with the line
 * "ready" on stdout (so that nobody has to try), then runs CMD for each
 * connection with the connection as stdin and stdout.
 */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int signo)
{
	int saved = errno;

	(void)signo;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	errno = saved;
}

static void fail(const char *what)
{
	fprintf(stderr, "listen-exec: %s: %s\n", what, strerror(errno));
	exit(125);
}

static int listen_on(const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		fail("socket");
	if (bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 128) < 0)
		fail(port);
	return s;
}

static void serve(int c, char **cmd)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		if (dup2(c, 0) < 0 || dup2(c, 1) < 0)
			fail("dup2");
		execvp(cmd[0], cmd);
		fail(cmd[0]);
	}
	close(c);
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = reap, .sa_flags = SA_RESTART};
	int s, c;

	if (argc < 3) {
		fprintf(stderr, "usage: listen-exec PORT CMD...\n");
		return 125;
	}
	sigaction(SIGCHLD, &sa, NULL);
	s = listen_on(argv[1]);
	if (write(1, "ready\n", 6) != 6 || !freopen("/dev/null", "w", stdout))
		fail("stdout");
	for (;;) {
		c = accept4(s, NULL, NULL, SOCK_CLOEXEC);
		if (c >= 0)
			serve(c, argv + 2);
		else if (errno != EINTR && errno != ECONNABORTED)
			fail("accept");
	}
}
