/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/host_slots.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* Agents of other versions on this host go by the same names, so they stay: "line" is the queue of
 * the host, "uNUMBER" that of a user. */
#define SLOT_PREFIX	  "concc/1/slot/"
#define HOST_QUEUE_PREFIX "concc/1/line/"
#define USER_QUEUE_PREFIX "concc/1/u%u/"
#define WAIT_PREFIX	  "concc/1/wait/"
#define HEAD_NAME	  "concc/1/head"

#define TICKET_MAX    (1ULL << 40) /* above it is nobody of ours: somebody plays */
#define TICKET_TRIES  1024	   /* that many come at the same moment, or somebody plays */
#define SLOT_TRIES    3		   /* taken and freed again while we look */
#define WATCHERS_MAX  64	   /* of one slot: heads of queues, so one; the others play */
#define SOCKETS_MAX   (64 << 20)   /* bytes of /proc/net/unix: half a million sockets */
#define DISPATCH_MAX  64	   /* events in a row before others in the loop get their turn */
#define WAITING_SHOWN 1000000

/* What an event of the epoll is about. */
enum kind {
	OF_PREDECESSOR,
	OF_WATCH,   /* index: the slot of somebody that hangs up when it is free */
	OF_SLOT,    /* index: a slot of ours that somebody wants to watch */
	OF_WATCHER, /* index: the fd of one */
};

struct held {
	int fd; /* bound to the slot's name; -1: not ours */
	int watchers[WATCHERS_MAX];
	unsigned n_watchers;
};

struct queue {
	char prefix[48];
	bool of_user; /* only this user's sockets count */
	int fd;	      /* bound to our ticket; -1: not in the queue */
	uint64_t ticket;
};

enum place { OUTSIDE, IN_QUEUE_OF_USER, IN_QUEUE_OF_HOST, AT_HEAD };

struct host_slots {
	uint32_t limit;
	struct held *held; /* limit of them */
	int *watches;	   /* connected to the holder of slot i; -1: not */
	int epoll;
	int knock; /* a socket to ask with whether there is a queue */
	struct queue user_queue, host_queue;
	int head;	 /* bound to HEAD_NAME while we are; or -1 */
	int predecessor; /* connected to whom we wait for, or -1 */
	enum place place;
	bool contended; /* the last slot took a wait: others wait too, so no pushing in */
	uint64_t id;
	int marker; /* tells how many jobs wait here; -1: none */
	uint32_t waiting;
};

/* ---- names ---- */

static socklen_t address(struct sockaddr_un *sa, const char *name)
{
	size_t n = strlen(name);

	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(sa->sun_path + 1, name, n); /* all of ours are short */
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
}

/* The socket that owns the name from now on; -EADDRINUSE when another does. */
static int own_name(int type, const char *name)
{
	_cleanup_close_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un sa;
	socklen_t len = address(&sa, name);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, len) < 0)
		return -errno;
	if (type == SOCK_STREAM && listen(fd, SOMAXCONN) < 0)
		return -errno;
	return steal_fd(&fd);
}

/* Hangs up when who owns the name lets it go; -ECONNREFUSED when nobody does. */
static int watch_name(const char *name)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un sa;
	socklen_t len = address(&sa, name);

	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, len) < 0)
		return -errno;
	return steal_fd(&fd);
}

static void slot_name(char *ret, size_t size, uint32_t slot)
{
	snprintf(ret, size, SLOT_PREFIX "%u", slot);
}

static void ticket_name(char *ret, size_t size, const struct queue *q, uint64_t ticket)
{
	snprintf(ret, size, "%s%" PRIu64, q->prefix, ticket);
}

/* ---- who is there ---- */

typedef void (*seen_fn)(void *data, const char *name, bool listens);

/* One line of /proc/net/unix: Num RefCount Protocol Flags Type St Inode Path */
static void see_line(const char *line, seen_fn fn, void *data)
{
	const char *at = strchr(line, '@');
	unsigned flags;

	if (at && str_starts(at + 1, "concc/1/") && sscanf(line, "%*s %*s %*s %x", &flags) == 1)
		fn(data, at + 1, flags & 0x10000); /* __SO_ACCEPTCON */
}

static void see_all(seen_fn fn, void *data)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *save = NULL;

	/* Unreadable: then slots are guarded, but without order. */
	if (read_file_at(AT_FDCWD, "/proc/net/unix", SOCKETS_MAX, &b) < 0)
		return;
	for (char *l = strtok_r((char *)buf_cstr(&b), "\n", &save); l;
	     l = strtok_r(NULL, "\n", &save))
		see_line(l, fn, data);
}

struct queue_view {
	const char *prefix;
	uint64_t below;	 /* tickets from here on are behind us */
	uint64_t before; /* the highest of the others, 0: none */
	uint64_t last;	 /* the highest of all */
};

static void see_ticket(void *data, const char *name, bool listens)
{
	struct queue_view *v = data;
	unsigned long long t;

	if (!listens || !str_starts(name, v->prefix) ||
	    !str_to_u64(name + strlen(v->prefix), TICKET_MAX, &t))
		return;
	if (t < v->below && t > v->before)
		v->before = t;
	if (t > v->last)
		v->last = t;
}

static void see_load(void *data, const char *name, bool listens)
{
	struct host_load *l = data;
	const char *n = strrchr(name, '/');
	unsigned long long waiting;

	if (listens && str_starts(name, SLOT_PREFIX)) {
		l->running++;
		l->others++;
	} else if (str_starts(name, WAIT_PREFIX) && str_to_u64(n + 1, WAITING_SHOWN, &waiting) &&
		   l->waiting < WAITING_SHOWN) {
		l->waiting += (uint32_t)waiting;
		l->others++;
	}
}

/* What see_load() has seen of ours. */
static uint32_t own_load(const struct host_slots *h)
{
	uint32_t n = h->marker >= 0;

	for (uint32_t i = 0; i < h->limit; i++)
		n += h->held[i].fd >= 0;
	return n;
}

void host_slots_load(const struct host_slots *h, struct host_load *ret)
{
	uint32_t own = h ? own_load(h) : 0;

	*ret = (struct host_load){0};
	see_all(see_load, ret);
	ret->others -= own < ret->others ? own : ret->others;
}

/* ---- events ---- */

static int listen_to(struct host_slots *h, int fd, uint32_t events, enum kind kind, uint32_t index)
{
	struct epoll_event e = {.events = events, .data.u64 = (uint64_t)kind << 32 | index};

	return epoll_ctl(h->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

/* Kept open until one of the two goes: a connection nobody takes would stay in the queue. */
static void take_watcher(struct host_slots *h, uint32_t slot)
{
	struct held *s = &h->held[slot];
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 || s->n_watchers == WATCHERS_MAX ||
	    listen_to(h, fd, 0, OF_WATCHER, (uint32_t)fd) < 0) {
		/* Out of descriptors, or somebody plays: no more of them for this slot. */
		if (fd >= 0 || errno != EAGAIN)
			(void)epoll_ctl(h->epoll, EPOLL_CTL_DEL, s->fd, NULL);
		fd_close(&fd);
		return;
	}
	s->watchers[s->n_watchers++] = fd;
}

static void drop_watcher(struct host_slots *h, int fd)
{
	for (uint32_t i = 0; i < h->limit; i++) {
		struct held *s = &h->held[i];

		for (unsigned w = 0; w < s->n_watchers; w++) {
			if (s->watchers[w] != fd)
				continue;
			s->watchers[w] = s->watchers[--s->n_watchers];
			(void)close(fd);
			return;
		}
	}
}

void host_slots_dispatch(struct host_slots *h)
{
	struct epoll_event e;

	/* One at a time: each may close what the next would be about. */
	for (int i = 0; i < DISPATCH_MAX && epoll_wait(h->epoll, &e, 1, 0) > 0; i++) {
		uint32_t index = (uint32_t)e.data.u64;

		switch ((enum kind)(e.data.u64 >> 32)) {
		case OF_PREDECESSOR:
			fd_close(&h->predecessor);
			break;
		case OF_WATCH:
			fd_close(&h->watches[index]);
			break;
		case OF_SLOT:
			take_watcher(h, index);
			break;
		case OF_WATCHER:
			drop_watcher(h, (int)index);
			break;
		}
	}
}

/* ---- queues ---- */

static int queue_join(struct queue *q)
{
	struct queue_view v = {.prefix = q->prefix};
	char name[80];

	see_all(see_ticket, &v);
	for (int i = 0; i < TICKET_TRIES; i++) {
		q->ticket = v.last + 1 + (uint64_t)i;
		ticket_name(name, sizeof(name), q, q->ticket);
		q->fd = own_name(SOCK_STREAM, name);
		if (q->fd != -EADDRINUSE)
			break;
	}
	if (q->fd >= 0)
		return 0;
	return q->fd == -EADDRINUSE ? -EBUSY : q->fd;
}

static void queue_leave(struct queue *q)
{
	fd_close(&q->fd);
}

static bool is_ours(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.uid == geteuid();
}

/* True when we are the first; else h->predecessor will hang up.  Who draws a ticket that has just
 * become free can be in front of us without our knowing: then a queue has two heads for a while. */
static bool queue_is_first(struct host_slots *h, const struct queue *q)
{
	struct queue_view v = {.prefix = q->prefix, .below = q->ticket};

	for (see_all(see_ticket, &v); v.before;) {
		char name[80];
		int fd;

		ticket_name(name, sizeof(name), q, v.before);
		fd = watch_name(name);
		if (fd >= 0 && (!q->of_user || is_ours(fd)) &&
		    listen_to(h, fd, 0, OF_PREDECESSOR, 0) == 0) {
			h->predecessor = fd;
			return false;
		}
		fd_close(&fd);
		/* Gone, or no one of ours: the one before. */
		v = (struct queue_view){.prefix = q->prefix, .below = v.before};
		see_all(see_ticket, &v);
	}
	return true;
}

/* Does somebody wait?  Tells, by the way, nothing to who is asked. */
static bool queue_exists(const struct host_slots *h)
{
	struct sockaddr_un sa;
	socklen_t len = address(&sa, HEAD_NAME);

	return sendto(h->knock, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&sa, len) >=
		       0 ||
	       errno == EAGAIN;
}

static void leave_queues(struct host_slots *h)
{
	queue_leave(&h->host_queue);
	queue_leave(&h->user_queue);
	fd_close(&h->head);
	fd_close(&h->predecessor);
	h->place = OUTSIDE;
}

/* ---- slots ---- */

static int take_slot(struct host_slots *h, uint32_t slot)
{
	char name[80];
	int fd;

	if (h->held[slot].fd >= 0)
		return -EADDRINUSE;
	slot_name(name, sizeof(name), slot);
	fd = own_name(SOCK_STREAM, name);
	if (fd < 0)
		return fd;
	h->held[slot] = (struct held){.fd = fd};
	(void)listen_to(h, fd, EPOLLIN, OF_SLOT, slot); /* its watchers wait in the queue then */
	return (int)slot;
}

static int take_any(struct host_slots *h)
{
	for (uint32_t i = 0; i < h->limit; i++) {
		int r = take_slot(h, i);

		if (r != -EADDRINUSE)
			return r;
	}
	return -EAGAIN;
}

static int take_or_watch(struct host_slots *h, uint32_t slot)
{
	char name[80];

	slot_name(name, sizeof(name), slot);
	for (int i = 0; i < SLOT_TRIES; i++) {
		int r = h->watches[slot] >= 0 ? -EAGAIN : take_slot(h, slot);

		if (r != -EADDRINUSE)
			return r;
		r = watch_name(name);
		if (r >= 0 && listen_to(h, r, 0, OF_WATCH, slot) == 0)
			h->watches[slot] = r;
		else
			fd_close(&r);
	}
	/* Who has it won't tell when it ends; the others will. */
	return -EAGAIN;
}

static int take_as_head(struct host_slots *h)
{
	for (uint32_t i = 0; i < h->limit; i++) {
		int r = take_or_watch(h, i);

		if (r != -EAGAIN)
			return r;
	}
	return -EAGAIN;
}

/* One step further in the queues. */
static int step(struct host_slots *h)
{
	switch (h->place) {
	case OUTSIDE:
		h->place = IN_QUEUE_OF_USER;
		return queue_join(&h->user_queue);
	case IN_QUEUE_OF_USER:
		if (!queue_is_first(h, &h->user_queue))
			return -EAGAIN;
		h->place = IN_QUEUE_OF_HOST;
		return queue_join(&h->host_queue);
	case IN_QUEUE_OF_HOST:
		if (!queue_is_first(h, &h->host_queue))
			return -EAGAIN;
		h->place = AT_HEAD;
		/* Of two heads one will do. */
		h->head = own_name(SOCK_DGRAM, HEAD_NAME);
		if (h->head < 0)
			h->head = -1;
		return 0;
	case AT_HEAD:
		return 0;
	}
	return -EINVAL;
}

static int take_in_queue(struct host_slots *h)
{
	int r = 0;

	while (r == 0 && h->place != AT_HEAD)
		r = h->predecessor >= 0 ? -EAGAIN : step(h);
	if (r == 0)
		r = take_as_head(h);
	if (r != -EAGAIN)
		leave_queues(h);
	return r;
}

int host_slots_take(struct host_slots *h)
{
	bool waited = h->place != OUTSIDE;
	int r = -EAGAIN;

	if (!waited && !h->contended && !queue_exists(h))
		r = take_any(h);
	if (r == -EAGAIN)
		r = take_in_queue(h);
	h->contended = r == -EAGAIN || (r >= 0 && waited);
	return r;
}

void host_slots_give_back(struct host_slots *h, int slot)
{
	struct held *s = &h->held[slot];

	/* First the name: who is told of it must find it free. */
	fd_close(&s->fd);
	while (s->n_watchers > 0)
		(void)close(s->watchers[--s->n_watchers]);
}

/* ---- life ---- */

int host_slots_event_fd(const struct host_slots *h)
{
	return h->epoll;
}

static void drop_watches(struct host_slots *h)
{
	for (uint32_t i = 0; i < h->limit; i++)
		fd_close(&h->watches[i]);
}

void host_slots_waiting(struct host_slots *h, uint32_t n)
{
	char name[80];

	if (n == h->waiting)
		return;
	h->waiting = n;
	fd_close(&h->marker);
	if (n == 0) {
		leave_queues(h);
		drop_watches(h);
		h->contended = false;
		return;
	}
	snprintf(name, sizeof(name), WAIT_PREFIX "%" PRIx64 "/%u", h->id, n);
	h->marker = own_name(SOCK_DGRAM, name);
	if (h->marker < 0)
		h->marker = -1; /* a number that is not shown */
}

int host_slots_new(uint32_t limit, struct host_slots **ret, struct errmsg *msg)
{
	struct host_slots *h;

	if (limit < 1 || limit > HOST_SLOTS_MAX)
		return errmsg_set(msg, -EINVAL, "%u slots: 1 to %d are possible", limit,
				  HOST_SLOTS_MAX);
	h = xcalloc(1, sizeof(*h));
	h->limit = limit;
	h->held = xcalloc(limit, sizeof(*h->held));
	h->watches = xcalloc(limit, sizeof(*h->watches));
	for (uint32_t i = 0; i < limit; i++)
		h->held[i].fd = h->watches[i] = -1;
	h->user_queue.fd = h->host_queue.fd = h->head = h->predecessor = h->marker = -1;
	h->user_queue.of_user = true;
	snprintf(h->user_queue.prefix, sizeof(h->user_queue.prefix), USER_QUEUE_PREFIX,
		 (unsigned)geteuid());
	snprintf(h->host_queue.prefix, sizeof(h->host_queue.prefix), HOST_QUEUE_PREFIX);
	h->epoll = epoll_create1(EPOLL_CLOEXEC);
	h->knock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (h->epoll < 0 || h->knock < 0 || getrandom(&h->id, sizeof(h->id), 0) != sizeof(h->id)) {
		int err = errno;

		host_slots_free(h);
		return errmsg_set(msg, -err, "can't guard the host's cores: %s", err_text(-err));
	}
	*ret = h;
	return 0;
}

void host_slots_free(struct host_slots *h)
{
	if (!h)
		return;
	leave_queues(h);
	drop_watches(h);
	for (uint32_t i = 0; i < h->limit; i++)
		host_slots_give_back(h, (int)i);
	fd_close(&h->marker);
	fd_close(&h->knock);
	fd_close(&h->epoll);
	free(h->held);
	free(h->watches);
	free(h);
}
