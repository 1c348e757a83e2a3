/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"
#include "announce.h"
#include "home.h"

#define MISSING_MAX 8
#define OUTSIDE_MAX 4096 /* paths remembered of a job */

static struct agent_job *agent_job_new(struct agent *a, struct msg_job *job)
{
	struct agent_job *j = xcalloc(1, sizeof(*j));
	struct msg_env *env = map_get_u64(&a->envs, job->env_id);

	j->agent = a;
	j->msg = *job;
	j->tools = map_get_u64(&a->exes, job->exe_id);
	j->announcements = announcements_new(job->argv);
	j->caller = *(struct caller *)map_get_u64(&a->callers, job->caller_id);
	if (j->caller.nice < (int)a->farm.nice)
		j->caller.nice = (int)a->farm.nice;
	j->env = strv_copy(env->env);
	strv_push(&j->env, xstrdup("CONCC_WORKER=1"));
	j->out[0].fd = j->out[1].fd = -1;
	j->stdin_fd = j->stdin_job = -1;
	j->tmp_fd = j->tty_fd = -1;
	j->slot = -1;
	j->credit = PROTO_OUTPUT_WINDOW;
	list_init(&j->of_waiting);
	list_init(&j->keep);
	outbox_init(&j->outbox, job->job_id);
	map_put_u64(&a->jobs, job->job_id, j);
	if (a->jobs.n == 1)
		host_has_jobs(a);
	return j;
}

void agent_job_free(struct agent_job *j)
{
	if (!j)
		return;
	map_del_u64(&j->agent->jobs, j->msg.job_id);
	if (j->agent->mirror) /* at the end of all, it went before */
		mirror_job_ended(j->agent->mirror, j->msg.job_id);
	job_unqueue(j);
	job_give_slot_back(j);
	loop_remove(j->timer);
	outbox_release(&j->outbox);
	job_forget_kept(j);
	for (int i = 0; i < 2; i++) {
		loop_remove(j->out[i].source);
		if (j->out[i].fd >= 0)
			close(j->out[i].fd);
	}
	job_close_input(j);
	job_forget_announcing(j);
	job_clear(j);
	fd_close(&j->tty_fd);
	announcements_free(j->announcements);
	buf_release(&j->input);
	buf_release(&j->held);
	buf_release(&j->trace);
	buf_release(&j->looks);
	map_release(&j->outside);
	strv_free(j->env);
	msg_job_release(&j->msg);
	free(j->taint);
	free(j);
}

void job_taint(struct agent_job *j, const char *text)
{
	if (!j->taint)
		j->taint = xstrdup(text);
}

void job_stop(struct agent_job *j, int signo)
{
	job_close_outputs(j);
	launcher_kill(j->agent->launcher, j->msg.job_id, signo);
}

/* ---- what is outside ---- */

static void send_missing(struct agent_job *j, enum missing_how how, char *const *paths)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_missing_encode(&b, j->msg.job_id, how, paths);
	outbox_message(j->agent, &j->outbox, MSG_JOB_MISSING, &b);
	outbox_pump(j->agent);
}

/*
 * In its own /tmp a job makes what it likes, and to look for that is nobody's affair: the kernel
 * does when it is removed.
 */
static bool is_made_in_tmp(struct agent_job *j, enum missing_how how, const char *path)
{
	_cleanup_free_ char *made = xasprintf("%u%s", (unsigned)MISSING_CHANGED, path);

	if (!path_is_below(path, "/tmp"))
		return false;
	if (how == MISSING_CHANGED && j->outside.n < OUTSIDE_MAX)
		(void)map_put_str(&j->outside, made, j);
	return how == MISSING_CHANGED ||
	       (how == MISSING_LOOKED_UP && map_get_str(&j->outside, made));
}

static void tell_outside(struct agent_job *j, enum missing_how how, const char *path)
{
	_cleanup_free_ char *key = xasprintf("%u%s", (unsigned)how, path);
	char *const paths[] = {(char *)path, NULL};

	if (j->exit_sent || !j->launched || is_made_in_tmp(j, how, path) ||
	    map_get_str(&j->outside, key))
		return;
	/* Beyond, a path may be told again: right, and only slow. */
	if (j->outside.n < OUTSIDE_MAX)
		(void)map_put_str(&j->outside, key, j);
	send_missing(j, how, paths);
}

void agent_job_outside(struct agent *a, int64_t job, enum missing_how how, const char *path)
{
	struct agent_job *j;
	size_t it = 0;

	if (strlen(path) >= PROTO_PATH_MAX)
		return; /* no system call takes it on the client either */
	if (job >= 0) {
		j = map_get_u64(&a->jobs, (uint32_t)job);
		if (j)
			tell_outside(j, how, path);
		return;
	}
	while (job == JOB_UNKNOWN && (j = map_next(&a->jobs, &it, NULL)))
		tell_outside(j, how, path);
}

/* ---- the start ---- */

static int launch(struct agent_job *j)
{
	uint32_t flags = j->msg.flags;
	_cleanup_close_ int in = -1, out = -1, err = -1;
	struct launch l = {
		.job_id = j->msg.job_id,
		.path = j->msg.path,
		.exe = toolchain_exe(j->tools),
		.argv = j->msg.argv,
		.env = j->env,
		.cwd = j->msg.cwd,
		.workspaces = j->msg.workspaces,
		.trees = j->agent->trees,
		.umask = (mode_t)j->msg.umask,
		.caller = j->caller,
		.memory = j->agent->limits.memory,
		.processes = j->agent->limits.processes,
		.trace = flags & JOB_F_TRACE,
		.seeks = flags & JOB_F_STDIN_SEEKS,
		.reads = flags & JOB_F_TTY_IN,
		.terminal = flags & JOB_F_TERMINAL,
	};
	int r;

	caller_fit(&l.caller, &j->agent->own);
	if (j->agent->cores_leave)
		caller_keep_cores(&l.caller, &j->agent->own);
	r = job_open_input(j, &in);
	if (r == 0)
		r = job_open_output(j, 0, flags & JOB_F_TTY_OUT, &out);
	if (r == 0 && !(flags & JOB_F_MERGED))
		r = job_open_output(j, 1, flags & JOB_F_TTY_ERR, &err);
	if (r < 0)
		return r;
	l.stdin_fd = in;
	l.stdout_fd = out;
	l.stderr_fd = err >= 0 ? err : out;
	clock_gettime(CLOCK_REALTIME, &j->started);
	j->started_ms = now_ms();
	r = launcher_run(j->agent->launcher, &l);
	j->launched = r == 0;
	if (r == 0)
		job_start_clock(j);
	return r;
}

void job_start_now(struct agent_job *j)
{
	int r;

	job_unqueue(j);
	r = launch(j);
	if (r < 0) {
		struct msg_exit m = {.how = EXIT_FAILED};
		_cleanup_free_ char *text = xasprintf("can't start a job: %s", err_text(r));

		m.text = text;
		job_give_slot_back(j);
		job_close_outputs(j);
		job_send_exit(j, &m);
	}
}

void agent_job_prepared(struct agent *a, uint32_t job_id, int *upper_fds, size_t n, int tmp_fd)
{
	struct agent_job *j = map_get_u64(&a->jobs, job_id);

	if (!j || j->n_homes || n != strv_len(j->msg.workspaces)) {
		for (size_t i = 0; i < n; i++)
			close(upper_fds[i]);
		close(tmp_fd);
		return;
	}
	j->tmp_fd = tmp_fd;
	j->homes = xcalloc(n, sizeof(*j->homes));
	j->upper_fds = xcalloc(n, sizeof(*j->upper_fds));
	for (size_t i = 0; i < n; i++) {
		struct home_config c = {
			.mirror = a->mirror,
			.workspace = j->msg.workspaces[i],
			.workspaces = j->msg.workspaces,
			.job_id = job_id,
			.any_command = !(j->msg.flags & JOB_F_COMPILER),
			.index = (uint32_t)i,
			.upper_fd = upper_fds[i],
			.started = j->started,
			.started_ms = j->started_ms,
		};

		j->upper_fds[i] = fcntl(upper_fds[i], F_DUPFD_CLOEXEC, 3);
		j->homes[i] = home_new(&c);
		j->n_homes++;
	}
}

/* Absolute paths of the command that are not here; the client knows whether it has them. */
static void tell_missing(struct agent_job *j)
{
	_cleanup_strv_ char **missing = xcalloc(1, sizeof(*missing));

	for (char **a = j->msg.argv + 1; *a && strv_len(missing) < MISSING_MAX; a++) {
		const char *p = job_arg_path(*a);
		_cleanup_free_ char *clean = p ? path_clean("/", p) : NULL;
		bool served = false;
		struct stat st;

		if (!clean || strlen(clean) >= PROTO_PATH_MAX)
			continue;
		for (char **w = j->msg.workspaces; *w; w++)
			served |= path_is_below(clean, *w);
		if (!served && lstat(clean, &st) < 0)
			strv_push(&missing, steal_ptr(&clean));
	}
	if (missing[0])
		send_missing(j, MISSING_NAMED, missing);
}

static char *lower_limit(const struct agent_job *j, int id)
{
	return xasprintf("the hard limit of its login for %s is %llu, which is less than this call "
			 "has; raise it there (limits.conf(5))",
			 caller_limit_name(id), (unsigned long long)j->agent->own.limits[id].hard);
}

/* Its compiler is the client's. */
static void admit(struct agent_job *j)
{
	struct agent *a = j->agent;
	int r = caller_lacking(&a->own, &j->caller);

	if (r >= 0) {
		_cleanup_free_ char *text = lower_limit(j, r);

		job_refuse(j, REFUSED_CALLER, text);
		return;
	}
	for (char **w = j->msg.workspaces; *w; w++) {
		r = mirror_serve(a->mirror, *w);
		if (r < 0) {
			job_refuse(j, REFUSED_CWD, err_text(r));
			return;
		}
	}
	/* A client that shows its own system knows what of it jobs see. */
	if (!(a->client.flags & HELLO_F_CLIENT_ROOT))
		tell_missing(j);
	j->wait_seq = mirror_seq(a->mirror);
	j->wait_kept = a->n_kept;
	mirror_job_started(a->mirror, j->msg.job_id, j->wait_seq);
	job_wait(j);
}

/* For one job, by a thread: it may have to read all of the compiler. */
struct comparison {
	struct agent *agent; /* in `done` only */
	struct toolchain *tools;
	uint32_t job_id;
	int result;
	struct errmsg msg;
};

static void compare(void *arg)
{
	struct comparison *c = arg;

	c->result = toolchain_check(c->tools, &c->msg);
}

static void compared(void *arg)
{
	struct comparison *c = arg;
	struct agent_job *j = map_get_u64(&c->agent->jobs, c->job_id);

	toolchain_end_check(c->tools);
	/* It may have been killed, and its number given to another one. */
	if (j && j->comparing == c && c->agent->disk) {
		j->comparing = NULL;
		job_unqueue(j);
		if (c->result == CONCC_E_UNAVAIL) {
			job_refuse(j, REFUSED_TOOLCHAIN, c->msg.text);
		} else if (c->result < 0) {
			struct msg_exit m = {.how = EXIT_FAILED, .text = c->msg.text};

			job_send_exit(j, &m);
		} else {
			admit(j);
		}
	}
	free(c);
}

static void begin_comparison(struct agent_job *j)
{
	struct comparison *c = xcalloc(1, sizeof(*c));

	*c = (struct comparison){.agent = j->agent, .tools = j->tools, .job_id = j->msg.job_id};
	j->comparing = c;
	job_wait(j);
	toolchain_begin_check(j->tools);
	(void)offload_put(j->agent->comparing, compare, compared, c, 0); /* as many as jobs */
}

int agent_job_start(struct agent *a, struct blob payload)
{
	struct msg_job job;
	struct agent_job *j;
	int r;

	r = msg_job_decode(payload, &job);
	if (r < 0)
		return r;
	if (map_get_u64(&a->jobs, job.job_id) || !map_get_u64(&a->envs, job.env_id) ||
	    !map_get_u64(&a->exes, job.exe_id) || !map_get_u64(&a->callers, job.caller_id) ||
	    a->jobs.n >= AGENT_JOBS_MAX) {
		msg_job_release(&job);
		return CONCC_E_PROTO;
	}
	j = agent_job_new(a, &job);
	if (toolchain_is_right(j->tools))
		admit(j);
	else
		begin_comparison(j);
	return 0;
}

/* ---- an early end ---- */

/* The client waits for the end, and on a slow line what is queued could take minutes. */
static void drop_results(struct agent_job *j)
{
	struct msg_exit m = {.how = EXIT_FAILED, .text = j->taint};

	if (list_empty(&j->outbox.items))
		return;
	outbox_release(&j->outbox);
	j->leaving = false; /* what was to do so went with the outbox */
	if (j->exit_sent)
		job_send_exit(j, &m);
}

/* It ends now: the next attempt leaves out as much output as was shown, so none may come of what it
 * made of the failure. */
static void fail(struct agent_job *j, enum failure why, const char *text)
{
	if (!j->launched || j->exit_sent)
		return;
	if (!j->taint)
		j->verdict = why;
	job_taint(j, text);
	if (!j->ended) {
		job_stop(j, SIGKILL);
	} else if (j->out[0].fd >= 0 || j->out[1].fd >= 0) {
		job_close_outputs(j);
		job_maybe_finish(j);
	}
}

void agent_job_failed(struct agent *a, int64_t job, enum failure why, const char *text)
{
	struct agent_job *j;
	size_t it = 0;

	if (job >= 0) {
		j = map_get_u64(&a->jobs, (uint32_t)job);
		if (j)
			fail(j, why, text);
		return;
	}
	while (job == JOB_UNKNOWN && (j = map_next(&a->jobs, &it, NULL)))
		fail(j, why, text);
}

char *agent_job_descriptors(struct agent *a, int64_t job)
{
	const struct agent_job *j = job >= 0 ? map_get_u64(&a->jobs, (uint32_t)job) : NULL;
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *comma = " ";

	buf_putf(&b, "the job used a descriptor that its caller has open (of");
	for (int fd = CALLER_FDS_FROM; j && fd < j->caller.fds_end && b.len < 128; fd++) {
		if (j->caller.fds[fd] == CALLER_CLOSED)
			continue;
		buf_putf(&b, "%s%d", comma, fd);
		comma = ", ";
	}
	buf_putf(&b, ")");
	return xstrdup(buf_cstr(&b));
}

void agent_job_beyond(struct agent *a, uint32_t job_id, const char *text)
{
	struct agent_job *j = map_get_u64(&a->jobs, job_id);

	if (!j || j->exit_sent || j->ended)
		return;
	if (!j->taint)
		j->verdict = FAILED_NO_WAY_HOME;
	job_taint(j, text);
	job_stop(j, SIGKILL);
}

void agent_job_looks(struct agent *a, uint32_t job_id, uint8_t kind, size_t workspace,
		     const char *path)
{
	struct agent_job *j = map_get_u64(&a->jobs, job_id);

	if (!j || j->ended)
		return;
	buf_put_u8(&j->looks, kind);
	buf_put_u32(&j->looks, (uint32_t)workspace);
	buf_put_str(&j->looks, path);
}

int agent_job_kill(struct agent *a, struct blob payload)
{
	uint32_t id, signo;
	struct agent_job *j;
	int r;

	r = msg_pair_decode(payload, &id, &signo);
	if (r < 0 || signo < 1 || signo > 64)
		return r < 0 ? r : CONCC_E_PROTO;
	j = map_get_u64(&a->jobs, id);
	if (!j)
		return 0;
	/* What it still says and does is of no use: nobody would give credit for it. */
	job_taint(j, "it was killed");
	if (!list_empty(&j->of_waiting)) {
		struct msg_exit m = {.how = EXIT_FAILED, .text = j->taint};

		job_unqueue(j);
		job_send_exit(j, &m);
		if (a->slots)
			host_slots_waiting(a->slots, a->n_queued);
		return 0;
	}
	drop_results(j);
	if (j->exit_sent)
		return 0;
	if (!j->ended) {
		job_stop(j, (int)signo);
		return 0;
	}
	job_close_outputs(
		j); /* only its last words were missing, and nobody gives credit for them */
	job_maybe_finish(j);
	return 0;
}
