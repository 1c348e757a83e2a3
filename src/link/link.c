/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A link: sending, receiving, its life.
 *
 * One file: one state machine.  What is read may make something be written, a write may fail, and
 * reading goes on all the same, to hear why: each step changes what the others may do.  What has a
 * state of its own is elsewhere: assemble, outqueue and beat.
 */
#include "concc/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "assemble.h"
#include "beat.h"
#include "concc/io.h"
#include "concc/loop.h"
#include "concc/map.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "outqueue.h"
#include "stderr_tail.h"

/* A line that takes fewer bytes in a microsecond (56 Mbit/s) is slow, over this time. */
#define SLOW_BELOW 7
#define SLOW_US	   200000
#define ROUND_BUDGET                                                                               \
	(1024 * 1024)  /* bytes moved one way before others in the loop get their turn */
#define TURN_MS	  10   /* the same for messages, each of which may be some work */
#define LINGER_MS 2000 /* for a peer that reads no more: time to say why */
#define SHOWN_MAX 200  /* of a peer's last line, in messages */
#define MEASURES  5    /* PINGs of link_measure() */

struct watch {
	struct link *link;
	struct loop_source *source;
	int fd;
	uint32_t events;
};

/* What may wait for company: little enough to be taken in at once with the next job. */
#define LATER_MAX (16 * 1024)

struct link {
	struct loop *loop;
	struct stream *stream; /* NULL once closed */
	struct link_config conf;
	const struct link_ops *ops;
	void *data;
	struct link_counts counts;

	struct assembler in;
	bool paused;
	bool received; /* a message of the owner's since it last sent one */

	struct outqueue out;
	bool blocked;	 /* the last write said -EAGAIN */
	int write_error; /* the peer reads no more; what it still says is worth hearing */
	bool overflow;
	bool pong_due;
	uint8_t pong_token[BEAT_TOKEN_LEN];
	/* What the line takes, measured while there is more: since when, how many bytes went. */
	uint64_t full_since_us, full_bytes;

	struct beat beat;    /* is the peer alive */
	uint64_t least_us;   /* the shortest round trip */
	unsigned to_measure; /* PINGs of link_measure() without an answer */
	uint64_t pulse_ms;   /* of the last link_pulse() that wrote something */
	uint64_t turn_ends_ms;

	struct watch watches[2];
	struct loop_source *beat_timer, *flush_later, *read_later, *linger;
};

static void arm_beat(struct link *k);
static void flush_deferred(void *data);
static void read_deferred(void *data);
static void on_event(void *data, uint32_t events);

/* ---- what is queued ---- */

static void drop_queue(struct link *k)
{
	outqueue_drop(&k->out);
	k->pong_due = false;
}

/* A worker that has heard no client: whatever it said now could be lost. */
static bool is_silent(const struct link *k)
{
	return k->conf.end == LINK_WORKER && !k->in.in_frames;
}

static bool anything_queued(const struct link *k)
{
	return k->pong_due || !outqueue_is_empty(&k->out);
}

static void flush_soon(struct link *k)
{
	if (k->stream && !k->flush_later && !k->blocked)
		k->flush_later = loop_defer(k->loop, flush_deferred, k);
}

static void read_soon(struct link *k)
{
	if (!k->read_later)
		k->read_later = loop_defer(k->loop, read_deferred, k);
}

/* ---- the end ---- */

static void remove_source(struct loop_source **s)
{
	loop_remove(*s);
	*s = NULL;
}

static void tear_down(struct link *k)
{
	remove_source(&k->watches[0].source);
	remove_source(&k->watches[1].source);
	remove_source(&k->beat_timer);
	remove_source(&k->flush_later);
	remove_source(&k->read_later);
	remove_source(&k->linger);
	stream_free(k->stream);
	k->stream = NULL;
	drop_queue(k);
}

/* What the far end printed instead of a greeting, and how it ended. */
static void put_far_end(struct link *k, struct buf *text)
{
	struct blob line = last_line(assembler_noise(&k->in));
	const char *why = k->stream->ops->explain ? k->stream->ops->explain(k->stream) : "";
	bool told, missing;

	if (line.n) {
		char *shown = str_escape(line.p, line.n, SHOWN_MAX);

		buf_putf(text, ": it %s \"%s\"", is_silent(k) ? "sent" : "printed", shown);
		free(shown);
	}
	if (*why)
		buf_putf(text, "%s %s", line.n ? "," : ":", why);
	if (k->in.in_frames)
		return;
	/* A login without a shell, or without its home, has words for that too. */
	told = strstr(buf_cstr(text), "exit status ");
	missing = strstr(buf_cstr(text), "not found") || strstr(buf_cstr(text), "status 127") ||
		  (!told && strstr(buf_cstr(text), "No such file"));
	if (k->conf.by_command || !missing)
		return;
	buf_putf(text, "; %s",
		 k->conf.remedy
			 ? k->conf.remedy
			 : "install concc-worker there, where a non-interactive shell's PATH "
			   "finds it");
}

static void put_no_client(struct buf *text, int err)
{
	if (err == CONCC_E_CLOSED)
		buf_putf(text, "its input ended before a client greeted: what starts it has to "
			       "pass standard input on, like `docker run -i` or `kubectl run -i`");
	else if (err == CONCC_E_PROTO)
		buf_putf(text, "no client greeted within %d KB of input", PROTO_NOISE_MAX / 1024);
	else
		buf_putf(text, "no client greeted: %s", err_text(err));
}

static void put_what(struct link *k, struct buf *text, int err)
{
	bool greeted = k->in.in_frames;

	if (is_silent(k))
		put_no_client(text, err);
	else if (err == CONCC_E_VERSION)
		buf_putf(text, "the worker speaks another version of the link; %s",
			 k->conf.remedy ? k->conf.remedy : "install the same concc on both sides");
	else if (err == CONCC_E_PROTO && !greeted)
		buf_putf(text, "no concc-worker greeted within %d KB of output",
			 PROTO_NOISE_MAX / 1024);
	else if (err == CONCC_E_PROTO)
		buf_putf(text, "the peer sent a malformed frame");
	else if (err == CONCC_E_TOOBIG && k->overflow)
		buf_putf(text, "there is more for the peer than it takes or a message holds");
	else if (err == CONCC_E_TOOBIG)
		buf_putf(text, "the peer sent a message over its type's maximum size");
	else if (err != CONCC_E_CLOSED)
		buf_putf(text, "%s: %s", greeted ? "connection lost" : "no concc-worker answered",
			 err_text(err));
	else if (!greeted)
		buf_putf(text, "no concc-worker answered");
	else if (!assembler_idle(&k->in))
		buf_putf(text, "the connection ended in the middle of a message");
	else
		buf_putf(text, "the peer closed the connection");
}

/* Calls the owner back, who may call anything but link_free(). */
static void fail_text(struct link *k, int err, const char *text)
{
	tear_down(k);
	k->ops->closed(k->data, err, text);
}

static void fail(struct link *k, int err)
{
	_cleanup_buf_ struct buf text = BUF_INIT;

	put_what(k, &text, err);
	put_far_end(k, &text);
	fail_text(k, err, buf_cstr(&text));
}

static void linger_over(void *data)
{
	struct link *k = data;

	fail(k, k->write_error);
}

/*
 * The peer reads no more.  It often said why just before (an exit status, "not
 * found", a BYE), so what is on its way is read until its end, for a while.
 */
static void write_failed(struct link *k, int err)
{
	k->write_error = err;
	drop_queue(k);
	k->linger = loop_add_timer(k->loop, LINGER_MS, linger_over, k);
}

/* ---- waiting ---- */

static void set_watch(struct link *k, struct watch *w, int fd, uint32_t events)
{
	if (w->source && w->fd == fd) {
		if (w->events != events)
			loop_set_events(w->source, events);
	} else {
		remove_source(&w->source);
		if (fd >= 0)
			w->source = loop_add_fd(k->loop, fd, events, on_event, w);
	}
	w->fd = fd;
	w->events = events;
}

static void update_watches(struct link *k)
{
	int fds[2];
	uint32_t events[2];

	if (!k->stream)
		return;
	k->stream->ops->want(k->stream, !k->paused, k->blocked, fds, events);
	/* An fd may be in an epoll set once only: what moves away goes first. */
	for (int i = 0; i < 2; i++)
		if (k->watches[i].fd != fds[i])
			remove_source(&k->watches[i].source);
	for (int i = 0; i < 2; i++)
		set_watch(k, &k->watches[i], fds[i], events[i]);
}

/* ---- sending ---- */

/* Bytes written (-EAGAIN: none now), 0 when there is nothing to write, or a negative code. */
static ssize_t write_some(struct link *k, enum link_prio *ret_prio)
{
	size_t n;
	const uint8_t *p = outqueue_next(&k->out, &n, ret_prio);
	ssize_t r;

	if (!p)
		return 0;
	r = k->stream->ops->write(k->stream, p, n);
	if (r <= 0)
		return r;
	outqueue_wrote(&k->out, (size_t)r);
	k->counts.bytes_out += (uint64_t)r;
	return r;
}

/* Only while it is the line that has to be waited for does it tell how fast it is. */
static void measure_line(struct link *k, size_t wrote)
{
	uint64_t now;

	k->full_bytes += wrote;
	if (!k->blocked) {
		if (!anything_queued(k))
			k->full_since_us = 0;
		return;
	}
	now = now_us();
	if (k->full_since_us && now - k->full_since_us < SLOW_US)
		return;
	if (k->full_since_us)
		k->out.pack_hard = k->full_bytes < SLOW_BELOW * (now - k->full_since_us);
	k->full_since_us = now;
	k->full_bytes = 0;
}

/*
 * Writes as far as it goes.  True when BULK bytes left.  Calls nobody back.
 * Room where there was none means that the far end takes what we send, be it
 * slowly: the answer to a PING behind all of it may be late.
 */
static bool flush(struct link *k)
{
	bool bulk = false, was_blocked = k->blocked;
	size_t wrote = 0;

	if (is_silent(k))
		return false;
	if (k->pong_due) {
		/* One at most is owed, however many PINGs came: a peer can't make us hoard. */
		k->pong_due = false;
		outqueue_put(&k->out, LINK_PRIO, MSG_PONG, k->pong_token, BEAT_TOKEN_LEN);
	}
	k->blocked = false;
	while (wrote < ROUND_BUDGET) {
		enum link_prio prio;
		ssize_t r = write_some(k, &prio);

		if (r == 0)
			break;
		if (r == -EAGAIN) {
			k->blocked = true;
			break;
		}
		if (r < 0) {
			write_failed(k, (int)r);
			break;
		}
		wrote += (size_t)r;
		bulk |= prio == LINK_BULK;
	}
	if (was_blocked && wrote)
		beat_alive(&k->beat, now_ms());
	measure_line(k, wrote);
	if (anything_queued(k))
		flush_soon(k);
	return bulk;
}

/* For the loop: flushes, and asks for more bulk. */
static void flush_and_refill(struct link *k)
{
	bool bulk = flush(k);

	if (k->stream->inside)
		read_soon(k);
	update_watches(k);
	if (bulk && k->ops->drained && k->out.bytes[LINK_BULK] < LINK_BULK_LOW)
		k->ops->drained(k->data);
}

static void flush_deferred(void *data)
{
	struct link *k = data;

	k->flush_later = NULL;
	if (k->overflow)
		fail(k, CONCC_E_TOOBIG);
	else if (!k->write_error && !k->blocked)
		flush_and_refill(k);
}

/* Puts a message into its queue; true when it is there. */
static bool queue_message(struct link *k, uint8_t type, enum link_prio prio, const void *p,
			  size_t n)
{
	if (!k->stream || k->write_error || k->overflow)
		return false;
	if (n > message_max(type) || k->out.bytes[0] + k->out.bytes[1] + n > LINK_QUEUE_MAX) {
		k->overflow = true;
		k->blocked = false; /* the deferred call ends the link */
		drop_queue(k);
		flush_soon(k);
		return false;
	}
	k->counts.msgs_out++;
	k->counts.msgs_by_type_out[type]++;
	k->counts.raw_out += n;
	outqueue_put(&k->out, prio, type, p, n);
	return true;
}

void link_send(struct link *k, uint8_t type, enum link_prio prio, const void *payload, size_t n)
{
	if (k->stream && k->received) {
		k->received = false;
		k->counts.turns++;
	}
	if (queue_message(k, type, prio, payload, n))
		flush_soon(k);
}

void link_send_later(struct link *k, uint8_t type, const struct buf *b)
{
	if (queue_message(k, type, LINK_PRIO, b->data, b->len) &&
	    k->out.bytes[LINK_PRIO] > LATER_MAX)
		flush_soon(k);
}

void link_send_buf(struct link *k, uint8_t type, enum link_prio prio, const struct buf *b)
{
	link_send(k, type, prio, b->data, b->len);
}

/* ---- receiving ---- */

static void bad_message(struct link *k, uint8_t type, int err)
{
	_cleanup_buf_ struct buf text = BUF_INIT;

	buf_putf(&text, "message %s (%u) from the peer: %s", msg_name(type), type, err_text(err));
	fail_text(k, err, buf_cstr(&text));
}

static void send_ping(struct link *k);

static void note_round_trip(struct link *k, uint64_t us)
{
	k->counts.rtt_us = us;
	if (!k->least_us || us < k->least_us)
		k->least_us = us;
	if (k->to_measure && --k->to_measure)
		send_ping(k);
	else
		k->counts.rtt_min_us = k->least_us;
}

/* PING and PONG end here. */
static int on_own_message(struct link *k, const struct assembled *m)
{
	if (m->payload.n != BEAT_TOKEN_LEN)
		return CONCC_E_PROTO;
	if (m->type == MSG_PING) {
		memcpy(k->pong_token, m->payload.p, BEAT_TOKEN_LEN);
		k->pong_due = true;
		flush_soon(k);
	} else if (beat_is_answer(&k->beat, m->payload.p)) {
		note_round_trip(k, now_us() - k->beat.pinged_us);
	}
	return 0;
}

static void on_message(struct link *k, const struct assembled *m)
{
	int err;

	k->counts.msgs_in++;
	k->counts.msgs_by_type_in[m->type]++;
	k->counts.raw_in = k->in.raw_bytes;
	/* Small, so neither cut nor compressed. */
	if (m->type == MSG_PING || m->type == MSG_LOAD)
		beat_unasked(&k->beat, PROTO_HEADER_LEN + m->payload.n);
	if (m->type == MSG_PING || m->type == MSG_PONG) {
		err = on_own_message(k, m);
	} else {
		k->received = true;
		err = k->ops->message(k->data, m->type, m->payload);
	}
	if (err < 0 && k->stream)
		bad_message(k, m->type, err);
}

/* What was queued may go, and from now on silence is another matter. */
static void peer_greeted(struct link *k)
{
	beat_alive(&k->beat, now_ms());
	if (k->beat_timer)
		arm_beat(k);
	flush_soon(k);
}

/* Hands on what is complete, until the owner wants no more.  False: there may be more of it. */
static bool deliver(struct link *k)
{
	struct assembled m;
	int r;

	while (k->stream && !k->paused) {
		bool greeted = k->in.in_frames;

		r = assembler_next(&k->in, &m);
		if (!greeted && k->in.in_frames)
			peer_greeted(k);
		if (r < 0)
			fail(k, r);
		if (r <= 0)
			return true;
		on_message(k, &m);
		if (k->stream && now_ms() >= k->turn_ends_ms)
			return false;
	}
	return true;
}

/* Others come first.  The peer's PING may be behind what is there: it is to hear that we live. */
static void end_turn(struct link *k)
{
	uint64_t now = now_ms();

	beat_hear(&k->beat, k->counts.bytes_in, k->in.frames, now);
	if (k->conf.dead_ms && now - k->pulse_ms >= LINK_PULSE_MS && !is_silent(k)) {
		k->pulse_ms = now;
		k->pong_due = true;
		flush_soon(k);
	}
	/* What is still in the socket, its fd tells. */
	if (k->stream->engine || !assembler_is_empty(&k->in))
		read_soon(k);
}

/* Reads until nothing is there, the budget or the time is spent or the owner has enough. */
static void read_input(struct link *k)
{
	size_t got = 0, space;

	k->turn_ends_ms = now_ms() + TURN_MS;
	if (!deliver(k)) {
		end_turn(k);
		return;
	}
	while (k->stream && !k->paused) {
		uint8_t *p = assembler_space(&k->in, &space);
		ssize_t r;

		if (got >= ROUND_BUDGET) {
			read_soon(k);
			return;
		}
		r = k->stream->ops->read(k->stream, p, space);
		if (r == -EAGAIN)
			return;
		if (r <= 0) {
			fail(k, r == 0 ? CONCC_E_CLOSED : (int)r);
			return;
		}
		k->counts.bytes_in += (uint64_t)r;
		got += (size_t)r;
		assembler_filled(&k->in, (size_t)r);
		if (!deliver(k)) {
			end_turn(k);
			return;
		}
		beat_hear(&k->beat, k->counts.bytes_in, k->in.frames, now_ms());
		/* A short read emptied the socket; asking it again would cost a call for nothing.
		 */
		if (k->stream && !k->stream->engine && (size_t)r < space)
			return;
	}
}

/* Reading can move an engine that could not write: a window opened, a packet went out. */
static void after_input(struct link *k, bool writable)
{
	if (!k->stream)
		return;
	if (k->blocked && (writable || k->stream->engine))
		flush_and_refill(k);
	else
		update_watches(k);
}

static void read_deferred(void *data)
{
	struct link *k = data;

	k->read_later = NULL;
	read_input(k);
	after_input(k, false);
}

static void on_event(void *data, uint32_t events)
{
	struct link *k = ((struct watch *)data)->link;

	if (events & (LOOP_READ | LOOP_HANGUP) || k->stream->engine)
		read_input(k);
	after_input(k, events & (LOOP_WRITE | LOOP_HANGUP));
}

void link_pause_reading(struct link *k, bool pause)
{
	if (!k->stream || k->paused == pause)
		return;
	k->paused = pause;
	if (!pause) {
		beat_alive(&k->beat, now_ms());
		/* What was received before the pause waits in the assembler; no fd tells. */
		read_soon(k);
	}
	update_watches(k);
}

/* ---- heartbeat ---- */

static bool is_greeting(const struct link *k)
{
	return !k->in.in_frames && k->conf.greet_ms;
}

static uint32_t dead_after(const struct link *k)
{
	return is_greeting(k) ? k->conf.greet_ms : k->conf.dead_ms;
}

static void send_ping(struct link *k)
{
	uint8_t token[BEAT_TOKEN_LEN];

	beat_ping(&k->beat, now_us(), token);
	if (queue_message(k, MSG_PING, LINK_PRIO, token, BEAT_TOKEN_LEN))
		flush_soon(k);
}

void link_measure(struct link *k)
{
	if (!k->stream || is_silent(k))
		return;
	k->to_measure = MEASURES;
	send_ping(k);
}

static void arm_beat(struct link *k)
{
	uint64_t ms = beat_next_ms(&k->beat, dead_after(k), is_silent(k) ? 0 : k->conf.ping_ms);

	loop_timer_set(k->beat_timer, ms);
}

void link_pulse(struct link *k)
{
	uint64_t now = now_ms(), since = loop_woke_ms(k->loop);

	if (since < k->pulse_ms)
		since = k->pulse_ms;
	if (!k->stream || k->write_error || k->overflow || is_silent(k) ||
	    now - since < LINK_PULSE_MS)
		return;
	k->pulse_ms = now;
	k->pong_due = true;
	(void)flush(k);
	update_watches(k);
}

static void peer_is_dead(struct link *k, uint64_t now)
{
	_cleanup_buf_ struct buf text = BUF_INIT;

	if (is_silent(k))
		buf_putf(&text,
			 "no client greeted within %.1f s: nobody attached, or what starts it "
			 "passes no input on",
			 (double)(now - k->beat.alive_ms) / 1000);
	else if (is_greeting(k))
		buf_putf(&text, "no concc-worker answered within %.1f s",
			 (double)(now - k->beat.alive_ms) / 1000);
	else
		buf_putf(&text, "no answer for %.1f s: the peer or the network is dead",
			 (double)(now - k->beat.alive_ms) / 1000);
	put_far_end(k, &text);
	fail_text(k, CONCC_E_TIMEOUT, buf_cstr(&text));
}

static void on_beat(void *data)
{
	struct link *k = data;
	uint64_t now;

	if (k->paused)
		beat_alive(&k->beat, now_ms());
	read_input(k); /* an answer may wait behind this very timer */
	if (!k->stream)
		return;
	now = now_ms();
	beat_tick(&k->beat, now);
	if (dead_after(k) && k->beat.silence_ms >= dead_after(k)) {
		peer_is_dead(k, now);
		return;
	}
	if (k->conf.ping_ms && !k->beat.pinged && k->beat.silence_ms >= k->conf.ping_ms &&
	    !k->paused && !is_silent(k))
		send_ping(k);
	arm_beat(k);
	after_input(k, false);
}

/* ---- life ---- */

/* Before all that the owner says. */
static void put_greeting(struct link *k)
{
	if (k->conf.end == LINK_SOCKET)
		return;
	if (k->conf.end == LINK_CLIENT)
		outqueue_put_raw(&k->out, PROTO_GREETING, PROTO_GREETING_LEN);
	else
		outqueue_put_raw(&k->out, PROTO_MAGIC, PROTO_MAGIC_LEN);
	flush_soon(k);
}

struct link *link_new(struct loop *l, struct stream *s, const struct link_config *c,
		      const struct link_ops *ops, void *data)
{
	struct link *k = xcalloc(1, sizeof(*k));

	k->loop = l;
	k->stream = s;
	k->conf = *c;
	k->ops = ops;
	k->data = data;
	outqueue_init(&k->out, c->compress);
	for (int i = 0; i < 2; i++)
		k->watches[i] = (struct watch){.link = k, .fd = -1};
	assembler_init(&k->in, c->end);
	put_greeting(k);
	k->beat.alive_ms = now_ms();
	if (c->ping_ms || c->dead_ms) {
		k->beat_timer = loop_add_timer(l, 0, on_beat, k);
		arm_beat(k);
	}
	/* The stream may hold bytes already, or be unfit to be waited for. */
	read_soon(k);
	update_watches(k);
	return k;
}

size_t link_queued(const struct link *k)
{
	return k->out.bytes[LINK_PRIO] + k->out.bytes[LINK_BULK];
}

size_t link_queued_bulk(const struct link *k)
{
	return k->out.bytes[LINK_BULK];
}

void link_compress_no_more(struct link *k)
{
	outqueue_compress_no_more(&k->out);
}

const struct link_counts *link_counts(const struct link *k)
{
	return &k->counts;
}

void link_close(struct link *k)
{
	if (!k->stream)
		return;
	k->blocked = is_silent(k);
	while (anything_queued(k) && !k->blocked)
		(void)flush(k); /* what a call leaves over was its budget's end, or it is blocked */
	tear_down(k);
}

void link_free(struct link *k)
{
	if (!k)
		return;
	link_close(k);
	assembler_release(&k->in);
	outqueue_release(&k->out);
	free(k);
}
