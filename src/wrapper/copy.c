/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Where concc-cc is, when it is not where concc is installed. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/wrapper.h"

static char *read_link(const char *dir, const char *name)
{
	_cleanup_free_ char *path = path_join(dir, name);
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	return n < 0 ? NULL : xstrndup(target, (size_t)n);
}

bool masquerade_is(const char *dir)
{
	_cleanup_free_ char *to = read_link(dir, MASQUERADE_MARK);

	return to && streq(path_base(to), "concc-cc");
}

enum copy_state wrapper_copy(char **ret_installed)
{
	const char *called = (const char *)getauxval(AT_EXECFN);
	_cleanup_free_ char *dir = NULL, *project = NULL, *cc = NULL;
	struct stat installed, own;

	if (!called || !strstr(called, "/masquerade/"))
		return COPY_NONE;
	dir = program_dir();
	project = dir ? read_link(dir, "concc-project") : NULL;
	if (!project)
		return COPY_NONE;
	cc = xasprintf("%.*sconcc-cc", (int)(path_base(project) - project), project);
	if (stat(cc, &installed) < 0)
		return COPY_ORPHAN;
	if (stat("/proc/self/exe", &own) == 0 && own.st_size == installed.st_size &&
	    time_is_same(&own.st_mtim, &installed.st_mtim))
		return COPY_SAME;
	*ret_installed = steal_ptr(&cc);
	return COPY_STALE;
}
