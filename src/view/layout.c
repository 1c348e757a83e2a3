/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "layout.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "json.h"
#include "text.h"

#define SLOW_TIMES 3 /* as long as usual: then a line is marked */

/* ---- what was told ---- */

static const char *text(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key)) ?: "";
}

static const json_t *list(const struct feed_server *s, const char *key)
{
	return json_object_get(s->status, key);
}

/* Over all servers. */
static uint64_t total(const struct feed *f, const char *key)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < f->n; i++)
		n += get_int(f->servers[i].status, key);
	return n;
}

static uint64_t count(const struct feed *f, const char *key)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < f->n; i++)
		n += json_array_size(list(&f->servers[i], key));
	return n;
}

/* ---- lines ---- */

static void put_line(struct layout *l, enum line_style style, struct buf *b)
{
	char *copy = xstrdup(buf_cstr(b));

	str_defuse(copy);
	l->v = xrealloc(l->v, (l->n + 1) * sizeof(*l->v));
	l->v[l->n++] = (struct line){copy, style};
	buf_reset(b);
}

__attribute__((format(printf, 3, 4))) static void add(struct layout *l, enum line_style style,
						      const char *fmt, ...)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *s = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&s, fmt, ap) >= 0)
		buf_putf(&b, "%s", s);
	va_end(ap);
	free(s);
	put_line(l, style, &b);
}

void layout_release(struct layout *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].text);
	free(l->v);
	*l = (struct layout){0};
}

/* The first max of them; what is left out is told in the last line of those. */
static void move(struct layout *to, struct layout *from, size_t max)
{
	size_t n = from->n <= max ? from->n : max ? max - 1 : 0;

	for (size_t i = 0; i < n; i++) {
		to->v = xrealloc(to->v, (to->n + 1) * sizeof(*to->v));
		to->v[to->n++] = from->v[i];
		from->v[i].text = NULL;
	}
	if (n < from->n && max)
		add(to, LINE_FAINT, "  ... and %zu more", from->n - n);
	layout_release(from);
}

static void put_padded(struct buf *b, void (*put)(struct buf *b, uint64_t n), uint64_t n, int width)
{
	_cleanup_buf_ struct buf part = BUF_INIT;

	put(&part, n);
	buf_putf(b, "%*s", width, buf_cstr(&part));
}

/* ---- workers ---- */

/* Jobs of others, all clients together, which its host told of last. */
static void put_host(struct buf *b, const json_t *w)
{
	const json_t *host = json_object_get(w, "host");
	uint64_t all = get_int(host, "running"), own = get_int(w, "running");

	if (!get_int(host, "slots")) {
		buf_putf(b, "%6s %7s", "-", "-");
		return;
	}
	buf_putf(b, "%6.2f %7llu", json_real_value(json_object_get(host, "load")),
		 (unsigned long long)(all > own ? all - own : 0));
}

static void put_round_trip(struct buf *b, uint64_t us)
{
	if (us)
		buf_putf(b, " %6.1fms", (double)us / 1000);
	else
		buf_putf(b, " %8s", "-");
}

/* Contents of files that its host keeps. */
static void put_store(struct buf *b, uint64_t bytes)
{
	if (bytes)
		put_padded(b, put_size, bytes, 9);
	else
		buf_putf(b, "%9s", "-");
}

static void worker_line(struct layout *l, const json_t *w, const struct usual *u)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	double speed = usual_speed(u, text(w, "name"));
	const char *state = text(w, "state"), *error = text(w, "error");

	buf_putf(&b, "%-14.24s %-10s %3llu/%-3llu ", text(w, "name"), state,
		 (unsigned long long)get_int(w, "running"),
		 (unsigned long long)get_int(w, "slots"));
	put_host(&b, w);
	if (speed > 0)
		buf_putf(&b, " %5.2f", speed);
	else
		buf_putf(&b, " %5s", "-");
	put_round_trip(&b, get_int(w, "rtt_us"));
	buf_putf(&b, " %7llu", (unsigned long long)get_int(w, "jobs"));
	put_store(&b, get_int(json_object_get(w, "host"), "store_bytes"));
	put_padded(&b, put_size, get_int(w, "fetched_bytes"), 9);
	put_line(l, streq(state, "down") || streq(state, "unable") ? LINE_BAD : LINE_PLAIN, &b);
	if (*error && !streq(state, "up"))
		add(l, LINE_BAD, "  %s", error);
	if (get_int(w, "wanted_bytes")) {
		buf_putf(&b, "  being sent contents of files: ");
		put_size(&b, get_int(w, "sent_bytes"));
		buf_putf(&b, " of ");
		put_size(&b, get_int(w, "wanted_bytes"));
		put_line(l, LINE_FAINT, &b);
	}
}

static void workers(struct layout *l, const struct feed *f, const struct usual *u)
{
	for (unsigned i = 0; i < f->n; i++) {
		const struct feed_server *s = &f->servers[i];
		const char *wrong = text(s->status, "configuration_error");
		const json_t *w;
		size_t k;

		if (s->status && i > 0)
			add(l, LINE_FAINT, "a build with workers of its own, in %s:", s->dir);
		json_array_foreach(list(s, "workers"), k, w)
		{
			worker_line(l, w, u);
		}
		if (*wrong)
			add(l, LINE_BAD,
			    "the configuration is wrong, and the former one in use: %s", wrong);
	}
}

/* ---- jobs ---- */

static const char *place(const char *worker)
{
	return *worker ? worker : "here";
}

static const char *what(const json_t *j)
{
	return *text(j, "subject") ? text(j, "subject") : text(j, "command");
}

static void running_line(struct layout *l, const json_t *j, uint64_t since_us,
			 const struct usual *u)
{
	uint64_t us = get_int(j, "us") + since_us;
	uint64_t often = usual_us(u, text(j, "program"), text(j, "subject"), text(j, "directory"));
	const char *second = text(j, "second_worker"); /* a straggler: on both */
	_cleanup_free_ char *where = NULL;
	_cleanup_buf_ struct buf b = BUF_INIT;

	put_padded(&b, put_span, us, 12);
	if (often)
		put_padded(&b, put_span, often, 12);
	else
		buf_putf(&b, "%12s", "-");
	where = *second ? xasprintf("%s+%s", text(j, "worker"), second)
			: xstrdup(place(text(j, "worker")));
	buf_putf(&b, "  %-12.20s %-10.16s %s", where, text(j, "program"), what(j));
	put_line(l, often && us > SLOW_TIMES * often && us > 1000000 ? LINE_SLOW : LINE_PLAIN, &b);
}

static void running(struct layout *l, const struct feed *f, const struct usual *u)
{
	static const char *const kinds[] = {"runs", "here"};
	uint64_t now = now_ms();

	for (unsigned i = 0; i < f->n; i++) {
		const struct feed_server *s = &f->servers[i];
		uint64_t since_us = (now - s->status_ms) * 1000;
		const json_t *j;
		size_t k;

		for (unsigned kind = 0; kind < 2; kind++)
			json_array_foreach(list(s, kinds[kind]), k, j)
			{
				running_line(l, j, since_us, u);
			}
	}
}

static void waiting(struct layout *l, const struct feed *f)
{
	uint64_t now = now_ms();

	for (unsigned i = 0; i < f->n; i++) {
		uint64_t since_s = (now - f->servers[i].status_ms) / 1000;
		const json_t *j;
		size_t k;

		json_array_foreach(list(&f->servers[i], "waiters"), k, j)
		{
			add(l, LINE_PLAIN, "%10llu s  %3llu. %s",
			    (unsigned long long)(get_int(j, "seconds") + since_s),
			    (unsigned long long)get_int(j, "place"), text(j, "command"));
		}
	}
}

static void last_line(struct layout *l, const struct last_job *j)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	bool failed = j->code || j->by_signal;

	put_padded(&b, put_span, j->us, 12);
	buf_putf(&b, "  %-12.20s %-10.16s %s", place(j->worker), j->program, j->what);
	if (j->by_signal)
		buf_putf(&b, "  [signal %llu]", (unsigned long long)j->code);
	else if (failed)
		buf_putf(&b, "  [exit %llu]", (unsigned long long)j->code);
	if (*j->rule)
		buf_putf(&b, "  (%s%s%s)", j->rule, *j->why ? ": " : "", j->why);
	put_line(l, failed ? LINE_BAD : LINE_PLAIN, &b);
}

/* The newest first. */
static void last(struct layout *l, const struct usual *u)
{
	for (unsigned i = u->n_last; i-- > 0;)
		last_line(l, &u->last[i]);
}

/* ---- all ---- */

static bool anybody(const struct feed *f)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->servers[i].status)
			return true;
	return false;
}

static void title(struct layout *l, const struct feed *f)
{
	if (anybody(f))
		add(l, LINE_TITLE,
		    "concc: %llu on workers, %llu here, %llu waiting; %llu slots; %.1f jobs/s",
		    (unsigned long long)count(f, "runs"), (unsigned long long)count(f, "here"),
		    (unsigned long long)total(f, "waiting"), (unsigned long long)total(f, "slots"),
		    feed_rate(f));
	else
		add(l, LINE_TITLE,
		    "concc: no project server is running; the first concc-cc starts it");
}

/* How many of `left` lines a part gets that has n, of which `of` parts are still to come. */
static size_t share(size_t n, size_t left, size_t of)
{
	size_t fair = left / of;

	return n < fair ? n : fair;
}

static void part(struct layout *out, struct layout *l, enum line_style style, const char *head,
		 size_t max)
{
	if (!l->n || max < 2) {
		layout_release(l);
		return;
	}
	add(out, style, "%s", head);
	move(out, l, max - 1);
}

void layout_make(struct layout *out, const struct feed *f, const struct usual *u, unsigned height)
{
	struct layout w = {0}, r = {0}, q = {0}, e = {0};
	size_t left = height ? height : SIZE_MAX / 8, n;

	*out = (struct layout){0};
	workers(&w, f, u);
	running(&r, f, u);
	waiting(&q, f);
	last(&e, u);
	title(out, f);
	left -= 1;
	/* Each its share, and what one leaves goes to those that come after. */
	n = share(w.n ? w.n + 1 : 0, left, w.n + 1 <= left / 2 ? 1 : 2);
	left -= n;
	part(out, &w, LINE_HEAD,
	     "WORKER         STATE      RUNS/OF   LOAD  OTHERS SPEED      RTT    JOBS    STORE  FETCHED",
	     n);
	n = share(r.n ? r.n + 1 : 0, left, q.n ? 3 : 2);
	left -= n;
	part(out, &r, LINE_HEAD, "     RUNNING     USUALLY  WHERE        PROGRAM    WHAT", n);
	n = share(q.n ? q.n + 1 : 0, left, 2);
	left -= n;
	part(out, &q, LINE_HEAD, "     WAITING FOR A SLOT", n);
	part(out, &e, LINE_HEAD, "        TOOK  WHERE        PROGRAM    WHAT  (WHY HERE)",
	     height ? left : 21);
}
