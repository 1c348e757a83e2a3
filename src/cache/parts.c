/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/cache.h"

#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/record.h"
#include "concc/str.h"

#define PROPERTIES_MAX 4096
#define ARGS_MAX       8192 /* of more a call is not kept, but for its result */

void cache_parts_release(struct cache_parts *w)
{
	strv_free(w->argv);
	strv_free(w->names);
	free(w->fingerprints);
	*w = (struct cache_parts){0};
}

/* ---- of a call ---- */

static uint64_t fingerprint_of(const void *p, size_t n)
{
	struct digest d;
	uint64_t fingerprint;

	digest_of(p, n, &d);
	memcpy(&fingerprint, d.b, sizeof(fingerprint));
	return fingerprint;
}

/* Takes the name. */
static void put(struct cache_parts *w, char *name, const void *p, size_t n)
{
	w->fingerprints = xrealloc(w->fingerprints, (w->n + 1) * sizeof(*w->fingerprints));
	w->fingerprints[w->n++] = fingerprint_of(p, n);
	strv_push(&w->names, name);
}

static void put_variables(struct cache_parts *w, const struct msg_run *m)
{
	for (char *const *e = m->env; *e && w->n < PROPERTIES_MAX; e++) {
		size_t len = strcspn(*e, "=");

		/* With its name, so that it tells nothing of variables that have the same value. */
		if (cache_reads_variable(m, *e, len))
			put(w, xasprintf("variable %.*s", (int)len, *e), *e, strlen(*e));
	}
}

void cache_parts_of(const struct cache_call *c, struct cache_parts *ret)
{
	const struct msg_run *m = c->run;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_caller caller = {.caller = m->caller};
	const uint32_t output[] = {m->flags & ~(uint32_t)(JOB_F_TRACE | JOB_F_WHY), m->rows,
				   m->cols};
	const uint32_t user[] = {c->uid, c->gid};

	*ret = (struct cache_parts){
		.argv = strv_copy(m->argv),
		.names = xcalloc(1, sizeof(*ret->names)),
	};
	cache_call_digest(c, &ret->call);
	caller.caller.nice = 0;
	if (m->flags & JOB_F_COMPILER)
		caller.caller.fds_end = 0;
	msg_caller_encode(&b, &caller);
	put(ret, xstrdup("what is executed"), m->exe, strlen(m->exe));
	put(ret, xstrdup("its path"), m->path, strlen(m->path));
	put(ret, xstrdup("the umask"), &m->umask, sizeof(m->umask));
	put(ret, xstrdup("what its output goes to"), output, sizeof(output));
	put(ret, xstrdup("a limit, signal or descriptor of the caller"), b.data, b.len);
	put(ret, xstrdup("its standard input"), m->input.p, m->input.n);
	put(ret, xstrdup("the user"), user, sizeof(user));
	put(ret, xstrdup("the root that the worker has"), &c->client_root, sizeof(c->client_root));
	put_variables(ret, m);
}

void cache_parts_key(const struct cache_call *c, struct digest *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct record r;

	record_init(&r);
	record_set_words(&r, c->run->argv);
	buf_put_str(&b, "concc words");
	buf_put_u32(&b, CACHE_FORMAT);
	buf_put_str(&b, r.program);
	buf_put_str(&b, r.subject);
	buf_put_str(&b, c->run->cwd);
	digest_of(b.data, b.len, ret);
	record_release(&r);
}

/* ---- as bytes ---- */

void cache_parts_encode(struct buf *b, const struct cache_parts *w)
{
	buf_append(b, w->call.b, DIGEST_SIZE);
	buf_put_u32(b, (uint32_t)strv_len(w->argv));
	for (char **a = w->argv; *a; a++)
		buf_put_str(b, *a);
	buf_put_u32(b, (uint32_t)w->n);
	for (size_t i = 0; i < w->n; i++) {
		buf_put_str(b, w->names[i]);
		buf_put_u64(b, w->fingerprints[i]);
	}
}

static void take_strings(struct rd *r, uint32_t n, char ***ret)
{
	for (uint32_t i = 0; i < n && !r->bad; i++) {
		char *s = rd_strdup(r, CACHE_PARTS_MAX);

		if (s)
			strv_push(ret, s);
	}
}

int cache_parts_decode(struct blob payload, struct cache_parts *ret)
{
	struct cache_parts w = {0};
	const uint8_t *call;
	uint32_t n;
	struct rd r;

	rd_init(&r, payload.p, payload.n);
	call = rd_bytes(&r, DIGEST_SIZE);
	if (call)
		memcpy(w.call.b, call, DIGEST_SIZE);
	w.argv = xcalloc(1, sizeof(*w.argv));
	w.names = xcalloc(1, sizeof(*w.names));
	n = rd_count(&r, 4);
	if (n > ARGS_MAX)
		r.bad = true;
	take_strings(&r, n, &w.argv);
	n = rd_count(&r, 12);
	w.fingerprints = xcalloc(r.bad ? 1 : n + 1, sizeof(*w.fingerprints));
	for (; w.n < n && !r.bad; w.n++) {
		take_strings(&r, 1, &w.names);
		w.fingerprints[w.n] = rd_u64(&r);
	}
	if (rd_done(&r) < 0) {
		cache_parts_release(&w);
		return CONCC_E_PROTO;
	}
	*ret = w;
	return 0;
}

/* ---- what is different ---- */

static bool find_string(char *const *list, size_t n, const bool *taken, const char *s, size_t *ret)
{
	for (size_t i = 0; i < n; i++) {
		if (taken[i] || !streq(list[i], s))
			continue;
		*ret = i;
		return true;
	}
	return false;
}

static char *shown(const char *arg)
{
	char *s = xstrndup(arg, strnlen(arg, CACHE_SHOWN_MAX));

	str_defuse(s);
	return s;
}

static void say_args(struct buf *b, const char *now, const char *before)
{
	_cleanup_free_ char *a = shown(now ?: before), *other = shown(before ?: "");

	if (now && before)
		buf_putf(b, "argument %s instead of %s\n", a, other);
	else
		buf_putf(b, "argument %s %s\n", a, now ? "is new" : "is missing");
}

/* The first that is new stands for the first that is gone, and so on. */
static size_t compare_args(const struct cache_parts *before, const struct cache_parts *now,
			   struct buf *b)
{
	size_t n_before = strv_len(before->argv), n_now = strv_len(now->argv), at, n = 0, gone = 0;
	_cleanup_free_ bool *taken = xcalloc(n_before + 1, sizeof(*taken));
	_cleanup_free_ const char **fresh = xcalloc(n_now + 1, sizeof(*fresh));
	bool moved = false;

	for (size_t i = 0; i < n_now; i++) {
		if (find_string(before->argv, n_before, taken, now->argv[i], &at)) {
			taken[at] = true;
			moved |= at != i;
		} else {
			fresh[n++] = now->argv[i];
		}
	}
	for (size_t i = 0; i < n_before; i++) {
		if (taken[i])
			continue;
		say_args(b, gone < n ? fresh[gone] : NULL, before->argv[i]);
		gone++;
	}
	for (size_t i = gone; i < n; i++)
		say_args(b, fresh[i], NULL);
	if (moved && !n && !gone) {
		buf_putf(b, "its arguments have another order\n");
		return 1;
	}
	return n > gone ? n : gone;
}

static size_t compare_properties(const struct cache_parts *before, const struct cache_parts *now,
				 struct buf *b)
{
	_cleanup_free_ bool *taken = xcalloc(before->n + 1, sizeof(*taken));
	size_t n = 0, at;

	for (size_t i = 0; i < now->n; i++) {
		bool found = find_string(before->names, before->n, taken, now->names[i], &at);

		if (found)
			taken[at] = true;
		if (found && before->fingerprints[at] == now->fingerprints[i])
			continue;
		buf_putf(b, "%s %s\n", now->names[i], found ? "changed" : "is set now");
		n++;
	}
	for (size_t i = 0; i < before->n; i++) {
		if (taken[i])
			continue;
		buf_putf(b, "%s is not set any more\n", before->names[i]);
		n++;
	}
	return n;
}

size_t cache_parts_compare(const struct cache_parts *before, const struct cache_parts *now,
			   struct buf *ret)
{
	size_t n = compare_args(before, now, ret);

	return n + compare_properties(before, now, ret);
}
