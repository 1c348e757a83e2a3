/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/mountinfo.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/map.h"
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

/* A path that is being followed. */
struct way {
	char *at;   /* clean, and as far as it goes without symlinks: "" is the root; owned */
	char *rest; /* yet to come; owned */
	unsigned n_links;
};

/* What a symlink says comes before the rest. */
static bool go_through(struct way *w, const char *link, const char *rest)
{
	char target[PATH_MAX];
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	char *whole;

	if (n < 0)
		return false;
	target[n] = '\0';
	if (*target == '/')
		w->at[0] = '\0';
	whole = xasprintf("%s/%s", target, rest);
	free(w->rest);
	w->rest = whole;
	w->n_links++;
	return true;
}

static bool is_symlink(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

static void go_up(struct way *w)
{
	char *slash = strrchr(w->at, '/');

	if (slash)
		*slash = '\0';
}

static bool is_dots(const char *name, size_t n)
{
	return *name == '.' && (n == 1 || (n == 2 && name[1] == '.'));
}

/* The next name of the path that is neither "." nor "..", on the heap; NULL: the path ends. */
static char *next_name(struct way *w, const char **at)
{
	size_t n;

	for (;; *at += n) {
		*at += strspn(*at, "/");
		n = strcspn(*at, "/");
		if (!n)
			return NULL;
		if (!is_dots(*at, n))
			break;
		if (n == 2)
			go_up(w);
	}
	*at += n;
	return xasprintf("%s/%.*s", w->at, (int)n, *at - n);
}

/*
 * Nothing is looked at before it is known that this triggers nothing.  plain: what was seen to be
 * none of these, nor a symlink; or NULL.
 */
static bool triggers(const struct places *p, const char *path, bool follow, struct map *plain)
{
	struct way w = {.at = xstrdup(""), .rest = xstrdup(path)};
	const char *at = w.rest;
	bool found = false;
	char *next;

	while (!found && (next = next_name(&w, &at))) {
		bool last = !at[strspn(at, "/")], is_plain = plain && map_get_str(plain, next);

		found = !is_plain && is_automatic(p, next);
		if (!found && !is_plain && (!last || *at || follow) && is_symlink(next)) {
			/* What can't be told counts, and what has no end. */
			found = !go_through(&w, next, at) || w.n_links > LINKS_MAX;
			at = w.rest;
			free(next);
			continue;
		}
		if (plain && !is_plain && !last && !found)
			(void)map_put_str(plain, next, plain);
		free(w.at);
		w.at = next;
	}
	free(w.at);
	free(w.rest);
	return found;
}

bool mountinfo_triggers(char *text, const char *path)
{
	struct places p = {0};
	bool r;

	places_read(&p, text);
	r = any_automatic(&p) && triggers(&p, path, false, NULL);
	free(p.points);
	free(p.automatic);
	return r;
}

bool mountinfo_names_trigger(char *text, char *const *names, size_t n)
{
	struct map plain = MAP_INIT;
	struct places p = {0};
	bool found = false;

	places_read(&p, text);
	for (size_t i = 0; i < n && !found && any_automatic(&p); i++)
		found = triggers(&p, names[i] + 1, true, &plain);
	map_release(&plain);
	free(p.points);
	free(p.automatic);
	return found;
}
