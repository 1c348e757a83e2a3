/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/job.h"

#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#include "command.h"

/* A word for the shell: in single quotes every byte but the quote stands for itself. */
void job_put_quoted(struct buf *out, const char *s)
{
	buf_append(out, "'", 1);
	for (; *s; s++) {
		if (*s == '\'')
			buf_append(out, "'\\''", 4);
		else
			buf_append(out, s, 1);
	}
	buf_append(out, "'", 1);
}

static void put_words(struct buf *out, char *const *words)
{
	for (; *words; words++) {
		buf_putf(out, " \\\n\t");
		job_put_quoted(out, *words);
	}
}

static void put_word(struct buf *out, const char *before, const char *word, const char *after)
{
	buf_putf(out, "%s", before);
	job_put_quoted(out, word);
	buf_putf(out, "%s", after);
}

/* The environment goes through env(1), since a shell would add and drop variables. */
static void put_plain(struct buf *out, const char *program, char *const *argv, char *const *env)
{
	buf_putf(out, "exec env -i --");
	put_words(out, env);
	/* env(1) would take this for a variable; nice(1) has no such notion. */
	if (strchr(program, '='))
		buf_putf(out, " \\\n\tnice -n 0");
	put_word(out, " \\\n\t", program, "");
	put_words(out, argv + 1);
	buf_putf(out, "\n");
}

/* Chooses at run time how to give the program its name. */
static void put_choice(struct buf *out, const char *name, const char *exe, const char *path)
{
	bool equals = strchr(exe, '=') || strchr(name, '=');

	buf_putf(out, "# The program's own name for itself is not that of its file.\n");
	if (path && !strchr(name, '/') && !equals) {
		put_word(out, "if [ \"$(PATH=", path, "; ");
		put_word(out, "command -v -- ", name, ")\" = ");
		put_word(out, "", exe, " ]; then\n\thow=env\n");
		put_word(out, "\tset -- ", name, " \"$@\"\nel");
	}
	if (!equals) {
		buf_putf(out, "if env --argv0=x true 2>/dev/null; then\n\thow=argv0\n");
		put_word(out, "\tset -- ", exe, " \"$@\"\nel");
	}
	buf_putf(out, "if command -v perl >/dev/null; then\n\thow=perl\n");
	put_word(out, "\tset -- ", name, " \"$@\"\n");
	buf_putf(out, "else\n\thow=env\n"
		      "\techo \"$0: note: no perl here, so argv[0] is the file's name\" >&2\n");
	put_word(out, equals ? "\tset -- nice -n 0 " : "\tset -- ", exe, " \"$@\"\nfi\n");
}

#define PERL_PROGRAM                                                                               \
	"%ENV = (); my ($exe, $n) = splice(@ARGV, 0, 2); "                                         \
	"for (splice(@ARGV, 0, $n)) { my ($k, $v) = split(/=/, $_, 2); $ENV{$k} = $v } "           \
	"exec {$exe} @ARGV; die \"$exe: $!\\n\""

static void put_named(struct buf *out, const char *exe, char *const *argv, char *const *env)
{
	buf_putf(out, "set --");
	put_words(out, argv + 1);
	buf_putf(out, "\n");
	put_choice(out, argv[0], exe, env_get(env, "PATH"));
	buf_putf(out, "set --");
	put_words(out, env);
	buf_putf(out, " \\\n\t\"$@\"\ncase $how in\n");
	put_word(out, "argv0) exec env -i --argv0=", argv[0], " -- \"$@\" ;;\n");
	put_word(out, "perl) exec env -i LC_ALL=C \"$(command -v perl)\" -e ", PERL_PROGRAM,
		 " \\\n");
	put_word(out, "\t", exe, "");
	buf_putf(out, " %zu \"$@\" ;;\n", strv_len(env));
	buf_putf(out, "env) exec env -i -- \"$@\" ;;\nesac\n");
}

/* The first of each name, as getenv(3) finds it, of those that env(1) can set; they stay all's. */
static char **once_by_name(char *const *all)
{
	char **kept = xcalloc(strv_len(all) + 1, sizeof(*kept));
	size_t n = 0;

	for (; *all; all++) {
		size_t len = strcspn(*all, "="), i = 0;

		while (i < n && strncmp(kept[i], *all, len + 1) != 0)
			i++;
		if (len && (*all)[len] && i == n)
			kept[n++] = *all;
	}
	return kept;
}

/* True when running argv0 from cwd runs exe: then it gets its name by itself. */
static bool names_file(const char *argv0, const char *exe, const char *cwd)
{
	_cleanup_free_ char *given = NULL;
	_cleanup_free_ char *file = NULL;

	if (!strchr(argv0, '/'))
		return false;
	given = path_clean(cwd, argv0);
	file = path_clean(cwd, exe);
	return streq(given, file);
}

void job_script(struct buf *out, char *const *argv, const char *exe, const char *cwd,
		char *const *env, unsigned umask)
{
	_cleanup_strv_ char **all = job_env_filter(env, NULL, false);
	_cleanup_free_ char **kept = once_by_name(all);

	buf_putf(out,
		 "#!/bin/sh\n# One job of concc: run it with sh.  Its environment is in here.\n");
	buf_putf(out, "umask %04o\n", umask & 0777);
	put_word(out, "cd -- ", cwd, " || exit 126\n");
	if (!exe || names_file(argv[0], exe, cwd))
		put_plain(out, argv[0], argv, kept);
	else
		put_named(out, exe, argv, kept);
}
