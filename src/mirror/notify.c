/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "notify.h"

#include <stdlib.h>
#include <string.h>

#include "concc/log.h"
#include "concc/str.h"
#include "fuse.h"
#include "inode.h"
#include "want.h"

static void queue(struct mirror *m, enum notice_kind kind, const struct inode *i, const char *name)
{
	struct notice *n;

	if (i->nlookup == 0 && i != m->root)
		return; /* the kernel has nothing cached in a directory it does not know */
	n = xmalloc(sizeof(*n) + strlen(name) + 1);
	n->kind = kind;
	n->nodeid = fuse_nodeid(m, i);
	strcpy(n->name, name);
	list_append(&m->notices, &n->link);
	m->notices_queued++;
	pthread_cond_signal(&m->notices_added);
}

void notify_drop(struct mirror *m, const struct inode *dir, const char *name)
{
	queue(m, NOTICE_DROP, dir, name);
}

void notify_expire(struct mirror *m, const struct inode *dir, const char *name)
{
	queue(m, NOTICE_EXPIRE, dir, name);
}

void notify_inode(struct mirror *m, const struct inode *dir)
{
	queue(m, NOTICE_INODE, dir, "");
}

static void carry_out(struct mirror *m, const struct notice *n)
{
	atomic_fetch_add(&m->n_notifications, 1);
	switch (n->kind) {
	case NOTICE_DROP:
		fuse_inval_entry(m, n->nodeid, n->name, false);
		break;
	case NOTICE_EXPIRE:
		fuse_inval_entry(m, n->nodeid, n->name, true);
		break;
	case NOTICE_INODE:
		/*
		 * A READDIR answered before the change may be filling the cached listing just
		 * now, without any lock that inval_inode takes.  inval_entry takes the
		 * directory's own, even for a name that can't be, so it returns after that.
		 */
		fuse_inval_entry(m, n->nodeid, ".", true);
		fuse_inval_inode(m, n->nodeid);
		break;
	}
}

static void *run(void *arg)
{
	struct mirror *m = arg;
	struct list batch;

	list_init(&batch);
	pthread_mutex_lock(&m->lock);
	m->notifies = pthread_self();
	for (;;) {
		uint64_t seq;

		while (list_empty(&m->notices) && !m->stopping)
			pthread_cond_wait(&m->notices_added, &m->lock);
		if (m->stopping)
			break;
		list_take_all(&batch, &m->notices);
		seq = m->notices_queued;
		pthread_mutex_unlock(&m->lock);
		list_for_each_safe (p, &batch) {
			struct notice *n = container_of(p, struct notice, link);

			list_remove(&n->link);
			carry_out(m, n);
			free(n);
		}
		atomic_store(&m->notices_done, seq);
		mirror_wake(m);
		pthread_mutex_lock(&m->lock);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

int notify_start(struct mirror *m)
{
	int err = pthread_create(&m->notifier, NULL, run, m);

	m->notifier_runs = err == 0;
	return -err;
}

void notify_stop(struct mirror *m)
{
	if (m->notifier_runs) {
		pthread_mutex_lock(&m->lock);
		pthread_cond_signal(&m->notices_added);
		pthread_mutex_unlock(&m->lock);
		(void)pthread_join(m->notifier, NULL);
	}
	list_for_each_safe (p, &m->notices) {
		list_remove(p);
		free(container_of(p, struct notice, link));
	}
}
