/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* `concc why`: what a look-up of this call would come to, and what has changed since. */
#include "client.h"
#include "seek.h"
#include "sets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "peer.h"

#define CHANGES_MAX 5 /* told of one result; of more, how many */
/* For files to be read, of all that was kept: the rest can't be told then. */
#define WAITS_MAX 4

/* Who asks has a terminal; what is asked of ran in a build whose output went to a pipe. */
#define N_OUTPUTS 3

/* A set of names that a call looked at, and what is kept of it. */
struct variant {
	struct cache_variant then;
	struct cache_names names; /* if there: */
	size_t cost;		  /* of these */
	bool there;
	int before_err; /* 0: this is a result of it */
	struct cache_entry before;
	/* As things are now: */
	int err;
	struct digest state;
	uint64_t *now;
	int kept_err; /* 0: this is the result for that */
	struct cache_entry kept;
	bool has_files;
};

struct one_call {
	const struct msg_run *m;
	bool client_root;
	struct digest digest;
	struct cache_first first; /* what is kept of it first, if it is there */
	bool known;
	size_t n;
	struct variant *variants;
};

/* What is asked, and what of the store was read for it.  While a thread reads, it is that one's. */
struct why {
	struct cache_store *store;
	struct msg_run as[N_OUTPUTS]; /* their strings are the seek's */
	struct one_call *calls;	      /* those that are alike but for the root side by side */
	size_t n_calls;
	struct digest parts_keys[2 * N_OUTPUTS];
	struct cache_parts parts[2 * N_OUTPUTS][CACHE_PARTS_KEPT];
	size_t n_parts[2 * N_OUTPUTS];
	struct sets_left left;
	unsigned n_waits;
	bool looked;
};

/* Of all results that are kept of the call, the one that most is still true of. */
struct nearest {
	struct buf text;
	size_t n_changes; /* names; SIZE_MAX: there is none */
	bool hit;
	bool unread; /* of some it can't be told, since files of them take too long to be read */
};

/* ---- one result ---- */

static const char *shown(const char *path, const char *cwd)
{
	size_t n = strlen(cwd);

	return path_is_below(path, cwd) && path[n] == '/' ? path + n + 1 : path;
}

static void put_change(struct buf *b, const char *name, const char *cwd, const char *what)
{
	_cleanup_free_ char *path = xstrdup(shown(name + 1, cwd));

	str_defuse(path);
	buf_putf(b, "miss: %s %s\n", path, what);
}

/* One line for a path, however it was looked at: that it changed says more than its size. */
static size_t put_changes(struct buf *b, const struct cache_names *names, const uint64_t *before,
			  const uint64_t *now, const char *cwd)
{
	size_t n = 0;

	for (size_t i = 0, end; i < names->n; i = end) {
		const char *what = NULL;
		size_t which = i;

		for (end = i; end < names->n && streq(names->v[end] + 1, names->v[i] + 1); end++) {
			char how = names->v[end][0];

			if (before[end] == now[end] || (what && how != TRACE_READ))
				continue;
			what = cache_look_change(how, before[end], now[end]);
			which = end;
		}
		if (what && ++n <= CHANGES_MAX)
			put_change(b, names->v[which], cwd, what);
	}
	if (n > CHANGES_MAX)
		buf_putf(b, "miss: and %zu more names\n", n - CHANGES_MAX);
	return n;
}

static void compare(struct nearest *best, const struct cache_names *names,
		    const struct cache_entry *e, const uint64_t *now, const char *cwd)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	size_t n;

	if (e->n_fingerprints != names->n)
		return;
	n = put_changes(&b, names, e->fingerprints, now, cwd);
	if (n >= best->n_changes)
		return;
	if (!n)
		buf_putf(&b, "miss: which of its files are the same file, or like it, changed\n");
	best->n_changes = n;
	buf_reset(&best->text);
	buf_append(&best->text, b.data, b.len);
}

static void say_hit(struct nearest *best, const struct cache_entry *e, bool has_files)
{
	time_t when = (time_t)e->kept_s;
	char text[64] = "";
	struct tm tm;

	buf_reset(&best->text);
	best->n_changes = 0;
	best->hit = has_files;
	if (!best->hit) {
		buf_putf(&best->text, "miss: a file of the result was removed from the cache\n");
		return;
	}
	if (localtime_r(&when, &tm))
		(void)strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	buf_putf(&best->text, "hit: its result of %s is kept, made by %s\n", text, e->worker);
}

static void tell_of(struct nearest *best, const struct variant *v, const char *cwd)
{
	if (best->hit || !v->there)
		return;
	if (v->err == CONCC_E_LATER)
		best->unread = true;
	else if (v->err == 0 && v->kept_err == 0)
		say_hit(best, &v->kept, v->has_files);
	else if (v->err == 0 && v->before_err == 0)
		compare(best, &v->names, &v->before, v->now, cwd);
}

/* ---- one call ---- */

/* False: nothing was ever known of it. */
static bool explain(struct results *r, const struct one_call *c, struct buf *ret, bool *ret_hit)
{
	struct nearest best = {.n_changes = SIZE_MAX};
	const char *refused = map_get(&r->refused, c->digest.b, DIGEST_SIZE);

	if (!c->known && !refused)
		return false;
	for (size_t i = 0; i < c->n; i++)
		tell_of(&best, &c->variants[i], c->m->cwd);
	buf_append(ret, best.text.data, best.text.len);
	buf_release(&best.text);
	if (best.unread && best.n_changes == SIZE_MAX)
		buf_putf(ret, "miss: files that it looked at take too long to be read\n");
	else if (c->n && best.n_changes == SIZE_MAX)
		buf_putf(ret, "miss: what was kept of it had to make room\n");
	if (refused && !best.hit)
		buf_putf(ret, "not cacheable: %s, when it ran last\n", refused);
	*ret_hit = best.hit;
	return true;
}

/* ---- another call ---- */

static void put_lines(struct buf *b, const char *lines, size_t n_max)
{
	size_t n = 0;

	for (const char *at = lines; *at; n++) {
		size_t len = strcspn(at, "\n");

		if (n < n_max)
			buf_putf(b, "miss: %.*s\n", (int)len, at);
		at += len + 1;
	}
	if (n > n_max)
		buf_putf(b, "miss: and %zu more of its words\n", n - n_max);
}

struct likeness {
	struct buf lines;
	size_t n_changes; /* SIZE_MAX: there is no such call */
};

/* Of those that were kept with the same program and output, the call that is most like this one. */
static void find_like(struct likeness *best, const struct why *w, size_t key)
{
	struct cache_call call = {&w->as[key / 2], geteuid(), getegid(), key % 2};
	struct cache_parts now;

	cache_parts_of(&call, &now);
	for (size_t i = 0; i < w->n_parts[key]; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		size_t changes = cache_parts_compare(&w->parts[key][i], &now, &b);

		if (changes && changes < best->n_changes) {
			best->n_changes = changes;
			buf_reset(&best->lines);
			buf_append(&best->lines, b.data, b.len);
		}
	}
	cache_parts_release(&now);
}

static void explain_all(struct results *r, const struct why *w, struct buf *ret, bool *ret_hit)
{
	struct likeness best = {.n_changes = SIZE_MAX};
	bool known = false;

	for (size_t i = 0; i < w->n_calls && !*ret_hit; i++) {
		/* Each kind of root makes it another call. */
		if (known && w->calls[i].m != w->calls[i - 1].m)
			return;
		known |= explain(r, &w->calls[i], ret, ret_hit);
	}
	if (known)
		return;
	for (size_t i = 0; i < 2 * N_OUTPUTS; i++)
		find_like(&best, w, i);
	if (best.n_changes == SIZE_MAX)
		buf_putf(ret, "miss: nothing is kept of a call with these arguments, in this "
			      "directory, with this environment\n");
	else
		put_lines(ret, buf_cstr(&best.lines), CHANGES_MAX);
	buf_release(&best.lines);
}

/* ---- what is kept: on a thread, which touches the store only ---- */

static int read_entry(struct cache_store *s, const struct one_call *c,
		      const struct cache_variant *variant, struct cache_entry *ret)
{
	int err = cache_first_entry(&c->first, variant, ret);

	return err == 0 ? 0 : cache_get_entry(s, &c->digest, &variant->set, &variant->state, ret);
}

static void read_variant(struct cache_store *s, const struct one_call *c, struct variant *v,
			 struct sets_left *left)
{
	v->kept_err = v->before_err = -ENOENT;
	v->there = sets_read(s, &c->first, &v->then.set, left, &v->names, &v->cost);
	if (v->there)
		v->before_err = read_entry(s, c, &v->then, &v->before);
}

static void read_call(struct cache_store *s, struct one_call *c, struct sets_left *left)
{
	struct cache_variant variants[CACHE_VARIANTS_MAX];

	(void)cache_get_first(s, &c->digest, &c->first);
	if (cache_get_variants(s, &c->digest, variants, &c->n) < 0)
		c->n = 0;
	cache_first_add(&c->first, variants, &c->n);
	c->known = c->n;
	c->variants = xcalloc(c->n + 1, sizeof(*c->variants));
	for (size_t i = 0; i < c->n; i++) {
		c->variants[i].then = variants[i];
		read_variant(s, c, &c->variants[i], left);
	}
}

static void read_kept(void *arg)
{
	struct why *w = ((struct seek *)arg)->why;

	for (size_t i = 0; i < w->n_calls; i++)
		read_call(w->store, &w->calls[i], &w->left);
	for (size_t i = 0; i < 2 * N_OUTPUTS; i++)
		if (cache_get_parts(w->store, &w->parts_keys[i], w->parts[i], &w->n_parts[i]) < 0)
			w->n_parts[i] = 0;
}

static bool has_files(struct cache_store *s, const struct cache_first *first,
		      const struct cache_entry *e)
{
	for (size_t i = 0; i < e->n_effects; i++) {
		const struct msg_file *f = &e->effects[i];

		if (f->kind == EFFECT_FILE && f->size && !cache_first_file(first, &f->digest) &&
		    !cache_has(s, &f->digest))
			return false;
	}
	return true;
}

/* The results for what the names mean now. */
static void read_now(void *arg)
{
	struct why *w = ((struct seek *)arg)->why;

	for (size_t c = 0; c < w->n_calls; c++) {
		struct one_call *call = &w->calls[c];

		for (struct variant *v = call->variants; v < call->variants + call->n; v++) {
			struct cache_variant now;

			if (!v->there || v->err)
				continue;
			now = (struct cache_variant){v->then.set, v->state};
			v->kept_err = read_entry(w->store, call, &now, &v->kept);
			v->has_files = v->kept_err == 0 &&
				       has_files(w->store, &call->first, &v->kept);
		}
	}
}

static const char *refusal(struct client *c, const struct msg_run *m)
{
	const char *why;

	if (!c->server->results)
		return "the project server keeps no results: set `cache = 5G` in [concc] of ~/.concc.ini";
	if (client_sees_else(c))
		return "namespace";
	if (c->in_other_groups)
		return "group";
	why = cache_refuses(m);
	if (why)
		return why;
	for (unsigned i = 0; i < c->server->n_peers; i++)
		if (recording_sees_our_files(c->server->peers[i]))
			return NULL;
	return "worker-root";
}

/* ---- on the loop's thread ---- */

void why_free(struct why *w)
{
	if (!w)
		return;
	for (size_t c = 0; c < w->n_calls; c++) {
		for (size_t i = 0; w->calls[c].variants && i < w->calls[c].n; i++) {
			struct variant *v = &w->calls[c].variants[i];

			if (v->there)
				cache_names_release(&v->names);
			if (v->before_err == 0)
				cache_entry_release(&v->before);
			if (v->kept_err == 0)
				cache_entry_release(&v->kept);
			free(v->now);
		}
		free(w->calls[c].variants);
		cache_first_release(&w->calls[c].first);
	}
	for (size_t k = 0; k < 2 * N_OUTPUTS; k++)
		for (size_t i = 0; i < w->n_parts[k]; i++)
			cache_parts_release(&w->parts[k][i]);
	free(w->calls);
	free(w);
}

static void with_outputs(const struct msg_run *m, struct msg_run ret[N_OUTPUTS])
{
	const uint32_t tty = JOB_F_TTY_OUT | JOB_F_TTY_ERR;

	for (unsigned i = 0; i < N_OUTPUTS; i++)
		ret[i] = *m;
	for (unsigned i = 1; i < N_OUTPUTS; i++) {
		ret[i].rows = ret[i].cols = 0;
		ret[i].flags &= ~(tty | JOB_F_MERGED);
	}
	ret[2].flags |= JOB_F_MERGED;
}

/* As workers would see it that there are. */
static void add_calls(struct why *w, const struct server *s, const struct msg_run *m)
{
	bool tried[2] = {false, false};

	for (unsigned i = 0; i < s->n_peers; i++) {
		bool client_root = s->peers[i]->conf->root == ROOT_CLIENT;
		struct cache_call call = {m, geteuid(), getegid(), client_root};
		struct one_call *c = &w->calls[w->n_calls];

		if (tried[client_root])
			continue;
		tried[client_root] = true;
		w->n_calls++;
		c->m = m;
		c->client_root = client_root;
		cache_call_digest(&call, &c->digest);
	}
}

static struct why *why_new(struct results *r, const struct msg_run *m)
{
	struct why *w = xcalloc(1, sizeof(*w));

	w->store = r->store;
	w->left = (struct sets_left){SETS_KEPT_MAX, SETS_LOOKED_MAX};
	w->calls = xcalloc(2 * N_OUTPUTS, sizeof(*w->calls));
	with_outputs(m, w->as);
	for (size_t i = 0; i < N_OUTPUTS; i++)
		add_calls(w, r->server, &w->as[i]);
	for (size_t i = 0; i < 2 * N_OUTPUTS; i++) {
		struct cache_call call = {&w->as[i / 2], geteuid(), getegid(), i % 2};

		cache_parts_key(&call, &w->parts_keys[i]);
	}
	return w;
}

/* False: it waits until files of one of them were read, and all are looked at anew. */
static bool look_at_all(struct seek *k)
{
	struct results *r = k->results;
	struct why *w = k->why;

	facts_begin(r, k->has_facts ? FACTS_YOUNG : FACTS_FEW);
	for (size_t c = 0; c < w->n_calls; c++) {
		struct one_call *call = &w->calls[c];

		cache_look_umask(r->look, call->m->umask);
		for (struct variant *v = call->variants; v < call->variants + call->n; v++) {
			if (!v->there)
				continue;
			if (!v->now)
				v->now = xcalloc(v->names.n + 1, sizeof(*v->now));
			v->err = sets_check(r, &v->then.set, &v->names, v->cost, &w->left);
			if (v->err == 0)
				v->err = cache_look_state(r->look, &v->names, &v->state, v->now);
			if (v->err != CONCC_E_LATER || w->n_waits == WAITS_MAX)
				continue;
			w->n_waits++;
			if (seek_wait_for_facts(k, &v->names))
				return false;
		}
	}
	return true;
}

/* False: it goes on later. */
static bool find_out(struct seek *k, const char **ret_why)
{
	*ret_why = NULL;
	if (!k->why) {
		k->why = why_new(k->results, &k->run);
		if (!k->hung && seek_read_by(k, read_kept))
			return false;
		k->hung = true;
	}
	if (!k->hung && !k->why->looked) {
		if (!look_at_all(k))
			return false;
		k->why->looked = true;
		if (seek_read_by(k, read_now))
			return false;
		k->hung = true;
	}
	if (k->hung)
		*ret_why = "slow-disk";
	return true;
}

bool why_explain(struct client *c, const struct msg_run *m, struct seek *k)
{
	_cleanup_buf_ struct buf b = BUF_INIT, reply = BUF_INIT;
	const char *why = refusal(c, m);
	struct msg_run_fail fail = {.what = RUN_FAIL_MISS, .quiet = true};
	bool hit = false;

	if (!why && !find_out(k, &why))
		return false;
	if (why)
		buf_putf(&b, "not cacheable: %s\n", why);
	else
		explain_all(c->server->results, k->why, &b, &hit);
	fail.rule = (char *)(hit ? "hit" : "miss");
	fail.text = (char *)buf_cstr(&b);
	msg_run_fail_encode(&reply, &fail);
	link_send_buf(c->link, MSG_RUN_FAIL, LINK_BULK, &reply);
	return true;
}
