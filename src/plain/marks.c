/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "marks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/err.h"
#include "concc/str.h"

void marks_init(struct marks *m, const char *token)
{
	*m = (struct marks){0};
	/* The NUL is in front. */
	m->word_len = 1 + (size_t)snprintf(m->word + 1, sizeof(m->word) - 1, "concc-%s ", token);
}

void marks_release(struct marks *m)
{
	free(m->texts[0]);
	free(m->texts[1]);
	buf_release(&m->held);
}

/* How many bytes at the end could be the first ones of a mark. */
static size_t held_back(const struct marks *m)
{
	const struct buf *b = &m->held;
	size_t max = b->len < m->word_len ? b->len : m->word_len - 1;

	for (size_t n = max; n > 0; n--) {
		const uint8_t *tail = b->data + b->len - n;

		if (*tail == '\0' && memcmp(tail, m->word, n) == 0)
			return n;
	}
	return 0;
}

/* The first n bytes held are no mark. */
static int pass(struct marks *m, size_t n, struct buf *out)
{
	if (m->begun && !m->ended)
		buf_append(out, m->held.data, n);
	else if (!m->begun)
		m->noise += n;
	buf_consume(&m->held, n);
	return m->noise > MARKS_NOISE_MAX ? CONCC_E_PROTO : 0;
}

/* The bytes held begin with a mark: 1 when it was whole, 0 when more must come. */
static int take_mark(struct marks *m)
{
	const char *text = (const char *)m->held.data + m->word_len;
	size_t n = m->held.len - m->word_len;
	const char *end = memchr(text, '\n', n);

	if (!end)
		return n > MARKS_TEXT_MAX ? CONCC_E_PROTO : 0;
	if (m->begun && m->ended)
		return CONCC_E_PROTO;
	m->texts[m->begun] = xstrndup(text, (size_t)(end - text));
	m->ended = m->begun;
	m->begun = true;
	buf_consume(&m->held, m->word_len + (size_t)(end - text) + 1);
	return 1;
}

int marks_feed(struct marks *m, const void *p, size_t n, struct buf *out)
{
	int r = 1;

	buf_append(&m->held, p, n);
	while (r > 0 && m->held.len) {
		const uint8_t *at = memmem(m->held.data, m->held.len, m->word, m->word_len);

		if (!at)
			return pass(m, m->held.len - held_back(m), out);
		r = pass(m, (size_t)(at - m->held.data), out);
		if (r == 0)
			r = take_mark(m);
	}
	return r < 0 ? r : 0;
}
