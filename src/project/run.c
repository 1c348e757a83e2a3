/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "run.h"
#include "missing.h"
#include "results.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/commit_mark.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/log.h"
#include "concc/str.h"

/* Errors are short: a job that prints more than this while we hold its output runs at home. */
#define HELD_MAX (8 * 1024 * 1024)
/* Looking at all running jobs costs more than keeping the marks of some removals. */
#define HORIZON_EVERY 64
/* A worker ends a killed job at once; this is for a slow line, and for one that reclaims memory. */
#define KILL_MS 20000

/* What was removed before the oldest job began matters to nobody: the tree may forget it. */
static void set_horizon(struct server *s)
{
	uint64_t oldest = UINT64_MAX;

	for (unsigned i = 0; i < s->n_peers; i++) {
		struct run *r;
		size_t it = 0;

		while ((r = map_next(&s->peers[i]->jobs, &it, NULL)))
			oldest = r->saw < oldest ? r->saw : oldest;
	}
	tree_set_horizon(s->tree, oldest);
}

static void run_free(struct run *r)
{
	struct server *s;

	if (!r)
		return;
	s = r->peer->server;
	map_del_u64(&r->peer->jobs, r->job_id);
	if (r->client && r->client->run == r)
		r->client->run = NULL;
	straggler_ended(r);
	s->n_running--;
	server_busy(s);
	peer_busy(r->peer);
	loop_remove(r->kill_timer);
	commit_free(r->commit);
	recording_free(r->recording);
	buf_release(&r->held);
	strv_free(r->workspaces);
	free(r->cwd);
	free(r->command);
	free(r->name);
	free(r->exe);
	strv_free(r->search);
	free(r->missing);
	free(r->failure);
	free(r);
	if (!s->n_running || ++s->n_ended % HORIZON_EVERY == 0)
		set_horizon(s);
}

static void send_fail(struct client *c, enum run_fail what, bool quiet, const char *rule,
		      const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_free_ char *shown = xstrdup(text);
	struct msg_run_fail m = {
		.what = (uint8_t)what,
		.quiet = quiet,
		.rule = (char *)rule,
		.text = shown,
	};

	/* It may name a file that a worker chose the name of. */
	str_defuse(shown);

	jobs_drop(steal_ptr(&c->job));
	server_count_reason(c->server, rule);
	if (what == RUN_FAIL_LOCAL)
		c->server->n_local++;
	else
		c->server->n_retried++;
	msg_run_fail_encode(&b, &m);
	link_send_buf(c->link, MSG_RUN_FAIL, LINK_BULK, &b);
}

/* Ends the run by sending its wrapper elsewhere.  quiet: as a rule has it, and nothing failed. */
static void run_fail(struct run *r, enum run_fail what, bool quiet, const char *rule,
		     const char *text)
{
	r->peer->n_failed += !quiet;
	if (r->client && !straggler_goes_on(r))
		send_fail(r->client, what, quiet, rule, text);
	run_free(r);
}

static void kill_timeout(void *data)
{
	struct run *r = data;

	r->kill_timer = NULL;
	peer_fail(r->peer, "it does not end a job that was killed");
}

void run_give_up(struct run *r, const char *rule, const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	loop_remove(r->kill_timer);
	r->failure = xstrdup(text);
	r->failure_rule = rule;
	commit_free(steal_ptr(&r->commit));
	msg_pair_encode(&b, r->job_id, SIGKILL);
	link_send_buf(r->peer->link, MSG_JOB_KILL, LINK_PRIO, &b);
	r->kill_timer = loop_add_timer(r->peer->server->loop, KILL_MS, kill_timeout, r);
}

void run_send_home(struct run *r, const char *rule, const char *text)
{
	struct client *c = r->client;

	r->client = NULL;
	c->run = NULL;
	send_fail(c, RUN_FAIL_LOCAL, true, rule, text);
	run_give_up(r, rule, text);
}

static void overdue(void *data);

static void set_clock(struct run *r, uint64_t s)
{
	r->kill_timer = loop_add_timer(r->peer->server->loop,
				       (s + PROTO_TURN_MAX_S) * 1000 + KILL_MS, overdue, r);
}

/* It was to be ended there, some time ago. */
static void overdue(void *data)
{
	struct run *r = data;
	_cleanup_free_ char *text = xasprintf(
		"worker %s does not end it, though it has a `job-time`", r->peer->conf->name);

	r->kill_timer = NULL;
	if (r->ended)
		return; /* it is the wrapper that is waited for */
	if (!r->comes_home) {
		run_give_up(r, "limit", text);
		return;
	}
	r->comes_home = false;
	set_clock(r, 0);
}

/* The worker's word is not all there is. */
static void start_clock(struct run *r)
{
	if (r->peer->conf->job_time_s)
		set_clock(r, r->peer->conf->job_time_s);
}

/* ---- starting ---- */

/* May there be something at this path for the peer's jobs? */
static bool may_see(const struct peer *p, const char *path)
{
	if (p->conf->root == ROOT_CLIENT)
		return system_shows(p->server, path);
	return is_system_path(path) || tree_root_of(p->server->tree, path, NULL);
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

/* True also when it can't be told now: then no job is to go on as if it were not there. */
static bool may_exist(const char *path)
{
	return exists(path) || !err_is_fact(-errno);
}

/* By links that it was told of, or is now. */
static bool leads_there(struct peer *p, const char *path)
{
	_cleanup_strv_ char **trees = xcalloc(1, sizeof(*trees));
	_cleanup_free_ char *there = links_follow(p, path, &trees);

	return there && !streq(there, path) && may_see(p, there);
}

/* Why the command can't make what it is told to: jobs see the place, and may not write there. NULL
 * else. */
static char *refused_output(const struct peer *p, char *const *argv)
{
	for (char *const *a = argv + 1; *a; a++) {
		const char *arg = job_arg_path(*a);
		_cleanup_free_ char *path = NULL;
		bool writable = false;

		if (!arg || !(streq(a[-1], "-o") || str_starts(*a, "-o/")))
			continue;
		path = path_clean("/", arg);
		if (is_system_path(path) && !path_is_below(path, "/dev") &&
		    !(tree_root_of(p->server->tree, path, &writable) && writable)) {
			_cleanup_free_ char *shown = str_escape(path, strlen(path), 200);

			return xasprintf("it is to write %s, where jobs only read", shown);
		}
	}
	return NULL;
}

/* A file of this machine that the command names and the worker can't see; NULL when there is none.
 */
static char *unserved_arg(struct peer *peer, char *const *argv)
{
	for (char *const *a = argv + 1; *a; a++) {
		const char *p = job_arg_path(*a);
		_cleanup_free_ char *clean = NULL;

		if (!p)
			continue;
		clean = path_clean("/", p);
		if (!may_see(peer, clean) && may_exist(clean) && !leads_there(peer, clean))
			return steal_ptr(&clean);
	}
	return NULL;
}

/* Workers see the very file, so that there is nothing to compare. */
bool run_serves_exe(const struct peer *p, const char *exe)
{
	bool writable = false;

	if (p->conf->root == ROOT_CLIENT)
		return true;
	if (!tree_root_of(p->server->tree, exe, &writable))
		return false;
	/* What is a toolchain here may be another one there. */
	return writable || (!is_system_path(exe) && !system_tree_of(p->server, exe));
}

/* In such a place, as the wrapper took it for. */
static bool names_work_dir(char *const *argv)
{
	for (char *const *a = argv + 1; *a; a++) {
		const char *path = job_arg_path(*a);
		_cleanup_free_ char *work = path ? job_work_dir(path) : NULL;

		if (work)
			return true;
	}
	return false;
}

/*
 * Below /tmp a wrapper can't tell the workspaces by itself: it may list others than we serve, or
 * none.  What is there and not served would be missing on the worker, and nothing notices that.
 */
static bool names_tmp(const struct msg_run *m, char *const *workspaces, struct policy_verdict *ret)
{
	struct policy_input in = {
		.argv = m->argv,
		.cwd = m->cwd,
		.env = m->env,
		.served = workspaces,
		.read_file = read_regular_file,
	};

	return (policy_is_tmp(m->cwd) || names_work_dir(m->argv)) && policy_names_tmp(&in, ret);
}

/* A message whose first field is an id, yet to be given: told once, and known by that from then on.
 */
static uint32_t send_once(struct peer *p, uint8_t type, struct map *known, uint32_t *next_id,
			  struct buf *b)
{
	uintptr_t id = (uintptr_t)map_get(known, b->data + 4, b->len - 4);

	if (id)
		return (uint32_t)id;
	id = ++*next_id;
	map_put(known, b->data + 4, b->len - 4, (void *)id);
	buf_set_u32(b, 0, (uint32_t)id);
	link_send_buf(p->link, type, LINK_PRIO, b);
	return (uint32_t)id;
}

static uint32_t send_env(struct peer *p, char *const *env)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_env_encode(&b, 0, env);
	return send_once(p, MSG_ENV, &p->envs, &p->next_env_id, &b);
}

static uint32_t send_caller(struct peer *p, const struct caller *caller)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_caller m = {.caller = *caller};

	msg_caller_encode(&b, &m);
	return send_once(p, MSG_CALLER, &p->callers, &p->next_caller_id, &b);
}

static void send_exe(struct peer *p, struct exe *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (map_put_u64(&p->exes_sent, exe_msg(e)->exe_id, e))
		return;
	msg_exe_encode(&b, exe_msg(e));
	link_send_buf(p->link, MSG_EXE, LINK_PRIO, &b);
}

static char **search_path(char *const *env)
{
	char **dirs = xcalloc(1, sizeof(*dirs)), *save = NULL;
	_cleanup_free_ char *copy = NULL;

	while (*env && !str_starts(*env, "PATH="))
		env++;
	copy = xstrdup(*env ? *env + strlen("PATH=") : "");
	for (char *dir = strtok_r(copy, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
		if (*dir == '/')
			strv_push(&dirs, path_clean("/", dir));
	}
	return dirs;
}

static struct run *run_new(struct client *c, struct peer *p, const struct msg_run *m,
			   const struct exe *e, char **workspaces)
{
	struct server *s = c->server;
	struct run *r = xcalloc(1, sizeof(*r));

	r->client = c;
	r->peer = p;
	do
		r->job_id = ++s->next_job_id;
	while (map_get_u64(&p->jobs, r->job_id));
	r->exe_id = exe_msg(e)->exe_id;
	r->caller_id = send_caller(p, &m->caller);
	r->dumps_core = m->caller.limits[CALLER_CORE].soft > 0;
	r->slot.fd = -1;
	r->cwd = xstrdup(m->cwd);
	r->command = xstrdup(c->job->record.command);
	r->kind_key = sched_key_of_kind(c->job->record.program, m->cwd);
	r->job_key = sched_key_of_job(c->job->record.program, m->cwd, c->job->record.subject);
	r->name = xstrdup(path_base(m->argv[0]));
	r->exe = xstrdup(m->exe);
	r->search = search_path(m->env);
	r->workspaces = workspaces;
	r->started_ms = now_ms();
	r->input_credit = PROTO_INPUT_WINDOW;
	r->saw = tree_version(s->tree);
	r->commit = commit_new(s->tree, workspaces, r->saw, (mode_t)m->umask);
	r->recording = recording_new(p, m, workspaces, r->saw);
	map_put_u64(&p->jobs, r->job_id, r);
	p->n_jobs++;
	s->n_jobs++;
	s->n_running++;
	server_busy(s);
	peer_busy(p);
	c->run = r;
	return r;
}

static void send_job(struct run *r, const struct msg_run *m, struct exe *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_job j = {
		.job_id = r->job_id,
		.env_id = send_env(r->peer, m->env),
		.exe_id = exe_msg(e)->exe_id,
		.caller_id = r->caller_id,
		.flags = m->flags | (r->recording ? JOB_F_TRACE : 0),
		.umask = m->umask,
		.rows = m->rows,
		.cols = m->cols,
		.path = m->path,
		.cwd = m->cwd,
		.workspaces = r->workspaces,
		.argv = m->argv,
	};

	send_exe(r->peer, e);
	msg_job_encode(&b, &j);
	link_send_buf(r->peer->link, MSG_JOB, LINK_PRIO, &b);
}

/* Tells the wrapper to go elsewhere before anything started. */
static void refuse(struct client *c, const struct msg_run *m, enum run_fail what, bool quiet,
		   const char *rule, const char *text)
{
	send_fail(c, what, quiet, rule, text);
}

void run_refuse(struct client *c, const char *rule, const char *text)
{
	send_fail(c, RUN_FAIL_LOCAL, false, rule, text);
}

int run_dispatch(struct client *c, struct peer *p, const struct msg_run *m, struct exe *e,
		 char **workspaces, struct run **ret)
{
	struct server *s = p->server;
	int r;

	for (char **w = workspaces; *w; w++)
		working_set_push(p, *w);
	/* From here on in this order: what changed, then the job.  That is the coherence rule. */
	r = tree_drain(s->tree);
	if (r < 0)
		return r;
	absent_check(p);
	links_check(p);
	working_set_sources(p, m->cwd, m->argv);
	*ret = run_new(c, p, m, e, strv_copy(workspaces));
	send_job(*ret, m, e);
	start_clock(*ret);
	return 0;
}

static int start(struct client *c, struct msg_run *m)
{
	struct server *s = c->server;
	struct peer *p = server_peer(s, m->worker);
	_cleanup_strv_ char **workspaces = NULL;
	_cleanup_free_ char *output = NULL;
	_cleanup_free_ char *unserved = NULL;
	struct errmsg msg = {0};
	struct policy_verdict v;
	const char *refused, *differs;
	struct run *run;
	struct exe *e;
	int r;

	if (s->stopping && !s->replaced)
		return CONCC_E_CLOSED; /* the wrapper starts another server */
	differs = namespaces_differ(&s->namespaces, c->pid);
	if (differs) {
		_cleanup_free_ char *text = xasprintf("it runs %s", differs);

		refuse(c, m, RUN_FAIL_LOCAL, true, "namespace", text);
		return 0;
	}
	if (!s->replaced && caller_exceeds(&m->caller, &s->own)) {
		log_info("a caller has higher limits: leaving when %u running jobs have ended",
			 s->n_running);
		s->replaced = true;
		place_make_room(s);
	}
	if (s->replaced) {
		refuse(c, m, RUN_FAIL_SERVER, true, "server-limits",
		       "the project server has lower limits than this call");
		return 0;
	}
	if (!p || p->state != PEER_UP) {
		_cleanup_free_ char *text = xasprintf("worker %s is not there: %s", m->worker,
						      p ? p->error : "not configured");

		refuse(c, m, RUN_FAIL_RETRY, true, "worker-down", text);
		return 0;
	}
	workspaces = workspaces_of(p, m, &unserved, &msg);
	if (!workspaces) {
		refuse(c, m, RUN_FAIL_LOCAL, true, "outside", msg.text);
		return 0;
	}
	refused = workspaces_other_cwd(p, m, &workspaces);
	if (refused) {
		refuse(c, m, RUN_FAIL_LOCAL, true, "symlinked-cwd", refused);
		return 0;
	}
	if (tree_has_default_acl(s->tree, m->cwd)) {
		_cleanup_free_ char *text = xasprintf(
			"%s has a default access list (setfacl -d), which jobs elsewhere "
			"don't see",
			m->cwd);

		refuse(c, m, RUN_FAIL_LOCAL, true, "default-acl", text);
		return 0;
	}
	if (names_tmp(m, workspaces, &v)) {
		refuse(c, m, RUN_FAIL_LOCAL, true, v.rule, v.why);
		return 0;
	}
	if (p->conf->root == ROOT_CLIENT && system_refresh(p, &msg) < 0) {
		refuse(c, m, RUN_FAIL_LOCAL, false, "watch", msg.text);
		return 0;
	}
	if (!unserved)
		unserved = unserved_arg(p, m->argv);
	if (unserved) {
		_cleanup_free_ char *text = missing_text(p, workspaces, unserved, false);

		refuse(c, m, RUN_FAIL_LOCAL, true, "unserved", text);
		return 0;
	}
	output = refused_output(p, m->argv);
	if (output) {
		refuse(c, m, RUN_FAIL_LOCAL, true, "unserved", output);
		return 0;
	}
	r = exe_get(p, m, &e, &msg);
	if (r < 0) {
		refuse(c, m, RUN_FAIL_LOCAL, true, "command", msg.text);
		return 0;
	}
	refused = map_get_u64(&p->exes_refused, exe_msg(e)->exe_id);
	if (refused) {
		refuse(c, m, RUN_FAIL_RETRY, true, "toolchain", refused);
		return 0;
	}
	refused = map_get_u64(&p->callers_refused, send_caller(p, &m->caller));
	if (refused) {
		refuse(c, m, RUN_FAIL_RETRY, true, "caller-limits", refused);
		return 0;
	}
	r = run_dispatch(c, p, m, e, workspaces, &run);
	if (r < 0) {
		refuse(c, m, RUN_FAIL_LOCAL, false, "watch", err_text(r));
		return 0;
	}
	jobs_sent(c->job, p);
	straggler_watch(run, m);
	return 0;
}

int run_start(struct client *c, struct msg_run *m)
{
	int r;

	if (c->run) {
		msg_run_release(m);
		return CONCC_E_PROTO;
	}
	c->job = jobs_take(c->server, c->job, c->pid, m);
	r = start(c, m);
	msg_run_release(m);
	return r;
}

/* ---- input ---- */

int run_input(struct run *r, struct blob payload)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct blob bytes;
	uint32_t id;
	int err;

	err = msg_bytes_decode(payload, &id, &bytes);
	if (err < 0)
		return err;
	if (bytes.n > r->input_credit)
		return CONCC_E_PROTO;
	r->input_credit -= (uint32_t)bytes.n;
	msg_bytes_encode(&b, r->job_id, bytes.p, bytes.n);
	link_send_buf(r->peer->link, MSG_JOB_INPUT, LINK_PRIO, &b);
	return 0;
}

static int on_input_credit(struct run *r, uint32_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (n > PROTO_INPUT_WINDOW || r->input_credit + n > PROTO_INPUT_WINDOW)
		return CONCC_E_PROTO;
	r->input_credit += n;
	if (!r->client)
		return 0;
	msg_pair_encode(&b, 0, n);
	link_send_buf(r->client->link, MSG_RUN_INPUT_CREDIT, LINK_PRIO, &b);
	return 0;
}

/* ---- output ---- */

static void give_credit(struct run *r)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!r->uncredited)
		return;
	/* A build that is paused in a pager must not fill our memory. */
	if (r->client && link_queued_bulk(r->client->link) >= LINK_BULK_LOW)
		return;
	msg_pair_encode(&b, r->job_id, r->uncredited);
	link_send_buf(r->peer->link, MSG_JOB_CREDIT, LINK_PRIO, &b);
	r->uncredited = 0;
}

void run_client_drained(struct run *r)
{
	give_credit(r);
}

static void show(struct run *r, uint8_t stream, struct blob bytes)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!bytes.n || !r->client)
		return;
	straggler_won(r);
	jobs_said(r->client->job);
	r->shown = true;
	r->untaken += bytes.n;
	msg_output_encode(&b, 0, stream, bytes.p, bytes.n);
	link_send_buf(r->client->link, MSG_RUN_OUTPUT, LINK_BULK, &b);
}

static void hold(struct run *r, uint8_t stream, struct blob bytes)
{
	buf_put_u8(&r->held, stream);
	buf_put_blob(&r->held, bytes.p, bytes.n);
}

static void show_held(struct run *r)
{
	struct rd rd;

	rd_init(&rd, r->held.data, r->held.len);
	while (rd.left) {
		uint8_t stream = rd_u8(&rd);

		show(r, stream, rd_blob(&rd, UINT32_MAX));
	}
	buf_reset(&r->held);
}

static int on_output(struct run *r, uint8_t stream, struct blob bytes)
{
	if (r->failure)
		return 0;
	/* More than the window was never allowed. */
	if (bytes.n > PROTO_OUTPUT_WINDOW || r->uncredited + bytes.n > PROTO_OUTPUT_WINDOW)
		return CONCC_E_PROTO;
	r->uncredited += (uint32_t)bytes.n;
	recording_output(r->recording, stream, bytes);
	if (!r->missing)
		show(r, stream, bytes);
	else if (r->held.len + bytes.n <= HELD_MAX)
		hold(r, stream, bytes);
	else
		run_give_up(r, "missing", r->missing);
	give_credit(r);
	return 0;
}

/* ---- what comes home ---- */

static const char *rule_of(int err)
{
	switch (err) {
	case CONCC_E_CONFLICT:
		return "conflict";
	case CONCC_E_NO_WAY:
		return "no-way-home";
	case -ENOSPC:
	case -EDQUOT:
		return "disk-full";
	}
	return "write-back";
}

/* Negative: not what a worker may send. */
static int apply(struct run *r)
{
	const struct server *s = r->peer->server;
	struct errmsg msg = {0};
	int err;

	straggler_won(r);
	commit_mark_set(s->commit_mark, r->client ? r->client->job->record.arrived_us : 0);
	err = commit_apply(r->commit, r->peer->index, &msg);
	commit_mark_set(s->commit_mark, 0);
	if (err == CONCC_E_PROTO)
		return err;
	if (err < 0)
		run_give_up(r, rule_of(err), msg.text);
	return 0;
}

/* What can't be put in place is remembered, and told by commit_apply(); a lie ends the link. */
static int unless_lie(int err)
{
	return err == CONCC_E_PROTO ? err : 0;
}

static int on_file(struct run *r, struct blob payload)
{
	struct msg_file f;
	int err;

	err = msg_file_decode(payload, &f);
	if (err < 0)
		return err;
	r->bytes_back += payload.n;
	if (f.workspace >= strv_len(r->workspaces))
		err = CONCC_E_PROTO;
	else if (r->commit)
		err = unless_lie(commit_file(r->commit, &f));
	if (err == 0 && r->commit)
		recording_file(r->recording, &f);
	msg_file_release(&f);
	return err;
}

static void on_no_way_home(struct run *r, const struct msg_exit *m)
{
	_cleanup_free_ char *text = str_escape(m->text, strlen(m->text), 1000);
	_cleanup_free_ char *line = xasprintf("on worker %s %s", r->peer->conf->name, text);

	run_fail(r, RUN_FAIL_LOCAL, true, "no-way-home", line);
}

/* What it sought works on this machine only. */
static void on_special(struct run *r, const struct msg_exit *m)
{
	_cleanup_free_ char *text = str_escape(m->text, strlen(m->text), 1000);
	_cleanup_free_ char *line = xasprintf("on worker %s %s", r->peer->conf->name, text);

	run_fail(r, RUN_FAIL_LOCAL, true, "special-file", line);
}

/* A limit that the user set for this worker: here there is none. */
static void on_limit(struct run *r, const struct msg_exit *m)
{
	_cleanup_free_ char *text = str_escape(m->text, strlen(m->text), 1000);
	_cleanup_free_ char *line = xasprintf("on worker %s %s: see concc.ini(5)",
					      r->peer->conf->name, text);

	run_fail(r, RUN_FAIL_LOCAL, false, "limit", line);
}

/* The worker's own failure or refusal: the job can run elsewhere. */
static void on_ours(struct run *r, const struct msg_exit *m)
{
	bool refused = m->how == EXIT_REFUSED;
	const char *rule = !refused			  ? "worker-failed"
			   : m->code == REFUSED_TOOLCHAIN ? "toolchain"
			   : m->code == REFUSED_CALLER	  ? "caller-limits"
							  : "refused";
	_cleanup_free_ char *text = str_escape(m->text, strlen(m->text), 1000);
	_cleanup_free_ char *line = xasprintf("worker %s %s: %s", r->peer->conf->name,
					      refused ? "refused the job" : "failed", text);

	if (refused && m->code == REFUSED_TOOLCHAIN)
		free(map_put_u64(&r->peer->exes_refused, r->exe_id, xstrdup(line)));
	if (refused && m->code == REFUSED_CALLER)
		free(map_put_u64(&r->peer->callers_refused, r->caller_id, xstrdup(line)));
	run_fail(r, RUN_FAIL_RETRY, false, rule, line);
}

/*
 * All that it said is out: what it did is put in place, and its end told.  Before that the wrapper
 * may still meet an error of its caller's output, and run the command itself.
 */
static int finish(struct run *r)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	recording_look(r->recording, &r->end);
	if (apply(r) < 0)
		return CONCC_E_PROTO;
	if (r->failure) {
		run_fail(r, RUN_FAIL_LOCAL, false, r->failure_rule, r->failure);
		return 0;
	}
	(void)map_put_u64(&r->peer->exes_done, r->exe_id, r->peer);
	straggler_done(r);
	msg_run_exit_encode(&b, r->end.how, r->end.code, r->peer->conf->name);
	recording_keep(r->recording, &r->end, r->peer->conf->name);
	if (r->client) {
		jobs_placed(steal_ptr(&r->client->job), r->peer, &r->end, r->bytes_back);
		link_send_buf(r->client->link, MSG_RUN_EXIT, LINK_BULK, &b);
	}
	run_free(r);
	return 0;
}

int run_output_credit(struct run *r, struct blob payload)
{
	struct peer *p = r->peer;
	uint32_t id, n;
	int err = msg_pair_decode(payload, &id, &n);

	if (err < 0)
		return err;
	if (n > r->untaken)
		return CONCC_E_PROTO;
	r->untaken -= n;
	err = r->ended && !r->untaken ? finish(r) : 0;
	if (err < 0)
		peer_fail(p, err_text(err)); /* its lie, and not the wrapper's */
	return 0;
}

static int on_done(struct run *r, const struct msg_exit *m)
{
	bool good = m->how == EXIT_CODE && m->code == 0;

	if (m->outside[0]) {
		_cleanup_free_ char *path = str_escape(m->outside[0], strlen(m->outside[0]), 200);
		_cleanup_free_ char *text = xasprintf("it wrote %s, outside every workspace", path);

		run_fail(r, RUN_FAIL_LOCAL, false, "outside-write", text);
		return 0;
	}
	if (r->missing && !good) {
		run_fail(r, RUN_FAIL_LOCAL, false, "missing", r->missing);
		return 0;
	}
	show_held(r);
	r->ended = true;
	r->end = *m;
	if (r->client)
		jobs_ended(r->client->job);
	return r->untaken ? 0 : finish(r);
}

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
static bool ends_from_outside(const struct run *r, int signo)
{
	return (signo == SIGTERM || signo == SIGHUP) && r->peer->conf->mirror == MIRROR_CONCC;
}

static void on_killed(struct run *r, int signo)
{
	_cleanup_free_ char *text = xasprintf(
		"signal %d (%s) ended it on %s, and was not sent from here", signo,
		strsignal(signo), r->peer->conf->name);

	run_fail(r, RUN_FAIL_LOCAL, true, "killed", text);
}

static int on_exit_msg(struct peer *p, struct run *r, const struct msg_exit *m)
{
	p->cpu_us += m->utime_us + m->stime_us;
	p->failures = 0; /* it works */
	if (!r->client)
		run_free(r);
	else if (r->failure)
		run_fail(r, RUN_FAIL_LOCAL, false, r->failure_rule, r->failure);
	else if (m->how == EXIT_FAILED && m->code == FAILED_LIMIT)
		on_limit(r, m);
	else if (m->how == EXIT_FAILED && m->code == FAILED_NO_WAY_HOME)
		on_no_way_home(r, m);
	else if (m->how == EXIT_FAILED && m->code == FAILED_SPECIAL)
		on_special(r, m);
	else if (m->how == EXIT_SIGNAL && r->dumps_core && leaves_core((int)m->code))
		run_fail(r, RUN_FAIL_LOCAL, true, "core", "its core file is to be made here");
	else if (m->how == EXIT_SIGNAL && ends_from_outside(r, (int)m->code))
		on_killed(r, (int)m->code);
	else if (m->how == EXIT_FAILED || m->how == EXIT_REFUSED)
		on_ours(r, m);
	else
		return on_done(r, m);
	return 0;
}

/* NULL when it has ended, as far as the worker is concerned. */
static struct run *job_of(const struct peer *p, uint32_t id)
{
	struct run *r = map_get_u64(&p->jobs, id);

	return r && !r->ended ? r : NULL;
}

static int message_exit(struct peer *p, struct blob payload)
{
	struct msg_exit m;
	struct run *r;
	int err;

	err = msg_exit_decode(payload, &m);
	if (err < 0)
		return err;
	r = job_of(p, m.job_id);
	if (r)
		err = on_exit_msg(p, r, &m);
	msg_exit_release(&m);
	return err;
}

static int message_output(struct peer *p, struct blob payload)
{
	struct blob bytes;
	uint8_t stream;
	struct run *r;
	uint32_t id;
	int err;

	err = msg_output_decode(payload, &id, &stream, &bytes);
	if (err < 0)
		return err;
	r = job_of(p, id);
	if (!r)
		return 0;
	r->bytes_back += payload.n;
	return on_output(r, stream, bytes);
}

static int message_data(struct peer *p, struct blob payload)
{
	struct blob bytes;
	struct run *r;
	uint32_t id;
	int err;

	err = msg_bytes_decode(payload, &id, &bytes);
	if (err < 0)
		return err;
	r = job_of(p, id);
	if (!r || !r->commit)
		return 0;
	r->bytes_back += payload.n;
	r->comes_home = true;
	return unless_lie(commit_data(r->commit, bytes.p, bytes.n));
}

static int message_missing(struct peer *p, struct blob payload)
{
	struct msg_missing m;
	struct run *r;
	int err;

	err = msg_missing_decode(payload, &m);
	if (err < 0)
		return err;
	r = job_of(p, m.job_id);
	if (r)
		missing_on(r, &m);
	msg_missing_release(&m);
	return 0;
}

/* Jobs end on the two sides at different times, but none was ever called that. */
static bool is_job_id(const struct server *s, uint32_t id)
{
	return id && (id <= s->next_job_id || s->n_jobs > UINT32_MAX / 2);
}

int run_message(struct peer *p, uint8_t type, struct blob payload)
{
	uint32_t id, value = 0;
	struct run *r;
	struct rd rd;
	int err;

	rd_init(&rd, payload.p, payload.n);
	id = rd_u32(&rd);
	if (rd.bad || !is_job_id(p->server, id))
		return CONCC_E_PROTO;
	switch (type) {
	case MSG_JOB_OUTPUT:
		return message_output(p, payload);
	case MSG_JOB_DATA:
		return message_data(p, payload);
	case MSG_JOB_EXIT:
		return message_exit(p, payload);
	case MSG_JOB_MISSING:
		return message_missing(p, payload);
	}
	r = job_of(p, id);
	if (!r)
		return 0;
	switch (type) {
	case MSG_JOB_FILE:
		return on_file(r, payload);
	case MSG_JOB_TRACE:
		return recording_trace(r->recording, payload);
	case MSG_JOB_COMMIT:
		err = msg_u32_decode(payload, &id);
		recording_early(r->recording);
		return err == 0 && r->commit ? apply(r) : err;
	case MSG_INPUT_CREDIT:
		err = msg_pair_decode(payload, &id, &value);
		return err < 0 ? err : on_input_credit(r, value);
	}
	return CONCC_E_PROTO;
}

/* ---- the other ends go away ---- */

void run_client_gone(struct run *r)
{
	straggler_won(r); /* neither is wanted: one is killed there, the other here */
	r->client->run = NULL;
	r->client = NULL;
	if (r->ended)
		run_free(r);
	else if (!r->failure)
		run_give_up(r, "cancelled", "its wrapper is gone");
}

void run_peer_gone(struct peer *p, const char *why)
{
	_cleanup_free_ char *text = xasprintf("worker %s was lost: %s", p->conf->name, why);
	struct run *r;
	size_t it = 0;

	while ((r = map_next(&p->jobs, &it, NULL)))
		run_fail(r, RUN_FAIL_RETRY, false, "worker-lost", text);
}
