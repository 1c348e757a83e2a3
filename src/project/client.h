/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_CLIENT_H
#define CONCC_PROJECT_CLIENT_H

/* Who is connected to the socket. */
#include "concc/buf.h"
#include "concc/link.h"
#include "concc/pool.h"
#include "concc/proto.h"
#include "server.h"

struct beginning;
struct disk_flush;
struct drop;
struct hit;
struct job;
struct run;
struct seek;

/* One connection of a wrapper or of `concc`. */
struct client {
	struct list of_server;
	struct server *server;
	struct link *link;
	pid_t pid;	      /* as it was when it connected; 0: none in our pid namespace */
	bool in_other_groups; /* than we are */
	bool is_beside_us; /* it is in our namespaces: it was, and a wrapper does not leave them */
	struct run *run;
	struct beginning *beginning; /* run.c: the program of what it brought is looked at; or NULL
				      */
	struct seek *seek;	     /* lookup.c: it is asked of others; or NULL */
	struct hit *hit; /* lookup.c: what it asked for was kept, and is on its way; or NULL */
	struct job *job; /* that it waits with, or has brought; NULL: none */
	struct disk_flush *flush; /* disk.c: it waits for records to be written; or NULL */
	/* Its job is not done by us: what it is to hear of that when nothing of it is left. */
	struct buf fail;
	struct drop *fail_waits; /* for that; or NULL */
	int fd;			 /* the link's */
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
/* Why it sees other files than the server does; or NULL.  See concc/namespaces.h. */
const char *client_sees_else(struct client *c);
/*
 * Tells the wrapper to go elsewhere with its job, of which there is no run, hit or seek any more.
 * Not before what was dropped until now is gone: the command, where it runs next, must not meet it.
 */
void client_fail(struct client *c, const struct msg_run_fail *m);
void client_settled(struct client *c); /* every worker is up or has failed */

extern const char client_too_many[]; /* the server can't open more files for it */

#endif
