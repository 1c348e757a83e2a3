/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "tools.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/process.h"
#include "concc/str.h"

/* A file of cargo's settings that is longer says nothing that matters here. */
#define CARGO_CONFIG_MAX (256 * 1024)
/* What `go env` and `ccache -k` take at most; they only read files. */
#define ASK_MS 5000

/* ---- what others have set ---- */

static bool is_ours(const char *command)
{
	return streq(path_base(command), "concc-cc");
}

/* The value of `key = "value"` or `key = 1`, in whichever table of the file; NULL: not there. */
static char *toml_value(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p != '\0') {
		const char *v = p + strspn(p, " \t");

		if (strncmp(v, key, n) != 0)
			continue;
		v += n;
		v += strspn(v, " \t");
		if (*v++ != '=')
			continue;
		v += strspn(v, " \t\"'");
		return xstrndup(v, strcspn(v, "\"'\n# \t"));
	}
	return NULL;
}

static char *cargo_value_in(const char *dir, const char *key)
{
	static const char *const names[] = {"config.toml", "config"};

	for (size_t i = 0; i < N_OF(names); i++) {
		_cleanup_free_ char *path = path_join(dir, names[i]);
		_cleanup_buf_ struct buf b = BUF_INIT;
		char *value;

		if (read_regular_file(path, CARGO_CONFIG_MAX, &b) < 0)
			continue;
		value = toml_value(buf_cstr(&b), key);
		if (value)
			return value;
	}
	return NULL;
}

/* As cargo looks for its settings: here, in all directories above, in its home. */
static char *cargo_value(const char *key)
{
	_cleanup_free_ char *dir = getcwd(NULL, 0), *home = NULL;
	const char *set = getenv("CARGO_HOME");
	char *value = NULL;

	while (dir && *dir && !value) {
		_cleanup_free_ char *cargo = path_join(dir, ".cargo");

		value = cargo_value_in(cargo, key);
		*(char *)strrchr(dir, '/') = '\0';
	}
	home = set && *set ? xstrdup(set) : path_expand_home("~/.cargo");
	return value ? value : cargo_value_in(home, key);
}

char *tools_rust_wrapper(void)
{
	static const char *const names[] = {"RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER"};

	for (size_t i = 0; i < N_OF(names); i++) {
		const char *v = getenv(names[i]);

		/* An empty one says "none", also against the files. */
		if (v)
			return *v && !is_ours(v) ? xasprintf("%s=%s", names[i], v) : NULL;
	}
	_cleanup_free_ char *v = cargo_value("rustc-wrapper");

	return v && *v && !is_ours(v) ? xasprintf("rustc-wrapper = \"%s\" in cargo's config", v)
				      : NULL;
}

/* What a program prints, its first line; NULL: it can't tell. */
static char *ask(char *const *argv)
{
	_cleanup_buf_ struct buf out = BUF_INIT;
	const char *text;
	int status;

	if (process_ask(argv, NULL, CARGO_CONFIG_MAX, now_ms() + ASK_MS, &out, &status) < 0 ||
	    status != 0)
		return NULL;
	text = buf_cstr(&out);
	return xstrndup(text, strcspn(text, "\n"));
}

static bool is_installed(const char *name)
{
	_cleanup_free_ char *path = job_resolve(name, getenv("PATH"), "/", NULL, NULL);

	return path != NULL;
}

/* ---- the environment ---- */

static void set_path(const char *path_var, const char *dir)
{
	_cleanup_free_ char *rest = masquerade_leave(path_var);
	_cleanup_free_ char *joined = xasprintf("%s%s%s", dir, *rest ? ":" : "", rest);

	setenv("PATH", joined, 1);
}

static void set_rust(const char *cc, struct left_alone *ret)
{
	ret->rust = tools_rust_wrapper();
	if (!ret->rust && !getenv("RUSTC_WRAPPER") && !getenv("CARGO_BUILD_RUSTC_WRAPPER"))
		setenv("RUSTC_WRAPPER", cc, 1);
}

/*
 * CMake reads them when a build directory is configured, and writes them down there: so it is the
 * copy, which stays when concc goes.  Compilers that it is told by their paths go through us so.
 */
static void set_cmake(const char *cc, struct left_alone *ret)
{
	static const char *const languages[] = {"C",   "CXX",  "Fortran", "CUDA",
						"HIP", "OBJC", "OBJCXX"};

	for (size_t i = 0; i < N_OF(languages); i++) {
		_cleanup_free_ char *name = xasprintf("CMAKE_%s_COMPILER_LAUNCHER", languages[i]);
		const char *v = getenv(name);

		if (!v)
			setenv(name, cc, 1);
		else if (*v && !is_ours(v) && !streq(path_base(v), "ccache") && !ret->cmake)
			ret->cmake = xasprintf("%s=%s", name, v);
	}
}

static void set_go(const char *cc, struct left_alone *ret)
{
	static char *const words[] = {(char *)"go", (char *)"env", (char *)"GOFLAGS", NULL};
	_cleanup_free_ char *flags = NULL, *more = NULL;
	const char *set = getenv("GOFLAGS"), *exec;

	/* Its words end at blanks. */
	if (!is_installed("go") || strchr(cc, ' '))
		return;
	flags = set ? xstrdup(set) : ask(words); /* `go env -w` keeps it in a file */
	exec = flags ? strstr(flags, "-toolexec") : NULL;
	if (exec) {
		if (!strstr(exec, "concc-cc"))
			ret->go = xasprintf("%.*s, of GOFLAGS", (int)strcspn(exec, " "), exec);
		return;
	}
	more = xasprintf("%s%s-toolexec=%s", flags ? flags : "", flags && *flags ? " " : "", cc);
	setenv("GOFLAGS", more, 1);
}

/*
 * ccache calls compilers by what it finds in PATH, and knows them by the file's times: it must find
 * the compiler itself.  What it does not have goes through us by its prefix.
 */
static void set_ccache(const char *path_var, const char *cc)
{
	static char *const words[] = {(char *)"ccache", (char *)"-k", (char *)"prefix_command",
				      NULL};
	_cleanup_free_ char *path = NULL, *prefix = NULL;

	if (!is_installed("ccache"))
		return;
	path = masquerade_leave(path_var);
	setenv("CCACHE_PATH", path, 0);
	if (getenv("CCACHE_PREFIX") || strchr(cc, ' '))
		return;
	prefix = ask(words);
	if (!prefix || !*prefix)
		setenv("CCACHE_PREFIX", cc, 1);
}

/*
 * CC="concc-cc gcc", as a profile may have it: gcc goes through us, too, and who looks at the first
 * word finds a compiler.  CMake takes concc- for a cross compiler's prefix, Bear knows no such one.
 */
static void set_compilers(const char *dir)
{
	static const char *const names[] = {"CC", "CXX", "FC", "F77", "HOSTCC", "HOSTCXX"};

	for (size_t i = 0; i < N_OF(names); i++) {
		const char *v = getenv(names[i]) ?: "";
		size_t n = strcspn(v, " ");
		_cleanup_free_ char *first = xstrndup(v, n);
		_cleanup_free_ char *rest = xstrdup(v + n + strspn(v + n, " "));
		_cleanup_free_ char *name = xstrndup(rest, strcspn(rest, " "));
		_cleanup_free_ char *link = path_join(dir, name);

		if (is_ours(first) && *name && !strchr(name, '/') && access(link, X_OK) == 0)
			setenv(names[i], rest, 1);
	}
}

void tools_set_environment(const char *path_var, const struct masquerade *m, const char *cc,
			   struct left_alone *ret)
{
	*ret = (struct left_alone){0};
	if (m->cache && !streq(m->cache, "ccache"))
		ret->path = m->cache;
	set_rust(cc, ret);
	set_cmake(m->cc, ret);
	set_go(cc, ret);
	set_ccache(path_var, cc);
	set_path(path_var, m->dir);
	set_compilers(m->dir);
}

void left_alone_release(struct left_alone *l)
{
	free(l->rust);
	free(l->cmake);
	free(l->go);
	*l = (struct left_alone){0};
}

/* ---- how many at once ---- */

static const struct tool {
	const char *program, *name;
	const char *commands; /* those of it that build, blanks around each; NULL: it has none */
	const char *flag;     /* the argument that follows begins so; NULL: by the variable */
	const char *variable; /* tells it as well */
	const char *options;  /* that say so, prefixes */
	const char *silent;   /* that have it write nothing, prefixes; NULL: it has none */
} tools[] = {
	{"make", "make", NULL, "-j", "MAKEFLAGS", "-j --jobs", "-s --silent --quiet"},
	{"gmake", "make", NULL, "-j", "MAKEFLAGS", "-j --jobs", "-s --silent --quiet"},
	{"ninja", "ninja", NULL, "-j", NULL, "-j", "--quiet"},
	{"ninja-build", "ninja", NULL, "-j", NULL, "-j", "--quiet"},
	{"samu", "ninja", NULL, "-j", NULL, "-j", NULL},
	{"cmake", "cmake", " --build ", NULL, "CMAKE_BUILD_PARALLEL_LEVEL", "-j --parallel"},
	{"cargo", "cargo",
	 " build b check c test t bench run r rustc clippy doc d install fix nextest ", NULL,
	 "CARGO_BUILD_JOBS", "-j --jobs", "-q --quiet"},
	{"meson", "meson", " compile ", "-j", NULL, "-j --jobs"},
	{"go", "go", " build install test run vet ", "-p=", NULL, "-p"},
};

static const struct tool *find_tool(char *const *argv)
{
	for (size_t i = 0; i < N_OF(tools); i++) {
		if (streq(path_base(argv[0]), tools[i].program))
			return &tools[i];
	}
	return NULL;
}

const char *tools_name(char *const *argv)
{
	const struct tool *t = find_tool(argv);

	return t ? t->name : NULL;
}

/* Where its words on jobs go: after the command of it that builds.  0: it does not build. */
static size_t find_place(const struct tool *t, char *const *argv)
{
	size_t i = 1;

	if (!t->commands)
		return 1;
	while (argv[i] && (*argv[i] == '+' || (*argv[i] == '-' && !streq(argv[i], "--build"))))
		i++; /* cargo +nightly --offline build */
	if (!argv[i])
		return 0;
	_cleanup_free_ char *word = xasprintf(" %s ", argv[i]);

	return strstr(t->commands, word) ? i + 1 : 0;
}

/* make's letters may stand together: -kj8.  Behind these the rest is an argument. */
static bool has_letter(const char *arg, char letter)
{
	char until[] = {'C', 'f', 'I', 'o', 'W', 'E', 'l', 'O', 'j', letter, '\0'};
	size_t n = strcspn(arg, until);

	return *arg == '-' && arg[1] != '-' && arg[n] == letter;
}

static bool begins_with_one_of(const char *arg, const char *options)
{
	for (const char *o = options; *o; o += strspn(o, " ")) {
		size_t n = strcspn(o, " ");

		if (strncmp(arg, o, n) == 0)
			return true;
		o += n;
	}
	return false;
}

static bool is_option(const struct tool *t, const char *arg)
{
	return begins_with_one_of(arg, t->options) ||
	       (streq(t->name, "make") && has_letter(arg, 'j'));
}

bool tools_is_silent(char *const *argv)
{
	const struct tool *t = find_tool(argv);

	for (size_t i = 1; t && t->silent && argv[i]; i++) {
		if (begins_with_one_of(argv[i], t->silent) ||
		    (streq(t->name, "make") && has_letter(argv[i], 's')))
			return true;
	}
	return false;
}

/* MAKEFLAGS: "kj8", "-j8", " --jobserver-auth=..." as of a make above us. */
static bool make_flags_have_jobs(const char *flags)
{
	size_t n = strcspn(flags, " ");

	if (*flags != '-' && !memchr(flags, '=', n) && memchr(flags, 'j', n))
		return true;
	return str_starts(flags, "-j") || strstr(flags, " -j") || strstr(flags, "--jobs");
}

static bool is_told(const struct tool *t, char *const *argv)
{
	const char *v = t->variable ? getenv(t->variable) : NULL;
	_cleanup_free_ char *jobs = NULL;

	for (size_t i = 1; argv[i]; i++) {
		if (is_option(t, argv[i]))
			return true;
	}
	if (streq(t->name, "make"))
		return v && make_flags_have_jobs(v);
	if (v && *v)
		return true;
	jobs = streq(t->name, "cargo") ? cargo_value("jobs") : NULL;
	return jobs != NULL;
}

/* Before " -- ", behind which variables are: "k -- CC=x" becomes "k -j8 -- CC=x". */
static void add_make_flag(const char *flag)
{
	const char *old = getenv("MAKEFLAGS") ?: "";
	const char *end = str_starts(old, "-- ") ? old : strstr(old, " -- ");
	size_t n = end ? (size_t)(end - old) : strlen(old);
	_cleanup_free_ char *flags = xasprintf("%.*s%s%s%s%s", (int)n, old, n ? " " : "", flag,
					       end && *end != ' ' ? " " : "", end ? end : "");

	setenv("MAKEFLAGS", flags, 1);
}

static char **insert(char *const *argv, size_t at, char *word)
{
	char **ret = NULL;

	for (size_t i = 0; argv[i]; i++) {
		if (i == at)
			strv_push(&ret, word);
		strv_push(&ret, xstrdup(argv[i]));
	}
	if (at == strv_len(argv))
		strv_push(&ret, word);
	return ret;
}

char **tools_with_jobs(char *const *argv, uint32_t n, bool everywhere, char **ret_how)
{
	const struct tool *t = find_tool(argv);
	size_t at = t ? find_place(t, argv) : 0;
	bool tell = at && !is_told(t, argv);
	_cleanup_free_ char *number = xasprintf("%u", n);
	char *word;

	*ret_how = NULL;
	if (everywhere) {
		_cleanup_free_ char *flag = xasprintf("-j%u", n);

		add_make_flag(flag);
		setenv("CARGO_BUILD_JOBS", number, 1);
		setenv("CMAKE_BUILD_PARALLEL_LEVEL", number, 1);
	}
	if (!tell)
		return NULL;
	if (!t->flag) {
		setenv(t->variable, number, 1);
		*ret_how = xasprintf("%s=%s %s", t->variable, number, t->program);
		return NULL;
	}
	word = xasprintf("%s%s", t->flag, number);
	*ret_how = xasprintf("%s %s", t->program, word);
	return insert(argv, at, word);
}

/* ---- compilers called by their paths ---- */

/* Debian's gnatmake is x86_64-linux-gnu-gnatmake-12, and its gcc is called so, too. */
static char *gcc_of(const char *gnatmake)
{
	const char *at = strstr(gnatmake, "gnatmake");

	return xasprintf("%.*sgcc%s", (int)(at - gnatmake), gnatmake, at + strlen("gnatmake"));
}

static char **with_gcc(char *const *argv, const struct masquerade *m)
{
	_cleanup_free_ char *path = NULL, *real = NULL, *gcc = NULL, *link = NULL;

	for (size_t i = 1; argv[i]; i++) {
		if (str_starts(argv[i], "--GCC="))
			return NULL;
	}
	path = job_resolve(argv[0], getenv("PATH"), "/", NULL, NULL);
	real = path ? realpath(path, NULL) : NULL;
	if (!real || !strstr(path_base(real), "gnatmake"))
		return NULL;
	gcc = gcc_of(path_base(real));
	link = path_join(m->dir, gcc);
	return access(link, X_OK) == 0 ? insert(argv, 1, xasprintf("--GCC=%s", link)) : NULL;
}

/* ---- shells that set PATH anew ---- */

static bool is_shell(const char *name)
{
	static const char *const shells[] = {"bash", "dash", "ksh", "sh", "zsh"};

	for (size_t i = 0; i < N_OF(shells); i++) {
		if (streq(name, shells[i]))
			return true;
	}
	return false;
}

struct shell_call {
	const char *login; /* the option that says so; or NULL */
	size_t text;	   /* where it is ("-lc TEXT", "-l -eo pipefail -c TEXT"); 0: it has none */
};

static struct shell_call read_shell_call(char *const *argv)
{
	struct shell_call call = {0};
	bool text = false;
	size_t i = 1;

	if (!is_shell(path_base(argv[0])))
		return call;
	for (; argv[i] && (*argv[i] == '-' || *argv[i] == '+') && !streq(argv[i], "--"); i++) {
		bool is_word = argv[i][1] == '-';

		if (is_word ? streq(argv[i], "--login") : strchr(argv[i], 'l') != NULL)
			call.login = argv[i];
		if (is_word)
			continue;
		text |= strchr(argv[i], 'c') != NULL;
		if (strpbrk(argv[i], "oO") && argv[i + 1])
			i++; /* an option by its name */
	}
	i += argv[i] && streq(argv[i], "--");
	call.text = text && argv[i] ? i : 0;
	return call;
}

const char *tools_loses_path(char *const *argv)
{
	struct shell_call call = read_shell_call(argv);

	return call.text ? NULL : call.login;
}

/* After its profile, and before the text. */
static char **with_path(char *const *argv, const struct masquerade *m)
{
	struct shell_call call = read_shell_call(argv);
	char **ret;

	if (!call.login || !call.text || strchr(m->dir, '\''))
		return NULL;
	ret = strv_copy(argv);
	free(ret[call.text]);
	ret[call.text] = xasprintf("PATH='%s':$PATH; %s", m->dir, argv[call.text]);
	return ret;
}

char **tools_with_compiler(char *const *argv, const struct masquerade *m)
{
	return strstr(path_base(argv[0]), "gnatmake") ? with_gcc(argv, m) : with_path(argv, m);
}
