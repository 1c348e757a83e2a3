/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the two ends of a link say of themselves: at its beginning, and of the worker from then on.
 */
#include "concc/proto.h"

#include <stdlib.h>
#include <string.h>

#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"
#include "wire.h"

void msg_hello_encode(struct buf *b, const struct msg_hello *m)
{
	char *const none[] = {NULL};

	buf_put_u32(b, m->version);
	buf_put_str(b, m->program);
	buf_put_str(b, m->host);
	buf_put_str(b, m->arch);
	buf_put_u32(b, m->flags);
	buf_put_u32(b, m->uid);
	buf_put_u32(b, m->gid);
	buf_put_u64(b, m->store_max);
	buf_put_u32(b, m->cpus);
	buf_put_str(b, m->cpu_model);
	put_strv(b, m->top ? m->top : none);
	put_strv(b, m->links ? m->links : none);
	buf_put_u32(b, m->cpu_speed);
}

static bool name_ok(const char *name)
{
	return name_is_valid((struct blob){(const uint8_t *)name, strlen(name)});
}

static bool top_names_ok(char *const *names)
{
	for (; *names; names++)
		if (!name_ok(*names))
			return false;
	return true;
}

static bool links_ok(char *const *links)
{
	for (; *links; links += 2)
		if (!name_ok(links[0]) || !links[1] || !*links[1] ||
		    strlen(links[1]) >= PROTO_PATH_MAX)
			return false;
	return true;
}

/* What is not the same in every version: what another has here is its own business. */
static void rd_hello_rest(struct rd *r, struct msg_hello *m)
{
	m->uid = rd_u32(r);
	m->gid = rd_u32(r);
	m->store_max = rd_u64(r);
	m->cpus = rd_u32(r);
	m->cpu_model = rd_strdup(r, 256);
	m->top = rd_strv(r, PROTO_TOP_MAX);
	m->links = rd_strv(r, PROTO_LINKS_MAX);
	m->cpu_speed = rd_u32(r);
	if (!r->bad && (!top_names_ok(m->top) || !links_ok(m->links)))
		r->bad = true;
}

int msg_hello_decode(struct blob payload, struct msg_hello *ret)
{
	struct msg_hello m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.version = rd_u32(&r);
	m.program = rd_strdup(&r, 256);
	m.host = rd_strdup(&r, 256);
	m.arch = rd_strdup(&r, 64);
	m.flags = rd_u32(&r);
	if (m.version == PROTO_VERSION)
		rd_hello_rest(&r, &m);
	else
		m.cpu_model = xstrdup("");
	if (r.bad) {
		msg_hello_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

char *msg_hello_other_version(const struct msg_hello *m)
{
	return xasprintf("it runs %s, which speaks protocol %u, %s than this one's %u", m->program,
			 m->version, m->version < PROTO_VERSION ? "older" : "newer", PROTO_VERSION);
}

void msg_hello_release(struct msg_hello *m)
{
	free(m->program);
	free(m->host);
	free(m->arch);
	free(m->cpu_model);
	strv_free(m->top);
	strv_free(m->links);
	*m = (struct msg_hello){0};
}

void msg_bye_encode(struct buf *b, const char *text)
{
	put_text(b, text);
}

int msg_bye_decode(struct blob payload, char **ret_text)
{
	struct rd r;
	char *text;

	rd_init(&r, payload.p, payload.n);
	text = rd_strdup(&r, PROTO_TEXT_MAX);
	if (rd_done(&r) < 0) {
		free(text);
		return CONCC_E_PROTO;
	}
	*ret_text = text;
	return 0;
}

void msg_mirror_counts_encode(struct buf *b, const struct msg_mirror_counts *m)
{
	buf_put_u64(b, m->total);
	buf_put_u64(b, m->own_files);
	buf_put_u64(b, m->own_bytes);
	buf_put_u64(b, m->disk_done);
	buf_put_u64(b, m->disk_refused);
	buf_put_u64(b, m->disk_most_queued);
	buf_put_u64(b, m->disk_most_bytes);
	buf_put_u64(b, m->disk_longest_us);
	for (uint8_t i = 0; i < PROTO_FUSE_OPS; i++) {
		if (m->by_opcode[i]) {
			buf_put_u8(b, i);
			buf_put_u64(b, m->by_opcode[i]);
		}
	}
}

int msg_mirror_counts_decode(struct blob payload, struct msg_mirror_counts *ret)
{
	struct msg_mirror_counts m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.total = rd_u64(&r);
	m.own_files = rd_u64(&r);
	m.own_bytes = rd_u64(&r);
	m.disk_done = rd_u64(&r);
	m.disk_refused = rd_u64(&r);
	m.disk_most_queued = rd_u64(&r);
	m.disk_most_bytes = rd_u64(&r);
	m.disk_longest_us = rd_u64(&r);
	while (r.left && !r.bad) {
		uint8_t op = rd_u8(&r);

		if (op >= PROTO_FUSE_OPS)
			return CONCC_E_PROTO;
		m.by_opcode[op] = rd_u64(&r);
	}
	if (rd_done(&r) < 0)
		return CONCC_E_PROTO;
	*ret = m;
	return 0;
}

void msg_load_encode(struct buf *b, const struct msg_load *m)
{
	buf_put_u32(b, m->running);
	buf_put_u32(b, m->waiting);
	buf_put_u32(b, m->others);
	buf_put_u32(b, m->slots);
	buf_put_u32(b, m->loadavg);
	buf_put_u32(b, m->speed);
	buf_put_u64(b, m->store_bytes);
	buf_put_u64(b, m->store_max);
}

int msg_load_decode(struct blob payload, struct msg_load *ret)
{
	struct msg_load m;
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.running = rd_u32(&r);
	m.waiting = rd_u32(&r);
	m.others = rd_u32(&r);
	m.slots = rd_u32(&r);
	m.loadavg = rd_u32(&r);
	m.speed = rd_u32(&r);
	m.store_bytes = rd_u64(&r);
	m.store_max = rd_u64(&r);
	if (rd_done(&r) < 0 || m.speed > LOAD_SPEED_MAX)
		return CONCC_E_PROTO;
	*ret = m;
	return 0;
}

void msg_storage_encode(struct buf *b, const struct msg_storage *m)
{
	buf_put_u32(b, m->error);
	buf_put_str(b, m->dir);
}

int msg_storage_decode(struct blob payload, struct msg_storage *ret)
{
	struct msg_storage m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.error = rd_u32(&r);
	m.dir = rd_strdup(&r, PROTO_TEXT_MAX);
	if (rd_done(&r) < 0 || m.error >= 4096) {
		msg_storage_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_storage_release(struct msg_storage *m)
{
	free(m->dir);
	m->dir = NULL;
}

void msg_checkup_encode(struct buf *b, const struct msg_checkup *m)
{
	buf_put_u64(b, m->clock_us);
	buf_put_u32(b, m->uid);
	buf_put_u32(b, m->fuse_error);
	buf_put_u64(b, m->max_user_namespaces);
	buf_put_u64(b, m->unprivileged_userns_clone);
	buf_put_u64(b, m->apparmor_restricts);
	buf_put_u64(b, m->cache_free);
	buf_put_u64(b, m->cache_size);
	buf_put_str(b, m->kernel);
	buf_put_str(b, m->cache);
	put_caller(b, &m->own);
}

int msg_checkup_decode(struct blob payload, struct msg_checkup *ret)
{
	struct msg_checkup m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.clock_us = rd_u64(&r);
	m.uid = rd_u32(&r);
	m.fuse_error = rd_u32(&r);
	m.max_user_namespaces = rd_u64(&r);
	m.unprivileged_userns_clone = rd_u64(&r);
	m.apparmor_restricts = rd_u64(&r);
	m.cache_free = rd_u64(&r);
	m.cache_size = rd_u64(&r);
	m.kernel = rd_strdup(&r, 256);
	m.cache = rd_strdup(&r, PROTO_PATH_MAX);
	rd_caller(&r, &m.own);
	if (m.fuse_error > 4095 || rd_done(&r) < 0) {
		msg_checkup_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_checkup_release(struct msg_checkup *m)
{
	free(m->kernel);
	free(m->cache);
	*m = (struct msg_checkup){0};
}

void msg_limits_encode(struct buf *b, const struct msg_limits *m)
{
	buf_put_u64(b, m->memory);
	buf_put_u32(b, m->processes);
	buf_put_u32(b, m->time_s);
}

int msg_limits_decode(struct blob payload, struct msg_limits *ret)
{
	struct msg_limits m;
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.memory = rd_u64(&r);
	m.processes = rd_u32(&r);
	m.time_s = rd_u32(&r);
	if (rd_done(&r) < 0)
		return CONCC_E_PROTO;
	*ret = m;
	return 0;
}
