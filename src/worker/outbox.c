/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "upper.h"

/* Room for the job's id below the frame's bound. */
#define CHUNK (PROTO_FRAME_MAX - 16)
/* Each may be a file to open, on a disk that is slow: after this long the loop sees to what has
 * come meanwhile. */
#define PUMP_MS 20

struct item {
	struct list link;
	uint8_t type; /* 0: call fn */
	struct buf payload;
	/* MSG_JOB_FILE with bytes to follow */
	char *path;
	int dir_fd;
	int fd;
	bool announced;
	uint64_t size, sent;
	void (*fn)(void *data);
	void *data;
};

static void item_free(struct item *i)
{
	list_remove(&i->link);
	buf_release(&i->payload);
	free(i->path);
	if (i->fd >= 0)
		close(i->fd);
	free(i);
}

void outbox_init(struct outbox *o, uint32_t job_id)
{
	list_init(&o->items);
	list_init(&o->of_sending);
	o->job_id = job_id;
}

void outbox_release(struct outbox *o)
{
	while (!list_empty(&o->items))
		item_free(list_first(&o->items, struct item, link));
	list_remove(&o->of_sending);
}

static struct item *add(struct agent *a, struct outbox *o, uint8_t type)
{
	struct item *i = xcalloc(1, sizeof(*i));

	i->type = type;
	i->fd = -1;
	list_append(&o->items, &i->link);
	if (list_empty(&o->of_sending))
		list_append(&a->sending, &o->of_sending);
	return i;
}

void outbox_message(struct agent *a, struct outbox *o, uint8_t type, const struct buf *b)
{
	struct item *i = add(a, o, type);

	buf_append(&i->payload, b->data, b->len);
}

void outbox_file(struct agent *a, struct outbox *o, const struct msg_file *f, int dir_fd, int fd)
{
	struct item *i = add(a, o, MSG_JOB_FILE);

	msg_file_encode(&i->payload, f);
	if (f->kind != EFFECT_FILE || f->size == 0)
		return;
	i->path = xstrdup(f->path);
	i->dir_fd = dir_fd;
	if (fd >= 0)
		i->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	i->size = f->size;
}

void outbox_then(struct agent *a, struct outbox *o, void (*fn)(void *data), void *data)
{
	struct item *i = add(a, o, 0);

	i->fn = fn;
	i->data = data;
}

/* The next bytes of a file.  False when the file is not what was announced any more. */
static bool send_chunk(struct agent *a, struct outbox *o, struct item *i)
{
	static uint8_t chunk[CHUNK];
	uint64_t left = i->size - i->sent;
	size_t want = left < sizeof(chunk) ? (size_t)left : sizeof(chunk);
	_cleanup_buf_ struct buf b = BUF_INIT;
	ssize_t n;

	if (i->fd < 0)
		i->fd = openat_beneath(i->dir_fd, i->path, O_RDONLY | O_NONBLOCK);
	if (i->fd < 0)
		return false;
	n = pread(i->fd, chunk, want, (off_t)i->sent);
	if (n <= 0)
		return false;
	msg_bytes_encode(&b, o->job_id, chunk, (size_t)n);
	link_send_buf(a->link, MSG_JOB_DATA, LINK_BULK, &b);
	i->sent += (uint64_t)n;
	return true;
}

enum step { STEP_MORE, STEP_DONE, STEP_FAILED };

/* One frame of an item. */
static enum step step(struct agent *a, struct outbox *o, struct item *i)
{
	if (!i->announced) {
		link_send_buf(a->link, i->type, LINK_BULK, &i->payload);
		i->announced = true;
		return i->path ? STEP_MORE : STEP_DONE;
	}
	if (!send_chunk(a, o, i))
		return STEP_FAILED;
	return i->sent == i->size ? STEP_DONE : STEP_MORE;
}

static void pump_again(void *data)
{
	struct agent *a = data;

	a->pump_source = NULL;
	outbox_pump(a);
}

void outbox_pump(struct agent *a)
{
	for (int n = 0; !list_empty(&a->sending) && link_queued_bulk(a->link) < LINK_BULK_LOW;
	     n++) {
		struct outbox *o = list_first(&a->sending, struct outbox, of_sending);
		struct item *i = list_first(&o->items, struct item, link);
		void (*fn)(void *data) = i->fn;
		void *data = i->data;
		enum step s;

		if (n && now_ms() - loop_woke_ms(a->loop) >= PUMP_MS) {
			if (!a->pump_source)
				a->pump_source = loop_defer(a->loop, pump_again, a);
			return;
		}
		s = fn ? STEP_DONE : step(a, o, i);
		list_remove(&o->of_sending);
		if (s == STEP_FAILED) {
			outbox_failed(o, i->path);
			continue;
		}
		if (s == STEP_DONE)
			item_free(i);
		if (!list_empty(&o->items))
			list_append(&a->sending, &o->of_sending);
		/* Deferred, so that what was queued before is on its way first. */
		if (fn)
			loop_defer(a->loop, fn, data);
	}
}
