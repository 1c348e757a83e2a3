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
#include "policy.h"
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
	{"probe",
	 "A test of configure, CMake, Meson, Kbuild, sccache or a build script: tiny, and the "
	 "build waits for each."},
	{"args-file", "A file with arguments (@FILE) is too large, or no regular file, to look for "
		      "the following in it."},
	{"tmp-output", "It, or a variable like CPATH, names a file beneath /tmp, $TMPDIR, /run, "
		       "/proc or the like, of which a worker has its own."},
	{"descriptor",
	 "It names or uses one of this process's open files other than standard "
	 "input, output and error, as <(...) in a shell does: a job has none of "
	 "them. Or it opens one of these three anew (/dev/stdout), or names the file "
	 "that its output goes to, and can't do the same with the pipe that a job has "
	 "there."},
	{"follow", "It waits for what is added to a file (tail -f), of which a job is not told."},
	{"native", "-march=native and its kin mean this machine's processor."},
	{"preload", "LD_PRELOAD names a library that may change what the compiler does."},
	{"incremental", "rustc's incremental state is large, and is here."},
	{"link", "It links or archives what is here already; CONCC_REMOTE_LINK=1 sends it."},
};
const size_t policy_n_rules = N_OF(policy_rules);

bool policy_because(struct policy_call *c, const char *what)
{
	snprintf(c->ret->why, sizeof(c->ret->why), "%s", what);
	return true;
}

bool policy_is_set(const char *value)
{
	return value && *value && !streq(value, "0");
}

/* ---- disabled, on-worker ---- */

static bool rule_disabled(struct policy_call *c)
{
	return policy_is_set(env_get(c->in->env, "CONCC_DISABLE")) &&
	       policy_because(c, "CONCC_DISABLE");
}

static bool rule_on_worker(struct policy_call *c)
{
	return policy_is_set(env_get(c->in->env, "CONCC_WORKER")) &&
	       policy_because(c, "CONCC_WORKER");
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

static bool c_query(struct policy_call *c)
{
	bool verbose = false, preprocess = false, macros = false, from_stdin = false;
	size_t operands = 0;

	for (char *const *a = c->args; *a; a++) {
		if (is_c_query(*a))
			return policy_because(c, *a);
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
		return policy_because(c, "-v");
	/* ccache looks for its result by what comes of it, and keeps that where no worker sees it.
	 */
	if (preprocess && env_get(c->in->env, "UNCACHED_ERR_FD"))
		return policy_because(c, "-E for ccache");
	/* What are the macros, where are the headers: `gcc -dM -E -`, `gcc -v -E -x c++ -`. */
	if (preprocess && from_stdin && (verbose || macros))
		return policy_because(c, macros ? "-dM -E -" : "-v -E -");
	return false;
}

/* rustc prints these beside a real compilation. */
static bool prints_beside(const char *what)
{
	return str_starts(what, "native-static-libs") || str_starts(what, "link-args");
}

static bool rust_query(struct policy_call *c)
{
	static const char *const exact[] = {"-V", "--version", "-vV",	   "-Vv",
					    "-h", "--help",    "--explain"};

	for (char *const *a = c->args; *a; a++) {
		if (ONE_OF(*a, exact))
			return policy_because(c, *a);
		if (str_starts(*a, "--print=") && !prints_beside(*a + strlen("--print=")))
			return policy_because(c, *a);
		if (streq(*a, "--print") && a[1] && !prints_beside(a[1]))
			return policy_because(c, a[1]);
	}
	return false;
}

static bool rule_query(struct policy_call *c)
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
	return c->args[0] && !c->args[1] && ONE_OF(c->args[0], alone) &&
	       policy_because(c, c->args[0]);
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

/* What sccache asks a compiler that it does not know yet: $TMPDIR/sccacheXXXXXX/testfile.c. */
static bool is_sccache_try(const char *path)
{
	const char *x = strstr(path, "/sccache");
	size_t n = 0;

	if (!x)
		return false;
	x += strlen("/sccache");
	while (isalnum((unsigned char)x[n]))
		n++;
	return n == 6 && str_starts(x + n, "/testfile.");
}

/* A path of a check by CMake, Meson, Kbuild or sccache. */
static bool is_probe_path(const char *path)
{
	const char *cmake = strstr(path, "CMakeFiles/");

	if (cmake) {
		cmake += strlen("CMakeFiles/");
		if (str_starts(cmake, "CMakeTmp") || str_starts(cmake, "CMakeScratch") ||
		    str_starts(cmake, "cmTC_") || strstr(cmake, "/CompilerId"))
			return true;
	}
	return strstr(path, "meson-private") || is_kbuild_try(path) || is_sccache_try(path);
}

/* config.guess's $tmp/dummy.c: mktemp's "cgXXXXXX", or "cg", two numbers and a dash. */
static bool is_config_guess(const char *path, const char *base)
{
	const char *dir = base - 1;

	if (!streq(base, "dummy") && !str_starts(base, "dummy."))
		return false;
	while (dir > path && dir[-1] != '/')
		dir--;
	return dir > path && str_starts(dir, "cg") && base - dir > 8;
}

/* What configure scripts call their tests: autoconf's, and zlib's with a process id. */
static bool is_conftest(const char *arg)
{
	const char *base = path_base(arg);
	size_t digits;

	if (base > arg && is_config_guess(arg, base))
		return true;

	if (str_starts(base, "ztest")) {
		base += strlen("ztest");
		digits = strspn(base, "0123456789");
		return digits > 0 && (!base[digits] || base[digits] == '.');
	}
	return streq(base, "conftest") || str_starts(base, "conftest.");
}

/* Kbuild's cc-option and its like: compiles /dev/null, or standard input into /dev/null. */
static bool compiles_nothing(struct policy_call *c)
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
static bool rust_probe(struct policy_call *c)
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
			return policy_because(c, "-");
		if (name && (streq(name, "___") || str_starts(name, "autocfg_")))
			return policy_because(c, name);
		if (strstr(*a, "/probe/") || str_ends(*a, "/probe.rs"))
			return policy_because(c, *a);
		/* Cargo gives NUM_JOBS to build scripts, but not to the compiler. */
		if (out && build_dir && *build_dir && path_is_below(out, build_dir))
			return policy_because(c, out);
	}
	return false;
}

static bool rule_probe(struct policy_call *c)
{
	if (is_probe_path(c->in->cwd))
		return policy_because(c, c->in->cwd);
	if ((c->tool == TOOL_C || c->tool == TOOL_CPP) && compiles_nothing(c))
		return policy_because(c, "/dev/null");
	if (c->tool == TOOL_RUST && rust_probe(c))
		return true;
	for (char *const *a = c->args; *a; a++) {
		if (job_arg_is_text(*a, a > c->args ? a[-1] : NULL))
			continue;
		if (is_conftest(*a) || is_probe_path(*a))
			return policy_because(c, *a);
	}
	return false;
}

/* ---- args-file ---- */

static bool rule_args_file(struct policy_call *c)
{
	return c->unknown && policy_because(c, c->unknown);
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
static bool zig_native(struct policy_call *c)
{
	for (char *const *a = c->args; *a; a++) {
		if (str_starts(*a, "-target") || str_starts(*a, "--target") ||
		    str_starts(*a, "-mcpu=") || str_starts(*a, "-march="))
			return false;
	}
	return policy_because(c, "zig without -target or -mcpu");
}

static bool rule_native(struct policy_call *c)
{
	/* Variables that drivers take options from. */
	static const char *const vars[] = {"CCC_OVERRIDE_OPTIONS", "NVCC_PREPEND_FLAGS",
					   "NVCC_APPEND_FLAGS"};

	for (char *const *a = c->all; *a; a++) {
		if (str_starts(*a, "-D") || str_starts(*a, "-U"))
			continue;
		if (has_native(*a) || native_after(a, c->all))
			return policy_because(c, *a);
		/* Intel's compilers */
		if (c->tool == TOOL_C && (streq(*a, "-xHost") || streq(*a, "-xhost")))
			return policy_because(c, *a);
	}
	for (size_t i = 0; c->tool == TOOL_C && i < N_OF(vars); i++) {
		const char *value = env_get(c->in->env, vars[i]);

		if (value && has_native(value))
			return policy_because(c, vars[i]);
	}
	return c->tool == TOOL_ZIG && zig_native(c);
}

/* ---- preload, incremental ---- */

static bool rule_preload(struct policy_call *c)
{
	const char *value = env_get(c->in->env, "LD_PRELOAD");
	_cleanup_free_ char *rest = value ? preload_rest(value) : NULL;

	return rest && policy_because(c, rest);
}

/*
 * Measured with syn (45 000 lines), all features, one worker of this machine's own speed: building
 * it again after a change took 1.8 s here.  Sent, 3.5 to 5.4 s, with 44 MB of state there and 49 MB
 * home each time, and one of two jobs was done twice, since rustc links what is new to what was
 * there.  The first build gained nothing either (16.5 s instead of 11.4, with the toolchain's
 * transfer); what is compiled once is of other crates, and these go.
 */
static bool rule_incremental(struct policy_call *c)
{
	static const char *const joined[] = {"-Cincremental", "--codegen=incremental"};
	static const char *const option[] = {"-C", "--codegen"};

	for (char *const *a = c->args; *a && c->tool == TOOL_RUST; a++) {
		for (size_t i = 0; i < N_OF(joined); i++) {
			if (str_starts(*a, joined[i]))
				return policy_because(c, *a);
		}
		if (a > c->args && ONE_OF(a[-1], option) && str_starts(*a, "incremental"))
			return policy_because(c, *a);
	}
	return false;
}

/* ---- follow ---- */

/* It looks again and again where it can't wait; each file of a job stays as it was. */
static bool rule_follow(struct policy_call *c)
{
	if (!streq(path_base(c->in->argv[0]), "tail"))
		return false;
	for (char *const *a = c->in->argv + 1; *a && !streq(*a, "--"); a++) {
		if (str_starts(*a, "--f") || (**a == '-' && (*a)[1] != '-' && strpbrk(*a, "fF")))
			return policy_because(c, *a);
	}
	return false;
}

/* ---- the table ---- */

static const struct {
	bool (*applies)(struct policy_call *c);
	bool any_command;
} checks[] = {
	/* in the order of policy_rules[] */
	{rule_disabled, true},
	{rule_on_worker, true},
	{rule_query},
	{rule_probe},
	{rule_args_file},
	{policy_tmp_output},
	{policy_descriptor, true},
	{rule_follow, true},
	{rule_native},
	{rule_preload},
	{rule_incremental},
	{policy_link},
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
static char **look_into_files(struct policy_call *c)
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

/* What is not known to be a compiler may always. */
static bool reads_stdin(const struct policy_call *c)
{
	bool operand = false;

	if (c->in->any_command || c->tool == TOOL_OTHER)
		return true;
	for (char *const *a = c->all; *a; a++) {
		if (ends_in_stdin_path(*a))
			return true;
		/* "-o -" writes, and a name after "-MT" is only text. */
		if (a > c->all && c_option_takes_next(a[-1]))
			continue;
		if (streq(*a, "-"))
			return true;
		operand = operand || (*a)[0] != '-';
	}
	return (c->tool == TOOL_AS || c->tool == TOOL_CPP) && !operand;
}

/* The tool and its arguments, those in files too.  What is to be freed, or NULL. */
static char **split_words(struct policy_call *c)
{
	size_t first;

	c->tool = tool_of_command(c->in->argv, &first);
	c->args = c->in->argv + first;
	return look_into_files(c);
}

void policy_decide(const struct policy_input *in, struct policy_verdict *ret)
{
	_cleanup_free_ char *tmpdir = clean_tmpdir(in);
	struct policy_call c = {.in = in, .ret = ret, .tmpdir = tmpdir};
	_cleanup_strv_ char **all = split_words(&c);

	*ret = (struct policy_verdict){.local = false, .rule = "remote"};
	for (size_t i = 0; i < N_OF(checks); i++) {
		if (in->any_command && !checks[i].any_command)
			continue;
		if (!checks[i].applies(&c))
			continue;
		ret->local = true;
		ret->rule = policy_rules[i].name;
		return;
	}
	ret->reads_stdin = reads_stdin(&c);
}

bool policy_names_tmp(const struct policy_input *in, struct policy_verdict *ret)
{
	_cleanup_free_ char *tmpdir = clean_tmpdir(in);
	struct policy_call c = {.in = in, .ret = ret, .tmpdir = tmpdir};
	_cleanup_strv_ char **all = split_words(&c);

	*ret = (struct policy_verdict){.rule = "tmp-output"};
	ret->local = rule_args_file(&c) || policy_tmp_output(&c);
	return ret->local;
}
