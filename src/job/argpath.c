/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/job.h"

#include <string.h>

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
