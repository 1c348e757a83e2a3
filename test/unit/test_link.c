/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Links over real sockets: order, priority, bounds, hostile peers, dead peers. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "link/assemble.h"
#include "link/pack.h"
#include "../lib/unit.h"

#define WAIT_MS 60000 /* only ever reached by a failing test */

/* ---- one end of a link, with a record of what came ---- */

struct end {
	struct loop *loop;
	struct link *link;
	int n, closed, err;
	int stop_at; /* quit the loop at this many messages */
	uint8_t last_type;
	struct buf last;
	char text[1024];
	int refuse; /* what message() returns */
};

static void check_stop(struct end *e)
{
	if (e->n == e->stop_at)
		loop_quit(e->loop);
}

static int on_message(void *data, uint8_t type, struct blob p)
{
	struct end *e = data;

	e->n++;
	e->last_type = type;
	buf_reset(&e->last);
	buf_append(&e->last, p.p, p.n);
	check_stop(e);
	return e->refuse;
}

static void on_closed(void *data, int err, const char *text)
{
	struct end *e = data;

	e->closed++;
	e->err = err;
	snprintf(e->text, sizeof(e->text), "%s", text);
	loop_quit(e->loop);
}

static const struct link_ops end_ops = {.message = on_message, .closed = on_closed};

static void end_open(struct end *e, struct loop *l, int fd, const struct link_config *conf)
{
	e->loop = l;
	e->link = link_new(l, stream_from_fds(fd, fd), conf, &end_ops, e);
}

static void end_close(struct end *e)
{
	link_free(e->link);
	buf_release(&e->last);
}

static void too_late(void *data)
{
	fprintf(stderr, "the loop did not end in time\n");
	abort();
}

static void run(struct loop *l)
{
	struct loop_source *t = loop_add_timer(l, WAIT_MS, too_late, NULL);

	cr_assert_eq(loop_run(l), 0);
	loop_remove(t);
}

static void make_pair(int sv[2])
{
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
}

/* A loop, for the ends of a socket. */
static struct loop *wire(int sv[2])
{
	struct loop *l;

	make_pair(sv);
	cr_assert_eq(loop_new(&l), 0);
	return l;
}

static struct loop *join(struct end *a, const struct link_config *conf_a, struct end *b,
			 const struct link_config *conf_b)
{
	int sv[2];
	struct loop *l = wire(sv);

	end_open(a, l, sv[0], conf_a);
	end_open(b, l, sv[1], conf_b);
	return l;
}

static void part(struct end *a, struct end *b)
{
	struct loop *l = a->loop;

	end_close(a);
	end_close(b);
	loop_free(l);
}

/* ---- plain traffic ---- */

Test(link, carries_messages_of_all_sizes)
{
	static const size_t sizes[] = {0,     1,      1023,   1024,    65535,  65536,
				       65537, 131072, 131073, 1000000, 8388608};
	static const struct link_config conf = {.compress = true};
	int fds = count_fds();

	for (int random = 0; random < 2; random++) {
		struct end a = {.stop_at = -1}, b = {0};
		struct loop *l = join(&a, &conf, &b, &conf);

		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			uint8_t *p = xmalloc(sizes[i] + 1);

			for (size_t j = 0; j < sizes[i]; j++)
				p[j] = random ? (uint8_t)rand() : (uint8_t)(j / 100);
			b.stop_at = (int)i + 1;
			link_send(a.link, MSG_JOB, LINK_PRIO, p, sizes[i]);
			run(l);
			cr_assert_eq(b.last.len, sizes[i]);
			cr_assert(sizes[i] == 0 || memcmp(b.last.data, p, sizes[i]) == 0);
			free(p);
		}
		cr_assert_eq(link_counts(a.link)->raw_out, link_counts(b.link)->raw_in);
		cr_assert_eq(link_counts(a.link)->bytes_out, link_counts(b.link)->bytes_in);
		if (random)
			cr_assert_gt(link_counts(a.link)->bytes_out, link_counts(a.link)->raw_out);
		else
			cr_assert_lt(link_counts(a.link)->bytes_out,
				     link_counts(a.link)->raw_out / 20);
		part(&a, &b);
	}
	cr_assert_eq(count_fds(), fds);
}

/* Counts the writes that reach the socket. */
struct counting {
	struct stream stream;
	struct stream *io;
	int writes, reads;
	struct loop *loop;
	int stop_at; /* quit the loop at this many reads */
};

static ssize_t counting_read(struct stream *s, void *p, size_t n)
{
	struct counting *c = (struct counting *)s;

	if (++c->reads == c->stop_at)
		loop_quit(c->loop);
	return c->io->ops->read(c->io, p, n);
}

static ssize_t counting_write(struct stream *s, const void *p, size_t n)
{
	struct counting *c = (struct counting *)s;

	c->writes++;
	return c->io->ops->write(c->io, p, n);
}

static void counting_want(struct stream *s, bool reading, bool blocked, int fds[2], uint32_t ev[2])
{
	struct counting *c = (struct counting *)s;

	c->io->ops->want(c->io, reading, blocked, fds, ev);
}

static void counting_free(struct stream *s)
{
	stream_free(((struct counting *)s)->io);
}

static const struct stream_ops counting_ops = {
	.read = counting_read,
	.write = counting_write,
	.want = counting_want,
	.free = counting_free,
};

Test(link, one_round_is_one_write_and_one_turn)
{
	static const struct link_config conf = {.compress = true};
	struct counting c = {.stream.ops = &counting_ops};
	struct end a = {.stop_at = -1}, b = {.stop_at = 20};
	int sv[2];
	struct loop *l = wire(sv);

	c.io = stream_from_fds(sv[0], sv[0]);
	a.loop = l;
	a.link = link_new(l, &c.stream, &conf, &end_ops, &a);
	end_open(&b, l, sv[1], &conf);
	for (int i = 0; i < 20; i++)
		link_send(a.link, MSG_JOB, LINK_PRIO, "a job of some bytes", 19);
	run(l);
	cr_assert_eq(b.n, 20);
	cr_assert_eq(c.writes, 1, "%d writes", c.writes);
	cr_assert_eq(link_counts(a.link)->turns, 0);

	/* An answer, and the next job: one turn, one more read of the answer, one more write. */
	c.reads = 0;
	a.stop_at = 1;
	link_send(b.link, MSG_JOB_EXIT, LINK_PRIO, "x", 1);
	run(l);
	cr_assert_eq(c.reads, 1, "%d reads", c.reads);
	b.stop_at = 22;
	link_send(a.link, MSG_JOB, LINK_PRIO, "1", 1);
	link_send(a.link, MSG_JOB, LINK_PRIO, "2", 1);
	run(l);
	cr_assert_eq(c.writes, 2);
	cr_assert_eq(link_counts(a.link)->turns, 1);
	part(&a, &b);
}

/* ---- messages that are work ---- */

struct busy {
	struct loop *loop;
	int event_fd;
	int n, others, most; /* others: calls of the loop since the last message; most: of messages
				between two of them */
	int since;
};

/* Some work, by the clock that the link goes by. */
static int on_work(void *data, uint8_t type, struct blob payload)
{
	struct busy *b = data;
	uint64_t until = now_ms() + 2;

	while (now_ms() < until)
		;
	if (++b->since > b->most)
		b->most = b->since;
	if (++b->n == 200)
		loop_quit(b->loop);
	return 0;
}

static void on_other(void *data, uint32_t events)
{
	struct busy *b = data;

	b->others++;
	b->since = 0;
}

static void no_end(void *data, int err, const char *text)
{
	cr_assert_fail("%s", text);
}

/* However many came at once, others have their turn between them, and the peer hears that we live.
 */
Test(link, messages_that_are_work_leave_turns_to_others)
{
	static const struct link_ops ops = {.message = on_work, .closed = no_end};
	static const struct link_config conf = {.dead_ms = 60000};
	const uint64_t one = 1;
	struct busy b = {.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	struct end a = {.stop_at = -1};
	struct link *busy;
	int sv[2];

	b.loop = wire(sv);
	end_open(&a, b.loop, sv[0], &conf);
	busy = link_new(b.loop, stream_from_fds(sv[1], sv[1]), &conf, &ops, &b);
	cr_assert_eq(write(b.event_fd, &one, sizeof(one)), sizeof(one));
	loop_add_fd(b.loop, b.event_fd, LOOP_READ, on_other, &b);
	for (int i = 0; i < 200; i++)
		link_send(a.link, MSG_JOB, LINK_PRIO, "a job of some bytes", 19);
	run(b.loop);
	cr_assert_eq(b.n, 200);
	cr_assert_geq(b.others, 20);
	cr_assert_leq(b.most, 10, "%d messages in one turn", b.most);
	cr_assert_geq(link_counts(busy)->bytes_out, 1);
	link_close(busy);
	link_free(busy);
	link_close(a.link);
	link_free(a.link);
	loop_free(b.loop);
	close(b.event_fd);
}

/* ---- priority under load ---- */

#define BULK_TOTAL (100u * 1000 * 1000)
#define BULK_SIZE  100000u /* two frames */
#define N_BULK	   (BULK_TOTAL / BULK_SIZE)
#define PRIO_EVERY 10

struct flow {
	struct loop *loop;
	struct link *link;
	struct flow *other;
	uint8_t *payload;
	uint32_t bulk_sent, bulk_got, prio_sent, prio_got, overtook;
	size_t queue_max;
	bool random;
};

static void flow_send(struct flow *f)
{
	while (f->bulk_sent < N_BULK && link_queued_bulk(f->link) < LINK_BULK_LOW) {
		f->bulk_sent++;
		memcpy(f->payload, &f->bulk_sent, 4);
		link_send(f->link, MSG_JOB_DATA, LINK_BULK, f->payload, BULK_SIZE);
		if (f->bulk_sent % PRIO_EVERY == 0) {
			uint32_t m[2] = {++f->prio_sent, f->bulk_sent};

			link_send(f->link, MSG_JOB, LINK_PRIO, m, sizeof(m));
		}
		if (link_queued(f->link) > f->queue_max)
			f->queue_max = link_queued(f->link);
	}
}

static int flow_message(void *data, uint8_t type, struct blob p)
{
	struct flow *f = data;
	uint32_t m[2];

	if (type == MSG_JOB_DATA) {
		memcpy(m, p.p, 4);
		cr_assert_eq(p.n, BULK_SIZE);
		cr_assert_eq(m[0], ++f->bulk_got);
		cr_assert_eq(memcmp(p.p + 4, f->payload + 4, BULK_SIZE - 4), 0);
	} else {
		memcpy(m, p.p, sizeof(m));
		cr_assert_eq(m[0], ++f->prio_got);
		f->overtook += f->bulk_got < m[1];
	}
	if (f->bulk_got == N_BULK && f->other->bulk_got == N_BULK &&
	    f->prio_got == N_BULK / PRIO_EVERY && f->other->prio_got == N_BULK / PRIO_EVERY)
		loop_quit(f->loop);
	return 0;
}

static void flow_drained(void *data)
{
	flow_send(data);
}

static void flow_closed(void *data, int err, const char *text)
{
	cr_assert_fail("closed: %s", text);
}

static const struct link_ops flow_ops = {
	.message = flow_message,
	.closed = flow_closed,
	.drained = flow_drained,
};

static void flow_open(struct flow *f, struct loop *l, int fd, bool random)
{
	static const struct link_config conf = {.compress = true};

	f->loop = l;
	f->payload = xmalloc(BULK_SIZE);
	srand(7);
	for (size_t i = 0; i < BULK_SIZE; i++)
		f->payload[i] = random ? (uint8_t)rand() : (uint8_t)(i / 64);
	f->link = link_new(l, stream_from_fds(fd, fd), &conf, &flow_ops, f);
}

static void check_flow(struct flow *f)
{
	cr_assert_eq(f->prio_got, N_BULK / PRIO_EVERY);
	/* The one bulk message queued just before each of them was not yet sent. */
	cr_assert_eq(f->overtook, f->prio_got, "%u of %u overtook", f->overtook, f->prio_got);
	cr_assert_lt(f->queue_max, LINK_BULK_LOW + 2 * BULK_SIZE);
	cr_assert_eq(link_queued(f->link), 0);
}

static void both_ways(bool random)
{
	struct flow a = {0}, b = {0};
	int sv[2];
	struct loop *l = wire(sv);

	flow_open(&a, l, sv[0], random);
	flow_open(&b, l, sv[1], random);
	a.other = &b;
	b.other = &a;
	flow_send(&a);
	flow_send(&b);
	run(l);
	check_flow(&a);
	check_flow(&b);
	link_free(a.link);
	link_free(b.link);
	free(a.payload);
	free(b.payload);
	loop_free(l);
}

Test(link, jobs_overtake_bulk_both_ways)
{
	both_ways(true);
}

Test(link, jobs_overtake_compressed_bulk_both_ways)
{
	both_ways(false);
}

/* A PRIO message of the type of a half-sent BULK one must not land inside it. */
Test(link, classes_of_one_type_do_not_mix)
{
	static const struct link_config conf = {0};
	struct end a = {.stop_at = -1}, b = {.stop_at = 3};
	uint8_t *p = xmalloc(4000000);
	struct loop *l;
	int sv[2];

	memset(p, 'b', 4000000);
	l = wire(sv);
	end_open(&a, l, sv[0], &conf);
	link_send(a.link, MSG_DIR, LINK_BULK, p, 4000000);
	/* One round of a's writes, into a socket that nobody reads: the message is half sent. */
	loop_defer(l, (loop_fn)loop_quit, l);
	run(l);
	cr_assert_gt(link_queued_bulk(a.link), 1000000);
	cr_assert_lt(link_queued_bulk(a.link), 4000000);
	link_send(a.link, MSG_JOB, LINK_PRIO, "j", 1);
	memset(p, 'p', 200000);
	link_send(a.link, MSG_DIR, LINK_PRIO, p, 200000);
	end_open(&b, l, sv[1], &conf);
	run(l);
	cr_assert_eq(b.last_type, MSG_DIR);
	cr_assert_eq(b.last.len, 200000);
	for (size_t i = 0; i < b.last.len; i++)
		cr_assert_eq(b.last.data[i], 'p');
	free(p);
	part(&a, &b);
}

/* ---- hostile peers ---- */

static void put_frame(struct buf *b, uint8_t type, uint8_t flags, const void *p, size_t n)
{
	uint8_t *h = buf_grow(b, PROTO_HEADER_LEN);

	proto_put_header(h, type, flags, (uint32_t)n);
	buf_append(b, p, n);
}

/* Writes all of it to a link and returns what the link closed with. */
static int feed(struct end *e, const struct buf *b, enum link_end end, bool then_close)
{
	struct link_config conf = {.end = end};
	pid_t pid;
	int sv[2], status;
	struct loop *l = wire(sv);

	pid = fork();
	if (pid == 0) {
		char c[64];

		close(sv[0]);
		signal(SIGPIPE, SIG_IGN);
		(void)!write_full(sv[1], b->data, b->len);
		if (then_close)
			(void)shutdown(sv[1], SHUT_WR);
		while (read(sv[1], c, sizeof(c)) > 0)
			; /* until the link closes */
		_exit(0);
	}
	close(sv[1]);
	e->stop_at = -1;
	end_open(e, l, sv[0], &conf);
	run(l);
	end_close(e);
	e->last = BUF_INIT;
	loop_free(l);
	waitpid(pid, &status, 0);
	cr_assert_eq(e->closed, 1);
	return e->err;
}

static void put_packed(struct buf *b, uint8_t how, uint32_t raw_len, const void *p, size_t n)
{
	struct buf payload = BUF_INIT;

	buf_put_u32(&payload, raw_len);
	buf_append(&payload, p, n);
	put_frame(b, MSG_JOB, how, payload.data, payload.len);
	buf_release(&payload);
}

static void put_lz4(struct buf *b, uint32_t raw_len, const void *p, size_t n)
{
	put_packed(b, PROTO_F_LZ4, raw_len, p, n);
}

static int feed_frames(void (*make)(struct buf *b))
{
	struct end e = {0};
	struct buf b = BUF_INIT;
	int err;

	make(&b);
	err = feed(&e, &b, LINK_SOCKET, false);
	buf_release(&b);
	return err;
}

static void make_long(struct buf *b)
{
	put_frame(b, MSG_JOB, 0, "x", 1);
	buf_set_u32(b, 0, PROTO_FRAME_MAX + 1);
}

static void make_reserved_flag(struct buf *b)
{
	put_frame(b, MSG_JOB, 0x40, "x", 1);
}

static void make_reserved_bytes(struct buf *b)
{
	put_frame(b, MSG_JOB, 0, "x", 1);
	b->data[7] = 1;
}

static void make_short_lz4(struct buf *b)
{
	put_frame(b, MSG_JOB, PROTO_F_LZ4, "abc", 3);
}

static void make_empty_lz4(struct buf *b)
{
	put_lz4(b, 0, "", 1);
}

static void make_bomb(struct buf *b)
{
	put_lz4(b, PROTO_FRAME_MAX + 1, "\0", 1);
}

static void make_garbage_lz4(struct buf *b)
{
	put_lz4(b, 1000, "\xff\xff\xff\xff\xff\xff\xff", 7);
}

/* A right block that says less, or more, than it holds. */
static void put_lying_lz4(struct buf *b, uint32_t raw_len)
{
	char raw[2000] = {0}, packed[2000];
	int n = LZ4_compress_default(raw, packed, sizeof(raw), sizeof(packed));

	put_lz4(b, raw_len, packed, (size_t)n);
}

static void make_lying_lz4(struct buf *b)
{
	put_lying_lz4(b, 2001);
}

static void make_lying_lz4_less(struct buf *b)
{
	put_lying_lz4(b, 1999);
}

/* Zeros by zstd, of which it is told that they are so many. */
static void put_zstd(struct buf *b, uint8_t how, uint32_t raw_len)
{
	static const char raw[2000];
	char packed[2000];
	size_t n = ZSTD_compress(packed, sizeof(packed), raw, sizeof(raw), 3);

	put_packed(b, how, raw_len, packed, n);
}

static void make_lying_zstd(struct buf *b)
{
	put_zstd(b, PROTO_F_ZSTD, 2001);
}

static void make_lying_zstd_less(struct buf *b)
{
	put_zstd(b, PROTO_F_ZSTD, 1999);
}

static void make_both_kinds(struct buf *b)
{
	put_zstd(b, PROTO_F_ZSTD | PROTO_F_LZ4, 2000);
}

static void make_garbage_zstd(struct buf *b)
{
	put_packed(b, PROTO_F_ZSTD, 1000, "\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff\xff", 11);
}

static void make_empty_zstd(struct buf *b)
{
	put_packed(b, PROTO_F_ZSTD, 1000, "", 0);
}

static void make_empty_part(struct buf *b)
{
	put_frame(b, MSG_JOB, PROTO_F_MORE, "", 0);
}

static void make_three_open(struct buf *b)
{
	put_frame(b, MSG_JOB, PROTO_F_MORE, "x", 1);
	put_frame(b, MSG_ENV, PROTO_F_MORE, "x", 1);
	put_frame(b, MSG_DIR, PROTO_F_MORE, "x", 1);
}

static void make_odd_ping(struct buf *b)
{
	put_frame(b, MSG_PING, 0, "abc", 3);
}

static void make_too_big(struct buf *b)
{
	static uint8_t full[PROTO_FRAME_MAX];

	for (int i = 0; i <= PROTO_MSG_MAX / PROTO_FRAME_MAX; i++)
		put_frame(b, MSG_JOB, PROTO_F_MORE, full, sizeof(full));
}

Test(link, hostile_frames_are_refused)
{
	static void (*const made[])(struct buf *) = {
		make_long,	     make_reserved_flag, make_reserved_bytes,  make_short_lz4,
		make_empty_lz4,	     make_bomb,		 make_garbage_lz4,     make_lying_lz4,
		make_lying_lz4_less, make_lying_zstd,	 make_lying_zstd_less, make_both_kinds,
		make_garbage_zstd,   make_empty_zstd,	 make_empty_part,      make_three_open,
		make_odd_ping,
	};
	int fds = count_fds();

	for (size_t i = 0; i < N_OF(made); i++)
		cr_assert_eq(feed_frames(made[i]), CONCC_E_PROTO, "%zu", i);
	cr_assert_eq(feed_frames(make_too_big), CONCC_E_TOOBIG);
	cr_assert_eq(count_fds(), fds);
}

Test(link, parts_of_two_types_interleave)
{
	struct assembler a;
	struct assembled m;
	struct buf b = BUF_INIT;
	size_t space;

	put_frame(&b, MSG_CONTENT, PROTO_F_MORE, "bulk-", 5);
	put_frame(&b, MSG_JOB, PROTO_F_MORE, "prio-", 5);
	put_frame(&b, MSG_ENV, 0, "whole", 5);
	put_frame(&b, MSG_JOB, 0, "done", 4);
	put_frame(&b, MSG_CONTENT, 0, "done", 4);
	assembler_init(&a, false);
	memcpy(assembler_space(&a, &space), b.data, b.len);
	assembler_filled(&a, b.len);
	cr_assert_eq(assembler_next(&a, &m), 1);
	cr_assert(m.type == MSG_ENV && m.payload.n == 5);
	cr_assert_eq(assembler_next(&a, &m), 1);
	cr_assert(m.type == MSG_JOB && memcmp(m.payload.p, "prio-done", 9) == 0);
	cr_assert_eq(assembler_next(&a, &m), 1);
	cr_assert(m.type == MSG_CONTENT && memcmp(m.payload.p, "bulk-done", 9) == 0);
	cr_assert_eq(assembler_next(&a, &m), 0);
	cr_assert(assembler_idle(&a));
	assembler_release(&a);
	buf_release(&b);
}

Test(link, memory_grows_with_what_came)
{
	struct assembler a;
	struct assembled m;
	size_t space, got = 0;

	assembler_init(&a, false);
	for (int i = 0; i < 100000; i++) {
		uint8_t *p = assembler_space(&a, &space);

		proto_put_header(p, MSG_DIR, PROTO_F_MORE, 1);
		p[PROTO_HEADER_LEN] = 'x';
		assembler_filled(&a, PROTO_HEADER_LEN + 1);
		got++;
		cr_assert_eq(assembler_next(&a, &m), 0);
		cr_assert_lt(a.parts[0].data.cap, 2 * got + 512);
	}
	assembler_release(&a);
}

/* A peer that pings without reading makes us owe one answer, not thousands. */
Test(link, pings_without_reading_do_not_pile_up)
{
	static const struct link_config conf = {0};
	struct end a = {.stop_at = 1};
	struct buf b = BUF_INIT;
	struct loop *l;
	pid_t pid;
	int sv[2], status;

	for (int i = 0; i < 200000; i++)
		put_frame(&b, MSG_PING, 0, "12345678", 8);
	put_frame(&b, MSG_JOB, 0, "end", 3);
	make_pair(sv);
	pid = fork();
	if (pid == 0) {
		close(sv[0]);
		_exit(write_full(sv[1], b.data, b.len) < 0);
	}
	cr_assert_eq(loop_new(&l), 0);
	end_open(&a, l, sv[0], &conf);
	run(l);
	cr_assert_eq(link_counts(a.link)->msgs_by_type_in[MSG_PING], 200000);
	cr_assert_lt(link_queued(a.link), 2 * (PROTO_HEADER_LEN + 8));
	cr_assert_eq(link_counts(a.link)->turns, 0);
	waitpid(pid, &status, 0);
	cr_assert_eq(status, 0);
	close(sv[1]);
	end_close(&a);
	buf_release(&b);
	loop_free(l);
}

Test(link, an_owner_can_refuse_a_message)
{
	struct end e = {.refuse = CONCC_E_PROTO};
	struct buf b = BUF_INIT;

	put_frame(&b, MSG_JOB, 0, "x", 1);
	cr_assert_eq(feed(&e, &b, LINK_SOCKET, false), CONCC_E_PROTO);
	cr_assert(strstr(e.text, "JOB"), "%s", e.text);
	cr_assert_eq(e.n, 1);
	buf_release(&b);
}

/* ---- greeting and noise ---- */

/* Byte by byte, so that the greeting is cut at every place. */
static void expect_noise_is_skipped(enum link_end end, const char *greeting, size_t n_greeting)
{
	struct assembler a;
	struct assembled m;
	struct buf b = BUF_INIT;
	size_t space;
	int n = 0;

	for (int i = 0; i < 600; i++)
		buf_putf(&b, "\nWelcome to Debian! \nCONCC-LIN \n\nCONCC-LINK/ no\tCONCC-H%d", i);
	buf_append(&b, greeting, n_greeting / 2); /* broken off, and then whole */
	buf_append(&b, greeting, n_greeting);
	put_frame(&b, MSG_HELLO, 0, "hi", 2);
	assembler_init(&a, end);
	for (size_t i = 0; i < b.len; i++) {
		*assembler_space(&a, &space) = b.data[i];
		cr_assert_gt(space, 0);
		assembler_filled(&a, 1);
		n += assembler_next(&a, &m);
		cr_assert_geq(n, 0);
	}
	cr_assert_eq(n, 1);
	cr_assert_eq(m.type, MSG_HELLO);
	assembler_release(&a);
	buf_release(&b);
}

Test(link, noise_before_a_greeting_is_skipped)
{
	expect_noise_is_skipped(LINK_CLIENT, PROTO_MAGIC, PROTO_MAGIC_LEN);
	expect_noise_is_skipped(LINK_WORKER, PROTO_GREETING, PROTO_GREETING_LEN);
}

Test(link, noise_is_bounded_and_quoted)
{
	struct end e = {0};
	struct buf b = BUF_INIT;

	while (b.len < 2 * PROTO_NOISE_MAX)
		buf_putf(&b, "all work and no\x1b[31m play\n");
	cr_assert_eq(feed(&e, &b, LINK_CLIENT, false), CONCC_E_PROTO);
	cr_assert(strstr(e.text, "64 KB"), "%s", e.text);
	cr_assert_not(strchr(e.text, '\x1b'));
	buf_release(&b);
}

Test(link, what_was_printed_instead_is_quoted)
{
	struct end e = {0};
	struct buf b = BUF_INIT;

	buf_putf(&b, "motd\nsh: 1: exec: concc-worker: not found\r\n");
	cr_assert_eq(feed(&e, &b, LINK_CLIENT, true), CONCC_E_CLOSED);
	cr_assert(strstr(e.text, "\"sh: 1: exec: concc-worker: not found\""), "%s", e.text);
	cr_assert(strstr(e.text, "install concc-worker"), "%s", e.text);
	buf_release(&b);
}

Test(link, a_worker_tells_what_came_instead_of_a_client)
{
	struct end e = {0};
	struct buf b = BUF_INIT;

	buf_putf(&b, "hello?\n");
	cr_assert_eq(feed(&e, &b, LINK_WORKER, true), CONCC_E_CLOSED);
	cr_assert(strstr(e.text, "its input ended before a client greeted"), "%s", e.text);
	cr_assert(strstr(e.text, "it sent \"hello?\""), "%s", e.text);
	e = (struct end){0};
	while (b.len < 2 * PROTO_NOISE_MAX)
		buf_putf(&b, "all play and no work\n");
	cr_assert_eq(feed(&e, &b, LINK_WORKER, false), CONCC_E_PROTO);
	cr_assert(strstr(e.text, "no client greeted within 64 KB"), "%s", e.text);
	buf_release(&b);
}

/* A client of before version 12 says HELLO at once; it is heard, so that it can be answered. */
Test(link, a_hello_without_a_greeting_is_heard)
{
	struct end e = {0};
	struct buf b = BUF_INIT;

	put_frame(&b, MSG_HELLO, 0, "hi", 2);
	cr_assert_eq(feed(&e, &b, LINK_WORKER, true), CONCC_E_CLOSED);
	cr_assert_eq(e.n, 1);
	cr_assert_eq(e.last_type, MSG_HELLO);
	/* Any other message is noise. */
	e = (struct end){0};
	b.data[4] = MSG_JOB;
	cr_assert_eq(feed(&e, &b, LINK_WORKER, true), CONCC_E_CLOSED);
	cr_assert_eq(e.n, 0);
	buf_release(&b);
}

static size_t bytes_waiting(int fd)
{
	int n = -1;

	cr_assert_eq(ioctl(fd, FIONREAD, &n), 0);
	return (size_t)n;
}

/* Runs the loop until a link of that patience is dead. */
static void let_pass(struct loop *l, uint32_t ms)
{
	struct end clock = {.stop_at = -1};
	int sv[2];

	make_pair(sv);
	end_open(&clock, l, sv[0], &(struct link_config){.dead_ms = ms});
	run(l);
	cr_assert_eq(clock.closed, 1);
	end_close(&clock);
	close(sv[1]);
}

Test(link, measures_the_way)
{
	struct end a = {.stop_at = -1}, b = {.stop_at = -1};
	const struct link_counts *c;
	int sv[2];
	struct loop *l = wire(sv);

	end_open(&a, l, sv[0], &(struct link_config){0});
	end_open(&b, l, sv[1], &(struct link_config){0});
	c = link_counts(a.link);
	link_measure(a.link);
	cr_assert_eq(c->rtt_min_us, 0);
	let_pass(l, 1000);
	cr_assert_eq(c->msgs_by_type_out[MSG_PING], 5);
	cr_assert_eq(c->msgs_by_type_in[MSG_PONG], 5);
	cr_assert_gt(c->rtt_min_us, 0);
	cr_assert_leq(c->rtt_min_us, c->rtt_us);
	end_close(&a);
	end_close(&b);
	loop_free(l);
}

/* What it said before could be lost: a container's words are, until who started it has attached. */
Test(link, a_worker_is_silent_until_it_is_greeted)
{
	static const struct link_config conf = {
		.end = LINK_WORKER, .ping_ms = 5, .dead_ms = 10, .greet_ms = 6400};
	static const char first[] = PROTO_MAGIC "\x02\0\0\0\x01\0\0\0hi";
	struct end a = {.stop_at = -1};
	char got[sizeof(first)];
	int sv[2];
	struct loop *l = wire(sv);

	end_open(&a, l, sv[0], &conf);
	link_send(a.link, MSG_HELLO, LINK_PRIO, "hi", 2);
	link_pulse(a.link);
	let_pass(l, 100);
	cr_assert_eq(bytes_waiting(sv[1]), 0);
	/* Nor is what is not all of a greeting one. */
	cr_assert_eq(write_full(sv[1], "noise" PROTO_GREETING, 5 + PROTO_GREETING_LEN - 1), 0);
	let_pass(l, 500); /* a tick of its own, and so some silence */
	cr_assert_eq(bytes_waiting(sv[1]), 0);
	cr_assert_eq(a.closed, 0);
	cr_assert_eq(write_full(sv[1], PROTO_GREETING + PROTO_GREETING_LEN - 1, 1), 0);
	run(l); /* until it is dead: we answer no PING */
	cr_assert_eq(a.err, CONCC_E_TIMEOUT);
	cr_assert(strstr(a.text, "no answer"), "%s", a.text);
	cr_assert_eq(read_full(sv[1], got, sizeof(first) - 1), sizeof(first) - 1);
	cr_assert_eq(memcmp(got, first, sizeof(first) - 1), 0);
	/* The silence before it was no client's: it was asked, and had its time to answer. */
	cr_assert_eq(bytes_waiting(sv[1]), PROTO_HEADER_LEN + 8);
	cr_assert_eq(read_full(sv[1], got, PROTO_HEADER_LEN), PROTO_HEADER_LEN);
	cr_assert_eq(got[4], MSG_PING);
	end_close(&a);
	close(sv[1]);
	loop_free(l);
}

Test(link, a_worker_that_nobody_greets_ends)
{
	static const struct link_config conf = {
		.end = LINK_WORKER, .ping_ms = 5, .dead_ms = 10, .greet_ms = 200};
	struct end a = {.stop_at = -1};
	int sv[2];
	struct loop *l = wire(sv);

	end_open(&a, l, sv[0], &conf);
	link_send(a.link, MSG_HELLO, LINK_PRIO, "hi", 2);
	run(l);
	cr_assert_eq(a.err, CONCC_E_TIMEOUT);
	cr_assert(strstr(a.text, "no client greeted within 0."), "%s", a.text);
	cr_assert_eq(bytes_waiting(sv[1]), 0);
	/* What is queued for nobody is dropped. */
	end_close(&a);
	a = (struct end){.stop_at = -1};
	end_open(&a, l, sv[1], &conf);
	link_send(a.link, MSG_HELLO, LINK_PRIO, "hi", 2);
	link_close(a.link);
	end_close(&a);
	loop_free(l);
}

/* All that a client has to say before READY leaves before it hears anything; and the other way. */
Test(link, greeting_costs_no_turn)
{
	static const struct link_config client = {.end = LINK_CLIENT},
					worker = {.end = LINK_WORKER};
	struct end a = {.stop_at = 1}, b = {.stop_at = 1};
	struct loop *l = join(&a, &client, &b, &worker);

	link_send(a.link, MSG_HELLO, LINK_PRIO, "hi", 2);
	link_send(b.link, MSG_HELLO, LINK_PRIO, "ho", 2);
	while (a.n + b.n < 2)
		run(l);
	cr_assert_eq(a.last_type, MSG_HELLO);
	cr_assert_eq(b.last_type, MSG_HELLO);
	cr_assert_eq(link_counts(a.link)->turns + link_counts(b.link)->turns, 0);
	/* The greeting is a PING, but not one to be answered. */
	cr_assert_eq(link_counts(a.link)->msgs_in + link_counts(b.link)->msgs_in, 2);
	part(&a, &b);
}

/* A terminal gives back what a client said to whatever was there before the worker. */
Test(link, a_client_skips_its_own_echo)
{
	static const struct link_config conf = {.end = LINK_CLIENT};
	struct end a = {.stop_at = 1};
	struct buf b = BUF_INIT;
	uint8_t echo[4096];
	ssize_t n;
	int sv[2];
	struct loop *l = wire(sv);

	end_open(&a, l, sv[0], &conf);
	link_send(a.link, MSG_HELLO, LINK_PRIO, "hi", 2);
	link_send(a.link, MSG_SERVE, LINK_PRIO, "/x", 2);
	loop_defer(l, (loop_fn)loop_quit, l);
	run(l);
	n = read(sv[1], echo, sizeof(echo));
	cr_assert_geq(n, PROTO_GREETING_LEN + 2 * (PROTO_HEADER_LEN + 2));
	cr_assert_eq(memcmp(echo, PROTO_GREETING, PROTO_GREETING_LEN), 0);
	buf_append(&b, echo, (size_t)n);
	buf_append(&b, PROTO_MAGIC, PROTO_MAGIC_LEN);
	put_frame(&b, MSG_BYE, 0, "bye", 3);
	cr_assert_eq(write_full(sv[1], b.data, b.len), 0);
	run(l);
	cr_assert_eq(a.n, 1);
	cr_assert_eq(a.last_type, MSG_BYE);
	buf_release(&b);
	end_close(&a);
	close(sv[1]);
	loop_free(l);
}

/* Like "pod deleted", from what started the worker, which has ended. */
Test(link, what_is_printed_behind_a_worker_is_quoted)
{
	struct end e = {0};
	struct buf b = BUF_INIT;

	buf_append(&b, PROTO_MAGIC, PROTO_MAGIC_LEN);
	put_frame(&b, MSG_HELLO, 0, "hi", 2);
	buf_putf(&b, "pod \"w-1\" deleted\n");
	cr_assert_eq(feed(&e, &b, LINK_CLIENT, true), CONCC_E_PROTO);
	cr_assert_eq(e.n, 1);
	cr_assert(strstr(e.text, "it printed \"pod "), "%s", e.text);
	buf_release(&b);
}

Test(link, another_link_version_is_told)
{
	struct end e = {0};
	struct buf b = BUF_INIT;

	buf_putf(&b, "hello\nCONCC-LINK/23\n");
	cr_assert_eq(feed(&e, &b, LINK_CLIENT, false), CONCC_E_VERSION);
	cr_assert(strstr(e.text, "version"), "%s", e.text);
	buf_release(&b);
}

/* ---- ends ---- */

Test(link, an_end_inside_a_message_is_told)
{
	struct end e = {0};
	struct buf b = BUF_INIT;

	put_frame(&b, MSG_JOB, PROTO_F_MORE, "x", 1);
	cr_assert_eq(feed(&e, &b, LINK_SOCKET, true), CONCC_E_CLOSED);
	cr_assert(strstr(e.text, "middle"), "%s", e.text);
	buf_release(&b);
}

Test(link, a_half_closed_peer_is_heard_out)
{
	static const struct link_config conf = {0};
	struct end a = {.stop_at = -1};
	struct buf b = BUF_INIT;
	int sv[2];
	struct loop *l = wire(sv);

	put_frame(&b, MSG_BYE, 0, "reason", 6);
	cr_assert_eq(shutdown(sv[1], SHUT_RD), 0);
	end_open(&a, l, sv[0], &conf);
	/* Our write fails first; the reason comes after, and then the end. */
	link_send(a.link, MSG_JOB, LINK_PRIO, "x", 1);
	loop_defer(l, (loop_fn)loop_quit, l);
	run(l);
	cr_assert_eq(a.closed, 0);
	cr_assert_eq(link_queued(a.link), 0);
	cr_assert_eq(write_full(sv[1], b.data, b.len), 0);
	close(sv[1]);
	run(l);
	cr_assert_eq(a.closed, 1);
	cr_assert_eq(a.err, CONCC_E_CLOSED);
	cr_assert_eq(a.last_type, MSG_BYE);
	link_send(a.link, MSG_JOB, LINK_PRIO, "x", 1); /* does nothing now */
	cr_assert_eq(link_queued(a.link), 0);
	buf_release(&b);
	end_close(&a);
	loop_free(l);
}

Test(link, a_broken_pipe_does_not_kill)
{
	static const struct link_config conf = {0};
	struct end a = {.stop_at = -1};
	struct loop *l;
	int in[2], out[2];

	signal(SIGPIPE, SIG_DFL);
	cr_assert_eq(pipe2(in, O_CLOEXEC), 0);
	cr_assert_eq(pipe2(out, O_CLOEXEC), 0);
	cr_assert_eq(loop_new(&l), 0);
	a.loop = l;
	a.link = link_new(l, stream_from_fds(in[0], out[1]), &conf, &end_ops, &a);
	close(out[0]);
	link_send(a.link, MSG_JOB, LINK_PRIO, "x", 1);
	loop_defer(l, (loop_fn)loop_quit, l);
	run(l);
	close(in[1]);
	run(l);
	cr_assert_eq(a.closed, 1);
	end_close(&a);
	loop_free(l);
}

/* What the other side would refuse is not sent, and nobody aborts: names and texts come from
 * outside. */
Test(link, a_message_over_its_maximum_ends_the_link)
{
	static const struct link_config conf = {0};
	_cleanup_buf_ struct buf big = BUF_INIT;

	(void)buf_grow(&big, PROTO_MSG_MAX + 1);
	for (int later = 0; later < 2; later++) {
		struct end a = {.stop_at = -1}, b = {.stop_at = -1};
		struct loop *l = join(&a, &conf, &b, &conf);

		if (later)
			link_send_later(a.link, MSG_UPDATE, &big);
		else
			link_send_buf(a.link, MSG_UPDATE, LINK_PRIO, &big);
		run(l);
		cr_assert_eq(a.closed, 1);
		cr_assert_eq(a.err, CONCC_E_TOOBIG);
		run(l);
		cr_assert_eq(b.err, CONCC_E_CLOSED);
		cr_assert_eq(b.n, 0);
		part(&a, &b);
	}
}

Test(link, an_fd_that_cannot_be_polled_closes_the_link)
{
	static const struct link_config conf = {0};
	struct end a = {.stop_at = -1};
	struct loop *l;
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	cr_assert_eq(loop_new(&l), 0);
	end_open(&a, l, fd, &conf);
	run(l);
	cr_assert_eq(a.closed, 1);
	cr_assert_eq(a.err, CONCC_E_CLOSED);
	end_close(&a);
	loop_free(l);
}

static int close_on_message(void *data, uint8_t type, struct blob p)
{
	struct end *e = data;

	e->n++;
	link_close(e->link);
	loop_quit(e->loop);
	return 0;
}

Test(link, closing_sends_what_is_queued_and_calls_nobody)
{
	static const struct link_ops ops = {.message = close_on_message, .closed = on_closed};
	static const struct link_config conf = {0};
	struct end a = {.stop_at = -1}, b = {.stop_at = -1};
	int sv[2];
	struct loop *l = wire(sv);

	a.loop = l;
	a.link = link_new(l, stream_from_fds(sv[0], sv[0]), &conf, &ops, &a);
	end_open(&b, l, sv[1], &conf);
	link_send(b.link, MSG_JOB, LINK_PRIO, "1", 1);
	link_send(b.link, MSG_JOB, LINK_PRIO, "2", 1);
	link_send(a.link, MSG_BYE, LINK_PRIO, "bye", 3);
	link_close(b.link);
	run(l);
	cr_assert_eq(a.n, 1); /* the second was not delivered after link_close() */
	cr_assert_eq(a.closed + b.closed, 0);
	part(&a, &b);
}

/* ---- pausing ---- */

Test(link, a_paused_link_delivers_nothing_and_does_not_die)
{
	static const struct link_config conf = {0};
	static const struct link_config mortal = {.ping_ms = 5, .dead_ms = 10};
	struct end a = {.stop_at = -1}, b = {.stop_at = -1}, clock = {.stop_at = -1};
	int sv[2], other[2];
	struct loop *l;

	make_pair(sv);
	make_pair(other);
	cr_assert_eq(loop_new(&l), 0);
	end_open(&a, l, sv[0], &mortal);
	end_open(&b, l, sv[1], &conf);
	link_pause_reading(a.link, true);
	for (int i = 0; i < 10; i++)
		link_send(b.link, MSG_JOB, LINK_PRIO, "x", 1);
	/* A link with a longer patience dies meanwhile; the paused one does not. */
	end_open(&clock, l, other[0], &(struct link_config){.dead_ms = 100});
	run(l);
	cr_assert_eq(clock.closed, 1);
	cr_assert_eq(a.n, 0);
	cr_assert_eq(a.closed, 0);
	a.stop_at = 10;
	link_pause_reading(a.link, false);
	run(l);
	cr_assert_eq(a.n, 10);
	end_close(&a);
	end_close(&b);
	end_close(&clock);
	close(other[1]);
	loop_free(l);
}

/* ---- heartbeat ---- */

/* A peer of its own process that answers pings. */
static pid_t fork_peer(int ours, int theirs)
{
	static const struct link_config conf = {0};
	struct end e = {.stop_at = -1};
	pid_t pid = fork();

	if (pid)
		return pid;
	close(ours);
	if (loop_new(&e.loop) < 0)
		_exit(1);
	end_open(&e, e.loop, theirs, &conf);
	(void)loop_run(e.loop);
	_exit(0);
}

/* A link to such a peer. */
static pid_t open_to_peer(struct end *a, struct counting *c, const struct link_config *conf)
{
	int sv[2];
	pid_t pid;

	make_pair(sv);
	pid = fork_peer(sv[0], sv[1]);
	close(sv[1]);
	cr_assert_eq(loop_new(&a->loop), 0);
	*c = (struct counting){.stream.ops = &counting_ops, .loop = a->loop};
	c->io = stream_from_fds(sv[0], sv[0]);
	a->link = link_new(a->loop, &c->stream, conf, &end_ops, a);
	return pid;
}

static uint64_t pongs_of(const struct end *a)
{
	return link_counts(a->link)->msgs_by_type_in[MSG_PONG];
}

static void run_to_pongs(struct end *a, struct counting *c, uint64_t n)
{
	while (pongs_of(a) < n) {
		c->stop_at = c->reads + 1;
		run(a->loop);
		cr_assert_eq(a->closed, 0);
	}
}

static void end_peer(struct end *a, pid_t pid)
{
	struct loop *l = a->loop;
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	end_close(a);
	loop_free(l);
}

Test(link, a_silent_peer_is_asked_and_a_stopped_one_is_dead)
{
	static const struct link_config conf = {.ping_ms = 20, .dead_ms = 1000};
	struct end a = {.stop_at = -1};
	struct counting c;
	pid_t pid = open_to_peer(&a, &c, &conf);

	run_to_pongs(&a, &c, 5);
	cr_assert_eq(a.n, 0); /* pings and pongs are nobody's business */
	cr_assert_eq(link_counts(a.link)->turns, 0);
	c.stop_at = 0;

	kill(pid, SIGSTOP);
	run(a.loop);
	cr_assert_eq(a.closed, 1);
	cr_assert_eq(a.err, CONCC_E_TIMEOUT);
	cr_assert(strstr(a.text, "no answer"), "%s", a.text);
	end_peer(&a, pid);
}

/* Who is busy says so, once a second at the most, and nobody is dead for it. */
Test(link, a_busy_end_has_a_pulse)
{
	struct end a = {.stop_at = -1}, b = {.stop_at = -1};
	struct loop *l = join(&a, &(struct link_config){0}, &b, &(struct link_config){0});

	link_pulse(a.link); /* the loop never woke: long ago */
	link_pulse(a.link);
	link_send(a.link, MSG_BYE, LINK_PRIO, NULL, 0);
	b.stop_at = 1;
	run(l);
	cr_assert_eq(b.n, 1);
	cr_assert_eq(link_counts(b.link)->msgs_by_type_in[MSG_PONG], 1);
	cr_assert_eq(link_counts(b.link)->turns, 0);
	part(&a, &b);
}

/* Nothing of ours runs for longer than a peer may be silent, and neither does the peer. */
static void stall(pid_t peer)
{
	kill(peer, SIGSTOP);
	(void)poll(NULL, 0, 500);
	kill(peer, SIGCONT);
}

Test(link, a_machine_that_is_too_busy_loses_no_peer)
{
	static const struct link_config conf = {.ping_ms = 20, .dead_ms = 300};
	struct end a = {.stop_at = -1};
	struct counting c;
	pid_t pid = open_to_peer(&a, &c, &conf);

	for (int i = 0; i < 4; i++) {
		uint64_t pongs = pongs_of(&a);

		stall(pid);
		run_to_pongs(&a, &c, pongs + 1);
	}
	end_peer(&a, pid);
}

#define DEAF_PINGS_MAX 2000

struct deaf {
	struct loop *loop;
	struct loop_source *timer;
	int fd;
	unsigned pings;
};

/* Asks and asks, and hears nothing. */
static void ask_on(void *data)
{
	struct deaf *d = data;
	struct buf b = BUF_INIT;

	put_frame(&b, MSG_PING, 0, "12345678", 8);
	(void)write_full(d->fd, b.data, b.len); /* fails when the link has ended */
	buf_release(&b);
	if (++d->pings == DEAF_PINGS_MAX)
		loop_quit(d->loop);
	loop_timer_set(d->timer, 10);
}

/* The peer does that again and again: dead all the same. */
static void expect_dead(loop_fn again)
{
	static const struct link_config conf = {.ping_ms = 50, .dead_ms = 500};
	struct end a = {.stop_at = -1};
	struct deaf d = {0};
	int sv[2];

	signal(SIGPIPE, SIG_IGN); /* it may go on for a moment after the end */
	make_pair(sv);
	cr_assert_eq(loop_new(&d.loop), 0);
	d.fd = sv[1];
	d.timer = loop_add_timer(d.loop, 1, again, &d);
	end_open(&a, d.loop, sv[0], &conf);
	run(d.loop);
	cr_assert_eq(a.closed, 1);
	cr_assert_eq(a.err, CONCC_E_TIMEOUT);
	cr_assert_lt(d.pings, DEAF_PINGS_MAX);
	loop_remove(d.timer);
	end_close(&a);
	close(sv[1]);
	loop_free(d.loop);
}

/* One way of the network is cut: what the peer asks comes, what it is told does not. */
Test(link, a_peer_that_only_asks_does_not_hear_us)
{
	expect_dead(ask_on);
}

/* In the middle of a large frame, and never at its end. */
static void trickle(void *data)
{
	struct deaf *d = data;
	static const uint8_t header[PROTO_HEADER_LEN] = {0, 0xff, 0, 0, MSG_JOB};
	size_t at = d->pings < sizeof(header) ? d->pings : sizeof(header) - 1;

	(void)write_full(d->fd, header + at, 1);
	if (++d->pings == DEAF_PINGS_MAX)
		loop_quit(d->loop);
	loop_timer_set(d->timer, 10);
}

Test(link, a_byte_now_and_then_is_no_sign_of_life)
{
	expect_dead(trickle);
}

#define SIPS_MAX 100 /* far longer than a peer may be silent */

struct sipper {
	struct loop *loop;
	int fd;
	unsigned sips;
	struct loop_source *timer;
};

/* Reads on, says nothing, and at last reads no more. */
static void sip(void *data)
{
	struct sipper *s = data;
	static char buf[32 * 1024];

	if (++s->sips > SIPS_MAX)
		return;
	cr_assert_gt(read(s->fd, buf, sizeof(buf)), 0);
	loop_timer_set(s->timer, 10);
}

Test(link, a_peer_that_takes_what_waits_is_alive)
{
	static const struct link_config conf = {.ping_ms = 50, .dead_ms = 300};
	static const char much[8 * 1024 * 1024];
	struct end a = {.stop_at = -1};
	struct sipper s = {0};
	int sv[2];

	make_pair(sv);
	cr_assert_eq(loop_new(&s.loop), 0);
	s.fd = sv[1];
	s.timer = loop_add_timer(s.loop, 1, sip, &s);
	end_open(&a, s.loop, sv[0], &conf);
	link_send(a.link, MSG_CONTENT, LINK_BULK, much, sizeof(much) - 1);
	run(s.loop);
	cr_assert_eq(a.closed, 1);
	cr_assert_eq(a.err, CONCC_E_TIMEOUT);
	cr_assert_gt(s.sips, SIPS_MAX);
	loop_remove(s.timer);
	end_close(&a);
	close(sv[1]);
	loop_free(s.loop);
}

struct talker {
	struct loop *loop;
	struct end *from, *idle;
	struct loop_source *timer;
};

/* Says a word a millisecond until the idle link has asked 20 times. */
static void talk(void *data)
{
	struct talker *t = data;

	link_send(t->from->link, MSG_JOB, LINK_PRIO, "x", 1);
	if (link_counts(t->idle->link)->msgs_by_type_out[MSG_PING] >= 20)
		loop_quit(t->loop);
	else
		loop_timer_set(t->timer, 1);
}

/* Of two links that ask after the same silence, the one with traffic has no reason to. */
Test(link, nothing_is_asked_while_traffic_flows)
{
	static const struct link_config quiet = {0}, asking = {.ping_ms = 50, .dead_ms = 60000};
	struct end busy = {.stop_at = -1}, peer = {.stop_at = -1};
	struct end idle = {.stop_at = -1}, idle_peer = {.stop_at = -1};
	struct talker t = {.from = &peer, .idle = &idle};
	struct loop *l;
	int sv[2], other[2];

	make_pair(sv);
	make_pair(other);
	cr_assert_eq(loop_new(&l), 0);
	t.loop = l;
	end_open(&busy, l, sv[0], &asking);
	end_open(&peer, l, sv[1], &quiet);
	end_open(&idle, l, other[0], &asking);
	end_open(&idle_peer, l, other[1], &quiet);
	t.timer = loop_add_timer(l, 1, talk, &t);
	run(l);
	/* A machine that stands still makes both ask, so a few are no failure. */
	cr_assert_lt(link_counts(busy.link)->msgs_out, 10);
	end_close(&busy);
	end_close(&peer);
	end_close(&idle);
	end_close(&idle_peer);
	loop_free(l);
}

/* ---- packing ---- */

static void round_trip(const uint8_t *raw, size_t n, bool small)
{
	struct packer *p = packer_new();
	struct unpacker *u = NULL;
	const uint8_t *packed;
	struct blob got;
	uint8_t how = 0;
	size_t len = packer_pack(p, small, raw, n, &packed, &how);

	if (len) {
		cr_assert_leq(len, n - n / 16);
		cr_assert_eq(how, small ? PROTO_F_ZSTD : PROTO_F_LZ4);
		cr_assert_eq(unpacker_unpack(&u, how, (struct blob){packed, len}, &got), 0);
		cr_assert_eq(got.n, n);
		cr_assert_arr_eq(got.p, raw, n);
	}
	unpacker_free(u);
	packer_free(p);
}

Test(pack, round_trip)
{
	static uint8_t raw[PROTO_FRAME_MAX];

	for (unsigned seed = 0; seed < 200; seed++) {
		size_t n = seed ? (size_t)rand() % sizeof(raw) + 1 : sizeof(raw);
		int values = seed % 4 ? 1 << seed % 4 : 256; /* the fewer, the smaller */

		srand(seed);
		for (size_t i = 0; i < n; i++)
			raw[i] = (uint8_t)(rand() % values);
		round_trip(raw, n, false);
		round_trip(raw, n, true);
	}
}

Test(pack, what_saves_little_stays_as_it_is)
{
	static uint8_t raw[PROTO_FRAME_MAX];
	struct packer *p = packer_new();
	const uint8_t *packed;
	uint8_t how;

	cr_expect_eq(packer_pack(p, true, raw, 1000, &packed, &how), 0, "it is small");
	cr_expect_gt(packer_pack(p, true, raw, 1100, &packed, &how), 0);
	for (size_t i = 0; i < sizeof(raw); i++)
		raw[i] = (uint8_t)rand();
	cr_expect_eq(packer_pack(p, true, raw, sizeof(raw), &packed, &how), 0);
	cr_expect_eq(packer_pack(p, false, raw, sizeof(raw), &packed, &how), 0);
	packer_free(p);
}
