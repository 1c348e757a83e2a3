/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "concc/proto.h"
#include "concc/str.h"
#include "link/assemble.h"
#include "link/outqueue.h"

static struct outqueue q;
static struct assembler in;

static void setup(void)
{
	outqueue_init(&q, false);
	assembler_init(&in, LINK_SOCKET);
}

static void teardown(void)
{
	outqueue_release(&q);
	assembler_release(&in);
}

TestSuite(outqueue, .init = setup, .fini = teardown);

/* Writes at most n bytes of the queue into the assembler: how many. */
static size_t carry(size_t n)
{
	enum link_prio prio;
	const uint8_t *p;
	uint8_t *space;
	size_t have, room;

	p = outqueue_next(&q, &have, &prio);
	if (!p)
		return 0;
	space = assembler_space(&in, &room);
	if (n > have)
		n = have;
	if (n > room)
		n = room;
	memcpy(space, p, n);
	assembler_filled(&in, n);
	outqueue_wrote(&q, n);
	return n;
}

static bool arrived(struct assembled *ret)
{
	int r = assembler_next(&in, ret);

	cr_assert_geq(r, 0, "the frames are in an order that can't be joined");
	return r > 0;
}

static void put(enum link_prio prio, uint8_t type, size_t n, uint8_t fill)
{
	uint8_t *p = xmalloc(n + 1);

	memset(p, fill, n);
	outqueue_put(&q, prio, type, p, n);
	free(p);
}

Test(outqueue, a_small_message_waits_for_one_frame_of_a_large_one)
{
	size_t before = 0, n;
	struct assembled m;

	put(LINK_BULK, MSG_CONTENT, 40 * PROTO_FRAME_MAX, 'b');
	cr_assert_eq(carry(1), 1); /* of the large one's first frame */
	put(LINK_PRIO, MSG_JOB_CREDIT, 8, 'p');
	while ((n = carry(SIZE_MAX)) > 0 && !arrived(&m))
		before += n;
	cr_expect_eq(m.type, MSG_JOB_CREDIT);
	cr_expect_leq(before, PROTO_FRAME_MAX + PROTO_HEADER_LEN);
}

Test(outqueue, one_type_is_not_mixed_with_itself)
{
	struct assembled m;
	uint8_t last = 0;

	put(LINK_BULK, MSG_JOB_OUTPUT, 3 * PROTO_FRAME_MAX, 'b');
	cr_assert_eq(carry(PROTO_FRAME_MAX + PROTO_HEADER_LEN), PROTO_FRAME_MAX + PROTO_HEADER_LEN);
	put(LINK_PRIO, MSG_JOB_OUTPUT, 8, 'p');
	do {
		while (arrived(&m)) {
			last = m.payload.p[0];
			cr_expect_eq(m.payload.n, last == 'b' ? 3 * PROTO_FRAME_MAX : 8);
		}
	} while (carry(SIZE_MAX));
	cr_expect_eq(last, 'p', "it came after the whole of the other");
}

/* All that is put in comes out, whole and in the order of its class, wherever writes end. */
Test(outqueue, whatever_a_write_takes)
{
	static const uint8_t types[] = {MSG_JOB_OUTPUT, MSG_CONTENT, MSG_JOB_CREDIT};

	for (unsigned seed = 0; seed < 30; seed++) {
		size_t sent[2] = {0}, seen[2] = {0}, total = 0;
		struct assembled m;

		srandom(seed);
		for (int step = 0; step < 400 || !outqueue_is_empty(&q); step++) {
			if (step < 400 && random() % 2) {
				enum link_prio prio = random() % 2 ? LINK_PRIO : LINK_BULK;
				size_t n = 2 + (size_t)random() %
						       (random() % 8 ? 200 : 5 * PROTO_FRAME_MAX);

				/* Its class, in all of its bytes. */
				put(prio, types[random() % 3], n, prio == LINK_PRIO ? 'p' : 'b');
				sent[prio]++;
				total += n;
			}
			(void)carry(1 + (size_t)random() % (PROTO_FRAME_MAX * 2));
			while (arrived(&m)) {
				uint8_t fill = m.payload.p[0];

				cr_assert(fill == 'p' || fill == 'b');
				for (size_t i = 0; i < m.payload.n; i++)
					cr_assert_eq(m.payload.p[i], fill, "seed %u", seed);
				seen[fill == 'p' ? LINK_PRIO : LINK_BULK]++;
				total -= m.payload.n;
			}
		}
		cr_expect_eq(seen[LINK_PRIO], sent[LINK_PRIO], "seed %u", seed);
		cr_expect_eq(seen[LINK_BULK], sent[LINK_BULK], "seed %u", seed);
		cr_expect_eq(total, 0, "seed %u: bytes", seed);
		cr_expect_eq(q.bytes[0] + q.bytes[1], 0);
	}
}

Test(outqueue, what_is_dropped_is_gone)
{
	put(LINK_PRIO, MSG_JOB_CREDIT, 8, 'p');
	put(LINK_BULK, MSG_CONTENT, 3 * PROTO_FRAME_MAX, 'b');
	cr_assert_eq(carry(5), 5);
	outqueue_drop(&q);
	cr_expect(outqueue_is_empty(&q));
	cr_expect_eq(carry(SIZE_MAX), 0);
}

Test(outqueue, raw_bytes_go_first)
{
	enum link_prio prio;
	const uint8_t *p;
	size_t n;

	outqueue_put_raw(&q, "hello", 5);
	put(LINK_PRIO, MSG_JOB_CREDIT, 8, 'p');
	p = outqueue_next(&q, &n, &prio);
	cr_expect_geq(n, 5);
	cr_expect_eq(memcmp(p, "hello", 5), 0);
}
