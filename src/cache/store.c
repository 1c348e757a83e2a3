/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "counts.h"

/*
 * DIR/c/xx/...: contents and sets of names, by the digest of their bytes.  DIR/r/xx/...: results,
 * by the digest of call, set and state.  DIR/w/xx/...: what was seen of a call.  The last two begin
 * with a digest of their name and all that follows it, as does DIR/n/xx/..., words of calls.
 * DIR/tmp: what is being written.
 */
#define TMP_AGE_S    3600 /* a temporary file this old belongs to no living writer */
#define RENEW_S	     3600 /* the time of the last use is kept no finer than that */
#define ENTRY_MAX    (16u * 1024 * 1024)
#define SEEN_BYTES   (DIGEST_SIZE + CACHE_SEEN_MAX * sizeof(struct cache_seen))
#define COPY_SIZE    (256 * 1024)
#define TRIM_TO(max) ((max) / 10 * 9)

struct cache_store {
	char *dir;
	int dir_fd;
	uint64_t max_bytes;
	struct counts *counts; /* shared by all processes */
	unsigned n_temp;
};

/* ---- names ---- */

#define NAME_SIZE (DIGEST_HEX + 8)

static void object_name(char kind, const struct digest *d, char ret[NAME_SIZE])
{
	char hex[DIGEST_HEX];

	digest_hex(d, hex);
	(void)snprintf(ret, NAME_SIZE, "%c/%.2s/%s", kind, hex, hex + 2);
}

static int make_parent(const struct cache_store *s, const char *name)
{
	char dir[] = {name[0], name[1], name[2], name[3], '\0'};

	if (mkdirat(s->dir_fd, dir, 0700) < 0 && errno == ENOENT) {
		dir[1] = '\0';
		(void)mkdirat(s->dir_fd, dir, 0700);
		dir[1] = '/';
		(void)mkdirat(s->dir_fd, dir, 0700);
	}
	return 0; /* what failed shows in the rename */
}

static int open_folder(const char *dir)
{
	int err = path_mkdirs(dir, 0700), fd;

	if (err < 0)
		return err;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Whoever may write there decides what compilers are said to have made. */
static bool is_safe(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 022);
}

/* Somebody has removed the folder: another one, by the same descriptor.  A thread that trims meets
 * either. */
static int make_again(struct cache_store *s)
{
	_cleanup_close_ int fd = open_folder(s->dir);

	if (fd < 0)
		return fd;
	if (!is_safe(fd))
		return CONCC_E_UNSAFE;
	if (dup3(fd, s->dir_fd, O_CLOEXEC) < 0)
		return -errno;
	counts_move(s->counts, s->dir_fd);
	return mkdirat(s->dir_fd, "tmp", 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_temp(struct cache_store *s, char ret[NAME_SIZE])
{
	for (int tries = 0; tries < 16; tries++) {
		int fd;

		(void)snprintf(ret, NAME_SIZE, "tmp/%ld.%u.%llx", (long)getpid(), ++s->n_temp,
			       (unsigned long long)now_us());
		fd = openat(s->dir_fd, ret, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0600);
		if (fd >= 0)
			return fd;
		if (errno == EEXIST)
			continue;
		if (errno != ENOENT || (mkdirat(s->dir_fd, "tmp", 0700) < 0 && make_again(s) < 0))
			return -errno;
	}
	return -EEXIST;
}

/* Gives what is whole in temp its name. */
static int place(struct cache_store *s, const char *temp, const char *name, uint64_t size)
{
	int err = 0;

	if (renameat(s->dir_fd, temp, s->dir_fd, name) < 0) {
		(void)make_parent(s, name);
		if (renameat(s->dir_fd, temp, s->dir_fd, name) < 0)
			err = -errno;
	}
	if (err < 0)
		(void)unlinkat(s->dir_fd, temp, 0); /* else it goes by its age */
	else
		counts_add_bytes(s->counts, size);
	return err;
}

/* ---- writing ---- */

static int put_named(struct cache_store *s, const char *name, const struct buf *parts, size_t n)
{
	char temp[NAME_SIZE];
	_cleanup_close_ int fd = open_temp(s, temp);
	uint64_t size = 0;
	int err = 0;

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < n && err == 0; i++) {
		err = write_full(fd, parts[i].data, parts[i].len);
		size += parts[i].len;
	}
	if (err < 0) {
		(void)unlinkat(s->dir_fd, temp, 0);
		return err;
	}
	return place(s, temp, name, size);
}

/* It is used: trimmed later than what is not. */
static void renew(struct cache_store *s, const char *name, const struct stat *st)
{
	if (st->st_mtim.tv_sec + RENEW_S < time(NULL))
		(void)utimensat(s->dir_fd, name, NULL, AT_SYMLINK_NOFOLLOW);
}

static bool has_named(struct cache_store *s, const char *name)
{
	struct stat st;

	if (fstatat(s->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return false;
	renew(s, name, &st);
	return true;
}

int cache_put_bytes(struct cache_store *s, const void *p, size_t n, struct digest *ret)
{
	const struct buf whole = {.data = (uint8_t *)p, .len = n};
	char name[NAME_SIZE];

	digest_of(p, n, ret);
	object_name('c', ret, name);
	return has_named(s, name) ? 0 : put_named(s, name, &whole, 1);
}

static int copy(int from, int to, struct digest *ret, uint64_t *ret_size)
{
	_cleanup_free_ uint8_t *chunk = xmalloc(COPY_SIZE);
	struct digest_ctx *ctx = digest_new();
	uint64_t at = 0;
	int err = 0;

	for (;;) {
		ssize_t n = pread(from, chunk, COPY_SIZE, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			err = n < 0 ? -errno : 0;
			break;
		}
		digest_update(ctx, chunk, (size_t)n);
		at += (uint64_t)n;
		err = write_full(to, chunk, (size_t)n);
		if (err < 0)
			break;
	}
	digest_final(ctx, ret);
	digest_free(ctx);
	*ret_size = at;
	return err;
}

int cache_put_fd(struct cache_store *s, int fd, struct digest *ret, uint64_t *ret_size)
{
	char temp[NAME_SIZE], name[NAME_SIZE];
	_cleanup_close_ int to = open_temp(s, temp);
	int err;

	if (to < 0)
		return to;
	err = copy(fd, to, ret, ret_size);
	if (err == 0) {
		object_name('c', ret, name);
		if (!has_named(s, name))
			return place(s, temp, name, *ret_size);
	}
	(void)unlinkat(s->dir_fd, temp, 0);
	return err;
}

/* ---- reading ---- */

static int read_named(struct cache_store *s, const char *name, size_t max, struct buf *ret)
{
	_cleanup_close_ int fd = openat(s->dir_fd, name,
					O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max)
		return CONCC_E_TOOBIG;
	n = read_full(fd, buf_grow(ret, (size_t)st.st_size + 1), (size_t)st.st_size);
	ret->len -= (size_t)st.st_size + 1 - (n > 0 ? (size_t)n : 0);
	if (n < 0)
		return (int)n;
	renew(s, name, &st);
	return 0;
}

/* Written by a crash, a failing disk, or another program. */
static int damaged(struct cache_store *s, const char *name)
{
	log_warn("%s/%s is damaged: removed", s->dir, name);
	(void)unlinkat(s->dir_fd, name, 0);
	return -ENOENT;
}

static int get_named(struct cache_store *s, const char *name, const struct digest *d, size_t max,
		     struct buf *ret)
{
	struct digest found;
	int r;

	buf_reset(ret);
	r = read_named(s, name, max, ret);
	if (r == CONCC_E_TOOBIG)
		return damaged(s, name);
	if (r < 0)
		return r;
	digest_of(ret->data, ret->len, &found);
	return digest_eq(&found, d) ? 0 : damaged(s, name);
}

int cache_get_bytes(struct cache_store *s, const struct digest *d, size_t max, struct buf *ret)
{
	char name[NAME_SIZE];

	object_name('c', d, name);
	return get_named(s, name, d, max, ret);
}

bool cache_has(struct cache_store *s, const struct digest *d)
{
	char name[NAME_SIZE];

	object_name('c', d, name);
	return has_named(s, name);
}

/* Of what is sealed: whole, and of just this name, whatever copies objects about. */
static void seal_of(const char *name, const void *p, size_t n, struct digest *ret)
{
	struct digest_ctx *ctx = digest_new();

	digest_update(ctx, name, strlen(name) + 1);
	digest_update(ctx, p, n);
	digest_final(ctx, ret);
	digest_free(ctx);
}

/* What is sealed, without its seal. */
static bool unseal(const char *name, const struct buf *b, struct blob *ret)
{
	struct digest found;

	if (b->len < DIGEST_SIZE)
		return false;
	*ret = (struct blob){b->data + DIGEST_SIZE, b->len - DIGEST_SIZE};
	seal_of(name, ret->p, ret->n, &found);
	return memcmp(found.b, b->data, DIGEST_SIZE) == 0;
}

/* With the seal in front. */
static int put_sealed(struct cache_store *s, const char *name, struct buf *b)
{
	struct digest d;
	struct buf parts[2] = {{.data = d.b, .len = DIGEST_SIZE}, *b};

	seal_of(name, b->data, b->len, &d);
	return put_named(s, name, parts, 2);
}

static int get_sealed(struct cache_store *s, const char *name, size_t max, struct buf *ret)
{
	struct blob in;
	int r;

	buf_reset(ret);
	r = read_named(s, name, max, ret);
	if (r < 0)
		return r == CONCC_E_TOOBIG ? damaged(s, name) : r;
	if (!unseal(name, ret, &in))
		return damaged(s, name);
	buf_consume(ret, DIGEST_SIZE);
	return 0;
}

/* ---- sets and results ---- */

int cache_get_seen(struct cache_store *s, const struct digest *call, struct cache_seen *ret,
		   size_t *ret_n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[NAME_SIZE];
	int r;

	object_name('w', call, name);
	r = get_sealed(s, name, SEEN_BYTES, &b);
	if (r < 0)
		return r;
	if (b.len % sizeof(*ret) || b.len / sizeof(*ret) > CACHE_SEEN_MAX)
		return damaged(s, name);
	*ret_n = b.len / sizeof(*ret);
	memcpy(ret, b.data, b.len);
	return 0;
}

static bool is_same(const struct cache_seen *a, const struct cache_seen *b)
{
	return digest_eq(&a->set, &b->set) && digest_eq(&a->state, &b->state);
}

/* Of two processes that add at once one may be lost: then it is found out once more. */
int cache_add_seen(struct cache_store *s, const struct digest *call, const struct cache_seen *seen)
{
	struct cache_seen all[CACHE_SEEN_MAX];
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[NAME_SIZE];
	size_t n = 0, states = 1;

	if (cache_get_seen(s, call, all, &n) == 0 && n && is_same(&all[0], seen))
		return 0;
	buf_append(&b, seen, sizeof(*seen));
	for (size_t i = 0; i < n && b.len < sizeof(all); i++) {
		bool same_set = digest_eq(&all[i].set, &seen->set);

		if (is_same(&all[i], seen) || (same_set && states == CACHE_STATES_MAX))
			continue;
		states += same_set;
		buf_append(&b, &all[i], sizeof(all[i]));
	}
	object_name('w', call, name);
	return put_sealed(s, name, &b);
}

/* ---- words ---- */

static int decode_words(struct blob in, struct cache_words ret[CACHE_WORDS_KEPT], size_t *ret_n)
{
	size_t n = 0;
	struct rd r;

	rd_init(&r, in.p, in.n);
	while (r.left && !r.bad && n < CACHE_WORDS_KEPT) {
		struct blob one = rd_blob(&r, CACHE_WORDS_MAX);

		if (r.bad || cache_words_decode(one, &ret[n]) < 0)
			break;
		n++;
	}
	*ret_n = n;
	return rd_done(&r);
}

int cache_get_words(struct cache_store *s, const struct digest *key,
		    struct cache_words ret[CACHE_WORDS_KEPT], size_t *ret_n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[NAME_SIZE];
	int r;

	object_name('n', key, name);
	r = get_sealed(s, name, CACHE_WORDS_KEPT * (CACHE_WORDS_MAX + 64), &b);
	if (r < 0)
		return r;
	r = decode_words((struct blob){b.data, b.len}, ret, ret_n);
	while (r < 0 && *ret_n)
		cache_words_release(&ret[--*ret_n]);
	return r < 0 ? damaged(s, name) : 0;
}

static void put_words(struct buf *b, const struct cache_words *w)
{
	_cleanup_buf_ struct buf one = BUF_INIT;

	cache_words_encode(&one, w);
	buf_put_blob(b, one.data, one.len);
}

int cache_add_words(struct cache_store *s, const struct digest *key, const struct cache_words *w)
{
	struct cache_words all[CACHE_WORDS_KEPT];
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[NAME_SIZE];
	size_t n = 0, kept = 1;
	bool first;

	if (cache_get_words(s, key, all, &n) < 0)
		n = 0;
	first = n && digest_eq(&all[0].call, &w->call);
	put_words(&b, w);
	if (b.len > CACHE_WORDS_MAX)
		first = true;
	for (size_t i = 0; i < n; i++) {
		if (!first && kept < CACHE_WORDS_KEPT && !digest_eq(&all[i].call, &w->call)) {
			put_words(&b, &all[i]);
			kept++;
		}
		cache_words_release(&all[i]);
	}
	if (first)
		return b.len > CACHE_WORDS_MAX ? -EMSGSIZE : 0;
	object_name('n', key, name);
	return put_sealed(s, name, &b);
}

/* ---- objects as they are ---- */

static size_t seen_in(const char *name, const struct buf *b, struct cache_seen ret[CACHE_SEEN_MAX])
{
	size_t size = sizeof(struct cache_seen);
	struct blob in;

	if (!unseal(name, b, &in) || in.n % size || in.n / size > CACHE_SEEN_MAX)
		return 0;
	memcpy(ret, in.p, in.n);
	return in.n / size;
}

void cache_merge_seen(const struct digest *call, struct buf *to, const struct buf *from)
{
	struct cache_seen all[2 * CACHE_SEEN_MAX], more[CACHE_SEEN_MAX];
	char name[NAME_SIZE];
	size_t n, n_more;
	struct digest d;

	object_name(CACHE_SEEN, call, name);
	n = seen_in(name, to, all);
	n_more = seen_in(name, from, more);

	for (size_t i = 0; i < n_more; i++) {
		bool known = false;

		for (size_t k = 0; k < n && !known; k++)
			known = memcmp(&all[k], &more[i], sizeof(more[i])) == 0;
		if (!known)
			all[n++] = more[i];
	}
	n = n < CACHE_SEEN_MAX ? n : CACHE_SEEN_MAX;
	seal_of(name, all, n * sizeof(all[0]), &d);
	buf_reset(to);
	buf_append(to, d.b, DIGEST_SIZE);
	buf_append(to, all, n * sizeof(all[0]));
}

int cache_decode_result(const struct digest *key, const struct buf *b, struct cache_entry *ret)
{
	char name[NAME_SIZE];
	struct blob in;

	object_name(CACHE_RESULT, key, name);
	return unseal(name, b, &in) ? cache_entry_decode(in, ret) : CONCC_E_PROTO;
}

int cache_read_object(struct cache_store *s, const struct cache_key *key, size_t max,
		      struct buf *ret)
{
	char name[NAME_SIZE];
	struct digest found;
	struct blob in;
	int r;

	object_name((char)key->kind, &key->digest, name);
	buf_reset(ret);
	r = read_named(s, name, max, ret);
	if (r < 0)
		return r;
	if (key->kind != CACHE_BYTES)
		return unseal(name, ret, &in) ? 0 : CONCC_E_PROTO;
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

static int write_seen(struct cache_store *s, const struct cache_key *key, const struct buf *b)
{
	struct cache_seen all[CACHE_SEEN_MAX];
	char name[NAME_SIZE];
	size_t n;
	int r;

	object_name(CACHE_SEEN, &key->digest, name);
	n = seen_in(name, b, all);
	r = n ? 0 : CONCC_E_PROTO;

	while (n && r == 0) /* the first at last, since each goes to the front */
		r = cache_add_seen(s, &key->digest, &all[--n]);
	return r;
}

int cache_write_object(struct cache_store *s, const struct cache_key *key, const struct buf *b)
{
	struct cache_entry e;
	char name[NAME_SIZE];

	switch (key->kind) {
	case CACHE_BYTES:
		return write_bytes(s, key, b);
	case CACHE_SEEN:
		return write_seen(s, key, b);
	case CACHE_RESULT:
		break;
	}
	if (b->len > ENTRY_MAX || cache_decode_result(&key->digest, b, &e) < 0)
		return CONCC_E_PROTO;
	cache_entry_release(&e);
	object_name(CACHE_RESULT, &key->digest, name);
	return put_named(s, name, b, 1);
}

void cache_entry_key(const struct digest *call, const struct cache_seen *seen, struct digest *ret)
{
	const struct digest all[] = {*call, seen->set, seen->state};

	digest_of(all, sizeof(all), ret);
}

static void entry_name(const struct digest *call, const struct digest *set,
		       const struct digest *state, char ret[NAME_SIZE])
{
	const struct cache_seen seen = {*set, *state};
	struct digest d;

	cache_entry_key(call, &seen, &d);
	object_name(CACHE_RESULT, &d, ret);
}

int cache_get_entry(struct cache_store *s, const struct digest *call, const struct digest *set,
		    const struct digest *state, struct cache_entry *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[NAME_SIZE];
	int r;

	entry_name(call, set, state, name);
	r = get_sealed(s, name, ENTRY_MAX, &b);
	if (r < 0)
		return r;
	r = cache_entry_decode((struct blob){b.data, b.len}, ret);
	return r < 0 ? damaged(s, name) : 0;
}

int cache_put_entry(struct cache_store *s, const struct digest *call, const struct digest *set,
		    const struct digest *state, const struct cache_entry *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char name[NAME_SIZE];

	cache_entry_encode(&b, e);
	if (b.len + DIGEST_SIZE > ENTRY_MAX)
		return CONCC_E_TOOBIG;
	entry_name(call, set, state, name);
	return put_sealed(s, name, &b);
}

/* ---- its size ---- */

struct object {
	char name[NAME_SIZE];
	time_t used;
	uint64_t bytes;
};

struct objects {
	struct object *v;
	size_t n, cap;
	uint64_t bytes;
};

static void add_object(struct objects *o, const char *name, const struct stat *st)
{
	if (o->n == o->cap) {
		o->cap = o->cap ? o->cap * 2 : 1024;
		o->v = xrealloc(o->v, o->cap * sizeof(*o->v));
	}
	(void)snprintf(o->v[o->n].name, NAME_SIZE, "%s", name);
	o->v[o->n].used = st->st_mtim.tv_sec;
	o->v[o->n].bytes = (uint64_t)st->st_blocks * 512;
	o->bytes += o->v[o->n++].bytes;
}

static void scan_folder(struct cache_store *s, const char *folder, struct objects *o)
{
	int fd = openat(s->dir_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!dir) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	while ((de = readdir(dir))) {
		char name[NAME_SIZE];
		struct stat st;
		int n = snprintf(name, sizeof(name), "%s/%s", folder, de->d_name);

		/* Others' files are none of ours, whatever they are. */
		if (n >= (int)sizeof(name) ||
		    fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			continue;
		add_object(o, name, &st);
	}
	(void)closedir(dir);
}

static void scan_all(struct cache_store *s, struct objects *o)
{
	static const char kinds[] = "crwn";
	char folder[8];

	for (const char *k = kinds; *k; k++) {
		for (unsigned i = 0; i < 256; i++) {
			(void)snprintf(folder, sizeof(folder), "%c/%02x", *k, i);
			scan_folder(s, folder, o);
		}
	}
}

static int by_use(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	return x->used < y->used ? -1 : x->used > y->used;
}

static void remove_old_temps(struct cache_store *s)
{
	struct objects o = {0};

	scan_folder(s, "tmp", &o);
	for (size_t i = 0; i < o.n; i++)
		if (o.v[i].used + TMP_AGE_S < time(NULL))
			(void)unlinkat(s->dir_fd, o.v[i].name, 0);
	free(o.v);
}

/* Down to max bytes. */
static int reduce(struct cache_store *s, uint64_t max)
{
	_cleanup_close_ int lock = openat(s->dir_fd, "lock",
					  O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct objects o = {0};
	uint64_t bytes, left = 0;

	if (lock < 0)
		return -errno;
	if (flock(lock, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? 0 : -errno;
	remove_old_temps(s);
	scan_all(s, &o);
	bytes = o.bytes;
	if (bytes > max)
		qsort(o.v, o.n, sizeof(*o.v), by_use);
	for (size_t i = 0; i < o.n; i++) {
		if (bytes > max && unlinkat(s->dir_fd, o.v[i].name, 0) == 0)
			bytes -= o.v[i].bytes;
		else
			left++;
	}
	free(o.v);
	counts_set_size(s->counts, bytes, left);
	return 0;
}

int cache_trim(struct cache_store *s)
{
	return reduce(s, TRIM_TO(s->max_bytes));
}

int cache_clear(struct cache_store *s)
{
	int r = reduce(s, 0);

	if (r == 0)
		counts_reset(s->counts);
	return r;
}

bool cache_is_full(const struct cache_store *s)
{
	return counts_bytes(s->counts) > s->max_bytes;
}

/* ---- life ---- */

int cache_store_open(const char *dir, uint64_t max_bytes, struct cache_store **ret,
		     struct errmsg *msg)
{
	struct cache_store *s;
	int fd;

	fd = open_folder(dir);
	if (fd < 0)
		return errmsg_set(msg, fd,
				  "can't use the cache's folder %s: %s; name another with "
				  "CONCC_CACHE_DIR",
				  dir, err_text(fd));
	if (!is_safe(fd)) {
		(void)close(fd);
		return errmsg_set(msg, CONCC_E_UNSAFE,
				  "others may write to the cache's folder %s: chmod go-w it, or "
				  "name another with CONCC_CACHE_DIR",
				  dir);
	}
	s = xcalloc(1, sizeof(*s));
	s->dir = xstrdup(dir);
	s->dir_fd = fd;
	s->max_bytes = max_bytes;
	s->counts = counts_open(fd);
	*ret = s;
	return 0;
}

void cache_store_close(struct cache_store *s)
{
	if (!s)
		return;
	counts_close(s->counts);
	(void)close(s->dir_fd);
	free(s->dir);
	free(s);
}

/* ---- what is counted ---- */

void cache_counts(const struct cache_store *s, struct cache_counts *ret)
{
	counts_read(s->counts, ret);
}

void cache_count_hit(struct cache_store *s, uint64_t saved_us)
{
	counts_hit(s->counts, saved_us);
}

void cache_count_miss(struct cache_store *s)
{
	counts_miss(s->counts);
}

void cache_count_kept(struct cache_store *s)
{
	counts_kept(s->counts);
}

void cache_count_uncacheable(struct cache_store *s, const char *why)
{
	counts_uncacheable(s->counts, why);
}

bool cache_reason(const struct cache_store *s, size_t index, char ret_why[32], uint64_t *ret_n)
{
	return counts_reason(s->counts, index, ret_why, ret_n);
}
