/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/mountinfo.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define FIELD_POINT 4
#define LINKS_MAX   40 /* as the kernel follows: MAXSYMLINKS */

/* Blanks, and what else would break the line, are written as \NNN. */
static void unescape(char *s)
{
	char *to = s, digits[4] = {0};

	for (; *s; to++) {
		*to = *s++;
		if (*to == '\\' && strlen(s) >= 3) {
			memcpy(digits, s, 3);
			*to = (char)strtoul(digits, NULL, 8);
			s += 3;
		}
	}
	*to = '\0';
}

/* The next word of *at, which is cut off and moved on; "" at the end. */
static char *word(char **at)
{
	char *w = *at;
	size_t n = strcspn(w, " ");

	*at = w + n + (w[n] != '\0');
	w[n] = '\0';
	return w;
}

bool mountinfo_next(char **text, struct mount_line *ret)
{
	char *at = *text, *point = NULL, *id = at;
	size_t n = strcspn(at, "\n");

	if (!*at)
		return false;
	*text = at + n + (at[n] != '\0');
	at[n] = '\0';
	for (int i = 0; i <= FIELD_POINT; i++)
		point = word(&at);
	unescape(point);
	while (*at && !streq(word(&at), "-"))
		;
	*ret = (struct mount_line){strtoull(id, NULL, 10), point, word(&at)};
	return true;
}

/* Of two at a place the last is on top. */
struct places {
	const char **points;
	bool *automatic;
	size_t n;
};

static void places_read(struct places *p, char *text)
{
	struct mount_line l;

	while (mountinfo_next(&text, &l)) {
		p->points = xrealloc(p->points, (p->n + 1) * sizeof(*p->points));
		p->automatic = xrealloc(p->automatic, (p->n + 1) * sizeof(*p->automatic));
		p->points[p->n] = l.point;
		p->automatic[p->n++] = streq(l.type, "autofs");
	}
}

static bool any_automatic(const struct places *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->automatic[i])
			return true;
	return false;
}

/* Is path on such a file system?  Its root is there already. */
static bool is_automatic(const struct places *p, const char *path)
{
	bool found = false;
	size_t len = 0;

	for (size_t i = 0; i < p->n; i++) {
		size_t n = strlen(p->points[i]);

		if (!path_is_below(path, p->points[i]) || n < len)
			continue;
		len = n;
		found = p->automatic[i] && path[n];
	}
	return found;
}

/* Where the symlink `at` leads, with what follows it; NULL: none, or it is none now. */
static char *led_to(const char *at, const char *rest)
{
	_cleanup_free_ char *parent = path_parent(at), *full = NULL;
	char target[PATH_MAX];
	struct stat st;
	ssize_t n;

	if (lstat(at, &st) < 0 || !S_ISLNK(st.st_mode))
		return NULL;
	n = readlink(at, target, sizeof(target) - 1);
	if (n < 0)
		return NULL;
	target[n] = '\0';
	full = path_clean(parent, target);
	return path_clean(full, *rest ? rest : ".");
}

/* The path as far as all of it may be looked at; true when that is not all. */
static bool triggers(const struct places *p, const char *path)
{
	_cleanup_free_ char *whole = xstrdup(path);
	unsigned links = 0;
	size_t end = 0;

	while (whole[end]) {
		_cleanup_free_ char *at = NULL, *next = NULL;

		end += strspn(whole + end, "/");
		end += strcspn(whole + end, "/");
		at = xstrndup(whole, end);
		if (is_automatic(p, at))
			return true;
		next = whole[end] ? led_to(at, whole + end + 1) : NULL;
		if (!next)
			continue;
		if (++links > LINKS_MAX)
			return true;
		free(whole);
		whole = steal_ptr(&next);
		end = 0;
	}
	return false;
}

bool mountinfo_triggers(char *text, const char *path)
{
	struct places p = {0};
	bool r;

	places_read(&p, text);
	r = any_automatic(&p) && triggers(&p, path);
	free(p.points);
	free(p.automatic);
	return r;
}
