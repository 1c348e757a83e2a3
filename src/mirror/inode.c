/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * One file: a change of a name is one step through all that is here.  It takes an inode out of its
 * directory, keeps it for jobs that have seen it, withdraws what the kernel was told is absent, and
 * puts the new one in the old one's place; under mirror.lock, with nothing to be seen in between.
 */
#include "inode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "content.h"
#include "notify.h"
#include "want.h"

/* ---- inodes ---- */

struct inode *inode_new(struct mirror *m, const char *name, size_t len, const struct entry_attr *a,
			const struct blob *target)
{
	struct inode *i = xcalloc(1, sizeof(*i) + len + 1);

	list_append(&m->inodes, &i->link);
	memcpy(i->name, name, len);
	i->attr = *a;
	if (a->type == ENTRY_UNKNOWN)
		i->attr.ino = SYNTHETIC_INO + m->next_ino++; /* readdir(3) skips what has none */
	i->refs = 1;
	if (target && a->type == ENTRY_SYMLINK)
		i->target = xstrndup((const char *)target->p, target->n);
	if (a->type == ENTRY_DIR) {
		i->dir = xcalloc(1, sizeof(*i->dir));
		i->dir->entry_version = a->version;
		i->dir->next_cookie = 3; /* 1 and 2 are "." and ".." */
		list_init(&i->dir->waiting);
	}
	return i;
}

/* ---- what names led to before ---- */

/* Until when were jobs started that may have seen what leaves d now? */
static uint64_t lost_seq(const struct inode *d, uint64_t now)
{
	return dir_complete(d) || d->dir->void_seq > now ? now : d->dir->void_seq;
}

/* i leaves its directory: jobs that run may still have it in their overlays. */
static void former_add(struct mirror *m, struct inode *i, uint64_t seq)
{
	struct map *former = &i->parent->dir->former;

	if (!m->jobs.n || !i->nlookup)
		return;
	i->lost_seq = seq;
	i->former_in = i->parent;
	/* The key is the newest one's name. */
	i->older = map_get_str(former, i->name);
	if (i->older)
		(void)map_del_str(former, i->name);
	(void)map_put_str(former, i->name, i);
}

static void former_remove(struct inode *i)
{
	struct map *former;
	struct inode *at;

	if (!i->former_in)
		return;
	former = &i->former_in->dir->former;
	at = map_get_str(former, i->name);
	if (at == i) {
		(void)map_del_str(former, i->name);
		if (i->older)
			(void)map_put_str(former, i->older->name, i->older);
	} else {
		while (at && at->older != i)
			at = at->older;
		if (at)
			at->older = i->older;
	}
	i->former_in = NULL;
	i->older = NULL;
}

struct inode *dir_former(const struct inode *d, const char *name, uint64_t seq)
{
	struct inode *found = NULL;

	for (struct inode *i = map_get_str(&d->dir->former, name); i; i = i->older)
		if (i->lost_seq > seq)
			found = i; /* the oldest is what the job has seen */
	return found;
}

static void dir_free(struct dir *d)
{
	struct inode *i;
	size_t it = 0;

	if (!d)
		return;
	while ((i = map_next(&d->former, &it, NULL)))
		for (; i; i = i->older)
			i->former_in = NULL;
	map_release(&d->former);
	map_release(&d->names);
	map_release(&d->negatives);
	map_release(&d->absent);
	free(d->slots);
	free(d);
}

static void inode_free(struct mirror *m, struct inode *i)
{
	list_remove(&i->link);
	former_remove(i);
	content_drop(m, i);
	dir_free(i->dir);
	free(i->target);
	free(i->lost_path);
	free(i);
}

static void inode_free_unused(struct mirror *m, struct inode *i)
{
	if (i->refs == 0 && i->nlookup == 0)
		inode_free(m, i);
}

void inode_unref(struct mirror *m, struct inode *i)
{
	i->refs--;
	inode_free_unused(m, i);
}

void inode_forget(struct mirror *m, struct inode *i, uint64_t nlookup)
{
	i->nlookup -= nlookup < i->nlookup ? nlookup : i->nlookup;
	inode_free_unused(m, i);
}

char *inode_path(const struct mirror *m, const struct inode *i)
{
	size_t len = 0;
	char *path, *p;

	if (i == m->root)
		return xstrdup("/");
	if (!i->parent)
		return xstrdup(i->lost_path ? i->lost_path : i->name);
	for (const struct inode *at = i; at->parent; at = at->parent)
		len += 1 + strlen(at->name);
	path = xmalloc(len + 1);
	p = path + len;
	*p = '\0';
	for (const struct inode *at = i; at->parent; at = at->parent) {
		size_t n = strlen(at->name);

		p -= n;
		memcpy(p, at->name, n);
		*--p = '/';
	}
	return path;
}

/* ---- what jobs copy ---- */

void job_seq_free(struct job_seq *j)
{
	char *path;
	size_t it = 0;

	if (!j)
		return;
	while ((path = map_next(&j->copied, &it, NULL)))
		free(path);
	map_release(&j->copied);
	free(j);
}

static void copies(struct job_seq *j, const char *path)
{
	free(map_put_str(&j->copied, path, xstrdup(path)));
}

void job_copies(struct mirror *m, int64_t job, const struct inode *i)
{
	_cleanup_free_ char *path = inode_path(m, i);
	struct job_seq *j = job >= 0 ? map_get_u64(&m->jobs, (uint64_t)job) : NULL;
	size_t it = 0;

	if (j) {
		copies(j, path);
		return;
	}
	while ((j = map_next(&m->jobs, &it, NULL)))
		copies(j, path);
}

/* ---- names of a directory ---- */

struct inode *dir_child(const struct inode *d, const char *name, size_t len)
{
	return map_get(&d->dir->names, name, len);
}

size_t dir_slot_after(const struct dir *d, uint64_t cookie)
{
	size_t lo = 0, hi = d->n_slots;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (d->slots[mid].cookie <= cookie)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct slot *dir_slot(const struct dir *d, const struct inode *child)
{
	return &d->slots[dir_slot_after(d, child->cookie - 1)];
}

static void dir_compact(struct dir *d)
{
	size_t n = 0;

	for (size_t k = 0; k < d->n_slots; k++)
		if (d->slots[k].inode)
			d->slots[n++] = d->slots[k];
	d->n_slots = n;
}

/* Takes the reference that child comes with. */
static void dir_add(struct inode *d, struct inode *child)
{
	struct dir *dir = d->dir;

	if (dir->n_slots == dir->cap_slots) {
		dir->cap_slots = dir->cap_slots ? 2 * dir->cap_slots : 8;
		dir->slots = xrealloc(dir->slots, dir->cap_slots * sizeof(*dir->slots));
	}
	child->cookie = dir->next_cookie++;
	child->parent = d;
	dir->slots[dir->n_slots++] = (struct slot){.cookie = child->cookie, .inode = child};
	dir->n_live++;
	(void)map_put(&dir->names, child->name, strlen(child->name), child);
}

/* The name keeps its place in the order: a listing under way shows it once. */
static void dir_replace(struct inode *d, struct inode *old, struct inode *child)
{
	child->cookie = old->cookie;
	child->parent = d;
	dir_slot(d->dir, old)->inode = child;
	(void)map_put(&d->dir->names, child->name, strlen(child->name), child);
}

static void dir_remove(struct inode *d, struct inode *child)
{
	struct dir *dir = d->dir;

	dir_slot(dir, child)->inode = NULL;
	dir->n_live--;
	(void)map_del(&dir->names, child->name, strlen(child->name));
	if (dir->n_slots - dir->n_live > 16 && dir->n_live < dir->n_slots / 2)
		dir_compact(dir);
}

/* ---- negatives ---- */

static void negative_free(struct mirror *m, struct negative *n)
{
	(void)map_del_str(&n->dir->dir->negatives, n->name);
	list_remove(&n->link);
	m->n_negatives--;
	free(n);
}

/* The kernel must ask for the name again. */
static void negative_withdraw(struct mirror *m, struct negative *n)
{
	notify_drop(m, n->dir, n->name);
	negative_free(m, n);
}

void negative_add(struct mirror *m, struct inode *d, const char *name)
{
	struct negative *n;

	if (map_get_str(&d->dir->negatives, name))
		return;
	if (m->n_negatives >= NEGATIVES_MAX)
		negative_withdraw(m, list_first(&m->negatives, struct negative, link));
	n = xmalloc(sizeof(*n) + strlen(name) + 1);
	n->dir = d;
	strcpy(n->name, name);
	list_append(&m->negatives, &n->link);
	m->n_negatives++;
	(void)map_put_str(&d->dir->negatives, name, n);
}

static void negatives_withdraw(struct mirror *m, struct inode *d)
{
	struct negative *n;
	size_t it = 0;

	while ((n = map_next(&d->dir->negatives, &it, NULL)))
		negative_withdraw(m, n);
}

/* ---- the tree ---- */

void mirror_tree_bind_id(struct mirror *m, struct inode *d, uint32_t dir_id)
{
	if (d->dir->dir_id)
		(void)map_del_u64(&m->dir_ids, d->dir->dir_id);
	d->dir->dir_id = dir_id;
	if (dir_id)
		(void)map_put_u64(&m->dir_ids, dir_id, d);
}

struct inode *mirror_tree_find(const struct mirror *m, const char *path)
{
	return mirror_tree_find_below(m->root, path);
}

struct inode *mirror_tree_find_below(struct inode *at, const char *path)
{
	while (at && *path) {
		size_t len;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (len == 0)
			break;
		at = at->dir ? dir_child(at, path, len) : NULL;
		path += len;
	}
	return at;
}

/*
 * Takes an inode out of the tree, with all beneath it.  Children first, while
 * paths can still be told.  As deep as a path: 2048 levels at the most.  seq: jobs
 * that started before may have seen it.
 */
static void detach(struct mirror *m, struct inode *i, uint64_t seq, struct list *ready)
{
	struct dir *dir = i->dir;

	if (dir) {
		struct negative *n;
		size_t it = 0;

		for (size_t k = 0; k < dir->n_slots; k++)
			if (dir->slots[k].inode)
				detach(m, dir->slots[k].inode, lost_seq(i, seq), ready);
		while ((n = map_next(&dir->negatives, &it, NULL)))
			negative_free(m, n);
		map_release(&dir->names);
		dir->n_slots = dir->n_live = 0;
		dir->listed = dir->asked = dir->synthetic = dir->served = false;
		mirror_tree_bind_id(m, i, 0);
		list_take_all(ready, &dir->waiting);
	}
	if (i->nlookup > 0)
		i->lost_path = inode_path(m, i);
	former_add(m, i, seq);
	i->parent = NULL;
	inode_unref(m, i);
}

/*
 * After a name's entry was changed: what the kernel cached for the old one.  A
 * directory's is only expired: the next use asks again, finds another inode or
 * none, and the kernel drops it with all beneath it.
 */
static void notify_replaced(struct mirror *m, const struct inode *d, const struct inode *old)
{
	if (old->nlookup == 0)
		return;
	if (inode_is_dir(old))
		notify_expire(m, d, old->name);
	else
		notify_drop(m, d, old->name);
}

void mirror_tree_remove(struct mirror *m, struct inode *d, struct inode *child, struct list *ready)
{
	notify_replaced(m, d, child);
	dir_remove(d, child);
	detach(m, child, lost_seq(d, m->notices_queued), ready);
}

void mirror_tree_set_dir_attr(struct mirror *m, struct inode *d, const struct entry_attr *a)
{
	d->attr = *a;
	notify_inode(m, d);
}

static void forget_names(struct mirror *m, struct inode *d, bool deep)
{
	for (size_t k = 0; k < d->dir->n_slots; k++) {
		struct inode *child = d->dir->slots[k].inode;

		if (!child)
			continue;
		/* Most will turn out to be the same: expired, they keep their pages. */
		if (child->nlookup > 0)
			notify_expire(m, d, child->name);
		if (deep && child->dir)
			mirror_tree_forget(m, child, true);
	}
}

void mirror_tree_forget(struct mirror *m, struct inode *d, bool deep)
{
	bool was_listed = d->dir->listed;

	if (was_listed || deep) {
		forget_names(m, d, deep);
		negatives_withdraw(m, d);
	}
	d->dir->listed = false;
	mirror_tree_bind_id(m, d, 0);
	/* Its own attributes are kept right only as long as it is listed, a served root's entry
	 * too. */
	notify_inode(m, d);
	if (d->dir->served && d->parent)
		notify_expire(m, d->parent, d->name);
	/* A second time tells nothing of when the names went that the first made void. */
	if (was_listed)
		d->dir->void_seq = m->notices_queued;
}

/* A directory stays a directory: the same one by its inode, or one that only we knew of so far. */
static bool same_dir(const struct inode *old, const struct entry_attr *a)
{
	return inode_is_dir(old) && a->type == ENTRY_DIR &&
	       (old->attr.ino == a->ino || old->dir->synthetic || old->dir->served);
}

/*
 * The entry of a directory changed, so the client has forgotten what it told
 * about everything beneath it.
 */
static void renew_dir(struct mirror *m, struct inode *i, const struct entry_attr *a)
{
	if (i->dir->entry_version == a->version && !i->dir->synthetic && !i->dir->served)
		return;
	i->dir->entry_version = a->version;
	/* An overlay lets processes in by the mode of the last look-up: what is told of the inode
	 * alone counts for it from the next stat(2) on. */
	if (i->nlookup > 0 && i->parent && i->attr.mode != a->mode)
		notify_expire(m, i->parent, i->name);
	i->attr = *a;
	i->dir->synthetic = i->dir->served = false;
	mirror_tree_forget(m, i, true);
}

static bool same_version(const struct inode *old, const struct entry_attr *a)
{
	return old->attr.type == a->type && old->attr.version == a->version;
}

static void learn_digest(struct inode *i, const struct entry_attr *a)
{
	if (a->has_digest && !i->attr.has_digest) {
		i->attr.digest = a->digest;
		i->attr.has_digest = true;
	}
}

static void add_name(struct mirror *m, struct inode *d, struct inode *child)
{
	struct negative *n = map_get_str(&d->dir->negatives, child->name);

	if (n)
		negative_withdraw(m, n);
	dir_add(d, child);
	child->mark = d->dir->mark;
}

int mirror_tree_apply(struct mirror *m, struct inode *d, const struct dir_entry *e,
		      struct list *ready)
{
	const char *name = (const char *)e->name.p;
	struct inode *old = dir_child(d, name, e->name.n);
	struct inode *child;

	if (e->attr.type == ENTRY_ABSENT) {
		if (old)
			mirror_tree_remove(m, d, old, ready);
		return 0;
	}
	if (!old) {
		if (d->dir->n_live >= DIR_NAMES_MAX)
			return CONCC_E_TOOBIG;
		add_name(m, d, inode_new(m, name, e->name.n, &e->attr, &e->target));
		return 0;
	}
	old->mark = d->dir->mark;
	if (same_dir(old, &e->attr)) {
		renew_dir(m, old, &e->attr);
		return 0;
	}
	if (same_version(old, &e->attr)) {
		learn_digest(old, &e->attr);
		return 0;
	}
	child = inode_new(m, name, e->name.n, &e->attr, &e->target);
	child->mark = d->dir->mark;
	notify_replaced(m, d, old);
	dir_replace(d, old, child);
	detach(m, old, lost_seq(d, m->notices_queued), ready);
	return 0;
}

/* ---- served trees ---- */

static struct inode *new_synthetic(struct mirror *m, const char *name, size_t len)
{
	struct entry_attr a = {
		.type = ENTRY_DIR,
		.mode = 0755,
		.nlink = 1,
		.ino = SYNTHETIC_INO + m->next_ino++,
		.mtime_s = m->started.tv_sec,
		.ctime_s = m->started.tv_sec,
		.mtime_ns = (uint32_t)m->started.tv_nsec,
		.ctime_ns = (uint32_t)m->started.tv_nsec,
	};
	struct inode *i = inode_new(m, name, len, &a, NULL);

	i->dir->synthetic = true;
	m->n_synthetic++; /* they stay as long as the mirror */
	return i;
}

/* From a directory of ours to one the client lists. */
static void make_served(struct mirror *m, struct inode *d)
{
	if (d->dir->served || !d->dir->synthetic)
		return;
	d->dir->synthetic = false;
	d->dir->served = true;
	mirror_tree_forget(m, d, true);
}

int mirror_tree_serve(struct mirror *m, const char *path)
{
	struct inode *at = m->root;

	while (at->dir->synthetic) {
		struct inode *child;
		size_t len;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (len == 0)
			break;
		child = dir_child(at, path, len);
		if (!child && m->n_synthetic >= SYNTHETIC_MAX)
			return CONCC_E_TOOBIG;
		if (!child) {
			child = new_synthetic(m, path, len);
			add_name(m, at, child);
			notify_inode(m, at);
		}
		at = child;
		path += len;
	}
	/* Stopped early: it lies in a tree that is served already. */
	make_served(m, at);
	return 0;
}

void mirror_tree_absent_add(struct mirror *m, struct inode *d, const char *name)
{
	if (m->n_absent >= PROTO_OUTSIDE_MAX || dir_child(d, name, strlen(name)))
		return; /* they are told, as before */
	m->n_absent += !map_put_str(&d->dir->absent, name, d);
}

void mirror_tree_absent_forget(struct mirror *m, struct inode *d)
{
	m->n_absent -= d->dir->absent.n;
	map_release(&d->dir->absent);
}

void mirror_tree_init(struct mirror *m)
{
	list_init(&m->inodes);
	list_init(&m->negatives);
	m->root = new_synthetic(m, "", 0);
	m->root->nlookup = 1; /* the kernel's for ever */
	m->outside = new_synthetic(m, MIRROR_OUTSIDE, strlen(MIRROR_OUTSIDE));
	m->outside->parent = m->root;
}

void mirror_tree_waiting(struct mirror *m, struct list *ret)
{
	list_for_each (p, &m->inodes) {
		struct inode *i = container_of(p, struct inode, link);

		if (i->dir)
			list_take_all(ret, &i->dir->waiting);
	}
}

void mirror_tree_release(struct mirror *m)
{
	struct job_seq *j;
	size_t it = 0;

	list_for_each_safe (p, &m->negatives) {
		list_remove(p);
		free(container_of(p, struct negative, link));
	}
	/* The kernel's references ended with the connection, without messages. */
	list_for_each_safe (p, &m->inodes)
		inode_free(m, container_of(p, struct inode, link));
	map_release(&m->dir_ids);
	while ((j = map_next(&m->jobs, &it, NULL)))
		job_seq_free(j);
	map_release(&m->jobs);
}
