/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A job that need not be done: from a RUN that names no worker to its end, or to a miss. */
#include "lookup.h"
#include "commits.h"
#include "seek.h"
#include "sets.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "client.h"
#include "jobs.h"

/* Of one result: what the loop's thread writes by itself, in some milliseconds. */
#define AT_ONCE_MAX ((uint64_t)4 * 1024 * 1024)
/* Of one result; it takes the loop's thread some milliseconds. */
#define REMOVED_DIRS_MAX 500

/* Found, and not yet in place: the wrapper writes first what the job said. */
struct hit {
	struct client *client;
	struct cache_entry entry;
	struct commit *commit;
	struct placing *placing; /* it waits for that, or NULL */
	uint64_t untaken;	 /* bytes of output */
	bool placed;
	bool told; /* all that it said, if there is anything: */
	bool shown;
};

void lookup_free(struct hit *h)
{
	if (!h)
		return;
	h->client->hit = NULL;
	commits_drop(h->client->server, &h->commit, &h->placing);
	cache_entry_release(&h->entry);
	free(h);
}

static void send_fail(struct client *c, enum run_fail what, const char *rule, const char *text)
{
	const struct msg_run_fail m = {
		.what = (uint8_t)what,
		.quiet = true,
		.rule = (char *)rule,
		.text = (char *)text,
	};

	client_fail(c, &m);
}

static void miss(struct client *c)
{
	send_fail(c, RUN_FAIL_MISS, "cache", "no result of it is kept");
}

/* ---- which of what is kept ---- */

static const struct set *look_at(struct seek *k, size_t i)
{
	struct results *r = k->results;
	struct set *s = &k->sets[i];

	cache_look_umask(r->look, k->run.umask);
	if (s->there && !s->looked) {
		s->err = sets_check(r, &s->digest, &s->names, s->cost, &k->left);
		if (s->err == 0)
			s->err = cache_look_again(r->look, &s->digest, &s->names, &s->state);
	}
	s->looked = true;
	return s;
}

static bool is_now(struct seek *k, const struct kept *e)
{
	const struct set *s = look_at(k, e->set);

	return s->there && s->err == 0 && digest_eq(&s->state, &e->state);
}

/* There may be results of states that nothing is told of. */
static bool add_others(struct seek *k)
{
	bool added = false;

	for (size_t i = 0; i < k->n_sets; i++) {
		const struct set *s = look_at(k, i);
		bool known = !s->there || s->err;

		for (size_t n = 0; n < k->n_kept && !known; n++)
			known = k->kept[n].set == i && digest_eq(&k->kept[n].state, &s->state);
		if (known)
			continue;
		seek_add(k, i, &s->state)->wanted = true;
		added = true;
	}
	return added;
}

/* A set of which nothing can be said before files were read; or NULL. */
static const struct set *unread_set(const struct seek *k)
{
	for (size_t i = 0; i < k->n_sets; i++)
		if (k->sets[i].looked && k->sets[i].err == CONCC_E_LATER)
			return &k->sets[i];
	return NULL;
}

/*
 * The one that is true now, whole; or NULL.  *ret_more: something is wanted first.  Each time, all
 * is looked at anew: what is put in place is of this moment.
 */
static struct kept *choose(struct seek *k, bool *ret_more)
{
	*ret_more = false;
	facts_begin(k->results, k->has_facts ? FACTS_YOUNG : FACTS_FEW);
	/* What is known of files is so at least since the call was made. */
	if (tree_drain(k->results->server->tree) < 0)
		return NULL;
	for (size_t i = 0; i < k->n_sets; i++)
		k->sets[i].looked = false;
	for (struct kept *e = k->kept; e < k->kept + k->n_kept; e++) {
		if ((e->read && e->err) || !is_now(k, e))
			continue;
		if (e->read && e->has_files)
			return e->files_err ? NULL : e;
		e->wanted = e->was_true = *ret_more = true;
		return NULL;
	}
	*ret_more = !unread_set(k) && add_others(k);
	return NULL;
}

/* What was looked for, as things are now, and was not there. */
static void want_missing(struct seek *k)
{
	for (unsigned i = 0; i < k->n_calls; i++)
		seek_want(k, CACHE_VARIANTS, &k->calls[i], 0);
	for (size_t i = 0; i < k->n_sets; i++)
		if (!k->sets[i].there)
			seek_want(k, CACHE_BYTES, &k->sets[i].digest, 0);
	for (const struct kept *e = k->kept; e < k->kept + k->n_kept; e++) {
		const struct set *s = &k->sets[e->set];
		const struct cache_variant variant = {s->digest, e->state};
		struct digest key;

		if (!s->looked || !s->there || s->err || !digest_eq(&s->state, &e->state))
			continue;
		cache_entry_key(&s->call, &variant, &key);
		if (e->read && e->err)
			seek_want(k, CACHE_RESULT, &key, 0);
		for (size_t i = 0;
		     e->has_files && e->files_err == -ENOENT && i < e->entry.n_effects; i++) {
			const struct msg_file *f = &e->entry.effects[i];

			if (f->kind == EFFECT_FILE && f->size && !e->files[i].len)
				seek_want(k, CACHE_BYTES, &f->digest, f->size);
		}
	}
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

/* Beside its place.  writing: instead, what is to be written for it by a thread. */
static struct commit *prepare(struct server *s, const struct cache_entry *e,
			      const struct buf *files, struct commit_writing **writing,
			      size_t *ret_n)
{
	struct commit *c;
	int err = 0;

	if (!serve(s, e))
		return NULL;
	know_targets(s, e);
	if (tree_drain(s->tree) < 0)
		return NULL;
	c = commit_new(s->tree, e->workspaces, tree_version(s->tree));
	for (size_t i = 0; i < e->n_effects && err == 0; i++) {
		err = commit_file(c, &e->effects[i]);
		if (err < 0 || !files[i].len)
			continue;
		if (!writing)
			err = commit_data(c, files[i].data, files[i].len);
		else if ((writing[*ret_n] = commit_data_later(c, files[i].data, files[i].len)))
			++*ret_n;
	}
	if (err == 0)
		return c;
	commit_free(c);
	return NULL;
}

static bool is_large(const struct kept *e)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < e->n_files; i++)
		bytes += e->files[i].len;
	return bytes > AT_ONCE_MAX;
}

/* It was true when its files were asked for; or NULL. */
static const struct kept *large_to_write(const struct seek *k)
{
	for (const struct kept *e = k->kept; e < k->kept + k->n_kept; e++)
		if (e->was_true && e->has_files && !e->files_err && is_large(e))
			return e;
	return NULL;
}

/* Has its files written by a thread, once.  False: it can't be put in place. */
static bool write_large(struct seek *k, const struct kept *e)
{
	struct commit_writing **writing = xcalloc(e->n_files + 1, sizeof(struct commit_writing *));
	size_t n = 0;
	struct commit *c = prepare(k->results->server, &e->entry, e->files, writing, &n);

	if (c) {
		seek_write(k, e, c, writing, n);
		return true;
	}
	for (size_t i = 0; i < n; i++) {
		commit_write(writing[i]); /* nothing: its commit is no more */
		commit_written(writing[i]);
	}
	free(writing);
	return false;
}

/* ---- its end ---- */

/* False: it can't, and h is no more. */
static bool is_in_place(struct hit *h, int err, const struct errmsg *msg)
{
	struct client *c = h->client;
	bool shown;

	h->placed = err == 0;
	if (h->placed)
		return true;
	log_debug("a kept result can't be put in place: %s", msg->text);
	jobs_drop(steal_ptr(&c->job));
	shown = h->shown;
	lookup_free(h);
	if (shown)
		send_fail(c, RUN_FAIL_LOCAL, "cache", msg->text);
	else
		miss(c);
	return false;
}

static void go_on_with(struct hit *h);

static void in_place(void *data, int err, const struct errmsg *msg)
{
	struct hit *h = data;

	h->placing = NULL;
	if (is_in_place(h, err, msg))
		go_on_with(h);
}

/* False: not yet, or it can't and h is no more. */
static bool place(struct hit *h)
{
	struct commit_order order = {
		.commit = h->commit,
		.peer = TREE_NOBODY,
		.done = in_place,
		.data = h,
	};
	struct errmsg msg = {0};
	int err;

	if (h->placed || h->placing)
		return h->placed;
	err = commits_place(h->client->server, &order, &h->placing, &msg);
	return !h->placing && is_in_place(h, err, &msg);
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

static void go_on_with(struct hit *h)
{
	/* Who reads what it said goes on by that. */
	if (h->entry.announced && !place(h))
		return;
	if (!h->told)
		show(h);
	h->told = true;
	if (!h->untaken)
		finish(h);
}

bool lookup_is_ending(const struct hit *h)
{
	return h->told && !h->untaken;
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
	go_on_with(h);
	return 0;
}

/* ---- its begin ---- */

/* Those are for the job itself to be told of. */
static bool is_hopeless(struct client *c, const struct msg_run *m)
{
	struct server *s = c->server;

	return !s->results || s->stopping || s->replaced || c->too_many || cache_refuses(m) ||
	       c->in_other_groups || client_sees_else(c);
}

/* Takes commit. */
static struct hit *hit_new(struct client *c, struct kept *e, struct commit *commit)
{
	struct hit *h = xcalloc(1, sizeof(*h));

	h->client = c;
	h->commit = commit;
	h->entry = e->entry;
	/* Its files are there still, and released with the others. */
	e->entry = (struct cache_entry){0};
	return h;
}

/* What is still true, beside its place; NULL: it can't be. */
static struct hit *take(struct seek *k, struct kept *e)
{
	struct commit *commit = NULL;

	if (k->commit && k->written == (size_t)(e - k->kept))
		commit = steal_ptr(&k->commit);
	else if (!is_large(e))
		commit = prepare(k->results->server, &e->entry, e->files, NULL, NULL);
	return commit ? hit_new(k->client, e, commit) : NULL;
}

static void begin(struct client *c, struct hit *h, const struct msg_run *m)
{
	c->hit = h;
	c->job = jobs_take(c, m);
	server_busy(c->server);
	go_on_with(h);
}

static void count_miss(struct client *c)
{
	struct results *r = c->server->results;

	r->n_misses++;
	cache_count_miss(r->store);
	miss(c);
}

static void end_in_miss(struct seek *k)
{
	struct client *c = k->client;

	seek_free(k);
	count_miss(c);
}

static void go_on(struct seek *k)
{
	struct client *c = k->client;
	struct hit *h = NULL;
	const struct kept *large = k->commit ? NULL : large_to_write(k);
	struct kept *e;
	bool more;

	if (k->hung) { /* a thread has the rest of it */
		end_in_miss(k);
		return;
	}
	/* It is looked at again when it is written, so not before that as well. */
	if (large && write_large(k, large))
		return;
	e = choose(k, &more);
	if (more && seek_read(k))
		return;
	if (!e && unread_set(k) && seek_wait_for_facts(k, &unread_set(k)->names))
		return;
	if (e && !k->commit && is_large(e) && write_large(k, e))
		return;
	if (e)
		h = take(k, e);
	if (h) {
		seek_used(k, e);
		begin(c, h, &k->run);
		seek_free(k);
		return;
	}
	want_missing(k);
	if (!seek_ask(k))
		end_in_miss(k);
}

static void explain(struct seek *k)
{
	if (why_explain(k->client, &k->run, k))
		seek_free(k);
}

static void look_up(struct client *c, struct msg_run *m)
{
	struct seek *k = seek_new(c, m, go_on);

	if (!seek_read(k))
		end_in_miss(k);
}

int lookup_start(struct client *c, struct msg_run *m)
{
	if (c->run || c->hit || c->seek) {
		msg_run_release(m);
		return CONCC_E_PROTO;
	}
	if (m->flags & JOB_F_WHY && c->server->results)
		seek_wait(c, m, explain);
	else if (m->flags & JOB_F_WHY)
		(void)why_explain(c, m, NULL);
	else if (is_hopeless(c, m))
		miss(c);
	else
		look_up(c, m);
	msg_run_release(m);
	return 0;
}
