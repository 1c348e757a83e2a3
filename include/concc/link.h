/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_H
#define CONCC_LINK_H

/*
 * Moves messages over a byte stream, in order, without giving them meaning.
 *
 * A stream is a non-blocking duplex of bytes: a pair of fds, or an SSH channel.
 * A link cuts messages into frames (<= 64 KB), compresses payloads over ~1 KB
 * when that helps, joins frames back into messages, and keeps two queues out:
 * PRIO messages (jobs, listings, updates) overtake BULK ones (contents), but
 * never each other.  Memory is bounded: bulk producers are asked for more only
 * when little is queued, through the drained callback.
 *
 * One thread, the loop's, owns a link.  No call blocks.  Callbacks come from
 * the loop and from nowhere else, so link_send() never calls back; they may
 * call link_close() but not link_free() (defer that).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/buf.h"
#include "concc/err.h"
#include "concc/worker_spec.h"

struct loop;
struct link;
struct stream;

/* ---- streams ---- */

/*
 * What a transport implements (src/link/stream_*.c).  read and write return
 * bytes > 0, 0 at end of stream (read), -EAGAIN, or another negative code.
 * After -EAGAIN from write the same bytes are offered again, first.
 */
struct stream_ops {
	ssize_t (*read)(struct stream *s, void *p, size_t n);
	ssize_t (*write)(struct stream *s, const void *p, size_t n);
	/* The fds to wait on now, and for what (enum loop_events); either may be -1, both are not
	 * the same.  reading: input is welcome; blocked: the last write said -EAGAIN. */
	void (*want)(struct stream *s, bool reading, bool blocked, int fds[2], uint32_t events[2]);
	/* How the far end ended and what it said last ("exit status 127: sh: ... not found"),
	 * escaped;
	 * "" when nothing is known.  Borrowed until the next call on the stream.  May be NULL. */
	const char *(*explain)(struct stream *s);
	void (*free)(struct stream *s); /* closes, and ends what was started; does not wait */
};

struct stream {
	const struct stream_ops *ops;
	/* One engine behind both directions: read until -EAGAIN, and any event can unblock a
	 * write. */
	bool engine;
	/* Set by write: the engine holds something for read() that no fd will show. */
	bool inside;
};

void stream_free(struct stream *s); /* NULL is fine */

/* Takes both fds (which may be equal) and makes them non-blocking. */
struct stream *stream_from_fds(int read_fd, int write_fd);

struct transport_config {
	const char *name;    /* of the worker, for messages and its command's CONCC_WORKER_NAME */
	uint32_t index;	     /* of several alike, for CONCC_WORKER_INDEX */
	const char *address; /* "ssh://[user@]host[:port]", "local:", or NULL with command */
	const char *command; /* a shell command whose stdin and stdout reach a worker, or NULL */
	enum ssh_mode ssh;
	/* What to run there.  NULL: the pushed one if it is ours, else the "concc-worker" in PATH.
	 */
	const char *worker_program;
	enum install install;	 /* for ssh:// without worker_program */
	const char *ssh_program; /* NULL: "ssh" in PATH */
	const char *plain;	 /* "sshfs" or "none": no concc there; concc-plain stands for it */
	uint32_t slots;		 /* for that: jobs at once; 0: as many as it has cores */
	uint32_t timeout_ms;	 /* for the whole connection */
};

struct connecting;

/*
 * Called once, in the loop: with a stream (the callee's now) or with err < 0
 * and a message that names the host and what to do.  how, when connected, says
 * what carries the bytes and why ("libssh2", "openssh: ProxyJump is set",
 * "command", "local"), and what install did.  Borrowed for the call.  After
 * INSTALL_ONLY the stream is at its end.
 */
typedef void (*connected_fn)(void *data, struct stream *s, int err, const char *msg,
			     const char *how);

/*
 * Starts to connect and returns at once; the name look-up, the handshake and
 * the authentication run in a thread of their own, which touches nothing of the
 * caller's.  No password is ever asked for, no unknown host key accepted.
 *
 * A stream to a command, an OpenSSH client or a local worker is there as soon as
 * the process is; why it could not reach a worker is told by the link's closed().
 * The loop must outlive the stream, and run until the process has ended for it
 * to be reaped.
 */
struct connecting *transport_connect(struct loop *l, const struct transport_config *c,
				     connected_fn fn, void *data);
/* Gives up; fn will not be called.  Not after fn was called. */
void transport_cancel(struct connecting *c);
/* "-p 2222 me@build1" of an ssh:// address, for a person to give to ssh(1); on the heap.  NULL: it
 * is none. */
char *transport_words(const char *address);

/* ---- links ---- */

enum link_prio { LINK_PRIO, LINK_BULK };

struct link_ops {
	/* One whole message; payload is borrowed for the call.  A negative return closes the link
	 * with that error. */
	int (*message)(void *data, uint8_t type, struct blob payload);
	/* Once, when the peer is gone, broke the protocol, or fell silent.  err is a negative code;
	 * text names what happened.  Not called after link_close(). */
	void (*closed)(void *data, int err, const char *text);
	/* Some bulk was written and less than LINK_BULK_LOW is left: the owner may send more now.
	 * May be NULL. */
	void (*drained)(void *data);
};

/* Which end of a link it is; what each says first is in PROTOCOL.md, Set-up. */
enum link_end {
	LINK_SOCKET, /* frames from the first byte, both ways */
	/* PROTO_GREETING goes out at once, and the owner's messages behind it; noise is skipped
	 * until PROTO_MAGIC. */
	LINK_CLIENT,
	/* Nothing goes out, whatever is queued, before the client's greeting is here: what reaches
	 * us may come from who attaches late.  Noise is skipped until then. */
	LINK_WORKER,
};

struct link_config {
	enum link_end end;
	bool compress;
	bool by_command; /* the user's own command leads there: it is the first thing to look at */
	/* What to do when no concc-worker, or another version's, is there; NULL: it is to be
	 * installed.  Borrowed for the link's life. */
	const char *remedy;
	/* A sign of life is any frame, or 1 KB of one, but PING and LOAD, which don't say that the
	 * peer hears us, and that it takes what had to wait. */
	uint32_t ping_ms; /* send a PING after this long without one; 0: never */
	uint32_t dead_ms; /* closed with CONCC_E_TIMEOUT after this long without one; 0: never */
	/* Instead of dead_ms until the peer greets: how long it may take to start, or to attach.
	 * 0: dead_ms. */
	uint32_t greet_ms;
};

struct link_counts {
	uint64_t msgs_in, msgs_out;
	uint64_t bytes_in, bytes_out; /* on the stream, headers included */
	uint64_t raw_in, raw_out;     /* payload before compression */
	uint64_t msgs_by_type_in[256], msgs_by_type_out[256];
	/* Times we sent after having received: an upper bound of round trips.  PING and PONG,
	 * which carry nothing of the owner's, do not count. */
	uint64_t turns;
	/* From our last PING to its answer, of this link; 0: none yet.  A link that is busy has
	 * none, so it is the way's, and not the queue's. */
	uint64_t rtt_us;
	/* The shortest of those, once link_measure() is done: a machine that is busy makes a way
	 * look long. */
	uint64_t rtt_min_us;
};

/* Takes the stream.  PING and PONG are answered inside and never reach the owner, between whose
 * callbacks they are: none may take over 50 ms (loop.h). */
struct link *link_new(struct loop *l, struct stream *s, const struct link_config *c,
		      const struct link_ops *ops, void *data);
/*
 * Queues a message; copies payload.  After the link closed it does nothing.  What
 * one round of the loop sends leaves together at its end.  A message of more than
 * PROTO_MSG_MAX (PROTO_DIR_MAX for MSG_DIR) would be refused there: it ends the link with
 * CONCC_E_TOOBIG.
 */
void link_send(struct link *k, uint8_t type, enum link_prio prio, const void *payload, size_t n);
/*
 * For news that matters to the next message only: a PRIO message that leaves with whatever is sent
 * next, or when some has gathered.
 */
void link_send_later(struct link *k, uint8_t type, const struct buf *b);
void link_send_buf(struct link *k, uint8_t type, enum link_prio prio, const struct buf *b);
/* Has the way measured, by a few PINGs one after the other; otherwise it is from the first silence
 * on. */
void link_measure(struct link *k);
/*
 * For an owner that is busy for long in one turn of the loop, with the peer's PINGs unread: a word
 * that we live, once in each second of that turn; to be called more often.  Calls nobody back, and
 * does not block.  Until the turn has lasted LINK_PULSE_MS there is nothing to do.
 */
void link_pulse(struct link *k);
/* A few within the time after which a busy peer is dead. */
#define LINK_PULSE_MS 1000
/* Stops taking input (and so the peer's output) until resumed; no message is delivered and silence
 * is not held against the peer meanwhile. */
void link_pause_reading(struct link *k, bool pause);
size_t link_queued(const struct link *k); /* bytes not yet written */
size_t link_queued_bulk(const struct link *k);
#define LINK_BULK_LOW (256 * 1024) /* drained() is called below this */
/* A peer that makes us queue more than this takes nothing of what it asks for: the link closes with
 * CONCC_E_TOOBIG.  Room for one DIR message of the largest size, and as much again. */
#define LINK_QUEUE_MAX (2u * 256 * 1024 * 1024)
/* What is put into the queue from now on goes as it is. */
void link_compress_no_more(struct link *k);
const struct link_counts *link_counts(const struct link *k);
/* Sends what is queued as far as it goes without blocking, then closes. */
void link_close(struct link *k);
void link_free(struct link *k); /* NULL is fine */

#endif
