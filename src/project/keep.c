/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What a job did, kept when it is in place.  The loop's thread sees to what must be so at this
 * moment, and opens the files; another one copies them into the store, however slow that is.  What
 * each must hold is known by then, so it does not matter who writes to them meanwhile.
 */
#include "recording.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/offload.h"
#include "concc/str.h"

#define FILE_BYTES_MAX (256u * 1024 * 1024) /* of all files of a result that is kept */
/* Files that are open until the disk has taken them.  One job may have more, when it is alone. */
#define FILES_MAX 1024

/* ---- what it holds that was only touched ---- */

static bool was_written(const struct recording *r, const struct stat *st)
{
	for (size_t i = 0; i < r->names.n; i++) {
		struct stat other;

		if (r->names.v[i][0] == TRACE_WRITE && stat(r->names.v[i] + 1, &other) == 0 &&
		    other.st_dev == st->st_dev && other.st_ino == st->st_ino)
			return true;
	}
	return false;
}

static void touched(struct recording *r, struct msg_file *f)
{
	_cleanup_free_ char *path = recording_path_of(r, f);
	struct stat st;

	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || !was_written(r, &st) ||
	    st.st_size > (off_t)FILE_BYTES_MAX) {
		recording_uncacheable(r, "metadata");
		return;
	}
	f->kind = EFFECT_FILE;
	f->flags &= EFFECT_F_MTIME | EFFECT_F_ATIME;
	f->size = (uint64_t)st.st_size;
}

/*
 * Of a file whose bytes are what was there before, a worker says no more than which these are, and
 * that it was touched.  Next time there may be others in its place.  If somebody has changed it
 * here by now, it has not that digest when it is kept.
 */
void recording_look_at_touched(struct recording *r)
{
	for (size_t i = 0; i < r->entry.n_effects; i++)
		if (r->entry.effects[i].kind == EFFECT_META)
			touched(r, &r->entry.effects[i]);
}

/* ---- on the loop's thread ---- */

static const char *open_file(struct recording *r, size_t i)
{
	struct msg_file *f = &r->entry.effects[i];
	_cleanup_free_ char *path = recording_path_of(r, f);
	struct digest nothing;
	struct stat st;
	int fd;

	if (f->flags & (EFFECT_F_FIFO | EFFECT_F_SOCKET))
		return "special-file";
	if (f->flags & EFFECT_F_NO_DIGEST || f->size > FILE_BYTES_MAX - r->n_bytes)
		return "large-file";
	r->n_bytes += f->size;
	if (!f->size) {
		digest_of(NULL, 0, &nothing);
		return digest_eq(&f->digest, &nothing) ? NULL : "result-gone";
	}
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	r->fds[i] = fd;
	r->n_fds += fd >= 0;
	/* Somebody has changed it already. */
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != f->size)
		return "result-gone";
	return NULL;
}

static const char *check_effect(struct recording *r, size_t i)
{
	const struct msg_file *f = &r->entry.effects[i];

	switch (f->kind) {
	case EFFECT_FILE:
		return open_file(r, i);
	case EFFECT_DIR:
		return f->flags & EFFECT_F_OPAQUE ? "replaced-directory" : NULL;
	case EFFECT_LINK:
		return "hard-link";
	/* What is found again is not looked at so. */
	case EFFECT_LOCKED:
		return "locked";
	case EFFECT_ASKED:
		return "attributes";
	}
	return NULL;
}

static bool has_effect_on(const struct recording *r, const struct stat *st)
{
	for (size_t i = 0; i < r->entry.n_effects; i++) {
		_cleanup_free_ char *path = recording_path_of(r, &r->entry.effects[i]);
		struct stat other;

		if (lstat(path, &other) == 0 && other.st_dev == st->st_dev &&
		    other.st_ino == st->st_ino)
			return true;
	}
	return false;
}

/* Is something there that it opened for writing, of which nothing was told? */
static bool left_out(const struct recording *r)
{
	for (size_t i = 0; i < r->names.n; i++) {
		struct stat st;

		if (r->names.v[i][0] == TRACE_WRITE && stat(r->names.v[i] + 1, &st) == 0 &&
		    S_ISREG(st.st_mode) && !has_effect_on(r, &st))
			return true;
	}
	return false;
}

static void fill(struct recording *r, const struct msg_exit *end, const char *worker)
{
	struct cache_entry *e = &r->entry;

	e->utime_us = end->utime_us;
	e->stime_us = end->stime_us;
	e->wall_us = end->wall_us;
	e->maxrss_kb = end->maxrss_kb;
	e->kept_s = (uint64_t)time(NULL);
	e->worker = xstrdup(worker);
}

/* ---- on a thread: nothing of the server's is touched, but the store ---- */

static int put_files(struct recording *r)
{
	int err = 0;

	for (size_t i = 0; i < r->entry.n_effects && err == 0; i++)
		if (r->fds[i] >= 0)
			err = cache_put_fd(r->results->store, r->fds[i],
					   &r->entry.effects[i].digest);
	return err;
}

/* Those that go with it; the sum of their bytes. */
static size_t choose_small(const struct recording *r, bool *is_small)
{
	size_t sum = 0;

	for (size_t i = 0; i < r->entry.n_effects; i++) {
		is_small[i] = r->fds[i] >= 0 &&
			      r->entry.effects[i].size <= CACHE_FIRST_FILES_MAX - sum;
		if (is_small[i])
			sum += r->entry.effects[i].size;
	}
	return sum;
}

/* What it must hold, of just this length. */
static int read_small(int fd, const struct msg_file *f, uint8_t *to)
{
	ssize_t n = read_full(fd, to, f->size);
	struct digest found;

	if (n < 0)
		return (int)n;
	digest_of(to, (size_t)n, &found);
	return (uint64_t)n == f->size && digest_eq(&found, &f->digest) ? 0 : CONCC_E_STALE;
}

/* All that is small in one object. */
static int put_first(struct recording *r, const struct buf *set)
{
	size_t n = r->entry.n_effects;
	_cleanup_free_ bool *is_small = xcalloc(n + 1, sizeof(*is_small));
	_cleanup_free_ uint8_t *bytes = xmalloc(choose_small(r, is_small) + 1);
	_cleanup_free_ struct cache_first_file *files = xcalloc(n + 1, sizeof(*files));
	_cleanup_buf_ struct buf entry = BUF_INIT;
	struct cache_first first = {.variant = r->variant, .files = files};
	uint8_t *at = bytes;
	int err = 0;

	for (size_t i = 0; i < n && err == 0; i++) {
		const struct msg_file *f = &r->entry.effects[i];

		if (r->fds[i] < 0)
			continue;
		if (!is_small[i]) {
			err = cache_put_fd(r->results->store, r->fds[i], &f->digest);
			continue;
		}
		err = read_small(r->fds[i], f, at);
		files[first.n_files++] = (struct cache_first_file){f->digest,
								   {at, (size_t)f->size}};
		at += f->size;
	}
	if (err < 0)
		return err;
	cache_entry_encode(&entry, &r->entry);
	first.set = (struct blob){set->data, set->len};
	first.entry = (struct blob){entry.data, entry.len};
	return cache_put_first(r->results->store, &r->parts.call, &first);
}

/* Each by itself: the call has others, or the objects are for others as well. */
static int put_more(struct recording *r, const struct buf *set, bool is_shared)
{
	struct cache_store *store = r->results->store;
	struct cache_variant *variant = &r->variant;
	int err = put_files(r);

	if (err == 0 && (is_shared || !cache_first_seems_of(store, &r->parts.call, &variant->set)))
		err = cache_put_bytes(store, set->data, set->len, &variant->set);
	if (err == 0)
		err = cache_put_entry(store, &r->parts.call, &variant->set, &variant->state,
				      &r->entry);
	/* Last: what it leads to is there by then. */
	if (err == 0)
		err = cache_add_variant(store, &r->parts.call, variant);
	return err;
}

static int put(struct recording *r)
{
	struct results *all = r->results;
	_cleanup_buf_ struct buf set = BUF_INIT;
	bool is_shared = all->remote && all->shares;
	int err;

	cache_names_encode(&set, &r->names);
	digest_of(set.data, set.len, &r->variant.set);
	if (!is_shared && cache_is_new(all->store, &r->parts.call))
		err = put_first(r, &set);
	else
		err = put_more(r, &set, is_shared);
	if (err == 0)
		(void)cache_add_parts(all->store, &r->parts_key, &r->parts);
	return err;
}

static void keep(void *arg)
{
	struct recording *r = arg;
	int err = put(r);

	if (err < 0)
		recording_uncacheable(r, err == CONCC_E_STALE ? "result-gone" : "store");
	cache_write_counts(r->results->store, false);
}

/* ---- on the loop's thread again ---- */

static void share_one(struct recording *r, enum cache_kind kind, const struct digest *d)
{
	struct cache_key key = {kind, *d};

	cache_remote_put(r->results->remote, &key);
}

/* In the order in which they were put. */
static void share(struct recording *r)
{
	struct digest entry;

	for (size_t i = 0; i < r->entry.n_effects; i++)
		if (r->entry.effects[i].kind == EFFECT_FILE && r->entry.effects[i].size)
			share_one(r, CACHE_BYTES, &r->entry.effects[i].digest);
	cache_entry_key(&r->parts.call, &r->variant, &entry);
	share_one(r, CACHE_BYTES, &r->variant.set);
	share_one(r, CACHE_RESULT, &entry);
	share_one(r, CACHE_VARIANTS, &r->parts.call);
}

/* Whatever came of it. */
static void tell(struct recording *r)
{
	struct results *all = r->results;

	results_remember(all, &r->parts.call, r->why);
	if (r->why) {
		results_reason(all, r->why);
	} else {
		all->n_kept++;
		cache_count_kept(all->store);
		if (all->remote && all->shares)
			share(r);
	}
	recording_free(r);
}

static void count_keeping(struct recording *r, int n)
{
	struct results *all = r->results;
	const uint8_t *call = r->parts.call.b;
	intptr_t now = (intptr_t)map_get(&all->keeping, call, DIGEST_SIZE) + n;

	all->n_keeping = (unsigned)((int)all->n_keeping + n);
	all->n_open = (unsigned)((int)all->n_open + n * (int)r->n_fds);
	if (now)
		(void)map_put(&all->keeping, call, DIGEST_SIZE, (void *)now);
	else
		(void)map_del(&all->keeping, call, DIGEST_SIZE);
}

static void kept(void *arg)
{
	struct recording *r = arg;
	struct results *all = r->results;

	count_keeping(r, -1);
	tell(r);
	results_trim(all);
}

bool results_is_keeping(const struct results *r, const struct digest *call)
{
	return map_get(&r->keeping, call->b, DIGEST_SIZE) != NULL;
}

/* About, and never 0. */
static size_t memory_of(const struct recording *r)
{
	size_t n = sizeof(*r) + r->entry.output.len;

	for (size_t i = 0; i < r->names.n; i++)
		n += sizeof(char *) + strlen(r->names.v[i]) + 32;
	for (size_t i = 0; i < r->entry.n_effects; i++)
		n += sizeof(r->entry.effects[0]) + strlen(r->entry.effects[i].path);
	return n;
}

/* The disk does not take them as fast as they come. */
static void lose(struct recording *r)
{
	struct results *all = r->results;

	if (!all->n_lost++)
		log_warn("the disk of %s is slower than results come: some are not kept",
			 all->server->cache);
	recording_uncacheable(r, "slow-disk");
	tell(r);
}

static void hand_over(struct recording *r)
{
	struct results *all = r->results;

	if (all->n_open && all->n_open + r->n_fds > FILES_MAX) {
		lose(r);
		return;
	}
	count_keeping(r, 1);
	if (offload_put(all->to_keep, keep, kept, r, memory_of(r)))
		return;
	count_keeping(r, -1);
	lose(r);
}

void recording_keep(struct recording *r, const struct msg_exit *end, const char *worker)
{
	if (!r)
		return;
	r->fds = xcalloc(r->entry.n_effects + 1, sizeof(*r->fds));
	for (size_t i = 0; i < r->entry.n_effects; i++)
		r->fds[i] = -1;
	for (size_t i = 0; i < r->entry.n_effects && !r->why; i++)
		r->why = check_effect(r, i);
	if (!r->why && left_out(r))
		recording_uncacheable(r, "unchanged-output");
	if (r->why) {
		tell(r);
		return;
	}
	fill(r, end, worker);
	hand_over(r);
}
