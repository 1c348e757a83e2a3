/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Between the pieces of a check: what others do to what was found right. */
#include "commit.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

enum mark {
	MARK_TARGET = 1 << 0, /* whatever it becomes is a conflict */
	MARK_CLEARS = 1 << 1, /* and so is what comes beneath it, or becomes another one */
	MARK_MAKES = 1 << 2,  /* to be a directory in the end, whoever makes it */
	MARK_ABOVE = 1 << 3,  /* on the way to others: not to be lost */
};

static unsigned mark_of(const struct commit *c, const char *path, size_t len)
{
	return (unsigned)(uintptr_t)map_get(&c->marks, path, len);
}

/* Up to the first that is marked so already, as all above it are. */
static void mark_above(struct commit *c, const char *path)
{
	for (size_t len = strlen(path); len--;) {
		unsigned m;

		if (path[len] != '/' || !len)
			continue;
		m = mark_of(c, path, len);
		if (m & MARK_ABOVE)
			return;
		(void)map_put(&c->marks, path, len, (void *)(uintptr_t)(m | MARK_ABOVE));
	}
}

static void mark(struct commit *c, const char *path, unsigned how)
{
	unsigned m = mark_of(c, path, strlen(path));

	(void)map_put_borrowed(&c->marks, path, (void *)(uintptr_t)(m | how));
	mark_above(c, path);
}

static unsigned mark_for(const struct effect *e)
{
	if (e->kind == EFFECT_DIR && !(e->flags & EFFECT_F_OPAQUE))
		return MARK_MAKES;
	/* Of all others a directory that is in their place goes. */
	return e->kind == EFFECT_META || effect_is_look(e->kind) ? MARK_TARGET
								 : MARK_TARGET | MARK_CLEARS;
}

void commit_listen(struct commit *c)
{
	size_t end = c->n_walk ? c->at + 1 : c->at;

	if (c->n_marked < end && list_empty(&c->in_checking))
		list_append(&c->tree->checking, &c->in_checking);
	for (; c->n_marked < end; c->n_marked++) {
		const struct effect *e = &c->effects[c->n_marked];

		if (streq(e->path, e->workspace))
			continue;
		mark(c, e->path, mark_for(e));
		if (e->kind == EFFECT_LINK)
			mark(c, e->target, MARK_TARGET);
	}
}

void commit_end_listening(struct commit *c)
{
	list_remove(&c->in_checking);
	map_release(&c->marks);
	map_release(&c->met);
	c->n_marked = 0;
	free(steal_ptr(&c->changed));
}

static bool is_beneath_what_goes(const struct commit *c, const char *path)
{
	for (size_t len = 1; path[len]; len++)
		if (path[len] == '/' && mark_of(c, path, len) & MARK_CLEARS)
			return true;
	return false;
}

static void hear(struct commit *c, const char *path, bool there, bool lost)
{
	unsigned m = mark_of(c, path, strlen(path));

	if (c->changed)
		return;
	if (m & MARK_TARGET || (lost && m & MARK_ABOVE) || (there && is_beneath_what_goes(c, path)))
		c->changed = xstrdup(path);
	else if (m & MARK_MAKES)
		(void)map_put_str(&c->met, path, c);
}

void commits_hear(struct tree *t, const char *dir, const char *name, bool there, bool lost)
{
	_cleanup_free_ char *path = list_empty(&t->checking) ? NULL : path_join(dir, name);

	list_for_each (l, &t->checking)
		hear(container_of(l, struct commit, in_checking), path, there, lost);
}

/* Two who make the same directory agree. */
static bool agrees(const struct commit *c, const char *path)
{
	const struct dir *d;
	const struct ent *e = commit_find_ent(c, path, &d);

	return e && e->type == ENTRY_DIR;
}

int commit_check_heard(struct commit *c, struct errmsg *msg)
{
	const char *path;

	if (c->changed)
		return commit_conflict(c->changed, msg);
	if (c->at < c->n)
		return 0;
	for (size_t it = 0; map_next(&c->met, &it, &path);)
		if (!agrees(c, path) && tree_changed_since(c->tree, path, c->checked, true) > 0)
			return commit_conflict(path, msg);
	return 0;
}
