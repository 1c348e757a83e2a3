/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_SERVER_H
#define CONCC_PROJECT_SERVER_H

/*
 * The project server: one process, one loop in one thread.  It owns the links to
 * the workers, serves files to them (tree.h), runs the jobs that wrappers bring
 * through the unix socket, and puts in place what comes home.
 *
 * The files of the folder share the structs below; nothing outside sees them.  Which of them is for
 * what is in ARCHITECTURE.md, "File by file".
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "concc/caller.h"
#include "concc/conf.h"
#include "concc/digest.h"
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/map.h"
#include "concc/namespaces.h"
#include "concc/offload.h"
#include "concc/pool.h"
#include "concc/proto.h"
#include "concc/tree.h"

#define SERVER_CLIENTS_MAX 8192 /* wrappers connected at once: an fd each */
/* Descriptors that new jobs leave alone, or a quarter of all: those that run need some for their
 * listings, contents and results. */
#define SERVER_FDS_KEPT 128

/* Of all jobs that came here, by what became of them: see jobs.h. */
struct job_counts {
	uint64_t n_sent, n_sent_before; /* to workers; before status_reset() */
	uint64_t n_home, n_elsewhere;	/* went back to their wrappers, to run here or there */
	uint64_t n_twice, n_twice_won;	/* sent to a second worker, and of use */
	struct map reasons;		/* rule -> uint64_t *, why they went back */
};

struct server {
	struct loop *loop;
	struct conf *conf;
	struct pool *pool;
	struct tree *tree;
	struct hash_cache *hashes;
	char *dir;   /* runtime directory */
	char *cache; /* where digests and working sets stay */
	int dir_fd;
	int lock_fd; /* "project.lock": byte 0 says a server exists, PROTO_*_BYTE that it is ready;
			in it its pid */
	int listen_fd;
	int spare_fd;		  /* to be closed when there is no other for accept(2) */
	int fd_limit;		  /* as last read: whoever may can lower it */
	unsigned n_listen_failed; /* in a row */
	int ready_fd;		  /* told once, then -1 */
	int place_fd;		  /* inotify of the runtime directory, or -1 */
	int place_wd;		  /* the watch of that */
	struct stat conf_seen;	  /* place.c: the configuration's file when it was last looked at */
	char *next_agent;	  /* an SSH_AUTH_SOCK to be taken, or NULL */
	char *conf_error;	  /* why what it says now is not followed, or NULL */
	struct stat sock_stat;	  /* of project.sock */
	struct loop_source *listen_source, *listen_timer, *tree_source, *idle_timer, *save_timer,
		*place_source, *calls_source;
	struct offload *hashing;	/* files that are hashed on a thread */
	struct offload_lane *comparing; /* those that workers may have themselves */
	struct loop_source *hashing_source;
	struct peer **peers; /* n_peers, index = the tree's peer number */
	unsigned n_peers;
	struct wake *wake;
	struct list clients;		 /* struct client.of_server */
	struct list jobs;		 /* struct job.of_server, as they came: see jobs.h */
	struct list observers;		 /* struct observer.of_server */
	struct watchers *watchers;	 /* NULL: nobody looks */
	struct disk *disk;		 /* see disk.h */
	struct commit_mark *commit_mark; /* NULL: it can't be kept */
	unsigned n_clients;
	struct results *results; /* NULL: none are kept */
	struct system *system;	 /* NULL: no worker sees it */
	struct map exes;	 /* encoded EXE but for its id -> struct exe */
	struct map exes_by_call; /* exe.c: what decides which it is -> one of those */
	struct map working_sets; /* root -> struct working_set */
	uint32_t next_exe_id;
	uint32_t next_job_id;
	unsigned n_running;
	bool ready, stopping;
	bool abandoned;	   /* nobody finds us any more: the running jobs are the last */
	bool replaced;	   /* and another has our place and our pool, or is about to */
	struct caller own; /* what we live with, and our workers on this machine */
	struct namespaces namespaces;
	uint64_t started_ms;
	uint64_t n_ended;	       /* jobs, in whatever way */
	struct estimator *estimator;   /* see estimator.h */
	struct stragglers *stragglers; /* NULL: none are looked for */
	struct job_counts counts;
	uint32_t local_slots; /* of this machine */
	char **work_dirs;     /* of them, is_passing(): bounded there, too */
	unsigned n_found;     /* trees that workspaces.c found by itself */
};

/* ---- peer.c ---- */

enum peer_state {
	PEER_CONNECTING,
	PEER_GREETING,
	PEER_UP,
	PEER_DOWN,   /* tried again by the clock, or by a call when it may sleep */
	PEER_ASLEEP, /* had nothing to do: started when a wrapper calls for it */
};

struct peer {
	struct server *server;
	unsigned index;
	const struct conf_worker *conf;
	enum peer_state state;
	bool unable; /* up, but it can not write contents: no jobs, until it says that it can */
	unsigned n_storage; /* how often it said so, or not, on this link */
	struct connecting *connecting;
	struct link *link;
	char *how;    /* what carries the link, "" before */
	char *remedy; /* how its concc-worker gets there; NULL: as the user sees to it */
	char *error;  /* why it is down, "" otherwise */
	struct msg_hello hello;
	struct loop_source *retry_timer, *greet_timer, *sleep_timer;
	unsigned n_starts; /* attempts to connect */
	uint64_t began_us; /* the last one, of now_us() */
	bool start_failed; /* it, or one of the same section, did not come up when last tried */
	unsigned failures; /* in a row */
	uint64_t retry_at_ms;
	uint32_t slots;
	struct map envs; /* encoded environment -> its id (as a pointer) */
	uint32_t next_env_id;
	struct map callers; /* the same of callers */
	uint32_t next_caller_id;
	struct map callers_refused; /* caller id -> char *, the worker's words */
	size_t n_trees;		    /* of the system's, told */
	struct map exes_sent;	    /* exe id -> itself */
	struct map exes_done;	    /* those of which a job has ended, on this link: all is there */
	struct map exes_refused;    /* exe id -> char *, the worker's words */
	struct map jobs;	    /* job id -> struct run */
	struct map sources;	    /* path -> version of a job's source that was told ahead */
	struct map links;	    /* links.c: path -> target, as told; owned */
	struct map absent;	    /* absent.c: directory -> struct absent_dir */
	struct map pushed;	    /* roots whose working set was told, on this link */
	struct list fetches;	    /* struct fetch.of_peer, not begun, in the order they came */
	struct list serving;	    /* the same, begun: with an open file, by turns */
	struct list comparing;	    /* the same: of what the worker offers; see serve.c */
	struct map fetch_ids;	    /* id -> struct fetch */
	unsigned n_fetches, n_serving;
	/* Bytes of contents, since none was wanted: asked for, and sent of those. */
	uint64_t wanted_bytes, sent_bytes;
	uint64_t rate_since_us,
		rate_from;   /* since when how fast they go is measured: sent_bytes then */
	double bytes_per_us; /* 0: not known */
	bool begin_next;     /* whose turn it is */
	uint64_t n_jobs, n_failed, fetched_bytes, fetched_files, lists;
	uint64_t cpu_us;	       /* of jobs, on the worker */
	struct link_counts past;       /* of links that ended */
	struct msg_mirror_counts fuse; /* of the present link, as last told */
	struct msg_load load;	       /* of its host, as told last; slots 0: not yet */
};

struct peer *peer_new(struct server *s, unsigned index, const struct conf_worker *conf);
void peer_free(struct peer *p);
void peer_start(struct peer *p);
/* What transport_connect() ends with, of a struct peer that connects; a test has a stream of its
 * own. */
void peer_connected(void *data, struct stream *s, int err, const char *msg, const char *how);
/* A job of it started or ended: the time to its sleep starts anew. */
void peer_busy(struct peer *p);
/* The worker does what no worker does: its link is closed, its jobs go elsewhere. */
void peer_fail(struct peer *p, const char *why);
/* The totals over all links this peer had. */
void peer_counts(const struct peer *p, struct link_counts *ret);

/* ---- serve.c ---- */

int serve_fetch(struct peer *p, struct blob payload);
void serve_more(struct peer *p); /* little is queued: send more contents */
void serve_drop(struct peer *p); /* the link is gone */
/* Microseconds until all that the worker asked for is sent, at the rate of late: so long jobs may
 * wait there whose program has run to no end on this link.  0: hardly any, or not known. */
uint64_t serve_left_us(const struct peer *p);

/* ---- working_set.c ---- */

/* Before the peer's first job in this served root: tells what others wanted there, if not yet, and
 * in the system's trees that its jobs use. */
void working_set_push(struct peer *p, const char *root);
/* Before a job: its own sources, that nobody else will want. */
void working_set_sources(struct peer *p, const char *cwd, char *const *argv);
/* The peer has asked for it: remembered, and offered to the others. */
void working_set_note_dir(struct peer *p, const char *path);
void working_set_note_file(struct peer *p, uint32_t dir_id, const char *name);
void working_sets_save(struct server *s);
void working_sets_free(struct server *s);

/* ---- absent.c ---- */

/* A job looked for this in vain, and it is of no consequence that it did: others need not tell. */
void absent_tell(struct peer *p, const char *path);
/* Before a job: takes back what was said of directories that have changed since. */
void absent_check(struct peer *p);
void absent_forget(struct peer *p); /* the link is gone */

/* ---- client.c ---- */

/* One connection of a wrapper or of `concc`. */
struct client {
	struct list of_server;
	struct server *server;
	struct link *link;
	pid_t pid; /* as it was when it connected; 0: none in our pid namespace */
	struct run *run;
	struct seek *seek; /* lookup.c: it is asked of others; or NULL */
	struct hit *hit;   /* lookup.c: what it asked for was kept, and is on its way; or NULL */
	struct job *job;   /* that it waits with, or has brought; NULL: none */
	struct disk_flush *flush; /* disk.c: it waits for records to be written; or NULL */
	int fd;			  /* the link's */
	/* Of this machine, kept free for a job that was sent home, until its wrapper has heard
	 * that. */
	struct pool_slot slot;
	bool too_many;	 /* for the descriptors we may have: a job of it runs without us */
	bool waiting_up; /* asked to be told when all workers are up or have failed */
	bool stops;	 /* asked for the end: that of its connection says that all is down */
	/* watchers.c: it looks; it has asked, and has had no reply; what it was told of last. */
	bool watches, watch_asked;
	uint64_t watch_seen;
};

void client_accept(struct server *s, int fd); /* takes fd */
/* Tells the wrapper at the other end to do without us.  Takes fd. */
void client_refuse(int fd);
void client_free(struct client *c);
void client_settled(struct client *c); /* every worker is up or has failed */

extern const char client_too_many[]; /* the server can't open more files for it */

/* ---- run.c, run_stdio.c ---- */

struct run; /* a job on its way */

int run_start(struct client *c, struct msg_run *m); /* takes what m holds */
int run_input(struct run *r, struct blob payload);
int run_output_credit(struct run *r, struct blob payload);
void run_client_gone(struct run *r);
void run_client_drained(struct run *r);
/* Messages of the worker about jobs; a wrong id is ignored (the job was given up). */
int run_message(struct peer *p, uint8_t type, struct blob payload);
void run_peer_gone(struct peer *p, const char *why);

/* ---- lookup.c ---- */

/* Is a result of this kept?  Then it is put in place, else the wrapper hears that it is not. */
int lookup_start(struct client *c, struct msg_run *m); /* takes what m owns */
int lookup_output_credit(struct hit *h, struct blob payload);
void seek_free(struct seek *k);	 /* NULL is fine; here, too: */
void lookup_free(struct hit *h); /* NULL is fine; nothing is put in place any more */

/* ---- system.c ---- */

int system_set_up(struct server *s, struct errmsg *msg);
void system_free(struct system *y);
/* Links of the root directory that lead into trees: name, target, ...; NULL when there are none. */
char *const *system_links(const struct server *s);
/* These are for peers with root = client only.  After HELLO: which trees there are. */
void system_greet(struct peer *p);
/* Before the tree is drained for a job: what has changed in /etc, and which trees came.  Negative:
 * what jobs would see of /etc is not what it is. */
int system_refresh(struct peer *p, struct errmsg *msg);
/* The toolchain tree that path is in, as they are listed, be it there or not; or NULL.  Of any
 * peer. */
const char *system_tree_of(const struct server *s, const char *path);
/* Is it in a tree that all jobs of such peers see? */
bool system_has(const struct server *s, const char *path);
/* Do jobs of such peers see what is at this path (absolute, clean), if anything is? */
bool system_shows(const struct server *s, const char *path);

/* Is something of that directory of /etc not shown? */
bool system_is_partial(const struct server *s, const char *path);

/* ---- workspaces.c ---- */

/* Is it a tree in which no name means the same for long: a work directory, or Go's cache? */
bool is_passing(const struct server *s, const char *dir);
/* Does every system have something of its own there? */
bool is_system_path(const char *path);
/*
 * The trees that the job needs on that peer, on the heap, none beneath another, one of them with
 * its cwd; all served by now.  NULL and why: the cwd is in none.  *ret_unserved: the program's
 * path, on the heap, when jobs would not see it though it is this machine's that is to run there;
 * or NULL.
 */
char **workspaces_of(struct peer *p, const struct msg_run *m, char **ret_unserved,
		     struct errmsg *msg);

/* $PWD, when it is the cwd's name by a symbolic link that jobs of the peer can't be shown;
 * borrowed. NULL: it is none, or can be, and its trees are in the list. */
const char *workspaces_other_cwd(struct peer *p, const struct msg_run *m, char ***list);
/* Adds a tree to such a list. */
void add_tree(char ***list, const char *root);

/* ---- links.c ---- */

/*
 * Where path (absolute, clean) leads; on the heap.  Links on the way that jobs of the peer don't
 * see by themselves are told to it; trees on the way are added.  NULL: one of them can't be shown.
 */
char *links_follow(struct peer *p, const char *path, char ***trees);
/* Before a job: what was told and is so no more is taken back. */
void links_check(struct peer *p);
void links_forget(struct peer *p);

/* ---- straggler.c ---- */

/* Jobs that run far longer than others of their program; NULL when the configuration wants none. */
struct stragglers *stragglers_new(struct server *s);
void stragglers_free(struct stragglers *t); /* NULL is fine, and here: */
void stragglers_look(struct stragglers *t); /* more is known of how long jobs take */

/* ---- exe.c ---- */

struct exe;

/*
 * The program of a job with the files that make up its identity for this peer: those that it has
 * of its own and does not get from here.  Of a compiler (through concc-cc) these are its parts,
 * too, and of a script that is called like one, the compilers that it may run.  Kept while none of
 * them changes.  May take a moment when one has: reads them, and asks a compiler for its parts.
 * Nothing else is ever run here: not what is only called like one.
 */
int exe_get(struct peer *p, const struct msg_run *m, struct exe **ret, struct errmsg *msg);
const struct msg_exe *exe_msg(const struct exe *e);
/* The file that a driver means by its answer to -print-prog-name=PART, on the heap; or NULL. */
char *exe_part(const char *part, const char *answer, const char *path, const char *cwd);
void exes_free(struct server *s);

/* ---- place.c ---- */

int place_watch(struct server *s, struct errmsg *msg); /* when all of them are there */
/* Has the configuration changed?  Then it makes room for a server that reads it. */
void place_check_conf(struct server *s);
/* For another server, which the next call starts; ours goes on with the jobs that it has. */
void place_make_room(struct server *s);
bool place_is_ours(const struct server *s); /* no other server can have begun here */

/* ---- server.c ---- */

void server_set_up_hashing(struct server *s); /* what needs s->loop only */
/* Called on the way by what takes long on the loop's thread: see loop.h. */
void server_pulse(struct server *s);
void server_busy(struct server *s);	   /* a job started or ended: the idle time starts anew */
void server_ready_check(struct server *s); /* a worker came up or failed */
void server_stop(struct server *s);
/* Lets another server begin, takes no more jobs, and stops when the running ones have ended. */
void server_abandon(struct server *s);

/* ---- status.c ---- */

void status_text(struct server *s, struct buf *out);
void status_why(struct server *s, struct buf *out);  /* one line: what keeps workers from working */
void status_json(struct server *s, struct buf *out); /* for `concc status --json` */
void status_reset(struct server *s);		     /* counters begin anew */
bool server_is_busy(const struct server *s);	     /* jobs run here, or wait */

#endif
