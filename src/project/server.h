/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_SERVER_H
#define CONCC_PROJECT_SERVER_H

/*
 * The project server: one process, one thread, one loop.  It owns the links to
 * the workers, serves files to them (tree.h), runs the jobs that wrappers bring
 * through the unix socket, and puts in place what comes home.
 *
 *   server.c   life cycle: socket, workers of the configuration, idle time-out
 *   peer.c     one worker: connects, says hello, comes and goes
 *   serve.c    file contents on their way to a worker
 *   working_set.c  what workers will want, told ahead of need
 *   run.c      one job: from RUN to RUN_EXIT
 *   exe.c      what a compiler is made of, so that a different one is noticed
 *   status.c   what `concc status` shows
 *
 * These share the structs below; nothing outside the folder sees them.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/conf.h"
#include "concc/digest.h"
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/map.h"
#include "concc/pool.h"
#include "concc/proto.h"
#include "tree.h"

#define SERVER_CLIENTS_MAX 8192 /* wrappers connected at once: an fd each */

struct server {
	struct loop *loop;
	struct conf *conf;
	struct pool *pool;
	struct tree *tree;
	struct hash_cache *hashes;
	char *dir; /* runtime directory */
	int dir_fd;
	int lock_fd; /* "project.lock": byte 0 says a server exists, byte 1 that it is ready */
	int listen_fd;
	int ready_fd; /* told once, then -1 */
	struct loop_source *listen_source, *tree_source, *idle_timer, *save_timer;
	struct peer **peers; /* n_peers, index = the tree's peer number */
	unsigned n_peers;
	struct list clients; /* struct client.of_server */
	unsigned n_clients;
	struct map exes; /* path -> struct exe */
	struct map working_sets; /* root -> struct working_set */
	uint32_t next_exe_id;
	uint32_t next_job_id;
	unsigned n_running;
	bool ready, stopping;
	uint64_t started_ms;
	uint64_t n_ended; /* jobs, in whatever way */
	uint64_t n_jobs, n_local, n_retried; /* of all jobs that came here */
	struct map reasons; /* rule -> uint64_t *, why jobs went back */
};

/* ---- peer.c ---- */

enum peer_state { PEER_CONNECTING, PEER_GREETING, PEER_UP, PEER_DOWN };

struct peer {
	struct server *server;
	unsigned index;
	const struct conf_worker *conf;
	enum peer_state state;
	struct connecting *connecting;
	struct link *link;
	char *how;   /* what carries the link, "" before */
	char *error; /* why it is down, "" otherwise */
	struct msg_hello hello;
	struct loop_source *retry_timer, *greet_timer;
	unsigned failures; /* in a row */
	uint64_t retry_at_ms;
	uint32_t slots;
	struct map envs; /* encoded environment -> its id (as a pointer) */
	uint32_t next_env_id;
	struct map exes_sent;	 /* exe id -> itself */
	struct map exes_refused; /* exe id -> char *, the worker's words */
	struct map jobs;	 /* job id -> struct run */
	struct map sources;	 /* path -> version of a job's source that was told ahead */
	struct map pushed;	 /* roots whose working set was told, on this link */
	struct list fetches;	 /* struct fetch.of_peer, in the order of their turns */
	unsigned n_fetches;
	uint64_t n_jobs, n_failed, fetched_bytes, fetched_files, lists;
	uint64_t cpu_us; /* of jobs, on the worker */
	struct link_counts past; /* of links that ended */
	struct msg_mirror_counts fuse; /* of the present link, as last told */
};

struct peer *peer_new(struct server *s, unsigned index, const struct conf_worker *conf);
void peer_free(struct peer *p);
void peer_start(struct peer *p);
struct peer *server_peer(struct server *s, const char *name);
/* The totals over all links this peer had. */
void peer_counts(const struct peer *p, struct link_counts *ret);

/* ---- serve.c ---- */

int serve_fetch(struct peer *p, struct blob payload);
void serve_more(struct peer *p); /* little is queued: send more contents */
void serve_drop(struct peer *p); /* the link is gone */

/* ---- working_set.c ---- */

/* Before the peer's first job in this served root: tells what others wanted there, if not yet. */
void working_set_push(struct peer *p, const char *root);
/* Before a job: its own sources, that nobody else will want. */
void working_set_sources(struct peer *p, const char *cwd, char *const *argv);
/* The peer has asked for it: remembered, and offered to the others. */
void working_set_note_dir(struct peer *p, const char *path);
void working_set_note_file(struct peer *p, uint32_t dir_id, const char *name);
void working_sets_save(struct server *s);
void working_sets_free(struct server *s);

/* ---- run.c ---- */

/* One connection of a wrapper or of `concc`. */
struct client {
	struct list of_server;
	struct server *server;
	struct link *link;
	struct run *run;
	bool waiting_up; /* asked to be told when all workers are up or have failed */
};

void client_accept(struct server *s, int fd);
void client_free(struct client *c);
void client_settled(struct client *c); /* every worker is up or has failed */

struct run; /* a job on its way */

int run_start(struct client *c, struct msg_run *m); /* takes what m holds */
int run_input(struct run *r, struct blob payload);
void run_client_gone(struct run *r);
void run_client_drained(struct run *r);
/* Messages of the worker about jobs; a wrong id is ignored (the job was given up). */
int run_message(struct peer *p, uint8_t type, struct blob payload);
void run_peer_gone(struct peer *p, const char *why);

struct run_info {
	const char *worker;
	const char *command; /* its first words, printable */
	uint64_t seconds;
};

void run_describe(const struct run *r, struct run_info *ret); /* borrowed from r */

/* ---- exe.c ---- */

struct exe {
	struct msg_exe msg;
	dev_t dev;
	ino_t ino;
	struct timespec mtime;
};

/* The program at path with the files that make up its identity; cached while it stays the same.
 * May take a moment the first time (hashes compilers). */
int exe_get(struct server *s, const char *path, bool served, struct exe **ret, struct errmsg *msg);
void exe_free(struct exe *e);

/* ---- server.c ---- */

void server_busy(struct server *s); /* a job started or ended: the idle time starts anew */
void server_ready_check(struct server *s); /* a worker came up or failed */
void server_stop(struct server *s);
void server_count_reason(struct server *s, const char *rule);
bool server_settled(const struct server *s); /* every worker is up or has failed at least once */

/* ---- status.c ---- */

void status_text(struct server *s, struct buf *out);
void status_json(struct server *s, struct buf *out); /* for `concc status --json` */

#endif
