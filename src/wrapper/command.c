/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "state.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "self.h"

extern char **environ;

/*
 * Bytes of arguments and environment together that exec takes of a process with the usual stack of
 * 8 MB, a quarter of it, less what a job has beside them.
 */
#define ARGS_MAX (2 * 1024 * 1024 - 64 * 1024)

struct candidate {
	bool by_name; /* then those scripts are not meant that we have started above us */
	bool script_passed, us_passed;
	enum self_kind kind;
};

static bool is_no_command(const char *path, void *data)
{
	struct candidate *c = data;

	c->kind = self_look(path);
	if (c->kind == SELF_OURS) {
		c->us_passed = c->by_name = true; /* by the path of one, it is by that one's name */
		return true;
	}
	if (c->kind != SELF_SCRIPT || !c->by_name || !self_started(path))
		return false;
	c->script_passed = true;
	return true;
}

void command_find(struct wrapper *w)
{
	bool by_path = strchr(w->argv[0], '/'), own = wrapper_is_own_name(w->argv[0]);
	struct candidate c = {.by_name = !by_path};
	const char *path = getenv("PATH");

	w->path = job_resolve(w->argv[0], path, w->cwd, is_no_command, &c);
	w->lacking = w->path ? 0 : errno;
	w->is_script = w->path && c.kind == SELF_SCRIPT;
	w->ourselves = !w->path && c.us_passed;
	if (by_path && c.us_passed && !own)
		w->argv[0] = (char *)path_base(w->argv[0]);
	/* gcc finds its parts from where PATH has a gcc, and that is the script. */
	if (w->path && c.script_passed)
		w->argv[0] = w->path;
	if (!w->path && (own || c.script_passed)) {
		/* We are asked for our version, say; or it calls itself, as scripts may. */
		w->path = job_resolve(w->argv[0], path, w->cwd, NULL, NULL);
		w->is_script = w->path && c.script_passed;
	}
	w->exe = w->path ? job_exe(w->path, w->cwd) : NULL;
}

char **command_without_ourselves(char **argv, const char *cwd)
{
	for (; wrapper_is_own_name(argv[0]) && argv[1] && argv[1][0] != '-'; argv++) {
		_cleanup_free_ char *path = job_resolve(argv[0], getenv("PATH"), cwd, NULL, NULL);

		if (!path || self_look(path) != SELF_OURS)
			break;
	}
	return argv;
}

static bool is_masquerade(const char *dir, size_t n)
{
	_cleanup_free_ char *path = xstrndup(dir, n);

	return n && masquerade_is(path);
}

static bool is_ours_in(const char *dir, size_t n, const char *name)
{
	/* An empty one is the current directory. */
	_cleanup_free_ char *path = xasprintf("%.*s/%s", n ? (int)n : 1, n ? dir : ".", name);

	return self_look(path) == SELF_OURS;
}

void command_leave_masquerade(const char *command)
{
	const char *path = getenv("PATH");
	_cleanup_buf_ struct buf kept = BUF_INIT;
	bool by_name = !strchr(command, '/') && !streq(command, "cc");
	bool changed = false, first = true;

	for (const char *p = path; p; p = *p ? p + 1 : NULL) {
		size_t n = strcspn(p, ":");

		/* Most are not there at all, which one call tells. */
		if (is_masquerade(p, n) || is_ours_in(p, n, "cc") ||
		    (by_name && is_ours_in(p, n, command))) {
			changed = true;
		} else {
			buf_putf(&kept, "%s%.*s", first ? "" : ":", (int)n, p);
			first = false;
		}
		p += n;
	}
	if (changed)
		setenv("PATH", buf_cstr(&kept), 1);
}

char *command_cache(const struct wrapper *w)
{
	char to[PATH_MAX];
	ssize_t n;

	if (!w->path)
		return NULL;
	if (job_is_compiler_cache(w->path))
		return xstrdup(path_base(w->path));
	/* /usr/lib/ccache/gcc -> ../../bin/ccache */
	n = readlink(w->path, to, sizeof(to) - 1);
	if (n <= 0)
		return NULL;
	to[n] = '\0';
	return job_is_compiler_cache(to) ? xstrdup(path_base(to)) : NULL;
}

const char *command_too_long(const struct wrapper *w)
{
	const char *listed = getenv("CONCC_WORKSPACE");
	size_t n = 0;

	/* musl's getcwd(3) fails then, as the system call does; glibc's goes up from there. */
	if (w->cwd ? strlen(w->cwd) >= PROTO_PATH_MAX
		   : w->lacking == ERANGE || w->lacking == ENAMETOOLONG)
		return "the path of the current directory";
	if (listed && strlen(listed) > PROTO_PATH_MAX)
		return "CONCC_WORKSPACE";
	for (char *const *a = w->argv; *a; a++)
		n += strlen(*a) + 1 + sizeof(*a);
	for (char *const *e = environ; *e; e++)
		n += strlen(*e) + 1 + sizeof(*e);
	return n > ARGS_MAX ? "the arguments with the environment" : NULL;
}

const char *command_lacks(const struct wrapper *w)
{
	bool by_path = strchr(w->argv[0], '/');

	if (!w->cwd)
		return w->lacking == ENOENT ? "the current directory is gone"
					    : "the current directory can't be told";
	if (w->ourselves)
		return "it is concc itself";
	if (w->lacking == EACCES)
		return by_path ? "it can't be executed" : "what PATH has can't be executed";
	if (w->lacking == ENAMETOOLONG)
		return "its path is too long";
	return by_path ? "it is not there" : "it is not in PATH";
}
