/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_JOB_H
#define CONCC_JOB_H

/*
 * What a command is: whether it should run remotely, what environment travels
 * with it, how it is written down as a script.  Pure logic over argv, cwd and
 * environment; touches no file but through the callbacks given (job_resolve(), job_exe() and
 * job_exec() excepted, whose subject is the disk).  Libc only: the wrapper links it.  From any
 * thread; nothing blocks but for those.
 */
#include <stdbool.h>
#include <stddef.h>

struct buf;

struct policy_input {
	char *const *argv; /* argv[0] is the compiler as it was called */
	const char *cwd;   /* absolute */
	char *const *env;
	bool any_command; /* concc-dispatch: only the rules that hold for any command */
	/* Of cwd, when that is in /tmp or the like: what of those a worker sees, beside all that
	 * $CONCC_WORKSPACE lists.  NULL: unknown, cwd's own place tells. */
	const char *workspace;
	char *const *served; /* instead of both, once they are known; NULL: they are not */
	/*
	 * Appends a regular file of at most max bytes.  -errno when it can't be opened, any other
	 * negative code when there may be more in it than can be told.  Absolute path.  NULL:
	 * @files are not looked into.
	 */
	int (*read_file)(const char *path, size_t max, struct buf *out);
	/* Is the caller's descriptor (0 to 2) one that is another when it is opened anew, by its
	 * name in /dev, than the pipe is that a job has there?  NULL: none is. */
	bool (*is_no_pipe)(int fd);
	/* Is this the caller's file that standard output or error goes to?  NULL: none is. */
	bool (*is_output)(const char *path);
};

struct policy_verdict {
	bool local;
	const char *rule; /* static, one of policy_rules[]; "remote" when it runs remotely */
	char why[256];	  /* the argument or variable that decided it; may be empty */
	/* Unless it is local: may it read standard input?  A compiler only when an argument says
	 * so, also one in an @file, or an assembler or preprocessor without an operand. */
	bool reads_stdin;
};

struct policy_rule {
	const char *name;
	const char *text; /* one line: what it covers and why it stays local */
};

/* The rules in the order they are tried: for CONCC_EXPLAIN, concc-cc(1) and tests. */
extern const struct policy_rule policy_rules[];
extern const size_t policy_n_rules;

void policy_decide(const struct policy_input *in, struct policy_verdict *ret);
/* Is it in a directory like /tmp, of which a worker has its own? */
bool policy_is_tmp(const char *path);
/* The rule tmp-output alone, for who knows what is served. */
bool policy_names_tmp(const struct policy_input *in, struct policy_verdict *ret);

/*
 * The arguments of a driver for C with those in the place of its @files and the like, on the heap;
 * NULL when they can't be told.  read_file as in policy_input.
 */
char **job_expand_argfiles(char *const *argv, const char *cwd,
			   int (*read_file)(const char *path, size_t max, struct buf *out));

/* What a command is for who compares compilers on two machines. */
enum job_family {
	JOB_FAMILY_OTHER, /* who knows; a script may run compilers */
	JOB_FAMILY_C, /* a driver of compilers, or what runs one: gcc, nvcc, mpicc, ccache gcc */
	JOB_FAMILY_RUST,
	JOB_FAMILY_ALONE, /* as, ld, a tool of Go, zig: all of it is in its own program */
};

enum job_family job_family(char *const *argv);

/* Has the command no option of a driver's that ends it before a link? */
bool job_may_link(char *const *argv);

/*
 * True for names of GCC's and clang's drivers for C and C++: gcc, g++, cc, c++, clang, clang++,
 * with a target before and a version after them.  Only the name: what has it may be anything.
 */
bool job_is_driver_name(const char *path);
/*
 * True for names of compilers that are called by their names, for one file or some: those, and
 * gfortran, nvcc, mpicc, rustc ..., what a masquerade directory has.
 */
bool job_is_compiler_name(const char *path);
/* True for ccache and what else stands in front of compilers by itself: sccache, distcc, icecc. */
bool job_is_compiler_cache(const char *path);
/*
 * What to type in place of a program that always lacks something as a job, so that what it does is
 * done by workers; static.  NULL: nothing is known.
 */
const char *job_way(const char *program);

/*
 * The project that a directory belongs to: the repository it is in (.git, .hg, .jj, .svn; the
 * outer one for a submodule), or else the topmost parent with a mark of a build system.  Never
 * home (clean, or NULL) or what holds it.  exists is called with absolute paths.  NULL: none.
 * ret_repository: is it one?
 */
char *job_project(const char *path, const char *home, bool (*exists)(const char *path),
		  bool *ret_repository);
/*
 * The workspace of a directory, by $CONCC_WORKSPACE (a colon-separated list: the first
 * that holds cwd) or else its project.  The home directory only when listed.  NULL: none.
 */
char *job_workspace(const char *cwd, char *const *env, bool (*exists)(const char *path));

/* True when a directory that $CONCC_WORKSPACE lists holds this absolute, clean path. */
bool job_is_listed(const char *path, char *const *env);

/*
 * What of an environment travels: NULL-terminated, owned, in its order, with what it has twice, or
 * without a name or value.  Job-server descriptors leave MAKEFLAGS and CARGO_MAKEFLAGS.  $TMPDIR
 * and its like travel when one tree may hold that directory and cwd (NULL: they don't), the shell's
 * $OLDPWD and $SHLVL with shells_own, for commands of which nobody knows that they make nothing of
 * them.  $CONCC_PASS_ENV lists names that are not held back.
 */
char **job_env_filter(char *const *env, const char *cwd, bool shells_own);
/* The names of those of env that are kept from jobs as credentials; on the heap, as are the names.
 */
char **job_env_credentials(char *const *env);
/* The same for a person, in one line and escaped; NULL: none. */
char *job_env_kept_back(char *const *env);
/* Takes those of them out whose directory is in none of the trees.  Frees nothing. */
void job_env_drop_temp(char **env, char *const *trees);

/*
 * What execvp(3) would give to execve(2), and so a script sees as its $0: argv0 itself when it is a
 * path, else a directory of path_var and the name.  Relative ones are so to cwd, absolute.  Files
 * for which skip() is true for their absolute path are passed over (concc's own wrappers reached
 * through a masquerade directory; one given by its path is looked up in PATH by its name instead).
 * skip may be NULL.  On the heap; NULL and errno when there is none.
 */
char *job_resolve(const char *argv0, const char *path_var, const char *cwd,
		  bool (*skip)(const char *path, void *data), void *data);

/*
 * The same file by a path as messages carry them: absolute, without "..", what is a symlink on
 * the way there being resolved; the last name stays.  On the heap.
 */
char *job_exe(const char *path, const char *cwd);

/* execve(2), and as execvp(3) does sh for a script without "#!".  Returns -errno, if at all. */
int job_exec(const char *path, char *const *argv, char *const *env);
/* The words of that sh: the vector is the caller's, the words are borrowed.  Allocates. */
char **job_sh_argv(const char *path, char *const *argv);

/*
 * Appends a POSIX shell script that repeats the job: umask, cwd, filtered
 * environment, argv, byte for byte.  exe is the file to run, by a path with a slash, relative to
 * cwd or not; NULL: what argv[0] names.  POSIX can't give a program a name other than the one it is
 * run by; where exe and argv[0] differ so, the script uses env(1)'s --argv0 or
 * perl where it runs, and without either says that the name is another.
 */
void job_script(struct buf *out, char *const *argv, const char *exe, const char *cwd,
		char *const *env, unsigned umask);

/* Appends s as one word for a POSIX shell, whatever bytes it has. */
void job_put_quoted(struct buf *out, const char *s);

/* Is it what build tools look for in the directories above a project by listing these? */
bool job_is_listed_mark(const char *name);
/*
 * The directory that a build tool has made for this build alone and works in, as Go's
 * /tmp/go-build123, if path (absolute, clean) is it or in it; on the heap, or NULL.  Only by its
 * name: whose it is must be looked at.
 */
char *job_work_dir(const char *path);

/* Is it text and names no file, whatever it looks like, as "-DX=/y" is, or what follows "-MT"?
 * before: the argument before it, or NULL. */
bool job_arg_is_text(const char *arg, const char *before);
/*
 * The file that an argument may name outside of cwd, absolute or by "..": such as in "/x",
 * "-I../x", "foo=/x".  Clean, on the heap; NULL: it names none, or one below cwd.
 */
char *job_arg_file(const char *arg, const char *cwd);

/*
 * Where an absolute path starts in an argument such as "/x", "-I/x", "@/x" or
 * "--sysroot=/x"; NULL when there is none.  Borrowed from arg.
 */
const char *job_arg_path(const char *arg);

#endif
