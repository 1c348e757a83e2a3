/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_FRONT_TOOLS_H
#define CONCC_FRONT_TOOLS_H

/*
 * What is known of build tools: how each is brought to call compilers through concc-cc, and to run
 * several at once.  What the user has set stays, and is told.
 */
#include <stdbool.h>
#include <stdint.h>

#include "masquerade.h"

/* What stands in the way of calls, since the user put it there; NULL or on the heap. */
struct left_alone {
	char *rust;	  /* "RUSTC_WRAPPER=sccache" */
	char *cmake;	  /* "CMAKE_C_COMPILER_LAUNCHER=sccache" */
	char *go;	  /* "-toolexec=other, of GOFLAGS" */
	const char *path; /* "distcc": its directory is first in PATH */
};

/*
 * Changes our environment: PATH, and what make it into RUSTC_WRAPPER, CMake's launchers, GOFLAGS
 * and ccache; CC="concc-cc gcc" and its like become CC=gcc.  cc is the installed concc-cc.  Asks
 * ccache and go for their settings, where they are installed.
 */
void tools_set_environment(const char *path_var, const struct masquerade *m, const char *cc,
			   struct left_alone *ret);
void left_alone_release(struct left_alone *l);
/* The rustc wrapper of the user's: of the environment or cargo's files.  NULL or on the heap. */
char *tools_rust_wrapper(void);

/* One of "make", "ninja", "cmake", "cargo", "meson", "go", whatever it is called; else NULL. */
const char *tools_name(char *const *argv);

/* It was told to write nothing unless something fails ("make -s"). */
bool tools_is_silent(char *const *argv);

/*
 * The command with so many jobs at once, as one more argument or by a variable of our environment;
 * nothing when the user told it a number, or nobody knows how.  everywhere: by variables for the
 * build tools that it calls, too.  Returns a copy with the argument (strv_free() frees it), or
 * NULL: argv does.  *ret_how is what was done, on the heap; NULL: nothing.
 */
char **tools_with_jobs(char *const *argv, uint32_t n, bool everywhere, char **ret_how);

/* By the name of a program, without its directory. */
bool tools_is_shell(const char *name);

/* The option of bash -l SCRIPT, sh --login, or NULL: its profile sets PATH anew, and nothing can be
 * put behind that. */
const char *tools_loses_path(char *const *argv);

/*
 * A copy of the command that calls its compilers by the directory of links: gnatmake calls the one
 * beside itself otherwise, whatever PATH says, and a login shell has another PATH when it comes to
 * the text of its -c, which so begins by setting it.  NULL: argv calls what PATH has, or what the
 * user said.
 */
char **tools_with_compiler(char *const *argv, const struct masquerade *m);

#endif
