/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "guess.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "content.h"
#include "inode.h"
#include "want.h"

struct guess_item {
	struct list link;
	struct inode *inode; /* a reference */
};

void guess_init(struct mirror *m)
{
	list_init(&m->guesses);
	list_init(&m->guessed);
}

/* Under mirror.lock. */
static void put(struct mirror *m, struct list *where, struct inode *i)
{
	struct guess_item *g = xcalloc(1, sizeof(*g));

	g->inode = inode_ref(i);
	list_append(where, &g->link);
	m->n_guesses++;
}

static void drop(struct mirror *m, struct guess_item *g)
{
	list_remove(&g->link);
	m->n_guesses--;
	inode_unref(m, g->inode);
	free(g);
}

void guess_release(struct mirror *m)
{
	while (!list_empty(&m->guesses))
		drop(m, list_first(&m->guesses, struct guess_item, link));
	while (!list_empty(&m->guessed))
		drop(m, list_first(&m->guessed, struct guess_item, link));
}

static bool has_room(const struct mirror *m, uint64_t size)
{
	uint64_t max = GUESS_BYTES_MIN + m->useful_bytes;

	return !m->unread_bytes || (m->unread_bytes <= max && size <= max - m->unread_bytes);
}

/* The next ones that there is room for; references are the caller's. */
static size_t take_next(struct mirror *m, struct inode **ret, size_t max)
{
	size_t n = 0;

	while (n < max && !list_empty(&m->guesses)) {
		struct guess_item *g = list_first(&m->guesses, struct guess_item, link);
		struct inode *i = g->inode;
		bool wanted = i->guess == GUESS_WAITS && content_is_wanted(i);

		if (wanted && !has_room(m, i->attr.size))
			break;
		if (wanted) {
			i->guess = GUESS_ASKED;
			m->unread_bytes += i->attr.size;
			ret[n++] = inode_ref(i);
		} else if (i->guess == GUESS_WAITS) {
			i->guess = GUESS_NONE;
		}
		drop(m, g);
	}
	return n;
}

/* In one call for threads to make. */
#define AT_ONCE 256

void guess_go_on(struct mirror *m)
{
	struct inode *next[AT_ONCE];
	size_t n;

	do {
		pthread_mutex_lock(&m->lock);
		m->guess_called = false;
		n = take_next(m, next, AT_ONCE);
		pthread_mutex_unlock(&m->lock);
		content_fetch_ahead(m, next, n);
	} while (n == AT_ONCE);
}

void guess_add(struct mirror *m, struct inode *d, char *const *names)
{
	pthread_mutex_lock(&m->lock);
	for (char *const *n = names; *n && m->n_guesses < GUESSES_MAX; n++) {
		struct inode *i = dir_child(d, *n, strlen(*n));

		if (!i || i->guess != GUESS_NONE || i->attr.type != ENTRY_FILE || !i->attr.size)
			continue;
		/* What was asked for while the guess was on its way is as good as read. */
		if (content_is_wanted(i))
			i->guess = GUESS_WAITS;
		put(m, i->guess == GUESS_WAITS ? &m->guesses : &m->guessed, i);
	}
	pthread_mutex_unlock(&m->lock);
	guess_go_on(m);
}

/* There may be room for more. */
static void call_owner(struct mirror *m)
{
	if (m->guess_called || list_empty(&m->guesses))
		return;
	m->guess_called = true;
	want_guesses(m);
}

void guess_note_asked(struct mirror *m, uint64_t size)
{
	m->useful_bytes += size;
	call_owner(m);
}

void guess_note_read(struct mirror *m, struct inode *i)
{
	enum guess was = i->guess;

	i->guess = GUESS_NONE;
	if (was == GUESS_NONE)
		return;
	if (m->n_guesses < GUESSES_MAX)
		put(m, &m->guessed, i);
	if (was == GUESS_WAITS)
		return; /* it is asked for now, like others */
	m->unread_bytes -= i->attr.size;
	guess_note_asked(m, i->attr.size);
}

static uint32_t dir_id_of(const struct inode *i)
{
	return i->parent ? i->parent->dir->dir_id : 0;
}

/* All that were read in one directory; of what is not listed any more nothing can be told. */
static char **take_read(struct mirror *m, uint32_t *ret_dir_id)
{
	char **names = NULL;
	size_t n = 0;

	*ret_dir_id = 0;
	list_for_each_safe (p, &m->guessed) {
		struct inode *i = container_of(p, struct guess_item, link)->inode;
		uint32_t id = dir_id_of(i);

		if (id && !*ret_dir_id)
			*ret_dir_id = id;
		if ((id && id != *ret_dir_id) || n == PROTO_PREFETCH_MAX)
			continue;
		if (id)
			strv_push(&names, xstrdup(i->name));
		n += id != 0;
		drop(m, container_of(p, struct guess_item, link));
	}
	return names;
}

char **mirror_guessed(struct mirror *m, uint32_t *ret_dir_id)
{
	char **names;

	mirror_check_owner(m);
	pthread_mutex_lock(&m->lock);
	names = take_read(m, ret_dir_id);
	pthread_mutex_unlock(&m->lock);
	return names;
}
