/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "agent.h"
#include "crowd.h"
#include "journal.h"
#include "leftover.h"
#include "pace.h"
#include "presence.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "concc/worker.h"
#include "concc/sandbox.h"

/* No build waits for us to notice, and a client that was suspended for a moment keeps its jobs. */
#define PING_MS		  3000
#define DEAD_MS		  10000
#define GREET_MS	  120000 /* for who attaches to a container that started long ago */
#define DISK_END_S	  2	 /* contents that come from the client again */
#define ROOT_CACHE_PARENT "/var/cache"
#define CORE_PATTERN_MAX  4096 /* the kernel has 128 */

void agent_fail(struct agent *a, int err, const char *fmt, ...)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap); /* cut when too long */
	va_end(ap);
	errmsg_set(a->msg, err, "%s", text);
	a->result = err;
	msg_bye_encode(&b, text);
	link_send_buf(a->link, MSG_BYE, LINK_PRIO, &b);
	link_close(a->link);
	loop_quit(a->loop);
}

void agent_tell_counts(struct agent *a)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_mirror_counts m = {0};
	struct offload_counts disk;
	struct mirror_counts c;

	_Static_assert(MIRROR_OPCODES == PROTO_FUSE_OPS, "one table");
	mirror_counts(a->mirror, &c);
	if (c.total + c.own_files == a->counts_sent)
		return;
	a->counts_sent = c.total + c.own_files;
	m.total = c.total;
	m.own_files = c.own_files;
	m.own_bytes = c.own_bytes;
	offload_counts(a->disk, &disk);
	m.disk_done = disk.n_done;
	m.disk_refused = disk.n_refused;
	m.disk_most_queued = disk.most_queued;
	m.disk_most_bytes = disk.most_bytes;
	m.disk_longest_us = disk.longest_us;
	memcpy(m.by_opcode, c.by_opcode, sizeof(m.by_opcode));
	msg_mirror_counts_encode(&b, &m);
	link_send_buf(a->link, MSG_MIRROR_COUNTS, LINK_BULK, &b);
}

void agent_tell_guessed(struct agent *a)
{
	uint32_t dir_id;
	char **names;

	while ((names = mirror_guessed(a->mirror, &dir_id))) {
		_cleanup_buf_ struct buf b = BUF_INIT;

		msg_prefetch_encode(&b, dir_id, names);
		link_send_buf(a->link, MSG_GUESSED, LINK_BULK, &b);
		strv_free(names);
	}
}

/* ---- from the mirror and the launcher ---- */

static void want_dir(void *data, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct agent *a = data;

	msg_list_encode(&b, path);
	link_send_buf(a->link, MSG_LIST, LINK_PRIO, &b);
}

static void want_file(void *data, const struct msg_fetch *f)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct agent *a = data;

	msg_fetch_encode(&b, f);
	link_send_buf(a->link, MSG_FETCH, LINK_PRIO, &b);
}

static void failed(void *data, int64_t job, const char *path, int err)
{
	_cleanup_free_ char *text = NULL;
	enum failure why = FAILED_HERE;

	switch (err) {
	case CONCC_E_SPECIAL:
		why = FAILED_SPECIAL;
		text = xasprintf("the job looked for %s, which is %s of the client's", path,
				 err_text(err));
		break;
	case CONCC_E_DESCRIPTOR:
		why = FAILED_DESCRIPTOR;
		text = agent_job_descriptors(data, job);
		break;
	case -ENAMETOOLONG: /* no worker's job can be shown what no message can name */
		why = FAILED_NO_WAY_HOME;
		text = xasprintf("%.100s... could not be read by the job: %s", path, err_text(err));
		break;
	case -EACCES: /* what the client's user may not do, no other worker's job may */
		why = FAILED_NO_WAY_HOME;
		/* fall through */
	default:
		text = xasprintf("%s could not be read by the job: %s", path, err_text(err));
	}
	log_info("%s", text);
	agent_job_failed(data, job == MIRROR_SOME_JOB ? JOB_UNKNOWN : job, why, text);
}

static int64_t job_of(void *data, pid_t pid)
{
	return launcher_job_of(pid);
}

static bool makes(void *data, pid_t pid, const char *name)
{
	return sandbox_makes(pid, name);
}

static void outside(void *data, int64_t job, enum missing_how how, const char *path)
{
	const char *in_tmp = path_below(path, "/tmp");

	if (!in_tmp || !leftover_stays(in_tmp))
		agent_job_outside(data, job, how, path);
}

static bool has_own(void *data, const char *path)
{
	return sandbox_may_own(path);
}

static int open_own(void *data, const char *path, uint64_t size)
{
	const struct agent *a = data;

	return sandbox_open_own(path, size, a->home);
}

static void broken(void *data, int err)
{
	/* As the link says it of what is wrong at once. */
	agent_fail(data, err, "message %s (%u) from the peer: %s", msg_name(MSG_CONTENT),
		   MSG_CONTENT, err_text(err));
}

static const struct mirror_ops mirror_callbacks = {
	.want_dir = want_dir,
	.want_file = want_file,
	.failed = failed,
	.job_of = job_of,
	.makes = makes,
	.outside = outside,
	.has_own = has_own,
	.open_own = open_own,
	.broken = broken,
};

/* What of the client's system is the same as here need not be sent, where that may be. */
static struct mirror_ops callbacks_of(const struct agent *a)
{
	struct mirror_ops ops = mirror_callbacks;

	if (!(a->client.flags & HELLO_F_CLIENT_ROOT) || a->farm.own_disk == FARM_OWN_NO)
		ops.open_own = NULL;
	return ops;
}

static void on_mirror(void *data, uint32_t events)
{
	struct agent *a = data;

	mirror_dispatch(a->mirror);
	agent_job_start_waiting(a);
}

static void on_prepared(void *data, uint32_t job_id, int *upper_fds, size_t n, int tmp_fd)
{
	agent_job_prepared(data, job_id, upper_fds, n, tmp_fd);
}

static void on_ended(void *data, uint32_t job_id, const struct job_end *end)
{
	agent_job_ended(data, job_id, end);
}

static void on_beyond(void *data, uint32_t job_id, const char *text)
{
	agent_job_beyond(data, job_id, text);
}

static void on_look(void *data, uint32_t job_id, enum launch_look how, size_t workspace,
		    const char *path)
{
	agent_job_looks(data, job_id, how == LAUNCH_LOCKS ? EFFECT_LOCKED : EFFECT_ASKED, workspace,
			path);
}

static void on_launcher_lost(void *data, int wait_status)
{
	if (wait_status < 0)
		agent_fail(data, CONCC_E_UNAVAIL, "its launcher is ending, and hangs");
	else
		agent_fail(data, CONCC_E_UNAVAIL, "its launcher ended (wait status %d)",
			   wait_status);
}

static const struct launcher_ops launcher_callbacks = {
	.prepared = on_prepared,
	.ended = on_ended,
	.beyond = on_beyond,
	.looks = on_look,
	.lost = on_launcher_lost,
};

/* ---- set-up ---- */

/* Root's jobs are not root's: neither is what they need to keep, and where it can be reached. */
static int give_cache(struct errmsg *msg)
{
	const char *set = getenv("CONCC_CACHE_DIR");
	_cleanup_free_ char *cache = NULL;
	int r;

	if (sandbox_uid() == 0)
		return 0;
	if (!set || !*set) {
		(void)setenv("CONCC_CACHE_DIR", AGENT_ROOT_CACHE, 1);
		/* Small images lack it, and what cache_dir() makes is for its owner only. */
		(void)path_mkdirs(ROOT_CACHE_PARENT, 0755); /* a failure shows below */
	}
	r = cache_dir(&cache, msg);
	if (r == 0 && (r = sandbox_give(cache)) < 0)
		errmsg_set(msg, r, "can't give %s to uid %u: %s", cache, (unsigned)sandbox_uid(),
			   err_text(r));
	return r;
}

/* Places for what the root of jobs mounts there. */
static int name_outside(struct agent *a)
{
	bool theirs = a->client.flags & HELLO_F_CLIENT_ROOT;
	_cleanup_strv_ char **mirrored = root_mirrored(a->client.top, a->client.links, theirs);
	_cleanup_strv_ char **shown = root_shown();
	int r = 0;

	if (theirs)
		return root_name_places(a->mirror, mirrored);
	for (char **m = mirrored; *m && r == 0; m++) {
		_cleanup_free_ char *path = path_join("/", *m);

		r = mirror_outside(a->mirror, path, true);
	}
	for (char **s = shown; *s && r == 0; s++)
		r = mirror_outside(a->mirror, *s, true);
	return r;
}

static int bring_up(struct agent *a, struct errmsg *msg)
{
	struct sandbox_config sc = {
		.uid = a->client.uid,
		.gid = a->client.gid,
		.host = a->client.host,
		.top = a->client.top,
		.links = a->client.links,
		.client_root = a->client.flags & HELLO_F_CLIENT_ROOT,
	};
	struct mirror_config mc = {.uid = sc.uid, .gid = sc.gid};
	struct mirror_ops ops = callbacks_of(a);
	struct sandbox_paths paths;
	int r;

	r = give_cache(msg);
	if (a->client.flags & HELLO_F_CHECKUP)
		checkup_send(a);
	if (r < 0)
		return r;
	host_open_slots(a);
	r = sandbox_enter(&sc, &paths, msg);
	if (r < 0)
		return r;
	r = agent_store_open(a, msg);
	if (r < 0) {
		for (int i = 0; i < 2; i++)
			if (paths.fuse_fds[i] >= 0)
				(void)close(paths.fuse_fds[i]);
		return r;
	}
	agent_disk_start(a); /* not before: who enters a user namespace has one thread */
	mc.mountpoint = paths.mirror;
	mc.store = a->store;
	mc.disk = a->disk;
	mc.fuse_fd = paths.fuse_fds[0] >= 0 ? paths.fuse_fds[0] : 0;
	mc.outside_fd = paths.fuse_fds[1] >= 0 ? paths.fuse_fds[1] : 0;
	a->home = sandbox_own_home();
	r = mirror_start(&mc, &ops, a, &a->mirror, msg);
	if (r < 0)
		return r;
	a->mirror_source = loop_add_fd(a->loop, mirror_event_fd(a->mirror), LOOP_READ, on_mirror,
				       a);
	r = name_outside(a);
	if (r < 0)
		return errmsg_set(msg, r, "can't name the client's directories: %s", err_text(r));
	return launcher_start(a->loop, &sc, paths.mirror, &launcher_callbacks, a, &a->launcher,
			      msg);
}

/* ---- what the administrator allows ---- */

static int admit(struct agent *a, struct errmsg *msg)
{
	int r = farm_load(FARM_FILE, &a->farm, msg);

	if (r < 0)
		return r;
	if (farm_lets_in(&a->farm)) {
		a->max_jobs = agent_max_jobs(&a->farm);
		if (a->farm.log != FARM_LOG_NONE)
			a->journal = journal_new();
		return 0;
	}
	return errmsg_set(msg, -EACCES,
			  "the login with uid %u may not use this worker: `users` in " FARM_FILE
			  " has to name it",
			  (unsigned)getuid());
}

static void begin_journal(struct agent *a)
{
	if (!a->journal)
		return;
	journal_start(a->journal);
	journal_say(a->journal, "client=%s login=%u begins: %s", a->client.host, a->uid,
		    a->client.program);
}

static void end_journal(struct agent *a)
{
	if (a->journal && a->up)
		journal_say(a->journal, "client=%s login=%u ends: jobs=%llu refused=%llu lost=%llu",
			    a->client.host, a->uid, (unsigned long long)a->n_jobs,
			    (unsigned long long)a->n_refused, (unsigned long long)a->n_lost);
	journal_free(a->journal);
}

static int on_hello(struct agent *a, struct blob payload)
{
	struct errmsg msg = {0};
	int r;

	if (a->client.program)
		return CONCC_E_PROTO;
	r = msg_hello_decode(payload, &a->client);
	if (r < 0)
		return r;
	if (a->client.version != PROTO_VERSION) {
		agent_fail(
			a, CONCC_E_VERSION,
			"it runs concc %s (protocol %u), the client %s (protocol %u): upgrade %s",
			CONCC_VERSION, PROTO_VERSION, a->client.program, a->client.version,
			a->client.version < PROTO_VERSION ? "the client's" : "the worker's");
		return 0;
	}
	if (a->client.flags & HELLO_F_NEAR)
		link_compress_no_more(a->link);
	r = admit(a, &msg);
	if (r == 0)
		r = bring_up(a, &msg);
	if (r < 0) {
		agent_fail(a, r, "%s", *msg.text ? msg.text : err_text(r));
		return 0;
	}
	a->up = true;
	agent_set_limits(a, &(struct msg_limits){0});
	begin_journal(a);
	host_begin_load(a); /* before READY: the first jobs are chosen by it */
	link_send(a->link, MSG_READY, LINK_PRIO, NULL, 0);
	a->queue_timer = loop_add_timer(a->loop, 0, agent_job_queue_timeout, a);
	agent_store_look(a); /* it may be another session's bound that it was kept below */
	return 0;
}

/* ---- the end that somebody there wants ---- */

/* Jobs are not waited for: how long we have is not known, and they are as far elsewhere sooner. */
static void on_told_to_end(void *data, int signo)
{
	struct agent *a = data;

	agent_fail(a, CONCC_E_UNAVAIL, "%s", AGENT_TOLD_TO_END);
	a->result = 0; /* what was wanted */
}

bool agent_is_told_to_end(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 && sigismember(&pending, SIGTERM);
}

/* ---- messages ---- */

static int on_bye(struct agent *a)
{
	a->result = 0;
	link_close(a->link);
	loop_quit(a->loop);
	return 0;
}

static int on_message(void *data, uint8_t type, struct blob payload)
{
	struct agent *a = data;

	if (type == MSG_HELLO)
		return on_hello(a, payload);
	if (type == MSG_BYE)
		return on_bye(a);
	if (!a->up)
		return CONCC_E_PROTO;
	return agent_message(a, type, payload);
}

static void on_closed(void *data, int err, const char *text)
{
	struct agent *a = data;

	/* That the client went away is the usual end. */
	a->result = err == CONCC_E_CLOSED && a->client.program ? 0 : err;
	if (a->result < 0)
		errmsg_set(a->msg, err, "the link failed: %s",
			   text && *text ? text : err_text(err));
	loop_quit(a->loop);
}

static void on_drained(void *data)
{
	outbox_pump(data);
}

static const struct link_ops agent_link_ops = {
	.message = on_message,
	.closed = on_closed,
	.drained = on_drained,
};

static void free_tables(struct agent *a)
{
	struct msg_env *e;
	struct toolchain *t;
	struct caller *c;
	struct agent_job *k;
	size_t it = 0;

	while ((k = map_next(&a->jobs, &it, NULL)))
		agent_job_free(k);
	map_release(&a->jobs);
	it = 0;
	while ((e = map_next(&a->envs, &it, NULL))) {
		msg_env_release(e);
		free(e);
	}
	map_release(&a->envs);
	it = 0;
	while ((c = map_next(&a->callers, &it, NULL)))
		free(c);
	map_release(&a->callers);
	it = 0;
	while ((t = map_next(&a->exes, &it, NULL)))
		toolchain_free(t);
	map_release(&a->exes);
	strv_free(a->trees);
}

static bool cores_leave(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	return read_file_at(AT_FDCWD, "/proc/sys/kernel/core_pattern", CORE_PATTERN_MAX, &b) == 0 &&
	       caller_cores_leave(buf_cstr(&b));
}

int agent_run(int read_fd, int write_fd, struct errmsg *msg)
{
	struct link_config c = {
		.end = LINK_WORKER,
		.compress = true,
		.ping_ms = PING_MS,
		.dead_ms = DEAD_MS,
		.greet_ms = GREET_MS,
	};
	struct agent a = {.msg = msg};
	int r;

	list_init(&a.waiting);
	list_init(&a.queued);
	list_init(&a.sending);
	caller_read(&a.own);
	a.cores_leave = cores_leave();
	caller_widen(); /* many jobs at once need many pipes */
	host_begin_memory(&a);
	r = loop_new(&a.loop);
	if (r < 0)
		return errmsg_set(msg, r, "can't make an event loop: %s", err_text(r));
	/* Without a descriptor for it we just end, unless we are a container's first process. */
	(void)loop_add_signal(a.loop, SIGTERM, on_told_to_end, &a);
	a.link = link_new(a.loop, stream_from_fds(read_fd, write_fd), &c, &agent_link_ops, &a);
	a.uid = getuid();
	a.presence = presence_new(&a);
	host_say_hello(&a);
	r = loop_run(a.loop);
	if (r < 0)
		a.result = errmsg_set(msg, r, "the event loop failed: %s", err_text(r));
	/* The mirror first: a job that waits for one of its files can't even be killed. */
	loop_remove(a.mirror_source);
	mirror_abort(a.mirror);
	loop_remove(a.disk_source);
	if (!offload_free(steal_ptr(&a.disk), DISK_END_S)) {
		log_warn("ending although a call to the disk of %s hangs", a.store_dir);
		launcher_stop(a.launcher);
		end_journal(&a);
		return a.result; /* a thread uses what there is; the process ends */
	}
	mirror_stop(steal_ptr(&a.mirror));
	launcher_stop(a.launcher);
	free_tables(&a);
	loop_remove(a.queue_timer);
	loop_remove(a.load_timer);
	crowd_free(a.crowd);
	pace_free(a.pace);
	loop_remove(a.slots_source);
	end_journal(&a);
	presence_free(a.presence);
	farm_release(&a.farm);
	host_slots_free(a.slots);
	if (a.memory_fd >= 0)
		(void)close(a.memory_fd);
	store_close(a.store);
	free(a.store_dir);
	free(a.home);
	link_free(a.link);
	msg_hello_release(&a.client);
	loop_free(a.loop);
	return a.result;
}
