/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* `concc why`: what a look-up of this call would come to, and what has changed since. */
#include "client.h"
#include "seek.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "peer.h"

#define CHANGES_MAX 5 /* told of one result; of more, how many */

/* Of all results that are kept of the call, the one that most is still true of. */
struct nearest {
	struct buf text;
	size_t n_changes; /* names; SIZE_MAX: there is none */
	bool hit;
	bool unread; /* of some it can't be told, since files of them take too long to be read */
};

/* What is asked. */
struct question {
	struct results *results;
	struct seek *seek; /* on whose behalf files are read */
	const struct msg_run *m;
	bool waits; /* a thread reads some first: all is done anew then */
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

static bool has_files(struct results *r, const struct cache_entry *e)
{
	for (size_t i = 0; i < e->n_effects; i++) {
		const struct msg_file *f = &e->effects[i];

		if (f->kind == EFFECT_FILE && f->size && !cache_has(r->store, &f->digest))
			return false;
	}
	return true;
}

static void say_hit(struct nearest *best, struct results *r, const struct cache_entry *e)
{
	time_t when = (time_t)e->kept_s;
	char text[64] = "";
	struct tm tm;

	buf_reset(&best->text);
	best->n_changes = 0;
	best->hit = has_files(r, e);
	if (!best->hit) {
		buf_putf(&best->text, "miss: a file of the result was removed from the cache\n");
		return;
	}
	if (localtime_r(&when, &tm))
		(void)strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	buf_putf(&best->text, "hit: its result of %s is kept, made by %s\n", text, e->worker);
}

static void look_at(struct nearest *best, struct question *q, const struct digest *call,
		    const struct cache_variant *variant, const struct msg_run *m)
{
	struct results *r = q->results;
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_free_ uint64_t *now = NULL;
	struct cache_names names;
	struct cache_entry e;
	struct digest state;
	int err;

	if (best->hit || q->waits || cache_get_bytes(r->store, &variant->set, PROTO_TRACE_BYTES_MAX, &b) < 0 ||
	    cache_names_decode((struct blob){b.data, b.len}, &names) < 0)
		return;
	now = xcalloc(names.n + 1, sizeof(*now));
	cache_look_umask(r->look, m->umask);
	err = cache_look_state(r->look, &names, &state, now);
	if (err == CONCC_E_LATER) {
		q->waits = seek_wait_for_facts(q->seek, &names);
		best->unread = true;
	} else if (err == 0) {
		if (cache_get_entry(r->store, call, &variant->set, &state, &e) == 0) {
			say_hit(best, r, &e);
			cache_entry_release(&e);
		} else if (cache_get_entry(r->store, call, &variant->set, &variant->state, &e) ==
			   0) {
			compare(best, &names, &e, now, m->cwd);
			cache_entry_release(&e);
		}
	}
	cache_names_release(&names);
}

/* ---- one call ---- */

/* False: nothing was ever known of it. */
static bool explain(struct question *q, const struct msg_run *m, bool client_root, struct buf *ret,
		    bool *ret_hit)
{
	struct results *r = q->results;
	struct cache_call call = {m, geteuid(), getegid(), client_root};
	struct nearest best = {.n_changes = SIZE_MAX};
	struct cache_variant variants[CACHE_VARIANTS_MAX];
	const char *refused;
	struct digest d;
	size_t n = 0;

	cache_call_digest(&call, &d);
	refused = map_get(&r->refused, d.b, DIGEST_SIZE);
	if (cache_get_variants(r->store, &d, variants, &n) < 0 && !refused)
		return false;
	for (size_t i = 0; i < n; i++)
		look_at(&best, q, &d, &variants[i], m);
	buf_append(ret, best.text.data, best.text.len);
	buf_release(&best.text);
	if (best.unread && best.n_changes == SIZE_MAX)
		buf_putf(ret, "miss: the files that it looked at take too long to be read\n");
	else if (n && best.n_changes == SIZE_MAX)
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
static void find_like(struct likeness *best, struct results *r, const struct msg_run *m,
		      bool client_root)
{
	struct cache_call call = {m, geteuid(), getegid(), client_root};
	struct cache_parts all[CACHE_PARTS_KEPT], now;
	struct digest key;
	size_t n = 0;

	cache_parts_key(&call, &key);
	if (cache_get_parts(r->store, &key, all, &n) < 0)
		return;
	cache_parts_of(&call, &now);
	for (size_t i = 0; i < n; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		size_t changes = cache_parts_compare(&all[i], &now, &b);

		if (changes && changes < best->n_changes) {
			best->n_changes = changes;
			buf_reset(&best->lines);
			buf_append(&best->lines, b.data, b.len);
		}
		cache_parts_release(&all[i]);
	}
	cache_parts_release(&now);
}

/* By each kind of root that a worker has: the call is another one then. */
static bool explain_roots(struct question *q, const struct msg_run *m, struct buf *ret,
			  bool *ret_hit)
{
	const struct server *s = q->results->server;
	bool tried[2] = {false, false}, known = false;

	for (unsigned i = 0; i < s->n_peers && !*ret_hit; i++) {
		bool client_root = s->peers[i]->conf->root == ROOT_CLIENT;

		if (tried[client_root])
			continue;
		tried[client_root] = true;
		known |= explain(q, m, client_root, ret, ret_hit);
	}
	return known;
}

/* Who asks has a terminal; what is asked of ran in a build whose output went to a pipe. */
#define N_OUTPUTS 3
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

static void explain_all(struct question *q, struct buf *ret, bool *ret_hit)
{
	struct likeness best = {.n_changes = SIZE_MAX};
	struct msg_run as[N_OUTPUTS];

	with_outputs(q->m, as);
	for (unsigned i = 0; i < N_OUTPUTS; i++)
		if (explain_roots(q, &as[i], ret, ret_hit))
			return;
	for (unsigned i = 0; i < N_OUTPUTS; i++)
		for (unsigned client_root = 0; client_root < 2; client_root++)
			find_like(&best, q->results, &as[i], client_root);
	if (best.n_changes == SIZE_MAX)
		buf_putf(ret, "miss: nothing is kept of a call with these arguments, in this "
			      "directory, with this environment\n");
	else
		put_lines(ret, buf_cstr(&best.lines), CHANGES_MAX);
	buf_release(&best.lines);
}

static const char *refusal(struct client *c, const struct msg_run *m)
{
	const char *why;

	if (!c->server->results)
		return "the project server keeps no results: set `cache = 5G` in ~/.concc.ini";
	if (client_sees_else(c))
		return "namespace";
	why = cache_refuses(m);
	if (why)
		return why;
	for (unsigned i = 0; i < c->server->n_peers; i++)
		if (recording_sees_our_files(c->server->peers[i]))
			return NULL;
	return "worker-root";
}

bool why_explain(struct client *c, const struct msg_run *m, struct seek *k)
{
	struct question q = {.results = c->server->results, .seek = k, .m = m};
	_cleanup_buf_ struct buf b = BUF_INIT, reply = BUF_INIT;
	const char *why = refusal(c, m);
	struct msg_run_fail fail = {.what = RUN_FAIL_MISS, .quiet = true};
	bool hit = false;

	if (why) {
		buf_putf(&b, "not cacheable: %s\n", why);
	} else {
		facts_begin(q.results, k->has_facts ? FACTS_YOUNG : FACTS_FEW);
		explain_all(&q, &b, &hit);
		if (q.waits)
			return false;
	}
	fail.rule = (char *)(hit ? "hit" : "miss");
	fail.text = (char *)buf_cstr(&b);
	msg_run_fail_encode(&reply, &fail);
	link_send_buf(c->link, MSG_RUN_FAIL, LINK_BULK, &reply);
	return true;
}
