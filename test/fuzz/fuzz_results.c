/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/* What lies in the store of kept results: the first byte chooses, 0 names, 1 an entry. */
#include <stdlib.h>
#include <string.h>

#include "concc/cache.h"
#include "concc/log.h"
#include "concc/str.h"
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	log_init("fuzz", LOG_LEVEL_ERR);
	return 0;
}

static bool same(const struct buf *b, struct blob in)
{
	return b->len == in.n && memcmp(b->data, in.p, in.n) == 0;
}

static void names(struct blob in)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct cache_names s, again;

	if (cache_names_decode(in, &s) < 0)
		return;
	CHECK(s.n <= CACHE_NAMES_MAX);
	for (size_t i = 0; i < s.n; i++)
		CHECK(trace_name_is_valid(s.v[i], strlen(s.v[i])));
	/* Prefixes may be longer than they were told to be: what comes of it is the same. */
	cache_names_encode(&b, &s);
	CHECK(cache_names_decode((struct blob){b.data, b.len}, &again) == 0 && again.n == s.n);
	for (size_t i = 0; i < s.n; i++)
		CHECK(streq(s.v[i], again.v[i]));
	cache_names_release(&again);
	cache_names_release(&s);
}

static void entry(struct blob in)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct cache_entry e;

	if (cache_entry_decode(in, &e) < 0)
		return;
	for (size_t i = 0; i < e.n_effects; i++)
		CHECK(e.effects[i].workspace < strv_len(e.workspaces) &&
		      e.effects[i].path[0] != '/');
	cache_entry_encode(&b, &e);
	CHECK(same(&b, in));
	cache_entry_release(&e);
}

static void words(struct blob in)
{
	_cleanup_buf_ struct buf b = BUF_INIT, lines = BUF_INIT;
	struct cache_parts w;

	if (cache_parts_decode(in, &w) < 0)
		return;
	CHECK(cache_parts_compare(&w, &w, &lines) == 0 && lines.len == 0);
	cache_parts_encode(&b, &w);
	CHECK(same(&b, in));
	cache_parts_release(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct blob rest = {data + 1, n - 1};

	if (n < 1)
		return 0;
	if (data[0] == 0)
		names(rest);
	else if (data[0] == 1)
		entry(rest);
	else if (data[0] == 2)
		words(rest);
	return 0;
}
