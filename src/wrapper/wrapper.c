/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/proto.h"
#include "concc/str.h"

extern char **environ;

uint64_t wrapper_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void wrapper_count(const struct wrapper *w, const char *kind, const char *name)
{
	_cleanup_free_ char *key = xasprintf("%s:%s", kind, name);
	const char *run = getenv("CONCC_RUN_TALLY");

	if (w->counters)
		counters_add(w->counters, key, 1);
	if (run && *run)
		counters_add(run, key, 1);
}

static void prepare(struct wrapper *w)
{
	w->cwd = getcwd(NULL, 0);
	w->lacking = w->cwd ? 0 : errno;
	w->argv = command_without_ourselves(w->o->argv, w->cwd ? w->cwd : "/");
	words_init(&w->words, w->argv);
	if (w->cwd)
		command_find(w);
	/* All else is the project server's to find. */
	if (w->cwd && policy_is_tmp(w->cwd))
		w->workspace = job_workspace(w->cwd, environ, path_is_mark);
	command_leave_masquerade(w->argv[0]);
}

static void open_dir(struct wrapper *w)
{
	struct errmsg msg = {0};

	if (runtime_dir_open(&w->dir, &w->dir_fd, &msg) < 0) {
		words_say(&w->words, WORDS_TROUBLE, "%s", msg.text);
		return;
	}
	w->words.dir = w->dir;
	w->counters = path_join(w->dir, "tally");
}

/*
 * What keeps results of compilers by itself keeps them on this machine, and the job would be undone
 * for it.  Which it is, or NULL; concc-dispatch is told to take all of it elsewhere.
 */
static char *cache_in_front(const struct wrapper *w, const struct policy_verdict *v)
{
	return v->local || w->o->any_command ? NULL : command_cache(w);
}

/* What keeps it here, beside the policy, that is known without a server; else remote. */
static int decide(struct wrapper *w)
{
	const char *what = command_too_long(w);
	int err;

	if (what)
		return local_by_rule(w, "too-long", what);
	if (!w->exe || !w->cwd || w->ourselves)
		return local_by_rule(w, "command", command_lacks(w));
	output_init(&w->output);
	w->input.wanted = remote_wants_stdin(w);
	err = w->input.wanted ? input_open(&w->input) : 0;
	if (err < 0)
		return local_by_rule(w, "input", err_text(err));
	if (w->is_script)
		(void)local_mark_started(w); /* told where it runs */
	if (!w->dir)
		return local_fall_back(w, "no-runtime-dir", "the runtime directory can't be used");
	return remote_run(w);
}

/* A terminal is one in a job, too.  Of input it matters where the caller is in it. */
static bool is_no_pipe(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))
		return false;
	return fd != STDIN_FILENO || !S_ISREG(st.st_mode) || lseek(fd, 0, SEEK_CUR) > 0;
}

static struct wrapper wrapper_of(const struct wrapper_options *o)
{
	return (struct wrapper){.o = o,
				.dir_fd = -1,
				.input = INPUT_INIT,
				.waiting = {.fd = -1},
				.slot = {.fd = -1},
				.arrived_us = wrapper_now_us()};
}

int wrapper_run(const struct wrapper_options *o)
{
	struct wrapper w = wrapper_of(o);
	struct policy_input in = {
		.env = environ,
		.any_command = o->any_command,
		.read_file = read_regular_file,
		.is_no_pipe = is_no_pipe,
	};
	_cleanup_free_ char *cache = NULL;
	struct policy_verdict v;

	prepare(&w);
	if (o->alone)
		return local_run(&w, false, "", "");
	in.argv = w.argv;
	in.cwd = w.cwd ? w.cwd : "/";
	in.workspace = w.workspace;
	policy_decide(&in, &v);
	cache = cache_in_front(&w, &v);
	if (cache && streq(cache, "ccache"))
		return local_ccache(&w);
	w.reads_stdin = v.reads_stdin;
	/* In a job, what we touch would be its doing. */
	if (!v.local || !streq(v.rule, "on-worker"))
		open_dir(&w);
	if (cache)
		return local_by_rule(&w, "launcher", cache);
	return v.local ? local_by_rule(&w, v.rule, v.why) : decide(&w);
}

void wrapper_dispatch_options(char **argv, struct wrapper_options *o)
{
	o->any_command = true;
	for (; *argv && !streq(*argv, "--"); argv++) {
		if (streq(*argv, "--cache"))
			o->keeps = true;
		else if (streq(*argv, "--cache=contents"))
			o->keeps = o->no_times = true;
		else
			break;
	}
	o->argv = *argv && streq(*argv, "--") ? argv + 1 : argv;
}

/* ---- would it be found? ---- */

static int ask_of_result(struct wrapper *w, struct errmsg *msg)
{
	_cleanup_buf_ struct buf run = BUF_INIT, in = BUF_INIT;
	struct conn c = {.fd = -1};
	struct msg_run_fail f;
	int status = 1, r;
	uint8_t type;

	remote_encode(w, "", 0, JOB_F_WHY, &run);
	r = server_connect(w->dir, &c);
	if (r == 0)
		r = conn_send(&c, MSG_RUN, &run);
	if (r == 0)
		r = conn_recv(&c, &type, &in);
	conn_release(&c);
	if (r == 0)
		r = type == MSG_RUN_FAIL ? msg_run_fail_decode((struct blob){in.data, in.len}, &f)
					 : CONCC_E_PROTO;
	if (r < 0)
		return errmsg_set(msg, r, "the project server does not answer: %s", err_text(r));
	str_defuse_lines(f.text);
	printf("%s", f.text);
	status = streq(f.rule, "hit") ? 0 : 1;
	msg_run_fail_release(&f);
	return status;
}

static int not_cacheable(const char *rule, const char *why)
{
	_cleanup_free_ char *shown = xstrdup(why);

	str_defuse(shown);
	printf("not cacheable: it runs here: %s%s%s%s\n", rule, *shown ? " (" : "", shown,
	       *shown ? ")" : "");
	return 1;
}

int wrapper_why(const struct wrapper_options *o)
{
	struct wrapper w = wrapper_of(o);
	struct policy_input in = {
		.env = environ,
		.any_command = o->any_command,
		.read_file = read_regular_file,
		.is_no_pipe = is_no_pipe,
	};
	_cleanup_free_ char *why = NULL, *cache = NULL;
	struct errmsg msg = {0};
	struct policy_verdict v;
	int r;

	prepare(&w);
	in.argv = w.argv;
	in.cwd = w.cwd ? w.cwd : "/";
	in.workspace = w.workspace;
	policy_decide(&in, &v);
	if (v.local)
		return not_cacheable(v.rule, v.why);
	cache = cache_in_front(&w, &v);
	if (cache)
		return not_cacheable("launcher", cache);
	if (!w.exe || !w.cwd || w.ourselves)
		return not_cacheable("command", command_lacks(&w));
	if (!remote_read_caller(&w, &why))
		return not_cacheable("descriptor", why);
	output_init(&w.output);
	if (w.is_script)
		(void)local_mark_started(&w);
	/* Whose input it would be nobody knows; of a compiler it is not part of the call. */
	w.reads_stdin = v.reads_stdin;
	w.input.wanted = o->any_command ? remote_wants_stdin(&w) : v.reads_stdin;
	if (w.input.wanted && o->keeps && input_open(&w.input) == 0)
		remote_know_input(&w);
	open_dir(&w);
	r = w.dir ? server_ensure(w.dir, w.dir_fd, &msg) : -1;
	if (r == 0)
		r = ask_of_result(&w, &msg);
	if (r >= 0)
		return r;
	if (w.dir)
		fprintf(stderr, "concc: %s\n", msg.text);
	return WRAPPER_EXIT_SERVER;
}
