/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Sets of names and results, as objects of a store. */
#include "store.h"

#include <errno.h>
#include <string.h>

#include "concc/cleanup.h"

/* ---- sets and results ---- */

/* As it is written: behind a digest of the object's name and of itself. */
struct sealed_variant {
	struct digest seal;
	struct cache_variant variant;
};

/*
 * Then all are written anew, without those that are of no use any more.  All are in one page: who
 * reads while another one is added has it whole or not at all.
 */
#define SEALED_MAX (4096 / sizeof(struct sealed_variant))
_Static_assert(SEALED_MAX > CACHE_VARIANTS_MAX + 8, "that is seldom");

bool store_is_same(const struct cache_variant *a, const struct cache_variant *b)
{
	return digest_eq(&a->set, &b->set) && digest_eq(&a->state, &b->state);
}

static struct sealed_variant seal(const char *name, const struct cache_variant *variant)
{
	struct sealed_variant v = {.variant = *variant};

	store_seal_of(name, variant, sizeof(*variant), &v.seal);
	return v;
}

static bool is_whole(const char *name, const struct sealed_variant *v)
{
	const struct sealed_variant right = seal(name, &v->variant);

	return digest_eq(&right.seal, &v->seal);
}

void store_put_older(struct cache_variant ret[CACHE_VARIANTS_MAX], size_t *n,
		     const struct cache_variant *variant)
{
	unsigned states = 0;

	for (size_t i = 0; i < *n; i++) {
		if (store_is_same(&ret[i], variant))
			return;
		states += digest_eq(&ret[i].set, &variant->set);
	}
	if (*n < CACHE_VARIANTS_MAX && states < CACHE_STATES_MAX)
		ret[(*n)++] = *variant;
}

/* Newest first; *ret_sealed: how many there are, with those that do not count. */
static int read_variants(struct cache_store *s, const char *name,
			 struct cache_variant ret[CACHE_VARIANTS_MAX], size_t *ret_n,
			 size_t *ret_sealed)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	const struct sealed_variant *v;
	/* Several processes may have added at once. */
	int r = store_read(s, name, 2 * SEALED_MAX * sizeof(*v), &b);

	if (r < 0)
		return r == CONCC_E_TOOBIG ? store_damaged(s, name) : r;
	/* Two processes may add at the end of the page, and the last goes over it, in two pieces:
	 * what is behind the whole ones is not there yet. */
	if (b.len && b.len < sizeof(*v))
		return store_damaged(s, name);
	v = (const struct sealed_variant *)b.data;
	*ret_n = 0;
	*ret_sealed = b.len / sizeof(*v);
	for (size_t i = *ret_sealed; i-- && *ret_n < CACHE_VARIANTS_MAX;) {
		if (!is_whole(name, &v[i]))
			return store_damaged(s, name);
		store_put_older(ret, ret_n, &v[i].variant);
	}
	return *ret_n ? 0 : -ENOENT;
}

int cache_get_variants(struct cache_store *s, const struct digest *call, struct cache_variant *ret,
		       size_t *ret_n)
{
	char name[STORE_NAME_SIZE];
	size_t sealed;

	store_object_name(CACHE_VARIANTS, call, name);
	return read_variants(s, name, ret, ret_n, &sealed);
}

static int write_anew(struct cache_store *s, const char *name, const struct cache_variant *newest,
		      const struct cache_variant *all, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct sealed_variant v;

	for (size_t i = n; i--;) {
		v = seal(name, &all[i]);
		buf_append(&b, &v, sizeof(v));
	}
	v = seal(name, newest);
	buf_append(&b, &v, sizeof(v));
	return store_put(s, name, &b, 1);
}

static int add_variant(struct cache_store *s, const struct digest *call,
		       const struct cache_variant *variant)
{
	struct cache_variant all[CACHE_VARIANTS_MAX];
	struct sealed_variant v;
	const struct buf one = {.data = (uint8_t *)&v, .len = sizeof(v)};
	char name[STORE_NAME_SIZE];
	size_t n = 0, sealed = 0;
	uint64_t size;
	int r;

	store_object_name(CACHE_VARIANTS, call, name);
	r = read_variants(s, name, all, &n, &sealed);
	if (r == 0 && store_is_same(&all[0], variant))
		return 0;
	if (r == 0 && sealed >= SEALED_MAX)
		return write_anew(s, name, variant, all, n);
	v = seal(name, variant);
	return store_append(s, name, &one, &size);
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

/* All in one, newest first, as they are in no store of ours. */
static void put_variants(const char *name, const struct cache_variant *all, size_t n,
			 struct buf *ret)
{
	struct digest d;

	store_seal_of(name, all, n * sizeof(all[0]), &d);
	buf_reset(ret);
	buf_append(ret, d.b, DIGEST_SIZE);
	buf_append(ret, all, n * sizeof(all[0]));
}

void cache_merge_variants(const struct digest *call, struct buf *to, const struct buf *from)
{
	struct cache_variant all[2 * CACHE_VARIANTS_MAX], more[CACHE_VARIANTS_MAX];
	char name[STORE_NAME_SIZE];
	size_t n, n_more;

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
	put_variants(name, all, n < CACHE_VARIANTS_MAX ? n : CACHE_VARIANTS_MAX, to);
}

int cache_decode_result(const struct digest *key, const struct buf *b, struct cache_entry *ret)
{
	char name[STORE_NAME_SIZE];
	struct blob in;

	store_object_name(CACHE_RESULT, key, name);
	return store_unseal(name, b, &in) ? cache_entry_decode(in, ret) : CONCC_E_PROTO;
}

static int read_whole_variants(struct cache_store *s, const struct digest *call, struct buf *ret)
{
	struct cache_variant all[CACHE_VARIANTS_MAX];
	char name[STORE_NAME_SIZE];
	size_t n, sealed;
	int r;

	store_object_name(CACHE_VARIANTS, call, name);
	r = read_variants(s, name, all, &n, &sealed);
	if (r == 0)
		put_variants(name, all, n, ret);
	return r;
}

int cache_read_object(struct cache_store *s, const struct cache_key *key, size_t max,
		      struct buf *ret)
{
	char name[STORE_NAME_SIZE];
	struct digest found;
	struct blob in;
	int r;

	if (key->kind == CACHE_VARIANTS)
		return read_whole_variants(s, &key->digest, ret);
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
	if (b->len > CACHE_ENTRY_MAX || cache_decode_result(&key->digest, b, &e) < 0)
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
	r = store_get_sealed(s, name, CACHE_ENTRY_MAX, &b);
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
	if (b.len + DIGEST_SIZE > CACHE_ENTRY_MAX)
		return CONCC_E_TOOBIG;
	entry_name(call, set, state, name);
	return store_put_sealed(s, name, &b);
}
