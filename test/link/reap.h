/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_LINK_REAP_H
#define CONCC_TEST_LINK_REAP_H

/* Runs a loop until it has reaped every child; aborts when that does not come about. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "concc/loop.h"

#define REAP_LIMIT_MS 60000

static void reap_look(void *data)
{
	struct loop *l = data;
	siginfo_t si = {0};

	if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD)
		loop_quit(l);
	else if (si.si_pid) /* dead, and about to be reaped by a source of this very loop */
		loop_defer(l, reap_look, l);
}

static void reap_on_signal(void *data, int signo)
{
	loop_defer(data, reap_look, data);
}

static void reap_too_late(void *data)
{
	fprintf(stderr, "a child was not reaped\n");
	abort();
}

static void reap_children(struct loop *l)
{
	struct loop_source *s = loop_add_signal(l, SIGCHLD, reap_on_signal, l);
	struct loop_source *t = loop_add_timer(l, REAP_LIMIT_MS, reap_too_late, NULL);

	loop_defer(l, reap_look, l);
	if (loop_run(l) < 0)
		abort();
	loop_remove(s);
	loop_remove(t);
}

#endif
