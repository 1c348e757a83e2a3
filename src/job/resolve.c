/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/job.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"

/* Of glibc's execvp(3). */
#define DEFAULT_PATH "/bin:/usr/bin"
#define SHELL	     "/bin/sh"

/* 0, or -errno as exec would give. */
static int check_executable(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EACCES;
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? -errno : 0;
}

/* Not path_clean(): "x/../gcc" is another file where x is a symlink. */
static char *make_absolute(const char *path, const char *cwd)
{
	while (str_starts(path, "./"))
		path += 2 + strspn(path + 2, "/");
	return path[0] == '/' ? xstrdup(path) : path_join(cwd, path);
}

/*
 * The same file by a path as messages carry them: without "..", what is a symlink on
 * the way there being resolved.  The last name stays: programs look at how they are called.
 */
static char *make_clean(char *path)
{
	_cleanup_free_ char *full = path;
	_cleanup_free_ char *clean = path_clean("/", full);
	const char *base = path_base(full);
	_cleanup_free_ char *dir = NULL;
	char real[PATH_MAX];

	if (!clean || streq(clean, full))
		return steal_ptr(&full);
	dir = xstrndup(full, (size_t)(base - full));
	return realpath(dir, real) ? path_join(real, base) : steal_ptr(&full);
}

/* Its name in a directory of PATH, as execvp(3) puts them together. */
static char *name_in(const char *dir, size_t n, const char *name)
{
	return n ? xasprintf("%.*s/%s", (int)n, dir, name) : xstrdup(name);
}

/* The first directory of path_var that has name; *err keeps why it can't be run. */
static char *search(const char *name, const char *path_var, const char *cwd,
		    bool (*skip)(const char *path, void *data), void *data, int *err)
{
	for (const char *p = path_var;; p++) {
		size_t n = strcspn(p, ":");
		_cleanup_free_ char *file = name_in(p, n, name);
		_cleanup_free_ char *full = make_absolute(file, cwd);
		int r = check_executable(full);

		if (r == 0 && !(skip && skip(full, data)))
			return steal_ptr(&file);
		if (r == -EACCES)
			*err = EACCES;
		/* One that can't be looked at now may be the one. */
		if (r < 0 && !err_is_fact(r)) {
			*err = -r;
			return NULL;
		}
		p += n;
		if (!*p)
			return NULL;
	}
}

char *job_resolve(const char *argv0, const char *path_var, const char *cwd,
		  bool (*skip)(const char *path, void *data), void *data)
{
	int err = ENOENT;
	char *found;

	if (strchr(argv0, '/')) {
		_cleanup_free_ char *full = make_absolute(argv0, cwd);
		int r = check_executable(full);

		if (r < 0) {
			errno = -r;
			return NULL;
		}
		if (!skip || !skip(full, data))
			return xstrdup(argv0);
		/* One of ours by its path, as CMake writes down what it found: the next in PATH. */
		argv0 = path_base(argv0);
	}
	found = *argv0 ? search(argv0, path_var ? path_var : DEFAULT_PATH, cwd, skip, data, &err)
		       : NULL;
	if (!found)
		errno = err;
	return found;
}

char *job_exe(const char *path, const char *cwd)
{
	return make_clean(make_absolute(path, cwd));
}

char **job_sh_argv(const char *path, char *const *argv)
{
	size_t n = strv_len(argv);
	char **words = xcalloc(n + 3, sizeof(*words));

	words[0] = (char *)SHELL;
	words[1] = (char *)path;
	for (size_t i = 1; i < n; i++)
		words[i + 1] = argv[i];
	return words;
}

int job_exec(const char *path, char *const *argv, char *const *env)
{
	_cleanup_free_ char **words = NULL;

	execve(path, argv, env);
	if (errno != ENOEXEC)
		return -errno;
	words = job_sh_argv(path, argv);
	execve(words[0], words, env);
	return -errno;
}
