/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "one_section.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <ini.h>

#include "concc/str.h"

struct reading {
	const struct one_section *s;
	const char *left;
	unsigned line; /* of what the reader returned last */
	bool inside;
	struct errmsg *why;
};

/* A line that begins with '['.  inih tells of it with the first key, which is another line. */
static void enter(struct reading *k, const char *line, size_t n)
{
	const char *close = memchr(line, ']', n);
	size_t len = close ? (size_t)(close - line) - 1 : 0;

	k->inside = close && len == strlen(k->s->name) && memcmp(line + 1, k->s->name, len) == 0;
	if (!k->inside)
		errmsg_set(k->why, CONCC_E_CONF, "%s",
			   close ? k->s->only : "a section's name is not closed with ']'");
}

/* For ini_parse_stream(), like fgets().  What is indented is a line like any other. */
static char *read_line(char *out, int size, void *stream)
{
	struct reading *k = stream;
	size_t used = strcspn(k->left, "\n"), blanks = strspn(k->left, " \t\r\f\v");
	const char *line = k->left + blanks;
	size_t n = used - blanks;

	if (*k->why->text || !*k->left)
		return NULL;
	k->line++;
	k->left += used + (k->left[used] != '\0');
	if (*line == '[')
		enter(k, line, n);
	if (*line == ';' || *line == '#')
		n = 0; /* however long it is */
	if (n + 2 > (size_t)size)
		errmsg_set(k->why, CONCC_E_CONF, "the line is longer than %d bytes", size - 2);
	if (*k->why->text)
		return NULL;
	snprintf(out, (size_t)size, "%.*s\n", (int)n, line);
	return out;
}

/* For inih: 0 is a failure. */
static int take(void *user, const char *section, const char *name, const char *value)
{
	struct reading *k = user;

	(void)section; /* the reader knows, and inih cuts long names */
	if (k->inside)
		k->s->take(k->s->data, name, value, k->why);
	else
		errmsg_set(k->why, CONCC_E_CONF, "%s", k->s->only);
	return !*k->why->text;
}

int one_section_parse(const struct one_section *s, const char *text, unsigned *ret_line,
		      struct errmsg *why)
{
	struct reading k = {.s = s, .left = text, .why = why};
	int bad;

	*why = (struct errmsg){0};
	if (str_starts(text, "\xEF\xBB\xBF"))
		k.left += 3;
	bad = ini_parse_stream(read_line, &k, take, &k);
	if (bad == 0 && !*why->text)
		return 0;
	if (!*why->text) {
		k.line = bad > 0 ? (unsigned)bad : k.line;
		errmsg_set(why, CONCC_E_CONF, "neither [section] nor key = value");
	}
	*ret_line = k.line;
	return CONCC_E_CONF;
}
