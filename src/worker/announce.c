/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "announce.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/str.h"

/* An announcement holds one path, at the most six bytes for each of its own. */
#define LINE_MAX_BYTES (32 * 1024)

/* A command that announces, and the path that a line of its output announces, or NULL. */
struct announcer {
	bool (*announces)(char *const *argv);
	char *(*path_of)(const char *line, size_t n);
};

struct line {
	struct buf buf; /* what came of it so far */
	bool too_long;	/* is no announcement; the rest of it is to be skipped */
};

struct announcements {
	const struct announcer *by;
	struct line lines[2]; /* of stdout, stderr */
};

/* ---- rustc, and what is called like it: clippy-driver, wrappers ---- */

/* --json=LIST or --json LIST, as often as one likes: with "artifacts" in one of the lists. */
static bool rust_announces(char *const *argv)
{
	for (; *argv; argv++) {
		const char *list = NULL;

		if (str_starts(*argv, "--json="))
			list = *argv + strlen("--json=");
		else if (streq(*argv, "--json") && argv[1])
			list = argv[1];
		for (; list && *list; list += strspn(list, ",")) {
			size_t n = strcspn(list, ",");

			if (n == strlen("artifacts") && memcmp(list, "artifacts", n) == 0)
				return true;
			list += n;
		}
	}
	return false;
}

/*
 * {"$message_type":"artifact","artifact":PATH,"emit":KIND}; before Rust 1.71 without the first
 * (doc.rust-lang.org/rustc/json.html, "Artifact notifications").
 */
static char *rust_path_of(const char *line, size_t n)
{
	const char *path = NULL, *emit = NULL;
	char *copy = NULL;
	json_t *msg;

	if (*line != '{' || !memmem(line, n, "\"artifact\"", strlen("\"artifact\"")))
		return NULL;
	msg = json_loadb(line, n, 0, NULL);
	if (json_unpack(msg, "{s:s, s:s}", "artifact", &path, "emit", &emit) == 0)
		copy = xstrdup(path);
	json_decref(msg);
	return copy;
}

/* ---- the table ---- */

static const struct announcer announcers[] = {
	{rust_announces, rust_path_of},
};

struct announcements *announcements_new(char *const *argv)
{
	struct announcements *a;

	for (size_t i = 0; i < N_OF(announcers); i++) {
		if (!announcers[i].announces(argv))
			continue;
		a = xcalloc(1, sizeof(*a));
		a->by = &announcers[i];
		return a;
	}
	return NULL;
}

void announcements_free(struct announcements *a)
{
	if (!a)
		return;
	for (int i = 0; i < 2; i++)
		buf_release(&a->lines[i].buf);
	free(a);
}

static void take(struct line *l, const char *p, size_t n)
{
	l->too_long |= n > LINE_MAX_BYTES - l->buf.len;
	if (!l->too_long)
		buf_append(&l->buf, p, n);
}

void announcements_read(struct announcements *a, uint8_t stream, const char *p, size_t n,
			void (*fn)(void *data, const char *path), void *data)
{
	struct line *l = &a->lines[stream - 1];
	const char *nl;

	for (; (nl = memchr(p, '\n', n)); n -= (size_t)(nl + 1 - p), p = nl + 1) {
		char *path = NULL;

		take(l, p, (size_t)(nl - p));
		if (!l->too_long && l->buf.len)
			path = a->by->path_of((const char *)l->buf.data, l->buf.len);
		if (path)
			fn(data, path);
		free(path);
		buf_reset(&l->buf);
		l->too_long = false;
	}
	take(l, p, n);
}
