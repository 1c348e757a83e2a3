/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "outcome.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "hints.h"

#define SPEED_UP_SHOWN 1.05 /* less is within what the estimate can't tell */

static uint64_t get(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

void numbers_parse(struct numbers *ret, const char *json)
{
	json_t *o = json_loads(json, 0, NULL), *worker;
	size_t i;

	ret->server_cpu_us = get(o, "cpu_us");
	json_array_foreach(json_object_get(o, "workers"), i, worker)
	{
		ret->worker_cpu_us += get(worker, "cpu_us");
		ret->bytes_out += get(worker, "bytes_out");
		ret->bytes_in += get(worker, "bytes_in");
	}
	json_decref(o);
}

/* A server that was started anew meanwhile has counted less. */
static uint64_t grown(uint64_t after, uint64_t before)
{
	return after > before ? after - before : 0;
}

static uint64_t sum(const struct outcome *o, const char *prefix)
{
	uint64_t total = 0;

	for (size_t i = 0; i < o->n_entries; i++) {
		if (str_starts(o->entries[i].name, prefix))
			total += o->entries[i].n;
	}
	return total;
}

void outcome_make(struct outcome *o)
{
	struct rusage u;

	o->n_entries = counters_read(o->counters, o->entries, COUNTERS_MAX);
	o->n_remote = sum(o, "remote:");
	o->n_fell_back = sum(o, "fallback:");
	o->n_local = sum(o, "local:") + o->n_fell_back;
	o->n_retried = sum(o, "retry:");
	o->n_calls = o->n_remote + o->n_local;
	o->n_asked = sum(o, "local:query");
	o->n_fixed = sum(o, "local:link") + o->n_asked + sum(o, "local:probe") +
		     sum(o, "local:local-slot");
	o->took.server_cpu_us = grown(o->after.server_cpu_us, o->before.server_cpu_us);
	o->took.worker_cpu_us = grown(o->after.worker_cpu_us, o->before.worker_cpu_us);
	o->took.bytes_out = grown(o->after.bytes_out, o->before.bytes_out);
	o->took.bytes_in = grown(o->after.bytes_in, o->before.bytes_in);
	(void)getrusage(RUSAGE_CHILDREN, &u); /* fails for a bad address only */
	o->local_us = o->took.server_cpu_us +
		      (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
		      (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
	view_gain_read(&o->gain, o->build, o->cores);
}

/* ---- for a person ---- */

/* " (name 12, other 3)", nothing when there is none. */
static void list_names(const struct outcome *o, const char *prefix, struct buf *out)
{
	bool first = true;

	for (size_t i = 0; i < o->n_entries; i++) {
		const struct counter *e = &o->entries[i];

		if (!str_starts(e->name, prefix) || !e->n)
			continue;
		buf_putf(out, "%s%s %llu", first ? " (" : ", ", e->name + strlen(prefix),
			 (unsigned long long)e->n);
		first = false;
	}
	if (!first)
		buf_putf(out, ")");
}

static double seconds(uint64_t us)
{
	return (double)us / 1e6;
}

static void put_bytes(struct buf *out, const char *what, uint64_t n)
{
	bool many = n >= 1000000;

	buf_putf(out, "%s %.1f %s", what, (double)n / (many ? 1e6 : 1e3), many ? "MB" : "KB");
}

static void put_gain(const struct outcome *o, struct buf *out)
{
	if (o->took.bytes_out + o->took.bytes_in) {
		put_bytes(out, "; sent", o->took.bytes_out);
		put_bytes(out, ", got", o->took.bytes_in);
	}
	if (o->gain.speed_up >= SPEED_UP_SHOWN)
		buf_putf(out, "; about %.1f times as fast as here alone", o->gain.speed_up);
	else if (o->gain.speed_up > 0)
		buf_putf(out, "; no faster than here alone");
	if (*o->gain.limit && o->n_remote)
		buf_putf(out, "; limit: %s", o->gain.limit);
}

void outcome_line(struct outcome *o, struct buf *out)
{
	buf_putf(out, "concc: %llu job%s in %.1f s: %llu remote", (unsigned long long)o->n_calls,
		 str_plural(o->n_calls), seconds(o->wall_us), (unsigned long long)o->n_remote);
	list_names(o, "remote:", out);
	buf_putf(out, ", %llu here", (unsigned long long)o->n_local);
	list_names(o, "local:", out);
	if (o->n_fell_back) {
		buf_putf(out, "; %llu of them because something failed",
			 (unsigned long long)o->n_fell_back);
		list_names(o, "fallback:", out);
	}
	if (o->n_retried) {
		buf_putf(out, "; %llu tried again", (unsigned long long)o->n_retried);
		list_names(o, "retry:", out);
	}
	buf_putf(out, "; CPU: %.1f s here, %.1f s on workers", seconds(o->local_us),
		 seconds(o->took.worker_cpu_us));
	put_gain(o, out);
	buf_putf(out, "\n");
}

/* ---- for programs ---- */

static json_t *names_json(const struct outcome *o, const char *prefix)
{
	json_t *list = json_object();

	for (size_t i = 0; i < o->n_entries; i++) {
		const struct counter *e = &o->entries[i];

		if (str_starts(e->name, prefix) && e->n)
			json_object_set_new(list, e->name + strlen(prefix),
					    json_integer((json_int_t)e->n));
	}
	return list;
}

static void set_int(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

static json_t *to_json(const struct outcome *o)
{
	json_t *j = json_object();

	json_object_set_new(j, "build", json_string(o->build));
	set_int(j, "status", (uint64_t)o->status);
	set_int(j, "wall_us", o->wall_us);
	set_int(j, "jobs", o->n_calls);
	set_int(j, "remote", o->n_remote);
	set_int(j, "here", o->n_local);
	set_int(j, "fell_back", o->n_fell_back);
	set_int(j, "tried_again", o->n_retried);
	set_int(j, "remote_percent", outcome_percent(o));
	json_object_set_new(j, "workers", names_json(o, "remote:"));
	json_object_set_new(j, "rules", names_json(o, "local:"));
	json_object_set_new(j, "failures", names_json(o, "fallback:"));
	json_object_set_new(j, "retries", names_json(o, "retry:"));
	set_int(j, "cpu_here_us", o->local_us);
	set_int(j, "cpu_workers_us", o->took.worker_cpu_us);
	set_int(j, "bytes_sent", o->took.bytes_out);
	set_int(j, "bytes_received", o->took.bytes_in);
	json_object_set_new(j, "speed_up", json_real(o->gain.speed_up));
	json_object_set_new(j, "limit", json_string(o->gain.limit));
	return j;
}

int outcome_write(const struct outcome *o, const char *path)
{
	json_t *j = to_json(o);
	FILE *f = streq(path, "-") ? fdopen(dup(1), "w") : fopen(path, "we");
	int r = f ? json_dumpf(j, f, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII) : -1;

	if (f && (fputc('\n', f) == EOF || r < 0)) {
		(void)fclose(f);
		r = -1;
	} else if (f) {
		r = fclose(f) == 0 ? 0 : -1;
	}
	json_decref(j);
	return r;
}

/* ---- builds that should have run elsewhere ---- */

unsigned outcome_percent(const struct outcome *o)
{
	uint64_t could = grown(o->n_calls, o->n_fixed);

	if (!could)
		/* Only what has its place here: nothing of it could have run elsewhere. */
		return o->n_calls > o->n_asked && !sum(o, "local:local-slot") ? 100 : 0;
	return (unsigned)(o->n_remote * 100 / could);
}

void outcome_lacks(const struct outcome *o, unsigned wanted, struct buf *out)
{
	_cleanup_buf_ struct buf why = BUF_INIT;

	buf_putf(out,
		 "concc: %u %% of what could run on workers did, and --require-remote wants "
		 "%u %%: ",
		 outcome_percent(o), wanted);
	if (o->n_calls == o->n_asked) {
		buf_putf(out, "no compiler call came through concc (concc(1) says how calls do)\n");
		return;
	}
	hint_most_local(o->entries, o->n_entries, o->run, &why);
	buf_putf(out, "%s\n",
		 why.len ? buf_cstr(&why) : "`concc report` says why each stayed here");
}
