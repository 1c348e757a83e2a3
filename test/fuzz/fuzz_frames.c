/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * What a peer sends on a link: any bytes, in pieces of any size, give whole
 * messages or one error.  The first byte says which end of a link hears it,
 * the second how the rest is cut into reads.
 */
#include <stdlib.h>
#include <string.h>

#include "concc/proto.h"
#include "link/assemble.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(bool ok)
{
	if (!ok)
		abort();
}

/* Takes all messages that are there; the sum of their bytes keeps their reading from being left
 * out. */
static int take_messages(struct assembler *a, volatile uint8_t *sum)
{
	struct assembled m;
	int r;

	while ((r = assembler_next(a, &m)) > 0) {
		require(m.payload.n <= (m.type == MSG_DIR ? PROTO_DIR_MAX : PROTO_MSG_MAX));
		for (size_t i = 0; i < m.payload.n; i += 64)
			*sum ^= m.payload.p[i];
		if (m.payload.n)
			*sum ^= m.payload.p[m.payload.n - 1];
	}
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct assembler a;
	volatile uint8_t sum = 0;
	size_t step;
	int r = 0;

	if (n < 2)
		return 0;
	assembler_init(&a, data[0] % 3);
	step = data[1] ? (size_t)data[1] * 257 : 1;
	data += 2;
	n -= 2;
	while (n > 0 && r == 0) {
		size_t space;
		uint8_t *p = assembler_space(&a, &space);
		size_t part = step < n ? step : n;

		require(space > 0);
		if (part > space)
			part = space;
		memcpy(p, data, part);
		assembler_filled(&a, part);
		data += part;
		n -= part;
		r = take_messages(&a, &sum);
		/* Memory follows what was received: 64 KB out of a frame of 300 bytes at worst. */
		require(a.parts[0].data.len + a.parts[1].data.len <= a.raw_bytes);
	}
	if (r < 0)
		require(take_messages(&a, &sum) == r); /* the first error is final */
	require(assembler_noise(&a).n <= 2 * (PROTO_HEADER_LEN + PROTO_FRAME_MAX));
	assembler_release(&a);
	return 0;
}
