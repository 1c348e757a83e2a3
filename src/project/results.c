/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "results.h"
#include "client.h"
#include "disk.h"
#include "facts.h"
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

#define REFUSED_MAX (64 * 1024) /* calls: some 5 MB */
/* One for each lane: what hangs in one holds up nothing of the others. */
#define THREADS 5
/* What results that wait for the disk keep in memory: names and output of some hundred jobs, at
 * their largest; mostly of thousands. */
#define WAITING_BYTES_MAX (64u * 1024 * 1024)
#define END_S		  5	/* for what was kept last to get to the disk */
#define REMOTE_END_MS	  10000 /* and for that to get to others */

void results_forget_loaders(struct results *r)
{
	char *loader;

	for (size_t it = 0; (loader = map_next(&r->loaders, &it, NULL));)
		free(loader);
	map_release(&r->loaders);
	r->loaders = MAP_INIT;
}

/* ---- the store ---- */

static bool is_same_file(void *data, const char *path, const struct stat *st)
{
	const struct results *r = data;

	return tree_is_same(r->server->tree, path, st);
}

/* Within the same tick of the clock, and by other machines' clocks, it would not.  Its names are
 * looked at after this. */
static bool shows_changes(void *data, const char *dir, const struct stat *st)
{
	_cleanup_close_ int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 && !fs_is_network(fd) && !stat_is_racy(st, clock_ns(), false);
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

static const char *root_of(void *data, const char *dir, size_t n)
{
	const struct results *r = data;

	return tree_place_root(r->server->tree, dir, n);
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
	r->to_look = offload_lane(r->offload);
	r->to_place = offload_lane(r->offload);
	r->source = loop_add_fd(r->server->loop, offload_event_fd(r->offload), LOOP_READ, on_done,
				r);
}

void results_open(struct server *s)
{
	static const struct cache_look_ops ops = {
		.digest = facts_digest,
		.is_same = is_same_file,
		.shows_changes = shows_changes,
		.place = place_of,
		.vouches = vouches,
		.version = version_of,
		.root = root_of,
		.looks_often = looks_often,
		.may_list = facts_may_list,
	};
	_cleanup_free_ char *dir = path_join(s->cache, "results");
	struct errmsg msg = {0};
	struct results *r;

	if (!s->conf->cache_max_bytes)
		return;
	r = xcalloc(1, sizeof(*r));
	r->server = s;
	list_init(&r->readings);
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

/* What hangs ends with the process, and so does what it uses. */
static bool end_threads(struct results *r)
{
	const char *cache = r->server->cache;

	if (!offload_free(r->offload, END_S)) {
		if (r->n_keeping)
			log_warn("ending although the disk of %s does not take %u results: they "
				 "are lost",
				 cache, r->n_keeping);
		else
			log_warn("ending although a disk does not answer that a file is read from "
				 "or written to");
		(void)cache_remote_free(r->remote, 0); /* by now it has hung as well, or not */
		return false;
	}
	if (cache_remote_free(r->remote, REMOTE_END_MS))
		return true;
	log_warn("ending although the disk of %s does not answer", cache);
	return false;
}

bool results_close(struct server *s)
{
	struct results *r = s->results;
	uint64_t *n;
	size_t it = 0;

	if (!r)
		return true;
	list_for_each (l, &s->clients)
		end_client(container_of(l, struct client, of_server));
	loop_remove(r->replies);
	loop_remove(r->source);
	s->results = NULL;
	facts_stop(r);
	(void)offload_put(r->to_keep, write_counts, NULL, r, 0); /* once */
	if (!end_threads(r))
		return false;
	map_release(&r->seeks);
	map_release(&r->keeping);
	while ((n = map_next(&r->reasons, &it, NULL)))
		free(n);
	map_release(&r->reasons);
	map_release(&r->refused);
	results_forget_loaders(r);
	facts_release(r);
	map_release(&r->disks);
	map_release(&r->looked_sets);
	cache_look_free(r->look);
	cache_store_close(r->store);
	free(r);
	return true;
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
