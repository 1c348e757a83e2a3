/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "disk.h"
#include "client.h"

#include <errno.h>
#include <stdlib.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/offload.h"
#include "concc/str.h"

/* One for each lane: what hangs in one holds up nothing of the other. */
#define THREADS 2
/* Records that wait for the disk: some 10 000 jobs. */
#define BYTES_MAX (4 * 1024 * 1024)
/* One that comes alone is written at once.  Of many, those of so long are written together, which
 * is less than a system call for each; who wants to read them asks. */
#define GATHER_MS    200
#define GATHER_BYTES (64 * 1024)
#define END_S	     5 /* for what waits at the end */

struct disk {
	struct server *server;
	struct offload *offload;
	struct offload_lane *appending, *replacing;
	struct loop_source *source, *timer;
	struct record_file *file; /* the lane's own once there is a call; NULL: there is none */
	struct buf gathered;
	unsigned n_gathered;
	bool gathering; /* until the timer */
	uint64_t n_waiting, n_lost;
	uint64_t moved_ms; /* when one was written last, or began to wait */
	int err;	   /* of the last records */
	unsigned n_replacing;
	bool cant_replace; /* which was said */
};

/* ---- records ---- */

struct batch {
	struct disk *disk;
	struct buf b;
	unsigned n;
	int err;
};

static void batch_free(struct batch *t)
{
	buf_release(&t->b);
	free(t);
}

static void append(void *arg)
{
	struct batch *t = arg;

	t->err = record_append(t->disk->file, &t->b, t->n);
}

/* One line when it begins; how many they are is in `concc status`. */
static void lose(struct disk *d, unsigned n, int err)
{
	if (!d->err)
		log_warn("can't write records of jobs in %s: %s; reports will lack them",
			 d->server->cache, err_text(err));
	d->err = err;
	d->n_lost += n;
}

static void appended(void *arg)
{
	struct batch *t = arg;
	struct disk *d = t->disk;

	d->n_waiting -= t->n;
	d->moved_ms = now_ms();
	if (t->err < 0)
		lose(d, t->n, t->err);
	else
		d->err = 0;
	batch_free(t);
}

/* last: whatever waits before them. */
static void put_gathered(struct disk *d, bool last)
{
	struct batch *t;

	if (!d->n_gathered)
		return;
	t = xcalloc(1, sizeof(*t));
	t->disk = d;
	t->b = d->gathered;
	t->n = d->n_gathered;
	d->gathered = (struct buf)BUF_INIT;
	d->n_gathered = 0;
	if (offload_put(d->appending, append, appended, t, last ? 0 : t->b.len))
		return;
	d->n_waiting -= t->n;
	lose(d, t->n, -ETIMEDOUT);
	batch_free(t);
}

static void on_timer(void *data)
{
	struct disk *d = data;

	d->gathering = d->n_gathered;
	if (d->gathering)
		loop_timer_set(d->timer, GATHER_MS);
	put_gathered(d, false);
}

void disk_record(struct server *s, const struct record *r)
{
	struct disk *d = s->disk;

	if (!d)
		return;
	if (!d->file) {
		d->n_lost++;
		return;
	}
	if (!d->n_waiting++)
		d->moved_ms = now_ms();
	d->n_gathered++;
	record_put(&d->gathered, r);
	if (!d->gathering || d->gathered.len >= GATHER_BYTES)
		put_gathered(d, false);
	if (!d->gathering)
		loop_timer_set(d->timer, GATHER_MS);
	d->gathering = true;
}

/* ---- who waits for them ---- */

struct disk_flush {
	struct client *client; /* NULL: it has gone */
};

static void wait_turn(void *arg)
{
	(void)arg; /* behind what is in the lane already */
}

static void flushed(void *arg)
{
	struct disk_flush *f = arg;
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (f->client) {
		f->client->flush = NULL;
		msg_ctl_reply_encode(&b, 0, "");
		link_send_buf(f->client->link, MSG_CTL_REPLY, LINK_BULK, &b);
	}
	free(f);
}

void disk_flush(struct client *c)
{
	struct disk *d = c->server->disk;

	if (!d || c->flush)
		return; /* the answer to the first is one to both */
	put_gathered(d, false);
	c->flush = xcalloc(1, sizeof(*c->flush));
	c->flush->client = c;
	(void)offload_put(d->appending, wait_turn, flushed, c->flush, 0); /* one of each client */
}

void disk_forget(struct client *c)
{
	if (c->flush)
		c->flush->client = NULL;
}

/* ---- files that are written anew ---- */

struct replacement {
	struct disk *disk;
	char *path;
	struct buf b;
	int err;
};

static void replace(void *arg)
{
	struct replacement *p = arg;

	p->err = replace_file(p->path, p->b.data, p->b.len);
}

static void replaced(void *arg)
{
	struct replacement *p = arg;
	struct disk *d = p->disk;

	d->n_replacing--;
	if (p->err < 0 && !d->cant_replace)
		log_warn("can't write %s: %s; the next server begins without", p->path,
			 err_text(p->err));
	d->cant_replace = p->err < 0;
	buf_release(&p->b);
	free(p->path);
	free(p);
}

void disk_replace(struct server *s, const char *path, struct buf *b)
{
	struct replacement *p;

	if (!s->disk)
		return;
	p = xcalloc(1, sizeof(*p));
	p->disk = s->disk;
	p->path = xstrdup(path);
	p->b = *b;
	*b = (struct buf)BUF_INIT;
	s->disk->n_replacing++;
	(void)offload_put(s->disk->replacing, replace, replaced, p, 0); /* each file once */
}

bool disk_is_replacing(const struct server *s)
{
	return s->disk && s->disk->n_replacing;
}

/* ---- life ---- */

static void on_done(void *data, uint32_t events)
{
	struct disk *d = data;

	offload_dispatch(d->offload);
}

void disk_open(struct server *s)
{
	_cleanup_free_ char *path = record_path(s->cache);
	struct disk *d = xcalloc(1, sizeof(*d));
	int r = record_file_open(path, &d->file);

	if (r < 0)
		log_warn("can't use %s: %s; there will be no report of builds", path, err_text(r));
	d->err = r;
	d->server = s;
	d->offload = offload_new(THREADS, BYTES_MAX);
	d->appending = offload_lane(d->offload);
	d->replacing = offload_lane(d->offload);
	d->timer = loop_add_timer(s->loop, 0, on_timer, d);
	d->source = loop_add_fd(s->loop, offload_event_fd(d->offload), LOOP_READ, on_done, d);
	s->disk = d;
}

bool disk_close(struct server *s)
{
	struct disk *d = s->disk;

	if (!d)
		return true;
	s->disk = NULL;
	put_gathered(d, true);
	loop_remove(d->timer);
	loop_remove(d->source);
	if (!offload_free(d->offload, END_S)) {
		log_warn("ending although a call to the disk of %s hangs; what it was to keep is "
			 "lost",
			 s->cache);
		return false; /* a thread uses what there is */
	}
	record_file_close(d->file);
	buf_release(&d->gathered);
	free(d);
	return true;
}

void disk_counts(const struct server *s, struct disk_counts *ret)
{
	const struct disk *d = s->disk;

	*ret = (struct disk_counts){0};
	if (!d)
		return;
	ret->waiting = d->n_waiting;
	ret->lost = d->n_lost;
	ret->err = d->err;
	if (d->n_waiting)
		ret->stuck_ms = now_ms() - d->moved_ms;
}
