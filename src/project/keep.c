/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a job did, kept when it is in place. */
#include "recording.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define FILE_BYTES_MAX (256u * 1024 * 1024) /* a larger result is not kept */

/* The bytes that the job left there.  0, or why not. */
static const char *keep_bytes(struct recording *r, struct msg_file *f)
{
	_cleanup_free_ char *path = recording_path_of(r, f);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool told = f->kind == EFFECT_FILE && !(f->flags & EFFECT_F_NO_DIGEST);
	struct digest d;
	struct stat st;
	uint64_t size;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return "result-gone";
	if (st.st_size > FILE_BYTES_MAX)
		return "large-file";
	if (cache_put_fd(r->results->store, fd, &d, &size) < 0)
		return "store";
	/* Somebody has changed it already. */
	if ((told && !digest_eq(&d, &f->digest)) || size != (uint64_t)st.st_size)
		return "result-gone";
	f->digest = d;
	f->size = size;
	f->flags &= (uint8_t)~EFFECT_F_NO_DIGEST;
	return NULL;
}

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

/*
 * Of a file whose bytes are what was there before, a worker tells no more than that it was touched.
 * Next time there may be others in its place.
 */
static const char *keep_touched(struct recording *r, struct msg_file *f)
{
	_cleanup_free_ char *path = recording_path_of(r, f);
	const char *why;
	struct stat st;

	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || !was_written(r, &st))
		return "metadata";
	why = keep_bytes(r, f);
	f->kind = EFFECT_FILE;
	f->flags &= EFFECT_F_MTIME | EFFECT_F_ATIME;
	return why;
}

static const char *keep_effect(struct recording *r, struct msg_file *f)
{
	switch (f->kind) {
	case EFFECT_FILE:
		if (f->flags & (EFFECT_F_FIFO | EFFECT_F_SOCKET))
			return "special-file";
		return keep_bytes(r, f);
	case EFFECT_META:
		return keep_touched(r, f);
	case EFFECT_DIR:
		return f->flags & EFFECT_F_OPAQUE ? "replaced-directory" : NULL;
	case EFFECT_LINK:
		return "hard-link";
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

static void share_one(struct recording *r, enum cache_kind kind, const struct digest *d)
{
	struct cache_key key = {kind, *d};

	cache_remote_put(r->results->remote, &key);
}

/* In the same order. */
static void share(struct recording *r, const struct cache_seen *seen)
{
	struct digest entry;

	for (size_t i = 0; i < r->entry.n_effects; i++)
		if (r->entry.effects[i].kind == EFFECT_FILE && r->entry.effects[i].size)
			share_one(r, CACHE_BYTES, &r->entry.effects[i].digest);
	cache_entry_key(&r->words.call, seen, &entry);
	share_one(r, CACHE_BYTES, &seen->set);
	share_one(r, CACHE_RESULT, &entry);
	share_one(r, CACHE_SEEN, &r->words.call);
}

static int put(struct recording *r)
{
	struct cache_store *store = r->results->store;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct cache_seen seen = {.state = r->state};
	int err;

	cache_names_encode(&b, &r->names);
	err = cache_put_bytes(store, b.data, b.len, &seen.set);
	if (err == 0)
		err = cache_put_entry(store, &r->words.call, &seen.set, &seen.state, &r->entry);
	/* Last: what it leads to is there by then. */
	if (err == 0)
		err = cache_add_seen(store, &r->words.call, &seen);
	if (err == 0)
		(void)cache_add_words(store, &r->words_key, &r->words);
	if (err == 0 && r->results->remote && r->server->conf->cache_push)
		share(r, &seen);
	return err;
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

void recording_keep(struct recording *r, const struct msg_exit *end, const char *worker)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->entry.n_effects && !r->why; i++)
		r->why = keep_effect(r, &r->entry.effects[i]);
	if (!r->why && left_out(r))
		recording_spoil(r, "unchanged-output");
	if (!r->why) {
		fill(r, end, worker);
		if (put(r) < 0)
			recording_spoil(r, "store");
	}
	results_remember(r->results, &r->words.call, r->why);
	if (r->why) {
		results_reason(r->results, r->why);
		return;
	}
	r->results->n_kept++;
	cache_count_kept(r->results->store);
	results_trim(r->results);
}
