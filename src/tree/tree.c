/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "snapshot.h"

int tree_new(const struct tree_ops *ops, void *data, struct hash_cache *cache, struct tree **ret,
	     struct errmsg *msg)
{
	return tree_new_limited(ops, data, cache, NULL, ret, msg);
}

int tree_new_limited(const struct tree_ops *ops, void *data, struct hash_cache *cache,
		     const struct tree_limits *limits, struct tree **ret, struct errmsg *msg)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	struct tree *t;

	if (fd < 0)
		return errmsg_set(
			msg, -errno,
			"can't watch files: inotify: %s (see fs.inotify.max_user_instances "
			"in sysctl)",
			err_text(-errno));
	t = xcalloc(1, sizeof(*t));
	t->ops = *ops;
	t->data = data;
	t->cache = cache;
	if (limits)
		t->limits = *limits;
	t->openat2_missing = t->limits.no_openat2;
	t->inotify_fd = fd;
	list_init(&t->roots);
	list_init(&t->sweep);
	list_init(&t->linked);
	list_init(&t->grave);
	list_init(&t->tomb_order);
	list_init(&t->checking);
	temp_init(t);
	watch_init(t);
	mounts_init(t);
	/* A guessable seed costs speed only. */
	(void)getrandom(&t->name_seed, sizeof(t->name_seed), 0);
	*ret = t;
	return 0;
}

static void drop_all(struct tree *t)
{
	struct dir *d;

	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL)); it = 0) {
		while (d->parent)
			d = d->parent;
		dir_drop(t, d, NULL);
	}
}

void tree_free(struct tree *t)
{
	struct dir *d;

	if (!t)
		return;
	/* Nobody is told that it ends. */
	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL));)
		d->subscribers = (struct peer_set){0};
	drop_all(t);
	t->queue.n = 0;
	updates_flush(t);
	list_for_each_safe (l, &t->roots)
		root_free(t, container_of(l, struct root, in_tree));
	t->horizon = UINT64_MAX;
	tombs_trim(t);
	(void)close(t->inotify_fd);
	mounts_release(t);
	map_release(&t->by_path);
	map_release(&t->by_id);
	map_release(&t->watches);
	tops_release(t);
	map_release(&t->tombs);
	map_release(&t->linked_by_ent);
	inodes_release(&t->inodes);
	free(t->link_dirs.v);
	free(t->queue.v);
	free(t->flush.v);
	free(t->new_links);
	free(t->devs);
	free(t);
}

/* Whoever lists or finds it, and whatever for. */
static int check_secrets(const char *path, struct errmsg *msg)
{
	_cleanup_free_ char *secret = path_secret(path);

	if (!secret)
		return 0;
	return errmsg_set(msg, CONCC_E_UNSAFE,
			  "%s is not served to workers, since %s would be in it", path, secret);
}

static int serve(struct tree *t, const char *path, const char *source, bool writable,
		 struct errmsg *msg)
{
	struct root *r;
	int err;

	if (!path_is_clean(path))
		return errmsg_set(msg, -EINVAL, "can't serve %s: not an absolute, clean path",
				  path);
	r = root_find(t, path);
	if (r && streq(r->path, path)) {
		r->writable |= writable;
		return 0;
	}
	err = check_secrets(source ? source : path, msg);
	if (err < 0)
		return err;
	r = xcalloc(1, sizeof(*r));
	r->path = xstrdup(path);
	r->source = source ? xstrdup(source) : NULL;
	r->writable = writable;
	r->fd = -1;
	r->err = -ENOENT;
	list_init(&r->anchors);
	list_append(&t->roots, &r->in_tree);
	err = root_open(t, r);
	if (err >= 0)
		return 0;
	root_free(t, r);
	return errmsg_set(msg, err, "can't serve %s: %s", path, err_text(err));
}

int tree_serve(struct tree *t, const char *path, bool writable, struct errmsg *msg)
{
	return serve(t, path, NULL, writable, msg);
}

int tree_serve_part(struct tree *t, const char *path, const char *source, struct errmsg *msg)
{
	return serve(t, path, source, false, msg);
}

void tree_withdraw(struct tree *t, const char *path)
{
	struct root *r = root_find(t, path);
	struct dir *d;

	if (!r || !streq(r->path, path))
		return;
	d = dir_find(t, path);
	if (d && !d->parent)
		dir_forget(t, d);
	root_free(t, r);
}

bool tree_serves_below(const struct tree *t, const char *path)
{
	list_for_each (l, &t->roots) {
		if (path_is_below(container_of(l, struct root, in_tree)->path, path))
			return true;
	}
	return false;
}

const char *tree_root_of(const struct tree *t, const char *path, bool *ret_writable)
{
	const struct root *r = root_find(t, path);

	if (!r)
		return NULL;
	if (ret_writable)
		*ret_writable = r->writable;
	return r->path;
}

uint64_t tree_mounts(struct tree *t)
{
	mounts_collect(t);
	return t->counts.mounts;
}

int tree_event_fd(const struct tree *t)
{
	return t->inotify_fd;
}

static bool nothing_to_do(const struct tree *t)
{
	if (t->queue.n || t->flush.n || t->overflow || t->roots_suspect || t->n_new_links)
		return false;
	return list_empty(&t->grave);
}

/*
 * All that events told.  Not mounts: within a job these are no news, and each request would cost a
 * call more; and nothing that is swept, which is as it was when the job began.
 */
static void drain_events(struct tree *t)
{
	t->counts.drains++;
	watch_collect(t);
	if (!nothing_to_do(t))
		snap_settle(t);
}

int tree_drain(struct tree *t)
{
	mounts_collect(t);
	snap_sweep(t);
	drain_events(t);
	return 0;
}

void tree_on_event(struct tree *t)
{
	drain_events(t);
}

/*
 * Its names can't be listed, and yet each can be found by who asks for it (mode 0311); or it is the
 * user's own, and its mode keeps jobs out before they ask us: it is overlayfs that does, to see
 * whether a directory that a job removes is empty (ovl_check_empty_dir(), fs/overlayfs/dir.c).
 */
static bool is_more_than_denied(struct tree *t, const char *path)
{
	_cleanup_close_ int fd = resolve_open(t, path, O_PATH | O_DIRECTORY);
	struct stat st;

	return fd >= 0 && (faccessat(fd, ".", X_OK, 0) == 0 ||
			   (fstat(fd, &st) == 0 && st.st_uid == geteuid()));
}

/* What was told of a root that is missing is taken back when it comes: no parent's UPDATE would. */
static void list_absent(struct tree *t, unsigned peer, const char *path, int err)
{
	struct root *top = root_outermost(t, path);
	uint32_t id = ++t->next_id;

	if (top && top->fd < 0 && streq(top->path, path)) {
		if (!top->absent_id)
			top->absent_id = id;
		id = top->absent_id;
		peer_set_add(&top->absent_subscribers, peer);
	}
	if (err_is_fact(err) && !(err == -EACCES && top && is_more_than_denied(t, path))) {
		updates_send_absent(t, peer, id, err == -EACCES ? DIR_DENIED : DIR_MISSING, path);
		return;
	}
	log_warn("can't list %s: %s", path, err_text(err));
	updates_send_unknown(t, peer, id, path, err);
}

/* Its directory was replaced while we read it, so many times: who does that for ever is not served.
 */
#define LIST_TRIES 10

void tree_list(struct tree *t, unsigned peer, const char *path)
{
	struct dir *d = NULL;
	int err = CONCC_E_STALE;

	if (peer >= TREE_PEERS_MAX)
		return;
	roots_look(t);
	d = dir_find(t, path);
	if (d && dir_is_swept(d))
		dir_queue_scan(t, d);
	drain_events(t);
	if (!path_is_clean(path)) {
		log_debug("a worker asked for a path that is not clean"); /* decoders refuse it */
		return;
	}
	for (int tries = 0; err == CONCC_E_STALE && tries < LIST_TRIES; tries++) {
		err = dir_ensure(t, path, &d);
		/* Reading may have found news about what is known already. */
		if (!nothing_to_do(t)) {
			snap_settle(t);
			d = dir_find(t, path);
		}
		if (!err && !d)
			err = CONCC_E_STALE;
	}
	if (!err)
		updates_send_dir(t, d, peer);
	else
		list_absent(t, peer, path, err);
}

const char *tree_dir_path(const struct tree *t, uint32_t dir_id)
{
	const struct dir *d = map_get_u64(&t->by_id, dir_id);

	return d && !d->dropped ? d->path : NULL;
}

uint32_t tree_dir_id(const struct tree *t, unsigned peer, const char *path)
{
	const struct dir *d = dir_find(t, path);

	return d && peer_set_has(&d->subscribers, peer) ? d->id : 0;
}

void tree_entry(const struct tree *t, uint32_t dir_id, const char *name, struct entry_attr *ret)
{
	const struct dir *d = map_get_u64(&t->by_id, dir_id);
	const struct ent *e = d ? dir_name(t, d, name, strlen(name)) : NULL;

	*ret = (struct entry_attr){0};
	if (e && e->type != ENTRY_ABSENT)
		ent_to_attr(e, TREE_PEERS_MAX, ret);
}

const char *tree_link(const struct tree *t, uint32_t dir_id, const char *name)
{
	const struct dir *d = map_get_u64(&t->by_id, dir_id);
	const struct ent *e = d ? dir_name(t, d, name, strlen(name)) : NULL;

	return e && e->type == ENTRY_SYMLINK ? e->target : NULL;
}

char **tree_few_dirs(const struct tree *t, const char *path, size_t max_dirs, uint64_t max_bytes)
{
	const struct dir *d = dir_find(t, path);
	_cleanup_strv_ char **names = NULL;
	const struct ent *e;
	size_t n = 0;

	for (uint32_t it = 0; d && (e = names_next(&d->names, &it));) {
		if (e->type != ENTRY_DIR)
			continue;
		if (++n > max_dirs)
			return NULL;
		if (e->size <= max_bytes)
			strv_push(&names, xstrndup(e->name, e->name_len));
	}
	return steal_ptr(&names);
}

bool tree_has_default_acl(const struct tree *t, const char *path)
{
	const struct dir *d = dir_find(t, path);

	return d && d->default_acl;
}

static void forget_peer(struct tree *t, struct dir *d, unsigned peer)
{
	struct ent *e;

	peer_set_del(&d->subscribers, peer);
	for (uint32_t it = 0; (e = names_next(&d->names, &it));) {
		if (e->type == ENTRY_FILE && e->known && e->known->claimed_by == peer) {
			free(e->known);
			e->known = NULL;
		}
	}
}

void tree_peer_reset(struct tree *t, unsigned peer)
{
	bool anyone = false;
	struct dir *d;

	if (peer >= TREE_PEERS_MAX)
		return;
	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL));) {
		forget_peer(t, d, peer);
		anyone |= !peer_set_empty(&d->subscribers);
	}
	list_for_each (l, &t->roots)
		peer_set_del(&container_of(l, struct root, in_tree)->absent_subscribers, peer);
	if (!anyone)
		drop_all(t); /* watches and memory are kept for those who use them */
}

static struct ent *find_version(struct tree *t, uint32_t dir_id, const char *name, uint64_t version)
{
	struct dir *d = map_get_u64(&t->by_id, dir_id);
	struct ent *e = d ? dir_name(t, d, name, strlen(name)) : NULL;

	/* Links that came or went since change nothing of the bytes. */
	return e && e->type == ENTRY_FILE && version >= ent_content_version(e) &&
			       version <= e->version
		       ? e
		       : NULL;
}

/* The version that name has, when fd is it. */
static int check_fd(struct tree *t, uint32_t dir_id, const char *name, uint64_t version, int fd,
		    struct ent **ret)
{
	struct stat st;
	struct dir *d;
	struct ent *e;

	if (fstat(fd, &st) < 0)
		return -errno;
	drain_events(t);
	e = find_version(t, dir_id, name, version);
	if (!e)
		return CONCC_E_STALE;
	d = map_get_u64(&t->by_id, dir_id);
	if (!ent_matches(t, e, &st)) {
		/* No event for it yet, or none at all: look, and tell the peers. */
		dir_mark_name(t, d, name, strlen(name), 0);
		snap_settle(t);
		/* A further name, made where nobody looks, is no change of its bytes. */
		e = find_version(t, dir_id, name, version);
		if (!e || !ent_matches(t, e, &st))
			return CONCC_E_STALE;
	}
	*ret = e;
	return 0;
}

int tree_open_file(struct tree *t, uint32_t dir_id, const char *name, uint64_t version, int *ret_fd,
		   struct entry_attr *ret)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *path = NULL;
	struct dir *d;
	struct stat st;
	struct ent *e;
	int64_t since;
	int err;

	drain_events(t);
	if (!find_version(t, dir_id, name, version))
		return CONCC_E_STALE;
	d = map_get_u64(&t->by_id, dir_id);
	path = path_join(d->path, name);
	/* Not a file any more by now?  Then opening must neither wait nor act. */
	fd = resolve_open(t, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	if (fd == -ENOENT || fd == -ELOOP || fd == -ENOTDIR || fd == -ENXIO)
		return CONCC_E_STALE;
	if (fd < 0)
		return fd;
	err = check_fd(t, dir_id, name, version, fd, &e);
	if (err)
		return err;
	since = clock_ns();
	if (e->flags & ENT_RACY && fstat(fd, &st) == 0)
		ent_grow_old(map_get_u64(&t->by_id, dir_id), e, &st, since);
	e->flags |= ENT_TOLD;
	ent_to_attr(e, TREE_PEERS_MAX, ret);
	*ret_fd = steal_fd(&fd);
	return 0;
}

int tree_check_file(struct tree *t, uint32_t dir_id, const char *name, uint64_t version, int fd)
{
	struct ent *e;

	return check_fd(t, dir_id, name, version, fd, &e);
}

void tree_learn(struct tree *t, uint32_t dir_id, const char *name, uint64_t version,
		const struct digest *d)
{
	struct ent *e = find_version(t, dir_id, name, version);
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	struct stat st;
	struct dir *dir;

	if (!e)
		return;
	ent_set_known(e, d, CLAIM_NONE);
	/* On disk only what was old enough when it was opened: a later change must show. */
	if (!t->cache || e->flags & ENT_RACY)
		return;
	dir = map_get_u64(&t->by_id, dir_id);
	path = path_join(dir->path, name);
	fd = resolve_open(t, path, O_PATH);
	if (fd >= 0 && fstat(fd, &st) == 0 && ent_matches(t, e, &st))
		hash_cache_put(t->cache, &st, d, dir->stamps);
}

uint64_t tree_version(const struct tree *t)
{
	return t->version;
}

void tree_set_horizon(struct tree *t, uint64_t v)
{
	/* All up to here that runs has seen; UINT64_MAX must not outlive the next job's start. */
	t->horizon = v < t->version ? v : t->version;
	tombs_trim(t);
}

static int changed_since(const struct tree *t, const char *path, uint64_t version, bool by_listing,
			 bool links_count)
{
	_cleanup_free_ char *parent = path_parent(path);
	const struct dir *d = dir_find(t, parent);
	const char *base = path_base(path);
	const struct ent *e;
	uint64_t now;

	if (tomb_version(t, path) > version || t->tomb_floor > version)
		return 1;
	/* A copy of it changes when that is made, and no sooner. */
	if (!d || d->dead || d->elsewhere || (!by_listing && d->known_since > version))
		return -ENOENT;
	e = dir_name(t, d, base, strlen(base));
	if (!e || e->type == ENTRY_ABSENT)
		return 0;
	if (e->type == ENTRY_UNKNOWN || (e->flags & ENT_RACY && dir_is_swept(d)))
		return 1;
	now = links_count || e->flags & ENT_RENEWED ? e->version : ent_content_version(e);
	return now > version && now > d->known_since;
}

int tree_changed_since(const struct tree *t, const char *path, uint64_t version, bool by_listing)
{
	return changed_since(t, path, version, by_listing, false);
}

int tree_links_changed_since(const struct tree *t, const char *path, uint64_t version,
			     bool by_listing)
{
	return changed_since(t, path, version, by_listing, true);
}

bool tree_confirms(struct tree *t, const char *path, const struct stat *st)
{
	_cleanup_free_ char *parent = path_parent(path);
	struct dir *d = dir_find(t, parent);
	const char *base = path_base(path);
	const struct ent *e = d ? dir_name(t, d, base, strlen(base)) : NULL;

	if (!e || (e->type != ENTRY_FILE && e->type != ENTRY_SYMLINK) || ent_matches(t, e, st))
		return true;
	dir_queue_scan(t, d);
	return false;
}

int tree_names_changed_since(const struct tree *t, const char *dir, uint64_t version,
			     bool by_listing)
{
	const struct dir *d = dir_find(t, dir);
	const struct ent *e;

	if (!d || d->dead || d->elsewhere || dir_is_swept(d) ||
	    (!by_listing && d->known_since > version))
		return -ENOENT;
	if (t->tomb_floor > version || tombs_in_since(t, dir, version))
		return 1;
	for (uint32_t it = 0; (e = names_next(&d->names, &it));)
		if (e->type == ENTRY_UNKNOWN ||
		    (e->version > version && e->version > d->known_since))
			return 1;
	return 0;
}

bool tree_is_same(struct tree *t, const char *path, const struct stat *st)
{
	const char *base = path_base(path);
	size_t n = (size_t)(base - path);
	const struct dir *d = n > 1 ? map_get(&t->by_path, path, n - 1) : NULL;
	const struct ent *e;

	/* Where no event tells of a write. */
	if (!d || d->dead || d->elsewhere || dir_is_swept(d))
		return false;
	e = dir_name(t, d, base, strlen(base));
	return e && e->type == ENTRY_FILE && e->nlink == 1 &&
	       !(e->flags & (ENT_DIRTY | ENT_WRITTEN | ENT_GONE)) && ent_matches(t, e, st);
}

int tree_know(struct tree *t, const char *path)
{
	struct dir *d;
	int err = dir_ensure(t, path, &d);

	if (!nothing_to_do(t))
		snap_settle(t);
	return err;
}

void tree_counts(const struct tree *t, struct tree_counts *ret)
{
	*ret = t->counts;
	list_for_each (l, &t->sweep)
		ret->swept++;
}
