/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * The pool's files as somebody damaged them: the table, whose first byte says
 * whether it begins with a good header, and the names of slots.  A good table is
 * overwritten at places that the input names, since most of it is zeros.
 */
#include <stdint.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/pool.h"
#include "concc/str.h"
#include "pool/slot.h"
#include "pool/table.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	log_init("fuzz", LOG_LEVEL_ERR); /* that the table is damaged is no news here */
	return 0;
}

/* Records of u16 offset in units of 4 bytes, u8 length, bytes. */
static void overlay(struct table *t, const uint8_t *data, size_t n)
{
	while (n > 3) {
		size_t at = (size_t)(data[0] | data[1] << 8) * 4, len = data[2];

		data += 3;
		n -= 3;
		if (len > n)
			len = n;
		if (at >= 16 && at + len <= sizeof(*t)) /* the header stays good */
			memcpy((uint8_t *)t + at, data, len);
		data += len;
		n -= len;
	}
}

static void look(struct pool *p)
{
	static struct pool_member members[POOL_MEMBERS_MAX];
	int n = pool_list(p, members, POOL_MEMBERS_MAX, false);

	CHECK(n >= 0 && n <= POOL_MEMBERS_MAX);
	for (int i = 0; i < n; i++) {
		CHECK(*members[i].name &&
		      strnlen(members[i].name, POOL_NAME_MAX + 1) <= POOL_NAME_MAX);
		CHECK(!strchr(members[i].name, '/') && members[i].slots <= POOL_SLOTS_MAX);
		CHECK(members[i].taken <= members[i].slots && members[i].speed > 0);
	}
	CHECK(pool_total(p) <= POOL_MEMBERS_MAX * POOL_SLOTS_MAX);
	(void)pool_waiters(p); /* any number */
}

static void take(struct pool *p, bool local_ok, const char *only)
{
	struct pool_request q = {.cwd = "/w", .try = true, .local_ok = local_ok, .only = only};
	struct pool_slot s = {.fd = -1};
	int r = pool_acquire(p, &q, &s);

	CHECK(r <= 0);
	if (r == 0)
		CHECK(s.fd >= 0 && s.index < POOL_SLOTS_MAX && s.member < POOL_MEMBERS_MAX);
	pool_release(p, &s);
}

static void use(struct pool *p)
{
	struct errmsg msg = {0};

	look(p);
	take(p, true, NULL);
	take(p, false, "w");
	if (pool_set(p, "w", 4, POOL_UP, 1000, &msg) == 0)
		CHECK(member_find(p->table, "w") >= 0);
	take(p, false, "w");
	(void)pool_remove(p, "w"); /* need not be there: the table may be full */
	look(p);
	CHECK(pool_reset(p) == 0 && pool_list(p, NULL, 0, false) == 0);
}

static void slot_names(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *file = xstrndup((const char *)data, n);
	char member[POOL_NAME_MAX + 1];
	uint32_t index;

	if (slot_parse_name(file, member, &index))
		CHECK(strlen(member) <= POOL_NAME_MAX && index < POOL_SLOTS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct table good;
	struct errmsg msg = {0};
	struct pool *p;

	if (n < 1)
		return 0;
	(void)scratch();
	slot_names(data + 1, n - 1);
	if (data[0] & 1) {
		memset(&good, 0, sizeof(good));
		memcpy(good.magic, "concpool", 8);
		good.version = 1;
		good.size = sizeof(good);
		overlay(&good, data + 1, n - 1);
		scratch_write("pool", &good, sizeof(good));
	} else {
		scratch_write("pool", data + 1, n - 1);
	}
	CHECK(pool_open(scratch_dir, &p, &msg) == 0); /* a bad one is made anew */
	use(p);
	pool_close(p);
	return 0;
}
