/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/project.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/commit_mark.h"
#include "concc/cores.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/offload.h"
#include "concc/str.h"
#include "server.h"
#include "commits.h"
#include "disk.h"
#include "estimator.h"
#include "exe.h"
#include "jobs.h"
#include "listen.h"
#include "peers.h"
#include "place.h"
#include "results.h"
#include "run.h"
#include "straggler.h"
#include "system.h"
#include "wake.h"
#include "watchers.h"
#include "working_set.h"
#include "workspaces.h"

/* Digests learnt are written at most this often; losing them costs a transfer. */
#define SAVE_MS (60 * 1000)
/* The longest that a command of a worker can take to end: see spawn.c, which kills it before. */
#define CHILDREN_MS (10 * 1000)
/* Without any worker it has some 15 open; what can't be opened after them is done without. */
#define FILES_MIN 32
/* What is hashed on a thread: one, since there is one disk. */
#define HASHING_THREADS 4 /* one for each lane */
#define HASHING_END_S	2 /* nobody needs it any more */

/* ---- life ---- */

static void idle(void *data)
{
	struct server *s = data;

	/* Who waits for a worker to start is something to do. */
	if (s->n_running || (!s->replaced && pool_waiters(s->pool))) {
		server_busy(s);
		return;
	}
	log_info("nothing to do for %u s: leaving", s->conf->idle_timeout_s);
	server_stop(s);
}

void server_abandon(struct server *s)
{
	if (s->abandoned)
		return;
	s->abandoned = true;
	listen_take_all(s); /* who has found us is served */
	place_stop_watching(s);
	loop_remove(steal_ptr(&s->calls_source)); /* its successor hears them */
	listen_close(s);
	fd_close(&s->lock_fd); /* and with it what says that we are ready */
	server_busy(s);
}

void server_busy(struct server *s)
{
	if (s->abandoned && !s->n_running && s->n_clients == watchers_count(s))
		server_stop(s);
	if (s->idle_timer)
		loop_timer_set(s->idle_timer, (uint64_t)s->conf->idle_timeout_s * 1000);
}

void server_stop(struct server *s)
{
	s->stopping = true;
	loop_quit(s->loop);
}

void server_ready_check(struct server *s)
{
	watchers_tell(s);
	if (s->stopping || s->abandoned || s->replaced)
		return;
	peers_try_agent(s);
	/* One worker is enough to begin; with none, only after all have been tried. */
	if (!s->ready && (peers_any_up(s) || peers_settled(s))) {
		listen_say_ready(s);
		place_check_conf(s); /* it may have changed before we watched it */
	}
	if (!peers_settled(s))
		return;
	list_for_each_safe (e, &s->clients)
		client_settled(container_of(e, struct client, of_server));
}

/* ---- set-up ---- */

static void tree_send(void *data, unsigned peer, uint8_t type, const struct buf *b)
{
	struct server *s = data;
	struct link *k = peer < s->n_peers ? s->peers[peer]->link : NULL;

	if (!k)
		return;
	/* A listing is waited for; a change must only be there before the next job. */
	if (type == MSG_DIR)
		link_send_buf(k, type, LINK_PRIO, b);
	else
		link_send_later(k, type, b);
}

static bool tree_is_partial(void *data, const char *path)
{
	return system_is_partial(data, path);
}

/* At each name that is looked at: not for all of many workers. */
void server_pulse(struct server *s)
{
	if (now_ms() - loop_woke_ms(s->loop) < LINK_PULSE_MS)
		return;
	for (unsigned i = 0; i < s->n_peers; i++)
		if (s->peers[i]->link)
			link_pulse(s->peers[i]->link);
}

static void tree_is_busy(void *data)
{
	server_pulse(data);
}

static void close_run(void *arg)
{
	(void)close((int)(intptr_t)arg);
}

static void tree_close_large(void *data, int fd)
{
	struct server *s = data;

	if (s->hashing)
		(void)offload_put(s->closing, close_run, NULL, (void *)(intptr_t)fd, 0); /* few */
	else
		(void)close(fd); /* it is about to end */
}

/* Between jobs too, so that the kernel's queue does not overflow during an edit spree. */
static void on_tree_event(void *data, uint32_t events)
{
	struct server *s = data;

	tree_on_event(s->tree);
}

/*
 * A home that can't be written (none at all, read-only) must not keep a build here: what would stay
 * for the next one is then of this runtime directory only.
 */
static int choose_cache(struct server *s, struct errmsg *msg)
{
	struct errmsg why = {0};
	int r = cache_dir(&s->cache, &why);

	if (r == 0 && access(s->cache, W_OK) < 0)
		r = errmsg_set(&why, -errno, "can't write to %s: %s", s->cache, err_text(-errno));
	if (r == 0) {
		free(cache_dir_of_workers()); /* ours has been asked for */
		return 0;
	}
	free(s->cache);
	s->cache = path_join(s->dir, "cache");
	log_warn("%s; using %s", why.text, s->cache);
	/* For workers on this machine, too; but root's are others, with a place of their own. */
	if (geteuid() != 0)
		setenv("CONCC_CACHE_DIR", s->cache, 1);
	else
		unsetenv("CONCC_CACHE_DIR");
	r = path_mkdirs(s->cache, 0700);
	return r < 0 ? errmsg_set(msg, r, "can't make %s: %s", s->cache, err_text(r)) : 0;
}

static void open_commit_mark(struct server *s)
{
	int r = commit_mark_open(s->dir_fd, &s->commit_mark);

	if (r < 0)
		log_warn(
			"can't use %s/commit: %s; were this server killed, a wrapper could not tell "
			"whether results are in place in part",
			s->dir, err_text(r));
}

static char *hashes_path(const struct server *s)
{
	return path_join(s->cache, "digests");
}

static int open_hashes(struct server *s, struct errmsg *msg)
{
	_cleanup_free_ char *path = NULL;
	int r;

	r = choose_cache(s, msg);
	if (r < 0)
		return r;
	disk_open(s);
	open_commit_mark(s);
	path = hashes_path(s);
	r = hash_cache_open(path, &s->hashes);
	if (r == 0)
		results_open(s);
	return r < 0 ? errmsg_set(msg, r, "can't use %s: %s", path, err_text(r)) : 0;
}

static int set_up_tree(struct server *s, struct errmsg *msg)
{
	static const struct tree_ops ops = {.send = tree_send,
					    .busy = tree_is_busy,
					    .is_partial = tree_is_partial,
					    .close_large = tree_close_large};
	int r;

	r = open_hashes(s, msg);
	if (r < 0)
		return r;
	r = tree_new(&ops, s, s->hashes, &s->tree, msg);
	if (r < 0)
		return r;
	s->tree_source = loop_add_fd(s->loop, tree_event_fd(s->tree), LOOP_READ, on_tree_event, s);
	for (char **w = s->conf->workspaces; w && *w; w++) {
		r = workspaces_check(*w, msg);
		if (r == 0)
			r = tree_serve(s->tree, *w, true, msg);
		if (r < 0)
			return r;
	}
	return system_set_up(s, msg);
}

/* A worker on this machine has its cores already. */
static uint32_t local_slots(const struct conf *c)
{
	uint32_t cores = cores_usable();

	if (c->local_slots != CONF_LOCAL_AUTO)
		return c->local_slots;
	for (size_t i = 0; i < c->n_workers; i++)
		if (conf_worker_is_here(&c->workers[i]))
			return 0;
	return cores < POOL_SLOTS_MAX ? cores : POOL_SLOTS_MAX;
}

static int set_up_pool(struct server *s, struct errmsg *msg)
{
	uint32_t slots;
	int r, fd;

	r = pool_open(s->dir, &s->pool, msg);
	if (r < 0)
		return r;
	r = pool_reset(s->pool);
	if (r < 0)
		return errmsg_set(msg, r, "can't reset the pool in %s: %s", s->dir, err_text(r));
	pool_set_keeps_results(s->pool, s->results != NULL);
	r = pool_listen(s->pool, &fd, msg);
	if (r < 0)
		return r;
	s->calls_source = loop_add_fd(s->loop, fd, LOOP_READ, peers_on_call, s);
	slots = local_slots(s->conf);
	s->local_slots = slots;
	if (slots)
		r = pool_set(s->pool, POOL_LOCAL, slots, POOL_UP, 1000, msg);
	if (r < 0)
		return r;
	s->estimator = estimator_new(s);
	estimator_publish_local(s->estimator);
	s->stragglers = stragglers_new(s);
	return 0;
}

static void save_hashes(struct server *s)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_free_ char *path = NULL;

	/* There are none, nor a directory for them, when it ends before it has begun. */
	if (!s->hashes || !hash_cache_changes(s->hashes, &b))
		return;
	path = hashes_path(s);
	disk_replace(s, path, &b);
}

static void on_save(void *data)
{
	struct server *s = data;

	/* What the disk has not taken yet is not made longer. */
	if (!disk_is_replacing(s)) {
		save_hashes(s);
		working_sets_save(s);
	}
	loop_timer_set(s->save_timer, SAVE_MS);
}

static void on_signal(void *data, int signo)
{
	log_info("stopped by signal %d", signo);
	server_stop(data);
}

/* Of who starts us there stays what can't be shed: see caller.h. */
static void begin_life(struct server *s)
{
	caller_shed(); /* limits too: one fd per wrapper, make -j2000 must work */
	caller_read(&s->own);
	namespaces_look(&s->namespaces);
	/* A file that is larger than we may write is an error like a full disk. */
	(void)signal(SIGXFSZ, SIG_IGN);
}

static void on_hashed(void *data, uint32_t events)
{
	offload_dispatch(((struct server *)data)->hashing);
}

void server_set_up_hashing(struct server *s)
{
	s->hashing = offload_new(HASHING_THREADS, 0);
	s->comparing = offload_lane(s->hashing);
	s->reading = offload_lane(s->hashing);
	s->closing = offload_lane(s->hashing);
	s->looking = offload_lane(s->hashing);
	commits_open(s);
	s->hashing_source = loop_add_fd(s->loop, offload_event_fd(s->hashing), LOOP_READ, on_hashed,
					s);
}

static int set_up(struct server *s, struct errmsg *msg)
{
	int r;

	begin_life(s);
	listen_set_up(s);
	if (listen_fd_limit(s) < FILES_MIN)
		return errmsg_set(
			msg, -EMFILE,
			"only %d files may be open (`ulimit -n`): the project server needs "
			"%d, and one for each job",
			listen_fd_limit(s), FILES_MIN);
	r = runtime_dir_open(&s->dir, &s->dir_fd, msg);
	if (r < 0)
		return r;
	r = listen_lock(s, msg);
	if (r < 0)
		return r;
	if (s->conf->n_workers > TREE_PEERS_MAX)
		return errmsg_set(msg, CONCC_E_TOOBIG,
				  "%zu workers are configured; at most %d work", s->conf->n_workers,
				  TREE_PEERS_MAX);
	r = loop_new(&s->loop);
	if (r < 0)
		return errmsg_set(msg, r, "can't make an event loop: %s", err_text(r));
	if (!loop_add_signal(s->loop, SIGTERM, on_signal, s) ||
	    !loop_add_signal(s->loop, SIGINT, on_signal, s))
		return errmsg_set(msg, -errno, "can't wait for signals: %s", err_text(-errno));
	server_set_up_hashing(s);
	r = set_up_tree(s, msg);
	if (r < 0)
		return r;
	r = set_up_pool(s, msg);
	if (r < 0)
		return r;
	r = listen_open(s, msg);
	if (r == 0)
		r = place_watch(s, msg);
	if (r < 0)
		return r;
	if (s->conf->idle_timeout_s) {
		s->idle_timer = loop_add_timer(s->loop, 0, idle, s);
		server_busy(s);
	}
	s->save_timer = loop_add_timer(s->loop, SAVE_MS, on_save, s);
	peers_start(s);
	server_ready_check(s);
	return 0;
}

/* Commands that lead to workers end when their input does; containers take a moment. */
static void end_peers(struct server *s)
{
	/* First all jobs, whose end looks at every peer. */
	for (unsigned i = 0; i < s->n_peers; i++)
		run_peer_gone(s->peers[i], "the project server ends");
	for (unsigned i = 0; i < s->n_peers; i++)
		peer_free(s->peers[i]);
	s->n_peers = 0;
	wake_close(s);
	/* With nobody to hear their calls, wrappers start another server. */
	loop_remove(steal_ptr(&s->calls_source));
	loop_remove(steal_ptr(&s->tree_source));
	loop_remove(steal_ptr(&s->save_timer));
	loop_remove(steal_ptr(&s->idle_timer));
	stragglers_free(steal_ptr(&s->stragglers));
	if (s->loop && loop_run_children(s->loop, CHILDREN_MS) == -ETIMEDOUT)
		log_warn("a worker's command does not end");
}

/* Of some the end of the connection says that all is down, or all records written. */
static void end_clients(struct server *s, bool all)
{
	list_for_each_safe (l, &s->clients) {
		struct client *c = container_of(l, struct client, of_server);

		if (all || (!c->stops && !c->flush))
			client_free(c);
	}
}

/* What others see of its end.  False: a thread hangs, in a call that nothing interrupts, and may
 * use what there is. */
static bool finish(struct server *s)
{
	bool ended;

	s->stopping = true;
	listen_say_ending(s);
	/* What is under way is finished, and told. */
	if (s->commits)
		commits_hurry(s, NULL);
	/* First, so that whoever comes now starts another server, which waits for us to end. */
	listen_end(s);
	place_close(s);
	working_sets_save(s);
	exes_stop(s);
	end_peers(s);
	loop_remove(steal_ptr(&s->hashing_source));
	ended = offload_free(steal_ptr(&s->hashing), HASHING_END_S);
	if (!ended)
		log_warn("ending although a disk does not answer that a file is read from");
	if (s->pool && !s->replaced)
		(void)pool_remove(s->pool, POOL_LOCAL); /* need not be there */
	pool_close(steal_ptr(&s->pool));
	ended &= results_close(s);
	commits_close(s);
	save_hashes(s);
	end_clients(s, false);
	jobs_close(s);
	/* The next server reads what this one leaves. */
	ended &= disk_close(s);
	fd_close(&s->lock_fd);
	end_clients(s, true);
	commit_mark_close(s->commit_mark);
	return ended;
}

static void release(struct server *s)
{
	working_sets_free(s);
	strv_free(s->work_dirs);
	tree_free(s->tree);
	hash_cache_free(s->hashes);
	system_free(s->system);
	strv_free(s->shown);
	exes_free(s);
	estimator_free(s->estimator);
	loop_free(s->loop);
	free(s->peers);
	free(s->next_agent);
	free(s->cache);
	free(s->dir);
	fd_close(&s->dir_fd);
}

int project_run(struct conf *conf, int ready_fd, struct errmsg *msg)
{
	struct server s = {
		.conf = conf,
		.dir_fd = -1,
		.lock_fd = -1,
		.ready_fd = ready_fd,
		.started_ms = now_ms(),
	};
	int r;

	list_init(&s.clients);
	list_init(&s.jobs);
	list_init(&s.observers);
	r = set_up(&s, msg);
	if (r == 0) {
		r = loop_run(s.loop);
		if (r < 0)
			errmsg_set(msg, r, "the event loop failed: %s", err_text(r));
	}
	/* Else all stays until the process ends, which is next. */
	if (finish(&s))
		release(&s);
	return r;
}
