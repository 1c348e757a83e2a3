/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/digest.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

/*
 * The file: 16 bytes of magic with the format's number, u32 session, u32 n,
 * then n records of RECORD bytes, each with a check sum of its own, so that
 * damage costs the records it hit.  Rewritten beside and renamed.
 */
#define MAGIC	  "concc-hashes 2\n"
#define MAGIC_LEN 16
#define HEADER	  (MAGIC_LEN + 8)
#define RECORD	  (8 * 5 + 4 * 4 + DIGEST_SIZE)
/* Files whose bytes a worker asked for: several kernels' worth, 23 MB on disk and in memory. */
#define RECORDS_MAX (256 * 1024)
#define FILE_MAX    (HEADER + (size_t)RECORDS_MAX * RECORD)

struct record {
	uint64_t dev, ino, size;
	int64_t mtime_s, ctime_s;
	uint32_t mtime_ns, ctime_ns;
	uint32_t used; /* session of the last use; 0: an empty slot */
	bool passing;  /* not of the next session, nor of other mounts */
	struct digest digest;
};

/* Open addressing by (dev, ino): a file has one state, so one record. */
struct hash_cache {
	char *path;
	struct record *slots;
	size_t cap, n;
	uint32_t session;
	bool dirty;
	bool has_passing;
};

static size_t slot_of(const struct hash_cache *h, uint64_t dev, uint64_t ino)
{
	uint64_t x = (ino ^ dev * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
	size_t i = (size_t)(x ^ x >> 29) & (h->cap - 1);

	while (h->slots[i].used && (h->slots[i].ino != ino || h->slots[i].dev != dev))
		i = (i + 1) & (h->cap - 1);
	return i;
}

static void grow(struct hash_cache *h)
{
	struct record *old = h->slots;
	size_t old_cap = h->cap;

	h->cap = old_cap ? old_cap * 2 : 1024;
	h->slots = xcalloc(h->cap, sizeof(*h->slots));
	for (size_t i = 0; i < old_cap; i++) {
		if (old[i].used)
			h->slots[slot_of(h, old[i].dev, old[i].ino)] = old[i];
	}
	free(old);
}

static void put_record(struct hash_cache *h, const struct record *r)
{
	size_t i;

	if (h->n >= h->cap / 4 * 3)
		grow(h);
	i = slot_of(h, r->dev, r->ino);
	h->n += !h->slots[i].used;
	h->slots[i] = *r;
}

static void del_slot(struct hash_cache *h, size_t hole)
{
	size_t mask = h->cap - 1;

	h->slots[hole].used = 0;
	h->n--;
	/* Puts back what stood behind it: runs are short. */
	for (size_t i = (hole + 1) & mask; h->slots[i].used; i = (i + 1) & mask) {
		struct record r = h->slots[i];

		h->slots[i].used = 0;
		h->slots[slot_of(h, r.dev, r.ino)] = r;
	}
}

static uint32_t check_sum(const uint8_t *p, size_t n)
{
	uint64_t sum = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < n; i++)
		sum = (sum ^ p[i]) * UINT64_C(1099511628211);
	return (uint32_t)(sum ^ sum >> 32);
}

static void record_encode(struct buf *b, const struct record *r)
{
	size_t at = b->len;

	buf_put_u64(b, r->dev);
	buf_put_u64(b, r->ino);
	buf_put_u64(b, r->size);
	buf_put_u64(b, (uint64_t)r->mtime_s);
	buf_put_u64(b, (uint64_t)r->ctime_s);
	buf_put_u32(b, r->mtime_ns);
	buf_put_u32(b, r->ctime_ns);
	buf_put_u32(b, r->used);
	buf_append(b, r->digest.b, DIGEST_SIZE);
	buf_put_u32(b, check_sum(b->data + at, RECORD - 4));
}

/* False when the record is damaged. */
static bool record_decode(struct rd *rd, uint32_t session, struct record *ret)
{
	const uint8_t *start = rd->p;
	const uint8_t *digest;

	ret->dev = rd_u64(rd);
	ret->ino = rd_u64(rd);
	ret->size = rd_u64(rd);
	ret->mtime_s = (int64_t)rd_u64(rd);
	ret->ctime_s = (int64_t)rd_u64(rd);
	ret->mtime_ns = rd_u32(rd);
	ret->ctime_ns = rd_u32(rd);
	ret->used = rd_u32(rd);
	ret->passing = false;
	digest = rd_bytes(rd, DIGEST_SIZE);
	if (!digest)
		return false;
	memcpy(ret->digest.b, digest, DIGEST_SIZE);
	return rd_u32(rd) == check_sum(start, RECORD - 4) && ret->used && ret->used <= session;
}

/* The counter of sessions is about to wrap: what there is counts as of the first. */
static void renumber(struct hash_cache *h)
{
	h->session = 1;
	for (size_t i = 0; i < h->cap; i++) {
		if (h->slots[i].used)
			h->slots[i].used = 1;
	}
}

static void load(struct hash_cache *h, const struct buf *b)
{
	struct rd rd;
	struct record r;
	const uint8_t *magic;
	uint32_t n;
	size_t bad = 0;

	rd_init(&rd, b->data, b->len);
	magic = rd_bytes(&rd, MAGIC_LEN);
	if (!magic || memcmp(magic, MAGIC, MAGIC_LEN) != 0) {
		log_warn("ignoring %s: not a file of digests of this version", h->path);
		return;
	}
	h->session = rd_u32(&rd);
	n = rd_u32(&rd);
	for (uint32_t i = 0; i < n && rd.left >= RECORD; i++) {
		if (record_decode(&rd, h->session, &r) && h->n < RECORDS_MAX)
			put_record(h, &r);
		else
			bad++;
	}
	if (bad || rd.bad || h->n + bad != n)
		log_warn("%s is damaged: %zu of %u digests are used", h->path, h->n, n);
	if (h->session >= UINT32_MAX - 1)
		renumber(h);
}

/* Another user's file, or one others may write, could make us claim wrong bytes. */
static bool is_ours(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
	       !(st.st_mode & 022);
}

int hash_cache_open(const char *path, struct hash_cache **ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct hash_cache *h = xcalloc(1, sizeof(*h));
	ssize_t n;

	h->path = xstrdup(path);
	grow(h);
	*ret = h;
	if (fd < 0 && errno != ENOENT)
		log_warn("ignoring %s: %s", path, err_text(-errno));
	if (fd >= 0 && !is_ours(fd)) {
		log_warn("ignoring %s: not a file of our own that only we can write", path);
	} else if (fd >= 0) {
		/* What a longer file has beyond the bound is ignored. */
		n = read_full(fd, buf_grow(&b, FILE_MAX), FILE_MAX);
		if (n < 0)
			log_warn("ignoring %s: %s", path, err_text((int)n));
		b.len = n < 0 ? 0 : (size_t)n;
		if (n >= 0)
			load(h, &b);
	}
	h->session++;
	return 0;
}

static void key_of(const struct stat *st, struct record *ret)
{
	*ret = (struct record){
		.dev = st->st_dev,
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.mtime_s = st->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
		.ctime_s = st->st_ctim.tv_sec,
		.ctime_ns = (uint32_t)st->st_ctim.tv_nsec,
	};
}

static struct record *find(struct hash_cache *h, const struct stat *st)
{
	struct record *r = &h->slots[slot_of(h, st->st_dev, st->st_ino)];
	struct record k;

	key_of(st, &k);
	if (!r->used || r->size != k.size || r->mtime_s != k.mtime_s || r->mtime_ns != k.mtime_ns ||
	    r->ctime_s != k.ctime_s || r->ctime_ns != k.ctime_ns)
		return NULL;
	return r;
}

bool hash_cache_get(struct hash_cache *h, const struct stat *st, struct digest *ret)
{
	struct record *r = find(h, st);

	if (!r)
		return false;
	h->dirty |= r->used != h->session;
	r->used = h->session;
	*ret = r->digest;
	return true;
}

void hash_cache_put(struct hash_cache *h, const struct stat *st, const struct digest *d,
		    bool stamps)
{
	struct record r;

	key_of(st, &r);
	r.used = h->session;
	r.passing = !stamps;
	r.digest = *d;
	put_record(h, &r);
	h->dirty |= stamps;
	h->has_passing |= !stamps;
}

void hash_cache_mounts_changed(struct hash_cache *h)
{
	struct record *old = h->slots;
	size_t cap = h->cap;

	if (!h->has_passing)
		return;
	h->has_passing = false;
	h->slots = xcalloc(cap, sizeof(*h->slots));
	h->n = 0;
	for (size_t i = 0; i < cap; i++) {
		if (old[i].used && !old[i].passing)
			put_record(h, &old[i]);
	}
	free(old);
}

void hash_cache_drop(struct hash_cache *h, const struct stat *st)
{
	struct record *r = find(h, st);

	if (!r)
		return;
	del_slot(h, (size_t)(r - h->slots));
	h->dirty = true;
}

size_t hash_cache_count(const struct hash_cache *h)
{
	return h->n;
}

static int by_use(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* Sessions before this one are left out, so that RECORDS_MAX stay. */
static uint32_t oldest_kept(const struct hash_cache *h)
{
	_cleanup_free_ uint32_t *used = NULL;
	size_t n = 0;

	if (h->n <= RECORDS_MAX)
		return 0;
	used = xmalloc(h->n * sizeof(*used));
	for (size_t i = 0; i < h->cap; i++) {
		if (h->slots[i].used)
			used[n++] = h->slots[i].used;
	}
	qsort(used, n, sizeof(*used), by_use);
	return used[RECORDS_MAX - 1];
}

static void encode(const struct hash_cache *h, struct buf *b)
{
	uint32_t oldest = oldest_kept(h);
	uint32_t n = 0;

	buf_append(b, MAGIC, MAGIC_LEN);
	buf_put_u32(b, h->session);
	buf_put_u32(b, 0);
	/* The newest sessions whole first, then of the oldest kept what fits. */
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < h->cap && n < RECORDS_MAX; i++) {
			const struct record *r = &h->slots[i];

			if (!r->used || r->passing ||
			    (pass == 0 ? r->used <= oldest : r->used != oldest))
				continue;
			record_encode(b, r);
			n++;
		}
		if (!oldest)
			break;
	}
	buf_set_u32(b, MAGIC_LEN + 4, n);
}

bool hash_cache_changes(struct hash_cache *h, struct buf *ret)
{
	if (!h->dirty)
		return false;
	encode(h, ret);
	h->dirty = false;
	return true;
}

void hash_cache_free(struct hash_cache *h)
{
	if (!h)
		return;
	free(h->path);
	free(h->slots);
	free(h);
}
