/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/project.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/commit_mark.h"
#include "concc/cores.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "disk.h"
#include "server.h"
#include "jobs.h"
#include "pace.h"
#include "watchers.h"
#include "results.h"

/* Digests learnt are written at most this often; losing them costs a transfer. */
#define SAVE_MS (60 * 1000)
/* Connections that can't be taken, for want of memory of the kernel's, say, are tried again then;
 * so often in vain, and another server has to try. */
#define LISTEN_PAUSE_MS 1000
#define LISTEN_TRIES	3
/* How long a server may take to end: its workers' connections are closed, not waited for. */
#define TAKE_OVER_S 30
/* The longest that a command of a worker can take to end: see spawn.c, which kills it before. */
#define CHILDREN_MS (10 * 1000)
/* What is hashed on a thread: one, since there is one disk. */
#define HASHING_THREADS 1

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

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void stop_listening(struct server *s)
{
	loop_remove(steal_ptr(&s->listen_source));
	loop_remove(steal_ptr(&s->listen_timer));
	close_fd(&s->listen_fd);
}

static void on_connection(void *data, uint32_t events);

void server_abandon(struct server *s)
{
	if (s->abandoned)
		return;
	s->abandoned = true;
	if (s->listen_fd >= 0)
		on_connection(s, LOOP_READ); /* who has found us is served */
	loop_remove(steal_ptr(&s->place_source));
	loop_remove(steal_ptr(&s->calls_source)); /* its successor hears them */
	stop_listening(s);
	close_fd(&s->lock_fd); /* and with it what says that we are ready */
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

bool server_settled(const struct server *s)
{
	if (s->next_agent)
		return false; /* they are about to be tried again */
	for (unsigned i = 0; i < s->n_peers; i++) {
		const struct peer *p = s->peers[i];

		if (p->state != PEER_UP && p->state != PEER_ASLEEP &&
		    !(p->state == PEER_DOWN && p->failures))
			return false;
	}
	return true;
}

/* ---- the SSH agent of another login ---- */

bool server_has_down(const struct server *s)
{
	for (unsigned i = 0; i < s->n_peers; i++) {
		const struct peer *p = s->peers[i];

		if (p->state == PEER_DOWN || (p->state == PEER_CONNECTING && p->failures))
			return true;
	}
	return false;
}

static bool any_connecting(const struct server *s)
{
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (s->peers[i]->state == PEER_CONNECTING)
			return true;
	}
	return false;
}

/* Threads that connect read the environment, so it is changed when there are none. */
static void adopt_agent(void *data)
{
	struct server *s = data;
	_cleanup_free_ char *agent = NULL;

	if (!s->next_agent || any_connecting(s))
		return;
	agent = steal_ptr(&s->next_agent);
	log_info("SSH_AUTH_SOCK is %s from now on", agent);
	setenv("SSH_AUTH_SOCK", agent, 1);
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (s->peers[i]->state == PEER_DOWN)
			peer_start(s->peers[i]);
	}
	server_ready_check(s);
}

void server_offer_agent(struct server *s, const char *sock)
{
	free(s->next_agent);
	s->next_agent = xstrdup(sock);
	loop_defer(s->loop, adopt_agent, s);
}

static bool any_up(const struct server *s)
{
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (s->peers[i]->state == PEER_UP)
			return true;
	}
	return false;
}

static int lock_byte(int fd, int cmd, short type, off_t at)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

	return fcntl(fd, cmd, &fl) < 0 ? -errno : 0;
}

/* These locks are what wrappers look at; the line is for who started us. */
static void say_ready(struct server *s)
{
	/* First for those who speak our version: so nobody takes us for another. */
	int r = lock_byte(s->lock_fd, F_OFD_SETLK, F_WRLCK, PROTO_READY_BYTE);

	if (r == 0)
		r = lock_byte(s->lock_fd, F_OFD_SETLK, F_WRLCK, PROTO_THERE_BYTE);
	if (r < 0)
		log_err("can't lock project.lock: %s", err_text(r));
	if (s->ready_fd >= 0) {
		(void)write_full(s->ready_fd, "ready\n", 6); /* it may have gone */
		close(s->ready_fd);
		s->ready_fd = -1;
	}
	s->ready = true;
	close_fd(&s->spare_fd);
	server_learn_fd_limit(s); /* the lowest that there is now: the last that a limit takes */
	place_check_conf(s);	  /* it may have changed before we watched it */
}

void server_ready_check(struct server *s)
{
	watchers_tell(s);
	if (s->stopping || s->abandoned || s->replaced)
		return;
	if (s->next_agent)
		loop_defer(s->loop, adopt_agent, s);
	/* One worker is enough to begin; with none, only after all have been tried. */
	if (!s->ready && (any_up(s) || server_settled(s)))
		say_ready(s);
	if (!server_settled(s))
		return;
	list_for_each_safe (e, &s->clients)
		client_settled(container_of(e, struct client, of_server));
}

/* ---- workers that are asleep ---- */

static uint32_t starting_slots(const struct server *s)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < s->n_peers; i++) {
		const struct peer *p = s->peers[i];

		if (p->state == PEER_CONNECTING || p->state == PEER_GREETING)
			n += p->slots ? p->slots : 1;
	}
	return n;
}

void server_wake(struct server *s)
{
	uint32_t wanted, coming;

	if (s->stopping || s->replaced)
		return;
	wanted = pool_waiters(s->pool);
	coming = starting_slots(s);
	for (unsigned i = 0; i < s->n_peers && coming < wanted; i++) {
		struct peer *p = s->peers[i];

		if (p->state != PEER_ASLEEP)
			continue;
		coming += p->slots ? p->slots : 1;
		peer_start(p);
	}
}

static void on_call(void *data, uint32_t events)
{
	char name[POOL_NAME_MAX + 1];
	struct server *s = data;

	while (pool_next_call(s->pool, name) == 0) {
		struct peer *p = *name ? server_peer(s, name) : NULL;

		if (p && p->state == PEER_ASLEEP)
			peer_start(p);
	}
	server_wake(s);
}

/* ---- set-up ---- */

static void on_alarm(int signo)
{
	(void)signo;
}

/* A server that is about to end still holds the lock for a moment: worth waiting for. */
static int wait_instance_lock(int fd)
{
	struct sigaction sa = {.sa_handler = on_alarm}; /* without SA_RESTART: ends the wait */
	int r;

	(void)sigaction(SIGALRM, &sa, NULL);
	(void)alarm(TAKE_OVER_S);
	r = lock_byte(fd, F_OFD_SETLKW, F_WRLCK, 0);
	(void)alarm(0);
	return r;
}

static int take_instance_lock(struct server *s, struct errmsg *msg)
{
	struct flock ready = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 1};
	char pid[16];
	int r;

	s->lock_fd = openat(s->dir_fd, "project.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
			    0600);
	if (s->lock_fd < 0)
		return errmsg_set(msg, -errno, "can't open %s/project.lock: %s", s->dir,
				  err_text(-errno));
	r = lock_byte(s->lock_fd, F_OFD_SETLK, F_WRLCK, 0);
	if (r < 0 && fcntl(s->lock_fd, F_OFD_GETLK, &ready) == 0 && ready.l_type == F_UNLCK)
		r = wait_instance_lock(s->lock_fd);
	if (r < 0)
		return errmsg_set(msg, -EEXIST, "a project server runs already for %s", s->dir);
	/* For server_wait_end(), which does without on a full disk. */
	if (ftruncate(s->lock_fd, 0) == 0)
		(void)!write(s->lock_fd, pid,
			     (size_t)snprintf(pid, sizeof(pid), "%d\n", (int)getpid()));
	return 0;
}

void server_learn_fd_limit(struct server *s)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0)
		s->fd_limit = rl.rlim_cur < INT_MAX ? (int)rl.rlim_cur : INT_MAX;
	if (s->spare_fd < 0)
		s->spare_fd = open("/", O_PATH | O_CLOEXEC);
}

static int accept_one(const struct server *s)
{
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* With the descriptor that is kept for it.  0, or why there is none: -EAGAIN when nobody waits,
 * which accept(2) does not look at before. */
static int refuse_one(struct server *s)
{
	int fd;

	close_fd(&s->spare_fd);
	fd = accept_one(s);
	if (fd >= 0)
		client_refuse(fd);
	server_learn_fd_limit(s);
	return fd < 0 ? fd : 0;
}

static void listen_again(void *data)
{
	struct server *s = data;

	server_learn_fd_limit(s);
	loop_set_events(s->listen_source, LOOP_READ);
}

/* Who has connected and is not heard would keep the loop awake.  They wait a moment. */
static void listen_later(struct server *s, int err)
{
	log_warn("can't take connections now: %s", err_text(err));
	if (++s->n_listen_failed >= LISTEN_TRIES) {
		server_abandon(s);
		return;
	}
	loop_set_events(s->listen_source, 0);
	loop_timer_set(s->listen_timer, LISTEN_PAUSE_MS);
}

static void on_connection(void *data, uint32_t events)
{
	struct server *s = data;

	while (s->listen_fd >= 0) {
		int fd = accept_one(s);

		if (fd >= 0) {
			client_accept(s, fd);
			continue;
		}
		if (fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED)
			fd = refuse_one(s);
		if (fd == 0 || fd == -EAGAIN)
			s->n_listen_failed = 0;
		if (fd == -EAGAIN)
			return;
		if (fd < 0 && fd != -EINTR && fd != -ECONNABORTED) {
			listen_later(s, fd);
			return;
		}
	}
}

static int listen_unix(struct server *s, struct errmsg *msg)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_free_ char *path = path_join(s->dir, "project.sock");

	if (strlen(path) >= sizeof(sa.sun_path))
		return errmsg_set(msg, -ENAMETOOLONG,
				  "%s is too long for a socket's name; set CONCC_RUNTIME_DIR to a "
				  "shorter directory",
				  path);
	strcpy(sa.sun_path, path);
	/* We hold the instance lock, so what is there was left by a server that died. */
	(void)unlink(path);
	s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->listen_fd < 0 || bind(s->listen_fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    listen(s->listen_fd, 4096) < 0)
		return errmsg_set(msg, -errno, "can't listen at %s: %s", path, err_text(-errno));
	/* Who watches the directory for us (`concc top`) has heard of the socket too early. */
	(void)chmod(path, 0600);
	s->listen_source = loop_add_fd(s->loop, s->listen_fd, LOOP_READ, on_connection, s);
	s->listen_timer = loop_add_timer(s->loop, 0, listen_again, s);
	return 0;
}

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
/*
 * Root's workers on this machine give theirs to the user whom jobs run as: not
 * this one, whose digests and records are believed.
 */
static void set_worker_cache(const struct server *s)
{
	_cleanup_free_ char *other = xasprintf("%s-worker", s->cache);

	if (geteuid() == 0 && getenv("CONCC_CACHE_DIR"))
		setenv("CONCC_CACHE_DIR", other, 1);
}

static int choose_cache(struct server *s, struct errmsg *msg)
{
	struct errmsg why = {0};
	int r = cache_dir(&s->cache, &why);

	if (r == 0 && access(s->cache, W_OK) < 0)
		r = errmsg_set(&why, -errno, "can't write to %s: %s", s->cache, err_text(-errno));
	if (r == 0) {
		set_worker_cache(s);
		return 0;
	}
	free(s->cache);
	s->cache = path_join(s->dir, "cache");
	log_warn("%s; using %s", why.text, s->cache);
	/* For workers on this machine, too; but root's are others, with a place of their own. */
	if (geteuid() != 0)
		setenv("CONCC_CACHE_DIR", s->cache, 1);
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
	static const struct tree_ops ops = {
		.send = tree_send, .busy = tree_is_busy, .is_partial = tree_is_partial};
	int r;

	r = open_hashes(s, msg);
	if (r < 0)
		return r;
	r = tree_new(&ops, s, s->hashes, &s->tree, msg);
	if (r < 0)
		return r;
	s->tree_source = loop_add_fd(s->loop, tree_event_fd(s->tree), LOOP_READ, on_tree_event, s);
	for (char **w = s->conf->workspaces; w && *w; w++) {
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
	s->calls_source = loop_add_fd(s->loop, fd, LOOP_READ, on_call, s);
	slots = local_slots(s->conf);
	s->local_slots = slots;
	if (slots)
		r = pool_set(s->pool, POOL_LOCAL, slots, POOL_UP, 1000, msg);
	if (r < 0)
		return r;
	s->pace = pace_new(s);
	pace_tell_here(s->pace);
	s->stragglers = stragglers_new(s);
	return 0;
}

/*
 * Workers on this machine hide homes from jobs like any other, but a toolchain
 * in one's own home is what a build here uses: rustup's, or what the
 * configuration lists.
 */
static void show_toolchains(const struct server *s)
{
	static const char *const usual[] = {"~/.rustup", "~/.cargo/bin"};
	_cleanup_buf_ struct buf list = BUF_INIT;

	for (char **t = s->conf->toolchains; t && *t; t++)
		buf_putf(&list, "%s%s", list.len ? ":" : "", *t);
	for (size_t i = 0; i < sizeof(usual) / sizeof(*usual); i++) {
		_cleanup_free_ char *dir = path_expand_home(usual[i]);

		if (access(dir, F_OK) == 0)
			buf_putf(&list, "%s%s", list.len ? ":" : "", dir);
	}
	setenv("CONCC_WORKER_SHOW", buf_cstr(&list), 0);
}

static void set_up_peers(struct server *s)
{
	show_toolchains(s);
	s->n_peers = (unsigned)s->conf->n_workers;
	s->peers = xcalloc(s->n_peers + 1, sizeof(*s->peers));
	for (unsigned i = 0; i < s->n_peers; i++)
		s->peers[i] = peer_new(s, i, &s->conf->workers[i]);
	for (unsigned i = 0; i < s->n_peers; i++) {
		if (s->peers[i]->state != PEER_ASLEEP)
			peer_start(s->peers[i]);
	}
	server_wake(s); /* of a server that died, calls may have been lost */
}

static void save_hashes(struct server *s)
{
	_cleanup_free_ char *path = hashes_path(s);
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (s->hashes && hash_cache_changes(s->hashes, &b))
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
	s->hashing_source = loop_add_fd(s->loop, offload_event_fd(s->hashing), LOOP_READ, on_hashed,
					s);
}

static int set_up(struct server *s, struct errmsg *msg)
{
	int r;

	begin_life(s);
	server_learn_fd_limit(s); /* first, for a number that is below any limit set later */
	r = runtime_dir_open(&s->dir, &s->dir_fd, msg);
	if (r < 0)
		return r;
	r = take_instance_lock(s, msg);
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
	r = listen_unix(s, msg);
	if (r == 0)
		r = place_watch(s, msg);
	if (r < 0)
		return r;
	if (s->conf->idle_timeout_s) {
		s->idle_timer = loop_add_timer(s->loop, 0, idle, s);
		server_busy(s);
	}
	s->save_timer = loop_add_timer(s->loop, SAVE_MS, on_save, s);
	set_up_peers(s);
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

static void tear_down(struct server *s)
{
	s->stopping = true;
	/* First, so that whoever comes now starts another server, which waits for us to end. */
	if (s->ready && s->lock_fd >= 0) { /* they go with the fd, too */
		(void)lock_byte(s->lock_fd, F_OFD_SETLK, F_UNLCK, PROTO_THERE_BYTE);
		(void)lock_byte(s->lock_fd, F_OFD_SETLK, F_UNLCK, PROTO_READY_BYTE);
	}
	if (s->listen_fd >= 0 && place_is_ours(s))
		(void)unlinkat(s->dir_fd, "project.sock", 0);
	stop_listening(s);
	close_fd(&s->spare_fd);
	loop_remove(steal_ptr(&s->place_source));
	close_fd(&s->place_fd);
	working_sets_save(s);
	end_peers(s);
	loop_remove(steal_ptr(&s->hashing_source));
	(void)offload_free(steal_ptr(&s->hashing)); /* what hangs ends with the process */
	working_sets_free(s);
	strv_free(s->work_dirs);
	if (s->pool && !s->replaced)
		(void)pool_remove(s->pool, POOL_LOCAL); /* need not be there */
	pool_close(steal_ptr(&s->pool));
	results_close(s);
	tree_free(s->tree);
	save_hashes(s);
	hash_cache_free(s->hashes);
	system_free(s->system);
	exes_free(s);
	end_clients(s, false);
	jobs_close(s);
	/* The next server reads what this one leaves. */
	(void)disk_close(s);
	close_fd(&s->lock_fd);
	end_clients(s, true);
	pace_free(s->pace);
	commit_mark_close(s->commit_mark);
	loop_free(s->loop);
	free(s->peers);
	free(s->conf_error);
	free(s->next_agent);
	free(s->cache);
	free(s->dir);
	close_fd(&s->dir_fd);
}

int project_run(struct conf *conf, int ready_fd, struct errmsg *msg)
{
	struct server s = {
		.conf = conf,
		.dir_fd = -1,
		.lock_fd = -1,
		.listen_fd = -1,
		.spare_fd = -1,
		.place_fd = -1,
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
	tear_down(&s);
	return r;
}
