/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The first result of a call, in DIR/b/x/...: with its set of names and its small files it is one
 * object.  To make a file, and to open one, takes a file system longer than what is in it, and of
 * most calls nothing else is ever kept.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define HEAD_MAX  (CACHE_ENTRY_MAX + 1024 * 1024)
#define SET_AT	  (4 + DIGEST_SIZE + 4) /* behind the head's length, its seal and the format */
#define FIRST_MAX (HEAD_MAX + PROTO_TRACE_BYTES_MAX + CACHE_FIRST_FILES_MAX)

static void name_of(const struct digest *call, char ret[STORE_NAME_SIZE])
{
	store_object_name('b', call, ret);
}

void cache_first_release(struct cache_first *f)
{
	buf_release(&f->bytes);
	free(f->files);
	*f = (struct cache_first){0};
}

/* ---- writing ---- */

/* Behind its seal.  What follows it has digests in it, so nothing is hashed twice. */
static void put_head(struct buf *b, const char *name, const struct cache_first *f)
{
	struct digest seal = {0};

	buf_append(b, seal.b, DIGEST_SIZE);
	buf_put_u32(b, CACHE_FORMAT);
	buf_append(b, &f->variant, sizeof(f->variant));
	buf_put_u32(b, (uint32_t)f->set.n);
	buf_put_blob(b, f->entry.p, f->entry.n);
	buf_put_u32(b, (uint32_t)f->n_files);
	for (size_t i = 0; i < f->n_files; i++) {
		buf_append(b, f->files[i].digest.b, DIGEST_SIZE);
		buf_put_u32(b, (uint32_t)f->files[i].bytes.n);
	}
	store_seal_of(name, b->data + DIGEST_SIZE, b->len - DIGEST_SIZE, &seal);
	memcpy(b->data, seal.b, DIGEST_SIZE);
}

static struct buf as_part(struct blob b)
{
	return (struct buf){.data = (uint8_t *)b.p, .len = b.n};
}

int cache_put_first(struct cache_store *s, const struct digest *call, const struct cache_first *f)
{
	_cleanup_free_ struct buf *parts = xcalloc(f->n_files + 3, sizeof(*parts));
	_cleanup_buf_ struct buf head = BUF_INIT, length = BUF_INIT;
	char name[STORE_NAME_SIZE];

	if (f->entry.n + DIGEST_SIZE > CACHE_ENTRY_MAX)
		return CONCC_E_TOOBIG;
	name_of(call, name);
	put_head(&head, name, f);
	buf_put_u32(&length, (uint32_t)head.len);
	parts[0] = length;
	parts[1] = head;
	parts[2] = as_part(f->set);
	for (size_t i = 0; i < f->n_files; i++)
		parts[3 + i] = as_part(f->files[i].bytes);
	return store_put(s, name, parts, f->n_files + 3);
}

/* ---- what is there ---- */

bool cache_is_new(struct cache_store *s, const struct digest *call)
{
	char first[STORE_NAME_SIZE], others[STORE_NAME_SIZE];

	name_of(call, first);
	store_object_name(CACHE_VARIANTS, call, others);
	return !cache_store_has(s, first) && !cache_store_has(s, others);
}

/* If that is damaged, what is kept with this set is lost with it. */
bool cache_first_seems_of(struct cache_store *s, const struct digest *call,
			  const struct digest *set)
{
	char name[STORE_NAME_SIZE];
	uint8_t begin[SET_AT + DIGEST_SIZE];
	_cleanup_close_ int fd = -1;

	name_of(call, name);
	fd = openat(s->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 && read_full(fd, begin, sizeof(begin)) == sizeof(begin) &&
	       memcmp(begin + SET_AT, set->b, DIGEST_SIZE) == 0;
}

/* ---- reading ---- */

static void take_digest(struct rd *r, struct digest *ret)
{
	const uint8_t *p = rd_bytes(r, DIGEST_SIZE);

	if (p)
		memcpy(ret->b, p, DIGEST_SIZE);
}

/* So many bytes of what is behind the head, with just that digest. */
static struct blob take_behind(struct rd *behind, uint32_t n, const struct digest *d)
{
	struct blob b = {rd_bytes(behind, n), n};
	struct digest found;

	if (behind->bad)
		return (struct blob){0};
	digest_of(b.p, b.n, &found);
	behind->bad = !digest_eq(&found, d);
	return b;
}

static void take_files(struct rd *head, struct rd *behind, struct cache_first *f)
{
	uint32_t n = rd_count(head, DIGEST_SIZE + 4);

	if (n > CACHE_EFFECTS_MAX)
		head->bad = true;
	if (head->bad)
		return;
	f->files = xcalloc(n + 1, sizeof(*f->files));
	for (; f->n_files < n && !behind->bad; f->n_files++) {
		struct cache_first_file *file = &f->files[f->n_files];

		take_digest(head, &file->digest);
		file->bytes = take_behind(behind, rd_u32(head), &file->digest);
	}
}

static bool is_sealed(const char *name, struct blob head)
{
	struct digest seal;

	if (head.n < DIGEST_SIZE)
		return false;
	store_seal_of(name, head.p + DIGEST_SIZE, head.n - DIGEST_SIZE, &seal);
	return memcmp(seal.b, head.p, DIGEST_SIZE) == 0;
}

/* Of what f->bytes holds. */
static bool decode(const char *name, struct cache_first *f)
{
	struct rd head, behind;
	uint32_t format, n_set;
	struct blob b;

	rd_init(&behind, f->bytes.data, f->bytes.len);
	b = rd_blob(&behind, HEAD_MAX);
	if (behind.bad || !is_sealed(name, b))
		return false;
	rd_init(&head, b.p + DIGEST_SIZE, b.n - DIGEST_SIZE);
	format = rd_u32(&head);
	take_digest(&head, &f->variant.set);
	take_digest(&head, &f->variant.state);
	n_set = rd_u32(&head);
	f->entry = rd_blob(&head, CACHE_ENTRY_MAX);
	f->set = take_behind(&behind, n_set, &f->variant.set);
	take_files(&head, &behind, f);
	return format == CACHE_FORMAT && rd_done(&head) == 0 && rd_done(&behind) == 0;
}

int cache_get_first(struct cache_store *s, const struct digest *call, struct cache_first *ret)
{
	struct cache_first f = {0};
	char name[STORE_NAME_SIZE];
	int r;

	name_of(call, name);
	r = store_read(s, name, FIRST_MAX, &f.bytes);
	if (r == CONCC_E_TOOBIG || (r == 0 && !decode(name, &f)))
		r = store_damaged(s, name);
	if (r < 0)
		cache_first_release(&f);
	else
		*ret = f;
	return r;
}

static bool is_there(const struct cache_first *f)
{
	return f->bytes.len;
}

void cache_first_add(const struct cache_first *f, struct cache_variant ret[CACHE_VARIANTS_MAX],
		     size_t *n)
{
	if (is_there(f))
		store_put_older(ret, n, &f->variant);
}

int cache_first_entry(const struct cache_first *f, const struct cache_variant *variant,
		      struct cache_entry *ret)
{
	if (!is_there(f) || !store_is_same(&f->variant, variant))
		return -ENOENT;
	return cache_entry_decode(f->entry, ret);
}

const struct blob *cache_first_set(const struct cache_first *f, const struct digest *set)
{
	return is_there(f) && digest_eq(&f->variant.set, set) ? &f->set : NULL;
}

const struct blob *cache_first_file(const struct cache_first *f, const struct digest *d)
{
	for (size_t i = 0; i < f->n_files; i++)
		if (digest_eq(&f->files[i].digest, d))
			return &f->files[i].bytes;
	return NULL;
}
