/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_SERVER_H
#define CONCC_PROJECT_SERVER_H

/*
 * The project server: one process, one loop in one thread.  It owns the links to
 * the workers, serves files to them (tree.h), runs the jobs that wrappers bring
 * through the unix socket, and puts in place what comes home.
 *
 * What all files of the folder share, and nothing outside sees.  What is a module's own is in its
 * header, or in its .c; which of them is for what is in ARCHITECTURE.md, "File by file".
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/caller.h"
#include "concc/conf.h"
#include "concc/loop.h"
#include "concc/map.h"
#include "concc/namespaces.h"
#include "concc/pool.h"
#include "concc/proto.h"
#include "concc/tree.h"

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
	int lock_fd;  /* "project.lock": byte 0 says a server exists, PROTO_*_BYTE that it is ready;
			 in it its pid */
	int ready_fd; /* told once, then -1 */
	char *next_agent;	   /* an SSH_AUTH_SOCK to be taken, or NULL */
	struct listener *listener; /* see listen.h */
	struct place *place;	   /* see place.h */
	struct loop_source *tree_source, *idle_timer, *save_timer, *calls_source;
	struct offload *hashing;	/* files that are hashed on a thread */
	struct offload_lane *comparing; /* those that workers may have themselves */
	struct offload_lane *reading;	/* and not hashed: what workers ask for, from a slow disk */
	struct offload_lane *closing;	/* and not hashed: large ones that are gone */
	struct offload_lane *looking;	/* programs of jobs: see exe.h */
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
	struct commits *commits;	 /* see commits.h */
	unsigned n_clients;
	struct results *results; /* NULL: none are kept */
	struct system *system;	 /* NULL: no worker sees it */
	char **shown;		 /* see shown.h */
	bool shows_all;		 /* nobody has said what workers here show */
	struct exes *exes;	 /* see exe.h; NULL: no job came yet */
	struct map working_sets; /* root -> struct working_set */
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
	char **work_dirs;     /* of them, workspaces_is_passing(): bounded there, too */
	unsigned n_found;     /* trees that workspaces.c found by itself */
};

void server_set_up_hashing(struct server *s); /* what needs s->loop only */
/* Called on the way by what takes long on the loop's thread: see loop.h. */
void server_pulse(struct server *s);
void server_busy(struct server *s);	   /* a job started or ended: the idle time starts anew */
void server_ready_check(struct server *s); /* a worker came up or failed */
void server_stop(struct server *s);
/* Lets another server begin, takes no more jobs, and stops when the running ones have ended. */
void server_abandon(struct server *s);

#endif
