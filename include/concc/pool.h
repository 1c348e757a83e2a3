/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_POOL_H
#define CONCC_POOL_H

/*
 * The slots of all workers, shared by every process of one user through files
 * in the runtime directory: `pool` (a table, mapped shared) and `slots/` (a FIFO
 * for each slot, `<name>.<index>`, that carries its lock).  Libc only.
 *
 * The truth is a kernel lock: a slot is held as long as an open file
 * description holds the write lock (fcntl F_OFD_SETLK) on its FIFO, so whatever
 * ends the holder frees the slot.  A forked child has a copy of the descriptor:
 * the slot of a parent that dies is free when the copies are closed too (exec
 * closes them).  The table only says where to look: names, number of slots, up
 * or down, speed, and a hint per slot whether it is taken.  A wrong hint costs a
 * failed try, never a wrong answer.
 *
 * When nothing is free, acquirers wait in order of arrival, each on the lock of
 * its predecessor; the one at the head waits for an inotify event of a slot
 * being closed.  Nobody polls.  Those that ask for the same (`only`, `local_ok`,
 * `avoid` or not) share a queue; queues don't hold up each other.
 *
 * A struct pool is used by one thread at a time, and its descriptor carries the
 * place in the queue: processes and threads that wait at once open their own.
 *
 * Everything read from the table is bounded before use: it is this user's own
 * file, but a damaged one must not crash a compiler call.
 *
 * What returns int gives 0 or a negative code, where no more is said, and says so in msg where
 * there is one.  Nothing but pool_acquire() waits for others.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/err.h"
#include "concc/schedule.h"
#include "concc/worker_spec.h"

struct pool;

/* An acquired slot; held until pool_release(), exec without it, or the end of the process. */
struct pool_slot {
	int fd; /* CLOEXEC; -1 when none is held */
	uint32_t member;
	uint32_t index;
	char name[POOL_NAME_MAX + 1];
};

/* dir is the runtime directory (see runtime_dir_open()); borrowed for the call. */
int pool_open(const char *dir, struct pool **ret, struct errmsg *msg);
void pool_close(struct pool *p); /* slots stay held */
/*
 * For a server that makes room for another: who opens the pool next makes a new table.  The slots
 * are the same, and who has the old table open goes on with it as long as its members are up.
 */
void pool_forget(int dir_fd);
/* Is it what pool_open() would open there now?  Cleaners of /tmp may have removed its files. */
bool pool_is_in_place(const struct pool *p, const char *dir);

/* Does the server keep results, so that it is to be asked before a slot is taken? */
bool pool_keeps_results(const struct pool *p);
void pool_set_keeps_results(struct pool *p, bool keeps); /* for the server */

struct pool_request {
	const char
		*cwd; /* jobs of one directory prefer the member that had the last one; or NULL */
	const char *only;   /* this member and no other, or NULL */
	const char *avoid;  /* not this member unless it is the only one; or NULL */
	bool try;	    /* -EAGAIN instead of waiting */
	bool local_ok;	    /* the member POOL_LOCAL may be chosen (its regular slots) */
	uint64_t job, kind; /* sched_key_of_job(), sched_key_of_kind(); 0: no matter */
};

/*
 * Takes a slot of the member where the job is done soonest, as sched_choose() has
 * it; of several that are as good, the one with most free capacity.
 * Waits in order of arrival when all are taken, or when waiting for one of them is
 * better than what is free; and then calls for the members that are asleep.  CONCC_E_UNAVAIL: no
 * member but POOL_LOCAL is up or asleep (or the one asked for is neither).  CONCC_E_CLOSED: all
 * were asleep, and who could wake them is gone.  -EINTR: a signal handler that was installed
 * without SA_RESTART ran while waiting.
 */
int pool_acquire(struct pool *p, const struct pool_request *q, struct pool_slot *ret);
void pool_release(struct pool *p, struct pool_slot *s); /* fine when none is held */

/* ---- for the project server and concc-worker-pool ---- */

/*
 * A new descriptor, the caller's, that is readable when a slot may have become
 * free: for one who wants a slot only when nobody else does, so not a place in
 * the queue.  What is read from it is of no interest.  -errno.
 */
int pool_watch_releases(const struct pool *p);

enum pool_state {
	POOL_UP = 0,
	POOL_DOWN = 1, /* nothing is handed out of it, and nobody waits for it */
	POOL_ASLEEP =
		2, /* nothing is handed out of it, but who finds all others taken calls for it */
};

struct pool_member {
	char name[POOL_NAME_MAX + 1];
	uint32_t slots;	   /* how many may be held at once */
	uint32_t state;	   /* enum pool_state */
	uint32_t speed;	   /* relative, 1000 is average */
	uint32_t taken;	   /* by the hints */
	uint64_t acquired; /* in all */
};

/*
 * Adds the member or changes it.  Fewer slots than are held: those end first.
 * A waiter is woken when capacity grows or a member comes up.
 */
int pool_set(struct pool *p, const char *name, uint32_t slots, enum pool_state state,
	     uint32_t speed, struct errmsg *msg);
/* What is known of how fast it is, which whoever chooses reads from then on.  -ENOENT. */
int pool_set_profile(struct pool *p, const char *name, const struct sched_profile *profile);
/* The same of jobs: what takes that long (sched_key_of_job(), sched_key_of_kind()), and all of them
 * in the mean. */
void pool_set_work(struct pool *p, uint64_t key, uint32_t work_us);
void pool_set_mean(struct pool *p, uint32_t mean_us);
/* Since when jobs have come without a gap, of now_us(); 0: they have not. */
void pool_set_busy_since(struct pool *p, uint64_t since_us);
int pool_remove(struct pool *p, const char *name); /* -ENOENT */
int pool_reset(struct pool *p); /* forgets all members; held slots stay held by their locks */
/* Fills at most max; returns how many there are.  verify asks the locks instead of the hints. */
int pool_list(struct pool *p, struct pool_member *ret, size_t max, bool verify);
uint32_t pool_waiters(struct pool *p); /* at the moment */
/* Those of them who would take a slot of any worker, or of this machine. */
enum pool_queue {
	POOL_QUEUE_ALL,
	POOL_QUEUE_AWAY,  /* not of this machine */
	POOL_QUEUE_AVOID, /* not of one worker, where another can be had */
};
/* How many, and what their jobs take: waiting, waiting_us, mean_us; the rest is of no job. */
void pool_queue(struct pool *p, enum pool_queue which, struct sched_job *ret);
bool pool_is_wanted(struct pool *p, const char *name); /* somebody waits for just that one */
bool pool_place_of(const struct pool *p, const char *name, struct sched_place *ret);
uint32_t pool_total(
	struct pool *p); /* slots of all members but those down, POOL_LOCAL's included */
/* What the table says of the member that has this slot; false when it is gone. */
bool pool_place(const struct pool *p, const struct pool_slot *s, struct sched_place *ret);
/* Slots of it that look taken, though their holders have ended, are seen to be free from now on. */
void pool_verify(struct pool *p, const char *name);
uint32_t pool_held(struct pool *p, const char *name); /* slots of it, as the locks say */

/*
 * Hears the calls for members that are asleep: the descriptor becomes readable
 * when a waiter wants one.  It stays the pool's.  As long as it is open, waiters
 * with nothing else to hope for go on waiting; when it is closed, or its process
 * has died, they get CONCC_E_CLOSED.
 */
int pool_listen(struct pool *p, int *ret_fd, struct errmsg *msg);
void pool_unlisten(struct pool *p); /* somebody else does; closes the descriptor */
/* One call, or -EAGAIN when there are no more.  name: of the member wanted, "" when any will do. */
int pool_next_call(struct pool *p, char ret_name[POOL_NAME_MAX + 1]);

#endif
