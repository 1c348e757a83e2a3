/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A job that need not be done: from a RUN that names no worker to its end, or to a miss. */
#include "results.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "jobs.h"

#define FILE_BYTES_MAX (512u * 1024 * 1024)
/* Of one result; it takes the loop's thread some milliseconds. */
#define REMOVED_DIRS_MAX 500

/* Found, and not yet in place: the wrapper writes first what the job said. */
struct hit {
	struct client *client;
	struct cache_entry entry;
	struct commit *commit;
	uint64_t untaken; /* bytes of output */
	bool placed;
	bool shown;
};

void lookup_free(struct hit *h)
{
	if (!h)
		return;
	h->client->hit = NULL;
	commit_free(h->commit);
	cache_entry_release(&h->entry);
	free(h);
}

static void send_fail(struct client *c, enum run_fail what, const char *rule, const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_run_fail m = {
		.what = (uint8_t)what,
		.quiet = true,
		.rule = (char *)rule,
		.text = (char *)text,
	};

	msg_run_fail_encode(&b, &m);
	link_send_buf(c->link, MSG_RUN_FAIL, LINK_BULK, &b);
}

static void miss(struct client *c)
{
	send_fail(c, RUN_FAIL_MISS, "cache", "no result of it is kept");
}

/* ---- what is kept ---- */

/* It is not here; others may have it. */
static void want(struct results *r, enum cache_kind kind, const struct digest *d)
{
	struct cache_key key;

	if (!r->remote)
		return;
	memset(&key, 0, sizeof(key)); /* it is compared byte by byte */
	key.kind = kind;
	key.digest = *d;
	buf_append(&r->wanted, &key, sizeof(key));
}

static int get_bytes(struct results *r, const struct digest *d, size_t max, struct buf *ret)
{
	int err = cache_get_bytes(r->store, d, max, ret);

	if (err < 0)
		want(r, CACHE_BYTES, d);
	return err;
}

static int get_entry(struct results *r, const struct digest *call, const struct cache_seen *seen,
		     struct cache_entry *ret)
{
	int err = cache_get_entry(r->store, call, &seen->set, &seen->state, ret);
	struct digest key;

	if (err < 0 && r->remote) {
		cache_entry_key(call, seen, &key);
		want(r, CACHE_RESULT, &key);
	}
	return err;
}

/* With seen->state as it is now. */
static int find_in(struct results *r, const struct digest *call, struct cache_seen *seen,
		   struct cache_entry *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct cache_names names;
	int err = get_bytes(r, &seen->set, PROTO_TRACE_BYTES_MAX, &b);

	if (err == 0)
		err = cache_names_decode((struct blob){b.data, b.len}, &names);
	if (err < 0)
		return err;
	err = cache_look_state(r->look, &names, &seen->state, NULL);
	cache_names_release(&names);
	return err < 0 ? err : get_entry(r, call, seen, ret);
}

/* It was looked at with another state. */
static bool is_again(const struct cache_seen *seen, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (digest_eq(&seen[k].set, &seen[i].set))
			return true;
	return false;
}

static bool find(struct results *r, const struct msg_run *m, bool client_root,
		 struct cache_entry *ret)
{
	struct cache_call call = {m, geteuid(), getegid(), client_root};
	struct cache_seen seen[CACHE_SEEN_MAX];
	struct digest d;
	size_t n = 0;

	cache_call_digest(&call, &d);
	want(r, CACHE_SEEN, &d);
	if (cache_get_seen(r->store, &d, seen, &n) < 0)
		return false;
	/* What is known of files is so at least since the call was made. */
	if (tree_drain(r->server->tree) < 0)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (is_again(seen, i) || find_in(r, &d, &seen[i], ret) < 0)
			continue;
		if (i) /* what is used is looked at first */
			(void)cache_add_seen(r->store, &d, &seen[i]);
		return true;
	}
	return false;
}

/* As one of the workers that there are would see it. */
static bool find_any(struct results *r, const struct msg_run *m, struct cache_entry *ret)
{
	bool tried[2] = {false, false};

	for (unsigned i = 0; i < r->server->n_peers; i++) {
		bool client_root = r->server->peers[i]->conf->root == ROOT_CLIENT;

		if (tried[client_root])
			continue;
		tried[client_root] = true;
		if (find(r, m, client_root, ret))
			return true;
	}
	return false;
}

/* ---- put in place ---- */

/*
 * As for a job, it is put only beneath what is served to be written to.  What it wrote to was
 * served so when it was kept; of the other trees that it had, some are to be read only.
 */
static bool serve(struct server *s, const struct cache_entry *e)
{
	for (size_t i = 0; i < e->n_effects; i++) {
		const char *workspace = e->workspaces[e->effects[i].workspace];
		bool writable = false;
		struct errmsg msg = {0};

		if (tree_root_of(s->tree, workspace, &writable)) {
			if (!writable)
				return false;
			continue;
		}
		if (tree_serve(s->tree, workspace, true, &msg) < 0) {
			log_debug("%s", msg.text);
			return false;
		}
	}
	return true;
}

/* What goes with a directory must be what was looked at; of more than so many it is done anew. */
static void know_beneath(struct server *s, const char *path, unsigned *left)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct dirent *de;
	DIR *dir;

	if (fd < 0 || !*left)
		return;
	(*left)--;
	dir = fdopendir(fd);
	if (!dir)
		return;
	(void)steal_fd(&fd); /* dir's now */
	(void)tree_know(s->tree, path);
	while ((de = readdir(dir))) {
		_cleanup_free_ char *child = NULL;

		if (de->d_type != DT_DIR || streq(de->d_name, ".") || streq(de->d_name, ".."))
			continue;
		child = path_join(path, de->d_name);
		know_beneath(s, child, left);
	}
	(void)closedir(dir);
}

static void know_targets(struct server *s, const struct cache_entry *e)
{
	unsigned left = REMOVED_DIRS_MAX;

	for (size_t i = 0; i < e->n_effects; i++) {
		const struct msg_file *f = &e->effects[i];
		_cleanup_free_ char *path = path_join(e->workspaces[f->workspace], f->path);
		_cleanup_free_ char *parent = path_parent(path);

		if (f->path[0])
			(void)tree_know(s->tree, parent); /* it may be made by an effect before */
		if (f->path[0] && f->kind == EFFECT_REMOVE)
			know_beneath(s, path, &left);
	}
}

static bool prepare_file(struct results *r, struct commit *c, const struct msg_file *f)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (f->kind == EFFECT_FILE && f->size &&
	    (get_bytes(r, &f->digest, FILE_BYTES_MAX, &b) < 0 || b.len != f->size))
		return false;
	if (commit_file(c, f) < 0)
		return false;
	return !b.len || commit_data(c, b.data, b.len) == 0;
}

static void want_file(struct results *r, const struct msg_file *f)
{
	if (r->remote && f->kind == EFFECT_FILE && f->size && !cache_has(r->store, &f->digest))
		want(r, CACHE_BYTES, &f->digest);
}

static struct commit *prepare(struct server *s, const struct cache_entry *e)
{
	struct commit *c;

	if (!serve(s, e))
		return NULL;
	know_targets(s, e);
	if (tree_drain(s->tree) < 0)
		return NULL;
	c = commit_new(s->tree, e->workspaces, tree_version(s->tree));
	for (size_t i = 0; i < e->n_effects; i++) {
		if (prepare_file(s->results, c, &e->effects[i]))
			continue;
		for (i++; i < e->n_effects; i++) /* all that is missing, at one go */
			want_file(s->results, &e->effects[i]);
		commit_free(c);
		return NULL;
	}
	return c;
}

/* ---- its end ---- */

/* False: it can't, and h is no more. */
static bool place(struct hit *h)
{
	struct client *c = h->client;
	struct errmsg msg = {0};

	if (h->placed)
		return true;
	h->placed = commit_apply(h->commit, TREE_NOBODY, &msg) == 0;
	if (h->placed)
		return true;
	log_debug("a kept result can't be put in place: %s", msg.text);
	jobs_drop(steal_ptr(&c->job));
	if (h->shown)
		send_fail(c, RUN_FAIL_LOCAL, "cache", msg.text);
	else
		miss(c);
	lookup_free(h);
	return false;
}

static void finish(struct hit *h)
{
	struct client *c = h->client;
	struct results *r = c->server->results;
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!place(h))
		return;
	r->n_hits++;
	cache_count_hit(r->store, h->entry.utime_us + h->entry.stime_us);
	jobs_cached(steal_ptr(&c->job));
	/* What comes after it in the caller's input is for others, as it was then. */
	if (h->entry.input) {
		msg_pair_encode(&b, 0, h->entry.input);
		link_send_buf(c->link, MSG_RUN_INPUT_CREDIT, LINK_BULK, &b);
		buf_reset(&b);
	}
	msg_run_exit_encode(&b, EXIT_CODE, 0, "(cache)");
	link_send_buf(c->link, MSG_RUN_EXIT, LINK_BULK, &b);
	lookup_free(h);
}

static void show(struct hit *h)
{
	struct rd r;

	rd_init(&r, h->entry.output.data, h->entry.output.len);
	while (r.left) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		uint8_t stream = rd_u8(&r);
		struct blob bytes = rd_blob(&r, UINT32_MAX);

		msg_output_encode(&b, 0, stream, bytes.p, bytes.n);
		link_send_buf(h->client->link, MSG_RUN_OUTPUT, LINK_BULK, &b);
		h->untaken += bytes.n;
		h->shown = true;
	}
}

int lookup_output_credit(struct hit *h, struct blob payload)
{
	uint32_t id, n;
	int err = msg_pair_decode(payload, &id, &n);

	if (err < 0)
		return err;
	if (n > h->untaken)
		return CONCC_E_PROTO;
	h->untaken -= n;
	if (!h->untaken)
		finish(h);
	return 0;
}

/* ---- its begin ---- */

/* Those are for the job itself to be told of. */
static bool is_hopeless(struct client *c, const struct msg_run *m)
{
	struct server *s = c->server;

	return !s->results || s->stopping || s->replaced || c->too_many || cache_refuses(m) ||
	       namespaces_differ(&s->namespaces, c->pid);
}

static struct hit *hit_new(struct client *c, const struct msg_run *m)
{
	struct results *r = c->server->results;
	struct hit *h = xcalloc(1, sizeof(*h));

	buf_reset(&r->wanted);
	h->client = c;
	if (find_any(r, m, &h->entry))
		h->commit = prepare(c->server, &h->entry);
	if (h->commit)
		return h;
	cache_entry_release(&h->entry);
	free(h);
	return NULL;
}

static void begin(struct client *c, struct hit *h, const struct msg_run *m)
{
	c->hit = h;
	c->job = jobs_take(c, m);
	server_busy(c->server);
	/* Who reads what it said goes on by that. */
	if (h->entry.announced && !place(h))
		return;
	show(h);
	if (!h->untaken)
		finish(h);
}

static void count_miss(struct client *c)
{
	struct results *r = c->server->results;

	r->n_misses++;
	cache_count_miss(r->store);
	miss(c);
}

/* ---- from others ---- */

/*
 * What is not here is asked of them, and then it is looked for here once more: what a call was seen
 * with leads to sets of names, these and what they mean now to results, and those to files.
 */
struct seek {
	struct client *client;
	struct msg_run run; /* owned */
	struct map asked;   /* struct cache_key -> itself, static */
	uint64_t tag;
	unsigned n_waiting;
};

void seek_free(struct seek *k)
{
	if (!k)
		return;
	(void)map_del_u64(&k->client->server->results->seeks, k->tag);
	k->client->seek = NULL;
	msg_run_release(&k->run);
	map_release(&k->asked);
	free(k);
}

/* False: there is nothing more to ask for. */
static bool ask(struct seek *k)
{
	struct results *r = k->client->server->results;
	const uint8_t *p = r->wanted.data;

	for (size_t n = r->wanted.len / sizeof(struct cache_key); n; n--) {
		struct cache_key key;

		memcpy(&key, p, sizeof(key));
		p += sizeof(key);
		if (k->asked.n >= CACHE_EFFECTS_MAX || map_get(&k->asked, &key, sizeof(key)))
			continue;
		(void)map_put(&k->asked, &key, sizeof(key), r);
		k->n_waiting++;
		cache_remote_get(r->remote, k->tag, &key);
	}
	return k->n_waiting;
}

static void seek_new(struct client *c, struct msg_run *m)
{
	struct results *r = c->server->results;
	struct seek *k = xcalloc(1, sizeof(*k));

	k->client = c;
	k->run = *m;
	*m = (struct msg_run){0};
	k->tag = ++r->last_tag;
	c->seek = k;
	(void)map_put_u64(&r->seeks, k->tag, k);
	(void)ask(k);
}

static void go_on(struct seek *k)
{
	struct client *c = k->client;
	struct hit *h = hit_new(c, &k->run);

	if (!h && ask(k))
		return;
	if (h)
		begin(c, h, &k->run);
	else
		count_miss(c);
	seek_free(k);
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
		spaces = workspaces_of(s->peers[i], m, &unserved, &msg);
		for (size_t k = 0; k < e->n_effects && spaces && within; k++)
			within = has(spaces, e->workspaces[e->effects[k].workspace]);
		if (spaces && within)
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

static void take_reply(struct results *r, struct seek *k, const struct cache_reply *reply)
{
	if (reply->err == 0 && (!is_fit(r->server, k, reply) ||
				cache_write_object(r->store, &reply->key, &reply->bytes) < 0))
		log_warn("what the shared cache has is not what it should be, and is not used");
	if (--k->n_waiting == 0)
		go_on(k);
}

void lookup_replies(void *data, uint32_t events)
{
	struct results *r = data;
	struct cache_reply reply;

	while (cache_remote_next(r->remote, &reply)) {
		struct seek *k = map_get_u64(&r->seeks, reply.tag);

		if (k)
			take_reply(r, k, &reply);
		buf_release(&reply.bytes);
	}
	results_trim(r);
}

int lookup_start(struct client *c, struct msg_run *m)
{
	struct hit *h = NULL;

	if (c->run || c->hit || c->seek) {
		msg_run_release(m);
		return CONCC_E_PROTO;
	}
	if (m->flags & JOB_F_WHY)
		why_explain(c, m);
	else if (is_hopeless(c, m))
		miss(c);
	else if ((h = hit_new(c, m)))
		begin(c, h, m);
	else if (c->server->results->wanted.len)
		seek_new(c, m);
	else
		count_miss(c);
	msg_run_release(m);
	return 0;
}
