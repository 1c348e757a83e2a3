/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "concc/pool.h"
#include "queue.h"
#include "pick.h"
#include "slot.h"
#include "table.h"
#include "watch.h"

#define store(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define store_rel(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

static const uint32_t member_states[] = {
	[POOL_UP] = MEMBER_UP,
	[POOL_DOWN] = MEMBER_DOWN,
	[POOL_ASLEEP] = MEMBER_ASLEEP,
};

static uint32_t pool_state_of(uint32_t member_state)
{
	return member_state == MEMBER_UP       ? POOL_UP
	       : member_state == MEMBER_ASLEEP ? POOL_ASLEEP
					       : POOL_DOWN;
}

static int members_lock(struct pool *p)
{
	int rc;

	do
		rc = byte_lock_wait(p->fd, TABLE_LOCK_AT, F_WRLCK);
	while (rc == -EINTR); /* held for microseconds only */
	return rc;
}

static void members_unlock(struct pool *p)
{
	byte_unlock(p->fd, TABLE_LOCK_AT);
}

/* The close is what the heads of the queues see; see watch.h.  Where there is none, who comes next
 * verifies. */
static void ring_bell(struct pool *p)
{
	int fd;

	for (uint32_t queue = 0; queue < QUEUE_COUNT; queue++)
		store(&p->table->queues[queue].right_until_us, 0);
	fd = openat(p->slots_fd, BELL_NAME,
		    O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
	if (fd >= 0)
		(void)close(fd);
}

static int first_free(const struct table *t)
{
	struct member_view v;

	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++)
		if (!member_view(t, i, &v))
			return (int)i;
	return -ENOSPC;
}

static void retire(struct table_member *m)
{
	store_rel(&m->state, MEMBER_NONE);
	__atomic_fetch_add(&m->gen, 1, __ATOMIC_ACQ_REL);
}

static void enlist(struct table_member *m, const char *name)
{
	retire(m); /* a damaged record too must look free while its name changes */
	memset(m->name, 0, sizeof(m->name));
	memcpy(m->name, name, strlen(name));
	memset(m->taken, 0, sizeof(m->taken));
	memset(&m->profile, 0, sizeof(m->profile));
	store(&m->acquired, 0);
}

static int set_locked(struct pool *p, const char *name, uint32_t slots, uint32_t state,
		      uint32_t speed, struct errmsg *msg)
{
	int index = member_find(p->table, name);
	struct table_member *m;

	if (index < 0) {
		index = first_free(p->table);
		if (index < 0)
			return errmsg_set(msg, index, "no room for %s: %d workers are the maximum",
					  name, POOL_MEMBERS_MAX);
		enlist(&p->table->members[index], name);
	}
	m = &p->table->members[index];
	store(&m->slots, slots);
	store(&m->speed, speed ? speed : 1);
	store_rel(&m->state, state);
	return 0;
}

int pool_set(struct pool *p, const char *name, uint32_t slots, enum pool_state state,
	     uint32_t speed, struct errmsg *msg)
{
	int rc;

	if (!member_name_valid(name))
		return errmsg_set(msg, -EINVAL,
				  "'%s' can't name a worker: 1 to %d printable characters without "
				  "spaces or '/', the first not a dot",
				  name, POOL_NAME_MAX);
	if (slots > POOL_SLOTS_MAX)
		return errmsg_set(msg, -EINVAL, "%u slots for %s: %d are the maximum", slots, name,
				  POOL_SLOTS_MAX);
	rc = members_lock(p);
	if (rc < 0)
		return errmsg_set(msg, rc, "locking the pool's table: %s", err_text(rc));
	rc = set_locked(p, name, slots, member_states[state], speed, msg);
	members_unlock(p);
	ring_bell(p);
	return rc;
}

int pool_set_profile(struct pool *p, const char *name, const struct sched_profile *profile)
{
	int index = member_find(p->table, name);
	struct sched_profile *to;

	if (index < 0)
		return index;
	to = &p->table->members[index].profile;
	for (unsigned i = 0; i < SCHED_LEVELS; i++)
		store(&to->slowdown[i], profile->slowdown[i]);
	store(&to->overhead_us, profile->overhead_us);
	store(&to->cores, profile->cores);
	return 0;
}

void pool_set_work(struct pool *p, uint64_t key, uint32_t work_us)
{
	work_set(p->table, key, work_us);
}

void pool_set_mean(struct pool *p, uint32_t mean_us)
{
	store(&p->table->mean_us, mean_us);
}

void pool_set_busy_since(struct pool *p, uint64_t since_us)
{
	store(&p->table->busy_since_us, since_us);
}

int pool_remove(struct pool *p, const char *name)
{
	int index, rc;

	rc = members_lock(p);
	if (rc < 0)
		return rc;
	index = member_find(p->table, name);
	if (index >= 0)
		retire(&p->table->members[index]);
	members_unlock(p);
	ring_bell(p);
	return index < 0 ? index : 0;
}

int pool_reset(struct pool *p)
{
	int rc = members_lock(p);

	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++)
		retire(&p->table->members[i]);
	members_unlock(p);
	ring_bell(p);
	return 0;
}

/* Makes the hints of all slots right, in both directions. */
static void verify_all(struct pool *p, uint32_t member)
{
	struct member_view v;
	int fd = -1;

	if (!member_view(p->table, member, &v))
		return;
	for (uint32_t i = 0; i < v.slots; i++) {
		int rc;

		/*
		 * Set before asking: whoever ends holding it afterwards clears it, so that
		 * no free slot is left looking taken.
		 */
		bool was_clear = hint_set(p->table, member, i);

		rc = slot_probe(p->slots_fd, v.name, i, &fd);
		if (fd >= 0)
			(void)close(fd);
		if (rc == SLOT_FREE || (rc < 0 && was_clear))
			hint_clear(p->table, member, i);
	}
}

int pool_list(struct pool *p, struct pool_member *ret, size_t max, bool verify)
{
	struct member_view v;
	size_t n = 0;

	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++) {
		if (verify)
			verify_all(p, i);
		if (!member_view(p->table, i, &v))
			continue;
		if (n < max) {
			ret[n] = (struct pool_member){
				.slots = v.slots,
				.state = pool_state_of(v.state),
				.speed = v.speed,
				.taken = v.taken,
				.acquired = __atomic_load_n(&p->table->members[i].acquired,
							    __ATOMIC_RELAXED),
			};
			memcpy(ret[n].name, v.name, sizeof(v.name));
		}
		n++;
	}
	return (int)n;
}

uint32_t pool_waiters(struct pool *p)
{
	return queue_count_waiters(p);
}

static bool is_of(uint32_t queue, enum pool_queue which)
{
	bool avoids = queue == QUEUE_ANY_AVOID || queue == QUEUE_REMOTE_AVOID;

	return which == POOL_QUEUE_ALL	  ? true
	       : which == POOL_QUEUE_AWAY ? queue == QUEUE_REMOTE || queue == QUEUE_REMOTE_AVOID
					  : avoids;
}

void pool_queue(struct pool *p, enum pool_queue which, struct sched_job *ret)
{
	*ret = pick_wish(p->table, &(struct pool_request){0}).job;
	for (uint32_t queue = 0; queue < QUEUE_MEMBER; queue++) {
		uint32_t n = is_of(queue, which) ? queue_count_waiters_in(p, queue) : 0;

		ret->waiting += n;
		if (n)
			ret->waiting_us += queue_work_us(p, queue);
	}
}

bool pool_is_wanted(struct pool *p, const char *name)
{
	int index = member_find(p->table, name);

	return index >= 0 && queue_has_waiters(p, QUEUE_MEMBER + (uint32_t)index);
}

bool pool_place_of(const struct pool *p, const char *name, struct sched_place *ret)
{
	int index = member_find(p->table, name);
	struct member_view v;

	if (index < 0 || !member_view(p->table, (uint32_t)index, &v))
		return false;
	*ret = pick_place(&v);
	return true;
}

uint32_t pool_total(struct pool *p)
{
	struct member_view v;
	uint32_t n = 0;

	for (uint32_t i = 0; i < POOL_MEMBERS_MAX; i++)
		if (member_view(p->table, i, &v) && v.state != MEMBER_DOWN)
			n += v.slots;
	return n;
}

void pool_verify(struct pool *p, const char *name)
{
	int index = member_find(p->table, name);

	if (index >= 0)
		(void)pool_watch_verify_member(p, (uint32_t)index, NULL);
}

uint32_t pool_held(struct pool *p, const char *name)
{
	int index = member_find(p->table, name);
	struct member_view v;

	if (index < 0)
		return 0;
	verify_all(p, (uint32_t)index);
	return member_view(p->table, (uint32_t)index, &v) ? v.taken : 0;
}
