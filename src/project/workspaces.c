/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Which trees a job needs: what the configuration and its call list, and the projects of what it
 * names, be it its directory, its output or its sources.  A tree is served from when it is first
 * needed; what is beneath a served tree needs no other.
 */
#include "workspaces.h"
#include "links.h"
#include "peer.h"
#include "server.h"
#include "shown.h"
#include "system.h"

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
/* Builds of one moment: of more, some run here. */
#define WORK_DIRS_MAX 64

const char *const workspaces_system_dirs[] = {"/bin",	"/etc",	  "/gnu",    "/lib",
					      "/lib32", "/lib64", "/libx32", "/nix",
					      "/opt",	"/sbin",  "/usr",    NULL};

bool workspaces_is_system_path(const char *path)
{
	for (const char *const *d = workspaces_system_dirs; *d; d++) {
		if (path_is_below(path, *d))
			return true;
	}
	return path_is_below(path, "/dev") || path_is_below(path, "/proc");
}

int workspaces_check(const char *path, struct errmsg *msg)
{
	static const char *const own[] = {"/dev", "/proc", "/sys"};

	for (size_t i = 0; i < N_OF(own); i++)
		if (path_is_below(path, own[i]))
			return errmsg_set(msg, CONCC_E_UNSAFE,
					  "%s can't be a workspace, since jobs have a %s of their "
					  "own; build in another directory to run this remotely",
					  path, own[i]);
	return 0;
}

/* Of these nothing is served unless it is listed, and no more of them than that. */
static bool is_private(const char *path)
{
	static const char *const dirs[] = {"/sys", "/run", "/var/run", "/boot", "/root/.cache"};

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		if (path_is_below(path, dirs[i]))
			return true;
	}
	/* Modules are compiled with the kernel's headers there as cwd. */
	if (path_below(path, "/usr/src") && *path_below(path, "/usr/src"))
		return false;
	return workspaces_is_system_path(path);
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
void workspaces_add(char ***list, const char *root)
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
	workspaces_add(list, dir);
	return 0;
}

/* ---- work directories, and Go's cache ---- */

/* Each build makes one, and removes it. */
static void drop_old_work_dirs(struct server *s)
{
	char **kept = NULL;

	for (char **w = s->work_dirs; w && *w; w++) {
		if (access(*w, F_OK) < 0 && err_is_fact(-errno))
			tree_withdraw(s->tree, *w);
		else
			strv_push(&kept, xstrdup(*w));
	}
	strv_free(s->work_dirs);
	s->work_dirs = kept;
}

static bool is_link(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/* Others may give a directory in /tmp such a name, but not our owner, nor keep us out of theirs. */
static bool is_private_of_ours(const char *dir)
{
	struct stat st;

	return lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == getuid() &&
	       !(st.st_mode & (S_IWGRP | S_IWOTH));
}

static int serve_passing(struct server *s, const char *dir, bool writable, char ***list,
			 struct errmsg *msg)
{
	_cleanup_free_ char *secret = path_secret(dir);
	int r;

	if (secret || !is_private_of_ours(dir))
		return errmsg_set(msg, CONCC_E_UNSAFE, "%s is not a directory of ours", dir);
	drop_old_work_dirs(s);
	if (strv_len(s->work_dirs) >= WORK_DIRS_MAX)
		return errmsg_set(msg, CONCC_E_TOOBIG, "%s is one work directory too many", dir);
	r = tree_serve(s->tree, dir, writable, msg);
	if (r < 0)
		return r;
	log_debug("serving %s while it is there", dir);
	strv_push(&s->work_dirs, xstrdup(dir));
	workspaces_add(list, dir);
	return 0;
}

bool workspaces_is_passing(const struct server *s, const char *dir)
{
	for (char **w = s->work_dirs; w && *w; w++) {
		if (streq(*w, dir))
			return true;
	}
	return false;
}

/* A list of packages has some hundred lines. */
#define LIST_BYTES_MAX (1024 * 1024)

static const char *value_of(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; *env; env++) {
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	}
	return NULL;
}

static bool names_in(const char *file, const char *dir)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	return read_regular_file(file, LIST_BYTES_MAX, &b) == 0 &&
	       memmem(b.data, b.len, dir, strlen(dir)) != NULL;
}

/*
 * What was compiled before is in $GOCACHE, where a file in the work directory says what of it to
 * read.  Go leaves its own notes there, so that nothing else is taken for one.
 */
static void add_go_cache(struct server *s, const struct msg_run *m, const char *file, char ***list)
{
	const char *cache = value_of(m->env, "GOCACHE");
	_cleanup_free_ char *clean = cache && *cache == '/' ? path_clean("/", cache) : NULL;
	_cleanup_free_ char *mark = clean ? path_join(clean, "README") : NULL;
	struct errmsg msg = {0};

	if (!clean || !is_private_of_ours(clean) || !exists(mark) || !names_in(file, clean))
		return;
	if (tree_root_of(s->tree, clean, NULL))
		workspaces_add(list, tree_root_of(s->tree, clean, NULL));
	else if (serve_passing(s, clean, false, list, &msg) < 0)
		log_debug("%s", msg.text); /* the job will miss it, and say so */
}

/*
 * Of the system a job at a worker that has its own is shown what it runs in: what was installed
 * together, as /usr/share/go-1.19 is.  On the heap; NULL: nothing so small.
 */
static char *package_of(const char *path)
{
	static const char *const dirs[] = {"/usr/share", "/usr/lib", "/usr/libexec", "/usr/local",
					   "/opt"};

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		const char *rest = path_below(path, dirs[i]);
		size_t n = rest ? strcspn(rest, "/") : 0;

		if (n)
			return xstrndup(path, (size_t)(rest - path) + n);
	}
	return NULL;
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
	_cleanup_free_ char *work = NULL, *package = NULL;
	const char *served = tree_root_of(s->tree, path, NULL), *toolchain;

	if (served) {
		workspaces_add(list, served);
		return 0;
	}
	toolchain = workspaces_is_system_path(path) ? NULL : system_tree_of(s, path);
	if (toolchain)
		return serve(s, toolchain, false, list, msg);
	dir = nearest_dir(path);
	home = path_expand_home("~");
	project = job_project(dir, home, path_is_mark, &repository);
	if (!project || path_is_too_wide(project))
		free(steal_ptr(&project));
	/* In a project it is a directory like others; what a link leads to is none. */
	work = job_work_dir(path);
	if (work && (!project || is_link(work)))
		return serve_passing(s, work, true, list, msg);
	if (!project && is_related)
		project = steal_ptr(&dir);
	package = project && is_related && is_private(project) ? package_of(path) : NULL;
	if (package)
		return serve(s, package, false, list, msg);
	if (workspaces_check(path, msg) < 0)
		return CONCC_E_UNSAFE;
	if (!project || is_private(project) || path_is_too_wide(project))
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

	if (workspaces_check(dir, &msg) == 0 && tree_serve(s->tree, dir, true, &msg) == 0)
		workspaces_add(list, dir);
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
	project = job_project(m->cwd, home, path_is_mark, &repository);
	return !repository;
}

/* Is it there for all of the peer's jobs anyway? */
static bool is_seen(const struct peer *p, const char *path)
{
	if (p->conf->root != ROOT_CLIENT)
		return workspaces_is_system_path(path) || shown_has(p, path);
	return system_has(p->server, path) || path_is_below(path, "/dev") ||
	       path_is_below(path, "/proc");
}

/* Where a path leads that is in no tree; or the path, when that can't be shown. */
static char *unlinked(struct peer *p, const char *path, char ***list)
{
	char *there = NULL;

	if (!is_seen(p, path) && !tree_root_of(p->server->tree, path, NULL))
		there = links_follow(p, path, list);
	return there ? there : xstrdup(path);
}

/* ---- the command's own tree ---- */

/* Has a directory what compilers are installed with, beside bin? */
static bool is_prefix(const char *dir)
{
	static const char *const parts[] = {"lib", "lib64", "libexec", "include", "share"};

	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		_cleanup_free_ char *path = path_join(dir, parts[i]);

		if (exists(path))
			return true;
	}
	return false;
}

/* ~/.docker has more than ~/.docker/bin, which is nobody's business. */
static bool is_hidden_in_home(const char *dir)
{
	_cleanup_free_ char *home = path_expand_home("~"), *parent = path_parent(dir);

	return streq(parent, home) && *path_base(dir) == '.';
}

/* Where a program of a bin directory was unpacked, or that directory; on the heap.  NULL: it is in
 * none, and what is beside it may be anything. */
static char *installed_in(const char *exe)
{
	_cleanup_free_ char *dir = path_parent(exe), *prefix = path_parent(dir);

	if (!streq(path_base(dir), "bin"))
		return NULL;
	if (is_prefix(prefix) && !path_is_too_wide(prefix) && !is_hidden_in_home(prefix))
		return steal_ptr(&prefix);
	return steal_ptr(&dir);
}

/* To be read; one of a repository with all of that, and so one of a tree of tools. */
static void serve_program(struct server *s, const char *exe, char ***list)
{
	_cleanup_free_ char *dir = installed_in(exe), *home = path_expand_home("~");
	_cleanup_free_ char *work = job_work_dir(exe), *project = NULL;
	struct errmsg msg = {0};
	bool repository = false;
	int r = 0;

	project = job_project(exe, home, path_is_mark, &repository);
	if (work || tree_root_of(s->tree, exe, NULL) || system_tree_of(s, exe) ||
	    (repository && (!dir || streq(project, dir))))
		r = need(s, exe, false, list, &msg);
	else if (dir && !is_private(dir) && !path_is_too_wide(dir))
		r = serve(s, dir, false, list, &msg);
	if (r < 0)
		log_debug("%s", msg.text); /* then the command is unserved */
}

/* False when jobs won't see it though they should. */
static bool need_program(const struct peer *p, const char *exe, char ***list)
{
	bool client = p->conf->root == ROOT_CLIENT;

	if (is_seen(p, exe) || holds(*list, exe))
		return true;
	serve_program(p->server, exe, list);
	return !client || holds(*list, exe);
}

/*
 * The program, and what it is a link to.  Returns which of them jobs would not see though it is
 * this machine's that is to run there, on the heap, or NULL.
 */
static char *need_programs(struct peer *p, const char *exe, char ***list)
{
	_cleanup_free_ char *given = path_clean("/", exe), *clean = unlinked(p, given, list);
	_cleanup_free_ char *real = NULL;

	if (!need_program(p, clean, list))
		return steal_ptr(&clean);
	/* What the worker's own is a link to is the worker's matter. */
	if (p->conf->root != ROOT_CLIENT && workspaces_is_system_path(clean))
		return NULL;
	real = realpath(exe, NULL);
	if (!real)
		return err_is_fact(-errno) ? NULL : steal_ptr(&clean);
	return need_program(p, real, list) ? NULL : steal_ptr(&real);
}

/* ---- all of a job ---- */

static void need_argument(struct peer *p, const struct msg_run *m, const char *arg, bool related,
			  char ***list)
{
	_cleanup_free_ char *path = unlinked(p, arg, list), *work = job_work_dir(path);
	struct server *s = p->server;
	bool writable = false;
	const char *served = tree_root_of(s->tree, path, &writable);
	struct errmsg why = {0};

	/* A toolchain tree is in sight, or to be read by this job, which costs a mount. */
	if (!writable && is_seen(p, path))
		return;
	if (!served && need(s, path, related, list, &why) < 0) {
		log_debug("%s", why.text); /* it may be no file at all */
		return;
	}
	served = tree_root_of(s->tree, path, NULL);
	workspaces_add(list, served);
	if (work)
		add_go_cache(s, m, path, list);
}

/* Is $PWD another name of the current directory?  Then compilers believe it. */
static const char *other_cwd(const struct msg_run *m)
{
	const char *pwd = value_of(m->env, "PWD");
	struct stat a, b;

	return pwd && *pwd == '/' && !streq(pwd, m->cwd) && stat(pwd, &a) == 0 &&
			       stat(m->cwd, &b) == 0 && stat_is_same_file(&a, &b)
		       ? pwd
		       : NULL;
}

const char *workspaces_other_cwd(struct peer *p, const struct msg_run *m, char ***list)
{
	const char *pwd = other_cwd(m);
	_cleanup_free_ char *there = pwd ? links_follow(p, pwd, list) : NULL;

	return pwd && !(there && streq(there, m->cwd)) ? pwd : NULL;
}

int workspaces_of(struct peer *p, const struct msg_run *m, char ***ret, char **ret_unserved,
		  struct errmsg *msg)
{
	_cleanup_strv_ char **list = xcalloc(1, sizeof(*list));
	_cleanup_free_ char *unserved = NULL;
	struct server *s = p->server;
	bool is_listed;
	int r;

	for (char **w = s->conf->workspaces; w && *w; w++)
		add_listed(s, *w, &list);
	/* What `concc run` lists is where it was called, which says nothing of the sources. */
	is_listed = holds(list, m->cwd);
	r = add_called(s, m->workspace, &list, msg);
	if (r == 0)
		r = need(s, m->cwd, true, &list, msg);
	if (r < 0)
		return r;
	for (char **a = m->argv + 1; *a; a++) {
		_cleanup_free_ char *path = job_arg_is_text(*a, a[-1]) ? NULL
								       : job_arg_file(*a, m->cwd);

		if (path)
			need_argument(p, m, path, !is_listed && is_related(m, *a), &list);
	}
	unserved = need_programs(p, m->exe, &list);
	if (strv_len(list) > PROTO_WORKSPACES_MAX)
		return errmsg_set(msg, CONCC_E_TOOBIG, "it needs more than %d trees",
				  PROTO_WORKSPACES_MAX);
	*ret_unserved = steal_ptr(&unserved);
	*ret = steal_ptr(&list);
	return 0;
}
