/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <stdio.h>

#include "concc/io.h"
#include "concc/str.h"
#include "concc/wrapper.h"

#include <string.h>

static const char usage[] =
	"usage: concc-dispatch [--cache[=contents]] [--] COMMAND [ARG...]\n"
	"Runs any command on a worker, in the same directory, with the same files and input.\n"
	"  --cache           its result may be kept, and used again while all that it looked at is\n"
	"                    the same: see `cache` in concc.ini(5)\n"
	"  --cache=contents  the same, whatever the times of files\n"
	"What it changes in the workspace comes home.  See concc-dispatch(1).\n";

int main(int argc, char **argv)
{
	struct wrapper_options o = {0};

	fd_hold_stdio();
	wrapper_dispatch_options(argv + 1, &o);
	if (!*o.argv) {
		fputs(usage, stderr);
		return WRAPPER_EXIT_USAGE;
	}
	if (streq(argv[1], "--help") || streq(argv[1], "-h")) {
		fputs(usage, stdout);
		return 0;
	}
	if (streq(argv[1], "--version")) {
		puts("concc-dispatch " CONCC_VERSION);
		return 0;
	}
	if (o.argv[0][0] == '-' && !streq(o.argv[-1], "--")) {
		fprintf(stderr, "concc-dispatch: unknown option %s; see `concc-dispatch --help`\n",
			o.argv[0]);
		return WRAPPER_EXIT_USAGE;
	}
	return wrapper_run(&o);
}
