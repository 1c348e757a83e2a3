/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * own-group CMD...: runs CMD as the leader of a process group of its own with
 * default signals, as an interactive shell would: `kill -INT -- -PID` is then
 * the Ctrl-C.  (A script's own background commands ignore SIGINT.)
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: own-group CMD...\n");
		return 125;
	}
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	setpgid(0, 0);
	execvp(argv[1], argv + 1);
	fprintf(stderr, "own-group: %s: %s\n", argv[1], strerror(errno));
	return 125;
}
