/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "agent.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define IDS_MAX	      100000	   /* environments, callers or programs of one client */
#define ENV_BYTES_MAX (256u << 20) /* of all environments of one client: 50000 usual ones */
#define SEARCH_MAX    256	   /* directories in a variable that count */

static void name_directories(struct agent *a, const char *list)
{
	_cleanup_free_ char *copy = xstrdup(list);
	char *save = NULL;
	unsigned n = 0;

	for (char *dir = strtok_r(copy, ":", &save); dir && n++ < SEARCH_MAX;
	     dir = strtok_r(NULL, ":", &save)) {
		_cleanup_free_ char *path = path_clean("/", dir);

		if (*dir == '/')
			(void)mirror_outside(a->mirror, path,
					     false); /* not when it can't be a path */
	}
}

/*
 * Shells look whether they are in HOME, compilers for themselves in all of PATH:
 * these directories are there, so that it is no news, and that what is looked up
 * in them is told as it is.
 */
static void name_environment(struct agent *a, char *const *env)
{
	static const char *const names[] = {"HOME=", "PATH=", "LD_LIBRARY_PATH="};

	for (; *env; env++) {
		for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
			if (str_starts(*env, names[i]))
				name_directories(a, *env + strlen(names[i]));
	}
}

static int on_env(struct agent *a, struct blob payload)
{
	struct msg_env *m = xcalloc(1, sizeof(*m));
	int r;

	r = msg_env_decode(payload, m);
	if (r == 0 && map_get_u64(&a->envs, m->env_id))
		r = CONCC_E_PROTO;
	/* The client connects anew, and begins with none. */
	if (r == 0 && (a->envs.n >= IDS_MAX || payload.n > ENV_BYTES_MAX - a->env_bytes))
		r = CONCC_E_TOOBIG;
	if (r < 0) {
		msg_env_release(m);
		free(m);
		return r;
	}
	a->env_bytes += payload.n;
	map_put_u64(&a->envs, m->env_id, m);
	name_environment(a, m->env);
	return 0;
}

static int on_caller(struct agent *a, struct blob payload)
{
	struct msg_caller m;
	int r = msg_caller_decode(payload, &m);

	if (r < 0)
		return r;
	if (map_get_u64(&a->callers, m.caller_id))
		return CONCC_E_PROTO;
	if (a->callers.n >= IDS_MAX)
		return CONCC_E_TOOBIG;
	map_put_u64(&a->callers, m.caller_id, xmemdup(&m.caller, sizeof(m.caller)));
	return 0;
}

static int on_exe(struct agent *a, struct blob payload)
{
	struct toolchain *t = toolchain_new(payload);

	if (!t || map_get_u64(&a->exes, toolchain_id(t)) || a->exes.n >= IDS_MAX) {
		toolchain_free(t);
		return CONCC_E_PROTO;
	}
	map_put_u64(&a->exes, toolchain_id(t), t);
	return 0;
}

static int on_dir(struct agent *a, struct blob payload)
{
	struct msg_dir m;
	int r;

	r = msg_dir_decode(payload, &m);
	if (r < 0)
		return r;
	r = mirror_dir(a->mirror, &m);
	msg_dir_release(&m);
	return r;
}

static int on_update(struct agent *a, struct blob payload)
{
	struct msg_update m;
	int r;

	r = msg_update_decode(payload, &m);
	return r < 0 ? r : mirror_update(a->mirror, &m);
}

static int on_content(struct agent *a, struct blob payload)
{
	struct msg_content m;
	int r;

	r = msg_content_decode(payload, &m);
	return r < 0 ? r : mirror_content(a->mirror, &m);
}

static int on_serve(struct agent *a, struct blob payload)
{
	_cleanup_free_ char *path = NULL;
	uint8_t kind;
	int r;

	r = msg_serve_decode(payload, &path, &kind);
	if (r < 0)
		return r;
	r = mirror_serve(a->mirror, path);
	if (r < 0 || kind != SERVE_TREE)
		return r;
	if (!(a->client.flags & HELLO_F_CLIENT_ROOT) || strv_len(a->trees) >= PROTO_TREES_MAX)
		return CONCC_E_PROTO;
	strv_push(&a->trees, steal_ptr(&path));
	return 0;
}

static int on_prefetch(struct agent *a, struct blob payload)
{
	struct msg_prefetch m;
	int r;

	r = msg_prefetch_decode(payload, &m);
	if (r < 0)
		return r;
	mirror_prefetch(a->mirror, &m);
	msg_prefetch_release(&m);
	return 0;
}

static int on_guess(struct agent *a, struct blob payload)
{
	struct msg_prefetch m;
	int r;

	r = msg_prefetch_decode(payload, &m);
	if (r < 0)
		return r;
	mirror_guess(a->mirror, &m);
	msg_prefetch_release(&m);
	return 0;
}

/* What was a directory when a job needed it to be one can't become a link: a new session can. */
static int on_link(struct agent *a, struct blob payload)
{
	struct msg_link m;
	int r;

	r = msg_link_decode(payload, &m);
	if (r < 0)
		return r;
	r = mirror_link(a->mirror, &m);
	msg_link_release(&m);
	return r;
}

static int on_bare(struct agent *a, struct blob payload)
{
	struct msg_bare m;
	int r;

	r = msg_bare_decode(payload, &m);
	if (r < 0)
		return r;
	r = mirror_bare(a->mirror, &m);
	msg_bare_release(&m);
	return r;
}

static int on_outside(struct agent *a, struct blob payload)
{
	struct msg_outside m;
	int r;

	r = msg_outside_decode(payload, &m);
	if (r < 0)
		return r;
	mirror_outside_absent(a->mirror, &m);
	msg_outside_release(&m);
	return 0;
}

static int on_limits(struct agent *a, struct blob payload)
{
	struct msg_limits m;
	int r = msg_limits_decode(payload, &m);

	if (r == 0)
		agent_set_limits(a, &m);
	return r;
}

static int on_dir_stale(struct agent *a, struct blob payload)
{
	uint32_t id;
	int r;

	r = msg_u32_decode(payload, &id);
	return r < 0 ? r : mirror_dir_stale(a->mirror, id);
}

int agent_message(struct agent *a, uint8_t type, struct blob payload)
{
	switch (type) {
	case MSG_ENV:
		return on_env(a, payload);
	case MSG_CALLER:
		return on_caller(a, payload);
	case MSG_EXE:
		return on_exe(a, payload);
	case MSG_JOB:
		return agent_job_start(a, payload);
	case MSG_JOB_INPUT:
		return agent_job_input(a, payload);
	case MSG_JOB_CREDIT:
		return agent_job_credit(a, payload);
	case MSG_JOB_KILL:
		return agent_job_kill(a, payload);
	case MSG_DIR:
		return on_dir(a, payload);
	case MSG_UPDATE:
		return on_update(a, payload);
	case MSG_DIR_STALE:
		return on_dir_stale(a, payload);
	case MSG_CONTENT:
		return on_content(a, payload);
	case MSG_SERVE:
		return on_serve(a, payload);
	case MSG_PREFETCH:
		return on_prefetch(a, payload);
	case MSG_GUESS:
		return on_guess(a, payload);
	case MSG_LINK:
		return on_link(a, payload);
	case MSG_BARE:
		return on_bare(a, payload);
	case MSG_OUTSIDE:
		return on_outside(a, payload);
	case MSG_LIMITS:
		return on_limits(a, payload);
	}
	return CONCC_E_PROTO;
}
