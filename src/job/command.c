/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "command.h"

#include <ctype.h>
#include <string.h>

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

static const struct {
	const char *name;
	enum tool tool;
} tools[] = {
	{"gcc", TOOL_C},	 {"cc", TOOL_C},	 {"g++", TOOL_C},
	{"c++", TOOL_C},	 {"clang", TOOL_C},	 {"clang++", TOOL_C},
	{"c89", TOOL_C},	 {"c99", TOOL_C},	 {"tcc", TOOL_C},
	{"gfortran", TOOL_C},	 {"flang", TOOL_C},	 {"flang-new", TOOL_C},
	{"f77", TOOL_C},	 {"f95", TOOL_C},	 {"gdc", TOOL_C},
	{"icx", TOOL_C},	 {"icpx", TOOL_C},	 {"icc", TOOL_C},
	{"icpc", TOOL_C},	 {"ifx", TOOL_C},	 {"ifort", TOOL_C},
	{"nvcc", TOOL_C},	 {"hipcc", TOOL_C},	 {"nvc", TOOL_C},
	{"nvc++", TOOL_C},	 {"emcc", TOOL_C},	 {"em++", TOOL_C},
	{"mpicc", TOOL_C},	 {"mpicxx", TOOL_C},	 {"mpic++", TOOL_C},
	{"mpifort", TOOL_C},	 {"armclang", TOOL_C},	 {"cpp", TOOL_CPP},
	{"clang-cpp", TOOL_CPP}, {"as", TOOL_AS},	 {"ld", TOOL_LINK},
	{"ld.bfd", TOOL_LINK},	 {"ld.gold", TOOL_LINK}, {"gold", TOOL_LINK},
	{"ld.lld", TOOL_LINK},	 {"lld", TOOL_LINK},	 {"ld64.lld", TOOL_LINK},
	{"wasm-ld", TOOL_LINK},	 {"ld.mold", TOOL_LINK}, {"mold", TOOL_LINK},
	{"collect2", TOOL_LINK}, {"ar", TOOL_LINK},	 {"ranlib", TOOL_LINK},
	{"rustc", TOOL_RUST},	 {"rustdoc", TOOL_RUST}, {"clippy-driver", TOOL_RUST},
	{"zig", TOOL_ZIG},
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

static enum tool find_tool(const char *name)
{
	/* The longest name wins: "clang-cpp" also ends in "-cpp". */
	enum tool best = TOOL_OTHER;
	size_t best_len = 0;

	for (size_t i = 0; i < N_OF(tools); i++) {
		if (strlen(tools[i].name) > best_len && name_is(name, tools[i].name)) {
			best = tools[i].tool;
			best_len = strlen(tools[i].name);
		}
	}
	return best;
}

enum tool tool_of_name(const char *argv0)
{
	const char *base = path_base(argv0);
	char name[NAME_MAX_LEN];
	enum tool tool;

	/* $GOROOT/pkg/tool/linux_amd64/compile */
	if (strstr(argv0, "/pkg/tool/"))
		return TOOL_GO;
	if (strlen(base) >= sizeof(name))
		return TOOL_OTHER;
	strcpy(name, base);
	tool = find_tool(name); /* c89 and f77 end in digits of their own */
	if (tool != TOOL_OTHER)
		return tool;
	cut_suffixes(name);
	return find_tool(name);
}

bool job_is_driver_name(const char *path)
{
	static const char *const drivers[] = {"gcc", "g++", "cc", "c++", "clang", "clang++"};
	const char *base = path_base(path);
	char name[NAME_MAX_LEN];

	/* cc1 is no version of cc, but what gcc runs. */
	if (strlen(base) >= sizeof(name) || streq(base, "cc1"))
		return false;
	strcpy(name, base);
	cut_suffixes(name);
	for (size_t i = 0; i < N_OF(drivers); i++) {
		if (name_is(name, drivers[i]))
			return true;
	}
	return false;
}

enum tool tool_of_command(char *const *argv, size_t *ret_first)
{
	static const char *const launchers[] = {"ccache", "sccache", "distcc", "icecc", "env",
						"nice",	  "ionice",  "time",   "chrt"};
	const char *base = path_base(argv[0]);
	bool launcher = ONE_OF(base, launchers);
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

const char *env_get(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++) {
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	}
	return NULL;
}

bool job_reads_stdin(char *const *argv)
{
	size_t first;
	enum tool tool = tool_of_command(argv, &first);
	bool operand = false;

	for (size_t i = first; argv[i]; i++) {
		/* "-o -" writes, and a name after "-MT" is only text. */
		if (i > 1 && (streq(argv[i - 1], "-o") ||
			      (tool != TOOL_OTHER && c_option_takes_next(argv[i - 1]))))
			continue;
		if (is_stdin_name(argv[i]))
			return true;
		operand = operand || (argv[i][0] != '-' || tool == TOOL_OTHER);
	}
	return (tool == TOOL_AS || tool == TOOL_CPP) && !operand;
}
