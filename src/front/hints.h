/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_FRONT_HINTS_H
#define CONCC_FRONT_HINTS_H

/*
 * What a build that made little use of workers is told: what was seen, and what to change.  One
 * line each, or nothing.
 */
#include <stdbool.h>
#include <stddef.h>

#include "concc/buf.h"
#include "concc/front.h"
#include "concc/wrapper.h"
#include "masquerade.h"
#include "tools.h"

/*
 * No compiler call came through concc but n_asked questions, like --version.  Looks at the
 * command, the environment, and the files of the build in the current directory or where the
 * command says: CMakeCache.txt, build.ninja, Makefile.
 */
void hint_no_calls(char *const *argv, const struct masquerade *m, const struct left_alone *l,
		   uint64_t n_asked, struct buf *out);

/* The rule that kept most calls here, of those that a change of the user's lifts, in a build that
 * was called so. */
void hint_kept_local(const struct counter *e, size_t n, const struct front_run *run,
		     struct buf *out);
/* Its bare words. */
void hint_most_local(const struct counter *e, size_t n, const struct front_run *run,
		     struct buf *out);

/* ---- for tests ---- */

/* The first absolute path of a compiler in a text, and what variable is set to it at the beginning
 * of that line, or "".  NULL: none.  Both on the heap. */
char *hint_find_compiler(const char *text, char **ret_variable);
/* The value of an entry of CMakeCache.txt; NULL when it is not there or empty. */
char *hint_cmake_value(const char *cache, const char *name);

#endif
