/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "feed.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/proto.h"
#include "concc/str.h"

#define DIR_EVENTS (IN_CREATE | IN_ATTRIB | IN_MOVED_TO | IN_ONLYDIR)

/* ---- one server ---- */

bool feed_is_there(const struct feed_server *s)
{
	return s->conn.fd >= 0;
}

static void hang_up(struct feed_server *s)
{
	conn_release(&s->conn);
	buf_reset(&s->message);
	json_decref(steal_ptr(&s->status));
	s->n_samples = 0;
	s->n_ended = 0;
}

static bool ask(struct feed_server *s)
{
	char *words[] = {(char *)"watch", NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_ctl_encode(&b, words);
	return conn_send(&s->conn, MSG_CTL, &b) == 0; /* some bytes: there is room for them */
}

/* One that does not listen yet is heard of when it does. */
static bool try_connect(struct feed_server *s)
{
	if (feed_is_there(s) || server_connect(s->dir, &s->conn) < 0)
		return false;
	if (fd_set_nonblock(s->conn.fd, true) < 0 || !ask(s))
		hang_up(s);
	return feed_is_there(s);
}

static void take_sample(struct feed_server *s)
{
	if (s->n_samples == FEED_SAMPLES)
		memmove(s->samples, s->samples + 1, --s->n_samples * sizeof(*s->samples));
	s->samples[s->n_samples].ms = s->status_ms;
	s->samples[s->n_samples++].n = s->n_ended;
}

/* Of those that ended the last ones are told: what is older than these is not seen. */
static void tell_ended(struct feed *f, struct feed_server *s, bool first)
{
	const json_t *recent = json_object_get(s->status, "recent");
	uint64_t n = (uint64_t)json_integer_value(json_object_get(s->status, "ended"));
	size_t have = json_array_size(recent), new = n - s->n_ended < have ? n - s->n_ended : have;

	s->n_ended = n;
	for (size_t i = first ? have : have - new; f->ended &&i < have; i++)
		f->ended(f->data, json_array_get(recent, i));
}

static bool take_reply(struct feed *f, struct feed_server *s)
{
	_cleanup_free_ char *text = NULL;
	bool first = !s->status;
	uint32_t status;
	json_t *o;

	if (msg_ctl_reply_decode((struct blob){s->message.data, s->message.len}, &status, &text) <
		    0 ||
	    status)
		return false; /* of a version that has no such word */
	o = json_loads(text, 0, NULL);
	if (!json_is_object(o)) {
		json_decref(o);
		return false;
	}
	json_decref(s->status);
	s->status = o;
	s->status_ms = now_ms();
	tell_ended(f, s, first);
	take_sample(s);
	return ask(s);
}

/* One frame from what was read; 1, 0 when there is none, or negative. */
static int take_frame(struct feed *f, struct feed_server *s)
{
	struct buf *in = &s->conn.in;
	struct proto_header h;
	int r;

	if (in->len < PROTO_HEADER_LEN)
		return 0;
	r = proto_get_header(in->data, &h);
	if (r < 0)
		return r;
	if (in->len < PROTO_HEADER_LEN + h.len)
		return 0;
	if (h.type != MSG_CTL_REPLY || s->message.len + h.len > PROTO_MSG_MAX)
		return CONCC_E_PROTO;
	buf_append(&s->message, in->data + PROTO_HEADER_LEN, h.len);
	buf_consume(in, PROTO_HEADER_LEN + h.len);
	if (h.flags & PROTO_F_MORE)
		return 1;
	r = take_reply(f, s) ? 1 : CONCC_E_PROTO;
	buf_reset(&s->message);
	return r;
}

static bool read_some(struct feed *f, struct feed_server *s)
{
	uint8_t *p = buf_grow(&s->conn.in, PROTO_FRAME_MAX);
	ssize_t n = recv(s->conn.fd, p, PROTO_FRAME_MAX, MSG_DONTWAIT);
	int r = 1;

	s->conn.in.len -= PROTO_FRAME_MAX - (n > 0 ? (size_t)n : 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	while (n > 0 && r > 0)
		r = take_frame(f, s);
	if (n <= 0 || r < 0)
		hang_up(s);
	return true;
}

/* ---- which there are ---- */

static struct feed_server *find(struct feed *f, const char *dir)
{
	for (unsigned i = 0; i < f->n; i++)
		if (streq(f->servers[i].dir, dir))
			return &f->servers[i];
	return NULL;
}

static void add(struct feed *f, const char *dir)
{
	struct feed_server *s = &f->servers[f->n];

	if (f->n == FEED_SERVERS_MAX || find(f, dir))
		return;
	*s = (struct feed_server){.dir = xstrdup(dir), .conn = {.fd = -1}};
	s->wd = inotify_add_watch(f->inotify_fd, dir, DIR_EVENTS);
	f->n++;
}

static void drop(struct feed *f, unsigned i)
{
	struct feed_server *s = &f->servers[i];

	hang_up(s);
	buf_release(&s->message);
	free(s->dir);
	memmove(s, s + 1, (--f->n - i) * sizeof(*s));
}

static bool look_for_more(struct feed *f)
{
	_cleanup_strv_ char **dirs = server_other_dirs(f->servers[0].dir);
	bool found = false;

	for (char **d = dirs; d && *d; d++)
		add(f, *d);
	for (unsigned i = 0; i < f->n; i++)
		found |= try_connect(&f->servers[i]);
	return found;
}

/* The directory is gone, and with it who was in it. */
static bool forget(struct feed *f, int wd)
{
	for (unsigned i = 1; i < f->n; i++) {
		if (f->servers[i].wd != wd)
			continue;
		drop(f, i);
		return true;
	}
	return false;
}

static bool matters(const struct feed *f, const struct inotify_event *e)
{
	if (e->mask & IN_Q_OVERFLOW)
		return true;
	if (!e->len)
		return false;
	if (e->wd == f->tmp_wd)
		return str_starts(e->name, path_base(RUN_DIR_PREFIX));
	return streq(e->name, "project.sock");
}

static bool read_events(struct feed *f)
{
	char events[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)]
		__attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n = read(f->inotify_fd, events, sizeof(events));
	bool look = false, changed = false;

	for (ssize_t i = 0; i < n;) {
		const struct inotify_event *e = (const struct inotify_event *)(events + i);

		look |= matters(f, e);
		if (e->mask & IN_IGNORED)
			changed |= forget(f, e->wd);
		i += (ssize_t)(sizeof(*e) + e->len);
	}
	return (look && look_for_more(f)) || changed;
}

/* ---- all ---- */

int feed_open(struct feed *f, struct errmsg *msg)
{
	_cleanup_free_ char *dir = NULL;
	int r;

	*f = (struct feed){.inotify_fd = -1};
	r = runtime_dir_open(&dir, NULL, msg);
	if (r < 0)
		return r;
	f->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (f->inotify_fd < 0)
		return errmsg_set(msg, -errno, "can't watch %s: %s", dir, err_text(-errno));
	add(f, dir);
	f->tmp_wd = inotify_add_watch(f->inotify_fd, "/tmp", IN_CREATE | IN_MOVED_TO);
	(void)look_for_more(f);
	return 0;
}

void feed_close(struct feed *f)
{
	while (f->n)
		drop(f, f->n - 1);
	if (f->inotify_fd >= 0)
		(void)close(f->inotify_fd);
	f->inotify_fd = -1;
}

unsigned feed_poll(const struct feed *f, struct pollfd *ret)
{
	unsigned n = 0;

	ret[n++] = (struct pollfd){.fd = f->inotify_fd, .events = POLLIN};
	for (unsigned i = 0; i < f->n; i++)
		if (feed_is_there(&f->servers[i]))
			ret[n++] = (struct pollfd){.fd = f->servers[i].conn.fd, .events = POLLIN};
	return n;
}

static struct feed_server *by_fd(struct feed *f, int fd)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->servers[i].conn.fd == fd)
			return &f->servers[i];
	return NULL;
}

bool feed_handle(struct feed *f, const struct pollfd *p, unsigned n)
{
	bool changed = false, ended = false;

	for (unsigned i = 1; i < n; i++) {
		struct feed_server *s = p[i].revents ? by_fd(f, p[i].fd) : NULL;

		if (!s)
			continue;
		changed |= read_some(f, s);
		ended |= !feed_is_there(s);
	}
	/* Last, since it may move them.  The next one may have begun already, unheard. */
	if (n && p[0].revents)
		changed |= read_events(f);
	if (ended)
		(void)look_for_more(f);
	return changed;
}

bool feed_is_complete(const struct feed *f)
{
	for (unsigned i = 0; i < f->n; i++)
		if (feed_is_there(&f->servers[i]) && !f->servers[i].status)
			return false;
	return true;
}

#define RATE_MS 10000

/* From the last sample before those ten seconds, or the first of all. */
static double rate_of(const struct feed_server *s, uint64_t now)
{
	unsigned i = 0;

	if (!s->n_samples)
		return 0;
	while (i + 1 < s->n_samples && s->samples[i + 1].ms + RATE_MS <= now)
		i++;
	if (now - s->samples[i].ms < 1000)
		return 0;
	if (s->samples[i].ms + RATE_MS < now)
		return (double)(s->n_ended - s->samples[i].n) * 1000 / RATE_MS;
	return (double)(s->n_ended - s->samples[i].n) * 1000 / (double)(now - s->samples[i].ms);
}

double feed_rate(const struct feed *f)
{
	double sum = 0;

	for (unsigned i = 0; i < f->n; i++)
		sum += rate_of(&f->servers[i], now_ms());
	return sum;
}
