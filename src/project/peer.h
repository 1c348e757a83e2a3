/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_PEER_H
#define CONCC_PROJECT_PEER_H

/* One worker: its link, what it was told, and what it does.  All of them together are in peers.h.
 */
#include <sys/stat.h>

#include "concc/link.h"
#include "concc/proto.h"
#include "server.h"

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
	uint64_t mounts;       /* mounted.c: how often they had changed, */
	struct stat top;       /* the root directory then, */
	struct digest trees;   /* those of tools that it is shown, */
	struct digest mounted; /* and what there was, when the worker was started */
	bool outdated;	 /* it has changed since: when its jobs have ended it is started anew */
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
	struct run *filler;	    /* of those, the one that filling.h tells of; or NULL */
	struct map sources;	    /* path -> version of a job's source that was told ahead */
	struct map links;	    /* links.c: path -> target, as told; owned */
	struct map bare;	    /* bare.c: path -> struct stat, as told; owned */
	struct map absent;	    /* absent.c: directory -> struct absent_dir */
	struct map pushed;	    /* roots whose working set was told, on this link */
	struct serving *serving;    /* see serve.h */
	struct ahead *ahead;	    /* see ahead.h */
	uint64_t n_jobs, n_failed, fetched_bytes, fetched_files, lists;
	uint64_t asked_ms;	       /* for names or contents, last; of now_ms() */
	uint64_t asked_files;	       /* FETCHes of what was not told ahead as a guess */
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
/* Its jobs see this machine as it was: it gets no more, and is started anew. */
void peer_outdated(struct peer *p);
/* The worker does what no worker does: its link is closed, its jobs go elsewhere. */
void peer_fail(struct peer *p, const char *why);
/* The totals over all links this peer had. */
void peer_counts(const struct peer *p, struct link_counts *ret);

#endif
