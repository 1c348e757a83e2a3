/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/offload.h"
#include "concc/store.h"
#include "concc/str.h"
#include "content.h"
#include "fuse.h"
#include "inode.h"
#include "want.h"

struct fetch {
	uint32_t id;
	struct inode *inode; /* a reference */
	/* Under mirror.lock: */
	bool asked; /* FETCH was sent, so answers may come; before, the own disk is looked at */
	bool offers;
	struct digest offer; /* of what the store has of it, maybe: the client says */
	struct list waiting; /* requests for bytes not there yet */
	int err;	     /* reads get an error; the rest of the stream is let pass */
	bool dropped;	     /* the same, but who reads waits for the end and asks anew */
	/* Only where the client's contents are taken: */
	struct store_writer *writer; /* from the first bytes on */
	uint64_t have;
};

struct fetch *fetch_new(struct mirror *m, struct inode *i)
{
	struct fetch *f = xcalloc(1, sizeof(*f));

	do
		f->id = ++m->next_fetch_id;
	while (f->id == 0 || map_get_u64(&m->fetches, f->id));
	f->inode = inode_ref(i);
	list_init(&f->waiting);
	i->fetch = f;
	(void)map_put_u64(&m->fetches, f->id, f);
	want_file(m, f->id, i);
	return f;
}

int fetch_wait(struct fetch *f, struct request *r)
{
	if (f->err && !f->dropped)
		return f->err;
	list_append(&f->waiting, &r->link);
	return 0;
}

/* ---- their end ---- */

static void fetch_free(struct mirror *m, struct fetch *f)
{
	(void)map_del_u64(&m->fetches, f->id);
	f->inode->fetch = NULL;
	inode_unref(m, f->inode);
	store_abort(f->writer);
	free(f);
}

/* Nobody waits for these bytes: who does later asks anew. */
static void fetch_drop(struct mirror *m, struct fetch *f)
{
	pthread_mutex_lock(&m->lock);
	f->dropped = true;
	f->err = -ENOBUFS;
	content_drop(m, f->inode);
	pthread_mutex_unlock(&m->lock);
	store_abort(f->writer);
	f->writer = NULL;
}

/* The bytes will not come: gives the reads their error, once, and says so to the owner. */
static void fetch_fail(struct mirror *m, struct fetch *f, int err)
{
	struct list failed;

	list_init(&failed);
	pthread_mutex_lock(&m->lock);
	/* What nobody has asked for yet is no loss. */
	if (!f->err && !list_empty(&f->waiting)) {
		_cleanup_free_ char *path = inode_path(m, f->inode);

		want_failed(m, MIRROR_SOME_JOB, path, err);
	}
	f->err = err;
	content_drop(m, f->inode);
	list_take_all(&failed, &f->waiting);
	pthread_mutex_unlock(&m->lock);
	store_abort(f->writer);
	f->writer = NULL;
	requests_fail(m, &failed, -EIO);
}

static void fetch_end(struct mirror *m, struct fetch *f)
{
	struct list ready;

	list_init(&ready);
	pthread_mutex_lock(&m->lock);
	list_take_all(&ready, &f->waiting);
	fetch_free(m, f);
	pthread_mutex_unlock(&m->lock);
	requests_run(m, &ready);
}

/* ---- the own disk ---- */

/* One file of this machine's, before the client is asked. */
struct own {
	struct mirror *m;
	struct msg_fetch msg; /* if it has to be */
	char *path;
	uint64_t size;
	bool known, copied;
	struct digest digest; /* of the client's, when that is known, then of what was copied */
};

static void own_free(struct own *o)
{
	msg_fetch_release(&o->msg);
	free(o->path);
	free(o);
}

static void note_own(struct mirror *m, uint64_t size)
{
	atomic_fetch_add(&m->n_own_files, 1);
	atomic_fetch_add(&m->n_own_bytes, size);
}

static void own_run(void *arg)
{
	struct own *o = arg;
	struct mirror *m = o->m;
	_cleanup_close_ int fd = -1;
	struct fetch *f;
	bool stopping;

	pthread_mutex_lock(&m->lock);
	stopping = m->stopping;
	pthread_mutex_unlock(&m->lock);
	if (!stopping)
		fd = m->ops.open_own(m->data, o->path, o->size);
	if (fd < 0 ||
	    store_copy_fd(m->store, fd, o->size, o->known ? &o->digest : NULL, &o->digest) < 0)
		return;
	o->copied = true;
	if (!o->known)
		return;
	note_own(m, o->size);
	pthread_mutex_lock(&m->lock);
	f = map_get_u64(&m->fetches, o->msg.fetch_id);
	pthread_mutex_unlock(&m->lock);
	fetch_end(m, f); /* nobody else can have ended it: it was never sent */
}

static void own_done(void *arg)
{
	struct own *o = arg;
	struct mirror *m = o->m;
	struct fetch *f;
	bool ask;

	pthread_mutex_lock(&m->lock);
	ask = !m->stopping && !(o->copied && o->known);
	if (ask) {
		f = map_get_u64(&m->fetches, o->msg.fetch_id);
		f->asked = true;
		f->offers = o->msg.offers = o->copied;
		f->offer = o->msg.offer = o->digest;
	}
	pthread_mutex_unlock(&m->lock);
	if (ask) {
		atomic_fetch_add(&m->n_fetches, 1);
		m->ops.want_file(m->data, &o->msg);
	}
	own_free(o);
}

/* NULL when there can't be one.  Once for each version: what was taken from there and is gone from
 * the store comes from the client. */
static struct own *own_new(struct mirror *m, struct inode *i, const struct msg_fetch *msg)
{
	_cleanup_free_ char *path = NULL;
	struct own *o;

	if (!m->own_lane || i->own_tried)
		return NULL;
	path = inode_path(m, i);
	if (!m->ops.has_own(m->data, path))
		return NULL;
	i->own_tried = true;
	o = xcalloc(1, sizeof(*o));
	o->m = m;
	o->msg = *msg;
	o->msg.name = xstrdup(msg->name);
	o->path = steal_ptr(&path);
	o->size = i->attr.size;
	o->known = i->attr.has_digest;
	o->digest = i->attr.digest;
	return o;
}

void fetch_ask(struct mirror *m, const struct msg_fetch *msg)
{
	struct own *o;
	struct fetch *f;

	pthread_mutex_lock(&m->lock);
	f = map_get_u64(&m->fetches, msg->fetch_id);
	o = own_new(m, f->inode, msg);
	f->asked = !o;
	pthread_mutex_unlock(&m->lock);
	if (o) {
		/* Takes no bytes: can't fail. */
		(void)offload_put(m->own_lane, own_run, own_done, o, 0);
		return;
	}
	atomic_fetch_add(&m->n_fetches, 1);
	m->ops.want_file(m->data, msg);
}

/* ---- messages ---- */

/* The temporary file, and a second fd to it for the reads, which outlives the writer. */
static int open_writer(struct mirror *m, struct fetch *f)
{
	_cleanup_close_ int fd = -1;
	int err;

	err = store_begin(m->store, &f->writer);
	if (err < 0)
		return err;
	fd = fcntl(store_writer_fd(f->writer), F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	pthread_mutex_lock(&m->lock);
	content_set(m, f->inode, steal_fd(&fd), 0);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static bool is_waited_for(struct mirror *m, const struct fetch *f)
{
	bool is;

	pthread_mutex_lock(&m->lock);
	is = !list_empty(&f->waiting);
	pthread_mutex_unlock(&m->lock);
	return is;
}

static int write_bytes(struct mirror *m, struct fetch *f, const struct blob *data)
{
	int err = 0;

	if (!f->writer)
		err = open_writer(m, f);
	if (err == 0)
		err = store_write(f->writer, data->p, data->n);
	return err;
}

static void wake_reads(struct mirror *m, struct fetch *f)
{
	struct list ready;

	list_init(&ready);
	pthread_mutex_lock(&m->lock);
	content_has(f->inode, f->have);
	list_for_each_safe (p, &f->waiting) {
		struct request *r = container_of(p, struct request, link);

		if (content_read_end(r) <= f->have) {
			list_remove(&r->link);
			list_append(&ready, &r->link);
		}
	}
	pthread_mutex_unlock(&m->lock);
	requests_run(m, &ready);
}

static int on_data(struct mirror *m, struct fetch *f, const struct msg_content *c, bool lost)
{
	int err;

	if (c->offset != f->have || c->data.n > f->inode->attr.size - f->have) {
		fetch_fail(m, f, CONCC_E_PROTO);
		return CONCC_E_PROTO;
	}
	f->have += c->data.n;
	if (f->err)
		return 0;
	if (lost && !is_waited_for(m, f)) {
		fetch_drop(m, f);
		return 0;
	}
	err = lost ? -ENOBUFS : write_bytes(m, f, &c->data);
	if (err < 0)
		fetch_fail(m, f, err);
	else
		wake_reads(m, f);
	return 0;
}

/* A version has one digest: one that was told before must be this. */
static bool digest_agrees(struct mirror *m, const struct fetch *f, const struct digest *d)
{
	bool agrees;

	pthread_mutex_lock(&m->lock);
	agrees = !f->inode->attr.has_digest || digest_eq(&f->inode->attr.digest, d);
	pthread_mutex_unlock(&m->lock);
	return agrees;
}

/* Nothing but the word that what was offered is it. */
static bool is_as_offered(const struct fetch *f, const struct msg_content *c)
{
	return f->offers && f->have == 0 && digest_eq(&f->offer, &c->digest);
}

static int on_end(struct mirror *m, struct fetch *f, const struct msg_content *c)
{
	int err = 0;

	if (f->err) {
		fetch_end(m, f);
		return 0;
	}
	if (is_as_offered(f, c))
		note_own(m, f->inode->attr.size);
	else if (!f->writer || f->have != f->inode->attr.size || !digest_agrees(m, f, &c->digest))
		err = CONCC_E_PROTO;
	if (err == 0 && f->writer)
		err = store_commit(steal_ptr(&f->writer), &c->digest, NULL, NULL);
	if (err == CONCC_E_PROTO) {
		fetch_fail(m, f, err);
		fetch_end(m, f);
		return err;
	}
	/* Not put in place (disk full, folder gone): the reads' fd still has the bytes, so go on.
	 */
	pthread_mutex_lock(&m->lock);
	f->inode->attr.digest = c->digest;
	f->inode->attr.has_digest = true;
	pthread_mutex_unlock(&m->lock);
	fetch_end(m, f);
	return 0;
}

static int on_error(struct mirror *m, struct fetch *f, int err)
{
	fetch_fail(m, f, err);
	fetch_end(m, f);
	return 0;
}

/* lost: its bytes were too many to be kept until now. */
static int take(struct mirror *m, const struct msg_content *c, bool lost)
{
	struct fetch *f;
	bool stopping;

	pthread_mutex_lock(&m->lock);
	stopping = m->stopping;
	f = map_get_u64(&m->fetches, c->fetch_id);
	pthread_mutex_unlock(&m->lock);
	if (stopping)
		return 0;
	if (!f)
		return CONCC_E_PROTO;
	switch (c->state) {
	case CONTENT_DATA:
		return on_data(m, f, c, lost);
	case CONTENT_END:
		return on_end(m, f, c);
	case CONTENT_GONE:
		return on_error(m, f, CONCC_E_STALE);
	case CONTENT_ERROR:
		return on_error(m, f, c->error > 0 && c->error < 4096 ? -(int)c->error : -EIO);
	default:
		return CONCC_E_PROTO;
	}
}

struct message {
	struct mirror *m;
	struct msg_content c;
	bool lost;
	int err;
	uint8_t bytes[];
};

static void message_run(void *arg)
{
	struct message *g = arg;

	g->err = take(g->m, &g->c, g->lost);
}

static void message_done(void *arg)
{
	struct message *g = arg;

	if (g->err < 0 && g->m->ops.broken && !g->m->broken) {
		g->m->broken = true; /* once is enough */
		g->m->ops.broken(g->m->data, g->err);
	}
	free(g);
}

/* The bytes are the link's. */
static struct message *message_new(struct mirror *m, const struct msg_content *c, bool lost)
{
	size_t n = c->state == CONTENT_DATA && !lost ? c->data.n : 0;
	struct message *g = xmalloc(sizeof(*g) + n);

	*g = (struct message){.m = m, .c = *c, .lost = lost};
	if (n)
		memcpy(g->bytes, c->data.p, n);
	g->c.data.p = g->bytes;
	return g;
}

/* An id that is not there never was, or has had its last message. */
static bool was_asked_for(struct mirror *m, uint32_t fetch_id)
{
	const struct fetch *f;
	bool was;

	pthread_mutex_lock(&m->lock);
	f = map_get_u64(&m->fetches, fetch_id);
	was = f && f->asked;
	pthread_mutex_unlock(&m->lock);
	return was;
}

int fetch_message(struct mirror *m, const struct msg_content *c)
{
	struct message *g;

	if (!was_asked_for(m, c->fetch_id))
		return CONCC_E_PROTO;
	if (!m->lane)
		return take(m, c, false);
	g = message_new(m, c, false);
	if (offload_put(m->lane, message_run, message_done, g,
			c->state == CONTENT_DATA ? sizeof(*g) + c->data.n : 0))
		return 0;
	free(g);
	g = message_new(m, c, true);
	(void)offload_put(m->lane, message_run, message_done, g,
			  0); /* takes no bytes: can't fail */
	return 0;
}

void fetch_waiting(struct mirror *m, struct list *ret)
{
	struct fetch *f;
	size_t it = 0;

	while ((f = map_next(&m->fetches, &it, NULL)))
		list_take_all(ret, &f->waiting);
}

void fetch_release(struct mirror *m)
{
	struct fetch *f;
	size_t it = 0;

	while ((f = map_next(&m->fetches, &it, NULL)))
		fetch_free(m, f);
	map_release(&m->fetches);
}
