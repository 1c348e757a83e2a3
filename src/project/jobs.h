/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_JOBS_H
#define CONCC_PROJECT_JOBS_H

/*
 * All jobs that this server knows of, from their arrival to their end: those that wait for a slot,
 * that a worker has, that run here.  Whoever wants to know of jobs observes them (the scheduler,
 * stragglers, who looks by `concc top`) or goes through the list (`concc status`), rather than into
 * runs or connections.  Those that ended are in the record file.
 */
#include "concc/cpu_share.h"
#include "concc/map.h"
#include "concc/record.h"
#include "server.h"

enum job_state {
	JOB_WAITING, /* for a slot */
	JOB_AT_WORKER,
	JOB_LOCAL, /* a command of its own, of which we know the beginning and the end */
};

struct job {
	struct list of_server;
	struct server *server;
	struct client *client; /* who brought it; NULL: it runs here without us */
	enum job_state state;
	struct record record; /* as far as it is known */
	struct peer *peer;    /* that has it, NULL: none; the first of two */
	struct peer *second;  /* that has it as well, NULL: none */
	uint64_t began_ms;    /* of now_ms(): it was sent to that peer, or since then its turn in
				 that host's queue came */
	uint64_t done_us;     /* estimator.c: of its work, there, until ... */
	uint64_t noted_ms;    /* ... then, of now_ms() */
	uint64_t second_us;   /* since it arrived: it was sent to the second */
	uint64_t late_ms;     /* straggler.c, of now_ms(): from then on it is one; 0: not known */
	bool overtaken;	      /* the second one has become the first */
	/* What the worker had asked for when it got the job. */
	uint64_t files_before, bytes_before, fuse_before, lists_before;
	uint32_t beside;		/* jobs that were there already, or came to it at once */
	struct cpu_share share;		/* JOB_LOCAL: as estimator.c has seen it last */
	struct loop_source *end_source; /* JOB_LOCAL: of the process */
	int pidfd;
};

enum job_event {
	JOB_EVENT_WAITS,
	JOB_EVENT_SENT, /* to a worker, or it began here */
	JOB_EVENT_SENT_AGAIN,
	JOB_EVENT_ONE_LEFT, /* of the two workers */
	JOB_EVENT_OUTPUT,
	JOB_EVENT_BACK, /* its wrapper runs it here, or brings it again, for record.rule */
	JOB_EVENT_ENDED,
};

/* Told of each event, after the job has it; must not end or free a job. */
struct observer {
	struct list of_server;
	void (*event)(void *data, enum job_event what, struct job *j);
	void *data;
};

void jobs_observe(struct server *s, struct observer *o); /* borrowed until it is removed */

/* Of those that run here no end was seen. */
void jobs_close(struct server *s);

/* It has no slot yet; words: of a person. */
struct job *jobs_wait(struct client *c, const char *words);
/* It has one, and was asked for by this message; the client's job when it waited is taken. */
struct job *jobs_take(struct client *c, const struct msg_run *m);
void jobs_sent(struct job *j, struct peer *p);
void jobs_sent_again(struct job *j, struct peer *p); /* to a second one */
/* Its turn in the queue of its peer's host has come: what it waited was no work. */
void jobs_begun(struct job *j);
void jobs_one_left(struct job *j, struct peer *p); /* only that one has it now */
void jobs_output(struct job *j);
void jobs_ended(struct job *j);
/* That worker's result is the one that counts: its command has ended so, its files are in place. */
void jobs_placed(struct job *j, const struct peer *p, const struct msg_exit *m,
		 uint64_t bytes_back);
/* Its wrapper hears why, and runs it here, or brings it again for another worker.  Takes j. */
void jobs_back(struct job *j, bool elsewhere, const char *rule, const char *why);
/* What it makes was kept, and is in its place. */
void jobs_cached(struct job *j);
/* It will not be heard of any more, since its wrapper is gone. */
void jobs_cancel(struct job *j);
/* Its wrapper goes on without us, and tells how. */
void jobs_drop(struct job *j); /* NULL is fine */

/* A command runs here, as its wrapper told by RUN_HERE over this connection before it became it. */
int jobs_local(struct server *s, int fd, pid_t pid, struct blob payload);

uint64_t jobs_age_us(const struct job *j); /* since it arrived */
void jobs_counts_reset(struct server *s);

#endif
