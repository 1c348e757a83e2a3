/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "absent.h"
#include "ahead.h"
#include "bare.h"
#include "exe.h"
#include "links.h"
#include "results.h"
#include "run.h"
#include "working_set.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"

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

static uint32_t send_env(struct peer *p, char *const *all, char *const *workspaces)
{
	size_t n = strv_len(all) + 1;
	_cleanup_free_ char **env = xcalloc(n, sizeof(*env));
	_cleanup_buf_ struct buf b = BUF_INIT;

	memcpy(env, all, n * sizeof(*env));
	job_env_drop_temp(env, workspaces);
	msg_env_encode(&b, 0, env);
	return send_once(p, MSG_ENV, &p->envs, &p->next_env_id, &b);
}

uint32_t dispatch_caller(struct peer *p, const struct caller *caller)
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
	r->caller_id = dispatch_caller(p, &m->caller);
	r->compiler = m->flags & JOB_F_COMPILER;
	r->shows = r->compiler; /* which prints the same again */
	r->dumps_core = m->caller.limits[CALLER_CORE].soft > 0;
	r->slot.fd = -1;
	r->name = xstrdup(path_base(m->argv[0]));
	r->exe = xstrdup(m->exe);
	r->search = search_path(m->env);
	r->workspaces = workspaces;
	r->input_credit = PROTO_INPUT_WINDOW;
	r->saw = tree_version(s->tree);
	r->commit = commit_new(s->tree, workspaces, r->saw);
	if (!(m->flags & JOB_F_COMPILER))
		commit_of_any_command(r->commit);
	r->recording = recording_new(p, m, workspaces, r->saw);
	map_put_u64(&p->jobs, r->job_id, r);
	p->n_jobs++;
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
		.env_id = send_env(r->peer, m->env, r->workspaces),
		.exe_id = exe_msg(e)->exe_id,
		.caller_id = r->caller_id,
		.flags = (m->flags & ~(uint32_t)JOB_F_OF_RUN) | (r->recording ? JOB_F_TRACE : 0),
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
	bare_check(p);
	*ret = run_new(c, p, m, e, strv_copy(workspaces));
	ahead_job(p, m);
	working_set_sources(p, m->cwd, m->argv);
	send_job(*ret, m, e);
	run_start_clock(*ret);
	return 0;
}
