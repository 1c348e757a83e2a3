/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "hints.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"
#include "concc/view.h"

/* Of a larger build.ninja the beginning has its rules. */
#define FILE_MAX (8 * 1024 * 1024)

struct look {
	char *const *argv;
	const struct masquerade *m;
	const struct left_alone *left;
	const char *tool; /* "" when it is unknown */
	char *dir;	  /* where the build is */
	uint64_t n_asked;
	struct buf *out;
};

/* ---- texts ---- */

static bool ends_word(char c)
{
	return !c || strchr(" \t\n\r\"'`;|&()<>=,", c);
}

/* NAME of a line "NAME = ..." or "NAME := ..." before at; "" when it is none. */
static char *variable_of(const char *text, const char *at)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
	const char *line = at;
	size_t n, blanks;

	while (line > text && line[-1] != '\n')
		line--;
	n = strspn(line, letters);
	blanks = n + strspn(line + n, " \t:?");
	return xstrndup(line, n && line[blanks] == '=' ? n : 0);
}

char *hint_find_compiler(const char *text, char **ret_variable)
{
	for (const char *p = strchr(text, '/'); p; p = strchr(p + 1, '/')) {
		_cleanup_free_ char *word = NULL;
		size_t n = 0;

		if (p > text && !ends_word(p[-1]))
			continue;
		while (!ends_word(p[n]))
			n++;
		word = xstrndup(p, n);
		if (job_is_compiler_name(word)) {
			*ret_variable = variable_of(text, p);
			return steal_ptr(&word);
		}
		p += n ? n - 1 : 0;
	}
	return NULL;
}

char *hint_cmake_value(const char *cache, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = cache; *p; p += strcspn(p, "\n"), p += *p != '\0') {
		const char *v;

		if (strncmp(p, name, n) != 0 || p[n] != ':')
			continue;
		v = p + n + strcspn(p + n, "=\n");
		if (*v != '=' || !v[1] || v[1] == '\n')
			return NULL;
		return xstrndup(v + 1, strcspn(v + 1, "\r\n"));
	}
	return NULL;
}

static char *read_text(const char *dir, const char *name)
{
	_cleanup_free_ char *path = path_join(dir, name);
	_cleanup_close_ int fd = open_regular_file(path);
	char *text = xmalloc(FILE_MAX + 1);
	ssize_t n = fd < 0 ? -1 : read_full(fd, text, FILE_MAX);

	text[n > 0 ? n : 0] = '\0';
	return n > 0 ? text : (free(text), NULL);
}

/* ---- what was seen, each true when it has said something ---- */

static bool is_path_of_compiler(const char *s)
{
	return *s == '/' && job_is_compiler_name(s) && access(s, X_OK) == 0;
}

static bool called_by_path(struct look *k)
{
	if (!is_path_of_compiler(k->argv[0]))
		return false;
	buf_putf(k->out, "%s was called by its path; call it %s", k->argv[0],
		 path_base(k->argv[0]));
	return true;
}

/* CC=/usr/bin/gcc, CC="sccache gcc" */
static bool set_so(struct look *k, const char *name, size_t len, const char *value,
		   const char *where)
{
	size_t n = strcspn(value, " ");
	_cleanup_free_ char *first = xstrndup(value, n);

	if (is_path_of_compiler(first)) {
		buf_putf(k->out, "%.*s=%s%s calls the compiler by its path; say %.*s=%s", (int)len,
			 name, first, where, (int)len, name, path_base(first));
		return true;
	}
	if (value[n] && job_is_compiler_cache(first) && !streq(path_base(first), "ccache")) {
		buf_putf(k->out, "%.*s=\"%s\"%s calls the compiler through %s, which stays",
			 (int)len, name, value, where, path_base(first));
		return true;
	}
	return false;
}

static bool argument_sets(struct look *k)
{
	for (size_t i = 1; k->argv[i]; i++) {
		const char *arg = k->argv[i], *eq = strchr(arg, '=');

		if (eq && set_so(k, arg, (size_t)(eq - arg), eq + 1, ""))
			return true;
	}
	return false;
}

static bool variable_sets(struct look *k)
{
	static const char *const names[] = {"CC", "CXX", "FC", "NVCC", "RUSTC", "HOSTCC"};

	for (size_t i = 0; i < N_OF(names); i++) {
		const char *v = getenv(names[i]);

		if (v && set_so(k, names[i], strlen(names[i]), v, " in the environment"))
			return true;
	}
	return false;
}

static bool left_alone(struct look *k)
{
	const struct left_alone *l = k->left;
	const char *what = streq(k->tool, "cargo") ? l->rust : streq(k->tool, "go") ? l->go : NULL;

	if (!what)
		return false;
	buf_putf(k->out, "%s stands in its place; without it, calls go through concc", what);
	return true;
}

static bool is_concc(const char *launcher)
{
	return launcher && strstr(launcher, "concc-cc");
}

static bool in_masquerade(const char *path)
{
	_cleanup_free_ char *dir = xstrndup(path, (size_t)(path_base(path) - path));

	return masquerade_is(dir);
}

static bool cmake_chose(struct look *k)
{
	static const char *const languages[] = {"C", "CXX", "Fortran", "CUDA"};
	_cleanup_free_ char *cache = read_text(k->dir, "CMakeCache.txt"), *first = NULL;
	_cleanup_buf_ struct buf options = BUF_INIT;

	for (size_t i = 0; cache && i < N_OF(languages); i++) {
		_cleanup_free_ char *name = xasprintf("CMAKE_%s_COMPILER", languages[i]);
		_cleanup_free_ char *launcher_name = xasprintf("%s_LAUNCHER", name);
		_cleanup_free_ char *path = hint_cmake_value(cache, name);
		_cleanup_free_ char *launcher = hint_cmake_value(cache, launcher_name);

		if (!path || in_masquerade(path) || is_concc(launcher))
			continue;
		if (launcher && !streq(path_base(launcher), "ccache")) {
			buf_putf(k->out, "%s=%s, of %s/CMakeCache.txt, stands in its place",
				 launcher_name, launcher, k->dir);
			return true;
		}
		if (!first)
			first = steal_ptr(&path);
		buf_putf(&options, " -D%s=concc-cc", launcher_name);
	}
	if (!first)
		return false;
	buf_putf(k->out,
		 "CMake chose %s before, without concc; say it once: `concc run -- cmake %s`, or "
		 "`cmake%s %s`",
		 first, k->dir, buf_cstr(&options), k->dir);
	return true;
}

static bool file_has_path(struct look *k)
{
	static const char *const names[] = {"build.ninja", "GNUmakefile", "makefile", "Makefile"};

	for (size_t i = 0; i < N_OF(names); i++) {
		_cleanup_free_ char *text = NULL, *variable = NULL, *path = NULL;

		if (streq(k->tool, i == 0 ? "make" : "ninja"))
			continue; /* it reads the other kind */
		text = read_text(k->dir, names[i]);
		path = text ? hint_find_compiler(text, &variable) : NULL;
		if (!path || in_masquerade(path) || !is_path_of_compiler(path))
			continue;
		buf_putf(k->out, "%s calls %s by its path; ", names[i], path);
		if (*variable && i > 0)
			buf_putf(k->out, "say `make %s=%s`", variable, path_base(path));
		else
			buf_putf(k->out, "let it call %s", path_base(path));
		return true;
	}
	return false;
}

static bool cache_had_it(struct look *k)
{
	const char *cc = getenv("CC") ?: "";

	if (!k->m->cache && !strstr(cc, "ccache"))
		return false;
	buf_putf(k->out, "%s had all results, or nothing was to be compiled",
		 k->m->cache ? k->m->cache : "ccache");
	return true;
}

/* Build tools that call compilers in a way of their own. */
static const struct {
	const char *program, *way;
} ways[] = {
	{"scons", "scons has a PATH of its own, unless SConstruct says "
		  "Environment(ENV=os.environ)"},
	{"gprbuild", "gprbuild calls compilers by the paths where it has found them; "
		     "`concc-dispatch gprbuild` runs all of it on a worker"},
	{"tox", "tox gives commands an environment of its own; `passenv = CONCC_*` in its settings "
		"lets their calls come here"},
	{"tup", "tup runs commands in a file system of its own, that workers don't have"},
	{"bazel", "bazel runs actions in directories of links that lead out of the workspace, and "
		  "so here"},
};

static bool own_way(struct look *k)
{
	for (size_t i = 0; i < N_OF(ways); i++) {
		if (!streq(path_base(k->argv[0]), ways[i].program))
			continue;
		buf_putf(k->out, "%s", ways[i].way);
		return true;
	}
	return false;
}

/* What of `concc run` the command gives to compilers is another's PATH. */
static bool path_lost(struct look *k)
{
	const char *name = path_base(k->argv[0]), *option = k->argv[1] ?: "";
	const char *login = tools_loses_path(k->argv);

	if (login)
		buf_putf(k->out, "%s %s sets PATH anew; leave out the l", name, login);
	else if (streq(name, "env") && (streq(option, "-i") || streq(option, "-")))
		buf_putf(k->out, "env %s takes away what calls go through concc by", option);
	else if (streq(name, "sudo") || streq(name, "doas") || streq(name, "su"))
		buf_putf(k->out, "%s runs it as another user, with a PATH of its own", name);
	else
		return false;
	return true;
}

/* A build tool calls whatever makes its files; another program may do the work by itself. */
static bool who_knows(struct look *k)
{
	const char *way = job_way(k->argv[0]);

	buf_putf(k->out, "nothing was to be compiled, or compilers are called by their paths");
	if (way && !str_starts(way, "`concc run")) /* that it was */
		buf_putf(k->out, "; %s", way);
	else if (!way && !*k->tool && !tools_is_shell(path_base(k->argv[0])))
		buf_putf(k->out, "; `concc-dispatch %s` runs all of it on a worker", k->argv[0]);
	return true;
}

/* The directory that the command builds in. */
static char *find_dir(const char *tool, char *const *argv)
{
	const char *option = streq(tool, "cmake") ? "--build" : "-C";

	for (size_t i = 1; *tool && argv[i]; i++) {
		if (streq(argv[i], option) && argv[i + 1])
			return xstrdup(argv[i + 1]);
		if (str_starts(argv[i], "-C") && argv[i][2])
			return xstrdup(argv[i] + 2);
	}
	return xstrdup(".");
}

void hint_no_calls(char *const *argv, const struct masquerade *m, const struct left_alone *l,
		   uint64_t n_asked, struct buf *out)
{
	static bool (*const looks[])(struct look * k) = {
		called_by_path, own_way,     path_lost,	    argument_sets, variable_sets,
		left_alone,	cmake_chose, file_has_path, cache_had_it,  who_knows,
	};
	const char *tool = tools_name(argv) ?: "";
	struct look k = {
		.argv = argv, .m = m, .left = l, .tool = tool, .n_asked = n_asked, .out = out};
	size_t begin = out->len, at_start;

	if (n_asked && job_is_compiler_name(path_base(argv[0])))
		return; /* that was all of it */
	buf_putf(out, "concc: %s came through concc: ",
		 n_asked ? "nothing but questions to compilers" : "no compiler call");
	at_start = out->len;
	k.dir = find_dir(tool, argv);
	for (size_t i = 0; i < N_OF(looks); i++) {
		if (looks[i](&k))
			break;
	}
	free(k.dir);
	if (out->len == at_start)
		out->len = begin;
	else
		buf_putf(out, "\n");
}

/* ---- rules ---- */

/* "local:native" or "fallback:missing" */
static const char *rule_of(const struct counter *e)
{
	return str_starts(e->name, "local:")	  ? e->name + strlen("local:")
	       : str_starts(e->name, "fallback:") ? e->name + strlen("fallback:")
						  : NULL;
}

/* The doctor looks at configured workers, unless it is told at which: a list has commas between
 * them. */
static void put_remedy(const char *remedy, const char *workers, struct buf *out)
{
	static const char doctor[] = "`concc doctor";
	const char *at = workers ? strstr(remedy, doctor) : NULL;
	size_t n = at ? (size_t)(at - remedy) + strlen(doctor) : 0;

	buf_append(out, remedy, n);
	while (at && *workers) {
		size_t word = strcspn(workers, ", ");

		if (word)
			buf_putf(out, " %.*s", (int)word, workers);
		workers += word + (workers[word] != '\0');
	}
	buf_putf(out, "%s", remedy + n);
}

/* What lifts it, however it came to be. */
static const char *remedy_of(const char *rule, const struct front_run *run)
{
	if (!run->local || !streq(rule, "disabled"))
		return view_remedy(rule);
	return run->project_local ? "the project's .concc.ini says `local = yes`"
				  : "leave out --local";
}

void hint_most_local(const struct counter *e, size_t n, const struct front_run *run,
		     struct buf *out)
{
	const struct counter *most = NULL;

	for (size_t i = 0; i < n; i++) {
		const char *rule = rule_of(&e[i]);

		if (rule && e[i].n && view_remedy(rule) && (!most || e[i].n > most->n))
			most = &e[i];
	}
	if (!most)
		return;
	buf_putf(out, "%llu job%s ran here by the rule \"%s\": ", (unsigned long long)most->n,
		 str_plural(most->n), rule_of(most));
	put_remedy(remedy_of(rule_of(most), run), run->workers, out);
}

void hint_kept_local(const struct counter *e, size_t n, const struct front_run *run,
		     struct buf *out)
{
	size_t begin = out->len, at_start;

	buf_putf(out, "concc: ");
	at_start = out->len;
	hint_most_local(e, n, run, out);
	if (out->len == at_start)
		out->len = begin;
	else
		buf_putf(out, "\n");
}
