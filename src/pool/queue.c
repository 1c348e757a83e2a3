/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "queue.h"

#include <errno.h>
#include <fcntl.h>

/*
 * Bytes far behind the file's end; locks need no data beneath them.  One region
 * a queue, its lower half for QUEUE, its upper for HEAD.
 */
#define TICKETS	    (1ULL << 40)
#define REGION	    (TICKETS * 2)
#define TICKET_MASK (TICKETS - 1)
/* More than any machine has processes: a damaged table. */
#define WAITING_MAX (1u << 22)

static off_t queue_base(uint32_t queue)
{
	return (off_t)((queue + 1) * REGION);
}

static off_t head_base(uint32_t queue)
{
	return queue_base(queue) + (off_t)TICKETS;
}

bool queue_has_waiters(const struct pool *p, uint32_t queue)
{
	return byte_locked_in(p->fd, head_base(queue), (off_t)TICKETS) >= 0;
}

/* By the tickets, which counts those that died too. */
uint32_t queue_waiting(const struct pool *p, uint32_t queue)
{
	const struct table_queue *q = &p->table->queues[queue];
	uint64_t n = (__atomic_load_n(&q->tail, __ATOMIC_RELAXED) -
		      __atomic_load_n(&q->head, __ATOMIC_RELAXED)) &
		     TICKET_MASK;

	return n < WAITING_MAX ? (uint32_t)n : 0;
}

static uint32_t *work_at(const struct pool *p, uint32_t queue, uint64_t ticket)
{
	return &p->table->queues[queue].works[ticket % QUEUE_WORKS];
}

uint64_t queue_work_us(const struct pool *p, uint32_t queue)
{
	uint64_t tail = __atomic_load_n(&p->table->queues[queue].tail, __ATOMIC_RELAXED), sum = 0;
	uint32_t n = queue_waiting(p, queue), some = n < QUEUE_WORKS ? n : QUEUE_WORKS;

	for (uint32_t i = 1; i <= some; i++)
		sum += __atomic_load_n(work_at(p, queue, tail - i), __ATOMIC_RELAXED);
	return some ? sum * n / some : 0;
}

static uint32_t count_locked(int fd, off_t from, off_t end)
{
	uint32_t n = 0;
	off_t at;

	while (from < end && (at = byte_locked_in(fd, from, end - from)) >= 0) {
		n += 1 + count_locked(fd, from, at);
		from = at + 1;
	}
	return n;
}

uint32_t queue_count_waiters_in(const struct pool *p, uint32_t queue)
{
	if (!__atomic_load_n(&p->table->queues[queue].tail, __ATOMIC_RELAXED))
		return 0;
	return count_locked(p->fd, head_base(queue), head_base(queue) + (off_t)TICKETS);
}

uint32_t queue_count_waiters(const struct pool *p)
{
	uint32_t n = 0;

	for (uint32_t queue = 0; queue < QUEUE_COUNT; queue++)
		n += queue_count_waiters_in(p, queue);
	return n;
}

static void advance_tail(uint64_t *tail, uint64_t to)
{
	uint64_t seen = __atomic_load_n(tail, __ATOMIC_RELAXED);

	while (seen < to && !__atomic_compare_exchange_n(tail, &seen, to, false, __ATOMIC_ACQ_REL,
							 __ATOMIC_RELAXED))
		;
}

/*
 * A ticket is one's own from the moment its HEAD byte is locked; the counter only
 * says where to try.  Who read it long ago gets a place further ahead, which is
 * the place it came for; at worst a queue has two heads for a while.
 */
int ticket_take(struct pool *p, uint32_t queue, uint32_t work_us, struct ticket *ret)
{
	uint64_t *tail = &p->table->queues[queue].tail;
	uint64_t t = __atomic_load_n(tail, __ATOMIC_ACQUIRE) & TICKET_MASK;
	int rc;

	while ((rc = byte_trylock(p->fd, head_base(queue) + (off_t)t)) == -EAGAIN)
		t = (t + 1) & TICKET_MASK;
	if (rc < 0)
		return rc;
	*ret = (struct ticket){.queue = queue, .number = t};
	__atomic_store_n(work_at(p, queue, t), work_us, __ATOMIC_RELAXED);
	advance_tail(tail, t + 1);
	rc = byte_trylock(p->fd, queue_base(queue) + (off_t)t);
	if (rc < 0 && rc != -EAGAIN)
		ticket_drop(p, ret);
	return rc == -EAGAIN ? 0 : rc;
}

/*
 * The highest locked byte below `at`, or -1.  Nearly always the next one; after
 * deaths in the queue the search widens by doubling.
 */
static off_t predecessor(int fd, off_t base, off_t at)
{
	off_t found = -1, next;
	off_t from = at;

	for (off_t width = 1; found < 0 && from > base; width *= 2) {
		from = at - base > width ? at - width : base;
		found = byte_locked_in(fd, from, at - from);
	}
	if (found < 0)
		return -1;
	while (found + 1 < at && (next = byte_locked_in(fd, found + 1, at - found - 1)) >= 0)
		found = next;
	return found;
}

static int wait_turn(struct pool *p, off_t base, const struct ticket *t)
{
	off_t at = base + (off_t)t->number, before;

	while ((before = predecessor(p->fd, base, at)) >= 0) {
		int rc = byte_lock_wait(p->fd, before, F_RDLCK);

		if (rc < 0)
			return rc;
		byte_unlock(p->fd, before);
	}
	return 0;
}

int ticket_wait_second(struct pool *p, const struct ticket *t)
{
	return wait_turn(p, queue_base(t->queue), t);
}

int ticket_wait_head(struct pool *p, const struct ticket *t)
{
	return wait_turn(p, head_base(t->queue), t);
}

void ticket_is_head(struct pool *p, const struct ticket *t)
{
	__atomic_store_n(&p->table->queues[t->queue].head, t->number, __ATOMIC_RELAXED);
	byte_unlock(p->fd, queue_base(t->queue) + (off_t)t->number);
}

void ticket_drop(struct pool *p, const struct ticket *t)
{
	byte_unlock(p->fd, queue_base(t->queue) + (off_t)t->number);
	byte_unlock(p->fd, head_base(t->queue) + (off_t)t->number);
}
