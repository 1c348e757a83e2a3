/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "content.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/offload.h"
#include "concc/store.h"
#include "concc/str.h"
#include "fetch.h"
#include "fuse.h"
#include "guess.h"
#include "inode.h"
#include "want.h"

/* Bytes of one inode on the local disk. */
struct content {
	unsigned refs; /* the inode's, and those of reads under way */
	int fd;
	uint64_t have; /* valid bytes, from the start */
	struct inode *inode;
	struct list lru; /* in mirror.contents while it is the inode's */
};

/* ---- contents; under mirror.lock ---- */

static void content_unref(struct content *c)
{
	if (--c->refs > 0)
		return;
	(void)close(c->fd);
	free(c);
}

void content_drop(struct mirror *m, struct inode *i)
{
	struct content *c = i->content;

	if (!c)
		return;
	i->content = NULL;
	list_remove(&c->lru);
	m->n_contents--;
	content_unref(c);
}

static void drop_oldest(struct mirror *m)
{
	list_for_each_safe (p, &m->contents) {
		struct content *c = container_of(p, struct content, lru);

		if (m->n_contents < CONTENTS_MAX)
			return;
		if (!c->inode->fetch)
			content_drop(m, c->inode);
	}
}

void content_close_idle(void *mirror)
{
	struct mirror *m = mirror;

	pthread_mutex_lock(&m->lock);
	list_for_each_safe (p, &m->contents) {
		struct content *c = container_of(p, struct content, lru);

		if (!c->inode->fetch)
			content_drop(m, c->inode);
	}
	pthread_mutex_unlock(&m->lock);
}

void content_set(struct mirror *m, struct inode *i, int fd, uint64_t have)
{
	struct content *c = xcalloc(1, sizeof(*c));

	content_drop(m, i);
	drop_oldest(m);
	c->refs = 1;
	c->fd = fd;
	c->have = have;
	c->inode = i;
	i->content = c;
	list_append(&m->contents, &c->lru);
	m->n_contents++;
}

void content_has(struct inode *i, uint64_t have)
{
	i->content->have = have;
}

/* ---- reads ---- */

uint64_t content_read_end(const struct request *r)
{
	uint64_t size = r->inode->attr.size;

	return r->size < size - r->offset ? r->offset + r->size : size;
}

/* On a network file system what another host has removed can't be read: once more from the store,
 * or else from the client.  Not what is still on its way; but another read of the old bytes may
 * have had the new ones asked for. */
static bool can_read_again(struct mirror *m, struct request *r, const struct content *c)
{
	struct inode *i = r->inode;

	if (r->read_again || (i->fetch && i->content == c) || m->stopping)
		return false;
	r->read_again = true;
	r->not_in_store = false;
	if (i->content == c)
		content_drop(m, i);
	if (i->attr.has_digest)
		store_doubt(m->store, &i->attr.digest);
	return true;
}

/* What a read needs is on the local disk: takes r. */
static void read_now(struct mirror *m, struct request *r, struct content *c)
{
	size_t n = (size_t)(content_read_end(r) - r->offset);
	_cleanup_free_ char *buf = xmalloc(n); /* bounded by TRANSFER_MAX */
	ssize_t got;
	bool again;

	do
		got = pread(c->fd, buf, n, (off_t)r->offset);
	while (got < 0 && errno == EINTR);
	pthread_mutex_lock(&m->lock);
	again = got != (ssize_t)n && can_read_again(m, r, c);
	content_unref(c);
	if (got != (ssize_t)n && !again) {
		_cleanup_free_ char *path = inode_path(m, r->inode);

		want_failed(m, MIRROR_SOME_JOB, path, got < 0 ? -errno : -EIO);
	}
	pthread_mutex_unlock(&m->lock);
	if (got == (ssize_t)n)
		request_data(m, r, buf, n);
	else if (again)
		content_read(m, r);
	else
		request_fail(m, r, -EIO);
}

/* Opens the object of a known digest, without the lock: it may have to be hashed. */
static void look_in_store(struct mirror *m, struct request *r)
{
	struct inode *i = r->inode;
	struct digest d = i->attr.digest;
	struct stat st;
	int fd;

	pthread_mutex_unlock(&m->lock);
	fd = store_get(m->store, &d);
	if (fd >= 0 && (fstat(fd, &st) < 0 || (uint64_t)st.st_size != i->attr.size)) {
		(void)close(fd);
		fd = -1;
	}
	pthread_mutex_lock(&m->lock);
	if (fd < 0)
		r->not_in_store = true;
	else if (i->content || i->fetch)
		(void)close(fd); /* another was faster */
	else
		content_set(m, i, fd, i->attr.size);
}

/* Nothing at hand: 1 when the request waits, or -errno. */
static int ask_client(struct mirror *m, struct request *r)
{
	struct inode *i = r->inode;
	int err;

	if (!i->parent) {
		_cleanup_free_ char *path = inode_path(m, i);

		/* The client has another version by now. */
		want_failed(m, MIRROR_SOME_JOB, path, CONCC_E_STALE);
		return -EIO;
	}
	if (!i->parent->dir->dir_id) {
		/* A fetch names the directory by an id: it must be listed anew. */
		want_dir(m, i->parent);
		list_append(&i->parent->dir->waiting, &r->link);
		return 1;
	}
	if (!i->fetch) {
		(void)fetch_new(m, i);
		guess_note_asked(m, i->attr.size);
	}
	err = fetch_wait(i->fetch, r);
	if (err < 0) {
		_cleanup_free_ char *path = inode_path(m, i);

		want_failed(m, MIRROR_SOME_JOB, path, err);
		return -EIO;
	}
	return 1;
}

/* 0: *ret has the bytes, with a reference; 1: it waits; or -errno. */
static int try_read(struct mirror *m, struct request *r, struct content **ret)
{
	struct inode *i = r->inode;

	for (;;) {
		if (m->stopping)
			return -EIO;
		if (i->content && i->content->have >= content_read_end(r)) {
			*ret = i->content;
			(*ret)->refs++;
			list_remove(&(*ret)->lru);
			list_append(&m->contents, &(*ret)->lru);
			return 0;
		}
		if (i->fetch || !i->attr.has_digest || r->not_in_store)
			return ask_client(m, r);
		look_in_store(m, r);
	}
}

void content_read(struct mirror *m, struct request *r)
{
	struct content *c = NULL;
	int rc;

	if (r->inode->attr.type != ENTRY_FILE) {
		request_fail(m, r, r->inode->dir ? -EISDIR : -EINVAL);
		return;
	}
	if (r->offset >= r->inode->attr.size) {
		request_data(m, r, NULL, 0);
		return;
	}
	pthread_mutex_lock(&m->lock);
	guess_note_read(m, r->inode);
	rc = try_read(m, r, &c);
	pthread_mutex_unlock(&m->lock);
	if (rc == 0)
		read_now(m, r, c);
	else if (rc < 0)
		request_fail(m, r, rc);
}

/* ---- what is expected to be read ---- */

struct prefetch {
	struct mirror *m;
	size_t n;
	struct inode *inodes[]; /* a reference each */
};

bool content_is_wanted(const struct inode *i)
{
	return i->attr.type == ENTRY_FILE && i->attr.size && !i->content && !i->fetch &&
	       i->parent && i->parent->dir->dir_id;
}

/* Where it may block: the store is asked. */
static void prefetch_one(struct mirror *m, struct inode *i)
{
	struct digest d = i->attr.digest;
	bool known = i->attr.has_digest, here = false;

	pthread_mutex_unlock(&m->lock);
	if (known)
		here = store_has(m->store, &d);
	pthread_mutex_lock(&m->lock);
	if (!here && !m->stopping && content_is_wanted(i))
		(void)fetch_new(m, i);
}

static void prefetch_run(void *arg)
{
	struct prefetch *p = arg;

	pthread_mutex_lock(&p->m->lock);
	for (size_t k = 0; k < p->n; k++) {
		if (content_is_wanted(p->inodes[k]))
			prefetch_one(p->m, p->inodes[k]);
		inode_unref(p->m, p->inodes[k]);
	}
	pthread_mutex_unlock(&p->m->lock);
}

/* Takes p, and with it its references. */
static void prefetch_put(struct prefetch *p)
{
	struct mirror *m = p->m;

	if (!m->lane) {
		prefetch_run(p);
		free(p);
		return;
	}
	if (offload_put(m->lane, prefetch_run, free, p, sizeof(*p) + p->n * sizeof(p->inodes[0])))
		return;
	/* There is too much to do: it is asked for when it is read. */
	pthread_mutex_lock(&m->lock);
	for (size_t k = 0; k < p->n; k++)
		inode_unref(m, p->inodes[k]);
	pthread_mutex_unlock(&m->lock);
	free(p);
}

void content_prefetch(struct mirror *m, struct inode *d, char *const *names)
{
	struct prefetch *p = xcalloc(1, sizeof(*p) + strv_len(names) * sizeof(struct inode *));

	p->m = m;
	pthread_mutex_lock(&m->lock);
	for (char *const *n = names; *n; n++) {
		struct inode *i = dir_child(d, *n, strlen(*n));

		if (i && content_is_wanted(i))
			p->inodes[p->n++] = inode_ref(i);
	}
	pthread_mutex_unlock(&m->lock);
	prefetch_put(p);
}

void content_fetch_ahead(struct mirror *m, struct inode *const *files, size_t n)
{
	struct prefetch *p;

	if (!n)
		return;
	p = xcalloc(1, sizeof(*p) + n * sizeof(struct inode *));
	p->m = m;
	p->n = n;
	memcpy(p->inodes, files, n * sizeof(struct inode *));
	prefetch_put(p);
}
