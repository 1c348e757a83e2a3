/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "server.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "absent.h"
#include "ahead.h"
#include "bare.h"
#include "estimator.h"
#include "greeting.h"
#include "links.h"
#include "mounted.h"
#include "push.h"
#include "run.h"
#include "serve.h"
#include "straggler.h"
#include "wake.h"
#include "watchers.h"
#include "working_set.h"

#define RETRY_MAX_S 60
/* A lost job is to run again in less than 5 s; 3 s for an answer is many retransmissions. */
#define PING_MS 1000
#define DEAD_MS 4000
/* From the first byte to READY: name spaces, mounts and the store's folder. */
#define GREET_MS 15000
/* Of one link.  A worker tells when that changes, every few seconds at most. */
#define STORAGE_MAX 1000

static void set_text(char **where, const char *text)
{
	free(*where);
	*where = xstrdup(text);
}

static void tell_pool(struct peer *p, enum pool_state state)
{
	struct errmsg msg = {0};
	int r;

	if (p->server->replaced)
		return;
	r = pool_set(p->server->pool, p->conf->name, p->slots, state, 1000, &msg);
	if (r < 0)
		log_err("can't tell the pool about %s: %s", p->conf->name, msg.text);
	estimator_publish_worker(p->server->estimator, p);
}

static void free_texts(struct map *m)
{
	size_t it = 0;
	char *text;

	while ((text = map_next(m, &it, NULL)))
		free(text);
	map_release(m);
}

static void forget_link(struct peer *p)
{
	serve_drop(p);
	ahead_free(p->ahead);
	p->ahead = ahead_new(p);
	tree_peer_reset(p->server->tree, p->index);
	map_release(&p->envs);
	map_release(&p->callers);
	map_release(&p->exes_sent);
	map_release(&p->exes_done);
	absent_forget(p);
	links_forget(p);
	bare_forget(p);
	p->n_trees = 0;
	p->outdated = false;
	map_release(&p->pushed);
	map_release(&p->sources);
	free_texts(&p->exes_refused);
	free_texts(&p->callers_refused);
	msg_hello_release(&p->hello);
	p->fuse = (struct msg_mirror_counts){0};
	p->load = (struct msg_load){0};
	loop_remove(steal_ptr(&p->greet_timer));
}

static void add_counts(struct link_counts *sum, const struct link_counts *c)
{
	sum->msgs_in += c->msgs_in;
	sum->msgs_out += c->msgs_out;
	sum->bytes_in += c->bytes_in;
	sum->bytes_out += c->bytes_out;
	sum->raw_in += c->raw_in;
	sum->raw_out += c->raw_out;
	sum->turns += c->turns;
	for (int i = 0; i < 256; i++) {
		sum->msgs_by_type_in[i] += c->msgs_by_type_in[i];
		sum->msgs_by_type_out[i] += c->msgs_by_type_out[i];
	}
}

void peer_counts(const struct peer *p, struct link_counts *ret)
{
	*ret = p->past;
	if (p->link)
		add_counts(ret, link_counts(p->link));
}

static void free_link(void *data)
{
	link_free(data);
}

/* What is started for waiters only is not tried again for nobody. */
static bool may_sleep(const struct peer *p)
{
	return p->conf->idle_timeout_s > 0;
}

static void fall_asleep(struct peer *p)
{
	p->state = PEER_ASLEEP;
	watchers_tell(p->server);
	tell_pool(p, POOL_ASLEEP);
	server_ready_check(p->server);
	wake_workers(p->server);
}

/* The next worker of the same section after *at, which begins at 0. */
static struct peer *next_sibling(const struct peer *p, unsigned *at)
{
	const struct server *s = p->server;

	while (p->conf->group && *at < s->n_peers) {
		struct peer *o = s->peers[(*at)++];

		if (o && o != p && o->conf->group && streq(o->conf->group, p->conf->group))
			return o;
	}
	return NULL;
}

static bool sibling_starts(const struct peer *p)
{
	const struct peer *o;
	unsigned at = 0;

	while ((o = next_sibling(p, &at))) {
		if (o->state == PEER_CONNECTING || o->state == PEER_GREETING)
			return true;
	}
	return false;
}

static void retry_after(struct peer *p, uint64_t delay_s)
{
	p->retry_at_ms = now_ms() + delay_s * 1000;
	if (!p->server->stopping)
		loop_timer_set(p->retry_timer, delay_s * 1000);
}

/*
 * What kept one of a section's workers from starting (no engine, a quota) keeps
 * the others, too: a job must not wait for each of them in turn.
 */
static void siblings_down(const struct peer *p, uint64_t delay_s)
{
	struct peer *o;
	unsigned at = 0;

	while ((o = next_sibling(p, &at))) {
		if (o->state != PEER_ASLEEP && !(o->state == PEER_DOWN && o->start_failed))
			continue;
		o->state = PEER_DOWN;
		o->start_failed = true;
		o->failures = p->failures;
		set_text(&o->error, p->error);
		tell_pool(o, POOL_DOWN);
		retry_after(o, delay_s);
	}
}

static void siblings_may_start(const struct peer *p)
{
	struct peer *o;
	unsigned at = 0;

	while ((o = next_sibling(p, &at))) {
		if (o->state != PEER_DOWN || !o->start_failed)
			continue;
		o->start_failed = false;
		o->failures = 0;
		loop_timer_set(o->retry_timer, 0);
		fall_asleep(o);
	}
}

static void retry(void *data)
{
	struct peer *p = data;
	struct server *s = p->server;

	if (may_sleep(p) && !(p->start_failed && (s->n_running || pool_waiters(s->pool))))
		fall_asleep(p);
	else if (!p->start_failed || !sibling_starts(p)) /* or how that goes will tell */
		peer_start(p); /* which the pool hears of when it is up, so that no job waits */
}

static void drop_link(struct peer *p)
{
	struct link *k = steal_ptr(&p->link);

	forget_link(p);
	if (!k)
		return;
	add_counts(&p->past, link_counts(k));
	link_close(k);
	/* We may be inside one of its callbacks. */
	loop_defer(p->server->loop, free_link, k);
}

/* Nothing to do for long.  Who has just taken a slot is about to bring a job. */
static void idle_over(void *data)
{
	struct peer *p = data;

	if (p->state != PEER_UP || p->jobs.n)
		return;
	tell_pool(p, POOL_ASLEEP); /* from here on no slot is handed out */
	if (pool_held(p->server->pool, p->conf->name)) {
		tell_pool(p, POOL_UP);
		peer_busy(p);
		return;
	}
	log_info("worker=%s asleep: nothing to do for %u s", p->conf->name,
		 p->conf->idle_timeout_s);
	drop_link(p);
	p->failures = 0;
	fall_asleep(p);
}

static void end_outdated(void *data)
{
	struct peer *p = data;

	if (!p->outdated || p->state != PEER_UP || p->jobs.n)
		return;
	drop_link(p);
	p->failures = 0;
	fall_asleep(p);
}

void peer_outdated(struct peer *p)
{
	if (p->outdated || p->state != PEER_UP)
		return;
	log_info("worker=%s is started anew: this machine's system has other mounts or directories",
		 p->conf->name);
	p->outdated = true;
	tell_pool(p, POOL_ASLEEP);
	peer_busy(p);
}

void peer_busy(struct peer *p)
{
	if (p->outdated && !p->jobs.n)
		loop_defer(p->server->loop, end_outdated, p); /* its last job is just going */
	if (p->sleep_timer)
		loop_timer_set(p->sleep_timer, p->state == PEER_UP && !p->jobs.n
						       ? (uint64_t)p->conf->idle_timeout_s * 1000
						       : 0);
}

/* The worker can't be used now, for this reason; tried again after 1, 2, 4 ... 60 s. */
static void peer_down(struct peer *p, const char *why)
{
	uint64_t delay_s = p->failures > 6 ? RETRY_MAX_S : 1ull << p->failures;

	p->start_failed = may_sleep(p) && p->state != PEER_UP;
	log_warn("worker=%s down: %s", p->conf->name, why);
	if (delay_s > RETRY_MAX_S)
		delay_s = RETRY_MAX_S;
	p->failures++;
	p->state = PEER_DOWN;
	set_text(&p->error, why);
	tell_pool(p, POOL_DOWN);
	run_peer_gone(p, why);
	drop_link(p);
	peer_busy(p);
	retry_after(p, delay_s);
	if (p->start_failed)
		siblings_down(p, delay_s);
	server_ready_check(p->server);
	wake_workers(p->server); /* another one instead */
}

void peer_fail(struct peer *p, const char *why)
{
	peer_down(p, why);
}

static void greet_timeout(void *data)
{
	peer_down(data, "it did not become ready in time");
}

static void tell_limits(struct peer *p)
{
	struct msg_limits m = {
		.memory = p->conf->job_memory,
		.processes = p->conf->job_processes,
		.time_s = p->conf->job_time_s,
	};
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!m.memory && !m.processes && !m.time_s)
		return;
	msg_limits_encode(&b, &m);
	link_send_buf(p->link, MSG_LIMITS, LINK_PRIO, &b);
}

static int on_ready(struct peer *p, struct blob payload)
{
	if (p->state != PEER_GREETING || !p->hello.program || payload.n)
		return CONCC_E_PROTO;
	loop_remove(steal_ptr(&p->greet_timer));
	p->state = PEER_UP;
	if (may_sleep(p))
		wake_learn(p, now_us() - p->began_us);
	p->unable = false;
	p->n_storage = 0;
	p->slots = p->conf->slots ? p->conf->slots : p->hello.cpus ? p->hello.cpus : 1;
	if (p->slots > POOL_SLOTS_MAX)
		p->slots = POOL_SLOTS_MAX;
	tell_limits(p);
	set_text(&p->error, "");
	log_info("worker=%s up: %s, %u slots, %s, %s", p->conf->name, p->hello.host, p->slots,
		 p->hello.program, p->how);
	tell_pool(p, POOL_UP);
	peer_busy(p);
	p->start_failed = false;
	siblings_may_start(p);
	server_ready_check(p->server);
	return 0;
}

/* A worker that can't write contents fails every job that needs one: those go elsewhere. */
static int on_storage(struct peer *p, struct blob payload)
{
	struct msg_storage m;
	_cleanup_free_ char *why = NULL;
	int r = msg_storage_decode(payload, &m);

	if (r < 0)
		return r;
	if (p->state != PEER_UP || ++p->n_storage > STORAGE_MAX) {
		msg_storage_release(&m);
		return CONCC_E_PROTO;
	}
	str_defuse(m.dir);
	if (m.error)
		why = xasprintf("it can't write to %s: %s; make room there, or have it elsewhere "
				"(CONCC_CACHE_DIR of its login)",
				m.dir, err_text(-(int)m.error));
	msg_storage_release(&m);
	p->unable = why != NULL;
	set_text(&p->error, why ? why : "");
	log_warn("worker=%s %s%s", p->conf->name, why ? "gets no jobs: " : "gets jobs again",
		 p->error);
	tell_pool(p, why ? POOL_DOWN : POOL_UP);
	wake_workers(p->server); /* another one instead */
	return 0;
}

static int on_list(struct peer *p, struct blob payload)
{
	_cleanup_free_ char *path = NULL;
	int r;

	r = msg_list_decode(payload, &path);
	if (r < 0)
		return r;
	p->lists++;
	p->asked_ms = now_ms();
	log_debug("worker=%s asks for %s", p->conf->name, path);
	tree_list(p->server->tree, p->index, path);
	if (tree_dir_id(p->server->tree, p->index, path)) {
		working_set_note_dir(p, path);
		ahead_listed(p, path);
	}
	return 0;
}

static int on_load(struct peer *p, struct blob payload)
{
	struct msg_load before = p->load;
	int r = msg_load_decode(payload, &p->load);

	if (r < 0)
		return r;
	log_debug("worker=%s load: %u running, %u waiting, %u slots", p->conf->name,
		  p->load.running, p->load.waiting, p->load.slots);
	estimator_note_load(p->server->estimator, p);
	if (p->load.others > before.others || p->load.speed < before.speed)
		stragglers_look(p->server->stragglers);
	watchers_tell(p->server);
	return 0;
}

static int on_bye(struct peer *p, struct blob payload)
{
	_cleanup_free_ char *text = NULL, *shown = NULL;
	int r;

	r = msg_bye_decode(payload, &text);
	if (r < 0)
		return r;
	shown = str_escape(text, strlen(text), 1000);
	peer_down(p, shown);
	return 0;
}

static int on_message(void *data, uint8_t type, struct blob payload)
{
	struct peer *p = data;

	switch (type) {
	case MSG_HELLO:
		return greeting_hear(p, payload);
	case MSG_BYE:
		return on_bye(p, payload);
	}
	if (!p->hello.program)
		return CONCC_E_PROTO;
	switch (type) {
	case MSG_READY:
		return on_ready(p, payload);
	case MSG_LIST:
		return on_list(p, payload);
	case MSG_FETCH:
		return serve_fetch(p, payload);
	case MSG_GUESSED:
		return ahead_guessed(p, payload);
	case MSG_MIRROR_COUNTS:
		return msg_mirror_counts_decode(payload, &p->fuse);
	case MSG_LOAD:
		return on_load(p, payload);
	case MSG_STORAGE:
		return on_storage(p, payload);
	case MSG_JOB_OUTPUT:
	case MSG_JOB_FILE:
	case MSG_JOB_DATA:
	case MSG_JOB_COMMIT:
	case MSG_JOB_EXIT:
	case MSG_INPUT_CREDIT:
	case MSG_JOB_QUEUED:
	case MSG_JOB_MISSING:
	case MSG_JOB_TRACE:
		return run_message(p, type, payload);
	}
	return CONCC_E_PROTO;
}

static void on_closed(void *data, int err, const char *text)
{
	peer_down(data, text && *text ? text : err_text(err));
}

static void on_drained(void *data)
{
	serve_more(data);
}

static const struct link_ops peer_link_ops = {
	.message = on_message,
	.closed = on_closed,
	.drained = on_drained,
};

static uint32_t connect_ms(const struct peer *p)
{
	uint32_t s = p->conf->connect_timeout_s;

	return (s ? s : p->server->conf->connect_timeout_s) * 1000;
}

void peer_connected(void *data, struct stream *s, int err, const char *msg, const char *how)
{
	struct peer *p = data;
	struct link_config c = {
		.end = LINK_CLIENT,
		/* A pipe to this same machine is faster than any compression. */
		.compress = p->conf->mirror == MIRROR_CONCC && !conf_worker_is_here(p->conf),
		.by_command = p->conf->command,
		.remedy = p->remedy,
		.ping_ms = PING_MS,
		.dead_ms = DEAD_MS,
		/* A command may have to fetch an image first, or stand in a queue. */
		.greet_ms = p->conf->command ? connect_ms(p) : 0,
	};

	p->connecting = NULL;
	if (!s) {
		peer_down(p, msg && *msg ? msg : err_text(err));
		return;
	}
	set_text(&p->how, how);
	p->state = PEER_GREETING;
	p->link = link_new(p->server->loop, s, &c, &peer_link_ops, p);
	p->greet_timer = loop_add_timer(p->server->loop, GREET_MS + c.greet_ms, greet_timeout, p);
	greeting_say(p);
}

void peer_start(struct peer *p)
{
	static const char *const plain[] = {
		[MIRROR_CONCC] = NULL, [MIRROR_SSHFS] = "sshfs", [MIRROR_NONE] = "none"};
	struct transport_config c = {
		.name = p->conf->name,
		.index = p->conf->index,
		.plain = plain[p->conf->mirror],
		.slots = p->conf->slots,
		.address = p->conf->address,
		.command = p->conf->command,
		.ssh = p->conf->ssh,
		.worker_program = p->conf->worker_program,
		.install = p->conf->install ? INSTALL_YES : INSTALL_NO,
		.timeout_ms = connect_ms(p),
	};

	loop_timer_set(p->retry_timer, 0); /* not by the clock as well */
	mounted_note(p);
	p->state = PEER_CONNECTING;
	p->n_starts++;
	p->began_us = now_us();
	p->connecting = transport_connect(p->server->loop, &c, peer_connected, p);
}

struct peer *peer_new(struct server *s, unsigned index, const struct conf_worker *conf)
{
	struct peer *p = xcalloc(1, sizeof(*p));

	p->server = s;
	p->index = index;
	p->conf = conf;
	p->state = PEER_DOWN;
	p->slots = conf->slots;
	p->how = xstrdup("");
	if (conf->worker_program)
		p->remedy = xstrdup("correct `program` in its section, or remove it");
	else if (!push_refused(conf))
		p->remedy = xasprintf(
			"`concc push %s` puts this one there%s", conf_worker_word(conf),
			conf->listed ? "" : ", as does `install = yes` in its section");
	else if (conf->command)
		p->remedy = xstrdup("have its `command` start a concc-worker of this version");
	p->error = xstrdup("");
	p->serving = serving_new();
	p->ahead = ahead_new(p);
	p->retry_timer = loop_add_timer(s->loop, 0, retry, p);
	if (may_sleep(p))
		p->sleep_timer = loop_add_timer(s->loop, 0, idle_over, p);
	/* Without a number of slots it has to be asked once how many it has. */
	if (may_sleep(p) && p->slots)
		p->state = PEER_ASLEEP;
	tell_pool(p, p->state == PEER_ASLEEP ? POOL_ASLEEP : POOL_DOWN);
	return p;
}

void peer_free(struct peer *p)
{
	if (!p)
		return;
	if (p->connecting)
		transport_cancel(p->connecting);
	run_peer_gone(p, "the project server ends");
	forget_link(p);
	if (p->link) {
		link_close(p->link);
		link_free(p->link);
	}
	if (!p->server->replaced)
		(void)pool_remove(p->server->pool, p->conf->name); /* may be gone by hand */
	loop_remove(p->retry_timer);
	loop_remove(p->sleep_timer);
	map_release(&p->jobs);
	serving_free(p->serving);
	ahead_free(p->ahead);
	free(p->how);
	free(p->remedy);
	free(p->error);
	free(p);
}
