/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * held-as ARG...: the assembler.  With HELD in the environment it first says "held" on its standard
 * error, and waits for SIGUSR1: a compilation that has read its source and has not ended.
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static const char said[] = "held\n";
	sigset_t set;
	int signal;

	(void)argc;
	if (getenv("HELD")) {
		(void)sigemptyset(&set);
		(void)sigaddset(&set, SIGUSR1);
		(void)sigprocmask(SIG_BLOCK, &set, NULL);
		if (write(STDERR_FILENO, said, sizeof(said) - 1) < 0 || sigwait(&set, &signal))
			return 1;
		(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	}
	(void)execv("/usr/bin/as", argv);
	return 1;
}
