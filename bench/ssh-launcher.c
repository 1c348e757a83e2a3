/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * ssh-launcher CMD...: runs a compile in the same directory of another machine,
 * by OpenSSH over a shared connection; what is no compile is executed here.
 * BENCH_SSH_HOST names the host, BENCH_SSH_SOCKET the connection's socket;
 * without a host everything is executed here.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compile.h"

#define COMMAND_MAX 131072 /* one argument of ssh: the kernel's own limit */

static char command[COMMAND_MAX];
static size_t len;

static void fail(const char *what)
{
	(void)fprintf(stderr, "ssh-launcher: %s: %s\n", what, strerror(errno));
	exit(125);
}

static void add(const char *s, size_t n)
{
	if (len + n >= sizeof(command)) {
		errno = E2BIG;
		fail("the command");
	}
	memcpy(command + len, s, n);
	len += n;
}

static void add_text(const char *s)
{
	add(s, strlen(s));
}

static void add_quoted(const char *s)
{
	add_text(" '");
	for (; *s; s++) {
		if (*s == '\'')
			add_text("'\\''");
		else
			add(s, 1);
	}
	add_text("'");
}

/* cargo tells a crate about itself by the environment, of which ssh carries nothing. */
static void add_environment(void)
{
	extern char **environ;
	static const char *const names[] = {"CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_",
					    "OUT_DIR=", "PATH="};

	add_text("&& exec env");
	for (char **e = environ; *e; e++) {
		for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
			if (strncmp(*e, names[i], strlen(names[i])) == 0)
				add_quoted(*e);
		}
	}
}

int main(int argc, char **argv)
{
	char *host = getenv("BENCH_SSH_HOST"), *socket = getenv("BENCH_SSH_SOCKET");
	char cwd[PATH_MAX];

	if (argc < 2) {
		(void)fprintf(stderr, "usage: ssh-launcher CMD...\n");
		return 125;
	}
	if (!host || !socket || !is_compile(argv + 1)) {
		execvp(argv[1], argv + 1);
		fail(argv[1]);
	}
	if (!getcwd(cwd, sizeof(cwd)))
		fail("the directory");
	add_text("cd");
	add_quoted(cwd);
	add_environment();
	for (char **a = argv + 1; *a; a++)
		add_quoted(*a);
	add("", 1);
	execlp("ssh", "ssh", "-S", socket, host, "--", command, (char *)NULL);
	fail("ssh");
}
