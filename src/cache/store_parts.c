/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Parts of calls.  Only a person asks for them, so they are kept in the way that costs a job least:
 * one behind the other, in DIR/p/x by the first digit of their key.  When that is long enough it
 * becomes DIR/p/x.1, and the one before is no more.  Each is sealed for itself.
 */
#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"

/* Of one file, of which there are 32 at most: an eighth of the store, or 32 MB. */
#define FILE_SHARE 256
#define FILE_MAX   (1024 * 1024)
#define READ_MAX   (2 * FILE_MAX) /* several processes may have added at once */

static void name_of(const struct digest *key, char ret[STORE_NAME_SIZE])
{
	(void)snprintf(ret, STORE_NAME_SIZE, "p/%x", key->b[0] >> 4);
}

/* ---- adding ---- */

static struct parts_recent recent_of(const struct digest *key, const struct digest *call)
{
	struct parts_recent r;

	memcpy(&r.key, key->b + 1, sizeof(r.key));
	memcpy(&r.call, call->b, sizeof(r.call));
	return r;
}

static bool is_recent(struct cache_store *s, const struct parts_recent *r)
{
	const struct parts_recent *at = &s->recent[r->key % PARTS_RECENT];

	return at->key == r->key && at->call == r->call;
}

/* Another process may do so at the same time: then one more file of them goes. */
static void turn_over(struct cache_store *s, const char *name, uint64_t size)
{
	uint64_t share = s->max_bytes / FILE_SHARE;
	char before[STORE_NAME_SIZE + 2];

	if (size < (share < FILE_MAX ? share : FILE_MAX))
		return;
	(void)snprintf(before, sizeof(before), "%s.1", name);
	(void)renameat(s->dir_fd, name, s->dir_fd, before);
}

static int append(struct cache_store *s, const char *name, const struct digest *key,
		  const struct buf *parts)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct digest seal = {0};
	uint64_t size;
	int err;

	buf_append(&b, seal.b, DIGEST_SIZE);
	buf_append(&b, key->b, DIGEST_SIZE);
	buf_put_blob(&b, parts->data, parts->len);
	store_seal_of("parts", b.data + DIGEST_SIZE, b.len - DIGEST_SIZE, &seal);
	memcpy(b.data, seal.b, DIGEST_SIZE);
	err = store_append(s, name, &b, &size);
	if (err == 0)
		turn_over(s, name, size);
	return err;
}

static int add(struct cache_store *s, const struct digest *key, const struct cache_parts *w)
{
	struct parts_recent recent = recent_of(key, &w->call);
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[STORE_NAME_SIZE];
	int err;

	name_of(key, name);
	if (is_recent(s, &recent) && cache_store_has(s, name))
		return 0;
	cache_parts_encode(&b, w);
	if (b.len > CACHE_PARTS_MAX)
		return -EMSGSIZE;
	err = append(s, name, key, &b);
	if (err == 0)
		s->recent[recent.key % PARTS_RECENT] = recent;
	return err;
}

int cache_add_parts(struct cache_store *s, const struct digest *key, const struct cache_parts *w)
{
	int r;

	(void)pthread_mutex_lock(&s->adding);
	r = add(s, key, w);
	(void)pthread_mutex_unlock(&s->adding);
	return r;
}

/* ---- reading ---- */

/* Takes w, as the newest. */
static void put_first(struct cache_parts ret[CACHE_PARTS_KEPT], size_t *n, struct cache_parts *w)
{
	size_t at = 0;

	while (at < *n && !digest_eq(&ret[at].call, &w->call))
		at++;
	if (at == CACHE_PARTS_KEPT)
		at--;
	if (at < *n)
		cache_parts_release(&ret[at]);
	else
		(*n)++;
	memmove(&ret[1], &ret[0], at * sizeof(ret[0]));
	ret[0] = *w;
}

/* False: it is not what was written. */
static bool take(struct rd *r, const struct digest *key, struct cache_parts ret[CACHE_PARTS_KEPT],
		 size_t *n)
{
	const uint8_t *seal = rd_bytes(r, DIGEST_SIZE), *of = rd_bytes(r, DIGEST_SIZE);
	struct blob parts = rd_blob(r, CACHE_PARTS_MAX);
	struct cache_parts w;
	struct digest found;

	if (r->bad)
		return false;
	if (memcmp(of, key->b, DIGEST_SIZE) != 0)
		return true;
	store_seal_of("parts", of, (size_t)(parts.p + parts.n - of), &found);
	if (memcmp(found.b, seal, DIGEST_SIZE) != 0 || cache_parts_decode(parts, &w) < 0)
		return false;
	put_first(ret, n, &w);
	return true;
}

static void read_file(struct cache_store *s, const char *name, const struct digest *key,
		      struct cache_parts ret[CACHE_PARTS_KEPT], size_t *n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct rd r;
	int err = store_read(s, name, READ_MAX, &b);

	rd_init(&r, b.data, b.len);
	while (err == 0 && r.left)
		if (!take(&r, key, ret, n))
			err = CONCC_E_TOOBIG;
	if (err == CONCC_E_TOOBIG)
		(void)store_damaged(s, name);
}

int cache_get_parts(struct cache_store *s, const struct digest *key,
		    struct cache_parts ret[CACHE_PARTS_KEPT], size_t *ret_n)
{
	char name[STORE_NAME_SIZE], before[STORE_NAME_SIZE + 2];
	size_t n = 0;

	name_of(key, name);
	(void)snprintf(before, sizeof(before), "%s.1", name);
	(void)pthread_mutex_lock(&s->adding); /* or the last one might not be whole yet */
	read_file(s, before, key, ret, &n);
	read_file(s, name, key, ret, &n);
	(void)pthread_mutex_unlock(&s->adding);
	if (!n)
		return -ENOENT;
	*ret_n = n;
	return 0;
}
