/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "eligible.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"
#include "exe.h"
#include "links.h"
#include "missing.h"
#include "mounted.h"
#include "peer.h"
#include "shown.h"
#include "system.h"
#include "workspaces.h"

/* May there be something at this path for the peer's jobs? */
static bool may_see(const struct peer *p, const char *path)
{
	if (p->conf->root == ROOT_CLIENT)
		return system_shows(p->server, path);
	return workspaces_is_system_path(path) || shown_has(p, path) ||
	       tree_root_of(p->server->tree, path, NULL);
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

bool run_leads_there(struct peer *p, const char *path)
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
		if ((workspaces_is_system_path(path) || shown_has(p, path)) &&
		    !path_is_below(path, "/dev") && !path_is_below(path, "/proc") &&
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
		if (!may_see(peer, clean) && may_exist(clean) && !run_leads_there(peer, clean))
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
	return writable || (!workspaces_is_system_path(exe) && !system_tree_of(p->server, exe));
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

/* ---- the checks: true when it is not to go there, with why ---- */

static bool in_other_namespace(struct call *c, struct run_failure *ret)
{
	const char *differs = client_sees_else(c->client);

	return differs && run_failure_set(ret, RUN_FAIL_LOCAL, true, "namespace",
					  xasprintf("it runs %s", differs));
}

/* What it makes would be our group's, and what a job may read, and is told of itself, is ours. */
static bool in_other_group(struct call *c, struct run_failure *ret)
{
	return c->client->in_other_groups && run_failure_set(ret, RUN_FAIL_LOCAL, true, "group",
							     xstrdup("it runs " GROUPS_DIFFER));
}

static bool beyond_our_limits(struct call *c, struct run_failure *ret)
{
	const struct server *s = c->client->server;

	return (s->replaced || caller_exceeds(&c->m->caller, &s->own)) &&
	       run_failure_set(ret, RUN_FAIL_SERVER, true, "server-limits",
			       xstrdup("the project server has lower limits than this call"));
}

static bool worker_is_down(struct call *c, struct run_failure *ret)
{
	const struct peer *p = c->peer;

	return (!p || p->state != PEER_UP) &&
	       run_failure_set(ret, RUN_FAIL_RETRY, true, "worker-down",
			       xasprintf("worker %s is not there: %s", c->m->worker,
					 p ? p->error : "not configured"));
}

static bool system_has_changed(struct call *c, struct run_failure *ret)
{
	if (mounted_is_as_noted(c->peer))
		return false;
	peer_outdated(c->peer);
	return run_failure_set(
		ret, RUN_FAIL_RETRY, true, "worker-down",
		xasprintf("worker %s is started anew, since this machine's system has "
			  "other mounts or directories now",
			  c->m->worker));
}

static bool in_no_workspace(struct call *c, struct run_failure *ret)
{
	struct errmsg msg = {0};

	int r = workspaces_of(c->peer, c->m, &c->workspaces, &c->unserved, &msg);

	/* What a person has set wrongly is told, since it looks right. */
	return r < 0 && run_failure_set(ret, RUN_FAIL_LOCAL, r != CONCC_E_CONF, "outside",
					xstrdup(msg.text));
}

static bool in_cwd_of_other_name(struct call *c, struct run_failure *ret)
{
	const char *why = workspaces_other_cwd(c->peer, c->m, &c->workspaces);

	return why && run_failure_set(ret, RUN_FAIL_LOCAL, true, "symlinked-cwd", xstrdup(why));
}

static bool has_default_acl(struct call *c, struct run_failure *ret)
{
	return tree_has_default_acl(c->client->server->tree, c->m->cwd) &&
	       run_failure_set(
		       ret, RUN_FAIL_LOCAL, true, "default-acl",
		       xasprintf("%s has a default access list (setfacl -d), which jobs elsewhere "
				 "don't see",
				 c->m->cwd));
}

static bool needs_tmp(struct call *c, struct run_failure *ret)
{
	struct policy_verdict v;

	return names_tmp(c->m, c->workspaces, &v) &&
	       run_failure_set(ret, RUN_FAIL_LOCAL, true, v.rule, xstrdup(v.why));
}

static bool system_is_unwatched(struct call *c, struct run_failure *ret)
{
	struct errmsg msg = {0};

	return c->peer->conf->root == ROOT_CLIENT && system_refresh(c->peer, &msg) < 0 &&
	       run_failure_set(ret, RUN_FAIL_LOCAL, false, "watch", xstrdup(msg.text));
}

static bool names_unserved(struct call *c, struct run_failure *ret)
{
	if (!c->unserved)
		c->unserved = unserved_arg(c->peer, c->m->argv);
	return c->unserved && run_failure_set(ret, RUN_FAIL_LOCAL, true, "unserved",
					      missing_text(c->peer, c->workspaces, c->m->argv[0],
							   c->unserved, false));
}

static bool writes_where_jobs_read(struct call *c, struct run_failure *ret)
{
	char *why = refused_output(c->peer, c->m->argv);

	return why && run_failure_set(ret, RUN_FAIL_LOCAL, true, "unserved", why);
}

static bool is_no_command(struct call *c, struct run_failure *ret)
{
	struct errmsg msg = {0};
	int err = exe_get(c->peer, c->m, c->fresh, &c->exe, &msg);

	c->later = err == CONCC_E_LATER;
	return c->later || (err < 0 && run_failure_set(ret, RUN_FAIL_LOCAL, true, "command",
						       xstrdup(msg.text)));
}

static bool compiler_was_refused(struct call *c, struct run_failure *ret)
{
	const char *why = map_get_u64(&c->peer->exes_refused, exe_msg(c->exe)->exe_id);

	return why && run_failure_set(ret, RUN_FAIL_RETRY, true, "toolchain", xstrdup(why));
}

static bool limits_were_refused(struct call *c, struct run_failure *ret)
{
	const char *why = map_get_u64(&c->peer->callers_refused,
				      dispatch_caller(c->peer, &c->m->caller));

	return why && run_failure_set(ret, RUN_FAIL_RETRY, true, "caller-limits", xstrdup(why));
}

/* In this order: each may rely on what the ones before it found. */
static bool (*const checks[])(struct call *c, struct run_failure *ret) = {
	in_other_namespace, in_other_group,	  beyond_our_limits,	worker_is_down,
	system_has_changed, in_no_workspace,	  in_cwd_of_other_name, has_default_acl,
	needs_tmp,	    system_is_unwatched,  names_unserved,	writes_where_jobs_read,
	is_no_command,	    compiler_was_refused, limits_were_refused,
};

bool call_is_eligible(struct call *c, struct run_failure *ret)
{
	for (size_t i = 0; i < N_OF(checks); i++) {
		if (checks[i](c, ret))
			return false;
	}
	return true;
}

void call_release(struct call *c)
{
	strv_free(c->workspaces);
	free(c->unserved);
}
