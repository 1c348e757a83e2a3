/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "keys.h"

#include <stdio.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/conf.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/worker_spec.h"
#include "value.h"
#include "workers.h"

#define HOUR_S 3600

static int check_secrets(char *const *paths, const char *of, const char *like, struct errmsg *why)
{
	for (; *paths; paths++) {
		_cleanup_free_ char *secret = path_secret(*paths);

		if (secret)
			return errmsg_set(why, CONCC_E_CONF,
					  "'%s' would show workers your keys in %s; list the "
					  "directories %s themselves, like %s",
					  *paths, secret, of, like);
	}
	return 0;
}

static int check_workspaces(const struct conf *c, struct errmsg *why)
{
	return check_secrets(c->workspaces, "of the projects", "~/src", why);
}

static int set_workspaces(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;
	int r = value_paths(v, &c->workspaces, why);

	return r < 0 ? r : check_workspaces(c, why);
}

/* Takes where; for messages about directories that turn out to be none. */
static void listed_by(struct conf *c, char *where)
{
	free(c->workspaces_from);
	c->workspaces_from = where;
}

static int set_workspaces_env(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;
	int r = value_paths_colon(v, &c->workspaces, why);

	if (r == 0)
		r = check_workspaces(c, why);
	if (r == 0)
		listed_by(obj, xstrdup("CONCC_WORKSPACE"));
	return r;
}

static int set_toolchains(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;
	int r = value_paths(v, &c->toolchains, why);

	return r < 0 ? r : check_secrets(c->toolchains, "of the toolchains", "~/opt/gcc", why);
}

static int set_toolchains_env(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;
	int r = value_paths_colon(v, &c->toolchains, why);

	return r < 0 ? r : check_secrets(c->toolchains, "of the toolchains", "~/opt/gcc", why);
}

static int set_local_slots(void *obj, const char *v, struct errmsg *why)
{
	struct conf *c = obj;

	if (streq(v, "auto")) {
		c->local_slots = CONF_LOCAL_AUTO;
		return 0;
	}
	if (value_number(v, 0, POOL_SLOTS_MAX, &c->local_slots, NULL) < 0)
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is neither auto nor a number from 0 to %d", v,
				  POOL_SLOTS_MAX);
	return 0;
}

static int set_idle_timeout(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 0, 30 * 24 * HOUR_S, &((struct conf *)obj)->idle_timeout_s, why);
}

static int set_connect_timeout(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 1, HOUR_S, &((struct conf *)obj)->connect_timeout_s, why);
}

static int set_straggler_after(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 0, 24 * HOUR_S, &((struct conf *)obj)->straggler_after_s, why);
}

/* The least is there to catch "20" where 20G was meant. */
static int set_store_size(void *obj, const char *v, struct errmsg *why)
{
	return value_size(v, 1ULL << 20, 1ULL << 50, &((struct conf *)obj)->store_max_bytes, why);
}

static int set_cache(void *obj, const char *v, struct errmsg *why)
{
	uint64_t *max = &((struct conf *)obj)->cache_max_bytes;

	if (streq(v, "off")) {
		*max = 0;
		return 0;
	}
	return value_size(v, 16ULL << 20, 1ULL << 50, max, why);
}

#define URL_MAX 1000

/* Who asks for it with a password has it in ~/.netrc, which is not shown to everybody. */
static int set_cache_url(void *obj, const char *v, struct errmsg *why)
{
	char **url = &((struct conf *)obj)->cache_url;
	size_t n = strlen(v);

	free(steal_ptr(url));
	if (streq(v, "off"))
		return 0;
	if (!str_starts(v, "http://") && !str_starts(v, "https://"))
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is no URL; write one like http://host/path, or off", v);
	if (strpbrk(v, " \t?#\"\\") || n > URL_MAX)
		return errmsg_set(why, CONCC_E_CONF,
				  "'%s' is no plain URL: without blanks, quotes, '?' and '#'", v);
	if (strchr(v, '@'))
		return errmsg_set(why, CONCC_E_CONF,
				  "the name and the password in the URL belong into ~/.netrc");
	while (v[n - 1] == '/')
		n--;
	*url = xstrndup(v, n);
	return 0;
}

static int set_cache_push(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"no", "yes"};
	size_t i;
	int r = value_choice(v, names, 2, &i, why);

	if (r == 0)
		((struct conf *)obj)->cache_push = i == 1;
	return r;
}

static int set_address(void *obj, const char *v, struct errmsg *why)
{
	struct conf_worker *w = obj;
	int r = value_address(v, why);

	if (r == 0)
		w->address = xstrdup(v);
	return r;
}

static int set_command(void *obj, const char *v, struct errmsg *why)
{
	((struct conf_worker *)obj)->command = xstrdup(v);
	return 0;
}

static int set_program(void *obj, const char *v, struct errmsg *why)
{
	((struct conf_worker *)obj)->worker_program = xstrdup(v);
	return 0;
}

static int set_slots(void *obj, const char *v, struct errmsg *why)
{
	return value_number(v, 1, POOL_SLOTS_MAX, &((struct conf_worker *)obj)->slots, why);
}

static int set_count(void *obj, const char *v, struct errmsg *why)
{
	return value_number(v, 1, POOL_MEMBERS_MAX - 1, &((struct conf_worker *)obj)->count, why);
}

static int set_worker_idle(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 0, 30 * 24 * HOUR_S, &((struct conf_worker *)obj)->idle_timeout_s,
			      why);
}

static int set_worker_connect(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 1, HOUR_S, &((struct conf_worker *)obj)->connect_timeout_s, why);
}

static int set_ssh(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"auto", "libssh2", "openssh"};
	static const enum ssh_mode modes[] = {SSH_AUTO, SSH_LIBSSH2, SSH_OPENSSH};
	size_t i;
	int r = value_choice(v, names, 3, &i, why);

	if (r == 0)
		((struct conf_worker *)obj)->ssh = modes[i];
	return r;
}

static int set_root(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"worker", "client"};
	static const enum conf_root roots[] = {ROOT_WORKER, ROOT_CLIENT};
	size_t i;
	int r = value_choice(v, names, 2, &i, why);

	if (r == 0)
		((struct conf_worker *)obj)->root = roots[i];
	return r;
}

/* The least are what no compiler gets by with: to catch a missing unit. */
static int set_job_memory(void *obj, const char *v, struct errmsg *why)
{
	return value_size(v, 1ULL << 20, 1ULL << 50, &((struct conf_worker *)obj)->job_memory, why);
}

static int set_job_processes(void *obj, const char *v, struct errmsg *why)
{
	return value_number(v, 16, 4000000, &((struct conf_worker *)obj)->job_processes, why);
}

static int set_job_time(void *obj, const char *v, struct errmsg *why)
{
	return value_duration(v, 1, 30 * 24 * HOUR_S, &((struct conf_worker *)obj)->job_time_s,
			      why);
}

static int set_mirror(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"concc", "sshfs", "none"};
	static const enum conf_mirror mirrors[] = {MIRROR_CONCC, MIRROR_SSHFS, MIRROR_NONE};
	size_t i;
	int r = value_choice(v, names, 3, &i, why);

	if (r == 0)
		((struct conf_worker *)obj)->mirror = mirrors[i];
	return r;
}

static int set_install(void *obj, const char *v, struct errmsg *why)
{
	static const char *const names[] = {"no", "yes"};
	size_t i;
	int r = value_choice(v, names, 2, &i, why);

	if (r == 0)
		((struct conf_worker *)obj)->install = i == 1;
	return r;
}

const struct key concc_keys[] = {
	{"workspace", set_workspaces, "CONCC_WORKSPACE", set_workspaces_env},
	{"toolchain", set_toolchains, "CONCC_TOOLCHAIN", set_toolchains_env},
	{"local-slots", set_local_slots, "CONCC_LOCAL_SLOTS", NULL},
	{"idle-timeout", set_idle_timeout, "CONCC_IDLE_TIMEOUT", NULL},
	{"connect-timeout", set_connect_timeout, "CONCC_CONNECT_TIMEOUT", NULL},
	{"straggler-after", set_straggler_after, "CONCC_STRAGGLER_AFTER", NULL},
	{"store-size", set_store_size, "CONCC_STORE_SIZE", NULL},
	{"cache", set_cache, "CONCC_CACHE", NULL},
	{"cache-url", set_cache_url, "CONCC_CACHE_URL", NULL},
	{"cache-push", set_cache_push, "CONCC_CACHE_PUSH", NULL},
};

const struct key worker_keys[] = {
	{"address", set_address},
	{"command", set_command},
	{"program", set_program},
	{"slots", set_slots},
	{"ssh", set_ssh},
	{"root", set_root},
	{"count", set_count},
	{"idle-timeout", set_worker_idle},
	{"connect-timeout", set_worker_connect},
	{"job-memory", set_job_memory},
	{"job-processes", set_job_processes},
	{"job-time", set_job_time},
	{"mirror", set_mirror},
	{"install", set_install},
};

const size_t n_concc_keys = N_OF(concc_keys);
const size_t n_worker_keys = N_OF(worker_keys);
_Static_assert(N_OF(concc_keys) <= KEYS_MAX, "see keys.h");
_Static_assert(N_OF(worker_keys) <= KEYS_MAX, "see keys.h");

void key_read_at(const struct key *key, struct conf *c, const char *file, unsigned line)
{
	if (key->parse == set_workspaces)
		listed_by(c, xasprintf("%s:%u", file, line));
}
