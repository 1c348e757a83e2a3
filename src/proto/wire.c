/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "wire.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "concc/io.h"
#include "concc/proto.h"
#include "concc/str.h"

void put_text(struct buf *b, const char *text)
{
	buf_put_blob(b, text ? text : "", text ? strnlen(text, PROTO_TEXT_MAX) : 0);
}

void put_strv(struct buf *b, char *const *v)
{
	size_t n = strv_len(v);

	buf_put_u32(b, (uint32_t)n);
	for (size_t i = 0; i < n; i++)
		buf_put_str(b, v[i]);
}

char **rd_strv(struct rd *r, uint32_t max_n)
{
	uint32_t n = rd_count(r, 4);
	char **v;

	if (n > max_n)
		r->bad = true;
	if (r->bad)
		return NULL;
	v = xcalloc((size_t)n + 1, sizeof(*v));
	for (uint32_t i = 0; i < n && !r->bad; i++)
		v[i] = rd_strdup(r, PROTO_ARGS_MAX);
	if (r->bad) {
		strv_free(v);
		return NULL;
	}
	return v;
}

char *rd_abs_path(struct rd *r)
{
	char *s = rd_strdup(r, PROTO_PATH_MAX);

	if (s && path_is_clean(s))
		return s;
	free(s);
	r->bad = true;
	return NULL;
}

char *rd_rel_path(struct rd *r, int may_be_empty)
{
	char *s = rd_strdup(r, PROTO_PATH_MAX);

	if (s && ((may_be_empty && !*s) || path_is_clean_relative(s)))
		return s;
	free(s);
	r->bad = true;
	return NULL;
}

bool name_is_valid(struct blob n)
{
	if (n.n == 0 || n.n > PROTO_NAME_MAX || memchr(n.p, '/', n.n) || memchr(n.p, '\0', n.n))
		return false;
	return !(n.p[0] == '.' && (n.n == 1 || (n.n == 2 && n.p[1] == '.')));
}

void rd_digest(struct rd *r, struct digest *ret)
{
	const uint8_t *d = rd_bytes(r, DIGEST_SIZE);

	if (d)
		memcpy(ret->b, d, DIGEST_SIZE);
}

bool is_process_end(uint8_t how, uint32_t code)
{
	if (how == EXIT_CODE)
		return code <= 255;
	if (how != EXIT_SIGNAL || code < 1 || code > 64)
		return false;
	switch (code) { /* who gets these goes on, or stops: signal(7) */
	case SIGCHLD:
	case SIGCONT:
	case SIGSTOP:
	case SIGTSTP:
	case SIGTTIN:
	case SIGTTOU:
	case SIGURG:
	case SIGWINCH:
		return false;
	}
	return true;
}

char *rd_any_path(struct rd *r)
{
	char *s = rd_strdup(r, PROTO_PATH_MAX);

	if (s && *s)
		return s;
	free(s);
	r->bad = true;
	return NULL;
}

/* Niceness is 40 to 1 here, as the kernel's getpriority() returns it: never negative. */
#define NICE_BASE 20

static void put_descriptors(struct buf *b, const struct caller *c)
{
	uint16_t n = 0;

	for (uint16_t fd = CALLER_FDS_FROM; fd < c->fds_end; fd++)
		n += c->fds[fd] != CALLER_CLOSED;
	buf_put_u16(b, n);
	for (uint16_t fd = CALLER_FDS_FROM; fd < c->fds_end; fd++) {
		if (c->fds[fd] == CALLER_CLOSED)
			continue;
		buf_put_u16(b, fd);
		buf_put_u8(b, c->fds[fd]);
	}
}

/* In ascending order. */
static void rd_descriptors(struct rd *r, struct caller *c)
{
	uint16_t n = rd_u16(r);

	for (uint16_t i = 0; i < n && !r->bad; i++) {
		uint16_t fd = rd_u16(r);
		uint8_t access = rd_u8(r);

		if (fd < CALLER_FDS_FROM || fd < c->fds_end || fd >= CALLER_FDS ||
		    access == CALLER_CLOSED || access > CALLER_READS_WRITES) {
			r->bad = true;
			return;
		}
		c->fds[fd] = access;
		c->fds_end = (uint16_t)(fd + 1);
	}
}

void put_caller(struct buf *b, const struct caller *c)
{
	for (int i = 0; i < CALLER_N_LIMITS; i++) {
		buf_put_u64(b, c->limits[i].soft);
		buf_put_u64(b, c->limits[i].hard);
	}
	buf_put_u8(b, (uint8_t)(NICE_BASE - c->nice));
	buf_put_u32(b, c->persona);
	buf_put_u64(b, c->ignored);
	buf_put_u64(b, c->blocked);
	put_descriptors(b, c);
}

void rd_caller(struct rd *r, struct caller *ret)
{
	struct caller c = {0};

	for (int i = 0; i < CALLER_N_LIMITS; i++) {
		c.limits[i].soft = rd_u64(r);
		c.limits[i].hard = rd_u64(r);
		if (c.limits[i].soft > c.limits[i].hard)
			r->bad = true;
	}
	c.nice = NICE_BASE - rd_u8(r);
	c.persona = rd_u32(r);
	c.ignored = rd_u64(r);
	c.blocked = rd_u64(r);
	rd_descriptors(r, &c);
	if (c.nice < -20 || c.nice > 19 || (c.ignored | c.blocked) & CALLER_SIGNALS_NEVER)
		r->bad = true;
	*ret = c;
}
