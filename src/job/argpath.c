/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/job.h"

#include <string.h>

#include "concc/io.h"
#include "concc/str.h"
#include "command.h"

const char *job_arg_path(const char *arg)
{
	const char *p = strchr(arg, '/');

	if (!p || p == arg)
		return p;
	if (p[-1] == '=' || p[-1] == '@' || p[-1] == ',')
		return p;
	/* -I/x, -L/x: one letter only, so that "-Idir/x" and "dir/x" are not taken for one. */
	return arg[0] == '-' && p - arg == 2 ? p : NULL;
}

/* Arguments that are text and name no file, whatever they look like. */
static bool is_text(const char *arg)
{
	static const char *const prefixes[] = {
		"-D",
		"-U",
		"-MT",
		"-MQ",
		"-fdebug-prefix-map",
		"-ffile-prefix-map",
		"-fmacro-prefix-map",
		"-fprofile-prefix-map",
		"-fcoverage-prefix-map",
		"-fdebug-compilation-dir",
		"-fcoverage-compilation-dir",
		"-frandom-seed",
		"--remap-path-prefix",
		"-Wl,-rpath",
	};

	return arg[0] == '-' && PREFIX_OF(arg, prefixes);
}

/* True for an argument that follows one like "-D" or "-MT". */
static bool is_text_value(const char *before)
{
	static const char *const options[] = {"-D", "-U", "-MT", "-MQ", "--remap-path-prefix"};

	return before && ONE_OF(before, options);
}

bool job_arg_is_text(const char *arg, const char *before)
{
	return is_text(arg) || is_text_value(before);
}

/* Where a path begins that goes up from cwd: "../x", "-I../x", "--sysroot=../x"; or NULL. */
static const char *up_from_cwd(const char *arg)
{
	const char *p = strstr(arg, "..");

	if (!p || (p[2] && p[2] != '/'))
		return NULL;
	if (p == arg || p[-1] == '=' || p[-1] == '@' || p[-1] == ',')
		return p;
	return arg[0] == '-' && p - arg == 2 ? p : NULL;
}

char *job_arg_file(const char *arg, const char *cwd)
{
	const char *p = job_arg_path(arg);

	/* "../x" has a slash that begins nothing. */
	if (!p || (p > arg && p[-1] == '.'))
		p = up_from_cwd(arg);
	return p ? path_clean(cwd, p) : NULL;
}
