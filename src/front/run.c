/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/front.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/conf.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/pool.h"
#include "concc/process.h"
#include "concc/project_conf.h"
#include "concc/str.h"
#include "concc/view.h"
#include "concc/wrapper.h"
#include "child.h"
#include "hints.h"
#include "masquerade.h"
#include "outcome.h"
#include "tools.h"
#include "users.h"

extern char **environ;

struct build {
	const struct front_run *o;
	char *dir; /* runtime directory */
	int dir_fd;
	bool own_dir; /* made for this run, removed after it */
	struct users users;
	int signo; /* that is to end us, or 0 */
	struct masquerade masquerade;
	struct left_alone left;
	char *counters;
	char id[32];	       /* in the records of its jobs */
	struct numbers before; /* of the server, which may have done other things */
};

static int complain(const char *text)
{
	err_say("%s", text);
	return WRAPPER_EXIT_SERVER;
}

static const char *path_variable(void)
{
	return getenv("PATH") ?: "/usr/local/bin:/usr/bin:/bin";
}

uint32_t front_cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

/* ---- before ---- */

/* What is wrong with the configuration says the server. */
static int check_workers(const char *list, struct errmsg *msg)
{
	struct conf *c = NULL;
	int r = conf_load(NULL, &c, NULL) < 0 ? 0 : conf_set_workers(c, list, msg);

	conf_free(c);
	return r;
}

/* Another set of workers than the configured ones has a server, and so a directory, of its own. */
static int open_dir(struct build *b, struct errmsg *msg)
{
	char path[] = RUN_DIR_PREFIX "XXXXXX";

	if (b->o->workers && check_workers(b->o->workers, msg) < 0)
		return CONCC_E_CONF;
	if (b->o->workers) {
		if (!mkdtemp(path))
			return errmsg_set(msg, -errno, "can't make a directory in /tmp: %s",
					  err_text(-errno));
		b->own_dir = true;
		setenv("CONCC_RUNTIME_DIR", path, 1);
		setenv("CONCC_WORKERS", b->o->workers, 1);
	}
	return runtime_dir_open(&b->dir, &b->dir_fd, msg);
}

static void read_numbers(const struct build *b, struct numbers *ret)
{
	_cleanup_free_ char *text = NULL;

	*ret = (struct numbers){0};
	if (!b->o->local && front_ask(b->dir, "status", "json", &text) == 0)
		numbers_parse(ret, text);
}

/* Before the build, not after hours of it at home. */
static void tell_down(const struct build *b)
{
	_cleanup_free_ char *text = NULL, *why = NULL;
	json_t *o, *w;
	size_t i;

	if (front_ask(b->dir, "status", "json", &text) < 0)
		return;
	o = json_loads(text, 0, NULL);
	if (json_object_get(o, "configuration_error"))
		err_say("the configuration is wrong, and the former one in use: %s",
			json_string_value(json_object_get(o, "configuration_error")));
	json_array_foreach(json_object_get(o, "workers"), i, w)
	{
		if (streq(json_string_value(json_object_get(w, "state")) ?: "", "down"))
			err_say("worker %s can't be used now: %s",
				json_string_value(json_object_get(w, "name")) ?: "?",
				json_string_value(json_object_get(w, "error")) ?: "?");
	}
	json_decref(o);
	/* The same in the words of the jobs that then find no worker: they need not say it again.
	 */
	if (front_ask(b->dir, "why", NULL, &why) == 0 && *why)
		counters_mark_shown(b->counters, why);
}

/* In a copy of this process, that a signal may end. */
static int wait_settled(void *data)
{
	const struct build *b = data;
	struct errmsg msg = {0};
	int r;

	r = server_ensure(b->dir, b->dir_fd, &msg);
	if (r == -EXDEV)
		return 0; /* all calls run here, and say why */
	if (r < 0)
		return complain(msg.text);
	/* So that the first jobs are spread over all of them. */
	r = front_ask(b->dir, "settled", NULL, NULL);
	if (r < 0) {
		fprintf(stderr, "concc: the project server does not answer: %s\n", err_text(r));
		return WRAPPER_EXIT_SERVER;
	}
	return 0;
}

/* 0, or the status to exit with. */
static int bring_up(struct build *b)
{
	int r, status;
	pid_t teller;

	if (b->o->local)
		return 0;
	users_join(b->dir_fd, server_is_ready, &b->users);
	teller = view_line_begin(VIEW_LINE_WAITING);
	r = child_call(wait_settled, b, &status);
	view_line_end(teller);
	if (r < 0)
		return complain(err_text(r));
	b->signo = child_signal(status);
	if (b->signo || WEXITSTATUS(status))
		return b->signo ? 128 + b->signo : WEXITSTATUS(status);
	/* Of another build that is under way they stay, and what is told is the difference. */
	(void)front_ask(b->dir, "reset", "idle", NULL);
	read_numbers(b, &b->before);
	tell_down(b);
	return 0;
}

/* So that a wrapper can tell our standard error from one that a part of the build reads itself; and
 * that a file for explanations is one, wherever in the build they are. */
static void set_words(const char *cwd)
{
	const char *explain = getenv("CONCC_EXPLAIN");
	_cleanup_free_ char *own = wrapper_file_id(2), *path = NULL;
	_cleanup_close_ int fd = -1;

	setenv("CONCC_RUN_STDERR", own ? own : "", 1);
	if (!explain || !cwd || !*explain || streq(explain, "0") || streq(explain, "1"))
		return;
	path = path_clean(cwd, explain);
	setenv("CONCC_EXPLAIN", path, 1);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
	if (fd < 0)
		err_say("can't explain to %s, which CONCC_EXPLAIN names: %s", path,
			err_text(-errno));
}

/* Compilers by name go through us, and what else calls them; what the user set already stays. */
static void set_environment(struct build *b)
{
	_cleanup_free_ char *cc = program_path("concc-cc");
	_cleanup_free_ char *cwd = getcwd(NULL, 0);
	_cleanup_free_ char *workspace = cwd ? job_workspace(cwd, environ, path_is_mark) : NULL;

	tools_set_environment(path_variable(), &b->masquerade, cc, &b->left);
	/* Without .git nobody could tell that a sub-directory belongs to this build. */
	if (cwd && !path_is_too_wide(workspace ?: cwd))
		setenv("CONCC_WORKSPACE", workspace ?: cwd, 0);
	setenv("CONCC_RUN_TALLY", b->counters, 1);
	setenv("CONCC_RUN_ID", b->id, 1);
	set_words(cwd);
	if (b->o->local)
		setenv("CONCC_DISABLE", "1", 1);
}

/* Before the build, for those that matter to this command; at its end the others may. */
static void tell_left_alone(const struct build *b)
{
	const char *tool = tools_name(b->o->argv) ?: "";
	const struct left_alone *l = &b->left;
	const char *what = streq(tool, "cargo")	  ? l->rust
			   : streq(tool, "cmake") ? l->cmake
			   : streq(tool, "go")	  ? l->go
						  : NULL;

	if (l->path)
		err_say("%s stands first in PATH and stays: its compilers don't go through concc",
			l->path);
	if (what)
		err_say("%s stays: these calls don't go through concc", what);
}

/* ---- how many at once ---- */

static uint32_t pool_slots(const struct build *b)
{
	struct pool *pool;
	uint32_t n = 0;

	if (!b->o->local && pool_open(b->dir, &pool, NULL) == 0) {
		n = pool_total(pool);
		pool_close(pool);
	}
	return n;
}

/* All slots, and never fewer than a build without us would use. */
static uint32_t count_slots(const struct build *b)
{
	uint32_t cores = front_cores(), n = pool_slots(b);

	return n > cores ? n : cores;
}

/* The command as it is run: with a number of jobs, where the user chose none. */
static char **choose_jobs(struct build *b)
{
	uint32_t n = b->o->jobs ? b->o->jobs : count_slots(b);
	_cleanup_free_ char *how = NULL;
	char **named = tools_with_compiler(b->o->argv, &b->masquerade);
	char **argv = named ? named : tools_with_jobs(b->o->argv, n, b->o->jobs > 0, &how);

	if (how && !b->o->jobs && !b->o->quiet)
		err_say("%s, as many jobs as there are slots and cores for; `concc run -j N` "
			"chooses",
			how);
	return argv ? argv : strv_copy(b->o->argv);
}

/* ---- the build ---- */

/* Its exit status, or the one of a shell that can't run it. */
static int run_child(struct build *b)
{
	_cleanup_strv_ char **argv = choose_jobs(b);
	struct process p = {.argv = argv, .fds = {0, 1, 2}, .n_fds = 3, .flags = PROCESS_COMMAND};
	int status, r;

	set_environment(b);
	tell_left_alone(b);
	r = child_run(&p, &status);
	if (r < 0) {
		err_say("can't run %s: %s%s", b->o->argv[0], err_text(r),
			r == -ENOENT ? wrapper_meant(b->o->argv[0]) : "");
		return r == -ENOENT ? 127 : 126;
	}
	b->signo = child_signal(status);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- after ---- */

/* What the wrappers could not say to a person, since a part of the build read their standard error.
 */
static void pass_on_words(const struct build *b)
{
	_cleanup_free_ char *path = wrapper_notes_path(b->counters);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char part[16 * 1024];
	ssize_t n;

	while (fd >= 0 && (n = read(fd, part, sizeof(part))) > 0) {
		if (write_full(2, part, (size_t)n) < 0)
			return;
	}
}

/* What the files of a build tool say is quoted in it.  A closed stderr wants no summary. */
static void say_lines(struct buf *b)
{
	_cleanup_free_ char *text = xstrdup(buf_cstr(b));

	str_defuse_lines(text);
	(void)write_full(2, text, strlen(text));
}

/* 0, or the status of a build that should have run elsewhere. */
static int summarise(struct build *b, uint64_t wall_us, int status)
{
	struct outcome o = {.counters = b->counters,
			    .build = b->id,
			    .run = b->o,
			    .before = b->before,
			    .wall_us = wall_us,
			    .cores = front_cores(),
			    .status = status};
	_cleanup_buf_ struct buf out = BUF_INIT;

	read_numbers(b, &o.after);
	outcome_make(&o);
	outcome_line(&o, &out);
	if (o.n_calls > o.n_asked)
		hint_kept_local(o.entries, o.n_entries, b->o, &out);
	else if (!b->signo) /* one that was ended early may not have come to any */
		hint_no_calls(b->o->argv, &b->masquerade, &b->left, o.n_asked, &out);
	if (!b->o->quiet)
		say_lines(&out);
	if (b->o->json && outcome_write(&o, b->o->json) < 0)
		err_say("can't write %s: %s",
			streq(b->o->json, "-") ? "to standard output" : b->o->json,
			err_text(-errno));
	if (status || !b->o->require_remote || outcome_percent(&o) >= b->o->require_remote)
		return 0;
	buf_reset(&out);
	outcome_lacks(&o, b->o->require_remote, &out);
	say_lines(&out);
	return WRAPPER_EXIT_LOCAL;
}

static void remove_counters(const struct build *b)
{
	_cleanup_free_ char *notes = wrapper_notes_path(b->counters);

	(void)unlink(b->counters);
	(void)unlink(notes);
}

static void take_down(struct build *b)
{
	if (b->dir && !b->o->local && users_leave(&b->users)) {
		(void)front_ask(b->dir, "stop", NULL, NULL); /* closed: it has stopped */
		server_wait_end(b->dir_fd);
	}
	users_left(&b->users);
	if (b->counters)
		remove_counters(b);
	if (b->own_dir && b->dir) {
		int r = path_remove_tree(AT_FDCWD, b->dir);

		if (r < 0)
			err_say("ignoring left-over %s: %s", b->dir, err_text(r));
	}
	masquerade_release(&b->masquerade);
	left_alone_release(&b->left);
	free(b->counters);
	free(b->dir);
	if (b->dir_fd >= 0)
		close(b->dir_fd);
}

/* Each build starts with what the last one of this runtime directory left, and no more. */
static void tell_no_cache(const struct build *b)
{
	_cleanup_free_ char *cache = NULL;
	struct errmsg msg = {0};

	if (cache_dir(&cache, &msg) < 0)
		err_say("%s; using %s", msg.text, b->dir);
}

/* Who needs one of them compiled in is to know why it is missing. */
static void tell_kept_back(const struct build *b)
{
	_cleanup_free_ char *names = job_env_kept_back(environ);

	if (!names || b->o->local || b->o->quiet)
		return;
	fprintf(stderr,
		"concc: jobs on workers don't get %s; `CONCC_PASS_ENV=NAME concc run ...` lets NAME "
		"travel\n",
		names);
}

/* Once the server has answered a question, it knows of the end of each job. */
static void report(const struct build *b)
{
	struct view_report o = {.build = b->id, .page = b->o->report};

	if (o.page)
		(void)view_report(&o); /* it says why there is none; the build is what it is */
}

/* What writes nothing itself leaves the terminal to us. */
static int run_watched(struct build *b)
{
	bool alone = !b->o->local && !b->o->quiet && tools_is_silent(b->o->argv);
	pid_t line = alone ? view_line_begin(VIEW_LINE_PROGRESS) : -1;
	int status = run_child(b);

	view_line_end(line);
	return status;
}

/* Where cargo has a wrapper, that is what goes through us, or the user's own. */
static unsigned rustc_flag(void)
{
	_cleanup_free_ char *wrapper = tools_rust_wrapper();

	return wrapper ? 0 : MASQUERADE_RUST;
}

static int build(struct build *b)
{
	struct errmsg msg = {0};
	uint64_t start = now_us();
	int r, status;

	r = open_dir(b, &msg);
	if (r == 0)
		r = masquerade_make(path_variable(), rustc_flag(), &b->masquerade, &msg);
	if (r < 0)
		return complain(msg.text);
	tell_no_cache(b);
	tell_kept_back(b);
	b->counters = xasprintf("%s/run-%d", b->dir, (int)getpid());
	(void)snprintf(b->id, sizeof(b->id), "%llx-%d", (unsigned long long)time(NULL),
		       (int)getpid());
	remove_counters(b); /* of a former process with this pid */
	status = bring_up(b);
	if (status)
		return status;
	status = run_watched(b);
	pass_on_words(b);
	r = summarise(b, now_us() - start, status);
	report(b);
	return r ? r : status;
}

int front_masquerade(void)
{
	struct masquerade m = {0};
	struct errmsg msg = {0};

	/* Nothing sets ccache's prefix there but concc-cc, when it is called in ccache's place. */
	if (masquerade_make(path_variable(), rustc_flag() | MASQUERADE_CCACHE, &m, &msg) < 0)
		return complain(msg.text);
	puts(m.dir);
	masquerade_release(&m);
	return 0;
}

/* What was said to us goes before what the project says, which can only lessen what we do. */
static void ask_project(struct front_run *o)
{
	_cleanup_free_ char *cwd = getcwd(NULL, 0);
	_cleanup_free_ char *workspace = cwd ? job_workspace(cwd, environ, path_is_mark) : NULL;
	struct project_conf p;
	struct errmsg msg = {0};

	if (cwd && project_conf_load(workspace ? workspace : cwd, &p, &msg) < 0)
		err_say("ignoring %s", msg.text);
	if (!cwd)
		return;
	o->jobs = o->jobs ? o->jobs : p.jobs;
	o->require_remote = o->require_remote ? o->require_remote : p.require_remote;
	o->project_local = !o->local && p.local && !o->workers;
	o->local |= o->project_local;
}

int front_run(const struct front_run *asked)
{
	struct front_run own = *asked, *o = &own;
	struct build b = {.o = o, .dir_fd = -1, .users = {.fd = -1}};
	int status;

	if (o->dir && chdir(o->dir) < 0) {
		err_say("can't go to %s: %s", o->dir, err_text(-errno));
		return WRAPPER_EXIT_USAGE;
	}
	if (o->dir)
		unsetenv("PWD"); /* it named the former one */
	ask_project(o);
	child_catch_signals();
	process_signal(SIGPIPE, SIG_IGN); /* who reads no more of us does not end us */
	status = build(&b);
	take_down(&b);
	if (b.signo)
		child_die_by(b.signo);
	return status;
}
