/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "watch.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "slot.h"

static void pool_watch_add_fd(struct pool_watch *w, int fd, short events, uint64_t slot)
{
	if (w->n == w->cap) {
		/* At most one entry for each slot there is. */
		w->cap = w->cap ? w->cap * 2 : 4;
		w->fds = xrealloc(w->fds, w->cap * sizeof(*w->fds));
		w->slots = xrealloc(w->slots, w->cap * sizeof(*w->slots));
	}
	w->fds[w->n] = (struct pollfd){.fd = fd, .events = POLLIN};
	w->slots[w->n++] = slot;
}

int pool_watch_releases(const struct pool *p)
{
	_cleanup_close_ int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	char path[32];

	if (fd < 0)
		return -errno;
	/* The directory that was checked at open, whatever its path is now. */
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", p->slots_fd);
	if (inotify_add_watch(fd, path, IN_CLOSE_WRITE) < 0)
		return -errno;
	return steal_fd(&fd);
}

int pool_watch_open(struct pool_watch *w, const struct pool *p)
{
	int fd = pool_watch_releases(p);

	if (fd < 0)
		return fd;
	pool_watch_add_fd(w, fd, POLLIN, UINT64_MAX);
	return 0;
}

bool pool_watch_is_open(const struct pool_watch *w)
{
	return w->n > 0;
}

void pool_watch_close(struct pool_watch *w)
{
	for (size_t i = 0; i < w->n; i++)
		(void)close(w->fds[i].fd);
	free(w->fds);
	free(w->slots);
	*w = (struct pool_watch){0};
}

static bool pool_watch_has(const struct pool_watch *w, uint64_t slot)
{
	for (size_t i = 1; i < w->n; i++)
		if (w->slots[i] == slot)
			return true;
	return false;
}

#define WATCH_CALLS (UINT64_MAX - 1)

void pool_watch_add_calls(struct pool_watch *w, int fd)
{
	pool_watch_add_fd(w, fd, 0, WATCH_CALLS); /* an error is told without asking */
}

bool pool_watch_has_calls(const struct pool_watch *w)
{
	return pool_watch_has(w, WATCH_CALLS);
}

/* 1 when a killed holder's hint was cleared, else 0 or an error. */
static int verify_slot(struct pool *p, const char *name, uint32_t member, uint32_t index,
		       struct pool_watch *w)
{
	uint64_t slot = (uint64_t)member << 32 | index;
	_cleanup_close_ int fd = -1;
	int rc;

	if (!hint_is_set(p->table, member, index))
		return 0;
	rc = slot_probe(p->slots_fd, name, index, &fd);
	if (rc < 0)
		return rc;
	if (rc == SLOT_CLOSING && w && !pool_watch_has(w, slot))
		pool_watch_add_fd(w, steal_fd(&fd), 0, slot); /* a hang-up is told without asking */
	if (rc != SLOT_FREE)
		return 0;
	/*
	 * It may also be somebody between setting the hint and taking the lock; then
	 * the hint is wrong for once, and the next who tries that slot sets it again.
	 */
	hint_clear(p->table, member, index);
	return 1;
}

int pool_watch_verify_member(struct pool *p, uint32_t member, struct pool_watch *w)
{
	struct member_view v;
	int repaired = 0;

	if (!member_view(p->table, member, &v))
		return 0;
	for (uint32_t i = 0; i < v.slots; i++) {
		int rc = verify_slot(p, v.name, member, i, w);

		if (rc < 0)
			return rc;
		repaired += rc;
	}
	return repaired;
}

static int slot_closed(struct pool_watch *w, struct pool *p, const char *file, bool *recheck)
{
	char name[POOL_NAME_MAX + 1];
	uint32_t index;
	int member, rc;

	if (!slot_parse_name(file, name, &index)) {
		*recheck = true; /* the bell: a member that was down may have stale hints */
		return 0;
	}
	member = member_find(p->table, name);
	if (member < 0)
		return 0;
	rc = verify_slot(p, name, (uint32_t)member, index, w);
	return rc < 0 ? rc : 0;
}

/* All events there are; sets *recheck when the hints can no longer be relied on. */
static int read_events(struct pool_watch *w, struct pool *p, bool *recheck)
{
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	while ((n = read(w->fds[0].fd, buf, sizeof(buf))) > 0) {
		const struct inotify_event *e;

		for (char *at = buf; at < buf + n; at += sizeof(*e) + e->len) {
			int rc = 0;

			e = (const struct inotify_event *)at;
			if (e->mask & (IN_Q_OVERFLOW | IN_IGNORED))
				*recheck = true;
			else if (e->len)
				rc = slot_closed(w, p, e->name, recheck);
			if (rc < 0)
				return rc;
		}
	}
	return n < 0 && errno != EAGAIN && errno != EINTR ? -errno : 0;
}

static int check_hangups(struct pool_watch *w, struct pool *p)
{
	size_t n = w->n;

	/* From the end, so that what is moved into a gap was looked at already. */
	for (size_t i = n; i-- > 1;) {
		uint64_t slot = w->slots[i];
		char name[POOL_NAME_MAX + 1];
		struct member_view v;
		int rc;

		if (!w->fds[i].revents)
			continue;
		(void)close(w->fds[i].fd);
		w->n--;
		w->fds[i] = w->fds[w->n];
		w->slots[i] = w->slots[w->n];
		if (slot == WATCH_CALLS || !member_view(p->table, (uint32_t)(slot >> 32), &v))
			continue;
		memcpy(name, v.name, sizeof(name));
		rc = verify_slot(p, name, (uint32_t)(slot >> 32), (uint32_t)slot, w);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int pool_watch_wait(struct pool_watch *w, struct pool *p, uint64_t patience_us, bool *recheck)
{
	struct timespec t = {(time_t)(patience_us / 1000000), (long)(patience_us % 1000000) * 1000};
	int rc;

	/* Without end on purpose: every holder ends, and so does a change of members. */
	rc = ppoll(w->fds, w->n, patience_us == UINT64_MAX ? NULL : &t, NULL);
	if (rc <= 0)
		return rc < 0 ? -errno : -ETIMEDOUT;
	rc = check_hangups(w, p);
	if (rc < 0)
		return rc;
	return read_events(w, p, recheck);
}

bool pool_watch_drain(struct pool_watch *w, struct pool *p)
{
	bool recheck = false;

	return read_events(w, p, &recheck) == 0 && !recheck && w->n == 1;
}
