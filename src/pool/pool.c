/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "call.h"
#include "queue.h"
#include "pick.h"
#include "slot.h"
#include "table.h"
#include "watch.h"

#define SLOTS_NAME "slots"

/* ---- opening ---- */

static int open_own_dir(int at_fd, const char *path, const char *shown, int *ret,
			struct errmsg *msg)
{
	_cleanup_close_ int fd = openat(at_fd, path,
					O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 && errno != ELOOP && errno != ENOTDIR)
		return errmsg_set(msg, -errno, "opening %s: %s", shown, strerror(errno));
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 022))
		return errmsg_set(msg, CONCC_E_UNSAFE,
				  "%s is not a directory that only we can write to; remove it",
				  shown);
	*ret = steal_fd(&fd);
	return 0;
}

static int open_slots_dir(int dir_fd, const char *dir, int *ret, struct errmsg *msg)
{
	_cleanup_free_ char *shown = path_join(dir, SLOTS_NAME);

	if (mkdirat(dir_fd, SLOTS_NAME, 0700) < 0 && errno != EEXIST)
		return errmsg_set(msg, -errno, "making %s: %s", shown, strerror(errno));
	return open_own_dir(dir_fd, SLOTS_NAME, shown, ret, msg);
}

int pool_open(const char *dir, struct pool **ret, struct errmsg *msg)
{
	_cleanup_close_ int dir_fd = -1;
	_cleanup_close_ int slots_fd = -1;
	struct table *table;
	struct pool *p;
	int fd, rc;

	rc = open_own_dir(AT_FDCWD, dir, dir, &dir_fd, msg);
	if (rc < 0)
		return rc;
	rc = open_slots_dir(dir_fd, dir, &slots_fd, msg);
	if (rc < 0)
		return rc;
	rc = table_open(dir_fd, dir, &fd, &table, msg);
	if (rc < 0)
		return rc;
	p = xmalloc(sizeof(*p));
	*p = (struct pool){.fd = fd,
			   .slots_fd = steal_fd(&slots_fd),
			   .dir_fd = steal_fd(&dir_fd),
			   .calls_fd = -1,
			   .table = table};
	*ret = p;
	return 0;
}

void pool_close(struct pool *p)
{
	if (!p)
		return;
	table_close(p->fd, p->table);
	(void)close(p->slots_fd);
	(void)close(p->dir_fd);
	if (p->calls_fd >= 0)
		(void)close(p->calls_fd);
	free(p);
}

void pool_forget(int dir_fd)
{
	(void)unlinkat(dir_fd, TABLE_NAME, 0); /* it may have gone */
}

static bool is_file(int fd, const char *dir, const char *name)
{
	_cleanup_free_ char *path = path_join(dir, name);
	struct stat ours, there;

	return fstat(fd, &ours) == 0 && lstat(path, &there) == 0 &&
	       stat_is_same_file(&ours, &there);
}

bool pool_is_in_place(const struct pool *p, const char *dir)
{
	return is_file(p->fd, dir, TABLE_NAME) && is_file(p->slots_fd, dir, SLOTS_NAME);
}

bool pool_keeps_results(const struct pool *p)
{
	return __atomic_load_n(&p->table->keeps_results, __ATOMIC_RELAXED) == 1;
}

void pool_set_keeps_results(struct pool *p, bool keeps)
{
	__atomic_store_n(&p->table->keeps_results, keeps, __ATOMIC_RELAXED);
}

bool pool_place(const struct pool *p, const struct pool_slot *s, struct sched_place *ret)
{
	struct member_view v;

	if (s->member >= POOL_MEMBERS_MAX || !member_view(p->table, s->member, &v))
		return false;
	*ret = pick_place(&v);
	return true;
}

/* ---- taking a slot ---- */

static int hand_over(struct pool *p, const struct pool_request *q, const struct pick *c,
		     uint32_t index, int fd, struct pool_slot *ret)
{
	struct table_member *m = &p->table->members[c->index];

	*ret = (struct pool_slot){.fd = fd, .member = (uint32_t)c->index, .index = index};
	memcpy(ret->name, c->view.name, sizeof(ret->name));
	/* Down or removed since it was chosen: whoever did that must not see a slot go after it. */
	if (__atomic_load_n(&m->state, __ATOMIC_ACQUIRE) != MEMBER_UP ||
	    __atomic_load_n(&m->gen, __ATOMIC_ACQUIRE) != c->view.gen) {
		pool_release(p, ret);
		return -EAGAIN;
	}
	__atomic_fetch_add(&m->acquired, 1, __ATOMIC_RELAXED);
	pick_remember(p->table, q->cwd, (uint32_t)c->index);
	return 0;
}

int pool_take_picked(struct pool *p, const struct pool_request *q, const struct pick *c,
		     struct pool_slot *ret)
{
	uint32_t member = (uint32_t)c->index, index = (uint32_t)c->slot;
	int fd, rc;

	if (c->slot < 0 || index >= c->view.slots || !hint_set(p->table, member, index))
		return -EAGAIN;
	rc = slot_lock(p->slots_fd, c->view.name, index, &fd);
	if (rc == 0)
		return hand_over(p, q, c, index, fd, ret);
	/* Held though the hint said free: now the hint is right. */
	if (rc != -EAGAIN)
		hint_clear(p->table, member, index);
	return rc;
}

/*
 * To ask the lock of a slot takes some 4 us.  Were that done for each who comes when the queue is
 * empty and all are taken, a thousand slots would cost each job 4 ms; so it is done in a hundredth
 * of the time, and only a slot whose holder was killed while nobody watched is free for so long.
 */
#define RIGHT_US_PER_SLOT 400
#define RIGHT_MAX_US	  1000000 /* what somebody who looks on bears, once */

/* 0: they are to be verified. */
static uint64_t right_for_us(const struct table_queue *queue)
{
	uint64_t until = __atomic_load_n(&queue->right_until_us, __ATOMIC_RELAXED), now = now_us();

	return until > now && until - now <= RIGHT_MAX_US ? until - now : 0;
}

static void set_right(struct table_queue *queue, uint64_t slots)
{
	uint64_t us = slots * RIGHT_US_PER_SLOT;

	__atomic_store_n(&queue->right_until_us, now_us() + (us < RIGHT_MAX_US ? us : RIGHT_MAX_US),
			 __ATOMIC_RELAXED);
}

/*
 * A holder that becomes the command gives its slot here back to nobody: it looks taken from that
 * command's end until somebody asks its lock, and meanwhile jobs would go to a worker, however
 * slow.  True: one of them is free.
 */
static bool repair_local(struct pool *p, uint32_t local)
{
	struct table_queue *queue = &p->table->queues[QUEUE_MEMBER + local];
	struct member_view v;

	if (right_for_us(queue) || !member_view(p->table, local, &v))
		return false;
	if (pool_watch_verify_member(p, local, NULL) > 0)
		return true;
	set_right(queue, v.slots);
	return false;
}

/* Every failed try has set a hint or met another process that got a slot. */
#define TRIES_MAX (2 * POOL_MEMBERS_MAX * POOL_SLOTS_MAX)

static int take_any(struct pool *p, const struct pool_request *q, struct pick_wish *w,
		    struct pool_slot *ret)
{
	struct pick c;
	int rc = 0;

	for (int i = 0; i < TRIES_MAX; i++) {
		rc = pick(p->table, q, w, &c);
		if (rc < 0)
			return rc;
		if (c.full >= 0 && repair_local(p, (uint32_t)c.full))
			continue;
		rc = pool_take_picked(p, q, &c, ret);
		if (rc != -EAGAIN)
			return rc;
	}
	return rc;
}

void pool_release(struct pool *p, struct pool_slot *s)
{
	if (s->fd < 0)
		return;
	/*
	 * First the lock, then the hint, then what wakes the head: at each step, who
	 * believes what it sees is right.
	 */
	slot_unlock(s->fd);
	if (s->member < POOL_MEMBERS_MAX && s->index < POOL_SLOTS_MAX)
		hint_clear(p->table, s->member, s->index);
	slot_close(s->fd, p->slots_fd, s->name, s->index);
	s->fd = -1;
}

/* ---- waiting ---- */

static int verify(struct pool *p, const struct pool_request *q, struct pool_watch *w)
{
	struct member_view v;
	int repaired = 0;

	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++) {
		int rc = 0;

		if (member_view(p->table, i, &v) && pick_is_eligible(&v, q) && v.taken)
			rc = pool_watch_verify_member(p, i, w);
		if (rc < 0)
			return rc;
		repaired += rc;
	}
	return repaired;
}

/*
 * Without an inotify instance: waits for one certain slot.  Others may free
 * sooner, but all end some day, and nobody polls.
 */
static int take_one(struct pool *p, const struct pool_request *q, struct pool_slot *ret)
{
	struct pick c = {.index = -1};
	uint64_t most = 0;
	struct member_view v;
	uint32_t index;
	int fd, rc;

	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++) {
		if (!member_view(p->table, i, &v) || !pick_is_eligible(&v, q) ||
		    (uint64_t)v.slots * v.speed <= most)
			continue;
		most = (uint64_t)v.slots * v.speed;
		c = (struct pick){.index = (int)i, .view = v};
	}
	if (c.index < 0)
		return CONCC_E_UNAVAIL;
	index = (uint32_t)getpid() % c.view.slots;
	rc = slot_lock_wait(p->slots_fd, c.view.name, index, &fd);
	if (rc < 0)
		return rc;
	(void)hint_set(p->table, (uint32_t)c.index, index);
	return hand_over(p, q, &c, index, fd, ret);
}

static bool any_up(const struct pool *p, const struct pool_request *q)
{
	struct member_view v;

	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++)
		if (member_view(p->table, i, &v) && pick_is_eligible(&v, q))
			return true;
	return false;
}

static int call_for(const struct pool *p, const struct pool_request *q, int *ret_fd)
{
	int member = pick_to_call(p->table, q);

	return call_out(p, member < 0 ? CALL_ANY : (uint16_t)member, ret_fd);
}

/*
 * Who waits for nothing but members that are asleep must learn when nobody is
 * left to wake them: no slot will ever be closed then.
 */
static int watch_calls(struct pool *p, const struct pool_request *q, struct pool_watch *w)
{
	int fd, rc;

	if (pool_watch_has_calls(w) || !pick_can_call(p->table, q))
		return 0;
	rc = call_for(p, q, &fd);
	if (rc == 0)
		pool_watch_add_calls(w, fd);
	return any_up(p, q) ? 0 : rc;
}

/*
 * How long what the head waits for has not come: each has patience for once, and not again as it
 * comes to the head, but for what those before it have got meanwhile.
 */
static uint64_t waited_us(const struct table_queue *queue, uint64_t since)
{
	uint64_t came = __atomic_load_n(&queue->came_us, __ATOMIC_RELAXED), now = now_us();

	if (came > since)
		since = came;
	return now > since ? now - since : 0;
}

/* The head leaves: nobody may watch from now on. */
static void note_right(struct pool *p, const struct pool_request *q, struct table_queue *queue)
{
	struct member_view v;
	uint64_t slots = 0;

	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++)
		if (member_view(p->table, i, &v) && pick_is_eligible(&v, q))
			slots += v.taken;
	set_right(queue, slots);
}

/*
 * Hints that are not known to be right are verified, else it waits for something to happen.
 * *verified: they are known to be right, but for events to come.
 */
static int verify_or_wait(struct pool *p, const struct pool_request *q, struct table_queue *queue,
			  struct pool_watch *w, uint64_t patience_us, bool *verified)
{
	uint64_t right = *verified ? UINT64_MAX : right_for_us(queue);
	bool recheck = false;
	int rc;

	if (!right) {
		rc = verify(p, q, w);
		*verified = rc >= 0;
		return rc;
	}
	rc = pool_watch_wait(w, p, right < patience_us ? right : patience_us, &recheck);
	if (recheck) {
		__atomic_store_n(&queue->right_until_us, 0, __ATOMIC_RELAXED);
		*verified = false;
	}
	return rc == -ETIMEDOUT ? 0 : rc;
}

/*
 * For the head of a queue, who stands in it since then.  *verified: the hints are known to be
 * right, but for events to come.
 */
static int take_as_head(struct pool *p, const struct pool_request *q, uint32_t queue,
			uint64_t since, struct pool_watch *w, bool *verified, struct pool_slot *ret)
{
	struct pick_wish wish = pick_wish(p->table, q);
	struct table_queue *shared = &p->table->queues[queue];
	uint32_t own = pick_expected_us(&wish);
	uint64_t until = 0; /* a free slot is left for a better one */

	for (;;) {
		int rc;

		wish.job.waiting = queue_waiting(p, queue);
		wish.job.waiting -= wish.job.waiting > 0; /* others */
		wish.job.waiting_us = queue_work_us(p, queue);
		wish.job.waiting_us -= own < wish.job.waiting_us ? own : wish.job.waiting_us;
		wish.job.waited_us = waited_us(shared, since);
		rc = take_any(p, q, &wish, ret);
		if (rc == 0 && now_us() < until)
			__atomic_store_n(&shared->came_us, now_us(), __ATOMIC_RELAXED);
		until = rc == -EAGAIN && wish.patience_us < UINT64_MAX - now_us()
				? now_us() + wish.patience_us
				: 0;

		if (rc == -EAGAIN && !pool_watch_is_open(w))
			rc = take_one(p, q, ret);
		if (rc != -EAGAIN)
			return rc;
		if (!pool_watch_is_open(w))
			continue;
		rc = watch_calls(p, q, w);
		if (rc < 0)
			return rc;
		rc = verify_or_wait(p, q, shared, w, wish.patience_us, verified);
		if (rc < 0)
			return rc;
	}
}

/*
 * The second watches since before the head looked at its events for the last
 * time, so between the two nothing was missed, and the second need not ask all
 * the locks again.  A head that is killed vouches for nothing.
 */
static void vouch(struct pool *p, const struct pool_request *q, const struct ticket *t,
		  struct pool_watch *w)
{
	struct table_queue *queue = &p->table->queues[t->queue];
	uint64_t second = __atomic_load_n(&queue->watching, __ATOMIC_ACQUIRE);

	if (!pool_watch_is_open(w) || !pool_watch_drain(w, p))
		return;
	__atomic_store_n(&queue->vouched, second, __ATOMIC_RELEASE);
	note_right(p, q, queue);
}

static int wait_in_queue(struct pool *p, const struct pool_request *q, const struct ticket *t,
			 struct pool_watch *w, struct pool_slot *ret)
{
	struct table_queue *queue = &p->table->queues[t->queue];
	uint64_t me = t->number + 1; /* 0 is nobody */
	uint64_t since = now_us();
	bool verified;
	int rc;

	rc = ticket_wait_second(p, t);
	if (rc < 0)
		return rc;
	/* Having none is handled as head. */
	if (pool_watch_open(w, p) == 0)
		__atomic_store_n(&queue->watching, me, __ATOMIC_RELEASE);
	rc = ticket_wait_head(p, t);
	if (rc < 0)
		return rc;
	ticket_is_head(p, t);
	verified = pool_watch_is_open(w) &&
		   __atomic_load_n(&queue->vouched, __ATOMIC_ACQUIRE) == me;
	rc = take_as_head(p, q, t->queue, since, w, &verified, ret);
	if (rc == 0 && verified)
		vouch(p, q, t, w);
	return rc;
}

static int queue_of(struct pool *p, const struct pool_request *q)
{
	if (q->only) {
		int member = member_find(p->table, q->only);

		return member < 0 ? CONCC_E_UNAVAIL : QUEUE_MEMBER + member;
	}
	if (q->avoid)
		return q->local_ok ? QUEUE_ANY_AVOID : QUEUE_REMOTE_AVOID;
	return q->local_ok ? QUEUE_ANY : QUEUE_REMOTE;
}

static int join_queue(struct pool *p, const struct pool_request *q, uint32_t queue,
		      struct pool_slot *ret)
{
	struct pick_wish wish = pick_wish(p->table, q);
	struct pool_watch w = {0};
	struct ticket t;
	int fd, rc;

	rc = ticket_take(p, queue, pick_expected_us(&wish), &t);
	if (rc < 0)
		return rc;
	/* Behind the ticket, since who hears it counts those. */
	if (pick_can_call(p->table, q) && call_for(p, q, &fd) == 0)
		(void)close(fd);
	rc = wait_in_queue(p, q, &t, &w, ret);
	ticket_drop(p, &t);
	pool_watch_close(&w);
	return rc;
}

static int try_acquire(struct pool *p, const struct pool_request *q, struct pool_slot *ret)
{
	struct pick_wish w = pick_wish(p->table, q);
	int rc = take_any(p, q, &w, ret);

	if (rc != -EAGAIN)
		return rc;
	rc = verify(p, q, NULL);
	if (rc <= 0)
		return rc < 0 ? rc : -EAGAIN;
	return take_any(p, q, &w, ret);
}

/*
 * Others wait: one who comes now takes what the head of the queue has left for a
 * better place, if with so many waiting it has become worth it; never what the head would take.
 */
static int take_behind(struct pool *p, const struct pool_request *q, uint32_t queue,
		       struct pool_slot *ret)
{
	struct pick_wish w = pick_wish(p->table, q);
	struct pick c;
	int rc = pick(p->table, q, &w, &c);

	if (rc != -EAGAIN)
		return rc == 0 ? -EAGAIN : rc;
	if (w.patience_us == UINT64_MAX)
		return -EAGAIN; /* nothing is free */
	w.job.waiting = queue_waiting(p, queue);
	w.job.waiting_us = queue_work_us(p, queue);
	return take_any(p, q, &w, ret);
}

int pool_acquire(struct pool *p, const struct pool_request *q, struct pool_slot *ret)
{
	struct pick_wish w;
	int queue, rc;

	ret->fd = -1;
	queue = queue_of(p, q);
	if (queue < 0)
		return queue;
	if (queue_has_waiters(p, (uint32_t)queue)) {
		rc = take_behind(p, q, (uint32_t)queue, ret);
		if (rc != -EAGAIN || q->try)
			return rc;
		return join_queue(p, q, (uint32_t)queue, ret);
	}
	if (q->try)
		return try_acquire(p, q, ret);
	w = pick_wish(p->table, q);
	rc = take_any(p, q, &w, ret);
	return rc == -EAGAIN ? join_queue(p, q, (uint32_t)queue, ret) : rc;
}
