/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_JOB_ARGFILE_H
#define CONCC_JOB_ARGFILE_H

/*
 * Arguments that are in files: @FILE, also in such a file, and of C drivers clang's
 * --config FILE and nvcc's --options-file FILE.  Only for looking at: a command is never sent in
 * any other form than it came.  Pure, but for the callback that reads a file.
 */
#include <stdbool.h>
#include <stddef.h>

struct buf;

/* All that the files of a command may hold; more is not looked at. */
#define ARGFILES_BYTES_MAX (1024 * 1024)
#define ARGFILES_MAX	   64 /* files, each time that it is named */
#define ARGFILES_DEPTH_MAX 16 /* of files in files: of one that names itself, too */

enum argfile_style {
	ARGFILE_GNU,   /* words as libiberty's buildargv() and LLVM take them */
	ARGFILE_C,     /* the same, and the options of C drivers */
	ARGFILE_LINES, /* rustc: each line is an argument, and no more files in them */
};

struct argfiles {
	const char *cwd; /* absolute */
	enum argfile_style style;
	/* See policy_input. */
	int (*read_file)(const char *path, size_t max, struct buf *out);
};

/* Has the command any?  Cheap: asked of each. */
bool argfiles_any(enum argfile_style style, char *const *args);

/*
 * args with what the files hold in their place, on the heap.  A file that is not there
 * or may not be read stays as it is named, as compilers take it.  NULL when what they
 * hold can't be told; then the argument that names it is in ret_unknown, borrowed
 * from args.
 */
char **argfiles_expand(const struct argfiles *f, char *const *args, const char **ret_unknown);

#endif
