/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Sets of names, results and parts of calls, as objects of a store. */
#include "store.h"

#include <errno.h>
#include <string.h>

#include "concc/cleanup.h"

#define ENTRY_MAX      (16u * 1024 * 1024)
#define VARIANTS_BYTES (DIGEST_SIZE + CACHE_VARIANTS_MAX * sizeof(struct cache_variant))

/* ---- sets and results ---- */

int cache_get_variants(struct cache_store *s, const struct digest *call, struct cache_variant *ret,
		       size_t *ret_n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[STORE_NAME_SIZE];
	int r;

	store_object_name('w', call, name);
	r = store_get_sealed(s, name, VARIANTS_BYTES, &b);
	if (r < 0)
		return r;
	if (b.len % sizeof(*ret) || b.len / sizeof(*ret) > CACHE_VARIANTS_MAX)
		return store_damaged(s, name);
	*ret_n = b.len / sizeof(*ret);
	memcpy(ret, b.data, b.len);
	return 0;
}

static bool is_same(const struct cache_variant *a, const struct cache_variant *b)
{
	return digest_eq(&a->set, &b->set) && digest_eq(&a->state, &b->state);
}

/* Of two processes that add at once one may be lost: then it is found out once more. */
static int add_variant(struct cache_store *s, const struct digest *call,
		       const struct cache_variant *variant)
{
	struct cache_variant all[CACHE_VARIANTS_MAX];
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[STORE_NAME_SIZE];
	size_t n = 0, states = 1;

	if (cache_get_variants(s, call, all, &n) == 0 && n && is_same(&all[0], variant))
		return 0;
	buf_append(&b, variant, sizeof(*variant));
	for (size_t i = 0; i < n && b.len < sizeof(all); i++) {
		bool same_set = digest_eq(&all[i].set, &variant->set);

		if (is_same(&all[i], variant) || (same_set && states == CACHE_STATES_MAX))
			continue;
		states += same_set;
		buf_append(&b, &all[i], sizeof(all[i]));
	}
	store_object_name('w', call, name);
	return store_put_sealed(s, name, &b);
}

int cache_add_variant(struct cache_store *s, const struct digest *call,
		      const struct cache_variant *variant)
{
	int r;

	(void)pthread_mutex_lock(&s->adding);
	r = add_variant(s, call, variant);
	(void)pthread_mutex_unlock(&s->adding);
	return r;
}

/* ---- parts of calls ---- */

static int decode_parts(struct blob in, struct cache_parts ret[CACHE_PARTS_KEPT], size_t *ret_n)
{
	size_t n = 0;
	struct rd r;

	rd_init(&r, in.p, in.n);
	while (r.left && !r.bad && n < CACHE_PARTS_KEPT) {
		struct blob one = rd_blob(&r, CACHE_PARTS_MAX);

		if (r.bad || cache_parts_decode(one, &ret[n]) < 0)
			break;
		n++;
	}
	*ret_n = n;
	return rd_done(&r);
}

int cache_get_parts(struct cache_store *s, const struct digest *key,
		    struct cache_parts ret[CACHE_PARTS_KEPT], size_t *ret_n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[STORE_NAME_SIZE];
	int r;

	store_object_name('n', key, name);
	r = store_get_sealed(s, name, CACHE_PARTS_KEPT * (CACHE_PARTS_MAX + 64), &b);
	if (r < 0)
		return r;
	r = decode_parts((struct blob){b.data, b.len}, ret, ret_n);
	while (r < 0 && *ret_n)
		cache_parts_release(&ret[--*ret_n]);
	return r < 0 ? store_damaged(s, name) : 0;
}

static void put_parts(struct buf *b, const struct cache_parts *w)
{
	_cleanup_buf_ struct buf one = BUF_INIT;

	cache_parts_encode(&one, w);
	buf_put_blob(b, one.data, one.len);
}

static int add_parts(struct cache_store *s, const struct digest *key, const struct cache_parts *w)
{
	struct cache_parts all[CACHE_PARTS_KEPT];
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[STORE_NAME_SIZE];
	size_t n = 0, kept = 1;
	bool first;

	if (cache_get_parts(s, key, all, &n) < 0)
		n = 0;
	first = n && digest_eq(&all[0].call, &w->call);
	put_parts(&b, w);
	if (b.len > CACHE_PARTS_MAX)
		first = true;
	for (size_t i = 0; i < n; i++) {
		if (!first && kept < CACHE_PARTS_KEPT && !digest_eq(&all[i].call, &w->call)) {
			put_parts(&b, &all[i]);
			kept++;
		}
		cache_parts_release(&all[i]);
	}
	if (first)
		return b.len > CACHE_PARTS_MAX ? -EMSGSIZE : 0;
	store_object_name('n', key, name);
	return store_put_sealed(s, name, &b);
}

int cache_add_parts(struct cache_store *s, const struct digest *key, const struct cache_parts *w)
{
	int r;

	(void)pthread_mutex_lock(&s->adding);
	r = add_parts(s, key, w);
	(void)pthread_mutex_unlock(&s->adding);
	return r;
}

/* ---- objects as they are ---- */

static size_t variants_in(const char *name, const struct buf *b,
			  struct cache_variant ret[CACHE_VARIANTS_MAX])
{
	size_t size = sizeof(struct cache_variant);
	struct blob in;

	if (!store_unseal(name, b, &in) || in.n % size || in.n / size > CACHE_VARIANTS_MAX)
		return 0;
	memcpy(ret, in.p, in.n);
	return in.n / size;
}

void cache_merge_variants(const struct digest *call, struct buf *to, const struct buf *from)
{
	struct cache_variant all[2 * CACHE_VARIANTS_MAX], more[CACHE_VARIANTS_MAX];
	char name[STORE_NAME_SIZE];
	size_t n, n_more;
	struct digest d;

	store_object_name(CACHE_VARIANTS, call, name);
	n = variants_in(name, to, all);
	n_more = variants_in(name, from, more);

	for (size_t i = 0; i < n_more; i++) {
		bool known = false;

		for (size_t k = 0; k < n && !known; k++)
			known = memcmp(&all[k], &more[i], sizeof(more[i])) == 0;
		if (!known)
			all[n++] = more[i];
	}
	n = n < CACHE_VARIANTS_MAX ? n : CACHE_VARIANTS_MAX;
	store_seal_of(name, all, n * sizeof(all[0]), &d);
	buf_reset(to);
	buf_append(to, d.b, DIGEST_SIZE);
	buf_append(to, all, n * sizeof(all[0]));
}

int cache_decode_result(const struct digest *key, const struct buf *b, struct cache_entry *ret)
{
	char name[STORE_NAME_SIZE];
	struct blob in;

	store_object_name(CACHE_RESULT, key, name);
	return store_unseal(name, b, &in) ? cache_entry_decode(in, ret) : CONCC_E_PROTO;
}

int cache_read_object(struct cache_store *s, const struct cache_key *key, size_t max,
		      struct buf *ret)
{
	char name[STORE_NAME_SIZE];
	struct digest found;
	struct blob in;
	int r;

	store_object_name((char)key->kind, &key->digest, name);
	buf_reset(ret);
	r = store_read(s, name, max, ret);
	if (r < 0)
		return r;
	if (key->kind != CACHE_BYTES)
		return store_unseal(name, ret, &in) ? 0 : CONCC_E_PROTO;
	digest_of(ret->data, ret->len, &found);
	return digest_eq(&found, &key->digest) ? 0 : CONCC_E_PROTO;
}

static int write_bytes(struct cache_store *s, const struct cache_key *key, const struct buf *b)
{
	struct digest found;

	digest_of(b->data, b->len, &found);
	if (!digest_eq(&found, &key->digest))
		return CONCC_E_PROTO;
	return cache_put_bytes(s, b->data, b->len, &found);
}

static int write_variants(struct cache_store *s, const struct cache_key *key, const struct buf *b)
{
	struct cache_variant all[CACHE_VARIANTS_MAX];
	char name[STORE_NAME_SIZE];
	size_t n;
	int r;

	store_object_name(CACHE_VARIANTS, &key->digest, name);
	n = variants_in(name, b, all);
	r = n ? 0 : CONCC_E_PROTO;

	while (n && r == 0) /* the first at last, since each goes to the front */
		r = cache_add_variant(s, &key->digest, &all[--n]);
	return r;
}

int cache_write_object(struct cache_store *s, const struct cache_key *key, const struct buf *b)
{
	struct cache_entry e;
	char name[STORE_NAME_SIZE];

	switch (key->kind) {
	case CACHE_BYTES:
		return write_bytes(s, key, b);
	case CACHE_VARIANTS:
		return write_variants(s, key, b);
	case CACHE_RESULT:
		break;
	}
	if (b->len > ENTRY_MAX || cache_decode_result(&key->digest, b, &e) < 0)
		return CONCC_E_PROTO;
	cache_entry_release(&e);
	store_object_name(CACHE_RESULT, &key->digest, name);
	return store_put(s, name, b, 1);
}

void cache_entry_key(const struct digest *call, const struct cache_variant *variant,
		     struct digest *ret)
{
	const struct digest all[] = {*call, variant->set, variant->state};

	digest_of(all, sizeof(all), ret);
}

static void entry_name(const struct digest *call, const struct digest *set,
		       const struct digest *state, char ret[STORE_NAME_SIZE])
{
	const struct cache_variant variant = {*set, *state};
	struct digest d;

	cache_entry_key(call, &variant, &d);
	store_object_name(CACHE_RESULT, &d, ret);
}

int cache_get_entry(struct cache_store *s, const struct digest *call, const struct digest *set,
		    const struct digest *state, struct cache_entry *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[STORE_NAME_SIZE];
	int r;

	entry_name(call, set, state, name);
	r = store_get_sealed(s, name, ENTRY_MAX, &b);
	if (r < 0)
		return r;
	r = cache_entry_decode((struct blob){b.data, b.len}, ret);
	return r < 0 ? store_damaged(s, name) : 0;
}

int cache_put_entry(struct cache_store *s, const struct digest *call, const struct digest *set,
		    const struct digest *state, const struct cache_entry *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[STORE_NAME_SIZE];

	cache_entry_encode(&b, e);
	if (b.len + DIGEST_SIZE > ENTRY_MAX)
		return CONCC_E_TOOBIG;
	entry_name(call, set, state, name);
	return store_put_sealed(s, name, &b);
}
