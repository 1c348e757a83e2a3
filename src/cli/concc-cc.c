/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/io.h"
#include "concc/process.h"
#include "concc/str.h"
#include "concc/wrapper.h"

static const char usage[] =
	"usage: concc-cc [--] COMPILER [ARG...]\n"
	"Runs a compiler call on a worker, or here when that is better or nothing else works.\n"
	"\n"
	"  CC=\"concc-cc gcc\" make -j64\n"
	"  RUSTC_WRAPPER=concc-cc cargo build\n"
	"  cmake -DCMAKE_CXX_COMPILER_LAUNCHER=concc-cc ...\n"
	"\n"
	"Through a symlink named gcc, cc, clang, ... it stands for the compiler of that name\n"
	"further down in PATH.  CONCC_EXPLAIN=1 tells where each call ran and why;\n"
	"CONCC_DISABLE=1 runs all of them here.  See concc-cc(1).\n";

/* A copy in a masquerade directory is not the last word on anything. */
static void give_way(struct wrapper_options *o, char **argv)
{
	char *installed = NULL;

	switch (wrapper_copy(&installed)) {
	case COPY_NONE:
	case COPY_SAME:
		return;
	case COPY_STALE:
		(void)process_exec(installed, argv); /* else this one does */
		free(installed);
		return;
	case COPY_ORPHAN:
		o->alone = true;
	}
}

int main(int argc, char **argv)
{
	struct wrapper_options o = {.argv = argv + 1};

	fd_hold_stdio();
	if (argc > 0)
		give_way(&o, argv);

	/* Named like a compiler, as by a symlink, the name is the command. */
	if (argc > 0 && !wrapper_is_own_name(argv[0])) {
		argv[0] = (char *)path_base(argv[0]);
		o.argv = argv;
		return wrapper_run(&o);
	}
	if (argc > 1 && streq(argv[1], "--"))
		o.argv = argv + 2;
	if (argc < 2 || !*o.argv) {
		fputs(usage, stderr);
		return WRAPPER_EXIT_USAGE;
	}
	if (streq(argv[1], "--help") || streq(argv[1], "-h")) {
		fputs(usage, stdout);
		return 0;
	}
	if (streq(argv[1], "--version")) {
		puts("concc-cc " CONCC_VERSION);
		return 0;
	}
	if (o.argv[0][0] == '-' && o.argv == argv + 1) {
		fprintf(stderr,
			"concc-cc: unknown option %s; options of the compiler come after its name; "
			"see `concc-cc --help`\n",
			o.argv[0]);
		return WRAPPER_EXIT_USAGE;
	}
	return wrapper_run(&o);
}
