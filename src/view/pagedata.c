/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "pagedata.h"

#include <stdlib.h>

#include "concc/map.h"
#include "concc/str.h"
#include "json.h"

struct strings {
	struct map numbers; /* text -> its number + 1 */
	json_t *list;
};

static json_t *number_of(struct strings *t, const char *text)
{
	uintptr_t n = (uintptr_t)map_get_str(&t->numbers, text);

	if (!n) {
		json_array_append_new(t->list, json_text(text));
		n = json_array_size(t->list);
		map_put_str(&t->numbers, text, (void *)n);
	}
	return json_integer((json_int_t)n - 1);
}

static json_t *columns(void)
{
	static const char *const names[] = {
		"place",   "lane",  "program", "subject", "command", "directory",
		"rule",	   "why",   "arrived", "slot",	  "sent",    "said",
		"ended",   "done",  "user",    "system",  "wall",    "peak_kb",
		"fetched", "files", "back",    "end",	  "code",    "tries",
	};
	json_t *list = json_array();

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		json_array_append_new(list, json_string(names[i]));
	return list;
}

/* 0 stays: it did not come to it. */
static uint64_t since(const struct record *r, uint64_t begin, uint64_t us)
{
	return us ? r->arrived_us - begin + us : 0;
}

static void put_numbers(json_t *job, const struct summary *s, const struct record *r)
{
	uint64_t begin = s->build->began_us;
	const uint64_t values[] = {
		r->arrived_us - begin,
		since(r, begin, r->slot_us),
		since(r, begin, r->sent_us),
		since(r, begin, r->first_output_us),
		since(r, begin, r->ended_us),
		job_done_us(r) - begin,
		r->utime_us,
		r->stime_us,
		r->wall_us,
		r->maxrss_kb,
		r->bytes_fetched,
		r->files_fetched,
		r->bytes_back,
		r->how,
		r->code,
		r->tries,
	};

	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++)
		json_array_append_new(job, json_integer((json_int_t)values[i]));
}

static json_t *job_row(const struct summary *s, struct strings *t, size_t i)
{
	const struct record *r = &s->build->jobs[i];
	json_t *job = json_array();

	json_array_append_new(job, json_integer(s->place_of[i]));
	json_array_append_new(
		job,
		json_integer(s->lane_of[i] == SUMMARY_NO_LANE ? -1 : (json_int_t)s->lane_of[i]));
	json_array_append_new(job, number_of(t, r->program));
	json_array_append_new(job, number_of(t, r->subject));
	json_array_append_new(job, number_of(t, r->command));
	json_array_append_new(job, number_of(t, r->cwd));
	json_array_append_new(job, number_of(t, r->rule));
	json_array_append_new(job, number_of(t, r->why));
	put_numbers(job, s, r);
	return job;
}

static json_t *place_row(const struct place *p)
{
	json_t *o = json_object();

	set_text(o, "name", p->name);
	set_int(o, "lanes", p->n_lanes);
	set_int(o, "slots", p->slots);
	return o;
}

/* In JSON all of these are in strings only, where they may be written so. */
static void put_for_script(struct buf *out, const struct buf *json)
{
	for (size_t i = 0; i < json->len; i++) {
		uint8_t c = json->data[i];

		if (c == '<' || c == '>' || c == '&')
			buf_putf(out, "\\u%04x", c);
		else
			buf_put_u8(out, c);
	}
}

void page_data(struct buf *out, const struct summary *s)
{
	struct strings t = {.list = json_array()};
	json_t *o = json_object(), *places = json_array(), *jobs = json_array();
	_cleanup_buf_ struct buf json = BUF_INIT;

	for (size_t i = 0; i < s->n_places; i++)
		json_array_append_new(places, place_row(&s->places[i]));
	for (size_t i = 0; i < s->build->n; i++)
		json_array_append_new(jobs, job_row(s, &t, i));
	set_int(o, "wall", s->wall_us);
	set_int(o, "tail", s->n_tail ? s->tail_us : s->wall_us);
	set_int(o, "slots", s->slots);
	json_object_set_new(o, "places", places);
	json_object_set_new(o, "columns", columns());
	json_object_set_new(o, "jobs", jobs);
	json_object_set_new(o, "strings", t.list);
	map_release(&t.numbers);
	put_json(&json, o, JSON_COMPACT | JSON_PRESERVE_ORDER);
	put_for_script(out, &json);
}
