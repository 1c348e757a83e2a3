/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/job.h"

#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#include "command.h"

/* An entry of CONCC_WORKSPACE as a clean path; NULL when it isn't absolute. */
static char *entry_path(const char *entry, size_t n, const char *home)
{
	_cleanup_free_ char *given = xstrndup(entry, n);
	_cleanup_free_ char *full = NULL;

	if (given[0] == '~' && (given[1] == '/' || !given[1]) && home && home[0] == '/')
		full = path_join(home, given + (given[1] ? 2 : 1));
	else
		full = xstrdup(given);
	return full[0] == '/' ? path_clean("/", full) : NULL;
}

/* The first entry of a colon-separated list that holds path. */
static char *find_listed(const char *list, const char *path, const char *home)
{
	while (*(list += strspn(list, ":"))) {
		size_t n = strcspn(list, ":");
		_cleanup_free_ char *dir = entry_path(list, n, home);

		if (dir && !streq(dir, "/") && path_is_below(path, dir))
			return steal_ptr(&dir);
		list += n;
	}
	return NULL;
}

static bool has(const char *dir, const char *name, bool (*exists)(const char *path))
{
	_cleanup_free_ char *path = path_join(dir, name);

	return exists(path);
}

/* Go's work directories: $WORK of `go build -x`.  Their names end in a number. */
static const char *const work_dirs[] = {"go-build"};

static bool is_work_dir(const char *name, size_t n)
{
	for (size_t i = 0; i < N_OF(work_dirs); i++) {
		size_t len = strlen(work_dirs[i]);

		if (n > len && strncmp(name, work_dirs[i], len) == 0 &&
		    strspn(name + len, "0123456789") >= n - len)
			return true;
	}
	return false;
}

char *job_work_dir(const char *path)
{
	for (const char *p = path; *p == '/'; p += strcspn(p, "/")) {
		size_t n = strcspn(++p, "/");

		if (is_work_dir(p, n))
			return xstrndup(path, (size_t)(p - path) + n);
	}
	return NULL;
}

/* What a build system leaves or finds at the top of a project, or of a directory to build in. */
static const char *const build_marks[] = {
	"CMakeLists.txt", "CMakeCache.txt", "meson.build",	"configure",	"configure.ac",
	"Makefile",	  "GNUmakefile",    "makefile",		"build.ninja",	"Cargo.toml",
	"go.mod",	  "package.json",   "pyproject.toml",	"setup.py",	"pom.xml",
	"build.gradle",	  "SConstruct",	    "build.gradle.kts", "MODULE.bazel", "WORKSPACE",
	"CACHEDIR.TAG",
};

/*
 * What esbuild and its kin look for in all directories above by listing them.  Others look by name,
 * which is told anyway.
 */
static const char *const listed_marks[] = {
	"node_modules", "package.json", "tsconfig.json",   "jsconfig.json",
	".pnp.cjs",	".pnp.js",	".pnp.loader.mjs", ".pnp.data.json",
};

bool job_is_listed_mark(const char *name)
{
	return ONE_OF(name, listed_marks);
}

static bool has_any(const char *dir, const char *const *names, size_t n,
		    bool (*exists)(const char *path))
{
	for (size_t i = 0; i < n; i++) {
		if (has(dir, names[i], exists))
			return true;
	}
	return false;
}

/*
 * The nearest parent under version control.  In a submodule or a work tree
 * .git is a file; then the build may well have begun further up, so the
 * repository around it is taken when there is one.  Without any, the topmost with
 * a mark of a build system: who builds in a sub-directory needs what is above.
 * Never the home directory or what holds it, even when its dot files are in git:
 * serving it would show ~/.ssh to the workers.
 */
static char *find_top_level(const char *cwd, const char *home, bool (*exists)(const char *path),
			    bool *ret_repository)
{
	static const char *const vcs_marks[] = {".git/HEAD", ".hg", ".jj", ".svn"};
	_cleanup_free_ char *dir = path_clean("/", cwd);
	_cleanup_free_ char *inner = NULL, *built = NULL;

	*ret_repository = true;
	while (!streq(dir, "/") && !(home && path_is_below(home, dir))) {
		char *slash;

		if (has_any(dir, vcs_marks, N_OF(vcs_marks), exists))
			return steal_ptr(&dir);
		if (!inner && has(dir, ".git", exists))
			inner = xstrdup(dir);
		if (!inner && has_any(dir, build_marks, N_OF(build_marks), exists)) {
			free(built);
			built = xstrdup(dir);
		}
		slash = strrchr(dir, '/');
		slash[slash == dir ? 1 : 0] = '\0';
	}
	*ret_repository = inner;
	return inner ? steal_ptr(&inner) : steal_ptr(&built);
}

char *job_project(const char *path, const char *home, bool (*exists)(const char *path),
		  bool *ret_repository)
{
	return find_top_level(path, home && !streq(home, "/") ? home : NULL, exists,
			      ret_repository);
}

/* $HOME as a clean path; NULL unless it is absolute, and more than "/". */
static char *clean_home(char *const *env)
{
	const char *given = env_get(env, "HOME");
	_cleanup_free_ char *home = given && given[0] == '/' ? path_clean("/", given) : NULL;

	return home && !streq(home, "/") ? steal_ptr(&home) : NULL;
}

bool job_is_listed(const char *path, char *const *env)
{
	const char *list = env_get(env, "CONCC_WORKSPACE");
	_cleanup_free_ char *home = list && *list ? clean_home(env) : NULL;
	_cleanup_free_ char *found = list ? find_listed(list, path, home) : NULL;

	return found;
}

char *job_workspace(const char *cwd, char *const *env, bool (*exists)(const char *path))
{
	const char *list = env_get(env, "CONCC_WORKSPACE");
	_cleanup_free_ char *home = clean_home(env);
	bool repository;

	if (list && *list)
		return find_listed(list, cwd, home);
	return find_top_level(cwd, home, exists, &repository);
}
