/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Which trees a job needs: what the configuration and its call list, and the projects of what it
 * names, be it its directory, its output or its sources.  A tree is served from when it is first
 * needed; what is beneath a served tree needs no other.
 */
#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/log.h"
#include "concc/str.h"

/* Of one server: each is watched, and costs a look at every path that a worker names. */
#define FOUND_MAX 256

/* Directories that every system has of its own: a path beneath them may well be on the worker. */
bool is_system_path(const char *path)
{
	static const char *const dirs[] = {"/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin",
					   "/etc", "/opt", "/dev",   "/proc",  "/nix", "/gnu"};

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		if (path_is_below(path, dirs[i]))
			return true;
	}
	return false;
}

/* Of these nothing is served unless it is listed, and no more of them than that. */
static bool is_private(const char *path)
{
	static const char *const dirs[] = {"/sys", "/run", "/var/run", "/boot", "/root/.cache"};

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		if (path_is_below(path, dirs[i]))
			return true;
	}
	return is_system_path(path);
}

/* Would serve far more than a project. */
static bool is_too_wide(const char *path)
{
	static const char *const dirs[] = {"/",	       "/tmp", "/var", "/var/tmp",
					   "/dev/shm", "/srv", "/mnt", "/media"};
	_cleanup_free_ char *home = path_expand_home("~");

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		if (streq(path, dirs[i]))
			return true;
	}
	return !streq(home, "/") && path_is_below(home, path);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* The directory of a path, be it one that is yet to be made; as it is, symlinks and all. */
static char *nearest_dir(const char *path)
{
	char *dir = xstrdup(path);
	struct stat st;

	while (!streq(dir, "/") && (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode)))
		*(strrchr(dir, '/') == dir ? dir + 1 : strrchr(dir, '/')) = '\0';
	return dir;
}

/* What others own is shown to be read: root alone builds in other people's trees. */
static bool is_ours(const char *dir)
{
	struct stat st;

	return stat(dir, &st) == 0 && (st.st_uid == getuid() || getuid() == 0) &&
	       access(dir, W_OK) == 0;
}

static bool holds(char *const *list, const char *path)
{
	for (; *list; list++) {
		if (path_is_below(path, *list))
			return true;
	}
	return false;
}

/* The trees of one job, none beneath another. */
static void add(char ***list, const char *root)
{
	size_t n = 0;

	if (holds(*list, root))
		return;
	for (char **l = *list; *l; l++) {
		if (path_is_below(*l, root))
			free(*l);
		else
			(*list)[n++] = *l;
	}
	(*list)[n] = NULL;
	strv_push(list, xstrdup(root));
}

static int serve(struct server *s, const char *dir, bool writable, char ***list, struct errmsg *msg)
{
	int r;

	if (s->n_found >= FOUND_MAX)
		return errmsg_set(msg, CONCC_E_TOOBIG,
				  "%s is one tree too many: list one that holds several as "
				  "`workspace` in ~/.concc.ini",
				  dir);
	r = tree_serve(s->tree, dir, writable, msg);
	if (r < 0)
		return r;
	log_info("serving %s", dir);
	s->n_found++;
	add(list, dir);
	return 0;
}

/*
 * The tree that holds path, found when none is served yet.  A directory that is no project by any
 * mark is served when it is related: a job runs in it, say.  Not because one names it: it may hold
 * anything.
 */
static int need(struct server *s, const char *path, bool is_related, char ***list,
		struct errmsg *msg)
{
	bool repository;
	_cleanup_free_ char *home = NULL, *dir = NULL, *project = NULL;
	const char *served = tree_root_of(s->tree, path, NULL), *toolchain;

	if (served) {
		add(list, served);
		return 0;
	}
	toolchain = is_system_path(path) ? NULL : system_tree_of(s, path);
	if (toolchain)
		return serve(s, toolchain, false, list, msg);
	dir = nearest_dir(path);
	home = path_expand_home("~");
	project = job_project(dir, home, exists, &repository);
	if (!project || is_too_wide(project))
		free(steal_ptr(&project));
	if (!project && is_related)
		project = steal_ptr(&dir);
	if (!project || is_private(project) || is_too_wide(project))
		return errmsg_set(
			msg, CONCC_E_UNSAFE,
			"%s is in no project that can be told by itself; list its tree as "
			"`workspace` in ~/.concc.ini",
			path);
	return serve(s, project, is_ours(project), list, msg);
}

/* What can't be served is missed by the jobs that need it, which say so. */
static void add_listed(struct server *s, const char *dir, char ***list)
{
	struct errmsg msg = {0};

	if (tree_serve(s->tree, dir, true, &msg) == 0)
		add(list, dir);
	else
		log_debug("%s", msg.text);
}

static int add_called(struct server *s, const char *words, char ***list, struct errmsg *msg)
{
	while (*(words += strspn(words, ":"))) {
		size_t n = strcspn(words, ":");
		_cleanup_free_ char *word = xstrndup(words, n), *full = path_expand_home(word);
		_cleanup_free_ char *dir = NULL;

		if (*full != '/')
			return errmsg_set(msg, CONCC_E_CONF,
					  "CONCC_WORKSPACE: '%s' is not an absolute path; begin it "
					  "with / or ~/",
					  word);
		dir = path_clean("/", full);
		add_listed(s, dir, list);
		words += n;
	}
	return 0;
}

/* What is built in a directory of its own, and no repository, has its sources where ".." leads. */
static bool is_related(const struct msg_run *m, const char *arg)
{
	_cleanup_free_ char *home = path_expand_home("~"), *project = NULL;
	bool repository = false;

	if (job_arg_path(arg))
		return false;
	project = job_project(m->cwd, home, exists, &repository);
	return !repository;
}

/* Is it there for the peer's jobs anyway? */
static bool is_seen(const struct peer *p, const char *path)
{
	return p->conf->root == ROOT_CLIENT ? system_shows(p->server, path) : is_system_path(path);
}

char **workspaces_of(const struct peer *p, const struct msg_run *m, struct errmsg *msg)
{
	_cleanup_strv_ char **list = xcalloc(1, sizeof(*list));
	struct server *s = p->server;
	bool is_listed;

	for (char **w = s->conf->workspaces; w && *w; w++)
		add_listed(s, *w, &list);
	if (add_called(s, m->workspace, &list, msg) < 0)
		return NULL;
	is_listed = holds(list, m->cwd);
	if (need(s, m->cwd, true, &list, msg) < 0)
		return NULL;
	for (char **a = m->argv + 1; *a; a++) {
		_cleanup_free_ char *path = job_arg_is_text(*a, a[-1]) ? NULL
								       : job_arg_file(*a, m->cwd);
		bool writable = false;
		const char *served = path ? tree_root_of(s->tree, path, &writable) : NULL;
		struct errmsg why = {0};

		/* A toolchain tree is in sight, or to be read by this job, which costs a mount. */
		if (!path || (!writable && is_seen(p, path)))
			continue;
		if (served)
			add(&list, served);
		else if (need(s, path, !is_listed && is_related(m, *a), &list, &why) < 0)
			log_debug("%s", why.text); /* it may be no file at all */
	}
	if (strv_len(list) > PROTO_WORKSPACES_MAX) {
		errmsg_set(msg, CONCC_E_TOOBIG, "it needs more than %d trees",
			   PROTO_WORKSPACES_MAX);
		return NULL;
	}
	return steal_ptr(&list);
}
