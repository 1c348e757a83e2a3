/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <stdlib.h>

#include "concc/str.h"
#include "json.h"
#include "page.h"

/*
 * A process for each place, a thread for each of its slots.  Each job is one complete event ("X");
 * what it did in it (the way there, the command, the way home) are events within, at its own times,
 * so that they nest.
 */

static json_t *event(const char *phase, const char *name, size_t place, uint32_t lane)
{
	json_t *e = json_object();

	set_text(e, "ph", phase);
	set_text(e, "name", name);
	set_int(e, "pid", place + 1);
	set_int(e, "tid", (uint64_t)lane + 1);
	return e;
}

static void add_name(json_t *list, const char *what, size_t place, uint32_t lane, const char *name)
{
	json_t *e = event("M", what, place, lane), *args = json_object();

	set_text(args, "name", name);
	json_object_set_new(e, "args", args);
	json_array_append_new(list, e);
}

static void add_place(json_t *list, const struct place *p, size_t i)
{
	json_t *order = event("M", "process_sort_index", i, 0), *args = json_object();

	set_int(args, "sort_index", i);
	json_object_set_new(order, "args", args);
	json_array_append_new(list, order);
	add_name(list, "process_name", i, 0, *p->name ? p->name : "this machine");
	for (uint32_t k = 0; k < p->n_lanes; k++) {
		char *name = xasprintf("slot %u", k + 1);

		add_name(list, "thread_name", i, k, name);
		free(name);
	}
}

static json_t *span(const char *category, const char *name, size_t place, uint32_t lane,
		    uint64_t from_us, uint64_t to_us)
{
	json_t *e = event("X", name, place, lane);

	set_text(e, "cat", category);
	set_int(e, "ts", from_us);
	set_int(e, "dur", to_us > from_us ? to_us - from_us : 0);
	return e;
}

static json_t *job_args(const struct record *r)
{
	json_t *o = json_object();

	set_text(o, "command", r->command);
	set_text(o, "directory", r->cwd);
	if (*r->rule)
		set_text(o, "rule", r->rule);
	if (*r->why)
		set_text(o, "why", r->why);
	set_int(o, "waited_us", r->slot_us);
	set_int(o, "user_us", r->utime_us);
	set_int(o, "system_us", r->stime_us);
	set_int(o, "peak_kb", r->maxrss_kb);
	set_int(o, "bytes_back", r->bytes_back);
	set_int(o, "bytes_fetched", r->bytes_fetched);
	set_int(o, "code", r->code);
	return o;
}

static void add_job(json_t *list, const struct summary *s, size_t i)
{
	const struct record *r = &s->build->jobs[i];
	uint64_t from = job_began_us(r), to = job_done_us(r), sent = r->arrived_us + r->sent_us;
	uint64_t ended = r->ended_us ? r->arrived_us + r->ended_us : to;
	size_t place = s->place_of[i];
	uint32_t lane = s->lane_of[i];
	json_t *e;

	if (lane == SUMMARY_NO_LANE)
		return;
	e = span(r->program, *r->subject ? r->subject : r->command, place, lane, from, to);
	json_object_set_new(e, "args", job_args(r));
	json_array_append_new(list, e);
	if (job_is_local(r))
		return;
	if (sent > from)
		json_array_append_new(list, span("part", "on its way", place, lane, from, sent));
	if (ended > sent && to > ended)
		json_array_append_new(list, span("part", "its command", place, lane, sent, ended));
	if (to > ended)
		json_array_append_new(list, span("part", "coming home", place, lane, ended, to));
}

void page_trace(struct buf *out, const struct summary *s)
{
	json_t *o = json_object(), *list = json_array(), *other = json_object();

	for (size_t i = 0; i < s->n_places; i++)
		add_place(list, &s->places[i], i);
	for (size_t i = 0; i < s->build->n; i++)
		add_job(list, s, i);
	set_text(other, "version", "concc " CONCC_VERSION);
	set_text(other, "build", s->build->id);
	json_object_set_new(o, "traceEvents", list);
	set_text(o, "displayTimeUnit", "ms");
	json_object_set_new(o, "otherData", other);
	put_json(out, o, JSON_COMPACT | JSON_PRESERVE_ORDER);
	buf_put_u8(out, '\n');
}
