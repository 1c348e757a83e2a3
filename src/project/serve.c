/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "serve.h"
#include "server.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/offload.h"
#include "concc/str.h"
#include "ahead.h"
#include "estimator.h"
#include "filling.h"
#include "straggler.h"
#include "watchers.h"
#include "working_set.h"

/* Room for the message's own fields below the frame's bound. */
#define CHUNK (PROTO_FRAME_MAX - 64)
/* A worker has one open request per file it waits for or was told of; far more is a broken or
 * hostile one. */
#define FETCHES_MAX 65536
/* Files read at once: each costs a descriptor, and by turns of a frame more would be no faster. */
#define SERVING_MAX 32

/* What one peer has asked for. */
struct serving {
	struct list waiting; /* struct fetch.of_peer, not begun, in the order they came */
	struct list begun;   /* the same: with an open file, by turns */
	struct list away;    /* the same: a thread has it, to read or to compare what is offered */
	struct map by_id;    /* id -> struct fetch */
	unsigned n_fetches, n_begun;
	/* Bytes of contents, since none was wanted: asked for, and sent of those. */
	uint64_t wanted_bytes, sent_bytes;
	/* Since when how fast they go is measured: sent_bytes then. */
	uint64_t rate_since_us, rate_from;
	double bytes_per_us; /* 0: not known */
	bool begin_next;     /* whose turn it is */
};

struct fetch {
	struct list of_peer;
	struct peer *peer;
	struct msg_fetch msg;
	int fd;
	bool begun;		 /* counted in n_begun */
	struct compare *compare; /* what it offers is compared just now; or NULL */
	struct piece *piece;	 /* its next bytes are read just now; or NULL */
	bool by_thread;		 /* each read of it may have to wait */
	uint64_t offset;
	uint64_t size;	 /* of the version that was asked for: what was appended is none of it */
	uint64_t wanted; /* of it in wanted_bytes: its size as that is known */
	struct digest_ctx *digest;
};

/* A file that is hashed on a thread, since the worker offers what may be the same bytes. */
struct compare {
	struct fetch *fetch;
	atomic_bool useless; /* fetch is gone */
	int fd;
	int err;
	struct digest digest;
};

/* Bytes that are not in memory: the disk may be slow, so a thread reads them. */
struct piece {
	struct fetch *fetch;
	atomic_bool useless; /* fetch is gone */
	int fd;
	uint64_t offset;
	size_t want;
	ssize_t n; /* or -errno */
	uint8_t bytes[];
};

/* Nothing is left to be sent: what comes next is another lot. */
static void note_all_sent(struct peer *p)
{
	p->serving->wanted_bytes = p->serving->sent_bytes = p->serving->rate_from =
		p->serving->rate_since_us = 0;
	watchers_tell(p->server);
	estimator_publish_worker(p->server->estimator, p);
}

bool serve_is_asked(const struct peer *p)
{
	return p->serving->n_fetches > 0;
}

/* What is sent in one go is more than what is gone; over this time it comes to the same. */
#define RATE_US 200000
/* As much as that may well be on its way already. */
#define LEFT_MIN (512 * 1024)

uint64_t serve_left_us(const struct peer *p)
{
	uint64_t left = p->serving->wanted_bytes - p->serving->sent_bytes;

	if (left < LEFT_MIN || p->serving->bytes_per_us <= 0)
		return 0;
	return (uint64_t)((double)left / p->serving->bytes_per_us);
}

static void note_sent(struct peer *p, uint64_t n)
{
	uint64_t now = now_us(), gone = now - p->serving->rate_since_us;
	double rate;

	p->serving->sent_bytes += n;
	watchers_tell(p->server);
	if (!p->serving->rate_since_us) {
		p->serving->rate_since_us = now;
		return;
	}
	if (gone < RATE_US)
		return;
	rate = (double)(p->serving->sent_bytes - p->serving->rate_from) / (double)gone;
	p->serving->bytes_per_us = p->serving->bytes_per_us > 0
					   ? (p->serving->bytes_per_us + rate) / 2
					   : rate;
	p->serving->rate_since_us = now;
	p->serving->rate_from = p->serving->sent_bytes;
	estimator_publish_worker(p->server->estimator, p);
	if (filling_left_us(p))
		stragglers_look(p->server->stragglers);
}

static void fetch_free(struct fetch *f)
{
	list_remove(&f->of_peer);
	if (map_get_u64(&f->peer->serving->by_id, f->msg.fetch_id) == f)
		(void)map_del_u64(&f->peer->serving->by_id, f->msg.fetch_id);
	if (f->begun)
		f->peer->serving->n_begun--;
	if (f->compare)
		atomic_store(&f->compare->useless, true);
	if (f->piece)
		atomic_store(&f->piece->useless, true);
	if (f->fd >= 0)
		close(f->fd);
	f->peer->serving->wanted_bytes -= f->wanted - f->offset; /* of one that fails */
	if (--f->peer->serving->n_fetches == 0)
		note_all_sent(f->peer);
	digest_free(f->digest);
	msg_fetch_release(&f->msg);
	free(f);
}

static void answer(struct peer *p, const struct msg_content *m)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_content_encode(&b, m);
	link_send_buf(p->link, MSG_CONTENT, LINK_BULK, &b);
}

static void fail(struct peer *p, struct fetch *f, int err)
{
	struct msg_content m = {.fetch_id = f->msg.fetch_id, .state = CONTENT_GONE};

	if (err != CONCC_E_STALE) {
		m.state = CONTENT_ERROR;
		m.error = err < 0 && err > -4096 ? (uint32_t)-err : EIO;
	}
	answer(p, &m);
	fetch_free(f);
}

static void finish(struct peer *p, struct fetch *f, const struct digest *d)
{
	struct tree *t = p->server->tree;
	struct msg_content m = {.fetch_id = f->msg.fetch_id, .state = CONTENT_END, .digest = *d};
	int r;

	/* The bytes may have been changed under our reading: only now is it known that not. */
	r = tree_check_file(t, f->msg.dir_id, f->msg.name, f->msg.version, f->fd);
	if (r < 0) {
		fail(p, f, r);
		return;
	}
	tree_learn(t, f->msg.dir_id, f->msg.name, f->msg.version, d);
	answer(p, &m);
	working_set_note_file(p, f->msg.dir_id, f->msg.name);
	p->fetched_files += f->offset > 0;
	p->fetched_bytes += f->offset;
	fetch_free(f);
}

/* ---- what is offered ---- */

static void compare_run(void *arg)
{
	struct compare *c = arg;

	if (!atomic_load(&c->useless))
		c->err = digest_of_fd(c->fd, &c->digest, NULL);
}

static void compare_done(void *arg)
{
	struct compare *c = arg;
	struct fetch *f = c->fetch;

	if (!atomic_load(&c->useless)) {
		struct peer *p = f->peer;

		f->compare = NULL;
		f->fd = steal_fd(&c->fd);
		list_remove(&f->of_peer);
		list_append(&p->serving->begun, &f->of_peer);
		if (c->err == 0 && digest_eq(&c->digest, &f->msg.offer))
			finish(p, f, &c->digest);
		serve_more(p);
	}
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}

/* True when the answer needs no bytes, or comes later. */
static bool serve_offer(struct peer *p, struct fetch *f, const struct entry_attr *attr)
{
	struct compare *c;

	if (attr->has_digest && digest_eq(&attr->digest, &f->msg.offer)) {
		finish(p, f, &attr->digest);
		return true;
	}
	if (attr->has_digest)
		return false;
	c = xcalloc(1, sizeof(*c));
	c->fetch = f;
	c->fd = steal_fd(&f->fd);
	f->compare = c;
	list_remove(&f->of_peer);
	list_append(&p->serving->away, &f->of_peer);
	/* Takes no bytes: can't fail.  As many as are served at once. */
	(void)offload_put(p->server->comparing, compare_run, compare_done, c, 0);
	return true;
}

static int begin(struct peer *p, struct fetch *f, struct entry_attr *ret)
{
	int r = tree_open_file(p->server->tree, f->msg.dir_id, f->msg.name, f->msg.version, &f->fd,
			       ret);

	if (r < 0)
		return r;
	f->begun = true;
	p->serving->n_begun++;
	f->size = ret->size;
	f->peer->serving->wanted_bytes += f->size - f->wanted;
	f->wanted = f->size;
	f->digest = digest_new();
	return 0;
}

/* What was read next; a file that has more goes to the end of the queue. */
static void send_piece(struct peer *p, struct fetch *f, const uint8_t *bytes, ssize_t n)
{
	struct digest d;

	if (n < 0) {
		fail(p, f, (int)n);
		return;
	}
	if (n > 0) {
		struct msg_content m = {
			.fetch_id = f->msg.fetch_id,
			.state = CONTENT_DATA,
			.offset = f->offset,
			.data = {bytes, (size_t)n},
		};

		digest_update(f->digest, bytes, (size_t)n);
		answer(p, &m);
		f->offset += (uint64_t)n;
		note_sent(p, (uint64_t)n);
	}
	if (n == 0 || f->offset == f->size) {
		digest_final(f->digest, &d);
		finish(p, f, &d);
		return;
	}
	list_remove(&f->of_peer);
	list_append(&p->serving->begun, &f->of_peer);
}

static void read_piece(void *arg)
{
	struct piece *c = arg;

	if (atomic_load(&c->useless))
		return;
	c->n = pread(c->fd, c->bytes, c->want, (off_t)c->offset);
	if (c->n < 0)
		c->n = -errno;
}

static void piece_is_read(void *arg)
{
	struct piece *c = arg;
	struct fetch *f = c->fetch;

	if (!atomic_load(&c->useless)) {
		struct peer *p = f->peer;

		f->piece = NULL;
		f->fd = steal_fd(&c->fd);
		send_piece(p, f, c->bytes, c->n);
		serve_more(p);
	}
	if (c->fd >= 0)
		(void)close(c->fd);
	free(c);
}

static void read_by_thread(struct peer *p, struct fetch *f, size_t want)
{
	struct piece *c = xcalloc(1, sizeof(*c) + want);

	c->fetch = f;
	c->fd = steal_fd(&f->fd);
	c->offset = f->offset;
	c->want = want;
	f->piece = c;
	list_remove(&f->of_peer);
	list_append(&p->serving->away, &f->of_peer);
	/* Takes no bytes: can't fail.  As many as are served at once. */
	(void)offload_put(p->server->reading, read_piece, piece_is_read, c, 0);
}

/* What is in memory, which need not be all; -EAGAIN: nothing is, so who reads has to wait. */
static ssize_t read_now(struct fetch *f, void *p, size_t want)
{
	struct iovec v = {p, want};
	ssize_t n;

	if (f->by_thread)
		return -EAGAIN;
	n = preadv2(f->fd, &v, 1, (off_t)f->offset, RWF_NOWAIT);
	if (n >= 0 || errno == EAGAIN)
		return n < 0 ? -EAGAIN : n;
	/* This file system can't tell.  tmpfs can't, and FUSE and NFS, which may take long. */
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	f->by_thread = fs_is_network(f->fd);
	if (f->by_thread)
		return -EAGAIN;
	n = pread(f->fd, p, want, (off_t)f->offset);
	return n < 0 ? -errno : n;
}

/* One chunk of one file. */
static void serve_chunk(struct peer *p, struct fetch *f)
{
	static uint8_t chunk[CHUNK];
	size_t want;
	ssize_t n;

	if (!f->begun) {
		struct entry_attr attr;
		int r = begin(p, f, &attr);

		if (r < 0) {
			fail(p, f, r);
			return;
		}
		if (f->msg.offers && serve_offer(p, f, &attr))
			return;
	}
	want = f->size - f->offset < sizeof(chunk) ? (size_t)(f->size - f->offset) : sizeof(chunk);
	n = read_now(f, chunk, want);
	if (n == -EAGAIN)
		read_by_thread(p, f, want);
	else
		send_piece(p, f, chunk, n);
}

/* A new one and one that was begun, in turn; NULL when there is none. */
static struct fetch *next_turn(struct peer *p)
{
	bool can_begin = !list_empty(&p->serving->waiting) && p->serving->n_begun < SERVING_MAX;

	if (can_begin && (p->serving->begin_next || list_empty(&p->serving->begun))) {
		p->serving->begin_next = false;
		return list_first(&p->serving->waiting, struct fetch, of_peer);
	}
	p->serving->begin_next = true;
	return list_empty(&p->serving->begun)
		       ? NULL
		       : list_first(&p->serving->begun, struct fetch, of_peer);
}

void serve_more(struct peer *p)
{
	struct fetch *f;

	while (p->link && link_queued_bulk(p->link) < LINK_BULK_LOW && (f = next_turn(p)))
		serve_chunk(p, f);
}

/* As the file was told to the worker; another version's fetch fails, and takes nothing. */
static uint64_t listed_size(const struct peer *p, const struct msg_fetch *m)
{
	struct entry_attr a;

	tree_entry(p->server->tree, m->dir_id, m->name, &a);
	return a.type == ENTRY_FILE ? a.size : 0;
}

int serve_fetch(struct peer *p, struct blob payload)
{
	struct fetch *f;
	int r;

	if (p->serving->n_fetches >= FETCHES_MAX)
		return CONCC_E_TOOBIG;
	f = xcalloc(1, sizeof(*f));
	f->fd = -1;
	f->peer = p;
	p->serving->n_fetches++;
	p->asked_ms = now_ms();
	list_init(&f->of_peer);
	r = msg_fetch_decode(payload, &f->msg);
	if (r == 0 && map_get_u64(&p->serving->by_id, f->msg.fetch_id))
		r = CONCC_E_PROTO;
	if (r < 0) {
		fetch_free(f);
		return r;
	}
	map_put_u64(&p->serving->by_id, f->msg.fetch_id, f);
	f->wanted = listed_size(p, &f->msg);
	p->serving->wanted_bytes += f->wanted;
	list_append(&p->serving->waiting, &f->of_peer);
	ahead_asked(p, f->msg.dir_id, f->msg.name);
	serve_more(p);
	return 0;
}

void serve_drop(struct peer *p)
{
	while (!list_empty(&p->serving->waiting))
		fetch_free(list_first(&p->serving->waiting, struct fetch, of_peer));
	while (!list_empty(&p->serving->begun))
		fetch_free(list_first(&p->serving->begun, struct fetch, of_peer));
	while (!list_empty(&p->serving->away))
		fetch_free(list_first(&p->serving->away, struct fetch, of_peer));
	map_release(&p->serving->by_id);
}

struct serving *serving_new(void)
{
	struct serving *s = xcalloc(1, sizeof(*s));

	list_init(&s->waiting);
	list_init(&s->begun);
	list_init(&s->away);
	return s;
}

void serving_free(struct serving *s)
{
	if (s)
		map_release(&s->by_id);
	free(s);
}

void serve_counts(const struct peer *p, struct serve_counts *ret)
{
	const struct serving *s = p->serving;

	*ret = (struct serve_counts){
		.n_fetches = s->n_fetches,
		.n_begun = s->n_begun,
		.wanted_bytes = s->wanted_bytes,
		.sent_bytes = s->sent_bytes,
	};
}
