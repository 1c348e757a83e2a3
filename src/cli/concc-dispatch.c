/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <stdio.h>

#include "concc/io.h"
#include "concc/str.h"
#include "concc/wrapper.h"

#include <string.h>

static const char usage[] =
	"usage: concc-dispatch [--] COMMAND [ARG...]\n"
	"Runs any command on a worker, in the same directory, with the same files and input.\n"
	"What it changes in the workspace comes home.  See concc-dispatch(1).\n";

int main(int argc, char **argv)
{
	struct wrapper_options o = {.argv = argv + 1, .any_command = true};

	fd_hold_stdio();
	if (argc > 2 && streq(argv[1], "--"))
		o.argv = argv + 2;
	if (argc < 2) {
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
	if (o.argv[0][0] == '-') {
		fprintf(stderr, "concc-dispatch: unknown option %s\n%s", o.argv[0], usage);
		return WRAPPER_EXIT_USAGE;
	}
	return wrapper_run(&o);
}
