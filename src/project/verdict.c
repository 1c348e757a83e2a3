/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "verdict.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/str.h"

/* By core(5) and signal(7). */
static bool leaves_core(int signo)
{
	static const int signals[] = {SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE,
				      SIGSEGV, SIGBUS, SIGSYS,	SIGXCPU, SIGXFSZ};

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		if (signals[i] == signo)
			return true;
	}
	return false;
}

/*
 * By these whoever stops the worker's host, or the batch job that our agent is in, ends all
 * processes: each gets its own signal, the agent not first.  None of them was sent from here to a
 * job that has a client; one that the command sent itself it sends itself again.
 */
static bool ends_from_outside(const struct verdict_facts *f, int signo)
{
	return (signo == SIGTERM || signo == SIGHUP) && f->has_agent;
}

/* What the worker says, with what it may have taken from file names. */
static char *exit_text(const struct msg_exit *m)
{
	return str_escape(m->text, strlen(m->text), 1000);
}

static bool by_signal(const struct verdict_facts *f, int signo, struct run_failure *ret)
{
	if (f->dumps_core && leaves_core(signo))
		return run_failure_set(ret, RUN_FAIL_LOCAL, true, "core",
				       xstrdup("its core file is to be made here"));
	if (ends_from_outside(f, signo))
		return run_failure_set(
			ret, RUN_FAIL_LOCAL, true, "killed",
			xasprintf("signal %d (%s) ended it on %s, and was not sent from here",
				  signo, strsignal(signo), f->worker));
	return false;
}

static bool by_failure(const struct verdict_facts *f, const struct msg_exit *m,
		       struct run_failure *ret)
{
	_cleanup_free_ char *text = exit_text(m);

	switch (m->code) {
	case FAILED_LIMIT: /* that the user set for this worker: here there is none */
		return run_failure_set(
			ret, RUN_FAIL_LOCAL, false, "limit",
			xasprintf("on worker %s %s: see concc.ini(5)", f->worker, text));
	case FAILED_NO_WAY_HOME:
		return run_failure_set(ret, RUN_FAIL_LOCAL, true, "no-way-home",
				       xasprintf("on worker %s %s", f->worker, text));
	case FAILED_DESCRIPTOR:
		return run_failure_set(ret, RUN_FAIL_LOCAL, true, "descriptor",
				       xasprintf("on worker %s %s", f->worker, text));
	case FAILED_SPECIAL: /* what it looked for works on this machine only */
		return run_failure_set(ret, RUN_FAIL_LOCAL, true, "special-file",
				       xasprintf("on worker %s %s", f->worker, text));
	}
	return run_failure_set(ret, RUN_FAIL_RETRY, false, "worker-failed",
			       xasprintf("worker %s failed: %s", f->worker, text));
}

static bool by_refusal(const struct verdict_facts *f, const struct msg_exit *m,
		       struct run_failure *ret)
{
	_cleanup_free_ char *text = exit_text(m);
	char *line = xasprintf("worker %s refused the job: %s", f->worker, text);

	switch (m->code) {
	case REFUSED_TOOLCHAIN:
		return run_failure_set(ret, RUN_FAIL_RETRY, false, "toolchain", line);
	case REFUSED_CALLER:
		return run_failure_set(ret, RUN_FAIL_RETRY, false, "caller-limits", line);
	/* The kernel did not find it, or what its first line names: that this machine can say
	 * itself. */
	case REFUSED_SANDBOX:
		return run_failure_set(ret, RUN_FAIL_LOCAL, true, "refused", line);
	}
	return run_failure_set(ret, RUN_FAIL_RETRY, false, "refused", line);
}

/* It ended by itself, but not as it would have here. */
static bool by_surroundings(const struct verdict_facts *f, const struct msg_exit *m,
			    struct run_failure *ret)
{
	bool good = m->how == EXIT_CODE && m->code == 0;
	_cleanup_free_ char *path = NULL;

	if (m->outside[0]) {
		path = str_escape(m->outside[0], strlen(m->outside[0]), 200);
		return run_failure_set(
			ret, RUN_FAIL_LOCAL, false, "outside-write",
			xasprintf("it wrote %s, outside every workspace; set TMPDIR "
				  "to a directory of the project to run this remotely",
				  path));
	}
	return f->missing && !good &&
	       run_failure_set(ret, RUN_FAIL_LOCAL, false, "missing", xstrdup(f->missing));
}

bool verdict_is_its_own(const struct verdict_facts *f, const struct msg_exit *m,
			struct run_failure *ret)
{
	if (m->how == EXIT_FAILED)
		return !by_failure(f, m, ret);
	if (m->how == EXIT_REFUSED)
		return !by_refusal(f, m, ret);
	if (m->how == EXIT_SIGNAL && by_signal(f, (int)m->code, ret))
		return false;
	return !by_surroundings(f, m, ret);
}
