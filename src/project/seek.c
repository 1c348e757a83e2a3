/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "seek.h"
#include "client.h"
#include "lookup.h"
#include "workspaces.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/offload.h"
#include "concc/str.h"
#include "peer.h"

#define FILES_BYTES_MAX (256u * 1024 * 1024) /* of one result: more is not kept */
#define AHEAD_BYTES_MAX (4u * 1024 * 1024)   /* the same, before it is known to be the one */
/* A disk that takes longer is slower than doing the job. */
#define READ_MS 4000
/* Others that take longer are, too: of all that they are asked for, for one call. */
#define OTHERS_MS  15000
#define ROUNDS_MAX 8 /* each time that it is looked, the files may be others */

static void forget_found(struct seek *k)
{
	commit_free(steal_ptr(&k->commit)); /* uses what follows */
	for (size_t i = 0; i < k->n_sets; i++)
		cache_names_release(&k->sets[i].names);
	for (size_t i = 0; i < k->n_kept; i++) {
		struct kept *e = &k->kept[i];

		for (size_t f = 0; f < e->n_files; f++)
			buf_release(&e->files[f]);
		free(e->files);
		cache_entry_release(&e->entry);
	}
	for (unsigned i = 0; i < k->n_calls; i++)
		cache_first_release(&k->firsts[i]);
	free(steal_ptr(&k->sets));
	free(steal_ptr(&k->kept));
	k->n_sets = k->n_kept = 0;
	k->left.to_keep = SETS_KEPT_MAX;
	k->begun = false;
}

/* ---- on a thread: of the server's, only the store is touched ---- */

static const struct cache_first *first_of(const struct seek *k, const struct digest *call)
{
	unsigned i = 0;

	while (!digest_eq(&k->calls[i], call))
		i++;
	return &k->firsts[i];
}

static size_t add_set(struct seek *k, const struct digest *call, const struct digest *set)
{
	struct set *s;

	for (size_t i = 0; i < k->n_sets; i++)
		if (digest_eq(&k->sets[i].digest, set) && digest_eq(&k->sets[i].call, call))
			return i;
	k->sets = xrealloc(k->sets, (k->n_sets + 1) * sizeof(*k->sets));
	s = &k->sets[k->n_sets];
	*s = (struct set){.call = *call, .digest = *set};
	s->there = sets_read(k->results->store, first_of(k, call), set, &k->left, &s->names,
			     &s->cost);
	return k->n_sets++;
}

struct kept *seek_add(struct seek *k, size_t set, const struct digest *state)
{
	k->kept = xrealloc(k->kept, (k->n_kept + 1) * sizeof(*k->kept));
	k->kept[k->n_kept] = (struct kept){.set = set, .state = *state};
	return &k->kept[k->n_kept++];
}

static void read_entry(struct seek *k, struct kept *e)
{
	const struct set *s = &k->sets[e->set];
	const struct cache_variant variant = {s->digest, e->state};

	e->read = true;
	e->err = cache_first_entry(first_of(k, &s->call), &variant, &e->entry);
	if (e->err < 0)
		e->err = cache_get_entry(k->results->store, &s->call, &s->digest, &e->state,
					 &e->entry);
}

static bool needs_bytes(const struct msg_file *f)
{
	return f->kind == EFFECT_FILE && f->size;
}

static int read_file(struct seek *k, const struct cache_first *first, const struct msg_file *f,
		     struct buf *ret)
{
	const struct blob *here = cache_first_file(first, &f->digest);
	int err = 0;

	if (here)
		buf_append(ret, here->p, here->n);
	else
		err = cache_get_bytes(k->results->store, &f->digest, f->size, ret);
	return err == 0 && ret->len != f->size ? -ENOENT : err;
}

static void read_files(struct seek *k, struct kept *e, uint64_t max)
{
	const struct cache_first *first = first_of(k, &k->sets[e->set].call);
	uint64_t bytes = 0;

	for (size_t i = 0; i < e->entry.n_effects; i++)
		if (needs_bytes(&e->entry.effects[i]))
			bytes = bytes + e->entry.effects[i].size < bytes
					? UINT64_MAX
					: bytes + e->entry.effects[i].size;
	if (bytes > max && max < FILES_BYTES_MAX)
		return;
	e->has_files = true;
	e->files_err = bytes > max ? CONCC_E_TOOBIG : 0;
	e->n_files = e->entry.n_effects;
	e->files = xcalloc(e->n_files + 1, sizeof(*e->files));
	for (size_t i = 0; i < e->entry.n_effects && e->files_err == 0; i++) {
		const struct msg_file *f = &e->entry.effects[i];

		if (needs_bytes(f))
			e->files_err = read_file(k, first, f, &e->files[i]);
	}
}

static void read_call(struct seek *k, unsigned which)
{
	const struct digest *call = &k->calls[which];
	struct cache_variant variants[CACHE_VARIANTS_MAX];
	size_t n = 0;

	(void)cache_get_first(k->results->store, call, &k->firsts[which]);
	if (cache_get_variants(k->results->store, call, variants, &n) < 0)
		n = 0;
	cache_first_add(&k->firsts[which], variants, &n);
	for (size_t i = 0; i < n; i++) {
		struct kept *e = seek_add(k, add_set(k, call, &variants[i].set),
					  &variants[i].state);

		if (i)
			continue;
		read_entry(k, e);
		if (e->err == 0)
			read_files(k, e, AHEAD_BYTES_MAX);
	}
}

static void read_wanted(void *arg)
{
	struct seek *k = arg;

	if (!k->begun)
		for (unsigned i = 0; i < k->n_calls; i++)
			read_call(k, i);
	k->begun = true;
	for (size_t i = 0; i < k->n_kept; i++) {
		struct kept *e = &k->kept[i];

		if (!e->wanted)
			continue;
		e->wanted = false;
		if (!e->read)
			read_entry(k, e);
		if (e->err == 0 && !e->has_files)
			read_files(k, e, FILES_BYTES_MAX);
	}
}

/* Behind what is in the lane already. */
static void write_counts(void *arg)
{
	cache_write_counts(((struct seek *)arg)->results->store, true);
}

/* ---- on the loop's thread ---- */

static void destroy(struct seek *k)
{
	forget_found(k);
	why_free(k->why); /* uses what follows */
	msg_run_release(&k->run);
	map_release(&k->asked);
	buf_release(&k->wanted);
	free(k);
}

/* What a thread has is freed when that one has ended. */
static void leave(struct seek *k)
{
	(void)map_del_u64(&k->results->seeks, k->tag);
	loop_remove(steal_ptr(&k->timer));
	loop_remove(steal_ptr(&k->patience));
	reading_free(steal_ptr(&k->facts));
	commit_free(steal_ptr(&k->commit));
	if (k->client)
		k->client->seek = NULL;
	k->client = NULL;
	if (!k->reading)
		destroy(k);
}

void seek_free(struct seek *k)
{
	if (k)
		leave(k);
}

static void on_read(void *arg)
{
	struct seek *k = arg;

	k->reading = false;
	if (k->hung)
		k->results->n_hung--;
	if (!k->client) {
		destroy(k);
		return;
	}
	loop_remove(steal_ptr(&k->timer));
	k->go_on(k);
}

/* It goes on with what there is, which is nothing. */
static void on_timer(void *data)
{
	struct seek *k = data;

	k->timer = NULL;
	k->hung = true;
	if (k->reading && !k->results->n_hung++)
		log_warn("the disk of %s does not answer: results are not looked for until it does",
			 k->results->server->cache);
	k->go_on(k);
}

static bool is_being_kept(const struct seek *k)
{
	for (unsigned i = 0; i < k->n_calls; i++)
		if (results_is_keeping(k->results, &k->calls[i]))
			return true;
	return k->only_waits;
}

bool seek_read(struct seek *k)
{
	return seek_read_by(k, k->only_waits ? write_counts : read_wanted);
}

bool seek_read_by(struct seek *k, void (*run)(void *arg))
{
	struct results *r = k->results;

	if (k->hung || r->n_hung || k->n_rounds == ROUNDS_MAX)
		return false;
	k->n_rounds++;
	k->reading = true;
	/* One at once of each client; behind what is kept of this call. */
	(void)offload_put(is_being_kept(k) ? r->to_keep : r->to_read, run, on_read, k, 0);
	k->timer = loop_add_timer(r->server->loop, READ_MS, on_timer, k);
	return true;
}

static void on_facts(void *arg)
{
	struct seek *k = arg;

	k->facts = NULL;
	k->has_facts = true;
	k->go_on(k);
}

bool seek_wait_for_facts(struct seek *k, const struct cache_names *names)
{
	if (k->hung || k->n_rounds == ROUNDS_MAX)
		return false;
	k->n_rounds++;
	k->facts = facts_wait(k->results, names, false, on_facts, k);
	return k->facts;
}

static void write_files(void *arg)
{
	struct seek *k = arg;
	struct kept *e = &k->kept[k->written];

	for (size_t i = 0; i < k->n_writing_files; i++)
		commit_write(k->writing[i]);
	/* The kernel takes long to get so much back. */
	for (size_t i = 0; i < e->n_files; i++)
		buf_release(&e->files[i]);
}

static void on_files_written(void *arg)
{
	struct seek *k = arg;

	for (size_t i = 0; i < k->n_writing_files; i++)
		commit_written(k->writing[i]);
	free(steal_ptr(&k->writing));
	k->n_writing_files = 0;
	on_read(k);
}

/* However long: so it would be for the job itself. */
void seek_write(struct seek *k, const struct kept *found, struct commit *c,
		struct commit_writing **writing, size_t n)
{
	k->commit = c;
	k->written = (size_t)(found - k->kept);
	k->writing = writing;
	k->n_writing_files = n;
	k->reading = true;
	/* One at once of each client. */
	(void)offload_put(k->results->to_place, write_files, on_files_written, k, 0);
}

/* As workers would see it that there are. */
static void set_calls(struct seek *k)
{
	const struct server *s = k->results->server;
	bool tried[2] = {false, false};

	for (unsigned i = 0; i < s->n_peers; i++) {
		bool client_root = s->peers[i]->conf->root == ROOT_CLIENT;
		struct cache_call call = {&k->run, geteuid(), getegid(), client_root};

		if (tried[client_root])
			continue;
		tried[client_root] = true;
		cache_call_digest(&call, &k->calls[k->n_calls++]);
	}
}

static struct seek *new_one(struct client *c, void (*go_on)(struct seek *k))
{
	struct results *r = c->server->results;
	struct seek *k = xcalloc(1, sizeof(*k));

	k->results = r;
	k->client = c;
	k->go_on = go_on;
	k->tag = ++r->last_tag;
	k->left = (struct sets_left){SETS_KEPT_MAX, SETS_LOOKED_MAX};
	k->bytes_left = FILES_BYTES_MAX;
	c->seek = k;
	(void)map_put_u64(&r->seeks, k->tag, k);
	return k;
}

struct seek *seek_new(struct client *c, struct msg_run *m, void (*go_on)(struct seek *k))
{
	struct seek *k = new_one(c, go_on);

	k->run = *m;
	*m = (struct msg_run){0};
	set_calls(k);
	return k;
}

void seek_wait(struct client *c, struct msg_run *m, void (*go_on)(struct seek *k))
{
	struct seek *k = new_one(c, go_on);

	if (m)
		k->run = *m;
	if (m)
		*m = (struct msg_run){0};
	k->only_waits = true;
	if (!seek_read(k))
		go_on(k);
}

/* ---- what was used last ---- */

struct use {
	struct results *results;
	struct digest call;
	struct cache_variant variant;
};

static void put_first(void *arg)
{
	struct use *u = arg;

	(void)cache_add_variant(u->results->store, &u->call, &u->variant);
}

void seek_used(struct seek *k, const struct kept *used)
{
	const struct set *s = &k->sets[used->set];
	struct use *u;

	for (const struct kept *e = used - 1; e >= k->kept; e--) {
		if (!digest_eq(&k->sets[e->set].call, &s->call))
			continue;
		u = xmalloc(sizeof(*u));
		*u = (struct use){k->results, s->call, {s->digest, used->state}};
		if (!offload_put(k->results->to_keep, put_first, free, u, sizeof(*u)))
			free(u);
		return;
	}
}

/* ---- from others ---- */

void seek_want(struct seek *k, enum cache_kind kind, const struct digest *d, uint64_t size)
{
	struct cache_wanted what;

	if (!k->results->remote || size > CACHE_REMOTE_MAX)
		return;
	memset(&what, 0, sizeof(what)); /* its key is compared byte by byte */
	what.key.kind = kind;
	what.key.digest = *d;
	what.size = size;
	buf_append(&k->wanted, &what, sizeof(what));
}

/* They say nothing, or too slowly: it is looked for no more. */
static void on_patience(void *data)
{
	struct seek *k = data;

	k->patience = NULL;
	k->hung = true;
	k->go_on(k);
}

static void ask(struct seek *k, const struct cache_wanted *what)
{
	struct results *r = k->results;

	if (k->asked.n >= CACHE_EFFECTS_MAX || what->size > k->bytes_left ||
	    map_get(&k->asked, &what->key, sizeof(what->key)))
		return;
	k->bytes_left -= what->size;
	(void)map_put(&k->asked, &what->key, sizeof(what->key), r);
	k->n_waiting++;
	cache_remote_get(r->remote, k->tag, what, k->until_ms);
}

bool seek_ask(struct seek *k)
{
	const uint8_t *p = k->wanted.data;
	uint64_t now = now_ms();

	if (!k->until_ms)
		k->until_ms = now + OTHERS_MS;
	if (k->hung || now >= k->until_ms)
		return false;
	for (size_t n = k->wanted.len / sizeof(struct cache_wanted); n; n--) {
		struct cache_wanted what;

		memcpy(&what, p, sizeof(what));
		p += sizeof(what);
		ask(k, &what);
	}
	buf_reset(&k->wanted);
	if (k->n_waiting)
		k->patience = loop_add_timer(k->results->server->loop, k->until_ms - now,
					     on_patience, k);
	return k->n_waiting;
}

static bool has(char *const *list, const char *what)
{
	for (; *list; list++)
		if (streq(*list, what))
			return true;
	return false;
}

/* It writes where this very job could have written. */
static bool is_within(struct server *s, const struct msg_run *m, const struct cache_entry *e)
{
	for (unsigned i = 0; i < s->n_peers; i++) {
		_cleanup_strv_ char **spaces = NULL;
		_cleanup_free_ char *unserved = NULL;
		struct errmsg msg = {0};
		bool within = true;

		if (!recording_sees_our_files(s->peers[i]))
			continue;
		if (workspaces_of(s->peers[i], m, &spaces, &unserved, &msg) < 0)
			continue;
		for (size_t n = 0; n < e->n_effects && within; n++)
			within = has(spaces, e->workspaces[e->effects[n].workspace]);
		if (within)
			return true;
	}
	return false;
}

static bool is_fit(struct server *s, const struct seek *k, const struct cache_reply *reply)
{
	struct cache_entry e;
	bool fit;

	if (reply->key.kind != CACHE_RESULT)
		return true; /* by its bytes, or it only says what to look for */
	if (cache_decode_result(&reply->key.digest, &reply->bytes, &e) < 0)
		return false;
	fit = is_within(s, &k->run, &e);
	cache_entry_release(&e);
	return fit;
}

/* What has come, on its way into the store. */
struct arrival {
	struct results *results;
	uint64_t tag;
	struct cache_reply reply;
	int err;
};

static void write_arrival(void *arg)
{
	struct arrival *a = arg;

	a->err = cache_write_object(a->results->store, &a->reply.key, &a->reply.bytes);
}

static void come(struct seek *k)
{
	if (--k->n_waiting)
		return;
	loop_remove(steal_ptr(&k->timer));
	loop_remove(steal_ptr(&k->patience));
	forget_found(k);
	k->n_rounds = 0;
	if (!seek_read(k))
		k->go_on(k);
}

static void not_used(int err)
{
	if (err < 0)
		log_warn("what the shared cache has is not what it should be, and is not used");
}

static void on_written(void *arg)
{
	struct arrival *a = arg;
	struct seek *k = map_get_u64(&a->results->seeks, a->tag);

	not_used(a->err);
	if (k && !--k->n_writing)
		loop_remove(steal_ptr(&k->timer));
	if (k)
		come(k);
	if (a->results->server->results)
		results_trim(a->results);
	cache_remote_done(a->results->remote, &a->reply);
	free(a);
}

/* Takes its bytes. */
static void take_reply(struct results *r, struct seek *k, struct cache_reply *reply)
{
	struct arrival *a;

	if (reply->err < 0 || !is_fit(r->server, k, reply)) {
		not_used(reply->err < 0 ? 0 : CONCC_E_PROTO);
		cache_remote_done(r->remote, reply);
		come(k);
		return;
	}
	a = xcalloc(1, sizeof(*a));
	a->results = r;
	a->tag = k->tag;
	a->reply = *reply;
	if (offload_put(r->to_read, write_arrival, on_written, a, reply->bytes.len + 1)) {
		if (!k->n_writing++)
			k->timer = loop_add_timer(r->server->loop, READ_MS, on_timer, k);
		return;
	}
	cache_remote_done(r->remote, &a->reply);
	free(a);
	come(k);
}

void seek_replies(void *data, uint32_t events)
{
	struct results *r = data;
	struct cache_reply reply;

	while (cache_remote_next(r->remote, &reply)) {
		struct seek *k = map_get_u64(&r->seeks, reply.tag);

		if (k)
			take_reply(r, k, &reply);
		else
			cache_remote_done(r->remote, &reply);
	}
}
