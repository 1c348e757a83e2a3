/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "mentions.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/proto.h"
#include "concc/str.h"

/* Of one file: no header has that many. */
#define NAMES_MAX 1000

static const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	return p;
}

/* Behind this word, or NULL. */
static const char *skip_word(const char *p, const char *end, const char *word)
{
	size_t n = strlen(word);

	return (size_t)(end - p) >= n && memcmp(p, word, n) == 0 ? p + n : NULL;
}

/* Behind "#include" or "#include_next" of a line, or NULL. */
static const char *directive(const char *p, const char *end)
{
	const char *next;

	p = skip_blanks(p, end);
	if (p == end || *p != '#')
		return NULL;
	p = skip_word(skip_blanks(p + 1, end), end, "include");
	if (!p)
		return NULL;
	next = skip_word(p, end, "_next");
	return skip_blanks(next ? next : p, end);
}

/* A name that leads beneath where it is looked for, as most do; or up from there. */
static bool is_name(const char *p, size_t n)
{
	return n > 0 && n < PROTO_PATH_MAX && *p != '/' && p[n - 1] != '/' && !memchr(p, '\0', n);
}

static void add(struct mentions *m, const char *p, size_t n, bool quoted)
{
	if (!is_name(p, n) || m->n_names == NAMES_MAX)
		return;
	strv_push(&m->names, xstrndup(p, n));
	m->quoted = xrealloc(m->quoted, (m->n_names + 1) * sizeof(*m->quoted));
	m->quoted[m->n_names++] = quoted;
}

static void look_at_line(struct mentions *m, const char *p, const char *end)
{
	const char *close;
	bool quoted;

	p = directive(p, end);
	if (!p || p == end || (*p != '<' && *p != '"'))
		return;
	quoted = *p++ == '"';
	close = memchr(p, quoted ? '"' : '>', (size_t)(end - p));
	if (close)
		add(m, p, (size_t)(close - p), quoted);
}

void mentions_find(const char *text, size_t n, struct mentions *ret)
{
	const char *end = text + n;

	*ret = (struct mentions){0};
	for (const char *p = text; p < end;) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));

		if (!eol)
			eol = end;
		look_at_line(ret, p, eol);
		p = eol + (eol < end);
	}
}

void mentions_release(struct mentions *m)
{
	strv_free(m->names);
	free(m->quoted);
	*m = (struct mentions){0};
}
