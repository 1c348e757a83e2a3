/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "argfile.h"

#include "concc/job.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#include "command.h"

/* Options whose argument is such a file, joined by '=' or the next one. */
static const char *const options[] = {"--config", "--options-file", "-optf"};

struct expansion {
	const struct argfiles *files;
	char **out;
	size_t bytes, n; /* read so far */
};

/* The file that the option names by itself, "" for the next argument; NULL: it is none of these. */
static const char *option_file(const char *arg)
{
	for (size_t i = 0; i < N_OF(options); i++) {
		size_t n = strlen(options[i]);

		if (strncmp(arg, options[i], n) == 0 && (!arg[n] || arg[n] == '='))
			return arg + n + (arg[n] == '=');
	}
	return NULL;
}

bool argfiles_any(enum argfile_style style, char *const *args)
{
	for (; *args; args++) {
		const char *a = *args;

		if (a[0] == '@')
			return true;
		if (style == ARGFILE_C && a[0] == '-' && (a[1] == '-' || a[1] == 'o') &&
		    option_file(a))
			return true;
	}
	return false;
}

/* ---- words ---- */

/* One word into b; past it.  A backslash makes any byte a plain one, within quotes as well. */
static const char *take_word(const char *p, struct buf *b)
{
	char quote = '\0';

	for (; *p && (quote || !isspace((unsigned char)*p)); p++) {
		if (*p == '\\' && p[1])
			buf_append(b, ++p, 1);
		else if (quote ? *p == quote : *p == '\'' || *p == '"')
			quote = quote ? '\0' : *p;
		else
			buf_append(b, p, 1);
	}
	return p;
}

static char **gnu_words(const char *text)
{
	char **words = xcalloc(1, sizeof(*words));

	while (*(text += strspn(text, " \t\n\v\f\r"))) {
		_cleanup_buf_ struct buf b = BUF_INIT;

		text = take_word(text, &b);
		strv_push(&words, xstrdup(buf_cstr(&b)));
	}
	return words;
}

static char **lines(const char *text)
{
	char **words = xcalloc(1, sizeof(*words));

	while (*text) {
		size_t n = strcspn(text, "\n");
		size_t len = n && text[n - 1] == '\r' ? n - 1 : n;

		strv_push(&words, xstrndup(text, len));
		text += n + (text[n] == '\n');
	}
	return words;
}

/* A configuration file of clang is that with comments, and lines that go on in the next. */
static void plain_config(char *text)
{
	char *out = text;

	for (char *p = text; *p;) {
		char *start = p + strspn(p, " \t");
		bool comment = *start == '#';

		while (*p && *p != '\n') {
			bool joined = *p == '\\' &&
				      (p[1] == '\n' || (p[1] == '\r' && p[2] == '\n'));

			if (joined)
				p += p[1] == '\n' ? 2 : 3;
			else if (comment)
				p++;
			else
				*out++ = *p++;
		}
		if (*p)
			*out++ = *p++;
	}
	*out = '\0';
}

/* ---- files ---- */

static int expand(struct expansion *x, char *const *args, const char *dir, unsigned depth,
		  const char **ret_unknown);

/* 1 when it is read, 0 when a compiler could not read it either, or why nobody can tell. */
static int read_one(struct expansion *x, const char *path, struct buf *b)
{
	int r;

	if (++x->n > ARGFILES_MAX)
		return -E2BIG;
	r = x->files->read_file(path, ARGFILES_BYTES_MAX - x->bytes, b);
	if (r == -ENOENT || r == -ENOTDIR || r == -EACCES || r == -ELOOP || r == -ENAMETOOLONG)
		return 0;
	x->bytes += b->len;
	/* A NUL: UTF-16, which some read, or nothing that is meant for this. */
	return r < 0 ? r : memchr(b->data ? b->data : (uint8_t *)"", 0, b->len) ? -EINVAL : 1;
}

/* The words of one file, and of those that it names: in one of clang's, relative to where it is. */
static int expand_file(struct expansion *x, const char *path, bool config, const char *dir,
		       unsigned depth)
{
	/* Not path_clean(): "x/../args" is another file where x is a symlink. */
	_cleanup_free_ char *full = *path == '/' ? xstrdup(path) : path_join(dir, path);
	_cleanup_free_ char *own_dir = path_clean(full, "..");
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_strv_ char **words = NULL;
	const char *unknown;
	int r = depth >= ARGFILES_DEPTH_MAX ? -ELOOP : read_one(x, full, &b);
	char *text;

	if (r <= 0)
		return r;
	text = (char *)buf_cstr(&b);
	if (config)
		plain_config(text);
	if (x->files->style == ARGFILE_LINES) {
		words = lines(text);
		for (char **w = words; *w; w++)
			strv_push(&x->out, xstrdup(*w));
		return 1;
	}
	words = gnu_words(text);
	r = expand(x, words, config ? own_dir : dir, depth + 1, &unknown);
	return r < 0 ? r : 1;
}

/* clang looks for one without a slash in directories that only it knows; nvcc takes a list. */
static int expand_option(struct expansion *x, const char *arg, const char *value, const char *dir,
			 unsigned depth)
{
	bool config = str_starts(arg, "--config");

	if (config ? !strchr(value, '/') : strchr(value, ',') != NULL)
		return -EINVAL;
	return expand_file(x, value, config, dir, depth);
}

static int expand(struct expansion *x, char *const *args, const char *dir, unsigned depth,
		  const char **ret_unknown)
{
	bool c = x->files->style == ARGFILE_C;

	for (; *args; args++) {
		const char *file = c ? option_file(*args) : NULL;
		int r = 0;

		*ret_unknown = *args;
		if ((*args)[0] == '@')
			r = expand_file(x, *args + 1, false, dir, depth);
		if (r == 0)
			strv_push(&x->out, xstrdup(*args));
		if (r == 0 && file && *file)
			r = expand_option(x, *args, file, dir, depth);
		else if (r == 0 && file && args[1]) {
			strv_push(&x->out, xstrdup(*++args));
			r = expand_option(x, args[-1], *args, dir, depth);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

char **argfiles_expand(const struct argfiles *f, char *const *args, const char **ret_unknown)
{
	struct expansion x = {.files = f, .out = xcalloc(1, sizeof(char *))};

	if (expand(&x, args, f->cwd, 0, ret_unknown) == 0)
		return x.out;
	strv_free(x.out);
	return NULL;
}

char **job_expand_argfiles(char *const *argv, const char *cwd,
			   int (*read_file)(const char *path, size_t max, struct buf *out))
{
	struct argfiles f = {.cwd = cwd, .style = ARGFILE_C, .read_file = read_file};
	const char *unknown = NULL;

	return argfiles_expand(&f, argv, &unknown);
}
