/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "project/verdict.h"

static char *const nothing[] = {NULL};
static char *const left_in_tmp[] = {(char *)"/tmp/left", NULL};

static const struct verdict_facts usual = {.worker = "w1", .has_agent = true};

static struct msg_exit ended(uint8_t how, uint32_t code)
{
	return (struct msg_exit){.how = how,
				 .code = code,
				 .text = (char *)"some words",
				 .outside = (char **)nothing};
}

/* The rule, or "own"; in what: for whom it is to be run. */
static const char *rule(const struct verdict_facts *f, const struct msg_exit *m,
			struct run_failure *ret)
{
	static char name[32];

	*ret = (struct run_failure){0};
	if (verdict_is_its_own(f, m, ret)) {
		cr_expect_null(ret->text, "a verdict of its own says nothing");
		return "own";
	}
	cr_expect(ret->text && *ret->text);
	(void)snprintf(name, sizeof(name), "%s", ret->rule);
	free(steal_ptr(&ret->text));
	return name;
}

static void expect(const struct verdict_facts *f, struct msg_exit m, const char *want,
		   enum run_fail what, bool quiet)
{
	struct run_failure got;

	cr_expect_str_eq(rule(f, &m, &got), want, "how %u code %u: not %s", m.how, m.code, want);
	cr_expect_eq(got.what, what, "%s: for another", want);
	cr_expect_eq(got.quiet, quiet, "%s: said aloud or not", want);
}

static void expect_own(const struct verdict_facts *f, struct msg_exit m)
{
	struct run_failure got;

	cr_expect_str_eq(rule(f, &m, &got), "own", "how %u code %u", m.how, m.code);
}

Test(verdict, what_a_command_says_by_its_end_is_its_own)
{
	for (uint32_t code = 0; code < 256; code++)
		expect_own(&usual, ended(EXIT_CODE, code));
	expect_own(&usual, ended(EXIT_SIGNAL, SIGKILL));
	expect_own(&usual, ended(EXIT_SIGNAL, SIGSEGV));
	expect_own(&usual, ended(EXIT_SIGNAL, SIGPIPE));
}

Test(verdict, a_worker_that_can_t_is_no_reason_not_to_try_another)
{
	expect(&usual, ended(EXIT_FAILED, 0), "worker-failed", RUN_FAIL_RETRY, false);
	expect(&usual, ended(EXIT_REFUSED, REFUSED_BUSY), "refused", RUN_FAIL_RETRY, false);
	expect(&usual, ended(EXIT_REFUSED, REFUSED_TOOLCHAIN), "toolchain", RUN_FAIL_RETRY, false);
	expect(&usual, ended(EXIT_REFUSED, REFUSED_CALLER), "caller-limits", RUN_FAIL_RETRY, false);
}

Test(verdict, what_no_worker_can_do_runs_here)
{
	expect(&usual, ended(EXIT_FAILED, FAILED_LIMIT), "limit", RUN_FAIL_LOCAL, false);
	expect(&usual, ended(EXIT_FAILED, FAILED_NO_WAY_HOME), "no-way-home", RUN_FAIL_LOCAL, true);
	expect(&usual, ended(EXIT_REFUSED, REFUSED_SANDBOX), "refused", RUN_FAIL_LOCAL, true);
	expect(&usual, ended(EXIT_FAILED, FAILED_DESCRIPTOR), "descriptor", RUN_FAIL_LOCAL, true);
	expect(&usual, ended(EXIT_FAILED, FAILED_SPECIAL), "special-file", RUN_FAIL_LOCAL, true);
}

Test(verdict, core_files_are_made_here)
{
	struct verdict_facts f = usual;

	f.dumps_core = true;
	expect(&f, ended(EXIT_SIGNAL, SIGSEGV), "core", RUN_FAIL_LOCAL, true);
	expect(&f, ended(EXIT_SIGNAL, SIGABRT), "core", RUN_FAIL_LOCAL, true);
	expect_own(&f, ended(EXIT_SIGNAL, SIGKILL)); /* leaves none: signal(7) */
	expect_own(&f, ended(EXIT_CODE, 139));
}

Test(verdict, a_host_that_is_stopped_ends_no_command)
{
	struct verdict_facts f = usual;

	expect(&f, ended(EXIT_SIGNAL, SIGTERM), "killed", RUN_FAIL_LOCAL, true);
	expect(&f, ended(EXIT_SIGNAL, SIGHUP), "killed", RUN_FAIL_LOCAL, true);
	expect_own(&f, ended(EXIT_SIGNAL, SIGINT));
	f.has_agent = false; /* its session ends with it, and tells nothing */
	expect_own(&f, ended(EXIT_SIGNAL, SIGTERM));
}

Test(verdict, what_it_left_outside_makes_even_success_ours)
{
	struct msg_exit m = ended(EXIT_CODE, 0);

	m.outside = (char **)left_in_tmp;
	expect(&usual, m, "outside-write", RUN_FAIL_LOCAL, false);
	m.how = EXIT_SIGNAL;
	m.code = SIGKILL;
	expect(&usual, m, "outside-write", RUN_FAIL_LOCAL, false);
}

Test(verdict, failing_without_what_it_sought_is_ours_success_is_not)
{
	struct verdict_facts f = usual;

	f.missing = "/opt/lib is not there";
	expect(&f, ended(EXIT_CODE, 1), "missing", RUN_FAIL_LOCAL, false);
	expect(&f, ended(EXIT_SIGNAL, SIGKILL), "missing", RUN_FAIL_LOCAL, false);
	expect_own(&f, ended(EXIT_CODE, 0));
}

/* A worker takes it from what a job printed, or from names of files. */
Test(verdict, no_control_character_of_a_worker_gets_out)
{
	static char *const odd[] = {(char *)"/tmp/a\033[2Jb", NULL};
	const uint32_t codes[] = {0, FAILED_LIMIT, FAILED_NO_WAY_HOME, FAILED_SPECIAL,
				  FAILED_DESCRIPTOR};
	struct msg_exit m = ended(EXIT_FAILED, 0);
	struct run_failure got;

	m.text = (char *)"\033]0;x\007\n";
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		m.code = codes[i];
		cr_expect_not(verdict_is_its_own(&usual, &m, &got));
		cr_expect_null(strpbrk(got.text, "\033\007\n"), "%s", got.rule);
		free(got.text);
	}
	m = ended(EXIT_CODE, 0);
	m.outside = (char **)odd;
	cr_expect_not(verdict_is_its_own(&usual, &m, &got));
	cr_expect_null(strchr(got.text, '\033'));
	free(got.text);
}
