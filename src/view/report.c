/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/view.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "builds.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/wrapper.h"
#include "json.h"
#include "page.h"

static json_t *job_json(const struct record *r)
{
	static const char *const ends[] = {"", "exit", "signal"};
	json_t *o = json_object();

	set_text(o, "worker", r->worker);
	set_text(o, "rule", r->rule);
	set_text(o, "why", r->why);
	set_text(o, "program", r->program);
	set_text(o, "command", r->command);
	set_text(o, "subject", r->subject);
	set_text(o, "directory", r->cwd);
	set_int(o, "pid", r->pid);
	set_int(o, "tries", r->tries);
	set_text(o, "end", r->how < 3 ? ends[r->how] : "");
	set_int(o, "code", r->code);
	set_int(o, "arrived_us", r->arrived_us);
	set_int(o, "slot_us", r->slot_us);
	set_int(o, "sent_us", r->sent_us);
	set_int(o, "said_us", r->first_output_us);
	set_int(o, "ended_us", r->ended_us);
	set_int(o, "placed_us", r->committed_us);
	set_int(o, "user_us", r->utime_us);
	set_int(o, "system_us", r->stime_us);
	set_int(o, "wall_us", r->wall_us);
	set_int(o, "peak_kb", r->maxrss_kb);
	set_int(o, "bytes_back", r->bytes_back);
	set_int(o, "files_fetched", r->files_fetched);
	set_int(o, "bytes_fetched", r->bytes_fetched);
	set_int(o, "fuse_messages", r->fuse_messages);
	set_int(o, "worker_slots", r->worker_slots);
	set_int(o, "all_slots", r->all_slots);
	return o;
}

static json_t *build_json(const struct build *b, bool jobs)
{
	json_t *o = json_object(), *list = json_array();

	set_text(o, "build", b->id);
	set_int(o, "began_us", b->began_us);
	set_int(o, "ended_us", b->ended_us);
	set_int(o, "n_jobs", b->n);
	for (size_t i = 0; jobs && i < b->n; i++)
		json_array_append_new(list, job_json(&b->jobs[i]));
	if (jobs)
		json_object_set(o, "jobs", list);
	json_decref(list);
	return o;
}

/* What becomes of standard output is main()'s to see and say. */
static int print(json_t *o)
{
	int r = json_dumpf(o, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);

	json_decref(o);
	return r < 0 || putchar('\n') == EOF;
}

/* ---- files ---- */

static int cant_write(const char *name, int err)
{
	err_say("can't write %s: %s", name, err_text(err));
	return 1;
}

/* All of it or an error; a device or a FIFO is written to as a file is. */
static int write_file(const char *name, const struct buf *b)
{
	_cleanup_close_ int fd = -1;
	int r;

	if (streq(name, "-")) {
		r = write_full(STDOUT_FILENO, b->data, b->len);
		return r < 0 ? cant_write("to standard output", r) : 0;
	}
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
	if (fd < 0)
		return cant_write(name, -errno);
	r = write_full(fd, b->data, b->len);
	return r < 0 ? cant_write(name, r) : 0;
}

static uint32_t cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

static int write_files(const struct builds *all, const struct build *b, const struct view_report *o)
{
	_cleanup_buf_ struct buf page = BUF_INIT, trace = BUF_INIT;
	struct summary s;
	int r = 0;

	summary_make(&s, all, b, cores());
	if (o->page) {
		page_html(&page, &s);
		r = write_file(o->page, &page);
	}
	if (o->trace && r == 0) {
		page_trace(&trace, &s);
		r = write_file(o->trace, &trace);
	}
	summary_release(&s);
	return r;
}

/* ---- */

static int print_list(const struct builds *b)
{
	json_t *list = json_array();

	for (size_t i = 0; i < b->n; i++)
		json_array_append_new(list, build_json(&b->builds[i], false));
	return print(list);
}

static int no_build(const char *id)
{
	if (id)
		err_say("there is no record of a build %s; `concc report --list` has those that "
			"there are",
			id);
	else
		err_say("no build is recorded yet; they are from the first job on");
	return 1;
}

static int report(const struct builds *b, const struct view_report *o)
{
	const struct build *found;

	if (o->list)
		return print_list(b);
	found = builds_find(b, o->build);
	if (!found)
		return no_build(o->build);
	if (o->page || o->trace)
		return write_files(b, found, o);
	return print(build_json(found, true));
}

int view_report(const struct view_report *o)
{
	struct errmsg msg = {0};
	struct builds b;
	int r = builds_read(&b, SERVERS_FLUSH_MS, &msg);

	if (r < 0) {
		fprintf(stderr, "concc: %s\n", msg.text);
		return 1;
	}
	if (b.late)
		fprintf(stderr,
			"concc: the project server of %s does not answer: its last jobs may be "
			"missing\n",
			b.late);
	r = report(&b, o);
	builds_release(&b);
	return r;
}
