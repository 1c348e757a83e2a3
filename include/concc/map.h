/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MAP_H
#define CONCC_MAP_H

/*
 * Open-addressing hash maps from a byte string or a u64 to a pointer, and an
 * intrusive doubly linked list.  A map copies string keys and owns the copies;
 * values are the caller's.  Hashing is seeded per process, since names come
 * from outside.  Not thread safe; the owner locks.  Nothing fails (no memory: abort) or blocks.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot;

struct map {
	struct map_slot *slots;
	size_t cap;  /* power of two, or 0 */
	size_t n;    /* live entries */
	size_t used; /* live and deleted entries */
};

#define MAP_INIT ((struct map){0})

void map_release(struct map *m); /* frees keys and table, not the values */
void *map_get(const struct map *m, const void *key, size_t len);
void *map_get_str(const struct map *m, const char *key);
void *map_get_u64(const struct map *m, uint64_t key);
/* Sets and returns the former value (NULL when there was none).  value must not be NULL. */
void *map_put(struct map *m, const void *key, size_t len, void *value);
void *map_put_str(struct map *m, const char *key, void *value);
void *map_put_u64(struct map *m, uint64_t key, void *value);
/* The key is borrowed until it is removed, or put again: as when it is part of the value. */
void *map_put_borrowed(struct map *m, const char *key, void *value);
/* Removes and returns the value, NULL when it was not there. */
void *map_del(struct map *m, const void *key, size_t len);
void *map_del_str(struct map *m, const char *key);
void *map_del_u64(struct map *m, uint64_t key);

/*
 * Iterates in no order: `size_t it = 0; while ((v = map_next(&m, &it, NULL)))`.
 * ret_key, when given, is valid until the entry goes.  The current entry may be
 * deleted while iterating; nothing may be put.
 */
void *map_next(const struct map *m, size_t *it, const char **ret_key);

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_append(struct list *head, struct list *e)
{
	e->prev = head->prev;
	e->next = head;
	head->prev->next = e;
	head->prev = e;
}

/* Leaves e initialised, so that removing it twice is harmless. */
static inline void list_remove(struct list *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	list_init(e);
}

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define list_first(head, type, member)	container_of((head)->next, type, member)
#define list_for_each(pos, head)                                                                   \
	for (struct list *pos = (head)->next; pos != (head); pos = pos->next)
/* The body may remove pos. */
#define list_for_each_safe(pos, head)                                                              \
	for (struct list *pos = (head)->next, *pos##_next = pos->next; pos != (head);              \
	     pos = pos##_next, pos##_next = pos->next)

#endif
