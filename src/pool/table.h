/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_POOL_TABLE_H
#define CONCC_POOL_TABLE_H

/*
 * The shared table of the pool: its layout, how it is opened and checked, and
 * the byte locks on its file.  Private to src/pool.
 *
 * Several processes change the table at once, and any of them can be killed
 * between two stores, so each word is read and written atomically and bounded
 * when read, and nothing depends on two words agreeing.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/pool.h"

/*
 * Requests wait in queues: those that can use the same slots share one.  With a
 * single queue, one that waits for a certain member would hold up all others.
 */
enum {
	QUEUE_ANY,	 /* every member will do */
	QUEUE_REMOTE,	 /* all but POOL_LOCAL */
	QUEUE_ANY_AVOID, /* the same, with a member to avoid */
	QUEUE_REMOTE_AVOID,
	QUEUE_MEMBER, /* + index: that member only */
	QUEUE_COUNT = QUEUE_MEMBER + POOL_MEMBERS_MAX,
};

/* Of longer queues, what the last so many want stands for all. */
#define QUEUE_WORKS 64

struct table_queue {
	uint64_t tail;	   /* the next ticket, about; see ticket_take() */
	uint64_t watching; /* ticket of the second, once it watches */
	uint64_t vouched;  /* ticket of the successor that can trust the hints */
	uint64_t head;	   /* ticket of who is served next, about */
	uint64_t came_us;  /* now_us() when its head got last what it had left a free slot for */
	uint64_t right_until_us; /* now_us() until which who comes may take the hints for right */
	uint32_t works[QUEUE_WORKS]; /* of ticket t at t % QUEUE_WORKS: its work in us, 0: not known
				      */
};

enum { MEMBER_NONE = 0, MEMBER_UP = 1, MEMBER_DOWN = 2, MEMBER_ASLEEP = 3 };

#define TAKEN_WORDS (POOL_SLOTS_MAX / 64)

struct table_member {
	uint32_t gen; /* changes whenever the record becomes free; name is constant within one */
	uint32_t state;
	uint32_t slots;
	uint32_t speed;
	uint64_t acquired;
	char name[POOL_NAME_MAX + 1];
	uint64_t taken[TAKEN_WORDS]; /* hints: bit i set, slot i is probably held */
	struct sched_profile profile;
};

#define AFFINITY_SLOTS 1024  /* directories in use at once; a collision forgets the older */
#define WORK_SLOTS     16384 /* the same of files */

struct table {
	char magic[8];
	uint32_t version;
	uint32_t size;
	struct table_queue queues[QUEUE_COUNT];
	struct table_member members[POOL_MEMBERS_MAX];
	uint64_t affinity[AFFINITY_SLOTS]; /* hash of the directory << 32 | member + 1 */
	uint64_t keeps_results;	    /* the server does: worth asking before a slot is taken */
	uint64_t mean_us;	    /* of the work of jobs; 0: not known */
	uint64_t busy_since_us;	    /* now_us() when jobs began to come; 0: none did */
	uint64_t works[WORK_SLOTS]; /* upper half of the key << 32 | microseconds */
};

struct pool {
	int fd;	      /* the table's file; carries this process's place in a queue */
	int slots_fd; /* the directory of the slot files */
	int dir_fd;   /* the runtime directory */
	int calls_fd; /* see call.h; -1 in who does not hear calls */
	struct table *table;
};

/* A consistent copy of what a record says, bounded. */
struct member_view {
	char name[POOL_NAME_MAX + 1];
	uint32_t gen;
	uint32_t state;
	uint32_t slots;
	uint32_t speed;
	uint32_t taken; /* how many hints are set */
	int free_slot;	/* the first whose hint is not; -1: none */
	struct sched_profile profile;
};

#define TABLE_NAME "pool" /* in the runtime directory */

int table_open(int dir_fd, const char *dir, int *ret_fd, struct table **ret, struct errmsg *msg);
void table_close(int fd, struct table *t);

/* False when the record is free, damaged or just being changed. */
bool member_view(const struct table *t, uint32_t index, struct member_view *ret);
int member_find(const struct table *t, const char *name); /* index or -ENOENT */
uint32_t work_find(const struct table *t, uint64_t key);  /* microseconds; 0: not known */
void work_set(struct table *t, uint64_t key, uint32_t us);
bool member_name_valid(const char *name);

bool hint_is_set(const struct table *t, uint32_t member, uint32_t slot);
bool hint_set(struct table *t, uint32_t member, uint32_t slot); /* false: it was set already */
void hint_clear(struct table *t, uint32_t member, uint32_t slot);

/* ---- byte locks, owned by the open file description ---- */

int byte_trylock(int fd, off_t at);		/* 0, -EAGAIN or another -errno */
int byte_lock_wait(int fd, off_t at, int type); /* F_RDLCK or F_WRLCK; -EINTR after a signal */
void byte_unlock(int fd, off_t at);
/* Where somebody else holds a write lock in [from, from + len), or -1.  Not in order. */
off_t byte_locked_in(int fd, off_t from, off_t len);

#define TABLE_LOCK_AT ((off_t)0) /* byte of the table's file; held while members change */

#endif
