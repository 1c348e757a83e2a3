/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "stderr_tail.h"

#include <stdlib.h>
#include <string.h>

#include "concc/log.h"
#include "concc/str.h"

#define KEEP	   2048
#define SHOWN	   400 /* an errmsg holds 512 */
#define LAST_LINES 3   /* OpenSSH's last line alone tells little */

static void log_lines(struct stderr_tail *s, const char *worker)
{
	for (;;) {
		const uint8_t *start = s->tail.data + s->logged;
		size_t left = s->tail.len - s->logged;
		const uint8_t *nl = left ? memchr(start, '\n', left) : NULL;

		if (!nl)
			return;
		if (log_enabled(LOG_LEVEL_DEBUG)) {
			char *line = str_escape(start, (size_t)(nl - start), SHOWN);

			log_debug("worker=%s said: %s", worker, line);
			free(line);
		}
		s->logged += (size_t)(nl - start) + 1;
	}
}

void stderr_tail_add(struct stderr_tail *s, const char *worker, const void *p, size_t n)
{
	size_t drop;

	buf_append(&s->tail, p, n);
	log_lines(s, worker);
	if (s->tail.len <= KEEP)
		return;
	drop = s->tail.len - KEEP;
	buf_consume(&s->tail, drop);
	s->logged = s->logged > drop ? s->logged - drop : 0;
}

static bool ends_line(uint8_t c)
{
	return c == '\n' || c == '\r';
}

static struct blob last_lines(struct blob text, int lines)
{
	size_t end = text.n, start;

	if (!end)
		return (struct blob){0};
	while (end > 0 && ends_line(text.p[end - 1]))
		end--;
	for (start = end; start > 0; start--)
		if (text.p[start - 1] == '\n' && --lines == 0)
			break;
	return (struct blob){.p = text.p + start, .n = end - start};
}

struct blob last_line(struct blob text)
{
	return last_lines(text, 1);
}

void stderr_tail_put(const struct stderr_tail *s, struct buf *out)
{
	struct blob text = {.p = s->tail.data, .n = s->tail.len};
	_cleanup_buf_ struct buf joined = BUF_INIT;
	char *shown;

	text = last_lines(text, LAST_LINES);
	if (text.n > SHOWN) {
		text.p += text.n - SHOWN;
		text.n = SHOWN;
	}
	if (text.n == 0)
		return;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] == '\n')
			buf_append(&joined, "; ", 2);
		else if (text.p[i] != '\r')
			buf_append(&joined, text.p + i, 1);
	}
	shown = str_escape(joined.data, joined.len, 2 * SHOWN);
	buf_putf(out, "%s\"%s\"", out->len ? ": " : "", shown);
	free(shown);
}

void stderr_tail_release(struct stderr_tail *s)
{
	buf_release(&s->tail);
}
