/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Messages about what the client's directories and files hold. */
#include "concc/proto.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/str.h"
#include "wire.h"

#define ATTR_HAS_DIGEST 0x80
#define ERRNO_MAX	4095 /* the kernel's range */

/* name length, one byte of name, an absent attr */
#define ENTRY_MIN (4 + 1 + 1 + 8)

static void put_attr(struct buf *b, const struct entry_attr *a)
{
	buf_put_u8(b, a->type | (a->has_digest ? ATTR_HAS_DIGEST : 0));
	buf_put_u64(b, a->version);
	if (a->type == ENTRY_ABSENT)
		return;
	buf_put_u16(b, a->mode);
	buf_put_u32(b, a->nlink);
	buf_put_u64(b, a->ino);
	buf_put_u64(b, a->size);
	buf_put_u64(b, (uint64_t)a->mtime_s);
	buf_put_u32(b, a->mtime_ns);
	buf_put_u64(b, (uint64_t)a->ctime_s);
	buf_put_u32(b, a->ctime_ns);
	if (a->has_digest)
		buf_append(b, a->digest.b, DIGEST_SIZE);
}

static void rd_attr(struct rd *r, struct entry_attr *a)
{
	uint8_t type = rd_u8(r);

	*a = (struct entry_attr){.type = type & 0x7f, .has_digest = type & ATTR_HAS_DIGEST};
	a->version = rd_u64(r);
	if (a->type > ENTRY_UNKNOWN || (a->has_digest && a->type != ENTRY_FILE))
		r->bad = true;
	if (a->type == ENTRY_ABSENT)
		return;
	a->mode = rd_u16(r);
	a->nlink = rd_u32(r);
	a->ino = rd_u64(r);
	a->size = rd_u64(r);
	a->mtime_s = (int64_t)rd_u64(r);
	a->mtime_ns = rd_u32(r);
	a->ctime_s = (int64_t)rd_u64(r);
	a->ctime_ns = rd_u32(r);
	if (a->mode > 07777 || a->size > INT64_MAX || a->mtime_ns >= 1000000000 ||
	    a->ctime_ns >= 1000000000)
		r->bad = true;
	if (a->has_digest)
		rd_digest(r, &a->digest);
}

void dir_entry_encode(struct buf *b, const char *name, size_t name_len, const struct entry_attr *a,
		      const char *target)
{
	buf_put_blob(b, name, name_len);
	put_attr(b, a);
	if (a->type == ENTRY_SYMLINK)
		buf_put_str(b, target);
}

void dir_entry_decode(struct rd *r, struct dir_entry *ret)
{
	*ret = (struct dir_entry){.name = rd_blob(r, PROTO_NAME_MAX)};
	rd_attr(r, &ret->attr);
	if (ret->attr.type == ENTRY_SYMLINK) {
		ret->target = rd_blob(r, PROTO_PATH_MAX);
		if (!ret->target.n || (!r->bad && memchr(ret->target.p, '\0', ret->target.n)))
			r->bad = true;
	}
	if (!r->bad && !name_is_valid(ret->name))
		r->bad = true;
}

/* Walks the entries once, so that whoever reads them later needs no checks. */
static void check_entries(struct rd r, uint32_t n, struct rd *outer)
{
	struct dir_entry e;

	for (uint32_t i = 0; i < n && !r.bad; i++)
		dir_entry_decode(&r, &e);
	if (rd_done(&r) < 0)
		outer->bad = true;
	outer->left = 0;
}

static bool has_entries(uint8_t state)
{
	return state == DIR_LISTED || state == DIR_PARTIAL;
}

void msg_dir_encode(struct buf *b, uint32_t dir_id, uint8_t state, const char *path,
		    const struct entry_attr *attr, uint32_t n)
{
	buf_put_u32(b, dir_id);
	buf_put_u8(b, state);
	buf_put_str(b, path);
	if (!has_entries(state))
		return;
	put_attr(b, attr);
	buf_put_u32(b, n);
}

void msg_dir_unknown_encode(struct buf *b, uint32_t dir_id, const char *path, uint32_t error)
{
	buf_put_u32(b, dir_id);
	buf_put_u8(b, DIR_UNKNOWN);
	buf_put_str(b, path);
	buf_put_u32(b, error);
}

int msg_dir_decode(struct blob payload, struct msg_dir *ret)
{
	struct msg_dir m = {0};
	struct rd r;
	int err;

	rd_init(&r, payload.p, payload.n);
	m.dir_id = rd_u32(&r);
	m.state = rd_u8(&r);
	m.path = rd_abs_path(&r);
	if (m.state > DIR_UNKNOWN || (has_entries(m.state) && !m.dir_id))
		r.bad = true;
	if (has_entries(m.state)) {
		rd_attr(&r, &m.attr);
		if (m.attr.type != ENTRY_DIR)
			r.bad = true;
		m.n = rd_count(&r, ENTRY_MIN);
		m.entries = r;
		check_entries(r, m.n, &r);
	}
	if (m.state == DIR_UNKNOWN) {
		m.error = rd_u32(&r);
		if (m.error == 0 || m.error > ERRNO_MAX)
			r.bad = true;
	}
	err = rd_done(&r);
	if (err < 0) {
		msg_dir_release(&m);
		return err;
	}
	*ret = m;
	return 0;
}

void msg_dir_release(struct msg_dir *m)
{
	free(m->path);
	m->path = NULL;
}

void msg_update_encode(struct buf *b, uint32_t dir_id, const struct entry_attr *attr, uint32_t n)
{
	buf_put_u32(b, dir_id);
	put_attr(b, attr);
	buf_put_u32(b, n);
}

int msg_update_decode(struct blob payload, struct msg_update *ret)
{
	struct msg_update m = {0};
	struct rd r;
	int err;

	rd_init(&r, payload.p, payload.n);
	m.dir_id = rd_u32(&r);
	rd_attr(&r, &m.attr);
	if (!m.dir_id || m.attr.type != ENTRY_DIR)
		r.bad = true;
	m.n = rd_count(&r, ENTRY_MIN);
	m.entries = r;
	check_entries(r, m.n, &r);
	err = rd_done(&r);
	if (err == 0)
		*ret = m;
	return err;
}

void msg_list_encode(struct buf *b, const char *path)
{
	buf_put_str(b, path);
}

int msg_list_decode(struct blob payload, char **ret_path)
{
	struct rd r;
	char *path;

	rd_init(&r, payload.p, payload.n);
	path = rd_abs_path(&r);
	if (rd_done(&r) < 0) {
		free(path);
		return CONCC_E_PROTO;
	}
	*ret_path = path;
	return 0;
}

void msg_serve_encode(struct buf *b, const char *path, enum serve_kind kind)
{
	buf_put_str(b, path);
	buf_put_u8(b, (uint8_t)kind);
}

int msg_serve_decode(struct blob payload, char **ret_path, uint8_t *ret_kind)
{
	_cleanup_free_ char *path = NULL;
	uint8_t kind;
	struct rd r;
	int err;

	rd_init(&r, payload.p, payload.n);
	path = rd_abs_path(&r);
	kind = rd_u8(&r);
	if (kind > SERVE_TREE)
		r.bad = true;
	err = rd_done(&r);
	if (err < 0)
		return err;
	*ret_path = steal_ptr(&path);
	*ret_kind = kind;
	return 0;
}

void msg_prefetch_encode(struct buf *b, uint32_t dir_id, char *const *names)
{
	buf_put_u32(b, dir_id);
	put_strv(b, names);
}

static char **rd_names(struct rd *r, uint32_t max)
{
	char **names = rd_strv(r, max);

	for (char **n = names; n && *n; n++) {
		if (!name_is_valid((struct blob){(const uint8_t *)*n, strlen(*n)}))
			r->bad = true;
	}
	return names;
}

int msg_prefetch_decode(struct blob payload, struct msg_prefetch *ret)
{
	struct msg_prefetch m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.dir_id = rd_u32(&r);
	m.names = rd_names(&r, PROTO_PREFETCH_MAX);
	if (rd_done(&r) < 0) {
		msg_prefetch_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_prefetch_release(struct msg_prefetch *m)
{
	strv_free(m->names);
	m->names = NULL;
}

void msg_outside_encode(struct buf *b, const char *dir, char *const *names)
{
	buf_put_str(b, dir);
	put_strv(b, names);
}

int msg_outside_decode(struct blob payload, struct msg_outside *ret)
{
	struct msg_outside m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.dir = rd_abs_path(&r);
	m.names = rd_names(&r, PROTO_OUTSIDE_MAX);
	if (rd_done(&r) < 0) {
		msg_outside_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_outside_release(struct msg_outside *m)
{
	free(m->dir);
	strv_free(m->names);
	*m = (struct msg_outside){0};
}

void msg_link_encode(struct buf *b, const char *path, const char *target)
{
	buf_put_str(b, path);
	buf_put_str(b, target);
}

int msg_link_decode(struct blob payload, struct msg_link *ret)
{
	struct msg_link m = {0};
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	m.path = rd_abs_path(&r);
	m.target = rd_strdup(&r, PROTO_PATH_MAX);
	if (rd_done(&r) < 0 || !strchr(m.path + 1, '/')) {
		msg_link_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_link_release(struct msg_link *m)
{
	free(m->path);
	free(m->target);
	*m = (struct msg_link){0};
}

void msg_bare_encode(struct buf *b, const struct msg_bare *m)
{
	buf_put_str(b, m->path);
	buf_put_u8(b, m->there);
	buf_put_u16(b, m->mode);
	buf_put_u64(b, (uint64_t)m->mtime_s);
	buf_put_u32(b, m->mtime_ns);
}

int msg_bare_decode(struct blob payload, struct msg_bare *ret)
{
	struct msg_bare m = {0};
	struct rd r;
	uint8_t there;

	rd_init(&r, payload.p, payload.n);
	m.path = rd_abs_path(&r);
	there = rd_u8(&r);
	m.mode = rd_u16(&r);
	m.mtime_s = (int64_t)rd_u64(&r);
	m.mtime_ns = rd_u32(&r);
	m.there = there;
	if (rd_done(&r) < 0 || !strchr(m.path + 1, '/') || there > 1 || m.mode > 07777 ||
	    m.mtime_ns >= 1000000000) {
		msg_bare_release(&m);
		return CONCC_E_PROTO;
	}
	*ret = m;
	return 0;
}

void msg_bare_release(struct msg_bare *m)
{
	free(m->path);
	*m = (struct msg_bare){0};
}

void msg_fetch_encode(struct buf *b, const struct msg_fetch *m)
{
	buf_put_u32(b, m->fetch_id);
	buf_put_u32(b, m->dir_id);
	buf_put_u64(b, m->version);
	buf_put_str(b, m->name);
	buf_put_u8(b, m->offers);
	if (m->offers)
		buf_append(b, m->offer.b, DIGEST_SIZE);
}

int msg_fetch_decode(struct blob payload, struct msg_fetch *ret)
{
	struct msg_fetch m = {0};
	struct blob name;
	struct rd r;
	uint8_t offers;
	int err;

	rd_init(&r, payload.p, payload.n);
	m.fetch_id = rd_u32(&r);
	m.dir_id = rd_u32(&r);
	m.version = rd_u64(&r);
	name = rd_blob(&r, PROTO_NAME_MAX);
	offers = rd_u8(&r);
	m.offers = offers == 1;
	if (m.offers)
		rd_digest(&r, &m.offer);
	err = rd_done(&r);
	if (err < 0)
		return err;
	if (!name_is_valid(name) || offers > 1)
		return CONCC_E_PROTO;
	m.name = xstrndup((const char *)name.p, name.n);
	*ret = m;
	return 0;
}

void msg_fetch_release(struct msg_fetch *m)
{
	free(m->name);
	m->name = NULL;
}

void msg_content_encode(struct buf *b, const struct msg_content *m)
{
	buf_put_u32(b, m->fetch_id);
	buf_put_u8(b, m->state);
	switch (m->state) {
	case CONTENT_DATA:
		buf_put_u64(b, m->offset);
		buf_append(b, m->data.p, m->data.n);
		break;
	case CONTENT_END:
		buf_append(b, m->digest.b, DIGEST_SIZE);
		break;
	case CONTENT_ERROR:
		buf_put_u32(b, m->error);
		break;
	}
}

int msg_content_decode(struct blob payload, struct msg_content *ret)
{
	struct msg_content m = {0};
	struct rd r;
	int err;

	rd_init(&r, payload.p, payload.n);
	m.fetch_id = rd_u32(&r);
	m.state = rd_u8(&r);
	switch (m.state) {
	case CONTENT_DATA:
		m.offset = rd_u64(&r);
		m.data = rd_rest(&r);
		break;
	case CONTENT_END:
		rd_digest(&r, &m.digest);
		break;
	case CONTENT_GONE:
		break;
	case CONTENT_ERROR:
		m.error = rd_u32(&r);
		if (m.error == 0 || m.error > ERRNO_MAX)
			r.bad = true;
		break;
	default:
		r.bad = true;
	}
	err = rd_done(&r);
	if (err == 0)
		*ret = m;
	return err;
}
