/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

/*
 * A file changed twice within one tick of the clock that stamps it may show the
 * same times for both.  Kernels tick every 1 to 10 ms; other machines' clocks
 * are off by more.
 */
#define RACY_NS		(20 * 1000 * 1000LL)
#define RACY_NETWORK_NS (2 * 1000 * 1000 * 1000LL)

bool peer_set_empty(const struct peer_set *s)
{
	for (size_t i = 0; i < TREE_PEERS_MAX / 64; i++) {
		if (s->w[i])
			return false;
	}
	return true;
}

/* ---- names ---- */

/* FNV-1a with a seed per process and a final mix: names come from outside. */
static uint32_t name_hash(const struct tree *t, const char *name, size_t len)
{
	uint32_t h = 2166136261u ^ t->name_seed;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)name[i]) * 16777619u;
	h = (h ^ (h >> 16)) * 0x85ebca6bu;
	return h ^ (h >> 13);
}

static uint32_t ent_hash(const struct tree *t, const struct ent *e)
{
	return name_hash(t, e->name, e->name_len);
}

static uint32_t names_slot(const struct names *s, uint32_t hash, const char *name, size_t len)
{
	uint32_t i = hash & (s->cap - 1);

	for (; s->slots[i]; i = (i + 1) & (s->cap - 1)) {
		const struct ent *e = s->slots[i];

		if (e->name_len == len && memcmp(e->name, name, len) == 0)
			break;
	}
	return i;
}

struct ent *names_find(const struct tree *t, const struct dir *d, const char *name, size_t len)
{
	if (!d->names.cap || len > PROTO_NAME_MAX)
		return NULL;
	return d->names.slots[names_slot(&d->names, name_hash(t, name, len), name, len)];
}

struct ent *names_next(const struct dir *d, uint32_t *it)
{
	while (*it < d->names.cap) {
		struct ent *e = d->names.slots[(*it)++];

		if (e)
			return e;
	}
	return NULL;
}

static void names_grow(const struct tree *t, struct names *s)
{
	uint32_t old_cap = s->cap;
	struct ent **old = s->slots;

	s->cap = old_cap ? old_cap * 2 : 8;
	s->slots = xcalloc(s->cap, sizeof(struct ent *));
	for (uint32_t i = 0; i < old_cap; i++) {
		if (old[i])
			s->slots[names_slot(s, ent_hash(t, old[i]), old[i]->name,
					    old[i]->name_len)] = old[i];
	}
	free(old);
}

/* The name's entry, ENTRY_ABSENT when it is new. */
static struct ent *names_add(struct tree *t, struct dir *d, const char *name, size_t len)
{
	struct ent *e = names_find(t, d, name, len);
	size_t size;

	if (e)
		return e;
	if (d->names.n >= d->names.cap / 4 * 3)
		names_grow(t, &d->names);
	size = offsetof(struct ent, name) + len + 1;
	e = xcalloc(1, size > sizeof(*e) ? size : sizeof(*e));
	memcpy(e->name, name, len);
	e->name_len = (uint8_t)len;
	d->names.slots[names_slot(&d->names, ent_hash(t, e), name, len)] = e;
	d->names.n++;
	t->counts.entries++;
	return e;
}

static void ent_release(struct ent *e)
{
	if (e->type == ENTRY_FILE)
		free(e->known);
	else if (e->type == ENTRY_SYMLINK)
		free(e->target);
	e->known = NULL;
}

static void names_del(struct tree *t, struct dir *d, struct ent *e)
{
	struct names *s = &d->names;
	uint32_t mask = s->cap - 1;
	uint32_t hole = names_slot(s, ent_hash(t, e), e->name, e->name_len);

	/* What follows moves up when its place is at or before the hole. */
	for (uint32_t i = (hole + 1) & mask; s->slots[i]; i = (i + 1) & mask) {
		uint32_t home = ent_hash(t, s->slots[i]) & mask;

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			s->slots[hole] = s->slots[i];
			hole = i;
		}
	}
	s->slots[hole] = NULL;
	s->n--;
	t->counts.entries--;
	ent_release(e);
	free(e);
}

static void vec_push(struct ent_vec *v, struct ent *e)
{
	if (v->n == v->cap) {
		v->cap = v->cap ? v->cap * 2 : 8;
		v->v = xrealloc(v->v, v->cap * sizeof(struct ent *));
	}
	v->v[v->n++] = e;
}

static void vec_release(struct ent_vec *v)
{
	free(v->v);
	*v = (struct ent_vec){0};
}

static void dir_vec_push(struct dir_vec *v, struct dir *d)
{
	if (v->n == v->cap) {
		v->cap = v->cap ? v->cap * 2 : 16;
		v->v = xrealloc(v->v, v->cap * sizeof(struct dir *));
	}
	v->v[v->n++] = d;
}

/* ---- tombs ---- */

static void tomb_free(struct tree *t, struct tomb *tomb)
{
	map_del_str(&t->tombs, tomb->path);
	list_remove(&tomb->order);
	free(tomb);
}

void tomb_put(struct tree *t, const char *dir, const char *name, uint64_t version)
{
	size_t dir_len = dir[1] ? strlen(dir) : 0;
	size_t len = dir_len + 1 + strlen(name);
	struct tomb *tomb;
	struct tomb *old;

	if (t->horizon >= version)
		return;
	tomb = xmalloc(sizeof(*tomb) + len + 1);
	memcpy(tomb->path, dir, dir_len);
	tomb->path[dir_len] = '/';
	strcpy(tomb->path + dir_len + 1, name);
	tomb->version = version;
	list_append(&t->tomb_order, &tomb->order);
	old = map_put_str(&t->tombs, tomb->path, tomb);
	if (old) {
		list_remove(&old->order);
		free(old);
	}
	tombs_trim(t);
}

uint64_t tomb_version(const struct tree *t, const char *path)
{
	const struct tomb *tomb = map_get_str(&t->tombs, path);

	return tomb ? tomb->version : 0;
}

void tombs_trim(struct tree *t)
{
	while (!list_empty(&t->tomb_order)) {
		struct tomb *first = list_first(&t->tomb_order, struct tomb, order);

		if (first->version > t->horizon && t->tombs.n <= TOMBS_MAX)
			return;
		if (first->version > t->horizon)
			t->tomb_floor = first->version;
		tomb_free(t, first);
	}
}

/* ---- messages ---- */

void ent_to_attr(const struct ent *e, unsigned peer, struct entry_attr *ret)
{
	*ret = (struct entry_attr){
		.type = e->type,
		.mode = e->mode,
		.nlink = e->nlink,
		.ino = e->ino,
		.size = e->size,
		.mtime_s = e->mtime_s,
		.mtime_ns = e->mtime_ns,
		.ctime_s = e->ctime_s,
		.ctime_ns = e->ctime_ns,
		.version = e->version,
	};
	if (e->type != ENTRY_FILE || !e->known)
		return;
	if (e->known->claimed_by != CLAIM_NONE && e->known->claimed_by != peer)
		return;
	ret->has_digest = true;
	ret->digest = e->known->digest;
}

static void put_ent(struct buf *b, const struct ent *e, unsigned peer)
{
	struct entry_attr a;

	ent_to_attr(e, peer, &a);
	dir_entry_encode(b, e->name, e->name_len, &a, e->type == ENTRY_SYMLINK ? e->target : "");
}

static bool is_partial(const struct tree *t, const struct dir *d)
{
	const struct root *r = root_find(t, d->path);

	if (!r || !r->source)
		return false;
	return t->ops.is_partial ? t->ops.is_partial(t->data, d->path) : streq(r->path, d->path);
}

static size_t dir_bytes_max(const struct tree *t)
{
	return t->limits.dir_bytes ? t->limits.dir_bytes : PROTO_DIR_MAX;
}

void snap_send_dir(struct tree *t, struct dir *d, unsigned peer)
{
	uint8_t state = is_partial(t, d) ? DIR_PARTIAL : DIR_LISTED;
	_cleanup_buf_ struct buf b = BUF_INIT;
	const struct ent *e;
	uint32_t n = 0;

	for (uint32_t it = 0; (e = names_next(d, &it));)
		n += e->type != ENTRY_ABSENT;
	msg_dir_encode(&b, d->id, state, d->path, &d->attr, n);
	for (uint32_t it = 0; (e = names_next(d, &it));) {
		if (e->type != ENTRY_ABSENT)
			put_ent(&b, e, peer);
	}
	if (b.len > dir_bytes_max(t)) {
		snap_send_unknown(t, peer, d->id, d->path, -E2BIG);
		return;
	}
	peer_set_add(&d->told, peer);
	t->ops.send(t->data, peer, MSG_DIR, &b);
}

void snap_send_unknown(struct tree *t, unsigned peer, uint32_t id, const char *path, int err)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_dir_unknown_encode(&b, id, path, err < 0 && err > -4096 ? (uint32_t)-err : EIO);
	t->ops.send(t->data, peer, MSG_DIR, &b);
}

void snap_send_absent(struct tree *t, unsigned peer, uint32_t id, uint8_t state, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct entry_attr none = {0};

	msg_dir_encode(&b, id, state, path, &none, 0);
	t->ops.send(t->data, peer, MSG_DIR, &b);
}

void snap_send_stale(struct tree *t, const struct peer_set *to, uint32_t id)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (peer_set_empty(to))
		return;
	msg_u32_encode(&b, id);
	for (unsigned p = 0; p < TREE_PEERS_MAX; p++) {
		if (peer_set_has(to, p))
			t->ops.send(t->data, p, MSG_DIR_STALE, &b);
	}
}

/* Of one message, far below PROTO_MSG_MAX; with room for a last symlink. */
#define UPDATE_BYTES (1024 * 1024)
#define ENT_BYTES    128 /* of an entry without its name and target */

/* Where the message that begins with entry i ends. */
static uint32_t update_end(const struct dir *d, uint32_t i)
{
	size_t bytes = 0;

	for (; i < d->pending.n && bytes < UPDATE_BYTES; i++) {
		const struct ent *e = d->pending.v[i];

		bytes += ENT_BYTES + e->name_len;
		if (e->type == ENTRY_SYMLINK)
			bytes += strlen(e->target);
	}
	return i;
}

static void put_update(struct buf *b, const struct dir *d, uint32_t from, uint32_t end,
		       unsigned peer)
{
	buf_reset(b);
	msg_update_encode(b, d->id, &d->attr, end - from);
	for (uint32_t i = from; i < end; i++)
		put_ent(b, d->pending.v[i], peer);
}

/* A worker's own claims make its message differ from the others'. */
static bool has_claim(const struct dir *d, uint32_t from, uint32_t end, unsigned peer)
{
	for (uint32_t i = from; i < end; i++) {
		const struct ent *e = d->pending.v[i];

		if (e->type == ENTRY_FILE && e->known && e->known->claimed_by == peer)
			return true;
	}
	return false;
}

static void send_update(struct tree *t, const struct dir *d, uint32_t from, uint32_t end)
{
	_cleanup_buf_ struct buf common = BUF_INIT;
	_cleanup_buf_ struct buf own = BUF_INIT;

	for (unsigned p = 0; p < TREE_PEERS_MAX; p++) {
		struct buf *b;

		if (!peer_set_has(&d->told, p))
			continue;
		b = has_claim(d, from, end, p) ? &own : &common;
		if (b == &own || !b->len)
			put_update(b, d, from, end, b == &own ? p : TREE_PEERS_MAX);
		t->counts.updates++;
		t->ops.send(t->data, p, MSG_UPDATE, b);
	}
}

static void dir_flush(struct tree *t, struct dir *d)
{
	uint32_t from = 0;

	if (d->attr_changed && !d->pending.n)
		send_update(t, d, 0, 0);
	while (from < d->pending.n) {
		uint32_t end = update_end(d, from);

		send_update(t, d, from, end);
		from = end;
	}
	for (uint32_t i = 0; i < d->pending.n; i++) {
		struct ent *e = d->pending.v[i];

		e->flags &= (uint16_t)~ENT_PENDING;
		/* One that an event has named again is needed by that list. */
		if (e->type == ENTRY_ABSENT && !(e->flags & ENT_DIRTY))
			names_del(t, d, e);
	}
	vec_release(&d->pending);
	d->attr_changed = false;
}

static void dir_free(struct dir *d)
{
	struct ent *e;

	for (uint32_t it = 0; (e = names_next(d, &it));) {
		ent_release(e);
		free(e);
	}
	free(d->names.slots);
	vec_release(&d->dirty);
	vec_release(&d->pending);
	free(d->path);
	free(d);
}

static void flush_all(struct tree *t)
{
	for (size_t i = 0; i < t->flush.n; i++) {
		struct dir *d = t->flush.v[i];

		d->flush_queued = false;
		if (!d->dropped)
			dir_flush(t, d);
	}
	t->flush.n = 0;
}

void snap_flush(struct tree *t)
{
	flush_all(t);
	if (t->queue.n)
		return; /* it may name what is on the grave list */
	list_for_each_safe (l, &t->grave)
		dir_free(container_of(l, struct dir, in_grave));
	list_init(&t->grave);
}

static void flush_later(struct tree *t, struct dir *d)
{
	if (d->flush_queued)
		return;
	d->flush_queued = true;
	dir_vec_push(&t->flush, d);
}

/* ---- files with several names ---- */

static void new_link(struct tree *t, uint64_t ino)
{
	if (t->n_new_links == t->cap_new_links) {
		t->cap_new_links = t->cap_new_links ? t->cap_new_links * 2 : 64;
		t->new_links = xrealloc(t->new_links, t->cap_new_links * sizeof(uint64_t));
	}
	t->new_links[t->n_new_links++] = ino;
}

static void linked_free(struct tree *t, struct linked *l)
{
	l->ent->flags &= (uint16_t)~ENT_LINKED;
	watch_release_link(t, l);
	list_remove(&l->in_unwatched);
	list_remove(&l->in_dir);
	(void)map_del_u64(&t->linked_by_ent, (uintptr_t)l->ent);
	t->counts.linked--;
	free(l);
}

static struct linked *linked_of(const struct tree *t, const struct ent *e)
{
	return e->flags & ENT_LINKED ? map_get_u64(&t->linked_by_ent, (uintptr_t)e) : NULL;
}

static void linked_watch(struct tree *t, struct linked *l, int fd, bool in_vain)
{
	_cleanup_close_ int file = openat(fd, l->ent->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (in_vain || file < 0 || fstat(file, &st) < 0 ||
	    fold_ino(t, st.st_dev, st.st_ino) != l->ent->ino || watch_link(t, l, file) < 0)
		list_append(&t->linked, &l->in_unwatched);
}

static void linked_begin(struct tree *t, struct dir *d, int fd, struct ent *e, bool in_vain)
{
	struct linked *l = xcalloc(1, sizeof(*l));

	e->flags |= ENT_LINKED;
	l->dir = d;
	l->ent = e;
	list_init(&l->in_watch);
	list_init(&l->in_unwatched);
	list_append(&d->linked, &l->in_dir);
	(void)map_put_u64(&t->linked_by_ent, (uintptr_t)e, l);
	t->counts.linked++;
	linked_watch(t, l, fd, in_vain);
	new_link(t, e->ino);
}

static bool is_linked(const struct ent *e, bool mounted)
{
	if (e->type == ENTRY_ABSENT || e->type == ENTRY_UNKNOWN)
		return false;
	return (e->type != ENTRY_DIR && e->nlink > 1) || mounted;
}

/*
 * same: it is still the file it was.  One that had more names stays tracked with
 * its last: what is written through a descriptor that was opened by a name that
 * has gone is reported for that name, so not at all.
 *
 * True when it is tracked from now on only, so that what was done to it since the
 * look has no event.  in_vain: that was so again and again.
 */
static bool ent_track_links(struct tree *t, struct dir *d, int fd, struct ent *e, bool same,
			    bool mounted, bool in_vain)
{
	bool was = e->flags & ENT_LINKED;
	bool linked = is_linked(e, mounted) || (same && was && e->type != ENTRY_DIR);

	if (was && !(linked && same))
		linked_free(t, linked_of(t, e));
	if (!linked || (was && same))
		return false;
	linked_begin(t, d, fd, e, in_vain);
	return true;
}

/* ---- directories ---- */

struct dir *dir_find(const struct tree *t, const char *path)
{
	return map_get_str(&t->by_path, path);
}

void dir_queue(struct tree *t, struct dir *d)
{
	if (d->queued || d->dropped)
		return;
	d->queued = true;
	dir_vec_push(&t->queue, d);
}

void dir_mark_name(struct tree *t, struct dir *d, const char *name, size_t len, unsigned flags)
{
	struct ent *e;

	if (!len || len > PROTO_NAME_MAX)
		return;
	e = names_add(t, d, name, len);
	e->flags |= (uint16_t)flags;
	if (!(e->flags & ENT_DIRTY)) {
		e->flags |= ENT_DIRTY;
		vec_push(&d->dirty, e);
	}
	dir_queue(t, d);
}

static void mark_ent(struct tree *t, struct dir *d, struct ent *e)
{
	dir_mark_name(t, d, e->name, e->name_len, 0);
}

/* The entry that leads to d, NULL for roots and orphans. */
static struct ent *dir_entry(const struct tree *t, const struct dir *d)
{
	const char *base = path_base(d->path);
	struct ent *e;

	if (!d->parent)
		return NULL;
	e = names_find(t, d->parent, base, strlen(base));
	return e && e->type == ENTRY_DIR && e->child == d ? e : NULL;
}

void dir_mark_dead(struct tree *t, struct dir *d)
{
	struct ent *e = dir_entry(t, d);

	d->dead = true;
	if (e)
		mark_ent(t, d->parent, e);
	else
		dir_queue(t, d);
	/* The root itself may have been replaced. */
	if (!d->parent)
		t->roots_suspect = true;
}

void dir_forget(struct tree *t, struct dir *d)
{
	_cleanup_free_ char *parent = path_parent(d->path);

	/* Listings that are void by an UPDATE of what is dropped here would be by none. */
	flush_all(t);
	/* What was there when a job began, and what is now, is not known: for it, that is a change.
	 */
	tomb_put(t, parent, path_base(d->path), ++t->version);
	dir_drop(t, d, NULL);
}

/* May it be written by another name, that comes up one day, without an event of this one? */
static bool has_one_name(const struct ent *e)
{
	return e->type != ENTRY_ABSENT && e->type != ENTRY_UNKNOWN && e->type != ENTRY_DIR &&
	       e->nlink == 1;
}

static void index_ent(struct tree *t, const struct dir *d, const struct ent *e)
{
	if (has_one_name(e))
		inodes_add(&t->inodes, e->ino, d->id);
}

static void unindex_ent(struct tree *t, const struct dir *d, const struct ent *e)
{
	if (has_one_name(e))
		inodes_del(&t->inodes, e->ino, d->id);
}

void dir_drop(struct tree *t, struct dir *d, const struct peer_set *covered)
{
	struct peer_set stale = d->told;
	struct peer_set below = {0};
	struct ent *e = dir_entry(t, d);
	const struct ent *name;

	for (size_t i = 0; covered && i < TREE_PEERS_MAX / 64; i++) {
		stale.w[i] &= ~covered->w[i];
		below.w[i] = d->told.w[i] & covered->w[i];
	}
	snap_send_stale(t, &stale, d->id);
	list_for_each_safe (l, &d->children)
		dir_drop(t, container_of(l, struct dir, siblings), &below);
	if (e)
		e->child = NULL;
	list_remove(&d->siblings);
	list_remove(&d->in_sweep);
	list_for_each_safe (l, &d->linked)
		linked_free(t, container_of(l, struct linked, in_dir));
	for (uint32_t it = 0; (name = names_next(d, &it));)
		unindex_ent(t, d, name);
	t->counts.entries -= d->names.n;
	t->counts.dirs--;
	watch_release_dir(t, d);
	map_del_str(&t->by_path, d->path);
	map_del_u64(&t->by_id, d->id);
	d->dropped = true;
	list_append(&t->grave, &d->in_grave);
}

/* ---- looking ---- */

uint64_t fold_ino(struct tree *t, dev_t dev, ino_t ino)
{
	size_t i = 0;

	while (i < t->n_devs && t->devs[i] != dev)
		i++;
	if (i == t->n_devs) {
		t->devs = xrealloc(t->devs, (t->n_devs + 1) * sizeof(dev_t));
		t->devs[t->n_devs++] = dev;
	}
	/* Inode numbers of real file systems leave the top 16 bits alone. */
	return (uint64_t)ino ^ (uint64_t)i << 48;
}

static uint8_t mode_type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return ENTRY_FILE;
	case S_IFDIR:
		return ENTRY_DIR;
	case S_IFLNK:
		return ENTRY_SYMLINK;
	case S_IFIFO:
		return ENTRY_FIFO;
	case S_IFSOCK:
		return ENTRY_SOCKET;
	case S_IFCHR:
		return ENTRY_CHAR;
	default:
		return ENTRY_BLOCK;
	}
}

bool stat_is_racy(const struct stat *st, bool network)
{
	long long window = network ? RACY_NETWORK_NS : RACY_NS;
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (now.tv_sec - st->st_ctim.tv_sec) * 1000000000LL +
		       (now.tv_nsec - st->st_ctim.tv_nsec) <
	       window;
}

bool ent_is_racy(const struct dir *d, const struct stat *st)
{
	return stat_is_racy(st, d->network);
}

bool ent_matches(struct tree *t, const struct ent *e, const struct stat *st)
{
	if (e->type != mode_type(st->st_mode) || e->mode != (st->st_mode & 07777) ||
	    e->ino != fold_ino(t, st->st_dev, st->st_ino))
		return false;
	/* The rest of a directory's attributes comes from its own listing. */
	if (e->type == ENTRY_DIR)
		return true;
	return e->size == (uint64_t)st->st_size && e->nlink == st->st_nlink &&
	       e->mtime_s == st->st_mtim.tv_sec && e->mtime_ns == st->st_mtim.tv_nsec &&
	       e->ctime_s == st->st_ctim.tv_sec && e->ctime_ns == st->st_ctim.tv_nsec;
}

static void ent_set_stat(struct tree *t, struct ent *e, const struct stat *st)
{
	e->type = mode_type(st->st_mode);
	e->mode = st->st_mode & 07777;
	e->ino = fold_ino(t, st->st_dev, st->st_ino);
	e->nlink = (uint32_t)st->st_nlink;
	e->size = (uint64_t)st->st_size;
	e->mtime_s = st->st_mtim.tv_sec;
	e->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
	e->ctime_s = st->st_ctim.tv_sec;
	e->ctime_ns = (uint32_t)st->st_ctim.tv_nsec;
}

void ent_set_known(struct ent *e, const struct digest *d, uint16_t claimed_by)
{
	if (e->type != ENTRY_FILE)
		return;
	if (!e->known)
		e->known = xmalloc(sizeof(*e->known));
	e->known->digest = *d;
	e->known->claimed_by = claimed_by;
}

/* ENTRY_ABSENT or ENTRY_UNKNOWN. */
static void set_nothing(struct tree *t, const struct dir *d, struct ent *e, uint8_t type)
{
	static const struct stat none;

	unindex_ent(t, d, e);
	ent_release(e);
	ent_set_stat(t, e, &none);
	e->type = type;
	e->ino = 0;
	e->flags &= (uint16_t) ~(ENT_INITIAL | ENT_RACY);
	e->version = ++t->version;
	e->relinked = 0;
}

/* Is the file itself watched, so that what is done to it by any name is an event? */
static bool is_watched_itself(const struct tree *t, const struct ent *e)
{
	const struct linked *l = linked_of(t, e);

	return l && l->watch;
}

/*
 * It got or lost another name, and no more: its bytes and their digest are what they were.  Not
 * where no event would tell of a write that the times don't show.
 */
static bool is_relinked(struct tree *t, const struct dir *d, const struct ent *e,
			const struct stat *st)
{
	return e->type == ENTRY_FILE && S_ISREG(st->st_mode) &&
	       e->ino == fold_ino(t, st->st_dev, st->st_ino) && e->nlink != st->st_nlink &&
	       e->mode == (st->st_mode & 07777) && e->size == (uint64_t)st->st_size &&
	       e->mtime_s == st->st_mtim.tv_sec && e->mtime_ns == st->st_mtim.tv_nsec &&
	       !(e->flags & (ENT_WRITTEN | ENT_GONE)) && !d->scan_now && !dir_is_swept(d) &&
	       (!(e->flags & ENT_RACY) || is_watched_itself(t, e));
}

static void set_relinked(struct tree *t, const struct dir *d, struct ent *e, const struct stat *st)
{
	uint64_t newer;

	unindex_ent(t, d, e);
	ent_set_stat(t, e, st);
	index_ent(t, d, e);
	newer = ++t->version - e->version;
	e->version = t->version;
	/* So far that it does not fit: as if the bytes had changed. */
	e->relinked = newer < UINT32_MAX - e->relinked ? e->relinked + (uint32_t)newer : 0;
}

static void set_present(struct tree *t, struct dir *d, struct ent *e, const struct stat *st,
			const char *target)
{
	struct digest digest;

	unindex_ent(t, d, e);
	ent_release(e);
	ent_set_stat(t, e, st);
	index_ent(t, d, e);
	e->version = ++t->version;
	e->relinked = 0;
	e->flags &= (uint16_t) ~(ENT_INITIAL | ENT_RACY);
	if (ent_is_racy(d, st))
		e->flags |= ENT_RACY;
	if (e->type == ENTRY_SYMLINK)
		e->target = xstrdup(target);
	else if (e->type == ENTRY_FILE && t->cache && hash_cache_get(t->cache, st, &digest))
		ent_set_known(e, &digest, CLAIM_NONE);
}

static void pend(struct tree *t, struct dir *d, struct ent *e)
{
	flush_later(t, d);
	if (e->flags & ENT_PENDING)
		return;
	e->flags |= ENT_PENDING;
	vec_push(&d->pending, e);
}

/* True when what e stands for now (nothing: of type `nothing`) is another version than the one we
 * know. */
static bool ent_changed(struct tree *t, const struct dir *d, const struct ent *e,
			const struct stat *st, uint8_t nothing)
{
	if (!st)
		return e->type != nothing;
	if (!ent_matches(t, e, st))
		return true;
	if (e->type == ENTRY_DIR)
		return e->child && e->child->dead;
	if (e->flags & (ENT_WRITTEN | ENT_GONE))
		return true;
	/* No event told whether it was written since; the times can't. */
	return d->scan_now && e->flags & ENT_RACY;
}

/*
 * What was under this name is lost.  Whatever changed of a directory's entry,
 * what was told about all beneath it is void by the protocol.
 */
static void ent_lose(struct tree *t, struct dir *d, struct ent *e, const struct stat *st)
{
	bool is_dir = e->type == ENTRY_DIR;
	bool same_dir = is_dir && st && S_ISDIR(st->st_mode) &&
			e->ino == fold_ino(t, st->st_dev, st->st_ino) &&
			!(e->child && e->child->dead);

	if (is_dir && e->child)
		dir_drop(t, e->child, &d->told);
	if (e->type != ENTRY_ABSENT && !same_dir && (is_dir || !st))
		tomb_put(t, d->path, e->name, t->version + 1);
}

/* 1 and the stat (with a symlink's target), 0 when nothing is there, or -errno: can't be told. */
static int look_at(struct tree *t, const struct dir *d, int fd, const char *name, struct stat *st,
		   char target[PROTO_PATH_MAX], bool *ret_mounted)
{
	/* A symlink may be replaced between the two calls, again and again. */
	for (int tries = 0; tries < 100; tries++) {
		int err = mounts_stat(t, d->path, fd, name, st, ret_mounted);
		ssize_t n;

		if (err)
			return err == -ENOENT ? 0 : err;
		if (!S_ISLNK(st->st_mode))
			return 1;
		n = readlinkat(fd, name, target, PROTO_PATH_MAX - 1);
		if (n >= 0) {
			target[n] = '\0';
			return 1;
		}
		if (errno != ENOENT && errno != EINVAL)
			return -errno;
	}
	return -EAGAIN;
}

void tree_busy(struct tree *t)
{
	if (t->ops.busy)
		t->ops.busy(t->data);
}

static void sweep_later(struct tree *t, struct dir *d, bool on)
{
	if (!on)
		list_remove(&d->in_sweep);
	else if (list_empty(&d->in_sweep))
		list_append(&t->sweep, &d->in_sweep);
}

/* What the disk would not say now, it may say at the next drain; no event will tell when. */
static void note_unknown(struct tree *t, struct dir *d, const struct ent *e, int err)
{
	/* Of many in one directory, one line.  What this user may not see is nobody's failure. */
	if (e->type != ENTRY_UNKNOWN && !d->unknown && err != -EACCES)
		log_warn("can't tell what %s/%s is: %s; jobs that need it run here", d->path,
			 e->name, err_text(err));
	d->unknown = true;
	sweep_later(t, d, true);
}

/* 1 when it must be looked at again, 0, or -errno. */
static int look_once(struct tree *t, struct dir *d, int fd, struct ent *e, bool in_vain)
{
	char target[PROTO_PATH_MAX];
	bool mounted = false;
	struct stat buf;
	int there = look_at(t, d, fd, e->name, &buf, target, &mounted);
	const struct stat *st = there > 0 ? &buf : NULL;
	uint8_t nothing = there < 0 ? ENTRY_UNKNOWN : ENTRY_ABSENT;
	bool same = st && e->ino == fold_ino(t, st->st_dev, st->st_ino);

	t->counts.stats++;
	tree_busy(t);
	if (there < 0 && !(e->flags & ENT_SEEN))
		return there;
	if (there < 0)
		note_unknown(t, d, e, there);
	if (!ent_changed(t, d, e, st, nothing)) {
		if (st && e->flags & ENT_RACY && !ent_is_racy(d, st))
			e->flags &= (uint16_t)~ENT_RACY;
		e->flags &= (uint16_t) ~(ENT_WRITTEN | ENT_GONE);
		return 0;
	}
	if (st && t->cache && e->type == ENTRY_FILE && ent_matches(t, e, st))
		hash_cache_drop(t->cache, st);
	ent_lose(t, d, e, st);
	if (st && is_relinked(t, d, e, st))
		set_relinked(t, d, e, st);
	else if (st)
		set_present(t, d, e, st, target);
	else
		set_nothing(t, d, e, nothing);
	e->flags &= (uint16_t) ~(ENT_WRITTEN | ENT_GONE);
	pend(t, d, e);
	return ent_track_links(t, d, fd, e, same, mounted, in_vain) ? 1 : 0;
}

int snap_check(struct tree *t, struct dir *d, int fd, struct ent *e)
{
	int r = 1;

	/* Who puts one file of many links after the other there has it looked at at every drain. */
	for (int tries = 0; r > 0 && tries < 10; tries++)
		r = look_once(t, d, fd, e, tries == 9);
	return r < 0 ? r : 0;
}

static void stat_to_attr(struct tree *t, const struct stat *st, struct entry_attr *ret)
{
	struct ent e = {0};

	ent_set_stat(t, &e, st);
	ent_to_attr(&e, 0, ret);
}

/* The directory's own attributes, from its open fd. */
static void dir_set_attr(struct tree *t, struct dir *d, const struct stat *st)
{
	struct entry_attr now;

	_Static_assert(sizeof(now) == 56 + DIGEST_SIZE, "compared as memory: no padding");
	stat_to_attr(t, st, &now);
	now.version = d->attr.version;
	if (memcmp(&now, &d->attr, sizeof(now)) == 0)
		return;
	now.version = ++t->version;
	d->attr = now;
	d->attr_changed = true;
	flush_later(t, d);
}

static int scan_names(struct tree *t, struct dir *d, int fd)
{
	bool writable = false;
	ssize_t n;

	(void)tree_root_of(t, d->path, &writable);
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	while ((n = getdents64(fd, t->scan_buf, sizeof(t->scan_buf))) > 0) {
		for (char *p = t->scan_buf; p < t->scan_buf + n;) {
			struct dirent64 *de = (struct dirent64 *)p;
			struct ent *e;

			p += de->d_reclen;
			if (streq(de->d_name, ".") || streq(de->d_name, ".."))
				continue;
			if (str_starts(de->d_name, TEMP_PREFIX)) {
				if (writable)
					temp_clean(t, fd, de->d_name);
				continue;
			}
			if (strlen(de->d_name) > PROTO_NAME_MAX)
				continue;
			e = names_add(t, d, de->d_name, strlen(de->d_name));
			e->flags |= ENT_SEEN;
			(void)snap_check(t, d, fd, e); /* can't fail: there is such a name */
		}
	}
	/* ENOENT: one that was removed, and can still be seen where it is mounted.  It is empty. */
	return n < 0 && errno != ENOENT ? -errno : 0;
}

/* Compares all names with the disk. */
static int scan(struct tree *t, struct dir *d, int fd)
{
	struct ent *e;
	int err;

	t->counts.scans++;
	d->unknown = false;
	err = scan_names(t, d, fd);
	for (uint32_t it = 0; (e = names_next(d, &it));) {
		if (!err && !(e->flags & ENT_SEEN))
			err = snap_check(t, d, fd, e);
		e->flags &= (uint16_t)~ENT_SEEN;
	}
	return err;
}

/* Events named them, but nothing is or was there. */
static void drop_placeholders(struct tree *t, struct dir *d)
{
	for (uint32_t i = 0; i < d->dirty.n; i++) {
		struct ent *e = d->dirty.v[i];

		e->flags &= (uint16_t)~ENT_DIRTY;
		if (e->type == ENTRY_ABSENT && !(e->flags & ENT_PENDING))
			names_del(t, d, e);
	}
	vec_release(&d->dirty);
}

/* Watched at last, or again: after an overflow the loss of a watch may have been missed. */
static void rewatch(struct tree *t, struct dir *d, int fd)
{
	int err = watch_dir(t, d, fd);

	sweep_later(t, d, err || d->network || d->orphan);
}

bool fd_has_default_acl(int fd)
{
	return fgetxattr(fd, "system.posix_acl_default", NULL, 0) > 0;
}

static int dir_look_fd(struct tree *t, struct dir *d, int fd)
{
	struct stat st;
	int err = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (fold_ino(t, st.st_dev, st.st_ino) != d->attr.ino)
		return CONCC_E_STALE;
	if (d->scan_now || d->acl_suspect)
		d->default_acl = fd_has_default_acl(fd);
	d->acl_suspect = false;
	if (d->scan_now) {
		rewatch(t, d, fd);
		err = scan(t, d, fd);
		d->scan_now = false;
	}
	for (uint32_t i = 0; !err && i < d->dirty.n; i++)
		err = snap_check(t, d, fd, d->dirty.v[i]);
	drop_placeholders(t, d);
	if (!err && fstat(fd, &st) < 0)
		err = -errno;
	if (!err)
		dir_set_attr(t, d, &st);
	return err;
}

static void dir_look(struct tree *t, struct dir *d)
{
	_cleanup_close_ int fd = -1;
	int err;

	d->queued = false;
	if (d->dropped)
		return;
	if (d->dead) {
		/* With a parent, that one's look has dropped it or will; without, it's ours. */
		if (!dir_entry(t, d))
			dir_forget(t, d);
		return;
	}
	fd = resolve_open(t, d->path, O_RDONLY | O_DIRECTORY);
	err = fd < 0 ? fd : dir_look_fd(t, d, fd);
	if (err == CONCC_E_STALE || err_is_fact(err)) {
		dir_mark_dead(t, d);
	} else if (err) {
		log_warn("can't look at %s: %s", d->path, err_text(err));
		dir_forget(t, d);
	}
}

static int ino_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void note_dir(void *data, uint32_t dir_id)
{
	struct tree *t = data;
	struct dir *d = map_get_u64(&t->by_id, dir_id);

	if (d && !d->in_links)
		dir_vec_push(&t->link_dirs, d);
	if (d)
		d->in_links = true;
}

static void mark_links(struct tree *t, struct dir *d)
{
	struct ent *e;

	t->counts.walked += d->names.n;
	for (uint32_t i = 0; (e = names_next(d, &i));) {
		if (has_one_name(e) &&
		    bsearch(&e->ino, t->new_links, t->n_new_links, sizeof(uint64_t), ino_cmp))
			mark_ent(t, d, e);
	}
}

/*
 * Names with several links came up: names listed before, when the file had one, are now written
 * through the new ones without an event of theirs.  Each directory that has such a name is gone
 * through once.
 */
static void find_linked(struct tree *t)
{
	if (!t->n_new_links)
		return;
	qsort(t->new_links, t->n_new_links, sizeof(uint64_t), ino_cmp);
	for (size_t i = 0; i < t->n_new_links; i++)
		inodes_find(&t->inodes, t->new_links[i], note_dir, t);
	for (size_t i = 0; i < t->link_dirs.n; i++) {
		mark_links(t, t->link_dirs.v[i]);
		t->link_dirs.v[i]->in_links = false;
	}
	t->link_dirs.n = 0;
	t->n_new_links = 0;
}

void dir_queue_scan(struct tree *t, struct dir *d)
{
	d->scan_now = true;
	dir_queue(t, d);
}

static void queue_overflow(struct tree *t)
{
	struct dir *d;

	if (!t->overflow)
		return;
	t->overflow = false;
	t->counts.overflows++;
	t->roots_suspect = true;
	log_info("too many file events at once: comparing %zu directories with the disk",
		 t->by_path.n);
	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL));)
		dir_queue_scan(t, d);
}

void snap_sweep(struct tree *t)
{
	roots_look(t);
	list_for_each (l, &t->sweep)
		dir_queue_scan(t, container_of(l, struct dir, in_sweep));
	list_for_each (i, &t->linked) {
		struct linked *l = container_of(i, struct linked, in_unwatched);

		mark_ent(t, l->dir, l->ent);
	}
}

/* Where no event tells of a write, nor do the times in the tick of the last one. */
static void freshen_name(struct tree *t, struct dir *d, const char *name)
{
	const struct ent *e = names_find(t, d, name, strlen(name));

	if (dir_is_swept(d))
		dir_mark_name(t, d, name, strlen(name), e && e->flags & ENT_RACY ? ENT_WRITTEN : 0);
	else if (e && e->flags & ENT_LINKED && !is_watched_itself(t, e))
		mark_ent(t, d, (struct ent *)e);
}

static void freshen_below(struct tree *t, struct dir *d)
{
	if (dir_is_swept(d))
		dir_queue_scan(t, d);
	list_for_each (l, &d->children)
		freshen_below(t, container_of(l, struct dir, siblings));
}

void snap_freshen(struct tree *t, const char *path)
{
	_cleanup_free_ char *name = NULL;
	struct dir *d;

	if (list_empty(&t->sweep) && list_empty(&t->linked))
		return;
	name = xstrdup(path);
	d = dir_find(t, path);
	if (d)
		freshen_below(t, d);
	while (name[1]) {
		char *parent = path_parent(name);

		d = dir_find(t, parent);
		if (d)
			freshen_name(t, d, path_base(name));
		free(name);
		name = parent;
	}
}

void snap_settle(struct tree *t)
{
	queue_overflow(t);
	do {
		if (t->roots_suspect)
			roots_check(t);
		for (size_t i = 0; i < t->queue.n; i++)
			dir_look(t, t->queue.v[i]);
		t->queue.n = 0;
		find_linked(t);
	} while (t->queue.n || t->roots_suspect);
	snap_flush(t);
}

uint64_t snap_note(struct tree *t, int dir_fd, const char *path, const struct digest *claim,
		   unsigned peer, bool written)
{
	_cleanup_free_ char *parent = path_parent(path);
	const char *base = path_base(path);
	struct dir *d;
	struct stat st;
	struct ent *e;

	d = dir_find(t, parent);
	if (!d)
		return ++t->version;
	e = names_add(t, d, base, strlen(base));
	if (written)
		e->flags |= ENT_WRITTEN;
	if (snap_check(t, d, dir_fd, e) < 0)
		dir_mark_dead(t, d);
	else if (fstat(dir_fd, &st) == 0)
		dir_set_attr(t, d, &st);
	if (claim && e->type == ENTRY_FILE && !e->known)
		ent_set_known(e, claim, (uint16_t)peer);
	/* A name that was not there and is not: looked at, to be dropped, at the end. */
	if (e->type == ENTRY_ABSENT && !(e->flags & ENT_PENDING))
		mark_ent(t, d, e);
	return e->type == ENTRY_ABSENT && !e->version ? ++t->version : e->version;
}

/* ---- new snapshots ---- */

/* Makes the parent's entry lead to d; looks at it again when it does not fit: CONCC_E_STALE. */
static int link_parent(struct tree *t, struct dir *d, struct dir *parent)
{
	_cleanup_close_ int fd = -1;
	const char *base = path_base(d->path);
	struct ent *e = names_find(t, parent, base, strlen(base));
	int err;

	if (!e || e->type != ENTRY_DIR || e->ino != d->attr.ino) {
		fd = resolve_open(t, parent->path, O_PATH | O_DIRECTORY);
		if (fd < 0)
			return fd;
		e = names_add(t, parent, base, strlen(base));
		err = snap_check(t, parent, fd, e);
		if (err || e->type != ENTRY_DIR || e->ino != d->attr.ino) {
			mark_ent(t, parent, e);
			return err ? err : CONCC_E_STALE;
		}
	}
	e->child = d;
	d->parent = parent;
	list_append(&parent->children, &d->siblings);
	return 0;
}

static struct dir *dir_alloc(struct tree *t, const char *path)
{
	struct dir *d = xcalloc(1, sizeof(*d));

	d->id = ++t->next_id;
	d->path = xstrdup(path);
	list_init(&d->siblings);
	list_init(&d->children);
	list_init(&d->in_watch);
	list_init(&d->in_sweep);
	list_init(&d->linked);
	list_init(&d->in_grave);
	map_put_str(&t->by_path, d->path, d);
	map_put_u64(&t->by_id, d->id, d);
	t->counts.dirs++;
	return d;
}

/* Of reading a directory that was opened: what it would not tell is no fact about it. */
static int read_error(int err)
{
	return err_is_fact(err) ? -EIO : err;
}

/* Watched first, read after: what falls between has an event. */
static int dir_read(struct tree *t, struct dir *d, int fd, bool orphan)
{
	struct stat st;
	struct ent *e;
	int err = watch_dir(t, d, fd);

	if (err == -ENOSPC)
		log_debug("no watch for %s: compared with the disk at each job", d->path);
	d->network = t->limits.network || fs_is_network(fd);
	d->orphan = orphan;
	sweep_later(t, d, err || d->network || orphan);
	mounts_note_dir(t, d->path);
	err = scan(t, d, fd);
	if (err)
		return read_error(err);
	for (uint32_t it = 0; (e = names_next(d, &it));) {
		e->flags = (uint16_t)((e->flags & ~ENT_PENDING) | ENT_INITIAL);
		/* Seen by readdir, gone before its lstat. */
		if (e->type == ENTRY_ABSENT)
			mark_ent(t, d, e);
	}
	vec_release(&d->pending);
	if (fstat(fd, &st) < 0)
		return -errno;
	d->default_acl = fd_has_default_acl(fd);
	dir_set_attr(t, d, &st);
	d->attr_changed = false;
	return 0;
}

static int dir_make(struct tree *t, const char *path, struct dir *parent, bool orphan,
		    struct dir **ret)
{
	_cleanup_close_ int fd = resolve_open(t, path, O_RDONLY | O_DIRECTORY);
	struct stat st;
	struct dir *d;
	int err;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	d = dir_alloc(t, path);
	stat_to_attr(t, &st, &d->attr);
	err = parent ? link_parent(t, d, parent) : 0;
	if (!err)
		err = dir_read(t, d, fd, orphan);
	if (err)
		dir_drop(t, d, NULL);
	else
		*ret = d;
	return err;
}

int dir_ensure(struct tree *t, const char *path, struct dir **ret)
{
	const struct root *top = root_outermost(t, path);
	_cleanup_free_ char *prefix = NULL;
	struct dir *d = dir_find(t, path);
	bool orphan = false;
	size_t len;

	*ret = d;
	if (d)
		return 0;
	if (!top)
		return -EACCES;
	prefix = xstrdup(path);
	for (len = strlen(top->path);; len += 1 + strcspn(path + len + 1, "/")) {
		struct dir *parent = d;
		int err = 0;

		if (len == 1)
			len = 0; /* served "/" : the next part starts at its slash */
		memcpy(prefix, path, len ? len : 1);
		prefix[len ? len : 1] = '\0';
		d = dir_find(t, prefix);
		if (!d)
			err = dir_make(t, prefix, parent, orphan, &d);
		if (!path[len] || (len == 0 && !path[1])) {
			*ret = d;
			return err;
		}
		if (err && err != -EACCES)
			return err;
		orphan = !d;
	}
}
