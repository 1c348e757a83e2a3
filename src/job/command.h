/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_JOB_COMMAND_H
#define CONCC_JOB_COMMAND_H

/*
 * What is known about command lines: which program a name stands for, and
 * which options of C-family drivers take the next argument.  Only as much as
 * choosing local or remote needs: a command is never rewritten, so an option
 * unknown here costs speed at worst.
 */
#include <stdbool.h>
#include <stddef.h>

enum tool {
	TOOL_OTHER,
	TOOL_C,	   /* gcc, clang, gfortran, nvcc, ... and their cross and versioned names */
	TOOL_CPP,  /* cpp: preprocesses, reads stdin without an operand */
	TOOL_AS,   /* as: assembles, reads stdin without an operand */
	TOOL_LINK, /* ld, lld, mold, ar, ...: reads what is here already */
	TOOL_RUST, /* rustc, clippy-driver, rustdoc */
	TOOL_GO,   /* a tool of the go tool chain, as go build -toolexec calls it */
	TOOL_ZIG,
	TOOL_PLAIN, /* nasm, ldc2: reads standard input for "-" only */
};

/* Of a program's name or path. */
enum tool tool_of_name(const char *argv0);

/*
 * Of a command.  Programs that only run another one (ccache, env, nice, ...)
 * are looked through; *ret_first is the index of the first argument that is
 * the tool's own.
 */
enum tool tool_of_command(char *const *argv, size_t *ret_first);

/* True when a C-family driver's option takes the next argument ("-o", "-MF"). */
bool c_option_takes_next(const char *arg);

/* True for a file name that a C-family driver compiles (.c, .cc, .f90, .s, .h, ...). */
bool c_is_source(const char *path);

/* True for names of the process's own standard input: "-", "/dev/stdin", "/dev/fd/0", ... */
bool is_stdin_name(const char *arg);
/* True for one of those paths, alone or joined to an option ("-include/dev/stdin"). */
bool ends_in_stdin_path(const char *arg);

/*
 * Whether s is one of names, or begins with one of prefixes (returns that one).  Called with tables
 * for each argument of each call of a compiler, so most names are ruled out by two characters.
 */
bool is_one_of(const char *s, const char *const *names, size_t n);
const char *find_prefix(const char *s, const char *const *prefixes, size_t n);

#define ONE_OF(s, names)    is_one_of((s), (names), N_OF(names))
#define PREFIX_OF(s, names) find_prefix((s), (names), N_OF(names))

/* The value of a variable, borrowed; NULL when it isn't set. */
const char *env_get(char *const *env, const char *name);

#endif
