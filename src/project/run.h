/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_RUN_H
#define CONCC_PROJECT_RUN_H

/* What a worker does for a job, as run.c (from RUN to RUN_EXIT) and speculation.c (twice) see it.
 */
#include "client.h"
#include "estimator.h"
#include "jobs.h"
#include "peer.h"

struct exe;

struct run {
	struct client *client; /* NULL when the wrapper has gone */
	struct peer *peer;
	struct commit *commit;
	struct placing *placing; /* what came home waits to be in place, or NULL: see commits.h */
	struct buf later;	 /* messages that came meanwhile: type, u32 length, bytes */
	struct loop_source *replay; /* then they are looked at */
	bool lost;		    /* its worker, when all of it was here */
	uint32_t job_id;
	uint32_t exe_id;
	uint32_t caller_id;
	bool dumps_core; /* its caller's limit lets processes leave core files */
	char *name;	 /* of the program, as it was called, without a directory */
	char *exe;	 /* where it is */
	char **search;	 /* PATH */
	char **workspaces;
	uint64_t saw;			/* the tree's version at dispatch */
	uint64_t untaken;		/* bytes of it that the wrapper has not written yet */
	bool comes_home;		/* bytes of its files came since the clock was set */
	bool ended;			/* well, as `end` says; its files wait for that */
	struct msg_exit end;		/* but for its strings */
	struct recording *recording;	/* of what may be kept, or NULL */
	uint64_t bytes_back;		/* came of it */
	uint32_t uncredited;		/* received from the worker, not yet asked for more */
	uint32_t input_credit;		/* the worker takes this much more */
	bool queued;			/* it has not begun: others' jobs have its host's slots */
	struct buf held;		/* RUN_OUTPUT payloads with a u32 length each */
	bool compiler;			/* it came through concc-cc */
	bool shows;			/* what it prints need not be held any more */
	struct loop_source *show_timer; /* then it does */
	uint32_t n_listed; /* names in directories outside that it is said to have listed */
	char *missing;	   /* why its failure would be ours, or NULL: output waits for the exit */
	char *failure; /* why its effects can't be used, or NULL; then the job is being killed */
	const char *failure_rule;
	struct loop_source *kill_timer; /* then it should have ended, of itself or being killed */
	bool detached;			/* see run_detach() */
	uint64_t fills_since_ms;	/* filling.c, of now_ms(); 0: it does not */
	struct estimator_begin begin;	/* when it fills */

	/* speculation.c */
	struct msg_run *again; /* what it takes to run it a second time, or NULL: not to be */
	struct run *other;     /* the same job on another worker, or NULL */
	struct pool_slot slot; /* a second one's own: the wrapper holds the first's */
};

/* Why it does not run there, for its wrapper. */
struct run_failure {
	enum run_fail what;
	bool quiet;	  /* a rule has it so: nothing failed */
	const char *rule; /* of concc-cc(1); static */
	char *text;	  /* one line for a person; owned */
};
/* Takes text.  True. */
bool run_failure_set(struct run_failure *f, enum run_fail what, bool quiet, const char *rule,
		     char *text);

/* ---- for its client, and its worker: run.c, run_start.c, run_home.c, run_stdio.c ---- */

int run_start(struct client *c, struct msg_run *m); /* takes what m holds */
void run_forget_beginning(struct client *c);	    /* it goes */
int run_input(struct run *r, struct blob payload);
int run_output_credit(struct run *r, struct blob payload);
/* All that it said is out: what it did is put in place, or can't be, and the wrapper hears that. */
bool run_is_ending(const struct run *r);
void run_client_gone(struct run *r);
void run_client_drained(struct run *r);
/* Messages of the worker about jobs; a wrong id is ignored (the job was given up). */
int run_message(struct peer *p, uint8_t type, struct blob payload);
void run_peer_gone(struct peer *p, const char *why);

/* ---- eligible.c ---- */

/* Do the peer's jobs see this very program, rather than one that must be the same? */
bool run_serves_exe(const struct peer *p, const char *exe);

/* ---- dispatch.c ---- */

/* The number by which the peer knows such a caller; it is told when it does not. */
uint32_t dispatch_caller(struct peer *p, const struct caller *caller);
/* What must be in this order before a job: what the peer does not know yet, then the job. */
int run_dispatch(struct client *c, struct peer *p, const struct msg_run *m, struct exe *e,
		 char **workspaces, struct run **ret);

/* ---- run.c ---- */

/* The wrapper hears why its job is not done by us, or not there. */
void run_send_back(struct client *c, enum run_fail what, bool quiet, const char *rule,
		   const char *text);
/* Ends the run by sending its wrapper elsewhere.  quiet: as a rule has it, and nothing failed. */
void run_fail(struct run *r, enum run_fail what, bool quiet, const char *rule, const char *text);
void run_free(struct run *r); /* NULL is fine */
/* The worker's word on `job-time` is not all there is. */
void run_start_clock(struct run *r);
/* It is of no use any more: it is killed, and runs at home when its end is known. */
void run_give_up(struct run *r, const char *rule, const char *text);

void run_kill(struct run *r);
/* It goes on there without its wrapper, and comes to nothing: see filling.h.  A server may leave
 * meanwhile.  end(r) when it has not ended by then. */
void run_detach(struct run *r, uint32_t at_most_ms, void (*end)(void *));

/* Its wrapper runs it on this machine now, and it is killed there; or goes on: see filling.h. */
void run_send_home(struct run *r, const char *rule, const char *text);

/* ---- run_home.c ---- */

int run_file(struct run *r, struct blob payload); /* of JOB_FILE */
int run_data(struct run *r, struct blob bytes);	  /* of the file told last; it has a commit */
/* What came until now is to be in place before what comes next is heard. */
int run_announce(struct run *r);
/* False: more than is kept. */
bool run_keep_for_later(struct run *r, uint8_t type, struct blob payload);
/* What came meanwhile, as if it came now.  Its end may be among it.  data: the run, which may be
 * no more afterwards. */
void run_replay(void *data);
/* It has ended by itself, well or not: what it did is put in place, and its end told. */
int run_done(struct run *r, const struct msg_exit *m);

/* ---- run_stdio.c ---- */

/* The worker takes so much more input. */
int run_input_credit(struct run *r, uint32_t n);
/* It printed that. */
int run_output(struct run *r, uint8_t stream, struct blob bytes);
/* What was held of that, since a try that fails must not be seen; then nothing is any more. */
void run_show_held(struct run *r);

/* ---- speculation.c: one job on two workers ---- */

/* It was sent by this message, which is taken when it may be needed a second time. */
void speculation_keep(struct run *r, struct msg_run *m);
/* One without input, of which nothing has been shown yet, and which is on one worker only. */
bool speculation_is_possible(const struct job *j);
/* On a second worker, too.  False when none can have it, or has no slot. */
bool speculation_start(struct job *j);
/* The job is about to show something: from now on there is but one of it. */
void speculation_won(struct run *r);
/* It failed; true when the other one goes on instead, so that the wrapper need not know. */
bool speculation_goes_on(struct run *r);
void speculation_forget(struct run *r); /* it is freed */

#endif
