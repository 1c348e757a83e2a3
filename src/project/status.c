/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "status.h"
#include "commits.h"
#include "disk.h"
#include "jobs.h"
#include "peer.h"
#include "place.h"
#include "results.h"
#include "serve.h"
#include "wake.h"
#include "watchers.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/offload.h"
#include "concc/str.h"

#define WAITING_SHOWN	10
#define HERE_SHOWN	10
#define JOBS_SHOWN_JSON 1000 /* of each state but those of workers */

static const char *state_word(const struct peer *p)
{
	switch (p->state) {
	case PEER_CONNECTING:
		return "connecting";
	case PEER_GREETING:
		return "starting";
	case PEER_UP:
		return p->unable ? "unable" : "up";
	case PEER_DOWN:
		return "down";
	case PEER_ASLEEP:
		return "asleep";
	}
	return "?";
}

static uint64_t own_cpu_us(void)
{
	struct rusage u;

	if (getrusage(RUSAGE_SELF, &u) < 0)
		return 0;
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void put_size(struct buf *out, uint64_t n)
{
	if (n < 10 * 1024)
		buf_putf(out, "%llu B", (unsigned long long)n);
	else if (n < 10 * 1024 * 1024)
		buf_putf(out, "%llu KB", (unsigned long long)n / 1024);
	else
		buf_putf(out, "%llu MB", (unsigned long long)n / (1024 * 1024));
}

/* Is one before it on the same host, which was told of with that one? */
static bool host_is_known(const struct peer *p)
{
	for (unsigned i = 0; i < p->index; i++) {
		const struct peer *q = p->server->peers[i];

		if (q->state == PEER_UP && q->load.slots && streq(q->hello.host, p->hello.host))
			return true;
	}
	return false;
}

/* Why a worker with a compiler of its own has no such jobs: one of the programs, or NULL. */
static const char *refusal_of(const struct peer *p)
{
	size_t it = 0;

	return map_next(&p->exes_refused, &it, NULL);
}

static void peer_text(const struct peer *p, struct buf *out)
{
	_cleanup_free_ char *asleep = wake_why_asleep(p);
	struct serve_counts contents;
	struct link_counts k;

	peer_counts(p, &k);
	buf_putf(out, "%-16s %-10s %3zu/%-4u %8llu job%-3s", p->conf->name, state_word(p),
		 p->jobs.n, p->slots, (unsigned long long)p->n_jobs, str_plural(p->n_jobs));
	put_size(out, k.bytes_out);
	buf_putf(out, " out, ");
	put_size(out, k.bytes_in);
	buf_putf(out, " in");
	if (p->state == PEER_UP)
		buf_putf(out, "  (%s, %s)", p->hello.host, p->how);
	buf_putf(out, "\n");
	if (p->state == PEER_UP && p->load.slots && !host_is_known(p))
		buf_putf(out,
			 "  its host: %u job%s of all clients running, %u waiting, %u slot%s, "
			 "%u core%s, load %u.%02u\n",
			 p->load.running, str_plural(p->load.running), p->load.waiting,
			 p->load.slots, str_plural(p->load.slots), p->hello.cpus,
			 str_plural(p->hello.cpus), p->load.loadavg / 100, p->load.loadavg % 100);
	if (refusal_of(p))
		buf_putf(out, "  %s\n", refusal_of(p));
	serve_counts(p, &contents);
	if (contents.n_fetches) {
		buf_putf(out, "  being sent contents of files: ");
		put_size(out, contents.sent_bytes);
		buf_putf(out, " of ");
		put_size(out, contents.wanted_bytes);
		buf_putf(out, "\n");
	}
	if (p->state == PEER_UP && p->unable) {
		buf_putf(out, "  %s\n  no jobs until it can\n", p->error);
	} else if (asleep) {
		buf_putf(out, "  %s\n", asleep);
	} else if (p->state == PEER_CONNECTING && *p->error) {
		buf_putf(out, "  %s\n  being tried again\n", p->error);
	} else if (p->state == PEER_DOWN && *p->error) {
		uint64_t now = now_ms();

		buf_putf(out, "  %s\n  next try in %llu s\n", p->error,
			 (unsigned long long)(p->retry_at_ms > now
						      ? (p->retry_at_ms - now + 999) / 1000
						      : 0));
	}
}

/* The first max of that state, in the order of their arrival; fn gets 1 for the first, and since
 * when it is in that state.  Returns how many there are. */
static unsigned each_job(const struct server *s, enum job_state state, unsigned max,
			 void (*fn)(void *data, unsigned place, const struct job *j,
				    uint64_t seconds),
			 void *data)
{
	unsigned n = 0;

	list_for_each (l, &s->jobs) {
		const struct job *j = container_of(l, struct job, of_server);

		if (j->state == state && ++n <= max)
			fn(data, n, j, (jobs_age_us(j) - j->record.sent_us) / 1000000);
	}
	return n;
}

static void running_line(void *data, unsigned place, const struct job *j, uint64_t seconds)
{
	buf_putf(data, "  running on %s", *j->record.worker ? j->record.worker : "this machine");
	if (j->second)
		buf_putf(data, ", and on %s as well,", j->second->conf->name);
	buf_putf(data, " for %llu s: %s\n", (unsigned long long)seconds, j->record.command);
}

static void waiting_line(void *data, unsigned place, const struct job *j, uint64_t seconds)
{
	buf_putf(data, "  waiting for a slot, place %u, for %llu s: %s\n", place,
		 (unsigned long long)seconds, j->record.command);
}

static void jobs_text(const struct server *s, struct buf *out)
{
	unsigned n;

	(void)each_job(s, JOB_AT_WORKER, UINT_MAX, running_line, out);
	n = each_job(s, JOB_LOCAL, HERE_SHOWN, running_line, out);
	if (n > HERE_SHOWN)
		buf_putf(out, "  and %u more on this machine\n", n - HERE_SHOWN);
	n = each_job(s, JOB_WAITING, WAITING_SHOWN, waiting_line, out);
	if (n > WAITING_SHOWN)
		buf_putf(out, "  and %u more\n", n - WAITING_SHOWN);
}

static bool is_stopped(uint32_t pid)
{
	_cleanup_free_ char *path = xasprintf("/proc/%u/stat", pid);
	_cleanup_buf_ struct buf state = BUF_INIT;
	const char *after;

	if (read_file_at(AT_FDCWD, path, 4096, &state) < 0)
		return false;
	after = strrchr(buf_cstr(&state), ')'); /* its name may have anything */
	return after && str_starts(after, ") T");
}

/* A slot is its wrapper's or its command's, and who is stopped keeps it. */
static void stopped_text(const struct server *s, struct buf *out)
{
	list_for_each (l, &s->jobs) {
		const struct record *r = &container_of(l, struct job, of_server)->record;

		if (is_stopped(r->pid))
			buf_putf(out,
				 "  stopped here (pid %u), and keeps its slot or place: %s; go on "
				 "with it (fg), or end it\n",
				 r->pid, r->command);
	}
}

#define STUCK_MS 2000 /* no disk that works takes that long for some kilobytes */

/* Who reads a report later can't see that something is missing in it. */
static void records_text(const struct server *s, struct buf *out)
{
	struct disk_counts k;

	disk_counts(s, &k);
	if (k.lost)
		buf_putf(out, "records of %llu job%s could not be written to %s: reports lack %s\n",
			 (unsigned long long)k.lost, str_plural(k.lost), s->cache,
			 k.lost == 1 ? "it" : "them");
	if (k.err)
		buf_putf(out, "records of jobs can't be written to %s: %s\n", s->cache,
			 err_text(k.err));
	else if (k.stuck_ms > STUCK_MS)
		buf_putf(out,
			 "records of %llu job%s wait for the disk of %s, which takes nothing for "
			 "%llu s\n",
			 (unsigned long long)k.waiting, str_plural(k.waiting), s->cache,
			 (unsigned long long)k.stuck_ms / 1000);
}

static uint64_t n_sent(const struct server *s)
{
	return s->counts.n_sent - s->counts.n_sent_before;
}

static uint64_t sent_home(const struct server *s)
{
	const uint64_t *n = map_get_str(&s->counts.reasons, "straggler");

	return n ? *n : 0;
}

/* Why jobs were sent back is not here: their wrappers count it, with what they made of it. */
void status_text(struct server *s, struct buf *out)
{
	const struct job_counts *k = &s->counts;
	uint64_t n_sent_home = sent_home(s);
	uint32_t waiting = pool_waiters(s->pool);

	buf_putf(out, "%-16s %-10s %-8s\n", "worker", "state", "running");
	for (unsigned i = 0; i < s->n_peers; i++)
		peer_text(s->peers[i], out);
	if (place_conf_error(s))
		buf_putf(
			out,
			"its configuration has changed and is wrong; the former one is in use: %s\n",
			place_conf_error(s));
	buf_putf(out,
		 "%llu job%s, %u running, %u waiting for a slot, up %llu s, %llu ms of CPU here\n",
		 (unsigned long long)k->n_sent, str_plural(k->n_sent), s->n_running, waiting,
		 (unsigned long long)(now_ms() - s->started_ms) / 1000,
		 (unsigned long long)own_cpu_us() / 1000);
	if (k->n_twice)
		buf_putf(out, "%llu straggler%s %s started a second time, %llu of them in vain\n",
			 (unsigned long long)k->n_twice, str_plural(k->n_twice),
			 k->n_twice == 1 ? "was" : "were",
			 (unsigned long long)(k->n_twice - k->n_twice_won));
	if (n_sent_home)
		buf_putf(out, "%llu straggler%s ran here instead\n",
			 (unsigned long long)n_sent_home, str_plural(n_sent_home));
	records_text(s, out);
	jobs_text(s, out);
	stopped_text(s, out);
}

#define WHY_MAX 2 /* workers in one line of a build's output */

void status_why(struct server *s, struct buf *out)
{
	const char *last = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < s->n_peers; i++) {
		const struct peer *p = s->peers[i];

		/* One that is being tried again may well be as it was. */
		if ((p->state != PEER_DOWN && p->state != PEER_CONNECTING) || !*p->error ||
		    (last && streq(last, p->error)))
			continue;
		last = p->error;
		if (n++ >= WHY_MAX)
			continue;
		buf_putf(out, "%s%s: %s", out->len ? "; " : "", p->conf->name, p->error);
	}
	if (n > WHY_MAX)
		buf_putf(out, "; and %u more", n - WHY_MAX);
}

static json_t *counters(const uint64_t *values, unsigned n, const char *(*name)(uint8_t))
{
	json_t *o = json_object();

	for (unsigned i = 0; i < n; i++) {
		char number[16];

		if (!values[i])
			continue;
		snprintf(number, sizeof(number), "%u", i);
		json_object_set_new(o, name ? name((uint8_t)i) : number,
				    json_integer((json_int_t)values[i]));
	}
	return o;
}

static void set_int(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

/* Of all clients, as the worker told last. */
static json_t *host_json(const struct peer *p)
{
	json_t *o = json_object();

	set_int(o, "running", p->load.running);
	set_int(o, "waiting", p->load.waiting);
	set_int(o, "others", p->load.others);
	set_int(o, "speed", p->load.speed);
	set_int(o, "slots", p->load.slots);
	set_int(o, "cores", p->hello.cpus);
	json_object_set_new(o, "load", json_real(p->load.loadavg / 100.0));
	set_int(o, "store_bytes", p->load.store_bytes);
	set_int(o, "store_max", p->load.store_max);
	return o;
}

/* Calls to a disk that threads make: how many there were, and how far they ever were behind. */
static json_t *disk_json(uint64_t done, uint64_t refused, uint64_t most_queued, uint64_t most_bytes,
			 uint64_t longest_us)
{
	json_t *o = json_object();

	set_int(o, "done", done);
	set_int(o, "refused", refused);
	set_int(o, "most_queued", most_queued);
	set_int(o, "most_bytes", most_bytes);
	set_int(o, "longest_us", longest_us);
	return o;
}

static json_t *hashing_json(const struct server *s)
{
	struct offload_counts c;

	offload_counts(s->hashing, &c);
	return disk_json(c.n_done, c.n_refused, c.most_queued, c.most_bytes, c.longest_us);
}

static json_t *loop_json(const struct server *s)
{
	struct loop_counts c;
	json_t *o = json_object();

	loop_counts(s->loop, &c);
	set_int(o, "long", c.n_long);
	set_int(o, "longest_us", c.longest_us);
	return o;
}

static json_t *commits_json(const struct server *s)
{
	struct commits_counts c;
	json_t *o = json_object();

	commits_counts(s, &c);
	set_int(o, "waiting", c.waiting);
	set_int(o, "pieces", c.n_pieces);
	return o;
}

static json_t *peer_json(const struct peer *p)
{
	_cleanup_free_ char *asleep = wake_why_asleep(p);
	struct serve_counts contents;
	json_t *o = json_pack("{ss ss ss ss}", "name", p->conf->name, "state", state_word(p), "how",
			      p->how, "error", p->error);
	struct link_counts k;

	serve_counts(p, &contents);
	peer_counts(p, &k);
	set_int(o, "slots", p->slots);
	set_int(o, "starts", p->n_starts);
	set_int(o, "start_us", wake_takes_us(p));
	json_object_set_new(o, "asleep", json_string(asleep ?: ""));
	set_int(o, "running", p->jobs.n);
	set_int(o, "jobs", p->n_jobs);
	set_int(o, "failed", p->n_failed);
	set_int(o, "cpu_us", p->cpu_us);
	set_int(o, "bytes_out", k.bytes_out);
	set_int(o, "bytes_in", k.bytes_in);
	set_int(o, "turns", k.turns);
	set_int(o, "rtt_us", p->link ? link_counts(p->link)->rtt_us : 0);
	set_int(o, "lists", p->lists);
	set_int(o, "asked_files", p->asked_files);
	set_int(o, "fetched_files", p->fetched_files);
	set_int(o, "fetched_bytes", p->fetched_bytes);
	set_int(o, "own_disk_files", p->fuse.own_files);
	set_int(o, "own_disk_bytes", p->fuse.own_bytes);
	set_int(o, "wanted_bytes", contents.wanted_bytes);
	set_int(o, "sent_bytes", contents.sent_bytes);
	set_int(o, "fuse_messages", p->fuse.total);
	json_object_set_new(o, "disk",
			    disk_json(p->fuse.disk_done, p->fuse.disk_refused,
				      p->fuse.disk_most_queued, p->fuse.disk_most_bytes,
				      p->fuse.disk_longest_us));
	json_object_set_new(o, "refusal", json_string(refusal_of(p) ?: ""));
	json_object_set_new(o, "host", host_json(p));
	json_object_set_new(o, "fuse", counters(p->fuse.by_opcode, PROTO_FUSE_OPS, NULL));
	json_object_set_new(o, "messages_out", counters(k.msgs_by_type_out, 256, msg_name));
	json_object_set_new(o, "messages_in", counters(k.msgs_by_type_in, 256, msg_name));
	return o;
}

static json_t *reasons_json(const struct server *s)
{
	json_t *o = json_object();
	const char *rule;
	uint64_t *n;
	size_t it = 0;

	while ((n = map_next(&s->counts.reasons, &it, &rule)))
		set_int(o, rule, *n);
	return o;
}

static json_t *cache_json(const struct results *r)
{
	json_t *o = json_object(), *why = json_object();
	struct cache_counts c;
	const char *reason;
	uint64_t *n;
	size_t it = 0;

	cache_counts(r->store, &c);
	set_int(o, "bytes", c.bytes);
	set_int(o, "hits", r->n_hits);
	set_int(o, "misses", r->n_misses);
	set_int(o, "kept", r->n_kept);
	set_int(o, "waiting", r->n_keeping);
	set_int(o, "lost", r->n_lost);
	while ((n = map_next(&r->reasons, &it, &reason)))
		set_int(why, reason, *n);
	json_object_set_new(o, "uncacheable", why);
	return o;
}

/* What it costs to know this machine's files. */
static json_t *tree_json(const struct server *s)
{
	json_t *o = json_object();
	struct tree_counts c;

	tree_counts(s->tree, &c);
	set_int(o, "listed", c.dirs);
	set_int(o, "names", c.entries);
	set_int(o, "watches", c.watches);
	set_int(o, "unwatched", c.swept);
	set_int(o, "lstats", c.stats);
	set_int(o, "overflows", c.overflows);
	return o;
}

static json_t *records_json(const struct server *s)
{
	json_t *o = json_object();
	struct disk_counts k;

	disk_counts(s, &k);
	set_int(o, "waiting", k.waiting);
	set_int(o, "lost", k.lost);
	json_object_set_new(o, "error", json_string(k.err ? err_text(k.err) : ""));
	return o;
}

static void running_item(void *data, unsigned place, const struct job *j, uint64_t seconds)
{
	const struct record *r = &j->record;
	json_t *o = json_pack("{ss ss sI}", "worker", r->worker, "command", r->command, "seconds",
			      (json_int_t)seconds);

	set_int(o, "us", jobs_age_us(j) - r->sent_us);
	if (j->second)
		json_object_set_new(o, "second_worker", json_string(j->second->conf->name));
	json_object_set_new(o, "program", json_string(r->program));
	json_object_set_new(o, "subject", json_string(r->subject));
	json_object_set_new(o, "directory", json_string(r->cwd)); /* not when it is no UTF-8 */
	json_array_append_new(data, o);
}

static void waiting_item(void *data, unsigned place, const struct job *j, uint64_t seconds)
{
	json_array_append_new(data, json_pack("{si ss sI}", "place", (int)place, "command",
					      j->record.command, "seconds", (json_int_t)seconds));
}

static json_t *jobs_json(const struct server *s, enum job_state state, unsigned max,
			 void (*fn)(void *data, unsigned place, const struct job *j,
				    uint64_t seconds))
{
	json_t *list = json_array();

	(void)each_job(s, state, max, fn, list);
	return list;
}

static json_t *status_object(struct server *s)
{
	json_t *workers = json_array(), *o;

	for (unsigned i = 0; i < s->n_peers; i++)
		json_array_append_new(workers, peer_json(s->peers[i]));
	o = json_pack("{ss si so so so}", "version", CONCC_VERSION, "pid", (int)getpid(), "workers",
		      workers, "runs", jobs_json(s, JOB_AT_WORKER, UINT_MAX, running_item),
		      "reasons", reasons_json(s));
	json_object_set_new(o, "here", jobs_json(s, JOB_LOCAL, JOBS_SHOWN_JSON, running_item));
	json_object_set_new(o, "waiters", jobs_json(s, JOB_WAITING, JOBS_SHOWN_JSON, waiting_item));
	json_object_set_new(o, "tree", tree_json(s));
	json_object_set_new(o, "records", records_json(s));
	json_object_set_new(o, "hashing", hashing_json(s));
	json_object_set_new(o, "loop", loop_json(s));
	json_object_set_new(o, "commits", commits_json(s));
	if (s->results)
		json_object_set_new(o, "cache", cache_json(s->results));
	if (place_conf_error(s))
		json_object_set_new(o, "configuration_error", json_string(place_conf_error(s)));
	set_int(o, "jobs", n_sent(s));
	set_int(o, "running", s->n_running);
	set_int(o, "waiting", pool_waiters(s->pool));
	set_int(o, "cpu_us", own_cpu_us());
	set_int(o, "twice", s->counts.n_twice);
	set_int(o, "twice_won", s->counts.n_twice_won);
	set_int(o, "sent_home", sent_home(s));
	set_int(o, "retried", s->counts.n_elsewhere);
	set_int(o, "local", s->counts.n_home);
	return o;
}

static void put(struct buf *out, json_t *o, size_t flags)
{
	char *text = json_dumps(o, flags | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);

	buf_putf(out, "%s\n", text ? text : "{}");
	free(text);
	json_decref(o);
}

void status_json(struct server *s, struct buf *out)
{
	put(out, status_object(s), JSON_INDENT(2));
}

void status_watch(struct server *s, json_t *recent, uint64_t n_ended, struct buf *out)
{
	json_t *o = status_object(s);

	set_int(o, "ended", n_ended);

	json_object_set(o, "recent", recent);
	set_int(o, "slots", pool_total(s->pool));
	put(out, o, JSON_COMPACT);
}

bool server_is_busy(const struct server *s)
{
	return s->n_running || pool_waiters(s->pool);
}

/* What its link has counted is counted no more, whenever it ends. */
static void reset_link_counts(struct peer *p)
{
	const struct link_counts *now = p->link ? link_counts(p->link) : NULL;

	p->past = (struct link_counts){0};
	if (!now)
		return;
	p->past.msgs_in -= now->msgs_in;
	p->past.msgs_out -= now->msgs_out;
	p->past.bytes_in -= now->bytes_in;
	p->past.bytes_out -= now->bytes_out;
	p->past.raw_in -= now->raw_in;
	p->past.raw_out -= now->raw_out;
	p->past.turns -= now->turns;
	for (int i = 0; i < 256; i++) {
		p->past.msgs_by_type_in[i] -= now->msgs_by_type_in[i];
		p->past.msgs_by_type_out[i] -= now->msgs_by_type_out[i];
	}
}

void status_reset(struct server *s)
{
	jobs_counts_reset(s);
	for (unsigned i = 0; i < s->n_peers; i++) {
		struct peer *p = s->peers[i];

		p->n_jobs = p->n_failed = p->fetched_bytes = p->fetched_files = p->lists = 0;
		p->cpu_us = 0;
		reset_link_counts(p);
	}
}
