/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <assert.h>
#include <stdlib.h>

#include "concc/str.h"

/*
 * Open addressing, linear probing.  Eight bytes of a slot instead of pointers: there is one for
 * each file that is known.  Which name of the directory it is, is looked for when it matters.
 */
struct inode_slot {
	uint32_t hash;
	uint32_t dir_id; /* 0: free */
};

static uint32_t hash_of(uint64_t ino)
{
	uint64_t h = ino * 0x9e3779b97f4a7c15u;

	return (uint32_t)(h >> 32);
}

static void put(struct inodes *s, struct inode_slot new)
{
	uint32_t i = new.hash &(s->cap - 1);

	while (s->slots[i].dir_id)
		i = (i + 1) & (s->cap - 1);
	s->slots[i] = new;
}

static void grow(struct inodes *s)
{
	uint32_t old_cap = s->cap;
	struct inode_slot *old = s->slots;

	s->cap = old_cap ? old_cap * 2 : 1024;
	s->slots = xcalloc(s->cap, sizeof(*s->slots));
	for (uint32_t i = 0; i < old_cap; i++) {
		if (old[i].dir_id)
			put(s, old[i]);
	}
	free(old);
}

void inodes_add(struct inodes *s, uint64_t ino, uint32_t dir_id)
{
	if (s->n >= s->cap / 4 * 3)
		grow(s);
	put(s, (struct inode_slot){hash_of(ino), dir_id});
	s->n++;
}

void inodes_del(struct inodes *s, uint64_t ino, uint32_t dir_id)
{
	uint32_t mask = s->cap - 1, hash = hash_of(ino), hole = hash & mask;

	assert(s->n);
	while (s->slots[hole].hash != hash || s->slots[hole].dir_id != dir_id) {
		assert(s->slots[hole].dir_id);
		hole = (hole + 1) & mask;
	}
	/* What follows moves up when its place is at or before the hole. */
	for (uint32_t i = (hole + 1) & mask; s->slots[i].dir_id; i = (i + 1) & mask) {
		if (((i - s->slots[i].hash) & mask) >= ((i - hole) & mask)) {
			s->slots[hole] = s->slots[i];
			hole = i;
		}
	}
	s->slots[hole] = (struct inode_slot){0};
	s->n--;
}

void inodes_find(const struct inodes *s, uint64_t ino, void (*fn)(void *data, uint32_t dir_id),
		 void *data)
{
	uint32_t mask = s->cap - 1, hash = hash_of(ino);

	for (uint32_t i = hash & mask; s->cap && s->slots[i].dir_id; i = (i + 1) & mask) {
		if (s->slots[i].hash == hash)
			fn(data, s->slots[i].dir_id);
	}
}

void inodes_release(struct inodes *s)
{
	free(s->slots);
	*s = (struct inodes){0};
}
