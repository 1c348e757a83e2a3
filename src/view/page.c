/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "page.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "assets.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/view.h"
#include "pagedata.h"
#include "text.h"

/* ---- pieces ---- */

/* What is no UTF-8 is the browser's to replace; what is markup is text here. */
static void put_html(struct buf *out, const char *text)
{
	for (const char *p = text; *p; p++) {
		switch (*p) {
		case '<':
			buf_putf(out, "&lt;");
			break;
		case '>':
			buf_putf(out, "&gt;");
			break;
		case '&':
			buf_putf(out, "&amp;");
			break;
		case '"':
			buf_putf(out, "&quot;");
			break;
		case '\'':
			buf_putf(out, "&#39;");
			break;
		default:
			buf_put_u8(out, (uint8_t)*p);
		}
	}
}

/* The same of a text of ours for terminals, where `this` is to be typed. */
static void put_prose(struct buf *out, const char *text)
{
	bool typed = false;

	for (const char *p = text, *end; *p; p = end + (*end == '`')) {
		_cleanup_free_ char *part = NULL;

		end = p + strcspn(p, "`");
		part = xstrndup(p, (size_t)(end - p));
		put_html(out, part);
		if (*end)
			buf_putf(out, typed ? "</code>" : "<code>");
		typed = !typed;
	}
}

static unsigned percent(uint64_t part, uint64_t whole)
{
	return whole ? (unsigned)((part * 200 + whole) / (2 * whole)) : 0;
}

static void put_cell(struct buf *out, const char *class, const char *text)
{
	buf_putf(out, "<td class=\"%s\">", class);
	put_html(out, text);
	buf_putf(out, "</td>");
}

static void put_number_cell(struct buf *out, uint64_t n)
{
	buf_putf(out, "<td class=\"num\">%llu</td>", (unsigned long long)n);
}

static void put_cell_of(struct buf *out, void (*put)(struct buf *out, uint64_t n), uint64_t n)
{
	buf_putf(out, "<td class=\"num\">");
	put(out, n);
	buf_putf(out, "</td>");
}

/* "1.32", or nothing when it is not known. */
static void put_speed_cell(struct buf *out, double speed)
{
	if (speed > 0)
		buf_putf(out, "<td class=\"num\">%.2f</td>", speed);
	else
		buf_putf(out, "<td class=\"num\">&ndash;</td>");
}

static const char *place_name(const char *worker)
{
	return *worker ? worker : "this machine";
}

static const char *what(const struct record *r)
{
	return *r->subject ? r->subject : r->command;
}

/* The script makes the name lead to its bar. */
static void put_what_cell(struct buf *out, const struct summary *s, size_t job)
{
	buf_putf(out, "<td class=\"what\" data-job=\"%zu\">", job);
	put_html(out, what(&s->build->jobs[job]));
	buf_putf(out, "</td>");
}

static void put_no_row(struct buf *out, unsigned columns, const char *text)
{
	buf_putf(out, "<tr class=\"none\"><td colspan=\"%u\">%s</td></tr>\n", columns, text);
}

/* ---- the head ---- */

static void title(struct buf *out, const struct summary *s)
{
	buf_putf(out, "Build ");
	put_html(out, s->build->id);
}

static void when(struct buf *out, const struct summary *s)
{
	time_t t = (time_t)(s->build->began_us / 1000000);
	char text[64] = "";
	struct tm tm;

	if (localtime_r(&t, &tm))
		(void)strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %z", &tm);
	put_html(out, text);
	if (s->build->n) {
		buf_putf(out, ", in ");
		put_html(out, s->build->jobs[0].cwd);
	}
}

static void jobs(struct buf *out, const struct summary *s)
{
	buf_putf(out, "%zu", s->build->n);
}

static void jobs_note(struct buf *out, const struct summary *s)
{
	buf_putf(out, "%zu failed, %zu tried again", s->n_failed, s->n_retried);
}

static void wall(struct buf *out, const struct summary *s)
{
	put_span(out, s->wall_us);
}

static void wall_note(struct buf *out, const struct summary *s)
{
	buf_putf(out, "from the first job to the last one's end");
}

static void remote(struct buf *out, const struct summary *s)
{
	buf_putf(out, "%u&nbsp;%%", percent(s->n_remote, s->build->n));
}

static void remote_note(struct buf *out, const struct summary *s)
{
	buf_putf(out, "%zu job%s on %zu worker%s, %zu here", s->n_remote, str_plural(s->n_remote),
		 s->n_workers, str_plural(s->n_workers), s->n_local);
}

static void speedup(struct buf *out, const struct summary *s)
{
	if (s->n_remote)
		buf_putf(out, "%.1f&times;", summary_speed_up(s));
	else
		buf_putf(out, "&ndash;");
}

static void speedup_note(struct buf *out, const struct summary *s)
{
	if (s->n_remote) {
		buf_putf(out, "estimate: at least ");
		put_span(out, s->alone_us);
		buf_putf(out, " on %u core%s, see below. ", s->cores, str_plural(s->cores));
	}
	if (*summary_limit(s)) {
		buf_putf(out, "Limit: ");
		put_html(out, summary_limit(s));
	}
}

static void width(struct buf *out, const struct summary *s)
{
	if (s->slots)
		buf_putf(out, "%.1f of %llu", s->busy.mean, (unsigned long long)s->slots);
	else
		buf_putf(out, "%.1f", s->busy.mean);
}

static void width_note(struct buf *out, const struct summary *s)
{
	buf_putf(out, "on the average; %u at most, of %u that the build tool ran at once",
		 s->busy.most, s->offered.most);
}

static void bytes(struct buf *out, const struct summary *s)
{
	put_size(out, s->bytes_back + s->bytes_fetched);
}

static void bytes_note(struct buf *out, const struct summary *s)
{
	put_size(out, s->bytes_fetched);
	buf_putf(out, " fetched by workers, ");
	put_size(out, s->bytes_back);
	buf_putf(out, " brought back");
}

/* The one thing to change first, if there is any. */
static void advice(struct buf *out, const struct summary *s)
{
	if (!s->n_remote) {
		buf_putf(out, "No job ran on a worker; see below for what kept them here.");
	} else if (s->slots && s->offered.most < s->slots) {
		buf_putf(out,
			 "Your build tool ran %u job%s at once, and there were %llu slots: let it "
			 "run more, as <code>concc run</code> does by itself, or "
			 "<code>make -j%llu</code>.",
			 s->offered.most, str_plural(s->offered.most), (unsigned long long)s->slots,
			 (unsigned long long)s->slots);
	} else if (s->slots && s->offered.mean < (double)s->slots / 2) {
		buf_putf(out,
			 "On the average your build tool had %.1f jobs to run at once, and there "
			 "were %llu slots: what it waited for, at the end too, decides how long it "
			 "takes.",
			 s->offered.mean, (unsigned long long)s->slots);
	}
}

/* ---- tables ---- */

static void tail_note(struct buf *out, const struct summary *s)
{
	uint64_t us = s->wall_us > s->tail_us ? s->wall_us - s->tail_us : 0;

	buf_putf(out, "In the last ");
	put_span(out, us);
	buf_putf(out,
		 " (%u %% of the time) the build offered less than half as many jobs as on the "
		 "average; these ended last.",
		 percent(us, s->wall_us));
}

static void tail_rows(struct buf *out, const struct summary *s)
{
	for (size_t i = 0; i < s->n_tail; i++) {
		const struct record *r = &s->build->jobs[s->tail[i]];

		buf_putf(out, "<tr><td class=\"name\">");
		put_span(out, job_done_us(r) - s->build->began_us);
		buf_putf(out, "</td>");
		put_cell_of(out, put_span, job_done_us(r) - job_began_us(r));
		put_what_cell(out, s, s->tail[i]);
		put_cell(out, "name", r->program);
		put_cell(out, "name", place_name(r->worker));
		buf_putf(out, "</tr>\n");
	}
	if (!s->n_tail)
		put_no_row(out, 5, "Nothing: it ended with all that it offered.");
}

static void slowest_rows(struct buf *out, const struct summary *s)
{
	for (size_t i = 0; i < s->n_slowest; i++) {
		const struct record *r = &s->build->jobs[s->slowest[i]];

		buf_putf(out, "<tr>");
		put_cell_of(out, put_span, job_done_us(r) - job_began_us(r));
		if (job_is_local(r))
			put_cell(out, "num", "\xe2\x80\x93"); /* not known */
		else
			put_cell_of(out, put_span, r->utime_us + r->stime_us);
		put_what_cell(out, s, s->slowest[i]);
		put_cell(out, "name", r->program);
		put_cell(out, "name", place_name(r->worker));
		buf_putf(out, "</tr>\n");
	}
}

static void place_row(struct buf *out, const struct summary *s, const struct place *p)
{
	uint64_t all = 0;
	unsigned share;

	for (size_t i = 0; i < s->n_places; i++)
		all += s->places[i].busy_us;
	share = percent(p->busy_us, all);
	buf_putf(out, "<tr>");
	put_cell(out, "name", place_name(p->name));
	put_number_cell(out, p->n);
	put_number_cell(out, p->n_lanes);
	if (p->slots)
		put_number_cell(out, p->slots);
	else
		put_cell(out, "num", "\xe2\x80\x93");
	put_cell_of(out, put_span, p->busy_us);
	if (*p->name)
		put_cell_of(out, put_span, p->cpu_us);
	else
		put_cell(out, "num", "\xe2\x80\x93");
	buf_putf(out,
		 "<td class=\"name\"><meter min=\"0\" max=\"100\" value=\"%u\"></meter> %u "
		 "%%</td>",
		 share, share);
	put_speed_cell(out, p->speed);
	put_speed_cell(out, p->speed_local);
	put_cell_of(out, put_size, p->bytes_fetched);
	put_cell_of(out, put_size, p->bytes_back);
	buf_putf(out, "</tr>\n");
}

static void places_rows(struct buf *out, const struct summary *s)
{
	for (size_t i = 0; i < s->n_places; i++)
		place_row(out, s, &s->places[i]);
}

static void places_note(struct buf *out, const struct summary *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_places; i++)
		n += s->places[i].speed_local > 0 ? s->places[i].n_compared : 0;
	buf_putf(out,
		 "Busy: as long as jobs had slots. Speed: by the CPU time of each program's jobs, "
		 "against all workers of this build; 2 is twice as fast. ");
	if (n)
		buf_putf(out,
			 "Against here: by %zu job%s, of this build and others on record, that "
			 "ran on this machine once as well.",
			 n, str_plural(n));
	else
		buf_putf(out, "Against here: not known, since too little of what workers did ran "
			      "on this machine as well.");
}

static void rule_row(struct buf *out, const struct rule_use *u)
{
	const char *text = view_rule_text(u->rule), *remedy = view_remedy(u->rule);

	buf_putf(out, "<tr>");
	put_cell(out, "name", u->rule);
	put_number_cell(out, u->n);
	put_cell_of(out, put_span, u->us);
	buf_putf(out, "<td class=\"what\">");
	if (text)
		put_prose(out, text);
	else
		put_html(out, u->why);
	if (text && *u->why) {
		buf_putf(out, " <span class=\"note\">(");
		put_html(out, u->why);
		buf_putf(out, ")</span>");
	}
	buf_putf(out, "</td>");
	buf_putf(out, "<td class=\"what\">");
	put_prose(out, remedy ? remedy : "\xe2\x80\x93");
	buf_putf(out, "</td></tr>\n");
}

static void rules_rows(struct buf *out, const struct summary *s)
{
	for (size_t i = 0; i < s->n_rules; i++)
		rule_row(out, &s->rules[i]);
	if (!s->n_rules)
		put_no_row(out, 5, "None did.");
}

/* ---- the foot ---- */

static void version(struct buf *out, const struct summary *s)
{
	buf_putf(out,
		 "Made by concc %s of what is kept of each job; <code>concc report</code> has "
		 "it as JSON",
		 CONCC_VERSION);
}

static void alone_note(struct buf *out, const struct summary *s)
{
	buf_putf(out, "What this machine alone would have needed is an estimate: the CPU time of "
		      "all jobs on workers (");
	put_span(out, s->cpu_us);
	buf_putf(out, ", %s), and the time of those that ran here (",
		 s->scaled ? "as long as it takes here, where that is known"
			   : "taken to be as fast as this machine");
	put_span(out, s->local_us);
	buf_putf(out,
		 "), on %u core%s without a gap, or the longest job when that is more. A real "
		 "build has gaps.",
		 s->cores, str_plural(s->cores));
}

static void css(struct buf *out, const struct summary *s)
{
	buf_append(out, asset_report_css, strlen(asset_report_css));
}

static void js(struct buf *out, const struct summary *s)
{
	buf_append(out, asset_report_js, strlen(asset_report_js));
}

/* ---- the skeleton ---- */

static const struct field {
	const char *name;
	void (*put)(struct buf *out, const struct summary *s);
} fields[] = {
	{"title", title},
	{"when", when},
	{"jobs", jobs},
	{"jobs-note", jobs_note},
	{"wall", wall},
	{"wall-note", wall_note},
	{"remote", remote},
	{"remote-note", remote_note},
	{"speedup", speedup},
	{"speedup-note", speedup_note},
	{"width", width},
	{"width-note", width_note},
	{"bytes", bytes},
	{"bytes-note", bytes_note},
	{"advice", advice},
	{"tail-note", tail_note},
	{"tail-rows", tail_rows},
	{"slowest-rows", slowest_rows},
	{"places-rows", places_rows},
	{"places-note", places_note},
	{"rules-rows", rules_rows},
	{"version", version},
	{"alone-note", alone_note},
	{"css", css},
	{"js", js},
	{"data", page_data},
};

static void put_field(struct buf *out, const char *name, size_t n, const struct summary *s)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		if (strlen(fields[i].name) == n && !memcmp(fields[i].name, name, n))
			fields[i].put(out, s);
}

void page_html(struct buf *out, const struct summary *s)
{
	const char *p = asset_report_html, *open, *end;

	while ((open = strstr(p, "{{")) && (end = strstr(open, "}}"))) {
		buf_append(out, p, (size_t)(open - p));
		put_field(out, open + 2, (size_t)(end - open - 2), s);
		p = end + 2;
	}
	buf_append(out, p, strlen(p));
}
