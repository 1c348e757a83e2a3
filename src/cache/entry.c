/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/cache.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/str.h"

#define WORKER_MAX 255 /* bytes of a worker's name */

void cache_entry_release(struct cache_entry *e)
{
	for (size_t i = 0; i < e->n_effects; i++)
		msg_file_release(&e->effects[i]);
	free(e->effects);
	strv_free(e->workspaces);
	buf_release(&e->output);
	free(e->fingerprints);
	free(e->worker);
	*e = (struct cache_entry){0};
}

static void put_effects(struct buf *b, const struct cache_entry *e)
{
	buf_put_u32(b, (uint32_t)e->n_effects);
	for (size_t i = 0; i < e->n_effects; i++) {
		_cleanup_buf_ struct buf one = BUF_INIT;

		msg_file_encode(&one, &e->effects[i]);
		buf_put_blob(b, one.data, one.len);
	}
}

void cache_entry_encode(struct buf *b, const struct cache_entry *e)
{
	size_t n = strv_len(e->workspaces);

	buf_put_u32(b, CACHE_FORMAT);
	buf_put_u32(b, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		buf_put_str(b, e->workspaces[i]);
	put_effects(b, e);
	buf_put_u8(b, e->announced);
	buf_put_blob(b, e->output.data, e->output.len);
	buf_put_u32(b, e->input);
	buf_put_u64(b, e->utime_us);
	buf_put_u64(b, e->stime_us);
	buf_put_u64(b, e->wall_us);
	buf_put_u64(b, e->maxrss_kb);
	buf_put_u64(b, e->kept_s);
	buf_put_str(b, e->worker ? e->worker : "");
	buf_put_u32(b, (uint32_t)e->n_fingerprints);
	for (size_t i = 0; i < e->n_fingerprints; i++)
		buf_put_u64(b, e->fingerprints[i]);
}

static void take_workspaces(struct rd *r, struct cache_entry *e)
{
	uint32_t n = rd_count(r, 4);

	if (n > PROTO_WORKSPACES_MAX)
		r->bad = true;
	e->workspaces = xcalloc(1, sizeof(*e->workspaces));
	for (uint32_t i = 0; i < n && !r->bad; i++) {
		char *path = rd_strdup(r, PROTO_PATH_MAX);

		if (!path)
			return;
		if (*path != '/')
			r->bad = true;
		strv_push(&e->workspaces, path);
	}
}

static void take_effects(struct rd *r, struct cache_entry *e)
{
	uint32_t n = rd_count(r, 4), spaces = (uint32_t)strv_len(e->workspaces);

	if (n > CACHE_EFFECTS_MAX)
		r->bad = true;
	e->effects = r->bad ? NULL : xcalloc(n + 1, sizeof(*e->effects));
	for (uint32_t i = 0; i < n && !r->bad; i++) {
		struct blob one = rd_blob(r, PROTO_MSG_MAX);

		if (r->bad || msg_file_decode(one, &e->effects[i]) < 0) {
			r->bad = true;
			return;
		}
		e->n_effects++;
		if (e->effects[i].workspace >= spaces)
			r->bad = true;
	}
}

/* Whole chunks, of streams that there are. */
static bool output_is_valid(struct blob output)
{
	struct rd r;

	rd_init(&r, output.p, output.n);
	while (r.left) {
		uint8_t stream = rd_u8(&r);

		(void)rd_blob(&r, CACHE_OUTPUT_MAX);
		if (r.bad || stream < 1 || stream > 2)
			return false;
	}
	return true;
}

static void take_fingerprints(struct rd *r, struct cache_entry *e)
{
	uint32_t n = rd_count(r, 8);

	if (n > CACHE_NAMES_MAX)
		r->bad = true;
	if (r->bad)
		return;
	e->fingerprints = xcalloc(n + 1, sizeof(*e->fingerprints));
	for (; e->n_fingerprints < n; e->n_fingerprints++)
		e->fingerprints[e->n_fingerprints] = rd_u64(r);
}

static bool take_flag(struct rd *r)
{
	uint8_t flag = rd_u8(r);

	if (flag > 1)
		r->bad = true;
	return flag;
}

int cache_entry_decode(struct blob payload, struct cache_entry *ret)
{
	struct cache_entry e = {0};
	struct blob output;
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	if (rd_u32(&r) != CACHE_FORMAT)
		return CONCC_E_VERSION;
	take_workspaces(&r, &e);
	take_effects(&r, &e);
	e.announced = take_flag(&r);
	output = rd_blob(&r, CACHE_OUTPUT_MAX + PROTO_FRAME_MAX);
	if (!r.bad && !output_is_valid(output))
		r.bad = true;
	if (!r.bad)
		buf_append(&e.output, output.p, output.n);
	e.input = rd_u32(&r);
	if (e.input > PROTO_KNOWN_INPUT_MAX)
		r.bad = true;
	e.utime_us = rd_u64_max(&r, PROTO_USED_MAX);
	e.stime_us = rd_u64_max(&r, PROTO_USED_MAX);
	e.wall_us = rd_u64_max(&r, PROTO_USED_MAX);
	e.maxrss_kb = rd_u64_max(&r, PROTO_USED_MAX);
	e.kept_s = rd_u64(&r);
	e.worker = rd_strdup(&r, WORKER_MAX);
	take_fingerprints(&r, &e);
	if (rd_done(&r) < 0) {
		cache_entry_release(&e);
		return CONCC_E_PROTO;
	}
	*ret = e;
	return 0;
}
