/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The places outside the workspaces, and what their owner, the agent, says of them.
 */
#define FUSE_USE_VERSION 312
#include "outside_places.h"
#include "outside.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "fuse.h"
#include "inode.h"

struct place *outside_place_new(struct outside *o, struct place *parent, const char *name,
				size_t len)
{
	struct place *p = xcalloc(1, sizeof(*p) + len + 1);

	memcpy(p->name, name, len);
	p->parent = parent;
	p->ino = SYNTHETIC_INO + ++o->n_places;
	return p;
}

static void place_free(struct place *p)
{
	struct place *child;
	size_t it = 0;

	while ((child = map_next(&p->children, &it, NULL)))
		place_free(child);
	map_release(&p->children);
	map_release(&p->absent);
	free(p->target);
	free(p);
}

static void old_free(struct place *p)
{
	while (p) {
		struct place *next = p->old;

		place_free(p);
		p = next;
	}
}

void outside_places_free(struct outside *o)
{
	place_free(o->root);
	place_free(o->stand_in);
	place_free(o->terminal);
	place_free(o->tmp);
	old_free(o->old);
}

static void put_path(const struct place *p, struct buf *b)
{
	if (!p->parent)
		return;
	put_path(p->parent, b);
	buf_putf(b, "/%s", p->name);
}

char *outside_path(const struct place *p, const char *name)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	put_path(p, &b);
	if (*name || !b.len)
		buf_putf(&b, "/%s", name);
	return xstrdup(buf_cstr(&b));
}

static struct place *find(struct outside *o, const char *path)
{
	struct place *at = o->root;

	while (at && *(path += strspn(path, "/"))) {
		size_t len = strcspn(path, "/");

		at = map_get(&at->children, path, len);
		path += len;
	}
	return at;
}

/* The kernel believes in no such name: it asks again.  Not under the lock: see fuse.h. */
static void notify(struct outside *o, const struct place *dir, const char *name)
{
	fuse_ino_t ino = dir->parent ? (fuse_ino_t)(uintptr_t)dir : FUSE_ROOT_ID;

	atomic_fetch_add(&o->mirror->n_notifications, 1);
	/* Fails when it has no such thing: as good. */
	(void)fuse_lowlevel_notify_inval_entry(o->session, ino, name, strlen(name));
}

static void notify_attributes(struct outside *o, const struct place *p)
{
	atomic_fetch_add(&o->mirror->n_notifications, 1);
	(void)fuse_lowlevel_notify_inval_inode(o->session, (fuse_ino_t)(uintptr_t)p, -1, 0);
}

static void put_place(struct outside *o, struct place *p)
{
	struct place *dir = p->parent;
	bool was_absent;

	pthread_mutex_lock(&o->lock);
	(void)map_put_str(&dir->children, p->name, p);
	was_absent = map_del_str(&dir->absent, p->name);
	o->n_absent -= was_absent;
	pthread_mutex_unlock(&o->lock);
	if (was_absent)
		notify(o, dir, p->name);
}

static struct place *add_child(struct outside *o, struct place *dir, const char *name, size_t len)
{
	struct place *child = outside_place_new(o, dir, name, len);

	put_place(o, child);
	return child;
}

void outside_add(struct outside *o, const char *path, bool kept)
{
	struct place *at = o->root;

	while (*(path += strspn(path, "/"))) {
		size_t len = strcspn(path, "/");
		struct place *child = map_get(&at->children, path, len);

		/* Behind a link is what is told of where it leads. */
		if ((!child && o->n_places >= SYNTHETIC_MAX) || (child && child->target))
			return;
		at = child ? child : add_child(o, at, path, len);
		at->kept |= kept;
		path += len;
	}
}

/* The lock is held. */
static void uncount(struct outside *o, const struct place *p)
{
	const struct place *child;
	size_t it = 0;

	o->n_links -= p->target != NULL;
	o->n_bare -= p->bare;
	o->n_absent -= p->absent.n;
	while ((child = map_next(&p->children, &it, NULL)))
		uncount(o, child);
}

/* The kernel may hold it, so it stays, and all that was in it, where no name leads. */
static void retire(struct outside *o, struct place *p)
{
	pthread_mutex_lock(&o->lock);
	(void)map_del_str(&p->parent->children, p->name);
	p->old = o->old;
	o->old = p;
	uncount(o, p);
	pthread_mutex_unlock(&o->lock);
	notify(o, p->parent, p->name);
}

int outside_link(struct outside *o, const char *path, const char *target)
{
	_cleanup_free_ char *parent = path_parent(path);
	struct place *dir, *at = find(o, path), *link;

	if (at && at->target && streq(at->target, target))
		return 0;
	/* Of what was mounted nothing may be lost. */
	if (at && at->kept)
		return *target ? -EISDIR : 0;
	if (at && (*target || at->target))
		retire(o, at);
	if (!*target)
		return 0;
	outside_add(o, parent, false);
	dir = find(o, parent);
	if (!dir || dir->target)
		return -ENOTDIR;
	if (o->n_links >= PROTO_OUTSIDE_LINKS_MAX || o->n_places >= SYNTHETIC_MAX)
		return CONCC_E_TOOBIG;
	link = outside_place_new(o, dir, path_base(path), strlen(path_base(path)));
	link->target = xstrdup(target);
	o->n_links++;
	put_place(o, link);
	return 0;
}

static void bare_no_more(struct outside *o, struct place *p)
{
	if (!p || !p->bare)
		return;
	/* What is mounted in it is still there. */
	if (!p->kept) {
		retire(o, p);
		return;
	}
	pthread_mutex_lock(&o->lock);
	p->bare = false;
	o->n_bare--;
	pthread_mutex_unlock(&o->lock);
	notify_attributes(o, p);
}

int outside_bare(struct outside *o, const struct msg_bare *b)
{
	struct place *p = find(o, b->path);

	if (!b->there) {
		bare_no_more(o, p);
		return 0;
	}
	if (!p && o->n_bare >= PROTO_BARE_MAX)
		return CONCC_E_TOOBIG;
	outside_add(o, b->path, false);
	p = find(o, b->path);
	if (!p || p->target)
		return 0;
	pthread_mutex_lock(&o->lock);
	o->n_bare += !p->bare;
	p->bare = true;
	p->mode = b->mode;
	p->mtim = (struct timespec){.tv_sec = (time_t)b->mtime_s, .tv_nsec = b->mtime_ns};
	pthread_mutex_unlock(&o->lock);
	notify_attributes(o, p);
	return 0;
}

static void all_news(struct outside *o, struct place *dir)
{
	struct map was;
	const char *name;
	size_t it = 0;

	pthread_mutex_lock(&o->lock);
	was = dir->absent;
	dir->absent = MAP_INIT;
	o->n_absent -= was.n;
	pthread_mutex_unlock(&o->lock);
	while (map_next(&was, &it, &name))
		notify(o, dir, name);
	map_release(&was);
}

void outside_absent(struct outside *o, const char *dir, const char *name)
{
	struct place *p = find(o, dir);

	if (!p)
		return;
	if (!*name) {
		all_news(o, p);
		return;
	}
	/* Beyond, they are told as before. */
	if (o->n_absent >= PROTO_OUTSIDE_MAX || map_get_str(&p->children, name))
		return;
	pthread_mutex_lock(&o->lock);
	o->n_absent += !map_put_str(&p->absent, name, p);
	pthread_mutex_unlock(&o->lock);
}
