/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The rules about paths of which a worker has another file or none: those in directories that each
 * machine has for itself, and names of open files.
 */
#include "policy.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* ---- tmp-output ---- */

/* True for our own 0, 1 and 2 by name, which a job has too. */
static bool is_stdio(const char *path)
{
	static const char *const dirs[] = {"/dev/fd/", "/proc/self/fd/"};

	for (size_t i = 0; i < N_OF(dirs); i++) {
		const char *fd = str_starts(path, dirs[i]) ? path + strlen(dirs[i]) : NULL;

		if (fd && *fd >= '0' && *fd <= '2' && !fd[1])
			return true;
	}
	return false;
}

static bool is_below_any(const char *path, char *const *dirs)
{
	for (; *dirs; dirs++) {
		if (path_is_below(path, *dirs))
			return true;
	}
	return false;
}

/* Of these a worker has its own. */
static const char *const own_dirs[] = {"/tmp", "/var/tmp", "/dev/shm", "/dev/fd",
				       "/run", "/var/run", "/proc",    "/sys"};

bool policy_is_tmp(const char *path)
{
	for (size_t i = 0; i < N_OF(own_dirs); i++) {
		if (path_is_below(path, own_dirs[i]))
			return true;
	}
	return false;
}

/* True when path lies in dir, of which a worker has another one. */
static bool is_hidden_in(const struct policy_input *in, const char *path, const char *dir)
{
	if (!path_is_below(path, dir))
		return false;
	if (in->served)
		return !is_below_any(path, in->served);
	if (in->workspace ? path_is_below(path, in->workspace) : path_is_below(in->cwd, dir))
		return false;
	return !job_is_listed(path, in->env);
}

/* path is absolute and clean but for a slash at its end. */
static bool is_hidden_clean(const struct policy_call *c, const char *path)
{
	/* Whose a work directory is, and so whether it is served, tells the server. */
	_cleanup_free_ char *work = c->in->served ? NULL : job_work_dir(path);

	if (work || is_stdio(path))
		return false;
	for (size_t i = 0; i < N_OF(own_dirs); i++) {
		if (is_hidden_in(c->in, path, own_dirs[i]))
			return true;
	}
	return c->tmpdir && is_hidden_in(c->in, path, c->tmpdir);
}

static bool is_hidden(const struct policy_call *c, const char *path)
{
	_cleanup_free_ char *clean = NULL;

	if (path[0] == '/' && !strstr(path, "//") && !strstr(path, "/."))
		return is_hidden_clean(c, path);
	clean = path_clean(c->in->cwd, path);
	return is_hidden_clean(c, clean);
}

/* What follows an option that a path may be joined to (-I/tmp/x), or NULL. */
static const char *joined_path(const char *arg)
{
	static const char *const options[] = {
		"-I",	     "-L",	 "-o",	    "-B",	  "-F",	      "-MF",
		"-MJ",	     "-isystem", "-iquote", "-idirafter", "-include", "-imacros",
		"-isysroot", "-T",	 "-J",	    "-iprefix",
	};
	/* No two of them fit one path: what is joined begins with '/' or "..". */
	for (size_t i = 0; i < N_OF(options); i++) {
		const char *rest = arg + strlen(options[i]);

		if (find_prefix(arg, &options[i], 1) && (rest[0] == '/' || str_starts(rest, "..")))
			return rest;
	}
	return NULL;
}

/* A path inside a longer argument: after '=', ',' or ':' (--sysroot=/tmp/x, foo=/tmp/x.rlib). */
static bool names_hidden_inside(const struct policy_call *c, const char *arg)
{
	for (const char *p = strpbrk(arg, "=,:"); p; p = strpbrk(p + 1, "=,:")) {
		_cleanup_free_ char *path = NULL;

		if (p[1] != '/')
			continue;
		path = xstrndup(p + 1, strcspn(p + 1, ",:"));
		if (is_hidden(c, path))
			return true;
	}
	return false;
}

static bool names_hidden(const struct policy_call *c, const char *arg)
{
	const char *path = NULL;

	if (arg[0] == '@')
		path = arg + 1;
	else if (arg[0] == '-')
		path = joined_path(arg);
	else
		path = arg;
	/* What is relative and goes down from cwd is where cwd is. */
	if (path && (path[0] == '/' || strstr(path, "..")) && is_hidden(c, path))
		return true;
	return names_hidden_inside(c, arg);
}

/* One entry of a list of paths; empty, it is the cwd. */
static bool entry_is_hidden(const struct policy_call *c, const char *entry)
{
	return (entry[0] == '/' || strstr(entry, "..")) && is_hidden(c, entry);
}

/* Variables that tell compilers where to look: as -I and -B do. */
static bool env_names_hidden(struct policy_call *c)
{
	static const char *const vars[] = {
		"CPATH",
		"C_INCLUDE_PATH",
		"CPLUS_INCLUDE_PATH",
		"OBJC_INCLUDE_PATH",
		"OBJCPLUS_INCLUDE_PATH",
		"LIBRARY_PATH",
		"COMPILER_PATH",
		"GCC_EXEC_PREFIX",
	};

	for (size_t i = 0; i < N_OF(vars); i++) {
		const char *list = env_get(c->in->env, vars[i]);

		while (list && *(list += strspn(list, ":"))) {
			size_t n = strcspn(list, ":");
			_cleanup_free_ char *entry = xstrndup(list, n);

			if (entry_is_hidden(c, entry)) {
				snprintf(c->ret->why, sizeof(c->ret->why), "%s: %s", vars[i],
					 entry);
				return true;
			}
			list += n;
		}
	}
	return false;
}

bool policy_tmp_output(struct policy_call *c)
{
	for (char *const *a = c->all; *a; a++) {
		if (job_arg_is_text(*a, a > c->all ? a[-1] : NULL))
			continue;
		if (names_hidden(c, *a))
			return policy_because(c, *a);
	}
	return env_names_hidden(c);
}

/* ---- descriptor ---- */

/* What a path begins with may stand behind an option, or be read from (@). */
static bool is_descriptor(const char *path)
{
	static const char *const dirs[] = {"/dev/fd/", "/proc/self/fd/"};

	for (size_t i = 0; i < N_OF(dirs); i++) {
		if (str_starts(path, dirs[i]) && isdigit((unsigned char)path[strlen(dirs[i])]))
			return !is_stdio(path);
	}
	return false;
}

static const struct {
	const char *name;
	int fd;
} stdio_names[] = {
	{"/dev/stdin", 0},	{"/dev/stdout", 1},	{"/dev/stderr", 2},
	{"/dev/fd/0", 0},	{"/dev/fd/1", 1},	{"/dev/fd/2", 2},
	{"/proc/self/fd/0", 0}, {"/proc/self/fd/1", 1}, {"/proc/self/fd/2", 2},
};

static bool mentions(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = text; (p = strstr(p, name)); p += len)
		if (!isalnum((unsigned char)p[len]))
			return true;
	return false;
}

/* A file that is opened anew begins at its start, and is cut; a pipe goes on. */
static bool opens_file_anew(struct policy_call *c, const char *arg)
{
	for (size_t i = 0; c->in->is_no_pipe && i < N_OF(stdio_names); i++)
		if (mentions(arg, stdio_names[i].name) && c->in->is_no_pipe(stdio_names[i].fd))
			return policy_because(c, arg);
	return false;
}

/* An assembler seeks in what it writes. */
static bool assembles_into_output(struct policy_call *c)
{
	const char *output = NULL;

	if (c->tool != TOOL_C && c->tool != TOOL_AS)
		return false;
	for (char *const *a = c->args; *a; a++) {
		if (streq(*a, "-S") || streq(*a, "-E") || streq(*a, "-M") || streq(*a, "-MM"))
			return false;
		if (streq(*a, "-o") && a[1])
			output = *++a;
		else if (str_starts(*a, "-o/"))
			output = *a + 2;
	}
	for (size_t i = 0; output && i < N_OF(stdio_names); i++)
		if (streq(output, stdio_names[i].name))
			return policy_because(c, output);
	return false;
}

bool policy_descriptor(struct policy_call *c)
{
	if (assembles_into_output(c))
		return true;
	for (char *const *a = c->args; *a; a++) {
		if (strchr(*a, '/') && opens_file_anew(c, *a))
			return true;
		/* Many programs look whether they would read what they write. */
		if (c->in->is_output && c->in->is_output(*a))
			return policy_because(c, *a);
		for (const char *p = *a; p; p = strpbrk(p, "@=,:")) {
			p += strspn(p, "@=,:");
			if (is_descriptor(p))
				return policy_because(c, *a);
		}
	}
	return false;
}
