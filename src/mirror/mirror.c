/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/mirror.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/offload.h"
#include "concc/store.h"
#include "concc/str.h"
#include "content.h"
#include "fetch.h"
#include "fuse.h"
#include "inode.h"
#include "notify.h"
#include "outside.h"
#include "want.h"

/* ---- life ---- */

static struct mirror *mirror_new(const struct mirror_config *c, const struct mirror_ops *ops,
				 void *data)
{
	struct mirror *m = xcalloc(1, sizeof(*m));

	m->owner = pthread_self();
	m->ops = *ops;
	m->data = data;
	m->store = c->store;
	m->lane = c->disk ? offload_lane(c->disk) : NULL;
	m->own_lane = c->disk && ops->open_own ? offload_lane(c->disk) : NULL;
	m->mountpoint = xstrdup(c->mountpoint);
	m->uid = c->uid;
	m->gid = c->gid;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->notices_added, NULL);
	list_init(&m->wants);
	list_init(&m->notices);
	list_init(&m->contents);
	guess_init(m);
	clock_gettime(CLOCK_REALTIME, &m->started);
	m->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	mirror_tree_init(m);
	store_on_full(m->store, content_close_idle, m);
	return m;
}

static void mirror_free(struct mirror *m)
{
	store_on_full(m->store, NULL, NULL);
	list_for_each_safe (p, &m->wants) {
		list_remove(p);
		want_free(container_of(p, struct want, link));
	}
	guess_release(m);
	mirror_tree_release(m);
	if (m->event_fd >= 0)
		(void)close(m->event_fd);
	pthread_cond_destroy(&m->notices_added);
	pthread_mutex_destroy(&m->lock);
	free(m->mountpoint);
	free(m);
}

/* The threads take no signals: those are the owner's loop's. */
static int start_threads(struct mirror *m, const struct mirror_config *c, struct errmsg *msg)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	err = fuse_start(m, c, msg);
	if (err == 0) {
		err = notify_start(m);
		if (err < 0)
			errmsg_set(msg, err, "can't start a thread: %s", err_text(err));
	}
	if (err == 0)
		err = outside_start(m, c->outside_fd, &m->places, msg);
	else if (c->outside_fd)
		(void)close(c->outside_fd);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

int mirror_start(const struct mirror_config *c, const struct mirror_ops *ops, void *data,
		 struct mirror **ret, struct errmsg *msg)
{
	struct mirror *m = mirror_new(c, ops, data);
	int err = 0;

	if (m->event_fd < 0)
		err = errmsg_set(msg, -errno, "can't make an eventfd: %s", strerror(errno));
	if (err == 0)
		err = start_threads(m, c, msg);
	if (err < 0) {
		mirror_stop(m);
		return err;
	}
	*ret = m;
	return 0;
}

void mirror_abort(struct mirror *m)
{
	struct list waiting;

	if (!m)
		return;
	mirror_check_owner(m);
	/* First, since it is mounted on the other. */
	outside_stop(steal_ptr(&m->places));
	list_init(&waiting);
	pthread_mutex_lock(&m->lock);
	m->stopping = true; /* from now on nothing begins to wait */
	mirror_tree_waiting(m, &waiting);
	fetch_waiting(m, &waiting);
	pthread_mutex_unlock(&m->lock);
	requests_fail(m, &waiting, -EIO);
	fuse_abort(m);
}

void mirror_stop(struct mirror *m)
{
	if (!m)
		return;
	if (!m->stopping)
		mirror_abort(m);
	notify_stop(m);
	fuse_stop(m);
	pthread_mutex_lock(&m->lock);
	fetch_release(m);
	pthread_mutex_unlock(&m->lock);
	mirror_free(m);
}

/* ---- the owner's events ---- */

int mirror_event_fd(const struct mirror *m)
{
	return m->event_fd;
}

static void call_owner(struct mirror *m, const struct want *w)
{
	switch (w->kind) {
	case WANT_DIR:
		atomic_fetch_add(&m->n_lists, 1);
		m->ops.want_dir(m->data, w->path);
		break;
	case WANT_FILE:
		fetch_ask(m, &w->fetch);
		break;
	case WANT_GUESSES:
		guess_go_on(m);
		break;
	case WANT_FAILED:
		if (m->ops.failed)
			m->ops.failed(m->data, w->job, w->path, w->err);
		break;
	case WANT_OUTSIDE:
		m->ops.outside(m->data, w->job, w->how, w->path);
		break;
	}
}

void mirror_dispatch(struct mirror *m)
{
	struct list wants;
	uint64_t n;

	mirror_check_owner(m);
	list_init(&wants);
	(void)!read(m->event_fd, &n, sizeof(n)); /* EAGAIN: called without need */
	pthread_mutex_lock(&m->lock);
	list_take_all(&wants, &m->wants);
	pthread_mutex_unlock(&m->lock);
	list_for_each_safe (p, &wants) {
		struct want *w = container_of(p, struct want, link);

		list_remove(&w->link);
		call_owner(m, w);
		want_free(w);
	}
}

uint64_t mirror_seq(const struct mirror *m)
{
	struct mirror *mm = (struct mirror *)m; /* only to lock */
	uint64_t seq;

	pthread_mutex_lock(&mm->lock);
	seq = m->notices_queued;
	pthread_mutex_unlock(&mm->lock);
	return seq;
}

bool mirror_flushed(const struct mirror *m, uint64_t seq)
{
	return atomic_load(&m->notices_done) >= seq;
}

void mirror_job_started(struct mirror *m, uint32_t job_id, uint64_t seq)
{
	struct job_seq *j = xcalloc(1, sizeof(*j));

	mirror_check_owner(m);
	j->seq = seq;
	pthread_mutex_lock(&m->lock);
	job_seq_free(map_put_u64(&m->jobs, job_id, j));
	pthread_mutex_unlock(&m->lock);
}

void mirror_job_ended(struct mirror *m, uint32_t job_id)
{
	mirror_check_owner(m);
	pthread_mutex_lock(&m->lock);
	job_seq_free(map_del_u64(&m->jobs, job_id));
	pthread_mutex_unlock(&m->lock);
}

char **mirror_copied(struct mirror *m, uint32_t job_id)
{
	char **ret = xcalloc(1, sizeof(*ret)), *path;
	struct job_seq *j;
	size_t it = 0;

	pthread_mutex_lock(&m->lock);
	j = map_get_u64(&m->jobs, job_id);
	while (j && (path = map_next(&j->copied, &it, NULL)))
		strv_push(&ret, xstrdup(path));
	pthread_mutex_unlock(&m->lock);
	return ret;
}

/* ---- messages of the client ---- */

int mirror_serve(struct mirror *m, const char *path)
{
	int err;

	mirror_check_owner(m);
	if (!path_is_clean(path))
		return CONCC_E_PROTO;
	pthread_mutex_lock(&m->lock);
	err = mirror_tree_serve(m, path);
	pthread_mutex_unlock(&m->lock);
	outside_add(m->places, path, true); /* where a job's own view of it is mounted */
	return err;
}

int mirror_outside(struct mirror *m, const char *path, bool kept)
{
	mirror_check_owner(m);
	if (!path_is_clean(path))
		return CONCC_E_PROTO;
	outside_add(m->places, path, kept);
	return 0;
}

int mirror_link(struct mirror *m, const struct msg_link *l)
{
	mirror_check_owner(m);
	return outside_link(m->places, l->path, l->target);
}

int mirror_bare(struct mirror *m, const struct msg_bare *b)
{
	mirror_check_owner(m);
	return outside_bare(m->places, b);
}

void mirror_outside_absent(struct mirror *m, const struct msg_outside *o)
{
	struct inode *d;
	bool partial;

	mirror_check_owner(m);
	pthread_mutex_lock(&m->lock);
	d = mirror_tree_find(m, o->dir);
	partial = d && d->dir && d->dir->partial;
	if (partial && !*o->names)
		mirror_tree_absent_forget(m, d);
	for (char **n = o->names; partial && *n; n++)
		mirror_tree_absent_add(m, d, *n);
	pthread_mutex_unlock(&m->lock);
	if (!partial && !*o->names)
		outside_absent(m->places, o->dir, "");
	for (char **n = o->names; !partial && *n; n++)
		outside_absent(m->places, o->dir, *n);
}

static void remove_unmarked(struct mirror *m, struct inode *d, struct list *ready)
{
	struct dir *dir = d->dir;
	uint64_t at = 0;
	size_t k;

	/* By cookie: removing may move the slots. */
	while ((k = dir_slot_after(dir, at)) < dir->n_slots) {
		struct inode *child = dir->slots[k].inode;

		at = dir->slots[k].cookie;
		if (child && child->mark != dir->mark)
			mirror_tree_remove(m, d, child, ready);
	}
}

/* Each name in turn; the same for a listing and for an update. */
static int apply_all(struct mirror *m, struct inode *d, struct rd entries, uint32_t n,
		     struct list *ready)
{
	for (uint32_t k = 0; k < n; k++) {
		struct dir_entry e;
		int err;

		dir_entry_decode(&entries, &e);
		if (entries.bad)
			return CONCC_E_PROTO;
		err = mirror_tree_apply(m, d, &e, ready);
		if (err < 0)
			return err;
	}
	return 0;
}

static int apply_listing(struct mirror *m, struct inode *d, const struct msg_dir *msg,
			 struct list *ready)
{
	const struct inode *holder = map_get_u64(&m->dir_ids, msg->dir_id);
	int err;

	if (msg->dir_id == 0 || msg->attr.type != ENTRY_DIR || (holder && holder != d))
		return CONCC_E_PROTO;
	mirror_tree_bind_id(m, d, msg->dir_id);
	d->dir->mark = ++m->mark;
	err = apply_all(m, d, msg->entries, msg->n, ready);
	if (err < 0)
		return err;
	remove_unmarked(m, d, ready);
	d->dir->listed = true;
	d->dir->partial = msg->state == DIR_PARTIAL;
	mirror_tree_set_dir_attr(m, d, &msg->attr);
	list_take_all(ready, &d->dir->waiting);
	return 0;
}

/* The client may not read it: nothing watches it, so it is asked anew each time. */
static void apply_denied(struct inode *d, struct list *ready, struct list *failed)
{
	list_for_each_safe (p, &d->dir->waiting) {
		struct request *r = container_of(p, struct request, link);

		list_remove(&r->link);
		r->denied = true;
		/* Its parent's listing knows the attributes, unless it is a served root. */
		list_append(r->kind == REQUEST_GETATTR && !d->dir->served ? ready : failed,
			    &r->link);
	}
}

/*
 * The parent's listing said directory and the client says no: one of them is
 * late.  The parent's is asked for anew, so that it can't stay wrong.  Where the
 * kernel had it, a job may have seen it, and it may have moved with all that is
 * in it: what a name there stands for is not known, and not "nothing".  A served
 * root that never was is that.
 */
static void apply_missing(struct mirror *m, struct inode *d, struct list *failed, struct list *lost)
{
	list_take_all(d->nlookup ? lost : failed, &d->dir->waiting);
	mirror_tree_forget(m, d, true);
	if (d->parent && d->parent->dir->listed)
		mirror_tree_forget(m, d->parent, false);
}

int mirror_dir(struct mirror *m, const struct msg_dir *msg)
{
	struct list ready, failed, lost;
	struct inode *d;
	int fail_with = -ENOENT, lost_with = -(int)msg->error;
	int err = 0;

	mirror_check_owner(m);
	if (!path_is_clean(msg->path))
		return CONCC_E_PROTO;
	list_init(&ready);
	list_init(&failed);
	list_init(&lost);
	pthread_mutex_lock(&m->lock);
	d = mirror_tree_find(m, msg->path);
	if (d && d->dir && d->dir->synthetic) {
		err = CONCC_E_PROTO; /* nobody serves that */
	} else if (d && d->dir) {
		d->dir->asked = false;
		if (msg->state == DIR_LISTED || msg->state == DIR_PARTIAL) {
			err = apply_listing(m, d, msg, &ready);
		} else if (msg->state == DIR_DENIED) {
			fail_with = -EACCES;
			apply_denied(d, &ready, &failed);
		} else if (msg->state == DIR_UNKNOWN) {
			/* Whoever asks next asks anew. */
			list_take_all(&lost, &d->dir->waiting);
		} else {
			lost_with = CONCC_E_STALE;
			apply_missing(m, d, &failed, &lost);
		}
	}
	/* Else it is gone from its parent's listing, or that was never asked for: of no use. */
	pthread_mutex_unlock(&m->lock);
	requests_fail(m, &failed, fail_with);
	requests_lose(m, &lost, msg->path, lost_with);
	requests_run(m, &ready);
	return err;
}

/* Only the owner's thread changes directories. */
static struct inode *listed_dir(struct mirror *m, uint32_t dir_id)
{
	struct inode *d;

	pthread_mutex_lock(&m->lock);
	d = map_get_u64(&m->dir_ids, dir_id);
	if (d && !d->dir->listed)
		d = NULL;
	pthread_mutex_unlock(&m->lock);
	return d;
}

void mirror_prefetch(struct mirror *m, const struct msg_prefetch *p)
{
	struct inode *d;

	mirror_check_owner(m);
	d = listed_dir(m, p->dir_id);
	if (d)
		content_prefetch(m, d, p->names);
}

void mirror_guess(struct mirror *m, const struct msg_prefetch *p)
{
	struct inode *d;

	mirror_check_owner(m);
	d = listed_dir(m, p->dir_id);
	if (d)
		guess_add(m, d, p->names);
}

int mirror_update(struct mirror *m, const struct msg_update *u)
{
	struct list ready;
	struct inode *d;
	int err = 0;

	mirror_check_owner(m);
	if (u->dir_id == 0 || u->attr.type != ENTRY_DIR)
		return CONCC_E_PROTO;
	list_init(&ready);
	pthread_mutex_lock(&m->lock);
	d = map_get_u64(&m->dir_ids, u->dir_id);
	/* An id that died here may still be alive there: what is said of it is not needed. */
	if (d) {
		err = apply_all(m, d, u->entries, u->n, &ready);
		mirror_tree_set_dir_attr(m, d, &u->attr);
	}
	pthread_mutex_unlock(&m->lock);
	requests_run(m, &ready);
	return err;
}

int mirror_dir_stale(struct mirror *m, uint32_t dir_id)
{
	struct inode *d;

	mirror_check_owner(m);
	if (dir_id == 0)
		return CONCC_E_PROTO;
	pthread_mutex_lock(&m->lock);
	d = map_get_u64(&m->dir_ids, dir_id);
	if (d)
		mirror_tree_forget(m, d, false);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

int mirror_content(struct mirror *m, const struct msg_content *c)
{
	mirror_check_owner(m);
	return fetch_message(m, c);
}

/* ---- what is known ---- */

static int peek_locked(const struct mirror *m, const char *path, const struct inode **ret)
{
	const struct inode *at = m->root;

	for (;;) {
		size_t len;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (len == 0)
			break;
		if (!at->dir)
			return -ENOENT;
		if (!dir_complete(at))
			return -EAGAIN;
		at = dir_child(at, path, len);
		if (!at)
			return -ENOENT;
		path += len;
	}
	if (at->dir && at->dir->served && !at->dir->listed)
		return -EAGAIN; /* its attributes come with its listing */
	*ret = at;
	return 0;
}

int mirror_peek(struct mirror *m, const char *path, struct entry_attr *ret)
{
	const struct inode *i;
	int err;

	pthread_mutex_lock(&m->lock);
	err = peek_locked(m, path, &i);
	if (err == 0)
		*ret = i->attr;
	pthread_mutex_unlock(&m->lock);
	return err;
}

void mirror_learn(struct mirror *m, const char *path, uint64_t version, const struct digest *d)
{
	struct inode *i;

	mirror_check_owner(m);
	pthread_mutex_lock(&m->lock);
	i = mirror_tree_find(m, path);
	if (i && i->attr.type == ENTRY_FILE && i->attr.version == version && !i->attr.has_digest) {
		i->attr.digest = *d;
		i->attr.has_digest = true;
	}
	pthread_mutex_unlock(&m->lock);
}

void mirror_counts(const struct mirror *m, struct mirror_counts *ret)
{
	*ret = (struct mirror_counts){
		.notifications = atomic_load(&m->n_notifications),
		.lists = atomic_load(&m->n_lists),
		.fetches = atomic_load(&m->n_fetches),
		.own_files = atomic_load(&m->n_own_files),
		.own_bytes = atomic_load(&m->n_own_bytes),
	};
	for (size_t k = 0; k < MIRROR_OPCODES; k++) {
		ret->by_opcode[k] = atomic_load(&m->by_opcode[k]);
		ret->total += ret->by_opcode[k];
	}
}
