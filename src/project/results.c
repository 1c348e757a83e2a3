/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "results.h"
#include "client.h"
#include "disk.h"
#include "lookup.h"
#include "seek.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/offload.h"
#include "concc/str.h"

#define FACTS_MAX   (256 * 1024) /* files: some 20 MB */
#define REFUSED_MAX (64 * 1024)	 /* calls: some 5 MB */
/* One for each lane: what hangs in one holds up nothing of the others. */
#define THREADS 3
/* What results that wait for the disk keep in memory: names and output of some hundred jobs, at
 * their largest; mostly of thousands. */
#define WAITING_BYTES_MAX (64u * 1024 * 1024)
#define REMOTE_END_MS	  10000 /* for what was kept last to get to others */
#define SCAN_CHUNK	  (256 * 1024)
#define SCAN_BEHIND	  16 /* a word that two chunks share is found in the second */

/* ---- what bytes are ---- */

static const struct {
	const char *word;
	unsigned fact;
} words[] = {
	{"__DATE__", FACT_TIME},
	{"__TIME__", FACT_TIME},
	{"__TIMESTAMP__", FACT_TIMESTAMP},
};

static void look_for_words(const char *p, size_t n, unsigned *facts)
{
	for (size_t i = 0; i < N_OF(words); i++)
		if (memmem(p, n, words[i].word, strlen(words[i].word)))
			*facts |= words[i].fact;
}

static unsigned kind_of(const char *p, size_t n)
{
	static const char *const precompiled[] = {"gpch", "CPCH"};

	if (n >= 4 && memcmp(p, "\177ELF", 4) == 0)
		return FACT_ELF;
	if (n >= 2 && memcmp(p, "#!", 2) == 0)
		return FACT_SCRIPT;
	for (size_t i = 0; i < N_OF(precompiled); i++)
		if (n >= 4 && memcmp(p, precompiled[i], 4) == 0)
			return FACT_PRECOMPILED;
	return 0;
}

static bool is_elf(int fd)
{
	char magic[4];

	return pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
	       kind_of(magic, sizeof(magic)) == FACT_ELF;
}

/*
 * Scans, and hashes at one go when ctx is not NULL.  Of a compiler's own files that is so once for
 * each that is installed; a job's end waits for it, and nothing of the job is in place before.
 */
static int scan(struct results *r, int fd, struct digest_ctx *ctx, unsigned *ret_facts)
{
	_cleanup_free_ char *buf = NULL;
	size_t behind = 0;
	bool first = true;
	ssize_t n = 0;

	*ret_facts = FACT_ELF;
	if (!ctx && is_elf(fd))
		return 0; /* nothing more is asked of those */
	*ret_facts = 0;
	buf = xmalloc(SCAN_BEHIND + SCAN_CHUNK);
	while ((n = read_full(fd, buf + behind, SCAN_CHUNK)) > 0) {
		size_t all = behind + (size_t)n;

		server_pulse(r->server);
		if (ctx)
			digest_update(ctx, buf + behind, (size_t)n);
		if (first)
			*ret_facts = kind_of(buf, all);
		first = false;
		if (!(*ret_facts & FACT_ELF))
			look_for_words(buf, all, ret_facts);
		behind = all < SCAN_BEHIND ? all : SCAN_BEHIND;
		memmove(buf, buf + all - behind, behind);
	}
	return n < 0 ? (int)n : 0;
}

static int hash_and_scan(struct results *r, int fd, struct digest *ret, unsigned *ret_facts)
{
	struct digest_ctx *ctx = digest_new();
	int err = scan(r, fd, ctx, ret_facts);

	digest_final(ctx, ret);
	digest_free(ctx);
	return err;
}

void results_forget_loaders(struct results *r)
{
	char *loader;

	for (size_t it = 0; (loader = map_next(&r->loaders, &it, NULL));)
		free(loader);
	map_release(&r->loaders);
	r->loaders = MAP_INIT;
}

static void know(struct results *r, const struct digest *d, unsigned facts)
{
	if (r->facts.n >= FACTS_MAX) {
		map_release(&r->facts);
		r->facts = MAP_INIT;
	}
	(void)map_put(&r->facts, d->b, DIGEST_SIZE, (void *)((uintptr_t)facts + 1));
}

/* What path leads to, while it is st before and after it was read.  has_digest: *ret is what it
 * holds.
 */
static int read_file(struct results *r, const char *path, const struct stat *st, bool has_digest,
		     struct digest *ret, unsigned *ret_facts)
{
	/* Whatever it has become by now, opening it must neither wait nor act. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	bool racy = stat_is_racy(st, fd >= 0 && fs_is_network(fd));
	struct stat now;
	int err;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &now) < 0)
		return -errno;
	if (!stat_is_unchanged(&now, st))
		return CONCC_E_STALE;
	err = has_digest ? scan(r, fd, NULL, ret_facts) : hash_and_scan(r, fd, ret, ret_facts);
	if (err == 0 && (fstat(fd, &now) < 0 || !stat_is_unchanged(&now, st)))
		err = CONCC_E_STALE;
	if (err < 0)
		return err;
	know(r, ret, *ret_facts);
	if (!racy && !has_digest)
		hash_cache_put(r->server->hashes, st, ret);
	return 0;
}

int results_facts(struct results *r, const char *path, const struct stat *st, struct digest *ret,
		  unsigned *ret_facts)
{
	bool has_digest = !stat_is_racy(st, false) && hash_cache_get(r->server->hashes, st, ret);
	uintptr_t known = 0;

	if (has_digest)
		known = (uintptr_t)map_get(&r->facts, ret->b, DIGEST_SIZE);
	if (!known)
		return read_file(r, path, st, has_digest, ret, ret_facts);
	*ret_facts = (unsigned)(known - 1);
	return 0;
}

/* For a look-up the digest is enough; who records wants to know what is in the files, too. */
static int digest_of_file(void *data, const char *path, const struct stat *st, struct digest *ret)
{
	struct results *r = data;
	unsigned facts = 0;
	int err = 0;

	if (r->wants_facts || stat_is_racy(st, false) ||
	    !hash_cache_get(r->server->hashes, st, ret))
		err = results_facts(r, path, st, ret, &facts);
	r->read_facts |= err < 0 ? FACT_UNREADABLE : facts;
	return err;
}

/* ---- the store ---- */

static bool is_same_file(void *data, const char *path, const struct stat *st)
{
	const struct results *r = data;

	return tree_is_same(r->server->tree, path, st);
}

/* Within the same tick of the clock, and by other machines' clocks, it would not. */
static bool shows_changes(void *data, const char *dir, const struct stat *st)
{
	_cleanup_close_ int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 && !fs_is_network(fd) && !stat_is_racy(st, false);
}

static struct cache_place place_of(void *data, const char *dir, size_t n)
{
	const struct results *r = data;
	struct tree_place place = tree_place(r->server->tree, dir, n);

	return (struct cache_place){place.dir, place.stamp, place.route};
}

static bool vouches(void *data, const void *where, const char *name, const struct stat *st)
{
	const struct results *r = data;

	return tree_vouches(r->server->tree, where, name, st);
}

static uint64_t version_of(void *data, const void *where, const char *name)
{
	const struct results *r = data;

	return tree_name_version(r->server->tree, where, name);
}

/* Of directories that no worker was told of, none is watched, as of all in a server that had only
 * hits yet. */
static void looks_often(void *data, const char *dir)
{
	const struct results *r = data;

	(void)tree_know(r->server->tree, dir); /* it need not be served */
}

static void trim(void *arg)
{
	struct results *r = arg;

	(void)cache_trim(r->store); /* else with the next result */
}

static void trimmed(void *arg)
{
	((struct results *)arg)->trimming = false;
}

void results_trim(struct results *r)
{
	if (r->trimming || !cache_is_full(r->store))
		return;
	r->trimming = true;
	(void)offload_put(r->to_trim, trim, trimmed, r, 0); /* one at once */
}

static void on_done(void *data, uint32_t events)
{
	offload_dispatch(((struct results *)data)->offload);
}

static void start_threads(struct results *r)
{
	r->offload = offload_new(THREADS, WAITING_BYTES_MAX);
	r->to_keep = offload_lane(r->offload);
	r->to_read = offload_lane(r->offload);
	r->to_trim = offload_lane(r->offload);
	r->source = loop_add_fd(r->server->loop, offload_event_fd(r->offload), LOOP_READ, on_done,
				r);
}

void results_open(struct server *s)
{
	static const struct cache_look_ops ops = {
		.digest = digest_of_file,
		.is_same = is_same_file,
		.shows_changes = shows_changes,
		.place = place_of,
		.vouches = vouches,
		.version = version_of,
		.looks_often = looks_often,
	};
	_cleanup_free_ char *dir = path_join(s->cache, "results");
	struct errmsg msg = {0};
	struct results *r;

	if (!s->conf->cache_max_bytes)
		return;
	r = xcalloc(1, sizeof(*r));
	r->server = s;
	if (cache_store_open(dir, s->conf->cache_max_bytes, &r->store, &msg) < 0) {
		log_warn("%s; no results are kept", msg.text);
		free(r);
		return;
	}
	r->look = cache_look_new(&ops, r);
	start_threads(r);
	s->results = r;
	if (s->conf->cache_url)
		r->remote = cache_remote_new(s->conf->cache_url, r->store);
	if (r->remote)
		r->replies = loop_add_fd(s->loop, cache_remote_fd(r->remote), LOOP_READ,
					 seek_replies, r);
	r->shares = s->conf->cache_push;
}

static void write_counts(void *arg)
{
	cache_write_counts(((struct results *)arg)->store, true);
}

static void flush_now(struct seek *k)
{
	struct client *c = k->client;

	seek_free(k);
	disk_flush(c);
}

void results_flush(struct client *c)
{
	if (c->server->results && !c->seek && !c->hit && !c->run)
		seek_wait(c, NULL, flush_now);
	else
		disk_flush(c);
}

/* Who waits for all to be written is told by the disk's end. */
static void end_client(struct client *c)
{
	lookup_free(c->hit);
	if (c->seek && c->seek->go_on == flush_now)
		flush_now(c->seek);
	seek_free(c->seek);
}

void results_close(struct server *s)
{
	struct results *r = s->results;
	uint64_t *n;
	size_t it = 0;

	if (!r)
		return;
	list_for_each (l, &s->clients)
		end_client(container_of(l, struct client, of_server));
	loop_remove(r->replies);
	loop_remove(r->source);
	s->results = NULL;
	(void)offload_put(r->to_keep, write_counts, NULL, r, 0); /* once */
	/* What hangs ends with the process, and so does what it uses. */
	if (!offload_free(r->offload)) {
		log_warn("ending although the disk of %s does not take %u results: they are lost",
			 s->cache, r->n_keeping);
		return;
	}
	cache_remote_free(r->remote, REMOTE_END_MS);
	map_release(&r->seeks);
	map_release(&r->keeping);
	while ((n = map_next(&r->reasons, &it, NULL)))
		free(n);
	map_release(&r->reasons);
	map_release(&r->refused);
	results_forget_loaders(r);
	map_release(&r->facts);
	map_release(&r->disks);
	cache_look_free(r->look);
	cache_store_close(r->store);
	free(r);
}

void results_reason(struct results *r, const char *why)
{
	uint64_t *n = map_get_str(&r->reasons, why);

	if (!n) {
		n = xcalloc(1, sizeof(*n));
		(void)map_put_str(&r->reasons, why, n);
	}
	(*n)++;
	cache_count_uncacheable(r->store, why);
}

void results_remember(struct results *r, const struct digest *call, const char *why)
{
	if (!why) {
		(void)map_del(&r->refused, call->b, DIGEST_SIZE);
		return;
	}
	if (r->refused.n >= REFUSED_MAX) {
		map_release(&r->refused);
		r->refused = MAP_INIT;
	}
	(void)map_put(&r->refused, call->b, DIGEST_SIZE, (void *)(uintptr_t)why);
}
