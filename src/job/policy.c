/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/job.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#include "argfile.h"
#include "command.h"
#include "preload.h"

/*
 * Every rule errs to one side.  A job kept here for no good reason costs some
 * speed; a job sent away that can't be right there costs the build.  So a rule
 * may look at pieces of an argument and be wrong about what they mean, but the
 * rules about the machine (native, tmp-output) look at every argument, those in
 * @files too.  For all others what these hold works on a worker as it does here;
 * and a command is never sent in any other form than it came.
 */

const struct policy_rule policy_rules[] = {
	{"disabled", "CONCC_DISABLE=1 is set: everything runs here."},
	{"on-worker", "The command is part of a job already; a job starts no jobs."},
	{"query", "It asks the compiler about itself (--version, -print-*, -v, --print): "
		  "answered sooner than sent."},
	{"probe", "A test of configure, CMake, Meson, Kbuild or a build script: tiny, and the "
		  "build waits for each."},
	{"args-file", "A file with arguments (@FILE) is too large, or no regular file, to look for "
		      "the following in it."},
	{"tmp-output", "It, or a variable like CPATH, names a file beneath /tmp, $TMPDIR, /run, "
		       "/proc or the like, of which a worker has its own."},
	{"descriptor", "It names one of this process's open files, as <(...) in a shell does: a "
		       "job has none of them."},
	{"native", "-march=native and its kin mean this machine's processor."},
	{"preload", "LD_PRELOAD names a library that may change what the compiler does."},
	{"incremental", "rustc's incremental state is large, and is here."},
	{"link", "It links or archives what is here already; CONCC_REMOTE_LINK=1 sends it."},
};
const size_t policy_n_rules = N_OF(policy_rules);

struct ctx {
	const struct policy_input *in;
	struct policy_verdict *ret;
	enum tool tool;
	char *const *args;   /* those of the tool itself */
	char *const *all;    /* the same with what is in @files */
	const char *unknown; /* an argument, when that can't be told; else NULL */
	char *tmpdir;	     /* $TMPDIR, clean; NULL when it can't matter */
};

static bool because(struct ctx *c, const char *what)
{
	snprintf(c->ret->why, sizeof(c->ret->why), "%s", what);
	return true;
}

static bool is_set(const char *value)
{
	return value && *value && !streq(value, "0");
}

/* ---- disabled, on-worker ---- */

static bool rule_disabled(struct ctx *c)
{
	return is_set(env_get(c->in->env, "CONCC_DISABLE")) && because(c, "CONCC_DISABLE");
}

static bool rule_on_worker(struct ctx *c)
{
	return is_set(env_get(c->in->env, "CONCC_WORKER")) && because(c, "CONCC_WORKER");
}

/* ---- query ---- */

static bool is_c_query(const char *arg)
{
	static const char *const exact[] = {
		"--version", "-dumpmachine",  "-dumpversion", "-dumpfullversion", "-dumpspecs",
		"--help",    "--target-help", "-###",	      "--dryrun",	  "-dryrun",
	};

	return ONE_OF(arg, exact) || str_starts(arg, "-print-") || str_starts(arg, "--print-") ||
	       str_starts(arg, "--help=");
}

static bool c_query(struct ctx *c)
{
	bool verbose = false, preprocess = false, macros = false, from_stdin = false;
	size_t operands = 0;

	for (char *const *a = c->args; *a; a++) {
		if (is_c_query(*a))
			return because(c, *a);
		verbose = verbose || streq(*a, "-v");
		preprocess = preprocess || streq(*a, "-E") || c->tool == TOOL_CPP;
		macros = macros || streq(*a, "-dM");
		if (c_option_takes_next(*a)) {
			if (!*++a)
				break;
			continue;
		}
		if (is_stdin_name(*a))
			from_stdin = true;
		operands += (*a)[0] != '-' || !(*a)[1];
	}
	if (verbose && operands == 0)
		return because(c, "-v");
	/* What are the macros, where are the headers: `gcc -dM -E -`, `gcc -v -E -x c++ -`. */
	if (preprocess && from_stdin && (verbose || macros))
		return because(c, macros ? "-dM -E -" : "-v -E -");
	return false;
}

/* rustc prints these beside a real compilation. */
static bool prints_beside(const char *what)
{
	return str_starts(what, "native-static-libs") || str_starts(what, "link-args");
}

static bool rust_query(struct ctx *c)
{
	static const char *const exact[] = {"-V", "--version", "-vV",	   "-Vv",
					    "-h", "--help",    "--explain"};

	for (char *const *a = c->args; *a; a++) {
		if (ONE_OF(*a, exact))
			return because(c, *a);
		if (str_starts(*a, "--print=") && !prints_beside(*a + strlen("--print=")))
			return because(c, *a);
		if (streq(*a, "--print") && a[1] && !prints_beside(a[1]))
			return because(c, a[1]);
	}
	return false;
}

static bool rule_query(struct ctx *c)
{
	static const char *const alone[] = {"--version", "--help", "-V",      "-v",
					    "-V=full",	 "-h",	   "version", "env"};

	switch (c->tool) {
	case TOOL_C:
	case TOOL_CPP:
	case TOOL_AS:
	case TOOL_ZIG:
		if (c_query(c))
			return true;
		break;
	case TOOL_RUST:
		return rust_query(c);
	default:
		break;
	}
	/* Of any program, when it is the only argument. */
	return c->args[0] && !c->args[1] && ONE_OF(c->args[0], alone) && because(c, c->args[0]);
}

/* ---- probe ---- */

/* Kbuild's $(TMPOUT)/tmp: ".tmp_", a process id, "/tmp". */
static bool is_kbuild_try(const char *path)
{
	const char *at = strstr(path, ".tmp_");
	size_t digits;

	if (!at)
		return false;
	at += strlen(".tmp_");
	digits = strspn(at, "0123456789");
	return digits > 0 && str_starts(at + digits, "/tmp");
}

/* A path of a CMake, Meson or Kbuild check. */
static bool is_probe_path(const char *path)
{
	const char *cmake = strstr(path, "CMakeFiles/");

	if (cmake) {
		cmake += strlen("CMakeFiles/");
		if (str_starts(cmake, "CMakeTmp") || str_starts(cmake, "CMakeScratch") ||
		    str_starts(cmake, "cmTC_") || strstr(cmake, "/CompilerId"))
			return true;
	}
	return strstr(path, "meson-private") || is_kbuild_try(path);
}

/* What configure scripts call their tests: autoconf's, and zlib's with a process id. */
static bool is_conftest(const char *arg)
{
	const char *base = path_base(arg);
	size_t digits;

	if (str_starts(base, "ztest")) {
		base += strlen("ztest");
		digits = strspn(base, "0123456789");
		return digits > 0 && (!base[digits] || base[digits] == '.');
	}
	return streq(base, "conftest") || str_starts(base, "conftest.");
}

/* Kbuild's cc-option and its like: compiles /dev/null, or standard input into /dev/null. */
static bool compiles_nothing(struct ctx *c)
{
	static const char *const brings[] = {"-include", "-imacros", "-include-pch"};
	const char *operand = NULL;
	const char *output = "";

	for (char *const *a = c->args; *a; a++) {
		if (ONE_OF(*a, brings))
			return false;
		if (streq(*a, "-o") && a[1])
			output = a[1];
		if (c_option_takes_next(*a)) {
			if (!*++a)
				break;
			continue;
		}
		if ((*a)[0] == '-' && (*a)[1])
			continue;
		if (operand)
			return false;
		operand = *a;
	}
	if (!operand)
		return false;
	return streq(operand, "/dev/null") ||
	       (is_stdin_name(operand) && streq(output, "/dev/null"));
}

/* autocfg, rustversion and hand-written build scripts try what a rustc can do. */
static bool rust_probe(struct ctx *c)
{
	const char *build_dir = env_get(c->in->env, "NUM_JOBS") ? env_get(c->in->env, "OUT_DIR")
								: NULL;

	for (char *const *a = c->args; *a; a++) {
		const char *name = str_starts(*a, "--crate-name=") ? *a + strlen("--crate-name=")
								   : NULL;
		const char *out = str_starts(*a, "--out-dir=") ? *a + strlen("--out-dir=") : NULL;

		if (streq(*a, "--crate-name") && a[1])
			name = a[1];
		if (streq(*a, "--out-dir") && a[1])
			out = a[1];
		if (streq(*a, "-") && (a == c->args || !streq(a[-1], "-o")))
			return because(c, "-");
		if (name && (streq(name, "___") || str_starts(name, "autocfg_")))
			return because(c, name);
		if (strstr(*a, "/probe/") || str_ends(*a, "/probe.rs"))
			return because(c, *a);
		/* Cargo gives NUM_JOBS to build scripts, but not to the compiler. */
		if (out && build_dir && *build_dir && path_is_below(out, build_dir))
			return because(c, out);
	}
	return false;
}

static bool rule_probe(struct ctx *c)
{
	if (is_probe_path(c->in->cwd))
		return because(c, c->in->cwd);
	if ((c->tool == TOOL_C || c->tool == TOOL_CPP) && compiles_nothing(c))
		return because(c, "/dev/null");
	if (c->tool == TOOL_RUST && rust_probe(c))
		return true;
	for (char *const *a = c->args; *a; a++) {
		if (job_arg_is_text(*a, a > c->args ? a[-1] : NULL))
			continue;
		if (is_conftest(*a) || is_probe_path(*a))
			return because(c, *a);
	}
	return false;
}

/* ---- args-file ---- */

static bool rule_args_file(struct ctx *c)
{
	return c->unknown && because(c, c->unknown);
}

/* ---- tmp-output ---- */

/* True for our own 0, 1 and 2 by name, which a job has too. */
static bool is_stdio(const char *path)
{
	static const char *const dirs[] = {"/dev/fd/", "/proc/self/fd/"};

	for (size_t i = 0; i < N_OF(dirs); i++) {
		const char *fd = str_starts(path, dirs[i]) ? path + strlen(dirs[i]) : NULL;

		if (fd && *fd >= '0' && *fd <= '2' && !fd[1])
			return true;
	}
	return false;
}

static bool is_below_any(const char *path, char *const *dirs)
{
	for (; *dirs; dirs++) {
		if (path_is_below(path, *dirs))
			return true;
	}
	return false;
}

/* Of these a worker has its own. */
static const char *const own_dirs[] = {"/tmp", "/var/tmp", "/dev/shm", "/dev/fd",
				       "/run", "/var/run", "/proc",    "/sys"};

bool policy_is_tmp(const char *path)
{
	for (size_t i = 0; i < N_OF(own_dirs); i++) {
		if (path_is_below(path, own_dirs[i]))
			return true;
	}
	return false;
}

/* True when path lies in dir, of which a worker has another one. */
static bool is_hidden_in(const struct policy_input *in, const char *path, const char *dir)
{
	if (!path_is_below(path, dir))
		return false;
	if (in->served)
		return !is_below_any(path, in->served);
	if (in->workspace ? path_is_below(path, in->workspace) : path_is_below(in->cwd, dir))
		return false;
	return !job_is_listed(path, in->env);
}

/* path is absolute and clean but for a slash at its end. */
static bool is_hidden_clean(const struct ctx *c, const char *path)
{
	/* Whose a work directory is, and so whether it is served, tells the server. */
	_cleanup_free_ char *work = c->in->served ? NULL : job_work_dir(path);

	if (work || is_stdio(path))
		return false;
	for (size_t i = 0; i < N_OF(own_dirs); i++) {
		if (is_hidden_in(c->in, path, own_dirs[i]))
			return true;
	}
	return c->tmpdir && is_hidden_in(c->in, path, c->tmpdir);
}

static bool is_hidden(const struct ctx *c, const char *path)
{
	_cleanup_free_ char *clean = NULL;

	if (path[0] == '/' && !strstr(path, "//") && !strstr(path, "/."))
		return is_hidden_clean(c, path);
	clean = path_clean(c->in->cwd, path);
	return is_hidden_clean(c, clean);
}

/* What follows an option that a path may be joined to (-I/tmp/x), or NULL. */
static const char *joined_path(const char *arg)
{
	static const char *const options[] = {
		"-I",	     "-L",	 "-o",	    "-B",	  "-F",	      "-MF",
		"-MJ",	     "-isystem", "-iquote", "-idirafter", "-include", "-imacros",
		"-isysroot", "-T",	 "-J",	    "-iprefix",
	};
	/* No two of them fit one path: what is joined begins with '/' or "..". */
	for (size_t i = 0; i < N_OF(options); i++) {
		const char *rest = arg + strlen(options[i]);

		if (find_prefix(arg, &options[i], 1) && (rest[0] == '/' || str_starts(rest, "..")))
			return rest;
	}
	return NULL;
}

/* A path inside a longer argument: after '=', ',' or ':' (--sysroot=/tmp/x, foo=/tmp/x.rlib). */
static bool names_hidden_inside(const struct ctx *c, const char *arg)
{
	for (const char *p = strpbrk(arg, "=,:"); p; p = strpbrk(p + 1, "=,:")) {
		_cleanup_free_ char *path = NULL;

		if (p[1] != '/')
			continue;
		path = xstrndup(p + 1, strcspn(p + 1, ",:"));
		if (is_hidden(c, path))
			return true;
	}
	return false;
}

static bool names_hidden(const struct ctx *c, const char *arg)
{
	const char *path = NULL;

	if (arg[0] == '@')
		path = arg + 1;
	else if (arg[0] == '-')
		path = joined_path(arg);
	else
		path = arg;
	/* What is relative and goes down from cwd is where cwd is. */
	if (path && (path[0] == '/' || strstr(path, "..")) && is_hidden(c, path))
		return true;
	return names_hidden_inside(c, arg);
}

/* One entry of a list of paths; empty, it is the cwd. */
static bool entry_is_hidden(const struct ctx *c, const char *entry)
{
	return (entry[0] == '/' || strstr(entry, "..")) && is_hidden(c, entry);
}

/* Variables that tell compilers where to look: as -I and -B do. */
static bool env_names_hidden(struct ctx *c)
{
	static const char *const vars[] = {
		"CPATH",
		"C_INCLUDE_PATH",
		"CPLUS_INCLUDE_PATH",
		"OBJC_INCLUDE_PATH",
		"OBJCPLUS_INCLUDE_PATH",
		"LIBRARY_PATH",
		"COMPILER_PATH",
		"GCC_EXEC_PREFIX",
	};

	for (size_t i = 0; i < N_OF(vars); i++) {
		const char *list = env_get(c->in->env, vars[i]);

		while (list && *(list += strspn(list, ":"))) {
			size_t n = strcspn(list, ":");
			_cleanup_free_ char *entry = xstrndup(list, n);

			if (entry_is_hidden(c, entry)) {
				snprintf(c->ret->why, sizeof(c->ret->why), "%s: %s", vars[i],
					 entry);
				return true;
			}
			list += n;
		}
	}
	return false;
}

static bool rule_tmp_output(struct ctx *c)
{
	for (char *const *a = c->all; *a; a++) {
		if (job_arg_is_text(*a, a > c->all ? a[-1] : NULL))
			continue;
		if (names_hidden(c, *a))
			return because(c, *a);
	}
	return env_names_hidden(c);
}

/* ---- descriptor ---- */

/* What a path begins with may stand behind an option, or be read from (@). */
static bool is_descriptor(const char *path)
{
	static const char *const dirs[] = {"/dev/fd/", "/proc/self/fd/"};

	for (size_t i = 0; i < N_OF(dirs); i++) {
		if (str_starts(path, dirs[i]) && isdigit((unsigned char)path[strlen(dirs[i])]))
			return !is_stdio(path);
	}
	return false;
}

static bool rule_descriptor(struct ctx *c)
{
	for (char *const *a = c->args; *a; a++) {
		for (const char *p = *a; p; p = strpbrk(p, "@=,:")) {
			p += strspn(p, "@=,:");
			if (is_descriptor(p))
				return because(c, *a);
		}
	}
	return false;
}

/* ---- native ---- */

/* Finds "march=native" and the like anywhere, so that -Xcompiler and quoted lists count too. */
static bool has_native(const char *s)
{
	static const char *const words[] = {"march=native",	  "mtune=native",    "mcpu=native",
					    "target-cpu=native",  "tune-cpu=native", "-arch=native",
					    "architecture=native"};

	if (!strstr(s, "=native"))
		return false;
	for (size_t i = 0; i < N_OF(words); i++) {
		const char *at = strstr(s, words[i]);

		/* -mcpu=native+crypto is native too */
		if (at && !isalnum((unsigned char)at[strlen(words[i])]))
			return true;
	}
	return false;
}

static bool native_after(char *const *a, char *const *first)
{
	static const char *const options[] = {"-march",
					      "-mtune",
					      "-mcpu",
					      "-target-cpu",
					      "-tune-cpu",
					      "-arch",
					      "--gpu-architecture"};

	if (!streq(*a, "native") || a == first)
		return false;
	/* -Xclang -target-cpu -Xclang native */
	if (streq(a[-1], "-Xclang") && a - 1 > first)
		a--;
	return ONE_OF(a[-1], options);
}

/* zig compiles for this processor unless told otherwise. */
static bool zig_native(struct ctx *c)
{
	for (char *const *a = c->args; *a; a++) {
		if (str_starts(*a, "-target") || str_starts(*a, "--target") ||
		    str_starts(*a, "-mcpu=") || str_starts(*a, "-march="))
			return false;
	}
	return because(c, "zig without -target or -mcpu");
}

static bool rule_native(struct ctx *c)
{
	/* Variables that drivers take options from. */
	static const char *const vars[] = {"CCC_OVERRIDE_OPTIONS", "NVCC_PREPEND_FLAGS",
					   "NVCC_APPEND_FLAGS"};

	for (char *const *a = c->all; *a; a++) {
		if (str_starts(*a, "-D") || str_starts(*a, "-U"))
			continue;
		if (has_native(*a) || native_after(a, c->all))
			return because(c, *a);
		/* Intel's compilers */
		if (c->tool == TOOL_C && (streq(*a, "-xHost") || streq(*a, "-xhost")))
			return because(c, *a);
	}
	for (size_t i = 0; c->tool == TOOL_C && i < N_OF(vars); i++) {
		const char *value = env_get(c->in->env, vars[i]);

		if (value && has_native(value))
			return because(c, vars[i]);
	}
	return c->tool == TOOL_ZIG && zig_native(c);
}

/* ---- preload, incremental ---- */

static bool rule_preload(struct ctx *c)
{
	const char *value = env_get(c->in->env, "LD_PRELOAD");
	_cleanup_free_ char *rest = value ? preload_rest(value) : NULL;

	return rest && because(c, rest);
}

/*
 * Measured with syn (45 000 lines), all features, one worker of this machine's own speed: building
 * it again after a change took 1.8 s here.  Sent, 3.5 to 5.4 s, with 44 MB of state there and 49 MB
 * home each time, and one of two jobs was done twice, since rustc links what is new to what was
 * there.  The first build gained nothing either (16.5 s instead of 11.4, with the toolchain's
 * transfer); what is compiled once is of other crates, and these go.
 */
static bool rule_incremental(struct ctx *c)
{
	static const char *const joined[] = {"-Cincremental", "--codegen=incremental"};
	static const char *const option[] = {"-C", "--codegen"};

	for (char *const *a = c->args; *a && c->tool == TOOL_RUST; a++) {
		for (size_t i = 0; i < N_OF(joined); i++) {
			if (str_starts(*a, joined[i]))
				return because(c, *a);
		}
		if (a > c->args && ONE_OF(a[-1], option) && str_starts(*a, "incremental"))
			return because(c, *a);
	}
	return false;
}

/* ---- link ---- */

/* Options that stop before the link. */
static bool stops_early(const char *arg)
{
	static const char *const exact[] = {
		"-c",
		"-S",
		"-E",
		"-M",
		"-MM",
		"--compile",
		"--assemble",
		"--preprocess",
		"-fsyntax-only",
		"--syntax-only",
		"--precompile",
		"--analyze",
		"-emit-ast",
		"-emit-pch",
		"-emit-module",
		"-emit-llvm-bc",
		"-cc1",
		"-cc1as",
		"-rewrite-objc",
		"-extract-api",
		"-dc",
		"-dw",
		"--device-c",
		"--device-w",
		"-ptx",
		"--ptx",
		"-cubin",
		"--cubin",
		"-fatbin",
		"--fatbin",
		"-cuda",
		"--cuda",
		"--ptx-only",
		"-module-file-info",
		"-fmodule-only",
		"-fmodules-only",
		"-verify-pch",
	};

	return ONE_OF(arg, exact);
}

bool job_may_link(char *const *argv)
{
	for (char *const *a = argv; *a; a++) {
		if (stops_early(*a))
			return false;
	}
	return true;
}

static bool is_link_input(const char *arg)
{
	static const char *const suffixes[] = {".o", ".obj", ".a", ".so", ".lo", ".lib", ".ltrans"};

	for (size_t i = 0; i < N_OF(suffixes); i++) {
		if (str_ends(arg, suffixes[i]))
			return true;
	}
	return strstr(arg, ".so.") != NULL;
}

static bool is_link_option(const char *arg)
{
	return streq(arg, "-shared") || streq(arg, "-pie") || streq(arg, "-rdynamic") ||
	       str_starts(arg, "-Wl,") || (str_starts(arg, "-l") && arg[2]);
}

/* A driver's call that neither stops early nor compiles anything. */
static bool c_link(struct ctx *c)
{
	bool language = false; /* -x says that operands are sources whatever they are called */
	bool link = false, unknown = false;

	for (char *const *a = c->args; *a; a++) {
		if (stops_early(*a))
			return false;
		if (str_starts(*a, "-x")) {
			const char *lang = (*a)[2] ? *a + 2 : a[1];

			language = lang && !streq(lang, "none");
		}
		link = link || is_link_option(*a);
		if (c_option_takes_next(*a)) {
			if (!*++a)
				break;
			continue;
		}
		if ((*a)[0] == '@')
			unknown = true;
		else if (is_stdin_name(*a))
			return false;
		else if ((*a)[0] != '-' && (language || c_is_source(*a)))
			return false;
		link = link || is_link_input(*a);
	}
	/* An @file alone may hold anything; beside an object or -l it holds more of them. */
	return (link || !unknown) && because(c, c->in->argv[0]);
}

static bool rule_link(struct ctx *c)
{
	if (is_set(env_get(c->in->env, "CONCC_REMOTE_LINK")))
		return false;
	switch (c->tool) {
	case TOOL_C:
		return c_link(c);
	case TOOL_LINK:
		return because(c, c->in->argv[0]);
	case TOOL_GO: {
		static const char *const names[] = {"link", "pack", "buildid"};

		return ONE_OF(path_base(c->in->argv[0]), names) && because(c, c->in->argv[0]);
	}
	default:
		return false;
	}
}

/* ---- the table ---- */

static const struct {
	bool (*applies)(struct ctx *c);
	bool any_command;
} checks[] = {
	/* in the order of policy_rules[] */
	{rule_disabled, true},
	{rule_on_worker, true},
	{rule_query},
	{rule_probe},
	{rule_args_file},
	{rule_tmp_output},
	{rule_descriptor, true},
	{rule_native},
	{rule_preload},
	{rule_incremental},
	{rule_link},
};
_Static_assert(N_OF(checks) == N_OF(policy_rules), "each rule has its check");

/* $TMPDIR as a clean path; NULL unless it is absolute, and more than "/". */
static char *clean_tmpdir(const struct policy_input *in)
{
	const char *given = env_get(in->env, "TMPDIR");
	_cleanup_free_ char *clean = given && given[0] == '/' ? path_clean("/", given) : NULL;

	return clean && !streq(clean, "/") ? steal_ptr(&clean) : NULL;
}

/* What is to be freed, or NULL. */
static char **look_into_files(struct ctx *c)
{
	struct argfiles f = {
		.cwd = c->in->cwd,
		.style = c->tool == TOOL_RUST ? ARGFILE_LINES
			 : c->tool == TOOL_C  ? ARGFILE_C
					      : ARGFILE_GNU,
		.read_file = c->in->read_file,
	};
	const char *unknown;
	char **all;

	c->all = c->args;
	if (c->in->any_command || !c->in->read_file || !argfiles_any(f.style, c->args))
		return NULL;
	all = argfiles_expand(&f, c->args, &unknown);
	if (all)
		c->all = all;
	else
		c->unknown = unknown;
	return all;
}

void policy_decide(const struct policy_input *in, struct policy_verdict *ret)
{
	_cleanup_free_ char *tmpdir = clean_tmpdir(in);
	struct ctx c = {.in = in, .ret = ret, .tmpdir = tmpdir};
	_cleanup_strv_ char **all = NULL;
	size_t first;

	*ret = (struct policy_verdict){.local = false, .rule = "remote"};
	c.tool = tool_of_command(in->argv, &first);
	c.args = in->argv + first;
	all = look_into_files(&c);
	for (size_t i = 0; i < N_OF(checks); i++) {
		if (in->any_command && !checks[i].any_command)
			continue;
		if (!checks[i].applies(&c))
			continue;
		ret->local = true;
		ret->rule = policy_rules[i].name;
		return;
	}
}

bool policy_names_tmp(const struct policy_input *in, struct policy_verdict *ret)
{
	_cleanup_free_ char *tmpdir = clean_tmpdir(in);
	struct ctx c = {.in = in, .ret = ret, .tmpdir = tmpdir};
	_cleanup_strv_ char **all = NULL;
	size_t first;

	*ret = (struct policy_verdict){.rule = "tmp-output"};
	c.tool = tool_of_command(in->argv, &first);
	c.args = in->argv + first;
	all = look_into_files(&c);
	ret->local = rule_args_file(&c) || rule_tmp_output(&c);
	return ret->local;
}
