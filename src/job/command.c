/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "command.h"

#include <ctype.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"

#define OPTION_MAX   24 /* the length of the longest that takes the next argument */
#define NAME_MAX_LEN 64 /* a longer program name is no compiler of ours */

/* Neither may be empty. */
static inline bool begin_alike(const char *a, const char *b)
{
	return a[0] == b[0] && a[1] == b[1];
}

bool is_one_of(const char *s, const char *const *names, size_t n)
{
	for (size_t i = 0; *s && i < n; i++) {
		if (begin_alike(s, names[i]) && streq(s, names[i]))
			return true;
	}
	return false;
}

const char *find_prefix(const char *s, const char *const *prefixes, size_t n)
{
	for (size_t i = 0; *s && i < n; i++) {
		if (begin_alike(s, prefixes[i]) && str_starts(s, prefixes[i]))
			return prefixes[i];
	}
	return NULL;
}

/*
 * All that is known of programs' names: what one is, and whether a call of it by its name is
 * caught (BY_NAME).  DRIVER: of GCC or clang, for C and C++, and caught as well.
 */
enum { OTHERWISE, BY_NAME, DRIVER };

static const struct program {
	const char *name;
	enum tool tool;
	int called;
} programs[] = {
	{"gcc", TOOL_C, DRIVER},
	{"cc", TOOL_C, DRIVER},
	{"g++", TOOL_C, DRIVER},
	{"c++", TOOL_C, DRIVER},
	{"clang", TOOL_C, DRIVER},
	{"clang++", TOOL_C, DRIVER},
	{"c89", TOOL_C, BY_NAME},
	{"c99", TOOL_C, BY_NAME},
	{"tcc", TOOL_C, BY_NAME},
	{"gfortran", TOOL_C, BY_NAME},
	{"flang", TOOL_C, BY_NAME},
	{"flang-new", TOOL_C, BY_NAME},
	{"f77", TOOL_C, BY_NAME},
	{"f95", TOOL_C, BY_NAME},
	{"gdc", TOOL_C, BY_NAME},
	{"gnatgcc", TOOL_C, BY_NAME},
	{"gccgo", TOOL_C, BY_NAME},
	{"icx", TOOL_C, BY_NAME},
	{"icpx", TOOL_C, BY_NAME},
	{"icc", TOOL_C, BY_NAME},
	{"icpc", TOOL_C, BY_NAME},
	{"ifx", TOOL_C, BY_NAME},
	{"ifort", TOOL_C, BY_NAME},
	{"nvcc", TOOL_C, BY_NAME},
	{"hipcc", TOOL_C, BY_NAME},
	{"nvc", TOOL_C, BY_NAME},
	{"nvc++", TOOL_C, BY_NAME},
	{"nvfortran", TOOL_C, BY_NAME},
	{"emcc", TOOL_C, BY_NAME},
	{"em++", TOOL_C, BY_NAME},
	{"mpicc", TOOL_C, BY_NAME},
	{"mpicxx", TOOL_C, BY_NAME},
	{"mpic++", TOOL_C, BY_NAME},
	{"mpiCC", TOOL_C, BY_NAME},
	{"mpif77", TOOL_C, BY_NAME},
	{"mpif90", TOOL_C, BY_NAME},
	{"mpifort", TOOL_C, BY_NAME},
	{"armclang", TOOL_C, BY_NAME},
	{"cpp", TOOL_CPP},
	{"clang-cpp", TOOL_CPP},
	{"as", TOOL_AS},
	{"ld", TOOL_LINK},
	{"ld.bfd", TOOL_LINK},
	{"ld.gold", TOOL_LINK},
	{"gold", TOOL_LINK},
	{"ld.lld", TOOL_LINK},
	{"lld", TOOL_LINK},
	{"ld64.lld", TOOL_LINK},
	{"wasm-ld", TOOL_LINK},
	{"ld.mold", TOOL_LINK},
	{"mold", TOOL_LINK},
	{"collect2", TOOL_LINK},
	{"ar", TOOL_LINK},
	{"ranlib", TOOL_LINK},
	{"rustc", TOOL_RUST, BY_NAME},
	{"rustdoc", TOOL_RUST},
	{"clippy-driver", TOOL_RUST},
	{"zig", TOOL_ZIG},
	/* None of OCaml or GHC: build tools look for what belongs to those beside them. */
	{"nasm", TOOL_PLAIN, BY_NAME},
	{"yasm", TOOL_PLAIN, BY_NAME},
	{"ldc2", TOOL_PLAIN, BY_NAME},
	{"ldmd2", TOOL_PLAIN, BY_NAME},
};

/* Cuts ".exe", then "-posix" and "-win32" (mingw), then a version: "-12", "-14.0.6", "12". */
static void cut_suffixes(char *name)
{
	static const char *const words[] = {".exe", "-posix", "-win32"};
	size_t n;
	size_t end;

	for (size_t i = 0; i < N_OF(words); i++) {
		if (str_ends(name, words[i]))
			name[strlen(name) - strlen(words[i])] = '\0';
	}
	n = end = strlen(name);
	while (n > 0 && (isdigit((unsigned char)name[n - 1]) || name[n - 1] == '.'))
		n--;
	if (n == end || n == 0)
		return;
	if (name[n - 1] == '-' && n > 1)
		n--;
	name[n] = '\0';
}

/* name is word, or ends in "-word" (x86_64-linux-gnu-gcc). */
static bool name_is(const char *name, const char *word)
{
	size_t n = strlen(name);
	size_t w = strlen(word);

	if (n < w || !streq(name + n - w, word))
		return false;
	return n == w || name[n - w - 1] == '-';
}

static const struct program *find_as_is(const char *name)
{
	/* The longest name wins: "clang-cpp" also ends in "-cpp". */
	const struct program *best = NULL;
	size_t best_len = 0;

	for (size_t i = 0; i < N_OF(programs); i++) {
		if (strlen(programs[i].name) > best_len && name_is(name, programs[i].name)) {
			best = &programs[i];
			best_len = strlen(programs[i].name);
		}
	}
	return best;
}

/* Of a name without directories; NULL: no program that is known. */
static const struct program *find_program(const char *base)
{
	const struct program *p;
	char name[NAME_MAX_LEN];

	if (strlen(base) >= sizeof(name))
		return NULL;
	strcpy(name, base);
	p = find_as_is(name); /* c89 and f77 end in digits of their own */
	if (p)
		return p;
	cut_suffixes(name);
	return find_as_is(name);
}

enum tool tool_of_name(const char *argv0)
{
	const struct program *p;

	/* $GOROOT/pkg/tool/linux_amd64/compile */
	if (strstr(argv0, "/pkg/tool/"))
		return TOOL_GO;
	p = find_program(path_base(argv0));
	return p ? p->tool : TOOL_OTHER;
}

/* cc1 is no version of cc, but what gcc runs. */
static int called(const char *path)
{
	const char *base = path_base(path);
	const struct program *p = streq(base, "cc1") ? NULL : find_program(base);

	return p ? p->called : OTHERWISE;
}

bool job_is_driver_name(const char *path)
{
	return called(path) == DRIVER;
}

bool job_is_compiler_name(const char *path)
{
	return called(path) != OTHERWISE;
}

/* Of these, who caches or distributes calls itself comes in directories of symlinks, too. */
static const char *const caches[] = {"ccache", "sccache", "distcc", "icecc"};
static const char *const starters[] = {"env", "nice", "ionice", "time", "chrt"};

/* They write below the home, whatever they are asked for, read git's settings or list /etc. */
static const struct {
	const char *programs, *way; /* blanks around each */
} ways[] = {
	{" cargo ", "`concc run -- cargo` has the compilers that it calls run remotely"},
	{" nim ", "`concc run -- nim` has the C compiler that it calls run remotely"},
	{" gradle gradlew ", "gradle locks the files that it keeps, and so runs here"},
	{" npm npx pnpm pnpx yarn yarnpkg bun bunx ",
	 "`concc-dispatch node_modules/.bin/TOOL` runs the tool itself remotely"},
};

const char *job_way(const char *program)
{
	_cleanup_free_ char *word = xasprintf(" %s ", path_base(program));

	for (size_t i = 0; i < N_OF(ways); i++) {
		if (strstr(ways[i].programs, word))
			return ways[i].way;
	}
	return NULL;
}

bool job_is_compiler_cache(const char *path)
{
	return ONE_OF(path_base(path), caches);
}

enum tool tool_of_command(char *const *argv, size_t *ret_first)
{
	const char *base = path_base(argv[0]);
	bool launcher = ONE_OF(base, caches) || ONE_OF(base, starters);
	enum tool tool;

	*ret_first = 1;
	for (size_t i = 1; launcher && argv[i]; i++) {
		tool = argv[i][0] == '-' ? TOOL_OTHER : tool_of_name(argv[i]);
		if (tool != TOOL_OTHER) {
			*ret_first = i + 1;
			return tool;
		}
	}
	tool = tool_of_name(argv[0]);
	/* clippy-driver gets rustc's path first when cargo calls it. */
	if (tool == TOOL_RUST && argv[1] && argv[1][0] != '-' && tool_of_name(argv[1]) == TOOL_RUST)
		*ret_first = 2;
	return tool;
}

enum job_family job_family(char *const *argv)
{
	static const enum job_family of[] = {
		[TOOL_OTHER] = JOB_FAMILY_OTHER, [TOOL_C] = JOB_FAMILY_C,
		[TOOL_CPP] = JOB_FAMILY_C,	 [TOOL_AS] = JOB_FAMILY_ALONE,
		[TOOL_LINK] = JOB_FAMILY_ALONE,	 [TOOL_RUST] = JOB_FAMILY_RUST,
		[TOOL_GO] = JOB_FAMILY_ALONE,	 [TOOL_ZIG] = JOB_FAMILY_ALONE,
		[TOOL_PLAIN] = JOB_FAMILY_OTHER,
	};
	size_t first;

	return of[tool_of_command(argv, &first)];
}

bool c_option_takes_next(const char *arg)
{
	static const char *const options[] = {
		"-o",
		"-x",
		"-I",
		"-D",
		"-U",
		"-L",
		"-l",
		"-B",
		"-F",
		"-T",
		"-u",
		"-e",
		"-z",
		"-A",
		"-G",
		"-J",
		"-b",
		"-R",
		"-MF",
		"-MT",
		"-MQ",
		"-MJ",
		"-include",
		"-imacros",
		"-include-pch",
		"-isystem",
		"-iquote",
		"-idirafter",
		"-iprefix",
		"-iwithprefix",
		"-iwithprefixbefore",
		"-isysroot",
		"-imultilib",
		"-iframework",
		"-cxx-isystem",
		"-Xlinker",
		"-Xassembler",
		"-Xpreprocessor",
		"-Xclang",
		"-Xanalyzer",
		"-Xopenmp-target",
		"-Xcompiler",
		"-Xptxas",
		"-Xnvlink",
		"-Xcudafe",
		"-Xarchive",
		"-mllvm",
		"-aux-info",
		"-arch",
		"-target",
		"--target",
		"-gencode",
		"-ccbin",
		"-wrapper",
		"-dumpbase",
		"-dumpbase-ext",
		"-dumpdir",
		"--param",
		"-framework",
		"-weak_framework",
		"-install_name",
		"-current_version",
		"-compatibility_version",
		"-bundle_loader",
		"-undefined",
		"-rpath",
		"-soname",
		"-specs",
		"--config",
		"--sysroot",
		"--output",
		"--include",
		"--define-macro",
		"--language",
		"--serialize-diagnostics",
		"-serialize-diagnostics",
		"-gcc-toolchain",
		"-Tbss",
		"-Tdata",
		"-Ttext",
		"--defsym",
		"--MD",
	};

	/* Most arguments that get here are a joined -I or -D, longer than any of these. */
	return arg[0] == '-' && strnlen(arg, OPTION_MAX + 1) <= OPTION_MAX && ONE_OF(arg, options);
}

bool c_is_source(const char *path)
{
	static const char *const suffixes[] = {
		"c",   "i",   "ii",    "m",   "mi",   "mm",   "M",   "mii", "cc",  "cp",
		"cxx", "cpp", "CPP",   "c++", "C",    "h",    "hh",  "H",   "hp",  "hxx",
		"hpp", "HPP", "h++",   "tcc", "s",    "S",    "sx",  "asm", "f",   "for",
		"ftn", "F",   "FOR",   "fpp", "FPP",  "FTN",  "f90", "f95", "f03", "f08",
		"F90", "F95", "F03",   "F08", "ads",  "adb",  "d",   "di",  "go",  "cu",
		"cui", "hip", "cppm",  "ccm", "cxxm", "c++m", "ixx", "mpp", "ptx", "ll",
		"bc",  "cl",  "clcpp", "pcm", "ast",  "mod",  "cob", "cbl", "m2",  "rs",
	};
	const char *dot = strrchr(path_base(path), '.');

	return dot && ONE_OF(dot + 1, suffixes);
}

bool is_stdin_name(const char *arg)
{
	return streq(arg, "-") || streq(arg, "/dev/stdin") || streq(arg, "/dev/fd/0") ||
	       streq(arg, "/proc/self/fd/0");
}

bool ends_in_stdin_path(const char *arg)
{
	static const char *const paths[] = {"/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"};

	for (size_t i = 0; i < N_OF(paths); i++)
		if (str_ends(arg, paths[i]))
			return true;
	return false;
}

const char *env_get(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++) {
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	}
	return NULL;
}
